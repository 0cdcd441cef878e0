"""`txcontain export`, against a fake manager in memory."""

import io
import json
import os
import tarfile
from pathlib import Path
from unittest import mock

from tests.cli.session import Session
from txcontain.cli.parts import locked

CONFIGS = {
    "configs": [
        {"name": "db", "major": "1", "minor": "1", "instances": []},
        *({"name": "web", "major": "1", "minor": minor, "instances": []} for minor in ("9", "10")),
        {"name": "web", "major": "2", "minor": "0", "instances": []},
    ]
}


def tarball() -> bytes:
    """An image, as the manager sends it."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("oci-layout"))
    return whole.getvalue()


class ExportTests(Session):
    """What it writes, and where."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.manager.answers_to("GET /configs", CONFIGS)

    def export(self, *words: str) -> int:
        """Type the command."""
        return self.run_command("export", *words)

    def test_document(self) -> None:
        """A document is written to a file; what it could not say, to standard error."""
        self.manager.answers_to(
            "GET /configs/web-1-9/export?to=compose&image=app%3A2",
            b"services:\n",
            Txcontain_Note="manage: only txcontain has it",
        )
        path = self.folder / "compose.yaml"
        words = ("web", "1", "9", "--to", "compose", str(path), "--image", "app:2")
        self.assertEqual(self.export(*words), 0)
        self.assertEqual(path.read_text(), "services:\n")
        self.assertIn("manage: only txcontain has it", self.err)
        self.assertEqual([*self.folder.iterdir()], [path])

    def test_no_file(self) -> None:
        """What is no regular file stays what it is, and gets the document."""
        self.manager.answers_to("GET /configs/web-1-9/export?to=compose", b"services:\n")
        there, link = self.folder / "there", self.folder / "link"
        there.touch()
        link.symlink_to(there)
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
            for path in (link, pipe):
                self.assertEqual(self.export("web", "1", "9", "--to", "compose", str(path)), 0)
            self.assertEqual(reader.read(), b"services:\n")
        self.assertTrue(link.is_symlink() and pipe.is_fifo())
        self.assertEqual(there.read_text(), "services:\n")

    def test_newest(self) -> None:
        """Without a version, or with a major one only, it is the newest config."""
        for words, name in ((["web"], "web-2-0"), (["web", "1"], "web-1-10")):
            self.manager.answers_to(f"GET /configs/{name}/export?to=systemd", name.encode())
            self.assertEqual(self.export(*words, "--to", "systemd", "-"), 0)
        self.assertEqual(self.out, "web-2-0web-1-10")
        self.assertEqual(self.export("wbe", "--to", "systemd", "-"), 1)
        self.assertEqual(self.export("web", "3", "--to", "systemd", "-"), 1)
        for name in ("wbe", "web 3"):
            self.assertIn(f"There is no config {name}: `txcontain configs` shows", self.err)

    def test_layout(self) -> None:
        """An image layout becomes a folder, which may be there if it is empty."""
        self.manager.answers_to("GET /configs/web-1-9/export?to=oci", tarball())
        for name in ("new", "empty"):
            where = self.folder / name
            if name == "empty":
                where.mkdir()
            self.assertEqual(self.export("web", "1", "9", "--to", "oci", str(where)), 0)
            self.assertEqual([one.name for one in where.iterdir()], ["oci-layout"])
        self.assertEqual(sorted(one.name for one in self.folder.iterdir()), ["empty", "new"])

    def test_left(self) -> None:
        """What a command that was killed has left is removed, but nothing that one still writes."""
        left, written, other = (
            [self.folder / f"{name}.{digit * 8}.part" for name in ("d[1]", "f")]
            for digit in ("0", "1", "x")
        )
        for folder, file in (left, written, other):
            (folder / "deep").mkdir(parents=True)
            file.touch()
        self.manager.answers_to("GET /configs/web-1-9/export?to=oci", tarball())
        self.manager.answers_to("GET /configs/web-1-9/export?to=docker-archive", b"x")
        with locked(str(written[0])), locked(str(written[1])):
            for kind, name in (("oci", "d[1]"), ("docker-archive", "f")):
                where = str(self.folder / name)
                self.assertEqual(self.export("web", "1", "9", "--to", kind, where), 0, self.err)
        wanted = {*written, *other, self.folder / "d[1]", self.folder / "f"}
        self.assertEqual({*self.folder.iterdir()}, wanted)

    def test_stack(self) -> None:
        """A stack has a document of its own, and neither a version nor an image."""
        self.manager.answers_to("GET /stacks/shop/export?to=kubernetes", b"kind: Deployment")
        self.assertEqual(self.export("--stack", "shop", "--to", "kubernetes", "-"), 0)
        self.assertEqual(self.out, "kind: Deployment")
        for words in (("1", "2"), ("--image", "a")):
            self.assertEqual(self.export("--stack", "shop", *words, "--to", "compose", "-"), 2)

    def test_registry(self) -> None:
        """The manager sends an image to a registry, and its name there is printed."""
        told = {"image": "r:5000/app:1", "digest": "sha256:00"}
        self.manager.answers_to("POST /configs/web-1-9/push", told)
        words = ("web", "1", "9", "--to", "registry", "r:5000/app:1")
        self.assertEqual(self.export(*words), 0)
        self.assertEqual(self.out, "r:5000/app:1@sha256:00\n")
        self.assertEqual(self.export(*words, "--insecure"), 0)
        bodies = [json.loads(body) for _, body in self.manager.asked]
        self.assertEqual(bodies[0], {"image": "r:5000/app:1"})
        self.assertEqual(bodies[1], {"image": "r:5000/app:1", "insecure": True})

    def test_refused(self) -> None:
        """Nothing is asked for that could not be written, and nothing stays of what failed."""
        (self.folder / "x").touch()
        self.assertEqual(self.export("web", "1", "9", "--to", "oci", str(self.folder)), 1)
        self.assertIn("is there already, and no empty folder", self.err)
        with mock.patch("sys.stdout.isatty", lambda: True, create=True):
            self.assertEqual(self.export("web", "1", "9", "--to", "docker-archive", "-"), 1)
        self.assertIn("An image is nothing for a terminal", self.err)
        self.assertEqual(self.export("web", "--to", "helm", "-"), 2)
        self.assertEqual(self.export("web", "--to", "compose", "-", "--insecure"), 2)
        self.assertEqual(self.export("web", "--to", "registry", "r/app", "--image", "a"), 2)
        self.assertEqual(self.manager.asked, [])
        self.manager.answers_to("GET /configs/web-1-9/export?to=oci", b"", 404)
        for place in (self.folder / "new", self.folder / "no/folder"):
            self.assertEqual(self.export("web", "1", "9", "--to", "oci", str(place)), 1)
        self.assertEqual([one.name for one in self.folder.iterdir()], ["x"])
        where = str(self.folder / "no/file")
        self.manager.answers_to("GET /configs/web-1-9/export?to=compose", b"x")
        self.assertEqual(self.export("web", "1", "9", "--to", "compose", where), 1)
        self.assertIn(f"Can't write {where}", self.err)
