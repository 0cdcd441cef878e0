"""HTTP on one connection that stays open, over TCP or a unix socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from select import select
from subprocess import Popen
from typing import Any
from urllib.parse import unquote

TIMEOUT = 60  # seconds of silence


class Refused(Exception):
    """An answer that is an error."""


class Connection:
    """To a server on this host's TCP port.

    It does no more than has to be: http.client would be half a millisecond of what is measured.
    """

    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        self.token = token
        self._socket: socket.socket | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect; small requests go out at once."""
        connection = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._use(connection)

    def _use(self, connection: socket.socket) -> None:
        self._socket, self._file = connection, connection.makefile("rb")

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._socket is not None:
            self._file.close()
            self._socket.close()
            self._socket = None

    def send_off(self, method: str, path: str, document: Any = None) -> None:
        """Send a request, with a document as JSON."""
        self.send_bytes(method, path, b"" if document is None else json.dumps(document).encode())

    def send_bytes(self, method: str, path: str, body: bytes) -> None:
        """Send a request."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"Authorization: Bearer {self.token}"] if self.token else []
        if self._socket is None:
            self.connect()
        assert self._socket is not None
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self) -> Any:
        """Wait for the answer, and return its document; None where it has none.

        Raises Refused; OSError where the server hangs up.
        """
        body = self.answer_bytes()
        return json.loads(body) if body else None

    def answer_bytes(self) -> bytes:
        """Wait for the answer, and return its body; raises the same."""
        status, headers = self._head()
        body = self._body(headers)
        if status >= 300:
            reason = headers.get(b"txcontain-reason") or body
            raise Refused(f"{status}: {unquote(reason.decode(errors='replace')).strip()}")
        return body

    def first_piece(self) -> bytes:
        """The first chunk of an answer that goes on; raises as ``answer`` does."""
        status, headers = self._head()
        if status >= 300:
            raise Refused(unquote(headers.get(b"txcontain-reason", b"").decode()))
        return self._file.read(int(self._file.readline(), 16))

    def read_to_the_end(self) -> bytes:
        """An answer that ends with the connection."""
        status, _ = self._head()
        if status >= 300:
            raise Refused(str(status))
        return self._file.read()

    def _head(self) -> tuple[int, dict[bytes, bytes]]:
        line = self._file.readline()
        if not line:
            raise ConnectionError("the server has hung up")
        headers = {}
        while header := self._file.readline().strip():
            name, _, value = header.partition(b":")
            headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    def _body(self, headers: dict[bytes, bytes]) -> bytes:
        if headers.get(b"transfer-encoding") != b"chunked":
            return self._file.read(int(headers.get(b"content-length", 0)))
        chunks = []
        while size := int(self._file.readline(), 16):
            chunks.append(self._file.read(size))
            self._file.readline()
        self._file.readline()
        return b"".join(chunks)

    def ask(self, method: str, path: str, document: Any = None) -> Any:
        """Send a request and wait for the answer."""
        if self._socket is not None and select([self._socket], [], [], 0)[0]:
            self.close()  # nothing was asked, so the server has hung up: nobody spoke for too long
        self.send_off(method, path, document)
        return self.answer()


class UnixConnection(Connection):
    """To a server on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__(0)
        self.path = path

    def connect(self) -> None:
        """Connect."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(TIMEOUT)
        connection.connect(self.path)
        self._use(connection)


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
        except OSError:
            connection.close()
        time.sleep(0.002)
    raise Refused(f"GET {path} is not answered as it should by {server.args!r}")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
