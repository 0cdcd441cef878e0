"""The commands that run in containers, and the inits that wait to become one.

Some inits are kept warm, once one was needed lately: to start Python takes longer than all else
of an exec.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

from attrs import define, field
from twisted.logger import Logger

from txcontain.container.exec_plan import Command, Joined, make_exec_plan
from txcontain.container.facts import Host
from txcontain.container.plan import Plan
from txcontain.errors import Error, MachineAtFault, NotRunning, TooMany
from txcontain.host.os_errors import of_os
from txcontain.later import Timer
from txcontain.runtime import diagnose
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.instance import Instance
from txcontain.runtime.pool import Pool
from txcontain.runtime.session import Session

WHY_NOT = {
    "starting": "is still being started",
    "waiting": "has ended, and waits to be started again",
    "stopping": "is being ended",
    "ended": "has ended",
    "stopped": "was stopped",
    "failed": "was never up: its launch failed",
}
LATELY = 60.0  # seconds since the last exec, in which some inits are kept warm
MOST_WARM = 2
REFILL_AFTER = 0.02  # seconds without an exec
CONNECT_WITHIN = 20.0  # seconds
JOIN_WITHIN = 10.0  # seconds: a container may stop, or starve, what joins it
MOST, MOST_EACH = 100, 20  # commands at the same time: of all instances, and of one
log = Logger()


def plan_of(instance: Instance, host: Host, command: Command) -> Plan:
    """The plan of a command in an instance.

    Raises NotRunning.
    """
    processes = instance.processes
    if not instance.running or processes is None or not processes.process.pid:
        why = WHY_NOT.get(instance.state, f"is {instance.state}")
        raise NotRunning(f"{instance.name} {why}", "a command can only be run in one that runs")
    if instance.paused:  # the command would be frozen too
        raise NotRunning(f"{instance.name} is paused", "resume it first")
    process, entrances = processes.process, processes.cgroups.entrances(processes.token)
    where = process.pid, process.start_time, entrances
    joined = Joined(*where, user_namespace=instance.ids is not None)
    return make_exec_plan(instance.spec, host, joined, command)


@define(eq=False)
class Sessions:
    """Starts commands in instances, and knows those that run."""

    pool: Pool
    early_steps: Plan
    of: dict[Session, Instance] = field(factory=dict)  # those that run, or are about to
    _warm: list[Session] = field(factory=list)
    _refill: Timer = field(init=False)
    _cool: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._refill = Timer(self.pool.reactor, self._warm_some)
        self._cool = Timer(self.pool.reactor, self._cool_down)

    async def start(self, instance: Instance, plan: Plan, *, counts: bool = True) -> Session:
        """A command that runs in an instance; its output waits until it is asked for.

        :param counts: whether it is one of those of which there may be only so many
        Raises TooMany, CannotRun, NoSuchProgram, MachineAtFault.
        """
        if counts:
            self._check_bounds(instance)
        session = self._take()
        self.of[session] = instance
        session.lost = self._over
        if processes := instance.processes:
            count = processes.cgroups.out_of_memory_kills
            session.count_kills = partial(count, processes.token)
            session.kills_before = session.count_kills()
        try:
            await self._join(session, plan)
        except Exception:
            session.kill("its start failed")
            raise
        return session

    def _check_bounds(self, instance: Instance) -> None:
        here = sum(1 for one in self.of.values() if one is instance)
        if here >= MOST_EACH:
            raise TooMany(
                f"{here} commands run in {instance.name} already", "end one of them first"
            )
        if len(self.of) >= MOST:
            raise TooMany(f"{MOST} commands run in instances already", "end one of them first")

    async def _join(self, session: Session, plan: Plan) -> None:
        if why_not := await session.waiting:
            raise why_not
        try:
            joined = session.carry_out(plan)
            joined.addTimeout(JOIN_WITHIN, self.pool.reactor, onTimeoutCancel=_never_joined)
            await joined
        except StepFailed as failure:
            raise diagnose.of_command(plan, failure) from failure

    # -- their ends ------------------------------------------------------------

    def end_those_of(self, instance: Instance, because: str) -> None:
        """End the commands of an instance that ends itself."""
        for session in [session for session, one in self.of.items() if one is instance]:
            session.end(because)

    def _over(self, session: Session) -> None:
        self.of.pop(session, None)
        if session in self._warm:
            self._warm.remove(session)

    def stop(self) -> list[Instance]:
        """End all that run, and the inits that wait; returns the instance of each that ran."""
        self._cool_down()
        for session in list(self.of):
            session.end("the manager has ended")
        return list(self.of.values())

    # -- inits that wait -------------------------------------------------------

    def _take(self) -> Session:
        self._cool.after(LATELY)
        if not self._refill.is_set:
            self._refill.after(REFILL_AFTER)
        return self._warm.pop(0) if self._warm else self._spawn()

    def _spawn(self) -> Session:
        session = Session(self.pool.reactor, self.pool.kernel, self.early_steps)
        session.lost = self._over
        session.waiting.addTimeout(CONNECT_WITHIN, self.pool.reactor, onTimeoutCancel=_too_slow)
        session.waiting.addCallback(self._connected, session)
        try:
            self.pool.start_joiner(session)
        except OSError as error:
            raise MachineAtFault("starting an init", of_os(error)) from error
        return session

    def _connected(self, why_not: Error | None, session: Session) -> Error | None:
        if why_not is not None:
            session.kill("it was not to be had")
            self._over(session)
        return why_not

    def _warm_some(self) -> None:
        try:
            while len(self._warm) < MOST_WARM and self._cool.is_set:
                self._warm.append(self._spawn())
        except MachineAtFault as error:
            log.warn("no init is kept warm for the next exec: {error}", error=error)

    def _cool_down(self) -> None:
        self._refill.cancel()
        self._cool.cancel()
        for session in self._warm:
            session.hang_up()
        self._warm = []


def _too_slow(result: Any, timeout: float) -> MachineAtFault:
    return MachineAtFault("starting an init", f"it has not connected within {timeout:.0f} s")


def _never_joined(result: Any, timeout: float) -> NoReturn:
    raise MachineAtFault(
        "joining the container",
        f"the command does not run after {timeout:.0f} s",
        "see whether the container is out of memory, or of processor time",
    )
