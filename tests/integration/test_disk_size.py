"""Instances that may write so much to the disk, and no more (``disk_size``)."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.integration.harness import wait_until
from tests.integration.probes import ProbeCase
from tests.integration.tarballs import folder
from tests.support import needs_user_namespaces

SIZE = 16 << 20
FILL = """
first, why = fill("/data/file")
second, _ = fill("/more/file")
with open("/tmp/file", "wb") as file:
    file.write(bytes(1 << 20))
tell(first=first, second=second, why=why)
"""
RUNS = "#!/bin/sh\necho run >>/data/runs; cat /data/runs; sleep 60\n"


class DiskSizeTests(ProbeCase):
    """A file system of its own, in a file, on a loop device."""

    def keys(self, **more: Any) -> dict[str, Any]:
        """The keys of a config with two writable places on a bounded disk."""
        tarball = self.mountable("data.tar", folder("data"))
        mounts = [f"{tarball} /data READWRITE", f"{tarball} /more READWRITE"]
        return {"mounts": mounts, "disk_size": "16M", **more}

    def wait_for(self, instance: str, text: str) -> None:
        """Wait until this is all that an instance has written."""
        wait_until(lambda: self.log_of(instance) == text, f"it has written {text!r}")

    def test_full(self) -> None:
        """All its places together take no more than that, also of root; the rest goes on."""
        instance = self.start_probe(FILL, **self.keys())
        said = self.told_by(instance)
        self.assertEqual(said["why"], "ENOSPC")
        self.assertTrue(SIZE / 2 < said["first"] < SIZE, said)
        self.assertLess(said["second"], 1 << 20)
        taken = os.stat(self.state / "instances" / instance / "disk.img")
        self.assertLessEqual(taken.st_blocks * 512, SIZE + (1 << 20))
        explained = self.ask("GET", f"/instances/{instance}/explain").body.decode()
        self.assertIn("fallocate -l 16777216 ", explained)

    def test_stays(self) -> None:
        """What was written is there after a stop, also for who copies it, and after a start."""
        instance = self.launch(**self.job(RUNS, **self.keys()))
        for verb, text in (("stop", "run\n"), ("start", "run\n" + "run\n" * 2)):
            self.wait_for(instance, "run\n")
            answer = self.ask("POST", f"/instances/{instance}/{verb}", {})
            self.assertEqual(answer.status, 200, answer.reason)
            if verb == "stop":
                copied = self.ask("GET", f"/instances/{instance}/files?path=/data/runs")
                self.assertIn(text.encode(), copied.body)
        self.wait_for(instance, text)
        self.assertEqual(len(self.loop_devices()), 1)
        refused = self.ask("GET", f"/instances/{instance}/diff")
        self.assertEqual(refused.status, 409)
        self.assertIn("is on a disk of its own (disk_size)", refused.json["detail"])

    def test_killed(self) -> None:
        """If all is killed nothing stays mounted, and the next manager goes on with the data."""
        instance = self.launch(**self.job(RUNS, **self.keys(restart="always")))
        self.wait_for(instance, "run\n")
        pid = self.ask("GET", f"/instances/{instance}").json["pid"]
        self.manager.kill()
        self.manager.wait()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.loop_devices(), "no loop device is left")
        self.start()
        self.wait_for(instance, "run\n" * 3)

    @needs_user_namespaces
    def test_user_namespace(self) -> None:
        """Root of a user namespace owns what it writes there."""
        said = self.probe(
            """
open("/data/x", "w").close()
tell(owners=[os.stat(path).st_uid for path in ("/data", "/data/x")])
""",
            **self.keys(user_namespace=True),
        )
        self.assertEqual(said["owners"], [0, 0])
