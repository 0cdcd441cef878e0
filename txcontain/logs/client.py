"""The client of the log process (``logd.py``): finds or starts it, and tells it what to read.

What it was told is kept here until the container's pipes are closed. After each new connection it
is told everything again, because it may be another process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from socket import socket as Socket  # (the class has a property "socket")
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import ClientFactory, ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.host.processes import Process, signal_process, started_with
from txcontain.host.sockets import send_now
from txcontain.later import Timer, background, poll, together
from txcontain.logs import segments
from txcontain.logs.logd import STREAMS
from txcontain.logs.segments import Position

LOGD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logd.py")
CONNECT_AGAIN, START_AGAIN = 0.02, 1.0  # seconds
DRAIN_WITHIN = 5.0  # seconds that a reader waits for what is still in the pipes
END_WITHIN = 2.0  # seconds
MOST_LOSSES, LOST_WITHIN = 5, 1.0  # so often in so many seconds it hangs up if it is an older one
MODE = 0o622  # of a FIFO: any user in the container may open it by name, as /dev/stdout
LOST = "the log process does not answer"


class Waiter(Protocol):
    """Waits until logs grow."""

    def grown(self) -> None:
        """The log may have grown."""


class Unfinished(Protocol):
    """Has not read a log to its end yet."""

    async def hold_rest(self) -> None:
        """Read the rest now, because the log is about to be removed."""


@define
class Told:
    """What the log process was told about a slot."""

    instance: str = ""
    name: str = ""  # the line that names their instance, as soon as there is one
    closing: bool = False
    is_held: bool = False  # whether it holds them
    why_not: str = ""  # it could not open them
    terminal: int = -1  # a descriptor of the master of its terminal
    is_lent: bool = False  # whether the log process is to lend us that


NONE = Told(why_not="they are closed")


@define(eq=False)
class LogClient(ClientFactory):
    """Speaks to the one log process of a state folder."""

    reactor: Any
    folder: str  # of the socket and of the slots
    instances: str  # folder
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    program: str = ""  # the path of logd.py, compiled
    group: Callable[[], str] = lambda: os.devnull  # cgroup.procs of the cgroup it moves to
    kept: dict[str, Socket] = field(factory=dict)  # that are to outlive this manager
    has_found: bool = False  # whether these are all: those of an earlier manager were told
    journald: str = ""  # path of the socket to which it is to send all lines, too; "": none
    readers: dict[str, set[Unfinished]] = field(factory=lambda: defaultdict(set))  # by instance
    _slots: dict[str, Told] = field(factory=dict)  # by token, until closed
    _tokens: dict[str, str] = field(factory=dict)  # by instance: of its last slot, until closed
    _waiting: dict[tuple[str, str], list[Deferred[str]]] = field(factory=lambda: defaultdict(list))
    _waiters: dict[str, set[Waiter]] = field(factory=lambda: defaultdict(set))
    _finding: Deferred[str] | None = None  # fires when all that are kept have been given to us
    _connection: LogConnection | None = None
    _stopped: bool = False
    _retry: Timer = field(init=False)
    _started: float | None = None  # when we started one that has not been found yet
    _losses: deque[float] = field(factory=partial(deque, maxlen=MOST_LOSSES))  # the last ones
    _log: Logger = field(factory=Logger)

    noisy = False

    def __attrs_post_init__(self) -> None:
        self._retry = Timer(self.reactor, self._connect)

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return os.path.join(self.folder, "logd.sock")

    @property
    def is_connected(self) -> bool:
        """Whether it listens to us."""
        return self._connection is not None

    # -- finding it ------------------------------------------------------------

    def start(self) -> None:
        """Find or start it, now and whenever it is lost."""
        self._stopped = False
        self._connect()

    async def stop(self) -> None:
        """Disconnect. If it has nothing left to do, wait until it has ended.

        One that we have started is found first: else it would wait for us on its own (its GRACE),
        or go on keeping a socket, because what told it otherwise was lost with the one before it.
        """
        if self._connection is None:
            async for _ in poll(self.reactor, CONNECT_AGAIN, within=END_WITHIN):
                if self._connection is not None:
                    break
        self._stopped = True
        self._retry.cancel()
        if self._connection is not None:
            self._connection.transport.loseConnection()
        for verb, token in list(self._waiting):
            self._answer(verb, token, LOST)
        if all(slot.closing for slot in self._slots.values()) and not self.kept:
            async for _ in poll(self.reactor, 0.01, within=END_WITHIN):
                if not self._is_there():
                    break

    def _is_there(self) -> bool:
        """Whether a log process holds the lock."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(os.path.join(self.folder, "logd.lock"), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
        return False

    def _connect(self) -> None:
        try:
            self.reactor.connectUNIX(self.socket, self)
        except OSError:  # there is no descriptor left: the reactor raises that at once
            self._retry.after(CONNECT_AGAIN)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """There is none yet: start one, and connect again in a moment."""
        if self._stopped:
            return
        now = self.reactor.seconds()
        if self._started is None or now - self._started > START_AGAIN:
            self._started = now
            self._spawn()
        self._retry.after(CONNECT_AGAIN)

    def _spawn(self) -> None:
        python = os.path.realpath(sys.executable)
        arguments = [python, "-I", "-S", "-B", self.program, self.folder, self.instances]
        try:
            with open(os.devnull, "r+b") as null:
                descriptors = dict.fromkeys(range(3), null.fileno())
                self.reactor.spawnProcess(
                    ProcessProtocol(),
                    python,
                    [*arguments, self.group()],
                    env={"LC_ALL": "C"},
                    childFDs=descriptors,
                )
        except OSError as error:
            self._log.error("the log process can't be started: {error}", error=error)

    def buildProtocol(self, addr: Any) -> LogConnection:
        """There is one."""
        return LogConnection(self)

    def connected(self, connection: LogConnection) -> None:
        """Tell it everything, and have all waiters look again."""
        self._connection, self._started = connection, None
        self._tell("sync", *self._slots)
        if self.journald:
            self._tell("journal", self.journald)
        for token, slot in list(self._slots.items()):
            self._tell("open", token)
            if slot.name:
                self._tell(slot.name)
            self._tell_of_terminal(token)
            if slot.closing:
                self._tell("close", token)
        for verb, token in list(self._waiting):
            if verb == "drained":
                self._tell("drain", token)
        if self.has_found:
            self._tell("retain", *self.kept)
        for key in self.kept:
            self._tell_to_keep(key)
        if self._finding is not None:
            self._tell("give", 0)
        self._wake_all()

    def lost(self) -> None:
        """The connection is lost: the process was killed, or is being replaced."""
        self._connection = None
        for slot in self._slots.values():
            slot.is_held = False
        if self._stopped:
            return
        self._losses.append(self.reactor.seconds())
        if len(self._losses) == MOST_LOSSES and self._losses[-1] - self._losses[0] < LOST_WITHIN:
            self._losses.clear()
            background(self._replace(), "replacing the log process")
        else:
            self._retry.after(0)

    async def _replace(self) -> None:
        """End a log process that hangs up on us: it is of an older version, and lacks a verb.

        It may be two processes, each of which replaces the other. What is in the pipes stays there
        (monitor.sh); sockets that it keeps are lost, unless it has given them to us.
        """
        self._log.warn("the log process does not understand this manager: it is replaced")
        try:
            async for _ in poll(self.reactor, CONNECT_AGAIN, within=END_WITHIN):
                found: list[Process] = await self.threads(started_with, self.folder, self.instances)
                if not found:
                    break
                for process in found:
                    with contextlib.suppress(OSError):  # it has ended
                        signal_process(process, signal.SIGKILL)
        finally:
            if not self._stopped:
                self._retry.after(0)

    def _tell(self, *words: object) -> None:
        if self._connection is not None:
            self._connection.say(*words)

    # -- telling it --------------------------------------------------------------

    def make_pipes(self, slot: str) -> None:
        """Make the FIFOs of a slot.

        Raises OSError.
        """
        for stream in STREAMS:
            path = os.path.join(slot, stream)
            os.mkfifo(path)
            os.chmod(path, MODE)  # mkfifo is subject to the umask

    def open(self, token: str) -> None:
        """Have it open a slot's FIFOs."""
        self._slots[token] = Told()
        self._tell("open", token)

    def hold(self, token: str) -> Deferred[str]:
        """Fires when it holds a slot's FIFOs, with an empty text, or why it can't.

        One that has replaced another does so a moment later. A container that is at its end by then
        would take its output along.
        """
        slot = self._slots.get(token, NONE)
        if slot.is_held or slot.why_not:
            return succeed(slot.why_not)
        return self._within(self._expect("opened", token))

    def name(self, token: str, instance: str, most: int) -> None:
        """The slot belongs to this instance, of whose output ``most`` bytes are kept."""
        slot = self._slots.setdefault(token, Told())
        slot.instance, slot.name = instance, f"name {token} {instance} {most}"
        self._tokens[instance] = token
        self._tell(slot.name)

    def adopt(self, token: str, instance: str, most: int, *, terminal: bool = False) -> None:
        """Open and name a slot that an earlier manager has made; it may have a terminal."""
        self.open(token)
        self._slots[token].is_lent = terminal
        self.name(token, instance, most)
        self._tell_of_terminal(token)

    # Both hold a terminal: so it is only lost, and its programs are only ended (SIGHUP), if both
    # processes of the log process and the manager are killed at once.

    def hold_terminal(self, token: str, master: int) -> None:
        """What is written to this terminal is to be in the log."""
        self.lent(token, [master])
        if token in self._slots:  # else the container has ended
            self._tell_of_terminal(token)

    def terminal_of(self, token: str) -> int:
        """A new descriptor of a slot's terminal; -1 if it has none."""
        slot = self._slots.get(token, NONE)
        return slot.terminal if slot.terminal < 0 else os.dup(slot.terminal)

    def _tell_of_terminal(self, token: str) -> None:
        slot = self._slots[token]
        if slot.terminal >= 0 and self._connection is not None:
            self._connection.say("terminal", token, passed=(slot.terminal,))
        elif slot.is_lent:
            self._tell("lend", token)

    def lent(self, token: str, descriptors: list[int]) -> None:
        """The log process has a terminal for us, or none."""
        slot = self._slots.get(token)
        for master in descriptors:
            if slot is None or slot.terminal >= 0:
                os.close(master)
            else:
                slot.terminal = master

    async def close(self, token: str) -> None:
        """The container has ended: wait until all that it has written is in the files.

        If the log process does not answer, this returns after DRAIN_WITHIN.
        """
        slot = self._slots.get(token)
        if slot is None or self._stopped:
            return
        if slot.closing:
            await self._within(self._expect("closed", token))
        else:
            slot.closing = True
            await self._within(self._ask("close", "closed", token))

    async def settle(self, token: str) -> None:
        """Wait until all that is written by now is in the files, as long as ``close`` does."""
        slot = self._slots.get(token)
        if slot is not None and slot.closing:
            await self.close(token)
        elif slot is not None and not self._stopped:
            await self._within(self._ask("drain", "drained", token))

    async def rename(self, token: str, to: str) -> None:
        """Have it rename the folder of a slot's instance; the disk tells whether that worked."""
        waiting = self._expect("renamed", token)
        self._tell("rename", token, to)
        await self._within(waiting)

    def renamed(self, instance: str, to: str, most: int) -> None:
        """An instance has another name: its slot, and who reads its log, follow it there."""
        if token := self._tokens.pop(instance, None):
            slot = self._slots[token]
            slot.instance, slot.name = to, f"name {token} {to} {most}"
            self._tokens[to] = token
        if instance in self.readers:
            self.readers[to] = self.readers.pop(instance)
        self.wake(instance)

    async def settle_log(self, instance: str) -> None:
        """The same for an instance, even if its processes are not known any more."""
        await self.settle(self._tokens.get(instance, ""))

    def follow(self, instance: str, position: Position, waiter: Waiter) -> None:
        """Call ``waiter.grown()`` once, when the log may have grown beyond this position."""
        self._waiters[instance].add(waiter)
        self._tell("follow", instance, position.segment, position.offset)

    def unfollow(self, instance: str, waiter: Waiter) -> None:
        """Don't call it any more."""
        self._waiters[instance].discard(waiter)
        if not self._waiters[instance]:
            del self._waiters[instance]

    def wake(self, instance: str) -> None:
        """Have all waiters of a log look again."""
        for waiter in self._waiters.pop(instance, set()):
            waiter.grown()

    def _wake_all(self) -> None:
        for instance in list(self._waiters):
            self.wake(instance)

    async def removing(self, instance: str) -> None:
        """A log is about to be removed: its readers keep the rest in memory."""
        await together(*(reader.hold_rest() for reader in self.readers.pop(instance, set())))

    async def last_words(self, token: str, folder: str, most: int) -> str:
        """The last lines of stderr in a log, up to ``most`` bytes."""
        await self.settle(token)
        words: str = await self.threads(segments.last_words, folder, "stderr", most)
        return words

    def _ask(self, verb: str, answer: str, token: str) -> Deferred[str]:
        waiting = self._expect(answer, token)
        self._tell(verb, token)
        return waiting

    def _expect(self, answer: str, token: str) -> Deferred[str]:
        waiting: Deferred[str] = Deferred()
        self._waiting[answer, token].append(waiting)
        return waiting

    def _within(self, waiting: Deferred[str]) -> Deferred[str]:
        def late(*_: object) -> str:
            self._log.warn(LOST)
            return LOST

        return waiting.addTimeout(DRAIN_WITHIN, self.reactor, onTimeoutCancel=late)

    # -- sockets that outlive us --------------------------------------------------

    async def find_kept(self) -> None:
        """Take over the sockets that an earlier manager has left: then they are in ``kept``.

        If the log process does not answer, some may be missing, and ``has_found`` stays false.
        """
        self._finding = Deferred()
        self._tell("give", 0)
        await self._within(self._finding)
        self._finding = None

    async def keep(self, key: str, listener: Socket) -> str:
        """Have it keep a socket too, so that this stays when the manager ends, in whatever way.

        Returns why it does not, or an empty text. It is told again whenever it is replaced.
        """
        self.kept[key] = listener
        waiting = self._expect("kept", key)
        self._tell_to_keep(key)
        return await self._within(waiting)

    def _tell_to_keep(self, key: str) -> None:
        if self._connection is not None:
            self._connection.say("keep", key, passed=(self.kept[key].fileno(),))

    def unkeep(self, key: str) -> None:
        """Close a socket, here and there."""
        self.kept.pop(key).close()
        self._tell("unkeep", key)

    def given(self, first: int, keys: list[str], descriptors: list[int]) -> None:
        """Some of the sockets that it keeps; ask for the next ones."""
        for key, descriptor in zip(keys, descriptors, strict=False):
            if key in self.kept:
                os.close(descriptor)
            else:
                self.kept[key] = Socket(fileno=descriptor)
        if keys:
            self._tell("give", first + len(keys))
        elif self._finding is not None and not self._finding.called:
            self.has_found = True
            self._finding.callback("")

    # -- what it says ------------------------------------------------------------

    def heard(self, verb: str, words: list[str]) -> None:
        """Act on what the log process says."""
        if verb == "grew":
            self.wake(words[0])
        elif verb == "trouble":
            why = " ".join(words[1:])
            self._log.warn("the log of {name} waits: {why}", name=words[0], why=why)
        elif verb in ("opened", "failed"):
            self._opened(words[0], " ".join(words[1:]))
        elif verb == "refused":
            self._answer("kept", words[0], " ".join(words[1:]))
        else:
            if verb == "closed":
                self._forget(words[0])
            self._answer(verb, words[0], "")

    def _opened(self, token: str, why_not: str) -> None:
        if slot := self._slots.get(token):
            slot.is_held, slot.why_not = not why_not, why_not
        self._answer("opened", token, why_not)

    def _forget(self, token: str) -> None:
        slot = self._slots.pop(token, None)
        if slot is not None and slot.terminal >= 0:
            os.close(slot.terminal)
        if slot is not None and self._tokens.get(slot.instance) == token:
            del self._tokens[slot.instance]

    def _answer(self, verb: str, token: str, why_not: str) -> None:
        for waiting in self._waiting.pop((verb, token), []):
            if not waiting.called:
                waiting.callback(why_not)


@implementer(IFileDescriptorReceiver)
class LogConnection(LineOnlyReceiver):
    """The connection to the log process (see ``logd.py`` for what is said)."""

    transport: Any
    delimiter = b"\n"
    _is_behind = False  # whether something had to wait until the log process took it

    def __init__(self, client: LogClient) -> None:
        self._client = client
        self._passed: list[int] = []  # descriptors that belong to the next line

    def connectionMade(self) -> None:
        """We are connected."""
        self._client.connected(self)

    def say(self, *words: object, passed: tuple[int, ...] = ()) -> None:
        """Send a line now, not in the reactor's next turn: a destroy waits for the answer.

        :param passed: descriptors that go with it
        """
        line = " ".join(map(str, words)).encode() + self.delimiter
        sent = 0 if self._is_behind else send_now(self.transport.getHandle(), line, *passed)
        self._is_behind = sent < len(line)  # from then on, the reactor sends it all, in order
        if self._is_behind:
            for descriptor in passed if not sent else ():
                self.transport.sendFileDescriptor(descriptor)
            self.transport.write(line[sent:])

    def fileDescriptorReceived(self, descriptor: int) -> None:
        """For the reactor: the log process passes this."""
        os.set_inheritable(descriptor, False)
        self._passed.append(descriptor)

    def lineReceived(self, line: bytes) -> None:
        """The log process has said something."""
        verb, *words = line.decode(errors="replace").split(" ")
        if verb == "lent":
            self._client.lent(words[0], self._take(int(words[1])))
        elif verb == "given":
            self._client.given(int(words[0]), words[1:], self._take(len(words) - 1))
        else:
            self._client.heard(verb, words)

    def _take(self, number: int) -> list[int]:
        """The descriptors of a line; those of lines that come after it may be here already."""
        taken, self._passed = self._passed[:number], self._passed[number:]
        return taken

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The log process is gone."""
        while self._passed:
            os.close(self._passed.pop())
        self._client.lost()
