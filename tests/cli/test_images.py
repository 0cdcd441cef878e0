"""`txcontain image`, against a fake manager in memory."""

import io
import json
import tarfile
from pathlib import Path
from unittest import mock

from tests.cli.session import Session

IMAGE = {
    "digest": "sha256:" + "0123456789ab" * 5 + "0123",
    "names": ["app:1", "app:latest"],
    "platform": "linux/amd64",
    "created": "",
    "added": 0,
    "layers": 2,
    "bytes": 2048,
    "used_by": ["web-1"],
}


class ImageTests(Session):
    """What it prints, and what it asks for."""

    def setUp(self) -> None:
        super().setUp()
        # What is sent in memory is no stream.
        sent = mock.patch("twisted.web.client.FileBodyProducer", lambda file: file.read())
        sent.start()
        self.addCleanup(sent.stop)

    def test_ls(self) -> None:
        """A table, with a row for each name."""
        self.manager.answers_to("GET /images", {"images": [IMAGE]})
        self.assertEqual(self.run_command("image", "ls"), 0)
        head, first, second = self.out.splitlines()
        self.assertEqual(head.split(), ["IMAGE", "DIGEST", "LAYERS", "SIZE", "ADDED", "USED", "BY"])
        self.assertEqual(first.split()[:4], ["app:1", "sha256:0123456789ab", "2", "2.0K"])
        self.assertEqual(second.split()[0], "app:latest")

    def test_load(self) -> None:
        """An archive is sent as it is; of a folder one is made."""
        path = Path(self.mktemp())
        path.write_bytes(b"an archive")
        self.manager.answers_to("PUT /images", {"images": [IMAGE]})
        self.assertEqual(self.run_command("image", "load", str(path)), 0)
        self.assertEqual(self.manager.asked[-1], ("PUT /images", b"an archive"))
        self.assertEqual(self.out, "app:1\napp:latest\n")
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "oci-layout").write_text("{}")
        self.manager.answers_to("PUT /images?name=a%2Fb%3A1", {"images": [IMAGE]})
        self.assertEqual(self.run_command("image", "load", str(folder), "--name", "a/b:1"), 0)
        with tarfile.open(fileobj=io.BytesIO(self.manager.asked[-1][1])) as tar:
            self.assertIn("./oci-layout", tar.getnames())

    def test_unreadable(self) -> None:
        """A file that is not there, or a folder that can't be read, is told."""
        self.assertEqual(self.run_command("image", "load", "/not/there"), 1)
        self.assertIn("Can't open /not/there: No such file or directory.", self.err)
        self.manager.answers_to("PUT /images", {"images": [IMAGE]})
        folder = Path(self.mktemp())
        folder.mkdir()
        with mock.patch("txcontain.cli.images.TAR", ["tar", "--no-such-option"]):
            self.assertEqual(self.run_command("image", "load", str(folder)), 1)
        self.assertIn(f"tar could not read {folder}.", self.err)

    def test_pull(self) -> None:
        """The digest is printed when the image is here."""
        self.manager.answers_to("POST /images", IMAGE)
        self.assertEqual(self.run_command("image", "pull", "--insecure", "127.0.0.1:5000/a"), 0)
        asked = json.loads(self.manager.asked[-1][1])
        self.assertEqual(asked, {"name": "127.0.0.1:5000/a", "insecure": True})
        self.assertEqual(self.out, f"{IMAGE['digest']}\n")

    def test_one(self) -> None:
        """An image is looked at, named and removed by any name."""
        self.manager.answers_to("GET /images/r%3A5000%2Fapp", IMAGE)
        self.assertEqual(self.run_command("image", "inspect", "r:5000/app"), 0)
        self.assertIn('"layers": 2', self.out)
        self.manager.answers_to("POST /images/app/tag", IMAGE)
        self.assertEqual(self.run_command("image", "tag", "app", "app:2"), 0)
        self.assertEqual(json.loads(self.manager.asked[-1][1]), {"name": "app:2"})
        self.manager.answers_to("DELETE /images/app", {"removed": ["app:latest"]})
        self.assertEqual(self.run_command("image", "rm", "app"), 0)
        self.assertTrue(self.out.endswith("app:latest\n"))

    def test_history(self) -> None:
        """A row for each step; one without a layer has a dash."""
        steps = [
            {"created": "2026", "created_by": "CMD sh", "layer": None, "compressed": 0},
            {"created": "", "created_by": "COPY", "layer": IMAGE["digest"], "compressed": 1024},
        ]
        self.manager.answers_to("GET /images/app/history", {"history": steps})
        self.assertEqual(self.run_command("image", "history", "app"), 0)
        _, first, second = self.out.splitlines()
        self.assertEqual(first.split(), ["-", "0B", "2026", "CMD", "sh"])
        self.assertEqual(second.split(), ["sha256:0123456789ab", "1.0K", "COPY"])
