"""One container's life: its states, what moves it from one to the next, and its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txcontain import failures
from txcontain.errors import Error, MachineAtFault
from txcontain.kernel import Kernel
from txcontain.layers import last_words
from txcontain.plan import Plan
from txcontain.pool import Pool
from txcontain.process import Exit, StepFailed, Supervised
from txcontain.spec import Spec
from txcontain.store import to_json, write_soon

LISTEN_WITHIN = 5.0  # seconds that a launch waits for its script to listen on PORT
LOOK_AFTER, LOOK_AT_MOST = 0.002, 0.05  # seconds between two looks; doubled up to the second
LAST_WORDS = 500  # bytes of stderr that a failure quotes
KILLED_WITHIN = 10.0  # seconds; a process that outlives SIGKILL hangs in the kernel


class Life(Protocol):
    """What can happen to a container."""

    def launch(self) -> None:
        """It is to be made."""

    def up(self) -> None:
        """Its script runs."""

    def stop(self) -> None:
        """It is to end."""

    def exited(self, how: Exit) -> None:
        """Its PID 1 has ended."""

    def failed(self, how: Exit) -> None:
        """It could not be made."""


@define(eq=False)
class Instance:
    """A container, from its launch until it is removed."""

    name: str
    spec: Spec
    folder: str
    plan: Plan
    reactor: Any
    kernel: Kernel
    pool: Pool
    changed: Callable[[Instance, str], None] = lambda instance, why: None
    state: str = "created"
    since: float = 0.0  # unix time of the state
    launched: float = field(factory=time.time)  # unix time
    ready: bool = False  # whether it listens on its PORT
    exit: Exit | None = None
    timeline: list[float] = field(factory=list)  # seconds that each step of the plan took
    processes: Supervised | None = None
    _life: Life = field(init=False)
    _ended: list[Deferred[Exit]] = field(factory=list)
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self._life = make_life(self)

    @property
    def running(self) -> bool:
        """Whether its script runs and was not asked to end."""
        return self.state == "running"

    @property
    def summary(self) -> dict[str, str]:
        """What a launch answers, and a list holds."""
        spec = self.spec
        return {"instance": self.name, "name": spec.name, "major": spec.major, "minor": spec.minor}

    def path(self, name: str) -> str:
        """A path in the instance's folder."""
        return os.path.join(self.folder, name)

    # -- beginning -------------------------------------------------------------

    async def launch(self) -> None:
        """Make the container; returns when its script runs, and listens where it has a PORT.

        Raises ConfigAtFault or MachineAtFault, and then nothing runs any more.
        """
        self._life.launch()
        try:
            await self._carry_out()
        except Error as error:
            await self._make_sure_it_ended(str(error))
            raise
        if self.spec.port is not None:
            await self._listens(self.spec.port)

    async def _carry_out(self) -> None:
        child = await self.pool.take()
        self.processes = child
        child.on_exit = self._life.exited
        self.save()
        try:
            self.timeline = await child.carry_out(self.plan)
        except StepFailed as failure:
            raise failures.of_step(self.plan, failure) from failure
        if self.state != "starting":
            raise MachineAtFault("the launch was cut short", f"the instance is {self.state}")
        child.let_go_of_stderr()
        self._life.up()

    async def _make_sure_it_ended(self, why: str) -> None:
        if self.processes is not None and self.processes.exit is None:
            self.processes.kill()
            await self.end()
        elif self.state != "ended":
            self._life.failed(Exit(reason=why, at=self.reactor.seconds()))

    async def _listens(self, port: int) -> None:
        """Wait until the container listens on its port, for some seconds at most."""
        pause, deadline = LOOK_AFTER, self.reactor.seconds() + LISTEN_WITHIN
        while self.running and not self._look_whether_it_listens(port):
            if self.reactor.seconds() >= deadline:
                return
            await deferLater(self.reactor, pause)
            pause = min(pause * 2, LOOK_AT_MOST)
        if self.state == "ended" and not self.ready:
            assert self.exit is not None
            words = last_words(self.path("stderr.log"), LAST_WORDS)
            raise failures.of_early_end(str(self.spec.startup_script), port, self.exit, words)

    def _look_whether_it_listens(self, port: int) -> bool:
        assert self.processes is not None
        self.ready = self.kernel.listens(self.processes.process.pid, port)
        return self.ready

    # -- ending ----------------------------------------------------------------

    def end(self) -> Deferred[Exit]:
        """Fires when nothing of the container runs any more."""
        ended: Deferred[Exit] = Deferred()
        if self.state == "ended":
            assert self.exit is not None
            ended.callback(self.exit)
        else:
            self._ended.append(ended)
        return ended

    def stop(self) -> Deferred[Exit]:
        """Ask the container to end, and make it end after ``stop_timeout`` seconds.

        Fires when nothing of it runs any more.
        """
        self._life.stop()
        return self.end()

    async def _terminate(self) -> None:
        """SIGTERM to every process that has a handler for it; SIGKILL to all in the end."""
        assert self.processes is not None
        asked = self.kernel.catchers(self.processes.process.pid, signal.SIGTERM)
        for process in asked:
            self.kernel.signal_process(process, signal.SIGTERM)
        deadline = self.reactor.seconds() + self.spec.stop_timeout
        pause = LOOK_AFTER
        while self.state == "stopping" and self.reactor.seconds() < deadline:
            if not any(self.kernel.lives(process) for process in asked):
                break
            await deferLater(self.reactor, pause)
            pause = min(pause * 2, LOOK_AT_MOST)
        self.processes.kill()

    # -- what is kept ----------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """All that is known of the instance, as plain data."""
        processes = self.processes
        return {
            **self.summary,
            "state": self.state,
            "since": self.since,
            "launched": self.launched,
            "ready": self.ready,
            "pid": processes.process.pid if processes else None,
            "exit": self.exit and {
                "status": self.exit.status, "signal": self.exit.signal,
                "reason": self.exit.reason, "at": self.exit.at,
            },
            "plan": self.plan,
            "timeline": self.timeline,
        }  # fmt: skip

    def save(self) -> None:
        """Keep what a later manager must know (survives this process at once)."""
        write_soon(self.path("instance.json"), to_json(self.record()))

    # -- what the state machine does --------------------------------------------

    def entered(self, state: str, why: str) -> None:
        """Take note of a state."""
        self.state, self.since = state, self.reactor.seconds()
        self._log.info("{name} is {state}: {why}", name=self.name, state=state, why=why)
        self.changed(self, why)

    def be_stopping(self) -> None:
        """Begin to end the container."""
        self.entered("stopping", "asked to end")
        if self.processes is None:
            return
        Deferred.fromCoroutine(self._terminate()).addErrback(self._terminate_failed)

    def _terminate_failed(self, failure: Any) -> None:
        self._log.failure("ending {name}", failure, name=self.name)
        if self.processes is not None:
            self.processes.kill()

    def be_ended(self, how: Exit) -> None:
        """Take note of the end."""
        self.exit = how
        self.entered("ended", how.reason)
        if self.processes is not None:
            self.processes.discard()
        for waiting in self._ended:
            waiting.callback(how)
        self._ended = []


def _life_machine() -> Callable[[Instance], Life]:
    builder = TypeMachineBuilder(Life, Instance)
    created = builder.state("created")
    starting = builder.state("starting")
    running = builder.state("running")
    stopping = builder.state("stopping")
    ended = builder.state("ended")

    @created.upon(Life.launch).to(starting)
    def _(life: Life, instance: Instance) -> None:
        instance.entered("starting", f"launched from {instance.spec.file_name}")

    @starting.upon(Life.up).to(running)
    def _(life: Life, instance: Instance) -> None:
        instance.entered("running", "its script runs")

    for state in (starting, running):

        @state.upon(Life.stop).to(stopping)
        def _(life: Life, instance: Instance) -> None:
            instance.be_stopping()

    for state in (starting, running, stopping):

        @state.upon(Life.exited).to(ended)
        def _(life: Life, instance: Instance, how: Exit) -> None:
            instance.be_ended(how)

    for state in (starting, stopping):

        @state.upon(Life.failed).to(ended)
        def _(life: Life, instance: Instance, how: Exit) -> None:
            instance.be_ended(how)

    stopping.upon(Life.stop).loop().returns(None)
    ended.upon(Life.stop).loop().returns(None)
    return builder.build()


make_life = _life_machine()
