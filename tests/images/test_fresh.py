"""Layers that are not flushed to the disk yet, and what a new manager makes of them."""

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from txcontain.images import fresh
from txcontain.images.fresh import LIST, Fresh

ONE, TWO = "1" * 64, "2" * 64


class FreshTests(SynchronousTestCase):
    """The list of those that are not flushed."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.flushes = 0
        self.patch(fresh, "flush_disk", self.flush)
        self.layers = self.new("boot 1")

    def flush(self, folder: str) -> None:
        """Count the flushes."""
        self.flushes += 1

    def new(self, boot: str) -> Fresh:
        """What a manager has that starts in this boot."""
        return Fresh(str(self.folder), maybeDeferred, boot)

    def do(self, work: Any) -> None:
        """Run a coroutine that waits for nothing."""
        self.successResultOf(Deferred.fromCoroutine(work))

    def test_flushed_once(self) -> None:
        """All that are asked for are flushed together, and only if they were not yet."""
        for name in (ONE, TWO):
            self.do(self.layers.add(name))
        for _ in range(2):
            self.do(self.layers.flush([ONE, TWO, "another"]))
        self.assertEqual((self.flushes, self.layers.names), (1, set()))
        self.assertEqual(self.new("boot 2").recover(), [])

    def test_power_cut(self) -> None:
        """After another boot those that were not flushed are named: none of them is to be used."""
        for name in (ONE, TWO):
            self.do(self.layers.add(name))
        self.do(self.layers.flush([ONE]))
        new = self.new("boot 2")
        self.assertEqual((new.recover(), new.names), ([TWO], set()))

    def test_same_boot(self) -> None:
        """A manager that was killed loses nothing: the next one flushes them."""
        self.do(self.layers.add(ONE))
        new = self.new("boot 1")
        self.assertEqual((new.recover(), new.names), ([], {ONE}))
        self.do(new.flush([ONE]))
        self.assertEqual((self.flushes, self.new("boot 2").recover()), (1, []))

    def test_damaged(self) -> None:
        """Whatever is in the place of the list, no other files are named by it."""
        for text in ("", "{}", "[]", '{"boot": "b", "layers": 3}', '{"boot": "b", "layers": [3]}'):
            (self.folder / LIST).write_text(text)
            self.assertEqual(self.layers.recover(), [], text)
        (self.folder / LIST).write_text('{"boot": "b", "layers": ["../images", "."]}')
        self.assertEqual(self.layers.recover(), [])
        os.unlink(self.folder / LIST)
        self.assertEqual(self.layers.recover(), [])
