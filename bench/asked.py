"""Services that are asked: on demand, for each connection, and while they are updated."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

from bench import processes
from bench.client import ask_until, free_port
from bench.contestants import Txcontain
from bench.manager import ROOT, Manager, seconds
from bench.measure import Figure
from bench.services import all_done

ANSWERED_WITHIN = 30.0  # seconds
A_SECOND = 200  # requests, while a service is updated
CONNECTIONS = 50  # a second, each with a container of its own
PORT = 8000  # inside
ITSELF = "the program itself, in a chroot"


def figures(ours: Txcontain, root: Path, rounds: int) -> list[Figure]:
    """All of them; ``root``: the base image, unpacked."""
    manager = ours.manager
    name = web(manager, "1")
    return [
        on_demand(manager, name, root, rounds),
        per_connection(manager, 20 * rounds),
        asleep(manager, name, 99 * rounds),
        updates(manager, [name, web(manager, "2")], 5 * rounds),
    ]


def web(manager: Manager, minor: str) -> str:
    """Upload a web server on a network of its own; returns what a stack calls it."""
    config = manager.upload(
        name="web",
        minor=minor,
        network="private",
        startup_script=None,
        command=["/webserver/tiny", str(PORT)],
        startup_env=f"PORT={PORT}",
    )
    return "-".join(config.values())


def on_demand(manager: Manager, config: str, root: Path, rounds: int) -> Figure:
    """From a connection to a sleeping service to its first answer, beside the program alone."""
    wish = {"config": config, "on_demand": {"idle": 1}}
    woken, alone = [], []
    with served(manager, **wish) as port:
        for _ in range(rounds):
            woken.append(seconds(lambda: get(port)))
            ask_until(manager.client, "/instances", it_sleeps, manager.process)
            alone.append(begin_alone(root))
    ours, theirs = median(woken) * 1e3, median(alone) * 1e3
    return Figure("on demand, to the first answer", "ms", ours, ITSELF, theirs, "≤ + 15 ms")


def it_sleeps(answer: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether no instance of the service is there."""
    return not any(one["labels"].get("stack") for one in answer["instances"])


def begin_alone(root: Path) -> float:
    """Seconds until the web server answers, if it is begun with nothing around it."""
    if not (root / "webserver").exists():
        (root / "webserver").mkdir()
        for file in ("tiny", "index.html"):
            shutil.copy(ROOT / "images/webserver" / file, root / "webserver")
    port = free_port()
    began = time.perf_counter()
    command = ["chroot", str(root), "/webserver/tiny", str(port)]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            with suppress(ConnectionRefusedError):
                get(port)
                return time.perf_counter() - began
            time.sleep(0.0005)
    finally:
        program.kill()
        program.wait()


def asleep(manager: Manager, config: str, count: int) -> Figure:
    """What the manager needs for one more service on demand that nobody asks for."""

    def service(number: int) -> dict[str, Any]:
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        return {"config": config, "ports": [f"{address}:{PORT}:{PORT}"], "on_demand": {"idle": 60}}

    memory = []
    for many in (1, count + 1):
        services = {f"s{number}": service(number) for number in range(many)}
        settle(manager, "POST", "/stacks?wait=1", {"stack": "asleep", "services": services})
        memory.append(processes.rss([manager.process.pid]))
    each = (memory[1] - memory[0]) * 1000 / count
    settle(manager, "DELETE", "/stacks/asleep?wait=1")
    what = f"{count} services on demand that sleep: manager's RSS more, each"
    return Figure(what, "KB", each, "the goal", 20, "≤ 20")


def per_connection(manager: Manager, count: int) -> Figure:
    """From a connection to the first byte of a container of its own."""
    config = manager.upload(name="each", startup_script=None, command=["/bin/echo", "hello"])
    took = []
    with served(manager, config="-".join(config.values()), per_connection=True) as port:
        for _ in range(count):
            began = time.perf_counter()
            with socket.create_connection(("127.0.0.1", port), ANSWERED_WITHIN) as client:
                assert client.recv(1), "it has said nothing"
            took.append(time.perf_counter() - began)
            time.sleep(max(0.0, 1 / CONNECTIONS - took[-1]))
    what = f"per connection, {CONNECTIONS} a second, to its first byte"
    return Figure(what, "ms", median(took) * 1e3, "the goal", 8, "≤ 8")


def updates(manager: Manager, configs: list[str], count: int) -> Figure:
    """Requests that fail while three replicas are updated again and again."""
    wish = {"replicas": 3, "update": {"order": "start-first", "monitor": 0}, "drain": 5}
    outcomes: list[str] = []
    with served(manager, config=configs[0], **wish) as port, asking(port, outcomes):
        for number in range(count):
            up(manager, port, config=configs[(number + 1) % 2], **wish)
    failed = [outcome for outcome in outcomes if outcome]
    what = f"requests of {len(outcomes)} that failed during {count} updates of 3 replicas"
    return Figure(what, "", len(failed), "the goal", None, "0")


@contextmanager
def asking(port: int, outcomes: list[str]) -> Iterator[None]:
    """Ask so many times a second meanwhile; each outcome is "", or what was wrong."""
    is_over = Event()

    def ask_once() -> None:
        try:
            get(port)
        except (OSError, AssertionError) as error:
            outcomes.append(str(error) or type(error).__name__)
        else:
            outcomes.append("")

    def ask() -> None:
        began = time.monotonic()
        number = 0
        threads: list[Thread] = []
        while not is_over.is_set():
            number += 1
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(Thread(target=ask_once))
            threads[-1].start()
            is_over.wait(max(0.0, began + number / A_SECOND - time.monotonic()))
        for thread in threads:
            thread.join()

    asker = Thread(target=ask)
    asker.start()
    try:
        yield
    finally:
        is_over.set()
        asker.join()


def get(port: int) -> None:
    """Ask for a page. Raises OSError, AssertionError if there is no answer or a wrong one."""
    with socket.create_connection(("127.0.0.1", port), ANSWERED_WITHIN) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = client.makefile("rb").read()
    assert b" 200 " in answer.partition(b"\r\n")[0], answer[:80] or "no answer"


@contextmanager
def served(manager: Manager, **wish: Any) -> Iterator[int]:
    """The port of a service that is up, until it is taken down."""
    port = free_port()
    up(manager, port, **wish)
    try:
        yield port
    finally:
        settle(manager, "DELETE", "/stacks/bench?wait=1")


def up(manager: Manager, port: int, **wish: Any) -> None:
    """Have the service so, and wait until it is."""
    service = {"ports": [f"{port}:{PORT}"], **wish}
    settle(manager, "POST", "/stacks?wait=1", {"stack": "bench", "services": {"web": service}})
    assert all_done(manager.client.ask("GET", "/services")), "it is not as wished"


def settle(manager: Manager, *request: Any) -> None:
    """Change the stack, and wait until that is done: the answer is its progress, line by line."""
    manager.client.send_off(*request)
    manager.client.answer_bytes()
