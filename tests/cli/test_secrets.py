"""Commands for secrets, against a fake manager in memory."""

import io
import sys
from typing import Any

from tests.cli.session import Session
from txcontain.cli import secrets


class SecretTests(Session):
    """secrets ls, set and rm."""

    def type(self, content: bytes) -> None:
        """Have this on standard input."""
        stdin: Any = io.TextIOWrapper(io.BytesIO(content))
        self.patch(sys, "stdin", stdin)

    def test_set(self) -> None:
        """What comes on standard input is sent byte for byte, and not printed."""
        self.manager.answers_to("PUT /secrets/db")
        self.type(b"\0secret\xff\n")
        self.assertEqual(self.run_command("secret", "set", "db"), 0)
        self.assertEqual(self.manager.asked, [("PUT /secrets/db", b"\0secret\xff\n")])
        self.assertEqual((self.out, self.err), ("", ""))

    def test_typed(self) -> None:
        """On a terminal it is asked for, and not shown."""
        self.manager.answers_to("PUT /secrets/db")
        self.type(b"")
        self.patch(sys.stdin, "isatty", lambda: True)
        self.patch(secrets, "getpass", lambda prompt: "sécret")
        self.assertEqual(self.run_command("secrets", "set", "db"), 0)
        self.assertEqual(self.manager.asked, [("PUT /secrets/db", "sécret".encode())])

    def test_no_secret(self) -> None:
        """Nothing, and too much, is not sent."""
        for content in (b"", b"secret" * 11_000):
            self.type(content)
            self.assertEqual(self.run_command("secret", "set", "db"), 1)
        said = "A secret has 1 to 65536 bytes: send it to standard input.\n"
        self.assertEqual((self.err, self.manager.asked), (said * 2, []))
        self.assertRaises(SystemExit, self.run_command, "secret", "set", "../db")

    def test_ls(self) -> None:
        """The names are a table, with who has each."""
        kept = [{"name": "db", "instances": ["a", "b"]}, {"name": "key", "instances": []}]
        self.manager.answers_to("GET /secrets", {"secrets": kept})
        self.assertEqual(self.run_command("secrets"), 0)
        self.assertEqual(self.out, "NAME  INSTANCES\ndb    a b\nkey   -\n")

    def test_rm(self) -> None:
        """Each that was removed is named."""
        for name in ("db", "key"):
            self.manager.answers_to(f"DELETE /secrets/{name}")
        self.assertEqual(self.run_command("secrets", "rm", "db", "key"), 0)
        self.assertEqual(self.out, "db\nkey\n")
