"""Reads the files of a log: its pieces from any position on, each with its time and stream.

``logd.py`` writes these files and describes them. All functions may wait for a disk: don't call
them in the reactor's thread. As a log grows, a segment may be removed at any time; what was in it
is skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from attrs import define, field, frozen

from txcontain.logs.logd import RECORD, STREAMS, end_of, numbers, paths

LONGEST_READ = 1 << 18  # bytes of one read
MOST_RECORDS = 4096  # read at once
LONGEST_LOOK = 4 << 20  # bytes that `look_back` reads before others get their turn
LONGEST_LINE = 1 << 16  # bytes: a longer line is split into several
FOREVER = 1 << 63  # nanoseconds since 1970


@frozen(order=True)
class Position:
    """A position in a log."""

    segment: int = 0
    offset: int = 0


@frozen
class Piece:
    """Bytes that were written at one time."""

    time: int  # nanoseconds since 1970
    stream: int  # the index in STREAMS
    data: bytes


@frozen
class Wanted:
    """Which pieces to read: those of these streams, between two times."""

    streams: frozenset[int] = frozenset(range(len(STREAMS)))
    since: int = 0
    until: int = FOREVER

    def has(self, extent: Extent) -> bool:
        """Whether a piece is wanted."""
        return extent.stream in self.streams and self.since <= extent.time <= self.until


EVERYTHING, BEGINNING = Wanted(), Position()


@frozen
class Extent:
    """Where a piece is in its segment."""

    time: int
    stream: int
    begin: int
    end: int


def end(folder: str) -> Position:
    """Where a log ends now."""
    return Position(*end_of(folder))


def read(
    folder: str, position: Position, last: Position, wanted: Wanted, longest: int = LONGEST_READ
) -> tuple[list[Piece], Position]:
    """The next wanted pieces from a position on, and where to read on; none at ``last``."""
    while position < last:
        with ExitStack() as files:
            segment = _Segment.open(folder, position.segment, files)
            if segment is not None:
                most = last.offset if position.segment == last.segment else segment.size
                most = min(most, segment.size)
                pieces, offset = segment.read(position.offset, most, wanted, longest)
                if offset > position.offset:
                    position = Position(position.segment, offset)
                    if pieces:
                        return pieces, position
                    continue
        following = (number for number in numbers(folder) if number > position.segment)
        position = min(Position(next(following, last.segment + 1)), last)
    return [], last


def look_back(folder: str, last: Position, lines: int, wanted: Wanted) -> Iterator[Position | None]:
    """The position before the last wanted lines; first None, each time others may have a turn."""
    newlines = -1  # how many to find: known when the last byte is
    looked_at = 0
    position = last
    for number in reversed([n for n in numbers(folder) if lines and n <= last.segment]):
        with ExitStack() as files:
            segment = _Segment.open(folder, number, files)
            if segment is None:
                break
            end = last.offset if number == last.segment else segment.size
            for extent in segment.extents_back(min(end, segment.size)):
                if not wanted.has(extent):
                    continue
                for begin, block in segment.blocks_back(extent):
                    if newlines < 0:
                        newlines = lines + block.endswith(b"\n")
                    found = block.count(b"\n")
                    if found >= newlines:
                        yield Position(number, begin + _after_newline(block, newlines))
                        return
                    newlines -= found
                    looked_at += len(block)
                    if looked_at > LONGEST_LOOK:
                        yield None
                        looked_at = 0
            position = Position(number)
    yield position


def _after_newline(block: bytes, number: int) -> int:
    """The index after a newline, which is counted from the end."""
    position = len(block)
    for _ in range(number):
        position = block.rindex(b"\n", 0, position)
    return position + 1


@frozen
class _Segment:
    """The open files of a segment. Its index is believed only as far as it makes sense."""

    data: int
    index: int
    size: int  # bytes, all of which have their records by now
    records: int

    @classmethod
    def open(cls, folder: str, number: int, files: ExitStack) -> _Segment | None:
        """A segment, open until ``files`` is closed; None if there is none."""
        opened = []
        for path in paths(folder, number):
            try:
                opened.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
            except FileNotFoundError:
                return None
            files.callback(os.close, opened[-1])
        data, index = opened
        size = os.fstat(data).st_size  # before the index's: a record is written before its piece
        return cls(data, index, size, os.fstat(index).st_size // RECORD.size)

    def _extents(self, first: int, after: int, end: int) -> list[Extent]:
        """The pieces of some records; the last one ends at ``end``."""
        data = os.pread(self.index, (after - first) * RECORD.size, first * RECORD.size)
        whole = len(data) // RECORD.size * RECORD.size
        found = list(RECORD.iter_unpack(data[:whole]))
        ends = [*(offset for _, offset in found[1:]), end][: len(found)]
        return [
            Extent(time >> 1, time & 1, begin, min(stop, end))
            for (time, begin), stop in zip(found, ends, strict=True)
            if begin < min(stop, end)
        ]

    def _begin_of(self, record: int) -> int:
        data = os.pread(self.index, RECORD.size, record * RECORD.size)
        return int(RECORD.unpack(data)[1]) if len(data) == RECORD.size else self.size

    def _record_at(self, offset: int) -> int:
        """The record of the piece that has the byte at this offset."""
        low, high = 0, self.records
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._begin_of(middle) <= offset else (low, middle)
        return low

    def read(self, offset: int, end: int, wanted: Wanted, longest: int) -> tuple[list[Piece], int]:
        """The wanted pieces among the next ones, and the offset where those end."""
        first = self._record_at(offset)
        after = min(first + MOST_RECORDS, self.records)
        most = end if after == self.records else min(end, self._begin_of(after))
        chosen = [one for one in self._extents(first, after, most) if wanted.has(one)]
        chosen = [one for one in chosen if one.end > offset]
        if not chosen or chosen[0].begin >= most:
            return [], most
        begin = max(offset, chosen[0].begin)
        data = os.pread(self.data, min(most - begin, longest), begin)
        pieces = [
            Piece(one.time, one.stream, data[max(one.begin - begin, 0) : one.end - begin])
            for one in chosen
            if one.begin < begin + len(data)
        ]
        return pieces, begin + len(data)

    def extents_back(self, end: int) -> Iterator[Extent]:
        """The pieces up to an offset, the last one first."""
        after = self.records
        while after > 0:
            first = max(after - MOST_RECORDS, 0)
            yield from reversed(self._extents(first, after, end))
            end, after = min(end, self._begin_of(first)), first

    def blocks_back(self, extent: Extent) -> Iterator[tuple[int, bytes]]:
        """A piece in blocks of a bounded size with their offsets, the last one first."""
        end = extent.end
        while end > extent.begin:
            begin = max(extent.begin, end - LONGEST_READ)
            yield begin, os.pread(self.data, end - begin, begin)
            end = begin


@define
class Lines:
    """Makes lines from pieces. The time of a line is that of its first byte."""

    _begun: dict[int, Piece] = field(factory=dict)  # by stream: a line that has no end yet

    def of(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """The lines that these pieces complete, each with its newline."""
        for piece in pieces:
            for part in re.findall(rb"[^\n]*\n|[^\n]+", piece.data):
                yield from self._add(piece, part)

    def _add(self, piece: Piece, part: bytes) -> Iterator[Piece]:
        begun = self._begun.pop(piece.stream, None)
        line = (
            Piece(begun.time, piece.stream, begun.data + part)
            if begun
            else (Piece(piece.time, piece.stream, part))
        )
        if line.data.endswith(b"\n"):
            yield line
        elif len(line.data) > LONGEST_LINE:
            yield Piece(line.time, line.stream, line.data + b"\n")
        else:
            self._begun[piece.stream] = line

    def rest(self) -> Iterator[Piece]:
        """What is left without a newline; it gets one."""
        for line in sorted(self._begun.values(), key=lambda one: one.time):
            yield Piece(line.time, line.stream, line.data + b"\n")
        self._begun = {}


def last_words(folder: str, stream: str, most: int) -> str:
    """The last whole lines of a stream, up to ``most`` bytes; empty if there are none."""
    last, words = end(folder), b""
    for number in reversed(numbers(folder)):
        with ExitStack() as files:
            segment = _Segment.open(folder, number, files)
            if segment is None or len(words) > most:
                break
            for extent in segment.extents_back(segment.size):
                if STREAMS[extent.stream] == stream and number <= last.segment:
                    begin = max(extent.begin, extent.end - most)
                    words = os.pread(segment.data, extent.end - begin, begin) + words
                if len(words) > most:
                    break
    lines = words[-most:].decode(errors="replace").splitlines()
    return "\n".join(lines[1:] if len(words) > most else lines).strip()
