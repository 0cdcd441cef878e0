"""HTTP mechanics: from an error to an answer, methods as coroutines, paths, queries.

v1, the course's API, refuses with an empty body; the header ``Txcontain-Reason`` says why,
percent-encoded (RFC 3986) so that it can hold any text. The extensions say it in the body too.
A ``Txcontain-Note``, encoded in the same way, is advice on a success; there may be several.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter
from typing import Any
from urllib.parse import quote

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txcontain import errors
from txcontain.api.access import READ_ONLY, WRITE
from txcontain.api.bodies import Body
from txcontain.api.describe import Keys
from txcontain.container.document import (
    LONGEST_DOCUMENT,
    read_object,
    refuse_missing,
    refuse_unknown,
    shown,
)
from txcontain.host.os_errors import of_os
from txcontain.later import background
from txcontain.logs.times import SECOND, timestamp

LONGEST_REASON = 4096  # bytes of the header
RETRY_AFTER = b"5"  # seconds
DIGITS = 15  # of a number in a query: JSON has it exactly
FLAGS = {"1": True, "true": True, "0": False, "false": False}
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

# Each error's status, phrase and type (API.md has them too: programs rely on them).
STATUSES: list[tuple[type[errors.Error], int, bytes, str]] = [
    (errors.InvalidData, http.CONFLICT, b"Bad Request", "invalid-data"),
    (errors.ConfigExists, http.CONFLICT, b"Conflict", "config-exists"),
    (errors.ConfigInUse, http.CONFLICT, b"Conflict", "config-in-use"),
    (errors.SecretInUse, http.CONFLICT, b"Conflict", "secret-in-use"),
    (errors.InstanceExists, http.CONFLICT, b"Conflict", "instance-exists"),
    (errors.NoSuchProgram, http.CONFLICT, b"Conflict", "no-such-program"),
    (errors.CannotRun, http.CONFLICT, b"Conflict", "cannot-run"),
    (errors.ConfigAtFault, http.CONFLICT, b"Conflict", "config-at-fault"),
    (errors.InUse, http.CONFLICT, b"Conflict", "in-use"),
    (errors.CalledOff, http.CONFLICT, b"Conflict", "called-off"),
    (errors.WrongState, http.CONFLICT, b"Conflict", "wrong-state"),
    (errors.Ambiguous, http.CONFLICT, b"Conflict", "ambiguous"),
    (errors.NotRunning, http.CONFLICT, b"Conflict", "not-running"),
    (errors.CannotCopy, http.CONFLICT, b"Conflict", "cannot-copy"),
    (errors.MountableExists, http.CONFLICT, b"Conflict", "mountable-exists"),
    (errors.TooMany, http.CONFLICT, b"Conflict", "too-many"),
    (errors.NoSuchConfig, http.NOT_FOUND, b"Not Found", "no-such-config"),
    (errors.NoSuchSecret, http.NOT_FOUND, b"Not Found", "no-such-secret"),
    (errors.NoSuchPath, http.NOT_FOUND, b"Not Found", "no-such-path"),
    (errors.NoSuchInstance, http.NOT_FOUND, b"Not Found", "no-such-instance"),
    (errors.NoSuchStack, http.NOT_FOUND, b"Not Found", "no-such-stack"),
    (errors.NoSuchStep, http.NOT_FOUND, b"Not Found", "no-such-step"),
    (errors.NoSuchService, http.NOT_FOUND, b"Not Found", "no-such-service"),
    (errors.NoSuchVolume, http.NOT_FOUND, b"Not Found", "no-such-volume"),
    (errors.NoSuchImage, http.NOT_FOUND, b"Not Found", "no-such-image"),
    (errors.NoSuchNode, http.NOT_FOUND, b"Not Found", "no-such-node"),
    (errors.Unavailable, http.SERVICE_UNAVAILABLE, b"Service Unavailable", "unavailable"),
    (errors.NotInSwarm, http.NOT_IMPLEMENTED, b"Not Implemented", "not-in-swarm"),
    (errors.OnlyInSwarm, http.NOT_FOUND, b"Not Found", "only-in-swarm"),
    (errors.Malformed, http.BAD_REQUEST, b"Bad Request", "malformed"),
    (errors.Unauthenticated, http.UNAUTHORIZED, b"Unauthorized", "unauthenticated"),
    (errors.Forbidden, http.FORBIDDEN, b"Forbidden", "forbidden"),
    (
        errors.MachineAtFault,
        http.INTERNAL_SERVER_ERROR,
        b"Internal Server Error",
        "machine-at-fault",
    ),
]
UNEXPECTED = partial(
    errors.MachineAtFault,
    "the manager has a bug, and could not do this",
    "its log has the details: please report them",
)

HUNG_UP = "its client has hung up"  # why what was done for it is ended
Method = Callable[[Request], Coroutine[Any, Any, Any]]

log = Logger()


def status_of(error: errors.Error) -> tuple[int, bytes, str]:
    """The status, phrase and type of an error."""
    return next(row[1:] for row in STATUSES if isinstance(error, row[0]))


def refuse(request: Request, error: errors.Error) -> None:
    """Answer with an error: its status, an empty body, and the reason in the header."""
    status, phrase, _ = status_of(error)
    request.setResponseCode(status, phrase)
    request.setHeader(b"Txcontain-Reason", encoded(str(error)))
    request.setHeader(b"Content-Length", b"0")
    if status == http.SERVICE_UNAVAILABLE:
        request.setHeader(b"Retry-After", RETRY_AFTER)


def note(request: Request, text: str) -> None:
    """Add a sentence to the answer that a person should read."""
    request.responseHeaders.addRawHeader(b"Txcontain-Note", encoded(text))


def as_of(request: Request, time: float | None) -> None:
    """Say in a header of when an answer is (unix time), if it is not of now."""
    if time is not None:
        request.setHeader(b"Txcontain-As-Of", timestamp(int(time * SECOND)).encode())


def encoded(text: str) -> bytes:
    """A text as the value of a header, cut off if it is too long."""
    while len(value := quote(text, safe=PRINTABLE)) > LONGEST_REASON:
        text = text[: len(text) * LONGEST_REASON // len(value)]
    return value.encode()


def refuse_with_problem(request: Request, error: errors.Error) -> None:
    """Answer with an error as ``application/problem+json`` (RFC 9457)."""
    refuse(request, error)
    problem = {
        "type": f"urn:txcontain:{status_of(error)[2]}",
        "title": request.code_message.decode(),
        "status": request.code,
        "detail": error.chain[0],
        "chain": list(error.chain[1:]),
        **error.details,
    }
    send_json(request, b"application/problem+json", problem)


def send_json(request: Request, kind: bytes, value: Any) -> None:
    """Write a whole answer with its length, in one piece, not in chunks."""
    document = json.dumps(value).encode()
    request.setHeader(b"Content-Type", kind)
    request.setHeader(b"Content-Length", str(len(document)).encode())
    request.write(document)


def send_script(request: Request, script: str) -> None:
    """Answer with a shell script."""
    request.setHeader(b"Content-Type", b"text/x-shellscript; charset=utf-8")
    request.write(script.encode())


class Verb(Resource):
    """A resource with one or more methods; any other is answered with 405 and Allow."""

    refuse = staticmethod(refuse)

    def __init__(self, **methods: Method) -> None:
        super().__init__()
        self._methods = {name.encode(): method for name, method in methods.items()}
        if b"GET" in self._methods:
            self._methods[b"HEAD"] = self._methods[b"GET"]

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Accept one trailing slash."""
        return self if path == b"" and not request.postpath else NOT_FOUND

    def render(self, request: Request) -> int | bytes:
        """Run the method's coroutine, and answer with its result as JSON."""
        method = self._methods.get(request.method)
        if method is None:
            request.setResponseCode(http.NOT_ALLOWED)
            request.setHeader(b"Allow", b", ".join(sorted(self._methods)))
            return b""
        connected = Connected(request, self.refuse)
        background(self._answer(method(request), connected), f"answering {request.path!r}")
        return NOT_DONE_YET

    @staticmethod
    async def _answer(work: Coroutine[Any, Any, Any], connected: Connected) -> None:
        try:
            outcome = await work
        except Exception:
            outcome = Failure()
        try:
            connected.answer(outcome)
        except Exception:
            connected.request.loseConnection()  # else its client would wait for ever
            raise


class ExtensionResource(Verb):
    """A resource beyond v1, which is the course's: its errors have a body that says why."""

    refuse = staticmethod(refuse_with_problem)

    def __init__(self, *asking: str, **methods: Method) -> None:
        """:param asking: the methods that read the query; any other refuses every parameter"""
        strict = {n: m if n in asking else _without_query(m) for n, m in methods.items()}
        super().__init__(**strict)


def _without_query(method: Method) -> Method:
    async def strict(request: Request) -> Any:
        query(request)
        return await method(request)

    return strict


@define
class Connected:
    """A request in progress. If its client hangs up, the work still goes on to its end."""

    request: Request
    refuse: Callable[[Request, errors.Error], None]
    gone: bool = False

    def __attrs_post_init__(self) -> None:
        self.request.notifyFinish().addErrback(self._hung_up)

    def _hung_up(self, _: Failure) -> None:
        self.gone = True

    def answer(self, outcome: Any) -> None:
        """Answer with the method's result as JSON, or with its error."""
        if self.gone and isinstance(outcome, Failure) and outcome.check(CancelledError):
            return
        if isinstance(outcome, Failure):
            outcome = expected(outcome, self.request)
        if self.gone:
            return
        if isinstance(outcome, errors.Error) and self.request.startedWriting:
            self.request.loseConnection()  # half an answer must not pass for a whole one
            return
        if isinstance(outcome, errors.Error):
            self.refuse(self.request, outcome)
        elif outcome is not None:
            send_json(self.request, b"application/json", outcome)
        self.request.finish()


def hang_up_of(request: Request) -> Deferred[None]:
    """Fires when the client hangs up, also if it does so before anyone waits for that.

    So ask for it before anything else is waited for: a request that is lost tells no one any more.
    """
    gone: Deferred[None] = Deferred()
    request.notifyFinish().addErrback(lambda _: gone.callback(None))
    return gone


def expected(failure: Failure, request: Request) -> errors.Error:
    """The domain's error in a failure.

    An error of the operating system is the machine's fault. Any other is a bug: its details go
    only to the log.
    """
    if isinstance(failure.value, errors.Error):
        return failure.value
    if isinstance(failure.value, OSError):
        log.failure("answering {method} {path}", failure, method=request.method, path=request.path)
        return errors.MachineAtFault("answering this request", of_os(failure.value))
    log.failure("answering {method} {path}", failure, method=request.method, path=request.path)
    return UNEXPECTED()


class NotFound(Resource):
    """An unknown path: 404 for every method."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Every child of an unknown path is unknown too (unless it was put there)."""
        return NOT_FOUND

    def render(self, request: Request) -> bytes:
        """404, with an empty body."""
        request.setResponseCode(http.NOT_FOUND)
        request.setHeader(b"Txcontain-Reason", b"there is no such path; see API.md")
        return b""


NOT_FOUND = NotFound()


class NotThere(Resource):
    """What an engine does not have, whatever is below it, by every method."""

    def __init__(self, instead: str) -> None:
        super().__init__()
        self._instead = instead

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Nor is this there, unless it was put there."""
        return NotThere(self._instead)

    def render(self, request: Request) -> bytes:
        """Say so."""
        error = errors.NotInSwarm("the engine of many hosts does not have this", self._instead)
        refuse_with_problem(request, error)
        return b""


class NamedChildren(Resource):
    """The parent of resources that are made by name."""

    def __init__(self, make: Callable[[str], Resource]) -> None:
        super().__init__()
        self._make = make

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Any name is accepted; the handler decides whether it exists."""
        name = path.decode("utf-8", "backslashreplace")
        return self._make(name) if name else NOT_FOUND

    def render(self, request: Request) -> int | bytes:
        """404: a name is missing."""
        return NOT_FOUND.render(request)


class Collection(NamedChildren):
    """A resource for all, and below it one for each name."""

    def __init__(self, everything: Resource, make: Callable[[str], Resource]) -> None:
        super().__init__(make)
        self._everything = everything

    def getChild(self, path: bytes, request: Request) -> Resource:
        """The resource of a name; that of all if only a slash follows."""
        return super().getChild(path, request) if path else self._everything

    def render(self, request: Request) -> int | bytes:
        """All of them."""
        rendered: int | bytes = self._everything.render(request)
        return rendered


def query(request: Request, **readers: Callable[[str, str], Any]) -> dict[str, Any]:
    """The parameters of the query, each read by its reader; None for those that are missing.

    Raises InvalidData if a reader refuses its value, or if a parameter is given twice or unknown:
    a misspelt parameter must not be ignored.
    """
    values: dict[str, Any] = dict.fromkeys(readers)
    for raw, texts in request.args.items():
        name = raw.decode("utf-8", "backslashreplace")
        if name not in readers:
            known = f"the parameters are {', '.join(readers)}" if readers else "it takes none"
            raise errors.InvalidData(f"the query has no parameter {shown(name)}", known)
        if len(texts) > 1:
            raise errors.InvalidData(f"the query has the parameter {name} twice")
        values[name] = readers[name](name, texts[0].decode("utf-8", "backslashreplace"))
    return values


def number(name: str, text: str) -> int:
    """Read a whole number.

    Raises InvalidData.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise errors.InvalidData(
            f"{name} must be a whole number from 0 to {'9' * DIGITS}, not {shown(text)}"
        )
    return int(text)


def flag(name: str, text: str) -> bool:
    """Read a yes or a no.

    Raises InvalidData.
    """
    try:
        return FLAGS[text.lower()]
    except KeyError:
        raise errors.InvalidData(f"{name} must be 1, true, 0 or false, not {shown(text)}") from None


def text(name: str, value: str) -> str:
    """Read any text."""
    return value


def choice(*choices: str) -> Callable[[str, str], tuple[str, ...]]:
    """A reader of one of these.

    It raises InvalidData.
    """

    def read(name: str, text: str) -> tuple[str, ...]:
        if text not in choices:
            raise errors.InvalidData(f"{name} must be {' or '.join(choices)}, not {shown(text)}")
        return (text,)

    return read


def require_write(request: Request) -> None:
    """Refuse a caller who may only read: not all that GET does is harmless.

    Raises Forbidden.
    """
    caller = getattr(request, "caller", None)
    if caller is None or caller.role != WRITE:
        raise READ_ONLY()


def stream(request: Request) -> Body:
    """What the client sends, as it comes.

    Raises TooLarge if it was kept, for want of a better way, and is too long for that.
    """
    coming = getattr(request, "body", None)
    if isinstance(coming, Body):
        return coming
    kept = Body()
    kept.received(body(request))
    kept.all_received()
    return kept


def read_body(request: Request, keys: Keys, *required: str) -> dict[str, Any]:
    """What a body, which may be empty, has of these keys.

    Raises InvalidData.
    """
    document = body(request)
    values = read_object(document) if document else {}
    refuse_unknown("this request", values, keys)
    refuse_missing(values, *required)
    return {name: keys[name](name, value) for name, value in values.items()}


def ago(request: Request) -> float:
    """Seconds since the first line of a request came."""
    now = perf_counter()
    return now - getattr(request, "came", now)


def body(request: Request) -> bytes:
    """What the client sent.

    Raises TooLarge if it was more than LONGEST_DOCUMENT.
    """
    if getattr(request, "too_large", False):
        raise errors.TooLarge(f"the body is longer than {LONGEST_DOCUMENT} bytes")
    assert request.content is not None
    content: bytes = request.content.read()
    return content
