"""Where configs are kept, and which is the newest."""

import os
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from txcontain.engine.store import Configs, order_of
from txcontain.errors import NoSuchConfig

# From the oldest to the newest.
VERSIONS = ["_", "a", "b", "0", "00", "01", "1", "1.a", "1.0", "1.0a", "1.1", "1.9", "1.10", "2"]
VERSIONS += ["2rc1", "2.0", "9", "010", "10", "10" + "0" * 30]


class VersionTests(SynchronousTestCase):
    """Which version is newer."""

    def test_order(self) -> None:
        """Numbers count as numbers; a number is newer than letters, and more newer than less."""
        shuffled = Random(7).sample(VERSIONS, len(VERSIONS))
        self.assertEqual(sorted(shuffled, key=order_of), VERSIONS)


class StoreTests(SynchronousTestCase):
    """A folder of configs."""

    def setUp(self) -> None:
        self.store = Configs(make_folder(self))

    def put(self, *names: str) -> None:
        """Put files there, as an upload or a person does."""
        for name in names:
            with open(os.path.join(self.store.folder, name), "wb") as file:
                file.write(name.encode())

    def test_keys(self) -> None:
        """They are listed by name and version; what is no config of ours is not."""
        self.put("web-1-9.cfg", "web-1-10.cfg", "web-10-1.cfg", "a-web-2-1.cfg", "notes.cfg")
        self.put("web-1-1.txt", ".web-1-1.cfg.1.tmp")
        self.assertEqual(
            self.store.versions(),
            [("a-web", "2", "1"), ("web", "1", "9"), ("web", "1", "10"), ("web", "10", "1")],
        )

    def test_newest(self) -> None:
        """The newest is that of the highest major and minor, or of a major's highest minor."""
        self.put("web-1-9.cfg", "web-1-10.cfg", "web-2-1.cfg", "web-2-0.cfg", "webs-3-1.cfg")
        self.assertEqual(self.store.newest("web"), ("web", "2", "1"))
        self.assertEqual(self.store.newest("web", "1"), ("web", "1", "10"))
        for which, said in (
            (("we",), "config we"),
            (("web", "3"), "config web with the major version 3"),
        ):
            error = self.assertRaises(NoSuchConfig, self.store.newest, *which)
            self.assertIn(f"there is no {said}", str(error))

    def test_remove(self) -> None:
        """What is removed is not there any more, and can't be removed again."""
        self.put("web-1-1.cfg", "web-1-2.cfg")
        self.store.remove("web-1-1.cfg")
        self.assertEqual(self.store.names(), ["web-1-2.cfg"])
        for method in (self.store.remove, self.store.read):
            self.assertRaises(NoSuchConfig, method, "web-1-1.cfg")

    def test_no_way_out(self) -> None:
        """A name that is none of a config reaches no file."""
        self.put("notes.cfg")
        outside = os.path.join(self.store.folder, "../outside-1-1.cfg")
        with open(outside, "w"):
            pass
        for name in ("notes.cfg", "../outside-1-1.cfg", "", ".cfg", "a-1-1", "x/../web-1-1.cfg"):
            for method in (self.store.remove, self.store.read):
                self.assertRaises(NoSuchConfig, method, name)
        self.assertTrue(os.path.exists(outside))
