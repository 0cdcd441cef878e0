"""One container's life, from state to state, on a fake machine."""

import os
import shutil
import signal
import stat
from itertools import product
from typing import Any, cast

from automat import NoTransition
from twisted.internet.defer import CancelledError, Deferred

from tests.fakes import MachineTestCase, make_pool, write_log
from tests.support import make_spec
from txcontain.errors import CalledOff, ConfigAtFault, MachineAtFault
from txcontain.host.kernel import Kernel
from txcontain.later import Rounds
from txcontain.runtime import kept
from txcontain.runtime.exits import Exit
from txcontain.runtime.instance import SAVE_AFTER, Instance
from txcontain.runtime.phase import Phase
from txcontain.runtime.readiness import LOOK_AT_LAST

STOPPED = ["stopping: asked to end", "ended: asked to end (killed by SIGKILL)"]
PLAN = [("output", {}), ("overlay", {"target": "/data"}), ("exec", {"path": "/run.sh"})]
STATUS_3 = Exit(status=3, reason="exit status 3")

# How to get an instance into a state, and where each input leads from there.
WAYS = {
    "created": [],
    "starting": ["launch"],
    "running": ["launch", "up"],
    "waiting": ["launch", "up", "lapsed"],
    "stopping": ["launch", "stop"],
    "ended": ["launch", "over"],
    "failed": ["launch", "failed"],
    "halting": ["launch", "halt"],
    "stopped": ["launch", "halt", "over"],
}
INPUTS = {
    "launch": (),
    "up": (),
    "stop": (),
    "halt": (),
    "halted": (STATUS_3,),
    "was_stopped": (STATUS_3,),
    "lapsed": (STATUS_3,),
    "over": (STATUS_3,),
    "found": (),
    "was_over": (STATUS_3,),
    "failed": (STATUS_3,),
    "had_failed": (STATUS_3,),
}
NO_NEWS = {"was_over", "was_stopped", "had_failed"}
SHOWN = {"halting": "stopping"}  # what a state is called, if not by its name
MOVES = {
    ("created", "launch"): "starting",
    ("created", "found"): "running",
    ("created", "was_over"): "ended",
    ("created", "had_failed"): "failed",
    ("created", "lapsed"): "waiting",
    ("created", "over"): "ended",
    ("created", "halted"): "stopped",
    ("created", "was_stopped"): "stopped",
    ("starting", "up"): "running",
    ("starting", "stop"): "stopping",
    ("starting", "lapsed"): "waiting",
    ("starting", "over"): "ended",
    ("starting", "failed"): "failed",
    ("starting", "halt"): "halting",
    ("starting", "halted"): "stopped",
    ("running", "stop"): "stopping",
    ("running", "lapsed"): "waiting",
    ("running", "over"): "ended",
    ("running", "failed"): "failed",
    ("running", "halt"): "halting",
    ("running", "halted"): "stopped",
    ("waiting", "launch"): "starting",
    ("waiting", "stop"): "ended",
    ("waiting", "halt"): "stopped",
    ("stopping", "stop"): "stopping",
    ("stopping", "over"): "ended",
    ("stopping", "halt"): "stopping",
    ("halting", "stop"): "stopping",
    ("halting", "halt"): "halting",
    ("halting", "over"): "stopped",
    ("stopped", "stop"): "ended",
    ("stopped", "halt"): "stopped",
    ("stopped", "launch"): "starting",
    ("ended", "launch"): "starting",
    ("ended", "halt"): "ended",
    ("ended", "stop"): "ended",
    ("failed", "halt"): "failed",
    ("failed", "stop"): "failed",
}


class InstanceTestCase(MachineTestCase):
    """A test of an instance that a real pool gives its inits."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Any] = []
        self.pool = make_pool(self.reactor, self.folder, size=0)
        self.pool.start()

    def make(self, **changes: Any) -> Any:
        """An instance of a config with these changes, as the manager makes it."""
        spec = make_spec(startup_script="/run.sh", **changes)
        folder = os.path.join(self.folder, "web-1")
        shutil.rmtree(folder, ignore_errors=True)
        return Instance(
            name="web-1",
            spec=spec,
            folder=folder,
            layers=["/base"],
            plan=PLAN,
            reactor=self.reactor,
            kernel=cast(Kernel, self.kernel),
            pool=self.pool,
            changed=self.take_note,
            rounds=Rounds(self.reactor, 1),
        )

    def mode(self, instance: Instance) -> Any:
        """What the instance's folder says of how far it is."""
        return stat.S_IMODE(os.stat(instance.folder).st_mode)

    def take_note(self, instance: Instance, why: str, what: str) -> None:
        self.events.append(f"{what}: {why}")

    def launched(self, **changes: Any) -> Any:
        """An instance whose script runs."""
        instance = self.make(**changes)
        self.now(instance.launch())
        self.events.clear()
        return instance


class StateTests(InstanceTestCase):
    """Every state with every input."""

    def test_every_pair(self) -> None:
        """A state takes the inputs that it has a move for; any other raises and changes nothing."""
        for state, what in product(WAYS, INPUTS):
            instance = self.make()
            for step in WAYS[state]:
                getattr(instance._life, step)(*INPUTS[step])
            self.assertEqual(instance.state, SHOWN.get(state, state))
            before, self.events = instance.record, []
            move = getattr(instance._life, what)
            if (state, what) in MOVES:
                move(*INPUTS[what])
                to = MOVES[state, what]
                self.assertEqual(instance.state, SHOWN.get(to, to), (state, what))
                moved = to != state and what not in NO_NEWS
                self.assertEqual(
                    [event.split(":")[0] for event in self.events],
                    [instance.state] * moved,
                    (state, what),
                )
            else:
                self.assertRaises(NoTransition, move, *INPUTS[what])
                self.assertEqual((instance.record, self.events), (before, []), (state, what))
            instance.pause()


class LaunchTests(InstanceTestCase):
    """From the launch to the running script."""

    def test_whole_life(self) -> None:
        """A container without a restart policy starts, runs and ends, each with its reason."""
        instance = self.make()
        self.now(instance.launch())
        self.assertEqual(self.init.plan, PLAN)
        self.assertTrue(instance.running)
        self.init.end("Done(3)")
        self.assertEqual(
            self.events,
            [
                "starting: from web-1-01.cfg",
                "running: its script runs",
                "ended: exit status 3",
            ],
        )
        self.assertEqual(self.successResultOf(instance.end()), instance.exit)

    def test_end_known_before_the_start(self) -> None:
        """A script that ended before the news of its start has run: its policy applies."""
        for restart, state in (("no", "ended"), ("always", "waiting")):
            self.reactor.works = False
            self.events.clear()
            instance = self.make(restart=restart)
            launched = self.start(instance.launch())
            self.init.say({"done": [0.001] * len(PLAN)})
            self.init.end_before_it_is_heard("Done(3)")
            self.assertEqual(instance.state, "starting")
            self.init.hang_up()
            self.successResultOf(launched)
            self.assertEqual((instance.state, instance.exit.status), (state, 3))
            self.assertEqual(self.mode(instance), Phase.WHOLE)
            self.assertEqual(
                [event.split(":")[0] for event in self.events], ["starting", "running", state]
            )
            instance.pause()

    def test_end_known_before_a_failure(self) -> None:
        """An init that ended before the news of its failure has failed; it is not started again."""
        self.reactor.works = False
        instance = self.make(restart="always")
        launched = self.start(instance.launch())
        self.init.end_before_it_is_heard("Done(1)")
        self.init.fail(step=1)
        self.failureResultOf(launched, ConfigAtFault)
        self.assertEqual(instance.state, "failed")

    def test_destroyed_after_its_end_and_before_its_start(self) -> None:
        """Stopped between its end and the news of its start, it ends once, called off."""
        self.reactor.works = False
        instance = self.make(restart="always")
        launched = self.start(instance.launch())
        self.init.say({"done": [0.001] * len(PLAN)})
        self.init.end_before_it_is_heard("Done(3)")
        stopped, ended = instance.stop(), instance.end()
        self.init.hang_up()
        self.failureResultOf(launched, CalledOff)
        self.successResultOf(stopped)
        self.assertEqual(self.successResultOf(ended).status, 3)

    def test_destroyed_while_it_is_to_listen(self) -> None:
        """Destroyed while its launch waits for PORT: the launch says so, and blames no script."""
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        instance.stop()
        self.reactor.advance(1)
        self.failureResultOf(launched, CalledOff)

    def test_who_is_told_fails(self) -> None:
        """If telling of the end fails, everyone who waits for it still hears of it."""
        instance = self.launched()
        self.patch(instance, "changed", lambda instance, why, what: 1 / 0)
        ended = instance.end()
        self.init.end("Done(3)")
        self.successResultOf(ended)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_no_one_waits_for_the_end(self) -> None:
        """Waiting for the end can be cancelled, and nothing of it is kept."""
        instance = self.launched()
        first, second = instance.end(), instance.end()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.init.end("Done(3)")
        self.successResultOf(second)

    def test_time_of_day_set(self) -> None:
        """Setting the time of day makes no wait longer or shorter."""
        for step in (-3600, 3600):
            self.kernel.set_forward += step
            instance = self.make(startup_env="PORT=8000", restart="always", stop_timeout=1)
            launched = self.start(instance.launch())
            self.kernel.set_forward += step
            self.reactor.pump([0.05] * 99)
            self.assertNoResult(launched)
            self.reactor.pump([0.05] * 2)
            self.successResultOf(launched)
            self.init.end("Done")
            self.kernel.set_forward += step
            self.reactor.advance(0.11)
            self.assertTrue(instance.running)
            self.kernel.catching[self.init.process.pid] = [self.init.process]
            stopped = instance.stop()
            self.kernel.set_forward += step
            self.reactor.pump([0.05] * 19)
            self.assertNoResult(stopped)
            self.reactor.pump([0.05] * 2)
            self.successResultOf(stopped)

    def test_launch_leaves_nothing_half_made(self) -> None:
        """An instance is marked as half made until its script runs, and no longer."""
        self.reactor.works = False
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        self.assertEqual(self.mode(instance), Phase.HALF_MADE)
        self.init.carry_out()
        self.assertNoResult(launched)
        self.assertEqual((self.mode(instance), instance.running), (Phase.WHOLE, True))
        self.reactor.pump([0.05] * 102)

    def test_whole_before_the_exec(self) -> None:
        """It is marked as whole while its init becomes the script, which needs no manager."""
        self.reactor.works = False
        instance = self.make()
        launched = self.start(instance.launch())
        self.init.say({"done": [0.001] * len(PLAN)})
        self.assertEqual((self.mode(instance), instance.running), (Phase.WHOLE, False))
        self.init.hang_up()
        self.successResultOf(launched)

    def test_destroyed_before_the_exec(self) -> None:
        """One that was destroyed before its exec stays marked as ending."""
        self.reactor.works = False
        instance = self.make()
        launched = self.start(instance.launch())
        instance.stop()
        self.init.say({"done": [0.001] * len(PLAN)})
        self.init.end()
        self.failureResultOf(launched, CalledOff)
        self.assertEqual(self.mode(instance), Phase.ENDING)

    def test_stderr_of_the_tools(self) -> None:
        """The pipe on which unshare and the init complain is closed when the script runs."""
        self.launched()
        self.assertEqual(self.init.closed, [2])

    def test_timeline(self) -> None:
        """The time that each step took is kept."""
        self.assertEqual(self.launched().timeline, [0.001] * len(PLAN))

    def test_phases(self) -> None:
        """Each part of a start is timed, from the request on; the next start is timed anew."""
        self.reactor.works = False
        instance = self.make()
        now = self.reactor.seconds()
        instance.asked_at = now - 3, now - 1
        launched = self.start(instance.launch())
        self.reactor.advance(0.25)
        self.init.say({"done": [0.001] * len(PLAN)})
        self.reactor.advance(0.5)
        self.init.hang_up()
        self.successResultOf(launched)
        self.assertEqual(
            instance.phases, {"http": 2, "manager": 1, "steps": 0.25, "exec": 0.5, "record": 0}
        )

    def test_step_fails(self) -> None:
        """A step that fails ends the instance, with the step and its system call as the reason."""
        self.reactor.works = False
        launched = self.start(self.make().launch())
        self.init.fail(step=1, call="mount", errno=20, path="/data")
        error = self.failureResultOf(launched, ConfigAtFault).value
        self.assertEqual(error.chain[:2], ("step 2 of 3, overlay /data", "mount(2)"))
        self.assertEqual(self.events[-1], "failed: exit status 1")

    def test_step_fails_of_a_stuck_init(self) -> None:
        """An init that stays after it has failed is killed, and waited for."""
        self.reactor.works = False
        launched = self.start(self.make().launch())
        self.init.say(
            {
                "failed": {
                    "step": 0,
                    "call": "open",
                    "errno": 28,
                    "path": "/x",
                    "cause": "",
                    "hint": "",
                }
            }
        )
        self.assertNoResult(launched)
        self.reactor.advance(0)
        self.failureResultOf(launched, MachineAtFault)
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])

    def test_init_dies_half_way(self) -> None:
        """An init that ends without a word fails the launch."""
        self.reactor.works = False
        launched = self.start(self.make().launch())
        self.init.end("Killed")
        self.assertIn("half-way", str(self.failureResultOf(launched, MachineAtFault).value))

    def test_disk_full(self) -> None:
        """If the record can't be written, nothing runs, and the reason is the disk."""
        instance = self.make()
        self.patch(kept, "write_soon", no_space)
        error = self.refused(instance.launch(), MachineAtFault)
        self.assertEqual(error.chain[0], "writing instance.json")
        self.assertFalse(self.kernel.lives(self.init.process))
        self.assertEqual(instance.state, "failed")

    def test_no_init(self) -> None:
        """If no init can be started, the launch has failed, and says why."""
        self.reactor.spawn_error = OSError(11, "Resource temporarily unavailable")
        instance = self.make()
        self.refused(instance.launch(), MachineAtFault)
        self.assertIn("temporarily unavailable", self.events[-1])
        self.assertEqual(instance.state, "failed")


class ListenTests(InstanceTestCase):
    """A launch waits until the container listens on its PORT."""

    def test_listens(self) -> None:
        """The launch answers as soon as the container listens, and the instance is ready."""
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        self.assertNoResult(launched)
        self.kernel.listening[8000] = self.init.process.pid
        self.reactor.advance(0.05)
        self.successResultOf(launched)
        self.assertTrue(instance.ready)
        self.assertEqual(self.events[-1], "running: it listens on port 8000")

    def test_another_listens(self) -> None:
        """That someone else listens on the port makes no container ready."""
        self.kernel.listening[8000] = 1
        instance = self.make(startup_env="PORT=8000")
        self.assertNoResult(self.start(instance.launch()))
        self.assertFalse(instance.ready)

    def test_looked_for_in_a_thread(self) -> None:
        """If the tables don't tell, one thread at a time looks, and an outdated look is ignored."""
        self.kernel.tells = False
        self.kernel.listening[8000] = 1
        looks: list[Any] = []
        instance = self.make(startup_env="PORT=8000")
        instance._readiness.threads = lambda *call: looks.append((Deferred(), call)) or looks[-1][0]
        launched = self.start(instance.launch())
        self.reactor.pump([0.05] * 10)
        ((look, call),) = looks
        self.assertEqual(call, (self.kernel.listens, self.init.process.pid, 8000))
        look.callback(False)
        self.reactor.pump([0.05] * 2)
        self.assertEqual(len(looks), 2)
        self.init.end("Done(1)")
        looks[1][0].callback(True)
        self.reactor.advance(1)
        self.assertFalse(instance.ready)
        self.failureResultOf(launched, ConfigAtFault)

    def test_ended_before_it_is_looked_for(self) -> None:
        """Nobody looks if the end is known before it is heard that the script ran."""
        self.reactor.works = False
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        self.init.say({"done": [0.001] * len(PLAN)})
        self.init.end_before_it_is_heard("Done(3)")
        self.init.hang_up()
        self.failureResultOf(launched, ConfigAtFault)

    def test_never_listens(self) -> None:
        """After five seconds the launch answers anyway, and the container runs on."""
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        self.reactor.pump([0.05] * 99)
        self.assertNoResult(launched)
        self.reactor.pump([0.05] * 2)
        self.successResultOf(launched)
        self.assertEqual((instance.state, instance.ready), ("running", False))

    def test_listens_late(self) -> None:
        """A script that listens later than a launch waits is noticed by a look now and then."""
        instance = self.launched_without_listening()
        self.reactor.pump([10] * 10)
        self.assertFalse(instance.ready)
        self.kernel.listening[8000] = self.init.process.pid
        self.reactor.advance(LOOK_AT_LAST)
        self.assertTrue(instance.ready)
        self.assertEqual(self.events[-1], "running: it listens on port 8000")
        self.reactor.advance(SAVE_AFTER)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_looked_for_no_more(self) -> None:
        """No one looks any more when it is asked to end, has ended, or the manager ends."""
        for what in ("stop", "pause", "end"):
            instance = self.launched_without_listening()
            {"stop": instance.stop, "pause": instance.pause, "end": self.init.end}[what]()
            self.reactor.advance(LOOK_AT_LAST)
            self.assertEqual(self.reactor.getDelayedCalls(), [], what)

    def launched_without_listening(self) -> Any:
        """An instance whose script has not listened on its port for too long."""
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        self.reactor.pump([0.05] * 102)
        self.successResultOf(launched)
        return instance

    def test_ended_before(self) -> None:
        """A script that ends before it listens fails the launch, with its exit and last words."""
        instance = self.make(startup_env="PORT=8000")
        launched = self.start(instance.launch())
        write_log(instance, b"no such module\n", "stderr")
        self.init.end("Done(3)")
        self.reactor.advance(0.05)
        error = self.failureResultOf(launched, ConfigAtFault).value
        what, *why = error.chain
        self.assertEqual(what, "/run.sh ended before it listened on port 8000")
        self.assertEqual(why, ["exit status 3", "its last words: no such module"])


class StopTests(InstanceTestCase):
    """Asked to end."""

    def stop(self, instance: Instance) -> Any:
        """Ask it to end, and do what is due at once."""
        stopped = instance.stop()
        self.reactor.advance(0)
        return stopped

    def test_marked(self) -> None:
        """Once it is asked to end, the next manager knows that it is to be removed."""
        instance = self.launched()
        self.stop(instance)
        self.assertEqual(self.mode(instance), Phase.ENDING)

    def test_without_handler(self) -> None:
        """A container of which no process catches SIGTERM is killed at once."""
        instance = self.launched()
        self.successResultOf(self.stop(instance))
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])
        self.assertEqual(self.events, STOPPED)

    def test_monitor_ends_later(self) -> None:
        """It has stopped when PID 1 has ended; its exit is known when the monitor has."""
        instance = self.launched()
        self.init.stuck = True
        stopped = self.stop(instance)
        self.init.end_init()
        self.successResultOf(stopped)
        self.assertEqual((instance.state, self.reactor.readers), ("stopping", []))
        self.init.end("Killed")
        self.assertEqual((instance.state, self.kernel.pidfds), ("ended", {}))

    def test_with_handler(self) -> None:
        """A process that catches SIGTERM gets it and may end by itself, without SIGKILL."""
        instance = self.launched()
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        stopped = self.stop(instance)
        self.reactor.pump([0.05] * 20)
        self.assertNoResult(stopped)
        self.init.end("Done(0)")
        self.successResultOf(stopped)
        self.reactor.advance(10)
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGTERM)])
        self.assertEqual(self.events[-1], "ended: exit status 0")

    def test_another_signal(self) -> None:
        """A config may have another signal sent than SIGTERM."""
        instance = self.launched(stop_signal="QUIT")
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        self.kernel.caught = signal.SIGQUIT
        self.stop(instance)
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGQUIT)])

    def test_takes_too_long(self) -> None:
        """After stop_timeout seconds SIGKILL follows, not before."""
        instance = self.launched(stop_timeout=1.5)
        self.kernel.catching[self.init.process.pid] = [self.init.process]
        stopped = self.stop(instance)
        self.reactor.pump([0.05] * 29)
        self.assertNoResult(stopped)
        self.reactor.pump([0.05] * 2)
        self.assertEqual(
            [number for _, number in self.kernel.signals], [signal.SIGTERM, signal.SIGKILL]
        )
        self.successResultOf(stopped)
        why = "asked to end, and had not after 1.5 s (killed by SIGKILL)"
        self.assertEqual(str(instance.exit), why)

    def test_child_with_handler(self) -> None:
        """A process below PID 1 that catches SIGTERM is waited for, and no longer than it lives."""
        instance = self.launched()
        worker = self.kernel.begin()
        self.kernel.catching[self.init.process.pid] = [worker]
        stopped = self.stop(instance)
        self.assertEqual(self.kernel.signals, [(worker.pid, signal.SIGTERM)])
        del self.kernel.living[worker]
        self.reactor.pump([0.05] * 2)
        self.successResultOf(stopped)

    def test_stop_twice(self) -> None:
        """A second request waits for the same end."""
        instance = self.launched()
        self.init.stuck = True
        first, second = self.stop(instance), self.stop(instance)
        self.assertNoResult(first)
        self.init.end("Killed")
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))
        self.assertEqual(self.events, STOPPED)

    def test_terminate_fails(self) -> None:
        """If asking fails (our own error), PID 1 is killed, and the error is logged."""
        instance = self.launched()
        self.patch(self.kernel, "catchers", lambda pid, number: 1 / 0)
        self.successResultOf(self.stop(instance))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_while_an_init_is_awaited(self) -> None:
        """Stopped before there is an init: the launch fails, and the init is let go."""
        self.reactor.connects = False
        instance = self.make()
        launched = self.start(instance.launch())
        stopped = self.stop(instance)
        self.init.connect()
        self.failureResultOf(launched, CalledOff)
        self.successResultOf(stopped)
        self.assertTrue(self.init.socket.disconnecting)
        self.assertEqual(self.init.plan, None)

    def test_while_the_plan_is_carried_out(self) -> None:
        """Stopped half-way through its plan: it is killed, and the launch fails."""
        self.reactor.works = False
        instance = self.make()
        launched = self.start(instance.launch())
        self.successResultOf(self.stop(instance))
        self.failureResultOf(launched, CalledOff)
        self.assertEqual(
            [event.split(":")[0] for event in self.events], ["starting", "stopping", "ended"]
        )

    def test_while_the_exec_happens(self) -> None:
        """Stopped just before its script would run: it ends and never counts as running."""
        self.reactor.works = False
        instance = self.make()
        launched = self.start(instance.launch())
        instance.stop()
        self.init.carry_out()
        self.reactor.advance(0)
        self.failureResultOf(launched, CalledOff)
        self.assertEqual(
            [event.split(":")[0] for event in self.events], ["starting", "stopping", "ended"]
        )

    def test_while_it_waits(self) -> None:
        """Stopped between two starts: it has ended, and no start follows."""
        instance = self.launched(restart="always")
        self.init.end("Done(1)")
        self.successResultOf(self.stop(instance))
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.inits), 1)
        self.assertEqual(self.events[-1], "ended: exit status 1")


class RestartTests(InstanceTestCase):
    """Started again, as its config asks."""

    def test_no(self) -> None:
        """Without a policy, an instance that fails has ended."""
        instance = self.launched()
        self.init.end("Done(1)")
        self.assertTrue(instance.ended)

    def test_on_failure(self) -> None:
        """With on-failure, a failure is followed by a start, and success by none."""
        instance = self.launched(restart="on-failure")
        self.init.end("Killed")
        self.reactor.advance(0.1)
        self.assertEqual((instance.state, instance.restarts), ("running", 1))
        self.init.end("Done")
        self.assertEqual(
            self.events,
            [
                "waiting: killed by SIGKILL, by someone else than this manager; to be started "
                "again in 0.1 s",
                "starting: from web-1-01.cfg",
                "running: its script runs",
                "ended: exit status 0",
            ],
        )

    def test_always(self) -> None:
        """With always, success is followed by a start as well."""
        self.launched(restart="always")
        self.init.end("Done")
        self.reactor.advance(0.1)
        self.assertEqual(self.events[-1], "running: its script runs")

    def test_max_restarts(self) -> None:
        """After max_restarts starts it has ended for good."""
        instance = self.launched(restart="always", max_restarts=2)
        for _ in range(3):
            self.assertTrue(instance.running)
            self.init.end("Done(1)")
            self.reactor.advance(60)
        self.assertEqual((instance.state, instance.restarts), ("ended", 2))
        self.assertEqual(len(self.reactor.inits), 3)

    def test_delay_doubles(self) -> None:
        """The delay doubles from 0.1 s up to a minute; nothing starts before it has passed."""
        self.launched(restart="always")
        for delay in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60):
            self.init.end("Done(1)")
            count = len(self.reactor.inits)
            self.reactor.advance(delay - 0.01)
            self.assertEqual(len(self.reactor.inits), count)
            self.reactor.advance(0.02)
            self.assertEqual(len(self.reactor.inits), count + 1)

    def test_delay_begins_anew(self) -> None:
        """After ten seconds of running the delay is 0.1 s again."""
        self.launched(restart="always")
        for seconds in (1, 9.9, 10.1):
            self.reactor.advance(seconds)
            self.init.end("Done(1)")
            self.reactor.advance(1)
        waits = [event.split()[-2] for event in self.events if event.startswith("waiting")]
        self.assertEqual(waits, ["0.1", "0.2", "0.1"])

    def test_first_launch_fails(self) -> None:
        """A launch that fails is answered with its failure, and not tried again."""
        self.reactor.works = False
        instance = self.make(restart="always")
        launched = self.start(instance.launch())
        self.init.fail()
        self.failureResultOf(launched, ConfigAtFault, MachineAtFault)
        self.reactor.advance(100)
        self.assertEqual((instance.state, len(self.reactor.inits)), ("failed", 1))

    def test_start_fails(self) -> None:
        """A later start that fails at a step is tried again after the next delay."""
        for seen_first in ("failure", "exit"):
            self.launched(restart="always")
            self.reactor.works = False
            self.init.end("Done")
            self.reactor.advance(0.1)
            if seen_first == "exit":
                self.init.end_before_it_is_heard()
            self.init.fail()
            self.reactor.advance(0.2)
            self.reactor.works = True
            self.assertIn("waiting: exit status 1; to be started again in 0.2 s", self.events)
            self.assertIn("could not be started again: step 1 of 3, output", "".join(self.events))
            self.assertEqual(self.events[-1], "starting: from web-1-01.cfg")

    def test_no_init_for_a_start(self) -> None:
        """A later start for which no init can be had is tried again after the next delay."""
        instance = self.launched(restart="always")
        self.init.end("Done")
        self.reactor.spawn_error = OSError(11, "Resource temporarily unavailable")
        self.reactor.advance(0.1)
        self.assertEqual(instance.state, "waiting")
        self.reactor.spawn_error = None
        self.reactor.advance(0.2)
        self.assertTrue(instance.running)

    def test_ends_while_it_starts_again(self) -> None:
        """Stopped during a later start, it ends for good."""
        instance = self.launched(restart="always")
        self.reactor.works = False
        self.init.end("Done")
        self.reactor.advance(0.1)
        stopped = instance.stop()
        self.reactor.advance(100)
        self.successResultOf(stopped)
        self.assertEqual((instance.state, len(self.reactor.inits)), ("ended", 2))

    def test_killed_again(self) -> None:
        """If it can't be killed at once, for want of a descriptor, it is killed a second later."""
        instance = self.launched()
        tries: list[Any] = []
        self.patch(self.kernel, "send_signal", lambda *_: fails_once(tries))
        stopped = instance.stop()
        self.assertNoResult(stopped)
        self.kernel.send_signal = lambda pidfd, number: self.init.end("Killed")
        self.reactor.advance(1)
        self.successResultOf(stopped)

    def test_pause(self) -> None:
        """A manager that ends starts nothing again."""
        instance = self.launched(restart="always")
        self.init.end("Done")
        instance.pause()
        self.reactor.advance(100)
        self.assertEqual((instance.state, len(self.reactor.inits)), ("waiting", 1))


def no_space(path: Any, content: Any) -> None:
    """As on a full disk."""
    raise OSError(28, "No space left on device", path)


def fails_once(tries: Any) -> None:
    """As if all descriptors were in use."""
    tries.append(1)
    raise OSError(24, "Too many open files")
