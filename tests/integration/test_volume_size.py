"""Volumes that may take so much of the disk, and no more."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.integration.harness import wait_until
from tests.integration.probes import ProbeCase
from tests.integration.tarballs import file
from tests.integration.test_transfers import TransferCase
from tests.support import needs_user_namespaces

SIZE = 16 << 20
SMALL: dict[str, Any] = {"volumes": ["small /data"]}
OWNER = 'tell(owner=os.stat("/data/x").st_uid)\n'


class FullTests(ProbeCase):
    """A volume of 16 MiB, from inside."""

    def setUp(self) -> None:
        super().setUp()
        answer = self.ask("PUT", "/volumes/small", {"size": "16M"})
        self.assertEqual(answer.json, {"made": "small"})

    def test_full(self) -> None:
        """It takes no more than that, also of root: a write fails, with ENOSPC."""
        written, why = self.probe('tell(full=fill("/data/file"))', **SMALL)["full"]
        self.assertEqual(why, "ENOSPC")
        self.assertTrue(SIZE / 2 < written < SIZE, written)
        told = self.ask("GET", "/volumes/small").json
        self.assertEqual(told["bound"], SIZE)
        self.assertLessEqual(told["size"], SIZE + (1 << 20))
        self.assertEqual(os.stat(told["folder"]).st_size, SIZE)

    @needs_user_namespaces
    def test_user_namespace(self) -> None:
        """Root of a user namespace owns what it writes there, and others see the same owner."""
        said = self.probe(f'open("/data/x", "w").close()\n{OWNER}', **SMALL, user_namespace=True)
        self.assertEqual(said["owner"], 0)
        self.assertEqual(self.probe(OWNER, **SMALL)["owner"], 0)


class SharedTests(TransferCase):
    """A volume of 16 MiB, and all that can be done with one."""

    def setUp(self) -> None:
        super().setUp()
        self.ask("PUT", "/volumes/small", {"size": SIZE})

    def assert_freed(self) -> None:
        """Nothing shows it any more."""
        wait_until(lambda: not self.loop_devices(), "no loop device is left")

    def test_shared(self) -> None:
        """All see what each writes, through one device; it is freed with the last of them."""
        names = [self.running_inside(f"echo {i} >/data/{i}", **SMALL) for i in range(4)]
        self.assertEqual(len(self.loop_devices()), 1)
        self.assertEqual(self.inside("cat /data/?", **SMALL), "0\n1\n2\n3\n")
        said = self.inside("touch /x/4 || echo refused", volumes=["small /x READ"])
        self.assertEqual(said, "refused\n")
        for name in names:
            self.ask("DELETE", f"/destroy/{name}")
        self.assert_freed()

    def test_first_together(self) -> None:
        """If several are the first at the same time, one makes and fills it, for all."""
        text = "ls /seed | grep -c . ; cat /seed/config"
        names = [self.launch(**self.job(text, volumes=["small /seed"])) for _ in range(4)]
        self.assertEqual({self.output_of(name) for name in names}, {"4\nfrom the image"})
        self.assert_freed()

    def test_killed(self) -> None:
        """If all is killed nothing stays mounted, and the next manager goes on with the data."""
        instance = self.running_inside("echo data >/data/file", **SMALL)
        pid = self.ask("GET", f"/instances/{instance}").json["pid"]
        self.manager.kill()
        self.manager.wait()
        os.kill(pid, signal.SIGKILL)
        self.assert_freed()
        self.start()
        self.ask("DELETE", "/destroyall")
        self.assertEqual(self.inside("cat /data/file", **SMALL), "data\n")

    def test_manager_killed(self) -> None:
        """If only the manager is killed, those who use it go on, and share it with new ones."""
        self.running_inside("echo data >/data/file", **SMALL)
        self.manager.kill()
        self.manager.wait()
        self.start()
        self.running_inside("cat /data/file >/data/copy", **SMALL)
        self.assertEqual(len(self.loop_devices()), 1)

    def test_transfers(self) -> None:
        """It is exported while it is in use, also with a pause, and imported to a bound again."""
        self.running_inside("echo data >/data/file; sync", **SMALL)
        for query in ("", "?pause=1"):
            with self.export("small", query) as tarball:
                self.assertEqual(tarball.extractfile("./file").read(), b"data\n")
        whole = self.ask("GET", "/volumes/small/export").body
        self.assert_problem(self.import_("small", whole), "in-use", "instances use the volume")
        self.ask("PUT", "/volumes/other", {"size": SIZE})
        self.assertEqual(self.import_("other", whole).json, {"imported": "other"})
        told = self.ask("GET", "/volumes/other").json
        self.assertEqual((told["bound"], told["used_by"]), (SIZE, []))
        names = {path.name for path in (self.state / "volumes/other").iterdir()}
        self.assertEqual((len(names), "disk.img" in names), (2, True))  # one name is drawn
        self.assertEqual(self.inside("cat /x/file", volumes=["other /x"]), "data\n")
        self.ask("DELETE", "/destroyall")
        self.assert_problem(self.import_("other", whole), "in-use", "there is data in the volume")
        self.assert_freed()

    def test_too_small(self) -> None:
        """What does not fit is not taken: neither what the image has there nor a tarball."""
        large = file("large/file", os.urandom(SIZE))
        self.image("large.tar", large)
        small = {"base_image": "large.tar", "volumes": ["small /large"]}
        answer = self.try_to_launch(**small)
        why = f"it takes more than the volume's size, {SIZE} bytes", "make a larger volume"
        self.assert_refused(answer, 500, *why)
        said = self.inside("cat /seed/config", volumes=["small /seed"])  # there is room again
        self.assertEqual(said, "from the image")
        self.ask("PUT", "/volumes/other", {"size": SIZE})
        answer = self.import_("other", self.tarball(large))
        self.assert_problem(answer, "machine-at-fault", "importing the volume other", *why)
        self.assertEqual(self.ask("GET", "/volumes/other").json["size"], None)
        self.assert_freed()

    def test_copied_while_stopped(self) -> None:
        """`cp` from an instance that is stopped finds what is in it, also while another has it."""
        instance = self.running_inside("echo data >/data/file", **SMALL)
        self.ask("POST", f"/instances/{instance}/stop", {})
        self.running_inside("true", **SMALL)
        copied = self.ask("GET", f"/instances/{instance}/files?path=/data/file")
        self.assertIn(b"data\n", copied.body)

    def test_removed(self) -> None:
        """It is told of, can't be made twice, and goes as a whole: by hand, or with a prune."""
        self.inside("true", **SMALL)
        answer = self.ask("PUT", "/volumes/small", {})
        self.assert_problem(answer, "in-use", "there is a volume small already")
        answer = self.ask("PUT", "/volumes/-x", {})
        self.assert_problem(answer, "invalid-data", "the name of a volume must be")
        (told,) = self.ask("GET", "/df").json["volumes"]
        self.assertGreaterEqual(told["bytes"], SIZE)
        self.ask("DELETE", "/destroyall")
        pruned = self.ask("POST", "/prune", {"volumes": True}).json["volumes"]
        self.assertEqual([one["volume"] for one in pruned], ["small"])
        self.assertEqual(list((self.state / "volumes").iterdir()), [])
