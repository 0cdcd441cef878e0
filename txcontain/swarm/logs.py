"""What an instance has written, as Docker sends it: frames, each with the time and a line."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.web.client import ResponseDone

from txcontain.engine.interface import LogsAsked
from txcontain.errors import InvalidData, MachineAtFault
from txcontain.later import Timer
from txcontain.logs.push import PushProducer
from txcontain.logs.segments import FOREVER
from txcontain.logs.times import SECOND, read_moment
from txcontain.swarm.frames import Frames, Lines

SILENT_FOR = 10.0  # seconds, if no more is to come: a node of a swarm may have gone


def query_of(asked: LogsAsked) -> dict[str, str]:
    """The parameters of GET /services/ID/logs."""
    since = asked.wanted.since
    return {
        "stdout": str(0 in asked.wanted.streams).lower(),
        "stderr": str(1 in asked.wanted.streams).lower(),
        "follow": str(asked.follow).lower(),
        "timestamps": "true",
        **({} if asked.tail is None else {"tail": str(asked.tail)}),
        **({"since": f"{since // SECOND}.{since % SECOND:09}"} if since else {}),
    }


def shown(frame: bytes, asked: LogsAsked) -> bytes:
    """What is sent of a frame; nothing if it is too late."""
    time, _, line = frame.partition(b" ")
    if asked.wanted.until < FOREVER and read_moment("a time", time.decode()) > asked.wanted.until:
        return b""
    return frame if asked.timestamps else line


@define(eq=False)
class Delivery(PushProducer):
    """Sends a log to a consumer, no faster than that takes it."""

    asked: LogsAsked = field(kw_only=True)
    reactor: Any = field(kw_only=True)
    over: Deferred[None] = field(factory=Deferred)
    cut: Frames | Lines = field(factory=Frames, kw_only=True)  # how it comes
    _transport: Any = None  # of the connection to Docker
    _silence: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._silence = Timer(self.reactor, self._hang_up)

    def connected(self, transport: Any) -> None:
        """The answer begins."""
        self._transport = transport
        self.begin()
        self._expect_more()

    def received(self, data: bytes) -> None:
        """Some of it has come."""
        self._expect_more()
        try:
            self.consumer.write(b"".join(shown(one, self.asked) for _, one in self.cut.feed(data)))
        except InvalidData:
            self._hang_up()

    def ended(self, reason: Any) -> None:
        """It is over, or cut off."""
        self._silence.cancel()
        self.finish()
        if reason.check(ResponseDone):
            self.over.callback(None)
        else:
            self.over.errback(MachineAtFault("sending a log", "Docker did not send all of it"))

    def pauseProducing(self) -> None:
        """The consumer has enough for now."""
        self._silence.cancel()
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The consumer takes more."""
        if not self.gone:
            self._expect_more()
            self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        super().stopProducing()
        self._hang_up()

    def _expect_more(self) -> None:
        if not self.asked.follow:
            self._silence.after(SILENT_FOR)

    def _hang_up(self) -> None:
        self._transport.loseConnection()


class Body(Protocol):
    """The body of an answer."""

    transport: Any

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery

    def connectionMade(self) -> None:
        """It begins."""
        self.delivery.connected(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Some of it."""
        self.delivery.received(data)

    def connectionLost(self, reason: Any = None) -> None:
        """Its end."""
        self.delivery.ended(reason)


async def deliver(
    response: Any, asked: LogsAsked, consumer: Any, reactor: Any, *, of_terminal: bool
) -> None:
    """Send the log in an answer to a consumer, to its end. Raises MachineAtFault."""
    cut = Lines() if of_terminal else Frames()
    delivery = Delivery(consumer, asked=asked, reactor=reactor, cut=cut)
    response.deliverBody(Body(delivery))
    await delivery.over
