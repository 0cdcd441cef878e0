"""How much of the disk folders take, also those that containers write to."""

from __future__ import annotations

import contextlib

from attrs import define, field

from txcontain.images.bounds import USUAL, walk

MOST_ENTRIES = 200_000  # files and folders that one meter looks at: about a second


@define
class Meter:
    """Measures folders, as long as they don't have too much in them."""

    left: int = MOST_ENTRIES
    whole: bool = True  # whether all was looked at
    _counted: set[tuple[int, int]] = field(factory=set)  # files with several names count once

    def measure(self, folder: str) -> int:
        """The bytes of the disk that a folder takes; 0 if it is gone. It takes a while."""
        size = 0
        self._counted.clear()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for depth, _, status in walk(folder):
                # Beyond, descriptors would run out: each level of folders takes one.
                if self.left == 0 or depth > USUAL.depth:
                    self.whole = False
                    break
                self.left -= 1
                file = status.st_dev, status.st_ino
                if status.st_nlink == 1 or file not in self._counted:
                    size += status.st_blocks * 512
                if status.st_nlink > 1:
                    self._counted.add(file)
        return size
