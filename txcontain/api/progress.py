"""Sends a client what happens to a stack, until that is as wished, or can't be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txcontain.host.files import to_json
from txcontain.logs.follower import EventProducer
from txcontain.logs.journal import Event


@define(eq=False)
class Progress(EventProducer):
    """Sends lines of JSON: what is to be done, each event of the stack, how it has ended."""

    end: Callable[[], None] = lambda: None  # listens no more
    _outcome: list[str] | None = None  # what is not as wished, once that is known

    def listen(self) -> None:
        """Keep what happens from now on."""
        self.end = self.journal.listen(self._happened)

    async def send(self, stack: str, first: Any, settled: Deferred[list[str]]) -> None:
        """Send what is there, and go on until ``settled`` has fired, or the client is gone."""
        self.begin()
        settled.addCallbacks(self._settled, self._unsettled)
        try:
            if await self.free():
                self.consumer.write(to_json(first))
            while await self._something_happened():
                lines = [to_json(one) for one in self.take() if one.get("stack") == stack]
                if await self.free():
                    self.consumer.write(b"".join(lines))
            if self._outcome is not None and await self.free():
                outcome = "failed" if self._outcome else "done"
                self.consumer.write(to_json({"outcome": outcome, "wrong": self._outcome}))
        finally:
            self.end()
            settled.cancel()
            self.finish()

    def _settled(self, wrong: list[str]) -> None:
        """It has: but first comes what the journal has not told yet."""
        self.journal.write().addCallback(lambda _: self._be_over(wrong))

    def _unsettled(self, failure: Failure) -> None:
        """Nobody knows how it ends; or the client is gone."""
        if not failure.check(CancelledError):
            self._settled([str(failure.value)])

    def _be_over(self, wrong: list[str]) -> None:
        self._outcome = wrong
        self.go_on()

    async def _something_happened(self) -> bool:
        while not self.waiting and self._outcome is None and not self.gone:
            await self.news()
        return bool(self.waiting)

    def _happened(self, event: Event) -> None:
        if "stack" in event:
            self.happened(event)
