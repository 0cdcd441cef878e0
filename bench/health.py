"""Health checks: what the manager pays for a thousand a second."""

from __future__ import annotations

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
        before, began = processes.cpu_seconds([manager.process.pid]), time.monotonic()
        time.sleep(lasting)
        used = processes.cpu_seconds([manager.process.pid]) - before
        share = 100 * used / (time.monotonic() - began)
        for name in names:
            manager.destroy(name)
    what = f"{count} health checks a second, of a core"
    return Figure(what, "%", share, "the goal", 10, "≤ 10")


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
