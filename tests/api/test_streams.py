"""A command's streams over a WebSocket, byte by byte, on a fake machine."""

import json
import signal
import socket
from typing import Any

from twisted.internet.testing import StringTransport
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from tests.api.test_hostile_http import HostileCase
from tests.fakes import FakeJoiner
from txcontain.api.access import Caller
from txcontain.api.server import ConnectionLimits
from txcontain.api.streams import LONGEST_CONTROL, LOOK_AFTER, SUBPROTOCOL
from txcontain.runtime.session import Session

HEADERS = (
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
)
STDIN, STDOUT, STATUS, RESIZE, CLOSE = 0, 1, 3, 4, 255


class StreamsCase(HostileCase):
    """A test with an instance that runs, and a client of it."""

    verb = "exec"

    def setUp(self) -> None:
        super().setUp()
        self.site.limits = ConnectionLimits()
        self.name = self.launch().name

    def request(self, query: str = "command=cat", *headers: str, without: str = "") -> bytes:
        """What is answered to a request for a WebSocket."""
        kept = [line for line in HEADERS if not line.startswith(without or "-")]
        head = [f"GET /instances/{self.name}/{self.verb}?{query} HTTP/1.1", *kept, *headers, "", ""]
        self.connection, self.transport = self.connect()
        self.connection.dataReceived("\r\n".join(head).encode())
        self.reactor.advance(0)
        answer: bytes = self.transport.value()
        self.transport.clear()
        return answer

    def open(self, query: str = "command=cat") -> tuple[Session, FakeJoiner]:
        """Run a command over a WebSocket."""
        self.be_client(self.request(query))
        joiner = self.reactor.joiners[-1]
        return joiner.session, joiner

    def be_client(self, answer: bytes) -> None:
        """This is the end of a WebSocket that was agreed to."""
        self.assertTrue(answer.startswith(b"HTTP/1.1 101 "), answer)
        self.client: Any = Connection(ConnectionType.CLIENT)
        self.client.receive_data(answer.partition(b"\r\n\r\n")[2])

    def send_frame(self, event: Any) -> None:
        """The client sends a frame."""
        self.connection.dataReceived(self.client.send(event))

    def say(self, channel: int, data: bytes) -> None:
        """The client sends something through a channel."""
        self.send_frame(BytesMessage(bytes([channel]) + data))

    def told(self) -> list[Any]:
        """What the client got: (channel, data), or an event."""
        transport: StringTransport = self.transport
        self.client.receive_data(transport.value())
        transport.clear()
        return [
            (event.data[0], bytes(event.data[1:])) if isinstance(event, BytesMessage) else event
            for event in self.client.events()
        ]


class HandshakeTests(StreamsCase):
    """Before a command runs."""

    def test_as_all_else(self) -> None:
        """Who may not ask is refused as everywhere, and nothing is run."""
        for headers, status in (
            (["Origin: http://evil.example"], b"403"),
            (["Sec-Fetch-Site: cross-site"], b"403"),
        ):
            self.assertIn(status, self.request("command=cat", *headers)[:20])
        self.assertIn(
            b"403", self.request("command=cat", "Host: evil.example", without="Host")[:20]
        )
        for caller, status in ((None, b"401"), (Caller("ann", "read"), b"403")):
            self.patch(self.site.access, "caller", lambda *_, caller=caller: caller)
            self.assertIn(status, self.request()[:20])
        self.assertEqual(self.reactor.joiners, [])

    def test_no_websocket(self) -> None:
        """What asks for no WebSocket, or for another subprotocol, is told what this is."""
        for lacking in ("Upgrade", "Sec-WebSocket-Protocol", "Sec-WebSocket-Key"):
            answer = self.request(without=lacking)
            self.assertIn(b"409 Bad Request", answer)
            self.assertIn(b"this is a WebSocket (RFC 6455)", answer)
        self.assertEqual(self.reactor.joiners, [])

    def test_refused(self) -> None:
        """What can't be run is refused in HTTP, with its type."""
        self.assertIn(b"409 Bad Request", self.request("tty=1&rows=70000"))
        self.name = "nobody"
        self.assertIn(b"404 Not Found", self.request())

    def test_logged(self) -> None:
        """The manager's log says who has asked."""
        self.open()
        self.reactor.advance(1)
        self.assertIn(
            f"loopback GET /instances/{self.name}/exec?command=cat", self.logged.getvalue()
        )

    def test_gone(self) -> None:
        """A client that hangs up before its command runs has it ended."""
        self.reactor.works = False
        self.request()
        self.hang_up(self.connection)
        (joiner,) = self.reactor.joiners
        joiner.carry_out()
        self.assertEqual(joiner.signals, [signal.SIGHUP])


class StreamTests(StreamsCase):
    """While it runs."""

    def test_both_ways(self) -> None:
        """Input goes in, also in pieces; output and the end come out, and the connection ends."""
        _, joiner = self.open()
        self.say(STDIN, b"in")
        for byte in self.client.send(BytesMessage(b"\0put")):
            self.connection.dataReceived(bytes([byte]))
        self.say(CLOSE, bytes([STDIN]))
        self.assertEqual((joiner.given, joiner.input_closed), (b"input", True))
        joiner.write_out(b"out")
        joiner.write_out(b"err", 2)
        joiner.end(3)
        joiner.close_pipes()
        first, second, (channel, said), close = self.told()
        self.assertEqual((first, second, channel), ((1, b"out"), (2, b"err"), STATUS))
        status = json.loads(said)
        self.assertEqual(status["exit"]["reason"], "exit status 3")
        self.assertEqual(status["details"]["causes"][0]["message"], "3")
        self.assertIsInstance(close, CloseConnection)
        self.assertTrue(self.transport.disconnecting)

    def test_success(self) -> None:
        """An end with status 0 is a success, as Kubernetes says it."""
        _, joiner = self.open()
        joiner.end()
        joiner.close_pipes()
        self.assertEqual(json.loads(self.told()[0][1])["status"], "Success")

    def test_flow(self) -> None:
        """A client that does not read makes the command wait, and the other way round."""
        _, joiner = self.open()
        self.assertFalse(joiner.paused)
        self.connection.pauseProducing()
        self.assertTrue(joiner.paused)
        self.send_frame(Ping(b"x"))  # which is not answered to one who does not read
        self.assertEqual(self.told(), [])
        self.connection.resumeProducing()
        self.assertFalse(joiner.paused)
        joiner.producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        joiner.producer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        joiner.producer.pauseProducing()
        joiner.producer.stopProducing()  # it has closed its input
        self.assertEqual(self.transport.producerState, "producing")

    def test_gone_while_held_up(self) -> None:
        """A client that hangs up while the command reads nothing has it ended all the same."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        _, joiner = self.open()
        self.transport.fileno = near.fileno
        joiner.producer.pauseProducing()
        far.send(b"never read")
        self.reactor.pump([LOOK_AFTER] * 3)
        self.assertFalse(self.transport.disconnected)
        far.close()
        self.reactor.advance(LOOK_AFTER)
        self.assertTrue(self.transport.disconnected)
        self.hang_up(self.connection)
        self.assertEqual(joiner.signals, [signal.SIGHUP])

    def test_ping(self) -> None:
        """A ping is answered."""
        self.open()
        self.send_frame(Ping(b"x"))
        self.assertEqual(self.told(), [Pong(b"x")])

    def test_size(self) -> None:
        """The size of the window is told to the terminal."""
        self.open()
        sizes: list[Any] = []
        self.patch(Session, "resize", lambda _, size: sizes.append((size.rows, size.columns)))
        self.say(RESIZE, b'{"Width": 100, "Height": 30}')
        self.assertEqual(sizes, [(30, 100)])

    def test_nonsense(self) -> None:
        """What makes no sense ends the connection, and with it the command."""
        for event, code in (
            (TextMessage("x"), CloseReason.UNSUPPORTED_DATA),
            (BytesMessage(b"\7x"), CloseReason.UNSUPPORTED_DATA),
            (BytesMessage(b""), CloseReason.UNSUPPORTED_DATA),
            (BytesMessage(b"\4[]"), CloseReason.UNSUPPORTED_DATA),
            (BytesMessage(b'\4{"Width": 1e9, "Height": 1}'), CloseReason.UNSUPPORTED_DATA),
            (BytesMessage(b"\4" + b" " * (LONGEST_CONTROL + 1)), CloseReason.MESSAGE_TOO_BIG),
        ):
            _, joiner = self.open()
            self.send_frame(event)
            self.assertEqual([said.code for said in self.told()], [code])
            self.hang_up(self.connection)
            self.assertEqual(joiner.signals, [signal.SIGHUP])
            joiner.end(None, signal.SIGHUP)
            joiner.close_pipes()

    def test_garbage(self) -> None:
        """So do bytes that are no frames."""
        self.open()
        self.connection.dataReceived(b"\xff" * 100)
        self.assertTrue(self.transport.disconnecting)
        self.connection.dataReceived(b"more")

    def test_closed(self) -> None:
        """A client that closes the connection has its command ended."""
        _, joiner = self.open()
        self.send_frame(CloseConnection(CloseReason.NORMAL_CLOSURE))
        self.assertTrue(self.transport.disconnecting)
        self.hang_up(self.connection)
        self.assertEqual(joiner.signals, [signal.SIGHUP])
