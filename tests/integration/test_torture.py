"""System calls of a real manager fail, one at a time, while it is asked for this and that.

strace(1) has the Nth call of some kind return an error. Whatever that is: every request is
answered, the manager lives (or the next one finds all), the list agrees with the processes, and
in the end nothing is left. Which call, error and N come next is drawn by TORTURE_SEED, which is
printed, for TORTURE_SECONDS: some in each run of the tests, always the same ones; by `make torture`
many, and others each time.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.integration.harness import ManagerCase, is_prepared, wait_until
from tests.support import needs_tracing
from txcontain.host.kernel import Kernel

SECONDS = float(os.environ.get("TORTURE_SECONDS", "20"))
SEED = int(os.environ.get("TORTURE_SEED", "1"))
LATEST = 12  # which call of its kind fails, at the latest
DISK = "EIO ENOSPC EROFS"
ROOM = "EMFILE ENFILE ENOMEM"
ERRORS = {  # of system calls, as strace names them; "?": not on every architecture
    "openat": f"EIO ENOSPC {ROOM}",
    "read": "EIO EINTR",
    "write": f"EINTR {DISK}",
    "fsync": DISK,
    "fdatasync": DISK,
    "?rename,?renameat,renameat2": DISK,
    "?link,linkat": DISK,
    "?unlink,unlinkat": DISK,
    "?rmdir,unlinkat": DISK,
    "?mkdir,mkdirat": DISK,
    "?chmod,fchmodat": DISK,
    "ftruncate": DISK,
    "fallocate": DISK,
    "?stat,?lstat,newfstatat,fstat": "EIO ENOMEM",
    "getdents64": "EIO",
    "lseek": "EIO",
    "?readlink,readlinkat": "EIO ENOMEM",
    "fcntl": "EMFILE",
    "utimensat": DISK,
    "pidfd_open": ROOM,
    "pidfd_send_signal": "EPERM EAGAIN",
    "?fork,?vfork,clone,?clone3": "EAGAIN ENOMEM",
    "?pipe,pipe2": "EMFILE ENFILE",
    "wait4": "EINTR",
    "accept4": "EMFILE ENFILE EINTR EAGAIN ECONNABORTED ENOMEM",
    "?epoll_wait,epoll_pwait": "EINTR",
    # epoll_ctl is in tests/test_later.py: only its EPOLL_CTL_ADD can lack something.
    "socket": ROOM,
    "setns": "EPERM",
    "sendto": "EAGAIN ENOBUFS EPIPE",
    "sendmsg": "EAGAIN ENOBUFS EPIPE",
    "recvfrom": "EAGAIN EINTR ECONNRESET",
    "getsockopt": "ENOBUFS",
    "ioctl": "EIO",
}
# By these the manager loses a client whatever it does.
CONNECTIONS = {
    "accept4",
    "sendto",
    "sendmsg",
    "recvfrom",
    "socket",
    "fcntl",
    "read",
    "write",
    "getsockopt",
    "ioctl",
}
SCRIPTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sleeps": ("sleep 1000", {}),
    "ends": ("exit 3", {}),
    "again": ("sleep 0.05; exit 3", {"restart": "always"}),
    "asks": ("trap 'exit 0' TERM; while :; do sleep 0.05; done", {"stop_timeout": 1}),
}


@needs_tracing
class Torture(ManagerCase):
    """A manager that is traced."""

    pool = 1

    def test_torture(self) -> None:
        """Whichever call fails: all is answered, all agree, nothing is left."""
        print(f"TORTURE_SEED={SEED} TORTURE_SECONDS={SECONDS:.0f}", flush=True)
        self.chance = random.Random(SEED)
        self.keys = {
            name: self.upload(**self.job(f"#!/bin/sh\n{text}\n", **keys))
            for name, (text, keys) in SCRIPTS.items()
        }
        self.round("nothing", "")  # what is made only once is there
        hits = rounds = 0
        deadline = time.monotonic() + SECONDS
        for call, error, which in self.draw():
            if time.monotonic() > deadline:
                break
            rounds += 1
            hits += self.round(f"{call}:error={error}:when={which}", call)
        print(f"{rounds} rounds, and in {hits} of them a call failed", flush=True)
        self.assertGreater(hits, 0)

    def draw(self) -> Iterator[tuple[str, str, int]]:
        """Every call with every error and number, in an order that chance decides; then again."""
        kinds = [(call, error) for call, errors in ERRORS.items() for error in errors.split()]
        every = list(itertools.product(kinds, range(1, LATEST + 1)))
        while True:
            self.chance.shuffle(every)
            yield from ((call, error, which) for (call, error), which in every)

    def round(self, fault: str, call: str) -> bool:
        """Let a call fail; returns whether one did."""
        self.fault = fault
        with self.failing(fault) if call else contextlib.nullcontext():
            self.live(may_be_cut_off=bool(CONNECTIONS & set(call.split(","))))
        if self.manager.poll() is not None:
            print(f"{fault}: the manager has ended", flush=True)
            self.start()
        try:
            wait_until(self.agrees, "the list agrees with the processes")
            wait_until(self.destroys_all, "all are destroyed")
            self.assertEqual(self.ask("POST", "/doctor").status, 200)
            wait_until(lambda: not self.strays(), "nothing is left")
        except AssertionError as error:
            self.fail(f"TORTURE_SEED={SEED}, {fault}: {error}; {self.strays()}")
        return bool(call) and b"INJECTED" in (self.folder / "strace.log").read_bytes()

    @contextlib.contextmanager
    def failing(self, fault: str) -> Iterator[None]:
        """Meanwhile, a call of the manager's fails."""
        threads = os.listdir(f"/proc/{self.manager.pid}/task")
        attached = [option for thread in threads for option in ("-p", thread)]
        command = ["strace", "-q", "-o", str(self.folder / "strace.log"), "-e", f"inject={fault}"]
        tracer = subprocess.Popen([*command, *attached], stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: all(map(self.is_traced, threads)), "strace has attached")
            yield
        finally:
            tracer.terminate()
            tracer.wait(30)

    def is_traced(self, thread: str) -> bool:
        """Whether a thread of the manager's is, or has ended."""
        path = f"/proc/{self.manager.pid}/task/{thread}/status"
        with contextlib.suppress(OSError), open(path) as file:
            return "TracerPid:\t0\n" not in file.read()
        return True

    # -- what is asked for ---------------------------------------------------------

    def live(self, may_be_cut_off: bool) -> None:
        """Launches, ends and destroys, some at the same time; each request is answered."""
        with ThreadPoolExecutor(4) as people:
            asked = [
                people.submit(self.try_to_ask, "POST", "/launch", self.keys[name])
                for name in self.chance.sample(list(SCRIPTS), 3)
            ]
            answers = [one.result() for one in asked]
            launched = [answer for answer in answers if answer and answer.status == 200]
            names = [answer.json["instance"] for answer in launched]
            asked = [
                people.submit(self.try_to_ask, "DELETE", f"/destroy/{name}") for name in names[:1]
            ]
            asked += [people.submit(self.kill, name) for name in names[1:2]]
            asked += [people.submit(self.try_to_ask, "GET", "/list")]
            asked += [people.submit(self.try_to_ask, "POST", "/launch", self.keys["sleeps"])]
            answers += [one.result() for one in asked]
        if self.manager.poll() is None and not may_be_cut_off:
            self.assertNotIn(None, answers, f"TORTURE_SEED={SEED}, {self.fault}")

    def try_to_ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the manager answers; None where it hangs up instead."""
        try:
            answer = self.ask(method, path, body)
        except TimeoutError:
            self.fail(f"TORTURE_SEED={SEED}, {self.fault}: no answer to {method} {path}")
        except (OSError, http.client.HTTPException):
            return None
        # 403: it could not be learnt where the request comes from
        self.assertIn(
            answer.status, (200, 403, 404, 409, 500, 503), f"{self.fault}: {answer.reason}"
        )
        return answer

    def kill(self, name: str) -> Any:
        """PID 1 of an instance is killed from outside."""
        for record in self.records():
            if record["instance"] == name and record["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record["pid"], signal.SIGKILL)
        return name

    def records(self) -> list[dict[str, Any]]:
        """What the manager says of all instances; nothing where it does not say."""
        answer = self.try_to_ask("GET", "/instances")
        return answer.json["instances"] if answer and answer.status == 200 else []

    # -- what must hold ------------------------------------------------------------

    def agrees(self) -> bool:
        """Whether those that are listed run, and no others."""
        answer = self.ask("GET", "/instances")
        if answer.status != 200:
            return False
        running = {record["pid"] for record in answer.json["instances"] if record["pid"]}
        return running == self.scripts()

    def scripts(self) -> set[int]:
        """The PID 1 of each container whose script runs."""
        pids = {init.pid for _, init in self.monitors().values() if init}
        return {pid for pid in pids if not is_waiting(pid)}

    def monitors(self) -> Any:
        """What runs in the slots."""
        return Kernel().monitors(str(self.state / "run/slots"))

    def destroys_all(self) -> bool:
        """Whether all instances can be destroyed, and are gone."""
        gone = self.ask("DELETE", "/destroyall").status == 200
        return gone and self.ask("GET", "/instances").json == {"instances": []}

    def strays(self) -> list[Any]:
        """What there is beside warm inits, and what is prepared."""
        monitors = self.monitors()
        folders = [
            path
            for path in self.state.glob("instances/*")
            if path.exists() and not is_prepared(path)
        ]
        slots = {path.name for path in self.state.glob("run/slots/*")} - set(monitors)
        groups = {path.name for path in self.cgroups_left()} - set(monitors)
        return [*self.scripts(), *folders, *slots, *groups]


def is_waiting(pid: int) -> bool:
    """Whether a process is an init that waits for a plan, or has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        command = file.read()
        return b"init.py" in command or not command
    return True
