"""The lessons, each command of theirs run for real: ``make lessons_tests``.

A page's blocks are one session of root's (``txcontain/cli/lesson.py``). That with the word
``check`` is that of the exercise: it must fail before the block after it, the solution, and hold
after it, and so must ``lesson check``.

``LESSONS=write make lessons_tests`` writes the real output into the pages, to be read before it
is committed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import PATIENCE, wait_until
from tests.support import PROGRAMS, PROJECT, needs_root
from txcontain.cli.lesson import (
    SHELL,
    Block,
    as_at_a_terminal,
    blocks_of,
    masked,
    pages,
    plain,
)

END = "lesson-command-has-ended"
KINDS = ("--mount", "--pid", "--net", "--uts", "--ipc")
PLACE = "/mnt"  # there, in the lesson's own mount namespace, is a file system of its own
CGROUPS = [Path("/sys/fs/cgroup", controller, "lesson") for controller in ("", "memory", "pids")]


class Shell:
    """Root's shell in namespaces of its own, which end with it, and so does all that is in them."""

    within = PATIENCE

    def __init__(self) -> None:
        self.process: Any = subprocess.Popen(
            ["unshare", *KINDS, "--fork", "--mount-proc", "--kill-child", *SHELL],
            env={"PATH": PROGRAMS, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """What a command writes. :raises AssertionError: if it takes too long or ends the shell"""
        # It finds in $? how the command before it ended.
        end = f"printf '\\n{END}\\n'\n"
        lines = ("{ (exit $status)", command, "} </dev/null", "status=$?", end)
        output = ""
        with self._bounded(), contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("\n".join(lines))
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line == f"{END}\n":
                    return as_at_a_terminal(output)
                output += line
        raise AssertionError(f"took more than {self.within} s, or ended: {command}\n{output}")

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        watchdog = threading.Timer(self.within, self.process.kill)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """End all that runs in it; return when nothing is left. It may be called again."""
        if self.process.stdout.closed:
            return
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.read()  # until the last one that could write has gone
        self.process.stdout.close()
        self.process.wait()
        for path in CGROUPS:
            wait_until(functools.partial(is_removed, path), f"{path} is removed")


def is_removed(cgroup: Path) -> bool:
    """Remove a cgroup, if there is one; False as long as there are processes in it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            cgroup.rmdir()
        except OSError:
            return not cgroup.exists()
    return True


class LessonCase(SynchronousTestCase):
    """A test with a shell, in an empty folder but for the base image."""

    def shell(self) -> Shell:
        """A new shell, which is closed at the end of the test."""
        shell = Shell()
        self.addCleanup(shell.close)
        for command in (
            f"mount -t tmpfs tmpfs {PLACE} && cd {PLACE} && ip link set lo up",
            f"ln -s {PROJECT} txcontain && ln -s txcontain/base_images/basefs.tar.gz",
        ):
            self.assertEqual(shell.run(command), "")  # else the page would work elsewhere
        return shell

    def check(self, page: Path) -> None:
        """Run a page's blocks, and compare; or write what they answer, if that is wanted."""
        shell, blocks = self.shell(), iter(blocks_of(page.read_text()))
        for block in blocks:
            if "check" in block.words:
                self.exercise(shell, page, block, next(blocks))
            else:
                self.compare(shell, page, block)

    def exercise(self, shell: Shell, page: Path, check: Block, solution: Block) -> None:
        """An exercise's check fails before the solution, and holds after it."""
        for command, output in check.commands:
            said = masked(shell.run(plain(command)), check.words)
            self.assertNotEqual(said, masked(output, check.words), f"{page.name}: solved before")
        self.compare(shell, page, solution)
        self.compare(shell, page, check)

    def compare(self, shell: Shell, page: Path, block: Block) -> None:
        """Run a block's commands; each writes what the page says."""
        for command, output in block.commands:
            got = shell.run(plain(command))
            if masked(got, block.words) == masked(output, block.words):
                continue
            if os.environ.get("LESSONS") == "write":
                was, now = (f"# {command}\n{said}" for said in (output, got))
                page.write_text(page.read_text().replace(was, now, 1))
                continue
            self.assertEqual(got, output, f"{page.name}: {command}")


@needs_root
class Lessons(LessonCase):
    """The pages, one test for each."""

    def exercise(self, shell: Shell, page: Path, check: Block, solution: Block) -> None:
        """The command that checks it says the same."""
        number = int(page.name[:2])
        command = f"{PROJECT}/cli/lesson check {number} | tail -n 1"
        self.assertEqual(shell.run(command), f"Lesson {number} is not solved yet.\n")
        super().exercise(shell, page, check, solution)
        self.assertEqual(shell.run(command), f"Lesson {number} is solved.\n")


def add_test(page: Path) -> None:
    """Have the class test a page."""

    def test(self: Lessons) -> None:
        self.check(page)

    test.__doc__ = f"{page.name}: what it says is what happens, and its exercise has a solution."
    setattr(Lessons, f"test_{page.stem.replace('-', '_')}", test)


for one in pages():
    add_test(one)


@needs_root
class Shells(LessonCase):
    """What runs the pages."""

    def test_as_at_a_terminal(self) -> None:
        """A shell keeps its folder, variables and last status, and talks as at a terminal."""
        shell = self.shell()
        self.assertEqual(shell.run("mkdir a; cd a; x=1"), "")
        self.assertEqual(shell.run("echo $x; pwd; (exit 3)"), f"1\n{PLACE}/a\n")
        self.assertEqual(shell.run("echo $?"), "3\n")
        self.assertEqual(shell.run("printf a"), "a\n")
        self.assertEqual(shell.run("cat"), "")
        self.assertEqual(shell.run("cat <<END\na\nEND"), "a\n")
        self.assertEqual(
            shell.run("nothing-of-this-name"), "bash: nothing-of-this-name: command not found\n"
        )

    def test_bounded(self) -> None:
        """A command that does not end is ended, with all that runs, and its cgroup is removed."""
        shell = self.shell()
        cgroup = next(path for path in reversed(CGROUPS[:2]) if path.parent.is_dir())
        shell.run(f"mkdir {cgroup}; (echo 0 >{cgroup}/cgroup.procs; exec sleep 1000) &")
        shell.within = 1
        with self.assertRaisesRegex(AssertionError, "took more than 1 s, or ended: sleep 1001"):
            shell.run("sleep 1001")
        shell.close()
        self.assertFalse(cgroup.exists())


@needs_root
class Checks(LessonCase):
    """What is found in a page that is wrong."""

    def found_in(self, text: str) -> str:
        """What fails in a page of this text."""
        self.patch(os, "environ", {})  # nothing is to be written
        page = Path(self.mktemp())
        page.write_text(text)
        return str(self.assertRaises(self.failureException, self.check, page))

    def test_output(self) -> None:
        """A command that writes something else than the page says is named."""
        said = self.found_in("```console\n# echo a\na\n# echo b\nc\n```\n")
        self.assertIn("echo b", said)
        self.assertNotIn("echo a", said)

    def test_exercises(self) -> None:
        """A check holds only after the solution."""
        block = "```console{}\n# {}\n{}```\n"
        check = block.format(" check", "cat file", "a\n")
        unsolved = self.found_in(check + block.format("", "echo b >file", ""))
        self.assertIn("cat file", unsolved)
        solved = block.format("", "echo a >file", "")
        self.assertIn("solved before", self.found_in(solved + check + solved))
