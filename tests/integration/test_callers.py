"""A container that asks the manager: refused, however it comes by its connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from tests.integration.harness import cgroups_of, wait_until
from tests.integration.probes import ProbeCase

ASK = """
def ask(sock, request):
    "What the manager answers, until it hangs up."
    sock.settimeout(20)
    sock.sendall(request)
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts).decode()

def connect():
    sock = socket.socket()
    sock.connect(("127.0.0.1", {port}))
    return sock

def request(method, path, body=b""):
    head = f"{{method}} {{path}} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n"
    return head.encode() + b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body
"""
ALL = """
body = b'{body}'
tell(
    read=ask(connect(), request("GET", "/list")),
    launch=ask(connect(), request("POST", "/launch", body)),
    destroy=ask(connect(), request("DELETE", "/destroyall")),
)
"""
HANG_UP = """
for linger in (0, 1) * 100:
    sock = connect()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
    sock.sendall(request("POST", "/launch", b'{body}'))
    sock.close()
if not os.fork():
    time.sleep(1000)
os.kill(os.getpid(), 9)
"""
PASS_ON = """
import array
to = socket.socket(socket.AF_UNIX)
to.connect("\\x00{name}")
sock = connect()
passed = array.array("i", [sock.fileno()])
to.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
time.sleep(1000)
"""

UNIX = """
import socket
with open("{join}", "w") as group:
    group.write("0")
with socket.socket(socket.AF_UNIX) as client:
    client.connect("{path}")
    client.sendall(b"GET /list HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    print(client.recv(1000).decode())
"""


class CallerTests(ProbeCase):
    """On the host's network, from which the manager can be reached."""

    options = ("--unix-socket", "manager.sock")

    def script(self, text: str, **values: object) -> str:
        """A script that can ask the manager."""
        return (ASK + text).format(port=self.port, **values)

    def launch_body(self) -> str:
        """The body of a launch of a new config."""
        key = self.upload()
        return str(key).replace("'", '"')

    def test_refused(self) -> None:
        """It can neither read, nor launch, nor destroy; whoever is outside still can."""
        probe = self.script(ALL, body=self.launch_body())
        for keys in ({}, {"user_namespace": True}):
            before = self.launch(**self.job("#!/bin/sh\nsleep 1000\n"))
            told = self.probe(probe, **keys)
            for what, answer in told.items():
                self.assertTrue(answer.startswith("HTTP/1.1 403 Forbidden"), (what, answer))
                self.assertIn("inside of the container test-", answer)
            self.assertEqual(self.running(), [before])
            self.ask("DELETE", "/destroyall")

    def test_may_manage(self) -> None:
        """It can where its config says so, and the journal tells of it."""
        instance = self.start_probe(self.script(ALL, body=self.launch_body()), manage=True)
        wait_until(lambda: not self.running(), "it has destroyed all")
        events = self.ask("GET", "/events").body.decode()
        self.assertIn(f"loopback in {instance}", events)

    def test_hang_up(self) -> None:
        """Who hangs up at once, or ends at once, is not taken for someone else."""
        self.launch(**self.job("#!/bin/sh\nsleep 1000\n"))
        body, known = self.launch_body(), self.running()
        ended = self.start_probe(self.script(HANG_UP, body=body))
        self.assertEqual(self.ask("GET", f"/instances/{ended}/wait").status, 200)
        self.assertEqual(self.running(), known)
        self.assertEqual(self.ask("GET", "/events").body.count(b'"what":"starting"'), 2)

    def test_passed_on(self) -> None:
        """A connection that was made inside stays one, whoever uses it."""
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(30)
            server.bind("")
            server.listen()
            name = server.getsockname()[1:].decode()
            self.start_probe(self.script(PASS_ON, name=name))
            client, _ = server.accept()
            with client:
                _, (descriptor,), _, _ = socket.recv_fds(client, 1, 1)
            with socket.socket(fileno=descriptor) as passed:
                passed.sendall(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertTrue(passed.recv(1000).startswith(b"HTTP/1.1 403"))

    def test_unix_socket(self) -> None:
        """A process of a container's group is known at the unix socket too."""
        self.launch(**self.job("#!/bin/sh\nsleep 1000\n"))
        groups = [group for top in cgroups_of(self.state) for group in top.glob("[0-9a-f]*/")]
        joins = [
            group / name
            for group in groups
            for name in ("tasks", "cgroup.procs")
            if (group / name).exists()
        ]
        path = str(self.folder / "manager.sock")
        for join, status in ((os.devnull, b"200"), (joins[0], b"403")):
            script = UNIX.format(join=join, path=path)
            asked = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
            self.assertEqual(asked.stdout[9:12], status, join)
