"""Small files: read safely, whatever they are, and written durably.

They are written beside their place, flushed, and renamed. A reader sees either the whole old
content or the whole new one, even if the writer or the machine stops half-way. What is left behind
then is named ``.NAME.N.tmp``, and is removed at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO

from attrs import frozen


class NoFile(OSError):
    """Something else is where a regular file should be."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EBADFD, "it is not a regular file", path)


@frozen
class Disk:
    """The system calls that a durable write is made of; a test cuts them short."""

    write: Callable[[int, bytes | memoryview], int] = os.write
    flush: Callable[[int], None] = os.fsync
    rename: Callable[[str, str], None] = os.replace
    link: Callable[[str, str], None] = os.link
    unlink: Callable[[str], None] = os.unlink


DISK = Disk()
_numbers = itertools.count()  # two writers of one file must not share a temporary


def write(path: str, content: bytes, disk: Disk = DISK) -> None:
    """Replace a file durably: when this returns, the new content survives a power cut.

    Raises OSError. Then the old content is still there, or the new one if only flushing failed.
    """
    _replace(path, content, disk, flush=True)
    flush_folder(os.path.dirname(path), disk)


def write_soon(path: str, content: bytes, disk: Disk = DISK) -> None:
    """Replace a file: the new content survives this process, and soon also a power cut."""
    _replace(path, content, disk, flush=False)


def open_file(path: str) -> BinaryIO:
    """Open a regular file to read it, without waiting if it is something else.

    Raises NoFile if it is, for example, a folder, a pipe or a symbolic link; OSError.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, a socket (open(2))
            raise NoFile(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoFile(path)
    return open(descriptor, "rb")


def read_file(path: str, most: int) -> bytes:
    """Up to ``most`` bytes of a regular file. Raises as ``open_file`` does."""
    with open_file(path) as file:
        # As much memory as is asked for is taken before anything is read.
        return file.read(min(most, os.fstat(file.fileno()).st_size))


def create(path: str, content: bytes, disk: Disk = DISK) -> None:
    """Create a file durably.

    Raises FileExistsError if there is one, and leaves it as it is; OSError, and then there is none.
    """
    temporary = _write_beside(path, content, disk, flush=True)
    try:
        disk.link(temporary, path)
        try:
            flush_folder(os.path.dirname(path), disk)
        except OSError:
            disk.unlink(path)
            raise
    finally:
        disk.unlink(temporary)


def _replace(path: str, content: bytes, disk: Disk, *, flush: bool) -> None:
    temporary = _write_beside(path, content, disk, flush=flush)
    try:
        disk.rename(temporary, path)
    except OSError:
        disk.unlink(temporary)
        raise


def _write_beside(path: str, content: bytes, disk: Disk, *, flush: bool) -> str:
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{next(_numbers)}.tmp")
    # One that a killed process has left may be a link to the file itself: don't write to it.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[disk.write(descriptor, view) :]
        if flush:
            disk.flush(descriptor)
    except OSError:
        disk.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    return temporary


def flush_folder(path: str, disk: Disk = DISK) -> None:
    """Make the entries of a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.flush(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str) -> list[str]:
    """Remove what interrupted writes have left in a folder; returns the names."""
    with os.scandir(folder) as entries:
        leftovers = [
            entry.name
            for entry in entries
            if entry.name[0] == "."
            and entry.name.endswith(".tmp")
            and not entry.is_dir(follow_symlinks=False)  # no write of ours leaves a folder
        ]
    for name in leftovers:
        os.unlink(os.path.join(folder, name))
    return leftovers


def to_json(value: Any) -> bytes:
    """One line of compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
