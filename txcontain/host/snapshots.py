"""What the kernel tells of a process, as lines, and how that changes."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from txcontain.host.isolation import NAMESPACES, isolation

MOST_LINES = 200  # of one kind that are told
Snapshot = dict[str, list[str]]  # by what they tell of


def snapshot(pid: int) -> Snapshot:
    """A process's namespaces, cgroups, mounts, powers, limits, descriptors, folders (proc(5)).

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
        "cgroups": [
            f"{one['controllers'] or 'version 2'} {one['path']}" for one in held["cgroups"]
        ],
        "mounts": [_line(mount) for mount in held["mounts"]],
        "powers": [line for line in status if line.startswith(powers)],
        "limits": limits,
        "descriptors": _descriptors(pid),
        "folders": [f"{name} {os.readlink(f'/proc/{pid}/{name}')}" for name in ("root", "cwd")],
    }


def changes(before: Snapshot, after: Snapshot) -> list[dict[str, Any]]:
    """What is not the same any more: of each kind, the lines that are gone, and the new ones.

    :param before: only its kinds are told of
    """
    found = []
    for kind, had in before.items():
        lines = after[kind]
        was, now = {*had}, {*lines}  # there may be a thousand of each
        gone = [line for line in had if line not in now]
        new = [line for line in lines if line not in was]
        if gone or new:
            found.append({"of": kind, "gone": gone[:MOST_LINES], "new": new[:MOST_LINES]})
    return found


def _line(mount: dict[str, Any]) -> str:
    said = f"{mount['target']} {mount['type']} {mount['source']} {','.join(mount['options'])}"
    return f"{said} {mount['propagation']}"


def _descriptors(pid: int) -> list[str]:
    folder, found = f"/proc/{pid}/fd", []
    for number in sorted(os.listdir(folder), key=int):
        with contextlib.suppress(FileNotFoundError):  # it is closed by now
            found.append(f"{number} {os.readlink(f'{folder}/{number}')}")
    return found
