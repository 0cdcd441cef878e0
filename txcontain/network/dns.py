"""The resolver of the bridge: containers find each other by name, and others as the host does.

What a container sends is a stranger's. Of a query no more is decoded than its header and one
question with a name of 255 bytes (RFC 1035, 2.3.4): Twisted's decoder has no such bounds. And
a turn of the reactor answers only so many.
"""

from __future__ import annotations

import contextlib
import random
import struct
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

PORT = 53
TTL = 1  # seconds: a name may mean another container soon
TIMEOUTS = (1, 3)  # seconds for the host's resolvers, at the first and at the second try
MOST_FORWARDED = 128  # questions at a time: each takes a descriptor of the manager's
MOST_CONNECTIONS, IDLE = 128, 10  # over TCP, and seconds
MOST_IN_A_TURN = 16  # datagrams
MOST_ADDRESSES = 64  # in an answer
HEADER = struct.Struct(">HHHHHH")  # RFC 1035, 4.1.1: its number, flags, and four counts
RESPONSE, OPCODE, OPCODE_AND_WISH = 0x8000, 0x7800, 0x7900  # of the flags
LONGEST_NAME, LONGEST_LABEL = 255, 63  # bytes
LONGEST_QUERY = 4096  # bytes: a question, and the options of its sender's
Find = Callable[[str], Sequence[str]]
Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]


class Refused(Exception):
    """A query that is not looked at; the code says why (RFC 1035, 4.1.1)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def cut_down(query: bytes) -> bytes:
    """A query's header and its question, without all that may follow them.

    Raises Refused.
    """
    number, flags, questions, answers, *_ = HEADER.unpack_from(query)
    if flags & OPCODE:
        raise Refused(dns.ENOTIMP)
    if questions != 1 or answers:
        raise Refused(dns.EFORMAT)
    end = HEADER.size
    try:
        while length := query[end]:
            end += 1 + length
            if length > LONGEST_LABEL or end - HEADER.size >= LONGEST_NAME:
                raise Refused(dns.EFORMAT)
    except IndexError:
        raise Refused(dns.EFORMAT) from None
    end += 1 + 4  # the root's label, the type and the class
    if end > len(query):
        raise Refused(dns.EFORMAT)
    return HEADER.pack(number, flags, 1, 0, 0, 0) + query[HEADER.size : end]


def is_query(message: bytes) -> bool:
    """Whether a message is one that is to be answered."""
    return len(message) >= HEADER.size and not HEADER.unpack_from(message)[1] & RESPONSE


def refusal(query: bytes, code: int) -> bytes:
    """The answer to a query that is not looked at: a header only."""
    number, flags, *_ = HEADER.unpack_from(query)
    return HEADER.pack(number, RESPONSE | flags & OPCODE_AND_WISH | code, 0, 0, 0, 0)


@define(eq=False)
class Shares:
    """A number of something, of which no one may have more than what is left for others."""

    most: int
    taken: Counter[str] = field(factory=Counter)  # by who has them

    def take(self, who: str) -> bool:
        """Take one; returns whether there was one to be had."""
        granted = self.taken[who] < self.most - self.taken.total()
        self.taken[who] += granted
        return granted

    def give_back(self, who: str) -> None:
        """Have one less."""
        self.taken[who] -= 1
        if not self.taken[who]:
            del self.taken[who]


@define(eq=False)
class Answers:
    """Answers questions about our names, and passes on those about others."""

    find: Find  # the addresses of a name, none where it is not ours
    upstream: Any  # an IResolver
    _forwarded: Shares = field(factory=lambda: Shares(MOST_FORWARDED))

    def query(self, query: dns.Query, asker: str) -> Deferred[Answer]:
        """The answer, additional records and all; fails with what the client's resolver does."""
        addresses = self.find(query.name.name.decode("latin-1").lower())
        if addresses:
            return succeed(([] if query.type != dns.A else records(query, addresses), [], []))
        if not self._forwarded.take(asker):
            return fail(DNSServerError("too many questions at a time"))
        answer: Deferred[Answer] = maybeDeferred(self.upstream.query, query)
        return answer.addBoth(self._answered, asker)

    def _answered(self, result: Any, asker: str) -> Any:
        self._forwarded.give_back(asker)
        return result


def records(query: dns.Query, addresses: Sequence[str]) -> list[dns.RRHeader]:
    """A record an address; of very many, some that are drawn by lot."""
    many = len(addresses) > MOST_ADDRESSES
    some = random.sample(addresses, MOST_ADDRESSES) if many else addresses
    return [
        dns.RRHeader(query.name.name, dns.A, ttl=TTL, payload=_record(one), auth=True)
        for one in some
    ]


def _record(address: str) -> Any:
    return dns.Record_A(address, TTL)


class Datagrams(dns.DNSDatagramProtocol):
    """Queries over UDP, only so many in a turn."""

    transport: Any  # a udp.Port
    _left = MOST_IN_A_TURN
    _turn: Timer | None = None

    def datagramReceived(self, data: bytes, addr: Any) -> None:
        """Have a query answered."""
        self._count()
        if not is_query(data):
            return
        try:
            super().datagramReceived(cut_down(data), addr)
        except Refused as refused:
            self.transport.write(refusal(data, refused.code), addr)

    def _count(self) -> None:
        """Read no more in this turn if it is enough.

        Twisted counts bytes: of empty datagrams it would read for as long as there are any.
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
    """Queries over TCP, one after the other. Who reads no answers is hung up on."""

    transport: Any
    MAX_LENGTH = LONGEST_QUERY
    _turn: Timer | None = None

    def connectionMade(self) -> None:
        """Be told of answers that are not read."""
        super().connectionMade()
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """The transport's buffer is full of them."""
        self.transport.abortConnection()

    def stringReceived(self, data: bytes) -> None:
        """Have a query answered, before the next one is looked at."""
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

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The client has hung up, or was hung up on."""
        self.connected = 0
        super().connectionLost(reason)


class Shared(WrappingFactory[ProtocolWrapper]):
    """Takes connections: no one may have more of them than what is left for others."""

    noisy = False

    def __init__(self, wrapped: Any) -> None:
        super().__init__(wrapped)
        self._connections = Shares(MOST_CONNECTIONS)

    def buildProtocol(self, addr: Any) -> Any:
        """A connection; None, which ends it, where there is none to be had."""
        return super().buildProtocol(addr) if self._connections.take(addr.host) else None

    def unregisterProtocol(self, p: Any) -> None:
        """A connection has ended."""
        super().unregisterProtocol(p)
        self._connections.give_back(p.getPeer().host)


class Server(DNSServerFactory):
    """Speaks DNS; a container can't make it fill the manager's log."""

    noisy = False
    protocol = Conversation
    resolver: Any

    def __init__(self, answers: Answers, reactor: Any) -> None:
        super().__init__(clients=[answers])
        self.resolver, self.reactor = answers, reactor

    def handleQuery(self, message: dns.Message, protocol: Any, address: Any) -> Deferred[Any]:
        """Answer the question of a message; ``address`` is the sender's of a datagram."""
        asker = address[0] if address else protocol.transport.getPeer().host
        answer: Deferred[Any] = self.resolver.query(message.queries[0], asker)
        answer.addCallback(self.gotResolverResponse, protocol, message, address)
        return answer.addErrback(self.gotResolverError, protocol, message, address)

    def gotResolverError(
        self, failure: Failure, protocol: Any, message: dns.Message, address: Any
    ) -> None:
        """Say that the name is not known, or that the answer could not be had."""
        code = dns.ENAME if failure.check(DNSNameError) else dns.ESERVER
        self.sendReply(protocol, self._responseFromMessage(message, rCode=code), address)


@define(eq=False)
class Resolver:
    """Listens on the bridge's address, over UDP and TCP, while there is a bridge."""

    reactor: Any
    address: str
    find: Find = lambda name: ()
    resolv_conf: str = "/etc/resolv.conf"  # the host's (resolv.conf(5))
    _upstream: Any = None
    _ports: list[Any] = field(factory=list)

    def start(self) -> None:
        """Begin to answer; nothing where this has begun already.

        Raises MachineAtFault where the port is taken.
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
        """Answer no more."""
        ports, self._ports = self._ports, []
        for port in ports:
            port.stopListening()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            with contextlib.suppress(Exception):
                upstream._parseCall.cancel()  # it looks at resolv.conf once a minute
