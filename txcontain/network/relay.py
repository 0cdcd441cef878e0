"""Connections that are handed on: what comes at one end goes out at the other, and back.

What an end does not take holds up the other one. A half-close goes through (shutdown(2)), so a
client may say all it has to say, and then listen.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

from attrs import define, field
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.later import Timer

LONGEST_READ = 1 << 16  # bytes
LINGER = 60.0  # seconds for what one end has yet to take, once the other one is gone
SILENT = 10.0  # seconds after which a silent connection has to make room, if others wait
LOOK_AFTER, MOST_CUT = 1.0, 32  # seconds between two looks for such ones; closed by one look


class End(FileDescriptor):
    """One end of a connection that is handed on."""

    other: End

    def __init__(self, reactor: Any, connection: socket.socket, relay: Relay) -> None:
        super().__init__(reactor)
        connection.setblocking(False)
        self._socket, self._relay = connection, relay
        self.heard_all = False
        self.connected = 1

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def doRead(self) -> Any:
        """Hand on what there is. (Descriptors that a program passes are closed by the kernel.)"""
        try:
            data = self._socket.recv(LONGEST_READ)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self._relay.heard()
        self.other.send(data)
        return None

    def send(self, data: bytes) -> None:
        """Send what the other end has said: now what is taken at once, and the rest later."""
        if self.connected and not (self._writeDisconnected or self.dataBuffer or self._tempDataLen):
            sent = self.writeSomeData(data)
            data = data[sent:] if isinstance(sent, int) else data
        if data:
            self.write(data)

    def writeSomeData(self, data: bytes) -> Any:
        """Send what the other end has said."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return CONNECTION_LOST

    def resumeProducing(self) -> None:
        """The other end takes more."""
        if not self.heard_all:
            super().resumeProducing()

    def readConnectionLost(self, reason: Failure) -> None:
        """All is said here: tell the other end."""
        self.heard_all = True
        self.other.unregisterProducer()
        self.other.loseWriteConnection()
        if self._writeDisconnected or self._relay.is_ending:
            self.connectionLost(reason)

    def _closeWriteConnection(self) -> Any:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        return CONNECTION_DONE if self.heard_all else None

    def connectionLost(self, reason: Failure) -> None:
        """This end is gone, once."""
        if self.disconnected:
            return
        self.producer = None
        super().connectionLost(reason)
        self._socket.close()
        self._relay.lost(self)


class Relay:
    """Hands one connection on to another, until both are closed."""

    def __init__(self, reactor: Any, ends: tuple[socket.socket, socket.socket]) -> None:
        self._reactor = reactor
        self.is_ending = False  # whether no one is at the second end any more
        self.over: Deferred[Any] = Deferred()  # fires when both are closed
        self.heard_at: float = reactor.seconds()
        self._ends = [End(reactor, end, self) for end in ends]
        self._linger = Timer(reactor, self.cut)
        for end, other in zip(self._ends, reversed(self._ends), strict=True):
            end.other = other
            other.registerProducer(cast(Any, end), True)
        for end in self._ends:
            end.startReading()

    def heard(self) -> None:
        """Something was said at one end."""
        self.heard_at = self._reactor.seconds()

    def lost(self, end: End) -> None:
        """One end is gone: the other one gets what is on its way to it, and then goes too."""
        if end.other.disconnected:
            self._linger.cancel()
            self.over.callback(None)
        else:
            self._linger.after(LINGER)
            end.other.unregisterProducer()
            end.other.loseConnection()

    def end(self) -> None:
        """No one is at the second end any more: the first one gets what was said, and is closed."""
        self.is_ending = True
        self._linger.after(LINGER)
        if self._ends[1].heard_all:
            self._ends[1].connectionLost(Failure(CONNECTION_DONE))

    def lose(self) -> None:
        """The second end's host is gone: the first one gets what was said, and is closed."""
        self._ends[1].connectionLost(Failure(CONNECTION_LOST))

    def cut(self) -> None:
        """Close both ends now, whatever is on its way."""
        for end in self._ends:
            end.connectionLost(Failure(CONNECTION_LOST))


@define(eq=False)
class Relays:
    """The connections that are taken care of: only so many at the same time.

    If others wait, one that is silent for long has to make room.
    """

    reactor: Any
    most: int
    count: int = 0
    _relays: dict[Relay, None] = field(factory=dict)
    _waiting: list[Callable[[], None]] = field(factory=list)  # are called when there is room
    _look: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._look = Timer(self.reactor, self._make_room)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return self.count >= self.most

    def when_there_is_room(self, call: Callable[[], None]) -> None:
        """Call this once there is."""
        self._waiting.append(call)
        if not self._look.is_set:
            self._look.after(LOOK_AFTER)

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """There is one more, as long as this lasts."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()

    def hand_on(self, one: socket.socket, other: socket.socket) -> Relay:
        """Hand one connection on to another, until both are closed."""
        return self.keep(Relay(self.reactor, (one, other)))

    def keep(self, relay: Relay) -> Relay:
        """From now on this one may have to make room."""
        self._relays[relay] = None
        relay.over.addCallback(lambda _: self._relays.pop(relay))
        return relay

    def _make_room(self) -> None:
        if not self._waiting:
            return
        before = self.reactor.seconds() - SILENT
        silent = [relay for relay in self._relays if relay.heard_at <= before]
        for relay in sorted(silent, key=lambda relay: relay.heard_at)[:MOST_CUT]:
            relay.cut()  # and those who wait are told
        if self._waiting and not self._look.is_set:
            self._look.after(LOOK_AFTER)

    def stop(self) -> None:
        """Close all."""
        self._look.cancel()
        self._waiting = []
        for relay in list(self._relays):
            relay.cut()


@implementer(IWriteDescriptor)
class _Connecting:
    """A socket that is being connected; it is writable when that is over."""

    def __init__(self, reactor: Any, connection: socket.socket) -> None:
        self._reactor, self._socket = reactor, connection
        self.outcome: Deferred[int] = Deferred(lambda _: reactor.removeWriter(self))
        reactor.addWriter(self)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor."""
        return "connecting"

    def doWrite(self) -> None:
        """It is over: connected or not."""
        self._reactor.removeWriter(self)
        if not self.outcome.called:
            self.outcome.callback(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def connectionLost(self, reason: Failure) -> None:
        """For the reactor."""
        self.doWrite()


async def connect(reactor: Any, address: tuple[str, int], within: float) -> socket.socket:
    """A connection to an address of IPv4 or IPv6, and a port.

    Raises OSError: TimeoutError if it is not there within so many seconds.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        number = connection.connect_ex(address)
        if number == errno.EINPROGRESS:
            outcome = _Connecting(reactor, connection).outcome
            number = await outcome.addTimeout(within, reactor, lambda *_: errno.ETIMEDOUT)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException:
        connection.close()
        raise
    return connection
