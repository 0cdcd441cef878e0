"""All entries of a tarball are in the container; what was left out is told."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from tests.integration.tarballs import Member, device, file, folder, link, pack, special
from txcontain.images.programs import find

# In a mount namespace: $1 becomes the root, with the host's below .host, and tar runs in it.
CHROOT = """
mkdir "$1/.host" && mount --rbind -o ro / "$1/.host" && root=$1 && shift && exec chroot "$root" "$@"
"""
# As root, with every power, and no wall: all that there is in an archive.
TAR = [
    "--extract",
    "--absolute-names",
    "--same-owner",
    "--same-permissions",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
]
NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # struct vfs_cap_data: cap_net_raw+ep
NOT_UNPACKED = ("security.", "trusted.", "user.overlay.")  # attributes: see docs/images.md


def facts_of(root: Path) -> dict[Any, dict[str, Any]]:
    """All paths below a folder, each with its facts; paths are bytes."""
    found, names = {}, defaultdict(list)
    top = os.fsencode(root) + b"/"
    for folder_, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = os.path.join(folder_, name)
            status = os.lstat(path)
            relative = path.removeprefix(top)  # os.path.relpath takes as long as all the rest
            names[status.st_ino].append(relative)
            found[relative] = facts(path, status)
    for paths in names.values():
        for path in paths:
            found[path]["names"] = sorted(paths) if len(paths) > 1 else []
    return found


def facts(path: bytes, status: os.stat_result) -> dict[str, Any]:
    """The facts of one file."""
    kind = stat.S_IFMT(status.st_mode)
    content: Any = None
    if kind == stat.S_IFREG and status.st_size < 1 << 30:
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)
    return {
        "kind": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "time": status.st_mtime_ns if kind != stat.S_IFDIR else 0,  # (that of its last entry)
        "size": status.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0,
        "content": content,
        "attributes": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        },
    }


def without_what_is_left_out(found: dict[str, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The same without device nodes, and attributes that are not unpacked."""
    kept = {path: dict(one) for path, one in found.items() if not is_node(one)}
    for one in kept.values():
        one["attributes"] = {
            name: value
            for name, value in one["attributes"].items()
            if not name.startswith(NOT_UNPACKED)
        }
    return kept


def is_node(one: dict[str, Any]) -> bool:
    """Whether these are the facts of a device node."""
    return one["kind"] in (stat.S_IFCHR, stat.S_IFBLK)


class TarballCase(ManagerCase):
    """A test that compares tarballs, unpacked by the manager and by root's tar in a chroot."""

    def setUp(self) -> None:
        super().setUp()
        self.source = self.folder / "source"
        self.source.mkdir()

    def compare(self, tarball: Path, inner: str = "") -> dict[Any, dict[str, Any]]:
        """Fail unless its layer is the same as in a chroot; returns the chroot's facts."""
        by_tar = self.by_tar(tarball)
        wanted = facts_of(by_tar / inner)
        layer = self.layer(tarball.name)
        found = facts_of(layer)
        expected = without_what_is_left_out(wanted)
        self.assertEqual(sorted(found), sorted(expected), tarball.name)
        for path, one in expected.items():
            self.assertEqual(found[path], one, (tarball.name, path))
        top, mine = (by_tar / inner).stat(), layer.stat()
        self.assertEqual((top.st_mode, top.st_uid), (mine.st_mode, mine.st_uid), tarball.name)
        self.assertEqual(
            self.left_out.get("device nodes", {}).get("count", 0),
            sum(map(is_node, wanted.values())),
            tarball.name,
        )
        shutil.rmtree(by_tar)
        return found

    def by_tar(self, tarball: Path) -> Path:
        """What root's tar makes of it in a chroot."""
        root = self.folder / "chroot"
        root.mkdir()
        tar = find("tar").command("/.host")
        with subprocess.Popen(["zcat", "-f", tarball], stdout=subprocess.PIPE) as unpacked:
            subprocess.run(
                ["unshare", "--mount", "sh", "-c", CHROOT, "sh", root, *tar, *TAR, "--file=-"],
                stdin=unpacked.stdout,
                capture_output=True,
                check=False,
            )
        (root / ".host").rmdir()
        return root

    def layer(self, name: str) -> Path:
        """The layer that a launch has of it."""
        answer = self.try_to_launch(mounts=[f"{name} /data READ"])
        self.assertEqual(answer.status, 200, (name, answer.reason))
        about = self.ask("GET", f"/instances/{answer.json['instance']}").json
        self.left_out = about["left_out"].get(name, {})
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        return Path(about["layers"][1])


class ComparedTests(TarballCase):
    """Tarballs of all kinds, made here."""

    def tar(self, name: str, *options: str, paths: tuple[str, ...] = (".",)) -> Path:
        """A tarball that tar makes of the source."""
        path = self.folder / "mountables" / name
        command = ["tar", "--create", f"--file={path}", "--directory", str(self.source)]
        subprocess.run([*command, *options, *paths], check=True, capture_output=True)
        return path

    def pack(self, name: str, *members: Member) -> Path:
        """A tarball of these members."""
        path = self.folder / "mountables" / name
        pack(path, *members)
        return path

    def make_source(self) -> None:
        """One of every kind of file."""
        source = self.source
        for name, mode in (
            ("plain", 0o644),
            ("secret", 0o600),
            ("program", 0o755),
            ("setuid", 0o6755),
            ("none", 0),
            ("empty", 0o644),
        ):
            (source / name).write_text("" if name == "empty" else name * 700)
            (source / name).chmod(mode)
        for name, mode in (("dir", 0o755), ("sticky", 0o1777), ("closed", 0o555), ("void", 0o2700)):
            (source / name).mkdir()
            (source / name / "inside").write_text(name)
            (source / name).chmod(mode)
        os.chown(source / "plain", 1000, 2000)
        os.chown(source / "dir", 33, 34)
        os.link(source / "plain", source / "dir/hard")
        os.symlink("plain", source / "link")
        os.link(source / "link", source / "hardlink-to-link", follow_symlinks=False)
        os.symlink("/nowhere/at/all", source / "dangling")
        os.symlink("circle", source / "circle")
        os.lchown(source / "link", 5, 6)
        os.mkfifo(source / "fifo", 0o622)
        os.utime(source / "secret", (0, 1))
        os.utime(source / "none", (4_000_000_000, 4_000_000_000))
        (source / "dev").mkdir()
        (source / "dev/a.c").write_text("a file, and no node")

    def test_formats(self) -> None:
        """Every format and compression of tar's, of one of every kind of file."""
        self.make_source()
        for number, name in enumerate(("gnu", "oldgnu", "pax", "ustar", "v7")):
            compress = ("--gzip", "--bzip2", "--xz", "--zstd", "--no-auto-compress")[number]
            lacks = {"fifo"} if name == "v7" else set()
            paths = tuple(set(os.listdir(self.source)) - lacks)
            found = self.compare_packed(f"{name}.tar", f"--format={name}", compress, paths)
            self.assertEqual(found[b"dev/a.c"]["size"], 19)

    def compare_packed(self, name: str, kind: str, compress: str, paths: tuple[str, ...]) -> Any:
        """The chroot gets it as it was before it was compressed."""
        plain = self.tar(name, kind, paths=paths)
        wanted = facts_of(self.by_tar(plain))
        shutil.rmtree(self.folder / "chroot")
        self.tar(name, kind, compress, paths=paths)
        found = facts_of(self.layer(name))
        self.assertEqual(found, without_what_is_left_out(wanted), name)
        return found

    def test_ways_to_name(self) -> None:
        """With ./ or / before the names, below a folder of the tarball's name, or another."""
        self.make_source()
        self.compare(self.tar("dots.tar"))
        change = "--transform=flags=rh;s,{},".format
        paths = ("plain", "dev")
        self.compare(self.tar("absolute.tar", change("^,/"), "-P", paths=paths))
        self.compare(self.tar("own.tar", change("^[.],own")), "own")
        self.compare(self.tar("own-1.2.tar", change("^[.],own-1.2")), "own-1.2")
        self.compare(self.tar("other.tar", change("^[.],another")))
        junk = file("._mac"), file(".DS_Store"), file("__MACOSX/mac/._a")
        self.pack("mac.tar", *junk, file("mac/a"), file("mac/._a"))
        self.assertEqual(sorted(facts_of(self.layer("mac.tar"))), [b"._a", b"a"])

    def test_names(self) -> None:
        """Long names and links, and names of any bytes."""
        deep = self.source
        for _ in range(12):
            deep = deep / ("d" * 40)
        deep.mkdir(parents=True)
        (deep / "file").write_text("deep")
        os.link(deep / "file", deep / ("h" * 200))
        os.symlink("t" * 300, deep / "link")
        names = b"-rf", b"--help", b"a b", b" ", b"*", b"new\nline", b"\xff\xfe", b"\xc3\xa9"
        for name in (*names, b"\\n", b"x" * 255, b"a: Cannot mknod: Operation not permitted"):
            Path(self.source / os.fsdecode(name)).write_bytes(name)
        for kind in ("gnu", "pax"):
            self.compare(self.tar(f"names-{kind}.tar", f"--format={kind}"))

    def test_sparse(self) -> None:
        """Files of holes, in every form that there is of them, as long as 21 GiB."""
        for name, size in (("small", 1 << 20), ("large", 21 << 30), ("hole", 1 << 22)):
            with open(self.source / name, "wb") as sparse:
                if name != "hole":
                    sparse.write(b"DATA")
                    sparse.seek(size // 2)
                    sparse.write(b"middle")
                sparse.truncate(size)
        kinds = [("gnu", "0.0"), *(("posix", version) for version in ("0.0", "0.1", "1.0"))]
        for kind, version in kinds:
            options = "--sparse", f"--format={kind}", f"--sparse-version={version}"
            self.compare(self.tar(f"sparse-{kind}-{version}.tar", *options))
            layer = self.layer(f"sparse-{kind}-{version}.tar")
            self.assertLess(sum(path.stat().st_blocks for path in layer.iterdir()), 1000)
            with open(layer / "large", "rb") as file_:
                file_.seek(21 << 29)
                self.assertEqual(file_.read(7), b"middle\0")

    def test_grown(self) -> None:
        """Archives to which others were appended: the last entry of each name counts."""
        self.make_source()
        self.tar("one.tar", paths=("plain", "dir"))
        (self.source / "plain").write_text("a later one")
        (self.source / "dir/later").write_text("later")
        path = self.folder / "mountables/one.tar"
        subprocess.run(["tar", "-rf", path, "-C", self.source, "plain", "dir"], check=True)
        self.assertEqual(self.compare(path)[b"plain"]["size"], 11)
        (self.source / "two").write_text("two")
        other = self.tar("two.tar", paths=("two", "link"))
        subprocess.run(["tar", "-Af", path, other], check=True)
        self.assertIn(b"two", self.compare(path))

    def test_through_links(self) -> None:
        """An entry behind an earlier link is where that link leads in a container."""
        for number, target in enumerate(("../run", "/run", "./../run", "../var/../run")):
            found = self.compare(
                self.pack(
                    f"link{number}.tar",
                    folder("var"),
                    folder("run"),
                    link("var/run", target),
                    file("var/run/file", "x"),
                    folder("var/run/dir"),
                    file("var/run/dir/y", "y"),
                )
            )
            self.assertEqual(found[b"run/dir/y"]["size"], 1)
            self.assertEqual(found[b"var/run"]["content"], os.fsencode(target))

    def test_odd_members(self) -> None:
        """Entries that are allowed, but rare."""
        old = special("old/", tarfile.AREGTYPE)
        large = file("large-ids", "x")
        large[0].uid, large[0].gid = 4_000_000_000, (1 << 21) + 1
        early = file("early", "x")
        early[0].mtime = -100
        odd: dict[str, list[Member]] = {
            "old-folder": [old, file("old/a", "a")],
            "contiguous": [special("x", tarfile.DIRTYPE), (self.contiguous("c"), b"abc")],
            "ids": [large, early],
            "no-parents": [file("a/b/c/d", "deep"), file("a/x", "y")],
            "late-folder": [file("a/b", "b"), folder("a", 0o500), folder("a", 0o511)],
            "replaced": [
                file("a", "1"),
                link("a", "b"),
                file("b", "2"),
                folder("c"),
                file("c", "3"),
                file("d", "4"),
                folder("d"),
                file("d/e", "5"),
            ],
            "hard-to-link": [link("l", "x"), special("h", tarfile.LNKTYPE, "l")],
            "hard-absolute": [file("f", "x"), special("h", tarfile.LNKTYPE, "/f")],
            "blocks": [file(f"f{size}", "x" * size) for size in (0, 1, 511, 512, 513, 10240)],
            "top": [folder(".", 0o711), file("./a", "a")],
            "nodes": [
                device("n", tarfile.CHRTYPE, 1, 3),
                device("a/b", tarfile.BLKTYPE, 8, 0),
                file("n2"),
                device("n2", tarfile.CHRTYPE, 5, 1),
                file("dev/null", "x"),
            ],
        }
        for name, members in odd.items():
            self.compare(self.pack(f"{name}.tar", *members))
        plain = self.pack("one-block.tar", file("a", "a")).read_bytes().rstrip(b"\0")
        whole = plain.ljust(-(-len(plain) // 512) * 512 + 512, b"\0")  # one block of zeros: an end
        (self.folder / "mountables/one-block.tar").write_bytes(whole)
        self.compare(self.folder / "mountables/one-block.tar")

    def contiguous(self, name: str) -> tarfile.TarInfo:
        """A file that is stored contiguously."""
        member = file(name, "abc")[0]
        member.type = tarfile.CONTTYPE
        return member

    def test_attributes(self) -> None:
        """Attributes of users are there; those for the kernel are told as left out."""
        plain, ping = file("plain", "x"), file("ping", "x", 0o755)
        plain[0].pax_headers = {
            "SCHILY.xattr.user.note": "hello",
            "SCHILY.xattr.user.overlay.opaque": "y",
            "SCHILY.xattr.trusted.overlay.opaque": "y",
            "LIBARCHIVE.creationtime": "7",
            "comment": "c",
        }
        path = self.pack("attributes.tar", plain, ping)
        (self.source / "ping").write_text("x")
        os.setxattr(self.source / "ping", "security.capability", NET_RAW)
        found = self.compare(path)
        self.assertEqual(found[b"plain"]["attributes"], {"user.note": b"hello"})
        self.assertEqual(self.left_out, {})
        self.compare(self.tar("capable.tar", "--xattrs", "--xattrs-include=*"))
        capability = {"count": 1, "names": ["./ping"]}
        self.assertEqual(self.left_out, {"extended attributes": capability})

    def test_many(self) -> None:
        """50,000 entries."""
        path = self.folder / "mountables/many.tar"
        with tarfile.open(path, "w") as tarball:
            for number in range(50_000):
                tarball.addfile(file(f"{number % 250}/{number}")[0])
        self.assertEqual(len(self.compare(path)), 50_250)

    def roots(self) -> Iterator[tuple[str, list[Member]]]:
        """The usual layouts of roots, by the links in them."""
        merged = [link(name, f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")]
        below = [folder(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")]
        yield (
            "ubuntu",
            [
                folder("usr"),
                *below,
                *merged,
                file("usr/bin/true", "x", 0o755),
                folder("var"),
                link("var/run", "/run"),
                link("var/lock", "/run/lock"),
                folder("run/lock", 0o1777),
                link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
                file("etc/shadow", "x", 0o640),
                link("etc/mtab", "../proc/self/mounts"),
                link("etc/alternatives/awk", "/usr/bin/mawk"),
                link("usr/bin/awk", "/etc/alternatives/awk"),
                file("bin/late", "x", 0o755),
                file("var/lock/late", "through two"),
                folder("tmp", 0o1777),
                device("dev/console", tarfile.CHRTYPE, 5, 1),
            ],
        )
        yield (
            "alpine",
            [
                file("bin/busybox", "x", 0o755),
                link("bin/sh", "/bin/busybox"),
                special("sbin/init", tarfile.LNKTYPE, "bin/busybox"),
                link("var/run", "../run"),
                link("var/lock", "../run/lock"),
                folder("run/lock"),
                folder("tmp", 0o1777),
                link("etc/mtab", "../proc/mounts"),
                folder("var/empty", 0o555),
                folder("dev"),
                folder("proc"),
                file("lib/apk/db/lock", "", 0o600),
                link("usr/bin/env", "/bin/busybox"),
            ],
        )

    def test_roots(self) -> None:
        """Roots with the links of Ubuntu's and of Alpine's, one of busybox, and our Debian."""
        for name, members in self.roots():
            self.compare(self.pack(f"{name}.tar", *members))
        busybox = shutil.which("busybox")
        assert busybox, "scripts/packages installs it"
        names = subprocess.check_output([busybox, "--list"], text=True).split()
        links = [link(f"bin/{name}", "busybox") for name in names]
        program = Path(busybox).read_bytes()
        self.compare(self.pack("busybox.tar", file("bin/busybox", program, 0o755), *links))
        self.image("busybox.tar", *self.busybox_root(program))
        out = self.inside("/bin/busybox echo it runs", base_image="busybox.tar")
        self.assertEqual(out, "it runs\n")
        debian = self.folder / "mountables/basefs.tar.gz"
        os.symlink(PROJECT / "base_images/basefs.tar.gz", debian)
        self.compare(debian, "basefs")

    def busybox_root(self, program: bytes) -> Iterator[Member]:
        """What a root of busybox needs besides a shell."""
        yield file("bin/busybox", program, 0o755)
        yield file("etc/passwd", "root:x:0:0::/:/bin/sh\n")


class ReplacedTests(ManagerCase):
    """Layers that nothing uses any more."""

    def layers(self) -> set[str]:
        """The names of all layers."""
        return {path.name for path in self.state.glob("layers/*") if path.suffix != ".json"}

    def test_replaced(self) -> None:
        """If a tarball is made again and again, only the newest layer and the used ones stay."""
        self.mountable("data.tar", file("number", "first"))
        used = self.running_inside("cat /data/number", mounts=["data.tar /data READ"])
        first = self.ask("GET", f"/instances/{used}").json["layers"]
        for number in range(4):
            self.mountable("data.tar", file("number", str(number)))
            newest = self.launch(mounts=["data.tar /data READ"])
            wanted = {*first, *self.ask("GET", f"/instances/{newest}").json["layers"]}
            self.ask("DELETE", f"/destroy/{newest}")
        wait_until(lambda: self.layers() == {Path(path).name for path in wanted}, "two are left")
        self.ask("DELETE", f"/destroy/{used}")
        wait_until(lambda: Path(first[1]).name not in self.layers(), "the first is gone")
        self.assertIn("removed", (self.state / "events.jsonl").read_text())


class RootTests(ManagerCase):
    """A base image's /run and /tmp, which a container has in memory."""

    def test_files(self) -> None:
        """What the image has in them is there; writing to it does not change the image."""
        image = self.image(
            "full.tar",
            folder("run"),
            folder("run/lock", 0o1777),
            file("run/sshd/pid", "7"),
            folder("tmp", 0o1777),
            file("tmp/seed", "seed"),
            folder("var"),
            link("var/lock", "/run/lock"),
        )
        for _ in range(2):
            for keys in ({}, {"user_namespace": True}, {"startup_owner": "worker"}):
                out = self.inside(
                    "cat /tmp/seed /run/sshd/pid; echo more > /var/lock/x && cat /run/lock/x\n"
                    "rm -f /tmp/seed; echo new > /tmp/new && ls /tmp",
                    base_image=image,
                    **keys,
                )
                seed = "new\nseed\n" if keys.get("startup_owner") else "new\n"
                self.assertEqual(out, f"seed7more\n{seed}", keys)

    def test_links(self) -> None:
        """If they are links, the memory is where they lead."""
        image = self.image(
            "links.tar",
            folder("var/tmp"),
            folder("var/run"),
            file("var/run/lock/x", "lock"),
            link("tmp", "var/tmp"),
            link("run", "var/run"),
        )
        text = "cat /run/lock/x; echo a > /tmp/a; echo b > /run/b; cat /var/tmp/a /var/run/b"
        for keys in ({}, {"user_namespace": True}, {"writable_root": True}):
            self.assertEqual(self.inside(text, base_image=image, **keys), "locka\nb\n")

    def test_links_to_the_kernels_own(self) -> None:
        """A link to /dev/shm works; no link makes anything of /proc writable."""
        image = self.image("shm.tar", link("tmp", "dev/shm"), link("run", "proc/sys"))
        out = self.inside(
            "echo a > /tmp/a; cat /dev/shm/a; echo x 2>&1 > /run/kernel/hostname || echo refused",
            base_image=image,
        )
        self.assertTrue(out.startswith("a\n") and out.endswith("refused\n"), out)

    def test_told_once(self) -> None:
        """What was left out is told by the launch that unpacked it, and by each inspection."""
        null = device("lib/udev/devices/null", tarfile.CHRTYPE, 1, 3)
        image = self.image("nodes.tar", null, device("dev/sda", tarfile.BLKTYPE, 8, 0))
        note = (
            "left out of nodes.tar: 2 device nodes (lib/udev/devices/null, dev/sda); "
            "see docs/images.md"
        )
        for notes in ([note], []):
            answer = self.try_to_launch(base_image=image)
            self.assertEqual((answer.status, answer.notes), (200, notes))
            about = self.ask("GET", f"/instances/{answer.json['instance']}").json["left_out"]
            self.assertEqual(about["nodes.tar"]["device nodes"]["count"], 2)
