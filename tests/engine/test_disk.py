"""The disk: what takes how much of it, and what a prune removes."""

import os
from typing import Any

from twisted.internet.defer import succeed

from tests.fakes import ManagerTestCase
from txcontain.engine import disk
from txcontain.engine.disk import df, prune, unpacking
from txcontain.images.sizes import Meter
from txcontain.images.unpack import Progress
from txcontain.runtime.instance import Instance


class DiskCase(ManagerTestCase):
    """A manager with an image and a layer."""

    def setUp(self) -> None:
        super().setUp()
        self.write("base_images/base.tar.gz", 5000)
        self.write("base_images/README", 10)
        self.layer = os.path.join(self.folder, "layers", b"base.tar.gz".hex())
        os.makedirs(self.layer)

    def write(self, name: str, size: int) -> None:
        """Write a file that takes so many bytes."""
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x" * size)

    def ended(self) -> Instance:
        """An instance that has ended."""
        instance = self.launch(minor="02")
        self.init.end()
        self.reactor.advance(0)
        self.assertEqual(instance.state, "ended")
        return instance


class DfTests(DiskCase):
    """What takes how much."""

    def test_all(self) -> None:
        """Images, layers and instances are told, and of these how much the logs take."""
        instance = self.launch(base_image="base.tar.gz")
        self.write(f"instances/{instance.name}/log/1", 9000)
        told = self.now(df(self.manager))
        (image,) = told["images"]
        self.assertEqual((image["folder"], image["image"]), ("base_images", "base.tar.gz"))
        self.assertGreaterEqual(image["bytes"], 5000)
        (layer,) = told["layers"]
        self.assertEqual(layer["layer"], os.path.basename(self.layer))
        self.assertTrue(layer["used"])
        (one,) = told["instances"]
        self.assertEqual((one["instance"], one["state"]), (instance.name, "running"))
        self.assertGreaterEqual(one["logs"], 9000)
        self.assertGreater(one["bytes"], one["logs"])
        self.assertTrue(told["whole"])

    def test_strange_name(self) -> None:
        """A file whose name is no text is told all the same."""
        self.write("mountables/\udcff.tar", 1)
        names = [image["image"] for image in self.now(df(self.manager))["images"]]
        self.assertEqual(names, ["base.tar.gz", "\\xff.tar"])

    def test_too_many_files(self) -> None:
        """What has too many files is not looked at to the end, and the answer says so."""
        instance = self.launch()
        for number in range(20):
            self.write(f"instances/{instance.name}/{number}", 1)
        self.patch(disk, "Meter", lambda: Meter(left=10))
        told = self.now(df(self.manager))
        self.assertFalse(told["whole"])
        self.assertGreater(told["instances"][0]["bytes"], 0)


class UnpackingTests(DiskCase):
    """What is unpacked now."""

    def test_unpacking(self) -> None:
        """A tarball that is being unpacked is told, with how long that takes and how far it is."""
        self.assertEqual(unpacking(self.manager), [])
        begun = self.reactor.seconds()
        under_way = self.manager.layers.unpacker.under_way
        under_way["/x"] = Progress("/mountables/a.tar", begun, 4096)
        self.reactor.advance(2)
        (one,) = unpacking(self.manager)
        self.assertEqual(one, {"tarball": "a.tar", "seconds": 2.0, "bytes": 4096})


class MeterTests(DiskCase):
    """How folders are measured."""

    def measure(self, name: str) -> tuple[int, bool]:
        """The bytes of a folder, and whether all of it was looked at."""
        meter = Meter()
        return meter.measure(os.path.join(self.folder, name)), meter.whole

    def test_links(self) -> None:
        """A file with two names counts once, and nothing outside counts."""
        self.write("it/one", 10_000)
        once, _ = self.measure("it")
        os.link(os.path.join(self.folder, "it/one"), os.path.join(self.folder, "it/two"))
        os.symlink(self.folder, os.path.join(self.folder, "it/three"))
        twice, whole = self.measure("it")
        self.assertLess(twice, once + 9000)
        self.assertTrue(whole)

    def test_gone(self) -> None:
        """A folder that is gone takes nothing."""
        self.assertEqual(self.measure("none"), (0, True))

    def test_deep(self) -> None:
        """Folders that are nested too deep are not looked at: each level takes a descriptor."""
        os.makedirs(os.path.join(self.folder, "it", *["x"] * 300))
        self.assertFalse(self.measure("it")[1])


class PruneTests(DiskCase):
    """What is not needed any more."""

    def test_dry_run(self) -> None:
        """A dry run says what would go, and removes nothing."""
        instance = self.ended()
        pruned = self.now(prune(self.manager, dry_run=True))
        self.assertEqual([one["instance"] for one in pruned.instances], [instance.name])
        self.assertEqual([one["layer"] for one in pruned.layers], [os.path.basename(self.layer)])
        self.assertEqual(pruned.bytes, pruned.instances[0]["bytes"])
        self.assertIn(instance.name, self.manager.instances)
        self.assertTrue(os.path.isdir(self.layer))

    def test_removes(self) -> None:
        """Ended instances and unused layers are removed, also those that are usually kept."""
        running, ended = self.launch(base_image="other.tar"), self.ended()
        pruned = self.now(prune(self.manager, dry_run=False))
        self.assertEqual([one["instance"] for one in pruned.instances], [ended.name])
        self.assertEqual(list(self.manager.instances), [running.name])
        self.assertFalse(os.path.exists(self.layer))
        self.assertIn(f"layer: removed {os.path.basename(self.layer)}", self.events()[-1])

    def test_used(self) -> None:
        """A layer that an instance uses stays."""
        self.launch(base_image="base.tar.gz")
        self.assertEqual(self.now(prune(self.manager, dry_run=False)).layers, [])
        self.assertTrue(os.path.isdir(self.layer))

    def test_volumes(self) -> None:
        """Volumes that no instance uses go too, but only if that is asked for."""
        running = self.launch(volumes=["used /data"])
        for name in ("used", "idle"):
            self.launch(minor=f"1{name}", volumes=[f"{name} /data"])
            self.init.end()
            self.reactor.advance(0)
        volumes = {one["volume"]: one["used"] for one in self.now(df(self.manager))["volumes"]}
        self.assertEqual(volumes, {"idle": True, "used": True})
        self.assertEqual(self.now(prune(self.manager, dry_run=True)).volumes, [])
        for dry_run in (True, False):
            pruned = self.now(prune(self.manager, dry_run=dry_run, volumes=True))
            self.assertEqual([one["volume"] for one in pruned.volumes], ["idle"])
        self.assertEqual(list(self.manager.volumes.known), ["used"])
        self.assertEqual(list(self.manager.instances), [running.name])

    def test_volume_in_use_again(self) -> None:
        """If an instance was not removed after all, nor is its volume."""
        self.launch(volumes=["used /data"])
        self.init.end()
        self.reactor.advance(0)
        self.patch(disk, "_destroy", lambda *_: succeed(False))
        pruned = self.now(prune(self.manager, dry_run=False, volumes=True))
        self.assertEqual(pruned.volumes, [])
        self.assertEqual(list(self.manager.volumes.known), ["used"])

    def test_others_act_meanwhile(self) -> None:
        """What is started or removed while it is measured is left alone."""
        started, removed = self.ended(), self.launch(minor="03")
        self.init.end()
        self.reactor.advance(0)
        measure = disk._instances

        def measured(*arguments: Any) -> object:
            told = measure(*arguments)
            started.state = "running"
            del self.manager.instances[removed.name]
            return told

        self.patch(disk, "_instances", measured)
        self.assertEqual(self.now(prune(self.manager, dry_run=False)).instances, [])
        self.assertIn(started.name, self.manager.instances)
