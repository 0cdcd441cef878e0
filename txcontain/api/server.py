"""The HTTP server: what is checked of every request before a resource sees it.

Twisted reads the requests as RFC 9112 says: at most 500 headers in 16 KiB, exactly one length, no
control characters, one answer after the other. This module adds the limits that Twisted lacks:
how long and how large a whole request may be, how many connections there are, who may ask, and
what a web page may make a browser send.
"""

from __future__ import annotations

import re
from functools import partial
from io import BytesIO
from time import perf_counter
from typing import Any
from urllib.parse import unquote

from attrs import define, evolve
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from txcontain import errors
from txcontain.api.access import (
    READ,
    READ_ONLY,
    READING,
    Access,
    Caller,
    Loopback,
    token_of_websocket,
)
from txcontain.api.areas import AREAS
from txcontain.api.bodies import Body
from txcontain.api.callers import Callers
from txcontain.api.page import is_of_page
from txcontain.api.resources import make_root
from txcontain.api.routes import method_of, route_of
from txcontain.api.strangers import Strangers
from txcontain.api.verbs import encoded, refuse
from txcontain.container.document import LONGEST_DOCUMENT, shown
from txcontain.engine.interface import Engine
from txcontain.errors import logged
from txcontain.host.os_errors import of_os
from txcontain.later import Timer
from txcontain.logs.journal import asked_by
from txcontain.runtime.instance import Instance

LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}
LONGEST_REQUEST = 16 << 20  # bytes; past LONGEST_DOCUMENT they are thrown away as they come
LONGEST_NUMBER = 18  # digits of a length: more is not a length, and Python refuses 4300 of them
LINGER = 10.0  # seconds for a client to read why the rest of its body is not wanted
LOG_AFTER = 0.01  # seconds: until then, the answer is out
LONGEST_SHOWN = 200  # characters of a request's target in the log
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::[0-9]{0,5})?", re.ASCII)  # RFC 9110, 7.2
ABSOLUTE = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)  # RFC 9112, 3.2.2

NO_HTTP = "this is not HTTP/1.1, or not clear enough to be safe (RFC 9112)"
TOO_SLOW = "the request was not complete in time"
TOO_LONG = f"the request is longer than {LONGEST_REQUEST} bytes"
TOO_MANY = "there are too many connections: try again later"
# Errors are made anew each time: one that is raised again keeps all that it ever went through.
CROSS_SITE = partial(
    errors.Forbidden,
    "a web page of another site sent this request",
    "no page may: use the CLI, or a program such as curl",
)
UNKNOWN = partial(
    errors.Unauthenticated,
    "only authenticated callers are served here",
    "send a token of the manager's --tokens file (TXCONTAIN_TOKEN for the CLI), or a client "
    "certificate",
)
UNTOLD = partial(
    errors.Forbidden,
    "the manager can't tell where this request comes from, and it may be a container",
    "try again in a moment: its log says why",
)

# The paths whose PUT takes its body as it comes, however long it is.
STREAMED = re.compile("|".join(area.streamed for area in AREAS.values() if area.streamed).encode())

# What a load balancer or a monitor asks, which has no token; the answers tell nothing else.
FOR_ANYONE = (b"/healthz", b"/healthz/", b"/readyz", b"/readyz/")
ANYONE = Caller("anyone", READ)

log = Logger()


@define(frozen=True)
class ConnectionLimits:
    """How much of the manager its clients may use."""

    connections: int = 1000
    request: float = 30  # seconds from a request's first byte to its last
    idle: float = 60  # seconds of silence


LOOPBACK, DEFAULT_LIMITS = Loopback(), ConnectionLimits()


def canned(status: str, why: str) -> bytes:
    """A whole answer to what is not a valid request; then the connection ends."""
    reason = encoded(why).decode()
    head = [
        f"HTTP/1.1 {status}",
        "Connection: close",
        "Content-Length: 0",
        f"Txcontain-Reason: {reason}",
        "",
        "",
    ]
    return "\r\n".join(head).encode()


class Channel(HTTPChannel):
    """A connection: limits the size of a request, and the time it takes to arrive.

    The time until the answer has no limit: a launch waits for a port, a follower for events.
    """

    site: ApiSite
    transport: Any
    _due: Timer | None = None  # for the request that is being read
    _received = 0  # bytes of the request that is being read
    _behind = b""  # bytes after the request that was answered last
    _turn: Timer | None = None  # to read them
    instance: Instance | None = None  # that the client runs in
    refusal: errors.Forbidden | None = None  # of every request on it
    _unread = False  # whether answers wait for the client to read them
    body: Body | None = None  # of the request that is being read, if it is handed on as it comes
    _end: Timer | None = None  # of a connection on which a body comes that nobody wants
    _upgraded: Any = None  # an IProtocol: what the connection is now, if it is HTTP no more

    def connectionMade(self) -> None:
        """Count it."""
        self.site.connections += 1
        super().connectionMade()
        try:
            self.instance = self.site.callers.instance_of(self.transport)
        except errors.Forbidden as refusal:
            self.refusal = refusal
        except OSError as error:  # such as no free descriptor
            why = f"{self.getPeer()} 403: {of_os(error)}"
            self.site.strangers.tell(self.getPeer(), why)
            self.refusal = UNTOLD()
        except Exception:
            log.failure("learning where {peer} calls from", peer=self.getPeer())
            self.refusal = UNTOLD()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # always given
        """Count it no more."""
        self.site.connections -= 1
        self._is_complete()
        if self._end is not None:
            self._end.cancel()
        self._behind = b""
        super().connectionLost(reason)
        if self._upgraded is not None:
            self._upgraded.connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Read on, unless the request is too long or has been refused."""
        if self.transport.disconnecting:
            return  # over TLS, more data may arrive after a refusal
        if self._upgraded is not None:
            self._upgraded.dataReceived(data)
            return
        if self._behind:
            self._behind += data
            return
        if not self._handlingRequest and self.body is None:
            self._received += len(data)
            self._expect_the_rest()
        if self._received > LONGEST_REQUEST:
            self.refuse("409 Bad Request", TOO_LONG)
        else:
            super().dataReceived(data)

    def upgrade(self, request: Request, answer: bytes, protocol: Any) -> None:
        """Let the connection speak another protocol from now on (RFC 9110, 7.8).

        :param answer: to the request that asked for it, which has no other
        """
        request.setResponseCode(http.SWITCHING)
        self.site.log(request)
        self.transport.write(answer)
        self._upgraded = protocol
        protocol.makeConnection(self.transport)

    def lineReceived(self, line: bytes) -> None:
        """Refuse a header of two lines, which another program may read as two headers."""
        if line.startswith((b" ", b"\t")):
            self._respondToBadRequestAndDisconnect()
        else:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """Refuse lengths that Twisted accepts or fails on."""
        name, _, value = line.lower().partition(b":")
        value = value.strip()
        if (name == b"content-length" and len(value) > LONGEST_NUMBER) or (
            name == b"transfer-encoding" and value != b"chunked"
        ):
            self._respondToBadRequestAndDisconnect()
            return False
        return bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """Refuse a request that announces too long a body, and do not ask for it (100 Continue)."""
        if (self.length or 0) > LONGEST_REQUEST and not self.is_streamed:
            self.refuse("409 Bad Request", TOO_LONG)
        else:
            super().allHeadersReceived()

    @property
    def is_streamed(self) -> bool:
        """Whether the body of the request that is being read is handed on as it comes."""
        path: Any = self._path
        return self._command == b"PUT" and bool(STREAMED.fullmatch(path.split(b"?")[0]))

    def begin_to_stream(self, body: Body) -> None:
        """Hand on this body: it may be long, and take long, as long as something comes."""
        self.body = body
        self._received = 0
        self._is_complete()

    def allContentReceived(self) -> None:
        """The whole request has arrived."""
        self._received = 0
        self._is_complete()
        if self.requests:
            super().allContentReceived()
        else:  # it has been answered before
            self.transport.loseConnection()

    def loseConnection(self) -> None:
        """Hang up. If a client is still sending, let it read the answer first (RFC 9112, 9.6)."""
        if self.body is None or self.body.is_over or ISSLTransport.providedBy(self.transport):
            super().loseConnection()
        elif self._end is None:
            self._end = Timer(self.site.reactor, self.transport.abortConnection)
            self._end.after(LINGER)
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()

    def _expect_the_rest(self) -> None:
        self._due = self._due or Timer(self.site.reactor, self._is_too_slow)
        if not self._due.is_set:
            self._due.after(self.site.limits.request)

    def requestDone(self, request: Request) -> None:
        """Answer one request in a turn of the reactor: a client who sends many delays no other."""
        self.paused = True  # LineReceiver now keeps what it gets, and reads none of it
        super().requestDone(request)
        self.paused = False
        self._behind = self.clearLineBuffer()
        self._go_on_later()

    def pauseProducing(self) -> None:
        """The client does not read its answers: give no more until it does."""
        self._unread = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read its answers."""
        self._unread = False
        super().resumeProducing()
        self._go_on_later()

    def _go_on_later(self) -> None:
        if self._behind and not self.transport.disconnecting:
            self.transport.pauseProducing()
            self._turn = self._turn or Timer(self.site.reactor, self._go_on)
            self._turn.after(0)

    def _go_on(self) -> None:
        if self._behind and not self._unread and not self.transport.disconnecting:
            behind, self._behind = self._behind, b""
            self.transport.resumeProducing()
            self.dataReceived(behind)

    def _is_complete(self) -> None:
        if self._due is not None:
            self._due.cancel()

    def _is_too_slow(self) -> None:
        self.refuse("408 Request Timeout", TOO_SLOW)

    def lineLengthExceeded(self, line: bytes) -> None:
        """No header is that long."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """What Twisted calls if it can't understand a request."""
        self.refuse("400 Bad Request", NO_HTTP)

    def refuse(self, status: str, why: str) -> None:
        """Answer what is not a valid request, and hang up."""
        if not self.transport.disconnecting:
            self.site.strangers.tell(self.getPeer(), f"{self.getPeer()} {status}: {why}")
            self.transport.write(canned(status, why))
            self.body = None  # what else comes can't be understood
            self.loseConnection()


class Refusal(Protocol):
    """Answers one connection too many."""

    transport: Any

    def connectionMade(self) -> None:
        """Say so and hang up; over TLS, hang up at once, without a handshake."""
        if ISSLTransport.providedBy(self.transport):
            self.transport.abortConnection()
        else:
            self.transport.write(canned("503 Service Unavailable", TOO_MANY))
            self.transport.loseConnection()


class ApiRequest(Request):
    """A request whose body is bounded before it is buffered, and whose caller is checked."""

    channel: Any  # a Channel
    caller: Caller | None = None  # None: unknown
    too_large = False
    body: Body | None = None  # if it is handed on as it comes
    _received = 0  # bytes of the body

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.came = perf_counter()  # its first line

    def gotLength(self, length: int | None) -> None:
        """All headers have arrived: find out who asks before the body is kept."""
        super().gotLength(length)
        authorization = self.getHeader(b"authorization") or token_of_websocket(
            self.getHeader(b"sec-websocket-protocol")
        )
        self.caller = self.channel.site.access.caller(self.channel.transport, authorization)
        if self.caller and self.channel.instance:
            within = f"{self.caller.name} in {self.channel.instance.name}"
            self.caller = evolve(self.caller, name=within)
        if self.caller is None or self.channel.refusal:  # one answer, to a body that is not parsed
            self._is_last()
            self.channel.length = length if length and length <= LONGEST_DOCUMENT else 0
        elif self.channel.is_streamed:
            self._begin()

    def _begin(self) -> None:
        """Answer while the body comes. It is the last request, as it may be answered before."""
        channel, self.body = self.channel, Body(self.channel.transport)
        self._is_last()
        channel.begin_to_stream(self.body)
        super().requestReceived(channel._command, channel._path, channel._version)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The whole request has arrived."""
        if self.body is None:
            super().requestReceived(command, path, version)
        else:
            self.body.all_received()

    def finish(self) -> None:
        """It is answered: the rest of the body is not wanted."""
        if self.body is not None:
            self.body.discard()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """The client has hung up."""
        super().connectionLost(reason)
        if self.body is not None:
            self.body.lost()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, unless the whole is too long."""
        if self.body is not None:
            self.body.received(data)
            return
        self._received += len(data)
        if self._received > LONGEST_DOCUMENT or self.caller is None:
            self.too_large = True  # the rest is read and thrown away
        else:
            super().handleContentChunk(data)

    def process(self) -> None:
        """Find the resource and have it answer, unless the request is to be refused."""
        self.began = perf_counter()
        try:
            caller = self._checked()
        except errors.Error as error:
            if isinstance(error, errors.Malformed):  # so what follows may be malformed too
                self._is_last()
            refuse(self, error)
            self.finish()
            return
        before = asked_by.set(caller.name)
        try:
            super().process()
        finally:
            asked_by.reset(before)

    def _checked(self) -> Caller:
        self._read_target()
        self._check_host()
        if self.channel.refusal:
            raise self.channel.refusal
        if self._is_cross_site():
            raise CROSS_SITE()
        if self.caller is None and self._is_for_anyone():
            self.caller = ANYONE
        if self.caller is None:
            self.setHeader(b"WWW-Authenticate", b'Bearer realm="txcontain"')  # RFC 6750, 3
            raise UNKNOWN()
        if not self.caller.may(self.method):
            raise READ_ONLY()
        if self.method == b"HEAD":
            self.args.pop(b"follow", None)  # there would be nothing to follow
        return self.caller

    def _is_for_anyone(self) -> bool:
        """Whether no one needs to be known for this: it tells nothing of what runs here."""
        return is_of_page(self) or (self.method in READING and self.path in FOR_ANYONE)

    def _read_target(self) -> None:
        """Accept both forms of a target (RFC 9112, 3.2), and require exactly one Host."""
        hosts = self.requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1 or (not hosts and self.clientproto == b"HTTP/1.1"):
            raise errors.Malformed("a request has one Host header (RFC 9112, 3.2)")
        if absolute := ABSOLUTE.match(self.uri):
            self.requestHeaders.setRawHeaders(b"host", [absolute[1]])
            self.path = self.path[absolute.end() :] or b"/"
        elif not self.uri.startswith(b"/") and self.uri != b"*":
            raise errors.Malformed("a request's target begins with a slash (RFC 9112, 3.2)")

    def _is_last(self) -> None:
        """End the connection after this answer."""
        self.channel.persistent = False
        self.setHeader(b"Connection", b"close")

    def abortConnection(self) -> None:
        """Hang up at once, even if the client has not read everything."""
        self.channel.transport.abortConnection()

    def _check_host(self) -> None:
        """Refuse a name that is not this server's.

        A web page can make its own name point here (DNS rebinding). The browser then takes this
        server for the page's own, and sends that name in Host.
        """
        host = self.getHeader("host")
        if host is not None and not self.channel.site.is_ours(host):
            raise errors.Forbidden(
                f"the Host of this request is {shown(host)}, which is not a name of this manager",
                "ask for localhost, or for the address that --interface gives",
            )

    def _is_cross_site(self) -> bool:
        """Whether a page of another site may have made a browser send this.

        The browser says so in Sec-Fetch-Site (Fetch Metadata) and Origin (RFC 6454). The port
        matters: a container may serve pages from this host too.
        """
        own = f"http{'s' * self.isSecure()}://{self.getHeader('host')}"
        origins = self.requestHeaders.getRawHeaders("origin", [])
        sites = self.requestHeaders.getRawHeaders("sec-fetch-site", [])
        return any(origin.lower() != own.lower() for origin in origins) or any(
            site not in ("same-origin", "none") for site in sites
        )


class ApiSite(Site):
    """The resources, served on one listening socket."""

    requestFactory = ApiRequest
    protocol: Any = Channel  # and no HTTP/2
    reactor: Any
    displayTracebacks = False
    connections = 0

    def __init__(
        self,
        engine: Engine,
        names: set[str] | None = LOCAL_NAMES,
        access: Access = LOOPBACK,
        limits: ConnectionLimits = DEFAULT_LIMITS,
    ) -> None:
        """:param names: what a Host header may name; None if no browser can be misled."""
        manager = engine.host
        super().__init__(
            make_root(engine),
            timeout=limits.idle,
            reactor=manager.reactor,
            parsePOSTFormSubmission=False,
        )
        self._names = names
        self.manager = manager
        self.callers = Callers(manager)
        self.strangers = Strangers(manager.reactor.seconds, write_line)
        self.access = access
        self.limits = limits

    def buildProtocol(self, addr: Any) -> Any:
        """A connection; a refusal if there are too many."""
        if self.connections >= self.limits.connections:
            self.strangers.tell(addr, f"{addr} 503: {TOO_MANY}")
            refusal = Refusal()
            refusal.factory = self
            return refusal
        return super().buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        """The protocols that TLS may agree on."""
        return [b"http/1.1"]

    def getContentFile(self, length: int | None) -> BytesIO:
        """Keeps a body: never in a file, which would take a descriptor."""
        return BytesIO()

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this server."""
        match = HOST.fullmatch(host)
        if match is None or self._names is None:
            return match is not None
        return (match[1] or match[2]).lower() in self._names

    def startFactory(self) -> None:
        """Do nothing: Twisted's own access log would run a timer."""

    def log(self, request: Any) -> None:
        """Log who asked what, the answer with its reason, and how long it took."""
        known = request.caller and not request.channel.refusal
        write = write_line if known else partial(self.strangers.tell, request.getClientAddress())
        self.manager.counts.answered(
            method_of(request.method),
            route_of(request.path),
            request.code,
            perf_counter() - request.began,
        )
        Timer(self.reactor, write).after(LOG_AFTER, line_of(request))


def write_line(line: str) -> None:
    """Put a line into the manager's log."""
    log.info("{line}", line=line)


def line_of(request: ApiRequest) -> str:
    """A request as a line of the log, escaped: it can't imitate another line, or set colours."""
    milliseconds = 1000 * (perf_counter() - request.began)
    by = request.caller.name if request.caller else "unknown"
    asked = f"{by} {request.method.decode()} {request.uri.decode('latin-1')}"
    reasons = request.responseHeaders.getRawHeaders("txcontain-reason", [])
    answer = ": ".join([str(request.code), *map(unquote, reasons)])
    return f"{logged(asked)[:LONGEST_SHOWN]} {milliseconds:.1f} ms {logged(answer)}"
