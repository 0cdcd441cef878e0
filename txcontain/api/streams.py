"""A command's streams over a WebSocket (RFC 6455), as Kubernetes has them: v5.channel.k8s.io.

The first byte of a message is a channel; what follows goes through that channel. wsproto reads and
writes the frames. Nothing is kept longer than it takes to pass it on: who does not read makes the
other side wait.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from attrs import asdict, define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request
from wsproto.connection import Connection, ConnectionType
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.handshake import H11Handshake
from wsproto.utilities import ProtocolError
from zope.interface import implementer

from txcontain.api.verbs import HUNG_UP
from txcontain.container.document import read_object
from txcontain.container.exec_plan import read_size
from txcontain.engine.interface import Stdio
from txcontain.errors import InvalidData
from txcontain.host.sockets import has_hung_up
from txcontain.later import Timer
from txcontain.runtime.exits import Exit

SUBPROTOCOL = "v5.channel.k8s.io"
STDIN, STATUS, RESIZE, CLOSE = 0, 3, 4, 255  # channels; 1 and 2 are the streams of output
LONGEST_CONTROL = 256  # bytes of a message that is no input
# Close codes (RFC 6455, 7.4.1).
FINE, NOT_UNDERSTOOD, TOO_LONG = 1000, 1003, 1009
LOOK_AFTER = 1.0  # seconds between two looks at a connection that is not read
# Seconds until a silent client is looked for, between two looks; how many looks (tcp(7)).
KEEP_ALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 20, socket.TCP_KEEPCNT: 3}


def shake_hands(request: Request) -> tuple[bytes, Connection]:
    """The answer to a request for a WebSocket, and the connection that it makes.

    Raises InvalidData.
    """
    handshake = H11Handshake(ConnectionType.SERVER)
    headers = [(n, v) for n, values in request.requestHeaders.getAllRawHeaders() for v in values]
    try:
        handshake.initiate_upgrade_connection(headers, request.path)
        answer = handshake.send(AcceptConnection(subprotocol=SUBPROTOCOL))
    except ProtocolError as error:
        raise InvalidData(
            f"this is a WebSocket (RFC 6455) with the subprotocol {SUBPROTOCOL}",
            f"the request does not ask for that: {error}",
        ) from error
    assert handshake.connection is not None
    return answer, handshake.connection


@implementer(IPushProducer)
@define(eq=False)
class Streams:
    """The manager's end of the connection; as a producer, it is the client's input."""

    session: Stdio
    connection: Connection
    hang_up: Callable[[], None]
    transport: Any = None
    closed: Deferred[None] = field(factory=Deferred)  # fires when the connection has ended
    _look: Timer = field(init=False)  # for a client that hangs up while nothing is read of it
    _channel: int | None = None  # of the message that is being received
    _control: bytes = b""  # what has come of it, if it is no input

    def __attrs_post_init__(self) -> None:
        self._look = Timer(self.session.reactor, self._look_at_client)

    def makeConnection(self, transport: Any) -> None:
        """The handshake is over: let both sides go."""
        self.transport = transport
        _keep_alive(transport)
        self.session.heard = self.send
        self.session.register_input(self)
        self.session.ended.addCallback(self._say_how)
        self.session.resumeProducing()

    # -- to the client -----------------------------------------------------------

    def send(self, channel: int, data: bytes) -> None:
        """Send something through a channel."""
        self._write(BytesMessage(bytes([channel]) + data))

    def _say_how(self, how: Exit) -> None:
        if self.closed.called:
            return
        self.send(STATUS, json.dumps(status_of(how)).encode())
        self._close(FINE)

    def _close(self, code: int) -> None:
        self._write(CloseConnection(code))
        self.hang_up()

    def _write(self, event: Any) -> None:
        with contextlib.suppress(ProtocolError):  # the client has closed it already
            self.transport.write(self.connection.send(event))

    # -- from the client -----------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Some bytes of frames have come."""
        with contextlib.suppress(ProtocolError):  # they come after the end
            self.connection.receive_data(data)
            for event in self.connection.events():
                self._handle(event)

    def _handle(self, event: Any) -> None:
        if isinstance(event, BytesMessage):
            self._receive(bytes(event.data), event.message_finished)
        elif isinstance(event, CloseConnection):
            self._write(event.response())
            self.hang_up()
        elif isinstance(event, Ping) and not self.session.paused:  # else it reads nothing anyway
            self._write(event.response())
        elif isinstance(event, TextMessage):
            self._close(NOT_UNDERSTOOD)

    def _receive(self, data: bytes, is_last: bool) -> None:
        if self._channel is None and data:
            self._channel, data = data[0], data[1:]
        if self._channel == STDIN:
            self.session.write(data)
        else:
            self._control += data
        if len(self._control) > LONGEST_CONTROL:
            self._close(TOO_LONG)
        elif is_last:
            channel, control = self._channel, self._control
            self._channel, self._control = None, b""
            self._obey(channel, control)

    def _obey(self, channel: int | None, control: bytes) -> None:
        if channel == CLOSE and control == bytes([STDIN]):
            self.session.close_input()
        elif channel == RESIZE:
            try:
                size = read_object(control)
                self.session.resize(read_size(size.get("Height"), size.get("Width")))
            except InvalidData:
                self._close(NOT_UNDERSTOOD)
        elif channel != STDIN:
            self._close(NOT_UNDERSTOOD)

    def connectionLost(self, reason: Failure) -> None:
        """The client has hung up, or we have."""
        self._look.cancel()
        self.session.end(HUNG_UP)
        self.closed.callback(None)

    def pauseProducing(self) -> None:
        """The command does not read its input: take no more from the client."""
        self.transport.pauseProducing()
        self._look.after(LOOK_AFTER)

    def _look_at_client(self) -> None:
        """Hang up if it has done so: its input is of no use then, and the reactor does not look."""
        if has_hung_up(self.transport.fileno()):
            self.transport.abortConnection()
        else:
            self._look.after(LOOK_AFTER)

    def resumeProducing(self) -> None:
        """It reads on."""
        self._look.cancel()
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """It has closed its input: what comes now is thrown away."""
        self.resumeProducing()


def status_of(how: Exit) -> dict[str, Any]:
    """How a command has ended, as Kubernetes says it (a Status of its API), and as we do."""
    status = {"metadata": {}, "exit": asdict(how)}
    if not how.failed:
        return {**status, "status": "Success"}
    code = how.status if how.signal is None else 128 + how.signal
    causes = [{"reason": "ExitCode", "message": str(code)}]
    failure = {"status": "Failure", "reason": "NonZeroExitCode", "message": how.reason}
    return {**status, **failure, "details": {"causes": causes}}


def _keep_alive(transport: Any) -> None:
    """Have the kernel look whether a silent client is still there."""
    connection = getattr(transport, "socket", None)
    if connection is None or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
