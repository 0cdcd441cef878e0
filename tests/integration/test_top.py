"""`txcontain top` on a terminal: tmux presses the keys, and tells what is on the screen."""

import os
import re
import shlex
import subprocess
import sys

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from tests.support import needs_tmux

TOP = [sys.executable, "-c", "from txcontain.cli.main import main; main()"]
WIDTH, HEIGHT = 110, 30
PATIENCE = 60.0  # seconds, for what takes one


@needs_tmux
class TopTests(ManagerCase):
    """Two instances, and a terminal."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("front", "back"):
            script = f"#!/bin/sh\ntrap : WINCH\necho this is {name}; while :; do sleep 1; done\n"
            config = self.config(**self.job(script, stop_timeout=0))
            self.ask("POST", "/instances", {"config": config, "instance": name})
        self.tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), self.command())
        self.addCleanup(self.tmux, "kill-server", check=False)
        self.see("front", "back", "running", "CPU")

    def command(self) -> str:
        """What runs in the terminal; its status is shown when it has ended."""
        words = shlex.join([*TOP, "--url", self.url, "top"])
        return f"env LANG=C.UTF-8 PYTHONPATH={PROJECT} {words}; echo left $?; sleep 60"

    def tmux(self, *words: str, check: bool = True) -> str:
        """Tell this test's own tmux something; returns what it says."""
        command = ["tmux", "-u", "-f", os.devnull, "-S", str(self.folder / "tmux"), *words]
        return subprocess.run(command, check=check, capture_output=True, text=True).stdout

    def press(self, *keys: str) -> None:
        """Press keys."""
        self.tmux("send-keys", *keys)

    def screen(self) -> str:
        """What is on the screen."""
        return self.tmux("capture-pane", "-p")

    def see(self, *words: str, but: str = "\0") -> None:
        """Fail unless all of these are soon on the screen, and something else is not."""

        def seen() -> bool:
            text = self.screen()
            return all(word in text for word in words) and but not in text

        try:
            wait_until(seen, f"{words} on the screen", PATIENCE)
        except AssertionError:
            self.fail(f"{words}, and not {but!r}, is not on the screen:\n{self.screen()}")

    def test_figures(self) -> None:
        """Each instance has bars of what it has used; they grow while one looks."""
        wait_until(lambda: re.search("front .*[▁-█]{3}", self.screen()), "bars", PATIENCE)
        self.see("2 running")

    def test_filter_and_page(self) -> None:
        """A filter leaves one; Enter tells more of it, Esc goes back, and takes the filter away."""
        self.press("/", "b", "a", "c")
        self.see("/bac_", "back", but="front")
        self.press("Enter")
        self.press("Enter")
        self.see("Config", "Restarts", "Memory", "the last", "at most")
        self.press("Escape")
        self.see("/bac", "INSTANCE", but="front")
        self.press("Escape")
        self.see("front", "back")
        self.press("?")
        self.see("a shell in it")
        self.press("q")
        self.see("INSTANCE")
        self.press("q")
        self.see("left 0")

    def test_other_commands(self) -> None:
        """The log, a shell and the explanation take the terminal, and give it back."""
        self.press("j", "l")
        self.see("this is back", but="INSTANCE")
        self.press("C-c")
        self.see("INSTANCE", "front")
        self.press("s")
        self.see("#", but="INSTANCE")
        self.press("echo $((6*7)); exit", "Enter")
        self.see("42", "[Enter: back]")  # what is typed before that is thrown away
        self.press("Enter")
        self.see("INSTANCE")
        self.press("e")
        self.see("scratch", but="INSTANCE")  # where the script works
        self.press("q")
        self.see("INSTANCE")
        self.press("C-c")
        self.see("left 0")

    def test_manager_gone(self) -> None:
        """If the manager is gone, that is said; when it is back, all goes on, in any size."""
        self.manager.kill()
        self.manager.wait()
        self.see("front", "8080" if self.port == 8080 else str(self.port))
        self.start()
        self.see("INSTANCE", "? keys")
        self.tmux("resize-window", "-x", "50", "-y", "8")
        self.see("front", "back")
        longest = max(map(len, self.screen().splitlines()))
        self.assertLessEqual(longest, 50)

    def test_unknown_terminal(self) -> None:
        """On a terminal that nobody knows, it says so, and ends."""
        self.tmux("new-window", f"env TERM=nonsense {self.command().removeprefix('env ')}")
        self.see("This terminal can't show it: ", "`txcontain ps` can.", "left 1")
