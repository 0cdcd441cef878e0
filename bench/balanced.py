"""``python -m bench.balanced``: the balancer of swarms beside nginx's stream proxy, on loopback.

The same server, which begins to send at once, is asked straight, by nginx and by the balancer, in
turns: how long small answers take, and how much of endless ones comes in a second.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

from bench import packages, processes
from bench.client import free_port
from bench.contestants import work_folder

SMALL = b"x" * 100  # an answer
PIECE = 1 << 16  # bytes
ROUNDS, REQUESTS, AT_ONCE = 5, 300, (1, 8)
SECONDS = 1.5  # of each measurement of throughput
NGINX = """
load_module {module};
worker_processes auto;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{place}; }} }}
"""


# -- who answers, and who hands on -----------------------------------------------------


def serve(port: int, is_endless: bool) -> None:
    """Answer each connection with little, or without an end."""
    with socket.create_server(("127.0.0.1", port), backlog=512) as server:
        while True:
            connection, _ = server.accept()
            if is_endless:
                Thread(target=pour, args=(connection,), daemon=True).start()
            else:
                with connection:
                    connection.sendall(SMALL)


def pour(connection: socket.socket) -> None:
    """Send as much as is taken."""
    piece = bytes(PIECE)
    with connection:
        try:
            while True:
                connection.sendall(piece)
        except OSError:
            return


def balance(port: int, place: int) -> None:
    """Be the balancer of a service with one replica, as a manager is."""
    from twisted.internet import reactor

    from bench.many_nodes import node, service, task
    from txcontain.swarm.balancer import Balancer
    from txcontain.swarm.nodes import read_node
    from txcontain.swarm.records import Seen

    told = service(0, 1, ports=[f"127.0.0.1:{port}:80"])
    given = [{"TargetPort": 80, "PublishedPort": place, "PublishMode": "host"}]
    run = task(told, 1, 0, 1)
    run["Status"]["PortStatus"] = {"Ports": given}
    here = {**node(0), "Status": {"State": "ready", "Addr": "127.0.0.1"}}
    ours: Any = reactor
    journal: Any = None
    ours.callWhenRunning(
        lambda: Balancer(ours, journal).settle(Seen([told], [run], {here["ID"]: read_node(here)}))
    )
    ours.run()


def start(what: str, *numbers: int) -> Any:
    """One of these, as a process."""
    command = [sys.executable, "-m", "bench.balanced", "--be", what, *map(str, numbers)]
    process = processes.start(command, cwd=Path(__file__).parent.parent, stderr=None)
    wait_for(numbers[0])
    return process


def start_nginx(folder: Path, port: int, place: int) -> Any:
    """Debian's nginx as a proxy; None if there is none."""
    program = packages.find("nginx")
    modules = [*packages.UNPACKED.glob("usr/lib/nginx/modules/ngx_stream_module.so")]
    modules += [*Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so")]
    if not program or not modules:
        return None
    (folder / "nginx.conf").write_text(
        NGINX.format(module=modules[0], folder=folder, port=port, place=place)
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = processes.start(command, env={**os.environ, **packages.environment()}, stderr=None)
    wait_for(port)
    return process


def wait_for(port: int) -> None:
    """Wait until someone listens."""
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"no one listens at port {port}")


# -- who asks ---------------------------------------------------------------------------


def latency(port: int) -> float:
    """Milliseconds that a request takes: a connection, a small answer, and its end."""
    took = []
    for _ in range(REQUESTS):
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            got = 0
            while data := client.recv(PIECE):
                got += len(data)
        assert got == len(SMALL)
        took.append(time.perf_counter() - began)
    return median(took) * 1e3


def throughput(port: int, many: int) -> float:
    """Megabytes a second that come by so many connections."""
    clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(many)]
    taken = selectors.DefaultSelector()
    for client in clients:
        client.setblocking(False)
        taken.register(client, selectors.EVENT_READ)
    room, got, began = bytearray(1 << 18), 0, time.perf_counter()
    while time.perf_counter() < began + SECONDS:
        for key, _ in taken.select(0.1):
            got += key.fileobj.recv_into(room)  # type: ignore[union-attr]
    took = time.perf_counter() - began
    for client in clients:
        client.close()
    return got / took / 1e6


def measure(folder: Path) -> None:
    """Measure all in turns, and print a table."""
    small, endless = free_port(), free_port()
    started = [start("small", small), start("endless", endless)]
    ways: dict[str, tuple[int, int]] = {"straight": (small, endless)}
    for name in ("nginx", "balancer"):
        ports = []
        for place in (small, endless):
            port = free_port()
            (where := folder / f"{name}-{place}").mkdir()
            began = (
                start("balancer", port, place)
                if name == "balancer"
                else start_nginx(where, port, place)
            )
            if began:
                started.append(began)
                ports.append(port)
        if ports:
            ways[name] = (ports[0], ports[1])
    figures: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (of_small, of_endless) in ways.items():
            by = partial(throughput, of_endless)
            figures[name].append([latency(of_small), *(by(many) for many in AT_ONCE)])
    print("| way | a request, median | 1 connection | 8 connections |\n|---|---|---|---|")
    for name, rounds in figures.items():
        took, one, many = (median(each) for each in zip(*rounds, strict=True))
        print(f"| {name} | {took:.2f} ms | {one:,.0f} MB/s | {many:,.0f} MB/s |")
    for process in started:
        processes.stop(process)


def main() -> None:
    """Measure; or be one of those that are measured."""
    parser = ArgumentParser("python -m bench.balanced", description=__doc__)
    parser.add_argument("--be", choices=("small", "endless", "balancer"), help="for itself")
    parser.add_argument("numbers", nargs="*", type=int, help="for itself")
    asked = parser.parse_args()
    if asked.be == "balancer":
        balance(*asked.numbers)
    elif asked.be:
        serve(asked.numbers[0], asked.be == "endless")
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        processes.adopt_orphans()
        packages.fetch_missing(["nginx"])
        with work_folder() as folder:
            measure(folder)


if __name__ == "__main__":
    main()
