"""Sends the journal's events to a client, and goes on as they happen."""

from __future__ import annotations

from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from txcontain.host.files import to_json
from txcontain.later import pause
from txcontain.logs.journal import Event, Journal
from txcontain.logs.push import PushProducer

SOME = 200  # events sent at once
MOST_WAITING = 10_000  # events kept for a client that reads none


@define(eq=False)
class Follower(PushProducer):
    """Sends the events after a number or time: first those on disk, then each as it happens."""

    journal: Journal = field(kw_only=True)
    reactor: Any = field(kw_only=True)
    last: int = field(kw_only=True)  # the number of the last event sent, or passed over
    earliest: float = field(default=0.0, kw_only=True)  # unix time: older ones are passed over
    _waiting: list[Event] = field(factory=list)
    _wake: Deferred[None] | None = None

    async def send(self, follow: bool) -> None:
        """Send what is there; if ``follow``, go on until the consumer is gone."""
        self.begin()
        end = self.journal.listen(self._happened)
        try:
            await self._replay()
            while follow and await self._something_happened():
                waiting, self._waiting = self._waiting, []
                await self._write(waiting)
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
        if not self._waiting and not self.gone:
            self._wake = Deferred()
            await self._wake
        return not self.gone

    def _happened(self, event: Event) -> None:
        if self.gone:
            return
        self._waiting.append(event)
        if (
            len(self._waiting) > MOST_WAITING
        ):  # it reads none; it can ask again, from its last event on
            self.consumer.abortConnection()  # loseConnection would wait until all is read
            self.stopProducing()
        self._go_on()

    def _go_on(self) -> None:
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.callback(None)

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self._waiting.clear()
        super().stopProducing()
        self._go_on()
