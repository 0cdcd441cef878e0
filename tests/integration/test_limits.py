"""Containers that take all they can get, beside one that goes on serving."""

from __future__ import annotations

import socket
import time

from tests.integration.harness import cgroups_of, free_port, wait_until
from tests.integration.probes import ProbeCase
from tests.integration.tarballs import folder

MEGABYTE = 1 << 20
SERVE = """
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    connection, _ = server.accept()
    connection.sendall(b"here")
    connection.close()
"""


class NeighbourCase(ProbeCase):
    """A test with a container that serves while another one misbehaves."""

    def setUp(self) -> None:
        super().setUp()
        self.served = free_port()
        self.neighbour = self.start_probe(SERVE, startup_env=f"PORT={self.served}")

    def assert_all_well(self, *instances: str) -> None:
        """Fail unless the manager lists these, and the neighbour serves."""
        self.assertEqual(self.running(), [self.neighbour, *instances])
        with socket.create_connection(("127.0.0.1", self.served), timeout=30) as client:
            self.assertEqual(client.recv(10), b"here")

    def destroy(self, instance: str) -> None:
        """Destroy an instance."""
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)


class ProcessTests(NeighbourCase):
    """As many processes as possible."""

    def test_fork_bomb(self) -> None:
        """A fork bomb stops at its limit, the manager answers, and it can be destroyed."""
        bomb = """
while True:
    try:
        os.fork()
    except BlockingIOError:
        print("full", flush=True)
        time.sleep(0.2)
"""
        instance = self.start_probe(bomb, limits={"pids": 64})
        wait_until(lambda: self.written(instance), "the limit is reached")
        for _ in range(5):
            self.assert_all_well(instance)
            stats = self.ask("GET", f"/instances/{instance}/stats").json
            self.assertLessEqual(stats["pids"], 64)
        self.destroy(instance)
        self.assert_all_well()

    def test_default(self) -> None:
        """By default a container has at most 1024 processes."""
        count = """
children = 0
try:
    while children < 2000:
        if os.fork() == 0:
            signal.pause()
        children += 1
except BlockingIOError:
    pass
tell(children=children)
"""
        self.assertEqual(self.probe(count), {"children": 1023})

    def test_zombies(self) -> None:
        """Zombies fill only the container."""
        breed = """
while True:
    try:
        if os.fork() == 0:
            os._exit(0)
    except BlockingIOError:
        print("full", flush=True)
        signal.pause()
"""
        instance = self.start_probe(breed, limits={"pids": 200})
        wait_until(lambda: self.written(instance), "the limit is reached")
        self.assert_all_well(instance)
        self.destroy(instance)
        self.assert_all_well()


class MemoryTests(NeighbourCase):
    """More memory than there is."""

    HOG = """
held = []
while True:
    held.append(bytearray(b"x") * (1 << 20))
"""

    def end_of(self, instance: str) -> str:
        """Why an instance has ended."""
        self.ask("GET", f"/instances/{instance}/wait")
        return str(self.ask("GET", f"/instances/{instance}").json["exit"]["reason"])

    def test_hog(self) -> None:
        """A memory hog is killed, and the reason says so."""
        instance = self.start_probe(self.HOG, limits={"memory": "64M", "swap": 0})
        self.assertEqual(self.end_of(instance), "out of memory (killed by SIGKILL)")
        self.assert_all_well()

    def test_hungry_worker(self) -> None:
        """If only a worker was killed before, the reason says so, beside the real end."""
        hog = "if os.fork():\n    os.wait()\n    os._exit(5)\n" + self.HOG
        instance = self.start_probe(hog, limits={"memory": "64M", "swap": 0})
        killed = "1 of its processes had been killed for want of memory"
        self.assertEqual(self.end_of(instance), f"exit status 5; {killed}")

    def test_files_in_memory(self) -> None:
        """What is written to /tmp and /dev/shm counts as the container's memory."""
        fill = """
for folder in ("/tmp", "/dev/shm"):
    with open(folder + "/file", "wb") as f:
        try:
            while True:
                f.write(bytes(1 << 20))
        except OSError:
            f.close
"""
        instance = self.start_probe(fill, limits={"memory": "64M", "swap": 0})
        self.assertIn("out of memory", self.end_of(instance))
        self.assert_all_well()

    def test_processor(self) -> None:
        """Two busy processes get no more time than their share."""
        busy = "os.fork()\nwhile True:\n    pass\n"
        instance = self.start_probe(busy, limits={"cpus": 0.2})
        # The clock runs for longer than what is counted, however slow the machine is.
        began, before = time.monotonic(), self.processor_time(instance)
        time.sleep(1)
        used = self.processor_time(instance) - before
        elapsed = time.monotonic() - began
        self.assertLess(used, 0.2 * elapsed + 0.1)
        self.assert_all_well(instance)

    def processor_time(self, instance: str) -> float:
        """Seconds that an instance has used."""
        return self.ask("GET", f"/instances/{instance}/stats").json["cpu_usec"] / 1e6

    def test_share_of_the_disk(self) -> None:
        """A share of the disk is the cgroup's weight, or it is refused by name."""
        answer = self.try_to_launch(**self.job("#!/bin/sh\nsleep 60\n", limits={"io_weight": 200}))
        groups = [path for group in cgroups_of(self.state) for path in group.glob("*/*io*.weight")]
        if not groups:
            self.assert_refused(answer, 500, "limits.io_weight")
            return
        self.assertEqual(answer.status, 200, answer.reason)
        self.assertIn("200", {path.read_text().split()[-1] for path in groups})

    def test_files(self) -> None:
        """No process has more descriptors than its limit, nor can it raise that."""
        said = self.probe(
            """
opened = []
try:
    while True:
        opened.append(os.dup(0))
except OSError as error:
    why = errno.errorcode[error.errno]
def raise_limit():
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    except ValueError as error:
        raise PermissionError(errno.EPERM, str(error))
tell(highest=opened[-1], why=why, raised=attempt(raise_limit))
""",
            limits={"files": 40},
        )
        self.assertEqual(said, {"highest": 39, "why": "EMFILE", "raised": "EPERM"})


class DiskTests(NeighbourCase):
    """As many bytes as possible."""

    def test_disk(self) -> None:
        """A READWRITE mount takes as many bytes as the limit says; then the disk is full."""
        data = self.mountable("data.tar", folder("data"))
        said = self.probe(
            'tell(full=fill("/data/file"))',
            mounts=[f"{data} /data READWRITE"],
            limits={"disk": "4M"},
        )
        written, why = said["full"]
        self.assertEqual(why, "ENOSPC")
        self.assertTrue(3 * MEGABYTE < written <= 4 * MEGABYTE, written)
        self.assert_all_well()
