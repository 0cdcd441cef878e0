"""The scripts that run the tests, with fakes of what they call."""

import contextlib
import io
import os
import runpy
import shutil
import socket
import subprocess
import sys
import time
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
        for target in ("test", "lowest", "swarm_round", "lint"):
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
            "TORTURE_SECONDS,MACHINE_SEED,MACHINE_LIVES,"
            "ENDURANCE_LIVES,ENDURANCE_RESTARTS,BENCH,BENCH_PEERS,PYENV_ROOT "
            "-- echo -n\n",
        )

    def test_as_root(self) -> None:
        """Root needs no sudo."""
        self.fake("id", "echo 0")
        self.assertEqual(self.run_script("scripts/as-root", "echo", "a  b"), (0, "a  b\n"))


class StepTests(ScriptCase):
    """scripts/step, which shows one line in place of many."""

    def setUp(self) -> None:
        super().setUp()
        self.name = f"test-{os.getpid()}"  # another process may run these tests, too
        self.log = PROJECT / f"setup-{self.name}.log"
        self.addCleanup(self.log.unlink, missing_ok=True)

    def step(self, command: str) -> Any:
        """How a step ends, and what it writes."""
        return self.run_script("scripts/step", self.name, "Testing", "/bin/sh", "-c", command)

    def test_done(self) -> None:
        """What a command says goes to the log; of two calls only the last one's is there."""
        self.step("echo first")
        status, said = self.step("echo many lines; echo more >&2")
        self.assertEqual(status, 0)
        self.assertRegex(said, r"^Testing \.\.\.\nTesting: done in \d+ s\n$")
        self.assertEqual(self.log.read_text(), "many lines\nmore\n")

    def test_failed(self) -> None:
        """If it fails, the end of what it said is shown, with the place of the rest."""
        status, said = self.step("seq 30; exit 3")
        self.assertEqual(status, 1)
        self.assertNotIn("\n10\n", said)
        self.assertIn("\n11\n", said)
        self.assertIn(f"\n30\nTesting: failed. The end of {self.log.name} is above.\n", said)

    def test_on_a_terminal(self) -> None:
        """On a terminal a line shows, over itself, for how long it runs and what it said last."""
        log = Path(self.folder, "log")
        step = runpy.run_path(str(PROJECT / "scripts/step"))
        self.patch(time, "monotonic", lambda: 65.4)
        for said, shown in (
            ("", "Testing: 60 s  "),
            ("one\ntwo\n\nthr", "Testing: 60 s  two"),
            ("10 %\r20 %\x1b[2J\n", "Testing: 60 s  20 %[2J"),
            ("x" * 9999 + "\n", "Testing: 60 s  " + "x" * 64),
        ):
            log.write_text(said)
            terminal = io.StringIO()
            with contextlib.redirect_stdout(terminal):
                step["show"]("Testing", 5.0, log)
            self.assertEqual(terminal.getvalue(), f"\r\x1b[K{shown}")


# It tells what it is asked, until it is asked to end.
FAKE_MANAGER = """
import http.server, socket, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_DELETE(self):
        print(self.path, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(sys.argv[1]))
server.serve_forever()
"""


class ManagerTests(ScriptCase):
    """scripts/manager."""

    def copy(self) -> str:
        """A copy of the script, for a folder of its own."""
        script = Path(self.folder, "scripts/manager")
        script.parent.mkdir()
        return str(shutil.copy(PROJECT / "scripts/manager", script))

    def test_clean_stacks(self) -> None:
        """Stacks are taken down before all is destroyed: else their instances come back."""
        script, state = self.copy(), Path(self.folder, "state")
        for name in ("stacks", "instances/shop-db-1"):
            (state / name).mkdir(parents=True)
        for name in ("shop.json", ".shop.json.tmp", "blog.json"):
            (state / "stacks" / name).touch()
        with socket.create_server(("127.0.0.1", 0)) as server:
            words = str(server.fileno()), "containerd-lite", "--port", str(server.getsockname()[1])
            manager = subprocess.Popen(
                [sys.executable, "-c", FAKE_MANAGER, *words],
                pass_fds=[server.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.addCleanup(manager.kill)
            (state / "twistd.pid").write_text(str(manager.pid))
            status, said = self.run_script(script, "clean")
        asked = manager.communicate(timeout=60)[0].splitlines()
        self.assertEqual(sorted(asked[:2]), ["/stacks/blog?wait=1", "/stacks/shop?wait=1"])
        self.assertEqual(asked[2:], ["/destroyall"])
        self.assertEqual(status, 0)
        self.assertIn("Removed: 2 stacks, 1 container, 0 configs.\n", said)

    def test_bad_port(self) -> None:
        """A port that is none is refused, before anything is done."""
        for port in ("x", "0", "65536", "-1", "²"):
            said = f"PORT must be a number from 1 to 65535, not '{port}'.\n"
            self.assertEqual(self.run_script("scripts/manager", "start", port), (1, said))

    def test_clean(self) -> None:
        """What was removed is said, and what stays."""
        script, state = self.copy(), Path(self.folder, "state")
        for name in ("configs", "volumes/data", "secrets", "instances"):
            (state / name).mkdir(parents=True)
        for name in ("configs/web-1-0.cfg", "configs/.web-1-1.cfg.tmp", "secrets/.x.tmp"):
            (state / name).touch()
        self.assertEqual(
            self.run_script(script, "clean"),
            (0, "Removed: 0 stacks, 0 containers, 1 config.\nWhat stays, in state/: volumes.\n"),
        )
        self.assertEqual(os.listdir(state / "configs"), [".web-1-1.cfg.tmp"])
        shutil.rmtree(state / "volumes")
        said = "Removed: 0 stacks, 0 containers, 0 configs.\n"
        self.assertEqual(self.run_script(script, "clean"), (0, said))
