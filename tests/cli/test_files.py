"""`txcontain cp`, `diff` and `commit`, against a fake manager in memory."""

import io
import json
import os
import sys
import tarfile
from argparse import ArgumentTypeError
from typing import Any
from unittest import mock

from twisted.web.client import FileBodyProducer
from twisted.web.iweb import UNKNOWN_LENGTH

from tests.cli.session import Session
from txcontain.cli import files
from txcontain.cli.client import Flow
from txcontain.cli.files import Packed, Place, place


def tar_of(*members: str) -> bytes:
    """A tar stream with these files and, with a slash at the end, folders."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in members:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.mode = 0o6755
            member.size = 0 if member.isdir() else 3
            tar.addfile(member, io.BytesIO(b"new"))
    return stream.getvalue()


class PlaceTests(Session):
    """Which words name what."""

    def test_places(self) -> None:
        """A colon parts an instance and a path, unless a path here is written as such."""
        for word, wanted in (
            ("web-1:/etc", Place("/etc", "web-1")),
            ("web-1:etc", Place("/etc", "web-1")),
            ("config:web:/a:b", Place("/a:b", "config:web")),
            ("service:app:/a:b", Place("/a:b", "service:app")),
            ("./a:b", Place("./a:b")),
            ("/a:b", Place("/a:b")),
            ("a", Place("a")),
            ("-", Place("-")),
        ):
            self.assertEqual(place(word), wanted)
        for word in ("", ":/x", "web-1:"):
            self.assertRaises(ArgumentTypeError, place, word)


class OutTests(Session):
    """Copies out of an instance."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def has(self, path: str, kind: str, *members: str) -> None:
        """Have the instance hold this, with such a stream."""
        where = f"GET /instances/web-1/files?path={path.replace('/', '%2F')}"
        name = path.removesuffix("/.").rpartition("/")[2]
        self.manager.answers_to(f"{where}&stat=1", {"name": name, "kind": kind})
        self.manager.answers_to(where, tar_of(*members))

    def copy(self, source: str, target: str) -> str:
        """Copy it; return what was said if that failed."""
        self.stderr.truncate(0)
        self.stderr.seek(0)
        status = self.run_command("cp", f"web-1:{source}", os.path.join(self.folder, target))
        self.assertEqual(bool(status), bool(self.err))
        return self.err.replace(self.folder, "HERE").strip()

    def tree(self) -> list[str]:
        """All files that there are now."""
        found = [
            os.path.join(top, name) for top, _, names in os.walk(self.folder) for name in names
        ]
        return sorted(os.path.relpath(path, self.folder) for path in found)

    def test_file(self) -> None:
        """A file goes into a folder, gets a new name, or takes the place of a file."""
        self.has("/etc/hosts", "file", "hosts")
        os.mkdir(f"{self.folder}/d")
        for target in ("d", "new", "new"):
            self.assertEqual(self.copy("/etc/hosts", target), "")
        self.assertEqual(self.tree(), ["d/hosts", "new"])
        self.assertEqual(os.stat(f"{self.folder}/new").st_mode & 0o7000, 0)  # nothing is setuid

    def test_folder(self) -> None:
        """A folder goes into a folder, or gets a new name; with a dot, what is in it does."""
        self.has("/srv", "folder", "srv/", "srv/a")
        self.has("/srv/.", "folder", "./", "./a")
        for source, target in (("/srv", "n"), ("/srv", "n"), ("/srv/.", "n"), ("/srv/.", "m")):
            self.assertEqual(self.copy(source, target), "")
        self.assertEqual(self.tree(), ["m/a", "n/a", "n/srv/a"])

    def test_refused(self) -> None:
        """What can't be is refused before anything is changed."""
        self.has("/srv", "folder", "srv/")
        self.has("/a", "file", "a")
        os.makedirs(f"{self.folder}/d/a")
        with open(f"{self.folder}/f", "w"), open(f"{self.folder}/d/srv", "w"):
            pass
        os.mkfifo(f"{self.folder}/p")  # as well as /dev/null
        for source, target, said in (
            ("/a", "p", "HERE/p is a device, a pipe or a socket: copy to another name."),
            ("/srv", "f", "A folder can't be copied over the file HERE/f."),
            ("/srv", "d", "A folder can't be copied over the file HERE/d/srv."),
            ("/a", "d", "A file can't be copied over the folder HERE/d/a."),
            ("/a", "no/x", "There is no folder HERE/no: make it first."),
            ("/a", "no/", "There is no folder HERE/no/: make it first, or leave out the slash."),
        ):
            self.assertEqual(self.copy(source, target), said)
        self.assertEqual(self.tree(), ["d/srv", "f", "p"])

    def test_cut_short(self) -> None:
        """Of a stream that is no tar, nothing stays, and tar's words are passed on."""
        self.has("/a", "file")
        where = "GET /instances/web-1/files?path=%2Fa"
        self.manager.answers_to(where, b"no tar at all" * 100)
        self.assertIn("Not everything could be written: tar: ", self.copy("/a", "x"))
        self.assertEqual(os.listdir(self.folder), [])

    def test_stream(self) -> None:
        """A tar stream goes to standard output as it is."""
        self.has("/a", "file", "a")
        self.assertEqual(self.run_command("cp", "web-1:/a", "-"), 0)
        self.stdout.flush()
        self.assertEqual(self.stdout.buffer.getvalue(), tar_of("a"))

    def test_terminal(self) -> None:
        """It does not go to a terminal."""
        self.has("/a", "file", "a")
        with mock.patch.object(sys, "stdout", mock.Mock(isatty=lambda: True)):
            self.assertEqual(self.run_command("cp", "web-1:/a", "-"), 1)
        self.assertIn("A tar stream is nothing for a terminal", self.err)

    def test_this_machine(self) -> None:
        """What this machine lacks is said."""
        self.has("/a", "file", "a")
        with mock.patch("subprocess.Popen", side_effect=FileNotFoundError):
            self.assertEqual(self.copy("/a", "x"), "`cp` needs the program tar: install it.")
        with mock.patch("os.mkdir", side_effect=PermissionError(13, "Permission denied")):
            self.assertEqual(self.copy("/a", "x"), "Can't write to HERE: Permission denied.")
        self.assertEqual(os.listdir(self.folder), [])


class InTests(Session):
    """Copies into an instance; the stream itself is for tests/integration/test_files.py."""

    def kind(self, path: str, kind: str | None) -> None:
        """Have this in the instance, or nothing."""
        where = f"GET /instances/web-1/files?path={path.replace('/', '%2F')}&stat=1"
        if kind:
            self.manager.answers_to(where, {"name": "x", "kind": kind})
        else:
            self.problem(where, "no-such-path")

    def problem(self, where: str, kind: str) -> None:
        """Have a request answered with 404 of this type."""
        answer = {
            "type": f"urn:txcontain:{kind}",
            "title": "Not Found",
            "detail": kind,
            "chain": [],
        }
        self.manager.answers_to(where, answer, 404, Content_Type="application/problem+json")

    def test_no_such_instance(self) -> None:
        """An instance that does not exist is not taken for a folder that does not."""
        self.problem("GET /instances/web-1/files?path=%2Fd%2F&stat=1", "no-such-instance")
        self.assertEqual(self.run_command("cp", __file__, "web-1:/d/"), 1)
        self.assertEqual(self.err, "Not Found: no-such-instance\n")

    def test_refused(self) -> None:
        """What can't be is refused before anything is sent."""
        folder = self.mktemp()
        os.mkdir(folder)
        self.kind("/f", "file")
        self.kind("/l", "link")
        self.kind("/l/", None)
        self.kind("/d", "folder")
        self.kind("/d/no", None)
        self.kind("/n/", None)
        name = os.path.basename(folder)
        self.kind(f"/d/{name}", "file")
        for source, target, said in (
            ("/no/such", "/d", "There is no /no/such here."),
            (folder, "/f", "A folder can't be copied over the file web-1:/f."),
            (folder, "/l", "A folder can't be copied over the file web-1:/l."),
            (folder, "/d", f"A folder can't be copied over the file web-1:/d/{name}."),
            (
                __file__,
                "/n/",
                "There is no folder web-1:/n/: make it first, or leave out the slash.",
            ),
        ):
            self.stderr.truncate(0)
            self.stderr.seek(0)
            self.assertEqual(self.run_command("cp", source, f"web-1:{target}"), 1)
            self.assertEqual(self.err.strip(), said)

    def test_packed(self) -> None:
        """A folder is a stream with the name that it gets; what can't be read cuts it short."""
        folder = self.mktemp()
        os.mkdir(folder)
        with open(f"{folder}/a", "w"):
            pass
        self.assertEqual(self.names(Packed(folder, "new")), ["new", "new/a"])
        broken = Packed(f"{folder}/no", "new")
        self.assertEqual(broken.read(1 << 16), b"")
        broken.close()
        self.assertEqual(broken.failed, f"Can't read {folder}/no: No such file or directory.")

    def names(self, packed: Any) -> list[str]:
        """What a stream holds."""
        data = b""
        while part := packed.read(1 << 16):
            data += part
        packed.close()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return tar.getnames()

    def test_pipe(self) -> None:
        """What comes from a pipe is sent without asking for its length, which it does not have."""
        out, into = os.pipe()
        os.close(into)
        with open(out, "rb") as pipe:
            self.assertIs(FileBodyProducer(Flow(pipe)).length, UNKNOWN_LENGTH)

    def test_unread(self) -> None:
        """A stream that no one reads any more ends."""
        packed = Packed(os.path.dirname(files.__file__), "new")
        packed.close()
        packed.close()
        self.assertEqual(packed.failed, "")


class OtherTests(Session):
    """diff and commit."""

    def test_diff(self) -> None:
        """A line for each change, without control characters; that there are more is said."""
        changes = [{"kind": "A", "path": "/a\x1b"}, {"kind": "D", "path": "/b"}]
        told = {"changes": changes, "complete": False}
        self.manager.answers_to("GET /instances/web-1/diff", told)
        self.assertEqual(self.run_command("diff", "web-1"), 0)
        self.assertEqual(self.out, "A /a\\x1b\nD /b\n")
        self.assertEqual(self.err, "txcontain diff: there are more changes than these.\n")

    def test_commit_as_image(self) -> None:
        """What is no name of a tarball is that of an image."""
        told = {"image": "app:2", "digest": "sha256:00", "layers": 3}
        self.manager.answers_to("POST /instances/web-1/commit", told)
        self.assertEqual(self.run_command("commit", "web-1", "app:2"), 0)
        self.assertEqual(self.out, "app:2: web-1, 3 layers, sha256:00\n")

    def test_commit(self) -> None:
        """What was kept is told in a line."""
        told = {"mountable": "a.tar", "mount": "/d", "size": 2048}
        self.manager.answers_to("POST /instances/web-1/commit", told)
        self.assertEqual(self.run_command("commit", "--mount", "/d", "web-1", "a.tar"), 0)
        self.assertEqual(self.out, "a.tar: /d of web-1, 2.0K\n")
        body = json.loads(self.manager.asked[-1][1])
        self.assertEqual(body, {"mountable": "a.tar", "mount": "/d", "pause": False})
