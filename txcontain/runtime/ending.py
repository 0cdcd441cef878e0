"""Ends a container's processes: asks those that handle the signal, and in the end kills all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txcontain.host.kernel import Kernel
from txcontain.host.processes import Process
from txcontain.later import poll
from txcontain.runtime.exits import ASKED
from txcontain.runtime.supervised import Supervised

LOOK_AFTER, LOOK_AT_MOST = 0.002, 0.05  # seconds between two looks; doubled up to the second
KILL_AGAIN, END_WITHIN = 1.0, 30.0  # seconds: what is killed may be busy in the kernel
NEVER, A_WHILE = float("inf"), 0.1  # seconds

log = Logger()


@define
class Ending:
    """How long the processes of an instance have, and what ends them."""

    reactor: Any
    kernel: Kernel
    threads: Callable[..., Deferred[Any]]  # runs a function off this thread
    name: str  # of the instance
    signal: int  # that asks them to end
    kill_at: float = NEVER  # by the reactor's clock

    @property
    def is_wanted(self) -> bool:
        """Whether someone has asked for the end since the last start."""
        return self.kill_at < NEVER

    def within(self, seconds: float) -> None:
        """They have so many seconds, unless they have less already."""
        self.kill_at = min(self.kill_at, self.reactor.seconds() + seconds)

    async def end(self, processes: Supervised) -> None:
        """Send the signal to those that handle it, and in the end SIGKILL to all."""
        begun, asked = self.reactor.seconds(), False
        try:
            asked = await self._ask(processes)
        except Exception:
            log.failure("asking {name} to end", name=self.name)
        because = why(asked, self.reactor.seconds() - begun)
        async for _ in poll(self.reactor, KILL_AGAIN, within=END_WITHIN):
            if processes.exit is not None:
                break
            try:
                processes.kill(because)
            except OSError as error:  # such as no free descriptor
                log.warn("{name} can't be killed: {error}", name=self.name, error=error)

    async def _ask(self, processes: Supervised) -> bool:
        """Send the signal and wait; returns whether there was any process that handles it."""
        pid = processes.process.pid  # 0 once it has ended, before its monitor does
        asked = await self._catchers(pid) if pid else []
        for process in asked:
            self.kernel.signal_process(process, self.signal)
        left = self.kill_at - self.reactor.seconds()
        async for _ in poll(self.reactor, LOOK_AFTER, most=LOOK_AT_MOST, within=left):
            if processes.exit or not any(self.kernel.lives(process) for process in asked):
                break
            if self.reactor.seconds() >= self.kill_at:  # someone has less patience
                break
        return bool(asked)

    async def _catchers(self, pid: int) -> list[Process]:
        """The processes to ask; if there may be very many, a thread looks for them."""
        found = self.kernel.catchers_at_once(pid, self.signal)
        if found is None:
            found = await self.threads(self.kernel.catchers, pid, self.signal)
        return found


def why(asked: bool, waited: float) -> str:
    """Why processes are killed, of which some were asked to end so many seconds ago."""
    if asked and waited >= A_WHILE:
        return f"{ASKED}, and had not after {waited:.1f} s"
    return ASKED
