"""Waiting until a container listens on its PORT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from txcontain.host.kernel import Kernel
from txcontain.later import Timer, background, poll
from txcontain.runtime.supervised import Supervised

LISTEN_WITHIN = 5.0  # seconds that a launch waits
LOOK_AFTER, LOOK_AT_MOST = 0.002, 0.05  # seconds between two looks; doubled up to the second
LOOK_AT_LAST = 60.0  # seconds between two looks when no one waits any more


@define(eq=False)
class Readiness:
    """Looks whether a container listens on a port, until it does or ``stop`` is called."""

    reactor: Any
    kernel: Kernel
    threads: Callable[..., Deferred[Any]]  # runs a function off this thread
    ready: Callable[[int], None]  # told the port once the container listens on it
    _watched: Supervised | None = None
    _next_look: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._next_look = Timer(self.reactor, self._look_again)

    async def wait(self, processes: Supervised, port: int) -> None:
        """Wait until they listen; after some seconds return, and go on looking less often."""
        self._watched = processes
        async for _ in poll(self.reactor, LOOK_AFTER, most=LOOK_AT_MOST, within=LISTEN_WITHIN):
            if self._watched is not processes or await self._look(processes, port):
                break
        else:
            self.watch(processes, port, LOOK_AT_MOST)

    def watch(self, processes: Supervised, port: int, pause: float = LOOK_AFTER) -> None:
        """Look after so many seconds, and then less and less often."""
        self._watched = processes
        self._next_look.after(pause, processes, port, pause)

    def stop(self) -> None:
        """Look no more."""
        self._watched = None
        self._next_look.cancel()

    def _look_again(self, processes: Supervised, port: int, pause: float) -> None:
        background(self._look_and_go_on(processes, port, pause), f"looking at port {port}")

    async def _look_and_go_on(self, processes: Supervised, port: int, pause: float) -> None:
        if not await self._look(processes, port) and self._watched is processes:
            self.watch(processes, port, min(2 * pause, LOOK_AT_LAST))

    async def _look(self, processes: Supervised, port: int) -> bool:
        pid, group = processes.process.pid, processes.cgroups.number(processes.token)
        if not pid:
            return False  # PID 1 has ended, and its monitor is about to
        listens = self.kernel.surely_listens(pid, port, group)
        if listens is None:
            listens = await self.threads(self.kernel.listens, pid, port)
        if not listens or self._watched is not processes:  # it may have ended meanwhile
            return False
        self.ready(port)
        return True
