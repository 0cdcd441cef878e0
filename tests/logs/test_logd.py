"""What the log process writes, within its bound."""

import os
import time
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import make_folder
from tests.logs.case import PIECES, LogTestCase, text_of
from txcontain.logs import logd
from txcontain.logs.logd import LOG, RECORD, Log
from txcontain.logs.segments import Wanted


class WritingTests(LogTestCase):
    """What the log process does with pieces."""

    @given(PIECES, st.integers(0, 60), st.integers(100, 3000))
    @settings(max_examples=60)
    def test_reference(self, pieces: Any, killed_at: Any, most: Any) -> None:
        """The newest pieces are there in order, within the bound."""
        self.log_folder = os.path.join(make_folder(self), LOG)
        all_of_it = b""
        with patch.object(logd, "LEAST_SEGMENT", 100):
            log = Log(self.log_folder, most)
            for number, (stream, data) in enumerate(pieces):
                if number == killed_at:
                    log.close()
                    log = Log(self.log_folder, most)
                self.move(log, data, stream)
                all_of_it += data
                if data:
                    self.assertLessEqual(self.on_disk(), most)
        log.close()
        kept = text_of(self.read_all())
        self.assertTrue(all_of_it.endswith(kept))
        if len(all_of_it) + len(pieces) * RECORD.size < most // 3:
            self.assertEqual(kept, all_of_it)

    def test_each_stream(self) -> None:
        """Each piece has its stream, and the times don't go back."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for number in range(20):
            self.move(log, b"%d\n" % number, number % 2)
        pieces = self.read_all()
        self.assertEqual([piece.stream for piece in pieces], [0, 1] * 10)
        self.assertEqual(sorted(pieces, key=lambda one: one.time), pieces)
        self.assertEqual(
            text_of(self.read_all(wanted=Wanted(frozenset([1])))),
            b"".join(b"%d\n" % number for number in range(1, 20, 2)),
        )

    def test_bound_of_one_byte_pieces(self) -> None:
        """The index counts too, however small the pieces are."""
        log = Log(self.log_folder, 8192)
        self.addCleanup(log.close)
        for number in range(5000):
            self.move(log, b"x", number % 2)
            self.assertLessEqual(self.on_disk(), 8192)
        self.assertGreater(len(text_of(self.read_all())), 200)

    def test_the_oldest_goes_first(self) -> None:
        """Before a segment begins that would exceed the bound, only the oldest is removed."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for letter in b"abcdefghijklmnopqrst":
            self.move(log, bytes([letter]) * (1 << 16))
            self.assertLessEqual(self.on_disk(), 1 << 20)
        kept = text_of(self.read_all())
        self.assertGreaterEqual(len(kept), (1 << 20) * 7 // 8 - (1 << 17))
        self.assertEqual(kept[-1:], b"t")

    def test_killed_before_the_piece(self) -> None:
        """A record without its piece is overwritten by the next one."""
        log = Log(self.log_folder, 1 << 20)
        self.move(log, b"1\n")
        log._add_record(time.time_ns(), 1)
        log.close()
        self.assertEqual(text_of(self.read_all()), b"1\n")
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        self.move(log, b"2\n", 0)
        self.assertEqual(
            [(one.stream, one.data) for one in self.read_all()], [(0, b"1\n"), (0, b"2\n")]
        )

    def test_full_disk(self) -> None:
        """If the disk is full, what is in the pipe stays there."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        self.move(log, b"1\n")
        os.write(self.into, b"2\n")
        with patch.object(os, "splice", side_effect=OSError(28, "full")):
            self.assertRaises(OSError, log.take, self.pipe, 0)
        with patch.object(os, "pwrite", return_value=7):
            self.assertRaises(OSError, log.take, self.pipe, 1)
        log.take(self.pipe, 0)
        self.assertEqual(text_of(self.read_all()), b"1\n2\n")

    def test_after_a_power_cut(self) -> None:
        """If a segment's files don't match, they are left alone and a new segment begins."""
        for spoil in (lambda data, _: os.truncate(data, 1), lambda _, index: os.unlink(index)):
            log = Log(self.log_folder, 1 << 20)
            for number in range(3):
                self.move(log, b"%d\n" % number, number % 2)
            log.close()
            spoil(*logd.paths(self.log_folder, logd.numbers(self.log_folder)[-1]))
            log = Log(self.log_folder, 1 << 20)
            self.addCleanup(log.close)
            self.move(log, b"after\n")
            self.assertTrue(text_of(self.read_all()).endswith(b"after\n"))

    def test_no_folder(self) -> None:
        """If the instance was removed, the error says so."""
        log = Log(os.path.join(self.folder, "none", LOG), 1 << 20)
        self.assertRaises(FileNotFoundError, log.take, self.pipe, 0)
