"""The verbs of an instance's life, on a fake machine."""

import os
import signal
from typing import Any

from tests.fakes import ManagerTestCase, make_manager
from txcontain.container.exec_plan import Command
from txcontain.engine import execs, life
from txcontain.engine.recovery import restore
from txcontain.engine.renaming import rename
from txcontain.errors import (
    CalledOff,
    ConfigAtFault,
    MachineAtFault,
    NoSuchInstance,
    NotRunning,
    WrongState,
)
from txcontain.host.cgroups import Cgroups
from txcontain.runtime import volatile
from txcontain.runtime.instance import Instance
from txcontain.runtime.phase import Phase, phase_of
from txcontain.runtime.records import RECORD, read_record
from txcontain.runtime.standby import LOOK_AFTER, SOON, WITHIN

WRITABLE = {"mounts": ["a.tar /a READWRITE"]}


class LifeCase(ManagerTestCase):
    """A test of these verbs."""

    def stop(self, instance: Instance, timeout: float | None = None) -> Any:
        """Stop an instance, which takes SIGKILL a moment."""
        stopped = self.start(life.stop(self.manager, instance, timeout))
        self.reactor.pump([0] * 3)
        return self.successResultOf(stopped)

    def start_again(self, instance: Instance) -> Any:
        """Start an instance."""
        started = self.start(life.start(self.manager, instance))
        self.reactor.advance(0)
        return self.successResultOf(started)

    def next_manager(self, boot: str | None = None) -> None:
        """This manager is killed, perhaps by a reboot; the next one begins."""
        self.reactor.lose_manager()
        if boot:
            self.kernel.boot = boot
            for init in self.reactor.inits:
                init.write_down = lambda words: None
                init.end()
        self.manager = make_manager(self.reactor, self.folder)
        self.manager.journal.open()
        restore(self.manager)
        self.manager.pool.start()

    def state(self, instance: Instance) -> str:
        """What the present manager knows of it."""
        return self.manager.find(instance.name).state

    def mark(self, instance: Instance) -> str:
        """The kernel's mark of a volatile overlay."""
        path = instance.path("0-work/work/incompat/volatile")
        os.makedirs(path)
        return path


class StopTests(LifeCase):
    """Stop, and start again."""

    def test_stop_and_start(self) -> None:
        """A stopped instance keeps its folder; started, it has the same plan and a new init."""
        instance = self.launch(**WRITABLE)
        plan, first = instance.plan, self.init
        with open(instance.path("data"), "w") as file:
            file.write("precious")
        self.assertEqual(self.stop(instance), [])
        self.assertEqual((self.state(instance), self.manager.running()), ("stopped", []))
        self.assertEqual(self.start_again(instance), [])
        self.assertEqual((instance.plan, self.manager.running()), (plan, [instance]))
        self.assertIsNot(self.init, first)
        with open(instance.path("data")) as file:
            self.assertEqual(file.read(), "precious")
        states = [event.partition(":")[0] for event in self.events()[1:]]
        once = ["starting", "running"]
        self.assertEqual(states, [*once, "stopping", "stopped", *once])

    def test_next_start(self) -> None:
        """After a start, as much is prepared for the next one as does not depend on the name."""
        instance = self.launch(**WRITABLE)
        self.stop(instance)
        self.start_again(instance)
        name, steps = self.manager.pool.prepared.draw()
        self.assertEqual(name, "")
        self.assertGreater(len(steps), len(self.manager.pool.base_plan))
        self.assertEqual(instance.plan[: len(steps)], steps)

    def test_kept(self) -> None:
        """A stopped instance is not forgotten, however many have ended after it."""
        self.manager.keep_ended = 0
        instance = self.launch()
        self.stop(instance)
        self.launch(minor="2")
        self.init.end()
        self.reactor.advance(1)
        self.assertEqual(list(self.manager.instances.values()), [instance])

    def test_policy(self) -> None:
        """A stopped instance is not started by its policy, neither now nor by the next manager."""
        for policy in ("always", "unless-stopped", "on-failure"):
            instance = self.launch(minor=policy.replace("-", "_"), restart=policy)
            self.stop(instance)
            self.reactor.advance(100)
            self.next_manager()
            self.reactor.advance(100)
            self.assertEqual(self.state(instance), "stopped", policy)

    def test_waiting(self) -> None:
        """An instance that waits for its next start can be stopped, and started at once."""
        instance = self.launch(restart="always")
        for verb, state in ((self.start_again, "running"), (self.stop, "stopped")):
            self.init.end("Done(1)")
            self.assertEqual(instance.state, "waiting")
            verb(instance)
            self.reactor.advance(100)
            self.assertEqual(instance.state, state)

    def test_ended(self) -> None:
        """An instance that has ended can be started again; its restarts count from zero."""
        instance = self.launch(restart="on-failure", max_restarts=0)
        self.init.end("Done(1)")
        self.assertEqual(instance.state, "ended")
        self.start_again(instance)
        self.assertEqual((instance.state, instance.restarts), ("running", 0))

    def test_nothing_to_do(self) -> None:
        """Stopping what is stopped and starting what runs changes nothing, and says so."""
        instance = self.launch()
        name = instance.name
        self.assertEqual(self.start_again(instance), [f"{name} is running already"])
        self.stop(instance)
        self.assertEqual(self.stop(instance), [f"{name} does not run: it is stopped"])

    def test_timeout(self) -> None:
        """A timeout takes the place of the config's; another request may have less patience."""
        instance = self.launch(stop_timeout=1)
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        stopped = self.start(life.stop(self.manager, instance, 60))
        self.reactor.pump([0.05] * 200)
        self.assertNoResult(stopped)
        killed = self.start(life.kill(self.manager, instance))
        self.reactor.pump([0.05] * 3)
        self.successResultOf(stopped)
        self.successResultOf(killed)

    def test_restart(self) -> None:
        """A restart is a stop and a start; what has ended is only started."""
        instance = self.launch()
        for _ in range(2):
            restarted = self.start(life.restart(self.manager, instance))
            self.reactor.pump([0] * 5)
            self.successResultOf(restarted)
            self.assertTrue(instance.running)
            self.init.end()

    def test_removed_at_its_end(self) -> None:
        """What its end removes can be stopped, but not be started again."""
        instance = self.launch()
        instance.remove = True
        self.refused(life.restart(self.manager, instance), WrongState)
        name = instance.name
        said = f"{name} is about to be removed, as its launch asked for"
        self.assertEqual(self.stop(instance), [said])
        self.refused(life.start(self.manager, instance), WrongState)

    def test_being_launched(self) -> None:
        """An instance that someone waits for can't be stopped, but destroyed."""
        self.reactor.works = False
        self.add()
        launched = self.start(self.manager.launch("web", "1", "01"))
        (instance,) = self.manager.instances.values()
        self.refused(life.stop(self.manager, instance), WrongState)
        self.start(self.manager.destroy(instance.name))
        self.reactor.advance(1)
        self.failureResultOf(launched, CalledOff)

    def test_stopped_while_its_port_is_waited_for(self) -> None:
        """Who launched it is told, and it is kept."""
        self.add(startup_env="PORT=8000")
        launched = self.start(self.manager.launch("web", "1", "01"))
        (instance,) = self.manager.instances.values()
        self.stop(instance)
        self.reactor.advance(1)
        self.failureResultOf(launched, CalledOff)
        self.assertEqual(self.state(instance), "stopped")

    def test_destroyed_meanwhile(self) -> None:
        """A stop during which the instance is destroyed says so, and nothing is left."""
        instance = self.launch(stop_timeout=60)
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        stopped = self.start(life.stop(self.manager, instance, 600))
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.pump([1] * 61)
        self.successResultOf(destroyed)
        self.failureResultOf(stopped, CalledOff)
        self.assertRaises(NoSuchInstance, self.manager.find, instance.name)

    def test_destroyed_when_stopped(self) -> None:
        """A stopped instance is destroyed as any other."""
        instance = self.launch()
        self.stop(instance)
        destroyed = self.start(self.manager.destroy(instance.name))
        self.reactor.advance(1)
        self.successResultOf(destroyed)
        self.assertFalse(os.path.lexists(instance.folder))

    def test_start_fails(self) -> None:
        """A start that fails says why; the instance is stopped, and keeps its data."""
        instance = self.launch(restart="always")
        self.stop(instance)
        self.reactor.works = False
        started = self.start(life.start(self.manager, instance))
        self.init.fail()
        self.reactor.advance(1)
        self.failureResultOf(started, ConfigAtFault, MachineAtFault)
        self.assertEqual(
            (self.state(instance), phase_of(instance.folder)), ("stopped", Phase.WHOLE)
        )
        self.reactor.works = True
        self.start_again(instance)

    def test_port_taken_meanwhile(self) -> None:
        """A start needs its port; who has it is named, and the instance stays stopped."""
        self.add(startup_env="PORT=8000", restart="always")
        self.start(self.manager.launch("web", "1", "01"))
        self.reactor.pump([1] * 6)
        (instance,) = self.manager.running()
        self.stop(instance)
        self.kernel.listening[8000] = 4711
        self.refused(life.start(self.manager, instance), ConfigAtFault)
        self.assertEqual(self.state(instance), "stopped")

    def test_images_removed(self) -> None:
        """An ended instance whose images were removed can't be started."""
        instance = self.launch()
        self.init.end()
        self.layers.missing = ["basefs.tar.gz"]
        error = self.refused(life.start(self.manager, instance), ConfigAtFault)
        self.assertEqual(
            error.chain[0], f"the images of {instance.name} were removed, as it had ended"
        )

    def test_something_left(self) -> None:
        """It is not started while something of its last run is left."""
        instance = self.launch()
        self.patch(Cgroups, "remove", lambda *_: ["/a/cgroup"])
        self.init.end()
        started = self.start(life.start(self.manager, instance))
        self.reactor.pump([0.05] * 30)
        error = self.failureResultOf(started, MachineAtFault).value
        self.assertEqual(error.chain[1:], ("of its last run something is left", "/a/cgroup"))

    def test_layers_in_use(self) -> None:
        """The layers of a stopped instance are kept, those of an ended one are not."""
        instance = self.launch()
        self.stop(instance)
        self.assertEqual(self.manager.layers_in_use(), set(instance.layers))
        self.start_again(instance)
        self.init.end()
        self.assertEqual(self.manager.layers_in_use(), set())

    def test_address(self) -> None:
        """On the private network it gives its address back, and gets one when it is started."""
        first = self.launch(network="private", ports=["80:80"])
        self.stop(first)
        self.assertEqual(first.standing["address"], None)
        other = self.launch(minor="2", network="private")
        self.assertEqual(other.address, first.address)
        self.start_again(first)
        self.assertNotEqual(first.address, other.address)
        self.assertIn(first.address, self.bridge.attached)

    def test_in_memory(self) -> None:
        """If limits.disk has the data in memory, a stop says that it is gone."""
        instance = self.launch(limits={"disk": "1M"}, **WRITABLE)
        self.assertIn("was in memory (limits.disk), and is gone", self.stop(instance)[0])

    def test_stuck(self) -> None:
        """A stop of what does not end gives up, and says so."""
        instance = self.launch()
        self.init.stuck = True
        stopped = self.start(life.stop(self.manager, instance))
        self.reactor.pump([1] * 33)
        self.failureResultOf(stopped, MachineAtFault)


class StandbyTests(LifeCase):
    """After a stop, an init prepares the next start."""

    def setUp(self) -> None:
        super().setUp()
        self.manager.pool.standby.most = 2

    def stopped(self, **changes: Any) -> Instance:
        """An instance that was stopped a while ago."""
        instance = self.launch(**WRITABLE | changes)
        os.makedirs(instance.path("0-work/work"))
        self.stop(instance)
        self.reactor.pump([SOON] * 3)
        return instance

    def now_or_later(self, coroutine: Any) -> Any:
        """What a coroutine returns that waits for an end."""
        begun = self.start(coroutine)
        self.reactor.pump([LOOK_AFTER] * 4)
        return self.successResultOf(begun)

    @property
    def left(self) -> list[str]:
        """The tokens of the inits that have not ended."""
        return [init.token for init in self.reactor.inits if init.monitor in self.kernel.living]

    def test_start(self) -> None:
        """The init that stands by has done all but the exec, and the start takes it."""
        instance = self.stopped()
        (init,) = self.left
        self.assertEqual(self.init.early_steps, instance.plan[:-1])
        self.assertEqual(self.start_again(instance), [])
        self.assertEqual((self.left, instance.running), ([init], True))
        self.assertEqual(instance.in_advance, len(instance.plan) - 1)

    def test_mark(self) -> None:
        """What it has mounted the kernel marks, and it is on the disk all the same."""
        instance = self.stopped()
        mark = self.mark(instance)
        self.next_manager("another boot")
        found = self.manager.find(instance.name)
        self.start_again(found)
        self.assertEqual((found.running, os.path.exists(mark)), (True, False))

    def test_mark_of_a_run(self) -> None:
        """Once it was started, the mark means again that not all may be on the disk."""
        instance = self.stopped()
        mark = self.mark(instance)
        self.start_again(instance)
        self.assertTrue(os.path.exists(mark))
        self.init.end()
        self.next_manager("another boot")
        again = life.start(self.manager, self.manager.find(instance.name))
        error = self.refused(again, MachineAtFault)
        self.assertIn("before all that it had written was on the disk", error.chain[1])

    def test_last_ones(self) -> None:
        """Only for those that were stopped last one stands by; their names are kept apart."""
        first, second, third = (self.stopped(name=name) for name in ("a", "b", "c"))
        self.assertEqual(len(self.left), 2)
        for instance, steps in ((second, True), (third, True), (first, False)):
            self.start_again(instance)
            self.assertEqual(instance.in_advance == len(instance.plan) - 1, steps)

    def test_none(self) -> None:
        """A manager without warm inits has none that stand by."""
        self.manager.pool.standby.most = 0
        self.stopped()
        self.assertEqual(self.left, [])

    def test_too_soon(self) -> None:
        """A start at once, as of a restart, waits for none."""
        instance = self.launch(**WRITABLE)
        self.now_or_later(life.restart(self.manager, instance))
        self.reactor.pump([SOON] * 3)
        self.assertEqual((len(self.left), instance.running), (1, True))
        self.assertLess(instance.in_advance, len(instance.plan) - 1)

    def test_not_connected(self) -> None:
        """One that has not connected yet is let go, and would mount nothing if it did."""
        self.reactor.connects = False
        instance = self.launch_stopped_slowly()
        late = self.init
        self.reactor.connects = True
        self.start_again(instance)
        self.assertTrue(instance.running)
        self.assertNotIn(late.token, self.left)
        self.assertIsNone(late.early_steps)

    def launch_stopped_slowly(self) -> Instance:
        """An instance that was stopped, while no init connects any more."""
        self.reactor.connects = True
        instance = self.launch(**WRITABLE)
        self.stop(instance)
        self.reactor.connects = False
        self.reactor.pump([SOON] * 3)
        return instance

    def test_other_plan(self) -> None:
        """If the plan is another now, the start waits until what was prepared is gone."""
        instance = self.stopped()
        (old,) = self.left
        self.manager.resolv_conf = lambda: "nameserver 192.0.2.1\n"
        started = self.start(life.start(self.manager, instance))
        self.reactor.pump([LOOK_AFTER] * 5)
        self.successResultOf(started)
        self.assertNotIn(old, self.left)
        self.assertIn("192.0.2.1", str(instance.plan))

    def test_does_not_end(self) -> None:
        """If it does not end, nothing else mounts what it has mounted: the start fails."""
        instance = self.stopped()
        self.patch(self.init.socket, "loseConnection", lambda: None)
        self.manager.resolv_conf = lambda: "nameserver 192.0.2.1\n"
        started = self.start(life.start(self.manager, instance))
        self.reactor.pump([1] * int(WITHIN + 1))
        error = self.failureResultOf(started, MachineAtFault).value
        self.assertIn("has not within 30 s", str(error))

    def test_renamed(self) -> None:
        """Its files go with the new name: nothing holds them by the old one."""
        instance = self.stopped()
        self.now_or_later(rename(self.manager, instance, "other"))
        self.assertEqual(self.left, [])
        self.start_again(instance)
        self.assertTrue(instance.running)

    def test_destroyed(self) -> None:
        """With the instance goes what stood by for it."""
        instance = self.stopped()
        self.now_or_later(self.manager.destroy(instance.name))
        self.assertEqual((self.left, self.manager.instances), ([], {}))

    def test_start_refused(self) -> None:
        """A start that is refused lets it go, and the next one works."""
        instance = self.stopped()

        def fail(*_: Any) -> None:
            raise MachineAtFault("no address is left")

        broken = self.patch(type(self.manager.network), "reserve", fail)
        self.refused(life.start(self.manager, instance), MachineAtFault)
        broken.restore()
        self.reactor.pump([LOOK_AFTER] * 5)
        self.assertEqual(self.left, [])
        self.start_again(instance)
        self.assertTrue(instance.running)

    def test_dies(self) -> None:
        """One that has ended is not taken."""
        instance = self.stopped()
        self.init.end("Killed")
        self.reactor.pump([LOOK_AFTER] * 5)
        self.start_again(instance)
        self.assertTrue(instance.running)

    def test_fails(self) -> None:
        """If it can't do its steps, the start does them, and tells what is wrong."""
        instance = self.launch_stopped_slowly()
        self.reactor.factory = self.manager.pool
        self.init.connect()
        self.init.fail()
        self.reactor.pump([LOOK_AFTER] * 5)
        self.flushLoggedErrors()
        self.reactor.connects = True
        self.start_again(instance)
        self.assertTrue(instance.running)

    def test_manager_ends(self) -> None:
        """It ends with the manager, also if the instance was only just stopped."""
        self.stopped(name="a")
        self.stop(self.launch(**WRITABLE))
        ended = self.manager.pool.stop()
        self.reactor.pump([0.01] * 5)
        self.successResultOf(ended)
        self.assertEqual(self.left, [])

    def test_volume_removed(self) -> None:
        """What may hold files that are to go is let go of too."""
        self.stopped()
        self.manager.pool.expect_nothing()
        self.reactor.pump([LOOK_AFTER] * 5)
        self.assertEqual(self.left, [])


class VolatileTests(LifeCase):
    """Data that is not forced to the disk while an instance runs."""

    def test_stop(self) -> None:
        """A stop writes it to the disk, and only then removes the kernel's mark."""
        instance = self.launch(**WRITABLE)
        mark, flushed = self.mark(instance), []
        self.patch(volatile, "flush_disk", lambda path: flushed.append(os.path.exists(mark)))
        self.stop(instance)
        self.assertEqual((flushed, os.path.exists(mark)), ([True], False))

    def test_record(self) -> None:
        """A stop has its record written to the disk, which says that this is done."""
        instance, said = self.launch(**WRITABLE), []
        self.mark(instance)

        def flush(folder: str) -> None:
            said.append(read_record("x", f"{folder}/{RECORD}", self.folder)["settled"])

        self.patch(life, "flush_disk", flush)
        self.stop(instance)
        self.assertEqual(said, [True])
        self.start_again(instance)
        self.assertFalse(read_record("x", instance.path(RECORD), self.folder)["settled"])

    def test_disk_fails(self) -> None:
        """If the disk can't take it, the stop says so, and the mark stays."""

        def fail(path: str) -> None:
            raise OSError(5, "Input/output error")

        instance = self.launch(**WRITABLE)
        mark = self.mark(instance)
        self.patch(volatile, "flush_disk", fail)
        self.assertIn("may not outlive a reboot", self.stop(instance)[0])
        self.assertTrue(os.path.exists(mark))

    def test_ended_in_this_boot(self) -> None:
        """An ended instance is started again while the machine has not been down since."""
        instance = self.launch(**WRITABLE)
        mark = self.mark(instance)
        self.init.end()
        self.start_again(instance)
        self.assertEqual((instance.running, os.path.exists(mark)), (True, False))

    def test_ended_before_a_reboot(self) -> None:
        """After a reboot it is refused, since what it wrote may be incomplete."""
        instance = self.launch(**WRITABLE)
        self.mark(instance)
        self.init.end()
        self.next_manager("another boot")
        found = self.manager.find(instance.name)
        error = self.refused(life.start(self.manager, found), MachineAtFault)
        self.assertIn("before all that it had written was on the disk", error.chain[1])


class KillTests(LifeCase):
    """Signals."""

    def test_started_meanwhile(self) -> None:
        """A kill writes to the disk what a stopped instance wrote, and leaves a new run alone."""
        instance = self.launch(**WRITABLE)
        self.patch(volatile, "settle", lambda *_: self.fail("its new run writes there"))
        self.successResultOf(instance.moving.acquire())  # by whatever takes its time
        started = self.start(life.start(self.manager, instance))
        killed = self.start(life.kill(self.manager, instance))
        self.reactor.pump([0.01] * 3)
        self.assertEqual(instance.state, "stopped")
        instance.moving.release()
        self.reactor.pump([0.01] * 3)
        self.assertEqual([self.successResultOf(one) for one in (started, killed)], [[], []])
        self.assertTrue(instance.running)

    def test_signal(self) -> None:
        """A signal goes to PID 1, and is all that happens."""
        instance = self.launch()
        self.now(life.kill(self.manager, instance, signal.SIGHUP))
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGHUP)])
        self.assertTrue(instance.running)
        self.assertEqual(self.events()[-1], "signalled: PID 1 was sent signal 1 (Hangup)")

    def test_no_descriptor(self) -> None:
        """A signal that can't be sent is an error that says why."""
        instance = self.launch()
        self.next_manager()
        self.kernel.most_open = 0
        found = self.manager.find(instance.name)
        self.refused(life.kill(self.manager, found, signal.SIGHUP), MachineAtFault)

    def test_kill(self) -> None:
        """SIGKILL stops it, whatever it handles."""
        instance = self.launch(restart="always", stop_timeout=60)
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        killed = self.start(life.kill(self.manager, instance))
        self.reactor.pump([0.01] * 3)
        self.successResultOf(killed)
        self.assertEqual(instance.state, "stopped")

    def test_not_running(self) -> None:
        """What does not run gets no signal, is not paused and not resumed."""
        instance = self.launch()
        self.init.end()
        for verb in (life.kill, life.pause, life.resume):
            error = self.refused(verb(self.manager, instance), NotRunning)
            expected = (f"{instance.name} does not run: it is ended", "start it first")
            self.assertEqual(error.chain, expected)


class PauseTests(LifeCase):
    """Pause and resume."""

    def test_pause(self) -> None:
        """A paused instance is listed as running; a new manager knows that it is paused."""
        instance = self.launch()
        self.now(life.pause(self.manager, instance))
        self.assertEqual(self.reactor.frozen, {self.init.token})
        self.next_manager()
        found = self.manager.find(instance.name)
        self.assertEqual((found.running, found.paused), (True, True))
        self.now(life.resume(self.manager, found))
        self.assertEqual((self.reactor.frozen, found.paused), (set(), False))

    def test_exec(self) -> None:
        """No command is run in a paused instance, as it would be frozen too."""
        instance = self.launch()
        self.now(life.pause(self.manager, instance))
        command = Command(("ls",))
        error = self.refused(execs.start(self.manager, instance, command), NotRunning)
        self.assertEqual(error.chain, (f"{instance.name} is paused", "resume it first"))

    def test_again(self) -> None:
        """To pause or resume it twice changes nothing, and says so."""
        instance = self.launch()
        self.assertEqual(
            self.now(life.resume(self.manager, instance)), [f"{instance.name} is not paused"]
        )
        self.now(life.pause(self.manager, instance))
        self.assertEqual(
            self.now(life.pause(self.manager, instance)), [f"{instance.name} is paused already"]
        )

    def test_stop(self) -> None:
        """A paused instance is thawed before it is asked to end."""
        instance = self.launch()
        self.now(life.pause(self.manager, instance))
        self.stop(instance)
        self.assertEqual((self.reactor.frozen, instance.paused), (set(), False))

    def test_frozen_for_a_moment(self) -> None:
        """What was frozen as a manager was killed, and not by a person, is thawed by the next."""
        self.launch()
        self.reactor.frozen.add(self.init.token)
        self.next_manager()
        self.assertEqual(self.reactor.frozen, set())

    def test_not_possible(self) -> None:
        """If the machine has no freezer, the error says so."""

        def fail(token: str) -> None:
            raise OSError(95, "Operation not supported", "cgroup.freeze")

        instance = self.launch()
        self.patch(type(self.manager.pool.cgroups), "freeze", lambda *_: fail(""))
        error = self.refused(life.pause(self.manager, instance), MachineAtFault)
        self.assertEqual(error.chain[0], f"pausing {instance.name}")
        self.assertFalse(instance.paused)

    def test_resume_fails(self) -> None:
        """If they can't be thawed, the error says why, and it is still paused."""

        def fail(*_: Any) -> None:
            raise OSError(2, "No such file or directory", "cgroup.freeze")

        instance = self.launch()
        self.now(life.pause(self.manager, instance))
        self.patch(type(self.manager.pool.cgroups), "thaw", fail)
        self.refused(life.resume(self.manager, instance), MachineAtFault)
        self.assertTrue(instance.paused)

    def test_does_not_freeze(self) -> None:
        """Processes that do not stop in time are let go."""
        instance = self.launch()
        self.patch(type(self.manager.pool.cgroups), "is_frozen", lambda *_: False)
        paused = self.start(life.pause(self.manager, instance))
        self.reactor.pump([0.05] * 110)
        self.failureResultOf(paused, MachineAtFault)
        self.assertEqual((self.reactor.frozen, instance.paused), (set(), False))

    def test_ends_meanwhile(self) -> None:
        """One that ends while it is to be paused is not paused."""
        instance = self.launch()
        self.patch(type(self.manager.pool.cgroups), "is_frozen", lambda *_: False)
        paused = self.start(life.pause(self.manager, instance))
        self.init.end()
        self.reactor.advance(1)
        self.failureResultOf(paused, NotRunning)
        self.assertFalse(instance.paused)


class NextManagerTests(LifeCase):
    """What the next manager does, perhaps after a reboot."""

    def test_stop_goes_on(self) -> None:
        """A stop during which the manager was killed is finished by the next one."""
        instance = self.launch(restart="always", stop_timeout=5)
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        self.start(life.stop(self.manager, instance))
        self.next_manager()
        self.assertEqual(self.state(instance), "stopping")
        self.reactor.pump([0.05] * 110)
        self.assertEqual(self.state(instance), "stopped")

    def test_stopped_meanwhile(self) -> None:
        """One that has ended before that is stopped, whatever its policy."""
        instance = self.launch(restart="always")
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        self.start(life.stop(self.manager, instance))
        self.reactor.lose_manager()
        self.init.end()
        self.next_manager()
        self.reactor.advance(100)
        self.assertEqual(self.state(instance), "stopped")
        record = read_record(instance.name, instance.path(RECORD), self.manager.layers.folder)
        self.assertEqual(record["state"], "stopped")

    def test_reboot(self) -> None:
        """After a reboot all run again whose policy says so, in the order of their launch."""
        policies = ("no", "always", "on-failure", "unless-stopped")
        for number, policy in enumerate(policies):
            self.launch(minor=str(number), restart=policy)
            self.reactor.advance(1)
        self.next_manager("another boot")
        self.reactor.pump([0.1] * 2)
        running = [instance.spec.restart for instance in self.manager.running()]
        self.assertEqual(running, ["always", "on-failure", "unless-stopped"])
        states = [one.state for one in self.manager.instances.values()]
        self.assertEqual(states, ["ended", *["running"] * 3])
        starts = [event for event in self.events() if event.startswith("starting")][4:]
        self.assertEqual(starts, [f"starting: from web-1-{number}.cfg" for number in (1, 2, 3)])
        self.assertEqual({one.restarts for one in self.manager.running()}, {1})

    def test_reboot_of_stopped_ones(self) -> None:
        """Of the stopped ones, only those with "always" run after a reboot."""
        for policy in ("no", "always", "on-failure", "unless-stopped"):
            self.stop(self.launch(minor=policy.replace("-", "_"), restart=policy))
        self.next_manager("another boot")
        self.reactor.pump([0.1] * 2)
        self.assertEqual([one.spec.restart for one in self.manager.running()], ["always"])
