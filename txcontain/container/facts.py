"""What a plan needs to know of the machine and of the images."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence

from attrs import field, frozen


def _tuple(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class Place:
    """A folder of the image that will be in memory; no path if it is one of the kernel's own."""

    path: str = ""
    holds: bool = False  # whether the image has files there
    # If the image has several layers: those that have the folder, the highest first.
    layers: tuple[str, ...] = field(default=(), converter=_tuple)


RUN, TMP = Place("/run"), Place("/tmp")


# What Docker hides and write-protects in /proc and /sys: it shows the host, or changes it. (We add
# dynamic_debug, by which root makes the kernel log its work, without any capability.)
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
# Bytes of message queues, pending signals, bytes of locked memory: the kernel's defaults.
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
    """How much of a resource (setrlimit(2)) containers may have: a quarter stays for the host.

    The kernel compares what a user has in all processes with the limit of the one that asks. And
    without user namespaces, root in every container is the host's root.
    """
    most = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return min(default if most == resource.RLIM_INFINITY else most, default) * 3 // 4


NOWHERE = Host()


# Ranges of user and group ids: the first id of all, how many a range has, how many ranges.
FIRST_ID, IDS, MOST_RANGES = 0x70000000, 65536, 4000
