"""Tarballs become layers: each once, checked, and never half."""

import json
import os
import signal
import socket
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, maybeDeferred

from tests.fakes import MachineTestCase, make_pool, remove
from txcontain.container.facts import Place
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.images import bounds as unpacking
from txcontain.images import fresh, layers, programs, unpack
from txcontain.images.bounds import Bounds
from txcontain.images.fresh import LIST
from txcontain.images.layers import Layers, merged_digest
from txcontain.images.metadata import Metadata
from txcontain.images.programs import COMPRESSIONS, Program, find_decompressor
from txcontain.images.unpack import CHECK_EVERY, Unpacker
from txcontain.images.unpacking_plan import make_merging_plan, make_unpacking_plan


class LayersTestCase(MachineTestCase):
    """A test of layers in which the test does tar's work."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor.works = False
        self.pool = make_pool(self.reactor, self.folder, size=0)
        self.pool.start()
        for name in ("layers", "mountables"):
            os.mkdir(os.path.join(self.folder, name))
        unpacker = Unpacker(self.pool, maybeDeferred, remove)
        self.layers = Layers(os.path.join(self.folder, "layers"), unpacker)
        for module in (unpack, programs):
            self.patch(module, "find", lambda name: Program(f"/usr/bin/{name}"))

    def get(self, name: str = "potato.tar", content: bytes = b"a tarball") -> Any:
        """Ask for the layer of a tarball that holds this."""
        folder = os.path.join(self.folder, "mountables")
        with open(os.path.join(folder, name), "wb") as file:
            file.write(content)
        return self.ask(name)

    def ask(self, name: str = "potato.tar") -> Any:
        """Ask for the layer of a tarball that is there."""
        return self.start(self.layers.get(os.path.join(self.folder, "mountables"), name))

    @property
    def unpacked(self) -> Any:
        """The folder that tar unpacks to."""
        return dict(self.init.plan)["root_folder"]["source"]

    def write(self, *paths: Any) -> None:
        """Tar writes these files."""
        for path in paths:
            path = os.path.join(self.unpacked, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "w").close()

    def make_hidden(self) -> None:
        """The init makes the folder for tar's own files."""
        os.mkdir(self.unpacked + dict(self.init.plan)["mount"]["target"])

    def tar_ends(self, words: str = "Done", complaint: str = "") -> None:
        """Tar has run, and ends."""
        self.make_hidden()
        self.init.child.errReceived(complaint.encode())
        self.init.carry_out()
        self.init.end(words)
        self.reactor.advance(0)

    def assertNothingElse(self, *names: Any) -> None:
        """Only these layers are there, and nothing of an unpacking."""
        found = [name for name in os.listdir(self.layers.folder) if not name.endswith(".json")]
        self.assertEqual(found, list(names))
        self.assertEqual((os.listdir(self.pool.run_directories), self.kernel.living), ([], {}))


class UnpackTests(LayersTestCase):
    """Each tarball is unpacked once."""

    def test_unpack(self) -> None:
        """A tarball is unpacked by its plan, and the layer is what it held."""
        got = self.get()
        hidden = dict(self.init.plan)["mount"]["target"]
        self.assertEqual(
            self.init.plan,
            make_unpacking_plan(
                os.path.join(self.folder, "mountables/potato.tar"),
                self.unpacked,
                os.path.join(os.path.dirname(self.unpacked), "scratch"),
                hidden,
                Program("/usr/bin/tar"),
                None,
                self.layers.unpacker.host,
            ),
        )
        self.write("index.html", "a/b")
        self.tar_ends()
        layer = self.successResultOf(got)
        self.assertEqual(sorted(os.listdir(layer)), ["a", "index.html"])
        self.assertNothingElse(os.path.basename(layer))

    def test_compressed(self) -> None:
        """The compression is recognised by the content, whatever the tarball's name."""
        for number, (start, name) in enumerate(COMPRESSIONS.items()):
            self.get(f"{number}.tar", start + b"...")
            program = find_decompressor(name)
            assert program is not None
            self.assertIn(program.path, str(self.init.plan[-1][1]["arguments"]))

    def test_hidden(self) -> None:
        """No tarball can know the path of tar's own files, and they are not in the layer."""
        places = set()
        for name in ("a.tar", "b.tar"):
            got = self.get(name)
            places.add(dict(self.init.plan)["mount"]["target"])
            self.tar_ends()
            self.assertEqual(os.listdir(self.successResultOf(got)), [])
        self.assertEqual([len(place) for place in places], [34, 34])

    def test_bare(self) -> None:
        """Its init has done no container's base plan."""
        self.pool.base_plan = [("unshare", {"namespaces": ["mount"]})]
        self.get()
        self.assertEqual(self.init.early_steps, [])

    def test_again(self) -> None:
        """A layer that is there is returned at once; the tarball is not read."""
        first = self.get()
        self.tar_ends()
        self.assertEqual(self.successResultOf(self.ask()), self.successResultOf(first))
        self.assertEqual(len(self.reactor.inits), 1)

    def test_many_at_once(self) -> None:
        """However many ask at the same time, one unpacking serves all."""
        got = [self.get(), *(self.ask() for _ in range(10))]
        self.tar_ends()
        self.assertEqual(len({self.successResultOf(one) for one in got}), 1)
        self.assertEqual(len(self.reactor.inits), 1)

    def test_half(self) -> None:
        """A layer is not seen until it is whole."""
        self.get()
        self.write("a")
        (beside,) = os.listdir(self.layers.folder)
        self.assertEqual(self.layers.cut_short(), [os.path.join(self.layers.folder, beside)])
        self.tar_ends()
        self.assertEqual(self.layers.cut_short(), [])

    def test_power_cut(self) -> None:
        """All of it is on the disk before it gets its name, because it is never checked again."""
        calls: list[Any] = []
        rename = os.rename
        self.patch(unpack, "flush_disk", lambda folder: calls.append(("flush", folder)))
        self.patch(os, "rename", lambda *paths: calls.append("rename") or rename(*paths))
        self.get()
        self.tar_ends()
        self.assertEqual(calls, [("flush", self.unpacked), "rename"])

    def test_after_a_power_cut(self) -> None:
        """A layer of an image that was not on the disk yet is taken away by the next manager."""
        for name in ("1" * 64, "2" * 64):
            os.mkdir(os.path.join(self.layers.folder, name))
        with open(os.path.join(self.layers.folder, LIST), "w") as file:
            json.dump({"boot": "another", "layers": ["1" * 64, "3" * 64]}, file)
        open(os.path.join(self.layers.folder, ".fresh.json.1.tmp"), "w").close()
        said = f"removed the layer {'1' * 64}, which was not on the disk at a power cut"
        written = "removed .fresh.json.1.tmp, a write cut short"
        self.assertEqual(self.layers.recover(), [written, said])
        self.assertEqual(self.layers.paths(), [os.path.join(self.layers.folder, "2" * 64)])
        self.assertEqual(len(self.layers.cut_short()), 1)

    def test_record_of_no_layer(self) -> None:
        """Who was killed between a layer's record and its folder leaves no record behind."""
        os.mkdir(os.path.join(self.layers.folder, "1" * 64))
        for name in ("1" * 64, "2" * 64, "3" * 32):
            open(os.path.join(self.layers.folder, f"{name}.json"), "w").close()
        said = [f"removed {name}.json, the record of no layer" for name in ("2" * 64, "3" * 32)]
        self.assertEqual(self.layers.recover(), said)
        self.assertEqual(sorted(os.listdir(self.layers.folder)), ["1" * 64, f"{'1' * 64}.json"])

    def test_did_not_come(self) -> None:
        """A layer of an image that can't be unpacked, or listed, is not one to be flushed."""
        blob = os.path.join(self.folder, "blob")
        with open(blob, "wb") as file:
            file.write(b"a tarball")
        asked = self.start(self.layers.get_of_image(blob, "sha256:" + "1" * 64))
        self.assertEqual(self.layers._fresh.names, {"1" * 64})
        self.tar_ends(complaint="tar: Unexpected EOF in archive\n")
        self.failureResultOf(asked, ConfigAtFault)
        self.patch(fresh, "write", mock.Mock(side_effect=OSError(28, "No space left on device")))
        asked = self.start(self.layers.get_of_image(blob, "sha256:" + "2" * 64))
        error = self.failureResultOf(asked, MachineAtFault).value
        self.assertEqual(error.chain[0], "writing fresh.json")
        self.assertEqual(self.layers._fresh.names, set())

    def test_can_not_be_flushed(self) -> None:
        """A disk that can't be flushed is the machine's fault."""
        layer = os.path.join(self.layers.folder, "1" * 64)
        self.patch(fresh, "flush_disk", mock.Mock(side_effect=OSError(5, "")))
        self.layers._fresh.names.add("1" * 64)
        error = self.failureResultOf(self.start(self.layers.flush([layer])), MachineAtFault).value
        self.assertEqual(error.chain[0], "flushing the layers of an image")

    def test_two_tarballs(self) -> None:
        """Two tarballs are unpacked side by side."""
        first, second = self.get("a.tar"), self.get("b.tar")
        self.tar_ends()
        self.successResultOf(second)
        self.assertNoResult(first)

    def test_replaced(self) -> None:
        """A tarball that was replaced is unpacked anew, to another layer."""
        first = self.get()
        self.tar_ends()
        second = self.get(content=b"another tarball")
        self.tar_ends()
        self.assertNotEqual(self.successResultOf(first), self.successResultOf(second))

    def test_link(self) -> None:
        """A tarball may be a symbolic link to one."""
        os.rename(self.folder + "/mountables", self.folder + "/elsewhere")
        os.mkdir(self.folder + "/mountables")
        os.symlink("../elsewhere/potato.tar", self.folder + "/mountables/potato.tar")
        open(self.folder + "/elsewhere/potato.tar", "w").close()
        got = self.ask()
        self.tar_ends()
        self.successResultOf(got)


class MergeTests(LayersTestCase):
    """Layers of an image that become one."""

    def setUp(self) -> None:
        super().setUp()
        self.digests = [f"sha256:{digit * 64}" for digit in "21"]  # the highest first
        for number, digest in enumerate(self.digests):
            os.mkdir(self.layers.path_of(digest))
            nodes = {"device nodes": {"count": 1, "names": [f"dev{number}"]}}
            self.layers._metadata[self.layers.path_of(digest)] = Metadata(left_out=nodes, begun=7.0)

    def merge(self) -> Any:
        """Ask for what they are together."""
        return self.start(self.layers.merge(self.digests))

    def test_merge(self) -> None:
        """They are merged by their plan, once for all who ask; and it is known what they lack."""
        got = [self.merge(), self.merge()]
        (init,) = self.reactor.inits
        hidden = dict(init.plan)["mount"]["target"]
        scratch = os.path.join(os.path.dirname(self.unpacked), "scratch")
        folders = list(map(self.layers.path_of, self.digests))
        tar, sh = Program("/usr/bin/tar"), Program("/usr/bin/sh")
        plan = make_merging_plan(
            folders, self.unpacked, scratch, hidden, tar, sh, self.layers.unpacker.host
        )
        self.assertEqual(init.plan, plan)
        self.assertEqual(self.layers._fresh.names, {merged_digest(self.digests)[7:]})
        self.write("a")
        self.tar_ends()
        layer = self.layers.path_of(merged_digest(self.digests))
        self.assertEqual([self.successResultOf(one) for one in (*got, self.merge())], [layer] * 3)
        self.assertEqual(len(self.reactor.inits), 1)
        self.assertEqual(os.listdir(layer), ["a"])
        known = self.layers.metadata(layer)
        nodes = {"count": 2, "names": ["dev0", "dev1"]}
        self.assertEqual((known.left_out, known.begun), ({"device nodes": nodes}, 7.0))
        (said,) = self.layers.news([layer])
        self.assertIn("left out of sha256:", said)

    def test_unused(self) -> None:
        """What they are together is removed as a layer is, when no image has it any more."""
        got = self.merge()
        self.tar_ends()
        layer = self.successResultOf(got)
        removed = self.now(self.layers.remove_unused(lambda: {layer}))
        self.assertEqual(sorted(removed), ["1" * 64, "2" * 64])
        with mock.patch.object(layers, "seen", side_effect=AssertionError):  # which are not there
            self.assertEqual(self.successResultOf(self.merge()), layer)
        self.assertEqual(self.now(self.layers.remove_unused(set)), [os.path.basename(layer)])
        self.assertNothingElse()

    def test_fails(self) -> None:
        """If that fails, it is not there; an end mark shows that the first tar was not killed."""
        for complaint, why in (
            ("sh: 1: /x: not found\n", "tar says: sh: 1: /x: not found"),
            ("block 2: ** End of File **\n", "it ends without the end mark"),
        ):
            got = self.merge()
            self.tar_ends(complaint=complaint)
            error = self.failureResultOf(got, ConfigAtFault).value
            self.assertEqual(error.chain[0], "unpacking the merge of 2 layers")
            self.assertIn(why, str(error))
            self.assertEqual(self.layers._fresh.names, set())
        found = {os.path.basename(path) for path in self.layers.paths()}
        self.assertEqual(found, {"1" * 64, "2" * 64})

    def test_what_others_hide(self) -> None:
        """Those below a layer whose top is opaque are left out, as in a container."""
        self.patch(layers, "seen", lambda given, path: given[:1])
        layers.tops.cache_clear()
        self.addCleanup(layers.tops.cache_clear)
        self.merge()
        lower = dict(self.init.plan)["overlay"]["lower"]
        self.assertEqual(lower, [self.layers.path_of(self.digests[0])])


class FailureTests(LayersTestCase):
    """A failure reaches all who wait, and the next request tries again."""

    def test_reaches_all(self) -> None:
        """If tar fails, all who wait are told, and nothing is left."""
        got = [self.get(), self.ask(), self.ask()]
        self.tar_ends("Done(2)", "tar: This does not look like a tar archive\n")
        for one in got:
            error = self.failureResultOf(one, ConfigAtFault).value
            self.assertEqual(error.chain[0], "unpacking potato.tar")
            self.assertIn("does not look like a tar archive", str(error))
        self.assertNothingElse()

    def test_next_try(self) -> None:
        """The next request unpacks it again."""
        got = self.get()
        self.tar_ends("Done(2)")
        self.failureResultOf(got, ConfigAtFault)
        got = self.ask()
        self.tar_ends()
        self.successResultOf(got)

    def test_disk_full(self) -> None:
        """A full disk is the machine's fault, in whatever words tar reports it."""
        for words in ("Cannot write: No space left on device", "Wrote only 512 of 10240 bytes"):
            got = self.get()
            self.tar_ends("Done(2)", f"tar: a: {words}\n")
            self.assertIn("disk is full", str(self.failureResultOf(got, MachineAtFault).value))

    def test_killed(self) -> None:
        """A tar that was killed is the machine's fault too."""
        got = self.get()
        self.tar_ends("Killed")
        self.assertIn("SIGKILL", str(self.failureResultOf(got, MachineAtFault).value))

    def test_said(self) -> None:
        """Any complaint of tar's makes it fail, even with exit status 0."""
        got = self.get()
        self.tar_ends(complaint="/.x/usr/bin/tar: v.img: Cannot truncate: File too large\n")
        error = self.failureResultOf(got, ConfigAtFault).value
        self.assertEqual(error.chain[2], "tar says: tar: v.img: Cannot truncate: File too large")
        self.assertNothingElse()

    def test_failed_silently(self) -> None:
        """A failed exit status without a complaint makes it fail, too."""
        got = self.get()
        self.tar_ends("Done(1)")
        self.assertIn("tar: exit status 1", str(self.failureResultOf(got, ConfigAtFault).value))

    def test_last_word(self) -> None:
        """If tar has ended before all that it said was read, the rest is waited for."""
        got = self.get()
        child = self.init.child
        self.make_hidden()
        self.init.carry_out()
        self.patch(child, "errConnectionLost", lambda: None)
        self.init.end()
        self.assertNoResult(got)
        child.errReceived(b"tar: too late\n")
        child.silent.callback(None)
        self.failureResultOf(got, ConfigAtFault)

    def change(self) -> None:
        """Write to the tarball, and leave its size and its modification time as they were."""
        path = os.path.join(self.folder, "mountables/potato.tar")
        times = os.stat(path)
        with open(path, "r+b") as file:
            file.write(b"another!!")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def test_changed(self) -> None:
        """A tarball that changes while it is read is read again."""
        got = self.get()
        self.write("old")
        self.change()
        self.tar_ends(complaint="tar: Unexpected EOF in archive\n")
        self.write("new")
        self.tar_ends()
        self.assertEqual(os.listdir(self.successResultOf(got)), ["new"])
        self.assertNothingElse(os.path.basename(self.successResultOf(self.ask())))
        self.assertEqual(len(self.reactor.inits), 2)

    def test_changes_all_the_time(self) -> None:
        """A tarball that changes each time it is read is refused."""
        got = self.get()
        for _ in range(layers.TRIES):
            self.assertNoResult(got)
            self.change()
            self.tar_ends()
        error = self.failureResultOf(got, ConfigAtFault).value
        self.assertEqual(error.chain[0], "potato.tar changes while it is unpacked")
        self.assertNothingElse()

    def test_no_program(self) -> None:
        """If this machine lacks a program to decompress it, the program is named."""

        def find(name: str) -> None:
            raise MachineAtFault(f"this machine has no {name}", "install it")

        self.patch(unpack, "find", find)
        error = self.failureResultOf(self.get(), MachineAtFault).value
        self.assertEqual(error.chain[0], "this machine has no tar")
        self.assertNothingElse()

    def test_step_fails(self) -> None:
        """If a step of the plan fails, the error names it and the tarball."""
        got = self.get()
        self.init.fail(step=1, call="unshare", errno=1)
        error = self.failureResultOf(got, MachineAtFault).value
        self.assertEqual(error.chain[:2], ("unpacking potato.tar", "unshare(2)"))
        self.assertNothingElse()

    def test_init_dies(self) -> None:
        """If the init dies half-way, unpacking fails."""
        got = self.get()
        self.init.end("Killed")
        self.failureResultOf(got, MachineAtFault)
        self.assertNothingElse()

    def test_no_init(self) -> None:
        """If no init can be started, unpacking fails, and the next attempt may work."""
        self.reactor.spawn_error = OSError(11, "Resource temporarily unavailable")
        self.failureResultOf(self.get(), MachineAtFault)
        self.assertNothingElse()

    def test_no_folder(self) -> None:
        """If nothing can be written, the machine is at fault."""
        os.rmdir(self.layers.folder)
        open(self.layers.folder, "w").close()
        self.failureResultOf(self.get(), MachineAtFault)

    def test_no_tarball(self) -> None:
        """A missing tarball is named with its folder, without the host's paths."""
        os.symlink("/nowhere", self.folder + "/mountables/dangling.tar")
        for name in ("potato.tar", "dangling.tar"):
            error = self.failureResultOf(self.ask(name), ConfigAtFault).value
            self.assertEqual(error.chain[0], f"there is no {name} in mountables/")

    def test_not_a_file(self) -> None:
        """A folder or a socket is no tarball."""
        os.mkdir(self.folder + "/mountables/a.tar")
        with socket.socket(socket.AF_UNIX) as listener:
            folder = os.open(self.folder + "/mountables", os.O_RDONLY)
            self.addCleanup(os.close, folder)
            listener.bind(f"/proc/self/fd/{folder}/b.tar")
        for name in ("a.tar", "b.tar"):
            error = self.failureResultOf(self.ask(name), ConfigAtFault).value
            self.assertEqual(error.chain[0], f"{name} is not a file")
        self.assertEqual(self.reactor.inits, [])


class ContentTests(LayersTestCase):
    """Where the content begins, and what may be in it."""

    def content(self, *paths: Any, name: str = "potato.tar") -> Any:
        """What is in the layer of a tarball of these files."""
        got = self.get(name)
        self.write(*paths)
        self.tar_ends()
        return sorted(os.listdir(self.successResultOf(got)))

    def test_own_folder(self) -> None:
        """If a folder with the tarball's name is all there is, the content is what is in it."""
        self.assertEqual(self.content("potato/a", "potato/b"), ["a", "b"])
        self.assertEqual(self.content("basefs/a", name="basefs.tar.gz"), ["a"])

    def test_other_folders(self) -> None:
        """Any other folder is content, and so is one that is not alone, or a file of that name."""
        self.assertEqual(self.content("tomato/a"), ["tomato"])
        self.assertEqual(self.content("carrot/a", "x", name="carrot.tar"), ["carrot", "x"])
        self.assertEqual(self.content("leek", name="leek.tar"), ["leek"])
        self.assertEqual(self.content(name="empty.tar"), [])

    def test_link_of_its_name(self) -> None:
        """A symbolic link with the tarball's name is content, and is not followed."""
        got = self.get()
        os.symlink("/", os.path.join(self.unpacked, "potato"))
        self.tar_ends()
        self.assertEqual(os.listdir(self.successResultOf(got)), ["potato"])

    def test_deep(self) -> None:
        """Folders more than 256 deep are refused."""
        for depth, refused in ((256, False), (300, True)):
            got = self.get(f"deep{depth}.tar")
            make_deep(self.unpacked, depth)
            self.tar_ends()
            if refused:
                error = self.failureResultOf(got, ConfigAtFault).value
                self.assertIn("more than 256 deep", error.chain[0])
            else:
                self.successResultOf(got)

    def test_device(self) -> None:
        """A device node that was made all the same would hide files, and is refused."""
        self.patch(unpacking, "walk", lambda folder: iter([(0, 5, os.stat("/dev/null"))]))
        got = self.get()
        self.tar_ends()
        error = self.failureResultOf(got, ConfigAtFault).value
        self.assertIn("potato.tar holds a mark that hides files", error.chain[0])

    def test_bounds(self) -> None:
        """What exceeds the bounds is refused, and the error names the bound."""
        for bounds, why in (
            (Bounds(entries=2), "files and folders"),
            (Bounds(size=4096), "bytes"),
            (Bounds(depth=0), "deep"),
            (Bounds(path=4), "a path of"),
        ):
            self.layers.unpacker.bounds = bounds
            got = self.get()
            self.write("a/bcd")
            with open(os.path.join(self.unpacked, "c"), "wb") as file:
                file.write(bytes(8192))
            self.tar_ends()
            self.assertIn(why, self.failureResultOf(got, ConfigAtFault).value.chain[0])
            self.assertNothingElse()

    def test_under_way(self) -> None:
        """While a tarball is unpacked it is known how far that is."""
        got = self.get()
        self.make_hidden()
        self.init.carry_out()
        (progress,) = self.layers.unpacker.under_way.values()
        self.assertEqual((os.path.basename(progress.tarball), progress.size), ("potato.tar", 0))
        with open(os.path.join(self.unpacked, "a"), "w") as file:
            file.write("x" * 5000)
        self.reactor.advance(CHECK_EVERY)
        self.assertGreaterEqual(progress.size, 5000)
        self.init.end()
        self.successResultOf(got)
        self.assertEqual(self.layers.unpacker.under_way, {})

    def test_without_end(self) -> None:
        """A tar that unpacks without end is killed soon after it exceeds the bounds."""
        self.layers.unpacker.bounds = Bounds(entries=2)
        got = self.get()
        self.make_hidden()
        self.init.carry_out()
        self.write("a", "b")
        self.reactor.advance(CHECK_EVERY)
        self.assertEqual(self.kernel.signals, [])
        self.write("c")
        self.reactor.advance(CHECK_EVERY)
        self.assertIn("2 files", str(self.failureResultOf(got, ConfigAtFault).value))
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNothingElse()


class KnownTests(LayersTestCase):
    """What is known of a layer."""

    def layer(self, **complaints: Any) -> Any:
        """The layer of a tarball with a file in its /tmp, and a link for its /run."""
        got = self.get()
        self.write("tmp/seed", "var/run/lock/x")
        os.symlink("var/run", os.path.join(self.unpacked, "run"))
        self.tar_ends(**complaints)
        return self.successResultOf(got)

    def test_content(self) -> None:
        """It is found out once, and the next manager reads it."""
        layer = self.layer()
        content = self.layers.metadata(layer)
        self.assertEqual((content.run, content.tmp), (Place("/var/run", True), Place("/tmp", True)))
        self.assertEqual(content.tarball, os.path.join(self.folder, "mountables/potato.tar"))
        self.assertGreater(content.size, 0)
        made_by_tar = os.stat(os.path.join(layer, "tmp")).st_mtime
        self.assertTrue(0 < (content.begun or 0) <= made_by_tar, content.begun)
        self.layers._metadata.clear()
        self.assertEqual(self.layers.metadata(layer), content)

    def test_lost(self) -> None:
        """If its file is lost or damaged, the defaults hold."""
        layer = self.layer()
        for lose in (lambda path: os.truncate(path, 10), os.unlink):
            lose(f"{layer}.json")
            self.layers._metadata.clear()
            self.assertEqual(self.layers.metadata(layer), Metadata())

    def test_news(self) -> None:
        """What was left out is told once, and kept."""
        complaint = "tar: dev/null: Cannot mknod: Operation not permitted\n"
        layer = self.layer(words="Done(2)", complaint=complaint)
        said = "left out of potato.tar: 1 device nodes (dev/null); see docs/images.md"
        self.assertEqual(self.layers.news([layer, layer]), [said])
        self.assertEqual(self.layers.news([layer]), [])
        nodes = {"count": 1, "names": ["dev/null"]}
        self.assertEqual(self.layers.metadata(layer).left_out, {"device nodes": nodes})

    def test_archive(self) -> None:
        """An archive of an image is known as one; as long as nobody takes that, it is as it is."""
        got = self.get()
        self.write("manifest.json", "oci-layout", "blobs/sha256/x")
        self.tar_ends()
        layer = self.successResultOf(got)
        self.assertIn("manifest.json", os.listdir(layer))
        self.assertEqual(self.layers.metadata(layer).archive, "an archive of `docker save`")
        self.assertEqual(self.now(self.layers.remove_unused(set)), [])
        self.layers.spent.add(layer)
        self.assertEqual(self.now(self.layers.remove_unused(set)), [os.path.basename(layer)])


class RemoveTests(LayersTestCase):
    """Layers that nobody needs."""

    def remove_unused(self, *used: Any) -> Any:
        """Remove what is not needed; returns the names."""
        return self.now(self.layers.remove_unused(lambda: set(used)))

    def layer(self, name: str = "potato.tar", content: bytes = b"a tarball") -> Any:
        """The unpacked layer of a tarball that holds this."""
        got = self.get(name, content)
        with open(os.path.join(self.unpacked, "file"), "wb") as file:
            file.write(bytes(100_000))
        self.tar_ends()
        return self.successResultOf(got)

    def test_newest(self) -> None:
        """If a tarball was replaced, only the newest layer stays, with its metadata."""
        layers = [self.layer(content=b"%d" % number) for number in range(5)]
        self.assertTrue(self.layers.is_to_tidy(set))
        removed = self.remove_unused()
        self.assertEqual(sorted(removed), sorted(map(os.path.basename, layers[:-1])))
        newest = os.path.basename(layers[-1])
        self.assertEqual(sorted(os.listdir(self.layers.folder)), [newest, f"{newest}.json"])
        self.assertFalse(self.layers.is_to_tidy(set))

    def test_used(self) -> None:
        """If its tarball was replaced or removed, a layer stays only while an instance uses it."""
        layer = self.layer()
        os.unlink(self.folder + "/mountables/potato.tar")
        self.assertEqual(self.remove_unused(layer), [])
        self.assertTrue(self.layers.is_to_tidy(set))
        self.assertEqual(self.remove_unused(), [os.path.basename(layer)])
        self.assertNothingElse()
        self.assertFalse(self.layers.is_to_tidy(set))

    def test_used_by_an_image(self) -> None:
        """A layer of an image is not looked at again and again, as long as there is that image."""
        layer = self.layer()
        os.unlink(self.folder + "/mountables/potato.tar")
        self.assertTrue(self.layers.is_to_tidy(set))  # since it is new
        self.remove_unused(layer)
        self.assertFalse(self.layers.is_to_tidy(lambda: {layer}))
        self.assertTrue(self.layers.is_to_tidy(set))

    def test_used_since(self) -> None:
        """A layer that gets used while others are being removed stays."""
        layer = self.layer()
        os.unlink(self.folder + "/mountables/potato.tar")
        answers = iter([set(), {layer}])
        self.assertEqual(self.now(self.layers.remove_unused(lambda: next(answers))), [])
        self.assertNothingElse(os.path.basename(layer))

    def test_unseen_folder(self) -> None:
        """While the tarballs' folder is missing (a disk may be unmounted), all layers stay."""
        layer = self.layer()
        os.rename(self.folder + "/mountables", self.folder + "/away")
        self.assertEqual(self.remove_unused(), [])
        self.assertNothingElse(os.path.basename(layer))

    def test_keep(self) -> None:
        """Of unused layers, those asked for last stay, up to ``keep`` bytes."""
        names = ("a.tar", "b.tar", "c.tar")
        layers = []
        for name in names:
            layers.append(self.layer(name))
            self.reactor.advance(1)
        self.ask("a.tar")
        self.layers.keep = 250_000
        self.assertEqual(self.remove_unused(), [os.path.basename(layers[1])])
        self.layers.keep = 0
        self.assertEqual(self.remove_unused(layers[0]), [os.path.basename(layers[2])])
        self.assertNothingElse(os.path.basename(layers[0]))

    def test_next_launch(self) -> None:
        """A layer that is being removed is not found: a request meanwhile unpacks it again."""
        layer = self.layer()
        self.layers.keep = 0
        removing: Deferred[Any] = Deferred()
        self.layers.unpacker.remove = lambda path: removing
        self.start(self.layers.remove_unused(set))
        got = self.ask()
        self.assertNoResult(got)
        self.layers.unpacker.remove = remove
        self.tar_ends()
        self.assertEqual(self.successResultOf(got), layer)

    def test_being_unpacked(self) -> None:
        """What is being unpacked stays even if its tarball is gone, but becomes no layer."""
        got = self.get()
        os.unlink(self.folder + "/mountables/potato.tar")
        self.assertEqual(self.remove_unused(), [])
        self.tar_ends()
        error = self.failureResultOf(got, ConfigAtFault).value
        self.assertIn("there is no potato.tar", str(error))

    def test_cut_short(self) -> None:
        """What an interrupted unpacking has left is removed."""
        os.makedirs(os.path.join(self.layers.folder, "0123-4567.unpacking/layer"))
        self.assertEqual(self.remove_unused(), ["0123-4567.unpacking"])


def make_deep(folder: Any, depth: Any) -> None:
    """Make nested folders, as deep as this."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
