"""A container's processes as the manager holds them: the monitor, and PID 1 below it.

``Child`` (child.py) was started by this manager, and carries out a plan; ``Adopted`` (adopted.py)
was started by an earlier one. Both are signalled by a pidfd. Both tell their end once, as the
monitor wrote it into a file: so it is the same whether a manager ran when it happened or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txcontain.container.spec import Limits
from txcontain.errors import MachineAtFault
from txcontain.host.cgroups import Cgroups
from txcontain.host.kernel import Kernel
from txcontain.host.os_errors import of_os
from txcontain.host.processes import Process
from txcontain.later import background, poll
from txcontain.runtime.exits import Exit, by_someone, read_exit, with_kills
from txcontain.runtime.watch import Watch

UNKNOWN = Process(0, 0)
LOOK_AFTER, LOOK_WITHIN = 0.025, 1.0  # seconds: the kernel lets go of things in its own time
log = Logger()


def _remove_folder(folder: str) -> bool:
    """Remove a run directory; returns whether it is gone."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    return not os.path.lexists(folder)


@define(eq=False)
class Supervised:
    """The processes of an instance, as the manager holds them.

    While they run this takes one descriptor: a pidfd, of PID 1 or of the monitor.
    """

    reactor: Any
    kernel: Kernel
    cgroups: Cgroups
    writes: Callable[..., Deferred[Any]]  # runs a function where it may wait
    folder: str  # the run directory, in which its monitor works
    process: Process = UNKNOWN  # PID 1, as seen from here
    monitor: Process = UNKNOWN
    pidfd: int = -1  # of PID 1, if one is held
    exit: Exit | None = None
    on_exit: Callable[[Exit], None] | None = None
    killed_because: str = ""  # empty if the manager did not kill it
    is_gone: bool = False  # whether all that was left after the end was removed
    _watch: Watch | None = None  # of PID 1
    _kills: int | None = None  # for want of memory, if counted before the cgroup was removed

    @property
    def token(self) -> str:
        """The name of the run directory, and of the container's cgroup."""
        return os.path.basename(self.folder)

    def send_signal(self, number: int) -> None:
        """Signal PID 1; nothing if it has ended.

        Raises OSError if it can't be signalled now.
        """
        if self.pidfd >= 0:
            self.kernel.send_signal(self.pidfd, number)
        elif self.process != UNKNOWN:
            self.kernel.signal_process(self.process, number)

    def kill(self, because: str) -> None:
        """End every process of the container (the pid namespace goes with its PID 1).

        :param because: why, as the exit will say, so that nobody looks for another killer
        """
        self.killed_because = self.killed_because or because
        self.send_signal(signal.SIGKILL)

    def limit(self, limits: Limits) -> None:
        """Bound what they may use.

        Raises MachineAtFault.
        """
        try:
            self.cgroups.limit(self.token, limits)
        except OSError as error:
            hint = "leave this limit out: the machine has no such control, or refuses the value"
            raise MachineAtFault("limiting the container", of_os(error), hint) from error

    def thaw(self) -> None:
        """Let them run on, if they are frozen and that can be done now."""
        if self.cgroups.is_frozen(self.token):
            try:
                self.cgroups.thaw(self.token)
            except OSError as error:
                log.warn("{folder} can't be thawed: {error}", folder=self.folder, error=error)

    def hold(self, process: Process) -> int:
        """A pidfd to keep for long.

        Raises ProcessLookupError; OSError if too few descriptors are left, because the manager
        must be able to answer however many containers run.
        """
        pidfd = self.kernel.open_process(process)
        if self.kernel.is_scarce(pidfd):
            self.kernel.close(pidfd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pidfd

    def watch_init(self, ended: Callable[[], None], *, is_removed: bool = False) -> None:
        """Call ``ended`` when PID 1 has ended, and with it all processes but the monitor.

        :param is_removed: whether the cgroup goes then, while the monitor takes note of the end
        """
        if self.pidfd < 0 and self.process != UNKNOWN:
            with contextlib.suppress(OSError):  # then we learn it from the monitor's end
                self.pidfd = self.kernel.open_process(self.process)
        if self.pidfd >= 0:
            self._watch = Watch(
                self.reactor, self.pidfd, partial(self._init_ended, ended, is_removed)
            )
            self._watch.start()

    def _init_ended(self, ended: Callable[[], None], is_removed: bool) -> None:
        ended()
        if is_removed and self.exit is None:
            self._kills = self.cgroups.out_of_memory_kills(self.token)
            self.cgroups.remove(self.token)  # if something is left in it, `remove` finds that

    async def remove(self) -> list[str]:
        """Remove what is left after the end: the run directory, and the cgroup with all in it.

        Returns what could not be removed within a second.
        """
        async for _ in poll(self.reactor, LOOK_AFTER, within=LOOK_WITHIN):
            left = await self._discard()
            if self.process != UNKNOWN and self.kernel.lives(self.process):
                left.append(f"process {self.process.pid}")
            if not left:
                break
            self._kill_members()
        self.is_gone = not left
        return left

    def clear(self) -> None:
        """The same in the background."""
        background(self._clear(), f"removing {self.folder}")

    async def _clear(self) -> None:
        if left := await self.remove():
            log.warn(
                "{folder} has ended, but something is left: {left}",
                folder=self.folder,
                left=", ".join(left),
            )

    async def _discard(self) -> list[str]:
        removed = self.writes(_remove_folder, self.folder)  # meanwhile:
        left = self.cgroups.remove(self.token)
        return left if await removed else [*left, self.folder]

    def _kill_members(self) -> None:
        """Kill what is in the cgroup: only a process that survived its monitor (prctl(2))."""
        members = {}
        for pid in self.cgroups.members(self.token):
            with contextlib.suppress(ProcessLookupError):
                members[pid] = self.kernel.identify(pid)
        for pid in self.cgroups.members(self.token) & set(members):  # still the same processes
            self.kernel.signal_process(members[pid], signal.SIGKILL)

    def has_ended(self) -> None:
        """Called when the monitor has ended, and so PID 1 before it."""
        with contextlib.suppress(OSError):  # its removal looks for it again
            self.send_signal(signal.SIGKILL)  # it may not have died with its monitor (prctl(2))
        if self._watch is not None:
            self._watch.stop()
        if self.pidfd >= 0:
            self.kernel.close(self.pidfd)
            self.pidfd = -1
        background(self._tell_how(), f"learning how {self.folder} has ended")

    async def _tell_how(self) -> None:
        """Read what the monitor wrote, retrying if that fails, and tell it once."""
        async for _ in poll(self.reactor, LOOK_AFTER, within=LOOK_WITHIN):
            try:
                how = read_exit(self.folder, self.kernel.now())
                break
            except OSError as error:
                why = f"ended, but its exit can't be read: {of_os(error)}"
                how = Exit(reason=why, at=self.kernel.now())
        self.exit = self._explained(how)
        if self.on_exit is not None:
            self.on_exit(self.exit)

    def _explained(self, how: Exit) -> Exit:
        if how.failed and (kills := self._count_kills()):
            return with_kills(how, kills)
        return by_someone(how, self.killed_because)

    def _count_kills(self) -> int:
        if self._kills is not None:
            return self._kills
        return self.cgroups.out_of_memory_kills(self.token)
