"""Tarballs, each unpacked once into a layer that all instances share and none writes to.

A layer is renamed into its place when it is whole, so nobody sees half of one. Its name is made of
the tarball's identity (inode, size, times of change): if the tarball is replaced, the next launch
unpacks the new one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from secrets import token_hex
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txcontain.container.facts import Place
from txcontain.container.reference import DIGEST
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.host.files import remove_leftovers
from txcontain.host.os_errors import of_os
from txcontain.images.bounds import MOST, Taken, check_sums
from txcontain.images.fresh import LIST, Fresh
from txcontain.images.metadata import LONGEST_RECORD, RECORD, Metadata, merged, read
from txcontain.images.oci import digest_of
from txcontain.images.stack import place, seen
from txcontain.images.unpack import UNPACKING, HasChanged, Unpacker, identity_of
from txcontain.later import background

Make = Callable[[], Awaitable[Metadata]]  # makes a layer
KEEP_NONE = -1  # bytes: not even a layer that is empty
TRIES = 3  # attempts to unpack a tarball that is changed meanwhile


# What a layer holds never changes: its folder is named after that.
@lru_cache(maxsize=1000)
def tops(layers: tuple[str, ...]) -> Sequence[str]:
    """Those of the layers of a root that no higher one hides, the highest first.

    The kernel does not ask whether the top of a layer hides those below it.
    """
    return seen(layers, "/")


@lru_cache(maxsize=1000)
def _places(layers: tuple[str, ...]) -> tuple[Place, Place]:
    return place(layers, "/run"), place(layers, "/tmp")


def merged_digest(digests: Sequence[str]) -> str:
    """What layers of an image, the highest first, are called together.

    No blob has this digest and can be a layer, since what is hashed is no tarball.
    """
    return digest_of("\n".join(digests).encode())


@define(eq=False)
class Layers:
    """The layers in a folder."""

    folder: str
    unpacker: Unpacker
    keep: int = MOST  # bytes of layers that no instance uses
    _unpacking: dict[str, list[Deferred[str]]] = field(factory=dict)  # who waits for a layer
    _metadata: dict[str, Metadata] = field(factory=dict)  # by the layer's path
    _asked: dict[str, float] = field(factory=dict)  # when a layer was last asked for
    spent: set[str] = field(factory=set)  # archives, of which the images were taken
    _superseded: set[str] = field(factory=set)  # to be removed when no instance uses them
    _grown: bool = True  # whether there are new layers since ``is_to_tidy`` was last asked
    _news: dict[str, str] = field(factory=dict)  # by the layer's path, not told yet
    _fresh: Fresh = field(init=False)

    def __attrs_post_init__(self) -> None:
        boot = self.unpacker.pool.kernel.boot_id()
        self._fresh = Fresh(self.folder, self.unpacker.threads, boot)

    async def get(self, folder: str, name: str) -> str:
        """The path of the layer of the tarball ``name`` in ``folder``; unpacks it if it is new.

        Raises ConfigAtFault if there is no such tarball or it can't be one,
        MachineAtFault if this machine can't unpack it.
        """
        tarball = os.path.join(folder, name)
        for _ in range(TRIES):
            layer = os.path.join(self.folder, identity_of(tarball))
            self._asked[layer] = self.unpacker.pool.reactor.seconds()
            if os.path.isdir(layer):
                return layer
            with contextlib.suppress(HasChanged):
                unpack = partial(self.unpacker.unpack, tarball, layer)
                return await self._made_once(layer, unpack)
        raise ConfigAtFault(f"{name} changes while it is unpacked", "launch again when it is whole")

    def path_of(self, digest: str) -> str:
        """Where the layer of an image is, or will be, by the digest of its tarball."""
        return os.path.join(self.folder, digest.partition(":")[2])

    async def get_of_image(self, blob: str, digest: str) -> str:
        """The path of a layer of an image; unpacks it if it is new.

        :param blob: a file whose digest was checked, and that nobody changes
        Raises ConfigAtFault, MachineAtFault.
        """
        layer = self.path_of(digest)
        return await self._listed(layer, partial(self.unpacker.unpack, blob, layer, digest))

    async def merge(self, digests: Sequence[str]) -> str:
        """The path of the one layer that layers of an image, the highest first, are together.

        They have to be there if it is new. Raises ConfigAtFault, MachineAtFault.
        """
        layer = self.path_of(merged_digest(digests))
        return await self._listed(layer, partial(self._merge, digests, layer))

    async def _merge(self, digests: Sequence[str], layer: str) -> Metadata:
        parts = tuple(map(self.path_of, digests))
        known = {"tarball": merged_digest(digests), **merged(list(map(self.metadata, parts)))}
        return await self.unpacker.merge(tops(parts), layer, known)

    async def _listed(self, layer: str, make: Make) -> str:
        """The path of a layer that is not flushed to the disk when it is made."""
        self._asked[layer] = self.unpacker.pool.reactor.seconds()
        if os.path.isdir(layer):
            return layer
        return await self._made_once(layer, make, is_listed=True)

    async def flush(self, layers: Sequence[str]) -> None:
        """Return when these survive a power cut. Raises MachineAtFault."""
        try:
            await self._fresh.flush(list(map(os.path.basename, layers)))
        except OSError as error:
            raise MachineAtFault("flushing the layers of an image", of_os(error)) from error

    def recover(self) -> list[str]:
        """Go on with the layers of an earlier manager; returns what was done, a sentence each."""
        done = [f"removed {name}, a write cut short" for name in remove_leftovers(self.folder)]
        for name in self._fresh.recover():
            path = os.path.join(self.folder, name)
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, self._aside(path))  # and what was cut short is removed
                done.append(f"removed the layer {name}, which was not on the disk at a power cut")
                os.unlink(path + RECORD)
        names = set(os.listdir(self.folder))
        records = {name for name in names - {LIST} if name.endswith(RECORD)}
        for name in sorted(records - {name + RECORD for name in names}):
            os.unlink(os.path.join(self.folder, name))
            done.append(f"removed {name}, the record of no layer")
        background(self.flush(self.paths()), "flushing layers")
        return done

    @staticmethod
    def _aside(path: str) -> str:
        """Where no launch finds a layer that is to be removed."""
        return path if path.endswith(UNPACKING) else f"{path}-{token_hex(8)}{UNPACKING}"

    def check_total(self, layers: Sequence[str]) -> None:
        """Raise ConfigAtFault if those of an image's layers that are there hold too much."""
        known = [self.metadata(layer) for layer in layers]
        together = Taken(sum(one.size for one in known), sum(one.entries for one in known))
        check_sums("the image", together, self.unpacker.bounds)

    def _made_once(self, layer: str, make: Make, *, is_listed: bool = False) -> Deferred[str]:
        waiting: Deferred[str] = Deferred()
        if layer in self._unpacking:
            self._unpacking[layer].append(waiting)
        else:
            self._unpacking[layer] = [waiting]
            making = self._make_for_all(layer, make, is_listed)
            background(making, f"making the layer {os.path.basename(layer)}")
        return waiting

    async def _list(self, layer: str) -> None:
        """List it among those that are not flushed. Raises MachineAtFault."""
        try:
            await self._fresh.add(os.path.basename(layer))
        except OSError as error:
            raise MachineAtFault(f"writing {LIST}", of_os(error)) from error

    async def _make_for_all(self, layer: str, make: Make, is_listed: bool) -> None:
        outcome: Any = layer
        try:
            if is_listed:
                await self._list(layer)
            metadata = self._metadata[layer] = await make()
        except Exception:
            outcome = Failure()
            self._fresh.forget(os.path.basename(layer))
        else:
            self._grown = True
            if metadata.told:
                self._news[layer] = metadata.told
        for waiting in self._unpacking.pop(layer):
            waiting.callback(outcome)  # with a Failure, it fails

    def are_there(self, layers: Sequence[str]) -> bool:
        """Whether none of these layers was removed. It looks at the disk."""
        return all(map(os.path.isdir, layers))

    def metadata(self, layer: str) -> Metadata:
        """What is known of a layer."""
        if layer not in self._metadata:
            try:
                with open(layer + RECORD, "rb") as file:
                    self._metadata[layer] = read(file.read(LONGEST_RECORD))
            except OSError:
                return Metadata()
        return self._metadata[layer]

    def places(self, layers: Sequence[str]) -> tuple[Place, Place]:
        """Where the root that is made of these layers, the highest first, has /run and /tmp."""
        if len(layers) == 1:
            known = self.metadata(layers[0])
            return known.run, known.tmp
        return _places(tuple(layers))

    def news(self, layers: Sequence[str]) -> list[str]:
        """What people should know of these layers, a sentence each; tells each sentence once."""
        return [self._news.pop(layer) for layer in dict.fromkeys(layers) if layer in self._news]

    def paths(self) -> list[str]:
        """The paths of all layers that are whole."""
        entries = [entry for entry in os.scandir(self.folder) if entry.is_dir()]
        return [entry.path for entry in entries if not entry.name.endswith(UNPACKING)]

    async def superfluous(self, used: Callable[[], set[str]], keep: int | None = None) -> list[str]:
        """The paths of the layers that ``remove_unused`` would remove."""
        found = await self.unpacker.threads(self._found)
        in_use = used() | set(self._unpacking)
        self._superseded = {path for path in in_use if not found.get(path, (0, True))[1]}
        unused = {path: facts for path, facts in found.items() if path not in in_use}
        return superfluous(unused, self._asked, self.keep if keep is None else keep)

    async def remove_unused(
        self, used: Callable[[], set[str]], keep: int | None = None
    ) -> list[str]:
        """Remove layers that no instance uses; returns their names.

        That is every layer whose tarball has changed, and all that an interrupted unpacking has
        left. Of the others, those asked for last stay, up to ``keep`` bytes.

        :param used: returns the paths of the layers that are in use
        :param keep: instead of the usual number of bytes; KEEP_NONE: none of them stays
        """
        removed = []
        for path in await self.superfluous(used, keep):
            if path in used() | set(self._unpacking):  # since then
                continue
            aside = self._aside(path)
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, aside)  # from now on no launch finds it
                os.unlink(path + RECORD)
            self._metadata.pop(path, None)
            self._fresh.forget(os.path.basename(path))
            await self.unpacker.remove(aside)
            removed.append(os.path.basename(path))
        return removed

    def is_to_tidy(self, kept: Callable[[], set[str]]) -> bool:
        """Whether there may be something to remove by now.

        :param kept: returns the paths of the layers of images, which stay as long as these do
        """
        grown, self._grown = self._grown, False
        superseded = self._superseded and self._superseded - kept()
        return grown or bool(superseded) or self.keep < MOST

    def _found(self) -> dict[str, tuple[int, bool]]:
        """All folders that are not being unpacked: bytes, and whether each is its tarball's newest
        layer.
        """
        paths = [entry.path for entry in os.scandir(self.folder) if entry.is_dir()]
        mine = tuple(f"{path}-" for path in tuple(self._unpacking))  # which changes meanwhile
        return {
            path: (self.metadata(path).size, self._is_newest(path))
            for path in paths
            if not path.startswith(mine)
        }

    def _is_newest(self, layer: str) -> bool:
        """Whether its tarball is unchanged; yes if the tarball's folder can't be seen.

        A layer of an image is only needed as long as there is that image.
        """
        tarball = self.metadata(layer).tarball
        if DIGEST.fullmatch(tarball) or layer in self.spent:
            return False
        try:
            return identity_of(tarball) == os.path.basename(layer)
        except ConfigAtFault:
            return bool(tarball) and not os.path.isdir(os.path.dirname(tarball))

    def cut_short(self) -> list[str]:
        """The paths of what an earlier manager began to unpack."""
        names = os.listdir(self.folder)
        return [os.path.join(self.folder, name) for name in names if name.endswith(UNPACKING)]


def superfluous(
    unused: Mapping[str, tuple[int, bool]], asked: Mapping[str, float], keep: int
) -> list[str]:
    """The layers to remove: those that are not the newest, then those asked for longest ago.

    :param unused: the bytes of each unused layer, and whether it is its tarball's newest
    """
    newest = [path for path, (_, is_newest) in unused.items() if is_newest]
    newest.sort(key=lambda path: asked.get(path, 0.0), reverse=True)
    sizes = accumulate(unused[path][0] for path in newest)
    kept = {path for path, size in zip(newest, sizes, strict=True) if size <= keep}
    return [path for path in unused if path not in kept]
