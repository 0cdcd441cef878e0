"""What the machine as a whole has, and how short of it its processes are."""

from __future__ import annotations

import contextlib
import os
from typing import Any

PRESSURE, MEMORY = "/proc/pressure", "/proc/meminfo"
SCARCE = ("cpu", "memory", "io")  # what a process may have to wait for


def disk_of(folder: str) -> tuple[int, int]:
    """The free bytes, for root, of the file system that a folder is in, and its size.

    Raises OSError.
    """
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


def pressures(place: str) -> dict[str, float]:
    """For how much of the last 10 s one of some processes waited: per cent, by what for.

    Empty if the kernel does not count that (psi=1; Documentation/accounting/psi.rst).

    :param place: the path of the file for what, with {} in its place
    """
    waits = {}
    for what in SCARCE:
        with contextlib.suppress(KeyError, OSError, ValueError), open(place.format(what)) as lines:
            words = lines.readline().split()  # "some avg10=0.00 avg60=... total=..."
            waits[what] = float(dict(each.split("=") for each in words[1:])["avg10"])
    return waits


def machine(folder: str) -> dict[str, Any]:
    """What this machine has, and what is left of it; its disk is the one that a folder is on.

    Raises OSError.
    """
    free, size = disk_of(folder)
    with open(MEMORY) as lines:  # "MemTotal:       16384 kB", see proc_meminfo(5)
        memory = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    return {
        "processors": os.cpu_count() or 1,
        "memory": {"total": memory["MemTotal"], "available": memory["MemAvailable"]},
        "disk": {"total": size, "available": free},
        "pressure": pressures(f"{PRESSURE}/{{}}"),
    }
