"""HTTP on one connection that stays open, over TCP or a unix socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from subprocess import Popen
from typing import Any
from urllib.parse import unquote


class Refused(Exception):
    """An answer that is an error."""


class Connection(HTTPConnection):
    """To a server on this host's TCP port."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port, timeout=60)

    def connect(self) -> None:
        """Connect; small requests go out at once."""
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send_off(self, method: str, path: str, document: Any = None) -> None:
        """Send a request, with a document as JSON."""
        body = json.dumps(document).encode() if document is not None else None
        self.request(method, path, body, {"Content-Type": "application/json"} if body else {})

    def answer(self) -> Any:
        """Wait for the answer, and return its document; None where it has none.

        Raises Refused.
        """
        response = self.getresponse()
        body = response.read()
        if response.status >= 300:
            reason = response.getheader("Txcontain-Reason") or body.decode(errors="replace")
            raise Refused(f"{response.status}: {unquote(reason).strip()}")
        return json.loads(body) if body else None

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """Send a request and wait for the answer."""
        self.send_off(method, path, document)
        return self.answer()


class UnixConnection(Connection):
    """To a server on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__(0)
        self.path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_until(
    connection: Connection, path: str, is_right: Callable[[Any], bool], server: Popen[bytes]
) -> Any:
    """Ask a server that may still be starting, until its answer is right.

    Raises Refused where it has ended, or is not right within a minute.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            answer = connection.ask("GET", path)
            if is_right(answer):
                return answer
        except (OSError, HTTPException):
            connection.close()
        time.sleep(0.002)
    raise Refused(f"GET {path} is not answered as it should by {server.args!r}")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
