"""Layers and archives of images, byte by byte."""

import io
import json
import os
import socket
import tarfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import ConfigAtFault
from txcontain.images import oci_writing
from txcontain.images.bounds import Bounds
from txcontain.images.oci import CONFIG, MANIFEST, described
from txcontain.images.oci_writing import Blob, File, Image, Tree, archive, described_layer, layer

WHITEOUT = os.makedev(0, 0)


def opened(pieces: Any) -> tarfile.TarFile:
    """A tar stream, as tarfile reads it."""
    return tarfile.open(fileobj=io.BytesIO(b"".join(pieces)))


class LayerTests(SynchronousTestCase):
    """What a layer holds."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "b/c").mkdir(parents=True)
        (self.folder / "b/c/file").write_bytes(b"x" * 600)
        (self.folder / "a.txt").write_text("a")
        (self.folder / "B").symlink_to("/etc/passwd")
        os.mkfifo(self.folder / "pipe")
        for path in self.folder.rglob("*"):
            os.utime(path, ns=(0, 1_500_000_000), follow_symlinks=False)

    def members(self, **more: Any) -> dict[str, tarfile.TarInfo]:
        """The entries of the folder as a layer, by name, in their order."""
        with opened(layer(Tree(str(self.folder), **more))) as tarball:
            return {member.name: member for member in tarball}

    def test_order(self) -> None:
        """Entries are in the order of their names as bytes, each folder before what is in it."""
        self.assertEqual([*self.members()], [".", "B", "a.txt", "b", "b/c", "b/c/file", "pipe"])
        with opened(layer(Tree(str(self.folder)))) as tarball:
            self.assertEqual(tarball.extractfile("b/c/file").read(), b"x" * 600)

    def test_kinds(self) -> None:
        """Owners, modes, times and kinds are as on the disk; a link is not followed."""
        (self.folder / "a.txt").chmod(0o4750)
        members = self.members()
        status = (self.folder / "a.txt").stat()
        one = members["a.txt"]
        self.assertEqual((one.uid, one.gid, one.mode), (status.st_uid, status.st_gid, 0o4750))
        self.assertEqual((one.mtime, one.uname), (1.5, ""))
        self.assertEqual(
            (members["B"].type, members["B"].linkname), (tarfile.SYMTYPE, "/etc/passwd")
        )
        self.assertEqual(members["pipe"].type, tarfile.FIFOTYPE)

    def test_below_a_target(self) -> None:
        """A mount hides what is at its target, and begins with a folder of no time."""
        names = self.members(target="/opt/app", hides=True)
        self.assertEqual([*names][:3], ["opt/app", "opt/app/.wh..wh..opq", "opt/app/B"])
        self.assertEqual(names["opt/app"].mtime, 0)

    def test_folders_without_times(self) -> None:
        """Folders that are newer than the tarball's unpacking have no time; files keep theirs."""
        members = self.members(begun=1.0)
        self.assertEqual([members[name].mtime for name in ("b", "b/c", "b/c/file")], [0, 0, 1.5])

    def test_times_to_come(self) -> None:
        """A folder that its tarball dates in the future has that time, whenever it is unpacked."""
        to_come = time.time_ns() + 10**12
        os.utime(self.folder / "b", ns=(0, to_come))
        for begun in (1.0, to_come / 10**9 + 1000):
            self.assertEqual(self.members(begun=begun)["b"].mtime, to_come / 10**9)

    def test_hard_links(self) -> None:
        """A file with two names is there once; the second name leads to the first."""
        os.link(self.folder / "a.txt", self.folder / "z")
        one = self.members(target="/x")["x/z"]
        self.assertEqual((one.type, one.linkname, one.size), (tarfile.LNKTYPE, "x/a.txt", 0))

    def test_names(self) -> None:
        """A long name, and one that is no UTF-8, stay as they are."""
        names = ["n" * 200, "é", os.fsdecode(b"\xff")]
        for name in names:
            (self.folder / name).touch()
        with tarfile.open(
            fileobj=io.BytesIO(b"".join(layer(Tree(str(self.folder))))), errors="surrogateescape"
        ) as tarball:
            self.assertEqual(set(names) - set(tarball.getnames()), set())

    def test_attributes(self) -> None:
        """Attributes of users are kept; those of an overlay become its marks."""
        values = {"user.a": b"\xff1", "trusted.overlay.opaque": b"y", "security.x": b"z"}

        def names_at(path: str, follow_symlinks: bool) -> list[str]:
            return [*values] if path.endswith("/b") else []

        with (
            mock.patch.object(oci_writing.os, "listxattr", names_at),
            mock.patch.object(oci_writing.os, "getxattr", lambda path, name, **_: values[name]),
        ):
            members = self.members()
        self.assertIn("b/.wh..wh..opq", members)
        kept = {name: text for name, text in members["b"].pax_headers.items() if "xattr" in name}
        self.assertEqual(kept, {"SCHILY.xattr.user.a": "\udcff1"})

    def test_marks(self) -> None:
        """What an overlay leads to a layer below, as after a rename, is refused."""
        for mark in oci_writing.NOT_WHOLE:
            marked = mock.patch.object(oci_writing.os, "listxattr", lambda *_, m=mark, **__: [m])
            said = "a part of it is in a layer below"
            with marked, self.assertRaisesRegex(ConfigAtFault, said):
                self.members()

    def test_depth(self) -> None:
        """Folders that are nested too deep for descriptors are refused."""
        bounded = mock.patch.object(oci_writing, "USUAL", Bounds(depth=1))
        with bounded, self.assertRaisesRegex(ConfigAtFault, "more than 1 folders deep"):
            self.members()

    def test_of_an_instance(self) -> None:
        """What a container with mapped ids wrote has its ids; the host's are root; no sockets."""
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(self.folder / "socket"))
        status = self.folder.stat()
        members = self.members(first_id=status.st_uid + 1 if status.st_uid else 1)
        self.assertEqual({member.uid for member in members.values()}, {0})
        self.assertNotIn("socket", members)

    def test_whiteouts(self) -> None:
        """What hides a file in an overlay becomes the image's mark for that."""
        real = os.stat

        def stat_as_whiteout(path: Any, **more: Any) -> Any:
            status = real(path, **more)
            if path != "a.txt":
                return status
            return os.stat_result([0o20000, *status[1:]], {"st_rdev": 0, "st_mtime_ns": 0})

        with mock.patch.object(oci_writing.os, "stat", stat_as_whiteout):
            members = self.members(target="/x")
        self.assertIn("x/.wh.a.txt", members)
        self.assertNotIn("x/a.txt", members)

    def test_name_of_a_whiteout(self) -> None:
        """A file whose name would hide another in an image is refused."""
        (self.folder / "b/.wh.x").touch()
        with self.assertRaisesRegex(ConfigAtFault, r"b/\.wh\.x can't be in an image"):
            self.members()

    def test_file_that_shrinks(self) -> None:
        """A file that becomes shorter while it is read does not end up with other bytes."""
        pieces = layer(Tree(str(self.folder)))
        while b"file" not in (piece := next(pieces)):
            pass
        self.assertIn(b"b/c/file", piece)
        os.truncate(self.folder / "b/c/file", 10)
        with self.assertRaisesRegex(ConfigAtFault, "b/c/file became shorter"):
            for _ in pieces:
                pass

    def test_nothing_stays_open(self) -> None:
        """Whoever stops reading in between leaves no descriptor behind."""
        before = os.listdir("/proc/self/fd")
        pieces = layer(Tree(str(self.folder)))
        for _ in range(6):
            next(pieces)
        pieces.close()  # type: ignore[attr-defined]  # it is a generator
        self.assertEqual(os.listdir("/proc/self/fd"), before)

    def test_small_files(self) -> None:
        """Files that are not on the disk become a layer, in the order of their names."""
        files = [File("/etc/b", b"2", 0o600, 1, 2), File("/etc/a", b"", 0o644, 0, 0)]
        with opened(layer(files)) as tarball:
            one, other = tarball
            self.assertEqual((one.name, other.name), ("etc/a", "etc/b"))
            self.assertEqual((other.mode, other.uid, other.gid), (0o600, 1, 2))
            self.assertEqual(tarball.extractfile(other).read(), b"2")


class ArchiveTests(SynchronousTestCase):
    """A whole image as one stream."""

    def image(self) -> Image:
        """An image with two layers that are the same."""
        files = (File("/a", b"a", 0o644, 0, 0),)
        config, manifest = (
            Blob(described(text, kind), text) for text, kind in ((b"{}", CONFIG), (b"[]", MANIFEST))
        )
        layers = [Blob(described_layer(files), files)] * 2
        return Image("app:1", "1", manifest, config, layers)

    def test_layout(self) -> None:
        """It is an image layout, in which every blob has the name of its digest, once."""
        whole = self.image()
        with opened(archive(whole)) as tarball:
            names = tarball.getnames()
            self.assertEqual(names[:4], ["oci-layout", "index.json", "blobs", "blobs/sha256"])
            self.assertEqual(len(names), len({*names}))
            index = json.loads(tarball.extractfile("index.json").read())
            for blob in (whole.manifest, whole.config, *whole.layers):
                content = tarball.extractfile(f"blobs/sha256/{blob.descriptor.hex}").read()
                self.assertEqual(described(content, blob.descriptor.media_type), blob.descriptor)
        (said,) = index["manifests"]
        self.assertEqual(said["digest"], whole.manifest.descriptor.digest)
        self.assertEqual(said["annotations"], {"org.opencontainers.image.ref.name": "1"})

    def test_for_docker(self) -> None:
        """For Docker there is a manifest.json instead, which names the image and all layers."""
        whole = self.image()
        with opened(archive(whole, for_docker=True)) as tarball:
            (said,) = json.loads(tarball.extractfile("manifest.json").read())
            self.assertNotIn("index.json", tarball.getnames())
            for name in [said["Config"], *said["Layers"]]:
                tarball.getmember(name)
        self.assertEqual((said["RepoTags"], len(said["Layers"])), (["app:1"], 2))
