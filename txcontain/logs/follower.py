"""Sends the journal's events to whoever follows them."""

from __future__ import annotations

from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from txcontain.host.files import to_json
from txcontain.later import pause
from txcontain.logs.journal import Event, Journal
from txcontain.logs.push import Stream

SOME = 200  # events that are sent at once
MOST_WAITING = 10_000  # events kept for a follower that takes none


@define(eq=False)
class Follower(Stream):
    """Sends the events after a number: those that are there, and then each as it happens."""

    journal: Journal = field(kw_only=True)
    reactor: Any = field(kw_only=True)
    last: int = field(kw_only=True)  # the number of the last event that was sent
    _waiting: list[Event] = field(factory=list)
    _wake: Deferred[None] | None = None

    async def send(self, follow: bool) -> None:
        """Send what is there; where it is followed, go on until the consumer is gone."""
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
            await pause(self.reactor, 0)  # others get their turn

    async def _write(self, events: list[Event]) -> None:
        new = [event for event in events if event["seq"] > self.last]
        if new and await self.free():
            self.consumer.write(b"".join(map(to_json, new)))
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
        if len(self._waiting) > MOST_WAITING:  # it takes none; it can ask again from its last
            self.consumer.abortConnection()  # to lose it would wait until all is read
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
