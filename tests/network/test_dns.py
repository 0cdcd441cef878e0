"""The resolver on the bridge: what it answers, to whom, and what it refuses."""

import socket
import struct
from typing import Any, cast
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError, ResolverError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from txcontain.errors import MachineAtFault
from txcontain.network.dns import (
    MOST_ADDRESSES,
    MOST_CONNECTIONS,
    MOST_FORWARDED,
    MOST_IN_A_TURN,
    Answers,
    Datagrams,
    Resolver,
    Server,
    Shared,
    Shares,
)
from txcontain.network.queries import LONGEST

OURS: dict[str, list[str]] = {
    "web": ["10.87.0.2", "10.87.0.3"],
    "web-1": ["10.87.0.2"],
    "db": [],
    "both": ["10.87.0.2", "fd00:1::a57:2"],
}
ASKER = ("10.87.0.9", 1234)
FORWARDED_OF_ONE = MOST_FORWARDED // 2


def query(name: bytes = b"web", kind: Any = dns.A) -> Any:
    """A query as it is sent."""
    message = dns.Message(id=7, recDes=1)
    message.addQuery(name, kind)
    return message.toStr()


def counted(questions: int = 1, answers: int = 0, flags: int = 0x0100) -> Any:
    """The header of a query that claims so many questions and answers."""
    return struct.pack(">HHHHHH", 7, flags, questions, answers, 0, 0)


class FakeTransport:
    """Keeps what is sent, as messages."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.maxThroughput = 1 << 18

    def write(self, data: Any, address: Any = None) -> None:
        message = dns.Message()
        message.fromStr(data)
        self.sent.append(message)


class Upstream:
    """An upstream resolver that answers each question when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def query(self, query: Any, timeout: Any = None) -> Any:
        answer: Deferred[Any] = Deferred()
        self.asked.append((query, answer))
        return answer


class AnswerTests(SynchronousTestCase):
    """Questions that come as datagrams."""

    def setUp(self) -> None:
        self.upstream = Upstream()
        self.clock = Clock()
        server = Server(Answers(lambda name, asker: OURS.get(name), self.upstream), self.clock)
        self.protocol = Datagrams(server, self.clock)
        self.protocol.makeConnection(cast(IUDPTransport, FakeTransport()))
        self.protocol.startProtocol()

    def ask(self, name: bytes, kind: Any = dns.A, asker: Any = ASKER) -> Any:
        """Send a question; returns all answers up to now."""
        return self.send(query(name, kind), asker)

    def send(self, data: Any, asker: Any = ASKER) -> Any:
        """Send a datagram; returns all answers up to now."""
        self.protocol.datagramReceived(data, asker)
        return self.protocol.transport.sent

    def test_ours(self) -> None:
        """A name of ours gets the addresses of all who have it; case does not matter."""
        for name, wanted in ((b"web", OURS["web"]), (b"WEB-1", OURS["web-1"])):
            answer = self.ask(name)[-1]
            self.assertEqual((answer.rCode, answer.id, answer.auth), (dns.OK, 7, 1))
            found = [one.payload.dottedQuad() for one in answer.answers]
            self.assertEqual(sorted(found), wanted)
        self.assertEqual(self.upstream.asked, [])

    def test_ipv6(self) -> None:
        """A question for addresses gets those of the version that it asks for."""
        (a,), (aaaa,) = (self.ask(b"both", kind)[-1].answers for kind in (dns.A, dns.AAAA))
        self.assertEqual(a.payload.dottedQuad(), "10.87.0.2")
        self.assertEqual(socket.inet_ntop(socket.AF_INET6, aaaa.payload.address), "fd00:1::a57:2")
        self.assertEqual(self.ask(b"both", dns.MX)[-1].answers, [])

    def test_in_turn(self) -> None:
        """Each of those that have a name comes first in some answers."""
        first = {
            self.ask(b"web")[-1].answers[0].payload.dottedQuad() for _ in range(200)
        }  # all the same by chance: once in 2 ** 199 runs
        self.assertEqual(first, set(OURS["web"]))

    def test_no_one_serves(self) -> None:
        """If no one serves under a name of ours, the client is to try again."""
        for kind in (dns.A, dns.AAAA):
            self.assertEqual(self.ask(b"db", kind)[-1].rCode, dns.ESERVER)
        self.assertEqual(self.upstream.asked, [])

    def test_ours_of_another_kind(self) -> None:
        """Any other type of a name of ours gets an empty answer, not an error."""
        for kind in (dns.AAAA, dns.MX, dns.ALL_RECORDS):
            answer = self.ask(b"web", kind)[-1]
            self.assertEqual((answer.rCode, answer.answers), (dns.OK, []))

    def test_others(self) -> None:
        """Any other name is forwarded upstream."""
        self.assertEqual(self.ask(b"example.org"), [])
        (query, answer), *_ = self.upstream.asked
        record = dns.RRHeader(b"example.org", payload=cast(Any, dns.Record_A("192.0.2.7")))
        answer.callback(([record], [], []))
        (said,) = self.protocol.transport.sent
        self.assertEqual((query.name.name, len(said.answers), said.auth), (b"example.org", 1, 0))

    def test_unknown(self) -> None:
        """The client learns whether upstream knows no such name, or can't tell."""
        errors = {
            DNSNameError(): dns.ENAME,
            DNSServerError(): dns.ESERVER,
            ResolverError(): dns.ESERVER,
        }
        for error, code in errors.items():
            self.ask(b"example.org")
            self.upstream.asked[-1][1].errback(error)
            self.assertEqual(self.protocol.transport.sent[-1].rCode, code)

    def test_too_many(self) -> None:
        """Only so many questions are forwarded at a time; to others it says that it can't tell."""
        for number in range(FORWARDED_OF_ONE):
            self.ask(b"%d.example.org" % number)
        self.assertEqual(self.ask(b"more.example.org")[-1].rCode, dns.ESERVER)
        self.assertEqual(len(self.upstream.asked), FORWARDED_OF_ONE)
        self.upstream.asked[0][1].callback(([], [], []))
        self.ask(b"one.example.org")
        self.assertEqual(len(self.upstream.asked), FORWARDED_OF_ONE + 1)
        self.assertEqual(self.ask(b"web")[-1].rCode, dns.OK)

    def test_too_many_of_one(self) -> None:
        """One container that asks very often leaves enough for the others."""
        for number in range(MOST_FORWARDED):
            self.ask(b"%d.example.org" % number)
        for host in range(2, 7):
            before = len(self.upstream.asked)
            self.ask(b"example.org", asker=(f"10.87.0.{host}", 1))
            self.assertEqual(len(self.upstream.asked), before + 1)

    def test_very_many_addresses(self) -> None:
        """Of very many addresses the answer has only some, so that it stays small."""
        many = [f"10.87.{number // 250}.{number % 250}" for number in range(9999)]
        found = Answers(lambda *_: many, self.upstream).query(dns.Query(b"web"), "10.87.0.9")
        records, _, _ = self.successResultOf(found)
        self.assertEqual(len({one.payload.dottedQuad() for one in records}), MOST_ADDRESSES)

    def test_no_question(self) -> None:
        """What is not a query is not answered, and leaves nothing in the log."""
        for data in (b"", b"x", dns.Message(id=7, answer=1).toStr(), counted(flags=0x8180)):
            self.send(data)
        self.assertEqual(self.protocol.transport.sent, [])

    def test_one_question(self) -> None:
        """Any number of questions but one, or another opcode, is refused before it is decoded."""
        question = query()[12:]
        for data, code in (
            (counted(0), dns.EFORMAT),
            (counted(2) + 2 * question, dns.EFORMAT),
            (counted(5913) + b"\1a" * 15_000 + b"\0" + b"\0\1\0\1\xc0\x0c" * 5912, dns.EFORMAT),
            (counted(1, 1) + question, dns.EFORMAT),
            (counted(flags=0x1000) + question, dns.ENOTIMP),
            (counted(flags=0x2800) + question, dns.ENOTIMP),
        ):
            with mock.patch.object(dns.Name, "decode", side_effect=AssertionError):
                self.protocol.datagramReceived(data, ASKER)
            answer = self.protocol.transport.sent[-1]
            self.assertEqual(
                (answer.id, answer.answer, answer.rCode, answer.recDes), (7, 1, code, data[2] & 1)
            )
            self.assertEqual(answer.queries, [])

    def test_names(self) -> None:
        """A name is up to 255 bytes long, of labels of up to 63, and points nowhere."""
        longest = b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 2 + b"\x3d" + b"c" * 61 + b"\0"
        ones = b"\1a" * 127 + b"\0"
        self.assertEqual({len(longest), len(ones)}, {255})
        for name, code in (
            (longest, None),
            (ones, None),
            (b"\0", None),
            (b"\1a" + longest, dns.EFORMAT),
            (b"\1a" + ones, dns.EFORMAT),
            (b"\x40" + b"a" * 64 + b"\0", dns.EFORMAT),
            (b"\xc0\x0c", dns.EFORMAT),
            (b"\1a\xc0\x0c", dns.EFORMAT),
            (b"\3web", dns.EFORMAT),
            (b"", dns.EFORMAT),
        ):
            asked, sent = len(self.upstream.asked), len(self.protocol.transport.sent)
            self.send(counted() + name + b"\0\1\0\1" * (len(name) != 4))
            self.assertEqual(len(self.upstream.asked) - asked, code is None, name)
            codes = [answer.rCode for answer in self.protocol.transport.sent[sent:]]
            self.assertEqual(codes, [] if code is None else [code], name)

    def test_options(self) -> None:
        """What follows the question is not decoded: neither EDNS nor anything else."""
        data = query() + b"\xc0\x0c" * 500
        self.assertEqual(self.send(data[:10] + b"\xff\xff" + data[12:])[-1].rCode, dns.OK)

    def test_turns(self) -> None:
        """One turn of the reactor reads only so many datagrams, and empty ones count."""
        for data in (b"", query()):
            port = self.protocol.transport
            for _ in range(MOST_IN_A_TURN):
                self.assertGreater(port.maxThroughput, 0)
                self.send(data)
            self.assertEqual(port.maxThroughput, 0)
            self.clock.advance(0)

    def test_raises(self) -> None:
        """A question that failed upstream no longer counts as being forwarded."""
        self.upstream.query = lambda query, timeout=None: fail(DNSServerError())
        for _ in range(MOST_FORWARDED):
            self.ask(b"example.org")
        self.upstream.query = lambda query, timeout=None: succeed(([], [], []))
        self.assertEqual(self.ask(b"example.org")[-1].rCode, dns.OK)


class StreamTests(SynchronousTestCase):
    """Questions that come over TCP."""

    def setUp(self) -> None:
        self.upstream, self.clock = Upstream(), Clock()
        answers = Answers(lambda name, asker: OURS.get(name), self.upstream)
        self.factory = Shared(Server(answers, self.clock))

    def connect(self, host: str = "10.87.0.9") -> Any:
        """A connection with its transport; None if it is refused."""
        address = IPv4Address("TCP", host, 1234)
        connection = self.factory.buildProtocol(address)
        if connection is not None:
            connection.makeConnection(StringTransport(peerAddress=address))
        return connection

    def send(self, connection: Any, *queries: Any) -> None:
        """Send queries, all at once."""
        connection.dataReceived(b"".join(struct.pack(">H", len(q)) + q for q in queries))

    def answers(self, connection: Any) -> Any:
        """The codes of all answers up to now."""
        data, codes = connection.transport.value(), []
        while data:
            (length,) = struct.unpack_from(">H", data)
            codes.append(data[5] & 15)
            data = data[2 + length :]
        return codes

    def test_one_after_the_other(self) -> None:
        """Queries that come at once are answered one by one, each after the one before."""
        connection = self.connect()
        self.send(connection, query(b"example.org"), query(), counted(0), query())
        self.clock.advance(1)
        self.assertEqual(self.answers(connection), [])
        self.assertEqual(connection.transport.producerState, "paused")
        self.upstream.asked[0][1].callback(([], [], []))
        self.assertEqual(self.answers(connection), [dns.OK])
        self.clock.advance(1)
        self.assertEqual(self.answers(connection), [dns.OK, dns.OK, dns.EFORMAT, dns.OK])
        self.assertEqual(connection.transport.producerState, "producing")

    def test_hung_up_on(self) -> None:
        """A client is cut off if it sends no query or a too long one, or reads no answers."""
        for hostile in (
            lambda connection: self.send(connection, b"x"),
            lambda connection: connection.dataReceived(struct.pack(">H", LONGEST + 1)),
            lambda connection: connection.transport.producer.pauseProducing(),
        ):
            connection = self.connect()
            hostile(connection)
            self.assertTrue(connection.transport.disconnected or connection.transport.disconnecting)

    def test_gone(self) -> None:
        """An answer to a client that has hung up is dropped."""
        connection = self.connect()
        self.send(connection, query(b"example.org"))
        connection.connectionLost(Failure(ConnectionDone()))
        self.upstream.asked[0][1].callback(([], [], []))
        self.assertEqual(self.answers(connection), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_crowd(self) -> None:
        """One container's idle connections leave room for others, until they are closed."""
        crowd = [self.connect() for _ in range(MOST_CONNECTIONS)]
        taken = [connection for connection in crowd if connection is not None]
        self.assertEqual(len(taken), MOST_CONNECTIONS // 2)
        other = self.connect("10.87.0.10")
        self.send(other, query())
        self.assertEqual(self.answers(other), [dns.OK])
        for connection in taken:
            connection.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(self.connect())


class SharesTests(SynchronousTestCase):
    """Shares: no one may have more than what is left for the others."""

    def test_newcomers(self) -> None:
        """However much each one wants, some is left for the next; all can be given back."""
        shares = Shares(128)
        for who in "abcdefg":
            while shares.take(who):
                pass
        self.assertEqual(list(shares.taken.values()), [64, 32, 16, 8, 4, 2, 1])
        for who, number in list(shares.taken.items()):
            for _ in range(number):
                shares.give_back(who)
        self.assertEqual(shares.taken, {})


class FakeReactor(MemoryReactorClock):
    """A reactor that also listens for datagrams."""

    def __init__(self) -> None:
        super().__init__()
        self.udp: list[Any] = []
        self.taken = False

    def listenUDP(self, port: int, protocol: Any, interface: str = "") -> Any:
        self.udp.append((interface, port))
        return self

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        super().listenTCP(port, factory, backlog, interface)
        return self

    def stopListening(self) -> None:
        self.udp = []


class ListenTests(SynchronousTestCase):
    """Where it listens, and when."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        path = f"{make_folder(self)}/resolv.conf"
        with open(path, "w") as file:
            file.write("nameserver 192.0.2.53\n")
        self.resolver = Resolver(self.reactor, "10.87.0.1", resolv_conf=path)

    def test_address(self) -> None:
        """It listens once, on the bridge's address only, over UDP and TCP."""
        self.resolver.start()
        self.resolver.start()
        self.assertEqual(self.reactor.udp, [("10.87.0.1", 53)])
        ((port, _, _, interface),) = self.reactor.tcpServers
        self.assertEqual((interface, port), ("10.87.0.1", 53))

    def test_stop(self) -> None:
        """When it stops, no timer is left; and it can start again."""
        for _ in range(2):
            self.resolver.start()
            self.resolver.stop()
            self.assertEqual((self.reactor.udp, self.reactor.getDelayedCalls()), ([], []))

    def test_taken(self) -> None:
        """If the port is taken, it says so and listens on nothing."""
        self.reactor.taken = True
        error = self.assertRaises(MachineAtFault, self.resolver.start)
        self.assertIn("10.87.0.1, port 53: Address already in use", str(error))
        self.assertEqual((self.reactor.udp, self.reactor.getDelayedCalls()), ([], []))
