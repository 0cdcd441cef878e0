"""What of a tar stream a Docker is given, piece by piece: no devices, and root's, if so wished.

Docker makes whatever an archive has, for whoever it names, and unpacks compressed ones. Formats:
tar(5) of FreeBSD (ustar, GNU), and pax of POSIX.1-2024.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from attrs import define, field

from txcontain.errors import InvalidData

BLOCK = 512  # bytes
LONGEST_META = 1 << 20  # bytes of a long name, or of the keywords of pax: as in Docker
META = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # of what follows
DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)
NO_CONTENT = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, *DEVICES)
OWNERS = (b"uid", b"gid", b"uname", b"gname")  # keywords of pax
OWNER, NAMES, SUM, SIZE, KIND = (
    slice(108, 124),
    slice(265, 329),
    slice(148, 156),
    slice(124, 136),
    slice(156, 157),
)
BINARY = 0x80  # the first byte of a number that is binary, and not negative
IS_EXTENDED, GOES_ON = 482, 504  # of a sparse file of GNU, in its header and in those after it
NOT_A_TAR = "what was sent is no tar stream, or is compressed"


@define(eq=False)
class Filter:
    """Takes what comes, and returns what is to be sent."""

    owners: bool  # whether they stay as the stream has them; else all is root's
    devices: int = 0  # that were left out
    _rest: bytearray = field(factory=bytearray)  # what is not a whole block yet
    _meta: bytes = b""  # what tells of the next header, until that has come
    _size: int | None = None  # of its content, if pax has told it
    _left: int = 0  # bytes of a content that have yet to come
    _passes: bool = True  # whether that content is sent
    _goes_on: bool = False  # whether the next block is one more header of a sparse file
    _begun: bool = False
    _is_over: bool = False

    def feed(self, data: bytes) -> bytes:
        """Some has come. Raises InvalidData."""
        self._rest += data
        return b"".join(self._cut())

    def close(self) -> None:
        """That was all. Raises InvalidData if it is cut short."""
        if self._rest or self._left or self._meta:
            raise InvalidData("what was sent ends within a file" if self._begun else NOT_A_TAR)

    def _cut(self) -> Iterator[bytes]:
        while self._rest and not self._is_over:
            if self._left and not self._goes_on:
                some = self._take(min(self._left, len(self._rest)))
                self._left -= len(some)
                yield some if self._passes else b""
            elif len(self._rest) < self._needed():
                return
            elif self._goes_on:
                some = self._take(BLOCK)
                self._goes_on = bool(some[GOES_ON])
                yield some
            else:
                yield self._header()
        if self._is_over:
            self._rest.clear()

    def _needed(self) -> int:
        """Bytes that have to be there to go on: what tells of another header is taken whole."""
        if self._goes_on or len(self._rest) < BLOCK or bytes(self._rest[KIND]) not in META:
            return BLOCK
        size = number(self._rest[SIZE])
        if size > LONGEST_META or len(self._meta) > len(META) * LONGEST_META:
            raise InvalidData("what was sent has a name that is too long")
        return BLOCK + padded(size)

    def _take(self, length: int) -> bytes:
        some = bytes(self._rest[:length])
        del self._rest[:length]
        return some

    def _header(self) -> bytes:
        header = self._take(BLOCK)
        if not any(header):
            self._is_over = True
            return bytes(2 * BLOCK)
        if number(header[SUM]) != checksum(header):
            raise InvalidData(NOT_A_TAR)
        self._begun = True
        kind, size = header[KIND], number(header[SIZE])
        if kind in META:
            self._keep_meta(header, self._take(padded(size))[:size])
            return b""
        told = size if self._size is None else self._size
        self._left = 0 if kind in NO_CONTENT else padded(told)
        self._goes_on = kind == tarfile.GNUTYPE_SPARSE and bool(header[IS_EXTENDED])
        self._passes = kind not in (*DEVICES, tarfile.XGLTYPE)  # what pax has for all is none's
        self.devices += kind in DEVICES
        meta, self._meta, self._size = self._meta, b"", None
        return meta + self._owned(header) if self._passes else b""

    def _keep_meta(self, header: bytes, content: bytes) -> None:
        if header[KIND] == tarfile.XHDTYPE:
            kept = bytearray()
            for key, record in keywords(content):
                if key == b"size":
                    self._size = size_of(record)
                if self.owners or key not in OWNERS:
                    kept += record
            content = bytes(kept)
            header = summed(header[: SIZE.start] + b"%011o\0" % len(content) + header[SIZE.stop :])
        self._meta += header + content.ljust(padded(len(content)), b"\0")

    def _owned(self, header: bytes) -> bytes:
        if self.owners:
            return header
        root = b"0000000\0" * 2
        plain = header[: OWNER.start] + root + header[OWNER.stop :]
        if plain[257:262] == b"ustar":  # else there are no names
            plain = plain[: NAMES.start] + bytes(64) + plain[NAMES.stop :]
        return summed(plain)


def padded(size: int) -> int:
    """Bytes that a content of this length takes."""
    return -(-size // BLOCK) * BLOCK


def number(field: bytes | bytearray) -> int:
    """A number in a header: octal, or (GNU) binary. Raises InvalidData."""
    if field[0] == BINARY:
        return int.from_bytes(field[1:], "big")
    text = bytes(field).partition(b"\0")[0].strip()
    if text.strip(b"01234567"):
        raise InvalidData(NOT_A_TAR)
    return int(text or b"0", 8)


def checksum(header: bytes) -> int:
    """The sum of a header's bytes, in which its own field counts as spaces."""
    return sum(header[: SUM.start]) + sum(header[SUM.stop :]) + 8 * ord(" ")


def summed(header: bytes) -> bytes:
    """A header with the sum that it should have."""
    return header[: SUM.start] + b"%06o\0 " % checksum(header) + header[SUM.stop :]


def keywords(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keywords of pax, each with its whole record. Raises InvalidData."""
    while content:
        length, space, _ = content[:20].partition(b" ")
        end = int(length) if length.isdigit() else 0
        record = content[:end]
        key, equals, _ = record[len(length) + 1 :].partition(b"=")
        if not (space and equals and record.endswith(b"\n") and len(record) == end):
            raise InvalidData("what was sent has keywords that are not those of pax")
        yield key, record
        content = content[end:]


def size_of(record: bytes) -> int:
    """The number in a record of pax. Raises InvalidData."""
    value = record.partition(b"=")[2].strip()
    if not value.isdigit() or len(value) > 18:
        raise InvalidData("what was sent has a size that is none")
    return int(value)
