"""The page in a browser, with many instances: how soon it shows them and what happens to them, how
it scrolls, and what the manager pays for one who watches.

It needs ``pip install '.[browser]'`` and Debian's chromium; without one of them it is left out.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from bench import processes
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


def figures(ours: Txcontain, count: int, times: int, lasting: float) -> list[Figure]:
    """All of them, with so many instances running. None if there is no browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    chromium = shutil.which("chromium")
    if chromium is None:
        return []
    manager = ours.manager
    with sync_playwright() as playwright, blank(playwright, chromium) as page:
        began = time.perf_counter()
        page.goto(f"http://127.0.0.1:{manager.port}/")
        page.locator(".tall .row").first.wait_for()
        painted = time.perf_counter() - began
        share = processes.share(manager.process.pid, lasting)
        frames = page.evaluate(SCROLL, 3)
        page.get_by_label("Filter instances").fill(NEW)
        manager.client.close()  # it has been idle for long
        delays = [until_seen(ours, page, f"{NEW}-{number}") for number in range(times)]
    of = f"the page, {count} running"
    return [
        Figure(f"{of}: from its address to its first rows", "s", painted, "the goal", 1, "≤ 1"),
        Figure(f"{of}: one who watches, of a core", "%", share, "the goal", 5, "≤ 5"),
        Figure(f"{of}: frames a second, scrolling", "", frames, "the goal", 50, "≥ 50"),
        Figure(f"{of}: event to screen", "ms", median(delays) * 1e3, "the goal", 150, "≤ 150"),
    ]


@contextmanager
def blank(playwright: Any, chromium: str) -> Iterator[Any]:
    """A page of a new browser, which ends."""
    browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
    try:
        yield browser.new_page(viewport=SIZE)
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
