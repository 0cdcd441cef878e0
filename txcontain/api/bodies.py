"""Bodies of requests that are not kept, but handed on as they come.

A resource that takes one is begun as soon as the headers are there, and so is refused before the
body is sent. The client is held up while what it sends is not taken.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


class Nothing:
    """A transport over which nothing comes."""

    def pauseProducing(self) -> None:
        """Send no more for now."""

    def resumeProducing(self) -> None:
        """Go on."""


@implementer(IPushProducer)
class Body:
    """The body of one request."""

    def __init__(self, transport: Any = None) -> None:
        """:param transport: over which it comes; None if it is here already"""
        self._transport = transport or Nothing()
        self._kept: list[bytes] = []  # until there is a consumer
        self._consumer: Any = None
        self._wanted = 0  # bytes that someone waits to see
        self._seen: Deferred[bytes] | None = None
        self._delivered: Deferred[None] | None = None
        self._ended = self._lost = False
        self.unwanted = False  # whether the rest is thrown away
        self._transport.pauseProducing()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._ended or self._lost

    def peek(self, length: int) -> Deferred[bytes]:
        """The first bytes, which are delivered too; fewer if there are no more.

        Fails with ConnectionLost if the client hangs up.
        """
        self._wanted, self._seen = length, Deferred()
        seen = self._seen
        self._show()
        if self._seen is not None:
            self._transport.resumeProducing()
        return seen

    def _show(self) -> None:
        start = b"".join(self._kept)
        if self._seen is None or not (len(start) >= self._wanted or self.is_over):
            return
        seen, self._seen = self._seen, None
        if self._lost:
            seen.errback(ConnectionLost())
        else:
            if not self._ended:
                self._transport.pauseProducing()
            seen.callback(start[: self._wanted])

    def deliver(self, consumer: Any) -> Deferred[None]:
        """Hand on everything; fires when it has ended, and fails if the client has hung up."""
        self._consumer, self._delivered = consumer, Deferred()
        delivered = self._delivered
        consumer.registerProducer(self, True)
        kept, self._kept = self._kept, []
        for data in kept:
            consumer.write(data)
        self._finish()
        if self._consumer is not None:
            self._transport.resumeProducing()
        return delivered

    def received(self, data: bytes) -> None:
        """A part of it has come."""
        if self.unwanted:
            return
        if self._consumer is not None:
            self._consumer.write(data)
        else:
            self._kept.append(data)
            self._show()

    def all_received(self) -> None:
        """It has come as a whole."""
        self._ended = True
        self._show()
        self._finish()

    def lost(self, _: object = None) -> None:
        """The client has hung up."""
        self._lost = not self._ended
        self._show()
        self._finish()

    def discard(self) -> None:
        """No one wants the rest: the request has been answered."""
        self.unwanted = True
        self._kept = []
        if not self.is_over:
            self._transport.resumeProducing()

    def _finish(self) -> None:
        if self._consumer is None or not self.is_over:
            return
        consumer, self._consumer = self._consumer, None
        consumer.unregisterProducer()
        delivered, self._delivered = self._delivered, None
        assert delivered is not None
        if self._lost:
            delivered.errback(ConnectionLost())
        else:
            delivered.callback(None)

    def pauseProducing(self) -> None:
        """The consumer has enough for now."""
        if not self.is_over:
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The consumer takes more."""
        if not self.is_over:
            self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self._consumer = None
        self.discard()
