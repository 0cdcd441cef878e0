"""Who may ask, what for, and that it is written down."""

import errno
import gc
import json
import os
import socket
import weakref
from hashlib import sha256
from typing import Any, cast
from unittest import mock

from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.fakes import MachineTestCase, ManagerTestCase, make_folder
from tests.support import document
from txcontain.api import listen
from txcontain.api.access import READ, WRITE, Caller, Keys, Loopback, Peers, Tokens, read_tokens
from txcontain.api.server import ApiSite, Channel
from txcontain.cli import main, system
from txcontain.cli.client import Client
from txcontain.engine.this_host import ThisHost
from txcontain.host.kernel import Kernel
from txcontain.tap import Options


def line(name: str, role: str, token: bytes) -> str:
    """A line of a file of tokens."""
    return f"{name} {role} {sha256(token).hexdigest()}\n"


class TokenCase(SynchronousTestCase):
    """A test with a file of tokens."""

    def setUp(self) -> None:
        self.path = os.path.join(make_folder(self), "tokens")
        self.write(
            "# those of the test\n\n",
            line("ann", "write", b"s3cret"),
            line("bob", "read", b"0ther"),
        )

    def write(self, *lines: str) -> None:
        """Replace the file, as an administrator should: at once."""
        with open(self.path + ".new", "w") as file:
            file.writelines(lines)
        os.chmod(self.path + ".new", 0o600)
        os.replace(self.path + ".new", self.path)


class TokenTests(TokenCase):
    """Tokens, of which the file holds only hashes."""

    def test_known(self) -> None:
        """A token is known by its hash, and stands for its holder and role."""
        tokens = Tokens(self.path)
        self.assertEqual(tokens.caller(b"s3cret"), Caller("token ann", WRITE))
        self.assertEqual(tokens.caller(b"0ther"), Caller("token bob", READ))

    def test_unknown(self) -> None:
        """Any other token belongs to no one. A hash, which may have leaked, is not a token."""
        tokens = Tokens(self.path)
        for token in (b"", b"s3cre", b"s3crett", sha256(b"s3cret").hexdigest().encode()):
            self.assertIsNone(tokens.caller(token), token)

    def test_read_again(self) -> None:
        """The next request is checked against the file as it is then."""
        tokens = Tokens(self.path)
        tokens.caller(b"s3cret")
        self.write(line("eve", "read", b"new"))
        self.assertIsNone(tokens.caller(b"s3cret"))
        self.assertEqual(tokens.caller(b"new"), Caller("token eve", READ))

    def test_not_read_again(self) -> None:
        """A file that has not changed is read once."""
        tokens = Tokens(self.path)
        tokens.caller(b"s3cret")
        with mock.patch("txcontain.api.access.read_tokens", side_effect=AssertionError):
            self.assertIsNotNone(tokens.caller(b"s3cret"))

    def test_mistakes(self) -> None:
        """If the file has a mistake, is gone, or others may write to it, no one is known."""
        mistakes = (
            lambda: self.write(line("ann", "write", b"s3cret"), "what\n"),
            lambda: os.unlink(self.path),
            lambda: os.chmod(self.path, 0o666),
        )
        for make in mistakes:
            tokens = Tokens(self.path)
            self.assertIsNotNone(tokens.caller(b"s3cret"))
            make()
            self.assertIsNone(tokens.caller(b"s3cret"))
            self.write(line("ann", "write", b"s3cret"))
            self.assertIsNotNone(tokens.caller(b"s3cret"), "not mended")

    def test_which_line(self) -> None:
        """A mistake is named by its line, without what it says, which may be a token."""
        for wrong in (
            "ann write",
            f"ann admin {'0' * 64}",
            f"a/b read {'0' * 64}",
            "TOKEN",
            f"ann write {'0' * 63}",
            f"ann write {'0' * 64} x",
        ):
            self.write("# one\n", f"{wrong}\n")
            error = self.assertRaises(ValueError, read_tokens, self.path)
            self.assertIn("line 2", str(error))
            self.assertNotIn(wrong, str(error))

    def test_made(self) -> None:
        """What `txcontain token` prints is a token, and the line that makes it known."""
        secrets = set()
        for _ in range(2):
            with mock.patch("builtins.print") as printed:
                arguments = main.parse(["token", "ann", "read"], {})
                self.successResultOf(
                    Deferred.fromCoroutine(system.token(cast(Client, None), arguments))
                )
            (shown,), (known,) = (call.args for call in printed.call_args_list)
            self.write(known + "\n")
            token = shown.removeprefix("TXCONTAIN_TOKEN=").encode()
            self.assertEqual(Tokens(self.path).caller(token), Caller("token ann", READ))
            secrets.add(token)
        self.assertEqual(len(secrets), 2)


class FromTransport:
    """A TLS transport that has verified a certificate, or none."""

    def __init__(self, certificate: Any) -> None:
        self._certificate = certificate

    def getPeerCertificate(self) -> Any:
        return self._certificate


class CallerTests(TokenCase):
    """How each kind of socket knows its callers."""

    def test_loopback(self) -> None:
        """On loopback everyone may do all."""
        self.assertEqual(Loopback().caller(None, None), Caller("loopback"))
        self.assertEqual(Loopback().caller(None, b"Bearer nonsense").role, WRITE)

    def test_peer(self) -> None:
        """On a unix socket the kernel says who the caller is, whatever the request says."""
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        transport = mock.Mock(socket=here)
        self.assertEqual(Peers().caller(transport, b"Bearer x").name, f"uid {os.geteuid()}")

    def test_bearer(self) -> None:
        """A token comes as RFC 6750 says; any other Authorization belongs to no one."""
        keys = Keys(Tokens(self.path), certificates=False)
        for right in (b"Bearer s3cret", b"bearer s3cret", b"Bearer  s3cret "):
            self.assertEqual(keys.caller(None, right), Caller("token ann"))
        for wrong in (
            None,
            b"",
            b"s3cret",
            b"Basic s3cret",
            b"Bearer",
            b"Bearer s3cret x",
            b"Bearer s3cret,0ther",
            b"Bearer \xff",
        ):
            self.assertIsNone(keys.caller(None, wrong), wrong)

    def test_certificate(self) -> None:
        """A client certificate stands for its common name; a caller without one is unknown."""
        authority = Authority(make_folder(self))
        keys = Keys(None, certificates=True)
        for name, caller in (("ann", Caller("certificate ann")), ("", None)):
            path, _ = authority.issue(name)
            with open(path, "rb") as file:
                certificate = load_certificate(FILETYPE_PEM, file.read())
            self.assertEqual(keys.caller(FromTransport(certificate), None), caller)
        self.assertIsNone(keys.caller(FromTransport(None), b"Bearer s3cret"))

    def test_either(self) -> None:
        """If both are asked for, either is enough."""
        keys = Keys(Tokens(self.path), certificates=True)
        caller = keys.caller(FromTransport(None), b"Bearer 0ther")
        self.assertEqual(caller, Caller("token bob", READ))

    def test_roles(self) -> None:
        """The role read allows the safe methods, the role write all of them."""
        reader, writer = Caller("a", READ), Caller("b", WRITE)
        for method in (b"GET", b"HEAD", b"OPTIONS", b"POST", b"DELETE", b"PUT", b"get", b"X"):
            self.assertEqual(reader.may(method), method in (b"GET", b"HEAD", b"OPTIONS"), method)
            self.assertTrue(writer.may(method))


class SiteCase(ManagerTestCase):
    """A test of a server and its manager, from the bytes of a request to the journal."""

    access: Any = Loopback()

    def setUp(self) -> None:
        super().setUp()
        self.site = ApiSite(ThisHost(self.manager), access=self.access)

    def connect(self) -> tuple[Channel, StringTransport]:
        """A connection and what is sent on it."""
        connection, transport = self.site.buildProtocol(None), StringTransport()
        connection.makeConnection(transport)
        self.addCleanup(connection.connectionLost, ConnectionError())
        return connection, transport

    def ask(
        self, method: str, path: str, *headers: str, body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """A request's status, headers (in lower case) and body."""
        connection, transport = self.connect()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        lines += [f"Content-Length: {len(body)}", "", ""]
        connection.dataReceived("\r\n".join(lines).encode() + body)
        self.reactor.advance(0)
        head, _, content = transport.value().partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        named = dict(field.split(": ", 1) for field in fields)
        return int(status.split()[1]), {k.lower(): v for k, v in named.items()}, content

    def asked_by(self) -> list[Any]:
        """What the journal tells of, and who asked for it."""
        self.manager.journal.write()
        return [(event["what"], event.get("by")) for event in self.manager.journal.since(0)]


class KeyTests(TokenCase, SiteCase):
    """A server that asks for tokens."""

    def setUp(self) -> None:
        TokenCase.setUp(self)
        self.access = Keys(Tokens(self.path), certificates=False)
        SiteCase.setUp(self)

    def test_unknown(self) -> None:
        """A caller with no token, or a wrong one, gets 401, and is told what to send."""
        for headers in ((), ("Authorization: Bearer wrong",)):
            for path in ("/list", "/nowhere", "/openapi.json"):
                status, told, body = self.ask("GET", path, *headers)
                self.assertEqual((status, body), (401, b""))
                self.assertEqual(told["www-authenticate"], 'Bearer realm="txcontain"')

    def test_for_anyone(self) -> None:
        """Whether the manager works is told without a token; but no more, and nothing is done."""
        for path in ("/healthz", "/readyz", "/healthz/"):
            self.assertEqual(self.ask("GET", path)[::2], (200, b"ok\n"))
            self.assertEqual(self.ask("POST", path)[0], 401)
        for path in ("/healthz/..", "/healthz/x", "//healthz", "/healthz/../list"):
            self.assertEqual(self.ask("GET", path)[0], 401, path)

    def test_nothing_kept(self) -> None:
        """Nothing that an unknown caller sends is kept."""
        connection, _ = self.connect()
        connection.dataReceived(
            b"POST /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n" + b"x" * 999
        )
        (request,) = connection.requests
        self.assertEqual(request.content.seek(0, 2), 0)

    def test_nothing_is_kept(self) -> None:
        """Once a caller was refused and has gone, nothing of it is left in memory."""
        gone = []
        for _ in range(3):
            connection, transport = self.site.buildProtocol(None), StringTransport()
            connection.makeConnection(transport)
            connection.dataReceived(b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertIn(b"401", transport.value())
            connection.connectionLost(ConnectionError())
            gone.append(weakref.ref(connection))
        self.reactor.advance(1)
        del connection, transport
        gc.collect()
        self.assertEqual([one() for one in gone], [None] * 3)

    def test_one_answer(self) -> None:
        """An unknown caller gets one answer, however much it sends, and its body costs nothing."""
        head = b"POST /config HTTP/1.1\r\nHost: localhost\r\n"
        for headers in (b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 9999999\r\n"):
            connection, transport = self.connect()
            connection.dataReceived((head + headers + b"\r\n") * 9)
            self.reactor.advance(1)
            self.assertEqual(transport.value().count(b"HTTP/1.1 401"), 1, headers)
            self.assertIn(b"Connection: close", transport.value())
            self.assertTrue(transport.disconnecting)

    def test_reader(self) -> None:
        """A caller with the role read is answered, and gets 403 if something would change."""
        bearer = "Authorization: Bearer 0ther"
        self.assertEqual(self.ask("GET", "/list", bearer)[0], 200)
        for method, path in (
            ("POST", "/config"),
            ("POST", "/launch"),
            ("POST", "/doctor"),
            ("DELETE", "/destroyall"),
            ("PUT", "/list"),
        ):
            status, told, _ = self.ask(method, path, bearer, body=document())
            self.assertEqual(status, 403, path)
            self.assertIn("role is write", told["txcontain-reason"])
        self.assertEqual(self.manager.configs.names(), [])

    def test_writer(self) -> None:
        """A caller with the role write may change things, under the name of its token."""
        bearer = "Authorization: Bearer s3cret"
        self.assertEqual(self.ask("POST", "/config", bearer, body=document())[0], 200)
        self.assertEqual(self.asked_by(), [("config", "token ann")])


class AuditTests(SiteCase):
    """The journal says who asked."""

    access = mock.Mock(caller=lambda *_: Caller("token ann"))

    def launch_by_http(self) -> str:
        """Launch a container over HTTP; return its name."""
        self.ask("POST", "/config", body=document(restart="always"))
        status, _, body = self.ask(
            "POST", "/launch", body=b'{"name": "web", "major": "1", "minor": "01"}'
        )
        self.assertEqual(status, 200)
        return json.loads(body)["instance"]

    def test_life(self) -> None:
        """Every change that was asked for has its name, through all waits of a launch."""
        name = self.launch_by_http()
        self.ask("DELETE", f"/destroy/{name}")
        self.reactor.advance(10)
        told = self.asked_by()
        self.assertEqual(
            {what for what, by in told if by == "token ann"}
            >= {"config", "starting", "running", "stopping", "destroyed"},
            True,
            told,
        )

    def test_by_itself(self) -> None:
        """What happens by itself has no name: an end, a start after it."""
        name = self.launch_by_http()
        before = len(self.asked_by())
        self.manager.find(name).processes.kill("why")
        self.reactor.advance(1)
        self.reactor.advance(1)
        told = self.asked_by()[before:]
        self.assertIn(("running", None), told)
        self.assertEqual({by for _, by in told}, {None})

    def test_all(self) -> None:
        """Each that a destroyall ends is a line with a name."""
        self.launch_by_http()
        self.ask("DELETE", "/destroyall")
        self.reactor.advance(10)
        self.assertIn(("destroyed", "token ann"), self.asked_by())

    def test_doctor(self) -> None:
        """What a doctor removes is a line with a name."""
        os.mkdir(os.path.join(self.folder, "instances", "lost"))
        self.ask("POST", "/doctor")
        self.reactor.advance(1)
        self.assertIn(("doctor", "token ann"), self.asked_by())


class OptionTests(SynchronousTestCase):
    """What the manager refuses to begin with."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.authority = Authority(self.folder)
        self.cert, self.key = self.authority.issue("manager")
        self.tokens = os.path.join(self.folder, "tokens")
        self.put("tokens", line("ann", "write", b"s3cret"))
        self.files = {
            "CERT": self.cert,
            "KEY": self.key,
            "CA": self.authority.certificate,
            "TOKENS": self.tokens,
        }

    def put(self, name: str, text: str) -> str:
        """Write a file that only its owner may change; return its path."""
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o600)
        return path

    def parse(self, words: str) -> Options:
        """The options of a command line, in which CERT, KEY, CA and TOKENS are files."""
        options = Options()
        options.parseOptions([self.files.get(word, word) for word in words.split()])
        return options

    def refused(self, words: str) -> str:
        """Why a command line is refused: one sentence."""
        reason = str(self.assertRaises(UsageError, self.parse, words))
        self.assertNotIn("\n", reason)
        return reason

    def test_loopback(self) -> None:
        """The manager may listen on any loopback address without TLS."""
        for interface in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
            self.parse(f"--interface {interface}")

    def test_beyond_loopback(self) -> None:
        """Any other address needs TLS and keys; the error says what is missing."""
        for interface in ("0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0"):
            for words in ("", "--tokens TOKENS", "--tls-cert CERT --tls-key KEY"):
                reason = self.refused(f"--interface {interface} {words}")
                for option in ("--tls-cert", "--tls-key", "--tokens", "--tls-client-ca"):
                    self.assertIn(option, reason)
        self.assertIn("other hosts", self.refused("--interface="))

    def test_no_address(self) -> None:
        """A text that is no address is refused as such, with keys or without."""
        for interface in ("nonsense", "host.example", "2130706433", "127.1", "10.0.0.1/8"):
            for keys in ("", "--tls-cert CERT --tls-key KEY --tokens TOKENS"):
                reason = self.refused(f"--interface {interface} {keys}")
                self.assertIn(f"--interface {interface} is not an address of this host", reason)

    def test_with_keys(self) -> None:
        """With TLS, and tokens or certificates or both, any address is accepted."""
        for keys in ("--tokens TOKENS", "--tls-client-ca CA", "--tokens TOKENS --tls-client-ca CA"):
            self.parse(f"--interface 0.0.0.0 --tls-cert CERT --tls-key KEY {keys}")

    def test_together(self) -> None:
        """Options that mean nothing without another are refused without it."""
        for words, other in (
            ("--tls-cert CERT", "--tls-key"),
            ("--tls-key KEY", "--tls-cert"),
            ("--tls-client-ca CA", "--tls-cert"),
            ("--unix-group root", "--unix-socket"),
            ("--port 0", "--unix-socket"),
        ):
            self.assertIn(f"needs {other}", self.refused(words))

    def test_unusable_files(self) -> None:
        """A file that is missing, or is not what it should be, is named."""
        other_key = self.authority.issue("other")[1]
        garbage, bad_tokens = self.put("garbage", "what"), self.put("bad", "ann write s3cret\n")
        for words, why in (
            (f"--tls-cert {self.folder}/none --tls-key KEY", "none can't be read: No such file"),
            (f"--tls-cert {garbage} --tls-key KEY", "garbage holds no certificates"),
            (f"--tls-cert CERT --tls-key {garbage}", "garbage holds no key"),
            (f"--tls-cert CERT --tls-key {other_key}", "--tls-key is not the key of --tls-cert"),
            (f"--tls-cert CERT --tls-key KEY --tls-client-ca {garbage}", "garbage holds no cert"),
            (f"--tokens {bad_tokens}", "line 1 of"),
            (f"--tokens {self.folder}/none", "can't be read"),
            ("--unix-socket x --unix-group no-such-group", "no group no-such-group"),
            ("--unix-socket x --unix-group 4000000001", "no group 4000000001"),
        ):
            self.assertIn(why, self.refused(words))

    def test_numbers(self) -> None:
        """Numbers have bounds, which are told."""
        for name in ("max-connections", "request-timeout", "idle-timeout"):
            for wrong in ("0", "-1", "1000001"):
                reason = self.refused(f"--{name} {wrong}")
                said = f"--{name} takes a whole number from 1 to 1000000, not {wrong!r}"
                self.assertEqual(reason, said)
        self.assertIn("65535", self.refused("--port 65536"))

    def test_sockets(self) -> None:
        """The service tree has a service for each socket that is asked for, and no other."""
        manager = mock.Mock()
        for words, kinds in (
            ("", ["TcpListener"]),
            ("--unix-socket x", ["TcpListener", "UnixListener"]),
            ("--port 0 --unix-socket x", ["UnixListener"]),
        ):
            services = listen.listeners(self.parse(words), ThisHost(manager))
            self.assertEqual([type(service).__name__ for service in services], kinds)

    def test_names(self) -> None:
        """Host must name this manager if a browser could be misled."""
        manager = mock.Mock()
        for words, names in (
            ("--interface 127.0.0.2", {"localhost", "127.0.0.1", "::1", "127.0.0.2"}),
            ("--tokens TOKENS", {"localhost", "127.0.0.1", "::1"}),
            ("--interface 0.0.0.0 --tls-cert CERT --tls-key KEY --tokens TOKENS", None),
        ):
            service: Any
            (service,) = listen.listeners(self.parse(words), ThisHost(manager))
            site = getattr(service.port.factory, "wrappedFactory", service.port.factory)
            self.assertEqual(site._names, names)

    def test_descriptors(self) -> None:
        """Connections never take more than a part of the descriptors there are."""
        with mock.patch("resource.getrlimit", return_value=(300, 300)):
            service: Any
            (service,) = listen.listeners(self.parse(""), ThisHost(mock.Mock()))
        self.assertEqual(service.port.factory.limits.connections, 100)


class CannotStartTests(MachineTestCase):
    """What is said if the manager can't listen on a socket."""

    def said(self, number: int, *words: str, reason: str | None = None) -> str:
        """What a manager says whose listening fails with this error: one sentence."""
        error = OSError(number, reason or os.strerror(number))
        self.patch(tcp.Port, "createInternetSocket", mock.Mock(side_effect=error))
        options = Options()
        options.parseOptions(words)
        manager = mock.Mock(reactor=self.reactor, kernel=self.kernel)
        *_, service = listen.listeners(options, ThisHost(manager))
        error = self.assertRaises(listen.CannotStart, service.privilegedStartService)
        self.assertNotIn("\n", error.code)
        return error.code

    def test_both(self) -> None:
        """For twistd it is an error, which it cleans up after; for Python it is no traceback."""
        self.assertTrue(issubclass(listen.CannotStart, Exception))
        self.assertTrue(issubclass(listen.CannotStart, SystemExit))

    def test_port(self) -> None:
        """A taken port is named, with the process that has it if that is known, and what to do."""
        for interface in ("127.0.0.1", "localhost", "127.0.0.2"):
            said = self.said(errno.EADDRINUSE, "--port", "81", "--interface", interface)
            self.assertIn("port 81 is taken by another program: end that, or", said)
        self.kernel.listening[81] = 4711
        said = self.said(errno.EADDRINUSE, "--port", "81")
        self.assertIn("port 81 is taken by other (process 4711)", said)
        self.assertIn("another --port", said)

    def test_not_seen(self) -> None:
        """The process that has a port may be out of sight, or on an unusual address."""
        self.kernel.listening[81] = 0
        self.assertIn("can't be seen", self.said(errno.EADDRINUSE, "--port", "81"))
        self.patch(self.kernel, "listener", Kernel().listener)
        said = self.said(errno.EADDRINUSE, "--port", "81", "--interface", "::1")
        self.assertIn("taken by another program", said)

    def test_interface(self) -> None:
        """If an address is another host's, the error says so; any other cause is told as it is."""
        said = self.said(errno.EADDRNOTAVAIL, "--interface", "127.0.0.9")
        self.assertIn("--interface 127.0.0.9 is not an address of this host", said)
        self.assertIn(
            "--port 80 can't be listened on: Permission denied",
            self.said(errno.EACCES, "--port", "80"),
        )

    def test_unix_socket(self) -> None:
        """A path that is taken, or can't be used, is named with the reason."""
        for number, path, why in (
            (errno.EADDRINUSE, "/tmp", "is taken by something that is no socket"),
            (errno.ENOENT, "/no/dir/s", "there is no folder /no/dir; make it"),
            (errno.EROFS, "/tmp/none", "can't be made: Read-only file system"),
        ):
            said = self.said(number, "--unix-socket", path)
            self.assertTrue(said.startswith(f"--unix-socket {path} "), said)
            self.assertIn(why, said)

    def test_long_path(self) -> None:
        """A path that is too long for a socket is refused before anything is tried."""
        path = f"/tmp/{'x' * 108}"
        self.assertIn("AF_UNIX path too long", self.said(0, "--unix-socket", path))


class UnixCase(SynchronousTestCase):
    """A test of a socket at the path "s"."""

    def setUp(self) -> None:
        here = os.getcwd()
        os.chdir(make_folder(self))  # a socket's path has 107 bytes at most
        self.addCleanup(os.chdir, here)


class CrowdTests(UnixCase):
    """Many who connect at once."""

    def test_one_a_turn(self) -> None:
        """Each turn of the reactor takes one connection, so that all others are answered too."""
        factory, reactor = mock.Mock(), mock.Mock()
        factory.buildProtocol.return_value = None  # hangs up
        port = listen.PatientUnix(b"s", factory, reactor=reactor)
        port.startListening()
        self.addCleanup(port.connectionLost, None)
        for _ in range(5):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.connect("s")
        for taken in (1, 2, 3, 4, 5, 5):
            port.doRead()
            self.assertEqual(factory.buildProtocol.call_count, taken)


class AbandonedTests(UnixCase):
    """The socket of a manager that was killed."""

    def test_abandoned(self) -> None:
        """If no one answers any more, the socket is removed; if there is none, nothing happens."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
        listen.remove_abandoned("s")
        self.assertFalse(os.path.exists("s"))
        listen.remove_abandoned("s")

    def test_in_use(self) -> None:
        """If another manager answers, the socket stays; so does a file that is no socket."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
            server.listen()
            listen.remove_abandoned("s")
            self.assertTrue(os.path.exists("s"))
        with open("file", "w"):
            listen.remove_abandoned("file")
        self.assertTrue(os.path.exists("file"))
