"""The resolver on the bridge: it answers for containers, and asks the host's resolvers the rest.

Every query is hostile input (``queries.py`` says what of it is decoded), one container must not
take what the others need, and one turn of the reactor answers only a few queries.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.names import dns
from twisted.names.client import Resolver as HostResolver
from twisted.names.error import DNSNameError, DNSServerError
from twisted.names.server import DNSServerFactory
from twisted.protocols.policies import ProtocolWrapper, TimeoutFactory, WrappingFactory
from twisted.python.failure import Failure

from txcontain.errors import MachineAtFault
from txcontain.later import Timer
from txcontain.network.queries import LONGEST, Refused, cut_down, is_query, refusal

PORT = 53
TTL = 1  # seconds: the name may soon mean another container
TIMEOUTS = (1, 3)  # seconds for the host's resolvers: the first and the second try
MOST_FORWARDED = 128  # questions at a time: each takes a descriptor of the manager
MOST_CONNECTIONS, IDLE = 128, 10  # over TCP, and seconds
MOST_IN_A_TURN = 16  # datagrams
MOST_ADDRESSES = 64  # in an answer
RECORDS: dict[int, Any] = {dns.A: dns.Record_A, dns.AAAA: dns.Record_AAAA}
Find = Callable[[str, str], Sequence[str] | None]  # of a name, and the address of who asks
Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]


@define(eq=False)
class Shares:
    """Shares of a number of things: no one may have more than what is left for the others."""

    most: int
    taken: Counter[str] = field(factory=Counter)  # by who has them

    def take(self, who: str) -> bool:
        """Take one; returns whether it was granted."""
        granted = self.taken[who] < self.most - self.taken.total()
        self.taken[who] += granted
        return granted

    def give_back(self, who: str) -> None:
        """Give one back."""
        self.taken[who] -= 1
        if not self.taken[who]:
            del self.taken[who]


@define(eq=False)
class Answers:
    """Answers questions about our names, and forwards all others."""

    find: Find  # the addresses of a name, of which there may be none; None if it is not ours
    upstream: Any  # an IResolver
    _forwarded: Shares = field(factory=lambda: Shares(MOST_FORWARDED))

    def query(self, query: dns.Query, asker: str) -> Deferred[Answer]:
        """The answer: three lists of records. Fails as the upstream resolver fails."""
        addresses = self.find(query.name.name.decode("latin-1").lower(), asker)
        if addresses is not None:
            return ours(query, addresses)
        if not self._forwarded.take(asker):
            return fail(DNSServerError("too many questions at a time"))
        answer: Deferred[Answer] = maybeDeferred(self.upstream.query, query)
        return answer.addBoth(self._answered, asker)

    def _answered(self, result: Any, asker: str) -> Any:
        self._forwarded.give_back(asker)
        return result


def ours(query: dns.Query, addresses: Sequence[str]) -> Deferred[Answer]:
    """The answer about a name of ours. If no one serves now, the client is to try again later."""
    if not addresses:
        return fail(DNSServerError("no one serves under this name now"))
    kind = RECORDS.get(query.type)
    of_this_kind = [one for one in addresses if kind and (":" in one) == (query.type == dns.AAAA)]
    return succeed((records(query, of_this_kind), [], []))


def records(query: dns.Query, addresses: Sequence[str]) -> list[dns.RRHeader]:
    """A record for each address, in random order; of very many, only for some.

    Most programs take the first one: so they are spread over all.
    """
    some = random.sample(addresses, min(len(addresses), MOST_ADDRESSES))
    return [
        dns.RRHeader(query.name.name, query.type, ttl=TTL, payload=_record(query, one), auth=True)
        for one in some
    ]


def _record(query: dns.Query, address: str) -> Any:
    return RECORDS[query.type](address, TTL)


class Datagrams(dns.DNSDatagramProtocol):
    """Queries over UDP, a few in each turn of the reactor."""

    transport: Any  # a udp.Port
    _left = MOST_IN_A_TURN
    _turn: Timer | None = None

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """Answer a query."""
        self._count()
        if not is_query(data):
            return
        try:
            super().datagramReceived(cut_down(data), addr)
        except Refused as refused:
            self.transport.write(refusal(data, refused.code), addr)

    def _count(self) -> None:
        """Stop reading after enough datagrams in one turn.

        Twisted only counts bytes: it would read empty datagrams as long as there are any.
        """
        self._left -= 1
        if not self._left:
            self.transport.maxThroughput = 0
            self._turn = self._turn or Timer(self._reactor, self._go_on)
            self._turn.after(0)

    def _go_on(self) -> None:
        self._left = MOST_IN_A_TURN
        if self.transport is not None:
            self.transport.maxThroughput = 1 << 16


class Conversation(dns.DNSProtocol):
    """Queries over TCP, one after the other. A client that reads no answers is cut off."""

    transport: Any
    MAX_LENGTH = LONGEST
    _turn: Timer | None = None

    def connectionMade(self) -> None:
        """Ask to be told if answers are not read."""
        super().connectionMade()
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """The buffer is full of answers that are not read."""
        self.transport.abortConnection()

    def stringReceived(self, data: bytes) -> None:
        """Answer a query before looking at the next one."""
        if not is_query(data):
            self.transport.abortConnection()
            return
        self.paused = True
        self.transport.pauseProducing()
        try:
            super().stringReceived(cut_down(data))
        except Refused as refused:
            self.sendString(refusal(data, refused.code))
            self._go_on_later()

    def writeMessage(self, message: dns.Message) -> None:
        """Answer."""
        if self.connected:
            super().writeMessage(message)
            self._go_on_later()

    def _go_on_later(self) -> None:
        self._turn = Timer(self.controller.reactor, self._go_on)
        self._turn.after(0)

    def _go_on(self) -> None:
        if self.connected:
            self.resumeProducing()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # always given
        """The client has hung up, or was cut off."""
        self.connected = 0
        super().connectionLost(reason)


class Shared(WrappingFactory[ProtocolWrapper]):
    """Accepts connections: no one may have more of them than what is left for the others."""

    noisy = False

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)
        self._connections = Shares(MOST_CONNECTIONS)

    def buildProtocol(self, addr: Any) -> Any:
        """A connection; None, which closes it, if this client has enough of them."""
        return super().buildProtocol(addr) if self._connections.take(addr.host) else None

    def unregisterProtocol(self, p: Any) -> None:
        """A connection has ended."""
        super().unregisterProtocol(p)
        self._connections.give_back(p.getPeer().host)


class Server(DNSServerFactory):
    """Speaks DNS. A container can't make it fill the manager's log."""

    noisy = False
    protocol = Conversation
    resolver: Any

    def __init__(self, answers: Answers, reactor: Any) -> None:
        super().__init__(clients=[answers])
        self.resolver, self.reactor = answers, reactor

    def handleQuery(self, message: dns.Message, protocol: Any, address: Any) -> Deferred[Any]:
        """Answer the question of a message; ``address`` is a datagram's sender, None over TCP."""
        asker = address[0] if address else protocol.transport.getPeer().host
        answer: Deferred[Any] = self.resolver.query(message.queries[0], asker)
        answer.addCallback(self.gotResolverResponse, protocol, message, address)
        return answer.addErrback(self.gotResolverError, protocol, message, address)

    def gotResolverError(
        self, failure: Failure, protocol: Any, message: dns.Message, address: Any
    ) -> None:
        """Say that there is no such name, or that the upstream resolver gave no answer."""
        code = dns.ENAME if failure.check(DNSNameError) else dns.ESERVER
        self.sendReply(protocol, self._responseFromMessage(message, rCode=code), address)


@define(eq=False)
class Resolver:
    """Listens on the bridge's address, over UDP and TCP, while there is a bridge."""

    reactor: Any
    address: str
    find: Find = lambda name, asker: None
    resolv_conf: str = "/etc/resolv.conf"  # the host's (resolv.conf(5))
    _upstream: Any = None
    _ports: list[Any] = field(factory=list)

    def start(self) -> None:
        """Begin to answer, if it has not begun yet.

        Raises MachineAtFault if the port is taken.
        """
        if self._ports:
            return
        self._upstream = HostResolver(self.resolv_conf, timeout=TIMEOUTS, reactor=self.reactor)
        server = Server(Answers(self.find, self._upstream), self.reactor)
        try:
            self._listen(self.reactor.listenUDP, Datagrams(server, self.reactor))
            self._listen(self.reactor.listenTCP, Shared(TimeoutFactory(server, IDLE)))
        except CannotListenError as error:
            self.stop()
            hint = "have the host's own name server listen only on its own addresses"
            why = f"{self.address}, port {PORT}: {error.socketError.strerror}"
            raise MachineAtFault("answering for names on the bridge", why, hint) from error

    def _listen(self, listen: Callable[..., Any], what: Any) -> None:
        what.noisy = False
        self._ports.append(listen(PORT, what, interface=self.address))

    def stop(self) -> None:
        """Stop answering."""
        ports, self._ports = self._ports, []
        for port in ports:
            port.stopListening()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            with contextlib.suppress(Exception):
                upstream._parseCall.cancel()  # it reads resolv.conf once a minute
