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
    """A writable part of a container: where it is, and its two layers on the host."""

    target: str
    lower: str
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
            parts.append(Part(target, instance_layer(instance, arguments), upper))
        if op in MADE:
            made.add(target or arguments["path"])
    return parts, made


def instance_layer(instance: Instance, overlay: dict[str, Any]) -> str:
    """The layer below an overlay, by its folder in the state folder, where no owner is mapped."""
    name = os.path.basename(overlay["lower"])
    return next(layer for layer in instance.layers if os.path.basename(layer) == name)


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
            with contextlib.suppress(FileNotFoundError):
                upper = os.open(part.upper, FOLDER)
                try:
                    lower = os.open(part.lower, FOLDER)
                    try:
                        prefix = "" if part.target == "/" else part.target
                        yield from self._folder(prefix, upper, lower, DEEPEST)
                    finally:
                        os.close(lower)
                finally:
                    os.close(upper)

    def _folder(self, path: str, upper: int, lower: int | None, deep: int) -> Iterator[Change]:
        """The changes in a folder; ``lower`` is the same one in the layer below, if there."""
        if not deep:
            self.complete = False
            return
        with os.scandir(upper) as entries:
            names = sorted(entry.name for entry in islice(entries, MOST + 1))
        if lower is not None and _is_opaque(upper):
            for name in sorted({*islice(os.listdir(lower), MOST + 1)} - {*names}):
                yield DELETED, f"{path}/{name}"
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                yield from self._entry(f"{path}/{name}", name, upper, lower, deep)

    def _entry(
        self, path: str, name: str, upper: int, lower: int | None, deep: int
    ) -> Iterator[Change]:
        status = os.stat(name, dir_fd=upper, follow_symlinks=False)
        before = _status(name, lower)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if before is not None:
                yield DELETED, path
        elif path in self.made:
            return
        elif stat.S_ISDIR(status.st_mode):
            yield from self._subfolder(path, name, upper, lower, deep, status, before)
        else:
            yield (ADDED if before is None else CHANGED), path

    def _subfolder(
        self,
        path: str,
        name: str,
        upper: int,
        lower: int | None,
        deep: int,
        status: os.stat_result,
        before: os.stat_result | None,
    ) -> Iterator[Change]:
        both = before is not None and stat.S_ISDIR(before.st_mode)
        with contextlib.ExitStack() as stack:
            new = _opened(stack, name, upper)
            old = _opened(stack, name, lower) if both and lower is not None else None
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


def _status(name: str, folder: int | None) -> os.stat_result | None:
    if folder is None:
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _opened(stack: contextlib.ExitStack, name: str, folder: int) -> int:
    descriptor = os.open(name, FOLDER, dir_fd=folder)
    stack.callback(os.close, descriptor)
    return descriptor


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, OPAQUE) == b"y"
    except OSError:
        return False
