"""HTTP from those who mean no good, byte by byte."""

import io
import re
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import INegotiated
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from tests.fakes import ManagerTestCase
from tests.support import document
from txcontain.api.access import Caller
from txcontain.api.server import (
    LOG_AFTER,
    LONGEST_REQUEST,
    ApiSite,
    Channel,
    ConnectionLimits,
    Refusal,
)
from txcontain.api.strangers import LINE_EVERY, MOST_ADDRESSES, Strangers
from txcontain.engine.this_host import ThisHost

HOST = b"Host: localhost\r\n"
GET = b"GET /list HTTP/1.1\r\n" + HOST + b"\r\n"
STATUS = rb"(?<![^\n}])HTTP/1\.[01] ([0-9]{3}) "
LIMITS = ConnectionLimits(connections=3, request=30, idle=60)


class HostileCase(ManagerTestCase):
    """A test of a server with a manager behind it, and of what it logs."""

    def setUp(self) -> None:
        super().setUp()
        self.site = ApiSite(ThisHost(self.manager), limits=LIMITS)
        self.logged = io.StringIO()
        observer: Any = textFileLogObserver(self.logged)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def connect(self) -> tuple[Any, ...]:
        """A connection and what is sent on it."""
        connection, transport = self.site.buildProtocol(None), StringTransport()
        connection.makeConnection(transport)
        self.addCleanup(self.hang_up, connection)
        return connection, transport

    def hang_up(self, connection: Channel | Refusal) -> None:
        """End a connection, once, as a transport would."""
        if not isinstance(connection, Refusal):
            connection.stopProducing()
        connection.connectionLost(Failure(ConnectionError()))
        connection.connectionLost = connection.stopProducing = lambda *_: None

    def send(self, *parts: bytes) -> tuple[bytes, bool]:
        """All that is answered to these bytes, and whether the connection is closed then."""
        connection, transport = self.connect()
        for part in parts:
            connection.dataReceived(part)
            self.reactor.advance(0)
        self.hang_up(connection)
        return transport.value(), transport.disconnecting

    def statuses(self, *parts: bytes) -> list[int]:
        """The status of each answer to these bytes."""
        return [int(status) for status in re.findall(STATUS, self.send(*parts)[0])]

    def assert_bad(self, request: bytes) -> None:
        """Fail unless a request, and what comes with it, is answered with one 400 and the end."""
        answer, closed = self.send(request + GET)
        self.assertEqual(len(re.findall(STATUS, answer)), 1, (request, answer))
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), (request, answer))
        self.assertIn(b"Connection: close", answer)
        self.assertTrue(closed, request)


class FramingTests(HostileCase):
    """It is beyond doubt where a request ends; otherwise it is refused (RFC 9112, 6)."""

    def test_smuggling(self) -> None:
        """Two lengths, or a strange one, could hide a request in another: 400, and the end."""
        for headers in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5\r\nContent-Length: 5",
            b"Content-Length: 5, 5",
            b"Content-Length: +5",
            b"Content-Length: -5",
            b"Content-Length: 0x5",
            b"Content-Length: 5 5",
            b"Content-Length: \xc2\xb2",
            b"Content-Length:",
            b"Content-Length : 5",
            b" Content-Length: 5",
            b"X: a\r\n Content-Length: 5",
            b"X: a\r\n\tContent-Length: 5",
            b"Content-Length: " + b"9" * 19,
            b"Content-Length: " + b"9" * 5000,
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding:",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding\x00: chunked",
            b"Content_Length : 5",
            b"no colon",
            b": no name",
            b"X: a\rContent-Length: 5",
            b"X: a\nContent-Length: 5",
            b"X: a\x00b",
        ):
            self.assert_bad(b"POST /config HTTP/1.1\r\n" + HOST + headers + b"\r\n\r\nabcde")

    def test_chunks(self) -> None:
        """A chunk that does not fit its length is a 400, and the end."""
        for chunks in (
            b"g\r\n",
            b"-1\r\n",
            b"0x1\r\n",
            b"1 \r\na\r\n0\r\n\r\n",
            b"1\r\nabc\r\n",
            b"\r\n",
            b"1;" + b"x" * 2000,
            b"0\r\n" + b"X: y\r\n" * 20_000,
        ):
            answer, closed = self.send(
                b"POST /config HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
            )
            self.assertTrue(answer.startswith(b"HTTP/1.1 400"), (chunks[:20], answer))
            self.assertTrue(closed)

    def test_request_lines(self) -> None:
        """A line that is no request line is a 400, and the end."""
        for line in (
            b"GET",
            b"GET /list",
            b"GET  /list HTTP/1.1",
            b"GET /list HTTP/2.0",
            b"GET /list http/1.1",
            b"GET /a b HTTP/1.1",
            b"G(T /list HTTP/1.1",
            b"GET /l\x00st HTTP/1.1",
            b"GET /l\x1bst HTTP/1.1",
            b"GET\t/list\tHTTP/1.1",
            b" GET /list HTTP/1.1",
            b"\x16\x03\x01",
            b"GET /list HTTP/1.10",
            b"PRI * HTTP/2.0",
            b"\r\n\r\n",
        ):
            self.assert_bad(line + b"\r\n" + HOST + b"\r\n")

    def test_pipelining(self) -> None:
        """Requests that come together are answered one by one, in order, however they are cut."""
        post = b"POST /config HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n%b"
        body = document()
        stream = GET + post % (len(body), body) + post % (1, b"{") + b"\r\n" + GET
        for size in (1, 2, 7, 100, len(stream)):
            cut = [stream[i : i + size] for i in range(0, len(stream), size)]
            first = 200 if size == 1 else 409  # the config is there already
            self.assertEqual(self.statuses(*cut), [200, first, 409, 200], size)

    def test_behind_a_launch(self) -> None:
        """What comes during a request waits, and no more than 16 KiB of it is read."""
        connection, transport = self.connect()
        with mock.patch.object(type(self.manager), "destroy_all", lambda _: Deferred()):
            connection.dataReceived(b"DELETE /destroyall HTTP/1.1\r\n" + HOST + b"\r\n")
            for _ in range(1000):
                if transport.producerState == "paused":
                    break
                connection.dataReceived(GET)
        self.assertEqual(transport.producerState, "paused")
        self.assertLess(sum(map(len, connection._dataBuffer)), 20_000)
        self.assertEqual(transport.value(), b"")

    def test_one_a_turn(self) -> None:
        """Of requests that came together, one is answered in each turn; nothing more is read."""
        connection, transport = self.connect()
        connection.dataReceived(GET * 3 + GET[:-2])
        for answered in (1, 2, 3):
            self.assertEqual(len(re.findall(STATUS, transport.value())), answered)
            self.assertEqual(transport.producerState, "paused")
            connection.dataReceived(b"")  # over TLS, more may come all the same
            self.one_turn()
        self.assertEqual(transport.producerState, "producing")
        connection.dataReceived(b"\r\n")
        self.assertEqual(len(re.findall(STATUS, transport.value())), 4)

    def one_turn(self) -> None:
        """Make the calls that are due, but not those that they ask for."""
        due, self.reactor.calls = self.reactor.calls, []
        for call in due:
            if call.getTime() <= self.reactor.seconds():
                call.called = True
                call.func(*call.args, **call.kw)
            else:
                self.reactor.calls.append(call)

    def test_unread(self) -> None:
        """A client that does not read its answers gets no more of them."""
        connection, transport = self.connect()
        connection.dataReceived(GET)
        connection.pauseProducing()  # the transport's buffer is full
        connection.dataReceived(GET * 100)  # was on its way
        self.reactor.advance(1)
        self.assertLessEqual(len(re.findall(STATUS, transport.value())), 2)
        self.assertEqual(transport.producerState, "paused")
        connection.resumeProducing()
        self.reactor.advance(1)
        self.assertEqual(len(re.findall(STATUS, transport.value())), 101)
        self.assertEqual(transport.producerState, "producing")


class HostTests(HostileCase):
    """It is beyond doubt whom a request is for, and it is this server (RFC 9112, 3.2)."""

    def test_hosts(self) -> None:
        """No Host, or several, or several hidden as one: never answered."""
        for status, headers in (
            (400, b""),
            (400, HOST + HOST),
            (400, HOST + b"Host: evil.example\r\n"),
            (400, b"Host: evil.example\r\n" + HOST),
            (403, b"Host:\r\n"),
            (403, b"Host: localhost, evil.example\r\n"),
            (400, b"Host: evil.example\r\n localhost\r\n"),
        ):
            self.assertEqual(self.statuses(b"GET /list HTTP/1.1\r\n" + headers + b"\r\n"), [status])
        self.assertEqual(self.statuses(b"GET /list HTTP/1.0\r\n" + HOST + HOST + b"\r\n"), [400])

    def test_odd_hosts(self) -> None:
        """Forms that one parser reads as this host, and another as a foreign one, are foreign."""
        for host in (
            "evil.example@localhost",
            "localhost@evil.example",
            "localhost:80@evil.example",
            "user:pass@localhost",
            "localhost:8080:80",
            "localhost:x",
            "localhost:123456",
            "localhost/evil.example",
            "localhost#evil.example",
            "localhost?",
            "localhost\\evil",
            "localhost.",
            "localhost%00",
            "localhost evil",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]@evil",
            "[::ffff:127.0.0.1]",
            "[::1%lo]",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0.0.0.0",
            "[::]",
            "127.0.0.1.nip.io",
            "l\u00f6calhost",
            "*",
            "null",
            "http://localhost",
        ):
            request = f"GET /list HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            self.assertEqual(self.statuses(request), [403], host)

    def test_targets(self) -> None:
        """A target may hold the whole URL: then its host counts, and no other form is taken."""
        for status, target in (
            (200, b"http://localhost/list"),
            (200, b"HTTP://LOCALHOST:8080/list?x=http://evil.example/"),
            (200, b"https://127.0.0.1/list"),
            (404, b"http://localhost"),
            (404, b"http://localhost?x=/list"),
            (403, b"http://evil.example/list"),
            (403, b"http://localhost:80:80/list"),
            (403, b"http://evil.example@localhost/list"),
            (403, b"http://localhost@evil.example/list"),
            (400, b"http:///list"),
            (400, b"http:list"),
            (400, b"ftp://localhost/list"),
            (400, b"xlist"),
            (400, b"list"),
            (400, b"?"),
            (400, b"localhost:8080"),
            (405, b"*"),
        ):
            request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target
            self.assertEqual(self.statuses(request), [status], target)
        self.assertEqual(self.statuses(b"CONNECT x:1 HTTP/1.1\r\n" + HOST + b"\r\n"), [400])

    def test_target_over_host(self) -> None:
        """The Host beside a whole URL neither helps nor harms."""
        for host, status in ((b"localhost", 403), (b"evil.example", 403)):
            request = b"GET http://evil.example/list HTTP/1.1\r\nHost: %b\r\n\r\n" % host
            self.assertEqual(self.statuses(request), [status])
        request = b"GET http://localhost/list HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        self.assertEqual(self.statuses(request), [200])


class CrossSiteTests(HostileCase):
    """What a web page can make a browser send."""

    def test_pages(self) -> None:
        """A page of another site, host, scheme or port, or of none, is refused; ours is not."""
        for status, headers in (
            (200, b"Sec-Fetch-Site: same-origin\r\nOrigin: http://localhost:8080\r\n"),
            (200, b"Sec-Fetch-Site: none\r\n"),
            (200, b"Origin: HTTP://LocalHost:8080\r\n"),
            (403, b"Sec-Fetch-Site: cross-site\r\n"),
            (403, b"Sec-Fetch-Site: same-site\r\n"),
            (403, b"Sec-Fetch-Site: what\r\n"),
            (403, b"Sec-Fetch-Site:\r\n"),
            (403, b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n"),
            (403, b"Origin: null\r\n"),
            (403, b"Origin:\r\n"),
            (403, b"Origin: http://localhost:10000\r\n"),
            (403, b"Origin: http://localhost\r\n"),
            (403, b"Origin: https://localhost:8080\r\n"),
            (403, b"Origin: http://127.0.0.1:8080\r\n"),
            (403, b"Origin: http://localhost:8080.evil.example\r\n"),
            (403, b"Origin: http://localhost:8080 http://evil.example\r\n"),
            (403, b"Origin: http://localhost:8080\r\nOrigin: http://evil.example\r\n"),
            (403, b"Origin: http://evil.example\r\nOrigin: http://localhost:8080\r\n"),
        ):
            request = b"GET /list HTTP/1.1\r\nHost: localhost:8080\r\n%b\r\n" % headers
            self.assertEqual(self.statuses(request), [status], headers)

    def test_form(self) -> None:
        """A form is no way in either: its bytes are read as any others."""
        body = b"name=x&follow=1"
        for kind in (b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x"):
            request = (
                b"POST /config HTTP/1.1\r\n" + HOST + b"Content-Type: %b\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (kind, len(body), body)
            )
            self.assertEqual(self.statuses(request), [409])


class AmountTests(HostileCase):
    """How much, how long, how many."""

    def test_drip(self) -> None:
        """A byte every ten seconds does not hold a connection longer than the deadline."""
        for request in (GET, b"POST /config HTTP/1.1\r\n" + HOST + b"Content-Length: 99\r\n\r\n"):
            connection, transport = self.connect()
            connection.dataReceived(request[:-3])
            for byte in (b"\n", b"\r"):
                self.reactor.advance(10)
                self.assertFalse(transport.disconnecting)
                connection.dataReceived(byte)
            self.reactor.advance(9.9)
            self.assertFalse(transport.disconnecting)
            self.reactor.advance(0.2)
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 408 Request Timeout"))
            self.assertTrue(transport.disconnecting)

    def test_deadline_of_each(self) -> None:
        """Each request on a connection has the whole time."""
        connection, transport = self.connect()
        for _ in range(3):
            connection.dataReceived(GET[:20])
            self.reactor.advance(29)
            connection.dataReceived(GET[20:])
            self.reactor.advance(29)
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 3)
        self.assertFalse(transport.disconnecting)

    def test_slow_answer(self) -> None:
        """An answer has no deadline: a follower may wait for days."""
        connection, transport = self.connect()
        connection.dataReceived(b"GET /events?follow=1 HTTP/1.1\r\n" + HOST + b"\r\n")
        self.reactor.pump([1] * 1000)
        self.assertFalse(transport.disconnecting)

    def test_nothing_left(self) -> None:
        """However a connection has ended, no timer is left of it."""
        self.reactor.advance(0)
        before = len(self.reactor.getDelayedCalls())
        for data in (b"", b"GET", GET, GET + b"GET", b"what\r\n\r\n"):
            self.send(data)
            self.reactor.advance(LOG_AFTER)
            self.assertEqual(len(self.reactor.getDelayedCalls()), before, data)
        self.assertEqual(self.site.connections, 0)

    def test_headers(self) -> None:
        """More headers, or longer ones, than anyone needs are a 400, and the end."""
        long = b"X" * 17_000
        for headers in (b"X: y\r\n" * 501, b"X: y%b\r\n" % long, b"%b: y\r\n" % long):
            self.assert_bad(b"GET /list HTTP/1.1\r\n" + HOST + headers + b"\r\n")
        self.assert_bad(b"GET /%b HTTP/1.1\r\n" % (b"x" * 17_000) + HOST + b"\r\n")

    def test_no_line_end(self) -> None:
        """A header without an end is not kept."""
        answer, closed = self.send(*[b"x" * 1000] * 30)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400"))
        self.assertTrue(closed)

    def test_far_too_long(self) -> None:
        """A body that is announced as far too long is refused at once, also with Expect."""
        for more in (b"", b"Expect: 100-continue\r\n"):
            answer, closed = self.send(
                b"POST /config HTTP/1.1\r\n"
                + HOST
                + more
                + b"Content-Length: %d\r\n\r\n" % (LONGEST_REQUEST + 1)
            )
            self.assertTrue(answer.startswith(b"HTTP/1.1 409 Bad Request"), answer)
            self.assertNotIn(b"100 Continue", answer)
            self.assertTrue(closed)

    def test_without_end(self) -> None:
        """A body that does not say so is cut off, whatever its chunks are like."""
        start = b"POST /config HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        for chunk in (
            b"10000\r\n" + b"x" * 0x10000 + b"\r\n",
            b"1;%b\r\nx\r\n" % (b"y" * 1000) * 64,
        ):
            connection, transport = self.connect()
            connection.dataReceived(start)
            for _ in range(LONGEST_REQUEST // len(chunk) + 1):
                self.assertFalse(transport.disconnecting)
                connection.dataReceived(chunk)
            self.assertTrue(transport.value().startswith(b"HTTP/1.1 409 Bad Request"))
            self.assertTrue(transport.disconnecting)

    def test_connections(self) -> None:
        """One connection too many is told so; when another has ended, the next is taken."""
        connections = [self.connect() for _ in range(3)]
        _, transport = self.connect()
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertTrue(transport.disconnecting)
        self.hang_up(connections[0][0])
        connection, transport = self.connect()
        connection.dataReceived(GET)
        self.assertIn(b"HTTP/1.1 200", transport.value())

    def test_connections_over_tls(self) -> None:
        """Over TLS one too many is cut off, before the work of a handshake."""
        for _ in range(3):
            self.connect()
        connection, transport = self.site.buildProtocol(None), StringTransport()
        alsoProvides(transport, INegotiated)
        connection.makeConnection(transport)
        self.assertEqual(transport.value(), b"")
        self.assertTrue(transport.disconnected or transport.disconnecting)

    def test_after_a_refusal(self) -> None:
        """What comes after a refusal, as it can over TLS, is not looked at."""
        connection, transport = self.connect()
        connection.dataReceived(b"what\r\n\r\n")
        before = transport.value()
        for part in (GET, b"\r\n", GET):
            connection.dataReceived(part)
        self.assertEqual(transport.value(), before)


class InjectionTests(HostileCase):
    """What comes in does not become a line of the log, or a header of an answer."""

    def ask(self, path: bytes, method: bytes = b"GET", headers: bytes = b"") -> bytes:
        """The answer to a request."""
        return self.send(b"%b %b HTTP/1.1\r\n" % (method, path) + HOST + headers + b"\r\n")[0]

    def test_paths(self) -> None:
        """Line ends, NULs, slashes and the like in a path are parts of a name that is not there."""
        for path in (
            b"/instances/a%0d%0aX-Evil:%20yes",
            b"/instances/a%00",
            b"/instances/%2e%2e",
            b"/instances/..%2f..%2fetc%2fpasswd",
            b"/instances/a%2flogs",
            b"/instances/%1b%5b31m",
            b"/instances/%ff%fe",
            b"/instances/%",
            b"/instances/%zz",
            b"/instances/%25",
            b"/instances/a/../b",
            b"//list",
            b"/nowhere/list",
            b"/%6cist/x",
            b"/list%2f",
            b"/list%00",
            b"/instances/a;b",
            b"/instances/a\\b",
            b"/instances/" + b"a" * 5000,
            b"/" + b"a/" * 5000,
        ):
            answer = self.ask(path)
            self.assertTrue(answer.startswith(b"HTTP/1.1 404 Not Found\r\n"), (path, answer))
            head = answer.partition(b"\r\n\r\n")[0]
            self.assertNotIn(b"\nX-Evil", head)
            self.assertTrue(head.replace(b"\r\n", b"").isascii())
            self.assertTrue(head.replace(b"\r\n", b"").decode().isprintable(), head)
            self.assertNotIn(b"Traceback", answer)
            self.assertNotIn(b"<html", answer)
        self.assertEqual(self.ask(b"/%6cist")[:12], b"HTTP/1.1 200")  # that is /list

    def log_lines(self) -> list[str]:
        """What was logged, once the answers are out."""
        self.reactor.advance(LOG_AFTER)
        return self.logged.getvalue().splitlines()

    def test_log(self) -> None:
        """A request is one printable line of the log, of a bounded length, with who and how."""
        name = "eve\n2026-01-01 forged \x1b[31m"
        self.site.access = mock.Mock(caller=lambda *_: Caller(name))
        for path in (b"/a%0aforged", b"/a\x9b31m", b"/a\x7f", b"/\xa0", b"/" + b"a" * 9000):
            self.logged.truncate(0)
            self.logged.seek(0)
            self.ask(path, headers=b"User-Agent: \x1b[31m\r\nReferer: forged\r\n")
            (line,) = self.log_lines()
            self.assertTrue(line.isascii() and line.isprintable(), line)
            self.assertLess(len(line), 500)
            self.assertRegex(line, r"eve\\n2026.* ms 404: there is no")

    def test_log_of_strangers(self) -> None:
        """Those who may not ask get one line a second each, and the next says what is missing."""
        self.site.access = mock.Mock(caller=lambda *_: None)
        self.ask(b"/list")
        (line,) = self.log_lines()
        self.assertIn("unknown GET /list", line)
        for _ in range(300):
            self.ask(b"/list")
            self.send(b"what\r\n\r\n")
        self.assertEqual(self.log_lines(), [line])
        self.reactor.advance(LINE_EVERY)
        self.ask(b"/list")
        _, line = self.log_lines()
        self.assertRegex(
            line, r"401: only .* \(600 lines about 192.168.1.1 were left out before\)$"
        )
        self.site.access = mock.Mock(caller=lambda *_: Caller("ann"))
        for _ in range(3):
            self.ask(b"/list")
        self.assertEqual(len(self.log_lines()), 5)

    def test_log_of_many_strangers(self) -> None:
        """However many addresses ask, a bounded number is known, and all others share a line."""
        lines: list[str] = []
        strangers = Strangers(self.reactor.seconds, lines.append)
        for _ in range(2):
            lines.clear()
            for number in range(MOST_ADDRESSES + 500):
                strangers.tell(mock.Mock(host=f"10.1.{number >> 8}.{number & 255}"), "refused")
            self.assertEqual(len(lines), MOST_ADDRESSES + 1)
            self.reactor.advance(LINE_EVERY)

    def test_log_of_a_reason(self) -> None:
        """A reason is logged as it was meant, with its arrows; an odd name in it is escaped."""
        body = b'{"colour\\u2192": "\x1b[31m"}'
        self.send(
            b"POST /config HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.send(b"DELETE /destroy/a%E2%86%92%1b[31m HTTP/1.1\r\n" + HOST + b"\r\n")
        first, second = self.log_lines()
        self.assertTrue((first + second).isascii() and (first + second).isprintable())
        self.assertIn("404: there is no instance a->\\x1b[31m", second)
        self.send(b"POST /config HTTP/1.1\r\n" + HOST + b'Content-Length: 12\r\n\r\n{"colour":1}')
        self.assertIn("a config has no key 'colour' -> the keys are name,", self.log_lines()[-1])

    def test_log_of_a_refusal(self) -> None:
        """A request that can't be read is logged in one line too."""
        self.send(b"\x1b[31m\nforged\r\n\r\n")
        (line,) = self.log_lines()
        self.assertTrue(line.isascii() and line.isprintable())
        self.assertIn("400 Bad Request: this is not HTTP/1.1", line)
        self.assertNotIn("forged", line)

    def test_log_has_no_secrets(self) -> None:
        """Neither a token nor a body goes into the log."""
        self.ask(b"/list", headers=b"Authorization: Bearer s3cret\r\nCookie: s3cret\r\n")
        self.send(b"POST /config HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\ns3cret")
        lines = self.log_lines()
        self.assertIn("POST /config", "".join(lines))
        self.assertNotIn("s3cret", "".join(lines))

    def test_methods(self) -> None:
        """An unknown method is a 405, and is not repeated in the answer."""
        for method in (b"get", b"GETX", b"PROPFIND", b"X" * 5000, b"__class__", b"!#$%&'*+-.^_`|~"):
            answer = self.ask(b"/list", method)
            self.assertTrue(answer.startswith(b"HTTP/1.1 405"), answer)
            self.assertIn(b"Allow: GET, HEAD", answer)

    def test_head(self) -> None:
        """HEAD has the head of GET and no body, also if it is refused or would follow."""
        self.launch(name="job")
        for path in (
            b"/list",
            b"/events?follow=1",
            b"/nowhere",
            b"/instances/none",
            b"/openapi.json",
        ):
            answer = self.ask(path, b"HEAD")
            self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)
            self.assertEqual(answer.count(b"\r\n\r\n"), 1)
            self.assertEqual(answer[9:12], self.ask(path.partition(b"?")[0])[9:12])
        self.assertEqual(
            self.statuses(b"HEAD /events?follow=1 HTTP/1.1\r\n" + HOST + b"\r\n", GET), [200, 200]
        )

    def test_queries(self) -> None:
        """No query is too odd to be answered."""
        self.launch(name="job")
        (name,) = self.manager.instances
        for query in (
            b"tail=-1",
            b"tail=1e9",
            b"tail=%00",
            b"tail=" + b"9" * 99,
            b"stream=x",
            b"tail=%b2",
            b"stream=%0d%0aX:y",
            b"tail=\xc2\xb2",
            b"=",
            b"tail=1&tail=2",
            b"&".join([b"a=b"] * 2000),
            b"follow=%0d%0a",
            b"X%0d%0aX:y=1",
        ):
            answer = self.ask(b"/instances/%b/logs?%b" % (name.encode(), query))
            self.assertIn(answer[9:12], (b"409", b"400"), query)
            self.assertNotIn(b"\nX:y", answer)
        for query in (b"&&&", b"%", b"?"):
            self.assertEqual(self.ask(b"/events?" + query)[9:12], b"200", query)
