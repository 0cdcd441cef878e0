"""The images: the web server tiny, and the scripts that pack and fetch tarballs."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

PROJECT = Path(__file__).resolve().parent.parent
SECRET = b"nobody may read this\n"


class Server:
    """A process that prints on which port of the loopback it listens."""

    def __init__(self, case: SynchronousTestCase, *command: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
        )
        case.addCleanup(self.close)
        self.port = int(self.process.stdout.readline().decode().strip().rstrip(".").split()[-1])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def send(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send these bytes; the status, the headers and the body of the answer."""
        with self.connect() as connection:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body

    def ask(self, target: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        return self.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def is_listening(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return False
        return True


class WebserverCase(SynchronousTestCase):
    def setUp(self) -> None:
        outside = Path(self.mktemp())
        outside.mkdir()
        (outside / "secret").write_bytes(SECRET)
        self.root = outside.resolve() / "webserver"
        shutil.copytree(PROJECT / "images/webserver", self.root)

    def script(self, name: str, text: str) -> Path:
        path = self.root / "cgi-bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path


class TinyTests(WebserverCase):
    """Only tiny, on a port that the kernel chooses."""

    def setUp(self) -> None:
        super().setUp()
        self.server = Server(self, str(self.root / "tiny"), "0")

    def status(self, target: str, method: str = "GET") -> int:
        return self.server.ask(target, method)[0]

    def test_file(self) -> None:
        """A file comes as it is, with its type and its length."""
        status, headers, body = self.server.ask("/index.html")
        self.assertEqual(status, 200)
        self.assertEqual(body, (self.root / "index.html").read_bytes())
        self.assertEqual(headers["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(headers["Content-Length"], str(len(body)))

    def test_large_file(self) -> None:
        """A file larger than all buffers comes whole."""
        content = os.urandom(3_000_000)
        (self.root / "large").write_bytes(content)
        self.assertEqual(self.server.ask("/large")[2], content)

    def test_head(self) -> None:
        """HEAD gets the headers of GET and no body."""
        _, with_body, _ = self.server.ask("/index.html")
        status, headers, body = self.server.ask("/index.html", "HEAD")
        self.assertEqual((status, body), (200, b""))
        self.assertEqual(headers["Content-Length"], with_body["Content-Length"])

    def test_folder(self) -> None:
        """A folder answers with its index, after a redirect to its name with a slash."""
        (self.root / "sub").mkdir()
        self.assertEqual(self.status("/sub/"), 404)
        (self.root / "sub/index.html").write_text("sub")
        self.assertEqual(self.server.ask("/sub/")[2], b"sub")
        status, headers, _ = self.server.ask("//sub")
        self.assertEqual((status, headers["Location"]), (301, "/sub/"))
        self.assertEqual(self.status("/index.html/"), 404)

    def test_encoded_name(self) -> None:
        """A name may be percent-encoded, and a query or a whole URL is understood."""
        (self.root / "a b.txt").write_text("spaced")
        for target in ("/a%20b.txt", "/a%20b.txt?x=1", "http://localhost/a%20b.txt"):
            self.assertEqual(self.server.ask(target)[2], b"spaced", target)

    def test_nothing_outside(self) -> None:
        """No way of writing .. and no symlink leads out of the root."""
        (self.root / "sub").mkdir()
        (self.root / "link").symlink_to("../secret")
        (self.root / "up").symlink_to("..")
        for target in (
            "/../secret",
            "/%2e%2e/secret",
            "/.%2E/secret",
            "/sub/../../secret",
            "/sub/..%2f..%2fsecret",
            "/link",
            "/up/secret",
            "/up",
            "/cgi-bin/../../secret",
        ):
            status, _, body = self.server.ask(target)
            self.assertEqual((status, SECRET in body), (404, False), target)

    def test_errors(self) -> None:
        """What tiny does not understand gets the status that says so."""
        for request, status in (
            (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"GET / HTTP/1.1\nHost: x\n\n", 200),
            (b"GET / HTTP/1.0\r\n\r\n", 200),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET index.html HTTP/1.0\r\n\r\n", 400),
            (b"GET /%00 HTTP/1.0\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\n\r\n", 505),
            (b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 405),
            (b"BREW / HTTP/1.0\r\n\r\n", 501),
            (b"GET /" + b"a" * 20_000, 414),
            (b"GET / HTTP/1.0\r\nX: " + b"a" * 20_000, 431),
            (b"GET /" + b"a" * 5_000 + b" HTTP/1.0\r\n\r\n", 404),
        ):
            self.assertEqual(self.server.send(request)[0], status, request[:60])

    def test_allow(self) -> None:
        """A refused method comes with the ones that there are."""
        self.assertEqual(self.server.ask("/", "DELETE")[1]["Allow"], "GET, HEAD")

    def test_fifo(self) -> None:
        """What is not a file is not there, and nobody waits for it."""
        os.mkfifo(self.root / "fifo")
        self.assertEqual(self.status("/fifo"), 404)

    def test_silent_clients(self) -> None:
        """Clients that say nothing, or half of something, keep no one waiting."""
        for words in (b"", b"GET", b"GET / HTTP/1.1\r\n"):
            connection = self.server.connect()
            self.addCleanup(connection.close)
            connection.sendall(words)
        self.assertEqual(self.status("/"), 200)

    def test_client_gone(self) -> None:
        """A client that leaves in the middle of its answer harms no one."""
        (self.root / "large").write_bytes(bytes(3_000_000))
        with self.server.connect() as connection:
            connection.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            connection.recv(1)
        self.assertEqual(self.status("/"), 200)

    def test_cgi(self) -> None:
        """A program's output is the answer, and it is told what was asked."""
        self.script(
            "ask.sh",
            "#!/bin/sh\n"
            "printf 'Content-Type: text/plain\\r\\nStatus: 201 Created\\r\\n\\r\\n'\n"
            'echo "$REQUEST_METHOD $SCRIPT_NAME $QUERY_STRING $(pwd) $SECRET"\n',
        )
        status, headers, body = self.server.ask("/cgi-bin/ask.sh?a=b")
        self.assertEqual((status, headers["Content-Type"]), (201, "text/plain"))
        expected = f"GET /cgi-bin/ask.sh a=b {self.root}/cgi-bin \n"
        self.assertEqual(body.decode(), expected)
        self.assertEqual(self.server.ask("/cgi-bin/ask.sh", "HEAD")[2], b"")

    def test_cgi_failures(self) -> None:
        """A program that cannot be run, or says nothing sensible, is an error."""
        self.script("plain", "Content-Type: text/plain\n\nhello").chmod(0o644)
        self.script("orphan", "#!/no/such/interpreter\n")
        self.script("mute", "#!/bin/sh\n")
        self.script("headless", "#!/bin/sh\necho hello\n")
        self.script("odd", "#!/bin/sh\nprintf 'Status: fine\\n\\nhello'\n")
        self.script("endless", "#!/bin/sh\nyes Content-Type:\n")
        for name, status in (
            ("plain", 403),
            ("orphan", 500),
            ("mute", 502),
            ("headless", 502),
            ("odd", 502),
            ("endless", 502),
            ("nothing", 404),
            ("", 404),
        ):
            self.assertEqual(self.status(f"/cgi-bin/{name}"), status, name)

    def test_cgi_source(self) -> None:
        """A program is run and never shown, also where a symlink leads to it."""
        self.script("hello.sh", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'\n")
        (self.root / "shown").symlink_to("cgi-bin/hello.sh")
        self.assertEqual(self.server.ask("/shown")[2], b"hello")

    def test_port_taken(self) -> None:
        """A port that another one has is an error in one sentence."""
        second = subprocess.run(
            [self.root / "tiny", str(self.server.port)], capture_output=True, text=True
        )
        self.assertEqual(second.returncode, 1)
        self.assertEqual(
            second.stderr,
            f"tiny: cannot listen on port {self.server.port}: Address already in use\n",
        )


class TinyShTests(WebserverCase):
    """tiny.sh, tiny below it, and the programs that come with them."""

    def setUp(self) -> None:
        super().setUp()
        environment = {**os.environ, "PORT": "0"}
        self.server = Server(self, str(self.root / "tiny.sh"), env=environment, cwd="/")
        self.shell = self.server.process

    def test_ps(self) -> None:
        """ps.sh names tiny.sh and tiny, each once, whatever its lines are made of."""
        status, headers, body = self.server.ask("/cgi-bin/ps.sh")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain"))
        children = Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children")
        pids = {str(self.shell.pid), *children.read_text().split()}
        lines = [line for line in body.decode().splitlines() if line.split()[0] in pids]
        self.assertEqual([line.count("tiny") for line in lines], [1, 1], lines)

    def test_pkill(self) -> None:
        """pkill.sh gets its answer out, and then nobody listens or runs."""
        status, _, body = self.server.ask("/cgi-bin/pkill.sh")
        self.assertEqual(status, 200)
        self.assertIn(b"ends now", body)
        self.assertEqual(self.shell.wait(timeout=10), 0)
        self.assertFalse(self.server.is_listening())

    def test_sigterm(self) -> None:
        """SIGTERM to tiny.sh ends both."""
        self.assertEqual(self.server.ask("/")[0], 200)
        self.shell.send_signal(signal.SIGTERM)
        self.shell.wait(timeout=10)
        self.assertFalse(self.server.is_listening())

    def test_no_port(self) -> None:
        """Without PORT there is one sentence, and the script has failed."""
        environment = {"PATH": os.environ["PATH"]}
        result = subprocess.run([self.root / "tiny.sh"], env=environment, capture_output=True)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(b"PORT: is not set", result.stderr)


class MountablesTests(SynchronousTestCase):
    def test_tarballs(self) -> None:
        """A tarball has all below one folder of its own name, owned by root."""
        for name in os.listdir(PROJECT / "images"):
            path = Path(self.mktemp() + f"-{name}").resolve() / f"{name}.tar"
            path.parent.mkdir()
            digests = set()
            for _ in range(2):
                subprocess.run(
                    [PROJECT / "scripts/make-mountables", path], check=True, capture_output=True
                )
                digests.add(hashlib.sha256(path.read_bytes()).digest())
            self.assertEqual(len(digests), 1, "the same bytes each time")
            with tarfile.open(path) as tarball:
                for member in tarball:
                    self.assertEqual(member.name.split("/")[0], name)
                    self.assertEqual((member.uid, member.gid), (0, 0))


class FetchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.source = self.folder / "source"
        self.source.write_bytes(b"x" * 1000)
        self.target = self.folder / "target"

    def fetch(self, url: str, digest: str) -> subprocess.CompletedProcess[str]:
        command = [str(PROJECT / "scripts/fetch"), url, digest, str(self.target)]
        return subprocess.run(command, capture_output=True, text=True)

    def test_good(self) -> None:
        """The file is there when its sum is right, in capitals too, or none was given."""
        digest = hashlib.sha256(self.source.read_bytes()).hexdigest()
        for wanted in (digest, digest.upper(), ""):
            self.target.unlink(missing_ok=True)
            self.assertEqual(self.fetch(self.source.as_uri(), wanted).returncode, 0)
            self.assertEqual(self.target.read_bytes(), self.source.read_bytes())

    def test_bad(self) -> None:
        """A wrong sum or an unknown file is one sentence, and leaves nothing behind."""
        for url, digest in (
            (self.source.as_uri(), "0" * 64),
            ((self.folder / "nothing").as_uri(), ""),
            ("nonsense", ""),
        ):
            result = self.fetch(url, digest)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertEqual(os.listdir(self.folder), ["source"])
