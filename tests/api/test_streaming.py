"""Bodies that are handed on as they come: refused in time, held up, given up."""

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport

from tests.api.test_hostile_http import HOST, HostileCase
from tests.fakes import MachineTestCase, Taker
from txcontain.api import volumes
from txcontain.api.access import Caller
from txcontain.api.bodies import Body
from txcontain.api.server import LINGER, LONGEST_REQUEST
from txcontain.errors import InUse

PUT = b"PUT /volumes/a/import HTTP/1.1\r\n" + HOST


class BodyTests(MachineTestCase):
    """A body by itself."""

    def setUp(self) -> None:
        super().setUp()
        self.transport, self.taker = StringTransport(), Taker()
        self.body = Body(self.transport)

    def test_held_up(self) -> None:
        """Nothing is read before someone wants it, nor while the consumer has enough."""
        states = [self.transport.producerState]
        delivered = self.body.deliver(self.taker)
        for change in (
            lambda: None,
            self.taker.producer.pauseProducing,
            self.taker.producer.resumeProducing,
        ):
            change()
            states.append(self.transport.producerState)
        self.assertEqual(states, ["paused", "producing", "paused", "producing"])
        self.body.received(b"abc")
        self.assertNoResult(delivered)
        self.body.all_received()
        self.successResultOf(delivered)
        self.assertEqual((self.taker.taken, self.taker.producer), (b"abc", None))

    def test_peek(self) -> None:
        """The first bytes can be seen, and are delivered all the same."""
        seen = self.body.peek(4)
        for part in (b"ab", b"cdef"):
            self.assertNoResult(seen)
            self.body.received(part)
        self.assertEqual(
            (self.successResultOf(seen), self.transport.producerState), (b"abcd", "paused")
        )
        self.body.deliver(self.taker)
        self.assertEqual(self.taker.taken, b"abcdef")

    def test_short(self) -> None:
        """If there are fewer, these are all."""
        self.body.received(b"ab")
        seen = self.body.peek(4)
        self.body.all_received()
        self.assertEqual(self.successResultOf(seen), b"ab")
        self.successResultOf(self.body.deliver(self.taker))

    def test_lost(self) -> None:
        """If the client hangs up, whoever waits for more is told."""
        for wait in (lambda body: body.peek(4), lambda body: body.deliver(Taker())):
            body = Body(StringTransport())
            waiting = wait(body)
            body.received(b"ab")
            body.lost()
            self.failureResultOf(waiting, ConnectionLost)

    def test_unwanted(self) -> None:
        """What comes after the answer is thrown away."""
        self.body.received(b"ab")
        self.body.discard()
        self.body.received(b"cd")
        self.assertEqual(self.transport.producerState, "producing")
        self.body.deliver(self.taker)
        self.assertEqual(self.taker.taken, b"")


class Transport(StringTransport):
    """A transport that can close one half."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Send no more."""
        self.half_closed = True


class ServerTests(HostileCase):
    """A body that comes through the server."""

    def setUp(self) -> None:
        super().setUp()
        self.taker = Taker()
        self.outcomes: list[Any] = []

    def connect(self) -> tuple[Any, ...]:
        connection, transport = self.site.buildProtocol(None), Transport()
        connection.makeConnection(transport)
        self.addCleanup(self.hang_up, connection)
        return connection, transport

    def take(self, refusal: Exception | None = None) -> None:
        """Have the resource take the body, or refuse it."""

        async def take(manager: Any, name: str, stream: Body) -> None:
            if refusal is not None:
                raise refusal
            try:
                await stream.deliver(self.taker)
            except ConnectionLost as error:
                self.outcomes.append(error)
                raise InUse("gone") from error

        self.patch(volumes, "import_volume", take)

    def test_long(self) -> None:
        """One that is longer than any other request is taken as it comes, and then answered."""
        self.take()
        length = LONGEST_REQUEST + 100_000
        connection, transport = self.connect()
        connection.dataReceived(PUT + b"Content-Length: %d\r\n\r\n" % length)
        for _ in range(length // 100_000):
            connection.dataReceived(b"x" * 100_000)
        self.assertEqual(transport.value(), b"")
        connection.dataReceived(b"x" * (length % 100_000))
        self.reactor.advance(0)
        self.assertEqual(len(self.taker.taken), length)
        self.assertIn(b'{"imported": "a"}', transport.value())
        self.assertIn(b"Connection: close", transport.value())
        self.assertTrue(transport.disconnecting)

    def test_slow(self) -> None:
        """One that takes longer than any other request is not given up."""
        self.take()
        connection, transport = self.connect()
        connection.dataReceived(PUT + b"Content-Length: 10\r\n\r\n")
        for _ in range(10):
            self.reactor.advance(20)
            connection.dataReceived(b"x")
        self.assertEqual(self.taker.taken, b"x" * 10)
        self.assertIn(b"200 OK", transport.value())

    def assert_refused(self, head: bytes, *words: bytes) -> None:
        """It is answered before the body has come, which is then thrown away, for a while."""
        connection, transport = self.connect()
        connection.dataReceived(PUT + head + b"Content-Length: 1000000\r\n\r\nabc")
        self.reactor.advance(0)
        for word in words:
            self.assertIn(word, transport.value())
        self.assertEqual((transport.half_closed, transport.disconnecting), (True, False))
        answer = transport.value()
        connection.dataReceived(b"x" * 1000)
        self.assertEqual((transport.value(), self.taker.taken), (answer, b""))
        self.reactor.advance(LINGER)
        self.assertTrue(transport.disconnecting)

    def test_refused(self) -> None:
        """What a resource or the server refuses is refused at once, and the client can read why."""
        self.take(InUse("there is data in it"))
        self.assert_refused(b"", b"409 Conflict", b"there is data in it")
        self.assert_refused(b"Origin: http://evil.example\r\n", b"403 Forbidden")
        self.patch(self.site, "access", Only(Caller("x", "read")))
        self.assert_refused(b"", b"403 Forbidden", b"read-only")

    def test_unknown_caller(self) -> None:
        """One of whom nothing is known sends no body that is handed on."""
        self.take()
        self.patch(self.site, "access", Only(None))
        answer, closed = self.send(PUT + b"Content-Length: 10000000\r\n\r\nabc")
        self.assertIn(b"401 Unauthorized", answer)
        self.assertEqual((closed, self.taker.taken), (True, b""))

    def test_hung_up(self) -> None:
        """A client that hangs up half-way is noticed."""
        self.take()
        self.send(PUT + b"Content-Length: 10\r\n\r\nabc")
        self.assertEqual(len(self.outcomes), 1)

    def test_bad_chunk(self) -> None:
        """A body that can't be understood ends there, with the connection."""
        self.take()
        answer, closed = self.send(
            PUT + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"nonsense\r\n"
        )
        self.assertIn(b"400 Bad Request", answer)
        self.assertEqual((closed, self.taker.taken, len(self.outcomes)), (True, b"x", 1))

    def test_what_follows(self) -> None:
        """No other request is read after it."""
        self.take()
        request = PUT + b"Content-Length: 3\r\n\r\nabc"
        self.assertEqual(self.statuses(request + request), [200])


class Only:
    """Everyone is this caller."""

    def __init__(self, caller: Caller | None) -> None:
        self.caller: Callable[..., Caller | None] = lambda *_: caller
