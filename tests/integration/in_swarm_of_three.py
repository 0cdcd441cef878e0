"""A short round of what a swarm is for: three hosts, all of them managers, two of them cut.

scripts/swarm-tests runs this, and prints what it has measured: on a busy machine nothing else is
to be told of that, so only what has to be right at any speed is asserted here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from tests.integration.harness import wait_until
from tests.integration.in_swarm_of_many import Load, ManyCase, ServedCase, ask_once, measure

PATIENCE = 150.0  # seconds


class RoundCase(ManyCase):
    """A test in the swarm of three hosts."""

    size: ClassVar[tuple[int, int]] = (3, 0)

    def until(self, condition: Callable[[], Any], what: str = "it is so") -> Any:
        """Wait for a condition, as long as it may take on a very slow machine."""
        return wait_until(condition, what, PATIENCE)

    def listed(self) -> list[str]:
        """What runs."""
        return [one["instance"] for one in self.ask("GET", "/list").json["instances"]]


class InstanceTests(RoundCase):
    """Instances, by the requests of the contract."""

    def test_contract(self) -> None:
        """A config is kept once; its instances are launched, listed in order, and destroyed."""
        key = self.upload(restart="always")
        self.assertIn(f"{'-'.join(key.values())}.cfg", self.ask("GET", "/cfginfo").json["files"])
        again = {**key, "base_image": "small.tar"}
        self.assertEqual(self.ask("POST", "/config", again).status, 409)
        launched = []
        for _ in range(2):
            answer = self.ask("POST", "/launch", key)
            self.assertEqual(answer.status, 200, answer.reason)
            self.assertEqual({name: answer.json[name] for name in key}, key)
            launched.append(answer.json["instance"])
        self.assertEqual(self.listed(), launched)
        self.assertEqual(self.ask("DELETE", f"/destroy/{launched[0]}").status, 200)
        self.assertEqual(self.listed(), launched[1:])
        self.assertEqual(self.ask("DELETE", f"/destroy/{launched[0]}").status, 404)
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.ask("POST", "/launch", {**key, "minor": "none"}).status, 404)

    def test_leader(self) -> None:
        """While there is no leader the list is the last one, and writes are put off; it ends."""
        leader = self.swarm.leader()
        self.command("nodes", "drain", leader.name)
        # One that Docker tries again: a node that loses its leader may give up getting an image.
        instance, key = self.launch(), self.upload(restart="always")
        self.command("nodes", "activate", leader.name)
        self.until(lambda: self.listed() == [instance], "it is listed")
        leader.kill()
        cut = time.monotonic()
        slowest, stale, launched = 0.0, 0, ""
        while not launched and time.monotonic() < cut + PATIENCE:
            began = time.monotonic()
            answer = self.ask("GET", "/list")
            slowest = max(slowest, time.monotonic() - began)
            if answer.headers["Txcontain-As-Of"]:
                stale += 1
                names = [one["instance"] for one in answer.json["instances"]]
                self.assertEqual(names, [instance])
            answer = self.ask("POST", "/launch", key)
            if answer.status == 200:
                launched = answer.json["instance"]
            else:
                self.assertEqual(answer.status, 503, answer.reason)
                self.assertEqual(answer.headers["Retry-After"], "5")
        self.assertGreater(stale, 0)
        self.assertNotEqual(launched, "", "no launch has worked")
        self.until(lambda: {*self.listed()} == {instance, launched}, "both run")
        measure("leader cut: writes work again after", f"{time.monotonic() - cut:.1f} s")
        measure("leader cut: slowest GET /list meanwhile", f"{slowest * 1000:.0f} ms")


class ServiceTests(RoundCase, ServedCase):
    """A service of three replicas, behind the balancer."""

    def test_update(self) -> None:
        """A rolling update loses no request, and in the end all replicas are new."""
        self.update()
        self.assertEqual((self.web()["state"], self.web()["current"]), ("done", 3))

    def test_node(self) -> None:
        """If a node's power is cut, its replica comes elsewhere, and the others serve on."""
        leader = self.swarm.leader()
        gone = next(host for host in self.swarm.hosts if host is not leader)
        self.until(lambda: gone.name in self.wheres().values(), "a replica is there")
        with Load("127.0.0.1") as load:
            gone.kill()
            cut = time.monotonic()
            self.until(lambda: self.is_replaced(gone.name), "three run elsewhere")
            took = time.monotonic() - cut
        measure("node cut under load", f"{load}, replaced after {took:.1f} s")
        self.assertEqual(ask_once("127.0.0.1"), "1")
