"""Real launches that one stops: each step, and what is left when nobody looks any more."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.integration.harness import PATIENCE, PROJECT, ManagerCase, free_port, wait_until
from tests.integration.test_exec import Terminal, has_terminal
from tests.integration.variants import VariantCase
from tests.support import needs_networks, needs_user_namespaces

ALL = {
    "user_namespace": True,
    "network": "none",
    "init": True,
    "startup_owner": "worker",
    "disk_size": "16M",
    "volumes": ["v /srv/deep"],
    "files": [{"path": "/etc/own", "content": "x"}],
    "limits": {"memory": "64M", "files": 99},
}


class Launch:
    """A launch that a client steps through, while its connection is open."""

    def __init__(self, test: ManagerCase, config: str, to: int = 0) -> None:
        self.test, self.path = test, f"/steps/{config}"
        netloc = urlsplit(test.url).netloc
        self.connection = http.client.HTTPConnection(netloc, timeout=PATIENCE)
        self.connection.request("POST", self.path, json.dumps({"to": to}))
        self.response = self.connection.getresponse()
        test.addCleanup(self.hang_up)
        self.told = json.loads(self.response.readline()) if self.response.status == 200 else {}

    def to(self, number: int) -> Any:
        """Carry out the steps before one."""
        return self.test.ask("POST", f"{self.path}/{self.told['launch']}", {"to": number})

    def hang_up(self) -> None:
        """Close the connection."""
        self.response.close()
        self.connection.close()


class StepTests(VariantCase):
    """Launches in steps."""

    def config_of(self, **keys: Any) -> str:
        """NAME-MAJOR-MINOR of a new config."""
        return "-".join(self.upload(**self.job("#!/bin/sh\nsleep 60\n", **keys)).values())

    def is_over(self, launch: Launch, number: int) -> bool:
        """Whether no step can follow any more."""
        return launch.to(number).status == 404

    def wait_until_nothing_is_left(self) -> None:
        """No process, mount, group or folder of a launch is there any more."""
        wait_until(lambda: not self.what_is_left(), "nothing is left")

    @needs_user_namespaces
    def test_each_step(self) -> None:
        """One can stop before each step; the program never runs; afterwards all of it is gone."""
        launch = Launch(self, self.config_of(**ALL))
        ops = [one["op"] for one in launch.told["steps"]]
        given = {change["of"]: change["new"] for change in launch.told["changes"]}
        self.assertEqual(len(given["namespaces"]), 3)  # pid, uts and ipc
        self.assertIn(str(64 << 20), " ".join(given["limits of cgroups"]))
        self.assertIn("txcontain", " ".join(given["cgroups"]))
        self.assertEqual({"descriptors", "folders"} & {*given}, set())
        changed: dict[str, set[str]] = {}
        for number in range(1, len(ops)):
            answer = launch.to(number)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.json["at"], number)
            of = {change["of"] for change in answer.json["changes"]}
            changed.setdefault(ops[number - 1], set()).update(of)
        self.assertEqual(changed["unshare"], {"namespaces"})
        self.assertEqual(changed["enter_user_namespace"] & {"namespaces"}, {"namespaces"})
        self.assertEqual(changed["seccomp"], {"powers"})
        self.assertIn("mounts", changed["root_overlay"])
        self.assertIn("limits", changed["limits"])
        self.assertEqual(changed["no_new_privileges"], {"powers"})
        self.assertEqual(launch.to(len(ops)).status, 409)
        launch.hang_up()
        self.wait_until_nothing_is_left()

    @needs_user_namespaces
    def test_every_variant(self) -> None:
        """So can one in any two variants of a config together, and all of them are gone then."""
        for keys in self.variants():
            launch = Launch(self, self.config_of(**keys))
            for number in range(1, len(launch.told["steps"])):
                answer = launch.to(number)
                self.assertEqual(answer.status, 200, (answer.reason, keys))
                self.assertEqual(answer.json["at"], number)
            launch.hang_up()
            self.wait_until_nothing_is_left()

    @needs_networks
    def test_private_network(self) -> None:
        """It has an address on the private network, publishes nothing, and leaves nothing."""
        launch = Launch(self, self.config_of(network="private", ports=[f"{free_port()}:80"]))
        ops = [one["op"] for one in launch.told["steps"]]
        told = launch.to(ops.index("link") + 1).json
        self.assertIn("10.87.", Path(f"/proc/{told['pid']}/net/fib_trie").read_text())
        self.assertEqual(launch.to(len(ops) - 1).status, 200)
        self.assertIn("\ntx", Path("/proc/net/dev").read_text())
        launch.hang_up()
        self.wait_until_nothing_is_left()
        wait_until(lambda: "\ntx" not in Path("/proc/net/dev").read_text(), "no link is left")

    def test_gone_with_its_client(self) -> None:
        """If the client hangs up, wherever the launch is, it ends, and no step can follow."""
        config = self.config_of()
        steps = len(Launch(self, config).told["steps"])
        for number in (0, steps // 2, steps - 1):
            launch = Launch(self, config, number)
            self.assertEqual(launch.told["at"], number)
            launch.hang_up()
            wait_until(partial(self.is_over, launch, steps - 1), "it is over")
        self.assertEqual(self.ask("GET", "/instances").json["instances"], [])

    def test_gone_amid_a_step(self) -> None:
        """A step that waits for others does not keep a launch whose client has hung up."""
        first = Launch(self, self.config_of(volumes=["v /srv/deep"]))
        first.hang_up()
        self.wait_until_nothing_is_left()
        (lock,) = self.state.glob("volumes/v/*.json")
        waits = re.compile(rf"-> FLOCK .*:{lock.stat().st_ino} ")
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            connection = http.client.HTTPConnection(urlsplit(self.url).netloc)
            to = len(first.told["steps"]) - 1
            connection.request("POST", first.path, json.dumps({"to": to}))
            wait_until(lambda: waits.search(Path("/proc/locks").read_text()), "it waits")
            connection.close()
            self.wait_until_nothing_is_left()

    def test_gone_with_the_manager(self) -> None:
        """A manager that stops ends it first; what one leaves that is killed, the next removes."""
        launch = Launch(self, self.config_of(), 20)
        self.manager.terminate()
        self.manager.wait(PATIENCE)
        self.wait_until_nothing_is_left()
        self.assertIn("the manager ends", launch.response.readline().decode())
        self.start()
        Launch(self, self.config_of(), 20)
        self.manager.send_signal(signal.SIGKILL)
        self.manager.wait()
        self.start()
        self.wait_until_nothing_is_left()

    def test_bounded(self) -> None:
        """Only so many launches are stepped through at a time."""
        config = self.config_of()
        launches = [Launch(self, config) for _ in range(5)]
        self.assertEqual([one.response.status for one in launches], [200] * 4 + [409])

    def test_refused(self) -> None:
        """What is not there can't be stepped through, no step is done twice, no wall left out."""
        launch = Launch(self, self.config_of(), 5)
        self.assertEqual(launch.to(4).status, 409)
        self.assertEqual(self.ask("POST", f"{launch.path}/0123", {"to": 7}).status, 404)
        self.assertEqual(Launch(self, "none-1-1").response.status, 404)
        answering = self.config_of(network="private", ports=["1:1"], per_connection=True)
        self.assertEqual(Launch(self, answering).response.status, 409)
        path = launch.path.replace("steps", "escapes")
        self.assertEqual(self.ask("POST", path, {"without": "masks"}).status, 403)

    def test_a_step_that_fails(self) -> None:
        """Its error is that of a launch: the step's number and name, and why."""
        launch = Launch(self, self.config_of(startup_owner="nobody-here"))
        ops = [one["op"] for one in launch.told["steps"]]
        answer = launch.to(len(ops) - 1)
        self.assertEqual(answer.status, 409)
        self.assertIn(f"step {ops.index('user') + 1} of {len(ops)}", answer.json["detail"])
        self.assertIn("over", json.loads(launch.response.readline()))
        where = f"step {ops.index('user') + 1} of {len(ops)}"
        at_once = Launch(self, launch.path.rpartition("/")[2], len(ops) - 1)
        self.assertIn(where, at_once.response.read().decode())
        beyond = Launch(self, self.config_of(), len(ops) + 9)
        self.assertEqual(beyond.response.status, 409)

    def test_a_shell_at_a_terminal(self) -> None:
        """A shell enters it as it stands, Ctrl-C ends what runs there, and one goes on after it."""
        program = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, "step"]
        at = ["--at", "hostname", *self.config_of(network="none").split("-")]
        terminal = Terminal(["setsid", "--ctty", "--wait", *program, *at])
        self.addCleanup(terminal.close)
        wait_until(lambda: terminal.shows("step> "), "it waits at the prompt")
        terminal.type("shell\n")
        wait_until(lambda: terminal.after("shell").strip(), "the shell waits")
        terminal.type("cat /job/run; echo is $((40 + 2)); sleep 1000\n")
        wait_until(lambda: terminal.shows("is 42"), "it runs")
        self.assertIn("sleep 60", terminal.screen)
        wait_until(lambda: has_terminal(self.folder, "sleep", "1000"), "it waits")
        terminal.type("\3")
        terminal.type("echo is $((40 + 3))\n")
        wait_until(lambda: terminal.shows("is 43"), "it goes on")
        terminal.type("exit\n")
        wait_until(lambda: "step> " in terminal.after("is 43"), "it waits at the prompt again")
        said = terminal.after("is 43").replace("\r", "").partition("exit\n")[2]
        self.assertEqual(said.partition("step> ")[0], "")
        terminal.type("next\n")
        wait_until(lambda: terminal.shows("close_descriptors"), "it has gone on")
        terminal.type("quit\n")
        self.assertEqual(terminal.process.wait(PATIENCE), 0)
        self.wait_until_nothing_is_left()

    def test_at_the_prompt(self) -> None:
        """A person goes on, back and into it, and sees what a step has changed."""
        config = self.config_of(network="none").split("-")
        done = subprocess.run(
            [PROJECT / "cli/step", "--at", "hostname", *config],
            input="n\nd\nw\nshell\nb\nc\nn\nq\n",
            env={**os.environ, "TXCONTAIN_URL": self.url},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        self.assertEqual(done.stderr, "")
        self.assertRegex(done.stdout, r"Next: \d+ hostname test-step")
        self.assertRegex(done.stdout, r"Next: \d+ exec /job/run")
        self.assertIn("Only the program is left to run", done.stdout)
        self.wait_until_nothing_is_left()
