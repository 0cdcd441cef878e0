"""Stacks for real: the commands, and a manager that is killed at any moment of a change."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from tests.integration.probes import PRELUDE
from tests.integration.test_network import SERVER, NetworkCase, reach

FOREVER = "trap exit TERM; while :; do sleep 0.05; done"
MOMENTS = (0.0, 0.02, 0.05, 0.1, 0.2)  # seconds after a change was begun


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
        config = {"config": f"web-1-{minor}", "update": {"monitor": 0.2}}
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

    def are_done(self) -> bool:
        """Whether all services are as wished."""
        return {*self.states().values()} == {"done"}

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

    def test_killed(self) -> None:
        """A manager that is killed at any moment of an update is followed by one that goes on."""
        self.up(self.stack(replicas=1))
        for number, moment in enumerate(MOMENTS):
            wished = self.stack(minor=str(2 - number % 2), replicas=1)
            self.ask("POST", "/stacks", wished)
            time.sleep(moment)
            self.manager.kill()
            self.manager.wait()
            self.start()
            wait_until(self.are_done, "the update is done")
            self.assertEqual(self.ask("POST", "/stacks?dry_run=1", wished).json["steps"], [])
            names = {one["instance"] for one in self.ask("GET", "/instances").json["instances"]}
            self.assertEqual(names, {"shop-db-1", "shop-task-1", "shop-app-1"})


class RollingTests(NetworkCase):
    """Replicas that are replaced while they are asked."""

    pool = 2

    def stop(self) -> None:
        """Take the stack down, and stop the manager."""
        if self.manager.poll() is None:
            self.ask("DELETE", "/stacks/shop?wait=1")
        super().stop()

    def ask_on(self, over: threading.Event, answers: list[str]) -> None:
        """Ask the service's port, again and again."""
        while not over.is_set():
            answers.append(reach("127.0.0.1", 8080))
            time.sleep(0.005)

    def test_update(self) -> None:
        """No request fails while all replicas are replaced, and while an update is rolled back."""
        for minor, text in (("1", SERVER), ("2", SERVER), ("3", "time.sleep(0.3); exit(3)")):
            job = self.job(PRELUDE + text, startup_env="PORT=80")
            self.upload(**job, name="web", major="1", minor=minor)
        update = {"order": "start-first", "monitor": 0.2}
        app = {"config": "web-1-1", "replicas": 3, "ports": ["8080:80"], "update": update}
        stack = {"stack": "shop", "services": {"app": {**app, "drain": 1}}}
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
        self.assertEqual(answers.count(""), 0, len(answers))
        self.assertGreater(len({*answers}), 3)
