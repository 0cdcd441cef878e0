"""The resolver of the bridge: containers find each other by name, and others as the host does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError, DNSServerError
from twisted.names.server import DNSServerFactory
from twisted.protocols.policies import ThrottlingFactory, TimeoutFactory
from twisted.python.failure import Failure

from txcontain.errors import MachineAtFault

PORT = 53
TTL = 1  # seconds: a name may mean another container soon
TIMEOUTS = (1, 3)  # seconds for the host's resolvers, at the first and at the second try
MOST_FORWARDED = 64  # questions at a time: each takes a descriptor of the manager's
MOST_CONNECTIONS, IDLE = 64, 10  # over TCP, and seconds
Find = Callable[[str], Sequence[str]]
Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]


@define(eq=False)
class Answers:
    """Answers questions about our names, and passes on those about others."""

    find: Find  # the addresses of a name, none where it is not ours
    others: Any  # an IResolver
    _forwarded: int = 0

    def query(self, query: dns.Query, timeout: Sequence[int] | None = None) -> Deferred[Answer]:
        """The answer, additional records and all; fails with what the client's resolver does."""
        addresses = self.find(query.name.name.decode("latin-1").lower())
        if addresses:
            return succeed(([] if query.type != dns.A else records(query, addresses), [], []))
        if self._forwarded >= MOST_FORWARDED:
            return fail(DNSServerError("too many questions at a time"))
        self._forwarded += 1
        answer: Deferred[Answer] = maybeDeferred(self.others.query, query, timeout)
        return answer.addBoth(self._answered)

    def _answered(self, result: Any) -> Any:
        self._forwarded -= 1
        return result


def records(query: dns.Query, addresses: Sequence[str]) -> list[dns.RRHeader]:
    """A record an address."""
    return [
        dns.RRHeader(query.name.name, dns.A, ttl=TTL, payload=_record(one), auth=True)
        for one in addresses
    ]


def _record(address: str) -> Any:
    return dns.Record_A(address, TTL)


class Server(DNSServerFactory):
    """Speaks DNS; a container can't make it fill the manager's log."""

    noisy = False
    resolver: Any

    def __init__(self, answers: Answers) -> None:
        super().__init__(clients=[answers])
        self.resolver = answers

    def messageReceived(self, message: dns.Message, proto: Any, address: Any = None) -> None:
        """Answer a question; let be what is none."""
        if message.queries and not message.answer:
            super().messageReceived(message, proto, address)

    def gotResolverError(
        self, failure: Failure, protocol: Any, message: dns.Message, address: Any
    ) -> None:
        """Say that the name is not known, or that the answer could not be had."""
        code = dns.ENAME if failure.check(DNSNameError) else dns.ESERVER
        self.sendReply(protocol, self._responseFromMessage(message, rCode=code), address)


@define(eq=False)
class Names:
    """Listens on the bridge's address, over UDP and TCP, while there is a bridge."""

    reactor: Any
    address: str
    find: Find = lambda name: ()
    resolv_conf: str = "/etc/resolv.conf"  # the host's (resolv.conf(5))
    _others: Any = None
    _ports: list[Any] = field(factory=list)

    def start(self) -> None:
        """Begin to answer; nothing where this has begun already.

        Raises MachineAtFault where the port is taken.
        """
        if self._ports:
            return
        self._others = Resolver(self.resolv_conf, timeout=TIMEOUTS, reactor=self.reactor)
        server = Server(Answers(self.find, self._others))
        bounded = ThrottlingFactory(server, MOST_CONNECTIONS)
        bounded.noisy = False
        try:
            self._listen(self.reactor.listenUDP, dns.DNSDatagramProtocol(server))
            self._listen(self.reactor.listenTCP, TimeoutFactory(bounded, IDLE))
        except CannotListenError as error:
            self.stop()
            hint = "have the host's own name server listen on its own addresses alone"
            why = f"{self.address}, port {PORT}: {error.socketError.strerror}"
            raise MachineAtFault("answering for names on the bridge", why, hint) from error

    def _listen(self, listen: Callable[..., Any], what: Any) -> None:
        what.noisy = False
        self._ports.append(listen(PORT, what, interface=self.address))

    def stop(self) -> None:
        """Answer no more."""
        ports, self._ports = self._ports, []
        for port in ports:
            port.stopListening()
        others, self._others = self._others, None
        if others is not None:
            with contextlib.suppress(Exception):
                others._parseCall.cancel()  # it looks at resolv.conf once a minute
