"""The verbs, and finding everything again, on a fake machine."""

import json
import os
import shutil
import signal
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.fakes import FakeBridge, ManagerTestCase, make_manager
from tests.runtime.test_supervised import JSON
from tests.support import document
from txcontain.engine import manager, records
from txcontain.engine.manager import READ_AGAIN
from txcontain.errors import (
    CalledOff,
    ConfigAtFault,
    ConfigExists,
    InvalidData,
    MachineAtFault,
    NoSuchConfig,
    NoSuchInstance,
)
from txcontain.host.cgroups import Cgroups
from txcontain.runtime.instance import END_WITHIN, ENDING, HALF_MADE, RECORD, Instance
from txcontain.runtime.pool import REFILL_AFTER
from txcontain.runtime.prepared import PREPARED
from txcontain.runtime.supervised import FOLLOW_AGAIN

GONE = "its processes, cgroup and folders are gone"


def fail_with(number):
    """Fail as a system call does."""
    raise OSError(number, os.strerror(number))


class VerbTestCase(ManagerTestCase):
    """A test of what a manager is asked to do."""

    def begin_launch(self, **changes):
        """A launch that is on its way."""
        spec = self.add(**changes)
        return self.start(self.manager.launch(spec.name, spec.major, spec.minor))

    def names(self):
        """The instances that are listed as running."""
        return [instance.name for instance in self.manager.running()]

    def folders(self, below):
        """What is in a folder of the state's."""
        return sorted(os.listdir(os.path.join(self.folder, below)))

    def assertNothingLeft(self) -> None:
        """No process, folder, slot, descriptor or call is left of any instance."""
        self.assertEqual((self.kernel.living, self.kernel.pidfds), ({}, {}))
        self.assertEqual((self.folders("instances"), self.folders("run/slots")), ([], []))
        self.assertEqual((self.manager.instances, self.reactor.readers), ({}, []))


class ConfigTests(VerbTestCase):
    """Configs are kept."""

    def test_add(self) -> None:
        """A config is kept as it came, and the journal knows."""
        self.add()
        self.assertEqual(self.manager.config_names(), ["web-1-01.cfg"])
        self.assertEqual(self.manager.configs.read("web-1-01.cfg"), document())
        self.assertEqual(self.events(), ["config: web-1-01.cfg was uploaded"])

    def test_invalid(self) -> None:
        """A document that is none is not kept."""
        self.refused(self.manager.add_config(b"{}"), InvalidData)
        self.assertEqual((self.manager.config_names(), self.events()), ([], []))

    def test_exists(self) -> None:
        """A config of the same name, major and minor is refused."""
        self.add()
        self.refused(self.manager.add_config(document(startup_owner="www")), ConfigExists)

    def test_disk_full(self) -> None:
        """Where the disk takes no config the machine is at fault, and says with which file."""
        shutil.rmtree(self.manager.configs.folder)
        error = self.refused(self.manager.add_config(document()), MachineAtFault)
        self.assertEqual(error.chain[0], "keeping web-1-01.cfg")


class LaunchTests(VerbTestCase):
    """A config becomes an instance."""

    def test_launch(self) -> None:
        """A launched instance is listed, with a name of its own, and its folder is private."""
        instance = self.launch()
        self.assertRegex(instance.name, "^web-[0-9a-f]{8}$")
        self.assertEqual(self.names(), [instance.name])
        self.assertEqual(os.stat(instance.folder).st_mode & 0o777, 0o700)
        self.assertEqual(
            self.events()[1:], ["starting: from web-1-01.cfg", "running: its script runs"]
        )

    def test_plan(self) -> None:
        """What the init is sent is the plan of the spec, with its layers in their order."""
        self.launch(mounts=["b.tar /b READ", "a.tar /a READWRITE"])
        text = str(self.init.plan)
        places = [text.index(name.encode().hex()) for name in ("basefs.tar.gz", "b.tar", "a.tar")]
        self.assertEqual(places, sorted(places))

    def test_order(self) -> None:
        """Instances are listed in the order of their launch."""
        launched = [self.launch(minor=str(minor)).name for minor in range(3)]
        self.assertEqual(self.names(), launched)

    def test_no_config(self) -> None:
        """What was not uploaded can't be launched."""
        self.refused(self.manager.launch("web", "1", "01"), NoSuchConfig)

    def test_no_image(self) -> None:
        """A missing image or tarball is the config's fault, and nothing is begun."""
        self.manager.layers.missing = ["a.tar"]
        launched = self.begin_launch(mounts=["a.tar /a READ"])
        self.failureResultOf(launched, ConfigAtFault)
        self.assertNothingLeft()

    def test_fails(self) -> None:
        """A launch that fails leaves nothing but its reason in the journal."""
        self.reactor.works = False
        launched = self.begin_launch()
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(0)
        error = self.failureResultOf(launched, MachineAtFault).value
        self.assertEqual(self.events()[-1], f"refused: {error}")
        self.assertNothingLeft()

    def test_mistake_of_ours(self) -> None:
        """Whatever goes wrong in a launch, the container ends."""
        self.patch(Cgroups, "limit", lambda *_: 1 / 0)
        self.failureResultOf(self.begin_launch(), ZeroDivisionError)
        self.assertNothingLeft()

    def test_no_such_limit(self) -> None:
        """A limit that this machine has no control for is told by its name."""
        missing = OSError(2, "No such file or directory", "limits.memory, memory.max")
        self.patch(Cgroups, "limit", lambda *_: throw(missing))
        error = self.failureResultOf(self.begin_launch(), MachineAtFault).value
        self.assertIn("limits.memory", str(error))
        self.assertNothingLeft()

    def test_who_killed_it(self) -> None:
        """Of a launch that failed the journal says who ended the container, and why."""
        self.patch(Cgroups, "limit", lambda *_: throw(OSError(2, "no")))
        error = self.failureResultOf(self.begin_launch(), MachineAtFault).value
        ended = "ended: its launch failed, so the manager ended it (killed by SIGKILL)"
        self.assertEqual(self.events()[-2:], [ended, f"refused: {error}"])

    def test_no_folder(self) -> None:
        """Where no folder can be made the machine is at fault."""
        os.rmdir(os.path.join(self.folder, "instances"))
        error = self.failureResultOf(self.begin_launch(), MachineAtFault).value
        self.assertEqual(error.chain[0], "making the instance's folder")
        self.assertEqual(self.manager.instances, {})

    def test_port_of_an_instance(self) -> None:
        """A port that an instance has is refused, and the instance named."""
        self.reactor.works = False
        self.begin_launch(startup_env="PORT=8000")
        (first,) = self.manager.instances
        error = self.failureResultOf(
            self.begin_launch(minor="2", startup_env="PORT=8000"), ConfigAtFault
        ).value
        self.assertEqual(error.chain[:2], ("port 8000 is taken", f"by the instance {first}"))

    def test_port_of_another(self) -> None:
        """A port on which a process of the host listens is refused, and the process named."""
        self.kernel.listening[8000] = 17
        error = self.failureResultOf(self.begin_launch(startup_env="PORT=8000"), ConfigAtFault)
        self.assertEqual(error.value.chain[1], "by other (process 17)")
        self.assertNothingLeft()

    def test_port_is_free_again(self) -> None:
        """The port of an instance that has ended can be had."""
        self.reactor.works = False
        for minor in ("1", "2"):
            self.begin_launch(minor=minor, startup_env="PORT=8000")
            self.init.carry_out()
            self.init.end()
        self.assertEqual(len(self.reactor.inits), 2)


class PreparedTests(VerbTestCase):
    """Launches for which a warm init has done nearly all in advance."""

    def setUp(self) -> None:
        super().setUp()
        self.manager.pool.size = self.manager.pool.most = 2

    def launch_again(self, times=1, **changes):
        """Launch what was launched before, some times; returns the last instance."""
        if not self.manager.config_names():
            self.add(**changes)
        for _ in range(times):
            instance = self.now(self.manager.launch("web", "1", "01"))
            self.reactor.pump([REFILL_AFTER] * 5)
        return instance

    @property
    def prepared(self):
        """The names that are drawn for the next launches."""
        return sorted(self.manager.pool.ahead.names)

    def mode(self, name):
        """That of an instance's folder."""
        return os.stat(os.path.join(self.folder, "instances", name)).st_mode & 0o7777

    def test_launch(self) -> None:
        """The instance has the name that was drawn, its folder, and all but the exec is done."""
        self.launch_again(2)
        (name,) = self.prepared
        self.assertEqual(self.mode(name), PREPARED)
        self.assertNotIn(name, self.names())
        instance = self.launch_again()
        self.assertEqual((instance.name, self.mode(name)), (name, 0o700))
        self.assertEqual(instance.in_advance, len(instance.plan) - 1)
        self.assertNotIn(name, self.prepared)

    def test_layers(self) -> None:
        """Layers that are mounted in advance, or got by a launch, are in use; not of what ended."""
        instance = self.launch_again(2)
        self.now(self.manager.destroy(instance.name))
        used = self.manager._layers_in_use
        self.assertLessEqual(set(instance.layers), used())
        self.now(self.manager.destroy_all())
        self.manager.pool.expect_nothing()
        self.reactor.pump([REFILL_AFTER] * 5)
        self.assertFalse(set(instance.layers) & used())
        self.manager.kernel.listening[80] = 1
        self.add(minor="2", startup_env="PORT=80")
        self.patch(self.manager, "threads", lambda *_: Deferred())
        self.start(self.manager.launch("web", "1", "2"))
        self.assertLessEqual(set(instance.layers), used())

    def test_half_made(self) -> None:
        """While it is launched, its folder is that of any other launch."""
        self.launch_again(2)
        (name,) = self.prepared
        self.reactor.works = False
        self.start(self.manager.launch("web", "1", "01"))
        self.assertEqual(self.mode(name), HALF_MADE)

    def test_fails(self) -> None:
        """Where its exec fails, nothing is left of what was prepared for it."""
        self.launch_again(2)
        (name,) = self.prepared
        self.reactor.works = False
        launched = self.start(self.manager.launch("web", "1", "01"))
        (init,) = [init for init in self.reactor.inits if init.child.reserved == name]
        init.fail(step=len(init.plan) - 1, call="execve")
        self.reactor.advance(0)
        self.failureResultOf(launched, MachineAtFault)
        self.assertNotIn(name, self.folders("instances"))

    def test_another_minor(self) -> None:
        """Of another config, whose plan differs early, it is not."""
        self.launch_again(2)
        prepared = self.prepared
        instance = self.launch(minor="2", startup_owner="www-data")
        self.assertNotIn(instance.name, prepared)

    def test_own_ids(self) -> None:
        """Who gets a range of ids is none of those that were prepared without."""
        self.launch_again(2)
        prepared = self.prepared
        self.assertNotIn(self.launch(minor="2", user_namespace=True).name, prepared)
        self.launch_again()
        self.manager.user_namespace = True
        self.assertNotIn(self.launch_again().name, prepared)

    def test_failures_do_not_count(self) -> None:
        """What could not be launched is not expected."""
        self.reactor.works = False
        self.add()
        for _ in range(3):
            launched = self.start(self.manager.launch("web", "1", "01"))
            [init for init in self.reactor.inits if init.child.planned][-1].fail()
            self.reactor.pump([REFILL_AFTER] * 5)
            self.failureResultOf(launched)
        self.assertEqual((self.prepared, self.folders("instances")), ([], []))

    def test_removed(self) -> None:
        """Where someone has removed a prepared folder, one launch fails, and the next works."""
        self.launch_again(2)
        os.rmdir(os.path.join(self.folder, "instances", *self.prepared))
        self.refused(self.manager.launch("web", "1", "01"), MachineAtFault)
        self.reactor.pump([REFILL_AFTER] * 5)
        self.launch_again()

    def test_destroy_all(self) -> None:
        """When all are destroyed, what is prepared stays; and it goes with the manager."""
        self.launch_again(2)
        self.now(self.manager.destroy_all())
        self.assertEqual(self.folders("instances"), self.prepared)
        stopped = self.manager.pool.stop()
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)
        self.assertNothingLeft()

    def test_doctor(self) -> None:
        """What is prepared is none of what the doctor finds, and is let go by it."""
        self.launch_again(2)
        self.assertEqual(self.now(self.manager.doctor()), [])
        self.reactor.pump([REFILL_AFTER] * 5)
        self.assertEqual((self.prepared, self.folders("instances")), ([], sorted(self.names())))


class NetworkTests(VerbTestCase):
    """Instances on the private network."""

    def test_link(self) -> None:
        """A private instance has an address and a link of its own, another has none."""
        first = self.launch(network="private")
        attached = {"10.87.0.2": self.init.process}
        second = self.launch(minor="2")
        self.assertEqual((first.address, second.address), ("10.87.0.2", None))
        self.assertEqual(self.manager.network.bridge.attached, attached)

    def test_no_link(self) -> None:
        """Where no link can be made the launch fails with the reason, and nothing is left."""
        why = MachineAtFault("making the link", "EPERM")
        self.patch(FakeBridge, "attach", lambda *_: throw(why))
        launched = self.begin_launch(network="private")
        self.reactor.advance(0)
        self.assertEqual(self.failureResultOf(launched, MachineAtFault).value, why)
        self.assertNothingLeft()
        self.assertFalse(self.manager.network.bridge.up)

    def test_no_address(self) -> None:
        """Where all addresses are taken a launch is refused, until one is free again."""
        first, *_ = [self.launch(minor=str(minor), network="private") for minor in range(5)]
        launched = self.begin_launch(minor="6", network="private")
        self.failureResultOf(launched, MachineAtFault)
        self.now(self.manager.destroy(first.name))
        self.assertEqual(self.launch(minor="7", network="private").address, first.address)

    def test_destroy(self) -> None:
        """With the last private instance the bridge goes."""
        name = self.launch(network="private").name
        self.assertTrue(self.manager.network.bridge.up)
        self.now(self.manager.destroy(name))
        self.assertFalse(self.manager.network.bridge.up)

    def test_restart(self) -> None:
        """An instance that is started again has the same address, and a new link."""
        instance = self.launch(network="private", restart="always")
        self.init.end("Done")
        self.reactor.advance(0.1)
        self.assertTrue(instance.running)
        self.assertEqual(self.manager.network.bridge.attached, {"10.87.0.2": self.init.process})

    def test_published_ports(self) -> None:
        """A port of the host's is published by one instance at a time."""
        first = self.launch(network="private", ports=["8000:80"])
        launched = self.begin_launch(minor="2", network="private", ports=["8000:81"])
        error = self.failureResultOf(launched, ConfigAtFault).value
        self.assertIn(first.name, error.chain[1])


class FindTests(VerbTestCase):
    """One instance."""

    def test_none(self) -> None:
        """Of what is not there nothing can be had."""
        for verb in (self.manager.find, self.manager.inspect, self.manager.usage):
            self.assertRaises(NoSuchInstance, verb, "web-1")

    def test_inspect(self) -> None:
        """All that is known of an instance is plain data, but for its document."""
        record = self.manager.inspect(self.launch(startup_env="A=1").name)
        self.assertNotIn("document", record)
        self.assertEqual(json.loads(json.dumps(record))["spec"]["startup_env"], [["A", "1"]])

    def test_half_a_timeline(self) -> None:
        """Steps that are yet to come have no duration."""
        self.reactor.works = False
        self.begin_launch()
        (name,) = self.manager.instances
        plan = self.manager.inspect(name)["plan"]
        self.assertEqual({step["seconds"] for step in plan}, {None})


class DestroyTests(VerbTestCase):
    """Instances end, and nothing is left."""

    def test_destroy(self) -> None:
        """Nothing is left of a destroyed instance but an event."""
        instance = self.launch()
        self.now(self.manager.destroy(instance.name))
        self.assertNothingLeft()
        self.assertEqual(
            self.events()[-3:],
            [
                "stopping: asked to end",
                "ended: asked to end (killed by SIGKILL)",
                "destroyed: its processes, cgroup and folders are gone",
            ],
        )
        self.refused(self.manager.destroy(instance.name), NoSuchInstance)

    def test_ended(self) -> None:
        """One that had ended is destroyed too."""
        instance = self.launch()
        self.init.end("Done")
        self.assertEqual(self.names(), [])
        self.now(self.manager.destroy(instance.name))
        self.assertNothingLeft()

    def test_not_before_the_end_is_known(self) -> None:
        """Its folder goes as soon as its processes have; who asked is told when all has."""
        instance = self.launch()
        self.init.stuck = True
        destroyed = self.start(self.manager.destroy(instance.name))
        self.assertEqual(self.folders("instances"), [instance.name])
        self.init.end_init()
        self.assertEqual(self.folders("instances"), [])
        self.assertNoResult(destroyed)
        self.init.end("Killed")
        self.reactor.advance(0)
        self.successResultOf(destroyed)
        self.assertNothingLeft()

    def test_twice_at_once(self) -> None:
        """Of many who destroy an instance one is told that it has; to the others there is none."""
        instance = self.launch()
        first, *others = [
            Deferred.fromCoroutine(self.manager.destroy(instance.name)) for _ in range(20)
        ]
        self.reactor.advance(0)
        self.successResultOf(first)
        for other in others:
            self.failureResultOf(other, NoSuchInstance)
        self.assertNothingLeft()
        self.assertEqual(self.events().count(f"destroyed: {GONE}"), 1)

    def test_all_during_launches(self) -> None:
        """What is launched while all is destroyed says that, and no machine is at fault."""
        self.reactor.works = False
        launches = [self.begin_launch(minor=str(minor)) for minor in range(3)]
        self.now(self.manager.destroy_all())
        for launched in launches:
            self.failureResultOf(launched, CalledOff)
        self.assertNothingLeft()

    def test_during_its_launch(self) -> None:
        """An instance is destroyed at any point of its launch, which fails."""
        for point in ("connects", "prepares", "works"):
            setattr(self.reactor, point, False)
            launched = self.begin_launch(minor=point)
            (name,) = self.manager.instances
            destroyed = self.start(self.manager.destroy(name))
            if point == "connects":
                self.init.connect()
            elif point == "prepares":
                self.init.say({"ready": 1})
            self.reactor.advance(0)
            self.failureResultOf(launched, CalledOff)
            self.successResultOf(destroyed)
            self.assertNothingLeft()
            setattr(self.reactor, point, True)

    def test_just_launched(self) -> None:
        """An instance may be destroyed before it is heard that its script runs."""
        self.reactor.works = False
        launched = self.begin_launch()
        (name,) = self.manager.instances
        self.init.say({"done": [0.001]})
        connection, self.init.connection = self.init.connection, None
        destroyed = self.start(self.manager.destroy(name))
        connection.connectionLost()
        self.successResultOf(destroyed)
        self.failureResultOf(launched, CalledOff)
        self.assertNothingLeft()

    def test_stuck(self) -> None:
        """One that won't end delays neither the others' end nor a launch."""
        stuck, other = self.launch(minor="1"), self.launch(minor="2")
        self.reactor.inits[0].stuck = True
        destroyed = self.start(self.manager.destroy(stuck.name))
        self.now(self.manager.destroy(other.name))
        third = self.launch(minor="3")
        self.assertEqual(self.names(), [third.name])
        self.assertNoResult(destroyed)
        self.reactor.inits[0].end("Killed")
        self.successResultOf(destroyed)

    def test_stuck_for_long(self) -> None:
        """Who destroys one that won't end is told so in the end, and may try again."""
        stuck = self.launch()
        self.init.stuck = True
        destroyed = self.start(self.manager.destroy(stuck.name))
        self.reactor.pump([1] * round(END_WITHIN + 3))
        self.failureResultOf(destroyed, MachineAtFault)
        self.assertEqual(list(self.manager.instances), [stuck.name])
        destroyed = self.start(self.manager.destroy(stuck.name))
        self.init.end("Killed")
        self.reactor.advance(0)
        self.successResultOf(destroyed)
        self.assertNothingLeft()

    def test_all(self) -> None:
        """All are destroyed, also where there are none."""
        self.now(self.manager.destroy_all())
        for minor in ("1", "2", "3"):
            self.launch(minor=minor)
        self.init.end("Done")
        self.now(self.manager.destroy_all())
        self.assertNothingLeft()

    def test_all_at_once(self) -> None:
        """All are given their stop_timeout at the same time, not one after the other."""
        for minor in ("1", "2", "3"):
            self.launch(minor=minor, stop_timeout=2)
            self.kernel.catching[self.init.process.pid] = [self.init.process]
        destroyed = self.start(self.manager.destroy_all())
        self.reactor.pump([0.05] * 39)
        self.assertNoResult(destroyed)
        self.reactor.pump([0.05] * 3)
        self.successResultOf(destroyed)
        self.assertNothingLeft()

    def test_all_but_one(self) -> None:
        """One that can't be removed is told of; the others are gone."""
        first, second = self.launch(minor="1"), self.launch(minor="2")

        async def remove(path) -> None:
            if first.name in path:
                raise OSError(5, "Input/output error")
            shutil.rmtree(path)

        self.manager.remove = remove
        self.refused(self.manager.destroy_all(), MachineAtFault)
        self.assertEqual(list(self.manager.instances), [first.name])
        self.assertFalse(os.path.exists(second.folder))

    def test_again(self) -> None:
        """What could not be removed can be destroyed again."""
        instance, remove = self.launch(), self.manager.remove

        async def fail(path):
            raise OSError(5, "Input/output error")

        self.manager.remove = fail
        self.refused(self.manager.destroy(instance.name), MachineAtFault)
        self.manager.remove = remove
        self.now(self.manager.destroy(instance.name))
        self.assertNothingLeft()

    def test_something_left(self) -> None:
        """What is left after a second of looking is reported, and waited for until then."""
        instance = self.launch()
        self.patch(Cgroups, "remove", lambda *_: ["/sys/fs/cgroup/txcontain/x"])
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.pump([0.025] * 38)
        self.assertNoResult(destroyed)
        self.reactor.pump([0.025] * 3)
        error = self.failureResultOf(destroyed, MachineAtFault).value
        self.assertEqual(error.chain[1:], ("/sys/fs/cgroup/txcontain/x",))
        self.assertEqual(self.manager.instances, {})

    def test_process_left(self) -> None:
        """A process that is still there when its monitor has ended is something left, too."""
        instance = self.launch()
        self.init.end("Killed")
        self.kernel.living[self.init.process] = lambda: None
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.pump([0.025] * 41)
        error = self.failureResultOf(destroyed, MachineAtFault).value
        self.assertEqual(error.chain[1:], (f"process {self.init.process.pid}",))

    def test_gone_a_moment_later(self) -> None:
        """What the kernel takes its time to let go of is no complaint."""
        instance = self.launch()
        answers = iter([["/x"], ["/x"]])
        self.patch(Cgroups, "remove", lambda *_: next(answers, []))
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.pump([0.025] * 3)
        self.successResultOf(destroyed)


class FrozenDiskTests(VerbTestCase):
    """A disk that takes nothing for a while (fsfreeze)."""

    def freeze(self):
        """From now on all that is written waits; returns what was to be."""
        waiting = []

        def write(function, *arguments):
            written = Deferred()
            waiting.append((written, function, arguments))
            return written

        self.manager.pool.writes = self.manager.journal.writes = write
        return waiting

    def thaw(self, waiting) -> None:
        """The disk takes all that waits, in order, and what follows."""
        while waiting:
            written, function, arguments = waiting.pop(0)
            try:
                written.callback(function(*arguments))
            except OSError:
                written.errback()
            self.reactor.advance(0)

    def test_ends(self) -> None:
        """Ends are noticed meanwhile, and are on the disk, as all else, when it takes them."""
        ended, runs = self.launch(minor="1"), self.launch(minor="2")
        waiting = self.freeze()
        self.reactor.inits[0].end("Done(3)")
        self.assertEqual(self.names(), [runs.name])
        self.assertEqual(self.successResultOf(ended.end()).status, 3)
        launched = self.begin_launch(minor="3")
        destroyed = self.start(self.manager.destroy(runs.name))
        self.reactor.advance(1)
        self.assertNoResult(launched)
        self.assertNoResult(destroyed)
        self.thaw(waiting)
        self.successResultOf(destroyed)
        third = self.successResultOf(launched)
        with open(ended.path(RECORD)) as file:
            self.assertEqual(json.load(file)["exit"]["status"], 3)
        self.next_manager()
        self.assertEqual(self.states(), {ended.name: "ended", third.name: "running"})

    def next_manager(self) -> None:
        """The manager is killed, and another starts."""
        self.reactor.lose_manager()
        self.manager = make_manager(self.reactor, self.folder)
        self.manager.restore()

    def states(self):
        """The state of each instance, by its name."""
        return {one.name: one.state for one in self.manager.instances.values()}


class KeepTests(VerbTestCase):
    """Those that have ended are kept, up to a number."""

    def test_oldest(self) -> None:
        """Of more than keep_ended, those that ended first are forgotten with all they left."""
        self.manager.keep_ended = 2
        instances = [self.launch(minor=str(minor)) for minor in range(5)]
        for init in [self.reactor.inits[at] for at in (3, 0, 2, 1)]:
            self.reactor.advance(1)
            init.end("Done")
        self.reactor.advance(0)
        kept = {instances[at].name for at in (2, 1, 4)}
        self.assertEqual(set(self.manager.instances), kept)
        self.assertEqual(set(self.folders("instances")), kept)

    def test_none(self) -> None:
        """With keep_ended 0 nothing is kept."""
        self.manager.keep_ended = 0
        self.launch()
        self.init.end("Done")
        self.reactor.advance(0)
        self.assertNothingLeft()


class RestoreTestCase(VerbTestCase):
    """A test of what the next manager makes of what the last one left."""

    def next_manager(self):
        """The manager is killed, and another starts; returns what it did."""
        self.reactor.lose_manager()
        self.manager = make_manager(self.reactor, self.folder)
        self.manager.journal.open()
        done = self.manager.restore()
        self.manager.pool.start()
        self.reactor.advance(0)
        return done

    def boot(self) -> None:
        """The machine is booted again: no process is left, and new ones have the old pids."""
        self.kernel.boot = "the next boot"
        self.kernel.working.clear()

    def states(self):
        """The state of each instance, by its name."""
        return {instance.name: instance.state for instance in self.manager.instances.values()}


class RestoreTests(RestoreTestCase):
    """Every kind of instance that a manager may leave."""

    def test_nothing(self) -> None:
        """Where nothing was left nothing is done."""
        self.assertEqual(self.next_manager(), [])

    def test_running(self) -> None:
        """Containers run on, listed as before and in the same order."""
        before = []
        for minor in range(5):
            self.reactor.advance(1)
            before.append(self.launch(minor=str(minor)).record())
        self.reactor.advance(2)  # when the last one's timeline is kept too
        self.assertEqual(self.next_manager(), [])
        after = [instance.record() for instance in self.manager.running()]
        self.assertEqual(plain(after), plain(before))
        self.assertEqual(self.kernel.signals, [])

    def test_private(self) -> None:
        """A private instance keeps its address, which no other gets."""
        name = self.launch(network="private").name
        self.next_manager()
        self.assertEqual(self.manager.find(name).address, "10.87.0.2")
        self.assertEqual(self.launch(minor="2", network="private").address, "10.87.0.3")

    def test_its_end_is_noticed(self) -> None:
        """The end of a container that was found again is noticed, with its status."""
        name = self.launch().name
        self.next_manager()
        self.init.end("Done(3)")
        instance = self.manager.find(name)
        self.assertEqual((instance.state, instance.exit.status), ("ended", 3))
        self.assertEqual(self.events()[-2:], ["running: found again", "ended: exit status 3"])

    def test_it_is_destroyed(self) -> None:
        """A container that was found again can be destroyed, and nothing is left."""
        name = self.launch().name
        self.next_manager()
        self.now(self.manager.destroy(name))
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])
        self.assertNothingLeft()

    def test_again_and_again(self) -> None:
        """Any number of managers may follow each other."""
        name = self.launch().name
        for _ in range(3):
            self.next_manager()
        self.assertEqual(self.states(), {name: "running"})
        self.now(self.manager.destroy(name))
        self.assertNothingLeft()

    def test_ended_meanwhile(self) -> None:
        """One that ended while no manager ran has ended, with its true status and time."""
        name = self.launch().name
        self.reactor.lose_manager()
        self.reactor.advance(7)
        self.init.end("Done(3)")
        self.next_manager()
        instance = self.manager.find(name)
        self.assertEqual((instance.state, instance.exit.status, instance.exit.at), ("ended", 3, 7))
        self.now(self.manager.destroy(name))
        self.assertNothingLeft()

    def test_monitor_killed_too(self) -> None:
        """Where no one has seen how it ended, that is said, and it counts as a failure."""
        name = self.launch().name
        self.reactor.lose_manager()
        self.init.end()
        os.unlink(os.path.join(self.init.slot, "exit"))
        self.next_manager()
        self.assertIn("no one saw how", str(self.manager.find(name).exit))

    def test_reboot(self) -> None:
        """After a reboot it has ended by the reboot, whoever has its pids now."""
        name = self.launch().name
        self.boot()
        self.next_manager()
        instance = self.manager.find(name)
        self.assertEqual(
            (instance.state, instance.exit.reason), ("ended", "ended by a reboot of the machine")
        )
        self.assertEqual(self.kernel.signals, [])

    def test_listens_later(self) -> None:
        """That a container listens is noticed by the next manager too."""
        launched = self.begin_launch(startup_env="PORT=8000")
        (name,) = self.names()
        self.next_manager()
        self.assertNoResult(launched)
        self.kernel.listening[8000] = self.init.process.pid
        self.reactor.advance(1)
        self.assertTrue(self.manager.find(name).ready)

    def test_ended_before_a_reboot(self) -> None:
        """What ended before the reboot, unseen by any manager, has ended as its monitor wrote."""
        name = self.launch().name
        self.reactor.lose_manager()
        self.init.end("Done(3)")
        self.boot()
        self.next_manager()
        self.assertEqual(self.manager.find(name).exit.status, 3)

    def test_restart_after_a_reboot(self) -> None:
        """One that is to be restarted always is started again after a reboot."""
        name = self.launch(restart="always").name
        self.boot()
        self.next_manager()
        self.assertEqual(self.states(), {name: "waiting"})
        self.reactor.advance(0.1)
        self.assertEqual(self.states(), {name: "running"})
        self.assertEqual(len(self.reactor.inits), 2)

    def test_restart(self) -> None:
        """One that ended while no manager ran is started again, if its policy says so."""
        for words, state in (("Done(1)", "waiting"), ("Done", "ended")):
            name = self.launch(minor=state, restart="on-failure").name
            self.reactor.lose_manager()
            self.init.end(words)
            self.next_manager()
            self.assertEqual(self.states()[name], state)
            self.manager.pause()

    def test_waiting(self) -> None:
        """One that waited for its next start goes on waiting, its restarts counted."""
        name = self.launch(restart="always", max_restarts=2).name
        self.init.end("Done")
        self.reactor.advance(0.1)
        self.init.end("Done")
        self.next_manager()
        self.assertEqual((self.states(), self.manager.find(name).restarts), ({name: "waiting"}, 1))
        self.reactor.advance(0.2)  # the delay is not the first one either
        self.init.end("Done")
        self.assertEqual((self.states(), self.manager.find(name).restarts), ({name: "ended"}, 2))

    def test_hardly_any_descriptors(self) -> None:
        """A manager that may open few files finds all that run, at one each, and says so."""
        names = {self.launch(minor=str(minor)).name for minor in range(20)}
        self.kernel.most_open = 12
        done = self.next_manager()
        self.assertEqual(dict.fromkeys(names, "running"), self.states())
        self.assertIn("may open 12 files only, which is too few for 20 instances", done[-1])
        self.kernel.most_open = 64
        self.reactor.advance(FOLLOW_AGAIN)
        self.assertEqual(len(self.reactor.readers), 20)
        for init in self.reactor.inits:
            init.end("Done")
        self.assertEqual(set(self.states().values()), {"ended"})

    def test_record_can_not_be_read_yet(self) -> None:
        """One whose record can't be read now is let run, and taken over a moment later."""
        name = self.launch(minor="1").name
        with mock.patch.object(records, "read_file", lambda *_: fail_with(5)):
            done = self.next_manager()
            self.assertEqual(len(done), 1)
            self.assertIn(f"can't read the record of {name} yet", done[0])
            self.assertEqual((self.states(), self.kernel.signals), ({}, []))
            self.assertEqual(self.now(self.manager.doctor()), [])
            self.reactor.advance(READ_AGAIN)
            self.assertEqual(self.states(), {})
        self.reactor.advance(READ_AGAIN)
        self.assertEqual(self.states(), {name: "running"})
        self.now(self.manager.destroy(name))
        self.assertNothingLeft()

    def test_one_that_breaks_it(self) -> None:
        """One with which something goes wrong (our own error) keeps no other from being found."""
        first, second = self.launch(minor="1").name, self.launch(minor="2").name

        class Breaking(Instance):
            def recall(self, record) -> None:
                if self.name == first:
                    raise ZeroDivisionError
                super().recall(record)

        self.patch(manager, "Instance", Breaking)
        done = self.next_manager()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(done, [f"could not go on with {first}: the manager's log says why"])
        self.assertEqual(self.states()[second], "running")
        self.assertEqual(self.kernel.signals, [])

    def test_monitor_without_its_child(self) -> None:
        """One whose PID 1 is gone, and whose monitor is about to end, ends in a moment."""
        name = self.launch().name
        self.init.end_init()
        self.kernel.reap(self.init.process)
        self.next_manager()
        self.assertEqual(self.manager.find(name).record()["pid"], None)
        self.init.end("Done(3)")
        self.assertEqual(self.manager.find(name).exit.status, 3)

    def test_no_files(self) -> None:
        """A folder, pipe or link for a record is none; who has put it there makes no one wait."""
        for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
            name = self.launch(minor=str(len(self.folders("configs")))).name
            path = os.path.join(self.folder, "instances", name, RECORD)
            self.reactor.advance(2)
            os.unlink(path)
            make(path)
            done = self.next_manager()
            self.assertIn("it is not a regular file", done[0])

    def test_delays(self) -> None:
        """The delay before a restart goes on growing, over any number of managers."""
        self.launch(restart="always")
        for delay in (0.1, 0.2, 0.4, 0.8):
            self.init.end("Done")
            self.next_manager()
            self.reactor.advance(delay - 0.01)
            count = len(self.reactor.inits)
            self.reactor.advance(0.02)
            self.assertEqual(len(self.reactor.inits), count + 1)
            self.next_manager()

    def test_steady_over_managers(self) -> None:
        """That it has run for long counts, whichever managers ran meanwhile."""
        name = self.launch(restart="always").name
        self.init.end("Done")
        self.reactor.advance(1)
        self.reactor.advance(6)
        self.next_manager()
        self.reactor.advance(6)
        self.init.end("Done")
        self.assertIn("in 0.1 s", self.events()[-1])
        self.assertEqual(self.manager.find(name).state, "waiting")

    def test_since(self) -> None:
        """However often managers follow each other, it is known since when one has ended, and how.

        So is how one had ended that was started again.
        """
        ended, again = self.launch(minor="1").name, None
        self.init.end("Done(3)")
        again = self.launch(minor="2", restart="always").name
        self.init.end("Done(4)")
        self.reactor.advance(1.5)
        before = {name: self.manager.find(name).record() for name in (ended, again)}
        for _ in range(3):
            self.reactor.advance(5)
            self.next_manager()
            for name, record in before.items():
                after = self.manager.find(name).record()
                for key in ("since", "launched", "exit", "restarts", "state"):
                    self.assertEqual(after[key], record[key], (name, key))

    def test_stopping(self) -> None:
        """A destroy that was not finished is finished, whether it still ran or not."""
        for ended in (False, True):
            name = self.launch(minor=str(ended)).name
            self.kernel.catching[self.init.process.pid] = [self.init.process]
            self.start(self.manager.destroy(name))
            self.reactor.lose_manager()
            if ended:
                self.init.end("Done")
            self.next_manager()
            self.reactor.pump([0.05] * 42)
            self.assertNothingLeft()

    def test_ended(self) -> None:
        """One that had ended has, with its exit and since when."""
        self.reactor.advance(3)
        name = self.launch().name
        self.init.end("Killed")
        before = self.manager.find(name).record()
        self.reactor.advance(3)
        self.next_manager()
        after = self.manager.find(name).record()
        self.assertEqual(plain({**after, "slot": None}), plain({**before, "slot": None}))
        self.assertEqual(self.events()[-1], "ended: killed by SIGKILL")

    def test_half_made(self) -> None:
        """A launch that was cut short at any point is rolled back, its processes ended."""
        for point in ("connects", "prepares", "works"):
            setattr(self.reactor, point, False)
            self.begin_launch(minor=point)
            (name,) = self.manager.instances
            done = self.next_manager()
            if point == "works":  # before, there was no more of it than an init
                self.assertIn(f"rolled back {name}, which was half made or half removed", done)
            self.assertNothingLeft()
            setattr(self.reactor, point, True)

    def test_prepared(self) -> None:
        """What was prepared for a launch that did not come is removed, and is no launch's."""
        os.mkdir(os.path.join(self.folder, "instances/web-1"), PREPARED)
        done = self.next_manager()
        what = "removed web-1, which had been prepared for a launch that did not come"
        self.assertEqual(done, [what])
        self.assertNothingLeft()

    def test_half_removed(self) -> None:
        """A removal that was cut short is finished."""
        folder = os.path.join(self.folder, "instances/web-1")
        os.makedirs(os.path.join(folder, "rw"))
        os.chmod(folder, ENDING)
        done = self.next_manager()
        self.assertEqual(done, ["rolled back web-1, which was half made or half removed"])
        self.assertNothingLeft()

    def test_hardly_removed(self) -> None:
        """One that had ended, and whose removal was just begun, is removed."""
        instance = self.launch()
        self.init.end("Done")
        os.chmod(instance.folder, ENDING)
        self.next_manager()
        self.assertNothingLeft()

    def test_stranger(self) -> None:
        """A container of which no record is left is ended."""
        instance = self.launch()
        shutil.rmtree(instance.folder)
        done = self.next_manager()
        self.assertEqual(len(done), 1)
        self.assertIn(str(self.init.process.pid), done[0])
        self.assertNothingLeft()

    def test_empty_slots(self) -> None:
        """A slot that no one is in is removed."""
        os.mkdir(os.path.join(self.folder, "run/slots/0123"))
        self.next_manager()
        self.assertNothingLeft()

    def test_leftovers(self) -> None:
        """What unpacking and uploading were cut short at is removed, and told of."""
        os.makedirs(os.path.join(self.folder, "layers/0123-4567.unpacking/layer"))
        with open(os.path.join(self.folder, "configs/.web-1-01.cfg.1.tmp"), "w") as file:
            file.write("{")
        self.assertEqual(len(self.next_manager()), 2)
        self.assertEqual((self.folders("layers"), self.folders("configs")), ([], []))

    def test_journal(self) -> None:
        """What was done is in the journal."""
        os.makedirs(os.path.join(self.folder, "instances/web-1"))
        (what,) = self.next_manager()
        self.assertEqual(self.events(), [f"recovered: {what}"])

    def test_pause(self) -> None:
        """A manager that ends leaves nothing to be done, and no container is touched."""
        self.launch()
        self.launch(minor="2", restart="always")
        self.init.end("Done")
        self.manager.pause()
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.inits), 2)
        self.assertEqual((self.reactor.getDelayedCalls(), self.kernel.signals), ([], []))

    def test_largest_config(self) -> None:
        """The largest config there can be is read back of its instance's record."""
        padded = document().replace(b"{", b"{" + b"\n" * ((1 << 20) - len(document())), 1)
        self.now(self.manager.add_config(padded))
        name = self.now(self.manager.launch("web", "1", "01")).name
        self.next_manager()
        self.assertEqual(self.states(), {name: "running"})


class ScribbleTests(RestoreTestCase):
    """Records that are none."""

    def restore(self, content) -> None:
        """Put this in place of an instance's record, and start the next manager."""
        for name in self.folders("instances"):
            shutil.rmtree(os.path.join(self.folder, "instances", name))
        os.mkdir(os.path.join(self.folder, "instances/web-1"))
        with open(os.path.join(self.folder, "instances/web-1", RECORD), "wb") as file:
            file.write(content)
        aside = len(self.folders("aside"))
        self.next_manager()
        for instance in self.manager.instances.values():
            json.dumps(instance.record(), allow_nan=False)
        self.assertEqual(len(self.manager.instances) + len(self.folders("aside")), aside + 1)
        self.manager.pause()

    @given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
    def test_arbitrary(self, content) -> None:
        """Whatever is in a record, the manager starts, and what it can't use is set aside."""
        self.restore(content)
        self.assertEqual(self.manager.instances, {})

    @given(st.data())
    def test_changed(self, data) -> None:
        """Whatever one value of a record is changed to, the manager starts."""
        record = self.a_record()
        key = data.draw(st.sampled_from(sorted(record)))
        record[key] = data.draw(JSON | st.sampled_from([1e999, "../../etc", "x" * 300, [{}]]))
        self.restore(json.dumps(record).encode())

    @given(st.sampled_from(["status", "signal", "reason", "at"]), JSON | st.just(1e999))
    def test_changed_exit(self, key, value) -> None:
        """Whatever an end is changed to, the manager starts."""
        record = self.a_record()
        record["exit"][key] = value
        self.restore(json.dumps(record).encode())

    @given(st.integers(0, 2000))
    def test_cut_short(self, length) -> None:
        """A record that was cut short anywhere is set aside."""
        record = json.dumps(self.a_record()).encode()
        self.restore(record[: min(length, len(record) - 1)])
        self.assertEqual(self.manager.instances, {})

    def a_record(self):
        """A record as it is written."""
        if not hasattr(self, "written"):
            instance = self.launch()
            self.init.end("Done(3)")
            self.written = json.dumps(instance.record())
        return json.loads(self.written)

    def test_its_container(self) -> None:
        """The container of a record that is set aside is ended, and its folder kept."""
        instance = self.launch()
        with open(instance.path(RECORD), "w") as file:
            file.write("{")
        done = self.next_manager()
        self.assertEqual(len(done), 2)
        self.assertEqual(len(self.folders("aside")), 1)
        self.assertNothingLeft()

    def test_slots(self) -> None:
        """What is in the folder of the slots and is none harms no one."""
        slots = os.path.join(self.folder, "run/slots")
        os.makedirs(os.path.join(slots, "0123/folder"), exist_ok=True)
        open(os.path.join(slots, "stray"), "w").close()
        self.assertEqual(self.next_manager(), ["removed the slot 0123, of nothing that runs"])
        self.reactor.pump([0.025] * 40)
        self.launch()


class DoctorTests(VerbTestCase):
    """What should not be there is found and removed."""

    def doctor(self):
        """What the doctor finds and does."""
        found = self.now(self.manager.doctor())
        self.reactor.advance(0)
        return found

    def test_all_is_well(self) -> None:
        """Where all is as it should be nothing is found, whatever runs, waits or has ended."""
        self.launch()
        self.launch(minor="2", restart="always")
        self.init.end("Done")
        self.launch(minor="3")
        self.init.end("Done")
        self.assertEqual(self.doctor(), [])
        self.assertEqual(self.names(), [next(iter(self.manager.instances))])
        self.manager.pause()

    def test_during_a_launch(self) -> None:
        """An instance that is just being made is none of what is found."""
        self.reactor.works = False
        launched = self.begin_launch()
        self.assertEqual(self.doctor(), [])
        self.init.carry_out()
        self.successResultOf(launched)

    def test_found(self) -> None:
        """Folders of no instance, slots of no one and unused layers are removed."""
        os.mkdir(os.path.join(self.folder, "instances/lost"))
        os.mkdir(os.path.join(self.folder, "layers/0123"))
        os.mkdir(os.path.join(self.folder, "run/slots/0123"))
        self.assertEqual(
            self.doctor(),
            [
                "removed the slot 0123, of nothing that runs",
                "removed the folder instances/lost, of no instance",
                "removed the layer 0123, which nothing uses",
            ],
        )
        self.assertEqual(self.folders("layers"), [])
        self.assertNothingLeft()

    def test_used_layers(self) -> None:
        """A layer that an instance uses stays."""
        for layer in self.launch().layers:
            os.mkdir(layer)
        self.assertEqual(self.doctor(), [])
        self.assertEqual(len(self.folders("layers")), 1)

    def test_mounts(self) -> None:
        """A mount of the host's in the state folder is told of, and left alone."""
        self.kernel.mounts = [f"{self.folder}/instances/x"]
        (found,) = self.doctor()
        self.assertIn("/instances/x", found)

    def test_journal(self) -> None:
        """What was done is in the journal."""
        os.mkdir(os.path.join(self.folder, "instances/lost"))
        self.doctor()
        self.assertEqual(
            self.events(),
            [
                "doctor: removed the folder instances/lost, of no instance",
            ],
        )


def plain(value):
    """A value as it is read back from JSON."""
    return json.loads(json.dumps(value))


def throw(error):
    """Raise it, as a function that fails."""
    raise error
