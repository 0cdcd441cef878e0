"""What a plan needs to know of the machine and of the images."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence

from attrs import frozen


@frozen
class Place:
    """A folder of a root that is to be in memory: where it is; nowhere, if among the kernel's."""

    path: str = ""
    holds: bool = False  # whether the image has files there


RUN, TMP = Place("/run"), Place("/tmp")


# What Docker hides and write-protects in /proc and /sys: they tell of, or reach, the host. (And
# dynamic_debug, by which root has the kernel log what it does: that takes no capability.)
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = (
    "/proc/bus",
    "/proc/dynamic_debug",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
# Bytes of message queues, signals that wait, bytes of memory that is locked: the kernel's defaults.
COUNTED_PER_USER = {"msgqueue": 819200, "sigpending": 65536, "memlock": 8 << 20}


@frozen
class Host:
    """What a plan needs to know of the machine."""

    empty: str = "/var/empty"  # an empty folder, to hide others behind
    masked: tuple[tuple[str, bool], ...] = ()  # those of MASKED that exist; whether a folder
    read_only: tuple[str, ...] = ()  # those of READ_ONLY that exist
    seccomp: tuple[bytes, ...] = (b"", b"")  # the compiled filter: the first and the last part
    limits: tuple[tuple[str, int], ...] = ()  # of what the kernel counts for a user as a whole

    @classmethod
    def here(cls, empty: str, seccomp: Sequence[bytes]) -> Host:
        """The facts of this machine."""
        return cls(
            empty,
            tuple((path, os.path.isdir(path)) for path in MASKED if os.path.exists(path)),
            tuple(path for path in READ_ONLY if os.path.exists(path)),
            tuple(seccomp),
            tuple((name, _share(name, default)) for name, default in COUNTED_PER_USER.items()),
        )


def _share(name: str, default: int) -> int:
    """How much of a resource (setrlimit(2)) containers may have: a quarter is left to the host.

    What one user has in all its processes is held against the limit of each: without user
    namespaces, all roots of containers are the host's root.
    """
    most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return min(default if most == resource.RLIM_INFINITY else most, default) * 3 // 4


NOWHERE = Host()


FIRST, COUNT, MOST = 0x70000000, 65536, 4000  # the first id, ids in a range, ranges
