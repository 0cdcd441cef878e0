"""What takes several nodes: three managers and a worker, each a host of its own.

scripts/swarm-tests runs this, and prints what it has measured.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import NEW_NUMBER, PROJECT, Answer, wait_until
from tests.integration.swarm_hosts import PATIENCE, Swarm
from tests.integration.tarballs import pack, script

SLEEPS = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.1; done\n"
measured: list[tuple[str, str]] = []


class ManyCase(SynchronousTestCase):
    """A test in the swarm that all tests of this module share, all of whose hosts are up."""

    swarm: ClassVar[Any] = None

    def setUp(self) -> None:
        """Have the swarm, and nothing in it."""
        if ManyCase.swarm is None:
            ManyCase.swarm = Swarm(Path(os.environ["TXCONTAIN_SWARM"]), 3, 1)
            self.swarm.start()
            pack(self.swarm.folder / "mountables/job.tar", script("run", SLEEPS))
        self.addCleanup(self.clean)

    def clean(self) -> None:
        """Have all hosts be up, and nothing run there."""
        for host in self.swarm.hosts:
            host.plug("up") if host.process.poll() is None else host.start()
        self.until(lambda: self.is_ready() and self.ask("DELETE", "/destroyall").status == 200)

    def is_ready(self) -> bool:
        """Whether all nodes are up, as the manager has it."""
        answer = self.ask("GET", "/nodes")
        if answer.status != 200 or answer.headers["Txcontain-As-Of"]:
            return False
        for one in answer.json["nodes"]:
            if one["availability"] != "active":
                self.ask("POST", f"/nodes/{one['id']}/activate")
        return all(one["state"] == "ready" for one in answer.json["nodes"])

    # -- asking ------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the manager."""
        return self.swarm.ask(method, path, body)

    def until(self, condition: Callable[[], Any], what: str = "it is so") -> Any:
        """Wait for a condition, as long as a failover may take on a busy machine."""
        return wait_until(condition, what, 2 * PATIENCE)

    def nodes(self) -> dict[str, Any]:
        """The nodes by name."""
        return {one["node"]: one for one in self.ask("GET", "/nodes").json["nodes"]}

    def upload(self, **keys: Any) -> dict[str, str]:
        """Store a config of a script that only waits."""
        key = {"name": "job", "major": "1", "minor": str(NEW_NUMBER())}
        config = {**key, "base_image": "small.tar", "mounts": ["job.tar /job READ"]}
        answer = self.ask("POST", "/config", {**config, "startup_script": "/job/run", **keys})
        self.assertEqual(answer.status, 200, answer.reason)
        return key

    def launch(self, **keys: Any) -> str:
        """Launch what is started again wherever it can be."""
        answer = self.ask("POST", "/launch", self.upload(restart="always", **keys))
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.json["instance"]

    def record(self, instance: str) -> Any:
        """How an instance stands, and where."""
        return self.ask("GET", f"/instances/{instance}").json

    def moved(self, instance: str, away: str) -> Callable[[], Any]:
        """Whether an instance runs on another node than this."""

        def has() -> bool:
            answer = self.ask("GET", "/instances")
            (one,) = [o for o in answer.json["instances"] if o["instance"] == instance]
            return one["state"] == "running" and one["node"] != away

        return has

    def command(self, *words: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            [PROJECT / "cli/txcontain", *words],
            env={**os.environ, "TXCONTAIN_URL": self.swarm.url},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout


def measure(what: str, value: str) -> None:
    """Keep a figure for the table in the end."""
    measured.append((what, value))
    Path(os.environ["TXCONTAIN_SWARM"], "measured").write_text(
        "".join(f"{name}\t{figure}\n" for name, figure in measured)
    )


class NodeTests(ManyCase):
    """Nodes, as the API and the commands have them."""

    def test_nodes(self) -> None:
        """All are told with their roles; `txcontain nodes` and inspect show them."""
        nodes = self.nodes()
        self.assertEqual([*nodes], ["h1", "h2", "h3", "h4"])
        self.assertEqual([one["role"] for one in nodes.values()], ["manager"] * 3 + ["worker"])
        self.assertEqual([one["leader"] for one in nodes.values()].count(True), 1)
        self.assertEqual(nodes["h4"]["address"], "10.99.0.14")
        instance = self.launch()
        where = self.record(instance)["node"]
        self.assertIn(where, nodes)
        self.assertEqual(self.nodes()[where]["instances"], 1)
        self.assertIn(where, self.command("ps"))
        lines = [line.split() for line in self.command("nodes").splitlines()[1:]]
        self.assertEqual([line[0] for line in lines], [*nodes])

    def test_drain(self) -> None:
        """What runs on a node that is drained runs on another one soon; labels stay."""
        instance = self.launch()
        where = self.record(instance)["node"]
        self.command("nodes", "label", where, "disk=ssd")
        self.assertEqual(self.command("nodes", "drain", where), f"{where}\n")
        self.until(self.moved(instance, where), "it runs on another node")
        drained = self.nodes()[where]
        self.assertEqual((drained["availability"], drained["labels"]), ("drain", {"disk": "ssd"}))
        self.command("nodes", "activate", where)
        self.command("nodes", "label", where, "disk-")
        node = self.nodes()[where]
        self.assertEqual((node["availability"], node["labels"]), ("active", {}))


class FailoverTests(ManyCase):
    """Hosts whose power is cut."""

    def test_leader(self) -> None:
        """While there is no leader, the list is the last one, writes are put off, and it ends."""
        instance, key = self.launch(), self.upload()
        leader = self.swarm.leader()
        if self.record(instance)["node"] == leader.name:
            self.command("nodes", "drain", leader.name)
            self.until(self.moved(instance, leader.name), "it runs on another node")
        before = self.record(instance)
        leader.kill()
        cut = time.monotonic()
        slowest, stale, refused = 0.0, 0, 0.0
        launched: Any = None
        while launched is None and time.monotonic() < cut + 2 * PATIENCE:
            began = time.monotonic()
            answer = self.ask("GET", "/list")
            slowest = max(slowest, time.monotonic() - began)
            stale += bool(answer.headers["Txcontain-As-Of"])
            self.assertEqual([one["instance"] for one in answer.json["instances"]], [instance])
            began = time.monotonic()
            answer = self.ask("POST", "/launch", key)
            if answer.status == 503:
                self.assertEqual(answer.headers["Retry-After"], "5")
                refused = max(refused, time.monotonic() - began)
            else:
                self.assertEqual(answer.status, 200, answer.reason)
                launched = answer.json["instance"]
        again = time.monotonic() - cut
        self.assertIsNotNone(launched)
        self.assertGreater(stale, 0)
        running = {one["instance"] for one in self.ask("GET", "/list").json["instances"]}
        self.assertEqual(running, {instance, launched})
        self.assertEqual(self.record(instance), before)
        measure("leader cut: writes work again after", f"{again:.1f} s")
        measure("leader cut: slowest GET /list meanwhile", f"{slowest * 1000:.0f} ms")
        measure("leader cut: slowest refusal of a write (503)", f"{refused:.1f} s")

    def test_worker(self) -> None:
        """What runs on a node whose power is cut runs on another one soon."""
        instance = self.launch()
        leader = self.swarm.leader().name
        for host in self.swarm.managers:
            self.command("nodes", "drain", host.name)
        self.until(self.moved(instance, leader), "it has gone from the managers")
        self.until(lambda: self.record(instance)["node"] == "h4", "it runs on the worker")
        for host in self.swarm.managers:
            self.command("nodes", "activate", host.name)
        self.swarm.workers[0].kill()
        cut = time.monotonic()
        self.until(self.moved(instance, "h4"), "it runs on another node")
        measure("worker cut: its instance runs elsewhere after", f"{time.monotonic() - cut:.1f} s")
