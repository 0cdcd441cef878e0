"""Stacks for real: the commands, and a manager that is killed at any moment of a change."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.integration.harness import PATIENCE, PROJECT, ManagerCase, wait_until
from tests.integration.hosts import HERE
from tests.integration.probes import PRELUDE
from tests.integration.test_life import SABOTAGE
from tests.integration.test_network import REACH, SERVER, SOON, NetworkCase, reach

# A server in a container: it answers each datagram with its hostname.
DATAGRAMS = """
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((b"0.0.0.0", 53))
while True:
    listener.sendto(socket.gethostname().encode(), listener.recvfrom(100)[1])
"""
FOREVER = "trap exit TERM; while :; do sleep 0.05; done"


class ServicesTests(ManagerCase):
    """A stack of three services, of which one runs once."""

    pool = 2

    def setUp(self) -> None:
        super().setUp()
        for minor in ("1", "2"):
            self.upload(**self.job(FOREVER, name="web", major="1", minor=minor))
        self.upload(**self.job("exit 3", name="web", major="1", minor="3"))
        self.upload(**self.job("exit 0", name="task", major="1", minor="1"))

    def stop(self) -> None:
        """Take all stacks down, and stop the manager; the case proves that nothing is left."""
        if self.manager.poll() is None:
            for stack in self.ask("GET", "/stacks").json["stacks"]:
                self.ask("DELETE", f"/stacks/{stack['stack']}?wait=1")
        super().stop()

    def stack(self, minor: str = "1", replicas: int = 2) -> dict[str, Any]:
        """The stack, with a version of its service."""
        config = {"config": f"web-1-{minor}", "update": {"monitor": 1}}
        network = {} if replicas == 1 else {"replicas": replicas}
        return {
            "stack": "shop",
            "services": {
                "db": {"config": "web-1-1"},
                "task": {"config": "task-1-1", "run": "once", "after": {"db": "healthy"}},
                "app": {**config, **network, "after": {"task": "completed_successfully"}},
            },
        }

    def up(self, stack: Any) -> list[Any]:
        """Have it come up; returns the lines of the answer."""
        answer = self.ask("POST", "/stacks?wait=1", stack)
        self.assertEqual(answer.status, 200, answer.body)
        return [json.loads(line) for line in answer.body.splitlines()]

    def states(self) -> dict[str, str]:
        """The state of each service."""
        return {
            one["service"]: one["state"] for one in self.ask("GET", "/services").json["services"]
        }

    def txcontain(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the CLI."""
        environment = {**os.environ, "TXCONTAIN_URL": self.url}
        command = [str(PROJECT / "cli" / words[0]), *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def test_commands(self) -> None:
        """up does what diff shows; a broken version is rolled back; down leaves nothing."""
        path = Path(self.folder) / "shop.json"
        path.write_text(json.dumps(self.stack(replicas=1)))
        shown = self.txcontain("diff", str(path)).stdout.splitlines()
        done = self.txcontain("up", str(path))
        self.assertEqual(done.returncode, 0, done.stderr)
        launches = [line for line in done.stdout.splitlines() if ": launch" in line]
        self.assertEqual([line.partition(": ")[2] for line in launches], shown[3:])
        self.assertEqual(self.txcontain("diff", str(path)).stdout, "nothing to do\n")
        broken = self.txcontain("update", "app", "1", "3")
        self.assertEqual(broken.returncode, 1, broken.stdout)
        self.assertRegex(broken.stderr, "^app: rolled back: shop-app-1 ended: exit status 3")
        for words in (["update", "app", "1", "2"], ["rollback", "app"], ["down", "shop"]):
            result = self.txcontain(*words)
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.states(), self.ask("GET", "/instances").json["instances"]), ({}, []))


class KilledTests(NetworkCase):
    """A manager that is killed at each step of a rolling update."""

    def setUp(self) -> None:
        super().setUp()
        for minor in ("1", "2"):
            self.upload(**self.job(FOREVER, name="web", major="1", minor=minor))

    def stack(self, number: int, order: str) -> dict[str, Any]:
        """Two replicas and another service; with each number the other version."""
        update = {"order": order, "monitor": 0.05}
        app = {"config": f"web-1-{1 + number % 2}", "replicas": 2, "drain": 0.1, "update": update}
        return {"stack": "shop", "services": {"app": app, "other": {"config": "web-1-1"}}}

    def instances(self) -> dict[str, Any]:
        """What the list tells of each instance, by its name."""
        return {one["instance"]: one for one in self.ask("GET", "/instances").json["instances"]}

    def stop(self) -> None:
        """Take the stack down, and stop the manager."""
        self.kill_at(0)
        if self.manager.poll() is None:
            self.ask("DELETE", "/stacks/shop?wait=1")
        super().stop()

    def kill_at(self, step: int, after: float = 0.0) -> None:
        """Have the manager be killed in place of a step, or seconds after that; 0: of none."""
        (self.folder / "steps").write_text(f"{step} {after}")

    def start(self, **environment: str) -> None:
        """Start a manager that is to be killed at some step."""
        path = f"{SABOTAGE}:{PROJECT}"
        super().start(PYTHONPATH=path, SABOTAGE_STEPS=str(self.folder / "steps"), **environment)

    def survives(self, stack: Any) -> bool:
        """Whether the manager lives through an update."""
        with contextlib.suppress(OSError, http.client.HTTPException):  # it dies before it answers
            answer = self.ask("POST", "/stacks?wait=1", stack)
            if answer.body.endswith(b'{"outcome":"done","wrong":[]}\n'):
                return True
        self.assertEqual(self.manager.wait(PATIENCE), -signal.SIGKILL)
        return False

    def look(self, stack: Any, pid: int) -> None:
        """All comes to what is wished; no instance was lost or is there twice, others run on."""
        wait_until(self.is_done, "the next manager has gone on to the end")
        plan = self.ask("POST", "/stacks?dry_run=1", stack).json
        self.assertEqual((plan["changes"], plan["steps"]), ([], []))
        instances = self.instances()
        self.assertEqual(instances.pop("shop-other-1")["pid"], pid)
        wished = stack["services"]["app"]["config"]
        found = [(one["state"], f"web-1-{one['minor']}") for one in instances.values()]
        self.assertEqual(found, [("running", wished)] * 2)
        self.assertEqual(len({pid, *(one["pid"] for one in instances.values())}), 3)
        wait_until(lambda: len(self.tokens()) == 3, "nothing runs beside the three")

    def is_done(self) -> bool:
        """Whether all services are as wished."""
        services = self.ask("GET", "/services").json["services"]
        return {one["state"] for one in services} == {"done"}

    def tokens(self) -> set[str]:
        """The containers of which there is a process, a group or a folder."""
        slots = self.state.glob("run/slots/*")
        return {path.name for path in (*slots, *self.cgroups_left())}

    def kill_at_each_step(self, order: str) -> int:
        """Kill the manager at each step of an update, in turn; returns how many there are."""
        self.kill_at(0)
        self.assertTrue(self.survives(self.stack(0, order)))
        pid = self.instances()["shop-other-1"]["pid"]
        for number in itertools.count(1):
            stack = self.stack(number, order)
            self.kill_at(number, 0.02 * (number % 2))  # seconds: before it, or in the middle of it
            if self.survives(stack):
                return number - 1
            self.kill_at(0)
            self.start()
            self.look(stack, pid)
        raise AssertionError

    def test_stop_first(self) -> None:
        """The next manager brings it to its end, and no instance is lost or there twice."""
        self.assertEqual(self.kill_at_each_step("stop-first"), 6)

    def test_start_first(self) -> None:
        """The same if a new one serves before an old one goes."""
        self.assertEqual(self.kill_at_each_step("start-first"), 6)


class NamesTests(NetworkCase):
    """Two stacks that have a service of the same name."""

    def stop(self) -> None:
        """Take the stacks down, and stop the manager."""
        if self.manager.poll() is None:
            for stack in ("one", "two"):
                self.ask("DELETE", f"/stacks/{stack}?wait=1")
        super().stop()

    def test_names(self) -> None:
        """Each instance finds the service of its own stack; others must say of which stack."""
        web = self.job(PRELUDE + SERVER, startup_env="PORT=80")
        self.upload(**web, name="web", major="1", minor="1")
        ask = 'print(reach("web", 80), reach("web.two", 80), flush=True)'
        asker = self.job(PRELUDE + REACH + ask, network="private")
        self.upload(**asker, name="asker", major="1", minor="1")
        services = {
            "web": {"config": "web-1-1", "replicas": 1},
            "asker": {"config": "asker-1-1", "run": "once", "after": {"web": "healthy"}},
        }
        for wished in ({"web": services["web"]}, services):
            for stack in ("one", "two"):
                answer = self.ask("POST", "/stacks?wait=1", {"stack": stack, "services": wished})
                self.assertIn(b'"outcome":"done"', answer.body)
        stranger = self.launch(**asker)
        self.ask("GET", f"/instances/{stranger}/wait")
        self.assertEqual(self.written("one-asker-1"), "one-web-1 two-web-1\n")
        self.assertEqual(self.written("two-asker-1"), "two-web-1 two-web-1\n")
        self.assertRegex(self.written(stranger), "^(?!one|two).* two-web-1\n$")


class RollingTests(NetworkCase):
    """Replicas that are replaced while they are asked."""

    pool = 2

    def stop(self) -> None:
        """Take the stack down, and stop the manager."""
        if self.manager.poll() is None:
            self.ask("DELETE", "/stacks/shop?wait=1")
        super().stop()

    def test_datagrams(self) -> None:
        """Flows of UDP are spread over the replicas, and stay there; no one else gets them."""
        config = self.upload(**self.job(PRELUDE + DATAGRAMS))
        name = "-".join(config[key] for key in ("name", "major", "minor"))
        app = {"config": name, "replicas": 2, "ports": ["0.0.0.0:53:53/udp"], "drain": 0}
        stack = {"stack": "shop", "services": {"app": app}}
        self.assertEqual(self.ask("POST", "/stacks?wait=1", stack).status, 200)
        each = {("shop-app-1",), ("shop-app-2",)}
        wait_until(lambda: {self.answers_to(1) for _ in range(4)} == each, "both answer")
        with self.outside():
            told = [self.answers_to(3, HERE, PATIENCE) for _ in range(4)]
        self.assertEqual({*told}, {one * 3 for one in each})

    def answers_to(
        self, times: int, host: str = "127.0.0.1", within: float = SOON
    ) -> tuple[str, ...]:
        """Who answers the datagrams of one client, each within so many seconds."""
        told = list[str]()
        with socket.socket(type=socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
            client.settimeout(within)
            client.connect((host, 53))
            for _ in range(times):
                client.send(b"?")
                told.append(client.recv(100).decode())
        return tuple(told)

    def ask_on(self, over: threading.Event, answers: list[str]) -> None:
        """Ask the service's port, again and again."""
        while not over.is_set():
            answers.append(reach("127.0.0.1", 8080))
            time.sleep(0.005)

    def lost(self) -> int:
        """How often the first packet of a connection was lost on this host, and sent again."""
        names, values, *_ = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        return int(dict(zip(names.split(), values.split(), strict=True))["TCPSynRetrans"])

    def test_update(self) -> None:
        """No request fails while all replicas are replaced, and while an update is rolled back."""
        for minor, text in (("1", SERVER), ("2", SERVER), ("3", "time.sleep(0.3); exit(3)")):
            job = self.job(PRELUDE + text, startup_env="PORT=80")
            self.upload(**job, name="web", major="1", minor=minor)
        update = {"order": "start-first", "monitor": 0.2}
        app = {"config": "web-1-1", "replicas": 3, "ports": ["8080:80"], "update": update}
        stack = {"stack": "shop", "services": {"app": {**app, "drain": 30}}}
        self.assertEqual(self.ask("POST", "/stacks?wait=1", stack).status, 200)
        over, answers = threading.Event(), list[str]()
        asking = threading.Thread(target=self.ask_on, args=(over, answers))
        asking.start()
        try:
            for minor, outcome in (("2", "done"), ("3", "failed")):
                version = {"major": "1", "minor": minor}
                answer = self.ask("POST", "/services/app/update?wait=1", version)
                self.assertEqual(json.loads(answer.body.splitlines()[-1])["outcome"], outcome)
        finally:
            over.set()
            asking.join()
        self.assertEqual((answers.count(""), self.lost()), (0, 0), len(answers))
        self.assertGreater(len({*answers}), 3)
