"""The images that were loaded or pulled: their documents, their names, and where each layer is.

An image is a file DIGEST.json with its manifest and its config; ``names.json`` says which one a
name stands for. The layers are folders below ``layers/``, by their digests, which images share. An
image without a name is removed, and then the layers that no other one has.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock

from txcontain.container.defaults import Used
from txcontain.container.document import shown
from txcontain.container.reference import DIGEST, read_reference
from txcontain.errors import (
    Ambiguous,
    Error,
    InUse,
    InvalidData,
    MachineAtFault,
    NoSuchImage,
    TooMany,
)
from txcontain.host.files import flush_folder, read_file, remove_leftovers, to_json, write
from txcontain.host.os_errors import of_os
from txcontain.images import oci
from txcontain.images.defaults import used
from txcontain.images.layers import Layers, merged_digest
from txcontain.images.layout import check_config
from txcontain.images.oci import MOST_LOWER, ImageConfig, Manifest, Platform
from txcontain.images.unpack import identity_of

NAMES = "names.json"
FILE, MARK = "file:", "#"  # what no reference can have: the name of an image of base_images/
RECORD = re.compile(r"([0-9a-f]{64})\.json")
PART_OF_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")
LONGEST_RECORD, LONGEST_NAMES = 8 * oci.LONGEST, 16 << 20  # bytes
MOST_NAMES = 10_000  # so that what is written can be read again
MOST_TOLD, SHOWN = 5, "`txcontain image ls` shows those there are"


@frozen
class Image:
    """An image that is here."""

    digest: str  # of its manifest
    documents: tuple[bytes, bytes]  # the manifest and the config, as they came
    manifest: Manifest = field(eq=False)  # what the documents say
    config: ImageConfig = field(eq=False)
    added: float  # unix time

    @cached_property
    def layers(self) -> list[str]:
        """The digests of its layers, the highest first, each once: below, it would be hidden."""
        return list(dict.fromkeys(layer.digest for layer in reversed(self.manifest.layers)))

    @cached_property
    def merged(self) -> list[str]:
        """Those that are merged, the highest first, as one overlay can't have all of them.

        It is always the lowest MOST_LOWER, so that images which begin with these share the result.
        """
        return self.layers[-MOST_LOWER:] if len(self.layers) > MOST_LOWER else []

    @cached_property
    def lower(self) -> list[str]:
        """The digests of those that an overlay has, the highest first."""
        if not self.merged:
            return self.layers
        return [*self.layers[:-MOST_LOWER], merged_digest(self.merged)]


@lru_cache(maxsize=16)
def used_as(name: str, image: Image) -> Used:
    """An image that a launch uses by a name, the same for all launches."""
    return used(name, image.digest, image.config)


def make_image(manifest: bytes, config: bytes, platform: Platform, added: float) -> Image:
    """An image, by its documents. Raises InvalidData, ConfigAtFault."""
    read = read_manifest(manifest)
    checked = check_config(read, config, platform)
    return Image(oci.digest_of(manifest), (manifest, config), read, checked, added)


@define(eq=False)
class Images:
    """The images in a folder."""

    folder: str
    layers: Layers
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    now: Callable[[], float]
    known: dict[str, Image] = field(factory=dict)  # by digest
    names: dict[str, str] = field(factory=dict)  # the digest that each stands for
    platform: Platform = field(factory=lambda: oci.this_platform(os.uname().machine))
    _lock: DeferredLock = field(factory=DeferredLock)  # of whoever changes what is on the disk

    # -- finding -----------------------------------------------------------------

    def find(self, text: str) -> Image | None:
        """The image that a person means, by its name, its digest or the beginning of that.

        Raises Ambiguous if it can be several.
        """
        digest = text.rpartition("@")[2]
        if image := self.known.get(digest) or self.known.get(self.names.get(self._name(text), "")):
            return image
        part = PART_OF_DIGEST.fullmatch(text)
        found = [one for one in self.known if part and one.partition(":")[2].startswith(part[1])]
        if len(found) > 1:
            raise Ambiguous(f"{text} stands for {len(found)} images", "give more of the digest")
        return self.known[found[0]] if found else None

    def get(self, text: str) -> Image:
        """The same. Raises NoSuchImage too."""
        image = self.find(text)
        if image is None:
            same = self._name(text).rpartition(":")[0]
            tags = sorted(short_name(one) for one in self.names if one.rpartition(":")[0] == same)
            hint = f"there is {', '.join(tags[:MOST_TOLD])}" if tags else SHOWN
            raise NoSuchImage(f"there is no image {shown(text)}", hint)
        return image

    def _name(self, text: str) -> str:
        """The whole of a name, however short a person has written it; else the text itself."""
        if text.startswith(FILE):
            return next((one for one in self.names if short_name(one) == text), text)
        try:
            return str(read_reference(text))
        except InvalidData:  # then it may be a digest
            return text

    def names_of(self, digest: str) -> list[str]:
        """The names that stand for an image, sorted."""
        return sorted(name for name, one in self.names.items() if one == digest)

    def paths(self, image: Image) -> list[str]:
        """The folders of the layers of an image's root, the highest first."""
        return list(map(self.layers.path_of, image.lower))

    def places(self, image: Image) -> list[str]:
        """The same, and those of the layers that are merged in one of them."""
        return [*self.paths(image), *map(self.layers.path_of, image.merged)]

    def needed(self, image: Image) -> list[str]:
        """The digests of the layers without which an image can't be kept.

        That is all of them, or the merged one in place of those that are merged, if it is there.
        """
        there = image.merged and os.path.isdir(self.paths(image)[-1])
        return image.lower if there else image.layers

    def in_use(self) -> set[str]:
        """The folders of the layers of all images."""
        return {path for image in self.known.values() for path in self.paths(image)}

    def of_file(self, tarball: str) -> Image | None:
        """The image that was loaded from a file, as the file is now.

        Raises ConfigAtFault if the file has gone since.
        """
        stem = f"{FILE}{os.path.basename(tarball)}{MARK}"
        if not any(name.startswith(stem) for name in self.names):
            return None
        return self.known.get(self.names.get(name_of_file(tarball), ""))

    # -- changing ----------------------------------------------------------------

    async def add(self, image: Image, names: Iterable[str]) -> list[str]:
        """Keep an image whose layers are there; returns the names that stood for another one.

        Raises MachineAtFault, TooMany.
        """
        async with self._lock:
            return await self._keep(image, names)

    async def _keep(self, image: Image, names: Iterable[str]) -> list[str]:
        kept = {**self.names, **dict.fromkeys(names, image.digest)}
        if len(kept) > MOST_NAMES:
            raise TooMany(f"images have {MOST_NAMES} names already", "remove some")
        moved = {name for name in names if self.names.get(name, image.digest) != image.digest}
        await self._write(self._path(image.digest), _record_of(image), image.digest)
        self.known[image.digest] = image
        await self._set_names(kept)
        return sorted(moved)

    async def tag(self, text: str, name: str) -> Image:
        """Give an image another name. Raises NoSuchImage, InvalidData, TooMany, MachineAtFault."""
        async with self._lock:
            image = self.get(text)
            await self._keep(image, [str(read_reference(name))])
            return image

    async def remove(self, text: str, users: Callable[[str], Sequence[str]]) -> list[str]:
        """Remove a name, and the image with its last one; by a digest, all its names.

        :param users: returns the names of the instances that use the image with a digest
        Returns the names that are gone. Raises NoSuchImage, InUse, MachineAtFault.
        """
        async with self._lock:
            image = self.get(text)
            name, names = self._name(text), self.names_of(image.digest)
            gone = [name] if name in names else names
            if not set(names) - set(gone) and (used_by := users(image.digest)):
                hint = "destroy them first"
                raise InUse(f"instances use the image {text}", ", ".join(used_by), hint)
            await self._forget(gone)
            return gone

    async def forget(self, gone: Sequence[str]) -> None:
        """Remove names, and the images that have no other ones. Raises MachineAtFault."""
        async with self._lock:
            await self._forget(gone)

    async def _forget(self, gone: Sequence[str]) -> None:
        left = {name: one for name, one in self.names.items() if name not in gone}
        if left != self.names:
            await self._set_names(left)

    async def _set_names(self, names: dict[str, str]) -> None:
        """From now on these are the names; images that have none any more are removed."""
        await self._write(os.path.join(self.folder, NAMES), to_json(names), NAMES)
        self.names = names
        for digest in set(self.known) - set(names.values()):
            del self.known[digest]
            await self.threads(_remove, self._path(digest))

    async def _write(self, path: str, content: bytes, what: str) -> None:
        try:
            await self.threads(write, path, content)
        except OSError as error:
            raise MachineAtFault(f"keeping the image {what}", of_os(error)) from error

    def _path(self, digest: str) -> str:
        return os.path.join(self.folder, f"{digest.partition(':')[2]}.json")

    # -- going on with what an earlier manager left ------------------------------

    def recover(self) -> list[str]:
        """Read what an earlier manager left, and remove what is half there.

        Returns what was done and what is wrong, a sentence each.
        """
        done = [f"removed {name}, a write cut short" for name in remove_leftovers(self.folder)]
        names, path = {}, os.path.join(self.folder, NAMES)
        try:
            names = _read_names(read_file(path, LONGEST_NAMES))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            done.append(f"the names of the images can't be read: {error}")
        else:
            done += self._remove_nameless(set(names.values()))
        for digest in set(names.values()):
            try:
                self.known[digest] = self._read(digest)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, Error) as error:
                done.append(f"the image {digest} can't be used: {error}")
        self.names = {name: digest for name, digest in names.items() if digest in self.known}
        return done

    def _remove_nameless(self, named: set[str]) -> list[str]:
        """Remove what was written of images whose names were not; returns what was done."""
        found = filter(None, map(RECORD.fullmatch, os.listdir(self.folder)))
        nameless = [match for match in found if f"sha256:{match[1]}" not in named]
        for match in nameless:
            os.unlink(os.path.join(self.folder, match[0]))
        return [f"removed {match[0]}, an image without a name" for match in nameless]

    def _read(self, digest: str) -> Image:
        record = json.loads(read_file(self._path(digest), LONGEST_RECORD))
        documents = record["manifest"].encode(), record["config"].encode()
        image = make_image(*documents, self.platform, float(record["added"]))
        if image.digest != digest:
            raise ValueError("its manifest has another digest")
        for layer in self.paths(image):
            if not os.path.isdir(layer):
                raise ValueError(f"its layer {os.path.basename(layer)} is gone")
        return image


def name_of_file(tarball: str) -> str:
    """What the image of a file in base_images is kept as: another name once the file is changed."""
    return f"{FILE}{os.path.basename(tarball)}{MARK}{identity_of(tarball)}"


def short_name(name: str) -> str:
    """The name of an image as a person writes it."""
    return name.partition(MARK)[0] if name.startswith(FILE) else read_reference(name).short


def read_manifest(document: bytes) -> Manifest:
    """A manifest that was read before. Raises InvalidData, TooLarge."""
    read = oci.read_image(document)
    assert isinstance(read, Manifest)
    return read


def _record_of(image: Image) -> bytes:
    manifest, config = (document.decode() for document in image.documents)
    return to_json({"manifest": manifest, "config": config, "added": image.added})


def _read_names(document: bytes) -> dict[str, str]:
    names = json.loads(document)
    if not isinstance(names, dict) or not all(map(DIGEST.fullmatch, names.values())):
        raise ValueError("names.json is damaged")
    return names


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    flush_folder(os.path.dirname(path))
