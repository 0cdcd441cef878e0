"""One log, as someone reads it: from where, up to where, and which of its pieces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import DeferredLock

from txcontain.logs import segments
from txcontain.logs.client import LogClient
from txcontain.logs.logd import LOG
from txcontain.logs.segments import BEGINNING, EVERYTHING, LONGEST_READ, Piece, Position, Wanted

MOST_HELD = 1 << 20  # bytes kept of a removed log, for each reader who is not at its end


class Writer(Protocol):
    """An instance, whose log is read."""

    name: str
    processes: Any  # its processes, with their token; None if it was never started

    @property
    def ended(self) -> bool:
        """Whether it has ended, and writes no more."""

    def path(self, name: str) -> str:
        """A path in its folder."""


@define(eq=False)
class Source:
    """One instance's log, as one client reads it."""

    client: LogClient
    instance: Writer
    wanted: Wanted = EVERYTHING
    most: int = LONGEST_READ  # bytes of one read
    last: Position = BEGINNING  # the end of what can be read
    _position: Position = BEGINNING
    _held: list[Piece] = field(factory=list)  # the rest of a log that was removed
    _gone: bool = False  # whether it was removed
    _reading: DeferredLock = field(factory=DeferredLock)

    @property
    def _folder(self) -> str:
        return self.instance.path(LOG)

    async def settle(self) -> None:
        """Wait until all that is written by now is in the files."""
        if self.instance.processes is not None:
            await self.client.settle(self.instance.processes.token)

    async def look(self) -> None:
        """Find out where the log ends now."""
        if not self._gone:
            self.last = await self.client.threads(segments.end, self._folder)

    async def go_back(self, lines: int, go_on: Callable[[], Awaitable[bool]]) -> None:
        """Go back to the last lines, while ``go_on`` says so."""
        places = segments.look_back(self._folder, self.last, lines, self.wanted)
        position = None
        while position is None and await go_on():
            position = await self.client.threads(next, places)
        self._position = position or self.last

    async def read(self) -> list[Piece]:
        """The next pieces; none at the end."""
        await self._reading.acquire()
        try:
            pieces, self._held = self._held, []
            return pieces or await self._read_on()
        finally:
            self._reading.release()

    async def _read_on(self) -> list[Piece]:
        if self._gone:
            return []
        where = self._folder, self._position, self.last, self.wanted, self.most
        pieces, self._position = await self.client.threads(segments.read, *where)
        return pieces  # type: ignore[no-any-return]  # a thread's answer is Any

    def end(self) -> None:
        """Stop reading."""
        readers = self.client.readers
        readers[self.instance.name].discard(self)
        if not readers[self.instance.name]:
            del readers[self.instance.name]

    async def hold_rest(self) -> None:
        """The log is about to be removed: read the rest now, up to MOST_HELD bytes."""
        await self.look()
        await self._reading.acquire()
        try:
            left = MOST_HELD
            while left > 0 and (pieces := await self._read_on()):
                self._held += pieces
                left -= sum(len(piece.data) for piece in pieces)
            self._gone = True
        finally:
            self._reading.release()
