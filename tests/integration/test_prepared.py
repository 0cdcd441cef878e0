"""Launches for which a warm init has done all but the exec are like all others."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from tests.integration.harness import ManagerCase, is_prepared, wait_until
from tests.integration.tarballs import folder
from tests.integration.test_files import tar_of
from txcontain.runtime.records import RECORD

FACTS = """
cat /proc/sys/kernel/hostname; pwd; id; umask; echo $$; cat /proc/$$/environ; echo
grep -E '^(Cap|NoNewPrivs|Seccomp|Sig|Groups)' /proc/self/status
grep -E '^(Max open files|Max processes)' /proc/self/limits
for each in 0 1 2 3 4 5 6; do readlink /proc/$$/fd/$each; done
ls -ln /data /dev; echo mine > /data/mine; echo fine >/dev/stderr
cat /proc/self/mountinfo
"""
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
NUMBERS = re.compile(r"^\d+ \d+ \d+:\d+ ", re.MULTILINE)  # of a mount, and of its device
SIGNALS = re.compile(r"^SigQ:.*", re.MULTILINE)  # counted for all of root's processes
TIMES = re.compile(r" \w{3} +\d+ +[\d:]+ ")


def pauses() -> Iterator[float]:
    """Seconds, more and more of them: a slow machine needs longer for what comes in between."""
    return itertools.chain((0.1 * 2**number for number in range(6)), itertools.repeat(5.0))


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

        pause = pauses()

        def launch() -> str | None:
            time.sleep(next(pause))  # for the warm inits
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
        running: list[str] = []
        pause = pauses()

        def kill() -> list[Path]:
            running.append(self.launch_again(config))
            time.sleep(next(pause))  # a slow launch is followed by a warm init for any other
            if not self.prepared():
                return []
            self.manager.kill()
            self.manager.wait()
            left = self.prepared()  # only now: of several, it lets some go when launches are rarer
            self.start()
            return left

        name = wait_until(kill, "it is killed while the next launch is prepared")[0].name
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


class StartTests(PreparedCase):
    """Starts for which an init has stood by since the stop."""

    begun = 0  # starts

    def writing(self, then: str, **keys: Any) -> str:
        """An instance that adds a line to a file at each start."""
        empty = self.mountable("empty.tar", folder("empty"))
        script = f"#!/bin/sh\necho again >> /data/log\n{then}\necho there\nexec sleep 1000\n"
        name = self.launch(**self.job(script, mounts=[f"{empty} /data READWRITE"], **keys))
        self.begun = 0
        self.wait_for_line(name)
        return name

    def wait_for_line(self, name: str) -> None:
        """Wait until it has written what it writes at each start."""
        self.begun += 1
        wait_until(lambda: self.log_of(name).count("there\n") == self.begun, "it has written")

    def act(self, name: str, verb: str) -> None:
        """Stop or start an instance."""
        answer = self.ask("POST", f"/instances/{name}/{verb}", {})
        self.assertEqual(answer.status, 200, answer.reason)
        if verb == "start":
            self.wait_for_line(name)

    def start_prepared(self, name: str) -> None:
        """Stop and start until all but the exec was done in advance."""
        pause = pauses()

        def start() -> bool:
            self.act(name, "stop")
            time.sleep(next(pause))
            self.act(name, "start")
            record = self.record(name)
            return record["in_advance"] == len(record["plan"]) - 1

        wait_until(start, "a start was prepared")

    def files(self, name: str) -> bytes:
        """What is in its mount, as a tar stream."""
        answer = self.ask("GET", f"/instances/{name}/files?path=/data")
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.body

    def test_data(self) -> None:
        """What is written while it is stopped is there, and so is what it wrote itself."""
        for keys in ({}, {"restart": "always"}, {"writable_root": True}):
            name = self.writing("cat /data/note*", **keys)
            self.start_prepared(name)
            for number in range(3):
                self.act(name, "stop")
                time.sleep(0.1 * number)  # it is not begun, under way, done
                note = tar_of(**{f"note{number}": b"note %d\n" % number})
                path = f"/instances/{name}/files?path=/data"
                self.assertEqual(self.ask("PUT", path, note).status, 200)
                self.assertIn(b"again\n" * 2, self.files(name))
                self.act(name, "start")
                self.assertIn(f"note {number}\nthere\n", self.log_of(name))
            self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)

    def test_killed(self) -> None:
        """After kill -9 of the manager it starts as ever, and no line is lost."""
        name = self.writing("")
        for pause in (0, 0.02, 0.05, 0.2):
            self.start_prepared(name)
            self.act(name, "stop")
            time.sleep(pause)
            self.manager.kill()
            self.manager.wait()
            self.start()
            self.act(name, "start")
        self.assertEqual(self.running(), [name])
        self.assertEqual(self.files(name).count(b"again\n"), self.begun)

    def test_after_a_reboot(self) -> None:
        """What was stopped starts after a reboot, however far its next start had been prepared."""
        names = [self.writing("") for _ in range(4)]  # more than are prepared at a time
        for number in (SIGTERM, SIGKILL):
            for name in names:
                self.act(name, "stop")
            self.manager.send_signal(number)
            self.manager.wait()
            for name in names:
                record = self.state / "instances" / name / RECORD
                text = record.read_text()
                self.assertEqual(text.count(BOOT), 1)
                record.write_text(text.replace(BOOT, "another"))
            self.start()
            for name in names:
                answer = self.ask("POST", f"/instances/{name}/start", {})
                self.assertEqual(answer.status, 200, answer.reason)

    def test_destroyed(self) -> None:
        """Nothing is left of an instance that is destroyed while a start of it is prepared."""
        for pause in (0, 0.02, 0.05, 0.2):
            name = self.writing("")
            self.act(name, "stop")
            time.sleep(pause)
            self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)
            self.assertFalse((self.state / "instances" / name).exists())
