"""The page in a browser, with many instances: how soon it shows what happens, how it scrolls.

It needs ``pip install '.[browser]'`` and Debian's chromium; without one of them it is left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench.contestants import Txcontain
from bench.measure import Figure

NEW = "seen"  # how the names of instances begin that are launched to be seen
SIZE = {"width": 1280, "height": 800}
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
# Frames a second while the list moves by a row in each of them.
SCROLL = """seconds => new Promise(done => {
    const box = document.querySelector(".rows");
    const began = performance.now();
    let frames = 0;
    const step = () => {
        box.scrollTop = (box.scrollTop + 40) % (box.scrollHeight - box.clientHeight);
        frames += 1;
        const passed = performance.now() - began;
        passed < 1000 * seconds ? requestAnimationFrame(step) : done(1000 * frames / passed);
    };
    requestAnimationFrame(step);
})"""
# The time, in unix seconds, of the frame after the one that shows this text.
SHOWN = """text => new Promise(done => {
    const look = () => document.querySelector(".rows")?.innerText.includes(text)
        ? requestAnimationFrame(() => done(Date.now() / 1000))
        : requestAnimationFrame(look);
    look();
})"""


def figures(ours: Txcontain, count: int, times: int) -> list[Figure]:
    """Both, with so many instances running. None if there is no browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    chromium = shutil.which("chromium")
    if chromium is None:
        return []
    with sync_playwright() as playwright, opened(playwright, chromium, ours.manager.port) as page:
        page.locator(".tall .row").first.wait_for()
        frames = page.evaluate(SCROLL, 3)
        page.get_by_label("Filter instances").fill(NEW)
        ours.manager.client.close()  # it has been idle for long
        delays = [until_seen(ours, page, f"{NEW}-{number}") for number in range(times)]
    of = f"the page, {count} running"
    return [
        Figure(f"{of}: frames a second, scrolling", "", frames, "the goal", 50, "≥ 50"),
        Figure(f"{of}: event to screen", "ms", median(delays) * 1e3, "the goal", 150, "≤ 150"),
    ]


@contextmanager
def opened(playwright: Any, chromium: str, port: int) -> Iterator[Any]:
    """The page, in a browser that ends."""
    browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
    try:
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
    finally:
        browser.close()


def until_seen(ours: Txcontain, page: Any, name: str) -> float:
    """Seconds from the first event of a new instance until it is drawn."""
    client, config = ours.manager.client, dict(next(ours.configs))
    asked = {"instance": name, "config": config.pop("name"), **config}
    begun = page.evaluate_handle(f"({{shown: ({SHOWN})({name!r})}})")
    client.ask("POST", "/instances", asked)
    shown: float = page.evaluate("begun => begun.shown", begun)
    client.send_off("GET", "/events?tail=20")
    events = map(json.loads, client.answer_bytes().splitlines())
    happened: float = next(one["time"] for one in events if one.get("instance") == name)
    ours.manager.destroy(name)
    return shown - happened
