"""Volumes on the disk: what is made, found again, and removed."""

import os
from typing import Any, cast

from twisted.internet.defer import Deferred

from tests.fakes import ManagerTestCase, make_manager
from txcontain.container.plan import VolumePlace
from txcontain.engine import volumes as volumes_
from txcontain.engine.recovery import restore
from txcontain.engine.transfers import export, import_volume, still
from txcontain.engine.volumes import users_of
from txcontain.errors import CalledOff, ConfigAtFault, InUse, InvalidData, MachineAtFault, TooMany
from txcontain.host.cgroups import Cgroups
from txcontain.images.packing import Packer


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
        self.assertEqual(volumes.place("a"), VolumePlace(self.path("a"), record))
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
        place = self.manager.volumes.place("a")
        source, lock = place.folder, place.lock
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
        os.mkdir(self.path("a", "disk.img.new"))
        self.init.fail(20, "volume", 28)
        self.reactor.advance(0)
        self.failureResultOf(launched, ConfigAtFault, MachineAtFault)
        self.assertEqual(len(self.names("a")), 1)


class PutTests(VolumeCase):
    """Volumes that are made with data."""

    def put(self, name: str = "a", fail: Exception | None = None) -> Any:
        """Make one, with a file in it."""

        async def fill(place: VolumePlace) -> None:
            open(os.path.join(place.folder, "data", "new"), "w").close()
            if fail is not None:
                raise fail

        instances = self.manager.instances
        return self.manager.volumes.put(name, fill, lambda: users_of(name, instances.values()))

    def test_new(self) -> None:
        """It is there, and known by a record of its own, when it is whole."""
        self.now(self.put())
        self.assertEqual(self.names("a", "data"), ["new"])
        self.assertEqual({self.manager.volumes.place("a").lock, "data"}, {*self.names("a")})

    def test_who_may_enter(self) -> None:
        """Any user may enter it, whatever the umask, if its tarball says nothing of that."""
        self.addCleanup(os.umask, os.umask(0o077))
        self.now(self.put())
        self.assertEqual(os.stat(self.path("a", "data")).st_mode & 0o7777, 0o755)

    def test_instead_of_an_empty_one(self) -> None:
        """One that is empty, or not filled yet, is replaced, and is another volume then."""
        for data in (False, True):
            self.now(self.manager.volumes.make("a"))
            before = self.manager.volumes.place("a")
            if data:
                os.mkdir(self.path("a", "data"))
            self.now(self.put())
            self.assertEqual((self.names(), self.names("a", "data")), (["a"], ["new"]))
            self.assertNotEqual(self.manager.volumes.place("a"), before)
            self.now(self.manager.remove_volume("a"))

    def test_bound(self) -> None:
        """A bound stays, also for the next manager; one that has a file system is not replaced."""
        self.now(self.manager.volumes.make("a", 1 << 24))
        self.now(self.put())
        self.assertEqual(self.manager.volumes.place("a").size, 1 << 24)
        later = make_manager(self.reactor, self.folder)
        restore(later)
        self.assertEqual(later.volumes.known, self.manager.volumes.known)
        open(self.path("a", "disk.img"), "w").close()
        self.assertIn("there is data", str(self.refused(self.put(), InUse)))

    def test_refused(self) -> None:
        """One with data stays as it is, and so does one that an instance uses."""
        self.now(self.put())
        self.assertIn("there is data", str(self.refused(self.put(), InUse)))
        self.launch(volumes=["b /b"])
        self.assertIn("instances use", str(self.refused(self.put("b"), InUse)))
        self.refused(self.put("../b"), InvalidData)
        self.assertEqual(self.names(), ["a", "b"])

    def test_used_meanwhile(self) -> None:
        """An empty one that an instance begins to use while it is looked into is not replaced."""
        self.now(self.manager.volumes.make("a"))
        before = self.manager.volumes.place("a")
        looked: list[str] = []

        def look(folder: str) -> bool:
            looked.append(folder)  # before its data comes, and after that
            return False

        def users() -> list[str]:
            return ["web-1"] if len(looked) == 2 else []

        async def fill(place: VolumePlace) -> None:
            pass

        self.patch(volumes_, "_holds", look)
        self.refused(self.manager.volumes.put("a", fill, users), InUse)
        self.assertEqual(self.manager.volumes.place("a"), before)

    def test_cut_short(self) -> None:
        """One that can't be made leaves nothing."""
        self.refused(self.put(fail=CalledOff("x")), CalledOff)
        self.refused(self.put(fail=OSError(28, "full")), MachineAtFault)
        self.assertEqual((self.names(), self.manager.volumes.known), ([], {}))


class BoundsTests(VolumeCase):
    """However many ask, few programs work for them at the same time."""

    def test_sizes(self) -> None:
        """Few measure, some wait, and the rest are refused."""
        asked: list[Deferred[str]] = []

        async def measure(paths: Any) -> str:
            asked.append(Deferred())
            return await asked[-1]

        volumes = self.manager.volumes
        volumes.measure = measure
        waiting = [self.start(volumes.sizes(["a"])) for _ in range(1000)]
        self.assertEqual(len(asked), volumes_.MOST_SIZES)
        refused = [each for each in waiting if each.called]
        self.assertEqual(len(refused), 1000 - volumes_.MOST_SIZES - volumes_.MOST_WAITING)
        for each in refused:
            self.failureResultOf(each, TooMany)
        self.call_off(waiting)

    def call_off(self, work: list[Deferred[Any]]) -> None:
        """End all that is not done yet."""
        for each in reversed(work):
            each.cancel()
            each.addErrback(lambda _: None)
        self.reactor.advance(0)

    def test_transfers(self) -> None:
        """Exports beyond a few are refused, and so are imports."""
        self.now(self.manager.volumes.make("a"))
        os.mkdir(self.path("a", "data"))

        async def last_for_ever(*_: Any, **__: Any) -> None:
            await Deferred[None]()

        for name in ("pack", "unpack"):
            self.patch(Packer, name, last_for_ever)
        for work in (
            lambda: export(self.manager, "a", None, False),
            lambda: import_volume(self.manager, "b", cast(Any, None)),
        ):
            begun = [self.start(work()) for _ in range(volumes_.MOST_TRANSFERS + 1)]
            self.assertEqual([each.called for each in begun[:-1]], [False] * (len(begun) - 1))
            self.failureResultOf(begun[-1], TooMany)
            self.call_off(begun)


class StillTests(VolumeCase):
    """Instances that stand still for a while."""

    def setUp(self) -> None:
        super().setUp()
        self.instance = self.launch(volumes=["a /a"])
        self.token = self.instance.processes.token
        group = os.path.join(self.folder, "group", self.token)
        os.makedirs(group)
        self.manager.pool.cgroups = Cgroups({"freezer": os.path.dirname(group)})
        self.state = os.path.join(group, "freezer.state")
        self.write("THAWED")

    def write(self, text: str) -> None:
        """What the kernel shows."""
        with open(self.state, "w") as file:
            file.write(text)

    def read(self) -> str:
        """What was written."""
        with open(self.state) as file:
            return file.read()

    async def still(self, fail: Exception | None = None) -> str:
        """What is seen while they stand still."""
        async with still(self.manager, [self.instance]):
            if fail is not None:
                raise fail
            return self.read()

    def test_frozen_for_a_while(self) -> None:
        """They are frozen, and run on whatever happens."""
        self.assertEqual((self.now(self.still()), self.read()), ("FROZEN", "THAWED"))
        self.refused(self.still(CalledOff("x")), CalledOff)
        self.assertEqual(self.read(), "THAWED")

    def test_ended_meanwhile(self) -> None:
        """They run on if they are asked to end, and if the manager ends: else they could not."""
        cgroups = self.manager.pool.cgroups = self.instance.processes.cgroups

        async def frozen(then: Any) -> list[bool]:
            async with self.manager.volumes.pausing, still(self.manager, [self.instance]):
                before = cgroups.is_frozen(self.token)
                then()
                return [before, cgroups.is_frozen(self.token)]

        self.assertEqual(self.now(frozen(self.manager.pause)), [True, False])
        self.assertEqual(self.now(frozen(lambda: self.instance.halt(1.0))), [True, False])

    def test_paused_by_a_person(self) -> None:
        """One that a person has paused before stays so."""
        self.write("FROZEN")
        self.instance.paused = True
        self.assertEqual((self.now(self.still()), self.read()), ("FROZEN", "FROZEN"))

    def test_too_slow(self) -> None:
        """If the kernel does not get them to stop, they run on."""
        self.patch(Cgroups, "is_frozen", lambda *_: False)
        begun = self.start(self.still())
        for _ in range(300):
            self.reactor.advance(0.05)
        self.assertIn("the kernel is busy", str(self.failureResultOf(begun, MachineAtFault).value))
        self.assertEqual(self.read(), "THAWED")

    def test_no_freezer(self) -> None:
        """A machine that can't freeze says so."""
        self.manager.pool.cgroups = Cgroups()
        self.assertIn("pausing instances", str(self.refused(self.still(), MachineAtFault)))

    def test_paused_meanwhile(self) -> None:
        """One that a person has paused meanwhile stays frozen."""

        async def pause() -> None:
            async with still(self.manager, [self.instance]):
                self.instance.paused = True

        self.now(pause())
        self.assertEqual(self.read(), "FROZEN")
