"""Volumes as tarballs: what a real tar makes of them, and of hostile ones."""

import gzip
import http.client
import io
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.integration.harness import Answer, cgroups_of, text_of, wait_until
from tests.integration.tarballs import Member, file, folder, link, pack
from tests.integration.test_volumes import VolumeCase

COUNTING = "i=0; while :; do i=$((i+1)); echo $i >/data/a; echo $i >/data/b; done"


class TransferCase(VolumeCase):
    """A test that exports and imports."""

    def export(self, name: str, query: str = "") -> tarfile.TarFile:
        """A volume as a tarball."""
        answer = self.ask("GET", f"/volumes/{name}/export{query}")
        self.assertEqual(answer.status, 200, answer.reason)
        return tarfile.open(fileobj=io.BytesIO(answer.body))

    def tarball(self, *members: Member) -> bytes:
        """A tarball."""
        pack(self.folder / "import.tar", *members)
        return (self.folder / "import.tar").read_bytes()

    def import_(self, name: str, tarball: bytes) -> Answer:
        """Make a volume."""
        return self.ask("PUT", f"/volumes/{name}/import", tarball)

    def assert_problem(self, answer: Answer, kind: str, *words: str) -> None:
        """It was refused as a problem of this type, for these reasons."""
        problem = answer.json
        self.assertEqual(problem["type"], f"urn:txcontain:{kind}", problem)
        said = " ".join([problem["detail"], *problem["chain"]])
        for word in words:
            self.assertIn(word, said)

    def frozen(self) -> list[Path]:
        """The groups of containers that are frozen."""
        groups = [one for top in cgroups_of(self.state) for one in top.glob("*/")]
        return [one for one in groups if "frozen 1" in text_of(one / "cgroup.events")]

    def counted(self) -> int:
        """How far a container that counts has come."""
        return int(wait_until((self.data("a") / "b").read_text, "it is not just emptied"))

    def begin_to_count(self) -> str:
        """Launch a container that counts; return the instance's name."""
        instance = self.launch(**self.job(COUNTING, volumes=["a /data"]))
        wait_until((self.data("a") / "b").exists, "it counts")
        return instance


class ExportTests(TransferCase):
    """A volume is read as a tarball."""

    def test_whole(self) -> None:
        """Owners, modes, links and attributes are in it, and an import brings all of it back."""
        self.inside("dd 2>/dev/null; ln -s /etc/passwd /seed/out", volumes=["a /seed"])
        os.setxattr(self.data("a") / "config", "user.x", b"1")
        with self.export("a") as tarball:
            config = tarball.getmember("./config")
            self.assertEqual((config.uid, config.gid, config.mode), (1000, 2000, 0o4640))
            self.assertEqual(tarball.getmember("./out").linkname, "/etc/passwd")
            kinds = {name: tarball.getmember(f"./{name}").type for name in ("config", "again")}
            self.assertEqual(set(kinds.values()), {tarfile.REGTYPE, tarfile.LNKTYPE})
        whole = self.ask("GET", "/volumes/a/export").body
        self.assertEqual(self.import_("b", whole).json, {"imported": "b"})
        command = ["find", ".", "-printf", r"%p %M %U %G %s %l\n"]
        listed = [subprocess.check_output(command, cwd=self.data(name)) for name in ("a", "b")]
        self.assertEqual(*(sorted(each.splitlines()) for each in listed))
        self.assertEqual(os.getxattr(self.data("b") / "config", "user.x"), b"1")
        self.assertEqual(self.inside("cat /b/config", volumes=["b /b"]), "from the image")

    def test_paused(self) -> None:
        """While it is exported with pause=1 nothing in it changes; then all run on."""
        instance = self.begin_to_count()
        for _ in range(5):
            with self.export("a", "?pause=1") as tarball:
                one, other = (tarball.extractfile(name).read() for name in ("./a", "./b"))
            if one and other:  # neither was just emptied, to be written anew
                self.assertIn(int(one) - int(other), (0, 1))
        before = self.counted()
        wait_until(lambda: self.counted() > before, "it counts on")
        self.assertEqual(self.frozen(), [])
        self.assertIn(instance, self.running())

    def stalled_export(self) -> socket.socket:
        """An export with pause=1 whose client does not read on."""
        self.begin_to_count()
        with open(self.data("a") / "large", "wb") as large:
            large.write(os.urandom(32 << 20))
        client = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(b"GET /volumes/a/export?pause=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(1000)
        self.assertEqual(len(self.frozen()), 1)
        return client

    def test_hung_up(self) -> None:
        """If its client hangs up, what was paused runs on, and nothing is left."""
        self.stalled_export().close()
        wait_until(lambda: not self.frozen(), "it runs on")
        wait_until(lambda: not list((self.state / "run/packing").iterdir()), "nothing is left")

    def test_killed_manager(self) -> None:
        """If the manager is killed meanwhile, the next one lets what was paused run on."""
        client = self.stalled_export()
        self.manager.kill()
        self.manager.wait()
        client.close()
        self.start()
        before = self.counted()
        wait_until(lambda: self.counted() > before, "it counts on")
        self.assertEqual(self.frozen(), [])

    def test_links_do_not_lead_out(self) -> None:
        """A link that a container has planted is packed as a link, and nothing behind it."""
        self.inside("ln -s / /a/top; ln -s /etc/shadow /a/shadow", volumes=["a /a"])
        with self.export("a") as tarball:
            self.assertEqual(sorted(tarball.getnames()), [".", "./shadow", "./top"])
            self.assertTrue(tarball.getmember("./shadow").issym())

    def test_nothing_there(self) -> None:
        """What is not there can't be exported."""
        answer = self.ask("GET", "/volumes/x/export")
        self.assertEqual(answer.status, 404)
        self.assert_problem(answer, "no-such-volume", "there is no volume 'x'")


class ImportTests(TransferCase):
    """A volume is made of a tarball."""

    def test_compressed(self) -> None:
        """The host's programs decompress it."""
        tarball = gzip.compress(self.tarball(file("x", "hello")))
        self.assertEqual(self.import_("a", tarball).status, 200)
        self.assertEqual(self.inside("cat /a/x", volumes=["a /a"]), "hello")

    def test_large(self) -> None:
        """One of any length passes through, and the manager's memory stays as it is."""
        rest = os.urandom(1 << 20)
        tarball = self.tarball(file("x", rest * 64))
        before = self.memory()
        self.assertEqual(self.import_("a", tarball).status, 200)
        self.assertLess(self.memory() - before, 16 << 20)
        self.assertEqual((self.data("a") / "x").stat().st_size, 64 << 20)
        answer = self.ask("GET", "/volumes/a/export")
        self.assertGreater(len(answer.body), 64 << 20)
        self.assertLess(self.memory() - before, 16 << 20)

    def memory(self) -> int:
        """Bytes of memory of the manager."""
        status = Path(f"/proc/{self.manager.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) << 10

    def test_refused(self) -> None:
        """One that would replace data, or data in use, is refused, however long it is."""
        self.inside("echo x >/a/x", volumes=["a /a"])
        tarball = self.tarball(file("y", os.urandom(8 << 20)))
        self.assert_problem(self.import_("a", tarball), "in-use", "instances use the volume a")
        self.ask("DELETE", "/destroyall")
        self.assert_problem(self.import_("a", tarball), "in-use", "there is data in the volume a")
        self.assertEqual(sorted(path.name for path in self.data("a").iterdir()), ["x"])
        answer = self.import_("-a", tarball)
        self.assert_problem(answer, "invalid-data", "the name of a volume must be")

    def test_no_tarball(self) -> None:
        """What is no tarball, or half of one, makes no volume."""
        half = self.tarball(file("x", "y" * 100_000))[:50_000]
        for wrong in (b"nonsense" * 1000, half, gzip.compress(half)[:-8], b""):
            answer = self.import_("a", wrong)
            self.assert_problem(answer, "config-at-fault", "importing the volume a")
        self.assertEqual(list((self.state / "volumes").iterdir()), [])

    def test_hostile(self) -> None:
        """Links in it lead nowhere else, and names that lead up stay inside."""
        outside = self.folder / "outside"
        outside.mkdir()
        members = (
            folder("."),
            link("out", str(outside)),
            file("out/x", "x"),
            file("../../../../up", "x"),
        )
        self.import_("a", self.tarball(*members))
        self.assertEqual(list(outside.iterdir()), [])
        self.assertFalse((self.state / "volumes/up").exists())

    def test_hung_up(self) -> None:
        """If its client hangs up half-way there is no volume, and nothing is left."""
        tarball = self.tarball(file("x", os.urandom(1 << 20)))
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            head = "PUT /volumes/a/import HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {len(tarball)}\r\n\r\n"
            client.sendall(head.encode() + tarball[: 1 << 19])
            wait_until(lambda: list((self.state / "volumes").iterdir()), "it has begun")
        wait_until(lambda: not list((self.state / "volumes").iterdir()), "nothing is left")
        wait_until(lambda: not list((self.state / "run/packing").iterdir()), "nothing is left")
        self.assertEqual(self.ask("GET", "/volumes").json, {"volumes": []})

    def test_chunked(self) -> None:
        """A body without a length is taken too."""
        tarball = self.tarball(file("x", os.urandom(1 << 20)))
        connection = http.client.HTTPConnection("localhost", self.port, timeout=30)
        parts = (tarball[i : i + 50_000] for i in range(0, len(tarball), 50_000))
        connection.request("PUT", "/volumes/a/import", parts, encode_chunked=True)
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()


class CommandTests(TransferCase):
    """The CLI, with real files."""

    def txcontain(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        command = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=self.environment
        )

    def test_there_and_back(self) -> None:
        """Export to a file, import under another name; what fails leaves no file."""
        self.inside("true", volumes=["a /seed"])
        path = str(self.folder / "a.tar")
        for words in (["export", "a", path, "--pause"], ["import", "b", path]):
            done = self.txcontain("volumes", *words)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((self.data("b") / "config").read_text(), "from the image")
        self.assertEqual(self.txcontain("volumes", "export", "x", f"{path}.2").returncode, 1)
        self.assertEqual([p.name for p in self.folder.glob("a.tar*")], ["a.tar"])
        refused = self.txcontain("volumes", "import", "b", path)
        self.assertIn("there is data in the volume b", refused.stderr)
