"""Layers of images that the disk may not have whole yet: after a power cut they are not used.

To flush a slow disk takes longer than all else of a pull, which need not wait for it. So a file
beside the layers lists those that were not flushed, and the boot in which they were unpacked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock

from txcontain.host.files import read_file, to_json, write
from txcontain.host.syscalls import flush_disk

LIST, LONGEST_LIST = "fresh.json", 16 << 20  # the file; its bytes
NAME = re.compile("[0-9a-f]{64}")


@define(eq=False)
class Fresh:
    """Those of the layers in a folder, by their names."""

    folder: str
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    boot: str  # what this boot of the machine is called
    names: set[str] = field(factory=set)
    _writing: DeferredLock = field(factory=DeferredLock)
    _flushing: DeferredLock = field(factory=DeferredLock)

    async def add(self, name: str) -> None:
        """From now on a power cut may leave only a part of this one. Raises OSError."""
        self.names.add(name)
        await self._write()

    def forget(self, name: str) -> None:
        """This one has not come, or was removed: the list, as it is written next, lacks it."""
        self.names.discard(name)

    async def flush(self, names: Collection[str]) -> None:
        """Return when the disk has all of these, which are whole. Raises OSError."""
        if self.names.isdisjoint(names):
            return
        async with self._flushing:
            left = self.names.intersection(names)
            if left:  # else they were flushed meanwhile
                await self.threads(flush_disk, self.folder)
                self.names -= left
                await self._write()

    async def _write(self) -> None:
        async with self._writing:
            said = {"boot": self.boot, "layers": sorted(self.names)}
            await self.threads(write, os.path.join(self.folder, LIST), to_json(said))

    def recover(self) -> list[str]:
        """Read what an earlier manager has left; returns those that a power cut may have damaged.

        The others still have to be flushed.
        """
        try:
            said = json.loads(read_file(os.path.join(self.folder, LIST), LONGEST_LIST))
            boot, names = said["boot"], set(filter(NAME.fullmatch, said["layers"]))
        except (OSError, ValueError, KeyError, TypeError):  # there is none: it is always whole
            return []
        if boot != self.boot:
            return sorted(names)
        self.names |= names
        return []
