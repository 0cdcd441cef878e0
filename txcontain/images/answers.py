"""Answers over HTTP of servers that may be hostile: headers without an end are cut."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.client import HTTP11ClientProtocol, HTTPConnectionPool, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

LONGEST, LONGEST_HEADERS = 1 << 14, 1 << 17  # bytes: of a header that is read; of all of them


class Endless(Exception):
    """There are too many headers; the text says so."""


class Client(HTTP11ClientProtocol):
    """A connection, which is cut at headers without an end: Twisted's would keep them all."""

    _left: int | None = None  # bytes, while the headers of an answer are awaited

    def request(self, request: Any) -> Deferred[Any]:
        """Send a request. Fails with ResponseFailed, too, if too many headers come."""
        self._left = LONGEST_HEADERS
        asked: Deferred[Any] = super().request(request)
        return asked.addBoth(self._answered)

    def _answered(self, outcome: Any) -> Any:
        left, self._left = self._left, None
        if left is not None and left < 0:
            why = f"it sends more than {LONGEST_HEADERS >> 10} KiB of headers"
            raise ResponseFailed([Failure(Endless(why))])
        return outcome

    def dataReceived(self, data: bytes) -> None:
        """Take what comes."""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                transport: Any = self.transport
                transport.abortConnection()
                return
        super().dataReceived(data)


@implementer(IAgent)
@frozen
class AsSent:
    """An agent for what is known by its digest: a body comes as it was sent.

    treq would decompress one with a Content-Encoding, which some stores give a compressed blob.
    """

    agent: Any  # an IAgent

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None
    ) -> Any:
        """Send a request; fires with the answer."""
        wanted = headers.copy() if headers else Headers()
        wanted.setRawHeaders("Accept-Encoding", ["identity"])
        asked = self.agent.request(method, uri, wanted, bodyProducer)
        return asked.addCallback(_without_encoding)


def _without_encoding(response: Any) -> Any:
    response.headers.removeHeader("Content-Encoding")
    return response


def make_pool(reactor: Any) -> Any:
    """Connections that are Clients."""
    pool: Any = HTTPConnectionPool(reactor)
    pool._factory = lambda quiescent, _: Factory.forProtocol(partial(Client, quiescent))
    return pool


def header(response: Any, name: str) -> str:
    """The beginning of a header of an answer, which may hold any bytes; empty if it has none."""
    values = response.headers.getRawHeaders(name.encode()) or [b""]
    return str(values[0][:LONGEST], errors="replace")


def drop(response: Any) -> None:
    """Read nothing of an answer: it may have no end."""
    response.deliverBody(HangUp())


class HangUp(Protocol):
    """Hangs up."""

    def connectionMade(self) -> None:
        """Hang up."""
        transport: Any = self.transport
        transport.loseConnection()
