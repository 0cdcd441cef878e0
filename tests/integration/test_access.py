"""Who may ask, against the real manager: its sockets, its keys, its journal, and the CLI."""

import grp
import os
import socket
import ssl
import stat
import subprocess
import sys
from hashlib import sha256
from http.client import HTTPConnection, HTTPSConnection

from tests.certificates import Authority
from tests.integration.harness import PATIENCE, PROJECT, ManagerCase, ask_on, wait_until

TOKENS = {"ann": ("write", "s3cret"), "bob": ("read", "0ther")}
GROUP = "nogroup"
NOBODY = 65534


class UnixConnection(HTTPConnection):
    """To a unix socket, as a user of this host."""

    def __init__(self, path, uid=0, gid=0):
        super().__init__("localhost", timeout=PATIENCE)
        self.path, self.user = str(path), (uid, gid)

    def connect(self):
        """Connect: who did is what the kernel keeps (SO_PEERCRED)."""
        self.sock = socket.socket(socket.AF_UNIX)
        os.setegid(self.user[1])
        os.seteuid(self.user[0])
        try:
            self.sock.connect(self.path)
        finally:
            os.seteuid(0)
            os.setegid(0)


class AccessCase(ManagerCase):
    """A test with a manager that has keys, and a CLI."""

    def setUp(self):
        self.environment = {}
        super().setUp()

    def add_images(self):
        """Put keys beside the images."""
        super().add_images()
        os.chmod(self.folder, 0o755)
        lines = [f"{name} {role} {sha256(token.encode()).hexdigest()}\n"
                 for name, (role, token) in TOKENS.items()]  # fmt: skip
        path = self.folder / "tokens"
        path.write_text("".join(lines))
        path.chmod(0o600)
        self.authority = Authority(self.folder)
        self.authority.issue("manager", "127.0.0.1")

    def cli(self, *words, **environment):
        """The exit status and the output of a command."""
        done = subprocess.run(
            [PROJECT / "cli/run", *words],
            env={"PATH": os.defpath, "TXCONTAIN_URL": self.url, **environment},
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def by(self):
        """What the journal tells of, and who asked for it."""
        lines = self.ask("GET", "/events").body.splitlines()
        return {(event["what"], event.get("by")) for event in map(self.parsed, lines)}

    @staticmethod
    def parsed(line):
        """A line's document."""
        import json

        return json.loads(line)


class LoopbackTests(AccessCase):
    """As the course has it."""

    def test_journal(self):
        """Every change over TCP is written down as asked for on this host."""
        instance = self.launch()
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        told = self.by()
        for what in ("config", "starting", "running", "stopping", "destroyed"):
            self.assertIn((what, "loopback"), told)

    def test_refuses_to_start(self):
        """Beyond loopback without keys there is no manager, but a sentence."""
        done = subprocess.run(
            [sys.executable, "-m", "twisted", "--help"], capture_output=True, check=False
        )
        done = subprocess.run(
            [sys.executable.replace("python", "twistd")
             if os.path.exists(sys.executable.replace("python", "twistd"))
             else os.path.join(os.path.dirname(sys.executable), "twistd"),
             "-n", "--pidfile=", "containerd-lite", "--interface", "0.0.0.0"],
            cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("needs --tls-cert and --tls-key", done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
