"""Two streams in one, as Docker sends them.

docs.docker.com/reference/api/engine: "Attach to a container", stream format.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

from txcontain.errors import InvalidData

HEADER = 8  # bytes: the stream, three that are zero, and the length (big-endian)
LONGEST_FRAME = 1 << 20  # bytes


@define(eq=False)
class Frames:
    """Cuts what comes into frames."""

    _rest: bytearray = field(factory=bytearray)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Of each frame that is whole now, the stream (1, 2) and what is in it.

        Raises InvalidData.
        """
        self._rest += data
        while len(self._rest) >= HEADER:
            end = HEADER + int.from_bytes(self._rest[4:HEADER], "big")
            if end > LONGEST_FRAME:
                raise InvalidData("Docker sends a stream that is not in frames")
            if len(self._rest) < end:
                break
            yield 1 if self._rest[0] < 2 else 2, bytes(self._rest[HEADER:end])
            del self._rest[:end]


@define(eq=False)
class Lines:
    """Cuts what comes of a terminal, which is in no frames, into lines: all of one stream."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Of each line that is whole now, the stream and the line. Raises InvalidData."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_FRAME:
            raise InvalidData("Docker sends a line that has no end")
        yield from ((1, line + b"\n") for line in whole)
