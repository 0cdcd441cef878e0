"""Processes: started apart from the terminal, found, measured and ended by their pids."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets lost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(arguments: list[str], **options: Any) -> Popen[bytes]:
    """Start a program that a Ctrl-C at the terminal does not reach."""
    options = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL, **options}
    return Popen(arguments, start_new_session=True, **options)


def stop(process: Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Ask a process to end, make it end after some seconds, and wait until it has."""
    process.send_signal(number)
    try:
        process.wait(20)
    except TimeoutExpired:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def descendants(pid: int) -> Iterator[int]:
    """The pids of all below a process."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def on_the_host(pids: Iterable[int]) -> list[int]:
    """Those that are in this process's pid namespace, and so inside of no container."""
    here = os.readlink("/proc/self/ns/pid")
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/pid") == here:
                found.append(pid)
    return found


def named(pids: Iterable[int], name: str) -> list[int]:
    """Those that live, and whose name (comm) begins with ``name``."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            is_named = Path(f"/proc/{pid}/comm").read_text().startswith(name)
            if is_named and Path(f"/proc/{pid}/cmdline").read_bytes():  # a zombie has none
                found.append(pid)
    return found


def pss(pids: Iterable[int]) -> float:
    """Their memory in MB, what is shared divided among its users (proc_pid_smaps(5))."""
    return sum(_megabytes(pid, "smaps_rollup", "Pss:") for pid in pids)


def rss(pids: Iterable[int]) -> float:
    """Their resident memory in MB."""
    return sum(_megabytes(pid, "status", "VmRSS:") for pid in pids)


def _megabytes(pid: int, file: str, key: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), 0.0)


def cpu_seconds(pids: Iterable[int]) -> float:
    """How long their threads have been on a CPU, to the nanosecond (schedstat)."""
    return sum(
        int(path.read_text().split()[0]) / 1e9
        for pid in pids
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def share(pid: int, lasting: float) -> float:
    """Which part of one CPU a process takes in the next so many seconds, in percent."""
    before, began = cpu_seconds([pid]), time.monotonic()
    time.sleep(lasting)
    return 100 * (cpu_seconds([pid]) - before) / (time.monotonic() - began)


def end_descendants() -> None:
    """Kill whatever this process has started and not ended."""
    for _ in range(100):
        left = [pid for pid in descendants(os.getpid()) if _kill(pid)]
        _reap()
        if not left:
            return
        time.sleep(0.02)


def _kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
