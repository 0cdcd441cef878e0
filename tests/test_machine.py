"""The list, the records on disk and the processes agree, whatever happens in whatever order.

Hypothesis draws lives of a whole manager on a fake machine, step by step: launches and destroys,
ends at every moment, calls that fail, managers that are stopped or killed. After each step it
checks what must always hold; once things have settled, also that every request was answered and
nothing is lost or left over. A failure prints its steps, with the MACHINE_SEED and MACHINE_LIVES
to draw the same lives again.
"""

import builtins
import errno
import gc
import itertools
import os
import shutil
import signal
import stat
import sys
import tempfile
from functools import partial
from typing import Any, cast
from unittest.mock import patch

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeLayers, FakeReactor, make_manager
from tests.support import document
from txcontain.engine import life, recovery
from txcontain.engine.configs import upload
from txcontain.engine.recovery import doctor, restore
from txcontain.engine.renaming import rename
from txcontain.errors import Error, MachineAtFault
from txcontain.runtime import pool, prepared
from txcontain.runtime.exits import UNSEEN
from txcontain.runtime.instance import Instance
from txcontain.runtime.phase import Phase
from txcontain.runtime.records import RECORD, read_record

LIVES = int(os.environ.get("MACHINE_LIVES", "60"))
SEED = int(os.environ.get("MACHINE_SEED", "1"))
STEPS = 40  # of a life, at most
PORT = 8000
CONFIGS: list[dict[str, Any]] = [  # what is launched, by minor
    {},
    {"restart": "always", "stop_timeout": 1},
    {"restart": "on-failure", "max_restarts": 1},
    {"startup_env": f"PORT={PORT}", "startup_script": "/run.sh"},
    {"network": "private", "restart": "always"},
    {"base_image": "missing.tar"},
]
ENDS = {
    "Done": "exit status 0",
    "Done(3)": "exit status 3",
    "Killed": "killed by SIGKILL, by someone else than this manager",
    "Segmentation fault (core dumped)": "killed by SIGSEGV",
    UNSEEN: UNSEEN,
}
ERRORS = [errno.EIO, errno.EMFILE, errno.ENOSPC]
VERBS: dict[str, Any] = {
    "stop": life.stop,
    "start": life.start,
    "restart": life.restart,
    "kill": life.kill,
    "hang up": partial(life.kill, signal=signal.SIGHUP),
    "pause": life.pause,
    "resume": life.resume,
}
PICKS = st.integers(0, 5)


class Faults:
    """System calls that are to fail, each once, and only on files of the state folder."""

    CALLS = ("open", "mkdir", "chmod", "unlink", "rmdir", "scandir", "listdir")

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.coming: dict[Any, Any] = {}  # call: how many still work, and the error of the next
        self.any_failed = False
        self.real = {name: getattr(os, name) for name in self.CALLS}
        self.patches = [patch.object(os, name, self.failing(name)) for name in self.CALLS]
        self.patches.append(patch.object(builtins, "open", self.failing("read", builtins.open)))

    def failing(self, name: str, real: Any = None) -> Any:
        """A system call that fails when it is its turn."""
        real = real or self.real[name]

        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            ours = str(path).startswith(self.folder) and "w" not in arguments  # no fake's
            if ours and name in self.coming:
                self.check(name, path)
            return real(path, *arguments, **options)

        return call

    def check(self, name: str, path: Any = None) -> None:
        """Fail if that is due."""
        if name in self.coming:
            left, number = self.coming[name]
            self.coming[name] = left - 1, number
            if left <= 0:
                del self.coming[name]
                self.any_failed = True
                raise OSError(number, os.strerror(number), path)


class Lives(RuleBasedStateMachine):
    """One machine, its managers one after the other, and what they are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="txcontain-machine-")
        self.reactor = FakeReactor()
        self.time: Any = self.reactor
        self.kernel = self.reactor.kernel
        ticks = itertools.count()  # no two moments are the same
        self.kernel.clock = lambda: self.reactor.seconds() + next(ticks) * 1e-7
        self.faults = Faults(self.folder)
        self.asked: list[Any] = []  # what was asked of this manager, and the Deferred of its answer
        self.manager: Any = None
        self.launched: set[Any] = set()  # names of instances whose launch has answered
        self.lost: list[Any] = []  # killed managers, kept so that nothing they began goes on
        self.complaints: list[str] = []  # failures of the manager's own
        numbers = itertools.count(1)
        digits = {
            module: lambda size: f"{next(numbers):0{2 * size}x}"
            for module in (prepared, pool, recovery)
        }
        self.patches = [patch.object(module, "token_hex", draw) for module, draw in digits.items()]
        self.patches += self.faults.patches
        for one in self.patches:
            one.start()
        self.observer = cast(Any, self.hear)
        globalLogPublisher.addObserver(self.observer)

    def hear(self, event: Any) -> None:
        """Take note of what the manager logs as its own mistake."""
        if "log_failure" in event and not event["log_failure"].check(Error, OSError):
            self.complaints.append(event["log_failure"].getTraceback())

    def teardown(self) -> None:
        """In the end all can be destroyed, and nothing is left."""
        try:
            if self.manager is not None:
                self.end_all()
        finally:
            globalLogPublisher.removeObserver(self.observer)
            for one in self.patches:
                one.stop()
            shutil.rmtree(self.folder)
            self.lost.clear()
            self.manager = None
            with patch.object(sys, "unraisablehook", lambda _: None):
                gc.collect()  # what was never answered is collected now, not in another life

    def end_all(self) -> None:
        """Destroy all and stop: nothing is left."""
        self.settle()
        self.ask("destroy all", self.manager.destroy_all())
        self.settle()
        assert not self.manager.instances
        self.leave()
        for init in self.running_inits():  # they found no one to connect to
            assert init.plan is None
            init.end("Done(1)")
        assert (self.kernel.pidfds, self.kernel.folders) == ({}, {})
        assert os.listdir(self.path("instances")) == []
        assert os.listdir(self.path("run/slots")) == []

    def path(self, *names: Any) -> Any:
        """A path in the state folder."""
        return os.path.join(self.folder, *names)

    # -- managers ----------------------------------------------------------------

    @initialize(warm=st.integers(0, 2))
    def begin(self, warm: Any) -> None:
        """The first manager, with so many warm inits."""
        self.warm = warm
        self.start_manager()
        for minor, keys in enumerate(CONFIGS):
            self.ask("upload", upload(self.manager, document(minor=str(minor), **keys)))

    def start_manager(self) -> None:
        """As tap.py does."""
        self.manager = make_manager(self.reactor, self.folder)
        self.manager.pool.warm.least = self.warm
        self.manager.threads = self.manager.network.threads = self.in_thread
        self.manager.remove = self.manager.pool.prepared.remove = self.remove
        self.manager.layers.get = self.get_layer
        self.manager.journal.open()
        restore(self.manager)
        self.manager.pool.start()

    def in_thread(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """A thread does its work some time later, or fails."""

        async def do() -> Any:
            await deferLater(self.time, 0.001)
            self.faults.check("thread")
            return await maybeDeferred(function, *arguments, **options)

        return Deferred.fromCoroutine(do())

    async def remove(self, path: Any) -> None:
        """A tree is removed some time later, or half of it."""
        await deferLater(self.time, 0.001)
        if os.path.isdir(path):
            for name in os.listdir(path)[:1]:
                if name != RECORD:
                    self.faults.real["unlink"](os.path.join(path, name))
        self.faults.check("remove")
        shutil.rmtree(path, ignore_errors=True)

    async def get_layer(self, folder: Any, name: str) -> Any:
        """A layer is there some time later, or can't be made."""
        await deferLater(self.time, 0.001)
        try:
            self.faults.check("layer")
        except OSError as error:
            raise MachineAtFault("unpacking", str(error)) from error
        return await FakeLayers.get(self.manager.layers, folder, name)

    def leave(self) -> None:
        """The manager is stopped, as tap.py does it."""
        self.manager.pause()
        stopped = self.manager.pool.stop()
        for _ in range(600):
            self.reactor.advance(0.01)
        assert stopped.called

    # -- what people ask for -----------------------------------------------------

    def ask(self, what: str, coroutine: Any) -> None:
        """Ask for something."""
        answer = Deferred.fromCoroutine(coroutine)
        outcome: list[Any] = []
        answer.addCallback(self.take_note)
        answer.addBoth(outcome.append)
        self.asked.append((what, outcome))

    def take_note(self, answer: Any) -> Any:
        """Of an instance, if a launch has answered that there is one."""
        if isinstance(answer, Instance):
            self.launched.add(answer.name)
        return answer

    @rule(which=st.integers(0, len(CONFIGS) - 1))
    def launch(self, which: Any) -> None:
        """One is launched."""
        self.ask(f"launch {which}", self.manager.launch("web", "1", str(which)))

    @rule(pick=PICKS)
    @precondition(lambda self: self.manager.instances)
    def destroy(self, pick: Any) -> None:
        """One is destroyed, in whatever state it is."""
        name = self.pick(pick, list(self.manager.instances))
        self.launched.discard(name)
        self.ask(f"destroy {name}", self.manager.destroy(name))

    @rule()
    def destroy_all(self) -> None:
        """All are destroyed."""
        self.launched.clear()
        self.ask("destroy all", self.manager.destroy_all())

    @rule(pick=PICKS, verb=st.sampled_from(list(VERBS)))
    @precondition(lambda self: self.manager.instances)
    def change(self, pick: Any, verb: str) -> None:
        """One is stopped, started, paused and so on, in whatever state it is."""
        instance = self.pick(pick, list(self.manager.instances.values()))
        self.ask(f"{verb} {instance.name}", VERBS[verb](self.manager, instance))

    @rule(pick=PICKS, number=st.integers(0, 3))
    @precondition(lambda self: self.manager.instances)
    def rename(self, pick: Any, number: int) -> None:
        """One gets another name, which may be taken."""
        instance = self.pick(pick, list(self.manager.instances.values()))
        self.launched.discard(instance.name)  # until the answer has its new name
        self.ask(f"rename {instance.name}", self.rename_to(instance, f"name-{number}"))

    async def rename_to(self, instance: Instance, to: str) -> Instance:
        """The instance, once it has that name."""
        await rename(self.manager, instance, to)
        return instance

    @rule()
    def doctor(self) -> None:
        """The doctor is called."""
        self.ask("doctor", doctor(self.manager))

    # -- what happens by itself ----------------------------------------------------

    @rule()
    def take_a_turn(self) -> None:
        """What is due is done."""
        self.reactor.advance(0)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1, 6, 25, 100]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.reactor.advance(seconds)

    @rule(seconds=st.sampled_from([-3600, 3600]))
    def set_clock(self, seconds: float) -> None:
        """Someone sets the time of day."""
        self.kernel.set_forward += seconds

    @rule(pick=PICKS, words=st.sampled_from(list(ENDS)))
    @precondition(lambda self: self.running_inits())
    def end(self, pick: Any, words: str) -> None:
        """A monitor and its init end, or its monitor is killed before it writes that down."""
        init = self.pick(pick, self.running_inits())
        self.end_with(init, words)

    def end_with(self, init: Any, words: str) -> None:
        """An init ends so, or in a way that no one writes down."""
        init.words = words
        if words == UNSEEN:
            init.write_down = lambda words: None
        init.end(words)

    @rule(pick=PICKS)
    @precondition(lambda self: self.running_inits())
    def end_init(self, pick: Any) -> None:
        """An init ends, but its monitor has not noticed yet."""
        self.pick(pick, self.running_inits()).end_init()

    @rule(pick=PICKS)
    @precondition(lambda self: self.connected())
    def end_unheard(self, pick: Any) -> None:
        """An init ends, but the news has not arrived."""
        self.pick(pick, self.connected()).end_before_it_is_heard()

    @rule(pick=PICKS)
    @precondition(lambda self: self.stalled())
    def fail_at_a_step(self, pick: Any) -> None:
        """An init fails at a step of its plan."""
        self.pick(pick, self.stalled()).fail()

    @rule(pick=PICKS)
    @precondition(lambda self: self.stalled())
    def go_on(self, pick: Any) -> None:
        """An init that was stalled carries out its plan."""
        self.pick(pick, self.stalled()).carry_out()

    @rule(pick=PICKS)
    @precondition(lambda self: self.running_inits())
    def listen(self, pick: Any) -> None:
        """A container begins to listen on a port."""
        self.kernel.listening[PORT] = self.pick(pick, self.running_inits()).process.pid

    @rule(what=st.sampled_from(["connects", "prepares", "works"]), does=st.booleans())
    def stall(self, what: str, does: Any) -> None:
        """From now on inits stall at some point, or no longer do."""
        setattr(self.reactor, what, does)

    @rule(
        call=st.sampled_from([*Faults.CALLS, "read", "thread", "remove", "layer"]),
        after=st.integers(0, 3),
        number=st.sampled_from(ERRORS),
    )
    def break_a_call(self, call: Any, after: Any, number: int) -> None:
        """A call will fail, once."""
        self.faults.coming[call] = after, number

    @rule(room=st.integers(0, 3))
    def use_up_descriptors(self, room: Any) -> None:
        """The manager may open only so many more descriptors."""
        self.kernel.most_open = len(self.kernel.pidfds) + len(self.kernel.folders) + room

    @rule()
    def free_descriptors(self) -> None:
        """It has enough again."""
        self.kernel.most_open = None

    @rule()
    def spawning_fails(self) -> None:
        """No process can be made."""
        self.reactor.spawn_error = OSError(errno.EAGAIN, "Resource temporarily unavailable")

    @rule()
    def spawning_works(self) -> None:
        """Processes can be made again."""
        self.reactor.spawn_error = None

    @rule(gracefully=st.booleans(), words=st.none() | st.sampled_from(list(ENDS)))
    def next_manager(self, gracefully: Any, words: str) -> None:
        """The manager is stopped or killed, a container may end meanwhile; nothing is lost."""
        self.mend()
        if gracefully:
            self.leave()
        launched = [one for one in self.manager.instances.values() if one.name in self.launched]
        before = {one.name: self.facts(one) for one in launched}
        self.lost.append((self.manager, self.asked))
        self.asked = []
        self.reactor.lose_manager()
        if words:
            for init in self.running_inits()[:1]:
                self.end_with(init, words)
        running = [one.name for one in launched if one.running and self.monitor_runs(one)]
        self.start_manager()
        for name in before:
            assert name in self.manager.instances, f"{name} was forgotten"
        found = [one.name for one in self.manager.running()]
        assert [name for name in found if name in running] == running
        if not self.faults.any_failed:
            self.assert_same(before)
        self.faults.any_failed = False

    def facts(self, instance: Instance) -> Any:
        """What a new manager must not change in an instance that has ended."""
        return instance.state, instance.since, instance.launched, instance.exit, instance.restarts

    def assert_same(self, before: Any) -> None:
        """What had ended before is still known as it was."""
        for name, facts in before.items():
            if facts[0] in ("ended", "stopped"):
                self.equal(self.facts(self.manager.instances[name]), facts)

    def equal(self, one: Any, other: Any) -> None:
        """Fail if two values differ."""
        assert one == other, f"{one} is not {other}"

    # -- what holds ------------------------------------------------------------------

    @invariant()
    def no_mistake(self) -> None:
        """The manager made no mistake of its own."""
        assert not self.complaints, self.complaints[0]
        for what, outcome in self.asked:
            if outcome and hasattr(outcome[0], "getTraceback"):
                assert outcome[0].check(Error, OSError), f"{what}: {outcome[0].getTraceback()}"

    @invariant()
    def what_is_listed_runs(self) -> None:
        """The monitor of each instance that is listed as running runs."""
        for instance in self.manager.running() if self.manager else ():
            assert self.monitor_runs(instance), f"{instance.name} is listed, and does not run"

    @rule()
    def settle(self) -> None:
        """Once nothing fails any more, all agree after a while."""
        self.mend()
        for pause in [0.001] * 20 + [0.01] * 50 + [0.1] * 50 + [1] * 80:
            self.reactor.advance(pause)
            for init in self.stalled():
                init.carry_out()
            for init in self.half_ended():
                init.end("Killed")
            for init in self.reactor.inits:
                if init.monitor not in self.kernel.living:
                    init.hang_up()
        open_ = [what for what, outcome in self.asked if not outcome]
        assert not open_, f"never answered: {open_}"
        self.asked = []
        self.no_mistake()
        self.ask("doctor", doctor(self.manager))
        for _ in range(100):
            self.reactor.advance(0.05)
        self.no_mistake()
        self.all_agree()

    def all_agree(self) -> None:
        """The list, the records and the processes do."""
        instances = self.manager.instances.values()
        states = {instance.name: instance.state for instance in instances}
        assert set(states.values()) <= {"running", "waiting", "stopped", "ended", "failed"}, states
        assert self.reactor.frozen == {
            one.processes.token for one in instances if one.paused and one.processes
        }, "others are frozen than those that are paused"
        ours = {instance.processes.monitor for instance in self.manager.running()}
        assert len(ours) == len(self.manager.running())
        warm = {child.monitor for child in self.manager.pool._living.values() if not child.planned}
        running = {init.monitor for init in self.running_inits()}
        assert running == ours | warm, "other processes run than those that are known"
        reserved = self.manager.pool.prepared.names
        assert set(os.listdir(self.path("instances"))) == set(states) | reserved
        for instance in instances:
            self.agrees_with_its_record(instance)

    def agrees_with_its_record(self, instance: Instance) -> None:
        """An instance's record and mode are what the next manager has to know."""
        mode = stat.S_IMODE(os.lstat(instance.folder).st_mode)
        assert mode == Phase.WHOLE, f"{instance.name} is {instance.state}, and its mode {mode:o}"
        path = os.path.join(instance.folder, RECORD)
        record = read_record(instance.name, path, self.manager.layers.folder)
        if not self.faults.any_failed:
            # A whole folder whose record says "starting" is one that has started.
            state = "running" if record["state"] == "starting" else record["state"]
            self.equal(state, instance.state)
        if instance.state == "failed":
            assert os.listdir(instance.folder) == [RECORD], "more than its record is left"
        if instance.state == "ended":
            assert instance.spec.restart != "always", "it is not started again"
        self.equal(record["paused"], instance.paused)
        if instance.running:
            assert record["slot"] == instance.processes.token

    # -- helpers ---------------------------------------------------------------------

    def mend(self) -> None:
        """Nothing fails or stalls from now on."""
        self.faults.coming.clear()
        self.kernel.most_open = self.reactor.spawn_error = None
        self.reactor.connects = self.reactor.prepares = self.reactor.works = True

    def pick(self, number: int, things: Any) -> Any:
        """One of these."""
        return things[number % len(things)]

    def running_inits(self) -> Any:
        """Those whose monitor runs."""
        return [init for init in self.reactor.inits if init.monitor in self.kernel.living]

    def connected(self) -> Any:
        """Those that are connected."""
        return [init for init in self.running_inits() if init.connection is not None]

    def stalled(self) -> Any:
        """Those that have a whole plan but don't carry it out."""
        return [
            init
            for init in self.connected()
            if init.plan is not None and init.process in self.kernel.living
        ]

    def half_ended(self) -> Any:
        """Those whose monitor has not noticed their end yet."""
        return [init for init in self.running_inits() if init.process not in self.kernel.living]

    def monitor_runs(self, instance: Instance) -> Any:
        """Whether an instance's monitor does."""
        return instance.processes.monitor in self.kernel.living


class LivesTests(SynchronousTestCase):
    """Many lives."""

    def test_lives(self) -> None:
        """In every life that is drawn, all agree and nothing is lost."""
        self.patch(engine, "MAX_SHRINKING_SECONDS", 30)  # to simplify a failure
        self.patch(os, "fsync", lambda descriptor: None)  # no life has a power cut
        gc.freeze()  # what other tests left is not looked through again after each life
        self.addCleanup(gc.unfreeze)
        gc.disable()  # and what a life leaves is collected at its end, not at any moment
        self.addCleanup(gc.enable)
        drawn = settings(
            max_examples=LIVES,
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(seed(SEED)(Lives), settings=drawn)
        except BaseException:
            print(f"MACHINE_SEED={SEED} MACHINE_LIVES={LIVES}")
            raise
        finally:
            self.flushLoggedErrors()  # ``hear`` has looked at each
