"""Cycles of objects that nobody can reach: found in short pauses (gc)."""

import gc
from typing import Any

from attrs import define

OLDEST = 2  # generation
MOST_NEW = 1  # middle collections before a full one: then some 15,000 objects are new
MOST_MORE = 2  # times as many


@define
class Collections:
    """Has a full collection look only at what is new, but for a few.

    Python's own looks at all there is, and is due whenever that has grown by a quarter: with 1,000
    containers, the reactor waits 70 ms for it. Here, what is left after a full collection is set
    aside (frozen), until that has tripled: only then all is looked at again. So at most twice
    as many objects are kept as garbage as there are in use; what is found is a hundredth.
    """

    _all: int = 0  # objects that were left when all were looked at
    _more: int = 0  # that were left since, of what was new: at most so many more there are
    _at_all: bool = False

    def begin(self) -> None:
        """Set aside all there is now."""
        gc.set_threshold(*gc.get_threshold()[:2], MOST_NEW)
        gc.freeze()
        self._all = gc.get_freeze_count()
        gc.callbacks.append(self.collects)

    def end(self) -> None:
        """Look at all again, whenever Python does."""
        gc.callbacks.remove(self.collects)
        gc.unfreeze()

    def collects(self, phase: str, info: dict[str, Any]) -> None:
        """For the collector: it begins, or has ended."""
        if info["generation"] < OLDEST:
            return
        if phase == "start":
            self._at_all = self._has_tripled()
            if self._at_all:
                gc.unfreeze()
            return
        left = len(gc.get_objects(OLDEST))
        if self._at_all:
            self._all, self._more = left, 0
        else:
            self._more += left
        gc.freeze()

    def _has_tripled(self) -> bool:
        """Whether there is three times as much; counted if it may be: that takes 20 ms."""
        if self._more >= MOST_MORE * self._all:
            self._more = gc.get_freeze_count() - self._all  # some may have gone by themselves
        return self._more >= MOST_MORE * self._all
