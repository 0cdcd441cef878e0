"""A request to Docker whose connection becomes the streams of a process.

docs.docker.com/reference/api/engine: "Attach to a container", hijacking. What the HTTP client of
Twisted does not know, h11 does: it reads the head of the answer, and bounds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import h11
from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import INegotiated, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.engine import manager as host
from txcontain.errors import Error, Unavailable
from txcontain.later import bounded
from txcontain.runtime.exits import Exit
from txcontain.runtime.sessions import JOIN_WITHIN
from txcontain.swarm.client import LONGEST_COMPLAINT, Manager, NoAnswer, refusal, why
from txcontain.swarm.places import Place

LONGEST_REFUSAL = 64 * LONGEST_COMPLAINT  # bytes read of an answer that refuses
LONGEST_EARLY = 1 << 20  # bytes kept until it is resumed: far more than is read at a time


class Hijacked(Protocol):
    """The connection; what comes waits until it is resumed."""

    transport: Any

    def __init__(self, path: str, document: Any, doing: str) -> None:
        """Ask POST of this path, with its version; ``doing`` says what for, if it is refused."""
        self.taken: Deferred[None] = Deferred()  # the streams begin; fails with Refused, NoAnswer
        self.gone: Deferred[None] = Deferred()  # the connection has ended
        self.heard: Callable[[bytes], object] = bytes  # told what comes
        self.doing = doing
        self._early: bytes | None = b""  # what came before it was first resumed
        self._http: h11.Connection | None = h11.Connection(h11.CLIENT)
        self._body, self._status = b"", 0  # of an answer that refuses
        # Without a document there is nothing: what Docker does not read of it would be typed.
        content = b"" if document is None else json.dumps(document).encode()
        headers = [
            ("Host", "docker"),
            ("Connection", "Upgrade"),
            ("Upgrade", "tcp"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
        ]
        self._asked = b"".join(
            self._http.send(event) or b""
            for event in (
                h11.Request(method="POST", target=path, headers=headers),
                h11.Data(data=content),
                h11.EndOfMessage(),
            )
        )

    def connectionMade(self) -> None:
        """Ask."""
        self.transport.write(self._asked)

    def dataReceived(self, data: bytes) -> None:
        """Some of the answer, or of the streams."""
        if self._http is None:
            self._tell(data)
            return
        self._http.receive_data(data)
        try:
            self._read_answer(self._http)
        except h11.RemoteProtocolError as error:
            self._refuse(NoAnswer(f"its answer is no HTTP: {error}"))

    def _read_answer(self, http: h11.Connection) -> None:
        while (event := http.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                self._take(http.trailing_data[0])
                return
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += event.data
            if isinstance(event, h11.EndOfMessage) or len(self._body) > LONGEST_REFUSAL:
                self._refuse(refusal(self._status, self.doing, self._body))
                return

    def _take(self, early: bytes) -> None:
        self._http, self._early = None, early
        self.transport.pauseProducing()
        self.taken.callback(None)

    def _tell(self, data: bytes) -> None:
        if self._early is None:
            self.heard(data)
        elif len(self._early) + len(data) <= LONGEST_EARLY:
            self._early += data  # over TLS, all that was read with the answer comes though paused
        else:
            self.abort()

    def _refuse(self, error: Exception) -> None:
        if not self.taken.called:
            self.taken.errback(error)
        self.abort()

    def resume(self) -> None:
        """Tell what comes."""
        self.transport.resumeProducing()
        early, self._early = self._early, None
        if early:
            self.heard(early)  # which may pause it

    def abort(self) -> None:
        """Cut the connection, if that is not done: Twisted's can't be aborted again over TLS."""
        if not self.gone.called:
            self.transport.abortConnection()

    def close_input(self) -> None:
        """Send no more; what comes is still told."""
        if self.gone.called:
            return
        self.transport.unregisterProducer()
        if INegotiated.providedBy(self.transport):
            self.transport.loseConnection()  # sends close_notify, and waits for the other side's
        else:
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The end."""
        self.gone.callback(None)
        if not self.taken.called:
            self.taken.errback(NoAnswer("it has closed the connection without an answer"))


@implementer(IPushProducer)
@define(eq=False)
class Streamed:
    """What each Stdio has and does whose streams are such a connection."""

    place: Place
    manager: host.Manager  # of this host
    streams: Hijacked
    lost: Callable[[Any], object] = lambda stdio: None  # told that it is over
    ended: Deferred[Exit] = field(factory=Deferred)
    heard: Callable[[int, bytes], None] | None = None
    paused: bool = True

    @property
    def reactor(self) -> Any:
        """The manager's."""
        return self.manager.reactor

    def write(self, data: bytes) -> None:
        """Let the process read this."""
        self.streams.transport.write(data)

    def register_input(self, producer: Any) -> None:
        """Have a push producer pause while the process does not read."""
        self.streams.transport.registerProducer(producer, True)

    def pauseProducing(self) -> None:
        """Read no output for now."""
        self.paused = True
        self.streams.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self.paused = False
        self.streams.resume()

    def tell(self, stream: int, data: bytes) -> None:
        """Some output has come."""
        if self.heard is not None and data:
            self.heard(stream, data)


async def take_over(manager: Manager, path: str, document: Any, doing: str) -> Hijacked:
    """Ask POST of this path of a manager, whose connection becomes streams.

    Raises Refused, Unavailable: then Docker may have done it all the same.
    """

    async def connect() -> Hijacked:
        asked = Hijacked(await manager.above() + path, document, doing)
        streams: Hijacked = await connectProtocol(manager.endpoint, asked)
        try:
            await streams.taken
        except BaseException:  # also if it is cancelled
            streams.abort()
            raise
        return streams

    try:
        return await bounded(manager.reactor, JOIN_WITHIN, connect())
    except Error:
        raise
    except TimeoutError as error:
        said = f"{manager.address} does not answer within {JOIN_WITHIN:g} seconds"
        raise Unavailable(doing, said, "try again") from error
    except Exception as error:  # whatever the network or TLS may raise
        raise Unavailable(doing, f"{manager.address}: {why(error)}", "try again") from error
