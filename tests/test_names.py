"""The resolver of the bridge: what it answers, to whom, and what it does not take."""

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError, ResolverError
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from txcontain.errors import MachineAtFault
from txcontain.names import MOST_FORWARDED, Answers, Names, Server

OURS = {"web": ["10.87.0.2", "10.87.0.3"], "web-1": ["10.87.0.2"]}


class FakeTransport:
    """Keeps what is sent, as messages."""

    def __init__(self):
        self.sent = []

    def write(self, data, address=None):
        message = dns.Message()
        message.fromStr(data)
        self.sent.append(message)


class Others:
    """Another resolver, that answers each question when it is told to."""

    def __init__(self):
        self.asked = []

    def query(self, query, timeout=None):
        answer = Deferred()
        self.asked.append((query, answer))
        return answer


class AnswerTests(SynchronousTestCase):
    """Questions that come as datagrams."""

    def setUp(self):
        self.others = Others()
        server = Server(Answers(lambda name: OURS.get(name, []), self.others))
        self.protocol = dns.DNSDatagramProtocol(server)
        self.protocol.makeConnection(FakeTransport())
        self.protocol.startProtocol()

    def ask(self, name, kind=dns.A):
        """Send a question; return what was answered up to now."""
        message = dns.Message(id=7, recDes=1)
        message.addQuery(name, kind)
        self.protocol.datagramReceived(message.toStr(), ("10.87.0.9", 1234))
        return self.protocol.transport.sent

    def test_ours(self):
        """A name of ours has the addresses of all that bear it, in any case of letters."""
        for name, wanted in ((b"web", OURS["web"]), (b"WEB-1", OURS["web-1"])):
            answer = self.ask(name)[-1]
            self.assertEqual((answer.rCode, answer.id, answer.auth), (dns.OK, 7, 1))
            self.assertEqual([one.payload.dottedQuad() for one in answer.answers], wanted)
        self.assertEqual(self.others.asked, [])

    def test_ours_of_another_kind(self):
        """A name of ours has nothing else, which is not the same as not to be known."""
        for kind in (dns.AAAA, dns.MX, dns.ALL_RECORDS):
            answer = self.ask(b"web", kind)[-1]
            self.assertEqual((answer.rCode, answer.answers), (dns.OK, []))

    def test_others(self):
        """Any other name is the other resolver's to answer."""
        self.assertEqual(self.ask(b"example.org"), [])
        (query, answer), *_ = self.others.asked
        record = dns.RRHeader(b"example.org", payload=dns.Record_A("192.0.2.7"))
        answer.callback(([record], [], []))
        (said,) = self.protocol.transport.sent
        self.assertEqual((query.name.name, len(said.answers), said.auth), (b"example.org", 1, 0))

    def test_unknown(self):
        """That it knows no such name is passed on, and that it can't tell as well."""
        errors = {DNSNameError(): dns.ENAME, DNSServerError(): dns.ESERVER,
                  ResolverError(): dns.ESERVER}  # fmt: skip
        for error, code in errors.items():
            self.ask(b"example.org")
            self.others.asked[-1][1].errback(error)
            self.assertEqual(self.protocol.transport.sent[-1].rCode, code)

    def test_too_many(self):
        """No more are passed on at a time than a bound; past it, it says that it can't tell."""
        for number in range(MOST_FORWARDED):
            self.ask(b"%d.example.org" % number)
        self.assertEqual(self.ask(b"more.example.org")[-1].rCode, dns.ESERVER)
        self.assertEqual(len(self.others.asked), MOST_FORWARDED)
        self.others.asked[0][1].callback(([], [], []))
        self.ask(b"one.example.org")
        self.assertEqual(len(self.others.asked), MOST_FORWARDED + 1)
        self.assertEqual(self.ask(b"web")[-1].rCode, dns.OK)

    def test_no_question(self):
        """What is no question is not answered, and leaves nothing in the log."""
        for message in (dns.Message(id=7), dns.Message(id=7, answer=1)):
            self.protocol.datagramReceived(message.toStr(), ("10.87.0.9", 1234))
        self.assertEqual(self.protocol.transport.sent, [])

    def test_raises(self):
        """A resolver that raises is one that can't tell, and counts no longer."""
        self.others.query = lambda query, timeout=None: fail(DNSServerError())
        for _ in range(MOST_FORWARDED + 1):
            self.ask(b"example.org")
        self.others.query = lambda query, timeout=None: succeed(([], [], []))
        self.assertEqual(self.ask(b"example.org")[-1].rCode, dns.OK)


class FakeReactor(MemoryReactorClock):
    """A reactor that also listens for datagrams."""

    def __init__(self):
        super().__init__()
        self.udp = []
        self.taken = False

    def listenUDP(self, port, protocol, interface=""):
        self.udp.append((interface, port))
        return self

    def listenTCP(self, port, factory, backlog=50, interface=""):
        if self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        super().listenTCP(port, factory, backlog, interface)
        return self

    def stopListening(self):
        self.udp = []


class ListenTests(SynchronousTestCase):
    """Where it listens, and when."""

    def setUp(self):
        self.reactor = FakeReactor()
        path = f"{make_folder(self)}/resolv.conf"
        with open(path, "w") as file:
            file.write("nameserver 192.0.2.53\n")
        self.names = Names(self.reactor, "10.87.0.1", resolv_conf=path)

    def test_address(self):
        """It listens on the bridge's address alone, over UDP and TCP, however often it starts."""
        self.names.start()
        self.names.start()
        self.assertEqual(self.reactor.udp, [("10.87.0.1", 53)])
        ((port, _, _, interface),) = self.reactor.tcpServers
        self.assertEqual((interface, port), ("10.87.0.1", 53))

    def test_stop(self):
        """When it stops, nothing is left to be done later; and it can start again."""
        for _ in range(2):
            self.names.start()
            self.names.stop()
            self.assertEqual((self.reactor.udp, self.reactor.getDelayedCalls()), ([], []))

    def test_taken(self):
        """Where the port is taken it says so, and listens on nothing."""
        self.reactor.taken = True
        error = self.assertRaises(MachineAtFault, self.names.start)
        self.assertIn("10.87.0.1, port 53: Address already in use", str(error))
        self.assertEqual((self.reactor.udp, self.reactor.getDelayedCalls()), ([], []))
