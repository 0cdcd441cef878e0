"""Commands in instances: whether one may be run, and one whose whole output is wanted."""

from __future__ import annotations

from typing import Any

from attrs import asdict, define, field

from txcontain.container.exec_plan import Command
from txcontain.container.explain import explain_exec
from txcontain.engine.interface import Stdio
from txcontain.engine.manager import Manager
from txcontain.later import Timer
from txcontain.runtime.instance import Instance
from txcontain.runtime.session import Session
from txcontain.runtime.sessions import plan_of

MOST_OUTPUT = 1 << 20  # bytes of each stream that ``run`` keeps
STREAMS = {1: "stdout", 2: "stderr"}


async def start(manager: Manager, instance: Instance, command: Command) -> Session:
    """Run a command in an instance; its output waits until it is asked for.

    Raises NotRunning, TooMany, CannotRun, NoSuchProgram, MachineAtFault.
    """
    plan = plan_of(instance, manager.host, command)
    session = await manager.sessions.start(instance, plan)
    manager.journal.add("exec", f"{command.command[0]} was started in it", instance=instance.name)
    return session


def explanation(manager: Manager, instance: Instance, command: Command) -> str:
    """The shell script that would run a command in an instance.

    Raises NotRunning, InvalidData.
    """
    return explain_exec(plan_of(instance, manager.host, command))


@define
class Output:
    """What a command has written, up to a bound; beyond that the command is ended."""

    session: Stdio
    streams: dict[int, bytearray] = field(factory=lambda: {1: bytearray(), 2: bytearray()})

    def hear(self, stream: int, data: bytes) -> None:
        """It has written this."""
        kept = self.streams[stream]
        kept += data[: MOST_OUTPUT - len(kept)]
        if len(kept) == MOST_OUTPUT:
            self.session.end(f"it wrote {MOST_OUTPUT} bytes or more to {STREAMS[stream]}")


async def run(session: Stdio, given: bytes, timeout: float) -> dict[str, Any]:
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
