"""Who may ask, against the real manager: its sockets, its keys, its journal, and the CLI."""

import contextlib
import json
import os
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

from tests.certificates import Authority
from tests.integration.harness import PATIENCE, PROJECT, ManagerCase, ask_on, listens
from tests.support import MEASURED, TWISTD

NOBODY = 65534  # a user and a group of every Debian


@contextlib.contextmanager
def acting_as(uid: Any, gid: Any) -> Iterator[None]:
    """Be another user, as the kernel sees it, for a while."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class UnixConnection(HTTPConnection):
    """To a unix socket, as a user of this host."""

    def __init__(self, path: Any, uid: int = 0, gid: int = 0) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path, self.user = str(path), (uid, gid)

    def connect(self) -> None:
        """Connect: who does is what the kernel keeps."""
        self.sock = socket.socket(socket.AF_UNIX)
        with acting_as(*self.user):
            self.sock.connect(self.path)


class AccessCase(ManagerCase):
    """A test with a manager that may have keys."""

    def add_images(self) -> None:
        """Put keys beside the images."""
        super().add_images()
        os.chmod(self.folder, 0o755)  # others must reach the socket in it
        self.authority = Authority(self.folder)
        self.authority.issue("manager", "127.0.0.1")
        self.write_tokens(ann=("write", "s3cret"), bob=("read", "0ther"))

    def write_tokens(self, **holders: Any) -> None:
        """Replace the file of tokens."""
        lines = [
            f"{name} {role} {sha256(token.encode()).hexdigest()}\n"
            for name, (role, token) in holders.items()
        ]
        new = self.folder / "tokens.new"
        new.write_text("".join(lines))
        new.chmod(0o600)
        new.rename(self.folder / "tokens")

    def cli(self, *words: str, **environment: str) -> Any:
        """The exit status of a command, and what it says."""
        done = subprocess.run(
            [PROJECT / "cli/txcontain", *words],
            env={"PATH": os.defpath, "TXCONTAIN_URL": self.url, **MEASURED, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def who(self) -> Any:
        """What the journal tells of, and who asked for it."""
        events = map(json.loads, self.ask("GET", "/events").body.splitlines())
        return {(event["what"], event.get("by")) for event in events}


class LoopbackTests(AccessCase):
    """As the course has it."""

    def test_journal(self) -> None:
        """Every change over TCP is written down as asked for on this host."""
        instance = self.launch()
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        for what in ("config", "starting", "running", "stopping", "destroyed"):
            self.assertIn((what, "loopback"), self.who())

    def test_refuses_to_start(self) -> None:
        """Beyond loopback without keys there is no manager, but a sentence."""
        words = ["-n", "--pidfile=", "containerd-lite", "--interface", "0.0.0.0"]
        done = subprocess.run(
            [TWISTD, *words],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("needs --tls-cert and --tls-key", done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stdout + done.stderr)


class UnixSocketTests(AccessCase):
    """A unix socket, beside TCP."""

    options: tuple[str, ...] = ("--unix-socket", "api.sock", "--unix-group", str(NOBODY))

    def test_mode(self) -> None:
        """It is root's and the group's, and no one else's."""
        status = (self.folder / "api.sock").stat()
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o660)
        self.assertEqual((status.st_uid, status.st_gid), (0, NOBODY))

    def test_group(self) -> None:
        """A member of the group may ask, and the journal has the uid that the kernel saw."""
        for uid, gid in ((1234, NOBODY), (0, 0)):
            connection = UnixConnection(self.folder / "api.sock", uid, gid)
            self.addCleanup(connection.close)
            answer = ask_on(connection, "POST", "/config", self.config())
            self.assertEqual(answer.status, 200)
            self.assertIn(("config", f"uid {uid}"), self.who())

    def test_others(self) -> None:
        """Another user can't even connect."""
        connection = UnixConnection(self.folder / "api.sock", 1234, 1234)
        self.addCleanup(connection.close)
        self.assertRaises(PermissionError, connection.connect)

    def test_killed(self) -> None:
        """A manager that was killed leaves its socket; the next one takes its place."""
        self.manager.kill()
        self.manager.wait()
        self.assertTrue((self.folder / "api.sock").is_socket())
        self.start()
        connection = UnixConnection(self.folder / "api.sock")
        self.addCleanup(connection.close)
        self.assertEqual(ask_on(connection, "GET", "/list").status, 200)

    def test_cli(self) -> None:
        """The CLI speaks through it, and a launch through it is root's."""
        key = self.upload()
        url = f"unix:{self.folder}/api.sock"
        status, said = self.cli("launch", *key.values(), TXCONTAIN_URL=url)
        self.assertEqual(status, 0, said)
        self.assertIn(("running", "uid 0"), self.who())
        self.assertEqual(self.cli("--url", url, "destroyall"), (0, "Success\n"))

    def test_cli_without_manager(self) -> None:
        """Where there is no such socket, the CLI says which it was looking for."""
        status, said = self.cli("--url", f"unix:{self.folder}/none.sock", "list")
        self.assertEqual(status, 1)
        self.assertIn(f"Can't connect to unix:{self.folder}/none.sock", said)


class UnixAloneTests(AccessCase):
    """Only a unix socket."""

    options: tuple[str, ...] = ("--unix-socket", "api.sock", "--port", "0")

    def answers(self) -> Any:
        """Whether the manager answers already."""
        with contextlib.suppress(OSError):
            return self.ask("GET", "/list").status == 200
        return False

    def ask(self, *request: Any, **headers: str) -> Any:
        """Ask the manager."""
        connection = UnixConnection(self.folder / "api.sock")
        self.addCleanup(connection.close)
        return ask_on(connection, *request, **headers)

    def test_no_tcp(self) -> None:
        """No TCP port is open then: a container on the host's network has no way in."""
        self.assertFalse(listens(self.port))
        self.assertEqual(self.ask("GET", "/list").status, 200)


class TokenTests(AccessCase):
    """Tokens on loopback, which then no one passes without."""

    options: tuple[str, ...] = ("--tokens", "tokens")
    token = "s3cret"

    def ask(self, *request: Any, **headers: str) -> Any:
        """Ask as the holder of a token."""
        return super().ask(*request, Authorization=f"Bearer {self.token}", **headers)

    def test_roles(self) -> None:
        """Who has no token is unknown, who may read may not write, and who may write does."""
        for token, reading, writing in (("x", 401, 401), ("0ther", 200, 403), ("s3cret", 200, 200)):
            self.token = token
            self.assertEqual(self.ask("GET", "/list").status, reading)
            self.assertEqual(self.ask("POST", "/config", self.config()).status, writing)
        self.assertEqual({by for what, by in self.who() if what == "config"}, {"token ann"})

    def test_revoked(self) -> None:
        """A line that is taken out of the file counts no more, at once."""
        self.write_tokens(ann=("write", "new"))
        self.assertEqual(self.ask("GET", "/list").status, 401)
        self.token = "new"
        self.assertEqual(self.ask("GET", "/list").status, 200)

    def test_cli(self) -> None:
        """The CLI shows TXCONTAIN_TOKEN, and says what is missing without."""
        status, said = self.cli("list")
        self.assertEqual(status, 1)
        self.assertIn("TXCONTAIN_TOKEN", said)
        self.assertEqual(self.cli("list", TXCONTAIN_TOKEN="0ther"), (0, ""))
        status, said = self.cli("destroyall", TXCONTAIN_TOKEN="0ther")
        self.assertEqual(status, 1)
        self.assertIn("Failure\nthis caller has read-only access", said)

    def test_made_by_the_cli(self) -> None:
        """`txcontain token` makes one that is good as soon as its line is in the file."""
        status, said = self.cli("token", "eve", "write")
        token, line = said.splitlines()
        self.assertEqual(status, 0)
        with open(self.folder / "tokens", "a") as file:
            file.write(line + "\n")
        self.token = token.removeprefix("TXCONTAIN_TOKEN=")
        self.assertEqual(self.ask("POST", "/config", self.config()).status, 200)

    def test_in_the_clear(self) -> None:
        """The CLI does not send a token where others could read it."""
        status, said = self.cli("--url", "http://host.example", "list", TXCONTAIN_TOKEN="s3cret")
        self.assertEqual(status, 1)
        self.assertIn("could read the token over http://host.example: use https", said)


class TlsCase(AccessCase):
    """A manager on all addresses, over TLS."""

    tls = ("--interface", "0.0.0.0", "--tls-cert", "manager.crt", "--tls-key", "manager.key")

    def setUp(self) -> None:
        self.context = ssl.create_default_context()
        super().setUp()

    def add_images(self) -> None:
        """Trust the test's own CA."""
        super().add_images()
        self.context.load_verify_locations(self.authority.certificate)

    def connection(self, context: Any = None) -> Any:
        """A connection to the manager."""
        return HTTPSConnection(
            "127.0.0.1", self.port, timeout=PATIENCE, context=context or self.context
        )

    def ask(self, method: str, path: Any, body: Any = None, **headers: str) -> Any:
        """Ask the manager over TLS."""
        connection = self.connection()
        try:
            return ask_on(connection, method, path, body, **headers)
        finally:
            connection.close()

    def start(self, **environment: str) -> None:
        """Start the manager; its URL is one of TLS."""
        self.url = f"https://127.0.0.1:{self.port}"
        super().start(**environment)


class TlsTokenCase(TlsCase):
    """A manager that is asked over TLS with a token."""

    options: tuple[str, ...] = (*TlsCase.tls, "--tokens", "tokens")

    def ask(self, *request: Any, **headers: str) -> Any:
        """Ask as one who may write, unless the test says otherwise."""
        return super().ask(*request, **{"Authorization": "Bearer s3cret", **headers})


class TlsTokenTests(TlsTokenCase):
    """Over TLS with tokens."""

    def test_tokens(self) -> None:
        """Tokens count as on loopback; whatever name the manager is called by."""
        self.assertEqual(self.ask("GET", "/list", Authorization="x").status, 401)
        for host in ("localhost", "host.example:8080", "127.0.0.1"):
            self.assertEqual(self.ask("GET", "/list", Host=host).status, 200)
        self.assertEqual(self.ask("GET", "/list", Origin="https://evil.example").status, 403)
        self.assertEqual(self.ask("POST", "/config", self.config()).status, 200)
        self.assertIn(("config", "token ann"), self.who())

    def test_cli(self) -> None:
        """The CLI believes the CA it is told of, and no other, and shows its token."""
        words, token = ("--ca", "test CA.pem", "cfginfo"), {"TXCONTAIN_TOKEN": "s3cret"}
        self.assertEqual(self.cli(*words, **token), (0, ""))
        status, said = self.cli("cfginfo", **token)
        self.assertEqual(status, 1)
        self.assertIn(f"No trust between {self.url} and this side", said)
        status, said = self.cli("--ca", "tokens", "cfginfo", **token)
        self.assertEqual(status, 1)
        self.assertIn("tokens: this is not what it should be, in PEM form", said)
        status, said = self.cli(*words)
        self.assertEqual(status, 1)
        self.assertIn("TXCONTAIN_TOKEN", said)

    def test_plain_http(self) -> None:
        """Who speaks plain HTTP to it learns nothing, and the next one is answered."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertNotIn(b"HTTP/1.1", client.recv(1000))
        self.assertEqual(self.ask("GET", "/list").status, 200)

    def test_old_versions(self) -> None:
        """No version of TLS before 1.2 is spoken."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        self.assertRaises(ssl.SSLError, self.connection(context).connect)

    def test_no_handshake(self) -> None:
        """Who never finishes the handshake is cut off, and holds no one up meanwhile."""
        clients = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(50)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"\x16\x03\x01\x02\x00")
        # This has less patience than the manager has with those.
        self.assertEqual(self.ask("GET", "/list").status, 200)


class ImpatientTests(TlsTokenCase):
    """Over TLS with little patience."""

    options: tuple[str, ...] = (*TlsTokenCase.options, "--idle-timeout", "1")

    def test_cut_off(self) -> None:
        """A handshake that is not finished is ended by the idle time-out."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(b"\x16\x03\x01\x02\x00")
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(client.recv(1000), b"")


class CertificateCase(TlsCase):
    """A manager that is asked over TLS with a client certificate."""

    options: tuple[str, ...] = (*TlsCase.tls, "--tls-client-ca", "test CA.pem")

    def add_images(self) -> None:
        """Make certificates: one for us, one from a CA that no one trusts."""
        super().add_images()
        self.context.load_cert_chain(*self.authority.issue("ann"))
        self.strange = ssl.create_default_context(cafile=self.authority.certificate)
        strangers = Authority(self.folder, "another CA").issue("eve")
        self.strange.load_cert_chain(*strangers)


class CertificateTests(CertificateCase):
    """Over TLS with client certificates."""

    def test_known(self) -> None:
        """Who shows a certificate of the CA is its common name, and may do all."""
        self.assertEqual(self.ask("POST", "/config", self.config()).status, 200)
        self.assertIn(("config", "certificate ann"), self.who())

    def test_unknown(self) -> None:
        """Who shows none, or another CA's, gets no answer at all."""
        none = ssl.create_default_context(cafile=self.authority.certificate)
        for context in (none, self.strange):
            with self.assertRaises(OSError):  # by TLS 1.3, with the first that is read
                ask_on(self.connection(context), "GET", "/list")

    def test_cli(self) -> None:
        """The CLI shows its certificate."""
        words = ("--ca", "test CA.pem", "--cert", "ann.crt", "--key", "ann.key", "cfginfo")
        self.assertEqual(self.cli(*words), (0, ""))
        status, said = self.cli("--ca", "test CA.pem", "cfginfo")
        self.assertEqual(status, 1)
        self.assertIn("No trust between", said)


class EitherTests(CertificateCase):
    """Over TLS with client certificates or tokens."""

    options: tuple[str, ...] = (*CertificateCase.options, "--tokens", "tokens")

    def test_known(self) -> None:
        """A certificate will do, without a token."""
        self.assertEqual(self.ask("POST", "/config", self.config()).status, 200)
        self.assertIn(("config", "certificate ann"), self.who())

    def test_unknown(self) -> None:
        """A token will do; neither won't; a certificate that can't be trusted is refused."""
        none = ssl.create_default_context(cafile=self.authority.certificate)
        for token, status in (("Bearer 0ther", 200), ("", 401)):
            answer = ask_on(self.connection(none), "GET", "/list", Authorization=token)
            self.assertEqual(answer.status, status)
        with self.assertRaises(OSError):
            ask_on(self.connection(self.strange), "GET", "/list", Authorization="Bearer s3cret")
