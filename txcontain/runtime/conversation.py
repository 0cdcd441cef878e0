"""The manager's end of the conversation with one init."""

from __future__ import annotations

import json
import marshal
import os
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.container.plan import Plan
from txcontain.errors import MachineAtFault
from txcontain.host.kernel import Kernel
from txcontain.host.processes import Process
from txcontain.later import Timer, background

MakeLink = Callable[[Process], Coroutine[Any, Any, None]]  # to the private network
HEARD_WITHIN = 1.0  # seconds


class StepFailed(Exception):
    """A step of a plan failed; ``details`` is what the init said of it."""

    SAYS: ClassVar = {
        "step": int,
        "call": str,
        "errno": int,
        "path": str,
        "cause": str,
        "hint": str,
    }

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details)
        self.details = {key: kind(details[key]) for key, kind in self.SAYS.items()}


class InitHandler(Protocol):
    """Is told what an init says: the Child or the Session that the init belongs to."""

    process: Process
    make_link: MakeLink | None

    @property
    def stream(self) -> int | None:
        """The descriptor of a connection that it is to have as standard input and output."""

    @property
    def terminal_passed(self) -> Callable[[int], None]:
        """Takes the descriptor of a terminal's master, if the plan makes one."""

    @property
    def on_pause(self) -> Callable[[], None] | None:
        """Is told that the init waits before a step, if the plan says that it is to."""

    def init_connected(self, connection: Connection, pid: int) -> None:
        """The init has connected."""

    def early_steps_done(self) -> None:
        """The init waits for the rest of a plan."""

    def early_steps_failed(self, failure: StepFailed) -> None:
        """The init could not carry out its early steps."""

    def about_to_exec(self) -> None:
        """The init has carried out all of a plan but its exec."""

    def hung_up(self) -> None:
        """The conversation is over."""


@implementer(IFileDescriptorReceiver)
class Connection(LineOnlyReceiver):
    """The manager's end of the conversation with one init."""

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = 1 << 16

    def __init__(self, kernel: Kernel, find: Callable[[str], InitHandler | None]) -> None:
        self._kernel = kernel
        self._find = find
        self._child: InitHandler | None = None
        self._outcome: Deferred[list[float]] | None = None
        self._done: list[float] | None = None
        self._deadline: Timer | None = None
        self._passed: list[int] = []  # descriptors that belong to the next message
        self._handlers: dict[str, Callable[[Any], None]] = {
            "token": self._token,
            "ready": self._ready,
            "wants": self._wanted,
            "passes": self._terminal_passed,
            "done": self._steps_done,
            "failed": self._step_failed,
        }

    def send(self, plan: Plan, *descriptors: int) -> Deferred[list[float]]:
        """Send a plan, and descriptors with it; fires as ``Child.carry_out`` says."""
        self._outcome = Deferred()
        self.send_plan(plan, *descriptors)
        return self._outcome

    def send_plan(self, plan: Plan, *descriptors: int) -> None:
        """Send steps to be carried out now."""
        steps = marshal.dumps(plan)
        message = len(steps).to_bytes(4, "big") + steps
        # Send it now, not in the reactor's next turn: so the init works while this turn goes on.
        try:
            sent = self._kernel.send(self.transport.getHandle(), message, *descriptors)
        except OSError:  # the init has ended: connectionLost comes in a moment
            sent = 0
        self.transport.write(message[sent:])

    def expect_the_end(self, reactor: Any) -> None:
        """The init has ended: wait a moment for its last words, then close."""
        self._deadline = Timer(reactor, self.transport.abortConnection)
        self._deadline.after(HEARD_WITHIN)

    def lineReceived(self, line: bytes) -> None:
        """A message of the init; an invalid one ends the conversation."""
        try:
            message = json.loads(line)
            for name, value in message.items():
                self._handlers[name](value)
        except (
            ValueError,
            RecursionError,
            AttributeError,
            TypeError,
            LookupError,
            OverflowError,
            OSError,
        ):
            self.transport.abortConnection()

    def _token(self, token: str) -> None:
        self._child = self._find(token)
        if self._child is None:
            raise LookupError(token)
        self._child.init_connected(self, self._kernel.peer(self.transport.getHandle()))

    def _ready(self, steps: int) -> None:
        if self._child is None:
            raise LookupError
        self._child.early_steps_done()

    def _wanted(self, what: str) -> None:
        child = self._child
        if child is not None and what == "link" and child.make_link is not None:
            background(self._link(child.make_link(child.process)), "making a link")
        elif child is not None and what == "step" and child.on_pause is not None:
            child.on_pause()
        else:
            raise LookupError(what)

    def go_on(self) -> None:
        """The init need not wait before its next step any more."""
        self.transport.write(b".")

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """For the reactor: the init passes this."""
        os.set_inheritable(descriptor, False)
        self._passed.append(descriptor)

    def _terminal_passed(self, what: str) -> None:
        if self._child is None:
            raise LookupError(what)
        self._child.terminal_passed(self._passed.pop())

    async def _link(self, connecting: Coroutine[Any, Any, None]) -> None:
        try:
            await connecting
        except Exception:
            self._fail(Failure())
        else:
            self.transport.write(b"\n")

    def _fail(self, reason: Any) -> None:
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            outcome.errback(reason)

    def _steps_done(self, durations: list[float]) -> None:
        self._done = [float(duration) for duration in durations]
        if self._child is not None:
            self._child.about_to_exec()

    def _step_failed(self, details: dict[str, Any]) -> None:
        failure = StepFailed(details)
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            outcome.errback(failure)
        elif self._child is not None:
            self._child.early_steps_failed(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End-of-file: the exec has closed the socket, or the init has ended."""
        if self._deadline is not None:
            self._deadline.cancel()
        while self._passed:
            os.close(self._passed.pop())
        if self._child is not None:
            self._child.hung_up()
        if self._outcome is None:
            return
        outcome, self._outcome = self._outcome, None
        if self._done is None:
            outcome.errback(MachineAtFault("carrying out the plan", "the init was killed half-way"))
        else:
            outcome.callback(self._done)
