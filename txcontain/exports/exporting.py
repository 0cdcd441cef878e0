"""Exports of a manager's configs: gathers what they need, and sends them to a client."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field, frozen

from txcontain.container.defaults import with_defaults
from txcontain.container.document import refuse
from txcontain.container.reference import Reference, read_reference
from txcontain.container.small_files import LONGEST_SECRET
from txcontain.container.spec import Spec, from_json
from txcontain.engine.manager import Manager
from txcontain.errors import CalledOff, ConfigAtFault, MachineAtFault
from txcontain.exports import stacks
from txcontain.exports.accounts import find_account
from txcontain.exports.compose import to_compose
from txcontain.exports.image import image_config, notes_of
from txcontain.exports.kubernetes import to_kubernetes
from txcontain.exports.notes import made_of
from txcontain.exports.quadlet import to_quadlet
from txcontain.exports.stacks import Member, Members
from txcontain.exports.subject import Subject, image_of, in_order, owners_of
from txcontain.exports.written import Document
from txcontain.host.files import NoFile, read_file
from txcontain.host.os_errors import of_os
from txcontain.images.oci import (
    CONFIG,
    MANIFEST,
    Descriptor,
    Manifest,
    described,
    this_platform,
    to_bytes,
)
from txcontain.images.oci_writing import Blob, File, Image, Tree, archive, batch, described_layer
from txcontain.images.packing import LEAST, LEAST_WITHIN, Pace
from txcontain.images.pushing import push_of
from txcontain.images.stack import resolve_in, seen
from txcontain.later import Few
from txcontain.logs.push import PushProducer
from txcontain.services.asking import find_stack
from txcontain.services.keeper import keeper_of

LONGEST_DATABASE = 1 << 20  # bytes of an image's /etc/passwd that are read, or /etc/group
AT_ONCE, WAITING = 2, 16  # exports: each reads a whole image
MOST_KNOWN = 1000  # layers of which the digest is kept
DOCUMENTS: dict[str, Callable[[Subject], Document]] = {
    "compose": to_compose,
    "kubernetes": to_kubernetes,
    "systemd": to_quadlet,
}
OF_STACKS: dict[str, Callable[[str, Members], Document]] = {
    "compose": stacks.to_compose,
    "kubernetes": stacks.to_kubernetes,
}
ARCHIVES = ("oci", "docker-archive")
TARGETS = (*ARCHIVES, *DOCUMENTS)


@frozen
class Gathered:
    """What an export is made of. Its layers are held as long as it is used."""

    subject: Subject
    base: Sequence[str]  # the folders of the base image's layers, the highest first
    layers: Sequence[Tree]  # the lowest first


def exporter_of(manager: Manager) -> Exporter:
    """What exports a manager's configs: one, so that its bounds are the manager's."""
    if manager.exporter is None:
        manager.exporter = Exporter(manager)
    exporter: Exporter = manager.exporter
    return exporter


def read_name(image: str, verb: str) -> Reference:
    """What an image is to be called. Raises InvalidData if that has a digest."""
    reference = read_reference(image)
    if reference.digest:
        refuse(f"an image is {verb} under a tag: its digest is that of what it is")
    return reference


@define(eq=False)
class Exporter:
    """What exports a manager's configs."""

    manager: Manager
    turns: Few = field(factory=lambda: Few("exports", AT_ONCE, WAITING))
    # A layer never changes: neither does its digest, once it has been read.
    _known: dict[Tree, Descriptor] = field(factory=dict)

    async def document(self, file_name: str, target: str, image: str | None) -> Document:
        """A kept config as a document of another tool.

        :param target: one of DOCUMENTS
        :param image: what its image is called; None: as the config
        Raises NoSuchConfig, InvalidData, ConfigAtFault, MachineAtFault, TooMany.
        """
        async with self.turns.turn(), self._gathered(self._kept(file_name), image) as gathered:
            written: Document = await self.manager.threads(DOCUMENTS[target], gathered.subject)
            return written

    async def stack(self, name: str, target: str) -> Document:
        """A stack that is kept as a document of another tool.

        :param target: one of OF_STACKS
        Raises NoSuchStack, ConfigAtFault, MachineAtFault, TooMany.
        """
        wished = find_stack(keeper_of(self.manager), name)
        members = {}
        async with self.turns.turn():
            for own, wish in wished.services.items():
                revision = wish.revision
                async with self._gathered(revision.spec) as gathered:
                    members[own] = Member(revision.service, gathered.subject, revision.ports)
            written: Document = await self.manager.threads(OF_STACKS[target], wished.name, members)
            return written

    async def send(
        self,
        file_name: str,
        target: str,
        image: str | None,
        consumer: Any,
        begin: Callable[[Sequence[str]], object],
    ) -> None:
        """Send a kept config's image as a tarball to a consumer.

        :param target: one of ARCHIVES
        :param begin: is told what the image can't say, before anything is sent
        Raises as ``document`` does; CalledOff if the client takes less than LEAST within
        LEAST_WITHIN, or hangs up.
        """
        if image is not None:
            read_name(image, "exported")
        async with self.turns.turn(), self._gathered(self._kept(file_name), image) as gathered:
            made = await self.image(gathered)
            begin(notes_of(gathered.subject))
            pieces = archive(made, for_docker=target == "docker-archive")
            await self._deliver(f"exporting {file_name}", pieces, consumer)
        self.manager.journal.add("config", f"{file_name} was exported", config=file_name)

    def _kept(self, file_name: str) -> Spec:
        return from_json(self.manager.read_config(file_name))

    async def push(self, file_name: str, image: str, insecure: bool) -> tuple[str, list[str]]:
        """Send a kept config's image to a registry.

        Returns its digest there, and what the image can't say.

        :param image: REGISTRY/REPOSITORY[:TAG]
        :param insecure: over plain HTTP, to a registry on this machine
        Raises as ``send`` does.
        """
        reference = read_name(image, "pushed")
        subject, digest = await self.publish(self._kept(file_name), image, insecure)
        text = f"{file_name} was pushed as {reference}"
        self.manager.journal.add("config", text, config=file_name)
        return digest, notes_of(subject)

    async def publish(self, spec: Spec, image: str, insecure: bool) -> tuple[Subject, str]:
        """The same of any config; returns what is known of it, and its image's digest."""
        registries = self.manager.arrivals.registries
        async with self.turns.turn(), self._gathered(spec, image) as gathered:
            made = await self.image(gathered)
            conversation = await registries.converse(read_reference(image), insecure)
            try:
                await push_of(conversation).send(made)
            except BaseException:
                conversation.end()
                raise
            conversation.keep()
        return gathered.subject, made.manifest.descriptor.digest

    @asynccontextmanager
    async def _gathered(self, spec: Spec, image: str | None = None) -> AsyncIterator[Gathered]:
        """What an export of a config is made of. Raises as ``document`` does."""
        if image is not None:
            read_reference(image)  # refuses what can't be one
        with self.manager.holding() as layers:
            spec = with_defaults(spec, await self.manager.get_layers(spec, layers))
            yield await self.gather(spec, image, layers)

    async def gather(self, spec: Spec, image: str | None, layers: Sequence[str]) -> Gathered:
        """The same of layers that are there. Raises ConfigAtFault, MachineAtFault."""
        manager = self.manager
        files, trees = await manager.threads(_look, manager, spec, layers)
        accounts = {owner: find_account(owner, *files) for owner in owners_of(spec)}
        contents = await manager.threads(_contents, manager, spec)
        known = [manager.layers.metadata(layer) for layer in layers]
        base = layers[: len(layers) - len(spec.mounts)]
        subject = Subject(
            spec,
            image or image_of(spec),
            accounts,
            contents,
            covered=[place.path for place in manager.layers.places(base) if place.holds],
            left_out=[one.told for one in known if one.told],
        )
        return Gathered(subject, base, trees)

    async def image(self, gathered: Gathered) -> Image:
        """The image that this becomes. Raises ConfigAtFault, OSError."""
        subject = gathered.subject
        layers = [Blob(await self._described(tree), tree) for tree in gathered.layers]
        made_by = [tree.title for tree in gathered.layers]
        if subject.spec.files:
            files = await self.manager.threads(_files, gathered)
            layers.append(Blob(await self.manager.threads(described_layer, files), files))
            made_by = [*made_by, "files of the config"]
        digests = [blob.descriptor.digest for blob in layers]
        platform = this_platform(os.uname().machine)
        config = _document(to_bytes(image_config(subject, platform, digests, made_by)), CONFIG)
        manifest = Manifest(config.descriptor, [blob.descriptor for blob in layers])
        tag = read_reference(subject.image).tag or "latest"
        whole = _document(to_bytes(manifest), MANIFEST)
        return Image(subject.image, tag, whole, config, layers)

    async def _described(self, tree: Tree) -> Descriptor:
        if tree not in self._known:
            found: Descriptor = await self.manager.threads(described_layer, tree)
            if os.path.dirname(tree.folder) != self.manager.layers.folder:
                return found  # an instance goes on writing there
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[tree] = found
        return self._known[tree]

    async def _deliver(self, what: str, pieces: Iterator[bytes], consumer: Any) -> None:
        """Send it no faster than the client takes it; a thread brings each batch."""
        producer = PushProducer(consumer)
        pace = Pace(self.manager.reactor, producer.stopProducing)
        producer.begin()
        try:
            while data := await self.manager.threads(batch, pieces):
                if not await producer.free():
                    break
                consumer.write(data)
                pace.took(len(data))
        finally:
            in_time = pace.end()
            producer.finish()
        if not in_time:
            took = f"the client took less than {LEAST >> 20} MiB in {LEAST_WITHIN:.0f} seconds"
            raise CalledOff(what, took)
        if producer.gone:
            raise CalledOff(what, "the client hung up")


def _document(document: bytes, media_type: str) -> Blob:
    return Blob(described(document, media_type), document)


# -- what is on the disk -----------------------------------------------------------


def _look(manager: Manager, spec: Spec, layers: Sequence[str]) -> tuple[list[str], list[Tree]]:
    """The image's /etc/passwd and /etc/group, and where each layer belongs in it."""
    base = layers[: len(layers) - len(spec.mounts)]
    files = [_database(base, path) for path in ("/etc/passwd", "/etc/group")]
    folders = dict(zip(spec.mounts, layers[len(base) :], strict=True))
    title, *titles = made_of(spec)
    trees = [_tree(manager, layer, "/", title) for layer in reversed(base)]
    for mount, title in zip(in_order(spec), titles, strict=True):
        target = resolve_in(base, mount.target)
        trees.append(_tree(manager, folders[mount], target, title, hides=True))
    return files, trees


def _tree(manager: Manager, folder: str, target: str, title: str, *, hides: bool = False) -> Tree:
    begun = manager.layers.metadata(folder).begun
    return Tree(folder, target, title, hides, math.inf if begun is None else begun)


def _database(base: Sequence[str], path: str) -> str:
    """A file of an image; nothing if there is none."""
    place = resolve_in(base, path)
    try:
        content = b"".join(
            read_file(layer + place, LONGEST_DATABASE) for layer in seen(base, place)[:1]
        )
    except (OSError, NoFile):
        return ""
    return content.decode(errors="replace")


def _contents(manager: Manager, spec: Spec) -> Mapping[str, bytes]:
    """What is in the mountables that a config's ``files`` name."""
    found = {}
    for name in {file.source for file in spec.files if file.source}:
        try:
            content = read_file(os.path.join(manager.mountables, name), LONGEST_SECRET + 1)
        except (FileNotFoundError, NoFile):
            folder = os.path.basename(manager.mountables)
            hint = "put it there, or correct the config"
            raise ConfigAtFault(f"there is no file {name} in {folder}/", hint) from None
        except OSError as error:
            raise MachineAtFault(f"reading {name}", of_os(error)) from error
        if len(content) > LONGEST_SECRET:
            raise ConfigAtFault(f"{name} has more than {LONGEST_SECRET} bytes")
        found[name] = content
    return found


def _files(gathered: Gathered) -> tuple[File, ...]:
    """The small files of a config, where the links of its image lead."""
    subject = gathered.subject
    return tuple(
        File(
            resolve_in(gathered.base, file.path),
            subject.content(file),
            file.mode,
            subject.account(file.owner).uid,
            subject.account(file.owner).gid,
        )
        for file in subject.spec.files
    )
