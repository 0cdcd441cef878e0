"""A container's processes as the manager holds them: the keeper, and PID 1 below it.

``Child`` is one that this manager has started and that carries out a plan (the
protocol is drawn at the top of ``init.py``); ``Adopted`` is one that an earlier
manager started. Both are signalled by a pidfd, and both tell their end once, which
they learn from the file that the keeper has written: it is the same whether the
manager was there when it happened or not.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import re
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain import failures
from txcontain.cgroups import Cgroups
from txcontain.errors import MachineAtFault
from txcontain.kernel import Kernel, Process
from txcontain.later import background, poll
from txcontain.plan import Plan, begins_with

LONGEST_STDERR = 4096  # bytes kept of what unshare or the init complains of
SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
UNKNOWN = Process(0, 0)
Connect = Callable[[Process], Coroutine[Any, Any, None]]
UNSEEN = "ended, and its keeper was killed too: no one saw how"
LOOK_AFTER, LOOK_WITHIN = 0.025, 1.0  # seconds, for what the kernel lets go of in its own time
log = Logger()
BY_SIGKILL = 128 + signal.SIGKILL  # a shell's status where its last command was killed
DONE = re.compile(r"Done(?:\((\d+)\))?")


@frozen
class Exit:
    """How a container ended: by a status, or by a signal; or in a way that no one saw."""

    status: int | None = None
    signal: int | None = None
    reason: str = ""
    at: float = 0.0  # unix time, seconds

    @property
    def failed(self) -> bool:
        """Whether this is anything but exit status 0."""
        return self.status != 0

    def __str__(self) -> str:
        return self.reason


def read_exit(slot: str) -> Exit:
    """What the keeper wrote of the end of the container in this slot."""
    try:
        with open(os.path.join(slot, "exit")) as file:
            words = file.read(256)
            at = os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, UnicodeDecodeError):
        return Exit(reason=UNSEEN, at=time.time())
    how = _parse(words.rpartition("+")[2].strip())
    return Exit(*how, at=time.time() if how[2] == UNSEEN else at)  # else as old as the keeper


def _parse(words: str) -> tuple[int | None, int | None, str]:
    done = DONE.fullmatch(words)
    if done:
        status = int(done[1] or 0)
        return status, None, f"exit status {status}"
    number = SIGNALS.get(words.removesuffix("(core dumped)").strip())
    if number is not None:
        return None, number, f"killed by {signal.Signals(number).name}"
    return None, None, UNSEEN


def _with_kills(how: Exit, kills: int) -> Exit:
    """An end, where the kernel has killed so many of the processes for want of memory.

    It need not have come of that: a worker may have been killed days before.
    """
    if how.signal == signal.SIGKILL or how.status == BY_SIGKILL:
        return evolve(how, reason=f"out of memory ({how.reason})")
    killed = f"{kills} of its processes had been killed for want of memory"
    return evolve(how, reason=f"{how.reason}; {killed}")


class StepFailed(Exception):
    """A step of a plan failed; ``details`` is what the init said of it."""

    SAYS: ClassVar = {"step": int, "call": str, "errno": int, "path": str, "cause": str,
                      "hint": str}  # fmt: skip

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details)
        self.details = {key: kind(details[key]) for key, kind in self.SAYS.items()}


@implementer(IReadDescriptor)
@define(eq=False)
class Watch:
    """Tells, once, that a process has ended: its pidfd can be read from then on (pidfd_open(2))."""

    reactor: Any
    pidfd: int
    ended: Callable[[], None]

    def start(self) -> None:
        """Begin to watch."""
        self.reactor.addReader(self)

    def stop(self) -> None:
        """Watch no longer: the pidfd may be closed."""
        self.reactor.removeReader(self)

    def fileno(self) -> int:
        """For the reactor."""
        return self.pidfd

    def doRead(self) -> None:
        """The process has ended."""
        self.stop()
        self.ended()

    def connectionLost(self, reason: Failure) -> None:
        """For the reactor."""

    def logPrefix(self) -> str:
        """For the reactor."""
        return "watch"


@define(eq=False)
class Supervised:
    """What an instance holds of its processes, however it came by them."""

    kernel: Kernel
    cgroups: Cgroups
    slot: str  # the keeper's folder
    process: Process = UNKNOWN  # PID 1, as seen from here
    keeper: Process = UNKNOWN
    pidfd: int = -1
    exit: Exit | None = None
    on_exit: Callable[[Exit], None] | None = None
    killed_because: str = ""  # empty if the manager did not kill it, or says no reason
    _watch: Watch | None = None  # of PID 1

    @property
    def token(self) -> str:
        """The name of the slot, and of the container's cgroup."""
        return os.path.basename(self.slot)

    def send_signal(self, number: int) -> None:
        """Signal PID 1; nothing where it has ended."""
        if self.pidfd >= 0:
            self.kernel.send_signal(self.pidfd, number)

    def kill(self, because: str = "") -> None:
        """End every process of the container (the pid namespace goes with its PID 1).

        :param because: what the end's reason will say, so that no one looks for another killer
        """
        self.killed_because = self.killed_because or because
        self.send_signal(signal.SIGKILL)

    def watch_init(self, reactor: Any, ended: Callable[[], None]) -> None:
        """Be told that PID 1 has ended, and all processes with it: the keeper will, in a moment."""
        if self.pidfd >= 0:
            self._watch = Watch(reactor, self.pidfd, ended)
            self._watch.start()

    async def remove(self, reactor: Any) -> list[str]:
        """Remove what the end left: the slot's folder and the cgroup, and who still is in it.

        Returns what would not go within a second.
        """
        async for _ in poll(reactor, LOOK_AFTER, within=LOOK_WITHIN):
            left = self._discard()
            if self.kernel.lives(self.process):
                left.append(f"process {self.process.pid}")
            if not left:
                break
            self._kill_members()
        return left

    def clear(self, reactor: Any) -> None:
        """The same, where no one waits for it."""
        background(self._clear(reactor), f"removing {self.slot}")

    async def _clear(self, reactor: Any) -> None:
        if left := await self.remove(reactor):
            log.warn("{slot} is empty, but left is: {left}", slot=self.slot, left=", ".join(left))

    def _discard(self) -> list[str]:
        with contextlib.suppress(OSError):
            for name in os.listdir(self.slot):
                os.unlink(os.path.join(self.slot, name))
            os.rmdir(self.slot)
        left = self.cgroups.remove(self.token)
        return [*left, self.slot] if os.path.lexists(self.slot) else left

    def _kill_members(self) -> None:
        """End who is in the cgroup: nobody, but where a keeper's end was survived (prctl(2))."""
        members = {}
        for pid in self.cgroups.members(self.token):
            with contextlib.suppress(ProcessLookupError):
                members[pid] = self.kernel.identify(pid)
        for pid in self.cgroups.members(self.token) & set(members):  # it was none other's pid
            self.kernel.signal_process(members[pid], signal.SIGKILL)

    def has_ended(self) -> None:
        """Called when the keeper has ended, and so PID 1 before it."""
        self.kill()  # it may have called off that it dies with its keeper (prctl(2))
        if self._watch is not None:
            self._watch.stop()
        if self.pidfd >= 0:
            self.kernel.close(self.pidfd)
            self.pidfd = -1
        self.exit = read_exit(self.slot)
        if self.exit.failed:
            kills = self.cgroups.out_of_memory_kills(self.token)
            if kills:
                self.exit = _with_kills(self.exit, kills)
            elif self.killed_because and self.exit.signal == signal.SIGKILL:
                because = f"{self.killed_because} ({self.exit.reason})"
                self.exit = evolve(self.exit, reason=because)
        if self.on_exit is not None:
            self.on_exit(self.exit)


@define(eq=False)
class Child(Supervised, ProcessProtocol):
    """The keeper as a child of this manager: told of its end by the reactor."""

    transport: Any = None
    groundwork: Plan = field(factory=list)  # the steps that it carries out at once
    waiting: Deferred[Child] = field(factory=Deferred)  # fires when the init waits for a plan
    connection: Connection | None = None
    connect: Connect | None = None  # makes the link that a private network needs
    reserved: str = ""  # the name of the instance that it is for, where it is for one alone
    in_advance: int = 0  # steps that it has carried out while no one waited for them
    planned: bool = False  # whether it got the rest of a plan
    stderr: bytes = b""
    gone: Callable[[str], None] = lambda token: None  # told its token when it has ended
    heard: Callable[[bytes], None] = lambda data: None  # told what comes on stderr
    silent: Deferred[None] = field(factory=Deferred)  # fires when no one has that open any more

    def connectionMade(self) -> None:
        """The keeper runs."""
        self.keeper = self.kernel.identify(self.transport.pid)

    def init_connected(self, connection: Connection, pid: int) -> None:
        """The init has connected: PID 1 has this pid.

        Raises ProcessLookupError where it is gone again.
        """
        try:
            self.process = self.kernel.identify(pid)
            self.pidfd = self.kernel.open_process(self.process)
        except OSError as error:
            why = failures.of_os(error)
            self.waiting.errback(MachineAtFault("taking note of a container's init", why))
            raise
        self.connection = connection
        connection.send_plan(self.groundwork)

    def groundwork_done(self) -> None:
        """The init waits for the rest of a plan."""
        if not self.waiting.called:
            self.waiting.callback(self)

    def groundwork_failed(self, failure: StepFailed) -> None:
        """The init could not even do what all containers share, and ends."""
        if not self.waiting.called:
            self.waiting.errback(failures.of_step(self.groundwork, failure))

    def carry_out(self, plan: Plan) -> Deferred[list[float]]:
        """Send what is left of a plan; fires with each step's seconds once its exec has worked.

        Fails with StepFailed, or MachineAtFault where the init ended half-way.
        """
        assert self.connection is not None
        self.planned = True
        assert begins_with(plan, self.groundwork)
        return self.connection.send(plan[len(self.groundwork) :])

    def hang_up(self) -> None:
        """Tell the init that it is not needed any more."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.loseConnection()

    def abandon(self, reason: Failure) -> Failure:
        """Kill the keeper of an init that did not connect; the init dies with it."""
        if self.transport is not None:  # else it could not even be spawned
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
        return reason

    def let_go_of_stderr(self) -> None:
        """Close the pipe on which unshare and the init complain: the script runs now."""
        self.transport.closeChildFD(2)

    def errReceived(self, data: bytes) -> None:
        """Keep the complaint."""
        self.stderr = (self.stderr + data)[-LONGEST_STDERR:]
        self.heard(data)

    def errConnectionLost(self) -> None:
        """There is no more to complain."""
        self.silent.callback(None)

    def processExited(self, reason: Failure) -> None:
        """The keeper has ended (its pipe may stay open in others: don't wait for that)."""
        self.gone(self.token)
        self.has_ended()
        if not self.waiting.called:
            self.waiting.errback(MachineAtFault(*self._why_it_never_connected()))

    def _why_it_never_connected(self) -> tuple[str, ...]:
        complaints = self.stderr.decode(errors="replace").strip().splitlines()
        return (
            "making the container's namespaces",
            complaints[-1] if complaints else f"its init ended before it connected: {self.exit}",
            "the manager must run as root, on Linux 5.12 or later, where namespaces are allowed",
        )


class Connection(LineOnlyReceiver):
    """The manager's end of the conversation with one init."""

    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = 1 << 16

    def __init__(self, kernel: Kernel, find: Callable[[str], Child | None]) -> None:
        self._kernel = kernel
        self._find = find
        self._child: Child | None = None
        self._outcome: Deferred[list[float]] | None = None
        self._done: list[float] | None = None
        self._handlers: dict[str, Callable[[Any], None]] = {
            "token": self._token,
            "ready": self._ready,
            "wants": self._link_wanted,
            "done": self._steps_done,
            "failed": self._step_failed,
        }

    def send(self, plan: Plan) -> Deferred[list[float]]:
        """Send a plan; fires as ``Child.carry_out`` says."""
        self._outcome = Deferred()
        self.send_plan(plan)
        return self._outcome

    def send_plan(self, plan: Plan) -> None:
        """Send steps to be carried out now."""
        steps = marshal.dumps(plan)
        message = len(steps).to_bytes(4, "big") + steps
        # Now, and not in the reactor's next turn: the init works while this one goes on.
        sent = self._kernel.send(self.transport.getHandle(), message)
        self.transport.write(message[sent:])

    def lineReceived(self, line: bytes) -> None:
        """A message of the init; one that is none ends the conversation."""
        try:
            message = json.loads(line)
            for name, value in message.items():
                self._handlers[name](value)
        except (ValueError, RecursionError, AttributeError, TypeError, LookupError, OverflowError,
                OSError):  # fmt: skip
            self.transport.abortConnection()

    def _token(self, token: str) -> None:
        self._child = self._find(token)
        if self._child is None:
            raise LookupError(token)
        self._child.init_connected(self, self._kernel.peer(self.transport.getHandle()))

    def _ready(self, steps: int) -> None:
        if self._child is None:
            raise LookupError
        self._child.groundwork_done()

    def _link_wanted(self, what: str) -> None:
        if self._child is None or self._child.connect is None:
            raise LookupError(what)
        background(self._link(self._child.connect(self._child.process)), "making a link")

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

    def _step_failed(self, details: dict[str, Any]) -> None:
        failure = StepFailed(details)
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            outcome.errback(failure)
        elif self._child is not None:
            self._child.groundwork_failed(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End-of-file: the exec has closed the socket, or the init has ended."""
        if self._outcome is None:
            return
        outcome, self._outcome = self._outcome, None
        if self._done is None:
            outcome.errback(MachineAtFault("carrying out the plan", "the init was killed half-way"))
        else:
            outcome.callback(self._done)


@define(eq=False)
class Adopted(Supervised):
    """A container that an earlier manager started: its keeper's pidfd tells its end."""

    reactor: Any = None

    def watch(self) -> None:
        """Begin to follow it.

        Raises ProcessLookupError where it has ended already.
        """
        if not self.kernel.lives(self.keeper):
            raise ProcessLookupError(f"process {self.keeper.pid} has ended")
        keeper = self.kernel.open_process(self.keeper)
        with contextlib.suppress(ProcessLookupError):  # then the keeper ends in a moment too
            self.pidfd = self.kernel.open_process(self.process)

        def keeper_ended() -> None:
            self.kernel.close(keeper)
            self.has_ended()

        Watch(self.reactor, keeper, keeper_ended).start()
