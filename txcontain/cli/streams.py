"""A program's streams over a WebSocket (RFC 6455): this terminal's, or pipes."""

import json
import os
import signal
import sys
import termios
import tty as terminals
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
)
from wsproto.utilities import ProtocolError

from txcontain.cli.client import EXIT, Client, quoted
from txcontain.cli.instances import status_of

SUBPROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255  # channels
LONGEST_READ = 1 << 14  # bytes


async def run_command(
    client: Client, instance: str, asked: dict[str, Any], interactive: bool, tty: bool
) -> int:
    """Run a command in an instance; return what a shell would call its status.

    :param asked: the parameters of the query
    :param interactive: whether it reads this process's standard input
    :param tty: whether it has a terminal, as large as this one
    :raises CliError: if it can't be run, or the connection is lost
    """
    query = {key: value for key, value in asked.items() if value}
    if tty:
        query |= {"tty": "1", **terminal_size()}
    target = f"/instances/{quoted(instance)}/exec?{urlencode(query, doseq=True)}"
    streams = await opened(client, target)
    with raw_terminal(client.clock, streams) if tty else as_it_is():
        if interactive:
            Input(client.clock, streams).begin()
        else:
            streams.close_input()
        return await status_from(client, streams)


async def use_terminal(
    client: Client, instance: str, leave: bytes, *, interactive: bool, from_start: bool
) -> int | None:
    """Have the terminal of an instance here; return its status, or None if that was left.

    :param leave: the keys by which it is left
    :param interactive: whether it reads what is typed here
    :param from_start: whether all that it has shown is shown first
    :raises CliError: if it has none, or the connection is lost
    """
    query = {"logs": int(from_start), **terminal_size()}
    streams = await opened(client, f"/instances/{quoted(instance)}/attach?{urlencode(query)}")
    with raw_terminal(client.clock, streams) if interactive else as_it_is():
        if interactive:
            Input(client.clock, streams, Leaving(leave)).begin()
        try:
            return await status_from(client, streams)
        except Left:
            streams.transport.loseConnection()
            return None


def terminal_size() -> dict[str, int]:
    """Return the size of this terminal, as a query has it."""
    size = os.get_terminal_size(0)
    return {"rows": size.lines or 24, "columns": size.columns or 80}


async def status_from(client: Client, streams: "Streams") -> int:
    """Return what a shell would call the status, once there is one.

    Raises CliError if the connection is lost; OSError if the output can't be written.
    """
    try:
        with client.explaining():
            return status_of(client.understood(await streams.status, {"exit": EXIT})["exit"])
    except Unwritten as no:
        raise no.error from no


async def opened(client: Client, target: str) -> "Streams":
    """Return the streams that are behind this path and query.

    :raises Refused: if there are none
    """
    headers = [(name.encode(), value.encode()) for name, value in client.shown.items()]
    host = urlsplit(client.url).netloc
    streams = Streams(Request(host, target, subprotocols=[SUBPROTOCOL], extra_headers=headers))
    await client.connect(streams)
    with client.explaining():
        try:
            await streams.opened
        except Rejected as no:
            found = Headers({name: [value] for name, value in no.event.headers})
            raise client.refused(no.event.status_code, b"", found, no.body) from no
    return streams


class Streams(Protocol):
    """This end of the connection.

    :ivar opened: fires with this when the command runs; fails with Unanswered
    :ivar status: fires with what came of the command, a JSON document
    """

    transport: Any

    def __init__(self, request: Request) -> None:
        self._request = request
        self._connection = WSConnection(ConnectionType.CLIENT)
        self.opened: Deferred[Streams] = Deferred()
        self.status: Deferred[bytes] = Deferred()
        self._channel: int | None = None  # of the message that is being received
        self._said = b""  # on the channel of the status
        self._refusal: Any = None
        self._body = b""  # of a refusal

    def connectionMade(self) -> None:
        """Ask for the command."""
        self.transport.write(self._connection.send(self._request))

    def dataReceived(self, data: bytes) -> None:
        """Some bytes have come."""
        self._connection.receive_data(data)
        for event in self._connection.events():
            self._handle(event)

    def _handle(self, event: Any) -> None:
        if isinstance(event, AcceptConnection):
            self.opened.callback(self)
        elif isinstance(event, RejectConnection):
            self._refusal = event
            if not event.has_body:
                self._refuse()
        elif isinstance(event, RejectData):
            self._body += event.data
            if event.body_finished:
                self._refuse()
        elif isinstance(event, BytesMessage):
            self._receive(bytes(event.data), event.message_finished)
        elif isinstance(event, (Ping, CloseConnection)):
            self._write(event.response())

    def _refuse(self) -> None:
        self.opened.errback(Rejected(self._refusal, self._body))

    def _receive(self, data: bytes, is_last: bool) -> None:
        if self._channel is None and data:
            self._channel, data = data[0], data[1:]
        if self._channel in (STDOUT, STDERR):
            self._show(self._channel, data)
        elif self._channel == STATUS:
            self._said += data
            if is_last and not self.status.called:
                self.status.callback(self._said)
        if is_last:
            self._channel = None

    def _show(self, descriptor: int, data: bytes) -> None:
        if self.status.called:  # nobody reads it any more
            return
        try:
            write_all(descriptor, data)
        except OSError as error:
            self.status.errback(Unwritten(error))

    def send(self, channel: int, data: bytes) -> None:
        """Send something through a channel."""
        self._write(BytesMessage(bytes([channel]) + data))

    def close_input(self) -> None:
        """Say that no more input comes."""
        self.send(CLOSE, bytes([STDIN]))

    def resize(self) -> None:
        """Say how large this terminal is."""
        size = os.get_terminal_size(0)
        self.send(RESIZE, json.dumps({"Width": size.columns, "Height": size.lines}).encode())

    def _write(self, event: Any) -> None:
        try:
            self.transport.write(self._connection.send(event))
        except ProtocolError:  # it is closed already
            return

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The manager has hung up."""
        if not self.opened.called:
            self.opened.errback(reason)
        elif not self.status.called:
            self.status.errback(reason)


class Rejected(Exception):
    """The manager has answered something else.

    :ivar event: its status and headers
    :ivar body: what it said
    """

    def __init__(self, event: RejectConnection, body: bytes) -> None:
        super().__init__(event.status_code)
        self.event = event
        self.body = body


class Unwritten(Exception):
    """The output can't be written here.

    :ivar error: why
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Left(Exception):
    """Someone has typed the keys by which a terminal is left."""


class Leaving:
    """Finds the keys by which a terminal is left; others are passed on, even the first of them.

    :param keys: none: it can't be left
    """

    def __init__(self, keys: bytes = b"") -> None:
        self._keys = keys
        self._typed = 0  # how many of them were typed just now

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """Return what is to be passed on, and whether it is left."""
        if not self._keys:
            return typed, False
        passed = bytearray()
        for key in typed:
            if key != self._keys[self._typed]:
                passed += self._keys[: self._typed]
                self._typed = 0
            if key != self._keys[self._typed]:
                passed.append(key)
                continue
            self._typed += 1
            if self._typed == len(self._keys):
                return bytes(passed), True
        return bytes(passed), False


class Input(FileDescriptor):
    """This process's standard input: a producer for the connection.

    It is not made non-blocking, as it may share that with standard output.
    """

    def __init__(self, reactor: Any, streams: Streams, leaving: Leaving | None = None) -> None:
        super().__init__(reactor)
        self._streams, self._leaving = streams, leaving or Leaving()
        self.connected = 1

    def begin(self) -> None:
        """Read what the connection takes."""
        self._streams.transport.registerProducer(self, True)
        self.startReading()

    def fileno(self) -> int:
        """Return its number, for the reactor."""
        return 0

    def doRead(self) -> None:
        """Pass on what has been typed."""
        try:
            data = os.read(0, LONGEST_READ)
        except OSError:  # such as a terminal that is gone
            data = b""
        passed, is_left = self._leaving.take(data)
        if passed:
            self._streams.send(STDIN, passed)
        if is_left:
            self.stopReading()
            if not self._streams.status.called:  # else it ends just now
                self._streams.status.errback(Left())
        elif not data:
            self.connectionLost()

    def stopProducing(self) -> None:
        """The connection is gone: read no more."""
        self.stopReading()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """No more can be read."""
        super().connectionLost(reason)
        self._streams.transport.unregisterProducer()
        self._streams.close_input()


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes; wait until they are written, so that the manager waits too."""
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def raw_terminal(reactor: Any, streams: Streams) -> Iterator[None]:
    """Pass on every key as it is, and tell when the window changes; at the end, be as before."""
    before = termios.tcgetattr(0)

    def restore() -> None:
        termios.tcsetattr(0, termios.TCSADRAIN, before)

    def die(number: int, _: Any) -> NoReturn:
        restore()
        os._exit(128 + number)

    def tell_size(*_: Any) -> None:
        reactor.callFromThread(streams.resize)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, die)
    signal.signal(signal.SIGWINCH, tell_size)
    terminals.setraw(0, termios.TCSADRAIN)  # what was typed ahead is kept
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        restore()


@contextmanager
def as_it_is() -> Iterator[None]:
    """Leave the terminal, if this is one, as it is."""
    sys.stdout.flush()
    yield
