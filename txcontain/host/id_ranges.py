"""Ranges of the host's user and group ids, one for each container with a user namespace.

They lie where systemd's table of ids has nothing (systemd.io/UIDS-GIDS), and where useradd
usually places no ranges for Podman and Docker (/etc/subuid).
"""

from __future__ import annotations

from collections.abc import Iterable

from txcontain.container.facts import FIRST_ID, IDS, MOST_RANGES
from txcontain.errors import MachineAtFault


def free_range(taken: Iterable[int], *, last: bool = False) -> int:
    """The first id of a free range: of the first one or, if that is asked for, of the last.

    Raises MachineAtFault if all are taken.
    """
    free = set(range(FIRST_ID, FIRST_ID + MOST_RANGES * IDS, IDS)) - {*taken}
    if not free:
        hint = "remove instances that have ended, or do without user namespaces"
        raise MachineAtFault(f"all {MOST_RANGES} ranges of user ids are taken", hint)
    return max(free) if last else min(free)


def read_range(value: object) -> int | None:
    """The first id of a range, as a record has it; None if it has none.

    Raises ValueError if it is not one of ours.
    """
    if value is not None and value not in range(FIRST_ID, FIRST_ID + MOST_RANGES * IDS, IDS):
        raise ValueError(f"{value!r} is not the first id of one of our ranges")
    return value  # type: ignore[return-value]  # it is in a range of int
