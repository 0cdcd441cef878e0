"""Images with more layers than one overlay can have: the lowest ones are merged."""

import io
import os
import subprocess
import tarfile
import threading
from collections import defaultdict
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any, ClassVar

from tests.images.archives import ImageMaker, image, tarball
from tests.integration.harness import PROJECT, wait_until
from tests.integration.tarballs import Member, file, folder, link, small_image, special
from tests.integration.test_images import Hostile, KilledCase
from tests.integration.test_life import SABOTAGE
from tests.support import needs_programs
from txcontain.images.layers import merged_digest
from txcontain.images.oci import MOST_LOWER

FEW = 3  # layers that are merged
Seen = dict[str, tuple[Any, ...]]  # by path
MANY = MOST_LOWER + 10


def owned(member: Member, uid: int, gid: int) -> Member:
    """The same, of other owners."""
    member[0].uid, member[0].gid = uid, gid
    return member


def with_attribute(member: Member, name: str, value: str) -> Member:
    """The same, with an extended attribute."""
    member[0].pax_headers = {f"SCHILY.xattr.{name}": value}
    return member


def hard_link(name: str, target: str) -> Member:
    """One more name of a file."""
    return special(name, tarfile.LNKTYPE, target)


LOWEST = (
    *small_image(),
    folder("t"),
    folder("t/all", 0o1777),
    file("t/all/gone", "gone"),
    file("t/one", "the same file", 0o600),
    hard_link("t/other", "t/one"),
    hard_link("t/third", "t/one"),
    *(owned(file(f"t/{name}", "owned", 0o6755), 1000, 2000) for name in ("owned", "taken")),
    with_attribute(file("t/attribute"), "user.txcontain", "kept"),
    link("t/link", "owned"),
    special("t/fifo", tarfile.FIFOTYPE),
)


def layer(number: int) -> list[Member]:
    """A layer that adds a file, and does to those below it what layers can do."""
    members = [file(f"t/n{number}", str(number))]
    if number % 10 == 0:
        members.append(file(f"t/.wh.n{number - 7}"))
    if number % 50 == 0:
        members += [folder("t/all", 0o750), file("t/all/.wh..wh..opq")]
        members.append(file(f"t/all/n{number}"))
    if number % 40 == 0:
        members += [folder(f"t/n{number - 1}"), file(f"t/n{number - 1}/inner")]  # it was a file
    if number % 40 == 5:
        members.append(file("t/kind", str(number)))
    if number % 40 == 25:
        members += [folder("t/kind"), file(f"t/kind/{number}")]
    if number == MOST_LOWER + 1:  # not merged
        members += [file("t/.wh.one"), owned(file("t/taken", "again", 0o4711), 7, 8)]
        members += [file("t/new", "new"), hard_link("t/newer", "t/new")]
    return members


def many() -> ImageMaker:
    """An image with so many layers that some are merged."""
    return image([LOWEST, *map(layer, range(1, MANY))])


def told(archive: bytes) -> Seen:
    """What is in a tarball: kind, mode, owners, content, time and names of the same file."""
    found: Seen = {}
    names = defaultdict(list)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for one in tar:
            first = one.linkname if one.islnk() else one.name
            names[first].append(one.name)
            content = tar.extractfile(one) if one.isreg() else None
            found[one.name] = (
                *(one.type, one.mode, one.uid, one.gid, one.linkname),
                content and content.read(),
                one.isdir() or int(one.mtime),  # unpacking changes those of folders
            )
    for first, same in names.items():
        for name in same:
            found[name] = (*found[first], *sorted(same))
    return found


def merged_of(made: ImageMaker, lower: int) -> list[str]:
    """The name of the layer that the lowest layers of an image are together."""
    digests = [one.digest for one in made.manifest.layers[:lower]]
    return [merged_digest(digests[::-1]).partition(":")[2]]


class MergedCase(KilledCase):
    """A test with images of which layers are merged."""

    lower = 0  # layers that an overlay has; 0: as many as it can

    def start(self, **environment: str) -> None:
        """Start the manager."""
        if self.lower:
            environment["PYTHONPATH"] = f"{SABOTAGE}:{PROJECT}"
            environment["SABOTAGE_LOWER"] = str(self.lower)
        super().start(**environment)

    def unpacked(self) -> set[str]:
        """The layers of images that are there."""
        return {name for name in self.layers() if len(name) == 64}

    def assert_same(self, seen: Seen, wanted: Seen) -> None:
        """Fail if there is anything else, and say what that is."""
        self.maxDiff = None
        differ = [name for name in {*seen, *wanted} if seen.get(name) != wanted.get(name)]
        self.assertEqual([(name, seen.get(name), wanted.get(name)) for name in differ], [])

    def run_program(self, *words: str) -> bytes:
        """What a program writes."""
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def look(self, name: str, path: str = "/t") -> Seen:
        """What a container of an image has in a folder."""
        instance = self.launch(base_image=name, command=["sleep", "100"])
        answer = self.ask("GET", f"/instances/{instance}/files?path={path}/.")
        self.assertEqual(answer.status, 200, answer.reason)
        self.ask("DELETE", f"/destroy/{instance}")
        return told(answer.body)


OPAQUE = ".wh..wh..opq"
# Each does what the next one must not be led astray by.
ATTACKS: tuple[tuple[Member, ...], ...] = (
    (
        *LOWEST,
        *(folder(f"t/{name}") for name in ("folder", "was_folder", "hidden", "emptied")),
        *(file(f"t/{name}/inner", name) for name in ("folder", "was_folder", "hidden", "emptied")),
        *(file(f"t/{name}", name) for name in ("was_file", "again", "became_link")),
        *(link(f"t/{name}", "folder") for name in ("to_folder", "was_link", "also_link")),
        *(link(f"t/{name}", target) for name, target in (("top", "/"), ("up", "../../.."))),
    ),
    (file("t/to_folder/through", "a folder of its own"), file("t/top/etc/passwd", "no one")),
    (file("t/up/up/mark"), hard_link("t/up/hard", "t/up/up/mark")),
    (file("t/was_folder", "a file"), folder("t/was_file"), file("t/was_file/inner")),
    (link("t/folder", "/etc"), link("t/became_link", "/etc/passwd"), file("t/was_link")),
    (folder("t/folder", 0o700), file("t/folder/passwd", "not that of /etc")),
    (file("t/.wh.hidden"), file("t/.wh.again"), file("t/.wh.also_link"), file("t/.wh.was_file")),
    (file("t/hidden/.wh.inner"), file("t/again", "again"), file("t/was_file", "a file again")),
    (file(f"t/emptied/{OPAQUE}"), file("t/emptied/.wh.inner"), file("t/.wh.never_there")),
    (file("t/lonely/.wh.never_there"), file("t/lonely/there"), file("t/.wh.other")),
    (file(f"t/all/{OPAQUE}"), file("t/all/.wh.gone"), file("t/all/.wh..wh.plnk")),
    (file("t/.wh.link"), owned(file("t/link", "a file", 0o4755), 5, 6)),
    tuple(file(f"t/{name}", name) for name in ("-d", "--to-command=sh", "a\nb", "\\", "*", "\xff")),
)


class Many(MergedCase):
    """Images with many layers."""

    @needs_programs("umoci")
    def test_as_umoci(self) -> None:
        """A container has the files that umoci unpacks, and of the layers only some are kept."""
        made = many()
        archive = made.archive("1")
        self.load(archive, "app:1")
        kept = {
            *merged_of(made, MOST_LOWER),
            *(one.hex for one in made.manifest.layers[MOST_LOWER:]),
        }
        wait_until(lambda: self.unpacked() == kept, "the layers that were merged are removed")
        (attribute,) = self.state.glob("layers/*/t/attribute")
        self.assertEqual(os.getxattr(attribute, "user.txcontain"), b"kept")
        self.assert_same(self.look("app:1"), self.umoci(archive))

    def umoci(self, archive: bytes) -> Seen:
        """What umoci makes of an archive."""
        layout, bundle = self.folder / "layout", self.folder / "bundle"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(layout)
        self.run_program("umoci", "unpack", f"--image={layout}:1", str(bundle))
        pack = "tar", "--create", "--format=posix", "--xattrs", "--numeric-owner"
        return told(self.run_program(*pack, f"--directory={bundle}/rootfs/t", "."))


class Attacks(MergedCase):
    """Layers that are not what those below them expect."""

    def test_same_as_an_overlay(self) -> None:
        """Of which layers however many are merged, a container sees the same."""
        archive = image(ATTACKS).archive("app:1")
        self.load(archive)
        wanted = self.look("app:1")
        self.assertEqual(wanted["./to_folder/through"][5], b"a folder of its own")
        for self.lower in range(2, len(ATTACKS), 4):
            self.forget()
            self.stop()
            self.start()
            self.load(archive)
            kept = len(ATTACKS) - self.lower + 1
            merged = partial(lambda kept: len(self.unpacked()) == kept, kept)
            wait_until(merged, "the layers that were merged are removed")
            self.assert_same(self.look("app:1"), wanted)


SMALL = image([LOWEST, *([file(f"t/{name}", name)] for name in "abc")])  # of which FEW are merged
LARGER = image([LOWEST, *([file(f"t/{name}", name)] for name in "abcd")])


class Asked(Hostile):
    """A registry with the larger image, which notes what it is asked for."""

    made = LARGER
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer as a registry does."""
        self.asked.append(self.path.rpartition("/")[2])
        super().do_GET()


class Merged(MergedCase):
    """What is kept of images of which layers are merged."""

    lower = FEW
    options = ("--insecure-loopback",)

    def merged(self) -> os.stat_result:
        """The layer that all images here have as their lowest one."""
        (name,) = merged_of(SMALL, FEW)
        return os.stat(self.state / "layers" / name)

    def test_shared(self) -> None:
        """Images that begin with the same layers share what these are together, to the last one."""
        self.load(SMALL.archive("app:1"))
        first, above = self.merged(), SMALL.manifest.layers[FEW].hex
        self.load(LARGER.archive("app:2"))
        self.assertEqual(self.merged(), first)
        kept = {*merged_of(SMALL, FEW), above, LARGER.manifest.layers[-1].hex}
        wait_until(lambda: self.unpacked() == kept, "those that were merged are removed")
        told = {one["layer"]: one for one in self.ask("GET", "/df").json["layers"]}
        self.assertEqual([told[name]["used"] for name in kept], [True] * len(kept))
        sizes = {one["names"][0]: one["bytes"] for one in self.ask("GET", "/images").json["images"]}
        (lowest,) = merged_of(SMALL, FEW)
        self.assertEqual(sizes["app:1"], told[lowest]["bytes"] + told[above]["bytes"])
        self.ask("DELETE", "/images/app:1")
        self.ask("POST", "/prune")
        self.assertEqual(self.unpacked(), kept)
        self.assertIn("./d", self.look("app:2"))
        self.ask("DELETE", "/images/app:2")
        wait_until(lambda: not self.unpacked(), "nothing is left of them")

    def test_again(self) -> None:
        """An image that is loaded again, or is launched by a new manager, is not merged again."""
        self.load(SMALL.archive("app:1"))
        first, wanted = self.merged(), self.look("app:1")
        self.load(SMALL.archive("app:2"))
        instance = self.launch(base_image="app:1", command=["sleep", "100"])
        self.manager.kill()
        self.manager.wait()
        self.start()
        self.assertEqual(self.ask("GET", f"/instances/{instance}").json["state"], "running")
        for what in ("stop", "start"):
            self.assertEqual(self.ask("POST", f"/instances/{instance}/{what}").status, 200)
        self.assert_same(self.look("app:2"), wanted)
        self.assertEqual(self.merged(), first)

    def test_elsewhere(self) -> None:
        """An export, and an instance that is kept, has the same files in fewer layers."""
        self.load(LARGER.archive("app:1"))
        wanted = self.look("app:1")
        key = self.upload(base_image="app:1", command=["/bin/sh", "-c", "echo > /new; sleep 100"])
        path = f"/configs/{key['name']}-{key['major']}-{key['minor']}/export"
        for target in ("oci", "docker-archive"):
            answer = self.ask("GET", f"{path}?to={target}&image=out:1")
            self.assertEqual(answer.status, 200, answer.reason)
            self.load(answer.body, "out:1")
            self.assertEqual(self.ask("GET", "/images/out:1").json["layers"], FEW)
            self.assert_same(self.look("out:1"), wanted)
        instance = self.ask("POST", "/launch", key).json["instance"]
        wait_until(
            lambda: self.ask("GET", f"/instances/{instance}/diff").json["changes"], "it wrote"
        )
        kept = self.ask("POST", f"/instances/{instance}/commit", {"image": "kept:1"})
        self.assertEqual(kept.json["layers"], FEW + 1)  # of which some are merged in turn
        self.assert_same(self.look("kept:1"), wanted)

    def test_odd(self) -> None:
        """A file of holes takes no room, attributes stay, and those of an overlay are no one's."""
        with open(self.folder / "holes", "wb") as holes:
            holes.truncate(1 << 40)
        sparse = self.run_program("tar", "-c", "--sparse", f"--directory={self.folder}", "holes")
        odd, names = file("t/odd"), ("user.fine", "user.overlay.opaque", "trusted.overlay.opaque")
        odd[0].pax_headers = {f"SCHILY.xattr.{name}": "y" for name in names}
        others = (tarball(one) for one in (odd, file("a"), file("b")))
        self.load(ImageMaker([tarball(*LOWEST), sparse, *others]).archive("app:1"))
        wait_until(lambda: len(self.unpacked()) == FEW, "the layers that were merged are removed")
        (merged,) = (path.parent for path in self.state.glob("layers/*/holes"))
        status = os.stat(merged / "holes")
        self.assertEqual(status.st_size, 1 << 40)
        self.assertLess(status.st_blocks, 100)
        self.assertEqual(os.listxattr(merged / "t/odd"), ["user.fine"])

    def test_pulled(self) -> None:
        """Of layers that are merged already, a pull asks for none."""
        self.load(SMALL.archive("app:1"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = self.look(f"127.0.0.1:{server.server_port}/app:1")
        self.assertIn("./d", seen)
        layers = {one.digest for one in LARGER.manifest.layers}
        self.assertEqual(layers.intersection(Asked.asked), {LARGER.manifest.layers[-1].digest})

    def test_refused(self) -> None:
        """A layer that is no layer is refused, if it would be merged too; nothing is kept."""
        for members, why in (
            ([file("t/.wh...")], "has a whiteout that leads out of its folder"),
            ([file("t/.wh..")], "has a whiteout that leads out of its folder"),
            ([hard_link("t/linked", "t/one")], "Cannot hard link"),
        ):
            made = image([LOWEST, members, *([file(f"t/{name}")] for name in "abc")])
            answer = self.ask("PUT", "/images", made.archive("app:1"))
            self.assertEqual(answer.status, 409)
            self.assertIn(why, answer.reason)
            wait_until(lambda: not self.kept(), "nothing is kept")

    def test_killed(self) -> None:
        """A manager that is killed while it merges keeps all of an image, or nothing of it."""
        large = file("t/large", bytes(range(256)) * (1 << 17))
        made = image([(*LOWEST, large), *([file(f"t/{name}", name)] for name in "abc")])
        archive, (name,) = made.archive("app:1"), merged_of(made, FEW)
        first = made.manifest.layers[1].hex
        self.moments = (
            *(f"layers/{first}", f"layers/{name}-*.unpacking/layer/t/large"),
            *(f"layers/{name}.json", f"layers/{name}", f"images/{'?' * 64}.json"),
        )

        def look() -> None:
            self.assertEqual(self.shows("ls /t/large; cat /t/a /t/c"), "/t/large\nac")

        self.kill_at_each_moment(lambda: self.load(archive), look)
