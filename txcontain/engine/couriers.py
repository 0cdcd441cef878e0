"""What brings a notification to where it is wanted: a webhook, or a program of the host.

Neither is trusted to answer, or to be brief: of what it says no more is kept than a line of the
log, and whoever waits for it gives up (the Deferred can be cancelled).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.protocol import Protocol as Connection
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from txcontain import __version__
from txcontain.runtime.exits import exit_of

LONGEST_COMPLAINT = 500  # bytes
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class NotTaken(Exception):
    """A notification was not taken; the text says why."""


class Courier(Protocol):
    """Brings notifications somewhere."""

    @property
    def name(self) -> str:
        """What the log calls it."""

    def deliver(self, document: bytes) -> Deferred[None]:
        """Fires when it is taken; fails, with NotTaken or another error, if it is not."""


@implementer(IBodyProducer)
class Whole:
    """The body of a request, sent at once."""

    def __init__(self, body: bytes) -> None:
        self.body, self.length = body, len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Send it."""
        consumer.write(self.body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is sent already."""

    def resumeProducing(self) -> None:
        """It is sent already."""

    def stopProducing(self) -> None:
        """It is sent already."""


class HangUp(Connection):
    """Reads nothing of an answer: it may have no end."""

    def connectionMade(self) -> None:
        """Hang up."""
        transport: Any = self.transport
        transport.loseConnection()


@define
class Webhook:
    """POSTs each notification to a URL. A status of 200 to 299 means that it is taken.

    Redirects are not followed: they could lead to where only this host may ask.
    """

    reactor: Any
    url: str
    agent: Any  # an IAgent
    name: str = "the webhook"  # not the URL, which may have a secret in its path

    def deliver(self, document: bytes) -> Deferred[None]:
        """POST it; can be cancelled."""
        headers = Headers(
            {"Content-Type": ["application/json"], "User-Agent": [f"txcontain/{__version__}"]}
        )
        answered: Deferred[Any] = self.agent.request(
            b"POST", self.url.encode(), headers, Whole(document)
        )
        return answered.addCallback(self._answered)

    def _answered(self, response: Any) -> None:
        response.deliverBody(HangUp())
        if not 200 <= response.code < 300:
            raise NotTaken(f"it answered {response.code}")


def make_webhook(reactor: Any, url: str, within: float) -> Webhook:
    """A webhook that trusts the CAs of this system."""
    agent = Agent(reactor, BrowserLikePolicyForHTTPS(), connectTimeout=within)
    return Webhook(reactor, url, agent)


@define(eq=False)
class Run(ProcessProtocol):
    """A program that reads a notification from its stdin."""

    document: bytes
    transport: Any = None
    ended: Deferred[None] = field(init=False)
    _complaint: bytes = b""

    def __attrs_post_init__(self) -> None:
        self.ended = Deferred(lambda _: self.kill())  # when cancelled

    def connectionMade(self) -> None:
        """It runs."""
        self.transport.write(self.document)
        self.transport.closeStdin()

    def errReceived(self, data: bytes) -> None:
        """Keep the end of what it complains of."""
        self._complaint = (self._complaint + data)[-LONGEST_COMPLAINT:]

    def processExited(self, reason: Failure) -> None:
        """It has ended; what it has started may hold its stderr, so don't wait for that."""
        self.transport.loseConnection()
        if self.ended.called:
            return
        if reason.check(ProcessDone):
            self.ended.callback(None)
            return
        words = self._complaint.decode(errors="replace").strip().splitlines()
        value: Any = reason.value  # a ProcessTerminated
        how = exit_of(value.exitCode, value.signal, 0).reason
        self.ended.errback(NotTaken(": ".join([how, *words[-1:]])))

    def kill(self) -> None:
        """End it, and what it has started in its session."""
        with contextlib.suppress(ProcessLookupError, TypeError):  # it has ended just now
            os.killpg(self.transport.pid, signal.SIGKILL)


@define
class Command:
    """Runs a program for each notification, which reads it from stdin, and ends with 0."""

    reactor: Any
    command: Sequence[str]  # no shell reads them

    @property
    def name(self) -> str:
        """Its program."""
        return self.command[0]

    def deliver(self, document: bytes) -> Deferred[None]:
        """Run it, in a session of its own; when cancelled, it is killed."""
        run = Run(document)
        with open(os.devnull, "wb") as null:
            self.reactor.spawnProcess(
                run,
                "/usr/bin/setsid",
                ["setsid", *self.command],
                env=ENVIRONMENT,
                path="/",
                childFDs={0: "w", 1: null.fileno(), 2: "r"},
            )
        return run.ended
