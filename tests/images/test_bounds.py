"""The bounds of what a tarball unpacks to."""

import os
import stat
import threading
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import Options, UsageError
from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import ConfigAtFault
from txcontain.images import bounds as unpacking
from txcontain.images.bounds import USUAL, Bounds, bounds_of, check

TREES = st.recursive(
    st.none(),
    lambda below: st.dictionaries(st.sampled_from(["a", "bc", "\udcff\n"]), below),
    max_leaves=8,
).filter(lambda tree: tree is not None)


def make(folder: Any, tree: Any) -> None:
    """Make files (None) and folders (dictionaries) with these names."""
    for name, below in tree.items():
        path = os.path.join(folder, name)
        if below is None:
            open(path, "w").close()
        else:
            os.mkdir(path)
            make(path, below)


def measures(tree: Any, depth: int = 0, path: int = 0) -> Iterator[Any]:
    """The depth and the path length of each entry of such a tree."""
    for name, below in tree.items():
        length = path + len(os.fsencode(name)) + 1
        yield depth, length
        yield from measures(below or {}, depth + 1, length)


class CheckTests(SynchronousTestCase):
    """A check of what was unpacked."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)

    def path(self, name: str) -> Any:
        return os.path.join(self.folder, name)

    def assert_refused(self, why: str, **bounds: Any) -> None:
        error = self.assertRaises(ConfigAtFault, check, "x.tar", self.folder, Bounds(**bounds))
        self.assertEqual(str(error), f"x.tar holds {why}")

    @given(TREES)
    def test_any_tree(self, tree: Any) -> None:
        """A tree fits into bounds that are its own measures, and not into any lower ones."""
        with TemporaryDirectory() as folder:
            make(folder, tree)
            all_of_it = [*measures(tree)]
            deepest, longest = (
                max(sizes, default=0) for sizes in zip(*all_of_it or [(0, 0)], strict=True)
            )
            exact = {"entries": len(all_of_it), "depth": deepest, "path": longest}
            check("x.tar", folder, Bounds(**exact))
            for name, most in exact.items() if all_of_it else ():
                bounds = Bounds(**{**exact, name: most - 1})
                self.assertRaises(ConfigAtFault, check, "x.tar", folder, bounds)

    def test_size(self) -> None:
        """Bytes on the disk count: holes take none, and hard links only count once."""
        with open(self.path("file"), "wb") as file:
            file.write(bytes(100_000))
            file.truncate(1 << 40)
        os.link(self.path("file"), self.path("link"))
        check("x.tar", self.folder, Bounds(size=150_000))
        self.assert_refused("more than 90000 bytes", size=90_000)

    def test_kinds(self) -> None:
        """Links to anywhere, fifos and unreadable files are content like any other."""
        os.symlink("/", self.path("link"))
        os.mkfifo(self.path("fifo"))
        open(self.path("setuid"), "w").close()
        os.chmod(self.path("setuid"), 0o6000)
        check("x.tar", self.folder, Bounds(entries=3))

    def test_device(self) -> None:
        """A device node that was made all the same is an overlay's mark, and is refused."""
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            status = SimpleNamespace(st_mode=kind, st_nlink=1, st_blocks=0, st_ino=1)
            self.patch(unpacking, "walk", lambda folder, status=status: [(0, 2, status)])
            self.assert_refused("a mark that hides files (a character device 0, 0)")

    def test_meanwhile(self) -> None:
        """Folders that are removed or become links meanwhile are left out."""
        stop = threading.Event()

        def unrest() -> None:
            while not stop.is_set():
                os.mkdir(self.path("a"))
                os.rmdir(self.path("a"))
                os.symlink("/", self.path("a"))
                os.unlink(self.path("a"))

        thread = threading.Thread(target=unrest)
        thread.start()
        try:
            for _ in range(300):
                check("x.tar", self.folder, Bounds(entries=1))
        finally:
            stop.set()
            thread.join()

    def test_descriptors(self) -> None:
        """No descriptor is left open, whatever the outcome."""
        make(self.folder, {"a": {"b": {"c": None}}})
        before = os.listdir("/proc/self/fd")
        self.assert_refused("folders more than 1 deep", depth=1)
        check("x.tar", self.folder, USUAL)
        self.assertEqual(os.listdir("/proc/self/fd"), before)


class BoundOptions(Options):
    optParameters = unpacking.PARAMETERS


class OptionTests(SynchronousTestCase):
    """The bounds as options of the manager."""

    def parse(self, *arguments: Any) -> Any:
        options = BoundOptions()
        options.parseOptions(arguments)
        return bounds_of(options)

    def test_options(self) -> None:
        """Each has an option, and a default."""
        self.assertEqual(self.parse(), USUAL)
        words = "--layer-entries 1 --layer-size 2 --layer-depth 3 --layer-path 4".split()
        self.assertEqual(self.parse(*words), Bounds(1, 2, 3, 4))

    def test_refused(self) -> None:
        """A bound is a number from 1 on."""
        for value in ("0", "-1", "many", ""):
            self.assertRaises(UsageError, self.parse, "--layer-entries", value)
