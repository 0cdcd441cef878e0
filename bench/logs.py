"""The log process alone: how much goes through it, and how much memory it takes."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from bench import processes
from bench.manager import ROOT
from bench.measure import Figure

INSTANCES = 1000
SECONDS = 3.0  # of writing as fast as it takes it
MOST = 30 << 20  # bytes of each log: what is kept unless a config says otherwise
BLOCK = bytes(1 << 16)


def figures(folder: Path) -> list[Figure]:
    """Bytes through one log, and memory with many; against the goals."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as opened:
        one = LogProcess(folder / "one-log", opened)
        into = one.add("0")
        one.write_to_all()
        alone = one.memory()
        through = one.flood(into)
        many = LogProcess(folder / "many-logs", opened)
        for number in range(INSTANCES):
            many.add(str(number))
        many.write_to_all()
        full = many.memory()
    each = (full - alone) / (INSTANCES - 1)
    return [
        Figure("log process, bytes through it", "MB/s", through, "the goal", 200, "200 MB/s"),
        Figure(f"log process, memory (RSS), {INSTANCES} logs", "MB", full, "the goal", 20, "20 MB"),
        Figure("log process, each log more", "MB", each, "the goal", 0.02, "0.02 MB"),
    ]


class LogProcess:
    """One, with pipes of no containers."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder, self.opened = folder, opened
        (folder / "run/slots").mkdir(parents=True)
        opened.callback(shutil.rmtree, folder)
        program = str(ROOT / "txcontain/logs/logd.py")
        command = [sys.executable, "-I", "-S", "-B", program]
        self.process = processes.start([*command, f"{folder}/run", f"{folder}/logs", os.devnull])
        opened.callback(self.process.wait)
        self.manager = opened.enter_context(socket.socket(socket.AF_UNIX))
        while self.manager.connect_ex(f"{folder}/run/logd.sock"):
            time.sleep(0.01)
        self.answers = opened.enter_context(self.manager.makefile("rb"))
        self.pipes: list[int] = []

    def add(self, name: str) -> int:
        """A log more; returns what to write to."""
        slot = self.folder / "run/slots" / name
        for folder in (slot, self.folder / "logs" / name):
            folder.mkdir(parents=True)
        for stream in ("stdout", "stderr"):
            os.mkfifo(slot / stream)
            self.pipes.append(os.open(slot / stream, os.O_RDWR))
            self.opened.callback(os.close, self.pipes[-1])
        self.manager.sendall(f"open {name}\nname {name} {name} {MOST}\n".encode())
        self.answers.readline()
        return self.pipes[-2]

    def write_to_all(self) -> None:
        """So that each log has its files."""
        for pipe in self.pipes:
            os.write(pipe, b"a line\n")
        self.manager.sendall(b"drain 0\n")
        self.answers.readline()
        time.sleep(1)

    def flood(self, into: int) -> float:
        """Write as fast as it takes it; returns MB a second."""
        written, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            written += os.write(into, BLOCK)
        return written / (time.perf_counter() - began) / 1e6

    def memory(self) -> float:
        """MB of its larger process."""
        pids = [self.process.pid, *processes.children(self.process.pid)]
        return max(processes.rss([pid]) for pid in pids)
