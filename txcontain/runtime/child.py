"""A container's monitor as a child of this manager."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail as failed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from txcontain.container.plan import Plan, begins_with
from txcontain.errors import Error, MachineAtFault
from txcontain.host.os_errors import of_os
from txcontain.runtime import diagnose
from txcontain.runtime.conversation import Connection, MakeLink, StepFailed
from txcontain.runtime.supervised import Supervised

LONGEST_STDERR = 4096  # bytes kept of what unshare or the init complains of


@define(eq=False)
class Child(Supervised, ProcessProtocol):
    """The monitor as a child of this manager: told of its end by the reactor."""

    transport: Any = None
    early_steps: Plan = field(factory=list)  # those that it carries out at once
    waiting: Deferred[Child] = field(factory=Deferred)  # fires when the init waits for a plan
    connection: Connection | None = None
    make_link: MakeLink | None = None  # to the private network, if the plan asks for it
    stream: int | None = None  # the descriptor of a connection to pass to the init
    # Takes the master of the terminal that its script has, if that is to have one.
    terminal_passed: Callable[[int], None] = os.close
    on_pause: Callable[[], None] | None = None  # told that the init waits before a step
    reserved: str = ""  # the name of the one instance that it was prepared for, if any
    shared: str = ""  # the kind of namespace that is the host's, in place of one of its own
    in_advance: int = 0  # steps that it carried out before a launch needed them
    planned: bool = False  # whether it got the rest of a plan
    execs: Deferred[bool] = field(factory=Deferred)  # fires when the init tries to, or never will
    stderr: bytes = b""
    gone: Callable[[str], None] = lambda token: None  # told the token when the monitor has ended
    heard: Callable[[bytes], None] = lambda data: None  # told what comes on stderr
    silent: Deferred[None] = field(factory=Deferred)  # fires when stderr is closed
    lost: Callable[[Child], None] = lambda child: None  # told that the init takes no plan any more

    def connectionMade(self) -> None:
        """The monitor runs."""
        with contextlib.suppress(OSError):  # as its parent we hear of its end anyway
            self.monitor = self.kernel.identify(self.transport.pid)

    def init_connected(self, connection: Connection, pid: int) -> None:
        """The init has connected: PID 1 has this pid.

        Raises ProcessLookupError if it has ended already.
        """
        try:
            self.process = self.kernel.identify(pid)
            self.pidfd = self.hold(self.process)
        except OSError as error:
            why = of_os(error)
            self.fail(MachineAtFault("taking note of a container's init", why))
            raise
        self.connection = connection
        connection.send_plan(self.early_steps)

    def early_steps_done(self) -> None:
        """The init waits for the rest of a plan."""
        if not self.waiting.called:
            self.waiting.callback(self)

    def early_steps_failed(self, failure: StepFailed) -> None:
        """The init could not carry out its early steps, and ends."""
        self.fail(diagnose.of_step(self.early_steps, failure))

    def about_to_exec(self) -> None:
        """The init has carried out all of a plan but its exec."""
        self._will_exec(True)

    def _will_exec(self, it_will: bool) -> None:
        if not self.execs.called:
            self.execs.callback(it_will)

    def hung_up(self) -> None:
        """The init has closed its connection: its script runs, or it ends."""
        self.connection = None
        if not self.planned:
            self.lost(self)
            self.fail(MachineAtFault("preparing a container's init", "it ended half-way"))

    def fail(self, error: Error) -> None:
        """Tell the waiting launch, unless it was told already, that this init takes no plan."""
        if not self.waiting.called:
            self.waiting.errback(error)

    def carry_out(self, plan: Plan) -> Deferred[list[float]]:
        """Send what is left of a plan; fires with each step's seconds once its exec has worked.

        Fails with StepFailed, or MachineAtFault if the init ended half-way.
        """
        self.planned = True
        if self.connection is None:
            carried_out = failed(MachineAtFault("carrying out the plan", "the init has ended"))
        else:
            assert begins_with(plan, self.early_steps)
            passed = [] if self.stream is None else [self.stream]
            carried_out = self.connection.send(plan[len(self.early_steps) :], *passed)
        return carried_out.addBoth(self._be_over)

    def _be_over(self, outcome: Any) -> Any:
        self._will_exec(False)
        return outcome

    def go_on(self) -> None:
        """Tell the init, which waits before a step, to carry it out."""
        if self.connection is not None:
            self.connection.go_on()

    def hang_up(self) -> None:
        """Tell the init that it is not needed any more."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.loseConnection()

    def abandon(self, reason: Failure) -> Failure:
        """Kill the monitor of an init that did not connect; the init dies with it."""
        if self.transport is not None:  # else it was never spawned
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
        return reason

    def let_go_of_stderr(self) -> None:
        """Close the pipe for complaints of unshare and the init: the script runs now."""
        self.transport.closeChildFD(2)

    def errReceived(self, data: bytes) -> None:
        """Keep the complaint."""
        self.stderr = (self.stderr + data)[-LONGEST_STDERR:]
        self.heard(data)

    def errConnectionLost(self) -> None:
        """No more complaints can come."""
        self.silent.callback(None)

    def processExited(self, reason: Failure) -> None:
        """The monitor has ended; others may still hold its pipe open, so don't wait for that."""
        self.gone(self.token)
        if self.connection is not None:
            self.connection.expect_the_end(self.reactor)
        self.has_ended()
        self.fail(MachineAtFault(*self._why_it_never_connected()))

    def _why_it_never_connected(self) -> tuple[str, ...]:
        complaints = self.stderr.decode(errors="replace").strip().splitlines()
        return (
            "making the container's namespaces",
            complaints[-1] if complaints else f"its init ended before it connected: {self.exit}",
            "the manager must run as root, on Linux 5.12 or later, with namespaces allowed",
        )
