"""Sends logs to whoever asks: the last lines, since a time, what follows; several merged into one.

``logd.py`` writes the files, and ``segments.py`` reads them. They are opened for each read: so to
follow a quiet log takes no descriptor, no thread and no time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from txcontain.later import Timer
from txcontain.logs.push import PushProducer
from txcontain.logs.segments import FOREVER, LONGEST_READ, Lines, Piece
from txcontain.logs.source import Source
from txcontain.logs.times import SECOND, timestamp

MOST_READ, LEAST_READ = 4 << 20, 4096  # bytes read at once of all logs together; of each log


@define(eq=False)
class Reader(PushProducer):
    """Sends the logs of one or more instances to a consumer, as fast as it takes them."""

    reactor: Any = field(kw_only=True)
    sources: Sequence[Source] = field(kw_only=True)
    timestamps: bool = field(default=False, kw_only=True)
    names: bool = field(default=False, kw_only=True)  # whether each line begins with its instance
    _lines: list[Lines] = field(init=False)
    _quiet: set[int] = field(factory=set)  # indexes of the sources we wait for
    _over: set[int] = field(factory=set)  # indexes of those whose end was noticed
    _wake: Deferred[None] | None = None

    def __attrs_post_init__(self) -> None:
        self._lines = [Lines() for _ in self.sources]

    async def send(self, lines: int | None, follow: bool) -> None:
        """Send the last ``lines`` lines of each log (None: all), then what follows."""
        at_last = Timer(self.reactor, self._go_on)
        for source in self.sources:
            source.client.readers[source.instance.name].add(source)
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
        """Whether nothing can follow."""
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
        """Send the lines of all logs by their times; if ``over``, unfinished lines too."""
        queues: list[deque[Piece]] = [deque() for _ in self.sources]
        heads: list[tuple[int, int]] = []  # the time of each source's next line, and its index

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
        """Wait until a log has grown or ended, or the consumer is gone."""
        wake = self._wake = Deferred()
        for index, source in enumerate(self.sources):
            if source.instance.ended and index not in self._over:
                self._over.add(index)
                self._go_on()  # once: it may have ended since we last looked
            elif index not in self._quiet and not source.instance.ended:
                self._quiet.add(index)
                source.client.follow(source.instance.name, source.last, self, index)
        if not self.gone:
            await wake

    def grown(self, index: int) -> None:
        """A log may have grown."""
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
            source.client.unfollow(source.instance.name, self, index)

    def stopProducing(self) -> None:
        """The consumer is gone."""
        super().stopProducing()
        self._go_on()
