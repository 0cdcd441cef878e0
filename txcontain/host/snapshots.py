"""What the kernel tells of a process, as lines, and how that changes."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from txcontain.host.isolation import NAMESPACES, isolation

MOST_LINES = 200  # of one kind that are told
Snapshot = dict[str, list[str]]  # by what they tell of


def snapshot(pid: int) -> Snapshot:
    """A process's namespaces, mounts, powers, limits, descriptors and folders (proc(5)).

    Raises OSError if it is gone.
    """
    held = isolation(pid)
    with open(f"/proc/{pid}/status") as file:
        status = [" ".join(line.split()) for line in file]
    with open(f"/proc/{pid}/limits") as file:
        limits = [" ".join(line.split()) for line in file]
    powers = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")
    return {
        "namespaces": [f"{kind} {held['namespaces'][kind]['id']}" for kind in NAMESPACES],
        "mounts": [_line(mount) for mount in held["mounts"]],
        "powers": [line for line in status if line.startswith(powers)],
        "limits": limits,
        "descriptors": _descriptors(pid),
        "folders": [f"{name} {os.readlink(f'/proc/{pid}/{name}')}" for name in ("root", "cwd")],
    }


def changes(before: Snapshot, after: Snapshot) -> list[dict[str, Any]]:
    """What is not the same any more: of each kind, the lines that are gone, and the new ones."""
    found = []
    for kind, lines in after.items():
        was, now = {*before[kind]}, {*lines}  # there may be a thousand of each
        gone = [line for line in before[kind] if line not in now]
        new = [line for line in lines if line not in was]
        if gone or new:
            found.append({"of": kind, "gone": gone[:MOST_LINES], "new": new[:MOST_LINES]})
    return found


def _line(mount: dict[str, Any]) -> str:
    return f"{mount['target']} {mount['type']} {mount['source']} {','.join(mount['options'])}"


def _descriptors(pid: int) -> list[str]:
    folder, found = f"/proc/{pid}/fd", []
    for number in sorted(os.listdir(folder), key=int):
        with contextlib.suppress(FileNotFoundError):  # it is closed by now
            found.append(f"{number} {os.readlink(f'{folder}/{number}')}")
    return found
