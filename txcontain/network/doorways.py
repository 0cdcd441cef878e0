"""Doorways: sockets of published ports, in which connections wait while no instance serves.

While instances serve, nft leads each new connection straight to one of them (``firewall.py``). What
comes while none does reaches a socket of the manager's. The kernel completes these connections, and
queues them (listen(2)): nobody is refused. They are accepted only when there is an instance to hand
them on to. The log process keeps the sockets when the manager ends (``logs/client.py``).
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import sample
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.container.spec import Port
from txcontain.host.os_errors import of_os
from txcontain.later import Timer, background, poll
from txcontain.logs.client import LogClient
from txcontain.network.relay import Relays, connect

BACKLOG = 1 << 16  # connections that wait; the kernel lowers it to net.core.somaxconn
WAIT_WITHIN = 60.0  # seconds that a connection waits for an instance
CONNECT_WITHIN = 5.0  # seconds
TRY_AFTER, TRY_AT_MOST = 0.002, 0.1  # seconds between two tries to connect; doubled
MOST_IN_A_TURN = 32  # connections that are accepted
MOST_CLOSED = 4096  # connections that are closed
TELL_AFTER = 1.0  # seconds after which the journal tells of connections that were closed
ACCEPT_AGAIN = 0.1  # seconds, if descriptors are too few
SETTLE_AGAIN = 2.0  # seconds, if an earlier manager's sockets were not told, or a port was taken
MOST, FILES_EACH = 1000, 8  # connections handed on at once; of so many files, one may be
IP_FREEBIND = 15  # <linux/in.h>
Place = tuple[str, int]  # an address and a port
Carry = Callable[[socket.socket], Awaitable[None]]  # takes care of a connection to its end
log = Logger()


class Unreachable(Exception):
    """No instance takes the connection."""


def key_of(port: Port) -> str:
    """By what a published port's socket is kept."""
    return f"{port.address}:{port.number}"


def listen(port: Port) -> socket.socket:
    """A socket that listens at a published port.

    Raises OSError.
    """
    family = socket.AF_INET6 if port.is_v6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if port.is_v6:  # "::" does not mean IPv4 too: another service may publish that
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)  # the host may get this address later
        listener.bind((port.address, port.number))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@implementer(IReadDescriptor)
@define(eq=False)
class Doorway:
    """The socket of one published port, and who waits there."""

    reactor: Any
    service: str
    port: Port
    listener: socket.socket
    carried: Callable[[], tuple[Carry, Relays]]  # by what, now; it raises Unreachable
    knocked: Callable[[], object]  # is told that someone waits, and no instance serves
    refused: Callable[[int], object]  # is told how many connections were closed, since none came
    is_open: bool = False  # whether there is somewhere to hand connections on to
    _deadline: Timer = field(init=False)
    _again: Timer = field(init=False)
    _closed: int = 0  # connections, of which no one was told yet
    _tell: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deadline = Timer(self.reactor, self._give_up)
        self._again = Timer(self.reactor, self._watch)
        self._tell = Timer(self.reactor, self._tell_refused)
        self._watch()

    def fileno(self) -> int:
        """For the reactor."""
        return self.listener.fileno()

    def logPrefix(self) -> str:
        """For the reactor."""
        return "doorway"

    def connectionLost(self, reason: Failure) -> None:
        """For the reactor."""

    @property
    def someone_waits(self) -> bool:
        """Whether someone does, and no instance serves."""
        return self._deadline.is_set

    def set_open(self, is_open: bool) -> None:
        """Take note of whether there is somewhere to hand connections on to."""
        if is_open != self.is_open:
            self.is_open = is_open
            self._deadline.cancel()
            self._watch()

    def _watch(self) -> None:
        if self.fileno() >= 0:
            self.reactor.addReader(self)

    def doRead(self) -> None:
        """Someone waits."""
        if self.is_open:
            self._accept_some()
        else:
            self.reactor.removeReader(self)
            self._deadline.after(WAIT_WITHIN)
            self.knocked()

    def _accept_some(self) -> None:
        carry, relays = self.carried()
        for _ in range(MOST_IN_A_TURN):
            if relays.is_full:
                self.reactor.removeReader(self)
                relays.when_there_is_room(self._watch)
                return
            connection = self._accept()
            if connection is None:
                return
            handing_on = self._hand_on(connection, carry, relays)
            background(handing_on, f"handing on a connection to port {self.port}")

    def _accept(self) -> socket.socket | None:
        try:
            return self.listener.accept()[0]
        except (BlockingIOError, ConnectionAbortedError):
            return None
        except OSError as error:  # too few descriptors, or too little memory: they wait on
            log.warn("port {port}: {why}; trying again", port=self.port, why=of_os(error))
            self.reactor.removeReader(self)
            self._again.after(ACCEPT_AGAIN)
            return None

    async def _hand_on(self, connection: socket.socket, carry: Carry, relays: Relays) -> None:
        with relays.room(), connection:
            try:
                await carry(connection)
            except Unreachable:
                self._refuse(1)

    def _give_up(self) -> None:
        """No instance has come: close those that wait. The next one may knock again."""
        closed = 0
        with contextlib.suppress(OSError):
            while closed < MOST_CLOSED:
                self.listener.accept()[0].close()
                closed += 1
        self._refuse(closed)
        self._watch()

    def _refuse(self, count: int) -> None:
        self._closed += count
        if self._closed and not self._tell.is_set:
            self._tell.after(TELL_AFTER)

    def _tell_refused(self) -> None:
        closed, self._closed = self._closed, 0
        self.refused(closed)

    def close(self) -> None:
        """Watch no more; what was handed on goes on."""
        self._deadline.cancel()
        self._again.cancel()
        if self._tell.is_set:
            self._tell.cancel()
            self._tell_refused()
        self.reactor.removeReader(self)


def nothing(*_: object) -> None:
    """Tell no one."""


@define(eq=False)
class Doorways:
    """The sockets of all published ports of services, by TCP."""

    reactor: Any
    log_process: LogClient
    leads_to: Callable[[str, Port], list[Place]] = lambda service, port: []  # where it serves
    knocked: Callable[[str], object] = nothing  # told the service
    refused: Callable[[str, Port, int], object] = nothing  # told how many connections were closed
    again: Callable[[], object] = nothing  # told when `settle` is to be called again
    carried: dict[str, tuple[Carry, Relays]] = field(factory=dict)  # by what, by service
    relays: Relays = field(init=False)  # of all other services
    _doors: dict[str, Doorway] = field(factory=dict)
    _taken: set[str] = field(factory=set)  # the keys of ports at which another program listens
    _again: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.relays = Relays(self.reactor, MOST)
        self._again = Timer(self.reactor, lambda: self.again())

    def holds(self, port: Port) -> bool:
        """Whether connections to a port can wait: it has its socket."""
        return port.protocol == "tcp" and key_of(port) in self._doors

    def is_taken(self, port: Port) -> bool:
        """Whether another program listens at a port that is to be a service's."""
        return port.protocol == "tcp" and key_of(port) in self._taken

    async def settle(self, wanted: Mapping[str, tuple[str, Port]]) -> bool:
        """Have exactly these sockets: for each key, whose it is, and its port.

        A port that can't be listened on is told to the manager's log: then its connections wait
        nowhere, until that is tried again. Returns whether those of an earlier manager are known.
        While they are not, all stays as it is: they could not be listened on a second time.
        """
        if not self.log_process.has_found and not await self._find():
            return False
        for key in [*self._doors.keys() - wanted.keys()]:
            self._doors.pop(key).close()
        for key in [*self.log_process.kept.keys() - wanted.keys()]:
            self.log_process.unkeep(key)
        for key, (service, port) in wanted.items():
            if key in self._doors and self._doors[key].service == service:
                self._doors[key].port = port
            else:
                await self._make(key, service, port)
        self._taken &= wanted.keys()
        self._again.cancel()
        if self._taken:
            self._again.after(SETTLE_AGAIN)
        self.look()
        return True

    async def _find(self) -> bool:
        await self.log_process.find_kept()
        if self.log_process.has_found:
            self.relays.most = min(MOST, getrlimit(RLIMIT_NOFILE)[0] // FILES_EACH)
        else:
            log.warn("the log process does not tell which sockets it keeps; asking again")
            self._again.after(SETTLE_AGAIN)
        return self.log_process.has_found

    async def _make(self, key: str, service: str, port: Port) -> None:
        if before := self._doors.pop(key, None):
            before.close()
        kept = self.log_process.kept
        if key not in kept:
            try:
                listener = listen(port)
            except OSError as error:
                self._can_not_listen(port, error)
                return
            if why_not := await self.log_process.keep(key, listener):
                log.warn("port {port} is not kept: {why}", port=port, why=why_not)
        door = Doorway(
            self.reactor,
            service,
            port,
            kept[key],
            lambda: self.carried.get(service, (partial(self._carry, door), self.relays)),
            lambda: self.knocked(service),
            lambda count: self.refused(service, door.port, count),
        )
        self._doors[key] = door
        self._taken.discard(key)

    def _can_not_listen(self, port: Port, error: OSError) -> None:
        if not self.is_taken(port):
            why = of_os(error)
            log.warn("connections to port {port} can't wait: {why}", port=port, why=why)
        if error.errno == errno.EADDRINUSE:
            self._taken.add(key_of(port))

    def look(self) -> None:
        """See anew for each whether there is somewhere to hand connections on to."""
        for door in self._doors.values():
            door.set_open(door.service in self.carried or bool(self._targets(door)))

    def someone_waits(self, service: str) -> bool:
        """Whether someone waits at a port of a service, and no instance of it serves."""
        return any(one.service == service and one.someone_waits for one in self._doors.values())

    def _targets(self, door: Doorway) -> list[Place]:
        return self.leads_to(door.service, door.port)

    async def _carry(self, door: Doorway, connection: socket.socket) -> None:
        with await self._connect(door) as other:
            await self.relays.hand_on(connection, other).over

    async def _connect(self, door: Doorway) -> socket.socket:
        """A connection to an instance. It may not listen yet, or be replaced just now."""
        async for _ in poll(self.reactor, TRY_AFTER, most=TRY_AT_MOST, within=WAIT_WITHIN):
            addresses = self._targets(door)
            for address in sample(addresses, len(addresses)):
                with contextlib.suppress(OSError):
                    return await connect(self.reactor, address, CONNECT_WITHIN)
        raise Unreachable

    def stop(self) -> None:
        """The manager ends: connections that wait go on waiting for the next one."""
        self._again.cancel()
        for door in self._doors.values():
            door.close()
        for relays in (self.relays, *(relays for _, relays in self.carried.values())):
            relays.stop()
