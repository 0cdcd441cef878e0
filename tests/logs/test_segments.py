"""What is read from the files of a log."""

import os
import time
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import make_folder
from tests.logs.case import PIECES, LogTestCase, text_of
from txcontain.logs import logd, segments
from txcontain.logs.logd import LOG, RECORD, Log
from txcontain.logs.segments import EVERYTHING, Lines, Piece, Position, Wanted


class ReadingTests(LogTestCase):
    """What is found in the segments."""

    @given(PIECES, st.integers(0, 10), st.integers(1, 9), st.sets(st.sampled_from([0, 1])))
    @settings(max_examples=60)
    def test_last_lines(self, pieces: Any, lines: Any, block: Any, streams: Any) -> None:
        """Whatever the log and the size of a read, exactly the last lines are found."""
        self.log_folder = os.path.join(make_folder(self), LOG)
        log = Log(self.log_folder, 1 << 16)
        with patch.object(logd, "LEAST_SEGMENT", 2000):
            for stream, data in pieces:
                self.move(log, data, stream)
        log.close()
        wanted = Wanted(frozenset(streams))
        all_lines = text_of(self.read_all(wanted=wanted)).splitlines(keepends=True)
        with patch.multiple(segments, LONGEST_READ=block, MOST_RECORDS=block, LONGEST_LOOK=block):
            last = segments.end(self.log_folder)
            (*_, position) = segments.look_back(self.log_folder, last, lines, wanted)
            found = text_of(self.read_all(position, wanted))
        self.assertEqual(found, b"".join(all_lines[max(0, len(all_lines) - lines) :]))

    @given(st.binary(max_size=8 * RECORD.size), st.binary(max_size=40))
    def test_nonsense(self, index: Any, data: Any) -> None:
        """Any index can be read, in a time bounded by its length."""
        folder = make_folder(self)
        for path, content in zip(logd.paths(folder, 1), (data, index), strict=True):
            with open(path, "wb") as file:
                file.write(content)
        self.assertLessEqual(len(text_of(self.read_all(folder=folder))), len(data) * 8)
        list(segments.look_back(folder, segments.end(folder), 3, EVERYTHING))
        segments.last_words(folder, "stderr", 9)

    def test_times(self) -> None:
        """Only pieces between the two times are read."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for second in range(10):
            with patch.object(time, "time_ns", return_value=second * 10**9):
                self.move(log, b"%d" % second)
        found = self.read_all(wanted=Wanted(since=3 * 10**9, until=6 * 10**9))
        self.assertEqual(text_of(found), b"3456")

    def test_removed_meanwhile(self) -> None:
        """If segments were removed, reading goes on with the oldest that is left."""
        log = Log(self.log_folder, 1 << 19)
        self.addCleanup(log.close)
        for letter in b"abcdefgh" * 2:
            self.move(log, bytes([letter]) * (1 << 16))
        left = self.read_all(Position(1, 7))
        self.assertEqual(text_of(left), text_of(self.read_all()))

    def test_last_words(self) -> None:
        """The last lines of one stream are found, up to a bound."""
        self.assertEqual(segments.last_words(self.log_folder, "stderr", 100), "")
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for number in range(50):
            self.move(log, b"%d\n" % number, 1)
            self.move(log, b"not this\n", 0)
        self.assertEqual(
            segments.last_words(self.log_folder, "stderr", 1000).split(),
            [str(number) for number in range(50)],
        )
        self.assertEqual(segments.last_words(self.log_folder, "stderr", 8), "48\n49")

    def test_lines(self) -> None:
        """A line is whole even if it came in pieces, with the other stream between them."""
        lines = Lines()
        pieces = [Piece(1, 0, b"on"), Piece(2, 1, b"err\nmo"), Piece(3, 0, b"e\ntwo\n")]
        self.assertEqual(
            [(one.time, one.data) for one in lines.of(pieces)],
            [(2, b"err\n"), (1, b"one\n"), (3, b"two\n")],
        )
        self.assertEqual([one.data for one in lines.rest()], [b"mo\n"])
        long = [*lines.of([Piece(4, 0, b"x" * 200_000)] * 3)]
        self.assertEqual(len(long), 3)
