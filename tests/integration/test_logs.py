"""What containers write is all there, within its bound, whatever is killed meanwhile."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.integration.harness import PATIENCE, ask, wait_until
from tests.integration.probes import ProbeCase
from txcontain.logs.client import LOGD

MEGABYTE = 1 << 20
BOUND = {"log_max_size": MEGABYTE, "log_max_files": 2}
MOST = 2 * MEGABYTE + (64 << 10)
FLOOD = f"#!/bin/sh\nwhile :; do echo {'y' * 1000}; done\n"
COUNTING = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo $i; done"


class LogCase(ProbeCase):
    """A test of logs."""

    killed = 0  # the process of the log process that was killed last

    def on_disk(self, instance: str) -> int:
        """The bytes of disk that an instance's log takes now."""
        total = 0
        folder = self.state / "instances" / instance / "log"
        gone = contextlib.suppress(FileNotFoundError)  # removed meanwhile
        with gone:
            for name in os.listdir(folder):
                with gone:
                    status = (folder / name).stat()
                    total += max(status.st_size, status.st_blocks * 512)
        return total

    def watch(self, instances: list[str], seconds: float) -> int:
        """The most that any of these logs takes within so many seconds."""
        most, deadline = 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            most = max(most, *map(self.on_disk, instances))
        return most

    def descriptors(self) -> list[str]:
        """What the manager has open."""
        folder, found = f"/proc/{self.manager.pid}/fd", []
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
                found.append(os.readlink(f"{folder}/{number}"))
        return found

    def processor_time(self) -> int:
        """What the manager and the log process have used, in clock ticks."""
        total = 0
        for pid in (self.manager.pid, *self.log_processes()):
            with open(f"/proc/{pid}/stat") as file:
                fields = re.sub(r".*\)", "", file.read()).split()
            total += int(fields[11]) + int(fields[12])
        return total

    def kill_log_process(self) -> None:
        """Kill one of its two processes, once there are two."""
        self.killed, _ = self.wait_for_log_process()
        os.kill(self.killed, signal.SIGKILL)

    def wait_for_log_process(self) -> list[int]:
        """Wait until both of its processes are there, beside one that was killed; return these."""

        def both() -> list[int]:
            found = [pid for pid in self.log_processes() if pid != self.killed]
            return found if len(found) == 2 else []

        return wait_until(both, "both processes are there")

    def read_log(self, instance: str, query: str = "") -> str:
        """The log of an instance."""
        answer = self.ask("GET", f"/instances/{instance}/logs{query}")
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.body.decode(errors="replace")


class BoundTests(LogCase):
    """However much is written, a log takes no more than its bound."""

    pool = 2

    def test_after_many_lives(self) -> None:
        """The bound is kept after thirty launches and destroys, and after each kind of kill."""
        config = self.upload()
        for _ in range(30):
            instance = self.ask("POST", "/launch", config).json["instance"]
            self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        instance = self.launch(**self.job(FLOOD, **BOUND))
        wait_until(lambda: self.on_disk(instance) > MEGABYTE, "it writes")
        self.assertLessEqual(self.watch([instance], 1), MOST)
        for _ in range(3):
            self.kill_log_process()
            self.assertLessEqual(self.watch([instance], 0.3), MOST)
        self.manager.kill()
        self.manager.wait()
        self.assertLessEqual(self.watch([instance], 1), MOST)
        self.start()
        self.assertLessEqual(self.watch([instance], 0.5), MOST)
        newest = {path.name for path in (self.state / "instances" / instance / "log").iterdir()}
        wait_until(
            lambda: newest.isdisjoint(
                path.name for path in (self.state / "instances" / instance / "log").iterdir()
            ),
            "it is still written",
        )

    def test_ten_floods(self) -> None:
        """Ten logs, written as fast as possible, are each within the bound at any time."""
        flood = self.upload(**self.job("#!/bin/sh\nexec cat /dev/zero\n", **BOUND))
        instances = [self.ask("POST", "/launch", flood).json["instance"] for _ in range(10)]
        wait_until(lambda: all(self.on_disk(one) > MEGABYTE for one in instances), "all write")
        self.assertLessEqual(self.watch(instances, 3), MOST)
        began = time.monotonic()
        self.assertLessEqual(len(self.read_log(instances[0])), MOST)
        self.read_log(instances[0], "?tail=3")
        self.assertLess(time.monotonic() - began, 30)


class LinesTests(LogCase):
    """No line is lost, and all are in order."""

    pool = 1

    def test_opened_by_name(self) -> None:
        """Writing to /dev/stdout appends, for every user."""
        text = "echo first; echo second; echo third > /dev/stdout; echo fourth >> /dev/stderr"
        users = {}
        for owner in ("root", "1000"):
            for users in ({}, {"user_namespace": True}):
                instance = self.launch(
                    **self.job(f"#!/bin/sh\n{text}\n", startup_owner=owner, **users)
                )
                self.output_of(instance)
                self.assertEqual(self.read_log(instance), "first\nsecond\nthird\nfourth\n")

    def test_pipes(self) -> None:
        """Output can't be overwritten or cut, and another user can't read it back."""
        said = self.probe(
            """
own = os.open("/proc/self/fd/1", os.O_WRONLY)
tell(write=attempt(os.pwrite, own, b"x", 1 << 30), cut=attempt(os.ftruncate, own, 0),
     seek=attempt(os.lseek, own, 0, 0), read=attempt(open, "/proc/self/fd/1"))
""",
            startup_owner="1000",
        )
        self.assertEqual(
            said, {"write": "ESPIPE", "cut": "EINVAL", "seek": "ESPIPE", "read": "EACCES"}
        )

    def test_nothing_delays_others(self) -> None:
        """However a container writes to its log, it does not delay the manager."""
        instance = self.start_probe(
            """
for _ in range(16):
    if os.fork() == 0:
        own = os.open("/proc/self/fd/1", os.O_WRONLY)
        while True:
            attempt(os.pwrite, own, bytes(1 << 20), 1 << 30)
            os.write(own, bytes(1 << 16))
signal.pause()
""",
            **BOUND,
        )
        longest, deadline = 0.0, time.monotonic() + 3
        while time.monotonic() < deadline:
            began = time.monotonic()
            self.assertEqual(self.ask("GET", "/list").status, 200)
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.01)
        self.assertLess(longest, 2)  # it was 18 s and more; benchmarks say how much it is
        self.assertEqual(self.running(), [instance])

    def test_both_streams(self) -> None:
        """Both streams are in the order of writing, and the times of the lines grow."""
        text = """
def say(stream, text):
    "Write to a stream, and wait until its pipe is empty (FIONREAD): it was read."
    os.write(stream, text)
    while fcntl.ioctl(stream, 0x541B, bytes(4)) != bytes(4):
        time.sleep(0.001)
for i in range(1, 7):
    say(1, b"%d\\n" % i)
    say(2, b"%d\\n" % i)
"""
        instance = self.start_probe(text)
        self.output_of(instance)
        self.assertEqual(self.read_log(instance).split(), [c for c in "123456" for _ in (1, 2)])
        self.assertEqual(self.read_log(instance, "?stream=stderr").split(), list("123456"))
        lines = [line.split(" ") for line in self.read_log(instance, "?timestamps=1").splitlines()]
        moments = [moment for moment, _ in lines]
        self.assertEqual(moments, sorted(set(moments)))
        for moment in moments:
            self.assertRegex(moment, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$")
        self.assertEqual(self.read_log(instance, f"?since={moments[6]}"), "4\n4\n5\n5\n6\n6\n")
        self.assertEqual(self.read_log(instance, f"?until={moments[1]}"), "1\n1\n")
        self.assertEqual(self.read_log(instance, "?since=1h&tail=3"), "5\n6\n6\n")
        self.assertEqual(self.read_log(instance, "?until=1h"), "")

    def test_ends(self) -> None:
        """Without follow, a growing log is sent up to the end that it had at first."""
        instance = self.launch(**self.job(FLOOD, **BOUND))
        wait_until(lambda: self.on_disk(instance) > MEGABYTE, "it writes")
        self.assertLess(len(self.read_log(instance)), 3 * MEGABYTE)
        self.assertLessEqual(len(self.read_log(instance, "?tail=3")), 3 * 1001)

    def test_merged(self) -> None:
        """The logs of all are merged by time, each line with its instance."""
        text = "#!/bin/sh\nfor i in 1 2 3 4 5; do echo $i; sleep 0.02; done\n"
        keys = self.upload(**self.job(text))
        names = [self.ask("POST", "/launch", keys).json["instance"] for _ in range(2)]
        for name in names:
            self.output_of(name)
        answer = self.ask("GET", "/logs?all=1&timestamps=1").body.decode()
        found = [line.split(" ") for line in answer.splitlines()]
        self.assertEqual(
            sorted((name, number) for name, _, _, number in found),
            sorted((name, number) for name in names for number in "12345"),
        )
        moments = [moment for _, _, moment, _ in found]
        self.assertEqual(moments, sorted(moments))

    def test_later_instances(self) -> None:
        """Who follows the logs of all gets those of later instances, until they hang up."""
        address = "127.0.0.1", self.port
        with socket.create_connection(address, PATIENCE) as follower, follower.makefile() as answer:
            follower.sendall(b"GET /logs?all=1&follow=1 HTTP/1.0\r\n\r\n")
            for text in ("one", "two"):
                name = self.launch(**self.job(f"#!/bin/sh\necho {text}; exec sleep 1000\n"))
                line = next(line for line in answer if " | " in line)
                self.assertEqual(line, f"{name} | {text}\n")
                self.assertEqual(self.ask("DELETE", f"/destroy/{name}").status, 200)

    def test_last_words(self) -> None:
        """A failed launch quotes the last lines that were written."""
        answer = self.try_to_launch(
            **self.job("#!/bin/sh\necho no such module >&2; exit 3\n", startup_env="PORT=18771")
        )
        self.assertIn("its last words: no such module", answer.reason)


class KilledTests(LogCase):
    """What is written while a process is killed."""

    pool = 1

    def assert_whole(self, instance: str, count: int) -> None:
        """Fail if a line is missing, repeated, or out of order."""
        lines = self.read_log(instance, "?stream=stdout").split()
        self.assertEqual(lines, [str(number + 1) for number in range(count)])

    def kill_all_log_processes(self) -> None:
        """Kill both, and return when they are gone; the manager starts others meanwhile."""
        pids = {*self.log_processes()}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pids & {*self.log_processes()}, "they are gone")

    def test_log_process(self) -> None:
        """No line is lost or repeated if its processes are killed, again and again."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{COUNTING}\nsleep 1000\n"))
        for _ in range(8):
            self.kill_log_process()
        self.wait_for_log_process()
        wait_until(lambda: self.read_log(instance).endswith("\n4000\n"), "all is written")
        self.assert_whole(instance, 4000)

    def test_at_its_end(self) -> None:
        """What a container wrote just before its end is there, whatever was killed then."""
        few = COUNTING.replace("4000", "99")
        config = self.upload(**self.job(f"#!/bin/sh\nsleep 0.1; {few}\n"))
        for _ in range(5):
            instance = self.ask("POST", "/launch", config).json["instance"]
            killer = threading.Timer(0.1, self.kill_log_process)
            killer.start()
            self.output_of(instance)
            killer.join()
            self.assert_whole(instance, 99)

    def test_all_of_it(self) -> None:
        """No line is lost if both processes are killed: the monitor holds the pipes."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{COUNTING}\nsleep 1000\n"))
        pids = self.wait_for_log_process()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len({*self.log_processes()} - {*pids}) == 2, "there is another one, as a whole"
        )
        wait_until(lambda: self.read_log(instance).endswith("\n4000\n"), "all is written")
        self.assert_whole(instance, 4000)

    def test_launch_meanwhile(self) -> None:
        """What a container writes that is launched while there is none is in its log."""
        config = self.upload(**self.job(f"#!/bin/sh\n{COUNTING.replace('4000', '99')}\n"))
        for _ in range(5):
            self.kill_all_log_processes()
            instance = self.ask("POST", "/launch", config).json["instance"]
            self.output_of(instance)
            self.assert_whole(instance, 99)

    def test_older(self) -> None:
        """A log process of an older version, which lacks a verb, is replaced; no line is lost."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{COUNTING}\nsleep 1000\n"))
        self.manager.terminate()
        self.manager.wait()
        pids = self.log_processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                os.kill(pid, number)
        older = self.state / "run/older.py"
        older.write_text(Path(LOGD).read_text().replace("self.sync, self.open,", "self.open,"))
        folders = [str(self.state / name) for name in ("run", "instances")]
        command = [sys.executable, "-I", "-S", "-B", str(older), *folders, os.devnull]
        listens = self.state / "run/logd.sock"
        listens.unlink()
        with subprocess.Popen(command) as process:
            wait_until(listens.exists, "it listens")
            self.start()
            process.wait(PATIENCE)
        wait_until(lambda: self.read_log(instance).endswith("\n4000\n"), "all is written")
        self.assert_whole(instance, 4000)

    def test_manager(self) -> None:
        """No line is lost if the manager is killed, and none waits for the next manager."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{COUNTING}\nexit 3\n"))
        self.manager.kill()
        self.manager.wait()
        log = self.state / "instances" / instance / "log"
        wait_until(
            lambda: any(b"\n4000\n" in path.read_bytes() for path in log.glob("*.log")),
            "all is written though no manager runs",
        )
        self.start()
        self.assert_whole(instance, 4000)
        ended = self.ask("GET", f"/instances/{instance}/wait").json
        self.assertEqual(ended["exit"]["status"], 3)

    def test_it_ends(self) -> None:
        """The log process ends when there is neither a manager nor a container."""
        instance = self.launch()
        self.manager.kill()
        self.manager.wait()
        time.sleep(0.3)
        self.assertEqual(len(self.log_processes()), 2)
        self.start()
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        self.manager.terminate()
        self.manager.wait()
        wait_until(lambda: not self.log_processes(), "it has ended")


class FollowersTests(LogCase):
    """Followers of logs."""

    def test_many_quiet_ones(self) -> None:
        """Many followers of a quiet log take no CPU time, and all get what comes."""
        text = "trap 'echo now; exit' TERM; while :; do sleep 0.5; done"
        instance = self.launch(**self.job(f"#!/bin/sh\n{text}\n", stop_timeout=10))
        path = f"/instances/{instance}/logs?follow=1&stream=stdout"
        with ThreadPoolExecutor(100) as clients:
            answers = [clients.submit(ask, self.url, "GET", path) for _ in range(100)]
            wait_until(lambda: self.sockets() >= 100, "all follow")
            wait_until(lambda: self.used_within(2) < 20, "they take no time, once all is told")
            self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
            self.assertEqual({answer.result().body for answer in answers}, {b"now\n"})

    def used_within(self, seconds: float) -> int:
        """What the manager and the log process use within so many seconds, in clock ticks."""
        before = self.processor_time()
        time.sleep(seconds)
        return self.processor_time() - before

    def sockets(self) -> int:
        """How many sockets the manager has."""
        return sum(link.startswith("socket:") for link in self.descriptors())


class WatchesTests(LogCase):
    """What a manager depends on."""

    def test_no_inotify(self) -> None:
        """It uses no inotify instance: containers could use up all that a user may have."""
        self.launch()
        self.assertNotIn("anon_inode:inotify", self.descriptors())
