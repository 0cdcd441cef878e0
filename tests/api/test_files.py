"""Files of instances, over HTTP: on a fake machine."""

import json
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from tests.api.test_resources import WebTestCase
from tests.api.test_server import SiteCase
from txcontain.runtime.session import PASSED_AS_KILL

HEADERS = "Host: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class ReadTests(WebTestCase):
    """GET /instances/INSTANCE/files, .../diff."""

    def test_stream(self) -> None:
        """What tar writes is the answer, as it comes."""
        name = self.launch().name
        response = self.asked("GET", f"/instances/{name}/files?path=/etc/hosts")
        (joiner,) = self.reactor.joiners
        joiner.write_out(b"tar")
        self.settle()
        answer = self.successResultOf(response)
        kind = answer.headers.getRawHeaders("Content-Type")
        self.assertEqual((answer.code, kind), (200, ["application/x-tar"]))
        joiner.end()
        joiner.close_pipes()
        content = answer.content()
        self.settle()
        self.assertEqual(self.successResultOf(content), b"tar")

    def test_hung_up(self) -> None:
        """A client that hangs up has its tar killed."""
        name = self.launch().name
        response = self.asked("GET", f"/instances/{name}/files?path=/")
        response.cancel()
        self.settle()
        self.failureResultOf(response)
        (joiner,) = self.reactor.joiners
        self.assertEqual(joiner.signals, [PASSED_AS_KILL])
        joiner.end(None, 9)
        joiner.close_pipes()
        self.settle()

    def test_hung_up_before(self) -> None:
        """So does one that hangs up before tar runs."""
        name = self.launch().name
        self.reactor.works = False
        response = self.asked("GET", f"/instances/{name}/files?path=/")
        response.cancel()
        self.settle()
        self.failureResultOf(response)
        (joiner,) = self.reactor.joiners
        joiner.carry_out()
        self.settle()
        self.assertEqual(joiner.signals, [PASSED_AS_KILL])
        joiner.end(None, 9)
        joiner.close_pipes()
        self.settle()

    def test_diff(self) -> None:
        """An instance without a writable part has changed nothing."""
        name = self.launch().name
        self.assertEqual(self.get(f"/instances/{name}/diff"), {"changes": [], "complete": True})


class WriteTests(SiteCase):
    """PUT /instances/INSTANCE/files, with a body that is taken as it comes."""

    def begin(self, query: str = "path=/tmp", name: str = "") -> tuple[Any, ...]:
        """A request without its body."""
        name = name or self.launch().name
        connection, transport = self.connect()
        transport.loseWriteConnection = lambda: None
        head = f"PUT /instances/{name}/files?{query} HTTP/1.1\r\n{HEADERS}"
        connection.dataReceived(head.encode())
        self.reactor.advance(0)
        return connection, transport

    def send(self, connection: Any, data: bytes) -> None:
        """Send a part of the body; the last one is empty."""
        connection.dataReceived(b"%x\r\n%s\r\n" % (len(data), data))

    def test_streamed(self) -> None:
        """Tar gets each part when it comes, far beyond what a request may have otherwise."""
        connection, transport = self.begin()
        (joiner,) = self.reactor.joiners
        part = bytes(1 << 20)
        for _ in range(20):
            self.send(connection, part)
        self.assertEqual(len(joiner.given), 20 << 20)
        self.assertFalse(joiner.input_closed)
        self.send(connection, b"")
        self.assertTrue(joiner.input_closed)
        joiner.end()
        joiner.close_pipes()
        head, _, body = transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"200 OK", head)
        self.assertIn(b"connection: close", head.lower())
        self.assertEqual(json.loads(body), {"path": "/tmp"})
        self.assertTrue(transport.disconnecting)

    def test_flow(self) -> None:
        """While tar does not read, neither does the manager; nor before tar runs."""
        name = self.launch().name
        self.reactor.works = False
        connection, transport = self.begin(name=name)
        (joiner,) = self.reactor.joiners
        self.assertEqual(transport.producerState, "paused")
        self.send(connection, b"early")
        joiner.carry_out()
        self.reactor.advance(0)
        self.assertEqual((joiner.given, transport.producerState), (b"early", "producing"))
        joiner.producer.pauseProducing()
        self.assertEqual(transport.producerState, "paused")
        joiner.producer.resumeProducing()
        self.assertEqual(transport.producerState, "producing")
        joiner.end()
        joiner.close_pipes()
        self.hang_up(connection)

    def test_refused(self) -> None:
        """A refusal is sent at once; what the client still sends is thrown away."""
        for name, path, status in (("no", "/tmp", b"404"), (self.launch().name, "tmp", b"409")):
            connection, transport = self.begin(f"path={path}", name)
            self.assertIn(status, transport.value().split(b"\r\n")[0])
            self.send(connection, b"x" * 100)
            self.assertFalse(transport.disconnecting)
            self.send(connection, b"")
            self.assertTrue(transport.disconnecting)
            self.hang_up(connection)

    def test_ends_early(self) -> None:
        """If tar ends before the body does, its answer is sent, and the rest thrown away."""
        connection, transport = self.begin()
        (joiner,) = self.reactor.joiners
        joiner.write_out(b"tar: /tmp: Read-only file system\n", 2)
        joiner.end(2)
        joiner.close_pipes()
        self.assertIn(b"409 Conflict", transport.value())
        self.send(connection, b"x" * 100)
        self.hang_up(connection)

    def test_client_gone(self) -> None:
        """A client that hangs up half-way has its tar killed."""
        connection, _ = self.begin()
        (joiner,) = self.reactor.joiners
        self.send(connection, b"half")
        self.hang_up(connection)
        self.assertEqual(joiner.signals, [PASSED_AS_KILL])
        joiner.end(None, 9)
        joiner.close_pipes()

    def test_kept_and_too_long(self) -> None:
        """A body that was kept, and is too long for that, is refused before tar is started."""
        name = self.launch().name
        connection, transport = self.connect()
        head = f"PUT http://localhost/instances/{name}/files?path=/tmp HTTP/1.1\r\n{HEADERS}"
        connection.dataReceived(head.encode())
        for size in (1 << 20, 1, 0):
            self.send(connection, bytes(size))
        self.reactor.advance(0)
        self.assertIn(b"the body is longer", transport.value())
        self.assertEqual(self.reactor.joiners, [])

    def hang_up(self, connection: Any) -> None:
        """Lose a connection."""
        connection.connectionLost(Failure(ConnectionLost()))
