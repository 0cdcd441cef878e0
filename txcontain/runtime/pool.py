"""Inits: spawned when a launch needs one, unless one is kept warm (warm.py)."""

from __future__ import annotations
import __future__

import ast
import contextlib
import marshal
import os
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.util import MAGIC_NUMBER
from resource import RLIMIT_NOFILE, getrlimit
from secrets import token_hex
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from txcontain.container.plan import INIT, MONITOR, Plan, begins_with
from txcontain.errors import MachineAtFault
from txcontain.host.cgroups import Cgroups
from txcontain.host.files import remove_leftovers, write_soon
from txcontain.host.kernel import Kernel
from txcontain.host.os_errors import of_os
from txcontain.later import background, poll
from txcontain.logs.client import LOGD, LogClient
from txcontain.runtime.child import Child
from txcontain.runtime.conversation import Connection, InitHandler
from txcontain.runtime.phase import Phase
from txcontain.runtime.prepared import Prepared
from txcontain.runtime.session import Session
from txcontain.runtime.standby import Standby
from txcontain.runtime.warm import WarmInits

NAMESPACES = ("pid", "uts", "ipc")  # it costs nothing to have them early
CLEAN = {"LC_ALL": "C"}  # the environment of inits
WITHIN_LIMITS = 'ulimit -S -n "$1"; ulimit -H -n "$2"; shift 2; exec "$@"'
CONNECT_WITHIN = 20.0  # seconds
STOP_WITHIN, LOOK_AFTER = 5.0, 0.01  # seconds


@define(eq=False)
class Pool(Factory):
    """Spawns inits, and hands them out.

    ``folder`` holds the socket that they connect to, and a run directory for each: there its
    monitor works, and writes down the end.
    """

    reactor: Any
    kernel: Kernel
    cgroups: Cgroups
    folder: str
    prepared: Prepared
    log_process: LogClient
    base_plan: Plan = field(factory=list)  # what every container's plan begins with
    size: int = 2  # warm inits to keep at least; 0: none
    most: int = 16  # and at most, if many were taken lately
    # The soft and the hard limit of how many files a container's process may open.
    files: tuple[int, int] = field(factory=partial(getrlimit, RLIMIT_NOFILE))
    writes: Callable[..., Deferred[Any]] = maybeDeferred  # runs a function where it may wait
    _stopped: bool = False
    _known: dict[str, InitHandler] = field(factory=dict)  # by token, until they connect
    warm: WarmInits = field(init=False)
    standby: Standby = field(init=False)
    _living: dict[str, Child] = field(factory=dict)  # by token: of this manager's own
    _init: str = INIT
    _port: Any = None
    _prefix: int | None = None  # a descriptor of the folder where this Python is installed
    _log: Logger = field(factory=Logger)

    noisy = False

    def __attrs_post_init__(self) -> None:
        machine = self.reactor, self.prepared, self.base_plan, self._spawn
        self.warm = WarmInits(*machine, self.size, self.most)
        self.standby = Standby(self.reactor, self._spawn, self.size)

    @property
    def run_directories(self) -> str:
        """The folder of the run directories."""
        return os.path.join(self.folder, "slots")

    @property
    def socket(self) -> str:
        """The path of the socket that inits connect to."""
        return os.path.join(self.folder, "init.sock")

    def start(self) -> None:
        """Listen for inits and warm the first ones."""
        os.makedirs(self.run_directories, mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)  # of a manager that was killed
        remove_leftovers(self.folder)
        self._init = self._compiled(INIT)
        self.log_process.program = self._compiled(LOGD)
        self.log_process.group = lambda: self.cgroups.monitors
        self.log_process.start()
        self._port = self.reactor.listenUNIX(self.socket, self, mode=0o600, backlog=1024)
        self.warm.look_after(0)

    def _compiled(self, program: str) -> str:
        """A program of ours, compiled once: compiling at each start takes 8 of an init's 20 ms."""
        compiled = os.path.join(self.folder, f"{os.path.basename(program)}c")
        try:
            write_soon(compiled, compile_program(program))
        except OSError as error:  # a full disk
            self._log.warn("starts are slower, because of {error}", error=error)
            return program
        return compiled

    def stop(self) -> Deferred[None]:
        """Stop listening, and let go of every init that has no plan; fires when all are gone."""
        self._stopped = True
        self.warm.stop()
        self.standby.stop()
        return background(self._stop(), "stopping the warm inits")

    async def _stop(self) -> None:
        await self._port.stopListening()
        async for _ in poll(self.reactor, LOOK_AFTER, within=STOP_WITHIN):
            if not (self._any_without_plan() or self.prepared.names):
                break
        for child in self._living.values():
            if not child.planned:
                child.waiting.cancel()  # and so it is killed
        if self._prefix is not None:
            self.kernel.close(self._prefix)
            self._prefix = None
        await self.log_process.stop()
        self.cgroups.give_back()

    def _any_without_plan(self) -> bool:
        return not all(child.planned for child in self._living.values())

    def _forget(self, token: str) -> None:
        self._living.pop(token, None)
        background(self.log_process.close(token), "closing the pipes of an init")

    def tokens(self) -> set[str]:
        """The tokens of all run directories and cgroups that this manager did not make."""
        directories = {entry.name for entry in os.scandir(self.run_directories) if entry.is_dir()}
        return (directories | self.cgroups.tokens()) - set(self._living)

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        """For the reactor: an init has connected."""
        return Connection(self.kernel, lambda token: self._known.pop(token, None))

    def take(self, plan: Plan, leased: Child | None = None, *, shared: str = "") -> Deferred[Child]:
        """An init that waits for what is left of ``plan``: the leased one, a warm or a new one.

        :param shared: the kind of namespace that is the host's; no warm init may have the plan

        Fails with MachineAtFault if none can be had.
        """
        if self._stopped:
            return fail(MachineAtFault("starting a container's init", "the manager ends"))
        child = leased or self.warm.take(plan)
        ours = begins_with(plan, self.base_plan)  # else the plan is not a container's
        if ours and (leased is None or leased.reserved):  # else it stood by for this start only
            self.warm.demand(child)
        if child is not None:
            self.prepared.give(child.reserved)
            return self._hold_pipes(child).addErrback(child.abandon)
        return self._spawn(self.base_plan if ours else [], shared=shared).waiting

    @property
    def mounted(self) -> set[str]:
        """The host's folders that inits without a whole plan have mounted."""
        waiting = [child for child in self._living.values() if not child.planned]
        steps = [arguments for child in waiting for _, arguments in child.early_steps]
        lowers = {path for step in steps for path in step.get("lower", ())}
        return lowers | {step["source"] for step in steps if "source" in step}

    def expect_nothing(self) -> None:
        """Stop preparing config-specific steps.

        Inits that have carried out such steps are let go: then only instances use layers.
        """
        self.prepared.forget()
        self.warm.look_after(0)
        self.standby.drop_all()

    def _spawn(self, steps: Plan, reserved: str = "", *, shared: str = "") -> Child:
        """An init that is being started; if that fails, so does its ``waiting``."""
        token = token_hex(8)
        folder = os.path.join(self.run_directories, token)
        machine = self.reactor, self.kernel, self.cgroups, self.writes
        child = Child(*machine, folder, early_steps=steps, reserved=reserved, shared=shared)
        child.on_exit = lambda _: self._ended_without_plan(child)
        child.gone, child.lost = self._forget, self.warm.lost
        child.terminal_passed = partial(self.log_process.hold_terminal, token)
        child.waiting.addTimeout(CONNECT_WITHIN, self.reactor, onTimeoutCancel=_too_slow)
        child.waiting.addCallback(self._hold_pipes)
        child.waiting.addErrback(child.abandon)
        self._living[token] = child
        self._known[token] = child
        background(self._try_to_start(child), "starting a container's init")
        return child

    async def _try_to_start(self, child: Child) -> None:
        try:
            made = self.writes(self._make_folders, child)
            groups = self.cgroups.make(child.token)  # meanwhile
            await made
            if child.waiting.called:
                self._give_up(child)  # it took too long
            else:
                self._start(child, groups)
        except OSError as error:
            self._give_up(child)
            why = of_os(error)
            child.fail(MachineAtFault("starting a container's init", why))

    def _give_up(self, child: Child) -> None:
        self._forget(child.token)
        self._ended_without_plan(child)

    def _make_folders(self, child: Child) -> None:
        os.mkdir(child.folder, 0o700)
        self.log_process.make_pipes(child.folder)
        if child.reserved:
            os.mkdir(self.prepared.path(child.reserved), Phase.PREPARED)

    def _hold_pipes(self, child: Child) -> Deferred[Child]:
        """Wait until the log process holds its pipes, so that no output is lost; else fail."""

        def is_held(why_not: str) -> Child:
            if why_not or child.exit is not None:
                why = why_not or str(child.exit)
                raise MachineAtFault("opening the pipes of a container's output", why)
            return child

        return self.log_process.hold(child.token).addCallback(is_held)

    def _start(self, child: Child, groups: list[str]) -> None:
        monitor = ["/bin/sh", MONITOR, self.cgroups.monitors, child.folder, *self._file_limits()]
        own = [f"--{kind}" for kind in NAMESPACES if kind != child.shared]
        arguments = ["unshare", *own, *monitor, *self._init_command(child.token)]
        arguments += groups
        self.log_process.open(child.token)  # while it starts
        with open(os.devnull) as null:
            descriptors = {0: null.fileno(), 1: null.fileno(), 2: "r", 3: self._prefix}
            self.reactor.spawnProcess(
                child, "/usr/bin/unshare", arguments, env=CLEAN, childFDs=descriptors
            )

    def written(self) -> Deferred[Any]:
        """Fires when all that was to be written until now is: what is answered outlives a kill."""
        return self.writes(int)

    def start_joiner(self, session: Session) -> None:
        """Start an init that makes no container: it will join one (exec_plan.py).

        Raises OSError if it can't be started.
        """
        token = token_hex(8)
        self._known[token] = session
        session.waiting.addBoth(self._connected, token)
        arguments = ["sh", "-c", WITHIN_LIMITS, "sh", *self._file_limits()]
        arguments += self._init_command(token)
        descriptors = {0: "w", 1: "r", 2: "r", 3: self._prefix}
        self.reactor.spawnProcess(session, "/bin/sh", arguments, env=CLEAN, childFDs=descriptors)

    def _connected(self, outcome: Any, token: str) -> Any:
        self._known.pop(token, None)
        return outcome

    def _file_limits(self) -> list[str]:
        """The soft and hard limit of open files: not those that the manager has for itself."""
        return [str(limit) if limit >= 0 else "unlimited" for limit in self.files]

    def _init_command(self, token: str) -> list[str]:
        """What runs an init that shows this token."""
        return [self._read_only_python(), "-I", "-S", "-B", self._init, self.socket, token]

    def _read_only_python(self) -> str:
        """The path of this Python for an init, which has ``_prefix`` as descriptor 3.

        A container can open the file that its init runs, as /proc/self/exe: so that must be a file
        that nobody can write (CVE-2019-5736).
        """
        executable = os.path.realpath(sys.executable)
        prefix = os.path.dirname(os.path.dirname(executable))
        if self._prefix is None:
            self._prefix = self.kernel.read_only(prefix)
        return f"/proc/self/fd/3/{os.path.relpath(executable, prefix)}"

    def _ended_without_plan(self, child: Child) -> None:
        self._known.pop(child.token, None)
        child.clear()
        self.prepared.drop(child.reserved)
        self.warm.lost(child)
        self.standby.lost(child)


@lru_cache(maxsize=2)  # both programs; a process of tests starts hundreds of managers
def compile_program(path: str) -> bytes:
    """A program as a .pyc file (PEP 552), which Python runs unchecked as a program.

    It is read at each start, so all that only a reader of the source needs is left out: docstrings,
    annotations, and the import that keeps those from being evaluated.
    """
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    tree.body = [one for one in tree.body if getattr(one, "module", "") != "__future__"]
    flags = __future__.annotations.compiler_flag
    code = compile(tree, path, "exec", flags=flags, dont_inherit=True, optimize=2)
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def _too_slow(result: Any, timeout: float) -> None:
    raise MachineAtFault(
        "starting a container's init",
        f"it has not connected within {timeout:.0f} s",
        "check whether this machine is overloaded",
    )
