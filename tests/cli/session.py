"""A terminal at which commands are typed, with a fake manager in memory."""

import io
import json
import sys
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txcontain.cli import main
from txcontain.cli.client import Client
from txcontain.cli.commands import COMMANDS

# What follows on the status of an answer that says no more.
NO_REASON = ", without a reason: is http://localhost:8080 a txcontain manager's address?"


class Manager(Resource):
    """Answers each request as its table says, and remembers what it was asked.

    The table goes from "METHOD /path" to a status, headers and body; a body that
    is no bytes is sent as JSON, and None is never sent.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[Any, Any] = {}
        self.asked: list[Any] = []
        self.waiting: list[Any] = []

    def answers_to(
        self,
        request: str,
        body: bytes | dict[str, Any] | None = b"",
        status: int = 200,
        **headers: str,
    ) -> None:
        """Lay down an answer; `_` in a header's name stands for `-`."""
        self.answers[request] = (status, headers, body)

    def render(self, request: Any) -> bytes | int:
        """Answer, and remember what matters of the request."""
        asked = f"{request.method.decode()} {request.uri.decode()}"
        self.asked.append((asked, request.content.read()))
        self.headers = request.requestHeaders
        status, headers, body = self.answers[asked]
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        if body is None:
            self.waiting.append(request)
            return NOT_DONE_YET
        return body if isinstance(body, bytes) else json.dumps(body).encode()


class Broken:
    """An agent whose every request fails."""

    def __init__(self, error: Any) -> None:
        self.error = error

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        """Fail as a real agent does."""
        return fail(self.error)


class Closed:
    """An endpoint at which nothing listens."""

    def connect(self, factory: Any) -> Deferred[Any]:
        """Fail as a real endpoint does."""
        return fail(ConnectionRefusedError())


class Session(SynchronousTestCase):
    """Types commands, and looks at what comes out."""

    commands = COMMANDS

    def setUp(self) -> None:
        self.manager = Manager()
        self.http: Any = StubTreq(self.manager)
        self.clock: Any = Clock()
        self.way: Any = lambda uri: Closed()  # to what is no plain HTTP
        self.stdout, self.stderr = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)

    def start(self, *words: str) -> Deferred[Any]:
        """Type a command; return the Deferred of its exit status."""
        arguments = main.parse(list(words), {}, self.commands)
        client = Client(arguments.url, self.http, self.clock)
        client.way = self.way
        status = Deferred.fromCoroutine(main.carry_out(client, arguments))
        self.addCleanup(self.interrupt, status)
        return status

    def interrupt(self, status: Deferred[Any]) -> None:
        """End a command that is not over: what it ends by itself can't wait for the collector."""
        if not status.called:
            status.addErrback(lambda failure: failure.trap(CancelledError))
            status.cancel()

    def run_command(self, *words: str) -> int:
        """Type a command that ends at once; return its exit status."""
        return self.successResultOf(self.start(*words))

    @property
    def out(self) -> str:
        """All that was printed."""
        self.stdout.flush()
        return self.stdout.buffer.getvalue().decode()

    @property
    def err(self) -> str:
        """All that went to stderr."""
        return self.stderr.getvalue()
