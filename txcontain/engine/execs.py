"""Commands in instances: whether one may be run, and one whose whole output is wanted."""

from __future__ import annotations

from typing import Any

from attrs import asdict, define, field

from txcontain.container.exec_plan import Command, Joined, make_exec_plan
from txcontain.container.explain import explain_exec
from txcontain.container.plan import Plan
from txcontain.engine.manager import Manager
from txcontain.errors import NotRunning
from txcontain.later import Timer
from txcontain.runtime.instance import Instance
from txcontain.runtime.session import Session

MOST_OUTPUT = 1 << 20  # bytes of each stream that ``run`` keeps
STREAMS = {1: "stdout", 2: "stderr"}
WHY_NOT = {
    "starting": "is still being started",
    "waiting": "has ended, and waits to be started again",
    "stopping": "is being ended",
    "ended": "has ended",
    "stopped": "was stopped",
    "failed": "was never up: its launch failed",
}


async def start(manager: Manager, instance: Instance, command: Command) -> Session:
    """Run a command in an instance; its output waits until it is asked for.

    Raises NotRunning, TooMany, CannotRun, NoSuchProgram, MachineAtFault.
    """
    plan = _plan(manager, instance, command)
    session = await manager.sessions.start(instance, plan)
    manager.journal.add("exec", f"{command.command[0]} was started in it", instance=instance.name)
    return session


def explanation(manager: Manager, instance: Instance, command: Command) -> str:
    """The shell script that would run a command in an instance.

    Raises NotRunning, InvalidData.
    """
    return explain_exec(_plan(manager, instance, command))


def _plan(manager: Manager, instance: Instance, command: Command) -> Plan:
    joined = _joined(manager, instance)
    return make_exec_plan(instance.spec, manager.host, joined, command)


def _joined(manager: Manager, instance: Instance) -> Joined:
    processes = instance.processes
    if not instance.running or processes is None or not processes.process.pid:
        why = WHY_NOT.get(instance.state, f"is {instance.state}")
        raise NotRunning(f"{instance.name} {why}", "a command can only be run in one that runs")
    if instance.paused:  # the command would be frozen too
        raise NotRunning(f"{instance.name} is paused", "resume it first")
    process, cgroups = processes.process, manager.pool.cgroups
    where = process.pid, process.start_time, cgroups.entrances(processes.token)
    return Joined(*where, user_namespace=instance.ids is not None)


@define
class Output:
    """What a command has written, up to a bound; beyond that the command is ended."""

    session: Session
    streams: dict[int, bytearray] = field(factory=lambda: {1: bytearray(), 2: bytearray()})

    def hear(self, stream: int, data: bytes) -> None:
        """It has written this."""
        kept = self.streams[stream]
        kept += data[: MOST_OUTPUT - len(kept)]
        if len(kept) == MOST_OUTPUT:
            self.session.end(f"it wrote {MOST_OUTPUT} bytes or more to {STREAMS[stream]}")


async def run(session: Session, given: bytes, timeout: float) -> dict[str, Any]:
    """Let a command that was started read this, and wait for its end, at most so many seconds.

    Returns its output, and how it has ended.
    """
    output = Output(session)
    session.heard = output.hear
    late = Timer(session.reactor, lambda: session.end(f"it took more than {timeout:g} s"))
    late.after(timeout)
    session.write(given)
    session.close_input()
    session.resumeProducing()
    try:
        how = await session.ended
    finally:
        late.cancel()
    texts = {STREAMS[n]: text.decode(errors="replace") for n, text in output.streams.items()}
    return {**texts, "exit": asdict(how)}
