"""A cgroup for each container: /txcontain/MANAGER/TOKEN, all below one group of ours.

There are three layouts (cgroups(7)): only version 2; version 1, with one hierarchy for each
controller; and both together. A ``Cgroups`` knows the folder of each controller's groups, so that
no other code has to ask for the layout.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise

import attrs
from attrs import field, frozen

from txcontain.container.explain import Group
from txcontain.container.spec import Limits
from txcontain.host.machine import SCARCE, pressures

GROUP = "txcontain"
# In version 2 a socket belongs to the group of the process that made it. So we know whose it is,
# even if version 1 has all the controllers.
SOCKETS = "sockets"
MONITORS = "keepers"  # the one group of a manager that is not a container
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "io")
FREEZER = "freezer"  # a controller of version 1; version 2 can freeze any group
V1_NAMES = {"blkio": "io"}  # other names that version 1 has
UNLIMITED = Limits()
PERIOD = 100_000  # microseconds over which the share of the processors is counted
BFQ_MOST = 1000  # the largest weight that the I/O scheduler BFQ knows
LONGEST = 1 << 16  # bytes of a file
# While a group is made: another manager ends, and so removes the one above, which was empty.
REMOVED_ABOVE, MOST_TRIES = {errno.ENOENT, errno.ENODEV}, 100
Find = Callable[[bytes], int]  # a figure in a file; raises IndexError or ValueError
Place = tuple[str, tuple[str, Find] | None, tuple[str, Find]]  # controller; file in version 1, 2
Files = dict[str, Callable[[Limits], str]]  # their names, and what is written to them


@frozen
class Setting:
    """How a limit is set: the controller, then the files and their text, in both versions.

    Which of these files exist depends on the kernel and its modules: all that exist are written.
    """

    controller: str
    version1: Files
    version2: Files


def _quota(limits: Limits) -> str:
    return str(int((limits.cpus or 0) * PERIOD))


def _bfq_weight(limits: Limits) -> str:
    return str(min(limits.io_weight or 0, BFQ_MOST))


# "swap" after "memory": version 1 refuses a sum that is less than the memory.
SETTINGS = {
    "memory": Setting(
        "memory",
        {"memory.limit_in_bytes": lambda limits: str(limits.memory)},
        {"memory.max": lambda limits: str(limits.memory)},
    ),
    "swap": Setting(
        "memory",
        {"memory.memsw.limit_in_bytes": lambda limits: str(limits.memory_and_swap)},
        {"memory.swap.max": lambda limits: str(limits.swap)},
    ),
    "cpus": Setting(
        "cpu",
        {"cpu.cfs_quota_us": _quota},
        {"cpu.max": lambda limits: f"{_quota(limits)} {PERIOD}"},
    ),
    "pids": Setting(
        "pids",
        {"pids.max": lambda limits: str(limits.pids)},
        {"pids.max": lambda limits: str(limits.pids)},
    ),
    # A disk is shared by iocost (only version 2), by BFQ, or not at all. (blkio.weight of version 1
    # belongs to CFQ, which the kernel has dropped.)
    "io_weight": Setting(
        "io",
        {"blkio.bfq.weight": _bfq_weight},
        {"io.weight": lambda limits: str(limits.io_weight), "io.bfq.weight": _bfq_weight},
    ),
}


def number(file: str, key: str = "", divisor: int = 1) -> tuple[str, Find]:
    """The only number of a file, or the one after a key."""
    start = b"\n%s " % key.encode()

    def find(content: bytes) -> int:
        if key:
            content = (b"\n" + content).split(start, 1)[1].partition(b"\n")[0]
        return int(content) // divisor

    return file, find


def traffic(key: str) -> tuple[str, Find]:
    """The sum of all disks, of version 2: "8:0 rbytes=1 wbytes=2 ..."."""
    start = b"%s=" % key.encode()

    def find(content: bytes) -> int:
        return sum(int(word[len(start) :]) for word in content.split() if word.startswith(start))

    return "io.stat", find


def old_traffic(key: str) -> tuple[str, Find]:
    """The same of version 1: "8:0 Read 1", "8:0 Write 2"; the last is a total."""
    wanted = key.encode()

    def find(content: bytes) -> int:
        return sum(int(number) for word, number in pairwise(content.split()) if word == wanted)

    return "blkio.throttle.io_service_bytes", find


def total_wait(file: str, line: int) -> tuple[str, Find]:
    """The total of a line of a pressure file (Documentation/accounting/psi.rst)."""
    return file, lambda content: int(content.splitlines()[line].partition(b"total=")[2])


# Where to read what is used.
USAGE: dict[str, Place] = {
    "memory": ("memory", number("memory.usage_in_bytes"), number("memory.current")),
    "memory_peak": ("memory", number("memory.max_usage_in_bytes"), number("memory.peak")),
    "pids": ("pids", number("pids.current"), number("pids.current")),
    "cpu_usec": (
        "cpuacct",
        number("cpuacct.usage", divisor=1000),
        number("cpu.stat", "usage_usec"),
    ),
    "io_read": ("io", old_traffic("Read"), traffic("rbytes")),
    "io_written": ("io", old_traffic("Write"), traffic("wbytes")),
}
# The same for those who collect more: of version 1, user and system time are only in hundredths.
ACCOUNTS: dict[str, Place] = {
    **USAGE,
    "inactive_file": (
        "memory",
        number("memory.stat", "total_inactive_file"),
        number("memory.stat", "inactive_file"),
    ),
    "anonymous": ("memory", number("memory.stat", "total_rss"), number("memory.stat", "anon")),
    "cache": ("memory", number("memory.stat", "total_cache"), number("memory.stat", "file")),
    "oom_kills": (
        "memory",
        number("memory.oom_control", "oom_kill"),
        number("memory.events", "oom_kill"),
    ),
    "user_usec": ("cpuacct", None, number("cpu.stat", "user_usec")),
    "system_usec": ("cpuacct", None, number("cpu.stat", "system_usec")),
    "periods": ("cpu", number("cpu.stat", "nr_periods"), number("cpu.stat", "nr_periods")),
    "throttled_periods": (
        "cpu",
        number("cpu.stat", "nr_throttled"),
        number("cpu.stat", "nr_throttled"),
    ),
    "throttled_usec": (
        "cpu",
        number("cpu.stat", "throttled_time", 1000),
        number("cpu.stat", "throttled_usec"),
    ),
    # Microseconds in which some of its processes waited, or all.
    **{
        f"{what}_{how}_usec": (SOCKETS, None, total_wait(f"{what}.pressure", which))
        for what in SCARCE
        for which, how in enumerate(("waiting", "stalled"))
    },
}


@frozen
class Source:
    """A file that every container's group has, and the figures in it."""

    top: str  # the folder of the groups
    file: str
    figures: Sequence[tuple[str, Find]]  # their names, and where they are

    def path(self, token: str) -> str:
        """Where it is of a container."""
        return f"{self.top}/{token}/{self.file}"

    def find(self, content: bytes) -> Iterator[tuple[str, int]]:
        """The figures in the file's content; what is not there is left out."""
        for name, find in self.figures:
            try:
                yield name, find(content)
            except (IndexError, ValueError):
                continue


def read_figures(token: str, sources: Iterable[Source]) -> dict[str, int]:
    """The figures of a container that are in these files; what can't be read is left out."""
    figures: dict[str, int] = {}
    for source in sources:
        with contextlib.suppress(OSError):
            figures.update(source.find(_read(source.path(token))))
    return figures


@frozen
class Cgroups:
    """The groups of this machine's containers."""

    tops: dict[str, str] = field(factory=dict)  # controller: our group's folder
    unified: frozenset[str] = frozenset()  # the controllers that are of version 2
    # The file by which a monitor leaves the manager's own group: a service manager may kill all
    # that is in there. (In version 1, only systemd's own hierarchy would do.)
    monitors: str = os.devnull
    threads: bool = False  # whether a single thread can join a group of version 2

    @classmethod
    def here(cls, state: str) -> Cgroups:
        """What this machine has. Makes the group of the manager with this state folder."""
        group = os.path.join(GROUP, sha256(os.path.realpath(state).encode()).hexdigest()[:8])
        with open("/proc/self/mountinfo") as file:
            tops, version2 = find_hierarchies(file)
        if version2:  # its freezer is better: what is frozen can be killed
            tops.pop(FREEZER, None)
        unified = _enable(version2, group, [name for name in CONTROLLERS if name not in tops])
        if unified and "cpuacct" not in tops:
            unified.append("cpuacct")  # version 2 counts in every group's cpu.stat
        tops.update(dict.fromkeys(unified, version2))
        if version2:
            tops[SOCKETS] = version2
        groups = {name: os.path.join(top, group) for name, top in tops.items()}
        ours = {name: path for name, path in groups.items() if _make(path)}
        version2_has = frozenset(ours) & {*unified, SOCKETS}
        monitors = os.path.join(version2, group, MONITORS)
        if not unified or not _make(monitors):
            threads = not unified and SOCKETS in ours and _let_threads_join(ours[SOCKETS])
            return cls(ours, version2_has, threads=threads)
        return cls(ours, version2_has, os.path.join(monitors, "cgroup.procs"))

    @property
    def version(self) -> str:
        """Which version has the limits: 1 or 2; "none" if this machine can limit nothing."""
        if "memory" in self.tops:
            return "2" if "memory" in self.unified else "1"
        return "none"

    def folders(self, token: str) -> list[str]:
        """The folders of a container's group."""
        return [os.path.join(top, token) for top in sorted(set(self.tops.values()))]

    def make(self, token: str) -> list[str]:
        """Make a container's group with the default limits; returns the files for joining it.

        A single thread can join in version 1, and in version 2 if it has no controllers. (Moving
        a whole process takes a grace period of RCU: 12 ms.)
        """
        for folder in self.folders(token):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o755)
        if self.threads:
            _write(os.path.join(self.tops[SOCKETS], token, "cgroup.type"), "threaded")
        with contextlib.suppress(
            OSError
        ):  # the machine can't limit this, and no one has asked for it
            self._set(token, "pids", UNLIMITED)
        return self.entrances(token)

    def entrances(self, token: str) -> list[str]:
        """The files by which a process joins a container's group."""
        version2 = {self.tops[name] for name in self.unified}
        joined_by = "cgroup.threads" if self.threads else "cgroup.procs"
        return [
            os.path.join(top, token, joined_by if top in version2 else "tasks")
            for top in sorted(set(self.tops.values()))
        ]

    def number(self, token: str) -> int | None:
        """The number by which a container's sockets are known; None if it has none."""
        with contextlib.suppress(KeyError, FileNotFoundError):
            return os.stat(os.path.join(self.tops[SOCKETS], token)).st_ino
        return None

    def remove(self, token: str) -> list[str]:
        """Remove a container's group; returns the folders that still have a process."""
        return [folder for folder in self.folders(token) if not _remove(folder)]

    def members(self, token: str) -> set[int]:
        """The pids of the processes in a container's group."""
        pids: set[int] = set()
        for folder in self.folders(token):
            with contextlib.suppress(OSError), open(os.path.join(folder, "cgroup.procs")) as file:
                pids.update(map(int, file.read().split()))
        return pids

    def give_back(self) -> None:
        """Remove our own groups if no container is left in them."""
        for top in set(self.tops.values()):
            with contextlib.suppress(OSError):
                _remove(os.path.join(top, MONITORS))
                os.rmdir(top)
                os.rmdir(os.path.dirname(top))  # other managers may still need it

    def tokens(self) -> set[str]:
        """The names of all containers' groups."""
        found: set[str] = set()
        for top in set(self.tops.values()):
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(top) if entry.is_dir())
        return found - {MONITORS}

    def limit(self, token: str, limits: Limits) -> None:
        """Apply the limits that differ from the defaults.

        Raises OSError if this machine can't; its filename says which limit, and which file.
        """
        for name, wanted in attrs.asdict(limits).items():
            if wanted != getattr(UNLIMITED, name) and name in SETTINGS:
                self._set(token, name, limits)

    def limits_of(self, token: str) -> list[str]:
        """What the files say by which a container is limited: their names and texts."""
        found = []
        for name, setting in SETTINGS.items():
            for file in self._files(name):
                with contextlib.suppress(KeyError, OSError):
                    path = os.path.join(self.tops[setting.controller], token, file)
                    found.append(f"{file} {_read(path).decode().strip()}")
        return found

    def by_hand(self, limits: Limits) -> Group:
        """The group, with these limits, of a container that someone makes by hand."""
        tops = {name: os.path.dirname(top) for name, top in self.tops.items()}  # no manager's own
        texts = [((tops[SOCKETS], "cgroup.type"), "threaded")] if self.threads else []
        for name, wanted in attrs.asdict(limits).items():
            is_set = name == "pids" or wanted != getattr(UNLIMITED, name)
            if is_set and name in SETTINGS and (top := tops.get(SETTINGS[name].controller)):
                texts += [((top, file), text(limits)) for file, text in self._files(name).items()]
        entrances = attrs.evolve(self, tops=tops).entrances("")
        return Group(sorted(set(tops.values())), texts, [os.path.split(file) for file in entrances])

    def freeze(self, token: str) -> None:
        """Have the kernel stop all processes of a container; it takes a moment.

        Raises OSError if this machine can't.
        """
        self._freeze(token, "1", "FROZEN")

    def thaw(self, token: str) -> None:
        """Let the processes of a container run on.

        Raises OSError if this machine can't, or if there is no such group.
        """
        self._freeze(token, "0", "THAWED")

    def _freeze(self, token: str, version2: str, version1: str) -> None:
        if SOCKETS in self.tops:
            _write(os.path.join(self.tops[SOCKETS], token, "cgroup.freeze"), version2)
        elif FREEZER in self.tops:
            _write(os.path.join(self.tops[FREEZER], token, "freezer.state"), version1)
        else:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), "cgroup.freeze")

    def is_frozen(self, token: str) -> bool:
        """Whether all processes of a container are stopped by ``freeze``."""
        if SOCKETS in self.tops:
            return bool(self._table(token, SOCKETS, "cgroup.events").get("frozen"))
        try:
            with open(os.path.join(self.tops[FREEZER], token, "freezer.state")) as file:
                return file.read().strip() == "FROZEN"
        except (KeyError, OSError):
            return False

    def _set(self, token: str, name: str, limits: Limits) -> None:
        files = self._files(name)
        try:
            folder = os.path.join(self.tops[SETTINGS[name].controller], token)
            texts = {os.path.join(folder, file): text(limits) for file, text in files.items()}
            _write_to_all(texts)
        except (KeyError, OSError) as error:
            number = getattr(error, "errno", None) or errno.ENOENT
            what = f"limits.{name}, {' or '.join(files)}"
            raise OSError(number, os.strerror(number), what) from error

    def _files(self, name: str) -> Files:
        setting = SETTINGS[name]
        return setting.version2 if setting.controller in self.unified else setting.version1

    def usage(self, token: str) -> dict[str, int]:
        """What a container uses: bytes of memory, microseconds of time, number of processes, bytes
        that it has read from disks and written to them.

        Figures that this machine does not count are missing.
        """
        return read_figures(token, self.sources(USAGE))

    def sources(self, names: Iterable[str]) -> list[Source]:
        """The files that have these figures of ACCOUNTS, each once.

        Figures that this machine does not count are missing.
        """
        found = defaultdict[tuple[str, str], list[tuple[str, Find]]](list)
        for name in names:
            controller, version1, version2 = ACCOUNTS[name]
            place = version2 if controller in self.unified else version1
            if place and controller in self.tops:
                file, find = place
                found[self.tops[controller], file].append((name, find))
        return [Source(top, file, figures) for (top, file), figures in found.items()]

    def pressure(self, token: str) -> dict[str, float]:
        """For how much of the last 10 s a process of a container waited: per cent, by what for.

        Only version 2 counts that, and only if the kernel does (psi=1): else it is empty.
        """
        top = self.tops.get(SOCKETS)
        return pressures(f"{top}/{token}/{{}}.pressure") if top else {}

    def out_of_memory_kills(self, token: str) -> int:
        """How many processes of a container the kernel has killed because memory ran out."""
        file = "memory.events" if "memory" in self.unified else "memory.oom_control"
        return self._table(token, "memory", file).get("oom_kill", 0)

    def _table(self, token: str, controller: str, file: str) -> dict[str, int]:
        """A file of lines "NAME NUMBER"; empty if it is missing or can't be read."""
        try:
            with open(os.path.join(self.tops[controller], token, file)) as lines:
                pairs = (line.split() for line in lines)
                return {name: int(number) for name, number in pairs}
        except (KeyError, OSError, ValueError):
            return {}


def find_hierarchies(mountinfo: Iterable[str]) -> tuple[dict[str, str], str]:
    """The folder of each controller in version 1, and that of version 2 ("" if there is none).

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
                if name in (*CONTROLLERS, FREEZER):
                    version1.setdefault(name, path)
    return version1, version2


def _enable(top: str, group: str, wanted: list[str]) -> list[str]:
    """Enable controllers for the groups below ours; returns those that are enabled."""
    if not top or not wanted:
        return []
    ours = os.path.join(top, group)
    if not _make(ours):
        return []
    for folder in (top, os.path.dirname(ours), ours):
        for name in wanted:
            with contextlib.suppress(OSError):  # not in this kernel, or not delegated to us
                _write(os.path.join(folder, "cgroup.subtree_control"), f"+{name}")
    with open(os.path.join(ours, "cgroup.subtree_control")) as file:
        return [name for name in file.read().split() if name in wanted]


def _let_threads_join(group: str) -> bool:
    """Let single threads join a group (cgroups(7), thread mode); returns whether they can.

    They can only if their process is in no other group: we try it with a thread.
    """
    joined = threading.Event()

    def join() -> None:
        with contextlib.suppress(OSError):
            _write(os.path.join(group, "cgroup.threads"), "0")
            joined.set()

    try:
        for folder in (os.path.dirname(group), group):
            _write(os.path.join(folder, "cgroup.type"), "threaded")
    except OSError:
        return False
    thread = threading.Thread(target=join)
    thread.start()
    thread.join()
    return joined.is_set()


def _make(folder: str) -> bool:
    for _ in range(MOST_TRIES):
        try:
            os.makedirs(folder, 0o755, exist_ok=True)
            return True
        except OSError as error:
            if error.errno not in REMOVED_ABOVE:  # we have only read access to this hierarchy
                return False
    return False


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


def _write_to_all(texts: dict[str, str]) -> None:
    """Write to those files that exist. Raises FileNotFoundError if none does."""
    missing = []
    for path, text in texts.items():
        try:
            _write(path, text)
        except FileNotFoundError as error:
            missing.append(error)
    if len(missing) == len(texts):
        raise missing[0]


def _read(path: str) -> bytes:
    """What is in a file. Python's own files would take twice as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LONGEST)
    finally:
        os.close(descriptor)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # never created
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
