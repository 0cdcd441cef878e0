"""How far an instance's folder is, told by the folder's own mode."""

from __future__ import annotations

import os
import stat
from enum import IntEnum


class Phase(IntEnum):
    """A phase is a mode, in bits that mean nothing for a folder of root's (inode(7)).

    To go from one to the next is a single step, which needs no room on a full disk.
    """

    PREPARED = 0o1500  # for a launch that is expected: no instance yet
    HALF_MADE = 0o1700
    WHOLE = 0o700
    ENDING = 0o4700  # to be removed


def phase_of(path: str | os.PathLike[str]) -> int:
    """The phase of a folder; another number if someone has changed its mode.

    Raises OSError.
    """
    return stat.S_IMODE(os.lstat(path).st_mode)
