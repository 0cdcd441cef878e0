"""An hour's worth of a rough life in a few minutes: ``make soak``.

Launches, destroys, kills of PID 1, of monitors and of the manager, and full disks, in an
order that chance decides (SOAK_SEED; it is printed), for SOAK_SECONDS. At its end the
host has exactly the processes, mounts, cgroups, descriptors and folders as at the beginning.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import unittest
from typing import Any

from tests.integration.harness import ManagerCase, wait_until
from tests.integration.tarballs import file
from tests.support import unmount

SECONDS = float(os.environ.get("SOAK_SECONDS", "180"))
SEED = int(os.environ.get("SOAK_SEED", time.time()))
MOST = 30  # instances at a time
SCRIPTS = {
    "sleeps": "#!/bin/sh\nsleep 1000\n",
    "counts": "#!/bin/sh\ni=0\nwhile :; do i=$((i+1)); echo $i; sleep 0.01; done\n",
    "ends": "#!/bin/sh\nexit 3\n",
    "forks": "#!/bin/sh\nfor i in 1 2 3 4 5; do sleep 1000 & done; wait\n",
    "asks": "#!/bin/sh\ntrap 'sleep 0.1; exit' TERM\nwhile :; do sleep 0.05; done\n",
    "writes": "#!/bin/sh\nwhile echo x >> /data/file; do :; done\nsleep 1000\n",
}


class Soak(ManagerCase):
    """What can happen, each as a method; ``soak`` lets it happen."""

    pool = 2

    def soak(self) -> None:
        """Live roughly, and leave nothing behind."""
        self.stop()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256m,mode=700", "tmpfs", self.state], check=True
        )
        self.addCleanup(unmount, self.state)
        self.start()
        self.addCleanup(self.stop)
        data = self.mountable("data.tar", file("file", "begin\n"))
        self.keys = [
            self.config_of(text, data, restart)
            for text in SCRIPTS.values()
            for restart in ("no", "always")
        ]
        wait_until(self.is_warm, "the first inits wait")
        before = self.descriptors()
        self.live()
        self.empty_disk()
        wait_until(lambda: self.ask("DELETE", "/destroyall").status == 200, "all are destroyed")
        self.assertEqual(self.ask("GET", "/instances").json, {"instances": []})
        wait_until(lambda: len(self.descriptors()) <= len(before), "its descriptors are closed")

    def config_of(self, text: str, data: Any, restart: Any) -> Any:
        """Store a config of a script."""
        return self.upload(
            **self.job(
                text,
                mounts=[f"{data} /data READWRITE"],
                restart=restart,
                stop_timeout=0.5,
                limits={"memory": "64M", "pids": 50, "disk": "2M"},
                log_max_size="64K",
            )
        )

    def live(self) -> None:
        """Let things happen, of which some are rare."""
        chance = random.Random(SEED)
        happenings = [self.launch_one] * 40 + [self.destroy_one] * 25 + [self.kill_one] * 10
        happenings += [self.kill_monitor] * 5 + [self.look] * 20 + [self.kill_manager] * 2
        happenings += [self.fill_disk, self.empty_disk, self.empty_disk, self.doctor]
        happenings += [self.destroy_all]
        counts: dict[str, int] = {}
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            happening = chance.choice(happenings)
            counts[happening.__name__] = counts.get(happening.__name__, 0) + 1
            happening(chance)
        print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))

    def launch_one(self, chance: Any) -> None:
        """A launch works, or says why not (the disk may be full)."""
        if len(self.records()) < MOST:
            answer = self.ask("POST", "/launch", chance.choice(self.keys))
            self.assertIn(answer.status, (200, 500), answer.reason)

    def destroy_one(self, chance: Any) -> None:
        """A destroy leaves nothing."""
        for record in chance.sample(self.records(), min(1, len(self.records()))):
            status = self.ask("DELETE", f"/destroy/{record['instance']}").status
            self.assertIn(status, (200, 404))

    def destroy_all(self, chance: Any) -> None:
        """Nor does destroying all."""
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)

    def kill_one(self, chance: Any) -> None:
        """A PID 1 is killed from outside."""
        self.kill_any([record["pid"] for record in self.records() if record["pid"]], chance)

    def kill_monitor(self, chance: Any) -> None:
        """A monitor is killed: its container goes with it."""
        pids = [record["pid"] for record in self.records() if record["pid"]]
        self.kill_any([parent for pid in pids if (parent := parent_of(pid))], chance)

    def kill_any(self, pids: Any, chance: Any) -> None:
        """SIGKILL to one of these."""
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)

    def kill_manager(self, chance: Any) -> None:
        """The manager is killed, and another one started."""
        self.manager.kill()
        self.manager.wait()
        self.start()

    def look(self, chance: Any) -> None:
        """Whatever one asks, there is an answer."""
        paths = ["/list", "/cfginfo", "/stats", "/events"]
        paths += [f"/instances/{record['instance']}/logs" for record in self.records()]
        self.assertIn(self.ask("GET", chance.choice(paths)).status, (200, 404))

    def doctor(self, chance: Any) -> None:
        """The doctor never takes what is needed."""
        self.assertEqual(self.ask("POST", "/doctor").status, 200)

    def fill_disk(self, chance: Any) -> None:
        """The disk is full."""
        with open(self.state / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(65536))
            except OSError:
                pass

    def empty_disk(self, chance: Any = None) -> None:
        """The disk has room again."""
        (self.state / "filler").unlink(missing_ok=True)

    def is_warm(self) -> Any:
        """Whether as many inits have connected as there are to be."""
        return self.descriptors().count("anon_inode:[pidfd]") == self.pool

    def records(self) -> Any:
        """What the manager knows of all instances."""
        return self.ask("GET", "/instances").json["instances"]

    def descriptors(self) -> Any:
        """What the manager has open."""
        folder, found = f"/proc/{self.manager.pid}/fd", []
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                found.append(os.readlink(f"{folder}/{number}"))
        return found


def parent_of(pid: Any) -> Any:
    """The parent of a process; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


if __name__ == "__main__":
    print(f"SOAK_SEED={SEED} SOAK_SECONDS={SECONDS:.0f}")
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(Soak("soak")).wasSuccessful())
