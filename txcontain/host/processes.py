"""Processes: who they are, whether they run, which signals they catch, and sending them one."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from functools import cache
from typing import Any

from attrs import frozen

LONGEST_COMMAND = 4096  # bytes of a command line that are told


@frozen
class Process:
    """Identifies a process for good: a pid is used again, this pair is not."""

    pid: int
    start_time: int  # clock ticks since boot (proc_pid_stat(5), field 22)


@cache
def boot_id() -> str:
    """Which boot this is (random(4)): pids and start times are those of one boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def identify(pid: int) -> Process:
    """The process that has this pid now.

    Raises ProcessLookupError.
    """
    return Process(pid, int(_stat(pid)[19]))


def monitors(slots: str) -> dict[str, tuple[Process, Process | None]]:
    """The running monitors, by the names of their slots, each with the PID 1 below it.

    A monitor's working directory is its slot (proc_pid_cwd(5)), which only root can enter. An init
    works there too, until it has its own root; but the monitor is the oldest. Of two that began in
    the same tick it is the parent: pids do not tell, as they begin anew after the largest one.
    """
    top = os.path.realpath(slots)
    workers = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if name := _working_below(top, entry):
                workers.append((name, identify(int(entry)), _parent(int(entry))))
    pids = {process.pid for _, process, _ in workers}
    workers.sort(key=lambda each: (each[1].start_time, each[2] in pids), reverse=True)
    oldest = {name: process for name, process, _ in workers}  # of equal keys, the last one counts
    return {name: (monitor, _first_child(monitor)) for name, monitor in oldest.items()}


def _first_child(process: Process) -> Process | None:
    for child in _children(process.pid):
        with contextlib.suppress(ProcessLookupError):
            return identify(child)
    return None


def _working_below(top: str, pid: str) -> str:
    """The name of the folder right below ``top`` that a process works in; nothing if elsewhere."""
    link = f"/proc/{pid}/cwd"
    try:
        path = os.readlink(link)
    except OSError:  # it has ended, or we may not look at it, or the path is too long
        return ""
    # The path proves nothing yet: in another root it may be another folder.
    below = os.path.dirname(path) == top and os.path.samestat(os.stat(link), os.stat(path))
    return os.path.basename(path) if below else ""


def open_process(process: Process) -> int:
    """A pidfd (pidfd_open(2)): it becomes readable when the process ends.

    Raises ProcessLookupError if that process is gone, even if its pid is used again; OSError if no
    process can have this pid, or no descriptor is left.
    """
    descriptor = os.pidfd_open(process.pid)
    try:
        if identify(process.pid) != process:
            raise _gone(process.pid)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process of a pidfd, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def signal_process(process: Process, number: int) -> None:
    """Send a signal to a process without a pidfd, if it has not ended."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = open_process(process)
        try:
            send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def lives(process: Process) -> bool:
    """Whether a process still runs (a zombie does not)."""
    try:
        fields = _stat(process.pid)
    except ProcessLookupError:
        return False
    return int(fields[19]) == process.start_time and fields[0] not in "ZX"


def catches(pid: int, number: int) -> bool:
    """Whether a process handles a signal (SigCgt, SigBlk: proc_pid_status(5)).

    A process that blocks it may be waiting for it, as an init does (sigwait(3), signalfd(2)).
    """
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:
            lines = [line for line in file if line.startswith(("SigCgt:", "SigBlk:"))]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(int(line.split()[1], 16) >> (number - 1) & 1 for line in lines)


def catchers(pid: int, number: int) -> list[Process]:
    """The processes of a container that should get a signal: only PID 1 if it handles it.

    It may pass the signal on or not: a master lets its workers finish. Otherwise, all processes
    that handle it.
    """
    found = []
    for member in descendants(pid):
        if catches(member, number):
            with contextlib.suppress(ProcessLookupError):
                found.append(identify(member))
            if member == pid:
                break
    return found


def catchers_at_once(pid: int, number: int) -> list[Process] | None:
    """What ``catchers`` finds, if it has to look at this process only; else None.

    It takes three reads at most, whatever is below the process. (A folder has two links more than
    it has folders; in this one there is a folder for each thread.)
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if catches(pid, number):
            return [identify(pid)]
        if os.stat(f"/proc/{pid}/task").st_nlink > 3:
            return None
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return None if file.read(1) else []
    return []  # it has ended


def started_with(*arguments: str) -> list[Process]:
    """The processes whose command lines have these arguments, one after the other.

    A command line may be made to look so. It may block: not for the reactor's thread.
    """
    wanted, found = os.fsencode("\0".join(["", *arguments, ""])), []
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            process = identify(pid)
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if wanted in file.read(LONGEST_COMMAND):
                    found.append(process)
    return found


def descendants(pid: int) -> Iterator[int]:
    """``pid`` and all processes below it; below a container's PID 1 is the whole container."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += _children(pid)


def program(pid: int) -> str:
    """The name of a process (comm); nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def describe(pid: int) -> dict[str, Any]:
    """What a process is, as the host sees it, and the pid by which its own namespace knows it.

    Memory is what it has in RAM (RSS), in bytes. Its command is what it says itself: any text.

    Raises ProcessLookupError if it is gone.
    """
    fields, status = _stat(pid), read_status(pid)
    ticks = int(fields[11]) + int(fields[12])  # utime and stime (proc_pid_stat(5))
    return {
        "pid": int(status["NSpid"][-1]),
        "host_pid": pid,
        "host_parent": int(fields[1]),
        "user": int(status["Uid"][1]),  # the effective one
        "cpu_usec": ticks * 1_000_000 // os.sysconf("SC_CLK_TCK"),
        "memory": int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        "command": _command_line(pid) or f"[{program(pid)}]",
    }


def read_status(pid: int) -> dict[str, list[str]]:
    """What /proc/PID/status says, by name, as words (proc_pid_status(5)).

    Raises ProcessLookupError if it is gone.
    """
    try:
        with open(f"/proc/{pid}/status", errors="replace") as file:
            pairs = (line.partition(":") for line in file)
            return {name: rest.split() for name, _, rest in pairs}
    except FileNotFoundError:
        raise _gone(pid) from None


def _command_line(pid: int) -> str:
    """Its arguments with spaces between them, cut off if they are long; "" if it has none."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(LONGEST_COMMAND).rstrip(b"\0").replace(b"\0", b" ")
    except FileNotFoundError:
        raise _gone(pid) from None
    return words.decode("utf-8", "backslashreplace")


def _children(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for thread in threads:
        path = f"/proc/{pid}/task/{thread}/children"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(path) as file:
            yield from map(int, file.read().split())


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    # From field 3 on: field 2 is the name in parentheses, which may hold any byte.
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except FileNotFoundError:
        raise _gone(pid) from None


def _gone(pid: int) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, f"process {pid} is gone")
