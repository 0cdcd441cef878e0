"""Commands in a running container, beside Docker's: how soon they are done, and what flows."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median

from bench import processes
from bench.contestants import Docker, Txcontain
from bench.manager import ROOT, seconds
from bench.measure import IN_A_ROW, PAUSE, Figure

TRUE = ["/bin/true"]
MUCH = 1_000_000_000  # bytes
FLOOD = f"head -c {MUCH} /dev/zero"
HANDSHAKE = """\
GET /instances/{}/exec?tty=1 HTTP/1.1
Host: localhost
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Protocol: v5.channel.k8s.io

""".replace("\n", "\r\n")


def figures(ours: Txcontain, docker: Docker | None, rounds: int) -> list[Figure]:
    """An exec of /bin/true and the first byte of a shell, in turns with Docker; then 1 GB."""
    name = ours.finish(ours.begin())
    client = ours.manager.client
    tries: dict[str, Callable[[], object]] = {
        "true": lambda: client.ask("POST", f"/instances/{name}/exec", {"command": TRUE}),
        "shell": lambda: first_byte(ours.manager.port, name),
    }
    theirs = docker.finish(docker.begin()) if docker else ""
    if docker:
        tries["docker"] = lambda: docker.exec(theirs, TRUE)
    took = in_turns(tries, rounds)
    used, flood = one_gigabyte(ours, name)
    ours.end(name)
    if docker:
        docker.end(theirs)
    rival, other = ("docker", took["docker"]) if docker else ("the goal", 10.0)
    return [
        Figure("exec of /bin/true, through the API", "ms", took["true"], rival, other, "≤ 10"),
        Figure("first byte of a shell", "ms", took["shell"], "the goal", 15, "≤ 15"),
        Figure("1 GB through exec, manager's RSS more", "MB", used, "the goal", 5, "≤ 5"),
        Figure("1 GB through exec", "s", flood, "", None),
    ]


def in_turns(tries: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median of the milliseconds that each takes; the first of a turn does not count."""
    samples: dict[str, list[float]] = {name: [] for name in tries}
    for _ in range(rounds):
        for name, attempt in tries.items():
            for counts in (False, *[True] * IN_A_ROW):
                time.sleep(PAUSE)
                took = seconds(attempt)
                samples[name] += [took * 1e3] * counts
    return {name: median(each) for name, each in samples.items()}


def first_byte(port: int, name: str) -> None:
    """Start a shell on a terminal, and wait until it shows something."""
    with closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(HANDSHAKE.format(name).encode())
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < 4:  # a frame's head, the channel, a byte
            part = connection.recv(4096)
            if not part:
                raise ConnectionError(received.decode(errors="replace"))
            received += part


def one_gigabyte(ours: Txcontain, name: str) -> tuple[float, float]:
    """The most MB that the manager had more, and the seconds that it took."""
    manager = ours.manager
    variables = {**os.environ, "TXCONTAIN_URL": f"http://localhost:{manager.port}"}
    command = [str(ROOT / "cli/exec"), name, "/bin/sh", "-c", FLOOD]
    before = most = processes.rss([manager.process.pid])
    began = time.monotonic()
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as client:
        while client.poll() is None:
            time.sleep(0.05)
            most = max(most, processes.rss([manager.process.pid]))
    if client.returncode:
        raise ChildProcessError(f"exec of {FLOOD} has ended with {client.returncode}")
    return most - before, time.monotonic() - began
