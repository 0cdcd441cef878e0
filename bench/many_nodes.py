"""``python -m bench.many_nodes``: what a swarm of 1,000 nodes would ask of a manager of ours.

A program with real sockets answers as Docker does, at that size; a manager of ours watches it. Of
its services, one in ten is a stack's and has nearly all containers; the others are instances.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench import processes
from bench.client import Connection, Refused
from bench.contestants import work_folder
from bench.manager import Manager, make_images, seconds
from txcontain.container.spec import from_json
from txcontain.exports.subject import Subject
from txcontain.services.revision import make_revision
from txcontain.swarm import mapping, stack_mapping

SIZES = [(3, 20, 200), (10, 200, 1_000), (100, 1_000, 10_000), (1_000, 10_000, 100_000)]
MADE = "2026-11-29T21:11:49.85528756{}Z"
CONFIG = {
    **{"name": "web", "major": "1", "minor": "7", "base_image": "base.tar"},
    **{"mounts": ["www.tar /www READ"], "startup_script": "/www/run", "restart": "always"},
}
PLUGINS = "awslogs fluentd gcplogs gelf journald json-file local logentries splunk syslog".split()
SOON = 180.0  # seconds: the manager has looked at all once


# -- a Docker that only tells --------------------------------------------------------


def node(number: int) -> dict[str, Any]:
    """A node, as Docker 20.10 tells one."""
    is_manager = number < 3
    told: dict[str, Any] = {
        "ID": f"node{number:021}",
        **{"Version": {"Index": 59}, "CreatedAt": MADE.format(1), "UpdatedAt": MADE.format(2)},
        "Spec": {
            "Labels": {},
            "Role": "manager" if is_manager else "worker",
            "Availability": "active",
        },
        "Description": {
            "Hostname": f"h{number}",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 32 * 10**9, "MemoryBytes": 1 << 37},
            "Engine": {
                "EngineVersion": "20.10.24+dfsg1",
                "Plugins": [{"Type": "Log", "Name": name} for name in PLUGINS],
            },
            "TLSInfo": {"TrustRoot": "x" * 570, "CertIssuerPublicKey": "x" * 124},
        },
        "Status": {"State": "ready", "Addr": f"10.{number >> 8}.{number & 255}.1"},
    }
    return {**told, "ManagerStatus": {"Leader": number == 0}} if is_manager else told


def service(number: int, replicas: int, ports: Sequence[str] = ()) -> dict[str, Any]:
    """A service of a stack if it has replicas, else an instance."""
    document = json.dumps(CONFIG).encode()
    image = "192.0.2.1:5000/txcontain@sha256:" + "5" * 64
    subject = Subject(from_json(document), image)
    if replicas:
        asked = {"config": "web-1-7", "replicas": replicas, "ports": [*ports]}
        revision = make_revision("web", asked, document)
        spec = stack_mapping.service_of(f"shop{number}", "web", revision, subject)
    else:
        spec = mapping.service_of(subject, f"web-{number:08x}")
    told = {"Version": {"Index": 1}, "CreatedAt": MADE.format(1), "UpdatedAt": MADE.format(2)}
    return {"ID": f"service{number:018}", **told, "Spec": spec, "Endpoint": {}}


def task(of: dict[str, Any], slot: int, number: int, nodes: int) -> dict[str, Any]:
    """A task of a service, which runs."""
    status = {"ContainerID": f"{number:064}", "PID": 4711, "ExitCode": 0}
    return {
        "ID": f"task{number:021}",
        **{"Version": {"Index": 1}, "CreatedAt": MADE.format(3), "UpdatedAt": MADE.format(4)},
        **{"Labels": {}, "Spec": of["Spec"]["TaskTemplate"], "ServiceID": of["ID"], "Slot": slot},
        "NodeID": f"node{number % nodes:021}",
        "Status": {
            **{"Timestamp": MADE.format(5), "State": "running", "Message": "started"},
            **{"ContainerStatus": status, "PortStatus": {}},
        },
        "DesiredState": "running",
        "NetworksAttachments": [{"Network": {"ID": "6dk0w5tmdytbf36fiem1ckg28"}}],
    }


def told(nodes: int, services: int, tasks: int) -> dict[str, Any]:
    """What there is, by its path."""
    stacks = services // 10
    single = services - stacks
    each = (tasks - single) // stacks
    ours = [service(number, each if number < stacks else 0) for number in range(services)]
    own = [(one, slot + 1) for one in ours[:stacks] for slot in range(each)]
    own += [(one, 1) for one in ours[stacks:]]
    return {
        "/services": ours,
        "/tasks": [task(one, slot, at, nodes) for at, (one, slot) in enumerate(own)],
        "/nodes": [node(number) for number in range(nodes)],
    }


def answer_at(socket: str, nodes: int, services: int, tasks: int) -> None:
    """Answer as Docker does, at a unix socket."""
    ready = {path: json.dumps(one).encode() for path, one in told(nodes, services, tasks).items()}
    version = b'{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}'

    class Docker(BaseHTTPRequestHandler):
        """Tells what there is; of a filter by an instance or a service, nothing fits."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/v1.41")
            asked = parse_qs(parts.query).get("filters", ["{}"])[0]
            labels = json.loads(asked).get("label", [])
            body = version if path == "/version" else ready.get(path, b"[]")
            if any("=" in one for one in labels):
                body = b"[]"
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "unix"

    socketserver.ThreadingUnixStreamServer.daemon_threads = True
    with socketserver.ThreadingUnixStreamServer(socket, Docker) as server:
        print(*(f"{len(body) / 1e6:.1f}" for body in ready.values()), flush=True)
        server.serve_forever()


# -- what a manager of ours makes of it ------------------------------------------------


def measure(folder: Path, size: Sequence[int], idle: float) -> list[str]:
    """The figures of one size, as cells of a table."""
    nodes, services, tasks = size
    socket = folder / f"docker-{tasks}.sock"
    numbers = map(str, (nodes, services, tasks))
    docker = processes.start(
        [sys.executable, "-m", "bench.many_nodes", "--answer-at", str(socket), *numbers],
        cwd=Path(__file__).parent.parent,
    )
    until(socket.exists)
    options = ["--engine=swarm", f"--docker=unix:{socket}", "--registry=127.0.0.1:1"]
    manager = Manager(folder, folder / f"state-{tasks}", 0, *options)
    manager.start()
    try:
        first = seconds(lambda: until(lambda: sees(manager, tasks)))
        return [f"{nodes:,} / {services:,} / {tasks:,}", f"{first:.1f} s", *figures(manager, idle)]
    except TimeoutError:
        return [f"{nodes:,} / {services:,} / {tasks:,}", f"not within {SOON:g} s", *["-"] * 7]
    finally:
        manager.stop()
        processes.stop(docker)


def until(condition: Callable[[], bool]) -> None:
    """Wait for this. Raises TimeoutError."""
    deadline = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.2)


def sees(manager: Manager, tasks: int) -> bool:
    """Whether it lists all."""
    with suppress(OSError, Refused, ValueError):
        return len(manager.client.ask("GET", "/list")["instances"]) == tasks
    manager.client.close()
    return False


def figures(manager: Manager, idle: float) -> list[str]:
    """Memory, CPU, and how long answers take: while it does nothing but watch, and is asked."""
    pid = manager.process.pid
    before = processes.cpu_seconds([pid])
    waited = waits(manager.port, idle)
    cpu = (processes.cpu_seconds([pid]) - before) / idle
    asked = [answered(manager, path) for path in ("/list", "/instances", "/nodes", "/services")]
    memory = processes.rss([pid])
    beside = f"{median(waited) * 1e3:.1f} / {max(waited) * 1e3:.0f} ms"
    return [f"{memory:.0f} MB", f"{cpu * 100:.0f} %", beside, *asked]


def waits(port: int, idle: float) -> list[float]:
    """How long someone waits who asks for the version again and again: that needs no swarm."""
    waited = []
    until = time.monotonic() + idle
    with Connection(port) as client:
        while time.monotonic() < until:
            waited.append(seconds(lambda: client.ask("GET", "/version")))
            time.sleep(0.02)
    return waited


def answered(manager: Manager, path: str) -> str:
    """How long an answer takes: the median of some."""

    def ask() -> None:
        manager.client.send_off("GET", path)
        manager.client.answer_bytes()

    try:
        return f"{median(seconds(ask) for _ in range(7)) * 1e3:.0f} ms"
    except (Refused, OSError) as error:
        manager.client.close()
        return type(error).__name__


COLUMNS = [
    *("nodes / services / containers", "first list after", "memory", "CPU, watching"),
    *("others wait, median / longest", "/list", "/instances", "/nodes", "/services"),
]


def main() -> None:
    """Measure, and print a table."""
    parser = ArgumentParser("python -m bench.many_nodes", description=__doc__)
    parser.add_argument("--answer-at", help=__doc__)
    parser.add_argument("--idle", type=float, default=15.0, help="seconds of watching")
    parser.add_argument("size", nargs="*", type=int, help="NODES SERVICES CONTAINERS; else several")
    asked = parser.parse_args()
    if asked.answer_at:
        return answer_at(asked.answer_at, *asked.size)
    if os.geteuid():
        sys.exit("The bench starts a manager: run it as root.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes.adopt_orphans()
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    with work_folder() as folder:
        make_images(folder)
        for size in [asked.size] if asked.size else SIZES:
            print("| " + " | ".join(measure(folder, size, asked.idle)) + " |", flush=True)
    return None


if __name__ == "__main__":
    main()
