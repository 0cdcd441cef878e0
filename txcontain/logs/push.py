"""Long answers, sent no faster than the client takes them."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@define(eq=False)
class Pausable:
    """Waits while a consumer has enough: whoever writes awaits ``free`` before."""

    gone: bool = field(default=False, init=False)  # whether the consumer will never take more
    _paused: Deferred[None] | None = field(default=None, init=False)

    async def free(self) -> bool:
        """Wait until the consumer takes more; returns False if it is gone."""
        if self._paused is not None:
            await self._paused
        return not self.gone

    def pauseProducing(self) -> None:
        """The consumer has enough for now."""
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        """The consumer takes more."""
        if self._paused is not None:
            paused, self._paused = self._paused, None
            paused.callback(None)

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.gone = True
        self.resumeProducing()


@implementer(IPushProducer)
@define(eq=False)
class PushProducer(Pausable):
    """Sends something to ``consumer``, an IConsumer. A subclass awaits ``free``, then writes."""

    consumer: Any
    _wake: Deferred[None] | None = None

    def begin(self) -> None:
        """Register with the consumer, which then says when it has enough."""
        self.consumer.registerProducer(self, True)

    def finish(self) -> None:
        """Everything is sent."""
        if not self.gone:
            self.consumer.unregisterProducer()

    def news(self) -> Deferred[None]:
        """Fires when ``go_on`` is called next, or the consumer is gone."""
        if self.gone:
            return succeed(None)
        self._wake = Deferred()
        return self._wake

    def go_on(self) -> None:
        """There is more to send."""
        if self._wake is not None:
            wake, self._wake = self._wake, None
            wake.callback(None)

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.consumer.unregisterProducer()
        super().stopProducing()
        self.go_on()
