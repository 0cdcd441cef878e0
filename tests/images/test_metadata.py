"""What is found out about an unpacked tarball."""

import os
import subprocess
from pathlib import Path
from typing import Any

from attrs import asdict
from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.facts import Place
from txcontain.errors import ConfigAtFault
from txcontain.host.files import to_json
from txcontain.images.metadata import Metadata, archive, merged, read, top
from txcontain.images.stack import place


class ContentCase(SynchronousTestCase):
    """A test with a folder instead of an unpacked tarball."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def make(self, *names: Any) -> None:
        """Make files, folders (NAME/) and links (NAME -> TARGET)."""
        for name in names:
            path, arrow, target = name.partition(" -> ")
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            if arrow:
                (self.folder / path).symlink_to(target)
            elif name.endswith("/"):
                (self.folder / path).mkdir(exist_ok=True)
            else:
                (self.folder / path).touch()


class PlaceTests(ContentCase):
    """Where /run and /tmp are."""

    def test_places(self) -> None:
        """A folder, any link, or nothing at all leads where it leads in a chroot."""
        self.make(
            "tmp/",
            "run/lock/",
            "var/tmp/x",
            "a -> var/tmp",
            "var/run -> /run",
            "up -> a/../..",
            "b -> ../../../var/run",
            "there -> /not/there",
            "deep/c -> ../a",
        )
        for path, wanted in {
            "/tmp": Place("/tmp", False),
            "/run": Place("/run", True),
            "/a": Place("/var/tmp", True),
            "/b": Place("/run", True),
            "/deep/c": Place("/var/tmp", True),
            "/there": Place("/not/there", False),
            "/none": Place("/none", False),
            "/up": Place("", False),
        }.items():
            self.assertEqual(place([str(self.folder)], path), wanted, path)

    def test_the_kernels_own(self) -> None:
        """A link to a folder of the kernel's (/proc, /sys, /dev) is not the image's own place."""
        self.make("tmp -> dev/shm", "run -> /proc/1")
        for path in ("/tmp", "/run"):
            self.assertEqual(place([str(self.folder)], path), Place())

    def test_circles(self) -> None:
        """Links that lead in circles are refused."""
        self.make("tmp -> run", "run -> /tmp")
        error = self.assertRaises(ConfigAtFault, place, [str(self.folder)], "/tmp")
        self.assertEqual(str(error), "/tmp is a symbolic link that leads in circles")

    def test_never_outside(self) -> None:
        """No link leads out to the host's files."""
        self.make(f"out -> {'../' * 30}etc", "abs -> /etc")
        for path in ("/out", "/abs"):
            self.assertEqual(place([str(self.folder)], path), Place("/etc", False))


class TopTests(ContentCase):
    """Where the content begins."""

    def assert_top(self, tarball: Any, wanted: Any, *names: Any) -> None:
        """Fail unless the content of a tarball with these names begins there."""
        subprocess.run(["rm", "-rf", self.folder], check=True)
        self.folder.mkdir()
        self.make(*names)
        inner = os.path.relpath(top(f"/x/{tarball}", str(self.folder)), self.folder)
        self.assertEqual(inner, wanted, (tarball, names))

    def test_own_name(self) -> None:
        """In a single folder with the tarball's name, with or without suffixes."""
        self.assert_top("site.tar", "site", "site/a")
        self.assert_top("site.tar.gz", "site", "site/a")
        self.assert_top("debian-12.5.tar.gz", "debian-12.5", "debian-12.5/etc/")
        self.assert_top("debian-12.5.tar.gz", "debian-12", "debian-12/etc/")

    def test_other_names(self) -> None:
        """Not in another folder, a file, a link, or a folder that is not alone."""
        for names in (["other/a"], ["site"], ["site -> other"], ["site/a", "b"], ["sit/a"], []):
            self.assert_top("site.tar", ".", *names)

    def test_junk(self) -> None:
        """What a Mac adds beside the packed folder does not count."""
        junk = ("._site", ".DS_Store", "__MACOSX/._site")
        self.assert_top("site.tar", "site", "site/a", "site/.DS_Store", *junk)
        self.assert_top("site.tar", ".", *junk)


class ArchiveTests(ContentCase):
    """Archives that are not roots."""

    def test_archives(self) -> None:
        """Archives of layers are recognised by the files that their formats require."""
        self.make("etc/passwd", "manifest.json")
        self.assertEqual(archive(str(self.folder)), "")
        self.make("oci-layout")
        self.assertEqual(archive(str(self.folder)), "an archive of `docker save`")
        (self.folder / "manifest.json").unlink()
        self.assertEqual(archive(str(self.folder)), "an OCI image layout")

    def test_saved_without_a_name(self) -> None:
        """`docker save` of an id writes no file of names; a manifest.json may be a web page's."""
        manifest = self.folder / "manifest.json"
        for text, expected in (
            ('[{"Config": "c.json", "RepoTags": null, "Layers": ["l/layer.tar"]}]', True),
            ('[{"Config": "c.json"}]', False),
            ('{"name": "a page", "icons": []}', False),
            ("[1]", False),
            ("[]", False),
            ("[" * 100_000, False),
            ("\0", False),
        ):
            self.make("manifest.json")
            manifest.write_text(text)
            self.assertEqual(archive(str(self.folder)) != "", expected, text[:50])
        manifest.unlink()
        manifest.symlink_to("/proc/self/environ")
        self.assertEqual(archive(str(self.folder)), "")


class KeptTests(SynchronousTestCase):
    """What is kept on the disk."""

    def test_read(self) -> None:
        """What was written is read; anything else is ignored."""
        nodes = {"device nodes": {"count": 5, "names": ["a", "b", "c"]}}
        content = Metadata("/x/a.tar", 7, nodes, Place("/var/run", True), Place(), "a zoo")
        self.assertEqual(read(to_json(asdict(content))), content)
        for document in (
            b"",
            b"[]",
            b"{}",
            b"null",
            b'{"run": 1, "tmp": {}}',
            b"\xff",
            b'{"run": {}, "tmp": {}, "other": 1}',
        ):
            self.assertEqual(read(document), Metadata())

    def test_merged(self) -> None:
        """Of layers together it is known what was left out of each, and when they were begun."""
        some, more = ({"device nodes": {"count": 2, "names": [*names]}} for names in ("ab", "cd"))
        parts = [Metadata(), Metadata(left_out=some, begun=8.0), Metadata(left_out=more, begun=7.0)]
        nodes = {"count": 4, "names": ["a", "b", "c"]}
        self.assertEqual(merged(parts), {"left_out": {"device nodes": nodes}, "begun": 7.0})
        self.assertEqual(merged(parts[:1]), {"left_out": {}, "begun": None})
        self.assertEqual(some["device nodes"]["count"], 2)  # what is known of each stays

    def test_told(self) -> None:
        """What was left out is told in a sentence; if nothing was, the sentence is empty."""
        nodes = {"count": 5, "names": ["a", "b", "c"]}
        content = Metadata("/x/a.tar", left_out={"device nodes": nodes})
        self.assertEqual(
            content.told, "left out of a.tar: 5 device nodes (a, b, c, ..); see docs/images.md"
        )
        self.assertEqual(Metadata("/x/a.tar").told, "")

    def test_told_of_an_archive(self) -> None:
        """An archive of an image is called that."""
        told = Metadata("/x/a.tar", archive="an OCI image layout").told
        self.assertIn("a.tar is an OCI image layout: its files are mounted as they are", told)
        self.assertIn("base_image can name it", told)
