"""The balancer of published ports: a connection to this host is led to a task, wherever it runs.

It is beside each manager, so that any of these hosts can be asked. Docker's own (the ingress
network) needs IPVS, and leads to what does not listen yet.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from functools import partial
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

from attrs import define, field, frozen
from twisted.logger import Logger

from txcontain.container.spec import Port
from txcontain.host.os_errors import of_os
from txcontain.later import poll
from txcontain.logs.journal import Journal
from txcontain.network.doorways import (
    FILES_EACH,
    WAIT_WITHIN,
    Doorway,
    Place,
    Unreachable,
    key_of,
    listen,
)
from txcontain.network.relay import Relay, Relays, connect
from txcontain.swarm.mapping import Json, state_of
from txcontain.swarm.records import Seen
from txcontain.swarm.stack_mapping import Kept, published, read_kept

MOST = 1000  # connections handed on at once
CONNECT_WITHIN = 1.0  # seconds: a host that is cut off does not refuse
SHUN_FOR = 5.0  # seconds for which a place that took no connection comes last
TRY_AFTER, TRY_AT_MOST = 0.02, 0.5  # seconds between two tries of all places; doubled

log = Logger()


@frozen
class Route:
    """A published port, and where it leads."""

    service: str
    port: Port
    places: tuple[Place, ...]


def routes(seen: Seen) -> dict[str, Route]:
    """All published ports of stacks, by address and number, as they are to lead now. Pure."""
    return {
        key_of(port): Route(kept.full, port, tuple(sorted(set(_places(kept, port, seen)))))
        for kept in read_kept(seen.services, seen.tasks)
        for port in published(kept.told)
    }


def _places(kept: Kept, port: Port, seen: Seen) -> Iterator[Place]:
    for task in kept.tasks:
        node = seen.nodes.get(task.get("NodeID", ""))
        if node and _serves(task):
            for given in (task["Status"].get("PortStatus") or {}).get("Ports") or ():
                if given["TargetPort"] == port.target:
                    yield node.address, given["PublishedPort"]


def _serves(task: Json) -> bool:
    """Whether a task runs, and is to run on; it runs only once its health check has passed."""
    return state_of(task) == "running" and task.get("DesiredState") == "running"


def addresses_down(seen: Seen) -> set[str]:
    """Those of nodes that are down. A host that has joined anew is there twice: up, and down."""
    found = seen.nodes.values()
    down = {one.address for one in found if one.state == "down"}
    return down - {one.address for one in found if one.state != "down"}


def address_of(connection: socket.socket) -> str:
    """Where the other end of a connection is; empty if that has gone already."""
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return ""


@define(eq=False)
class Balancer:
    """Has the sockets of all published ports."""

    reactor: Any
    journal: Journal
    relays: Relays = field(init=False)
    routes: dict[str, Route] = field(factory=dict)  # by address and number
    troubles: dict[str, str] = field(factory=dict)  # why a port can't be listened on, by key
    _doors: dict[str, Doorway] = field(factory=dict)
    _shunned: dict[Place, float] = field(factory=dict)  # until when
    _led: dict[Relay, str] = field(factory=dict)  # the address to which each connection goes
    _turn: int = 0

    def __attrs_post_init__(self) -> None:
        self.relays = Relays(self.reactor, min(MOST, getrlimit(RLIMIT_NOFILE)[0] // FILES_EACH))

    def settle(self, seen: Seen) -> None:
        """Have exactly the sockets that are wanted now, and lead them where there is someone."""
        self.routes = routes(seen)
        self.troubles = {key: why for key, why in self.troubles.items() if key in self.routes}
        for key in [*self._doors.keys() - self.routes.keys()]:
            self._close(key)
        for key, route in self.routes.items():
            if key not in self._doors:
                self._open(key, route.port)
        for key, door in self._doors.items():
            door.set_open(bool(self.routes[key].places))
        down = addresses_down(seen)
        for relay in [relay for relay, address in self._led.items() if address in down]:
            relay.lose()  # no one says so to the client: it would wait for long
        now = self.reactor.seconds()
        self._shunned = {place: until for place, until in self._shunned.items() if until > now}

    def stop(self) -> None:
        """Close all."""
        for key in [*self._doors]:
            self._close(key)
        self.relays.stop()

    def _close(self, key: str) -> None:
        door = self._doors.pop(key)
        door.close()
        door.listener.close()

    def _open(self, key: str, port: Port) -> None:
        try:
            listener = listen(port)
        except OSError as error:
            self._can_not_listen(key, port, error)
            return
        self.troubles.pop(key, None)
        self._doors[key] = Doorway(
            self.reactor,
            self.routes[key].service,
            port,
            listener,
            lambda: (partial(self._carry, key), self.relays),
            lambda: None,
            lambda count: self._refused(key, port, count),
        )

    def _can_not_listen(self, key: str, port: Port, error: OSError) -> None:
        taken = error.errno == errno.EADDRINUSE
        why = "another program of this host listens there" if taken else of_os(error)
        if self.troubles.get(key) != why:
            log.warn("port {port} is not balanced: {why}", port=port, why=why)
        self.troubles[key] = why

    def _refused(self, key: str, port: Port, count: int) -> None:
        route = self.routes.get(key)
        said = f"{count} connections to port {port} were closed, as nothing served"
        self.journal.add("unserved", said, service=route.service if route else None)

    async def _carry(self, key: str, connection: socket.socket) -> None:
        with await self._connect(key) as other:
            address = address_of(other)
            relay = self.relays.hand_on(connection, other)
            self._led[relay] = address
            try:
                await relay.over
            finally:
                del self._led[relay]

    async def _connect(self, key: str) -> socket.socket:
        """A connection to a task: to the next one, if one refuses. Raises Unreachable."""
        async for _ in poll(self.reactor, TRY_AFTER, most=TRY_AT_MOST, within=WAIT_WITHIN):
            for place in self._in_turn(key):
                with contextlib.suppress(OSError):
                    return await self._try(place)
        raise Unreachable

    async def _try(self, place: Place) -> socket.socket:
        try:
            return await connect(self.reactor, place, CONNECT_WITHIN)
        except OSError:
            self._shunned[place] = self.reactor.seconds() + SHUN_FOR
            raise

    def _in_turn(self, key: str) -> list[Place]:
        """All places, each time beginning with the next; those that took none of late are last."""
        places = self.routes[key].places if key in self.routes else ()
        if not places:
            return []
        self._turn += 1
        first, now = self._turn % len(places), self.reactor.seconds()
        turned = [*places[first:], *places[:first]]
        return sorted(turned, key=lambda place: self._shunned.get(place, 0.0) > now)
