"""Sends events to a client, as they happen."""

from __future__ import annotations

from itertools import islice
from typing import Any

from attrs import define, field

from txcontain.host.files import to_json
from txcontain.later import pause
from txcontain.logs.journal import Event, Journal
from txcontain.logs.push import PushProducer

SOME = 200  # events sent at once
MOST_WAITING = 10_000  # events kept for a client that reads none


@define(eq=False)
class EventProducer(PushProducer):
    """Has events wait until they can be sent."""

    journal: Journal = field(kw_only=True)
    waiting: list[Event] = field(factory=list, init=False)

    def take(self) -> list[Event]:
        """The events that have waited until now."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def happened(self, event: Event) -> None:
        """An event is to be sent; a client that reads none is hung up on."""
        if self.gone:
            return
        self.waiting.append(event)
        if len(self.waiting) > MOST_WAITING:  # it can ask again, from its last event on
            self.consumer.abortConnection()  # loseConnection would wait until all is read
            self.stopProducing()
        self.go_on()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.waiting.clear()
        super().stopProducing()


@define(eq=False)
class Follower(EventProducer):
    """Sends the events after a number or time: first those on disk, then each as it happens."""

    reactor: Any = field(kw_only=True)
    last: int = field(kw_only=True)  # the number of the last event sent, or passed over
    earliest: float = field(default=0.0, kw_only=True)  # unix time: older ones are passed over

    async def send(self, follow: bool) -> None:
        """Send what is there; if ``follow``, go on until the consumer is gone."""
        self.begin()
        end = self.journal.listen(self.happened)
        try:
            await self._replay()
            while follow and await self._something_happened():
                await self._write(self.take())
        finally:
            end()
            self.finish()

    async def _replay(self) -> None:
        await self.journal.write()
        events = self.journal.since(self.last)
        while not self.gone and (some := list(islice(events, SOME))):
            await self._write(some)
            await pause(self.reactor, 0)  # others get a turn

    async def _write(self, events: list[Event]) -> None:
        new = [event for event in events if event["seq"] > self.last]
        if new and await self.free():
            late = [event for event in new if event["time"] >= self.earliest]
            self.consumer.write(b"".join(map(to_json, late)))
            self.last = new[-1]["seq"]

    async def _something_happened(self) -> bool:
        if not self.waiting:
            await self.news()
        return not self.gone
