"""What an instance has changed below its writable parts, as the overlays' upper folders show it.

What was written is the upper folder's; what was removed is a device 0, 0 there, or is hidden by an
opaque folder (Documentation/filesystems/overlayfs.rst). All of it is the container's, which may be
writing now: so nothing is followed, and all is opened by its name in a folder that is open.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from attrs import define, frozen

from txcontain.container.document import refuse
from txcontain.engine.manager import Manager
from txcontain.images.bounds import FOLDER
from txcontain.runtime.instance import Instance

MADE = ("move", "mount", "overlay", "volume", "host_folder", "file", "add_file", "add_copy")
MOST, DEEPEST = 100_000, 100  # changes to tell; folders below each other
LONGEST = 8 << 20  # characters of all paths: each may have 25,000 of them
ADDED, CHANGED, DELETED = "A", "C", "D"
OPAQUE = "trusted.overlay.opaque"
Change = tuple[str, str]  # what, and the path


@frozen
class Part:
    """A writable part of a container: where it is, and its layers on the host."""

    target: str
    lowers: Sequence[str]  # the highest first
    upper: str


async def changes(manager: Manager, instance: Instance) -> dict[str, Any]:
    """What an instance has added, changed and deleted, and whether that is all.

    Raises InvalidData if what it wrote is in memory; TooMany.
    """
    parts, made = parts_of(instance)
    if parts and instance.spec.limits.disk is not None:
        refuse(f"what {instance.name} writes is in memory (limits.disk), where no one sees it")
    if parts and instance.spec.disk_size is not None:
        refuse(
            f"what {instance.name} writes is on a disk of its own (disk_size), which no one sees"
        )
    walk = Walk(made, instance.ids or 0)
    async with manager.surveys.turn():
        found = await manager.threads(walk.bounded, parts)
    told = [{"kind": kind, "path": path} for kind, path in found]
    return {"changes": told, "complete": walk.complete}


def parts_of(instance: Instance) -> tuple[list[Part], set[str]]:
    """The writable parts of an instance, and the paths that its launch has made itself."""
    parts, made = [], set()
    for op, arguments in instance.plan:
        target = "/" if op == "root_overlay" else arguments.get("target")
        upper = arguments.get("upper", "")
        if target and upper.startswith(f"{instance.folder}/"):
            parts.append(Part(target, instance_layers(instance, arguments), upper))
        if op in MADE:
            made.add(target or arguments["path"])
    return parts, made


def instance_layers(instance: Instance, overlay: dict[str, Any]) -> list[str]:
    """The layers below an overlay, as they lie in the state folder, where no owner is mapped."""
    folders = {os.path.basename(layer): layer for layer in instance.layers}
    return [folders[os.path.basename(path)] for path in overlay["lower"]]


@define
class Walk:
    """Compares upper folders with what is below them."""

    made: set[str]  # paths that are no change of the container's
    first_id: int  # that root of the container has on the disk
    complete: bool = True

    def bounded(self, parts: Sequence[Part]) -> list[Change]:
        """The changes of these parts, as far as it is not too much to tell."""
        found, room = list[Change](), LONGEST
        for change in self.parts(parts):
            room -= len(change[1])
            if room < 0 or len(found) == MOST:
                self.complete = False
                break
            found.append(change)
        return found

    def parts(self, parts: Sequence[Part]) -> Iterator[Change]:
        """The changes of these parts."""
        for part in parts:
            with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
                upper, *lowers = (_opened(stack, path) for path in (part.upper, *part.lowers))
                prefix = "" if part.target == "/" else part.target
                yield from self._folder(prefix, upper, lowers, DEEPEST)

    def _folder(self, path: str, upper: int, lowers: Sequence[int], deep: int) -> Iterator[Change]:
        """The changes in a folder; ``lowers`` are the same one in those layers that have it."""
        if not deep:
            self.complete = False
            return
        with os.scandir(upper) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST + 1))
        if _is_opaque(upper):
            before = {name for lower in lowers for name in islice(os.listdir(lower), MOST + 1)}
            for name in sorted(before - {*names}):
                if _status(name, lowers):
                    yield DELETED, f"{path}/{name}"
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                yield from self._entry(f"{path}/{name}", name, upper, lowers, deep)

    def _entry(
        self, path: str, name: str, upper: int, lowers: Sequence[int], deep: int
    ) -> Iterator[Change]:
        status = os.stat(name, dir_fd=upper, follow_symlinks=False)
        before = _status(name, lowers)
        if _is_whiteout(status):
            if before is not None:
                yield DELETED, path
        elif path in self.made:
            return
        elif stat.S_ISDIR(status.st_mode):
            yield from self._subfolder(path, name, upper, lowers, deep, status, before)
        else:
            yield (ADDED if before is None else CHANGED), path

    def _subfolder(
        self,
        path: str,
        name: str,
        upper: int,
        lowers: Sequence[int],
        deep: int,
        status: os.stat_result,
        before: os.stat_result | None,
    ) -> Iterator[Change]:
        with contextlib.ExitStack() as stack:
            new = _opened(stack, name, upper)
            old = _merged(stack, name, lowers)
            within = self._folder(path, new, old, deep - 1)
            first = next(within, None)
            if first or not self._is_as_before(path, status, before):
                yield (ADDED if before is None else CHANGED), path
            if first:
                yield first
            yield from within

    def _is_as_before(
        self, path: str, status: os.stat_result, before: os.stat_result | None
    ) -> bool:
        """Whether a folder is in the upper layer only for what the launch has made in it."""
        if before is None:
            return any(made.startswith(f"{path}/") for made in self.made)
        owners = before.st_uid + self.first_id, before.st_gid + self.first_id
        return (status.st_mode, status.st_uid, status.st_gid) == (before.st_mode, *owners)


def _status(name: str, folders: Sequence[int]) -> os.stat_result | None:
    """The status of what these folders, the highest first, show by a name when they are merged."""
    for folder in folders:
        if status := _own_status(name, folder):
            return None if _is_whiteout(status) else status
    return None


def _own_status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _merged(stack: contextlib.ExitStack, name: str, folders: Sequence[int]) -> list[int]:
    """The folders of this name in these folders, as far as they are merged into one."""
    found: list[int] = []
    for folder in folders:
        status = _own_status(name, folder)
        if status and not stat.S_ISDIR(status.st_mode):
            break
        if status:
            found.append(_opened(stack, name, folder))
            if _is_opaque(found[-1]):
                break
    return found


def _opened(stack: contextlib.ExitStack, name: str, folder: int | None = None) -> int:
    descriptor = os.open(name, FOLDER, dir_fd=folder)
    stack.callback(os.close, descriptor)
    return descriptor


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, OPAQUE) == b"y"
    except OSError:
        return False
