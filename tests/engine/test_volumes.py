"""Volumes on the disk: what is made, found again, and removed."""

import os

from tests.fakes import ManagerTestCase, make_manager
from txcontain.engine.recovery import restore
from txcontain.errors import ConfigAtFault, MachineAtFault


class VolumeCase(ManagerTestCase):
    """A test of a manager's volumes."""

    def path(self, *names: str) -> str:
        """A path below the folder of the volumes."""
        return os.path.join(self.folder, "volumes", *names)

    def names(self, *path: str) -> list[str]:
        """What is there."""
        return sorted(os.listdir(self.path(*path)))


class StorageTests(VolumeCase):
    """What is on the disk."""

    def test_made_once(self) -> None:
        """The same name is the same volume, also for the next manager."""
        volumes = self.manager.volumes
        self.assertTrue(self.now(volumes.make("a")))
        self.assertFalse(self.now(volumes.make("a")))
        (record,) = self.names("a")
        self.assertEqual(volumes.place("a"), (self.path("a"), record))
        later = make_manager(self.reactor, self.folder)
        restore(later)
        self.assertEqual(later.volumes.known, volumes.known)

    def test_cut_short(self) -> None:
        """What was half made, half removed or half filled is removed; the rest is told of."""
        self.now(self.manager.volumes.make("a"))
        for path in (".b-1", "a/filling-1", "c", "d", "-x"):
            os.mkdir(self.path(path))
        for name in ("0" * 16, "1" * 16):
            open(self.path("d", f"{name}.json"), "w").close()
        later = make_manager(self.reactor, self.folder)
        done = restore(later)
        self.reactor.advance(0)
        self.assertEqual(self.names(), ["-x", "a", "c", "d"])
        self.assertEqual(len(self.names("a")), 1)
        self.assertEqual(list(later.volumes.known), ["a"])
        wrong = [each for each in done if "can't be used" in each]
        self.assertEqual(len(wrong), 3)
        self.assertIn("the volume 'c' can't be used: it has no record, or several", wrong)

    def test_a_name_that_is_taken(self) -> None:
        """What is there, and is no volume, is not touched."""
        os.makedirs(self.path("a", "x"))
        error = self.refused(self.manager.volumes.make("a"), MachineAtFault)
        self.assertIn("making the volume a", str(error))
        self.assertEqual(self.names("a"), ["x"])


class LaunchTests(VolumeCase):
    """Volumes of launches."""

    def test_plan(self) -> None:
        """The plan mounts a volume, with the name of its record, or a folder of the host."""
        self.manager.host_folders = ["/srv"]
        plan = self.launch(volumes=["a /a", "/srv/x /b READ"]).plan
        steps = [step for step in plan if step[0] in ("volume", "host_folder")]
        source, lock = self.manager.volumes.place("a")
        powers = ["nosuid", "nodev"]
        where = {"target": "/b", "flags": ["ro", *powers], "allowed": ["/srv"]}
        self.assertEqual(
            steps,
            [
                ("volume", {"source": source, "lock": lock, "target": "/a", "flags": powers}),
                ("host_folder", {"path": "/srv/x", **where}),
            ],
        )

    def test_failed(self) -> None:
        """A launch that fails leaves no half-filled volume behind."""
        spec = self.add(volumes=["a /a"])
        self.reactor.works = False
        launched = self.start(self.manager.launch(spec.name, spec.major, spec.minor))
        os.mkdir(self.path("a", "filling-1"))
        self.init.fail(20, "volume", 28)
        self.reactor.advance(0)
        self.failureResultOf(launched, ConfigAtFault, MachineAtFault)
        self.assertEqual(len(self.names("a")), 1)
