"""A cgroup for each container, below one group of our own: /txcontain.

Three layouts exist in the field (cgroups(7)): version 2 alone, version 1 with a
hierarchy a controller, and a hybrid of both. A ``Cgroups`` knows for each controller
in which folder its groups are; the rest of the code does not ask which layout it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable

from attrs import field, frozen

GROUP = "txcontain"
CONTROLLERS = ("memory", "pids", "cpu", "io")
V1_NAMES = {"blkio": "io"}  # what version 1 calls otherwise


@frozen
class Cgroups:
    """The groups of this machine's containers."""

    tops: dict[str, str] = field(factory=dict)  # controller: our group's folder
    unified: frozenset[str] = frozenset()  # the controllers that are of version 2

    @classmethod
    def here(cls) -> Cgroups:
        """What this machine has; our own group is made where it is missing."""
        with open("/proc/self/mountinfo") as file:
            tops, version2 = find_hierarchies(file)
        unified = _enable(version2, [name for name in CONTROLLERS if name not in tops])
        tops.update(dict.fromkeys(unified, version2))
        ours = {name: os.path.join(top, GROUP) for name, top in tops.items() if _make(top)}
        return cls(ours, frozenset(unified))

    def folders(self, token: str) -> list[str]:
        """The folders of a container's group, each once."""
        return [os.path.join(top, token) for top in sorted(set(self.tops.values()))]

    def make(self, token: str) -> list[str]:
        """Make a container's group; returns the files that a process joins it by."""
        folders = self.folders(token)
        for folder in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o755)
        return [os.path.join(folder, "cgroup.procs") for folder in folders]

    def remove(self, token: str) -> list[str]:
        """Remove a container's group; returns the folders that a process still is in."""
        return [folder for folder in self.folders(token) if not _remove(folder)]

    def tokens(self) -> set[str]:
        """The names of all the groups there are."""
        found: set[str] = set()
        for top in set(self.tops.values()):
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(top) if entry.is_dir())
        return found

    def out_of_memory_kills(self, token: str) -> int:
        """How many processes of a container the kernel has killed for want of memory."""
        file = "memory.events" if "memory" in self.unified else "memory.oom_control"
        return self._table(token, "memory", file).get("oom_kill", 0)

    def _table(self, token: str, controller: str, file: str) -> dict[str, int]:
        """A file of lines "NAME NUMBER"; empty where there is none."""
        try:
            with open(os.path.join(self.tops[controller], token, file)) as lines:
                pairs = (line.split() for line in lines)
                return {name: int(number) for name, number in pairs}
        except (KeyError, FileNotFoundError):
            return {}


def find_hierarchies(mountinfo: Iterable[str]) -> tuple[dict[str, str], str]:
    """Where version 1 has each controller, and where version 2 is mounted ("" if nowhere).

    Takes the lines of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    """
    version1: dict[str, str] = {}
    version2 = ""
    for line in mountinfo:
        place, _, rest = line.partition(" - ")
        kind, _, options = rest.split()[:3]
        path = place.split()[4]
        if kind == "cgroup2":
            version2 = version2 or path
        elif kind == "cgroup":
            for option in options.split(","):
                name = V1_NAMES.get(option, option)
                if name in CONTROLLERS:
                    version1.setdefault(name, path)
    return version1, version2


def _enable(top: str, wanted: list[str]) -> list[str]:
    """Switch controllers on for the groups below ours; returns those that are."""
    if not top or not wanted:
        return []
    ours = os.path.join(top, GROUP)
    with contextlib.suppress(FileExistsError):
        os.mkdir(ours)
    for folder in (top, ours):
        for name in wanted:
            with contextlib.suppress(OSError):  # not in this kernel, or not delegated to us
                _write(os.path.join(folder, "cgroup.subtree_control"), f"+{name}")
    with open(os.path.join(ours, "cgroup.subtree_control")) as file:
        return [name for name in file.read().split() if name in wanted]


def _make(top: str) -> bool:
    try:
        os.mkdir(os.path.join(top, GROUP))
    except FileExistsError:
        return True
    except OSError:  # a hierarchy that we may only look at
        return False
    return True


def _remove(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
