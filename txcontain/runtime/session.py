"""A command in a container, from its start to its end: its streams, its signals, its exit.

Before it is that, it is an init which waits for a plan, outside of any container. It is a child of
this manager and ends with it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail as failed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.container.exec_plan import Size
from txcontain.container.plan import Plan, begins_with
from txcontain.errors import Error, MachineAtFault
from txcontain.host.kernel import Kernel
from txcontain.host.processes import Process
from txcontain.later import Timer
from txcontain.runtime import diagnose
from txcontain.runtime.conversation import Connection, MakeLink, StepFailed
from txcontain.runtime.exits import Exit, by_someone, exit_of, with_kills
from txcontain.runtime.supervised import UNKNOWN
from txcontain.runtime.terminal import Terminal

KILL_AFTER = 5.0  # seconds between SIGHUP and SIGKILL
# Seconds for which what it had started may still write, after its end: a child of it may hold its
# output open for ever.
LINGER = 0.2
# SIGKILL can't be passed on, so init.py passes this one on as SIGKILL.
PASSED_AS_KILL = signal.SIGRTMAX
LONGEST_STDERR = 4096  # bytes kept of what an init complains of


@implementer(IPushProducer)
@define(eq=False)
class Session(ProcessProtocol):
    """A command in a container; as a producer, it is the command's output."""

    reactor: Any
    kernel: Kernel
    early_steps: Plan
    transport: Any = None
    process: Process = UNKNOWN  # the init, as seen from here
    make_link: MakeLink | None = None
    on_pause: None = None
    stream: None = None
    connection: Connection | None = None
    terminal: Terminal | None = None
    # Fires when the init waits for a plan, or with why it will not.
    waiting: Deferred[Error | None] = field(factory=Deferred)
    ended: Deferred[Exit] = field(factory=Deferred)  # fires after the last output
    heard: Callable[[int, bytes], None] | None = None  # told the stream (1, 2) and what came
    lost: Callable[[Session], None] = lambda session: None  # told that its process has ended
    exit: Exit | None = None
    ends_by: int = signal.SIGHUP  # the signal that asks it to end
    paused: bool = False  # whether its output waits
    ended_because: str = ""  # empty if the manager did not end it
    # How many processes of its container the kernel has killed for want of memory: now, and before.
    count_kills: Callable[[], int] = lambda: 0
    kills_before: int = 0
    _planned: bool = False
    _pipes_closed: bool = False
    _stderr: bytes = b""
    _kill: Timer = field(init=False)
    _linger: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._kill = Timer(self.reactor, self._signal)
        self._linger = Timer(self.reactor, self._linger_no_longer)

    # -- an init that waits ----------------------------------------------------

    def init_connected(self, connection: Connection, pid: int) -> None:
        """The init has connected."""
        self.connection = connection
        connection.send_plan(self.early_steps)

    def early_steps_done(self) -> None:
        """The init waits for the rest of a plan."""
        self._say(None)

    def early_steps_failed(self, failure: StepFailed) -> None:
        """The init could not carry out its early steps, and ends."""
        self._say(diagnose.of_step(self.early_steps, failure))

    def about_to_exec(self) -> None:
        """Nothing has to be written down for a command."""

    def hung_up(self) -> None:
        """The init has closed its connection: the command runs, or it ends."""
        self.connection = None

    def terminal_passed(self, master: int) -> None:
        """The command has a terminal, and this is its other end."""
        self.transport.resumeProducing()  # so that we hear that its pipes are closed
        self.terminal = Terminal(self.reactor, master, self._from_terminal, self._check_for_end)
        self.pauseProducing()

    def carry_out(self, plan: Plan) -> Deferred[list[float]]:
        """Send what is left of a plan; fires once the command runs.

        Fails with StepFailed, or MachineAtFault if the init ended half-way. The command's output
        waits until ``resumeProducing``.
        """
        if self.connection is None:
            return failed(MachineAtFault("carrying out the plan", "the init has ended"))
        assert begins_with(plan, self.early_steps)
        self._planned = True
        self.pauseProducing()
        return self.connection.send(plan[len(self.early_steps) :])

    def hang_up(self) -> None:
        """An init that waits is not needed any more."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.loseConnection()

    def _say(self, why_not: Error | None) -> None:
        if not self.waiting.called:
            self.waiting.callback(why_not)

    # -- its input -------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Let the command read this."""
        (self.terminal or self.transport).write(data)

    def close_input(self) -> None:
        """No more input comes. (A terminal has no end: there, Ctrl-D is input like any other.)"""
        if self.terminal is None:
            self.transport.unregisterProducer()
            self.transport.closeStdin()

    def register_input(self, producer: Any) -> None:
        """Have a push producer pause while the command does not read."""
        (self.terminal or self.transport).registerProducer(producer, True)

    def resize(self, size: Size) -> None:
        """The terminal, if it has one, has this size now."""
        if self.terminal is not None:
            self.terminal.resize(size)

    # -- its output ------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Read no output for now: the command waits once its pipes are full."""
        self.paused = True
        (self.terminal or self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self.paused = False
        (self.terminal or self.transport).resumeProducing()

    def stopProducing(self) -> None:
        """No one reads its output any more."""
        self.end("no one reads its output any more")

    def outReceived(self, data: bytes) -> None:
        """The command has written to stdout."""
        self._hear(1, data)

    def errReceived(self, data: bytes) -> None:
        """The same to stderr; before it runs, the init complains."""
        if self._planned:
            self._hear(2, data)
        else:
            self._stderr = (self._stderr + data)[-LONGEST_STDERR:]

    def _from_terminal(self, data: bytes) -> None:
        self._hear(1, data)

    def _hear(self, stream: int, data: bytes) -> None:
        if self.heard is not None:
            self.heard(stream, data)

    # -- its end ---------------------------------------------------------------

    def end(self, because: str) -> None:
        """End the command: by SIGHUP, as if its terminal were gone, and in the end by SIGKILL.

        :param because: why, as its exit will say
        """
        if self.ended_because:
            return
        self.ended_because = because
        self.heard = None
        self.resumeProducing()  # it may wait for a reader
        if self.terminal is not None:
            self.terminal.close()
        if self.exit is None:
            self._signal(self.ends_by)
            self._kill.after(KILL_AFTER)

    def kill(self, because: str) -> None:
        """End the command at once."""
        self.ended_because = self.ended_because or because
        self._signal()

    def _signal(self, number: int = PASSED_AS_KILL) -> None:
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def processExited(self, reason: Failure) -> None:
        """The init has ended, as its command has."""
        self._kill.cancel()
        ended: Any = reason.value
        how = exit_of(ended.exitCode, ended.signal, self.kernel.now())
        self.exit = how = self._explained(how)
        if self.connection is not None:
            self.connection.expect_the_end(self.reactor)
        self.lost(self)
        complaint = self._stderr.decode(errors="replace").strip().splitlines()
        self._say(MachineAtFault("preparing to join a container", *(complaint[-1:] or [str(how)])))
        self._linger.after(LINGER)

    def _explained(self, how: Exit) -> Exit:
        if self.ended_because and how.failed:
            return evolve(how, reason=f"{self.ended_because} ({how.reason})")
        if how.signal == signal.SIGKILL and (kills := self.count_kills() - self.kills_before):
            return with_kills(how, kills)
        return by_someone(how, "")

    def _linger_no_longer(self) -> None:
        if self.paused:  # then there may be more of its output
            self._linger.after(LINGER)
            return
        if self.terminal is not None:
            self.terminal.close()
        self.transport.loseConnection()

    def processEnded(self, reason: Failure) -> None:
        """Its pipes are closed too."""
        self._pipes_closed = True
        self._check_for_end()

    def _check_for_end(self) -> None:
        if self._pipes_closed and self.exit is not None and not self._has_terminal():
            self._linger.cancel()
            self.ended.callback(self.exit)

    def _has_terminal(self) -> bool:
        return self.terminal is not None and self.terminal.is_open
