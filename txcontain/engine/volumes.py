"""Volumes: named data on the disk, which outlives the instances that use it.

A volume is a folder NAME with two things in it: ``data``, which containers mount, and its record, a
file with a name that no other volume ever has. The first container that uses it makes ``data``
(``Container.volume`` in init.py). If the volume has a bound, ``data`` is in a file system of its
own, in the file ``disk.img``. What is half made or half removed has another name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from secrets import token_hex
from typing import Any

from attrs import asdict, define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock

from txcontain.container.document import shown
from txcontain.container.plan import IMAGE, VolumePlace
from txcontain.container.spec import NAME, Spec
from txcontain.errors import InUse, InvalidData, MachineAtFault, NoSuchVolume
from txcontain.host.files import create, flush_folder, read_file, to_json
from txcontain.host.os_errors import of_os
from txcontain.later import Few
from txcontain.runtime.instance import Instance

RECORD = re.compile(r"[0-9a-f]{16}\.json")
LONGEST_RECORD = 4096  # bytes
UNFINISHED = "."  # what the name of a folder begins with that is no volume (yet, or any more)
MOST_TRANSFERS, MOST_SIZES, MOST_WAITING = 8, 2, 100  # at once; that wait
LEFT = "filling-", f"{IMAGE}.new"  # what a first use that was cut short has left in a folder


@frozen
class Volume:
    """What is known of a volume."""

    name: str
    record: str  # the name of its record's file
    created: float  # unix time
    bound: int | None = None  # bytes that its own file system has


@define(eq=False)
class Volumes:
    """The volumes in a folder."""

    folder: str
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    remove_tree: Callable[[str], Awaitable[None]]
    measure: Callable[[Sequence[str]], Awaitable[str]]  # what du(1) says of these folders
    now: Callable[[], float]
    known: dict[str, Volume] = field(factory=dict)  # by name
    exports: Few = field(factory=lambda: Few("exports of volumes", MOST_TRANSFERS, 0))
    imports: Few = field(factory=lambda: Few("imports of volumes", MOST_TRANSFERS, 0))
    _sizes: Few = field(factory=lambda: Few("sizes of volumes", MOST_SIZES, MOST_WAITING))
    lock: DeferredLock = field(factory=DeferredLock)  # of whoever makes or removes one
    pausing: DeferredLock = field(factory=DeferredLock)  # of whoever freezes instances for a while

    def recover(self) -> tuple[list[str], list[str]]:
        """Read what an earlier manager left.

        Returns the paths of what is to be removed, and what is wrong, a sentence each.
        """
        leftovers, wrong = [], []
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            if name.startswith(UNFINISHED):
                leftovers.append(path)
                continue
            try:
                self.known[name] = _read(self.folder, name)
                leftovers += unfinished(path)
            except (OSError, ValueError) as error:
                wrong.append(f"the volume {shown(name)} can't be used: {error}")
        return leftovers, wrong

    def get(self, name: str) -> Volume:
        """A volume.

        Raises NoSuchVolume.
        """
        try:
            return self.known[name]
        except KeyError:
            hint = "`txcontain volumes ls` shows those there are"
            raise NoSuchVolume(f"there is no volume {shown(name)}", hint) from None

    def path(self, name: str) -> str:
        """The folder of a volume."""
        return os.path.join(self.folder, name)

    def place(self, name: str) -> VolumePlace:
        """Where a volume is; with a lock that is no file if it is gone."""
        volume = self.known.get(name)
        if volume is None:
            return VolumePlace(self.path(name), "gone")
        return VolumePlace(self.path(name), volume.record, volume.bound)

    async def sizes(self, names: Sequence[str]) -> list[int | None]:
        """How many bytes of the disk each of these takes; None if that can't be told soon.

        Raises TooMany.
        """
        paths, said = [self.place(name).data for name in names], ""
        if paths:
            async with self._sizes.turn():
                said = await self.measure(paths)
        sizes = dict(line.split("\t", 1)[::-1] for line in said.splitlines() if "\t" in line)
        return [int(sizes[path]) if path in sizes else None for path in paths]

    async def make(self, name: str, bound: int | None = None) -> bool:
        """Make a volume, if there is none of this name; returns whether there was none.

        :param bound: the most bytes that it may take
        Raises InvalidData, MachineAtFault.
        """
        _check(name)
        async with self.lock:
            if name in self.known:
                return False
            volume = self._new(name, bound)
            try:
                await self.threads(_make, self.folder, volume)
                await self.threads(_settle, self.folder, volume)
            except OSError as error:
                raise MachineAtFault(f"making the volume {name}", of_os(error)) from error
            self.known[name] = volume
            return True

    def _new(self, name: str, bound: int | None) -> Volume:
        return Volume(name, f"{token_hex(8)}.json", self.now(), bound)

    async def put(
        self,
        name: str,
        fill: Callable[[VolumePlace], Awaitable[None]],
        users: Callable[[], Sequence[str]],
    ) -> None:
        """Make a volume with data, in place of an empty one that nobody uses, whose bound it keeps.

        :param fill: puts the data into the empty folder ``data`` of a place
        :param users: returns the names of the instances that use the volume
        Raises InvalidData, InUse; MachineAtFault; and what ``fill`` raises.
        """
        _check(name)
        await self._refuse_to_replace(name, users)
        volume = self._new(name, self.place(name).size)
        beside = _beside(self.folder, volume)
        try:
            await self.threads(_make, self.folder, volume)
            await self.threads(_make_root, f"{beside}/data")
            await fill(VolumePlace(beside, volume.record, volume.bound))
            async with self.lock:
                await self._refuse_to_replace(name, users)
                if self.known.pop(name, None) is not None:
                    aside = self._aside(name)
                    await self.threads(os.rename, self.path(name), aside)
                    await self.remove_tree(aside)
                await self.threads(_settle, self.folder, volume)
                self.known[name] = volume
        except OSError as error:
            raise MachineAtFault(f"importing the volume {name}", of_os(error)) from error
        finally:
            await self.remove_tree(beside)

    async def _refuse_to_replace(self, name: str, users: Callable[[], Sequence[str]]) -> None:
        if name not in self.known:
            return
        if names := users():
            raise in_use(name, names)
        if await self.threads(_holds, self.place(name).data):
            hint = "import it under another name, or remove this one first"
            raise InUse(f"there is data in the volume {name}", hint)
        if names := users():  # by now
            raise in_use(name, names)

    def _aside(self, name: str) -> str:
        return self.path(f"{UNFINISHED}{name}-{token_hex(8)}")

    async def remove(self, name: str, users: Callable[[], Sequence[str]]) -> None:
        """Remove a volume and all that is in it.

        :param users: returns the names of the instances that use it
        Raises NoSuchVolume, InUse; MachineAtFault if something is left.
        """
        async with self.lock:
            self.get(name)
            if names := users():
                raise in_use(name, names)
            del self.known[name]
            aside = self._aside(name)
            try:
                await self.threads(os.rename, self.path(name), aside)
                await self.remove_tree(aside)
            except OSError as error:
                raise MachineAtFault(f"removing the volume {name}", of_os(error)) from error


def in_use(name: str, users: Sequence[str]) -> InUse:
    """The error of who wants to change a volume that instances use."""
    return InUse(f"instances use the volume {name}", ", ".join(users), "destroy them first")


def users_of(name: str, instances: Iterable[Instance]) -> list[str]:
    """The names of the instances that use a volume, also of those that have ended.

    One whose launch has failed never uses it.
    """
    users = (one for one in instances if one.state != "failed")
    return [one.name for one in users if name in one.spec.volume_names]


def what_stays(name: str, spec: Spec) -> list[str]:
    """What to tell of the data of an instance that was destroyed, a sentence each."""
    lost = [mount.target for mount in spec.mounts if mount.writable]
    told = []
    if lost or spec.writable_root:
        places = ", ".join([*lost, *["/"] * spec.writable_root])
        told.append(f"removed with {name}: what it wrote below {places}")
    if spec.volume_names:
        several = "s" * (len(spec.volume_names) > 1)
        told.append(f"kept: the volume{several} {', '.join(spec.volume_names)}")
    return told


def unfinished(folder: str) -> list[str]:
    """What first uses that were cut short have left in the folder of a volume."""
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(LEFT)]


def _check(name: str) -> None:
    if not NAME.fullmatch(name):
        what = "up to 50 letters, digits, '.', '_' and '-'"
        raise InvalidData(f"the name of a volume must be {what}, not {shown(name)}")


def _beside(folder: str, volume: Volume) -> str:
    return os.path.join(folder, f"{UNFINISHED}{volume.name}-{volume.record}")


def _make(folder: str, volume: Volume) -> None:
    beside = _beside(folder, volume)
    os.mkdir(beside, 0o700)
    create(os.path.join(beside, volume.record), to_json(asdict(volume)))


def _make_root(path: str) -> None:
    """Make the folder of a volume's data, for a tarball that may say nothing of it."""
    os.mkdir(path)
    os.chmod(path, 0o755)  # whatever the umask is: a manager's is 0077


def _settle(folder: str, volume: Volume) -> None:
    os.rename(_beside(folder, volume), os.path.join(folder, volume.name))
    flush_folder(folder)


def _holds(data: str) -> bool:
    """Whether there is anything in a folder; what is in a file of ``data`` can't be seen."""
    if os.path.isfile(data):
        return True
    with contextlib.suppress(FileNotFoundError):
        return bool(os.listdir(data))
    return False


def _read(folder: str, name: str) -> Volume:
    if not NAME.fullmatch(name):
        raise ValueError("it is not a name of a volume")
    path = os.path.join(folder, name)
    records = [each for each in os.listdir(path) if RECORD.fullmatch(each)]
    if len(records) != 1:
        raise ValueError("it has no record, or several")
    with contextlib.suppress(TypeError, KeyError, RecursionError):
        record = json.loads(read_file(os.path.join(path, records[0]), LONGEST_RECORD))
        bound = record.get("bound")
        return Volume(name, records[0], float(record["created"]), bound and int(bound))
    raise ValueError(f"its record {records[0]} can't be understood")
