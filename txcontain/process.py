"""A container's processes as the manager holds them: the keeper, and PID 1 below it.

``Child`` is one that this manager has started and that carries out a plan (the
protocol is drawn at the top of ``init.py``); ``Adopted`` is one that an earlier
manager started. Both are signalled by a pidfd, and both tell their end once, which
they learn from the file that the keeper has written: it is the same whether the
manager was there when it happened or not.
"""

from __future__ import annotations

import contextlib
import errno
import json
import marshal
import os
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail as failed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain import failures
from txcontain.cgroups import Cgroups
from txcontain.errors import Error, MachineAtFault
from txcontain.kernel import Kernel, Process
from txcontain.later import Timer, background, poll
from txcontain.plan import Plan, begins_with
from txcontain.store import NoFile, open_file

LONGEST_STDERR = 4096  # bytes kept of what unshare or the init complains of
SIGNALS = {signal.strsignal(number): int(number) for number in signal.valid_signals()}
UNKNOWN = Process(0, 0)
Connect = Callable[[Process], Coroutine[Any, Any, None]]
UNSEEN = "ended, and its keeper was killed too: no one saw how"
LOOK_AFTER, LOOK_WITHIN = 0.025, 1.0  # seconds, for what the kernel lets go of in its own time
log = Logger()
FOLLOW_AGAIN = 5.0  # seconds
HEARD_WITHIN = 1.0  # seconds
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


def read_exit(slot: str, now: float) -> Exit:
    """What the keeper wrote of the end of the container in this slot.

    Raises OSError if that is there, and can't be read.
    """
    try:
        with open_file(os.path.join(slot, "exit")) as file:
            words = file.read(1024).decode()
            at = os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, NoFile, UnicodeDecodeError):
        return Exit(reason=UNSEEN, at=now)
    how = _parse(*words.rsplit("+", 1))
    return Exit(*how, at=now if how[2] == UNSEEN else at)  # else as old as the keeper


def _parse(before: str, words: str = "") -> tuple[int | None, int | None, str]:
    """The status or the signal in a shell's words; what bash says of a signal comes before them."""
    done = DONE.fullmatch(words.strip())
    status = int(done[1] or 0) if done else 0
    number = SIGNALS.get(words.replace("(core dumped)", "").strip())
    if status > 128 and any(SIGNALS.get(said) == status - 128 for said in _said_by_bash(before)):
        number = status - 128
    if number is not None:
        return None, number, f"killed by {_name(number)}"
    return (status, None, f"exit status {status}") if done else (None, None, UNSEEN)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those between SIGRTMIN and SIGRTMAX
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _said_by_bash(words: str) -> Iterator[str]:
    """Each piece of a complaint as "sh: line 26: 32028 Killed     COMMAND"."""
    for said in re.findall(r": +[0-9]+ +(.+?)(?: \(core dumped\))? {2,}", words):
        yield said.strip()


def _with_kills(how: Exit, kills: int) -> Exit:
    """An end, after the kernel has killed so many of the processes for want of memory.

    The kills may be unrelated to this end: a worker may have been killed days before.
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


def _remove_slot(slot: str) -> bool:
    """Remove a slot's folder; returns whether it is gone."""
    with contextlib.suppress(OSError):
        for name in os.listdir(slot):
            os.unlink(os.path.join(slot, name))
        os.rmdir(slot)
    return not os.path.lexists(slot)


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
    """What an instance holds of its processes, however it came by them.

    That is one descriptor while they run: a pidfd, of PID 1 or of the keeper.
    """

    reactor: Any
    kernel: Kernel
    cgroups: Cgroups
    writes: Callable[..., Deferred[Any]]  # runs a function where it may wait
    slot: str  # the keeper's folder
    process: Process = UNKNOWN  # PID 1, as seen from here
    keeper: Process = UNKNOWN
    pidfd: int = -1  # of PID 1, if one is held
    exit: Exit | None = None
    on_exit: Callable[[Exit], None] | None = None
    killed_because: str = ""  # empty if the manager did not kill it, or says no reason
    _watch: Watch | None = None  # of PID 1

    @property
    def token(self) -> str:
        """The name of the slot, and of the container's cgroup."""
        return os.path.basename(self.slot)

    def send_signal(self, number: int) -> None:
        """Signal PID 1; nothing if it has ended.

        Raises OSError if it can't be signalled now.
        """
        if self.pidfd >= 0:
            self.kernel.send_signal(self.pidfd, number)
        elif self.process != UNKNOWN:
            self.kernel.signal_process(self.process, number)

    def kill(self, because: str = "") -> None:
        """End every process of the container (the pid namespace goes with its PID 1).

        :param because: what the end's reason will say, so that no one looks for another killer
        """
        self.killed_because = self.killed_because or because
        self.send_signal(signal.SIGKILL)

    def hold(self, process: Process) -> int:
        """A pidfd to be kept for long.

        Raises ProcessLookupError; OSError if there is none to spare: the manager must be able to
        answer, whatever runs.
        """
        pidfd = self.kernel.open_process(process)
        if self.kernel.is_scarce(pidfd):
            self.kernel.close(pidfd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pidfd

    def watch_init(self, ended: Callable[[], None]) -> None:
        """Be told that PID 1 has ended, and all processes with it: the keeper will, in a moment."""
        if self.pidfd < 0 and self.process != UNKNOWN:
            with contextlib.suppress(OSError):  # then the keeper's end will do
                self.pidfd = self.kernel.open_process(self.process)
        if self.pidfd >= 0:
            self._watch = Watch(self.reactor, self.pidfd, ended)
            self._watch.start()

    async def remove(self) -> list[str]:
        """Remove what the end left: the slot's folder and the cgroup, and who still is in it.

        Returns what would not go within a second.
        """
        async for _ in poll(self.reactor, LOOK_AFTER, within=LOOK_WITHIN):
            left = await self._discard()
            if self.process != UNKNOWN and self.kernel.lives(self.process):
                left.append(f"process {self.process.pid}")
            if not left:
                break
            self._kill_members()
        return left

    def clear(self) -> None:
        """The same, where no one waits for it."""
        background(self._clear(), f"removing {self.slot}")

    async def _clear(self) -> None:
        if left := await self.remove():
            log.warn("{slot} is empty, but left is: {left}", slot=self.slot, left=", ".join(left))

    async def _discard(self) -> list[str]:
        left = self.cgroups.remove(self.token)
        return left if await self.writes(_remove_slot, self.slot) else [*left, self.slot]

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
        with contextlib.suppress(OSError):  # whoever removes the slot looks for it again
            self.kill()  # it may have called off that it dies with its keeper (prctl(2))
        if self._watch is not None:
            self._watch.stop()
        if self.pidfd >= 0:
            self.kernel.close(self.pidfd)
            self.pidfd = -1
        background(self._tell_how(), f"learning how {self.slot} has ended")

    async def _tell_how(self) -> None:
        """Read what the keeper wrote, again and again if it can't be read, and tell it once."""
        async for _ in poll(self.reactor, LOOK_AFTER, within=LOOK_WITHIN):
            try:
                how = read_exit(self.slot, self.kernel.now())
                break
            except OSError as error:
                why = f"ended, and how can't be read: {failures.of_os(error)}"
                how = Exit(reason=why, at=self.kernel.now())
        self.exit = self._explained(how)
        if self.on_exit is not None:
            self.on_exit(self.exit)

    def _explained(self, how: Exit) -> Exit:
        kills = self.cgroups.out_of_memory_kills(self.token) if how.failed else 0
        if kills:
            return _with_kills(how, kills)
        if self.killed_because and how.signal == signal.SIGKILL:
            return evolve(how, reason=f"{self.killed_because} ({how.reason})")
        return how


@define(eq=False)
class Child(Supervised, ProcessProtocol):
    """The keeper as a child of this manager: told of its end by the reactor."""

    transport: Any = None
    groundwork: Plan = field(factory=list)  # the steps that it carries out at once
    waiting: Deferred[Child] = field(factory=Deferred)  # fires when the init waits for a plan
    connection: Connection | None = None
    connect: Connect | None = None  # makes the link that a private network needs
    reserved: str = ""  # the name of the only instance that it is for, if there is one
    in_advance: int = 0  # steps that it has carried out while no one waited for them
    planned: bool = False  # whether it got the rest of a plan
    stderr: bytes = b""
    gone: Callable[[str], None] = lambda token: None  # told its token when it has ended
    heard: Callable[[bytes], None] = lambda data: None  # told what comes on stderr
    silent: Deferred[None] = field(factory=Deferred)  # fires when no one has that open any more
    lost: Callable[[Child], None] = lambda child: None  # told that its init can't be given a plan

    def connectionMade(self) -> None:
        """The keeper runs."""
        with contextlib.suppress(OSError):  # its end is told by its parent, which this is
            self.keeper = self.kernel.identify(self.transport.pid)

    def init_connected(self, connection: Connection, pid: int) -> None:
        """The init has connected: PID 1 has this pid.

        Raises ProcessLookupError where it is gone again.
        """
        try:
            self.process = self.kernel.identify(pid)
            self.pidfd = self.hold(self.process)
        except OSError as error:
            why = failures.of_os(error)
            self.fail(MachineAtFault("taking note of a container's init", why))
            raise
        self.connection = connection
        connection.send_plan(self.groundwork)

    def groundwork_done(self) -> None:
        """The init waits for the rest of a plan."""
        if not self.waiting.called:
            self.waiting.callback(self)

    def groundwork_failed(self, failure: StepFailed) -> None:
        """The init could not even do what all containers share, and ends."""
        self.fail(failures.of_step(self.groundwork, failure))

    def hung_up(self) -> None:
        """The init has closed its connection: its script runs, or it ends."""
        self.connection = None
        if not self.planned:
            self.lost(self)
            self.fail(MachineAtFault("preparing a container's init", "it ended half-way"))

    def fail(self, error: Error) -> None:
        """No plan will be carried out by it; nothing if whoever waits has been told already."""
        if not self.waiting.called:
            self.waiting.errback(error)

    def carry_out(self, plan: Plan) -> Deferred[list[float]]:
        """Send what is left of a plan; fires with each step's seconds once its exec has worked.

        Fails with StepFailed, or MachineAtFault where the init ended half-way.
        """
        self.planned = True
        if self.connection is None:
            return failed(MachineAtFault("carrying out the plan", "the init has ended"))
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
        if self.connection is not None:
            self.connection.expect_the_end(self.reactor)
        self.has_ended()
        self.fail(MachineAtFault(*self._why_it_never_connected()))

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
        self._deadline: Timer | None = None
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
        try:
            sent = self._kernel.send(self.transport.getHandle(), message)
        except OSError:  # the init has ended, as will be heard in a moment
            sent = 0
        self.transport.write(message[sent:])

    def expect_the_end(self, reactor: Any) -> None:
        """The init has ended: what it has said is heard in a moment, and no more will come."""
        self._deadline = Timer(reactor, self.transport.abortConnection)
        self._deadline.after(HEARD_WITHIN)

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
        if self._deadline is not None:
            self._deadline.cancel()
        if self._child is not None:
            self._child.hung_up()
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

    def follow(self) -> None:
        """Begin to follow it; if it has ended, that is told at once.

        If it can't be followed now, for want of a descriptor or so, that is tried again and again.
        """
        try:
            self._watch_keeper()
        except ProcessLookupError:
            self.has_ended()
        except OSError as error:
            log.warn("{slot} can't be watched yet: {error}", slot=self.slot, error=error)
            Timer(self.reactor, self.follow).after(FOLLOW_AGAIN)

    def _watch_keeper(self) -> None:
        if self.keeper == UNKNOWN or not self.kernel.lives(self.keeper):
            raise ProcessLookupError(f"process {self.keeper.pid} has ended")
        keeper = self.hold(self.keeper)

        def keeper_ended() -> None:
            self.kernel.close(keeper)
            self.has_ended()

        Watch(self.reactor, keeper, keeper_ended).start()
