"""Health checks of real containers: what they ask, what becomes of it, and what attacks them."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.integration.harness import free_port, wait_until
from tests.integration.probes import ProbeCase
from tests.support import needs_networks

# Answers HTTP on PORT until SIGUSR1 comes, and from then on nothing.
SERVER = """
hangs = False

def hang(*_):
    global hangs
    hangs = True

signal.signal(signal.SIGUSR1, hang)
server = socket.create_server(("127.0.0.1", {port}), backlog=64)
held = []
while True:
    connection, _ = server.accept()
    if hangs:
        held.append(connection)
        continue
    path = connection.recv(4096).split(b" ")[1]
    status = b"200 OK" if path == b"/health" else b"503 Busy"
    connection.sendall(b"HTTP/1.0 " + status + b"\\r\\n\\r\\nthe disk is full")
    connection.close()
"""
# What a hostile container does with each connection. It never ends one by itself.
ATTACKS = """
def drip(connection):
    while True:
        connection.sendall(b"H")
        time.sleep(0.05)

def drip_well(connection):
    for byte in b"HTTP/1.1 200 " + b"O" * 10000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)

def endless_headers(connection):
    connection.sendall(b"HTTP/1.1 500 Oh\\r\\n")
    while True:
        connection.sendall(b"X: " + b"y" * 4000 + b"\\r\\n")

def flood(connection):
    connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    while True:
        connection.sendall(b"x" * 65536)

def endless_line(connection):
    while True:
        connection.sendall(b"HTTP/1.1 200 " + b"x" * 65536)

def close(connection):
    connection.recv(4096)
    connection.close()

def reset(connection):
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()

def hold(connection):
    time.sleep(1000)

def serve(attack, port):
    server = socket.create_server(("127.0.0.1", port), backlog=64)
    while True:
        connection, _ = server.accept()
        if not os.fork():
            server.close()
            attempt(attack, connection)
            os._exit(0)
        connection.close()

serve({attack}, 80)
"""
FIND = """
def find(name):
    for _ in range(40):
        try:
            return socket.gethostbyname(name.encode())
        except OSError:
            time.sleep(0.05)

tell(good=find("good"), bad=find("bad"))
"""
FAST: dict[str, Any] = {"interval": 0.5, "timeout": 0.5, "retries": 3}
SLOW: dict[str, Any] = {"interval": 1, "timeout": 1, "retries": 2}
PATIENT: dict[str, Any] = {**FAST, "start_period": 60, "start_interval": 0.1}


class HealthCase(ProbeCase):
    """A test of health checks."""

    def seen(self, instance: str) -> dict[str, Any]:
        """All that is known of an instance."""
        return self.ask("GET", f"/instances/{instance}").json

    def wait_for(self, instance: str, health: str) -> dict[str, Any]:
        """Wait until an instance has this health; returns all that is known of it."""
        return wait_until(
            lambda: (seen := self.seen(instance))["health"] == health and seen,
            f"{instance} is {health}",
        )

    def wait_to_hear(self, instance: str, said: str) -> dict[str, Any]:
        """Wait until its checks fail with these words; returns all that is known of it."""

        def heard() -> Any:
            seen = self.seen(instance)
            last = [check["output"] for check in seen["checks"][-1:]]
            return seen["health"] == "unhealthy" and said in "".join(last) and seen

        return wait_until(heard, f"{instance} says {said}")

    def reasons(self, what: str) -> list[str]:
        """Why, of each event of this kind."""
        lines = self.ask("GET", "/events").body.decode().splitlines()
        events = [json.loads(line) for line in lines]
        return [event["reason"] for event in events if event["what"] == what]


class Asking(HealthCase):
    """How a container is asked."""

    def start_server(self, path: str, network: str = "none", **keys: Any) -> str:
        """Launch one that listens on a port of its own, or of the host."""
        port = free_port() if network == "host" else 80
        check = {"http": path, "port": port, "on_failure": "none"}
        health = {**FAST, "timeout": 20, **check}  # it answers at once: never "unhealthy" for that
        return self.start_probe(SERVER.format(port=port), network=network, health=health, **keys)

    def test_http(self) -> None:
        """It is asked in its own network, or in the host's, as its config says."""
        names = [self.start_server("/health", network) for network in ("none", "host")]
        for name in names:
            seen = self.wait_for(name, "healthy")
            self.assertEqual((seen["ready"], seen["checks"][-1]["passed"]), (False, True))
            self.assertEqual(seen["checks"][-1]["output"], "HTTP/1.0 200 OK")
        self.assertEqual(len(self.reasons("healthy")), 2)

    def test_bad_status(self) -> None:
        """Another status fails; the journal has what the container said."""
        said = "HTTP/1.0 503 Busy: the disk is full"
        self.wait_to_hear(self.start_server("/other"), said)
        health = {**PATIENT, "http": "/other", "port": 80, "status": 503, "retries": 1}
        self.wait_for(
            self.start_probe(SERVER.format(port=80), network="none", health=health), "healthy"
        )

    def test_tcp(self) -> None:
        """To take connections is enough; a port on which no one listens fails."""
        keys: dict[str, Any] = {"network": "none"}
        listens = self.start_probe(SERVER.format(port=80), health={**PATIENT, "tcp": 80}, **keys)
        health = {**FAST, "tcp": 81, "on_failure": "none"}
        silent = self.start_probe(SERVER.format(port=80), health=health, **keys)
        self.wait_for(listens, "healthy")
        self.wait_to_hear(silent, "connection refused")

    def test_command(self) -> None:
        """A command has to end with 0, in time; what it writes is kept."""
        text = "#!/bin/sh\nsleep 1000\n"
        for command, health, said, seconds in (
            (["/bin/sh", "-c", "echo fine >&2"], "healthy", "fine", 20),
            (["/bin/sh", "-c", "echo so so; exit 3"], "unhealthy", "so so", 20),
            (["/bin/nothing"], "unhealthy", "running /bin/nothing", 20),
            (["/bin/sh", "-c", "echo well; sleep 60"], "unhealthy", "no answer in time: well", 1),
            (["/bin/sh", "-c", "exit 1"], "unhealthy", "exit status 1", 20),
        ):
            check = {"command": command, "retries": 1, "interval": 0.5, "on_failure": "none"}
            name = self.launch(**self.job(text, health={**check, "timeout": seconds}))
            if health == "unhealthy":  # maybe of slowness at first
                self.wait_to_hear(name, said)
            else:
                self.assertIn(said, self.wait_for(name, health)["checks"][-1]["output"])

    @needs_networks
    def test_in_a_private_network(self) -> None:
        """It is asked on 127.0.0.1 of its own; its name leads to it only while it is healthy."""
        good = self.start_server("/health", network="private", name="good")
        self.start_server("/other", network="private", name="bad")
        self.wait_for(good, "healthy")
        found = self.probe(FIND, network="private")
        self.assertTrue(found["good"])
        self.assertIsNone(found["bad"])


class Acting(HealthCase):
    """What is done about it."""

    def hang(self, name: str) -> float:
        """Have a server hang; returns when that was."""
        self.assertEqual(
            self.ask("POST", f"/instances/{name}/kill", {"signal": "USR1"}).status, 200
        )
        return time.monotonic()

    def start_server(self, **health: Any) -> str:
        """A server that is healthy."""
        check = {"http": "/health", "port": 80, **PATIENT, **health}
        name = self.start_probe(SERVER.format(port=80), network="none", health=check)
        self.wait_for(name, "healthy")
        return name

    def test_restart(self) -> None:
        """What hangs is started again, also if no manager runs for a while."""
        name = self.start_server()
        self.hang(name)
        wait_until(lambda: self.seen(name)["restarts"] >= 1, "it is started again")
        seen = self.wait_for(name, "healthy")
        self.assertIn("unhealthy", seen["exit"]["reason"])
        self.hang(name)
        self.manager.kill()
        self.manager.wait()
        self.start()
        wait_until(lambda: self.seen(name)["restarts"] >= 2, "it is started again")

    def test_killed_in_the_middle(self) -> None:
        """A manager that is killed while it ends an unhealthy one leaves that to the next."""
        text = SERVER.format(port=80).replace(
            "signal.signal(signal.SIGUSR1", "signal.signal(15, hang); signal.signal(signal.SIGUSR1"
        )  # which does not end when it is asked to
        health = {"http": "/health", "port": 80, **PATIENT}
        name = self.start_probe(text, network="none", health=health, stop_timeout=3)
        self.wait_for(name, "healthy")
        self.hang(name)
        self.wait_for(name, "unhealthy")
        self.manager.kill()
        self.manager.wait()
        self.start()
        wait_until(lambda: self.seen(name)["restarts"] >= 1, "it is started again")

    def test_stop(self) -> None:
        """With "stop" what hangs is stopped, and kept."""
        name = self.start_server(on_failure="stop")
        self.hang(name)
        wait_until(lambda: self.seen(name)["state"] == "stopped", "it is stopped")

    def test_paused(self) -> None:
        """What is paused is not asked, and so not unhealthy."""
        name = self.start_server(retries=60)  # a slow machine is not what this is about
        self.assertEqual(self.ask("POST", f"/instances/{name}/pause").status, 200)
        last = self.seen(name)["checks"][-1]
        time.sleep(1)
        seen = self.seen(name)
        self.assertEqual((seen["checks"][-1], seen["health"]), (last, "healthy"))
        self.assertEqual(self.ask("POST", f"/instances/{name}/resume").status, 200)
        wait_until(lambda: self.seen(name)["checks"][-1] != last, "it is asked again")
        self.assertEqual(self.seen(name)["restarts"], 0)


class Hostile(HealthCase):
    """Containers that attack whoever asks them."""

    def test_attacks(self) -> None:
        """Whatever it answers, it is judged in time, and the manager answers meanwhile."""
        expected = {
            "drip": "no HTTP/1: HH",
            "drip_well": "no answer in time",
            "endless_headers": "500 Oh",
            "endless_line": "no HTTP/1: HTTP/1.1 200 xxx",
            "close": "without an answer",
            "reset": "connection reset by peer",
            "hold": "no answer in time",
            "flood": "",
        }
        health = {**SLOW, "http": "/", "port": 80, "on_failure": "none"}
        names = {
            attack: self.start_probe(ATTACKS.format(attack=attack), network="none", health=health)
            for attack in expected
        }
        for attack, name in names.items():
            if said := expected[attack]:
                seen = self.wait_to_hear(name, said)
            else:
                seen = self.wait_for(name, "healthy")
            self.assertLessEqual(len(seen["checks"][-1]["output"]), 4096)

    def test_never_accepts(self) -> None:
        """One that listens and never accepts is not healthy by HTTP, nor when its queue is full."""
        text = "server = socket.create_server(('127.0.0.1', 80), backlog=1)\nsignal.pause()\n"
        for form in ({"http": "/", "port": 80}, {"tcp": 80}):
            health = {**FAST, **form, "on_failure": "none"}
            name = self.start_probe(text, network="none", health=health)
            self.wait_to_hear(name, "no answer in time")

    def test_ends_in_the_middle(self) -> None:
        """One that ends while it is asked leaves nothing behind, and counts as ended."""
        text = (
            "server = socket.create_server(('127.0.0.1', 80))\n"
            "connection, _ = server.accept()\ntime.sleep(0.05)\nos._exit(3)\n"
        )
        health = {**PATIENT, "http": "/", "port": 80}
        name = self.start_probe(text, network="none", health=health)
        wait_until(lambda: self.seen(name)["state"] == "ended", "it has ended")
        self.assertEqual(self.seen(name)["exit"]["reason"], "exit status 3")
