"""One log, as someone reads it: from where, up to where, and which of its pieces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import DeferredLock

from txcontain.logs import segments
from txcontain.logs.client import LogClient
from txcontain.logs.logd import LOG
from txcontain.logs.segments import (
    BEGINNING,
    EVERYTHING,
    LONGEST_READ,
    Lines,
    Piece,
    Position,
    Wanted,
)

MOST_HELD = 1 << 20  # bytes kept of a removed log, for each reader who is not at its end


class Writer(Protocol):
    """An instance, whose log is read."""

    name: str

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
    wake: Callable[[], object] = int  # called when there may be more to read
    last: Position = BEGINNING  # the end of what can be read
    lines: Lines = field(factory=Lines)  # of the pieces that were read, if those are to be lines
    is_over: bool = False  # whether all was read, and nothing will follow
    _is_quiet: bool = False  # whether the log process has yet to say that it has grown
    _position: Position = BEGINNING
    _held: list[Piece] = field(factory=list)  # the rest of a log that was removed
    _has_ended: bool = False  # whether nothing was written after ``last``
    _gone: bool = False  # whether it was removed
    _reading: DeferredLock = field(factory=DeferredLock)

    @property
    def _folder(self) -> str:
        return self.instance.path(LOG)

    async def settle(self) -> None:
        """Wait until all that is written by now is in the files."""
        await self.client.settle_log(self.instance.name)

    async def look(self) -> None:
        """Find out where the log ends now, unless the log process would have said that it grew."""
        ended = self.instance.ended
        if ended:
            await self.settle()
        if ended or not self._is_quiet:
            await self._look()
        self._has_ended = ended

    async def _look(self) -> None:
        if not self._gone:
            self.last = await self.client.threads(segments.end, self._folder)

    async def go_back(self, lines: int, go_on: Callable[[], Awaitable[bool]]) -> None:
        """Go back to the last lines, while ``go_on`` says so."""
        places = segments.look_back(self._folder, self.last, lines, self.wanted)
        position = None
        while position is None and await go_on():
            position = await self.client.threads(next, places)
        self._position = position or self.last

    async def read(self, most: int = LONGEST_READ) -> list[Piece]:
        """The next pieces, of ``most`` bytes or so; none at the end."""
        await self._reading.acquire()
        try:
            pieces, self._held = self._held, []
            pieces = pieces or await self._read_on(most)
            self.is_over = not pieces and (self._has_ended or self._gone)
            return pieces
        finally:
            self._reading.release()

    async def _read_on(self, most: int) -> list[Piece]:
        if self._gone or self._position >= self.last:
            return []
        where = self._folder, self._position, self.last, self.wanted, most
        pieces, self._position = await self.client.threads(segments.read, *where)
        return pieces  # type: ignore[no-any-return]  # a thread's answer is Any

    def wait(self) -> None:
        """Call ``wake`` once, when there is more to read or the instance has ended."""
        if self.instance.ended or self._gone:  # since we last looked
            self.wake()
        elif not self._is_quiet:
            self._is_quiet = True
            self.client.follow(self.instance.name, self.last, self)

    def grown(self) -> None:
        """The log may have grown."""
        self._is_quiet = False
        self.wake()

    def begin(self) -> None:
        """Be told when the log is about to be removed."""
        self.client.readers[self.instance.name].add(self)

    def end(self) -> None:
        """Stop reading."""
        if self._is_quiet:
            self.client.unfollow(self.instance.name, self)
        readers = self.client.readers
        readers[self.instance.name].discard(self)
        if not readers[self.instance.name]:
            del readers[self.instance.name]

    async def hold_rest(self) -> None:
        """The log is about to be removed: read the rest now, up to MOST_HELD bytes."""
        await self._look()
        await self._reading.acquire()
        try:
            left = MOST_HELD
            while left > 0 and (pieces := await self._read_on(LONGEST_READ)):
                self._held += pieces
                left -= sum(len(piece.data) for piece in pieces)
            self._gone = True
        finally:
            self._reading.release()
