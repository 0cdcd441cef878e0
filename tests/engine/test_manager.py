"""What a manager can be asked to do, on a fake machine."""

import json
import os
import shutil
from typing import Any

from twisted.internet.defer import Deferred

from tests.fakes import FakeBridge, ManagerTestCase, make_manager
from tests.support import document
from txcontain.engine.configs import upload
from txcontain.engine.inspection import inspect
from txcontain.engine.recovery import doctor, restore
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
from txcontain.runtime.ending import END_WITHIN
from txcontain.runtime.phase import Phase, phase_of
from txcontain.runtime.records import RECORD
from txcontain.runtime.warm import REFILL_AFTER

GONE = "its processes, cgroup and folders are gone"


class VerbTestCase(ManagerTestCase):
    """A test of one of the manager's verbs."""

    def begin_launch(self, **changes: Any) -> Any:
        """A launch in progress."""
        spec = self.add(**changes)
        return self.start(self.manager.launch(spec.name, spec.major, spec.minor))

    def names(self) -> Any:
        """The names of the running instances."""
        return [instance.name for instance in self.manager.running()]

    def folders(self, below: Any) -> Any:
        """What is in a folder of the state folder."""
        return sorted(os.listdir(os.path.join(self.folder, below)))

    def assertNothingLeft(self) -> None:
        """No process, folder, run directory, descriptor or timer is left of any instance."""
        self.assertEqual((self.kernel.living, self.kernel.pidfds), ({}, {}))
        self.assertEqual((self.folders("instances"), self.folders("run/slots")), ([], []))
        self.assertEqual((self.manager.instances, self.reactor.readers), ({}, []))

    def assertOnlyRecordsLeft(self) -> None:
        """Of launches that failed there are the records, and nothing else."""
        self.assertEqual((self.kernel.living, self.kernel.pidfds), ({}, {}))
        self.assertEqual((self.folders("run/slots"), self.reactor.readers), ([], []))
        self.assertEqual(self.folders("instances"), sorted(self.manager.instances))
        for instance in self.manager.instances.values():
            self.assertEqual(instance.state, "failed")
            self.assertEqual(os.listdir(instance.folder), [RECORD])
            self.assertEqual(phase_of(instance.folder), Phase.WHOLE)


class ConfigTests(VerbTestCase):
    """Configs are stored."""

    def test_add(self) -> None:
        """A config is stored as it came, and the journal has an event."""
        self.add()
        self.assertEqual(self.manager.configs.names(), ["web-1-01.cfg"])
        self.assertEqual(self.manager.configs.read("web-1-01.cfg"), document())
        self.assertEqual(self.events(), ["config: web-1-01.cfg was uploaded"])

    def test_invalid(self) -> None:
        """An invalid document is not stored."""
        self.refused(upload(self.manager, b"{}"), InvalidData)
        self.assertEqual((self.manager.configs.names(), self.events()), ([], []))

    def test_exists(self) -> None:
        """A second config with the same name, major and minor is refused."""
        self.add()
        self.refused(upload(self.manager, document(startup_owner="www")), ConfigExists)

    def test_disk_full(self) -> None:
        """If the disk refuses a config, the error blames the machine and names the file."""
        shutil.rmtree(self.manager.configs.folder)
        error = self.refused(upload(self.manager, document()), MachineAtFault)
        self.assertEqual(error.chain[0], "keeping web-1-01.cfg")


class LaunchTests(VerbTestCase):
    """A config becomes an instance."""

    def test_launch(self) -> None:
        """A launched instance is listed under its own name, and its folder is private."""
        instance = self.launch()
        self.assertRegex(instance.name, "^web-[0-9a-f]{8}$")
        self.assertEqual(self.names(), [instance.name])
        self.assertEqual(os.stat(instance.folder).st_mode & 0o777, 0o700)
        self.assertEqual(
            self.events()[1:], ["starting: from web-1-01.cfg", "running: its script runs"]
        )

    def test_plan(self) -> None:
        """The init receives the plan of the spec, with the layers in their order."""
        self.launch(mounts=["b.tar /b READ", "a.tar /a READWRITE"])
        text = str(self.init.plan)
        places = [text.index(name.encode().hex()) for name in ("basefs.tar.gz", "b.tar", "a.tar")]
        self.assertEqual(places, sorted(places))

    def test_order(self) -> None:
        """Instances are listed in launch order."""
        launched = [self.launch(minor=str(minor)).name for minor in range(3)]
        self.assertEqual(self.names(), launched)

    def test_no_config(self) -> None:
        """A config that was not uploaded can't be launched."""
        self.refused(self.manager.launch("web", "1", "01"), NoSuchConfig)

    def test_no_image(self) -> None:
        """A missing image or tarball is the config's fault, and nothing is started."""
        self.layers.missing = ["a.tar"]
        launched = self.begin_launch(mounts=["a.tar /a READ"])
        self.failureResultOf(launched, ConfigAtFault)
        self.assertNothingLeft()

    def test_fails(self) -> None:
        """A failed launch leaves its reason, in the journal and in its record, and nothing else."""
        self.reactor.works = False
        launched = self.begin_launch()
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(0)
        error = self.failureResultOf(launched, MachineAtFault).value
        self.assertEqual(self.events()[-1], f"refused: {error}")
        self.assertOnlyRecordsLeft()
        (instance,) = self.manager.instances.values()
        self.assertEqual(instance.exit.reason, str(error))

    def test_mistake_of_ours(self) -> None:
        """Whatever goes wrong in a launch, the container ends."""
        self.patch(Cgroups, "limit", lambda *_: 1 / 0)
        self.failureResultOf(self.begin_launch(), ZeroDivisionError)
        self.assertOnlyRecordsLeft()

    def test_no_such_limit(self) -> None:
        """If the machine lacks the control for a limit, the error names the limit."""
        missing = OSError(2, "No such file or directory", "limits.memory, memory.max")
        self.patch(Cgroups, "limit", lambda *_: throw(missing))
        error = self.failureResultOf(self.begin_launch(), MachineAtFault).value
        self.assertIn("limits.memory", str(error))
        self.assertOnlyRecordsLeft()

    def test_who_killed_it(self) -> None:
        """After a failed launch, the journal says who ended the container, and why."""
        self.patch(Cgroups, "limit", lambda *_: throw(OSError(2, "no")))
        error = self.failureResultOf(self.begin_launch(), MachineAtFault).value
        ended = "failed: its launch failed, so the manager ended it (killed by SIGKILL)"
        self.assertEqual(self.events()[-2:], [ended, f"refused: {error}"])

    def test_no_folder(self) -> None:
        """If the folder can't be made, the error blames the machine."""
        os.rmdir(os.path.join(self.folder, "instances"))
        error = self.failureResultOf(self.begin_launch(), MachineAtFault).value
        self.assertEqual(error.chain[0], "making the instance's folder")
        self.assertEqual(self.manager.instances, {})

    def test_port_of_an_instance(self) -> None:
        """A port that another instance uses is refused, and the error names the instance."""
        self.reactor.works = False
        self.begin_launch(startup_env="PORT=8000")
        (first,) = self.manager.instances
        error = self.failureResultOf(
            self.begin_launch(minor="2", startup_env="PORT=8000"), ConfigAtFault
        ).value
        self.assertEqual(error.chain[:2], ("port 8000 is taken", f"by the instance {first}"))

    def test_port_of_another(self) -> None:
        """A port that a process of the host uses is refused, and the error names the process."""
        self.kernel.listening[8000] = 17
        error = self.failureResultOf(self.begin_launch(startup_env="PORT=8000"), ConfigAtFault)
        self.assertEqual(error.value.chain[1], "by other (process 17)")
        self.assertNothingLeft()

    def test_port_is_free_again(self) -> None:
        """The port of an ended instance is free again."""
        self.reactor.works = False
        for minor in ("1", "2"):
            self.begin_launch(minor=minor, startup_env="PORT=8000")
            self.init.carry_out()
            self.init.end()
        self.assertEqual(len(self.reactor.inits), 2)


class PreparedTests(VerbTestCase):
    """Launches for which a warm init has done nearly everything in advance."""

    def setUp(self) -> None:
        super().setUp()
        self.manager.pool.warm.least = self.manager.pool.warm.most = 2

    def launch_again(self, times: int = 1, **changes: Any) -> Any:
        """Launch the same config several times; returns the last instance."""
        if not self.manager.configs.names():
            self.add(**changes)
        for _ in range(times):
            instance = self.now(self.manager.launch("web", "1", "01"))
            self.reactor.pump([REFILL_AFTER] * 5)
        return instance

    @property
    def prepared(self) -> Any:
        """The names that are reserved for the next launches."""
        return sorted(self.manager.pool.prepared.names)

    def mode(self, name: str) -> Any:
        """The mode of an instance's folder."""
        return os.stat(os.path.join(self.folder, "instances", name)).st_mode & 0o7777

    def test_launch(self) -> None:
        """The instance gets the reserved name and folder, and only the exec is left to do."""
        self.launch_again(2)
        (name,) = self.prepared
        self.assertEqual(self.mode(name), Phase.PREPARED)
        self.assertNotIn(name, self.names())
        instance = self.launch_again()
        self.assertEqual((instance.name, self.mode(name)), (name, 0o700))
        self.assertEqual(instance.in_advance, len(instance.plan) - 1)
        self.assertNotIn(name, self.prepared)

    def test_layers(self) -> None:
        """Layers of launches and of warm inits are in use; those of ended instances are not."""
        instance = self.launch_again(2)
        self.now(self.manager.destroy(instance.name))
        used = self.manager.layers_in_use
        self.assertLessEqual(set(instance.layers), used())
        self.now(self.manager.destroy_all())
        self.manager.pool.expect_nothing()
        self.reactor.pump([REFILL_AFTER] * 5)
        self.assertFalse(set(instance.layers) & used())
        self.kernel.listening[80] = 1
        self.add(minor="2", startup_env="PORT=80")
        self.patch(self.manager, "threads", lambda *_: Deferred())
        self.start(self.manager.launch("web", "1", "2"))
        self.assertLessEqual(set(instance.layers), used())

    def test_half_made(self) -> None:
        """During its launch, its folder has the same mode as in any other launch."""
        self.launch_again(2)
        (name,) = self.prepared
        self.reactor.works = False
        self.start(self.manager.launch("web", "1", "01"))
        self.assertEqual(self.mode(name), Phase.HALF_MADE)

    def test_fails(self) -> None:
        """If its exec fails, only its record is left of what was prepared for it."""
        self.launch_again(2)
        (name,) = self.prepared
        self.reactor.works = False
        launched = self.start(self.manager.launch("web", "1", "01"))
        (init,) = [init for init in self.reactor.inits if init.child.reserved == name]
        init.fail(step=len(init.plan) - 1, call="execve")
        self.reactor.advance(0)
        self.failureResultOf(launched, MachineAtFault)
        self.assertEqual(self.folders(f"instances/{name}"), [RECORD])
        self.assertNotIn(name, self.prepared)

    def test_another_minor(self) -> None:
        """A launch of a config with another plan does not get it."""
        self.launch_again(2)
        prepared = self.prepared
        instance = self.launch(minor="2", startup_owner="www-data")
        self.assertNotIn(instance.name, prepared)

    def test_own_ids(self) -> None:
        """A launch with a user namespace does not get one that was prepared without."""
        self.launch_again(2)
        prepared = self.prepared
        self.assertNotIn(self.launch(minor="2", user_namespace=True).name, prepared)
        self.launch_again()
        self.manager.user_namespace = True
        self.assertNotIn(self.launch_again().name, prepared)

    def test_failures_do_not_count(self) -> None:
        """A failed launch does not make the manager expect another one."""
        self.reactor.works = False
        self.add()
        for _ in range(3):
            launched = self.start(self.manager.launch("web", "1", "01"))
            [init for init in self.reactor.inits if init.child.planned][-1].fail()
            self.reactor.pump([REFILL_AFTER] * 5)
            self.failureResultOf(launched)
        self.assertEqual(self.prepared, [])
        self.assertEqual(self.folders("instances"), sorted(self.manager.instances))

    def test_removed(self) -> None:
        """If someone has removed a prepared folder, one launch fails, and the next one works."""
        self.launch_again(2)
        os.rmdir(os.path.join(self.folder, "instances", *self.prepared))
        self.refused(self.manager.launch("web", "1", "01"), MachineAtFault)
        self.reactor.pump([REFILL_AFTER] * 5)
        self.launch_again()

    def test_destroy_all(self) -> None:
        """Destroying all instances leaves what is prepared; stopping the manager removes it."""
        self.launch_again(2)
        self.now(self.manager.destroy_all())
        self.assertEqual(self.folders("instances"), self.prepared)
        stopped = self.manager.pool.stop()
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)
        self.assertNothingLeft()

    def test_doctor(self) -> None:
        """The doctor does not report what is prepared, but lets it go."""
        self.launch_again(2)
        self.assertEqual(self.now(doctor(self.manager)), [])
        self.reactor.pump([REFILL_AFTER] * 5)
        self.assertEqual((self.prepared, self.folders("instances")), ([], sorted(self.names())))


class NetworkTests(VerbTestCase):
    """Instances on the private network."""

    def test_link(self) -> None:
        """A private instance has its own address and link; any other has none."""
        first = self.launch(network="private")
        attached = {"10.87.0.2": self.init.process}
        second = self.launch(minor="2")
        self.assertEqual((first.address, second.address), ("10.87.0.2", None))
        self.assertEqual(self.bridge.attached, attached)

    def test_no_link(self) -> None:
        """If the link can't be made, the launch fails with the reason, and no link is left."""
        why = MachineAtFault("making the link", "EPERM")
        self.patch(FakeBridge, "attach", lambda *_: throw(why))
        launched = self.begin_launch(network="private")
        self.reactor.advance(0)
        self.assertEqual(self.failureResultOf(launched, MachineAtFault).value, why)
        self.assertOnlyRecordsLeft()
        self.assertFalse(self.bridge.up)

    def test_no_address(self) -> None:
        """If all addresses are taken, a launch is refused until one is free."""
        first, *_ = [self.launch(minor=str(minor), network="private") for minor in range(5)]
        launched = self.begin_launch(minor="6", network="private")
        self.failureResultOf(launched, MachineAtFault)
        self.now(self.manager.destroy(first.name))
        self.assertEqual(self.launch(minor="7", network="private").address, first.address)

    def test_destroy(self) -> None:
        """The bridge is removed with the last private instance."""
        name = self.launch(network="private").name
        self.assertTrue(self.bridge.up)
        self.now(self.manager.destroy(name))
        self.assertFalse(self.bridge.up)

    def test_restart(self) -> None:
        """A restarted instance keeps its address and gets a new link."""
        instance = self.launch(network="private", restart="always")
        self.init.end("Done")
        self.reactor.advance(0.1)
        self.assertTrue(instance.running)
        self.assertEqual(self.bridge.attached, {"10.87.0.2": self.init.process})

    def test_published_ports(self) -> None:
        """Only one instance at a time can publish a port of the host."""
        first = self.launch(network="private", ports=["8000:80"])
        launched = self.begin_launch(minor="2", network="private", ports=["8000:81"])
        error = self.failureResultOf(launched, ConfigAtFault).value
        self.assertIn(first.name, error.chain[1])


class FindTests(VerbTestCase):
    """One instance."""

    def test_none(self) -> None:
        """An unknown instance is not found, and can't be destroyed."""
        self.assertRaises(NoSuchInstance, self.manager.find, "web-1")
        self.refused(self.manager.destroy("web-1"), NoSuchInstance)

    def test_inspect(self) -> None:
        """An inspected instance is plain data, without its document."""
        record = inspect(self.manager, self.manager.find(self.launch(startup_env="A=1").name))
        self.assertNotIn("document", record)
        self.assertEqual(json.loads(json.dumps(record))["spec"]["startup_env"], [["A", "1"]])

    def test_half_a_timeline(self) -> None:
        """Steps that are not done yet have no duration."""
        self.reactor.works = False
        self.begin_launch()
        (name,) = self.manager.instances
        plan = inspect(self.manager, self.manager.find(name))["plan"]
        self.assertEqual({step["seconds"] for step in plan}, {None})


class DestroyTests(VerbTestCase):
    """Instances end, and nothing is left of them."""

    def test_destroy(self) -> None:
        """A destroyed instance leaves only an event."""
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
        """An ended instance can be destroyed."""
        instance = self.launch()
        self.init.end("Done")
        self.assertEqual(self.names(), [])
        self.now(self.manager.destroy(instance.name))
        self.assertNothingLeft()

    def test_not_before_the_end_is_known(self) -> None:
        """The folder goes when the processes have ended; the answer comes when all is gone."""
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
        """If many requests destroy one instance, one succeeds; the others get NoSuchInstance."""
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
        """A launch during destroy_all is called off, and the machine is not blamed."""
        self.reactor.works = False
        launches = [self.begin_launch(minor=str(minor)) for minor in range(3)]
        self.now(self.manager.destroy_all())
        for launched in launches:
            self.failureResultOf(launched, CalledOff)
        self.assertNothingLeft()

    def test_during_its_launch(self) -> None:
        """An instance can be destroyed at any point of its launch, which then fails."""
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
        """An instance can be destroyed before the manager hears that its script runs."""
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
        """A container that won't end delays neither other ends nor a launch."""
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
        """Destroying a container that won't end fails after a while, and can be tried again."""
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
        """All instances are destroyed, even if there are none."""
        self.now(self.manager.destroy_all())
        for minor in ("1", "2", "3"):
            self.launch(minor=minor)
        self.init.end("Done")
        self.now(self.manager.destroy_all())
        self.assertNothingLeft()

    def test_all_at_once(self) -> None:
        """The stop_timeouts of all instances run at the same time."""
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
        """If one can't be removed, the error says so; the others are gone."""
        first, second = self.launch(minor="1"), self.launch(minor="2")

        async def remove(path: Any) -> None:
            if first.name in path:
                raise OSError(5, "Input/output error")
            shutil.rmtree(path)

        self.manager.remove = remove
        self.refused(self.manager.destroy_all(), MachineAtFault)
        self.assertEqual(list(self.manager.instances), [first.name])
        self.assertFalse(os.path.exists(second.folder))

    def test_again(self) -> None:
        """After a failed removal, destroy can be tried again."""
        instance, remove = self.launch(), self.manager.remove

        async def fail(path: Any) -> None:
            raise OSError(5, "Input/output error")

        self.manager.remove = fail
        self.refused(self.manager.destroy(instance.name), MachineAtFault)
        self.manager.remove = remove
        self.now(self.manager.destroy(instance.name))
        self.assertNothingLeft()

    def test_something_left(self) -> None:
        """The manager looks for a second, then reports what is left."""
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
        """A process that is still there after its monitor has ended is reported too."""
        instance = self.launch()
        self.init.end("Killed")
        self.kernel.living[self.init.process] = lambda: None
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.pump([0.025] * 41)
        error = self.failureResultOf(destroyed, MachineAtFault).value
        self.assertEqual(error.chain[1:], (f"process {self.init.process.pid}",))

    def test_gone_a_moment_later(self) -> None:
        """What the kernel removes a moment later is not reported."""
        instance = self.launch()
        answers = iter([["/x"], ["/x"]])
        self.patch(Cgroups, "remove", lambda *_: next(answers, []))
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.pump([0.025] * 3)
        self.successResultOf(destroyed)


class FrozenDiskTests(VerbTestCase):
    """The disk accepts no writes for a while (fsfreeze)."""

    def freeze(self) -> Any:
        """From now on all writes wait; returns the list of them."""
        waiting = []

        def write(function: Any, *arguments: Any) -> Any:
            written: Deferred[Any] = Deferred()
            waiting.append((written, function, arguments))
            return written

        self.manager.pool.writes = self.manager.journal.writes = write
        return waiting

    def thaw(self, waiting: Any) -> None:
        """The disk does all waiting writes in order, and those that follow."""
        while waiting:
            written, function, arguments = waiting.pop(0)
            try:
                written.callback(function(*arguments))
            except OSError:
                written.errback()
            self.reactor.advance(0)

    def test_ends(self) -> None:
        """Ends are noticed during the freeze, and written after it like everything else."""
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
        """Kill the manager and start another."""
        self.reactor.lose_manager()
        self.manager = make_manager(self.reactor, self.folder)
        restore(self.manager)

    def states(self) -> Any:
        """The state of each instance, by name."""
        return {one.name: one.state for one in self.manager.instances.values()}


class KeepTests(VerbTestCase):
    """Only a number of ended instances is kept."""

    def test_oldest(self) -> None:
        """Beyond keep_ended, those that ended first are removed with everything they left."""
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
        """With keep_ended 0, nothing is kept."""
        self.manager.keep_ended = 0
        self.launch()
        self.init.end("Done")
        self.reactor.advance(0)
        self.assertNothingLeft()


def throw(error: Any) -> None:
    """Raise an error, as a function that fails."""
    raise error
