"""The command run, against a fake manager in memory."""

import io
import json
import os
import signal
import sys
from typing import Any
from unittest.mock import Mock

from twisted.internet import reactor

from tests.cli.session import Session
from txcontain.cli import run
from txcontain.cli.client import Client
from txcontain.cli.errors import HungUp
from txcontain.cli.main import parser
from txcontain.cli.run import MOST_PASSED_ON, PASSED_ON, pass_signals_on

LAUNCHED = {"instance": "job", "name": "basefs", "major": "0", "minor": "0"}
STOPPED = {**LAUNCHED, "state": "stopped", "since": 0, "pid": None, "restarts": 0, "exit": None}
EXIT = {"status": 3, "signal": None, "reason": "exit status 3"}
PLAIN = {"name": "basefs", "major": "0", "minor": "0", "base_image": "basefs.tar.gz"}


class RunTests(Session):
    """What is sent, what is printed, and with what status it ends."""

    def setUp(self) -> None:
        super().setUp()
        self.stderr: Any = io.TextIOWrapper(io.BytesIO(), "utf-8")
        self.patch(sys, "stderr", self.stderr)
        self.passed: list[str] = []
        self.patch(run, "pass_signals_on", lambda client, name: self.passed.append(name))
        self.manager.answers_to("POST /instances", LAUNCHED)
        logs = "GET /instances/job/logs?stream={}&follow=1"
        self.manager.answers_to(logs.format("stdout"), b"out\n")
        self.manager.answers_to(logs.format("stderr"), b"err\n")
        self.manager.answers_to("GET /instances/job/wait", {"exit": EXIT})
        self.manager.answers_to("DELETE /destroy/job", status=404)

    @property
    def err(self) -> str:
        """All that was complained about."""
        self.stderr.flush()
        return self.stderr.buffer.getvalue().decode()

    def sent(self) -> Any:
        """The launch that was asked for."""
        return json.loads(dict(self.manager.asked)["POST /instances"])

    def test_attached(self) -> None:
        """Both streams are shown where they belong, and its status is the command's."""
        self.assertEqual(self.run_command("run", "basefs.tar.gz", "ls", "-l", "--", "-d"), 3)
        self.assertEqual((self.out, self.err, self.passed), ("out\n", "err\n", ["job"]))
        config = {**PLAIN, "command": ["ls", "-l", "--", "-d"], "init": True}
        self.assertEqual(self.sent(), {"config": config})

    def test_unwritten(self) -> None:
        """If nobody reads its output any more, it is stopped, though it would run on."""
        self.manager.answers_to("GET /instances/job/wait", None)
        self.manager.answers_to("GET /instances/job/logs?stream=stderr&follow=1", None)
        self.manager.answers_to("POST /instances/job/stop", STOPPED)
        self.patch(run, "emit", Mock(side_effect=BrokenPipeError))
        self.assertEqual(self.run_command("run", "basefs.tar.gz", "yes"), 128 + 13)
        self.assertEqual(self.manager.asked[-1][0], "POST /instances/job/stop")
        self.assertEqual(self.run_command("run", "--rm", "basefs.tar.gz", "yes"), 128 + 13)
        self.assertEqual(self.manager.asked[-1][0], "DELETE /destroy/job")

    def test_hung_up(self) -> None:
        """If the manager ends meanwhile, the container is not removed; where it is, is said."""
        self.patch(Client, "wait", Mock(side_effect=HungUp("Hung up: run this command again.")))
        self.assertEqual(self.run_command("run", "--rm", "basefs.tar.gz", "ls"), 125)
        self.assertIn("The manager has ended, and job may run on", self.err)
        self.assertNotIn("DELETE /destroy/job", dict(self.manager.asked))

    def test_detached(self) -> None:
        """Only its name is printed, and nothing waits for it."""
        self.assertEqual(self.run_command("run", "-d", "--name", "job", "basefs.tar.gz", "ls"), 0)
        self.assertEqual((self.out, len(self.manager.asked)), ("job\n", 1))
        config = {**PLAIN, "command": ["ls"], "init": False}
        self.assertEqual(self.sent(), {"config": config, "instance": "job"})

    def test_options(self) -> None:
        """Each option is a key of the config."""
        self.patch(os, "environ", {"HERE": "x=y"})
        words = "-d -e A=1 -e HERE -p 8080:80 -v data:/data -v /srv/w:/w:ro -u www:33 -w /data"
        self.run_command("run", *words.split(), "-m", "256m", "my fs.tar.gz", "ls")
        self.assertEqual(
            self.sent()["config"],
            {
                **PLAIN,
                "name": "my-fs",
                "base_image": "my fs.tar.gz",
                "command": ["ls"],
                "init": False,
                "startup_env": ["A=1", "HERE=x=y"],
                "ports": ["8080:80"],
                "network": "private",
                "volumes": ["data /data", "/srv/w /w READ"],
                "startup_owner": "www:33",
                "workdir": "/data",
                "limits": {"memory": "256M"},
            },
        )

    def test_removed(self) -> None:
        """The manager is told to remove it, and it is gone when the command ends."""
        self.assertEqual(self.run_command("run", "--rm", "basefs.tar.gz", "ls"), 3)
        self.assertTrue(self.sent()["remove"])
        self.assertEqual(self.manager.asked[-1][0], "DELETE /destroy/job")

    def test_inside(self) -> None:
        """With -i or -t it runs in an idle container, which is stopped after it, or removed."""
        self.manager.answers_to("POST /instances/job/stop", STOPPED)
        asked: list[Any] = []

        async def run_inside(client: Any, given: Any, *words: Any) -> int:
            asked.append((given.instance, given.user, given.env, given.workdir, *words))
            return 3

        self.patch(run, "run_inside", run_inside)
        words = "-i -e A=1 -u www -w /srv basefs.tar.gz cat -".split()
        self.assertEqual(self.run_command("run", *words), 3)
        self.assertEqual(asked, [("job", None, [], "/srv", ["cat", "-"], True, False)])
        config = {**PLAIN, "startup_owner": "www", "startup_env": ["A=1"]}
        self.assertEqual(self.sent(), {"config": config})
        self.assertEqual(self.manager.asked[-1][0], "POST /instances/job/stop")
        self.assertEqual(self.run_command("run", "--rm", *words), 3)
        self.assertEqual(self.manager.asked[-1][0], "DELETE /destroy/job")

    def test_inside_a_swarm(self) -> None:
        """Where nothing is stopped it is removed; another refusal is told."""

        async def run_inside(*_: Any) -> int:
            return 3

        self.patch(run, "run_inside", run_inside)
        self.manager.answers_to("DELETE /destroy/job")
        for kind, status, last in (
            ("not-in-swarm", 3, "DELETE /destroy/job"),
            ("wrong-state", 125, "POST /instances/job/stop"),
        ):
            problem = {"type": f"urn:txcontain:{kind}", "title": "No", "detail": "x", "chain": []}
            self.manager.answers_to(
                "POST /instances/job/stop",
                problem,
                status=501,
                Content_Type="application/problem+json",
            )
            self.assertEqual(self.run_command("run", "-i", "basefs.tar.gz", "cat"), status)
            self.assertEqual(self.manager.asked[-1][0], last)

    def test_refused(self) -> None:
        """What is not there is 127, what can't be run is 126, and all else is 125."""
        for kind, status in (("no-such-program", 127), ("cannot-run", 126), ("config", 125)):
            problem = {"type": f"urn:txcontain:{kind}", "title": "No", "detail": "x", "chain": []}
            self.manager.answers_to(
                "POST /instances", problem, status=409, Content_Type="application/problem+json"
            )
            self.assertEqual(self.run_command("run", "basefs.tar.gz", "ls"), status)
        self.assertEqual((self.out, self.err), ("", "No: x\n" * 3))

    def test_images(self) -> None:
        """An OCI image may say itself what is run, unless a command is run beside it."""
        for image, name in (
            ("debian:12", "debian"),
            ("registry:5000/a/web.app:1.4", "web"),
            ("docker.io/library/debian@sha256:0", "debian"),
        ):
            self.manager.asked.clear()
            self.assertEqual(self.run_command("run", image), 3)
            config = {**PLAIN, "name": name, "base_image": image, "init": True}
            self.assertEqual(self.sent(), {"config": config})
        self.assertEqual(self.run_command("run", "-i", "debian:12"), 125)
        self.assertIn("Say what to run in it", self.err)

    def test_inside_an_image(self) -> None:
        """A command beside PID 1 has none of the image's programs beside it."""
        asked = run.config_of(parser().parse_args(["run", "-i", "debian:12", "ls"]))
        self.assertIsNone(asked["startup_script"])
        self.assertNotIn("command", asked)

    def test_nothing_to_run(self) -> None:
        """Without a command, and with an option that makes no sense, nothing is sent."""
        self.assertEqual(self.run_command("run", "basefs.tar.gz"), 125)
        self.assertIn("Say what to run in it", self.err)
        self.assertEqual(self.run_command("run", "-di", "basefs.tar.gz", "ls"), 125)
        self.assertIn("choose one of them", self.err)
        for words in (("-e", "NO_SUCH"), ("-v", "data"), ("-v", "a:b"), ("--network", "x")):
            self.assertRaises(SystemExit, self.run_command, "run", *words, "basefs.tar.gz", "ls")
        self.assertEqual(self.manager.asked, [])


class SignalTests(Session):
    """Signals that this program gets."""

    def setUp(self) -> None:
        super().setUp()
        for number in PASSED_ON:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        loop: Any = reactor
        self.patch(loop, "callFromThread", lambda call, *words: call(*words))
        self.sent: list[tuple[str, int]] = []
        self.client: Any = self

    def kill(self, instance: str, number: int) -> Any:
        """In place of the client's."""

        async def kill() -> None:
            self.sent.append((instance, number))
            if number == signal.SIGHUP:
                raise ValueError("it has ended")

        return kill()

    def test_passed_on(self) -> None:
        """The container gets them; those that are ignored here stay so."""
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        pass_signals_on(self.client, "job")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        self.assertEqual(self.sent, [("job", signal.SIGTERM), ("job", signal.SIGHUP)])
        self.assertEqual(self.err, "The signal did not reach job: it has ended\n")
        self.assertEqual(signal.getsignal(signal.SIGQUIT), signal.SIG_IGN)

    def test_a_way_out(self) -> None:
        """After some, the next one ends this program, and that is said."""
        pass_signals_on(self.client, "job")
        for _ in range(MOST_PASSED_ON):
            signal.raise_signal(signal.SIGINT)
        self.assertEqual(len(self.sent), MOST_PASSED_ON)
        said = "\njob has not ended: once more leaves it, and lets it run on.\n"
        self.assertEqual(self.err, said)
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_DFL)
