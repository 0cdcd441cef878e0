"""Sends logs to whoever asks: the last lines, since a time, what follows; several merged into one.

``logd.py`` writes the files, and ``segments.py`` reads them. They are opened for each read: so to
follow a quiet log takes no descriptor, no thread and no time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from attrs import define, field

from txcontain.later import Timer
from txcontain.logs.client import LogClient
from txcontain.logs.push import PushProducer
from txcontain.logs.segments import EVERYTHING, FOREVER, LONGEST_READ, Piece, Wanted
from txcontain.logs.source import Source, Writer
from txcontain.logs.times import SECOND, timestamp

MOST_READ, LEAST_READ = 4 << 20, 4096  # bytes read at once of all logs together; of each log


@define(eq=False)
class Reader(PushProducer):
    """Sends the logs of one or more instances to a consumer, as fast as it takes them."""

    client: LogClient = field(kw_only=True)
    instances: Sequence[Writer] = field(kw_only=True)
    wanted: Wanted = field(default=EVERYTHING, kw_only=True)
    timestamps: bool = field(default=False, kw_only=True)
    names: bool = field(default=False, kw_only=True)  # whether each line begins with its instance
    # It is here while it follows, so that it is told of new instances; None: it follows no others.
    all_readers: set[Reader] | None = field(default=None, kw_only=True)
    _sources: list[Source] = field(factory=list)  # of what is not over yet

    async def send(self, lines: int | None, follow: bool) -> None:
        """Send the last ``lines`` lines of each log (None: all), then what follows."""
        at_last = Timer(self.client.reactor, self.go_on)
        for instance in self.instances:
            self.add(instance)
        if follow and self.all_readers is not None:
            self.all_readers.add(self)
        self.begin()
        try:
            for source in list(self._sources):
                await source.settle()
                await source.look()
                if lines is not None:
                    await source.go_back(lines, self.free)
            if follow and self.wanted.until < FOREVER:
                at_last.after(max(0, self.wanted.until - time.time_ns()) / SECOND)
            await self._send(follow)
        finally:
            at_last.cancel()
            if self.all_readers is not None:
                self.all_readers.discard(self)
            for source in self._sources:
                source.end()
            self.finish()

    def add(self, instance: Writer) -> None:
        """Send the log of this instance too, from its beginning."""
        if all(source.instance is not instance for source in self._sources):
            source = Source(self.client, instance, self.wanted, self.go_on)
            source.begin()
            self._sources.append(source)
            self.go_on()

    async def _send(self, follow: bool) -> None:
        while await self.free():
            over = not follow or self.wanted.until <= time.time_ns()
            await self._send_what_is_there(over)
            self._drop_those_that_are_over()
            if over or not (self._sources or self.all_readers is not None):
                break
            await self._something_new()
            for source in list(self._sources):
                await source.look()

    async def _send_what_is_there(self, over: bool) -> None:
        if self.timestamps or self.names:
            await self._merge(list(self._sources), over)
            return
        for source in self._sources:
            while (pieces := await source.read()) and await self.free():
                self.consumer.write(b"".join(piece.data for piece in pieces))

    def _drop_those_that_are_over(self) -> None:
        for source in self._sources:
            if source.is_over:
                source.end()
        self._sources = [source for source in self._sources if not source.is_over]

    # -- lines, by their times -------------------------------------------------

    async def _merge(self, sources: Sequence[Source], over: bool) -> None:
        """Send the lines of all logs by their times; if ``over``, unfinished lines too."""
        most = min(LONGEST_READ, max(LEAST_READ, MOST_READ // max(1, len(sources))))
        queues: list[deque[Piece]] = [deque() for _ in sources]
        heads: list[tuple[int, int]] = []  # the time of each source's next line, and its index

        async def refill(index: int) -> None:
            source, queue = sources[index], queues[index]
            while not queue and (pieces := await source.read(most)):
                queue.extend(source.lines.of(pieces))
            if not queue and (over or source.is_over):
                queue.extend(source.lines.rest())
            if queue:
                heappush(heads, (queue[0].time, index))

        for index in range(len(sources)):
            await refill(index)
        ready, length = [], 0
        while heads:
            _, index = heappop(heads)
            ready.append(self._line(sources[index], queues[index].popleft()))
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

    def _line(self, source: Source, line: Piece) -> bytes:
        name = f"{source.instance.name} | " if self.names else ""
        when = f"{timestamp(line.time)} " if self.timestamps else ""
        return f"{name}{when}".encode() + line.data

    # -- waiting ---------------------------------------------------------------

    async def _something_new(self) -> None:
        """Wait until a log has grown or ended, there is a new one, or the consumer is gone."""
        news = self.news()
        for source in self._sources:
            source.wait()
        await news
