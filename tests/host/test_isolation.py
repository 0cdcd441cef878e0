"""How a process is held apart, as the kernel tells it."""

import os
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host import isolation

LINES = """\
30 1 0:25 / / ro,nosuid - overlay overlay rw,lowerdir=/x
40 30 0:30 /b /srv rw - tmpfs tmpfs rw
41 30 0:31 / /proc rw,nosuid shared:3 master:1 - proc proc rw
42 30 0:32 / /srv/a\\040b ro - ext4 /dev/a\\134b rw
"""


class IsolationTests(SynchronousTestCase):
    """What is told of a process."""

    def test_this_process(self) -> None:
        """Of the manager itself: its namespaces are no others, its capabilities are the same."""
        told = isolation.isolation(os.getpid())
        self.assertEqual({one["own"] for one in told["namespaces"].values()}, {False})
        self.assertEqual(told["capabilities"], told["host_capabilities"])
        self.assertEqual(told["host_user"], os.geteuid())
        self.assertIn("/", [mount["target"] for mount in told["mounts"]])

    def test_mounts(self) -> None:
        """Mounts come by their paths, whatever fields and escapes a line has; not too many."""
        opened = mock.mock_open(read_data=LINES)
        with mock.patch.object(isolation, "open", opened, create=True):
            found = isolation._mounts(1)
        self.assertEqual(
            [(one["target"], one["type"], one["source"], one["options"]) for one in found],
            [
                ("/", "overlay", "overlay", ["ro", "nosuid"]),
                ("/proc", "proc", "proc", ["rw", "nosuid"]),
                ("/srv", "tmpfs", "tmpfs", ["rw"]),
                ("/srv/a b", "ext4", "/dev/a\\b", ["ro"]),
            ],
        )
        kinds = [one["propagation"] for one in found]
        self.assertEqual(kinds, ["private", "shared,slave", "private", "private"])
        with mock.patch.object(isolation, "MOST_MOUNTS", 1):
            told = isolation.isolation(os.getpid())
        self.assertEqual(len(told["mounts"]), 1)

    def test_names(self) -> None:
        """Capabilities have the names of their numbers."""
        self.assertEqual(
            [isolation.CAPABILITIES.index(one) for one in ("NET_RAW", "BPF")], [13, 39]
        )

    def test_gone(self) -> None:
        """A process that is gone has nothing."""
        self.assertRaises(ProcessLookupError, isolation.isolation, 0)
