"""Ranges of the host's user and group ids, one for each container with a user namespace.

They begin where systemd's table of ids has nothing (systemd.io/UIDS-GIDS), nor useradd's
ranges for Podman and Docker (/etc/subuid) usually are.
"""

from __future__ import annotations

from collections.abc import Iterable

from txcontain.container.facts import COUNT, FIRST, MOST
from txcontain.errors import MachineAtFault


def free_range(taken: Iterable[int]) -> int:
    """The first id of a range that no one has.

    Raises MachineAtFault where all are taken.
    """
    free = set(range(FIRST, FIRST + MOST * COUNT, COUNT)) - {*taken}
    if not free:
        hint = "remove instances that have ended, or do without user namespaces"
        raise MachineAtFault(f"all {MOST} ranges of user ids are taken", hint)
    return min(free)


def read_range(value: object) -> int | None:
    """The first id of a range, as it is in a record; None where there is none.

    Raises ValueError where it is none of ours.
    """
    if value is not None and value not in range(FIRST, FIRST + MOST * COUNT, COUNT):
        raise ValueError(f"{value!r} is no range of ids of ours")
    return value  # type: ignore[return-value]  # it is in a range of int
