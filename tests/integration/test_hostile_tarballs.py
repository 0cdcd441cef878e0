"""Tarballs made to reach outside, to fill the disk, or to mislead."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.harness import NEW_NUMBER, Answer, SharedManagerCase, fingerprint
from tests.integration.tarballs import Member, device, file, folder, link, special

MEGABYTE = 1 << 20


def packed(*members: Member) -> bytes:
    """A tarball of these members, as bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tarball:
        for member, data in members:
            tarball.addfile(member, io.BytesIO(data))
    return content.getvalue()


class HostileCase(SharedManagerCase):
    """A test that mounts hostile tarballs and checks that nothing else has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.outside = self.folder / "outside"
        self.outside.mkdir(exist_ok=True)
        (self.outside / "secret").write_text("untouched")
        self.launch()  # so that the base image is unpacked

    def keep(self, content: bytes, name: str = "") -> str:
        """Write a tarball of this content; returns its name."""
        name = name or f"hostile{NEW_NUMBER()}.tar"
        (self.folder / "mountables" / name).write_bytes(content)
        return name

    def mount(self, *members: Member, **keys: object) -> Answer:
        """Launch a container that mounts a tarball of these members."""
        return self.mount_raw(packed(*members), **keys)

    def mount_raw(self, content: bytes, **keys: object) -> Answer:
        """Launch a container that mounts a tarball of this content, at /data."""
        before = self.all_but_layers()
        answer = self.try_to_launch(mounts=[f"{self.keep(content)} /data READ"], **keys)
        now = self.all_but_layers()
        self.assertEqual({k: now[k] for k in before if k in now}, before)
        self.assertEqual(list(self.state.glob("layers/*.unpacking")), [])
        self.assertEqual(self.ask("GET", "/list").status, 200)
        return answer

    def all_but_layers(self) -> dict[str, object]:
        """What no tarball may change."""
        watched = (self.folder / "base_images", self.folder / "mountables", self.outside)
        return {
            f"{tree}/{path}": facts
            for tree in watched
            for path, facts in fingerprint(tree).items()
            if path != "."
        }

    def layer(self, answer: Answer) -> Path:
        """The layer of the tarball that a launch has mounted."""
        self.assertEqual(answer.status, 200, answer.reason)
        name = self.ask("GET", f"/instances/{answer.json['instance']}").json["layers"][1]
        return Path(name)


class OutsideTests(HostileCase):
    """Ways out of the layer."""

    def test_dots(self) -> None:
        """'..' and absolute names lead nowhere else."""
        for name in (
            "../escaped",
            "a/../../../escaped",
            f"{self.outside}/secret",
            "/etc/passwd",
            "..",
            "/",
            "./../../../../../../tmp/escaped",
        ):
            self.mount(file(name, "overwritten"))
            self.assertFalse(os.path.exists("/tmp/escaped"))
        self.assertEqual((self.outside / "secret").read_text(), "untouched")

    def test_file_through_a_link(self) -> None:
        """Neither a symbolic link to outside nor a chain of them carries a file there."""
        chain = "/".join(["x" * 200] * 15)
        for target in (
            str(self.outside),
            "../" * 20 + str(self.outside)[1:],
            "/proc/1/root",
            "/proc/self/cwd/..",
            "/layer/..",
        ):
            self.mount(
                link("door", target), file("door/secret", "overwritten"), file("door/escaped")
            )
        self.mount(
            folder(chain), link("a", f"{chain}/.."), link("b", "a/../.."), file("b/../../escaped")
        )
        self.assertEqual(os.listdir(self.outside), ["secret"])

    def test_folder_becomes_a_link(self) -> None:
        """A folder that a later entry turns into a symbolic link carries nothing outside."""
        self.mount(folder("a"), link("a", str(self.outside)), file("a/secret", "overwritten"))
        self.mount(folder("a"), file("a/b"), link("a", str(self.outside)), file("a/escaped"))
        self.assertEqual(os.listdir(self.outside), ["secret"])

    def test_hard_links(self) -> None:
        """A hard link to something outside can't be made or written through."""
        for target in (
            f"{self.outside}/secret",
            "/etc/passwd",
            "/tarball",
            "../tarball",
            "/proc/self/exe",
            "../../outside/secret",
        ):
            answer = self.mount(special("alias", tarfile.LNKTYPE, target), file("alias", "x"))
            self.assertNotEqual(answer.status, 500)
        self.assertEqual((self.outside / "secret").stat().st_nlink, 1)

    def test_shared_memory_of_the_jail(self) -> None:
        """Besides the layer, tar can only see the host's programs, and can't write to them."""
        self.mount(link("up", ".."), file("up/usr/bin/planted"), file("up/tarball", "overwritten"))
        self.assertFalse(os.path.exists("/usr/bin/planted"))


class KindTests(HostileCase):
    """Entries that are not ordinary files."""

    def test_devices(self) -> None:
        """A device node is left out, wherever it is; all other entries are there."""
        for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            for name in ("disk", "dev/disk", "./dev/disk", "/dev/disk", "a/disk", "a/../disk"):
                members = folder("dev"), folder("a"), device(name, kind, 8, 0), file("dev/file")
                layer = self.layer(self.mount(*members))
                found = sorted(str(path.relative_to(layer)) for path in layer.rglob("*"))
                self.assertEqual(found, ["a", "dev", "dev/file"])

    def test_whiteouts(self) -> None:
        """A character device 0:0, with which an overlay would hide a file, is refused."""
        self.assert_refused(self.mount(device("hidden", tarfile.CHRTYPE, 0, 0)), 409, "hides files")

    def test_overlay_attributes(self) -> None:
        """Extended attributes that would make an overlay hide or reveal files do not arrive."""
        member = folder("opaque")
        member[0].pax_headers = {
            "SCHILY.xattr.trusted.overlay.opaque": "y",
            "SCHILY.xattr.user.overlay.opaque": "y",
            "SCHILY.xattr.user.overlay.redirect": "/etc",
            "SCHILY.xattr.security.capability": "\1\0\0\2\xff\xff\xff\xff\0\0\0\0",
            "LIBARCHIVE.xattr.user.overlay.opaque": "eQ==",
        }
        layer = self.layer(self.mount(member))
        self.assertEqual(os.listxattr(layer / "opaque"), [])

    def test_setuid(self) -> None:
        """Setuid and setgid bits are kept, as they belong to the image: no mount honours them."""
        layer = self.layer(self.mount(file("suid", mode=0o6755)))
        self.assertEqual((layer / "suid").stat().st_mode, stat.S_IFREG | 0o6755)

    def test_fifo(self) -> None:
        """A fifo is content like any other, and blocks nobody."""
        layer = self.layer(self.mount(special("pipe", tarfile.FIFOTYPE)))
        self.assertTrue(stat.S_ISFIFO((layer / "pipe").lstat().st_mode))

    def test_names(self) -> None:
        """Names that are not UTF-8, hold newlines or look like options are names."""
        names = [
            b"new\nline",
            b"\xff\xfe",
            b"--checkpoint-action=exec=sh",
            b"-",
            b"\x1b[2J",
            b"\\n",
        ]
        members = [file(os.fsdecode(name)) for name in names]
        layer = self.layer(self.mount(*members))
        self.assertEqual(sorted(os.listdir(os.fsencode(layer))), sorted(names))

    def test_empty(self) -> None:
        """A tarball without entries is an empty folder; a file that is no tarball is refused."""
        self.assertEqual(os.listdir(self.layer(self.mount())), [])
        self.assert_refused(self.mount_raw(b"no tarball"), 409)


class ShapeTests(HostileCase):
    """Archives that are not what they seem."""

    def test_compression(self) -> None:
        """Gzip, bzip2, xz and zstd are recognised by content, whatever the name."""
        content = packed(file("data", "content" * 1000))
        zstd = subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True).stdout
        for compressed in (
            gzip.compress(content),
            bz2.compress(content),
            lzma.compress(content),
            zstd,
        ):
            layer = self.layer(self.mount_raw(compressed))
            self.assertEqual((layer / "data").read_text(), "content" * 1000)

    def test_truncated(self) -> None:
        """A tarball that is cut short is refused, even within a header or between two entries."""
        content = packed(file("a", b"x" * 5000), file("b", b"y" * 5000))
        between = 512 + 5120
        self.assert_refused(self.mount_raw(content[:between]), 409, "it was cut short")
        for length in (0, 100, 512, 2000, 5120, between + 9, 7000, 9000):
            self.assert_refused(self.mount_raw(content[:length]), 409)
        compressed = gzip.compress(content)
        for length in (5, 15, len(compressed) // 2, len(compressed) - 4):
            self.assert_refused(self.mount_raw(compressed[:length]), 409)

    def test_trailing_garbage(self) -> None:
        """What comes after the end is not content: it is refused or left out."""
        content = packed(file("a"))
        for garbage in (b"\xff" * 5000, packed(file("../escaped"), file("more"))):
            for whole in (content + garbage, gzip.compress(content) + garbage):
                answer = self.mount_raw(whole)
                if answer.status == 200:
                    self.assertEqual(os.listdir(self.layer(answer)), ["a"])
                else:
                    self.assert_refused(answer, 409)

    def test_pax_headers(self) -> None:
        """A pax header that is huge, or lies about its length, does no harm."""
        member = file("a", "content")
        member[0].pax_headers = {"comment": "x" * (20 * MEGABYTE)}
        self.assertIn(self.mount(member).status, (200, 409))
        huge = tarfile.TarInfo("huge")
        huge.type, huge.size = tarfile.XHDTYPE, 1 << 40
        self.assert_refused(self.mount_raw(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024)), 409)
        for record in (b"999999999999 path=x\n", b"-5 path=x\n", b"12 size=-1\n", b"x", b"30 a"):
            header = tarfile.TarInfo("odd")
            header.type, header.size = tarfile.XHDTYPE, len(record)
            content = header.tobuf() + record.ljust(512, b"\0") + packed(file("a"))
            self.assertIn(self.mount_raw(content).status, (200, 409))

    def test_size_that_lies(self) -> None:
        """An entry that claims to be larger than any disk is refused."""
        member = tarfile.TarInfo("large")
        member.size = 1 << 50
        self.assert_refused(self.mount_raw(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), 409)


class BoundTests(HostileCase):
    """More than the bounds, which are small here."""

    options = (
        *"--layer-entries 200 --layer-size 50000000 --layer-depth 40".split(),
        *"--layer-path 300".split(),
    )

    def test_entries(self) -> None:
        """More entries than the bound are refused."""
        members = [file(f"file{i}") for i in range(300)]
        self.assert_refused(self.mount(*members), 409, "more than 200 files")

    def test_depth(self) -> None:
        """Folders that are too deep are refused, and removed, however deep."""
        self.assert_refused(self.mount(folder("d/" * 60)), 409, "more than 40 deep")
        members = [folder("/".join(["d" * 9] * 9 + ["e"] * i)) for i in range(100)]
        self.assert_refused(self.mount(*members), 409, "more than 40 deep")

    def test_path(self) -> None:
        """Paths that are too long are refused."""
        self.assert_refused(self.mount(folder("/".join(["d" * 100] * 4))), 409, "300 bytes")

    def test_bomb(self) -> None:
        """A small file that unpacks to a large one is stopped at the bound."""
        bomb = tarfile.TarInfo("bomb")
        bomb.size = 100_000_000
        content = gzip.compress(bomb.tobuf() + bytes(bomb.size) + bytes(1024), 1)
        self.assertLess(len(content), MEGABYTE)
        self.assert_refused(self.mount_raw(content), 409, "more than 50000000 bytes")

    def test_bomb_of_many(self) -> None:
        """A tarball of many files, each within the bound, is stopped at the bound too."""
        members = [file(f"file{i}", bytes(8 * MEGABYTE)) for i in range(8)]
        content = gzip.compress(packed(*members), 1)
        self.assert_refused(self.mount_raw(content), 409, "more than 50000000 bytes")

    def test_sparse(self) -> None:
        """A file of holes takes no room and arrives as it was, however long."""
        for size, end in ((60_000_000, b"end"), (21 << 30, b"end"), (21 << 30, b"")):
            with open(self.folder / "sparse", "wb") as sparse:
                sparse.write(b"DATA")
                sparse.truncate(size)
                sparse.seek(size)
                sparse.write(end)
            command = ["tar", "-c", "--sparse", "-C", str(self.folder), "sparse"]
            content = subprocess.run(command, capture_output=True, check=True).stdout
            self.assertLess(len(content), MEGABYTE)
            unpacked = self.layer(self.mount_raw(content)) / "sparse"
            self.assertEqual(unpacked.stat().st_size, size + len(end))
            with open(unpacked, "rb") as file:
                self.assertEqual(file.read(5), b"DATA\0")
                file.seek(size)
                self.assertEqual(file.read(), end)


NAMES = st.sampled_from(
    ["a", "b", "a/b", "a/b/c", "..", ".", "/", "../a", "a/..", "/a", "a/../..", "//", "b/a", ""]
)
TARGETS = st.one_of(
    NAMES, st.sampled_from(["/tmp", "../../..", "/proc/self/root", "/layer", "a/a"])
)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.GNUTYPE_SPARSE,
        b"M",
        b"V",
        b"D",
        b"Z",
    ]
)


@st.composite
def entries(draw: st.DrawFn) -> Member:
    """Any entry."""
    member = special(draw(NAMES), draw(KINDS), draw(TARGETS), draw(st.integers(0, 0o7777)))
    content = draw(st.binary(max_size=600))
    member[0].size = len(content) if member[0].type == tarfile.REGTYPE else draw(st.just(0))
    member[0].uid, member[0].gid = draw(st.integers(0, 1 << 20)), draw(st.integers(0, 1 << 20))
    return member[0], content[: member[0].size]


class AnyTarballTests(HostileCase):
    """Tarballs of any entries."""

    @settings(
        max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(
        st.lists(entries(), max_size=8),
        st.lists(st.tuples(st.integers(0, 9000), st.binary(max_size=4)), max_size=3),
    )
    def test_any(self, members: list[Member], scribbles: list[tuple[int, bytes]]) -> None:
        """Damaged tarballs of any entries are refused or unpacked; nothing outside changes."""
        content = bytearray(packed(*members))
        for offset, scribble in scribbles:
            content[offset : offset + len(scribble)] = scribble
        answer = self.mount_raw(bytes(content))
        self.assertIn(answer.status, (200, 409), answer.reason)
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
