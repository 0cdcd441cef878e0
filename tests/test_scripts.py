"""The scripts that run the tests, with fakes of what they call."""

import os
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder

PROJECT = Path(__file__).resolve().parents[1]


class ScriptCase(SynchronousTestCase):
    """A test of a script, in whose PATH fakes come first."""

    def setUp(self) -> None:
        self.folder = make_folder(self)

    def fake(self, name: str, text: str) -> None:
        """Have the script find this instead of a program."""
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)

    def run_script(self, *words: str, **environment: str) -> Any:
        """How a script ends, and what it writes."""
        path = f"{self.folder}:{os.defpath}"
        result = subprocess.run(
            [PROJECT / words[0], *words[1:]],
            env={"PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return result.returncode, result.stdout + result.stderr


class CiTests(ScriptCase):
    """.ci/run, where make plays the tests."""

    def ran(self, line: Any) -> Any:
        """How it ends when the tests end with this line."""
        self.fake("make", f'echo "$1, CI is $CI"; [ "$1" = lint ] || echo "{line}"')
        return self.run_script(".ci/run")

    def test_passed(self) -> None:
        """All tests, the lowest packages and the style pass; the tests know that they are in CI."""
        status, said = self.ran("PASSED (successes=7)")
        self.assertEqual(status, 0, said)
        for target in ("test", "lowest", "lint"):
            self.assertIn(f"{target}, CI is 1\n", said)
        self.assertIn("14 passed, 0 failed", said)

    def test_skipped(self) -> None:
        """A test that was skipped has not passed; nor have tests that were not run."""
        for line, why in (
            ("PASSED (skips=1, successes=7)", "Tests were skipped"),
            ("nothing", "Not all tests have run"),
        ):
            status, said = self.ran(line)
            self.assertEqual(status, 1)
            self.assertIn(why, said)
            self.assertNotIn("0 failed", said)


class AsRootTests(ScriptCase):
    """scripts/as-root."""

    def setUp(self) -> None:
        super().setUp()
        self.fake("sudo", 'echo "sudo $@"')

    def test_through_sudo(self) -> None:
        """sudo keeps what tells the tests and the measurements how to run."""
        self.fake("id", "echo 1000")
        status, said = self.run_script("scripts/as-root", "echo", "-n")
        self.assertEqual(status, 0)
        self.assertEqual(
            said,
            "sudo --preserve-env=CI,SOAK_SEED,SOAK_SECONDS,TORTURE_SEED,"
            "TORTURE_SECONDS,MACHINE_SEED,MACHINE_LIVES,BENCH,BENCH_PEERS "
            "-- echo -n\n",
        )

    def test_as_root(self) -> None:
        """Root needs no sudo."""
        self.fake("id", "echo 0")
        self.assertEqual(self.run_script("scripts/as-root", "echo", "a  b"), (0, "a  b\n"))
