"""Services whose connections wait: while no replica serves, while the manager is killed, and until
someone wants them at all; and those with a container for each connection.

The host of these tests is a network namespace of the test's own, as in test_network.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from typing import Any

from tests.integration.harness import PATIENCE, wait_until
from tests.integration.hosts import HERE, nft
from tests.integration.probes import PRELUDE
from tests.integration.test_network import NetworkCase

# It answers each line with its name and the line, and a connection that is closed with "over".
SERVER = """
listener = socket.create_server((b"", 8000))
def serve(connection):
    with connection, connection.makefile("rwb") as file:
        for line in file:
            file.write(socket.gethostname().encode() + b" " + line)
            file.flush()
        file.write(b"over\\n")
import _thread
while True:
    _thread.start_new_thread(serve, (listener.accept()[0],))
"""
# The same for the one connection that it is given.
ECHO = """
print("begun", os.environ["REMOTE_ADDR"], file=sys.stderr, flush=True)
for line in sys.stdin:
    print(socket.gethostname(), line, end="", flush=True)
print("over", flush=True)
"""


class Client:
    """Someone who is connected to a service."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), PATIENCE)
        self.socket.settimeout(PATIENCE)
        self.file = self.socket.makefile("rb")

    def say(self, text: str) -> None:
        """Say a line."""
        self.socket.sendall(f"{text}\n".encode())

    def hear(self) -> str:
        """The next line; empty if there is none any more, as whoever was to answer is gone."""
        with contextlib.suppress(ConnectionResetError):
            return self.file.readline().decode().strip()
        return ""

    def ask(self, text: str) -> str:
        """What is answered to a line, without the name of whoever answers."""
        self.say(text)
        return self.hear().partition(" ")[2]

    def close(self) -> None:
        """Hang up."""
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ServiceCase(NetworkCase):
    """A manager with services."""

    pool = 2
    number = 0

    def stop(self) -> None:
        """End the services first: else they are kept."""
        if self.manager.poll() is None:
            self.ask("DELETE", "/stacks/s?wait=1")
        super().stop()

    def keep(self, script: str, **keys: Any) -> str:
        """Keep a config that runs a script; return its name."""
        config = self.upload(**self.job(PRELUDE + script, **keys))
        return "-".join(config[key] for key in ("name", "major", "minor"))

    def up(self, **services: Any) -> None:
        """Have these services, and wait until they are as wished."""
        answer = self.ask("POST", "/stacks?wait=1", {"stack": "s", "services": services})
        self.assertEqual(answer.status, 200, answer.body)

    def instances(self) -> list[dict[str, Any]]:
        """Those there are of services."""
        listed = self.ask("GET", "/instances").json["instances"]
        return [one for one in listed if one["labels"].get("stack")]

    def kill(self, *others: int) -> None:
        """SIGKILL to the manager, and to other processes."""
        for pid in (self.manager.pid, *others):
            os.kill(pid, signal.SIGKILL)
        self.manager.wait()


class OnDemandTests(ServiceCase):
    """Nothing runs until a connection comes."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.keep(SERVER, startup_env="PORT=8000", limits={"pids": 4000})

    def sleep(self, port: int = 8001, idle: float = 1, **keys: Any) -> None:
        """Have a service that sleeps."""
        wish = {"config": self.name, "ports": [f"0.0.0.0:{port}:8000"], **keys}
        self.up(web={**wish, "on_demand": {"idle": idle}})
        self.assertEqual(self.instances(), [])

    def test_woken_and_asleep_again(self) -> None:
        """A connection wakes it, its replica serves all others, and without any it sleeps."""
        self.sleep()
        for _ in range(2):
            with Client(8001) as first, Client(8001) as second:
                self.assertEqual([first.ask("a"), second.ask("b")], ["a", "b"])
                (replica,) = self.instances()
                self.assertEqual(replica["instance"], "s-web-1")
                time.sleep(3)  # longer than it may be idle, and than two looks
                self.assertEqual(first.ask("still there"), "still there")
            wait_until(lambda: not self.instances(), "it sleeps")

    def test_straight_to_it(self) -> None:
        """Later connections lead straight to the replica: a manager that is stopped delays none."""
        self.sleep(idle=60)
        with Client(8001, HERE) as first:
            self.assertEqual(first.ask("a"), "a")
        wait_until(lambda: "8001" in self.leads(), "nft leads there")
        os.kill(self.manager.pid, signal.SIGSTOP)
        try:
            with Client(8001, HERE) as second:
                self.assertEqual(second.ask("b"), "b")
        finally:
            os.kill(self.manager.pid, signal.SIGCONT)

    def leads(self) -> str:
        """Which ports lead to containers."""
        return nft("list", "map", "inet", "txcontain0", "everywhere")

    def test_killed_at_each_step(self) -> None:
        """Whenever manager or log process are killed while one waits, its connection is served."""
        self.sleep(idle=60)
        for after in (0, 0.01, 0.03, 0.1):
            with Client(8001) as client:
                client.say("a")
                client.socket.shutdown(socket.SHUT_WR)
                os.kill(wait_until(self.log_processes, "it runs")[0], signal.SIGKILL)
                time.sleep(after)
                self.kill()
                self.start()
                # What the manager had accepted ends with it; what still waited is served.
                self.assertIn(client.hear(), ("s-web-1 a", ""))
            with Client(8001) as client:
                self.assertEqual(client.ask("b"), "b")
            self.ask("DELETE", "/destroy/s-web-1")

    def test_hangs_up_before(self) -> None:
        """Clients that hang up before it wakes, or say nothing, keep no one else from it."""
        self.sleep(idle=60)
        for _ in range(50):
            Client(8001).close()
        silent = [Client(8001) for _ in range(50)]
        with Client(8001) as client:
            self.assertEqual(client.ask("a"), "a")
        for one in silent:
            one.close()

    def test_very_many(self) -> None:
        """A flood of connections to a sleeping service refuses no one, and all are served."""
        self.sleep(idle=60)
        clients = []
        for number in range(1100):  # more than are served at once
            clients.append(Client(8001))
            clients[-1].say(str(number))
            clients[-1].socket.shutdown(socket.SHUT_WR)
        for number, client in enumerate(clients):
            with client:
                self.assertEqual(client.hear(), f"s-web-1 {number}")


class ReplacedTests(ServiceCase):
    """Nobody is refused while a service, or the manager, is replaced."""

    def test_replaced(self) -> None:
        """Updates stop-first, a restart of the replica, and kills of the manager refuse no one."""
        configs = [self.keep(SERVER, startup_env="PORT=8000") for _ in range(2)]
        wish = {"ports": ["8001:8000"], "update": {"order": "stop-first", "monitor": 0}}
        self.up(web={"config": configs[0], **wish})
        answers: list[str] = []
        is_over = threading.Event()
        asking = threading.Thread(target=self.ask_on_and_on, args=(answers, is_over))
        asking.start()
        try:
            for number in range(4):
                self.up(web={"config": configs[(number + 1) % 2], **wish})
                (replica,) = self.instances()
                self.ask("POST", f"/instances/{replica['instance']}/restart")
                self.kill(*self.log_processes()[:1])
                time.sleep(0.2)
                self.start()
        finally:
            is_over.set()
            asking.join()
        self.assertEqual({*answers} - {"over", ""}, set())
        # Who was just being served by what was killed is cut off; no one was refused.
        self.assertLessEqual(answers.count(""), 8)
        self.assertGreater(answers.count("over"), 20)

    def ask_on_and_on(self, answers: list[str], is_over: threading.Event) -> None:
        """Connect again and again; note how each connection ends."""
        while not is_over.is_set():
            try:
                with Client(8001) as client:
                    client.socket.shutdown(socket.SHUT_WR)
                    answers.append(client.hear())
            except OSError as error:
                answers.append(str(error))
            time.sleep(0.01)


class PerConnectionTests(ServiceCase):
    """A container for each connection."""

    def serve_each(self, script: str = ECHO, **keys: Any) -> None:
        """Have such a service."""
        config = self.keep(script, **keys)
        self.up(echo={"config": config, "ports": ["8001:1"], "per_connection": True})

    def test_each_has_its_own(self) -> None:
        """Each connection is its program's input and output, in a container that ends with it."""
        self.serve_each()
        with Client(8001) as first, Client(8001) as second:
            self.assertEqual([first.ask("a"), second.ask("b")], ["a", "b"])
            names = [one["instance"] for one in self.instances()]
            self.assertEqual(len(names), 2)
            begun = "begun 127.0.0.1\n"
            wait_until(lambda: self.written(names[0], "stderr") == begun, "its log tells of it")
            for client in (first, second):
                client.socket.shutdown(socket.SHUT_WR)
                self.assertEqual([client.hear(), client.hear()], ["over", ""])
        wait_until(lambda: not self.instances(), "both are removed")

    def test_no_way_out(self) -> None:
        """It has no network, and its connection can't be connected to anything else."""
        self.serve_each(
            """
anew = struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", 22, bytes([127, 0, 0, 1]))
os.write(1, json.dumps({
    "family": int(socket.socket(fileno=os.dup(0)).family),
    "undone": libc.connect(0, bytes(16), 16),
    "anew": libc.connect(0, anew, 16),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "open": sorted(os.listdir("/proc/self/fd"))[:-1],
}).encode() + b"\\n")
"""
        )
        with Client(8001) as client:
            said = json.loads(client.hear())
        self.assertEqual(said["interfaces"], ["lo"])
        self.assertEqual((said["family"], said["undone"], said["anew"]), (socket.AF_UNIX, -1, -1))
        self.assertEqual(said["open"], ["0", "1", "2"])

    def test_manager_killed(self) -> None:
        """If the manager is killed, its connections end, none stays, and new ones come."""
        self.serve_each()
        with Client(8001) as client:
            self.assertEqual(client.ask("a"), "a")
            self.kill()
            self.assertEqual(client.hear(), "")
        self.start()
        with Client(8001) as client:
            self.assertEqual(client.ask("b"), "b")
            wait_until(lambda: len(self.instances()) == 1, "the other one is gone")
