"""The Engine API of a swarm's managers (docs.docker.com/reference/api/engine).

One that does not answer is passed over, and asked after the others from then on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.logger import Logger

from txcontain.engine.counts import Histogram
from txcontain.errors import MachineAtFault, Unavailable, logged
from txcontain.later import bounded
from txcontain.swarm.body import collect
from txcontain.swarm.elements import read_list

OLDEST, NEWEST = (1, 41), (1, 51)  # versions of the Engine API that are known to fit
ANSWER_WITHIN = 5.0  # seconds
LONGEST_ANSWER = 64 << 20  # bytes
LONGEST_COMPLAINT = 1000  # characters
FAULT = 400  # the first status of those that refuse
FAILS = 500  # the first status of those by which it says that it has failed
# What it says with such a status if it has no leader: gRPC's (google.golang.org/grpc/codes), too.
OF_GAP = ("does not have a leader", "code = Unavailable", "code = DeadlineExceeded")
OUT_OF_SEQUENCE = "out of sequence"  # and if something was changed by someone else meanwhile
UNAVAILABLE = 503  # also the status of one that is no manager: its message says which
NO_MANAGER = "not a swarm manager"
Version = tuple[int, int]

log = Logger()


class Refused(MachineAtFault):
    """A manager has refused a request."""

    status = 0  # of its answer


class NoAnswer(Exception):
    """One manager could not be asked; the text says why."""


@frozen
class Request:
    """What is asked of a manager."""

    method: str
    path: str  # below the version
    document: Any = None
    query: Mapping[str, str] = {}
    is_stream: bool = False  # whether the body of its answer is taken as it comes


@define(eq=False)
class Manager:
    """One manager of a swarm."""

    address: str  # as the option --docker has it
    http: HTTPClient
    reactor: Any
    endpoint: Any = None  # an IStreamClientEndpoint, for what is no HTTP
    url: str = field(init=False)
    version: Version | None = None  # of the API that is spoken with it
    node: str | None = None  # the id of its node, once it has told it
    durations: Histogram = field(factory=Histogram)  # from each request to its answer
    failed: int = 0  # how many requests were not answered
    is_worker: bool = False  # as far as is known: then it is not asked of the swarm

    def __attrs_post_init__(self) -> None:
        self.url = "http://localhost" if self.address.startswith("unix:") else self.address

    async def ask(self, request: Request, within: float) -> tuple[Any, bytes]:
        """Send a request; returns its answer, and the body (or the beginning of it).

        Raises NoAnswer.
        """
        return await self._send(request, await self.above(within), within)

    async def above(self, within: float = ANSWER_WITHIN) -> str:
        """What each path begins with: the version that is spoken. Raises NoAnswer."""
        if self.version is None:
            response, body = await self._send(Request("GET", "/version"), "", within)
            self.version = choose_version(self.address, response.code, body)
        return "/v{}.{}".format(*self.version)

    async def _send(self, request: Request, above: str, within: float) -> tuple[Any, bytes]:
        began = self.reactor.seconds()
        try:
            answered = await self._answered(request, above, within)
        except NoAnswer:
            self.failed += 1
            raise
        self.durations.add(self.reactor.seconds() - began)
        return answered

    async def _answered(self, request: Request, above: str, within: float) -> tuple[Any, bytes]:
        work = answer(self.http, self.url + above, request)
        try:
            return await bounded(self.reactor, within, work)
        except TimeoutError:
            raise NoAnswer(f"{self.address} does not answer within {within:g} seconds") from None
        except NoAnswer as error:
            raise NoAnswer(f"{self.address}: {error}") from error
        except Exception as error:  # whatever the network, TLS or HTTP may raise
            raise NoAnswer(f"{self.address}: {why(error)}") from error


async def answer(http: HTTPClient, above: str, request: Request, **more: Any) -> tuple[Any, bytes]:
    """Send a request; returns the answer, and its whole body: nothing if that is a stream.

    :param more: arguments of treq's

    Raises NoAnswer if that is too long; else what the network raises.
    """
    options: dict[str, Any] = {"params": request.query, "unbuffered": True, **more}
    if request.document is not None:
        options["json"] = request.document
    response: Any = await http.request(request.method, above + request.path, **options)
    if request.is_stream and response.code < FAULT:
        return response, b""
    return response, await whole(response, LONGEST_ANSWER)


async def whole(response: Any, longest: int) -> bytes:
    """The whole body of an answer, of so many bytes at the most.

    Raises NoAnswer if it is longer; else what the network raises.
    """
    body = bytearray()

    def received(data: bytes) -> None:
        body.extend(data)
        if len(body) > longest:
            raise NoAnswer(f"its answer is longer than {longest:,} bytes")

    await collect(response, received)
    return bytes(body)


def why(error: Any) -> str:
    """Why a request had no answer, as far as it can be told in words."""
    reasons = getattr(error, "reasons", None) or ()
    inner = next((reason.value for reason in reasons), error)
    return logged(str(inner) or type(inner).__name__)[:LONGEST_COMPLAINT]


def choose_version(address: str, status: int, body: bytes) -> Version:
    """The version of the API to speak, given the answer to GET /version.

    Raises NoAnswer if there is none that both know.
    """
    try:
        said = json.loads(body)
        newest, oldest = (read_version(said[key]) for key in ("ApiVersion", "MinAPIVersion"))
    except (ValueError, KeyError, TypeError):
        raise NoAnswer(f"{address} is no Docker: it answers {status} to GET /version") from None
    if newest < OLDEST or oldest > NEWEST:
        raise NoAnswer(
            f"{address} speaks versions {shown(oldest)} to {shown(newest)} of the Engine API, and "
            f"needed is one from {shown(OLDEST)} to {shown(NEWEST)}"
        )
    return max(OLDEST, oldest)


def read_version(text: str) -> Version:
    """A version of the API, such as 1.41. Raises ValueError."""
    major, minor = text.split(".")
    return int(major), int(minor)


def shown(version: Version) -> str:
    """A version, for people."""
    return "{}.{}".format(*version)


@define(eq=False)
class Docker:
    """A swarm, by whichever of its managers answers; or one node of it."""

    managers: list[Manager]
    advice: str = "try again: a swarm that has lost its leader chooses another soon"

    async def ask(
        self,
        method: str,
        path: str,
        document: Any = None,
        /,
        *,
        doing: str,
        within: float = ANSWER_WITHIN,
        **query: Any,
    ) -> Any:
        """Ask a manager; returns its answer: None if that is empty.

        :param doing: what for, as it is said if that fails
        :param within: seconds, for all managers together
        :param query: texts, numbers, or what is sent as JSON
        Raises Refused; Unavailable if none answers, or none has a leader.
        """
        texts = {key: _text(value) for key, value in query.items()}
        _, body = await self._answer(Request(method, path, document, texts), doing, within)
        return read(doing, body)

    async def list(
        self, path: str, keep: Callable[[Any], Any], *, doing: str, **query: Any
    ) -> list[Any]:
        """What is kept of each object in a list that may be long. Raises as ``ask`` does."""
        texts = {key: _text(value) for key, value in query.items()}
        response = await self.open(path, doing=doing, **texts)
        try:
            return await read_list(self.managers[0].reactor, response, keep)
        except (CancelledError, TimeoutError):
            raise Unavailable(doing, "the rest of a list does not come", "try again") from None
        except Exception as error:  # whatever the network may raise
            raise Unavailable(doing, why(error), "try again") from error

    async def read(self, path: str, longest: int, /, *, doing: str, **query: str) -> bytes:
        """The whole answer to a GET, which is no document, of so many bytes at the most.

        Raises as ``ask`` does; Refused also if it is longer.
        """
        response = await self.open(path, doing=doing, **query)
        reading = bounded(self.managers[0].reactor, ANSWER_WITHIN, whole(response, longest))
        try:
            return await reading
        except NoAnswer as error:
            raise Refused(doing, str(error)) from error
        except TimeoutError:
            raise Unavailable(doing, "the rest of an answer does not come", "try again") from None
        except Exception as error:  # whatever the network may raise
            raise Unavailable(doing, why(error), "try again") from error

    async def headers(self, path: str, /, *, doing: str, **query: str) -> Any:
        """The headers of the answer to a HEAD. Raises as ``ask`` does."""
        request = Request("HEAD", path, None, query)
        response, _ = await self._answer(request, doing, ANSWER_WITHIN)
        return response.headers

    async def open(self, path: str, /, *, doing: str, **query: str) -> Any:
        """The answer to a GET, whose body is a stream that has yet to be delivered.

        Raises as ``ask`` does.
        """
        request = Request("GET", path, None, query, is_stream=True)
        response, _ = await self._answer(request, doing, ANSWER_WITHIN)
        return response

    async def _answer(self, request: Request, doing: str, within: float) -> tuple[Any, bytes]:
        asked = [one for one in self.managers if not one.is_worker] or [*self.managers]
        complaints, each = [], within / len(asked)
        for manager in asked:
            try:
                response, body = await manager.ask(request, each)
            except NoAnswer as error:
                complaints.append(str(error))
            else:
                if response.code < FAULT:
                    return response, body
                if not is_of_gap(response.code, body):
                    raise refusal(response.code, doing, body)
                complaints.append(f"{manager.address}: {message(body)}")
                manager.is_worker = NO_MANAGER in message(body)
            self._put_back(manager)
        for manager in self.managers:
            manager.is_worker = False  # it may be a manager by the next time
        log.warn("{doing}: {why}", doing=doing, why="; ".join(complaints))
        raise Unavailable(doing, *complaints, self.advice)

    def _put_back(self, manager: Manager) -> None:
        manager.version = manager.node = None  # it may be another one that comes back
        self.managers.remove(manager)
        self.managers.append(manager)


def is_of_gap(status: int, body: bytes) -> bool:
    """Whether a manager refuses because it has no leader now: then another one may have."""
    said = message(body)
    return status == UNAVAILABLE or (status >= FAILS and any(word in said for word in OF_GAP))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read(doing: str, body: bytes) -> Any:
    """The document in an answer; None if that is empty. Raises MachineAtFault."""
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        raise MachineAtFault(doing, "the answer of Docker is no JSON") from None


def refusal(status: int, doing: str, body: bytes) -> Refused:
    """The error if a manager has answered so."""
    error = Refused(doing, f"Docker says: {message(body)}")
    error.status = status
    return error


def message(body: bytes) -> str:
    """What Docker says of a refusal."""
    try:
        return logged(json.loads(body)["message"])[:LONGEST_COMPLAINT]
    except (ValueError, KeyError, TypeError):
        return "it does not say why"
