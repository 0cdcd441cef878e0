"""What containers wrote, for whoever asks: the last lines, a time, what follows; several in one.

``log_process.py`` has it written to files, ``segments.py`` reads these. The files are opened for
each read: whoever follows a quiet log takes no descriptor, no thread and no time.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock

from txcontain.container.document import shown
from txcontain.errors import InvalidData
from txcontain.later import Timer
from txcontain.logs import segments
from txcontain.logs.log_process import LogProcess
from txcontain.logs.logd import LOG
from txcontain.logs.push import Stream
from txcontain.logs.segments import (
    BEGINNING,
    EVERYTHING,
    FOREVER,
    LONGEST_READ,
    Lines,
    Piece,
    Place,
    Wanted,
)

MOST_HELD = 1 << 20  # bytes of a log that is removed, for each who has not read it to its end
MOST_READ, LEAST_READ = 4 << 20, 4096  # bytes of all logs that are merged; of each of them
SECOND = 10**9  # nanoseconds
LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z
UNITS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
DURATION = re.compile("(?:[0-9]{1,9}[smhd])+")
# RFC 3339, 5.6; in a query that is not quoted, "+" has become a space.
MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9:]{8})(?:\.([0-9]{1,9})[0-9]*)?"
    r"(?:[Zz]|([+ -][0-9:]{5}))"
)


class Writer(Protocol):
    """Whose log it is: an instance."""

    name: str
    processes: Any  # what runs of it, with its token; None if nothing ever did

    @property
    def ended(self) -> bool:
        """Whether it writes no more."""

    def path(self, name: str) -> str:
        """A path in its folder."""


@define(eq=False)
class Source:
    """One instance's log, as someone reads it."""

    process: LogProcess
    instance: Writer
    wanted: Wanted = EVERYTHING
    most: int = LONGEST_READ  # bytes of one read
    last: Place = BEGINNING  # up to where there is something to read
    _place: Place = BEGINNING
    _held: list[Piece] = field(factory=list)  # the rest of a log that is removed
    _gone: bool = False  # whether it is
    _reading: DeferredLock = field(factory=DeferredLock)

    @property
    def _folder(self) -> str:
        return self.instance.path(LOG)

    async def settle(self) -> None:
        """Have all in the files that was written by now."""
        if self.instance.processes is not None:
            await self.process.settle(self.instance.processes.token)

    async def look(self) -> None:
        """Find out where the log ends now."""
        if not self._gone:
            self.last = await self.process.threads(segments.end, self._folder)

    async def go_back(self, lines: int, go_on: Callable[[], Awaitable[bool]]) -> None:
        """Go to the last lines, unless no one wants them any more."""
        places = segments.look_back(self._folder, self.last, lines, self.wanted)
        place = None
        while place is None and await go_on():
            place = await self.process.threads(next, places)
        self._place = place or self.last

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
        where = self._folder, self._place, self.last, self.wanted, self.most
        pieces, self._place = await self.process.threads(segments.read, *where)
        return pieces  # type: ignore[no-any-return]  # a thread's answer is Any

    def end(self) -> None:
        """No more is to be read."""
        readers = self.process.readers
        readers[self.instance.name].discard(self)
        if not readers[self.instance.name]:
            del readers[self.instance.name]

    async def hold_rest(self) -> None:
        """The log is about to be removed: read what is left now, within a bound."""
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


@define(eq=False)
class Reader(Stream):
    """Sends the logs of one or more instances to a consumer, as fast as it takes them."""

    reactor: Any = field(kw_only=True)
    sources: Sequence[Source] = field(kw_only=True)
    timestamps: bool = field(default=False, kw_only=True)
    names: bool = field(default=False, kw_only=True)  # whether each line tells whose it is
    _lines: list[Lines] = field(init=False)
    _quiet: set[int] = field(factory=set)  # sources that are waited for, by their index
    _over: set[int] = field(factory=set)  # those that have ended, as was noticed
    _wake: Deferred[None] | None = None

    def __attrs_post_init__(self) -> None:
        self._lines = [Lines() for _ in self.sources]

    async def send(self, lines: int | None, follow: bool) -> None:
        """Send the last ``lines`` lines of each log (all, where None), and what follows."""
        at_last = Timer(self.reactor, self._go_on)
        for source in self.sources:
            source.process.readers[source.instance.name].add(source)
        self.begin()
        try:
            for source in self.sources:
                await source.settle()
                await source.look()
                if lines is not None:
                    await source.go_back(lines, self.free)
            if follow:
                self._end_with(at_last)
            await self._send(follow)
        finally:
            at_last.cancel()
            self._expect_nothing()
            self.finish()

    def _end_with(self, at_last: Timer) -> None:
        until = self.sources[0].wanted.until if self.sources else FOREVER
        if until < FOREVER:
            at_last.after(max(0, until - time.time_ns()) / SECOND)

    async def _send(self, follow: bool) -> None:
        while await self.free():
            over = not follow or self._is_over()
            await self._send_what_is_there(over)
            if over:
                break
            await self._something_new()
            ended = [source for source in self.sources if source.instance.ended]
            for source in ended:
                await source.settle()
            for source in self.sources:
                await source.look()

    def _is_over(self) -> bool:
        """Whether nothing follows any more."""
        return all(
            source.instance.ended or source.wanted.until <= time.time_ns()
            for source in self.sources
        )

    async def _send_what_is_there(self, over: bool) -> None:
        if self.timestamps or self.names:
            await self._merge(over)
            return
        for source in self.sources:
            while (pieces := await source.read()) and await self.free():
                self.consumer.write(b"".join(piece.data for piece in pieces))

    # -- lines, by their times -------------------------------------------------

    async def _merge(self, over: bool) -> None:
        """Send the lines of all logs by their times; with what is left of each if it is over."""
        queues: list[deque[Piece]] = [deque() for _ in self.sources]
        heads: list[tuple[int, int]] = []  # the time of each one's next line, and its index

        async def refill(index: int) -> None:
            queue = queues[index]
            while not queue and (pieces := await self.sources[index].read()):
                queue.extend(self._lines[index].of(pieces))
            if not queue and over:
                queue.extend(self._lines[index].rest())
            if queue:
                heappush(heads, (queue[0].time, index))

        for index in range(len(self.sources)):
            await refill(index)
        ready, length = [], 0
        while heads:
            _, index = heappop(heads)
            ready.append(self._line(index, queues[index].popleft()))
            length += len(ready[-1])
            if length > LONGEST_READ:
                if not await self.free():
                    return
                self.consumer.write(b"".join(ready))
                ready, length = [], 0
            if queues[index]:
                heappush(heads, (queues[index][0].time, index))
            else:
                await refill(index)
        if ready and await self.free():
            self.consumer.write(b"".join(ready))

    def _line(self, index: int, line: Piece) -> bytes:
        name = f"{self.sources[index].instance.name} | " if self.names else ""
        when = f"{timestamp(line.time)} " if self.timestamps else ""
        return f"{name}{when}".encode() + line.data

    # -- waiting ---------------------------------------------------------------

    async def _something_new(self) -> None:
        """Wait until one of the logs has grown, or ended, or the consumer is gone."""
        wake = self._wake = Deferred()
        for index, source in enumerate(self.sources):
            if source.instance.ended and index not in self._over:
                self._over.add(index)
                self._go_on()  # once: it may have ended after this looked, and no one tells again
            elif index not in self._quiet and not source.instance.ended:
                self._quiet.add(index)
                source.process.follow(source.instance.name, source.last, self, index)
        if not self.gone:
            await wake

    def grown(self, index: int) -> None:
        """There is more of a log, or there may be."""
        self._quiet.discard(index)
        self._go_on()

    def _go_on(self) -> None:
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.callback(None)

    def _expect_nothing(self) -> None:
        for source in self.sources:
            source.end()
        for index in self._quiet:
            source = self.sources[index]
            source.process.unfollow(source.instance.name, self, index)

    def stopProducing(self) -> None:
        """The consumer is gone."""
        super().stopProducing()
        self._go_on()


def timestamp(nanoseconds: int) -> str:
    """A time as RFC 3339 has it, in UTC."""
    seconds, fraction = divmod(nanoseconds, SECOND)
    whole = time.gmtime(min(seconds, LAST_SECOND))
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{fraction:09}Z"


def read_moment(name: str, text: str, now: int | None = None) -> int:
    """The nanoseconds since 1970 that a text means: a moment (RFC 3339), or so long ago.

    Raises InvalidData.
    """
    if DURATION.fullmatch(text):
        parts = re.findall("([0-9]+)([smhd])", text)
        now = time.time_ns() if now is None else now
        return max(0, now - sum(int(number) * UNITS[unit] for number, unit in parts))
    match = MOMENT.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, zone = match.groups()
        zone = (zone or "+00:00").replace(" ", "+")
        whole = int(datetime.fromisoformat(f"{day}T{clock}{zone}").timestamp())
    except (ValueError, OverflowError):
        raise InvalidData(
            f"{name} must be a time such as 2026-01-31T12:00:00Z, or a duration such as 90s, 10m "
            f"or 2h, not {shown(text)}"
        ) from None
    return max(0, whole * SECOND + int((fraction or "0").ljust(9, "0")))
