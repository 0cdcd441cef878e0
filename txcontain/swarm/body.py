"""The body of an answer of the Engine API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss


class Body(Protocol):
    """Tells what comes; if no one waits for its end any more, the connection is closed."""

    transport: Any

    def __init__(self, received: Callable[[bytes], object]) -> None:
        self.received = received
        self.over: Deferred[None] = Deferred(lambda _: self.transport.loseConnection())

    def dataReceived(self, data: bytes) -> None:
        """Some of it."""
        if self.over.called:
            return
        try:
            self.received(data)
        except Exception:
            self.transport.loseConnection()
            self.over.errback()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Its end."""
        if self.over.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.over.callback(None)
        else:
            self.over.errback(reason)


def collect(response: Any, received: Callable[[bytes], object]) -> Deferred[None]:
    """Fires when all of it was received; to cancel this closes the connection, unlike treq's.

    It fails with what ``received`` raises, and with what the network does.
    """
    if response.length == 0:
        return succeed(None)
    body = Body(received)
    response.deliverBody(body)
    return body.over
