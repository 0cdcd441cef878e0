"""How much a tarball may unpack to.

What a tarball says about itself is not believed: what counts is what tar(1) has made.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from txcontain.errors import ConfigAtFault
from txcontain.options import number

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen
class Bounds:
    """How much a tarball may hold."""

    entries: int = 500_000  # files, folders and all else
    size: int = 20 << 30  # bytes on the disk
    depth: int = 256  # folders below each other
    path: int = 4096  # bytes


@frozen
class Taken:
    """What something that was unpacked takes."""

    size: int = 0  # bytes on the disk
    entries: int = 0


USUAL = Bounds()
MOST = 10**18  # no limit in practice
HELP = {
    "entries": "How many files and folders a tarball may hold.",
    "size": "How many bytes a tarball may take, unpacked.",
    "depth": "How deep folders of a tarball may be nested.",
    "path": "How many bytes long a path in a tarball may be.",
}
PARAMETERS: list[list[Any]] = [  # twistd's options for the bounds
    number(f"layer-{name}", None, getattr(USUAL, name), text, 1, MOST)
    for name, text in HELP.items()
]


def bounds_of(options: Mapping[str, int]) -> Bounds:
    """The bounds that these options of twistd give."""
    return Bounds(**{name: options[f"layer-{name}"] for name in HELP})


def check(what: str, folder: str, bounds: Bounds, others: int = 0) -> Taken:
    """Check all that was unpacked from the tarball ``what``; returns what it takes.

    Tar may still be running.

    :param others: how many of the entries are not the tarball's
    Raises ConfigAtFault if it is beyond the bounds.
    """
    size = entries = 0
    counted: set[int] = set()  # inodes of files with several names, which count once
    for entries, (depth, path, status) in enumerate(walk(folder), 1 - others):
        if status.st_nlink == 1 or status.st_ino not in counted:
            size += status.st_blocks * 512
        if status.st_nlink > 1:
            counted.add(status.st_ino)
        if stat.S_IFMT(status.st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
            raise ConfigAtFault(f"{what} holds a mark that hides files (a character device 0, 0)")
        if depth > bounds.depth:
            raise ConfigAtFault(f"{what} holds folders more than {bounds.depth} deep")
        if path > bounds.path:
            raise ConfigAtFault(f"{what} holds a path of more than {bounds.path} bytes")
        check_sums(what, Taken(size, entries), bounds)
    return Taken(size, entries)


def check_sums(what: str, taken: Taken, bounds: Bounds) -> None:
    """Raise ConfigAtFault if something takes more than the bounds allow."""
    if taken.entries > bounds.entries:
        raise ConfigAtFault(f"{what} holds more than {bounds.entries} files and folders")
    if taken.size > bounds.size:
        raise ConfigAtFault(f"{what} holds more than {bounds.size} bytes")


def walk(folder: str) -> Iterator[tuple[int, int, os.stat_result]]:
    """The depth, path length and status of all entries below a folder.

    It uses descriptors only, so nothing can lead it elsewhere. What is removed or replaced
    meanwhile is left out.
    """
    top = os.open(folder, FOLDER)
    # A folder, the length of its path, and the names of the folders in it that are not done yet.
    levels = [(top, -_length("."), ["."])]
    try:
        while levels:
            above, length, names = levels[-1]
            if not names:
                os.close(levels.pop()[0])
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                name = names.pop()
                levels.append((os.open(name, FOLDER, dir_fd=above), length + _length(name), []))
                yield from _entries(levels)
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)


def _entries(levels: list[tuple[int, int, list[str]]]) -> Iterator[tuple[int, int, os.stat_result]]:
    descriptor, length, folders = levels[-1]
    with os.scandir(descriptor) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield len(levels) - 2, length + _length(entry.name), status
                if stat.S_ISDIR(status.st_mode):
                    folders.append(entry.name)


def _length(name: str) -> int:
    return len(os.fsencode(name)) + 1  # with the slash before it
