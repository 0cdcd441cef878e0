"""What the manager asks of the kernel: processes, their ends, who listens on a port.

One small object, so that a test can put another in its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Iterator
from functools import cache
from itertools import chain, islice

from attrs import frozen

from txcontain.host import sockets

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000  # <linux/fcntl.h>
OPEN_TREE_CLONE, MOUNT_ATTR_RDONLY = 1, 1  # <linux/mount.h>
SYS_OPEN_TREE, SYS_MOUNT_SETATTR = 428, 442  # the same numbers on every architecture
SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "armv7l": 380, "s390x": 345}
SCHED_FLAG_RESET_ON_FORK, SHORT_SLICE = 1, 100_000  # <linux/sched.h>; nanoseconds
SPARE_FILES = 128  # kept for connections, launches and all else that is short
_libc = ctypes.CDLL(None, use_errno=True)
MOST_PROCESSES, MOST_FILES = 256, 4096  # of a container's, in one look at who has a socket


@frozen
class Process:
    """A process that no other can be taken for: a pid is used again, this pair is not."""

    pid: int
    start_time: int  # clock ticks since boot (proc_pid_stat(5), field 22)


class Kernel:
    """The real kernel."""

    def boot_id(self) -> str:
        """Which boot this is (random(4))."""
        return _boot_id()

    def now(self) -> float:
        """The time of day, in unix time: for people only, as it may be set at any moment."""
        return time.time()

    def boot_time(self) -> float:
        """When this boot began, in unix time."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def open_more(self, most: int) -> int:
        """Have this process open that many files, or as many as it may (getrlimit(2)).

        Returns how many that is.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in (max(hard, most), hard):
            with contextlib.suppress(OSError, ValueError):  # it may not raise what it was given
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
                break
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def is_scarce(self, descriptor: int) -> bool:
        """Whether this descriptor should not be held for long: few are left for all else.

        The lowest that is free is always given (open(2)), so its number tells how many are open.
        """
        return descriptor >= most_held(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def be_prompt(self) -> None:
        """Have this thread run as soon as it is woken, for short whiles at a time.

        Otherwise a busy script on the same processor delays it. Whoever asks
        for a shorter slice than others have (sched_setattr(2)) goes first since Linux 6.12; an
        older kernel takes no notice. What this thread starts does not inherit it.
        """
        number, nice = SYS_SCHED_SETATTR.get(os.uname().machine), os.nice(0)
        if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
            return
        flags = SCHED_FLAG_RESET_ON_FORK
        wanted = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, flags, nice, 0, SHORT_SLICE, 0, 0)
        with contextlib.suppress(OSError):  # it would only be slower
            _system_call(number, 0, wanted, 0)

    def identify(self, pid: int) -> Process:
        """The process that has this pid now.

        Raises ProcessLookupError.
        """
        return Process(pid, int(_stat(pid)[19]))

    def monitors(self, slots: str) -> dict[str, tuple[Process, Process | None]]:
        """The monitors that run, by their slots' names, each with the PID 1 below it.

        A monitor works in its slot (proc_pid_cwd(5)), where no one gets but root. Of the
        processes that do, it is the oldest: an init is there too, until it has its own root.
        """
        top = os.path.realpath(slots)
        workers = []
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                if name := _working_below(top, entry):
                    workers.append((name, self.identify(int(entry))))
        workers.sort(key=lambda each: (each[1].start_time, each[1].pid), reverse=True)
        oldest = dict(workers)  # for of equal keys the last one counts
        return {name: (monitor, self._child(monitor)) for name, monitor in oldest.items()}

    def _child(self, process: Process) -> Process | None:
        for child in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                return self.identify(child)
        return None

    def open_process(self, process: Process) -> int:
        """A pidfd (pidfd_open(2)): it becomes readable when the process ends.

        Raises ProcessLookupError where that process is gone, whoever has its pid now; OSError
        where no process can have this pid, or no descriptor is left.
        """
        descriptor = os.pidfd_open(process.pid)
        try:
            if self.identify(process.pid) != process:
                raise _gone(process.pid)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def send_signal(self, pidfd: int, number: int) -> None:
        """Signal the process of a pidfd; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)

    def signal_process(self, process: Process, number: int) -> None:
        """Signal a process that no pidfd is held of; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = self.open_process(process)
            try:
                self.send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    def lives(self, process: Process) -> bool:
        """Whether a process still runs (a zombie does not)."""
        try:
            fields = _stat(process.pid)
        except ProcessLookupError:
            return False
        return int(fields[19]) == process.start_time and fields[0] not in "ZX"

    def read_only(self, folder: str) -> int:
        """A descriptor for a folder by which nothing in it can be written, whoever tries.

        It is a mount of its own that is not attached to any file tree (open_tree(2),
        mount_setattr(2); Linux 5.12). Raises OSError.
        """
        flags = OPEN_TREE_CLONE | os.O_CLOEXEC
        descriptor = _system_call(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(folder), flags)
        wanted = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
        try:
            _system_call(SYS_MOUNT_SETATTR, descriptor, b"", AT_EMPTY_PATH, wanted, len(wanted))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def mounts_below(self, folder: str) -> list[str]:
        """The mount points of this mount namespace that lie below a folder."""
        with open("/proc/self/mountinfo") as file:
            paths = [line.split()[4] for line in file]
        return [path for path in paths if path.startswith(folder + "/")]

    def close(self, descriptor: int) -> None:
        """close(2)."""
        os.close(descriptor)

    def peer(self, connection: socket.socket) -> int:
        """The pid of who connected, as seen from here (SO_PEERCRED, unix(7))."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid: int = struct.unpack("iII", credentials)[0]
        return pid

    def send(self, connection: socket.socket, message: bytes) -> int:
        """Send what goes into a socket's buffer at once; returns how many bytes that is.

        None where the other end has hung up, which the reactor tells in its next turn.
        """
        try:
            return connection.send(message)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return 0

    def catches(self, pid: int, number: int) -> bool:
        """Whether a process handles a signal (SigCgt, SigBlk: proc_pid_status(5)).

        Who blocks it may be waiting for it, as an init does (sigwait(3), signalfd(2)).
        """
        try:
            with open(f"/proc/{pid}/status", errors="replace") as file:
                lines = [line for line in file if line.startswith(("SigCgt:", "SigBlk:"))]
        except (FileNotFoundError, ProcessLookupError):
            return False
        return any(int(line.split()[1], 16) >> (number - 1) & 1 for line in lines)

    def catchers(self, pid: int, number: int) -> list[Process]:
        """Whom to send a signal, of a container's processes: its PID 1, if that handles it.

        That is for it to pass on, or not: a master lets its workers finish. Else all that do.
        """
        found = []
        for member in self.descendants(pid):
            if self.catches(member, number):
                with contextlib.suppress(ProcessLookupError):
                    found.append(self.identify(member))
                if member == pid:
                    break
        return found

    def descendants(self, pid: int) -> Iterator[int]:
        """``pid`` and all below it; of a container's PID 1, this is the whole container."""
        waiting = [pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            waiting += _children(pid)

    def listening_sockets(
        self,
        port: int,
        network_of: int | str = "self",
        protocol: str = "tcp",
        address: str = "0.0.0.0",
    ) -> set[str]:
        """The inodes of the sockets that listen on a port, only by the kernel's tables.

        An IPv4 address leaves out those on other addresses; 0.0.0.0 leaves out none.
        """
        found = sockets.listeners(port, network_of, protocol)
        return {one.inode for one in found if sockets.overlap(one.address, address)}

    def holds_socket(self, pid: int, inodes: set[str]) -> bool:
        """Whether a process has one of these sockets open."""
        wanted = {f"socket:[{inode}]" for inode in inodes}
        return not wanted.isdisjoint(islice(_open_files(pid), MOST_FILES))

    def surely_listens(self, pid: int, port: int, group: int | None) -> bool | None:
        """Whether the container whose PID 1 is ``pid`` listens on a TCP port, by the tables only.

        None if that can't be told, and ``listens`` can. In a network namespace of its own, all
        sockets are the container's; on the host's it is known by the number of its cgroup.
        """
        found = {one.group for one in sockets.listeners(port, pid)}
        if not found or group in found or not _shares_network(pid):
            return bool(found)
        untold = group is None or found & {sockets.ROOT, sockets.UNTOLD}
        return None if untold else False

    def listens(self, pid: int, port: int) -> bool:
        """The same by the descriptors of its processes: of many, a part is looked at.

        They are as many as the container likes: not for the reactor's thread.
        """
        inodes = self.listening_sockets(port, pid)
        members = islice(self.descendants(pid), MOST_PROCESSES) if inodes else ()
        files = chain.from_iterable(map(_open_files, members))
        wanted = {f"socket:[{inode}]" for inode in inodes}
        return not wanted.isdisjoint(islice(files, MOST_FILES))

    def listener(
        self, port: int, protocol: str = "tcp", address: str = "0.0.0.0"
    ) -> tuple[int, str] | None:
        """The pid and program of who listens on a port of the host (0, "" if not to be seen).

        None where no one does, on that address. Looks through every process: not for the
        reactor's thread.
        """
        inodes = self.listening_sockets(port, protocol=protocol, address=address)
        if not inodes:
            return None
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and self.holds_socket(int(entry), inodes):
                return int(entry), program(int(entry))
        return 0, ""


@cache
def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _working_below(top: str, pid: str) -> str:
    """The name of the folder right below ``top`` that a process works in; nothing where in none."""
    link = f"/proc/{pid}/cwd"
    try:
        path = os.readlink(link)
    except OSError:  # it has ended, or is none that we may look at, or its path is too long
        return ""
    # The path alone proves nothing: in another root, it may be another folder's.
    below = os.path.dirname(path) == top and os.path.samestat(os.stat(link), os.stat(path))
    return os.path.basename(path) if below else ""


def most_held(most: int) -> int:
    """How many descriptors may be held for long, of those that may be open."""
    return most - min(most // 2, SPARE_FILES)


def flush_disk(folder: str) -> None:
    """Have all that was written to a folder's disk survive a power cut (syncfs(2)).

    Raises OSError. It takes its time: not for the reactor's thread.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)


def _system_call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def program(pid: int) -> str:
    """A process's name (comm); nothing where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _open_files(pid: int) -> Iterator[str]:
    gone = contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError)
    with gone, os.scandir(f"/proc/{pid}/fd") as files:  # one by one: there may be very many
        for file in files:  # which may have been closed meanwhile, or be none of our business
            with gone:
                yield os.readlink(file.path)


def _shares_network(pid: int) -> bool:
    """Whether a process is in this network namespace."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net"))
    except (FileNotFoundError, ProcessLookupError):
        return True


def _children(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for thread in threads:
        path = f"/proc/{pid}/task/{thread}/children"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(path) as file:
            yield from map(int, file.read().split())


def _stat(pid: int) -> list[str]:
    # From field 3 on: field 2 is a name in parentheses, which may hold any byte.
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        raise _gone(pid) from None


def _gone(pid: int) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, f"process {pid} is gone")
