"""The phase of an instance's folder, kept as the mode of that folder."""

from __future__ import annotations

import os
import stat
from enum import IntEnum


class Phase(IntEnum):
    """A mode each, in bits that have no effect for root (inode(7)).

    A change is one atomic chmod(2), which works on a full disk too.
    """

    PREPARED = 0o1500  # for an expected launch: not an instance yet
    HALF_MADE = 0o1700
    WHOLE = 0o700
    ENDING = 0o4700  # to be removed


def phase_of(path: str | os.PathLike[str]) -> int:
    """The phase of a folder; any other mode if someone has changed it.

    Raises OSError.
    """
    return stat.S_IMODE(os.lstat(path).st_mode)
