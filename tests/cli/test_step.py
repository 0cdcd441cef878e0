"""The command `step`, with a manager in memory."""

import io
import json
import os
import subprocess
import sys
from typing import Any

from tests.cli.session import Session
from txcontain.cli import step

STEPS = [
    {"op": op, "about": about, "why": "It is for this (op(2)).", "attack": attack, "test": "t.T.t"}
    for op, about, attack in (
        ("unshare", "mount", ""),
        ("mask", "/proc/\x1b", "read"),
        ("exec", "", ""),
    )
]
CHANGES = [{"of": "mounts", "gone": ["/a"], "new": ["/b\x1b"]}]


def where(at: int, changes: Any = ()) -> dict[str, Any]:
    """Where a launch has stopped."""
    return {"at": at, "pid": 4711, "changes": list(changes)}


class StepTests(Session):
    """What is typed, and what comes."""

    def setUp(self) -> None:
        super().setUp()
        self.begun_at(0)
        self.manager.answers_to("POST /steps/web-1-01/l1", where(1, CHANGES))

    def begun_at(self, number: int) -> None:
        """Have a launch begin, and stop before this step."""
        begun = {"launch": "l1", "steps": STEPS, **where(number)}
        self.manager.answers_to("POST /steps/web-1-01", json.dumps(begun).encode() + b"\n")

    def typed(self, *lines: str, at: str | None = None) -> str:
        """What is printed if these lines are typed."""
        self.patch(sys, "stdin", io.StringIO("\n".join([*lines, ""])))
        words = ["step", *(["--at", at] if at else []), "web", "1", "01"]
        self.assertEqual(self.run_command(*words), 0)
        return self.out

    def asked(self) -> list[Any]:
        """The requests, with their bodies."""
        return [(request.partition(" ")[2], body) for request, body in self.manager.asked]

    def test_next(self) -> None:
        """A step is carried out, and what it has changed can be seen, escaped."""
        out = self.typed("", "d", "quit")
        self.assertIn("Next: 1 unshare mount (of 3)\n", out)
        self.assertIn("Next: 2 mask /proc/\\x1b (of 3)\n", out)
        self.assertIn("mounts:\n  - /a\n  + /b\\x1b\n", out)
        self.assertEqual(self.asked()[1], ("/steps/web-1-01/l1", b'{"to":1}'))

    def test_until(self) -> None:
        """One can go to a step of a name, to a number, and to the last one."""
        for line, to in (("until exec", 2), ("u mask", 1), ("u 2", 1), ("u 99", 2), ("c", 2)):
            self.manager.asked.clear()
            self.typed(line)
            self.assertEqual(self.asked()[1][1], b'{"to":%d}' % to, line)

    def test_at(self) -> None:
        """--at goes there first."""
        self.assertIn("Next: 2 mask", self.typed(at="mask"))

    def test_back(self) -> None:
        """It begins again, and the step before which it then stands is carried out by itself."""
        self.typed("n", "b")
        self.assertEqual(self.asked()[2:], [("/steps/web-1-01", b'{"to":0}')])
        self.manager.asked.clear()
        self.begun_at(2)
        out = self.typed("b", "d")
        went = [("/steps/web-1-01", b'{"to":0}'), ("/steps/web-1-01/l1", b'{"to":1}')]
        self.assertEqual(self.asked()[1:], went)
        self.assertIn("mounts:\n  - /a\n", out)

    def test_the_last_step(self) -> None:
        """The program is never run."""
        self.begun_at(2)
        self.assertIn("Only the program is left to run", self.typed("n"))

    def test_why(self) -> None:
        """What a step is for, and what it prevents."""
        self.assertIn("It is for this (op(2)).\nstep> ", self.typed("why"))
        out = self.typed("n", "w", "l", "?")
        self.assertIn("It prevents: to read.\nThe test: t.T.t\n", out)
        self.assertIn("  1 unshare mount\n> 2 mask /proc/\\x1b\n  3 exec\n", out)
        self.assertIn("The first letter of each does as well", out)

    def test_wrong_words(self) -> None:
        """What can't be done is said, and one can go on."""
        self.typed("until move", "n")
        self.assertIn("No step move is still to come: `list` shows them.", self.err)
        self.assertIn("Next: 2", self.out)

    def test_nothing_changed(self) -> None:
        """That is said, too."""
        self.assertIn("Nothing that /proc tells has changed.", self.typed("d"))

    def test_shell(self) -> None:
        """A shell enters the container as it is; only root's can."""
        ran: list[Any] = []
        self.patch(os, "geteuid", lambda: 0)
        self.patch(subprocess, "run", lambda command, check: ran.append(command))
        self.typed("s")
        self.assertEqual(ran[0][:3], ["nsenter", "--target", "4711"])
        self.patch(os, "geteuid", lambda: 1000)
        self.typed("s")
        self.assertIn("Only root can enter it, on the manager's host.", self.err)

    def without(self, wall: str, *, held: bool) -> int:
        """The exit status of a try to escape without a wall, which is told to be held or not."""
        said = {"purpose": "it hides", "key": "", "does": "reads", "script": "a\nb"}
        about = {"wall": "masks", **said}
        self.manager.answers_to("GET /escapes", {"escapes": [about]})
        tried = {"escaped": True, "ended": "exit status 0", "said": "this\x1b\n"}
        went = {"without": tried, "with": {**tried, "escaped": not held}}
        self.manager.answers_to("POST /escapes/web-1-01", went)
        return self.run_command("step", "--without", wall, "web", "1", "01")

    def test_without_a_wall(self) -> None:
        """What is tried, and how it went without the wall and with it."""
        self.assertEqual(self.without("masks", held=True), 0)
        self.assertIn("masks: it hides.\nWithout it, this reads:\n\n    a\n    b\n", self.out)
        self.assertIn("Without the wall: it got out (exit status 0)\n    this\\x1b\n", self.out)
        self.assertIn("With the wall: held (exit status 0)\n", self.out)
        self.assertEqual(self.manager.asked[-1][1], b'{"without":"masks"}')
        self.assertEqual(self.without("masks", held=False), 1)

    def test_no_such_wall(self) -> None:
        """A wall that there is not is refused, and those there are are named."""
        self.assertEqual(self.without("glass", held=True), 1)
        self.assertIn("There is no wall 'glass'. The walls are: masks", self.err)

    def test_no_sense(self) -> None:
        """An answer that no manager gives is refused."""
        self.manager.answers_to("POST /steps/web-1-01", b'{"steps": 1}\n')
        self.assertEqual(self.run_command("step", "web", "1", "01"), 1)
        self.assertIn("The manager's answer makes no sense", self.err)

    def test_find(self) -> None:
        """A step that lies behind is not found again."""
        launch = step.Launch(self.start, "web-1-01")  # type: ignore[arg-type]  # it asks nobody
        launch.steps, launch.at = STEPS, 1
        self.assertEqual((launch.find("1"), launch.find("exec")), (1, 2))
        self.assertRaises(step.CliError, launch.find, "mask")
