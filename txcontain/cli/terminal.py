"""The screen of `txcontain top` on a terminal: draws it, reads keys, and runs other commands."""

import curses
import locale
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txcontain.cli.client import Json, quoted
from txcontain.cli.errors import CliError, Refused
from txcontain.cli.overview import (
    ALERT,
    ASCII_BARS,
    BARS,
    CHOSEN,
    FAINT,
    HEAD,
    PLAIN,
    SHORT,
    Action,
    View,
)
from txcontain.cli.screen import COLOURS, GREEN, YELLOW, has_colour
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

EVERY, KEYS_EVERY = 1.0, 0.03  # seconds
NOT_FOUND = 404  # HTTP's status
ESCAPE_WITHIN = 25  # milliseconds, in which the rest of a key comes after its escape
NAMES = {
    "\n": "enter",
    "\r": "enter",
    "\x1b": "esc",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "^C",
    "\x06": "^F",
    "\x02": "^B",
}
SPECIAL = {
    "KEY_UP": "k",
    "KEY_DOWN": "j",
    "KEY_HOME": "g",
    "KEY_END": "G",
    "KEY_NPAGE": "^F",
    "KEY_PPAGE": "^B",
    "KEY_BACKSPACE": "backspace",
    "KEY_ENTER": "enter",
}
POINTS = 300  # that a graph may have
LEFT = {"available": int}
HOST = {"pressure": {}, "memory": LEFT, "disk": LEFT}


async def watch(client: "Client", arguments: Namespace) -> int:
    """Show the instances until the user leaves."""
    locale.setlocale(locale.LC_ALL, "")
    utf8 = "utf-8" in locale.getpreferredencoding(False).lower()
    view = View(BARS if utf8 else ASCII_BARS)
    window = Window()
    try:
        await fetch(client, view)
        if view.trouble:
            raise CliError(view.trouble)
        return await Watcher(client, arguments, view, window).run()
    finally:
        window.close()


async def fetch(client: "Client", view: View) -> None:
    """Ask the manager how things are; if it does not answer, the view says why."""
    try:
        records = await client.instances()
        told = await history(client, f"last={SHORT}")
        if view.page == "one":
            with suppress(CliError):  # it is gone: the page says so
                told |= await history(client, f"last={POINTS}&instance={quoted(view.chosen)}")
        view.update(records, told, await host(client))
    except CliError as error:
        view.trouble = str(error)


async def host(client: "Client") -> Json:
    """Return how the machine is; nothing if the manager is older than this question."""
    try:
        return await client.ask("GET", "/host", shape=HOST)
    except Refused as error:
        if error.code != NOT_FOUND:
            raise
        return {}


async def history(client: "Client", query: str) -> Json:
    """Return what instances have used, by name."""
    shape = {"instances": dict}
    return (await client.ask("GET", f"/stats/history?{query}", shape=shape))["instances"]


class Watcher:
    """Draws what there is, and does what keys say."""

    def __init__(
        self, client: "Client", arguments: Namespace, view: View, window: "Window"
    ) -> None:
        self.client, self.arguments, self.view, self.window = client, arguments, view, window
        self.asking = False

    async def run(self) -> int:
        """Go on until the user leaves."""
        due = time.monotonic() + EVERY
        self.window.draw(self.view)
        while True:
            await self.client.pause(KEYS_EVERY)
            while key := self.window.key():
                action = self.view.press(key)
                if action and action.verb == "quit":
                    return 0
                if action:
                    await self.do(action)
                self.window.draw(self.view)
            if time.monotonic() >= due and not self.asking:
                due = time.monotonic() + EVERY
                self.asking = True
                Deferred.fromCoroutine(fetch(self.client, self.view)).addBoth(self.answered)

    def answered(self, _: Any) -> None:
        """The manager has answered, or not."""
        self.asking = False
        self.window.draw(self.view)

    async def do(self, action: Action) -> None:
        """Leave the screen for another command, and come back."""
        if action.verb == "explain":
            path = f"/instances/{quoted(action.instance)}/explain"
            try:
                text = b"".join([chunk async for chunk in self.client.feed(path, False)])
            except CliError as error:
                self.view.trouble = str(error)
                return
            self.window.leave()
            show(plain(text.decode(errors="replace")))
        else:
            more = {"logs": ["-f", "--tail", "200"], "shell": []}[action.verb]
            self.window.leave()
            run([*here(self.arguments), action.verb, *more, action.instance])
        self.window.come_back()


def here(arguments: Namespace) -> list[str]:
    """Return the words that call this program for the same manager."""
    program = "from txcontain.cli.main import main; main()"
    words = [sys.executable, "-c", program, "--url", arguments.url]
    for name in ("ca", "cert", "key"):
        if path := getattr(arguments, name, None):
            words += [f"--{name}", str(path)]
    return words


def run(words: list[str]) -> None:
    """Run a command on this terminal until it ends, also by Ctrl-C, which is then only for it."""
    folder = str(Path(__file__).parents[2])
    before = signal.signal(signal.SIGINT, lambda *_: None)  # the command does not inherit this
    try:
        status = subprocess.run(words, env={**os.environ, "PYTHONPATH": folder}).returncode
        if status != -signal.SIGINT:
            wait_for_enter()
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for_enter() -> None:
    """Let the user read what is there."""
    sys.stdout.write("\n[Enter: back]")
    sys.stdout.flush()
    sys.stdin.readline()


def show(text: str) -> None:
    """Show a long text page by page."""
    pager = shutil.which("less") or shutil.which("more")
    if pager is None:
        print(text)
        wait_for_enter()
    else:
        subprocess.run([pager], input=text.encode())


class Window:
    """The terminal, as curses has it."""

    def __init__(self) -> None:
        """Begin.

        :raises CliError: if this terminal can't be used so
        """
        os.environ.setdefault("ESCDELAY", str(ESCAPE_WITHIN))
        try:
            self.screen = curses.initscr()
            curses.noecho()
            curses.raw()
            self.screen.keypad(True)
            self.screen.nodelay(True)
        except curses.error as error:
            raise CliError(f"This terminal can't show it: {error}. `txcontain ps` can.") from error
        with suppress(curses.error):  # it can't be hidden
            curses.curs_set(0)
        self.styles = {
            PLAIN: curses.A_NORMAL,
            HEAD: curses.A_BOLD,
            CHOSEN: curses.A_REVERSE,
            FAINT: curses.A_DIM,
            ALERT: curses.A_BOLD,
        }
        if has_colour() and curses.has_colors():
            self._add_colours()

    def _add_colours(self) -> None:
        curses.start_color()
        curses.use_default_colors()
        colours = (curses.COLOR_GREEN, curses.COLOR_YELLOW, curses.COLOR_RED)
        for pair, colour in enumerate(colours, 1):
            curses.init_pair(pair, colour, -1)
        pairs = {GREEN: curses.color_pair(1), YELLOW: curses.color_pair(2)}
        self.styles |= {state: pairs.get(how, curses.A_DIM) for state, how in COLOURS.items()}
        self.styles[ALERT] = curses.color_pair(3) | curses.A_BOLD

    def draw(self, view: View) -> None:
        """Draw all of it; curses sends only what has changed."""
        height, width = self.screen.getmaxyx()
        self.screen.erase()
        for y, line in enumerate(view.screen_of(width, height)):
            x = 0
            for text, style in line:
                try:
                    self.screen.addstr(y, x, text, self.styles.get(style, curses.A_NORMAL))
                except curses.error:  # the last cell of the screen: it is drawn all the same
                    break
                x += len(text)
        self.screen.refresh()

    def key(self) -> str:
        """Return the key that was pressed; "" if none was."""
        try:
            key = self.screen.get_wch()
        except curses.error:
            return ""
        if isinstance(key, int):
            return SPECIAL.get(curses.keyname(key).decode(), "resize")
        return NAMES.get(key, key)

    def leave(self) -> None:
        """Give the terminal to another program."""
        curses.endwin()

    def come_back(self) -> None:
        """Take it again."""
        curses.raw()
        self.screen.clear()
        self.screen.refresh()

    def close(self) -> None:
        """Leave the terminal as it was."""
        curses.endwin()
