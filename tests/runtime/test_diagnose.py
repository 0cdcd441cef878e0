"""What a failed launch says."""

import errno
import os
from itertools import product
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.plan import Plan
from txcontain.container.spec import Port
from txcontain.errors import CannotRun, ConfigAtFault, Error, MachineAtFault, NoSuchProgram
from txcontain.host.os_errors import CAUSES, of_os
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.diagnose import (
    FROM_CONFIG,
    of_command,
    of_early_end,
    of_port,
    of_step,
    of_tool,
)
from txcontain.runtime.exits import Exit

PLAN: list[tuple[str, dict[str, Any]]] = [
    ("unshare", {"namespaces": ["mount"]}),
    ("overlay", {"target": "/data", "lower": ["/layers/x"]}),
    ("mask", {"path": "/proc/kcore", "source": "/dev/null"}),
    ("user", {"owner": "www", "capabilities": []}),
    ("exec", {"path": "/run.sh", "arguments": [], "environment": []}),
]


def failed(
    step: int = 0,
    call: str = "unshare",
    number: int = 1,
    path: str = "",
    cause: str = "",
    hint: str = "",
) -> Any:
    """What an init says of a failed step."""
    return StepFailed(
        {"step": step, "call": call, "errno": number, "path": path, "cause": cause, "hint": hint}
    )


class StepTests(SynchronousTestCase):
    """A step of a plan."""

    def test_chain(self) -> None:
        """The chain leads from the step by the call, its errno and the path to cause and hint."""
        error = of_step(
            PLAN,
            failed(
                4, "execve", errno.ENOENT, "/run.sh", "it is not there", "correct startup_script"
            ),
        )
        self.assertEqual(
            error.chain,
            (
                "step 5 of 5, exec /run.sh",
                "execve(2)",
                "ENOENT: No such file or directory",
                "/run.sh",
                "it is not there",
                "correct startup_script",
            ),
        )

    def test_objects(self) -> None:
        """A step is named with what it is about: its target, path or owner, if any."""
        named = [of_step(PLAN, failed(step)).chain[0] for step in range(5)]
        self.assertEqual(
            named,
            [
                "step 1 of 5, unshare",
                "step 2 of 5, overlay /data",
                "step 3 of 5, mask /proc/kcore",
                "step 4 of 5, user www",
                "step 5 of 5, exec /run.sh",
            ],
        )

    def test_without_call(self) -> None:
        """If no system call failed, the function is named, and there is no errno."""
        error = of_step(PLAN, failed(3, "getpwnam", 0, "/etc/passwd", "no user www is in it"))
        self.assertEqual(
            error.chain,
            ("step 4 of 5, user www", "getpwnam(3)", "/etc/passwd", "no user www is in it"),
        )

    def test_known_causes(self) -> None:
        """What is known of an errno is said, unless the init said something better."""
        for number, (cause, hint) in CAUSES.items():
            self.assertEqual(of_step(PLAN, failed(number=number)).chain[-2:], (cause, hint))
        self.assertEqual(
            of_step(PLAN, failed(number=errno.ENOSPC, cause="a", hint="b")).chain[-2:], ("a", "b")
        )

    def test_unknown_errno(self) -> None:
        """An errno that has no name is shown as a number."""
        self.assertIn("4095", of_step(PLAN, failed(number=4095)).chain[2])

    def test_whose_fault(self) -> None:
        """A config is at fault for its own steps and for errors it can cause; else the machine."""
        for step, (op, _) in enumerate(PLAN):
            for number in errno.errorcode:
                expected = (
                    ConfigAtFault
                    if op in ("overlay", "user", "exec") and number in FROM_CONFIG
                    else MachineAtFault
                )
                self.assertIsInstance(of_step(PLAN, failed(step, number=number)), expected)
        self.assertIsInstance(of_step(PLAN, failed(3, number=0)), ConfigAtFault)
        self.assertIsInstance(of_step(PLAN, failed(4, number=errno.ENOENT)), NoSuchProgram)
        self.assertIsInstance(of_step(PLAN, failed(4, number=errno.EACCES)), CannotRun)
        self.assertIsInstance(of_step(PLAN, failed(4, number=errno.ENOSPC)), MachineAtFault)

    def test_alike(self) -> None:
        """What keeps a program from running is the same for PID 1 and for a command."""
        plan = [("user", {"owner": "www"}), ("workdir", {"path": "/x"}), ("exec", {"path": "/y"})]
        for step, number in product(range(3), (0, errno.ENOENT, errno.EACCES, errno.EIO)):
            failure = failed(step, number=number)
            self.assertIs(type(of_step(plan, failure)), type(of_command(plan, failure)))
        self.assertIsInstance(of_step(plan, failed(1, number=errno.ENOENT)), CannotRun)


class OtherTests(SynchronousTestCase):
    """What else can go wrong."""

    def test_os(self) -> None:
        """An error of the operating system is told by name, with its path and its cause."""
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/state/x")
        self.assertEqual(
            of_os(error),
            "ENOSPC: No space left on device → /state/x → "
            "the disk that holds the state folder is full",
        )
        self.assertEqual(of_os(OSError(errno.EIO, "Input/output error")), "EIO: Input/output error")

    def test_os_without_errno(self) -> None:
        """One without an errno is told by its text."""
        self.assertIn("rm: cannot remove", of_os(OSError("rm: cannot remove x")))

    def test_tool(self) -> None:
        """If a program of the host can't be run, the machine is at fault."""
        error = of_tool("unpacking x.tar", [], failed(4, "execve", errno.ENOENT, "/usr/bin/tar"))
        self.assertIsInstance(error, MachineAtFault)
        self.assertEqual(error.chain[:2], ("unpacking x.tar", "execve(2)"))

    def test_too_small(self) -> None:
        """A volume that has no room for what fills it says its size; one without a size, the disk
        is full.
        """
        plan: Plan = [
            ("disk", {"path": "/m", "size": 9}),
            ("volume", {"source": "/m", "target": "/x"}),
        ]
        full = failed(1, "volume", errno.ENOSPC, "/x")
        for error in (of_tool("importing", plan, full), of_step(plan, full)):
            small = ("it takes more than the volume's size, 9 bytes", "make a larger volume")
            self.assertEqual(error.chain[-2:], small)
        for other in (plan[1:] * 2, plan[:1] * 2):
            self.assertEqual(of_step(other, full).chain[-1], "free some space")

    def test_early_end(self) -> None:
        """The error of a script that ended too early has its exit, and its last words if any."""
        how = Exit(status=3, reason="exit status 3")
        self.assertEqual(
            of_early_end("/run.sh", 8000, how, "no such module").chain,
            (
                "/run.sh ended before it listened on port 8000",
                "exit status 3",
                "its last words: no such module",
            ),
        )
        self.assertIn("wrote nothing", of_early_end("/run.sh", 8000, how, "").chain[2])

    def test_port(self) -> None:
        """The error of a taken port says which process has it."""
        error = of_port(Port("127.0.0.1", 8000, 8000, "tcp"), "the instance web-1")
        self.assertEqual(error.chain[:2], ("port 8000 is taken", "by the instance web-1"))

    def test_one_line(self) -> None:
        """A chain reads as one line, from the outermost to the innermost."""
        self.assertEqual(str(Error("a", "b", "c")), "a → b → c")
