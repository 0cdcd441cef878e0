"""A container, from its launch until it is removed: what it does in each state of its life."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred
from twisted.logger import Logger

from txcontain.container.plan import Plan
from txcontain.errors import CalledOff, Error, MachineAtFault
from txcontain.host.kernel import Kernel
from txcontain.host.os_errors import of_os
from txcontain.later import Rounds, Timer, background, together
from txcontain.logs.logd import LOG
from txcontain.runtime import diagnose
from txcontain.runtime.child import Child
from txcontain.runtime.conversation import MakeLink, StepFailed
from txcontain.runtime.ending import NEVER, Ending
from txcontain.runtime.exits import UNHEALTHY, Exit
from txcontain.runtime.health import HEALTHY, Checks
from txcontain.runtime.kept import Kept
from txcontain.runtime.lifecycle import Life, make_life
from txcontain.runtime.pool import Pool
from txcontain.runtime.probes import Told, nothing
from txcontain.runtime.readiness import Readiness
from txcontain.runtime.records import FIRST_DELAY, PHASES, RECORD, Recorded
from txcontain.runtime.supervised import Supervised

LAST_WORDS = 500  # bytes of stderr that a failure quotes
LONGEST_DELAY = 60.0  # seconds before a restart
STEADY_AFTER = 10.0  # seconds of running after which the delay is short again
SAVE_AFTER = 1.0  # seconds
ALWAYS = ("always", "unless-stopped")  # the policies by which it is started again after any end

log = Logger()


@define(eq=False, kw_only=True)
class Instance(Recorded):
    """A container, from its launch until it is removed."""

    folder: str
    plan: Plan
    reactor: Any
    kernel: Kernel
    pool: Pool
    # Told of each change: why, and what it is called if that is not the state.
    changed: Callable[[Instance, str, str], None] = lambda instance, why, what: None
    make_link: MakeLink | None = None  # to the private network
    stream: int | None = None  # the descriptor of the connection that it is launched for
    ask: Callable[[Instance, Told], Callable[[], None]] = lambda instance, told: nothing  # see Ask
    rounds: Rounds  # in which it is asked
    threads: Callable[..., Deferred[Any]] = maybeDeferred  # runs a function off this thread
    notes: Sequence[str] = ()  # for the person who launched it
    asked_at: Sequence[float] = ()  # when its launch was, and when the manager began with that
    prepared: Child | None = None  # a warm init that its launch has leased
    ending: bool = False  # whether it is to be removed
    marked: Deferred[Any] | None = None  # fires when this is on disk, for the next manager
    removing: DeferredLock = field(factory=DeferredLock)  # one request at a time removes it
    moving: DeferredLock = field(factory=DeferredLock)  # and one at a time stops or starts it
    settling: DeferredLock = field(factory=DeferredLock)  # until its launch works, or is noted
    _moments: list[float] = field(factory=list)  # of a start: one before each of PHASES
    _launching: bool = False  # whether its script has yet to run
    _next_start: Timer = field(init=False)
    _readiness: Readiness = field(init=False)
    _next_save: Timer = field(init=False)
    _client_waits: bool = True  # for its launch or start: then its policy does not apply
    _was_launched: bool = False  # so it has a folder, and outlives a failure to start
    _ending: Ending = field(init=False)
    _life: Life = field(init=False)
    _ended: list[Deferred[Exit]] = field(factory=list)
    _stopped: list[Deferred[None]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._life = make_life(self)
        self._next_start = Timer(self.reactor, self._start_again)
        machine = self.reactor, self.kernel, self.threads
        self._readiness = Readiness(*machine, ready=self._listens)
        self._ending = Ending(*machine, self.name, self.spec.stop_signal)
        self._next_save = Timer(self.reactor, self.save)
        self.checks = Checks(self, partial(self.ask, self))

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good, or its launch has failed."""
        return self.state in ("ended", "failed")

    @property
    def failure(self) -> str | None:
        """Why its launch has failed; None if it has not."""
        if self.state != "failed":
            return None
        return self.exit.reason if self.exit else ""

    @property
    def is_disposable(self) -> bool:
        """Whether nobody needs it any more. A service counts what it has run."""
        counts = self.state == "ended" and "service" in self.labels
        return self.is_over and not self.ending and not counts

    @property
    def is_stopped(self) -> bool:
        """Whether someone has stopped it, or is about to, and it is kept."""
        return self.state == "stopped" or (self.state == "stopping" and not self.ending)

    @property
    def is_being_started(self) -> bool:
        """Whether someone waits for its launch or start."""
        return self._client_waits and self.state in ("created", "starting")

    @property
    def serves(self) -> bool:
        """Whether new clients are to be sent to it."""
        is_ready = self.ready or self.spec.port is None
        return self.running and is_ready and not self.paused and self.health in (None, HEALTHY)

    def path(self, name: str) -> str:
        """A path in the instance's folder."""
        return os.path.join(self.folder, name)

    # -- beginning -------------------------------------------------------------

    async def launch(self) -> None:
        """Make the container; returns when its script runs, and listens if it has a PORT.

        Raises ConfigAtFault, MachineAtFault or CalledOff, and then nothing runs any more.
        """
        self.launched = self.kernel.now()
        await self._start_for_client()
        self._was_launched = True

    async def start(self) -> None:
        """Make the container again, in the same folder; returns and raises as ``launch`` does.

        If it fails, the instance is stopped, and keeps its data.
        """
        self._next_start.cancel()
        self.restarts, self.delay, self._client_waits = 0, FIRST_DELAY, True
        await self._start_for_client()

    async def _start_for_client(self) -> None:
        try:
            await self._start()
        finally:
            self._client_waits = False
            self._check_that_it_is_wanted()

    def _check_that_it_is_wanted(self) -> None:
        if self.ending:
            raise CalledOff(f"{self.name} was destroyed while it was launched")
        if self._ending.is_wanted:
            raise CalledOff(f"{self.name} was stopped while it was started")

    async def _start(self) -> None:
        self.ready, self.processes, self._launching = False, None, True
        now = self.reactor.seconds()
        self._moments, self.asked_at = [*(self.asked_at or (now, now))], ()
        self._life.launch()
        try:
            await self._carry_out()
        except Exception as error:
            self._launching = False
            await self._be_sure_that_it_ended(str(error))
            raise
        self._be_up()
        if self.spec.port is not None:
            await self._wait_until_it_listens(self.spec.port)

    def _be_up(self) -> None:
        """Its script runs, or ran: news of its end may come before news of its start."""
        assert self.processes is not None
        self._launching = False
        self._life.up()
        if self.spec.port is None:
            self._client_waits = False
        if self.processes.exit is not None:
            self._begin_again_or_end(self.processes.exit)

    async def _carry_out(self) -> None:
        prepared, self.prepared = self.prepared, None
        child = await self.pool.take(self.plan, prepared)
        if self.state == "stopping":
            child.hang_up()
        self._check_that_it_is_wanted()
        self.processes, self.in_advance = child, child.in_advance
        child.on_exit, child.make_link = self._exited, self.make_link
        child.stream, self.stream = self.stream, None  # closed soon: its number may be reused
        child.limit(self.spec.limits)
        if not self._was_launched and not child.reserved:
            await self._kept.make()
        self._name_pipes(child)
        self._pass()
        child.execs.addCallback(self._pass)
        steps_done = child.carry_out(self.plan).addCallback(self._pass)
        try:
            # While the init works:
            await self._kept.begin(self.record, was_prepared=bool(child.reserved))
        except OSError as error:
            steps_done.addErrback(lambda _: None)  # its failure is a result of this one
            self.pool.expect_nothing()  # someone may have removed its prepared folder
            raise MachineAtFault(f"writing {RECORD}", of_os(error)) from error
        await together(self._wait_for_the_exec(steps_done), self._mark_as_whole(child))
        self._check_that_it_is_wanted()
        child.let_go_of_stderr()

    def _pass(self, result: Any = None) -> Any:
        """A phase of the start is over; a callback that passes on a result."""
        self._moments.append(self.reactor.seconds())
        return result

    async def _wait_for_the_exec(self, steps_done: Deferred[list[float]]) -> None:
        try:
            self.timeline = await steps_done
        except StepFailed as failure:
            raise diagnose.of_step(self.plan, failure) from failure

    async def _mark_as_whole(self, child: Child) -> None:
        """Mark the folder while the init becomes the script, so that the launch waits less.

        The script needs no manager any more: if that is killed now, the next one goes on with it.
        """
        if await child.execs and not self.ending and not self._was_launched:
            await self._kept.be_whole()

    def _name_pipes(self, child: Supervised) -> None:
        """Keep what it writes as its log, from the first byte on."""
        self.pool.log_process.name(child.token, self.name, self.spec.longest_log)

    async def _be_sure_that_it_ended(self, why: str) -> None:
        processes = self.processes
        if processes is None:
            self._begin_again_or_end(Exit(reason=why, at=self.kernel.now()))
        elif processes.exit is not None:
            self._begin_again_or_end(processes.exit)
        else:
            processes.kill("its launch failed, so the manager ended it")
            if self._client_waits:
                await self.end()

    async def _wait_until_it_listens(self, port: int) -> None:
        if self.running and self.processes is not None:
            await self._readiness.wait(self.processes, port)
        self._check_that_it_is_wanted()
        if self._client_waits and self.ended and not self.ready:
            assert self.exit is not None
            token = self.processes.token if self.processes else ""
            words = await self.pool.log_process.last_words(token, self.path(LOG), LAST_WORDS)
            script = self.spec.program or "PID 1"
            raise diagnose.of_early_end(script, port, self.exit, words)

    def _listens(self, port: int) -> None:
        self.ready = True
        self._save_later()
        self._tell(f"it listens on port {port}")

    # -- going on with what an earlier manager left ------------------------------

    def recall(self, record: dict[str, Any]) -> None:
        """Take over what an earlier manager knew: ``record`` is as ``read_record`` returns it."""
        self.inline, self.remove, self.labels = (record[k] for k in ("inline", "remove", "labels"))
        self.image = record["image"]
        self._client_waits, self._was_launched = False, True
        self.boot, self.paused = record["boot"], record["paused"]
        self.settled = record["settled"]
        self.launched, self.since = record["launched"], record["since"]
        self.restarts, self.ready, self.exit = record["restarts"], record["ready"], record["exit"]
        self.checks.recall(record["health"])
        self.timeline, self.in_advance = record["timeline"], record["in_advance"]
        self.phases = record["phases"]
        self.delay = min(max(record["delay"], FIRST_DELAY), LONGEST_DELAY)
        same_boot = self.boot == self.kernel.boot_id()  # and so the same clock
        self.up_at = record["up_at"] if same_boot else self.reactor.seconds()

    def adopt(self, processes: Supervised) -> None:
        """It runs: follow these processes."""
        self.processes = processes
        processes.on_exit = self._exited
        self._life.found()
        if not self.paused:  # what was frozen for a moment is not to stay so
            self.thaw(processes)
        self.paused = self.paused and processes.cgroups.is_frozen(processes.token)
        if self.spec.port is not None and not self.ready:
            self._readiness.watch(processes, self.spec.port)

    def ended_meanwhile(self, how: Exit) -> None:
        """It has ended while no manager ran; its policy may ask for another start."""
        if how.at - self.since >= STEADY_AFTER:  # the only clock that both managers share
            self.delay = FIRST_DELAY
        self._begin_again_or_end(how)

    def go_on_waiting(self, how: Exit) -> None:
        """It had ended, and waited to be started again."""
        self._begin_again_or_end(how)

    def rested_before(self, state: str, how: Exit) -> None:
        """It had come to rest already, in one of the states AT_REST."""
        life = self._life
        was = {"ended": life.was_over, "failed": life.had_failed, "stopped": life.was_stopped}
        was[state](how)

    def stopped_meanwhile(self, how: Exit) -> None:
        """It was being stopped, and has ended while no manager ran."""
        self._life.halted(how)

    # -- ending ----------------------------------------------------------------

    def end(self) -> Deferred[Exit]:
        """Fires when the container has ended for good; can be cancelled."""
        ended: Deferred[Exit] = Deferred(self._ended.remove)  # when cancelled
        if self.ended:
            assert self.exit is not None
            ended.callback(self.exit)
        else:
            self._ended.append(ended)
        return ended

    def halt(self, patience: float) -> Deferred[Exit]:
        """End the container as ``stop`` does, after ``patience`` seconds, and keep its data.

        Fires when it is stopped, or has ended; can be cancelled.
        """
        self._ending.within(patience)
        self._life.halt()
        return self.end()

    def stop(self) -> Deferred[None]:
        """Ask the container to end, and make it end after ``stop_timeout`` seconds.

        Fires when none of its processes is left, which may be shortly before its exit is known.
        """
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._ending.within(self.spec.stop_timeout)
        self._life.stop()
        if self.ended:
            self._no_process_is_left()
        return stopped

    def _no_process_is_left(self) -> None:
        stopped, self._stopped = self._stopped, []
        for waiting in stopped:
            waiting.callback(None)

    def thaw(self, processes: Supervised) -> None:
        """Let it run on: what is frozen takes no signal, and with cgroup v1 not even SIGKILL."""
        self.paused = False
        processes.thaw()

    def _exited(self, how: Exit) -> None:
        """PID 1 has ended, and with it the container."""
        assert self.processes is not None
        background(self.pool.log_process.close(self.processes.token), f"the log of {self.name}")
        if not self.ending:  # else it is cleared, and that is checked, as the instance is removed
            self.processes.clear()
        if self.running and self.reactor.seconds() - self.up_at >= STEADY_AFTER:
            self.delay = FIRST_DELAY
        if not self._launching:  # else the launch itself goes on with it
            self._begin_again_or_end(how)

    def _begin_again_or_end(self, how: Exit) -> None:
        self.paused = False
        if self.state == "stopping":
            self._life.over(how)
        elif self._client_waits and self._was_launched:
            self._life.halted(how)
        elif self._client_waits and not self.ready:
            self._life.failed(how)
        elif self._is_to_restart(how):
            self._life.lapsed(how)
        else:
            self._life.over(how)

    def _is_to_restart(self, how: Exit) -> bool:
        policy, most = self.spec.restart, self.spec.max_restarts
        wanted = policy in ALWAYS or (policy == "on-failure" and how.failed)
        wanted = wanted or self.checks.ask_for_restart
        return wanted and not self._client_waits and (most is None or self.restarts < most)

    def health_changed(self, why: str) -> None:
        """Take note that its checks say something else from now on."""
        assert self.health is not None
        self.save()
        self._tell(why, self.health)

    def give_up(self) -> None:
        """End it, as its checks ask for, unless someone waits for it, or for its end."""
        if self._client_waits or self._ending.is_wanted or self.processes is None:
            return
        self.processes.killed_because = UNHEALTHY
        self.save()
        self._ending.within(self.spec.stop_timeout)
        if self.checks.ask_for_restart:
            self._begin_to_end()
        else:
            self._life.halt()

    # -- beginning again -------------------------------------------------------

    def _start_later(self) -> None:
        self._next_start.after(self.delay)
        self.delay = min(self.delay * 2, LONGEST_DELAY)

    def _start_again(self) -> None:
        background(self._try_to_start(), f"starting {self.name} again")

    async def _try_to_start(self) -> None:
        async with self.moving:  # its folder may be renamed now
            pass
        if self.state != "waiting":
            return
        self.restarts += 1
        try:
            await self._start()
        except Error as error:
            self._tell(f"could not be started again: {error}")

    def be_called(self, name: str, folder: str, plan: Plan) -> None:
        """Take another name, with the folder and the plan that it has by it."""
        self.name, self.folder, self.plan = name, folder, plan
        self._ending.name = name

    def set_paused(self, paused: bool) -> None:
        """Take note of whether all its processes are frozen."""
        self.paused = paused
        self.checks.follow()
        self.save()

    def pause(self) -> None:
        """Do nothing later, because the instance or the manager ends."""
        self._next_start.cancel()
        self._readiness.stop()
        self.checks.stop()
        if self._next_save.is_set:
            self._next_save.cancel()
            self.save()

    # -- what is kept ----------------------------------------------------------

    @property
    def _kept(self) -> Kept:
        return Kept(self.folder, self.pool.writes)

    def save(self) -> None:
        """Write the record for the next manager; it outlives this process at once."""
        if not self.ending:  # else it is about to be removed
            self._kept.write(self.record)

    def keep_failure(self, why: str) -> Deferred[None]:
        """Keep for the next manager why the launch failed, also if there is no folder yet.

        Fails with an OSError.
        """
        self.exit = evolve(self.exit or Exit(at=self.kernel.now()), reason=why)
        return self._kept.write_failure(self.record)

    def _save_later(self) -> None:
        """Write the record soon: no launch has to wait for this."""
        if not self._next_save.is_set:
            self._next_save.after(SAVE_AFTER)

    # -- what the state machine does --------------------------------------------

    def be_starting(self) -> None:
        """Take note of a start."""
        self.boot, self.settled = self.kernel.boot_id(), False
        self._ending.kill_at = NEVER
        self.checks.begin_anew()
        self._enter("starting", f"from {self.spec.file_name}")

    def be_running(self) -> None:
        """Take note that its script runs."""
        self.up_at = self.reactor.seconds()
        lengths = [end - begin for begin, end in pairwise([*self._moments, self.up_at])]
        self.phases = dict(zip(PHASES, lengths, strict=False))
        self._enter("running", "its script runs")
        self._save_later()

    def be_found(self) -> None:
        """Take note that its script runs, as an earlier manager knew."""
        self.state = "running"
        self._tell("found again")

    def be_found_at_rest(self, state: str, how: Exit) -> None:
        """Take note that it is at rest, as an earlier manager has."""
        self.state, self.exit = state, how

    def _enter(self, state: str, why: str) -> None:
        self.state, self.since = state, self.kernel.now()
        self._tell(why)

    def _tell(self, why: str, what: str = "") -> None:
        """Tell of a change. If that fails, what comes next happens all the same."""
        self.checks.follow()
        try:
            self.changed(self, why, what or self.state)
        except Exception:
            log.failure("taking note that {name} is {state}", name=self.name, state=self.state)

    def be_stopping(self) -> None:
        """Begin to end the container, which is to be removed."""
        is_ending = self.state == "stopping"
        self._readiness.stop()
        self._enter("stopping", "asked to end")
        self.mark_as_ending()
        if not is_ending:
            self._begin_to_end()

    def be_halting(self) -> None:
        """Begin to end the container, which is to be kept."""
        self._readiness.stop()
        self._enter("stopping", "asked to stop")
        self.save()
        self._begin_to_end()

    def _begin_to_end(self) -> None:
        if self.processes is not None:
            self.processes.watch_init(self._no_process_is_left, is_removed=self.ending)
            self.thaw(self.processes)
            background(self._ending.end(self.processes), f"ending {self.name}")

    def mark_as_ending(self) -> None:
        """It is to be removed from now on, by this manager or the next."""
        self.ending = True
        self.marked = self._kept.be_ending()

    def be_waiting(self, how: Exit) -> None:
        """Take note of an end, and start again later."""
        self._readiness.stop()
        self.exit = how
        self._enter("waiting", f"{how}; to be started again in {self.delay:.1f} s")
        self.save()
        self._start_later()

    def be_ended(self, how: Exit | None = None) -> None:
        """Take note of the end; of the last one if it was waiting to be started again."""
        asked = self.state == "stopping"  # then its folder is about to be removed
        if asked:
            self._next_save.cancel()
        self._come_to_rest("ended", how or self.exit, is_kept=not asked)

    def be_failed(self, how: Exit) -> None:
        """Take note of a launch that failed; ``keep_failure`` writes why."""
        self._come_to_rest("failed", how, is_kept=False)

    def be_stopped(self, how: Exit | None = None) -> None:
        """Take note of the end, after which it is kept until someone starts it."""
        self._come_to_rest("stopped", how or self.exit, is_kept=True)

    def _come_to_rest(self, state: str, how: Exit | None, *, is_kept: bool) -> None:
        assert how is not None
        self.pause()
        self.exit = how
        self._enter(state, how.reason)
        if is_kept:
            self.save()
        ended, self._ended = self._ended, []
        for waiting in ended:
            waiting.callback(how)
        self._no_process_is_left()
