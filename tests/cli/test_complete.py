"""What a shell completes words with."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cli.session import Session
from txcontain.cli import complete, main
from txcontain.cli.commands import COMMANDS

PROJECT = Path(__file__).resolve().parents[2]
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
INSTANCES = {"instances": [{"instance": "web-1"}, {"instance": "db\x1b"}]}
CONFIGS = {
    "configs": [
        {"name": "web", "major": "1", "minor": "01"},
        {"name": "web", "major": "1", "minor": "2"},
    ]
}


class NameTests(Session):
    """`txcontain complete`, against a manager at the other end of a socket."""

    def printed(self, kind: str, answer: bytes, **environment: str) -> list[str]:
        """Return the names that are printed if the manager answers this."""
        ours, its = socket.socketpair()
        self.patch(complete, "connected", lambda _: ours)
        its.sendall(answer)
        its.shutdown(socket.SHUT_WR)
        before = len(self.out)
        arguments = main.parse(["complete", kind], environment)
        self.assertEqual(complete.print_names(arguments), 0)
        self.asked = its.recv(1 << 16).decode()
        its.close()
        self.assertEqual(self.err, "")
        return self.out[before:].splitlines()

    def test_names(self) -> None:
        """Each kind of name is a line each, once, and escaped."""
        for kind, told, names in (
            ("instances", INSTANCES, ["web-1", "db\\x1b"]),
            ("configs", CONFIGS, ["web-1-01", "web-1-2"]),
            ("names", CONFIGS, ["web"]),
            ("secrets", {"secrets": [{"name": "dbpass", "instances": []}]}, ["dbpass"]),
            ("volumes", {"volumes": [{"volume": "pgdata"}]}, ["pgdata"]),
        ):
            self.assertEqual(self.printed(kind, HEAD + json.dumps(told).encode()), names)

    def test_token(self) -> None:
        """The token is shown to the manager."""
        self.printed("instances", HEAD, TXCONTAIN_TOKEN="abc")
        self.assertIn("\r\nAuthorization: Bearer abc\r\n", self.asked)
        self.printed("instances", HEAD)
        self.assertNotIn("Authorization", self.asked)

    def test_strange_answers(self) -> None:
        """An answer that can't be used gives no names, and no error in the line being typed."""
        self.patch(complete, "MOST", 1000)
        for answer in (
            b"",
            b"HTTP/1.0",
            HEAD,
            HEAD + b"[]",
            HEAD + b'{"instances": [1]}',
            HEAD + b'{"instances": [{"instance": 1}]}',
            HEAD + b'{"instances": [' + b" " * 2000 + b"]}",
            b"HTTP/1.0 401 Unauthorized\r\n\r\n" + json.dumps(INSTANCES).encode(),
        ):
            self.assertEqual(self.printed("instances", answer), [], answer)


class ConnectionTests(Session):
    """Where the names are asked for."""

    @contextmanager
    def mute(self) -> Iterator[str]:
        """The address of a unix socket at which nobody answers."""
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
            path = os.path.join(folder, "it")
            server.bind(path)
            server.listen()
            yield f"unix:{path}"

    def names(self, url: str) -> str:
        """Return what is printed for a manager at this address."""
        arguments = main.parse(["complete", "instances", "--url", url], {})
        self.assertEqual((complete.print_names(arguments), self.err), (0, ""))
        return self.out

    def test_mute(self) -> None:
        """A manager that does not answer soon is given up."""
        self.patch(complete, "WITHIN", 0.001)
        with self.mute() as url:
            self.assertEqual(self.names(url), "")

    def test_nobody(self) -> None:
        """If there is no manager, or only one over TLS, there are no names."""
        for url in ("unix:/no/such", "http://127.0.0.1:0", "https://localhost"):
            self.assertEqual(self.names(url), "")

    def test_program(self) -> None:
        """The program does it without Twisted, which takes a person's time at each Tab."""
        code = "import sys; from txcontain.cli import main; main.os._exit = sys.exit\n"
        code += "try: main.main()\nfinally: print(sorted({'twisted', 'treq'} & set(sys.modules)))"
        done: Any = subprocess.run(
            [sys.executable, "-c", code, "complete", "instances", "--url", "unix:/no/such"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual((done.returncode, done.stdout), (0, "[]\n"), done.stderr)


class FileTests(Session):
    """What scripts/make-shell-files makes of the parser."""

    def test_files(self) -> None:
        """bash can read its file and completes what is there; each file has every command."""
        folder = Path(self.mktemp()).absolute()
        script = PROJECT / "scripts/make-shell-files"
        subprocess.run([sys.executable, script, folder], check=True, timeout=60)
        bash = folder / "bash-completion/completions/txcontain"
        subprocess.run(["bash", "-n", bash], check=True, timeout=60)
        for argument, completed in (
            ("cp_pos_1", True),
            ("volumes_export_pos_1", True),
            ("volumes_rm_pos_0", True),
            ("launch___name", False),  # a new name: those there are would be refused
            ("run___name", False),
        ):
            self.assertEqual(f"_{argument}_COMPGEN=" in bash.read_text(), completed, argument)
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.assertEqual(len(files), 4)
        for file in files:
            text = file.read_text()
            self.assertEqual([one.name for one in COMMANDS if one.name not in text], [], file)
