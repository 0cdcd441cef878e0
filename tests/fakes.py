"""A machine in memory: its clock, its processes and their pidfds, its unix socket.

Only what touches the operating system is a double here. Whatever the manager is made of
runs for real on top of it, with files in a temporary folder.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import marshal
import math
import os
import shutil
import signal
import socket
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import IPv4Interface
from typing import Any, ClassVar, TypeVar, cast

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import (
    ConnectionDone,
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import document
from txcontain.container.facts import Host
from txcontain.container.plan import make_base_plan
from txcontain.container.spec import Spec
from txcontain.engine.configs import upload
from txcontain.engine.manager import Manager
from txcontain.engine.store import Configs
from txcontain.engine.volumes import Volumes
from txcontain.errors import ConfigAtFault
from txcontain.host.cgroups import Cgroups
from txcontain.host.kernel import most_held
from txcontain.host.meters import Meters, Reading
from txcontain.host.processes import Process
from txcontain.images.layers import Layers
from txcontain.images.unpack import Unpacker
from txcontain.logs.client import LogClient
from txcontain.logs.journal import Journal
from txcontain.logs.logd import LOG, STREAMS, Log
from txcontain.network.bridge import Bridge, link_name
from txcontain.network.dns import Resolver
from txcontain.network.doorways import Doorways, key_of
from txcontain.network.firewall import Firewall
from txcontain.network.network import Network
from txcontain.runtime.child import Child
from txcontain.runtime.instance import Instance
from txcontain.runtime.pool import Pool
from txcontain.runtime.prepared import Prepared
from txcontain.runtime.session import Session
from txcontain.tap import FOLDERS

T = TypeVar("T")


class FakeKernel:
    """Processes that a test begins and ends, and what they were sent.

    It fails as the real one does: ``kernel_contract.py`` runs the same tests on both.
    """

    def __init__(self) -> None:
        self.boot = "this boot"
        self.living: dict[Process, Callable[[], object]] = {}  # and what SIGKILL calls
        self.zombies: set[Process] = set()  # Processes that have ended and were not waited for
        # By the name of a run directory: its monitor, and PID 1.
        self.working: dict[str, tuple[Process, Process]] = {}
        self.pidfds: dict[int, Process] = {}  # descriptor: Process
        self.folders: dict[int, str] = {}  # descriptor: path
        self.most_open: int | None = None  # descriptors; None: any number
        self.signals: list[tuple[int, int]] = []  # (pid, number), as they were sent
        self.catching: defaultdict[Any, list[Any]] = defaultdict(
            list
        )  # PID 1's pid: the Processes with a handler for it
        self.caught: int = signal.SIGTERM
        self.listening: dict[int, int] = {}  # port: pid
        self.connected: list[socket.socket] = []  # the containers' ends of connections to them
        self.tells = True  # whether the tables tell the owner of a socket
        self.mounts: list[str] = []
        self.clock: Callable[[], float] = lambda: 0.0  # the reactor's
        self.set_forward = 0.0  # seconds by which the time of day was set
        self._pids = itertools.count(100)

    # -- what a test makes happen ----------------------------------------------

    def begin(self, killed: Callable[[], object] = lambda: None) -> Process:
        """A new process."""
        process = Process(next(self._pids), 1)
        self.living[process] = killed
        return process

    def end(self, process: Process) -> bool:
        """A process ends; returns whether it ran."""
        if self.living.pop(process, None) is None:
            return False
        self.zombies.add(process)
        return True

    def reap(self, process: Process) -> None:
        """Its parent has waited for a process: its pid is free."""
        self.zombies.discard(process)

    # -- what the manager asks ---------------------------------------------------

    def boot_id(self) -> str:
        return self.boot

    def now(self) -> float:
        return self.clock() + self.set_forward

    def boot_time(self) -> float:
        return self.set_forward - 1.0

    def is_scarce(self, descriptor: int) -> bool:
        return self.most_open is not None and descriptor >= most_held(self.most_open)

    def open_more(self, most: int) -> int:
        return most if self.most_open is None else self.most_open

    def be_prompt(self) -> None:
        pass

    def identify(self, pid: int) -> Process:
        self._needs(1)
        return self._find(pid)

    def monitors(self, slots: str) -> dict[str, tuple[Process, Process | None]]:
        self._needs(1)
        return {
            name: (monitor, process if self._is_there(process) else None)
            for name, (monitor, process) in self.working.items()
            if monitor in self.living
        }

    def open_process(self, process: Process) -> int:
        if process.pid <= 0:
            raise OSError(errno.EINVAL, "Invalid argument")
        found = self._find(process.pid)
        self._needs(2)
        if found != process:
            raise ProcessLookupError(errno.ESRCH, f"process {process.pid} is another one now")
        return self._open(self.pidfds, process)

    def close(self, descriptor: int) -> None:
        if self.pidfds.pop(descriptor, None) or self.folders.pop(descriptor, None):
            return
        raise OSError(errno.EBADF, "Bad file descriptor")

    def read_only(self, folder: str) -> int:
        self._needs(1)
        os.stat(folder)
        return self._open(self.folders, folder)

    def send_signal(self, pidfd: int, number: int) -> None:
        if pidfd not in self.pidfds:
            raise OSError(errno.EBADF, "Bad file descriptor")
        self._signal(self.pidfds[pidfd], number)

    def signal_process(self, process: Process, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            descriptor = self.open_process(process)
            self.close(descriptor)
            self._signal(process, number)

    def lives(self, process: Process) -> bool:
        self._needs(1)
        return process in self.living

    def catchers(self, pid: int, number: int) -> list[Process]:
        self._needs(1)
        catching = self.catching[pid] if number == self.caught else []
        living = [process for process in catching if process in self.living]
        return [process for process in living if process.pid == pid] or living

    def catchers_at_once(self, pid: int, number: int) -> list[Process] | None:
        found = self.catchers(pid, number)
        return found if all(process.pid == pid for process in found) else None

    def peer(self, connection: FakeSocket) -> int:
        connection.check()
        return connection.init.process.pid

    def send(self, connection: FakeSocket, message: bytes, *descriptors: int) -> int:
        connection.check()
        if connection.init.connection is None:  # it has hung up
            return 0
        if descriptors:
            connection.init.passed = descriptors
        sent = min(connection.room, len(message))
        connection.room -= sent
        connection.init.received(message[:sent])
        return sent

    def connect(self, port: int, network_of: int | str = "self") -> socket.socket:
        self._needs(1)
        if port not in self.listening:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        self.connected.append(theirs)
        return mine

    def listening_sockets(
        self, port: int, network_of: str = "self", protocol: str = "tcp", address: str = "0.0.0.0"
    ) -> set[str]:
        self._needs(1)
        return {"4711"} if port in self.listening else set()

    def surely_listens(self, pid: int, port: int, group: str) -> bool | None:
        return self.listens(pid, port) if self.tells or port not in self.listening else None

    def listens(self, pid: int, port: int) -> bool:
        self._needs(1)
        return self.listening.get(port) == pid

    def listener(
        self, port: int, protocol: str = "tcp", address: str = "0.0.0.0"
    ) -> tuple[int, str] | None:
        self._needs(1)
        return (self.listening[port], "other") if port in self.listening else None

    def mounts_below(self, folder: str) -> list[str]:
        self._needs(1)
        return [path for path in self.mounts if path.startswith(f"{folder}/")]

    def _find(self, pid: int) -> Process:
        for process in [*self.living, *self.zombies]:
            if process.pid == pid:
                return process
        raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")

    def _is_there(self, process: Process) -> bool:
        return process in self.living or process in self.zombies

    def _signal(self, process: Process, number: int) -> None:
        if number not in signal.valid_signals() | {0}:
            raise OSError(errno.EINVAL, "Invalid argument")
        if process in self.living and number:
            self.signals.append((process.pid, number))
            if number == signal.SIGKILL:
                self.living[process]()

    def _open(self, table: dict[int, T], what: T) -> int:
        used = {*self.pidfds, *self.folders}
        descriptor = next(number for number in itertools.count(3) if number not in used)
        table[descriptor] = what
        return descriptor

    def _needs(self, count: int) -> None:
        """Fail unless so many more descriptors can be opened."""
        opened = len(self.pidfds) + len(self.folders)
        if self.most_open is not None and opened + count > self.most_open:
            raise OSError(errno.EMFILE, "Too many open files")


class FakeReactor(Clock):
    """A clock that also spawns, listens and reads, without an operating system.

    What it spawns is a ``FakeInit``. If ``connects``, it connects by itself; if ``prepares``, it
    carries out its early steps, and if ``works``, the rest of its plan.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernel = FakeKernel()
        self.kernel.clock = self.seconds
        self.inits: list[FakeInit] = []
        self.joiners: list[FakeJoiner] = []
        self.readers: list[Any] = []
        self.writers: list[Any] = []
        self.factory: Any = None  # of the unix socket
        self.ports: list[int] = []  # TCP ports listened on
        self.connects = self.prepares = self.works = True
        self.spawn_error: OSError | None = None
        self.frozen: set[str] = set()  # the tokens of containers
        self.log_process = FakeLogProcess()
        self.spawned: list[list[str]] = []  # commands that are no inits

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: Sequence[str] = (),
        env: dict[str, str] | None = None,
        childFDs: dict[int, Any] | None = None,
    ) -> FakeInit | FakeJoiner | None:
        if self.spawn_error is not None:
            raise self.spawn_error
        if isinstance(protocol, Session):
            return self._spawn_joiner(protocol, [executable, *args])
        if not isinstance(protocol, Child):  # the log process, which is a double of its own
            self.spawned.append([executable, *args])
            return None
        self.kernel._needs(2)  # a pipe
        init = FakeInit(self, protocol, [executable, *args], env, childFDs)
        self.inits.append(init)
        protocol.makeConnection(init)
        if self.connects:
            init.connect()
        return init

    def _spawn_joiner(self, session: Session, arguments: list[str]) -> FakeJoiner:
        self.kernel._needs(6)  # three pipes
        joiner = FakeJoiner(self, session, arguments)
        self.joiners.append(joiner)
        session.makeConnection(joiner)
        if self.connects:
            joiner.connect()
        return joiner

    def listenUNIX(self, path: str, factory: object, mode: int, backlog: int) -> FakeReactor:
        self.factory = factory
        return self

    def connectUNIX(self, path: str, factory: LogClient) -> None:
        self.log_process.connect(factory)

    def stopListening(self) -> Deferred[None]:
        self.factory = None
        return succeed(None)

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        with contextlib.suppress(ValueError):
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        with contextlib.suppress(ValueError):
            self.writers.remove(writer)

    def lose_manager(self) -> None:
        """The manager has been killed: what it had begun is never finished.

        An init that has no plan yet ends, and the others go on.
        """
        for init in self.inits:
            init.child = init.connection = None
            if init.plan is None:
                init.end("Done(1)")
        calls: list[Any] = list(self.getDelayedCalls())
        for call in calls:
            call.cancel()
        self.readers = []
        self.kernel.pidfds, self.kernel.folders = {}, {}


class FakeInit:
    """Plays a monitor, and PID 1 below it; for the manager it is the monitor's transport."""

    def __init__(
        self,
        reactor: FakeReactor,
        child: Child,
        arguments: list[str],
        environment: dict[str, str] | None,
        descriptors: dict[int, Any] | None,
    ) -> None:
        self.reactor, self.kernel = reactor, reactor.kernel
        self.child: Child | None = child
        self.arguments, self.environment, self.descriptors = arguments, environment, descriptors
        self.folder, self.token = child.folder, child.token
        self.monitor = self.kernel.begin(killed=self.killed)
        self.process = self.kernel.begin(killed=self.killed)
        self.kernel.working[self.token] = self.monitor, self.process
        self.pid = self.monitor.pid
        self.stuck = False  # whether not even SIGKILL ends it
        self.early_steps: list[Any] | None = None
        self.plan: Any = None  # all of it
        self.asked_for_link = self.linked = False
        self.passed: tuple[int, ...] = ()  # descriptors; a real one gets copies
        self.incoming = b""  # of a message that is not complete
        self.connection: Any = None
        self.closed: list[int] = []  # its descriptors that the manager has closed

    # -- what a test makes it do -----------------------------------------------

    def connect(self) -> None:
        """Connect to the manager and wait for a plan."""
        self.socket = FakeSocket(self)
        self.connection = self.reactor.factory.buildProtocol(None)
        self.connection.makeConnection(self.socket)
        self.say({"token": self.token})

    def say(self, message: dict[str, Any]) -> None:
        """Send a message to the manager."""
        self.connection.dataReceived(json.dumps(message).encode() + b"\n")

    def carry_out(self) -> None:
        """Carry out the plan, once it has the link it may ask for; the script runs then."""
        if self.connection is None or self.process not in self.kernel.living:
            return
        if ("ask_for_link", {}) in self.plan and not self.linked:
            if not self.asked_for_link:
                self.asked_for_link = True
                self.say({"wants": "link"})
            return
        self.say({"done": [0.001] * len(self.plan)})
        self.hang_up()

    def fail(
        self,
        step: int = 0,
        call: str = "open",
        errno: int = 2,
        path: str = "/x",
        cause: str = "",
        hint: str = "",
    ) -> None:
        """Fail at a step of the plan, and end."""
        self.say(
            {
                "failed": {
                    "step": step,
                    "call": call,
                    "errno": errno,
                    "path": path,
                    "cause": cause,
                    "hint": hint,
                }
            }
        )
        self.end("Done(1)")

    def hang_up(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            connection, self.connection = self.connection, None
            self.socket.closed = True
            connection.connectionLost(Failure(ConnectionDone()))

    def end_before_it_is_heard(self, words: str = "Done(1)") -> None:
        """End before what it said has arrived."""
        connection, self.connection = self.connection, None
        self.end(words)
        self.connection = connection

    def end(self, words: str = "Done") -> None:
        """End, as the monitor writes it down in the shell's words."""
        if self.monitor not in self.kernel.living:
            self.hang_up()
            return
        self.end_init()
        self.write_down(words)
        self.kernel.reap(self.process)
        self.kernel.end(self.monitor)
        self.hang_up()
        if self.child is not None:
            self.kernel.reap(self.monitor)
            self.child.processExited(Failure(ProcessDone(None)))
            self.child.errConnectionLost()
        self._can_be_read(self.monitor)
        self.kernel.reap(self.monitor)

    def end_init(self) -> None:
        """PID 1 ends, but not yet the monitor."""
        if self.kernel.end(self.process):
            self._can_be_read(self.process)

    def _can_be_read(self, process: Process) -> None:
        for reader in list(self.reactor.readers):
            if self.kernel.pidfds.get(reader.fileno()) == process:
                reader.doRead()

    def write_down(self, words: str) -> None:
        """Write how it ended, as of now."""
        path = os.path.join(self.folder, "exit")
        with open(path, "w") as file:
            file.write(f"[1] + {words} \n")
        os.utime(path, (self.kernel.now(),) * 2)

    def killed(self) -> None:
        """SIGKILL ends it, a moment later."""
        if not self.stuck:
            self.reactor.callLater(0, self.end, "Killed")

    # -- what the manager calls --------------------------------------------------

    def signalProcess(self, name: str) -> None:
        if self.monitor not in self.kernel.living:
            raise ProcessExitedAlready
        self.kernel.signal_process(self.monitor, signal.Signals[f"SIG{name}"])

    def closeChildFD(self, descriptor: int) -> None:
        self.closed.append(descriptor)

    def received(self, data: bytes) -> None:
        """A part of a message has come."""
        self.incoming += data
        while message := self._next_message():
            self.carry_on(message)

    def _next_message(self) -> bytes:
        """A complete one: a line, or steps after their length."""
        if self.incoming.startswith(b"\n"):
            length = 1
        elif len(self.incoming) < 4:
            return b""
        else:
            length = 4 + int.from_bytes(self.incoming[:4], "big")
        if len(self.incoming) < length:
            return b""
        message, self.incoming = self.incoming[:length], self.incoming[length:]
        return message

    def carry_on(self, message: bytes) -> None:
        """Steps to carry out: the early ones, then the rest; or an empty line: there is a link."""
        if message == b"\n":
            self.linked = True
            self.reactor.callLater(0, self.carry_out)
            return
        steps = marshal.loads(message[4:])
        if self.early_steps is None:
            self.early_steps = steps
            if self.reactor.prepares:
                self.say({"ready": len(steps)})
        else:
            self.plan = self.early_steps + steps
            if self.reactor.works:
                self.reactor.callLater(0, self.carry_out)


class FakeJoiner:
    """Plays an init that joins a container; for the manager it is the process's transport.

    It connects and carries out its plan as a ``FakeInit`` does. Then it is the command.
    """

    def __init__(self, reactor: FakeReactor, session: Session, arguments: list[str]) -> None:
        self.reactor, self.session, self.arguments = reactor, session, arguments
        self.process = reactor.kernel.begin()
        self.connection: Any = None
        self.steps: list[Any] = []
        self.given = b""  # its input
        self.passed: tuple[int, ...] = ()  # descriptors
        self.producer: Any = None  # of its input
        self.input_closed = self.paused = self.ended = self.closed = False
        self.signals: list[int] = []

    def connect(self) -> None:
        """Connect to the manager and wait for a plan."""
        self.socket = FakeSocket(cast(Any, self))
        self.socket.room = 1 << 20
        self.connection = self.reactor.factory.buildProtocol(None)
        self.connection.makeConnection(self.socket)
        self.say({"token": self.arguments[-1]})

    def say(self, message: dict[str, Any]) -> None:
        """Send a message to the manager."""
        self.connection.dataReceived(json.dumps(message).encode() + b"\n")

    def received(self, message: bytes) -> None:
        """Steps have come, in one piece: the early ones, then the rest."""
        if not message:
            return
        early = not self.steps
        self.steps += marshal.loads(message[4:])
        if not early and self.reactor.works:
            self.reactor.callLater(0, self.carry_out)
        elif early and self.reactor.prepares:
            self.say({"ready": len(self.steps)})

    def carry_out(self) -> None:
        """The command runs."""
        self.say({"done": [0.001] * len(self.steps)})
        self.hang_up()

    def fail(self, op: str, errno: int, **said: str) -> None:
        """Fail at a step of the plan, and end."""
        step = [name for name, _ in self.steps].index(op)
        more = {"path": "", "cause": "", "hint": "", **said}
        self.say({"failed": {"step": step, "call": "call", "errno": errno, **more}})
        self.hang_up()
        self.end(1)

    def hang_up(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            connection, self.connection = self.connection, None
            self.socket.closed = True
            connection.connectionLost(Failure(ConnectionDone()))

    def write_out(self, data: bytes, stream: int = 1) -> None:
        """The command writes."""
        self.session.childDataReceived(stream, data)

    def end(self, status: int | None = 0, number: int | None = None) -> None:
        """The command ends; its pipes stay open until ``close_pipes``."""
        self.ended = True
        self.hang_up()
        self.session.processExited(Failure(ProcessTerminated(status, number)))

    def close_pipes(self) -> None:
        """No one has its pipes open any more."""
        if not self.closed:
            self.closed = True
            self.session.processEnded(Failure(ProcessDone(None)))

    def loseConnection(self) -> None:
        self.close_pipes()

    def write(self, data: bytes) -> None:
        self.given += data

    def closeStdin(self) -> None:
        self.input_closed = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def signalProcess(self, number: int) -> None:
        if self.ended:
            raise ProcessExitedAlready
        self.signals.append(number)


class FakeLogProcess:
    """Does what the log process is told, with empty pipes."""

    disconnecting = False

    def __init__(self) -> None:
        self.connection: Any = None
        self.told: list[str] = []  # lines
        self.silent = False  # whether it answers nothing
        self.named: dict[str, str] = {}  # the instances, by token
        self.instances = ""  # folder
        self.takes = 1 << 16  # bytes at once
        self.incoming = b""  # of a line that is not complete
        self.passed: list[int] = []  # descriptors, each for a line that is still to come
        self.kept: dict[str, int] = {}  # copies of sockets
        self.terminals: dict[str, int] = {}  # the same of terminals, by token

    def connect(self, factory: LogClient) -> None:
        """The manager connects."""
        self.instances = factory.instances
        self.connection = factory.buildProtocol(None)
        self.connection.makeConnection(self)

    def lose(self) -> None:
        """It is killed."""
        connection, self.connection = self.connection, None
        connection.connectionLost(Failure(ConnectionDone()))

    def say(self, *words: str) -> None:
        """Tell the manager something."""
        self.connection.dataReceived(" ".join(words).encode() + b"\n")

    ANSWERS: ClassVar = {
        "open": "opened",
        "drain": "drained",
        "close": "closed",
        "keep": "kept",
        "unkeep": "unkept",
    }

    def write(self, data: bytes) -> None:
        """The manager says something."""
        *lines, self.incoming = (self.incoming + data).split(b"\n")
        for line in map(bytes.decode, lines):
            self.told.append(line)
            verb, *words = line.split(" ")
            if verb == "name":
                self.named[words[0]] = words[1]
            if verb == "rename" and not self.silent:
                self.rename(*words)
            if verb == "keep":
                self.unkeep(words[0])
                self.kept[words[0]] = self.passed.pop(0)
            if verb == "terminal":
                self.terminals[words[0]] = self.passed.pop(0)
            if verb == "lend":
                there = self.terminals.get(words[0])
                if there is not None:
                    self.connection.fileDescriptorReceived(there)
                self.say("lent", words[0], str(int(there is not None)))
            if verb == "unkeep":
                self.unkeep(words[0])
            if verb == "retain":
                for key in self.kept.keys() - words:
                    self.unkeep(key)
            if verb == "give" and not self.silent:
                self.give(int(words[0]))
            if verb in self.ANSWERS and not self.silent:
                self.say(self.ANSWERS[verb], words[0])

    def unkeep(self, key: str) -> None:
        """Close a socket, if it is kept."""
        if key in self.kept:
            os.close(self.kept.pop(key))

    def give(self, first: int) -> None:
        """Give the manager the next of its sockets, one at a time."""
        for key in list(self.kept)[first : first + 1]:
            self.connection.fileDescriptorReceived(os.dup(self.kept[key]))
            self.say("given", str(first), key)
            return
        self.say("given", str(first))

    def rename(self, token: str, to: str) -> None:
        """Rename the folder of a slot's instance."""
        with contextlib.suppress(OSError):
            os.rename(os.path.join(self.instances, self.named[token]), f"{self.instances}/{to}")
            self.named[token] = to
        self.say("renamed", token)

    def getHandle(self) -> FakeLogProcess:
        return self

    def send(self, data: bytes) -> int:
        """Send what it takes now."""
        taken = data[: self.takes]
        self.write(taken)
        return len(taken)

    def sendmsg(self, parts: list[bytes], passed: list[tuple[int, int, Any]]) -> int:
        """The same, with descriptors."""
        for _, _, descriptors in passed:
            if self.takes:
                self.passed += map(os.dup, descriptors)
        return self.send(b"".join(parts))

    def sendFileDescriptor(self, descriptor: int) -> None:
        self.passed.append(os.dup(descriptor))

    def loseConnection(self) -> None:
        if self.connection is not None:
            self.lose()


def write_log(instance: Instance, text: bytes, stream: str = "stdout") -> None:
    """An instance writes, and the log process reads it."""
    log = Log(instance.path(LOG), instance.spec.longest_log)
    out, into = os.pipe()
    try:
        os.write(into, text)
        os.close(into)
        while log.take(out, STREAMS.index(stream)):
            pass
    finally:
        os.close(out)
        log.close()


class FakeSocket(StringTransport):
    """The manager's end of an init's connection."""

    room = 10  # bytes that its buffer takes at once

    def __init__(self, init: FakeInit) -> None:
        super().__init__()
        self.init = init
        self.closed = False

    def check(self) -> None:
        """Fail as a closed socket does."""
        if self.closed:
            raise OSError(errno.EBADF, "Bad file descriptor")

    def getHandle(self) -> FakeSocket:
        if self.closed:  # as with Twisted's, which has no socket any more
            raise AttributeError("socket")
        return self

    def write(self, data: bytes) -> None:
        if self.init.connection is not None and not self.closed:
            super().write(data)
            self.init.received(data)

    def loseConnection(self) -> None:
        super().loseConnection()
        self.init.reactor.callLater(0, self.init.end)

    def abortConnection(self) -> None:
        super().abortConnection()
        self.init.reactor.callLater(0, self.init.end)


class FakeConsumer:
    """Takes what a stream writes; ``lost`` or ``aborted`` once it was hung up on."""

    def __init__(self) -> None:
        self.producer: Any = None
        self.written: list[bytes] = []
        self.lost = self.aborted = False

    def registerProducer(self, producer: Any, streaming: Any) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def loseConnection(self) -> None:
        self.lost = True

    def abortConnection(self) -> None:
        self.aborted = True

    def lines(self) -> list[Any]:
        """What was written, a value of JSON a line."""
        return [json.loads(line) for line in b"".join(self.written).splitlines()]


class FakeBridge:
    """The bridge, and the processes that have a link to it, by their addresses."""

    name = "txcontain0"

    def __init__(self) -> None:
        self.up = False
        self.attached: dict[str, Process] = {}
        self.left: list[str] = []  # the names of links that are still there

    def has_link(self, name: Any) -> Any:
        return name in self.left

    def remove_link(self, address: Any) -> None:
        self.left.remove(link_name(address))

    def set_up(self) -> None:
        self.up = True

    def remove(self) -> None:
        self.up = False

    def is_ours(self) -> bool:
        return self.up

    def remove_unknown_links(self, known: Any) -> Any:
        return []

    def attach(self, address: Any, process: Any) -> None:
        self.attached[str(address)] = process


class KeptHere:
    """In place of the client of a log process: sockets that are kept nowhere else."""

    def __init__(self) -> None:
        self.kept: dict[str, socket.socket] = {}
        self.has_found = False

    async def find_kept(self) -> None:
        self.has_found = True

    async def keep(self, key: str, listener: socket.socket) -> str:
        self.kept[key] = listener
        return ""

    def unkeep(self, key: str) -> None:
        self.kept.pop(key).close()


class FakeDoorways:
    """The ports at which connections wait, by what they are kept by."""

    def __init__(self) -> None:
        self.wanted: dict[str, Any] = {}
        self.leads_to: Any = None
        self.looked = 0
        self.waited_for: set[str] = set()  # services
        self.carried: dict[str, Any] = {}
        self.taken: set[str] = set()  # keys of ports at which other programs listen
        self.again: Any = None

    async def settle(self, wanted: dict[str, Any]) -> bool:
        self.wanted = wanted
        return True

    def holds(self, port: Any) -> bool:
        return port.protocol == "tcp" and key_of(port) in self.wanted.keys() - self.taken

    def is_taken(self, port: Any) -> bool:
        return key_of(port) in self.taken

    def look(self) -> None:
        self.looked += 1

    def someone_waits(self, service: str) -> bool:
        return service in self.waited_for

    def stop(self) -> None:
        pass


class FakeResolver:
    """Answers for no name."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


async def filter_nothing(script: str) -> None:
    """As ``firewall.run_nft`` does, without a kernel."""


def make_network() -> Network:
    """A network without a kernel, of five addresses beside the bridge's."""
    interface = IPv4Interface("10.87.0.1/29")
    firewall = Firewall(filter_nothing, FakeBridge.name, interface)
    return Network(
        maybeDeferred,
        interface,
        cast(Bridge, FakeBridge()),
        firewall,
        cast(Resolver, FakeResolver()),
        cast(Doorways, FakeDoorways()),
        find_nft=lambda: None,
        forwards=lambda version: True,
        flows_to=lambda address: 0,
        quiet=lambda address: math.inf,
    )


class FakeLayers(Layers):
    """Has every tarball unpacked already, except those that are missing."""

    missing: Sequence[str] = ()

    async def get(self, folder: str, name: str) -> str:
        if name in self.missing:
            raise ConfigAtFault(f"there is no {name} in {os.path.basename(folder)}/")
        return os.path.join(self.folder, name.encode().hex())

    def are_there(self, layers: Sequence[str]) -> bool:
        gone = {os.path.join(self.folder, name.encode().hex()) for name in self.missing}
        return not gone.intersection(layers)


async def remove(path: str) -> None:
    """Remove a file tree, as ``Trees.remove`` does."""
    shutil.rmtree(path, ignore_errors=True)


@frozen
class FakeCgroups(Cgroups):
    """No groups, but a freezer."""

    frozen: set[str] = field(factory=set)  # tokens

    def freeze(self, token: str) -> None:
        self.frozen.add(token)

    def thaw(self, token: str) -> None:
        self.frozen.discard(token)

    def is_frozen(self, token: str) -> bool:
        return token in self.frozen


async def measure(paths: Sequence[str]) -> str:
    """What du(1) says of folders that exist."""
    return "".join(f"4096\t{path}\n" for path in paths if os.path.isdir(path))


class FakeMeters(Meters):
    """Reads what it is given: one reading for each container."""

    def __init__(self, readings: Sequence[Reading] = ()) -> None:
        super().__init__(lambda descriptor: True)
        self.readings = readings

    def read(self, cgroups: Cgroups, tokens: Sequence[str]) -> list[Reading]:
        """The same whenever it is asked; nothing of those that none was given for."""
        return [*self.readings, *[(None, None)] * len(tokens)][: len(tokens)]


def make_pool(reactor: Any, folder: str, **options: Any) -> Pool:
    """A pool whose inits are fake; prepared instances have their folders in the same one."""
    prepared = Prepared(folder, remove)
    log_process = LogClient(reactor, folder, folder, maybeDeferred)
    cgroups = FakeCgroups(frozen=reactor.frozen)
    return Pool(reactor, reactor.kernel, cgroups, folder, prepared, log_process, **options)


def make_manager(reactor: Any, folder: str, **changes: Any) -> Manager:
    """A manager of a state folder, as ``tap.make_manager`` wires it, on a fake machine."""
    for name in (*FOLDERS, "base_images", "mountables"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    run = os.path.join(folder, "run")
    base_plan = make_base_plan(Host(), os.path.join(run, "scratch"))
    pool = make_pool(reactor, run, base_plan=base_plan, size=0)
    pool.prepared.folder = pool.log_process.instances = os.path.join(folder, "instances")
    return Manager(
        reactor=reactor,
        kernel=reactor.kernel,
        pool=pool,
        layers=FakeLayers(os.path.join(folder, "layers"), Unpacker(pool, maybeDeferred, remove)),
        configs=Configs(os.path.join(folder, "configs")),
        volumes=Volumes(
            os.path.join(folder, "volumes"), maybeDeferred, remove, measure, reactor.kernel.now
        ),
        network=make_network(),
        journal=Journal(reactor, os.path.join(folder, "events.jsonl"), reactor.kernel.now),
        threads=maybeDeferred,
        remove=remove,
        host=Host(),
        state=folder,
        base_images=os.path.join(folder, "base_images"),
        mountables=os.path.join(folder, "mountables"),
        **changes,
    )


class MachineTestCase(SynchronousTestCase):
    """A test on a fake machine, with a temporary folder."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.kernel = self.reactor.kernel
        self.folder = make_folder(self)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Begin something, and do what is due at once."""
        begun = Deferred.fromCoroutine(coroutine)
        self.reactor.advance(0)
        return begun

    def now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine returns, which takes no time."""
        return self.successResultOf(self.start(coroutine))

    def refused(self, coroutine: Coroutine[Any, Any, Any], kind: type[BaseException]) -> Any:
        """What a coroutine raises, which takes no time."""
        return self.failureResultOf(self.start(coroutine), kind).value

    @property
    def init(self) -> FakeInit:
        """The last one that was spawned."""
        return self.reactor.inits[-1]


class ManagerTestCase(MachineTestCase):
    """A test of a manager on a fake machine."""

    def setUp(self) -> None:
        super().setUp()
        self.manager = make_manager(self.reactor, self.folder)
        self.manager.pool.start()

    @property
    def layers(self) -> FakeLayers:
        """The manager's."""
        return cast(FakeLayers, self.manager.layers)

    @property
    def bridge(self) -> FakeBridge:
        """Its network's."""
        return cast(FakeBridge, self.manager.network.bridge)

    def add(self, **changes: Any) -> Spec:
        """Keep a config."""
        return self.now(upload(self.manager, document(**changes)))

    def launch(self, **changes: Any) -> Instance:
        """Keep a config and launch it."""
        spec = self.add(**changes)
        return self.now(self.manager.launch(spec.name, spec.major, spec.minor))

    def events(self) -> list[str]:
        """The journal's events, each with its reason."""
        self.manager.journal.write()
        return [f"{event['what']}: {event['reason']}" for event in self.manager.journal.since(0)]


class Taker:
    """A consumer that takes everything."""

    def __init__(self) -> None:
        self.taken = b""
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """For a producer."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """For a producer."""
        self.producer = None

    def write(self, data: bytes) -> None:
        """For a producer."""
        self.taken += data


def make_folder(test: SynchronousTestCase) -> str:
    """A temporary folder."""
    path = os.path.abspath(test.mktemp())
    os.makedirs(path)
    return path
