"""The terminal of a container's own program: what leads to it, and what can't end it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
from functools import partial
from pathlib import Path

from tests.integration.harness import wait_until
from tests.integration.test_exec import CommandCase, Terminal, has_terminal
from tests.support import needs_user_namespaces

MEGABYTE = 1 << 20
BOUND = {"log_max_size": MEGABYTE // 2, "log_max_files": 2}
FLOOD = f"#!/bin/sh\nwhile :; do echo {'y' * 1000}; done\n"
# It closes its terminal, and after a while opens it again.
CLOSE = """\
echo before
exec </dev/null >/dev/null 2>&1
sleep 0.2
echo again >/dev/pts/0
exec sleep 60
"""
SHELL = {"tty": True, "command": ["sh"]}
# It counts for ever, a line at a time, and says what signals it gets from its terminal.
COUNT = """\
trap 'echo hung up' HUP
i=0
while :; do i=$((i+1)); echo "line $i."; sleep 0.01; done
"""


class TerminalCase(CommandCase):
    """A test whose containers have terminals."""

    def attach(self, instance: str, *words: str) -> Terminal:
        """Be attached to an instance."""
        terminal = self.type_at("attach", *words, instance)
        wait_until(terminal.is_raw, "it is attached")
        return terminal

    def size(self, instance: str) -> tuple[int, ...]:
        """How large its terminal is, in rows and columns."""
        path = f"/proc/{self.pid(instance)}/root/dev/pts/0"
        descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        try:
            return struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))[:2]
        finally:
            os.close(descriptor)

    def pid(self, instance: str) -> int:
        """Its PID 1, as the host sees it."""
        pid: int = self.ask("GET", f"/instances/{instance}").json["pid"]
        return pid

    def size_of_log(self, instance: str) -> int:
        """How many bytes of it are kept."""
        folder = self.state / "instances" / instance / "log"
        total = 0
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was the oldest
                total += path.stat().st_size
        return total

    def shown(self, instance: str) -> str:
        """What it has shown."""
        return self.ask("GET", f"/instances/{instance}/logs").body.decode()

    def is_held_by_all(self) -> bool:
        """Whether the manager, if there is one, and both log processes hold a terminal."""
        managers = [self.manager.pid] if self.manager.poll() is None else []
        pids = [*managers, *self.log_processes()]
        return all(any("ptmx" in each for each in open_files(pid)) for pid in pids)

    def kill_log_processes(self, *which: int) -> None:
        """Kill some of the two processes, or both at once; others come in their place.

        Before and after that, all hold the terminal: its program ends with the last of them.
        """
        wait_until(self.is_held_by_all, "all hold the terminal")
        pids = sorted(self.log_processes())
        for each in which:
            os.kill(pids[each], signal.SIGKILL)

        def are_new() -> bool:
            now = self.log_processes()
            return len(now) == 2 and not {pids[each] for each in which} & {*now}

        wait_until(are_new, "there are two again")
        wait_until(self.is_held_by_all, "all hold the terminal again")


def open_files(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for each in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # it is closed meanwhile
            found.append(os.readlink(each))
    return found


class AttachTests(TerminalCase):
    """Keys, window and end pass through; it can be left, and come back to."""

    def test_attach(self) -> None:
        """Two are attached: both see all, either types; one leaves, and the end is the other's."""
        instance = self.launch(**SHELL)
        first = self.attach(instance)
        wait_until(lambda: self.size(instance) == (30, 100), "its window is as large as this")
        first.resize(40, 120)
        os.kill(first.process.pid, signal.SIGWINCH)
        wait_until(lambda: self.size(instance) == (40, 120), "a change is told")
        second = self.attach(instance, "--detach-keys", "ctrl-x,d")
        second.type("readlink /proc/self/fd/1; echo $TERM $((1+1))\r")
        for terminal in first, second:
            wait_until(partial(terminal.shows, "xterm 2"), "both see what one has typed")
            self.assertIn("/dev/pts/0", terminal.screen)
        first.type("cat\r")
        wait_until(lambda: second.shows("cat\r\n"), "both see it")
        wait_until(lambda: has_terminal(self.folder, "cat"), "cat runs")
        first.type("\x03")
        wait_until(lambda: "# " in second.after("^C"), "Ctrl-C has ended it")
        first.type("echo B$((1+1))\r")
        wait_until(lambda: second.shows("B2"), "and it only")
        first.type("echo \x10\x11")
        self.assertEqual(first.process.wait(30), 0)
        self.assertEqual(termios.tcgetattr(first.slave), first.before)
        self.assertTrue(first.shows(f"{instance} runs on: txcontain attach {instance}"))
        second.type("\x10C$((1+1)) \x18e\r")
        wait_until(lambda: second.shows("C2"), "other keys are passed on")
        second.type("exit 4\r")
        self.assertEqual(second.process.wait(30), 4)
        refused = self.command("exec", instance, "true")
        self.assertEqual(refused.returncode, 125)

    def test_run(self) -> None:
        """run -it shows all from the start; what is left is removed with --rm only at its end."""
        terminal = self.type_at("run", "--rm", "-it", "--name", "job", "small.tar", "sh")
        terminal.type("echo A$((1+1)); readlink /proc/$$/fd/0; echo $TERM\r")
        wait_until(lambda: terminal.shows("A2") and terminal.shows("vt100"), "it was typed ahead")
        self.assertIn("/dev/pts/0", terminal.screen)
        terminal.type("\x10\x11")
        self.assertEqual(terminal.process.wait(30), 0)
        self.assertEqual(self.running(), ["job"])
        again = self.attach("job")
        again.type("exit 5\r")
        self.assertEqual(again.process.wait(30), 5)
        wait_until(lambda: self.ask("GET", "/instances").json == {"instances": []}, "it is gone")
        quick = self.type_at("run", "-it", "small.tar", "sh", "-c", "echo quick; exit 6")
        self.assertEqual(quick.process.wait(30), 6)
        self.assertTrue(quick.shows("quick\r\n"))
        left = self.command("run", "-dt", "--name", "left", "small.tar", "sh")
        self.assertEqual((left.stdout, left.returncode), ("left\n", 0))
        self.assertEqual(self.size("left"), (24, 80))

    def test_refused(self) -> None:
        """There must be a terminal, on both sides; and what can't be run is said as ever."""
        instance = self.launch()
        answer = self.ask("GET", f"/instances/{instance}/attach")
        self.assertIn("this is a WebSocket", answer.reason)
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
        }
        answer = self.ask("GET", f"/instances/{instance}/attach", **headers)
        self.assertEqual(answer.status, 409)
        self.assertIn(f"{instance} has no terminal", answer.reason)
        done = self.type_at("run", "-it", "small.tar", "fly")
        self.assertEqual(done.process.wait(30), 127)
        piped = self.command("run", "-it", "small.tar", "sh", input="")
        self.assertEqual(piped.returncode, 125)
        self.assertIn("-t needs a terminal", piped.stderr)


class LastingTests(TerminalCase):
    """Neither the manager's end nor the log process's ends the program, or loses what it shows."""

    def test_killed(self) -> None:
        """All lines are in the log, once, whatever is killed meanwhile; and keys arrive after."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{COUNT}", tty=True))
        pid = self.pid(instance)
        for which in ((0,), (1,), (0, 1)):
            self.kill_log_processes(*which)
        self.manager.kill()
        self.manager.wait()
        self.kill_log_processes(0)
        self.start()
        self.kill_log_processes(0, 1)
        before = len(self.shown(instance))
        wait_until(lambda: len(self.shown(instance)) > before + 100, "it goes on")
        self.assertEqual(self.pid(instance), pid)
        lines = self.shown(instance).split("\r\n")[:-1]
        self.assertEqual(lines, [f"line {i + 1}." for i in range(len(lines))])
        terminal = self.attach(instance)

        def has_ended() -> bool:  # a PID 1 takes no notice of it; what it waits for does
            terminal.type("\x03")
            return terminal.process.poll() is not None

        wait_until(has_ended, "Ctrl-C ends it")
        self.assertEqual(terminal.process.returncode, 130)

    def test_restarted(self) -> None:
        """Who is attached stays that when it is started again, with the same window."""
        keys = {"restart": "always", "init": True}
        instance = self.launch(**SHELL, **keys)
        terminal = self.attach(instance)
        first = self.pid(instance)
        terminal.type("exit 7\r")
        wait_until(lambda: self.pid(instance) not in (None, first), "it is started again")
        wait_until(lambda: "# " in terminal.after("exit 7\r\n"), "there is a prompt again")
        wait_until(lambda: self.size(instance) == (30, 100), "its window is as large as before")
        terminal.type("echo D$((1+1))\r")
        wait_until(lambda: terminal.shows("D2"), "it takes keys")


class UnreadableTests(TerminalCase):
    """The log can't be read, from which the terminal is shown."""

    def test_unreadable(self) -> None:
        """Who attaches is told why nothing is shown; afterwards all is there, and keys arrive."""
        instance = self.launch(**SHELL)
        log = self.state / "instances" / instance / "log"
        wait_until(lambda: "# " in self.shown(instance), "there is a prompt")
        for path in (log, *log.glob("*.log")):
            aside = path.with_name("aside")
            path.rename(aside)
            path.symlink_to(path.name)
            try:
                terminal = self.type_at("attach", instance)
                self.assertEqual(terminal.process.wait(60), 125)
                wait_until(partial(terminal.shows, f"the log of {instance}"), "it says why")
                self.assertIn("attach again", terminal.screen)
            finally:
                path.unlink()
                aside.rename(path)
        self.kill_log_processes(0, 1)
        terminal = self.attach(instance)
        terminal.type("echo E$((1+1)); exit 9\r")
        self.assertEqual(terminal.process.wait(60), 9)
        self.assertTrue(terminal.shows("E2"))


class HostileTests(TerminalCase):
    """What a container does with its terminal harms nobody else."""

    def test_hostile(self) -> None:
        """One floods it, one reads nothing, one closes it, and someone stops looking."""
        flood = self.launch(**self.job(FLOOD, tty=True, **BOUND))
        silent = self.launch(tty=True, command=["sleep", "60"])
        closed = self.launch(**self.job(f"#!/bin/sh\n{CLOSE}", tty=True))
        typist = self.attach(silent)
        looker = self.attach(flood)
        typist.type("x" * 3000)
        wait_until(lambda: self.size_of_log(flood) > MEGABYTE * 3 // 4, "it is full")
        wait_until(lambda: "again" in self.shown(closed), "it has opened it again")
        self.assertLessEqual(self.size_of_log(flood), MEGABYTE + (64 << 10))
        self.assertEqual(set(self.running()), {flood, silent, closed})
        typist.type("\x10\x11")
        self.assertEqual(typist.process.wait(30), 0)
        looker.process.kill()
        wait_until(lambda: self.ask("GET", "/list").status == 200, "the manager answers")

    @needs_user_namespaces
    def test_without_root(self) -> None:
        """It is the user's own, also in a user namespace, and with an init."""
        for keys in ({"user_namespace": True, "init": True}, {}):
            instance = self.launch(**SHELL, startup_owner="worker", **keys)
            terminal = self.attach(instance)
            terminal.type("ls -ln /dev/pts/0; : >/dev/tty && echo E$((1+1)); exit 9\r")
            self.assertEqual(terminal.process.wait(30), 9)
            self.assertTrue(terminal.shows("E2"))
            self.assertRegex(terminal.screen, r"crw--w---- 1 1000 +\d+ 136, 0")
