"""A container's processes as the manager holds them: the monitor, and PID 1 below it.

``Child`` is one that this manager has started and that carries out a plan (the
protocol is drawn at the top of ``init.py``); ``Adopted`` is one that an earlier
manager started. Both are signalled by a pidfd, and both tell their end once, which
they learn from the file that the monitor has written: it is the same whether the
manager was there when it happened or not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.host.cgroups import Cgroups
from txcontain.host.kernel import Kernel, Process
from txcontain.host.os_errors import of_os
from txcontain.later import Timer, background, poll
from txcontain.runtime.exits import Exit, read_exit, with_kills

UNKNOWN = Process(0, 0)
LOOK_AFTER, LOOK_WITHIN = 0.025, 1.0  # seconds, for what the kernel lets go of in its own time
log = Logger()
FOLLOW_AGAIN = 5.0  # seconds


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

    That is one descriptor while they run: a pidfd, of PID 1 or of the monitor.
    """

    reactor: Any
    kernel: Kernel
    cgroups: Cgroups
    writes: Callable[..., Deferred[Any]]  # runs a function where it may wait
    slot: str  # the monitor's folder
    process: Process = UNKNOWN  # PID 1, as seen from here
    monitor: Process = UNKNOWN
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
        """Be told that PID 1 has ended, and all processes with it: the monitor will end soon."""
        if self.pidfd < 0 and self.process != UNKNOWN:
            with contextlib.suppress(OSError):  # then the monitor's end will do
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
        """End who is in the cgroup: nobody, but where a monitor's end was survived (prctl(2))."""
        members = {}
        for pid in self.cgroups.members(self.token):
            with contextlib.suppress(ProcessLookupError):
                members[pid] = self.kernel.identify(pid)
        for pid in self.cgroups.members(self.token) & set(members):  # it was none other's pid
            self.kernel.signal_process(members[pid], signal.SIGKILL)

    def has_ended(self) -> None:
        """Called when the monitor has ended, and so PID 1 before it."""
        with contextlib.suppress(OSError):  # whoever removes the slot looks for it again
            self.kill()  # it may have called off that it dies with its monitor (prctl(2))
        if self._watch is not None:
            self._watch.stop()
        if self.pidfd >= 0:
            self.kernel.close(self.pidfd)
            self.pidfd = -1
        background(self._tell_how(), f"learning how {self.slot} has ended")

    async def _tell_how(self) -> None:
        """Read what the monitor wrote, again and again if it can't be read, and tell it once."""
        async for _ in poll(self.reactor, LOOK_AFTER, within=LOOK_WITHIN):
            try:
                how = read_exit(self.slot, self.kernel.now())
                break
            except OSError as error:
                why = f"ended, and how can't be read: {of_os(error)}"
                how = Exit(reason=why, at=self.kernel.now())
        self.exit = self._explained(how)
        if self.on_exit is not None:
            self.on_exit(self.exit)

    def _explained(self, how: Exit) -> Exit:
        kills = self.cgroups.out_of_memory_kills(self.token) if how.failed else 0
        if kills:
            return with_kills(how, kills)
        if self.killed_because and how.signal == signal.SIGKILL:
            return evolve(how, reason=f"{self.killed_because} ({how.reason})")
        return how


@define(eq=False)
class Adopted(Supervised):
    """A container that an earlier manager started: its monitor's pidfd tells its end."""

    def follow(self) -> None:
        """Begin to follow it; if it has ended, that is told at once.

        If it can't be followed now, for want of a descriptor or so, that is tried again and again.
        """
        try:
            self._watch_monitor()
        except ProcessLookupError:
            self.has_ended()
        except OSError as error:
            log.warn("{slot} can't be watched yet: {error}", slot=self.slot, error=error)
            Timer(self.reactor, self.follow).after(FOLLOW_AGAIN)

    def _watch_monitor(self) -> None:
        if self.monitor == UNKNOWN or not self.kernel.lives(self.monitor):
            raise ProcessLookupError(f"process {self.monitor.pid} has ended")
        monitor = self.hold(self.monitor)

        def monitor_ended() -> None:
            self.kernel.close(monitor)
            self.has_ended()

        Watch(self.reactor, monitor, monitor_ended).start()
