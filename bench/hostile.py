"""``python -m bench.hostile [NAME ...]``: what a caller notices of attacks, one by one.

Each goes on for some seconds beside a caller who asks for /list every 10 ms, and is compared with
the same without it. The names are those of ``ATTACKS``. Nothing leaves this host.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import sys
import tarfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median

from bench import contestants, processes, report
from bench.client import Connection, Refused, free_port
from bench.manager import Manager, make_images, running
from bench.measure import worst

ABOUT = "Measures what a caller notices of attacks: of those named here, or of all."
SECONDS, EVERY = 10.0, 0.01
GET = b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOKEN = "txcontain_bench"
GOAL = "p99 ≤ 100 ms, longest ≤ 250 ms"
SCRIPTS = {
    "nothing": """
import time
time.sleep(1000)
""",
    "hide": """
import array, os, socket, time
for _ in range(15000):
    os.open("/dev/null", os.O_RDONLY)
for _ in range(200):
    if not os.fork():
        time.sleep(1000)
server = socket.socket()
server.bind(("127.0.0.1", int(os.environ["PORT"])))
server.listen()
here, there = socket.socketpair()
passed = array.array("i", [server.fileno()])
here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
server.close()
time.sleep(1000)
""",
    "query": r"""
import socket, struct, time
name = b"\1a" * 15000 + b"\0"
query = struct.pack(">HHHHHH", 7, 256, 5913, 0, 0, 0) + name + b"\0\1\0\1"
query = (query + b"\xc0\x0c\0\1\0\1" * 5912)[:65535]
while True:
    try:
        with socket.socket() as client:
            client.settimeout(5)
            client.connect(("10.87.0.1", 53))
            client.sendall(struct.pack(">H", len(query)) + query)
            client.recv(100)
    except OSError:
        time.sleep(0.01)
""",
    "idle": """
import socket, time
while True:
    clients = []
    try:
        for _ in range(64):
            clients.append(socket.create_connection(("10.87.0.1", 53), 5))
    except OSError:
        pass
    time.sleep(5)
""",
    "flood": """
import os, socket
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(("10.87.0.1", 53))
while True:
    try:
        client.send(b"")
    except OSError:
        pass
""",
    "log": """
import os
zeros = bytes(1 << 20)
for _ in range(15):
    if not os.fork():
        break
while True:
    try:
        log = os.open("/proc/self/fd/1", os.O_RDWR)
        for part in range(1024):
            os.pwrite(log, zeros, part << 20)
    except OSError:
        os.write(1, zeros)
    finally:
        os.close(log)
""",
}


@dataclass
class Attack:
    """Something that was once enough to keep the manager from answering."""

    what: str
    begin: Callable[[Manager], AbstractContextManager[None]]
    with_tokens: bool = False


@dataclass
class Answer:
    """How long one /list took, and how much of it either end waited for a processor (seconds)."""

    took: float
    waited: float


@dataclass
class Noticed:
    """The answers to /list, without and with an attack."""

    what: str
    without: list[Answer]
    during: list[Answer]


def inside(script: str, **keys: str) -> Callable[[Manager], AbstractContextManager[None]]:
    """A container that runs one of SCRIPTS."""

    @contextmanager
    def begin(manager: Manager) -> Iterator[None]:
        config = manager.upload(
            name=script,
            mounts=["hostile.tar /hostile READ"],
            startup_script=f"/hostile/{script}",
            **keys,
        )
        with Connection(manager.port) as launcher:
            launcher.send_off("POST", "/launch", config)  # which may wait for a port
            yield

    return begin


def outside(function: Callable[[int], None]) -> Callable[[Manager], AbstractContextManager[None]]:
    """A process that attacks the manager's port."""

    @contextmanager
    def begin(manager: Manager) -> Iterator[None]:
        process = multiprocessing.get_context("fork").Process(target=function, args=(manager.port,))
        process.start()
        try:
            yield
        finally:
            process.kill()
            process.join()

    return begin


def send_a_key_twice(port: int) -> None:
    """Send one config of many keys after the other."""
    keys = "".join(f'"{number:x}":0,' for number in range(20_000))
    config = f'{{{keys}"a":0}}'.encode()
    with Connection(port) as client:
        while True:
            client.send_bytes("POST", "/config", config)
            with suppress(Refused):
                client.answer()


def pipeline(port: int) -> None:
    """Send requests on 50 connections, and read no answer."""
    clients: list[socket.socket | None] = [None] * 50
    while True:
        for number, client in enumerate(clients):
            try:
                if client is None:
                    client = clients[number] = socket.create_connection(("127.0.0.1", port))
                    client.setblocking(False)
                client.send(GET * 1000)
            except BlockingIOError:
                pass
            except OSError:
                clients[number] = None
        time.sleep(0.001)


def follow(port: int) -> None:
    """Follow the log of the only instance on 900 connections."""
    with Connection(port) as client:
        name = client.ask("GET", "/list")["instances"][0]["instance"]
    request = f"GET /instances/{name}/logs?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    followers = [socket.create_connection(("127.0.0.1", port)) for _ in range(900)]
    for follower in followers:
        follower.sendall(request)
    time.sleep(1000)


def cause_events(port: int) -> None:
    """Cause events that a follower does not read."""
    with socket.create_connection(("127.0.0.1", port)) as follower, Connection(port) as client:
        follower.sendall(b"GET /events?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        number = 0
        while True:
            number += 1
            config = {"name": "event", "major": "1", "minor": str(number), "base_image": "b.tar"}
            client.ask("POST", "/config", config)


@contextmanager
def followed(manager: Manager) -> Iterator[None]:
    """A quiet instance and its many followers."""
    manager.launch(manager.upload(name="quiet"))
    with outside(follow)(manager):
        yield


PORT = free_port()
ATTACKS = {
    "keys": Attack("B1: configs of 20,000 keys, the last one twice", outside(send_a_key_twice)),
    "hide": Attack(
        "B2: a hidden socket, 200 processes of 15,000 descriptors",
        inside("hide", startup_env=f"PORT={PORT}"),
    ),
    "query": Attack(
        "B3: DNS queries of 65 KB that take long to decode", inside("query", network="private")
    ),
    "flood": Attack("B3: empty datagrams to the resolver", inside("flood", network="private")),
    "pipelines": Attack("B4: 50 pipelines of unknown callers", outside(pipeline), True),
    "known": Attack("B4: 50 pipelines of known callers", outside(pipeline)),
    "followers": Attack("B6: 900 followers of a quiet log", followed),
    "idle": Attack("B7: 64 idle connections to the resolver", inside("idle", network="private")),
    "log": Attack("A2: 16 processes that write into the log in place", inside("log")),
    "events": Attack("A6: events for a follower who reads none", outside(cause_events)),
}


def latencies(manager: Manager, seconds: float) -> list[Answer]:
    """What /list takes, asked every 10 ms."""
    answers = []
    with Connection(manager.port, manager.client.token) as client:
        end = time.perf_counter() + seconds
        while (before := time.perf_counter()) < end:
            waited = waited_for_a_processor(manager.process.pid, os.getpid())
            client.ask("GET", "/list")
            took = time.perf_counter() - before
            waited = waited_for_a_processor(manager.process.pid, os.getpid()) - waited
            answers.append(Answer(took, waited))
            time.sleep(max(0, EVERY - took))
    return answers


def waited_for_a_processor(*pids: int) -> float:
    """How long the first threads of processes could run and did not (seconds).

    A machine that does other things too is to blame for that, and not the manager.
    (Documentation/scheduler/sched-stats.rst)
    """
    texts = [Path(f"/proc/{pid}/schedstat").read_text() for pid in pids]
    return sum(int(text.split()[1]) for text in texts) / 1e9


def under_attack(
    folder: Path, seconds: float, names: Sequence[str] = tuple(ATTACKS)
) -> list[Noticed]:
    """What is noticed of each of these attacks, on a manager of its own."""
    add_scripts(folder / "mountables" / "hostile.tar")
    tokens = folder / "tokens"
    tokens.write_text(f"bench write {sha256(TOKEN.encode()).hexdigest()}\n")
    tokens.chmod(0o600)
    found = []
    for name in names:
        attack = ATTACKS[name]
        options = [f"--tokens={tokens}"] if attack.with_tokens else []
        with ExitStack() as stack:
            manager = stack.enter_context(
                running(
                    folder,
                    folder / f"hostile-{name}",
                    2,
                    *options,
                    token=TOKEN if attack.with_tokens else "",
                )
            )
            config = manager.upload(
                name="first",
                mounts=["hostile.tar /hostile READ"],
                startup_script="/hostile/nothing",
            )
            manager.destroy(manager.launch(config))  # so that all is unpacked
            without = latencies(manager, seconds / 2)
            stack.enter_context(attack.begin(manager))
            found.append(Noticed(attack.what, without, latencies(manager, seconds)))
            print(
                f"{name}: {max(one.took for one in found[-1].during) * 1e3:.0f} ms at the longest",
                flush=True,
            )
    return found


def add_scripts(tarball: Path) -> None:
    """Make a mountable of SCRIPTS."""
    with tarfile.open(tarball, "w") as archive:
        for name, text in SCRIPTS.items():
            content = f"#!/usr/bin/python3 -ISB{text}".encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))


def noticed(found: list[Noticed]) -> list[list[str]]:
    """The rows of a table, one an attack: times in ms."""
    head = ["/list, in ms", "without: median", "p99", "longest", "with: median", "p99", "longest"]
    rows = [[*head, "longest without waiting for a processor"]]
    for one in found:
        times = [[answer.took for answer in answers] for answers in (one.without, one.during)]
        figures = [of(took) for took in times for of in (median, worst, max)]
        figures.append(max(answer.took - answer.waited for answer in one.during))
        rows.append([one.what, *(report.number(figure * 1e3) for figure in figures)])
    return rows


def noticed_table(rows: list[list[str]]) -> str:
    """The table of these rows, with the goal below."""
    return f"{report.table(rows)}\nTo reach: {GOAL}."


def main() -> None:
    """Try the attacks that are named, or all."""
    parser = ArgumentParser("python -m bench.hostile", description=ABOUT)
    parser.add_argument("attack", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}")
    names = parser.parse_args().attack or list(ATTACKS)
    if unknown := set(names) - set(ATTACKS):
        parser.error(f"there is no attack {', '.join(sorted(unknown))}")
    if os.geteuid():
        sys.exit("The attacks come from containers: run it as root.")
    processes.adopt_orphans()
    with contestants.work_folder() as folder:
        make_images(folder)
        print(noticed_table(noticed(under_attack(folder, SECONDS, names))))


if __name__ == "__main__":
    main()
