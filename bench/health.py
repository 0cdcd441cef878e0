"""Health checks: what the manager pays for a thousand a second."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

from bench import processes
from bench.client import Connection, ask_until
from bench.contestants import Txcontain
from bench.measure import AT_ONCE, Figure

CHECK = {"http": "/", "interval": 1, "timeout": 5, "start_period": 60, "on_failure": "none"}
INTERVAL, RETRIES = 0.5, 2  # of the check that finds a program that hangs
HANGS = {"http": "/", "timeout": 0.05, "start_period": 60}  # the rest of it
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def figure(ours: Txcontain, count: int, lasting: float) -> Figure:
    """So many instances, each asked by HTTP once a second; one small server answers for all."""
    manager = ours.manager
    with server() as port:
        config = manager.upload(name="checked", health={**CHECK, "port": port})

        def launch(_: int) -> str:
            client = Connection(manager.port)
            name: str = client.ask("POST", "/launch", config)["instance"]
            client.close()
            return name

        with ThreadPoolExecutor(AT_ONCE) as threads:
            names = list(threads.map(launch, range(count)))
        ask_until(manager.client, "/instances", all_healthy, manager.process)
        share = processes.share(manager.process.pid, lasting)
        for name in names:
            manager.destroy(name)
    what = f"{count} health checks a second, of a core"
    return Figure(what, "%", share, "the goal", 10, "≤ 10")


def hung(ours: Txcontain, rounds: int) -> Figure:
    """From the moment when a program hangs until it has been ended and another one runs; the worst.

    What it may take is ``interval`` x ``retries``; the ``timeout`` of its last check counts too. As
    this program would not hear the signal that asks it to end, it gets no time for that.
    """
    manager = ours.manager
    config = manager.upload(
        name="hung",
        network="private",
        startup_script=None,
        command=["/webserver/tiny", "8000"],
        startup_env="PORT=8000",
        health={**HANGS, "interval": INTERVAL, "retries": RETRIES},
        restart="always",
        stop_timeout=0,
    )
    worst = max(until_replaced(ours, manager.launch(config)) for _ in range(rounds))
    beyond = worst - INTERVAL * RETRIES
    what = "a hung program, until another runs, beyond interval x retries"
    return Figure(what, "ms", beyond * 1e3, "the goal", 200, "≤ 200")


def until_replaced(ours: Txcontain, name: str) -> float:
    """Have the program of an instance hang; the seconds until another one runs."""
    manager = ours.manager
    path = f"/instances/{name}"

    def is_healthy(record: dict[str, object]) -> bool:
        return record["health"] == "healthy"

    pid = ask_until(manager.client, path, is_healthy, manager.process)["pid"]
    os.kill(pid, signal.SIGSTOP)

    def is_another(record: dict[str, object]) -> bool:
        return record["state"] == "running" and record["pid"] != pid

    began = time.monotonic()
    ask_until(manager.client, path, is_another, manager.process)
    took = time.monotonic() - began
    manager.destroy(name)
    return took


def all_healthy(answer: dict[str, list[dict[str, object]]]) -> bool:
    """Whether each instance that has a check has passed one."""
    return all(one["health"] in (None, "healthy") for one in answer["instances"])


@contextmanager
def server() -> Iterator[int]:
    """A web server on a port of this host's."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # it is closed
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(ANSWER)

        Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
