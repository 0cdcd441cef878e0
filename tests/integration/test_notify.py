"""Notifications, to servers and programs that do not behave."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.harness import ManagerCase, free_port, wait_until

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Hook:
    """A server that reads each request, and answers as a test says."""

    def __init__(self, port: int) -> None:
        self.asked: list[Any] = []
        self.answer: Callable[[socket.socket], None] = lambda client: client.sendall(OK)
        self.server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:  # it was closed
                return
            threading.Thread(target=self._read, args=(client,), daemon=True).start()

    def _read(self, client: socket.socket) -> None:
        with client:
            data = b""
            while not data.endswith(b"}\n"):
                if not (part := client.recv(65536)):  # it has hung up
                    return
                data += part
            self.asked.append(json.loads(data.partition(b"\r\n\r\n")[2]))
            try:
                self.answer(client)
            except OSError:  # it has hung up, as it should
                self.asked.append("cut")

    def close(self) -> None:
        """Take no more."""
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


class NotifyTests(ManagerCase):
    """A manager that tells of failures."""

    def have_host(self) -> None:
        """Have a server and a program on it that are told."""
        super().have_host()
        port = free_port()
        self.hook = Hook(port)
        self.addCleanup(self.hook.close)
        self.notes = Path(self.mktemp())
        program = self.notes.with_suffix(".sh")
        program.parent.mkdir(parents=True, exist_ok=True)
        words = f"cat >> {self.notes.absolute()}; sleep 60 & echo $! > $0.pid; echo no >&2"
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o755)
        self.left_running = Path(f"{program.absolute()}.pid")
        self.options = (
            *("--notify", f"http://127.0.0.1:{port}/hook"),
            *("--notify-command", f"{program.absolute()} --to '$(ops)'"),
        )
        self.addCleanup(self.end_what_runs)

    def end_what_runs(self) -> None:
        """End what the program has left running: it may not keep anyone waiting."""
        if self.left_running.exists() and (pid := self.left_running.read_text()):
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(int(pid), signal.SIGKILL)

    def fail_once(self) -> str:
        """Launch an instance that fails; returns its name."""
        name = self.launch(**self.job("#!/bin/sh\nexit 3\n"))
        self.output_of(name)
        return name

    def told(self) -> list[Any]:
        """What the webhook was told, without what was cut."""
        return [one["instance"] for one in self.hook.asked if one != "cut"]

    def test_both(self) -> None:
        """The webhook and the program are told of a failure, each once."""
        name = self.fail_once()
        wait_until(lambda: self.told() == [name], "the webhook is told")
        (told,) = self.hook.asked
        self.assertEqual((told["kind"], told["reason"]), ("failure", "exit status 3"))
        wait_until(self.left_running.exists, "the program is told")
        self.assertEqual(json.loads(self.notes.read_text())["instance"], name)

    def test_refused(self) -> None:
        """One that redirects, or hangs up, is asked again; the redirect is not followed."""
        elsewhere = Hook(free_port())
        self.addCleanup(elsewhere.close)
        to = f"http://127.0.0.1:{elsewhere.server.getsockname()[1]}/"
        answers = [f"HTTP/1.1 307 Go\r\nLocation: {to}\r\n\r\n".encode(), b"", OK]
        self.hook.answer = lambda client: client.sendall(answers.pop(0) if answers else OK)
        name = self.fail_once()
        wait_until(lambda: self.told() == [name] * 3, "it is asked three times")
        self.assertEqual(elsewhere.asked, [])
        self.fail_once()
        wait_until(lambda: len(self.told()) == 4, "the next one is told")

    def test_endless(self) -> None:
        """One that answers without end has taken it; the connection is cut, and memory stays."""

        def answer(client: socket.socket) -> None:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                client.sendall(b"x" * 65536)

        self.hook.answer = answer
        name = self.fail_once()
        wait_until(lambda: self.hook.asked[1:] == ["cut"], "the connection is cut")
        self.assertEqual(self.told(), [name])

    def test_endless_head(self) -> None:
        """One that never ends the head of its answer is cut, too; the manager goes on."""

        def answer(client: socket.socket) -> None:
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                client.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
                time.sleep(0.0005)

        self.hook.answer = answer
        self.fail_once()
        wait_until(lambda: "cut" in self.hook.asked, "the connection is cut")
        self.assertEqual(self.ask("GET", "/healthz").body, b"ok\n")
