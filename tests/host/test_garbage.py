"""Garbage is found in short pauses."""

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host.garbage import MOST_MORE, MOST_NEW, Collections


class Node:
    """Something that may refer to itself."""

    other: object = None


def cycle() -> Node:
    """Something that only a collection can remove."""
    node = Node()
    node.other = node
    return node


class CollectionTests(SynchronousTestCase):
    """Full collections of this very process."""

    def setUp(self) -> None:
        threshold = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *threshold)
        self.collections = Collections()
        self.collections.begin()
        self.addCleanup(self.collections.end)

    def test_threshold(self) -> None:
        """They are due earlier than Python has them, as each has little to do."""
        self.assertEqual(gc.get_threshold()[2], MOST_NEW)

    def test_new(self) -> None:
        """A cycle that is new is removed; what was there before is not looked at."""
        before = gc.get_freeze_count()
        self.assertGreater(before, 0)
        seen = weakref.ref(cycle())
        gc.collect()
        self.assertIsNone(seen())
        self.assertGreaterEqual(gc.get_freeze_count(), before / 2)

    def test_old(self) -> None:
        """A cycle that was there before is removed once there is three times as much."""
        old = cycle()
        seen = weakref.ref(old)
        gc.collect()
        del old
        gc.collect()
        self.assertIsNotNone(seen())
        many: list[list[object]] = [[] for _ in range(MOST_MORE * gc.get_freeze_count())]
        gc.collect()
        self.assertIsNotNone(seen())
        gc.collect()
        self.assertIsNone(seen())
        self.assertGreater(len(many), 0)

    def test_gone(self) -> None:
        """What goes by itself meanwhile does not count."""
        old = cycle()
        seen = weakref.ref(old)
        gc.collect()
        del old
        for _ in range(3):
            many: list[list[object]] = [[] for _ in range(gc.get_freeze_count())]
            gc.collect()
            many.clear()
        gc.collect()
        self.assertIsNotNone(seen())

    def test_end(self) -> None:
        """Afterwards nothing is set aside any more, but what never goes (since Python 3.12)."""
        aside = gc.get_freeze_count()
        self.collections.end()
        gc.collect()
        left = gc.get_freeze_count()
        gc.callbacks.append(self.collections.collects)  # for the clean-up
        self.assertLess(left, aside / 10)
