"""Logs, for a long time: ``make endurance``.

ENDURANCE_LIVES instances are launched and destroyed one after the other; meanwhile the manager and
the log process are killed ENDURANCE_RESTARTS times each. Through all of it some instances write on.
No log may be beyond its bound at any time, and no line may be lost. In the end, a thousand
followers of quiet logs may cost no processor time.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.integration.harness import wait_until
from tests.integration.test_logs import BOUND, FLOOD, MEGABYTE, LogCase

LIVES = int(os.environ.get("ENDURANCE_LIVES", "1000"))
RESTARTS = int(os.environ.get("ENDURANCE_RESTARTS", "100"))
FOLLOWERS = 1000
QUIET = 10  # instances that they follow
SECONDS = 10.0  # that they wait
CLOCK_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds
SPARE = 64 << 10  # bytes that a log may take beyond its bound
SAYS = 200  # lines of each life
LIFE = f"#!/bin/sh\ni=0; while [ $i -lt {SAYS} ]; do i=$((i+1)); echo $i; done\n"
COUNTING = """#!/bin/sh
i=0
while :; do
    i=$((i+1)); echo $i; echo $i >&2
    [ $((i % 20)) = 0 ] && sleep 0.1
done
"""
LARGE = {"log_max_size": 8 * MEGABYTE, "log_max_files": 2}  # none of its lines become too old


class Endurance(LogCase):
    """Logs that are written while all else ends and begins again."""

    pool = 2
    options = ("--max-connections", str(FOLLOWERS + 100))

    def endure(self) -> None:
        """The bounds hold, no line is lost, and quiet followers cost nothing."""
        watched = Watched(self)
        for _ in range(2):
            watched.add(self.launch(**self.job(FLOOD, **BOUND)), BOUND)
        counting = self.launch(**self.job(COUNTING, **LARGE))
        watched.add(counting, LARGE)
        with watched:
            self.live(watched, counting)
        print(f"the fullest log had {watched.most:.1%} of what it may have at most")
        self.assertGreater(watched.looks, LIVES)
        self.assertLessEqual(watched.most, 1, watched.fullest)
        self.follow_quiet_logs()

    def live(self, watched: Watched, counting: str) -> None:
        """Launch and destroy; kill managers and log processes."""
        life = self.upload(**self.job(LIFE, **BOUND))
        lines = 0
        for number in range(LIVES):
            turn, rest = divmod(number, max(1, LIVES // RESTARTS))
            if rest == 0:
                self.kill_log_processes(*self.log_processes())
            instance = self.ask("POST", "/launch", life).json["instance"]
            watched.add(instance, BOUND)
            if rest == 0:  # while it writes, or when it has just ended
                self.kill_log_processes(sorted(self.log_processes())[turn % 2])
                self.replace_manager(signal.SIGKILL if turn % 3 else signal.SIGTERM)
            self.assertEqual(self.output_of(instance).split(), numbers(SAYS), instance)
            self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
            watched.remove(instance)
            if number % 100 == 99:
                lines = self.count(counting, more_than=lines)
                print(f"{number + 1} lives, {lines} lines of each stream, none lost", flush=True)

    def kill_log_processes(self, *pids: int) -> None:
        """Kill one process of the log process, or both, and wait until there are others."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(set(self.log_processes()) - set(pids)) == 2,
            "the log process is whole again",
        )

    def replace_manager(self, number: int) -> None:
        """Have the manager end by a signal, and start another one."""
        self.manager.send_signal(number)
        self.manager.wait()
        self.start()

    def count(self, instance: str, more_than: int) -> int:
        """Fail if a line of either stream is missing, repeated, or out of order."""
        found = 0
        for stream in ("stdout", "stderr"):
            whole, _, _ = self.read_log(instance, f"?stream={stream}").rpartition("\n")
            lines = whole.split("\n")
            self.assertEqual(lines, numbers(found := len(lines)), stream)
            self.assertGreater(found, more_than)
        return found

    # -- followers -------------------------------------------------------------

    def follow_quiet_logs(self) -> None:
        """Followers of quiet logs use no processor time, and each hears what comes."""
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        quiet = self.upload(
            **self.job("#!/bin/sh\ntrap 'echo now; exit' TERM\nsleep 1000 & wait\n")
        )
        instances = [self.ask("POST", "/launch", quiet).json["instance"] for _ in range(QUIET)]
        wait_until(lambda: self.used_within(1) <= 0.02, "all is quiet")
        without = self.used_within(SECONDS)
        with ExitStack() as opened:
            followers = [self.follow(instances[n % QUIET], opened) for n in range(FOLLOWERS)]
            wait_until(lambda: self.used_within(1) <= 0.02, "all is quiet")
            used = self.used_within(SECONDS)
            print(
                f"{FOLLOWERS} quiet followers: {used:.2f} s of processor time in {SECONDS:.0f} s, "
                f"and {without:.2f} s without them"
            )
            for instance in instances:
                self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
            for follower in followers:
                self.assertIn(b"now\n", read_all(follower))
        self.assertLessEqual(used, without + 0.05)

    def follow(self, instance: str, opened: ExitStack) -> socket.socket:
        """A connection that follows a log."""
        follower = opened.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        follower.settimeout(30)
        path = f"/instances/{instance}/logs?follow=1"
        follower.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return follower

    def used_within(self, seconds: float) -> float:
        """Seconds of processor time that the manager and the log process use meanwhile."""
        before = self.processor_time()
        time.sleep(seconds)
        return (self.processor_time() - before) * CLOCK_TICK


class Watched:
    """Looks at the logs on disk all the time, in a thread."""

    def __init__(self, case: LogCase) -> None:
        self.case = case
        self.bounds: dict[str, int] = {}  # bytes, by instance
        self.looks, self.most, self.fullest = 0, 0.0, ""
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(1)

    def add(self, instance: str, keys: dict[str, int]) -> None:
        """Look at this one too."""
        self.bounds[instance] = keys["log_max_size"] * keys["log_max_files"] + SPARE

    def remove(self, instance: str) -> None:
        """It is destroyed."""
        del self.bounds[instance]

    def __enter__(self) -> None:
        self._watching = self._thread.submit(self._watch)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.result()
        self._thread.shutdown()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            for instance, bound in list(self.bounds.items()):
                part = self.case.on_disk(instance) / bound
                if part > self.most:
                    self.most, self.fullest = part, f"{instance}: {part * bound:.0f} bytes"
            self.looks += 1


def numbers(count: int) -> list[str]:
    """The lines of something that has counted so far."""
    return [str(number + 1) for number in range(count)]


def read_all(follower: socket.socket) -> bytes:
    """All that a follower gets until the end of the answer (RFC 9112, 7.1)."""
    got = b""
    while not got.endswith(b"0\r\n\r\n") and (more := follower.recv(1 << 16)):
        got += more
    return got


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"ENDURANCE_LIVES={LIVES} ENDURANCE_RESTARTS={RESTARTS}")
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(Endurance("endure")).wasSuccessful())
