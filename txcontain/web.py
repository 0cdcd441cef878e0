"""HTTP in, HTTP out: the REST resources, over the manager's verbs.

The course's resources answer with empty bodies where they refuse; why is told in the
header ``Txcontain-Reason``, percent-encoded (RFC 3986) so that any text fits in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote, urlsplit

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from txcontain import errors
from txcontain.manager import Manager
from txcontain.spec import LONGEST_DOCUMENT, key_of, read_object

LONGEST_REASON = 4096  # bytes of the header
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}

# What the user did, or what the machine did: one table from error to status and phrase.
STATUSES: list[tuple[type[errors.Error], int, bytes]] = [
    (errors.InvalidData, http.CONFLICT, b"Bad Request"),
    (errors.ConfigExists, http.CONFLICT, b"Conflict"),
    (errors.ConfigAtFault, http.CONFLICT, b"Conflict"),
    (errors.NoSuchConfig, http.NOT_FOUND, b"Not Found"),
    (errors.NoSuchInstance, http.NOT_FOUND, b"Not Found"),
    (errors.Forbidden, http.FORBIDDEN, b"Forbidden"),
    (errors.MachineAtFault, http.INTERNAL_SERVER_ERROR, b"Internal Server Error"),
]
UNEXPECTED = errors.MachineAtFault(
    "the manager made a mistake of its own", "its log holds the details"
)

log = Logger()


def refuse(request: Request, error: errors.Error) -> None:
    """Answer with an error: its status, an empty body, and the reason in the header."""
    status, phrase = next((s, p) for kind, s, p in STATUSES if isinstance(error, kind))
    request.setResponseCode(status, phrase)
    reason = quote(str(error), safe=PRINTABLE).encode()[:LONGEST_REASON]
    request.setHeader(b"Txcontain-Reason", reason)
    request.setHeader(b"Content-Length", b"0")


class Verb(Resource):
    """A resource of one or more methods; every other is answered with 405 and Allow."""

    def __init__(self, **methods: Callable[[Request], Coroutine[Any, Any, Any]]) -> None:
        super().__init__()
        self._methods = {name.encode(): method for name, method in methods.items()}
        if b"GET" in self._methods:
            self._methods[b"HEAD"] = self._methods[b"GET"]

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Itself, where the path has but a slash more."""
        return self if path == b"" and not request.postpath else NOWHERE

    def render(self, request: Request) -> int | bytes:
        """Run the method's coroutine, and answer with what it returns as JSON."""
        method = self._methods.get(request.method)
        if method is None:
            request.setResponseCode(http.NOT_ALLOWED)
            request.setHeader(b"Allow", b", ".join(sorted(self._methods)))
            return b""
        connected = Connected(request)
        answer = Deferred.fromCoroutine(method(request))
        answer.addBoth(connected.answer)
        return NOT_DONE_YET


@define
class Connected:
    """A request at work. Where its client hangs up, what it asked for is done all the same."""

    request: Request
    gone: bool = False

    def __attrs_post_init__(self) -> None:
        self.request.notifyFinish().addErrback(self._hung_up)

    def _hung_up(self, _: Failure) -> None:
        self.gone = True

    def answer(self, outcome: Any) -> None:
        """Answer with what the method returned, as JSON, or with its error."""
        if isinstance(outcome, Failure):
            outcome = expected(outcome, self.request)
        if self.gone:
            return
        if isinstance(outcome, errors.Error):
            refuse(self.request, outcome)
        elif outcome is not None:
            self.request.setHeader(b"Content-Type", b"application/json")
            self.request.write(json.dumps(outcome).encode())
        self.request.finish()


def expected(failure: Failure, request: Request) -> errors.Error:
    """The domain's error in a failure; any other goes to the log, and into no answer."""
    if isinstance(failure.value, errors.Error):
        return failure.value
    log.failure("answering {method} {path}", failure, method=request.method, path=request.path)
    return UNEXPECTED


class Nowhere(Resource):
    """A path that leads nowhere: 404 for every method."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Nor does any below it."""
        return self

    def render(self, request: Request) -> bytes:
        """404, with an empty body."""
        request.setResponseCode(http.NOT_FOUND)
        request.setHeader(b"Txcontain-Reason", b"there is no such resource; see API.md")
        return b""


NOWHERE = Nowhere()


class ByName(Resource):
    """A resource below which each name is one."""

    def __init__(self, make: Callable[[str], Resource]) -> None:
        super().__init__()
        self._make = make

    def getChild(self, path: bytes, request: Request) -> Resource:
        """The resource of a name."""
        try:
            name = path.decode("ascii")
        except UnicodeDecodeError:
            return NOWHERE
        return self._make(name) if name else NOWHERE

    def render(self, request: Request) -> bytes:
        """Without a name there is nothing."""
        return NOWHERE.render(request)


@define
class Api:
    """The methods of the resources: a request in, what to answer out."""

    manager: Manager

    async def config(self, request: Request) -> None:
        """POST /config."""
        await self.manager.add_config(body(request))

    async def cfginfo(self, request: Request) -> dict[str, list[str]]:
        """GET /cfginfo."""
        return {"files": self.manager.config_names()}

    async def launch(self, request: Request) -> dict[str, str]:
        """POST /launch."""
        name, major, minor = key_of(read_object(body(request)))
        return (await self.manager.launch(name, major, minor)).summary

    async def list(self, request: Request) -> dict[str, list[dict[str, str]]]:
        """GET /list."""
        return {"instances": [instance.summary for instance in self.manager.running()]}

    async def destroy_all(self, request: Request) -> None:
        """DELETE /destroyall."""
        await self.manager.destroy_all()

    def destroy(self, name: str) -> Verb:
        """DELETE /destroy/INSTANCE."""

        async def destroy(request: Request) -> None:
            await self.manager.destroy(name)

        return Verb(DELETE=destroy)


def body(request: Request) -> bytes:
    """What the client sent.

    Raises TooLarge where it was more than is taken.
    """
    if getattr(request, "too_large", False):
        raise errors.TooLarge(f"the body is longer than {LONGEST_DOCUMENT} bytes")
    assert request.content is not None
    content: bytes = request.content.read()
    return content


def make_root(manager: Manager) -> Resource:
    """The tree of all resources."""
    api = Api(manager)
    root = Nowhere()
    put: Any = root.putChild  # its annotation knows interfaces, not classes
    put(b"config", Verb(POST=api.config))
    put(b"cfginfo", Verb(GET=api.cfginfo))
    put(b"launch", Verb(POST=api.launch))
    put(b"list", Verb(GET=api.list))
    put(b"destroy", ByName(api.destroy))
    put(b"destroyall", Verb(DELETE=api.destroy_all))
    return root


class BoundedRequest(Request):
    """A request whose body is bounded before it is buffered, and whose caller is checked."""

    channel: Any
    too_large = False
    _received = 0

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, as long as the whole is not too long."""
        self._received += len(data)
        if self._received > LONGEST_DOCUMENT:
            self.too_large = True  # and the rest is read and thrown away
        else:
            super().handleContentChunk(data)

    def process(self) -> None:
        """Refuse what a web page of another site has made a browser send."""
        if self._is_cross_site():
            refuse(self, errors.Forbidden(
                "this request comes from a web page of another site, or by another name of this "
                "host", "use http://localhost and no browser",
            ))  # fmt: skip
            self.finish()
        else:
            super().process()

    def _is_cross_site(self) -> bool:
        host = self.getHeader("host")
        origin = self.getHeader("origin")
        return not (host is None or self.channel.site.is_ours(f"//{host}")) or not (
            origin is None or self.channel.site.is_ours(origin)
        )


class ApiSite(Site):
    """The resources, served to this host."""

    requestFactory = BoundedRequest
    displayTracebacks = False

    def __init__(self, manager: Manager, names: set[str] = LOCAL_NAMES) -> None:
        super().__init__(make_root(manager), timeout=60)
        self._names = names

    def is_ours(self, url: str) -> bool:
        """Whether a URL (of a Host or Origin header) names this server."""
        try:
            return urlsplit(url).hostname in self._names
        except ValueError:
            return False
