"""Launches for which a warm init has done all but the exec are like all others."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from tests.integration.harness import ManagerCase, is_prepared, wait_until

FACTS = """
cat /proc/sys/kernel/hostname; pwd; id; umask; echo $$; cat /proc/$$/environ; echo
grep -E '^(Cap|NoNewPrivs|Seccomp|Sig|Groups)' /proc/self/status
grep -E '^(Max open files|Max processes)' /proc/self/limits
for each in 0 1 2 3 4 5 6; do readlink /proc/$$/fd/$each; done
ls -ln /data /dev; echo mine > /data/mine; echo fine >/dev/stderr
cat /proc/self/mountinfo
"""
NUMBERS = re.compile(r"^\d+ \d+ \d+:\d+ ", re.MULTILINE)  # of a mount, and of its device
SIGNALS = re.compile(r"^SigQ:.*", re.MULTILINE)  # counted for all of root's processes
TIMES = re.compile(r" \w{3} +\d+ +[\d:]+ ")


class PreparedCase(ManagerCase):
    """A test of the second, third … launch of a config."""

    pool = 2

    def record(self, instance: str) -> dict[str, Any]:
        """All that the manager knows of an instance."""
        return self.ask("GET", f"/instances/{instance}").json

    def launch_again(self, config: dict[str, str]) -> str:
        """Launch a config that is stored; return the instance's name."""
        answer = self.ask("POST", "/launch", config)
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.json["instance"]

    def prepared(self) -> list[Path]:
        """The folders that were made in advance."""
        return [path for path in self.state.glob("instances/*") if is_prepared(path)]

    def launch_prepared(self, config: dict[str, str]) -> str:
        """Launch a config until all but the exec was done in advance; return that instance."""

        def launch() -> str | None:
            time.sleep(0.1)  # for the warm inits
            name = self.launch_again(config)
            record = self.record(name)
            return name if record["in_advance"] == len(record["plan"]) - 1 else None

        return wait_until(launch, "a launch was prepared")


class PreparedTests(PreparedCase):
    """What is seen of it."""

    def facts(self, instance: str) -> str:
        """What an instance says of itself, without what is like no other's by its nature."""
        said = self.output_of(instance).replace(instance, "NAME")
        said = said.replace(self.record(instance)["slot"], "SLOT")
        return TIMES.sub(" TIME ", NUMBERS.sub("", SIGNALS.sub("", said)))

    def test_the_same(self) -> None:
        """A prepared container is in all that it can see of itself like one that was not."""
        data = self.mountable("data.tar")
        mounts = [f"{data} /data READWRITE"]
        for owner in ("root", "worker"):
            job = self.job(f"#!/bin/sh\n{FACTS}", mounts=mounts, startup_owner=owner)
            config = self.upload(**job)
            first = self.launch_again(config)
            last = self.launch_prepared(config)
            self.assertLess(self.record(first)["in_advance"], self.record(last)["in_advance"])
            self.assertEqual(self.facts(last), self.facts(first))
            self.assertLess(40, len(self.facts(last).splitlines()))
            self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)

    def test_killed(self) -> None:
        """What a manager that was killed had prepared is gone, and is told as no launch."""
        config = self.upload()
        running = [self.launch_again(config) for _ in range(2)]
        name = wait_until(self.prepared, "the next launch is prepared")[0].name
        self.manager.kill()
        self.manager.wait()
        self.start()
        wait_until(lambda: not (self.state / "instances" / name).exists(), "it is removed")
        self.assertEqual(self.running(), running)
        told = self.ask("GET", "/events").body.decode()
        self.assertIn(f"removed {name}, which had been prepared", told)
        self.assertNotIn("rolled back", told)

    def test_another_image(self) -> None:
        """When the tarball of a mount is another, the next container has that one."""
        name = self.mountable("said.tar")
        config = self.upload(**self.job("#!/bin/sh\nls /said\n", mounts=[f"{name} /said READ"]))
        self.assertEqual(self.output_of(self.launch_prepared(config)), "")
        self.image("base.tar")
        os.replace(self.folder / "base_images/base.tar", self.folder / "mountables" / name)
        self.assertIn("bin", self.output_of(self.launch_again(config)))

    def test_exec_fails(self) -> None:
        """A script that can't be run is told of as ever, and is not prepared for."""
        config = self.upload(startup_script="/missing")
        for _ in range(3):
            answer = self.ask("POST", "/launch", config)
            self.assert_refused(answer, 409, "there is no /missing in the container")
        self.assertEqual(self.prepared(), [])
