"""What a person sees of real containers, and what is removed when it is not needed any more."""

from __future__ import annotations

import os
import re
import subprocess
from functools import partial
from typing import Any

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from tests.support import needs_networks
from txcontain.host.processes import describe


class SeeingTests(ManagerCase):
    """Processes, figures, and the disk."""

    def test_top(self) -> None:
        """The processes of a container are told by its own pids and user ids, and no others."""
        keys = {"user_namespace": True, "startup_owner": "1000:1000"}
        instance = self.running_inside("sleep 60 &", **keys)

        def told_of_both() -> Any:
            told = self.ask("GET", f"/instances/{instance}/top").json
            commands = [one["command"] for one in told["processes"]]
            return "sleep 60" in commands and told  # it may still be the shell that was forked

        told = wait_until(told_of_both, "both run")
        first, *_ = sorted(told["processes"], key=lambda one: int(one["pid"]))
        self.assertEqual((first["pid"], first["user"]), (1, 1000))
        self.assertIn("/job/run", first["command"])
        self.assertEqual(told["more"], 0)
        pid = self.ask("GET", f"/instances/{instance}").json["pid"]
        self.assertEqual(first["host_pid"], pid)
        self.assertGreaterEqual(describe(pid)["user"], 100_000)  # as the host sees it

    @needs_networks
    def test_traffic(self) -> None:
        """What goes over a container's link is counted, and what it waits for."""
        private = self.running_inside(":", network="private")
        host = self.running_inside(":")
        stats = {one["instance"]: one for one in self.ask("GET", "/stats").json["stats"]}
        for key in ("network_received", "network_sent"):
            self.assertGreaterEqual(stats[private][key], 0)
            self.assertNotIn(key, stats[host])
        self.assertLessEqual(set(stats[host]["pressure"]), {"cpu", "memory", "io"})

    def test_disk(self) -> None:
        """What a container writes is counted; a prune removes it once the container has ended."""
        big = "cat /bin/* > /data/big"
        keys = {"mounts": [f"{self.mountable('data.tar')} /data READWRITE"]}
        running = self.running_inside(big, **keys)
        ended = self.launch(**self.job(f"#!/bin/sh\n{big}\n", **keys))
        self.output_of(ended)
        told = self.ask("GET", "/df").json
        sizes = {one["instance"]: one["bytes"] for one in told["instances"]}
        self.assertGreater(min(sizes[running], sizes[ended]), 500_000)
        self.assertTrue(told["whole"])
        pruned = self.ask("POST", "/prune", {"dry_run": True}).json
        self.assertEqual([one["instance"] for one in pruned["instances"]], [ended])
        self.assertEqual(self.ask("POST", "/prune", {}).json["instances"], pruned["instances"])
        left = [one["instance"] for one in self.ask("GET", "/instances").json["instances"]]
        self.assertEqual(left, [running])
        layers = self.ask("GET", "/df").json["layers"]
        self.assertTrue(all(layer["used"] for layer in layers), layers)


class PictureTests(ManagerCase):
    """What `txcontain tree`, `card`, `compare` and `timeline` draw."""

    def picture(self, *words: str) -> str:
        """What a command prints."""
        environment = {**os.environ, "TXCONTAIN_URL": self.url}
        command = [str(PROJECT / "cli" / words[0]), *words[1:]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def test_pictures(self) -> None:
        """Each tells of the live container, and of what it shares with the host."""
        tight = {"network": "none", "startup_owner": "worker", "limits": {"memory": "64M"}}
        instance, other = self.running_inside("sleep 77 &", **tight), self.running_inside("")
        both = r"─ 1 \(host: \d+\) .*\n {6}├─ \d+ \(host: \d+\) sleep 77"
        drawn = partial(self.picture, "tree", instance)
        tree = wait_until(lambda: re.search(both, drawn()), "its programs run").string
        self.assertRegex(tree, r"─ user: \d+, the host's\n")
        self.assertRegex(tree, r"─ net: \d+, the host's is \d+\n")
        held = [self.picture("card", one).count("✓") for one in (instance, other)]
        self.assertEqual(held[0] - held[1], 3)
        self.assertRegex(
            self.picture("compare", instance, str(os.getpid())),
            r"pid namespace +apart +its own +the host's\n",
        )
        self.assertRegex(self.picture("compare", instance, other), r"new privileges +same +never")
        self.assertIn("█", self.picture("timeline", instance))

    def test_refused(self) -> None:
        """A process that there is not can't be compared, and neither can nothing."""
        instance = self.running_inside("")
        for to in ("?to=99999999", "?to=", ""):
            answer = self.ask("GET", f"/instances/{instance}/compare{to}")
            self.assertEqual(answer.status, 409, to)
        self.assertEqual(self.ask("GET", f"/instances/{instance}/compare?to=none").status, 404)
