"""What the kernel tells of a process, and how that changes."""

import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host import snapshots
from txcontain.host.snapshots import changes, snapshot


class SnapshotTests(SynchronousTestCase):
    """Two moments of a process."""

    def test_nothing_changed(self) -> None:
        """Of this process, all kinds are told; with itself nothing differs."""
        now = snapshot(os.getpid())
        nothing = {kind for kind, lines in now.items() if not lines}
        self.assertLessEqual(nothing, {"cgroups"})  # which a container need not see
        self.assertEqual(changes(now, now), [])

    def test_a_descriptor(self) -> None:
        """What is opened is new, and what is closed is gone."""
        before = snapshot(os.getpid())
        read, write = os.pipe()
        after = snapshot(os.getpid())
        (change,) = changes(before, after)
        self.assertEqual((change["of"], change["gone"]), ("descriptors", []))
        self.assertEqual({line.split()[0] for line in change["new"]}, {str(read), str(write)})
        os.close(read)
        os.close(write)
        (back,) = changes(after, before)
        self.assertEqual(back["gone"], change["new"])

    def test_kinds(self) -> None:
        """Only what was told before is told of."""
        now = {"mounts": ["a"], "descriptors": ["0"]}
        self.assertEqual(changes({"mounts": []}, now), [{"of": "mounts", "gone": [], "new": ["a"]}])

    def test_bounded(self) -> None:
        """Not more than so many lines are told."""
        with mock.patch.object(snapshots, "MOST_LINES", 2):
            (change,) = changes({"mounts": []}, {"mounts": ["a", "b", "c"]})
        self.assertEqual(change["new"], ["a", "b"])

    def test_gone(self) -> None:
        """A process that is gone has nothing."""
        self.assertRaises(OSError, snapshot, 0)
