"""What an instance has changed, by real folders like those of an overlay."""

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from tests.support import needs_root
from txcontain.engine import changes
from txcontain.engine.changes import Part, Walk


class WalkTests(SynchronousTestCase):
    """The comparison of two layers."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        for layer in ("lower", "upper"):
            os.makedirs(f"{self.folder}/{layer}")

    def fill(self, layer: str, *names: str) -> None:
        """Make files and, with a slash at the end, folders."""
        for name in names:
            path = f"{self.folder}/{layer}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not name.endswith("/"):
                with open(path, "w"):
                    pass

    def removed(self, name: str) -> None:
        """Have the container remove a file."""
        path = f"{self.folder}/upper/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mknod(path, stat.S_IFCHR, 0)

    def walk(self, target: str = "/", *made: str) -> list[str]:
        """The changes, a line each."""
        walk = Walk(set(made), 0)
        part = Part(target, [f"{self.folder}/lower"], f"{self.folder}/upper")
        lines = [f"{kind} {path}" for kind, path in walk.parts([part])]
        self.complete = walk.complete
        return lines

    @needs_root
    def test_kinds(self) -> None:
        """What is only above was added, what is in both was changed; marks are what was deleted."""
        self.fill("lower", "a/old", "a/gone", "b/x", "kept")
        self.fill("upper", "a/old", "a/new", "c/d/e")
        self.removed("a/gone")
        self.removed("never")
        wanted = ["C /a", "D /a/gone", "A /a/new", "C /a/old", "A /c", "A /c/d", "A /c/d/e"]
        self.assertEqual(self.walk(), wanted)
        self.assertEqual(self.walk("/data")[0], "C /data/a")

    def test_opaque(self) -> None:
        """A folder that hides the one below has deleted what is not in it again."""
        self.fill("lower", "a/old", "a/gone")
        self.fill("upper", "a/old", "a/new")
        self.patch(changes, "_is_opaque", lambda folder: True)
        self.assertEqual(self.walk(), ["C /a", "D /a/gone", "A /a/new", "C /a/old"])

    def test_what_the_launch_made(self) -> None:
        """Mount points and the files that say who it is are no changes, nor the way to them."""
        self.fill("lower", "etc/passwd")
        self.fill("upper", "etc/hosts", "proc/", "srv/www/data/")
        made = "/etc/hosts", "/proc", "/srv/www/data"
        self.assertEqual(self.walk("/", *made), [])
        self.fill("upper", "etc/passwd")
        self.assertEqual(self.walk("/", *made), ["C /etc", "C /etc/passwd"])

    def test_mode(self) -> None:
        """A folder with another mode has changed, even if nothing in it has."""
        self.fill("lower", "a/")
        self.fill("upper", "a/")
        self.assertEqual(self.walk(), [])
        os.chmod(f"{self.folder}/upper/a", 0o700)
        self.assertEqual(self.walk(), ["C /a"])

    def test_links(self) -> None:
        """A link is a change itself, and never followed: also not one in place of a folder."""
        self.fill("lower", "a/old")
        os.symlink("/", f"{self.folder}/upper/a")
        os.symlink("/etc", f"{self.folder}/upper/b")
        self.assertEqual(self.walk(), ["C /a", "A /b"])

    def test_too_deep(self) -> None:
        """Folders that are nested too deep are not looked into, and that is said."""
        self.patch(changes, "DEEPEST", 3)
        self.fill("upper", "1/2/3/4")
        self.assertEqual(self.walk(), ["A /1", "A /1/2", "A /1/2/3"])
        self.assertFalse(self.complete)

    def test_too_much(self) -> None:
        """No more is told than fits the bounds, of changes and of all their letters."""
        self.fill("upper", "1", "2", "3")
        part = Part("/", [f"{self.folder}/lower"], f"{self.folder}/upper")
        for bound, value in (("MOST", 2), ("LONGEST", len("/1/2"))):
            self.patch(changes, bound, value)
            walk = Walk(set(), 0)
            self.assertEqual(len(walk.bounded([part])), 2)
            self.assertFalse(walk.complete)
            self.patch(changes, bound, 1000)
        walk = Walk(set(), 0)
        self.assertEqual(len(walk.bounded([part])), 3)
        self.assertTrue(walk.complete)

    def test_gone(self) -> None:
        """What vanishes meanwhile is left out, and an upper folder that is not there is empty."""
        os.rmdir(f"{self.folder}/upper")
        self.assertEqual(self.walk(), [])
