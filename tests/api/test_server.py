"""What the HTTP server takes from whom, byte by byte."""

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.fakes import ManagerTestCase
from tests.support import document
from txcontain.api import server, verbs
from txcontain.api.server import ApiSite, ConnectionLimits
from txcontain.container.document import LONGEST_DOCUMENT
from txcontain.engine.this_host import ThisHost


class SiteCase(ManagerTestCase):
    """The server with a manager behind it."""

    def setUp(self) -> None:
        super().setUp()
        self.site = ApiSite(ThisHost(self.manager))

    def connect(self) -> tuple[Any, ...]:
        """A client's connection, and what is sent to it."""
        connection, transport = self.site.buildProtocol(None), StringTransport()
        connection.makeConnection(transport)
        return connection, transport

    def ask(
        self, method: str, path: str, *headers: str, body: bytes = b"", version: str = "1.1"
    ) -> tuple[str, bytes]:
        """Send a request; returns the head of the answer and its body."""
        connection, transport = self.connect()
        lines = [f"{method} {path} HTTP/{version}", *headers, f"Content-Length: {len(body)}"]
        connection.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        self.reactor.advance(0)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        return head.decode(), body

    def status(self, *arguments: str, **options: Any) -> int:
        """The status that a request is answered with."""
        return int(self.ask(*arguments, **options)[0].split()[1])


class SiteTests(SiteCase):
    """Who is answered, and how."""

    def test_ours(self) -> None:
        """Every name of this host is accepted, with any port or none; so is no name at all."""
        for host in ("localhost:8080", "localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080"):
            self.assertEqual(self.status("GET", "/list", f"Host: {host}"), 200, host)
        self.assertEqual(self.status("GET", "/list", version="1.0"), 200)

    def test_timed_from_its_first_line(self) -> None:
        """A launch knows how long its request was read: from its first line on, body and all."""
        self.add()
        now = [100.0]
        for module in (server, verbs):
            self.patch(module, "perf_counter", lambda: now[0])
        connection, _ = self.connect()
        body = b'{"config": "web"}'
        head = f"POST /instances HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        connection.dataReceived(head.encode())
        now[0] += 0.25
        connection.dataReceived(b"\r\n")
        now[0] += 0.5
        connection.dataReceived(body)
        self.reactor.advance(0)
        (instance,) = self.manager.instances.values()
        self.assertEqual(instance.phases["http"], 0.75)

    def test_foreign_host(self) -> None:
        """Any other name is refused: a web page may have made it lead here."""
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::1",
            "10.0.0.1:8080",
            "",
            "evil@evil.example",
        ):
            head, body = self.ask("POST", "/doctor", f"Host: {host}")
            self.assertTrue(head.startswith("HTTP/1.1 403 Forbidden"), (host, head))
            self.assertEqual(body, b"")

    def test_own_origin(self) -> None:
        """A page of this very server may ask it."""
        self.assertEqual(
            self.status("GET", "/list", "Host: localhost:8080", "Origin: http://localhost:8080"),
            200,
        )

    def test_foreign_origin(self) -> None:
        """A page of any other server may not, even of a container on this host."""
        self.add()
        for origin in (
            "http://evil.example",
            "null",
            "http://localhost:10000",
            "http://[",
            "https://localhost:8080",
            "http://127.0.0.1:8080",
            "",
        ):
            status = self.status(
                "POST",
                "/launch",
                "Host: localhost:8080",
                f"Origin: {origin}",
                body=b'{"name": "web", "major": "1", "minor": "01"}',
            )
            self.assertEqual((status, self.reactor.inits), (403, []), origin)

    def test_browser(self) -> None:
        """A request is refused if the browser says that it comes from another site."""
        for site, status in (
            ("none", 200),
            ("same-origin", 200),
            ("cross-site", 403),
            ("same-site", 403),
            ("what", 403),
        ):
            headers = "Host: localhost:8080", f"Sec-Fetch-Site: {site}"
            self.assertEqual(self.status("GET", "/list", *headers), status, site)

    def test_targets(self) -> None:
        """A target is a path, or a whole URL of this server; anything else is a 400."""
        for target, status in (
            ("/list", 200),
            ("http://localhost:8080/list", 200),
            ("list", 400),
            ("http://evil.example/list", 403),
        ):
            self.assertEqual(self.status("GET", target, "Host: localhost:8080"), status, target)

    def test_two_hosts(self) -> None:
        """A request has one Host."""
        self.assertEqual(self.status("GET", "/list"), 400)
        self.assertEqual(self.status("GET", "/list", "Host: localhost", "Host: localhost"), 400)

    def test_malformed(self) -> None:
        """After the answer to such a request the connection ends, and no other is answered."""
        good = b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for target, hosts in (
            (b"/list", b""),
            (b"list", b"Host: localhost\r\n"),
            (b"/list", b"Host: localhost\r\nHost: localhost\r\n"),
        ):
            connection, transport = self.connect()
            connection.dataReceived(b"GET %b HTTP/1.1\r\n%b\r\n%b" % (target, hosts, good))
            connection.dataReceived(good)
            self.reactor.advance(0)
            head, _, body = transport.value().partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 400 "), head)
            self.assertIn(b"\r\nConnection: close\r\n", head + b"\r\n")
            self.assertIn(b"\r\nContent-Length: %d\r\n" % len(body), head + b"\r\n")
            self.assertTrue(transport.disconnecting)

    def test_interface(self) -> None:
        """The address that the manager was told to listen on is a name of it too."""
        self.site = ApiSite(ThisHost(self.manager), {"10.0.0.1"})
        self.assertEqual(self.status("GET", "/list", "Host: 10.0.0.1:8080"), 200)

    def test_longest(self) -> None:
        """A body of 1 MiB is accepted."""
        body = document().ljust(LONGEST_DOCUMENT)
        self.assertEqual(self.status("POST", "/config", "Host: localhost", body=body), 200)

    def test_too_long(self) -> None:
        """A body of one byte more is refused; the next request on the connection is answered."""
        body = document().ljust(LONGEST_DOCUMENT + 1)
        connection, transport = self.connect()
        for request in (b"POST /config", b"GET /list"):
            content = body if request.startswith(b"POST") else b""
            connection.dataReceived(
                b"%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                % (request, len(content), content)
            )
            self.reactor.advance(0)
        self.assertIn(b"HTTP/1.1 409 Bad Request", transport.value())
        self.assertIn(b'{"instances": []}', transport.value())
        self.assertEqual(self.manager.configs.names(), [])

    def test_half_sent(self) -> None:
        """Of a long body no more than 1 MiB is kept, chunked or not."""
        for header in (b"Content-Length: 10000000", b"Transfer-Encoding: chunked"):
            connection, _ = self.connect()
            connection.dataReceived(
                b"POST /config HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % header
            )
            chunk = b"x" * 65536
            if b"chunked" in header:
                chunk = b"10000\r\n%b\r\n" % chunk
            for _ in range(40):
                connection.dataReceived(chunk)
            (request,) = connection.requests
            self.assertLessEqual(request.content.seek(0, 2), LONGEST_DOCUMENT)

    def test_without_end(self) -> None:
        """A request without end is refused and hung up on, said in advance or not."""
        connection, transport = self.connect()
        connection.dataReceived(
            b"POST /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        )
        self.assertHungUp(transport, "409 Bad Request")
        connection, transport = self.connect()
        connection.dataReceived(
            b"POST /config HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(17):
            connection.dataReceived(b"100000\r\n%b\r\n" % bytes(1 << 20))
        self.assertHungUp(transport, "409 Bad Request")

    def test_drip(self) -> None:
        """A request that takes half a minute to arrive is refused, however steadily it comes."""
        connection, transport = self.connect()
        for byte in b"GET /list HTTP/1.1\r\nHost: localhost\r\n":
            connection.dataReceived(bytes([byte]))
            self.reactor.advance(1)
        self.assertHungUp(transport, "408 Request Timeout")

    def test_slow_answer(self) -> None:
        """An answer may take as long as it takes."""
        name = self.launch().name
        connection, transport = self.connect()
        connection.dataReceived(
            b"GET /instances/%b/wait HTTP/1.1\r\nHost: localhost\r\n\r\n" % name.encode()
        )
        self.reactor.pump([10] * 100)
        self.init.end("Done(3)")
        self.assertIn(b'"status": 3', transport.value())

    def test_too_many(self) -> None:
        """Connections beyond the limit are told so and closed, until one ends."""
        self.site = ApiSite(ThisHost(self.manager), limits=ConnectionLimits(connections=2))
        (first, _), _ = self.connect(), self.connect()
        self.assertHungUp(self.connect()[1], "503 Service Unavailable")
        first.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.connect()[1].value(), b"")

    def assertHungUp(self, transport: StringTransport, status: str) -> None:
        """The connection was answered with this, and no more is read of it."""
        self.assertTrue(transport.value().startswith(f"HTTP/1.1 {status}\r\n".encode()))
        self.assertTrue(transport.disconnecting)

    def test_follower_gone(self) -> None:
        """Nothing is kept of a client that followed the events and hung up."""
        name = self.launch().name
        for path in ("/events", f"/instances/{name}/logs"):
            connection, transport = self.connect()
            connection.dataReceived(
                b"GET %b?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()
            )
            transport.producer.stopProducing()  # as every transport does where it is lost
            connection.connectionLost(Failure(ConnectionLost()))
            self.reactor.advance(1)
            self.assertEqual(self.manager.journal._listeners, [])
            self.manager.history.stop()  # else it looks as long as an instance runs
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """A connection that is silent for a minute is closed."""
        _, transport = self.connect()
        self.reactor.advance(59)
        self.assertFalse(transport.disconnecting)
        self.reactor.advance(2)
        self.assertTrue(transport.disconnecting)

    def test_garbage(self) -> None:
        """Bytes that are no HTTP are answered with 400, and the server lives on."""
        connection, transport = self.connect()
        connection.dataReceived(b"\x16\x03\x01 what\r\n\r\n")
        self.assertIn(b"400 Bad Request", transport.value())
        self.assertEqual(self.status("GET", "/list", "Host: localhost"), 200)
