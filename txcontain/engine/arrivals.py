"""Images come in: from archives, and from registries.

Layers that are here already, by their digest, are taken as they are. The others are checked, and
unpacked in a jail. An image is kept when all of it is here; of one that can't be used, nothing is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from secrets import token_hex
from typing import Any
from weakref import WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure

from txcontain.container.reference import Reference, is_reference, read_reference
from txcontain.container.spec import Spec
from txcontain.engine.images import MARK, Image, Images, make_image, name_of_file, read_manifest
from txcontain.errors import CalledOff, ConfigAtFault, InvalidData, MachineAtFault
from txcontain.host.os_errors import of_os
from txcontain.images import oci
from txcontain.images.layers import Layers, tops
from txcontain.images.layout import DEEPEST, Found, check_blob, find_images
from txcontain.images.oci import Descriptor, Manifest
from txcontain.images.registry import Conversation, Registries
from txcontain.later import Few, Timer, background, together
from txcontain.logs.journal import Journal

MOST_LOADS, MOST_PULLS, MOST_WAITING = 2, 9, 20  # at once; that wait
MOST_OF_ONE = 3  # pulls from one registry at once: a slow one must not keep the others waiting
MOST_DOWNLOADS, MOST_UNPACKINGS = 4, 3  # layers at once: of a pull, of all
LONGEST_PULL = 4  # hours


@define(eq=False)
class Arrival:
    """An image that comes. Once one of its layers can't be had, no other one is begun."""

    failed: Exception | None = None  # why that is

    def go_on(self) -> None:
        """Raise why the image can't be had, if it can't."""
        if self.failed is not None:
            raise self.failed


@define(eq=False)
class Pull(Arrival):
    """An image that comes from a registry, and how far that is."""

    name: str = ""
    begun: float = 0.0  # by the reactor's clock
    size: int = 0  # bytes of the layers that are new here, compressed; 0: not known yet
    taken: int = 0  # bytes of that
    wanted: int = 1  # by how many who have not hung up
    waiting: list[Deferred[Any]] = field(factory=list)  # of those who came when it was begun
    hang_up: Callable[[], object] = lambda: None  # on the registry
    downloads: DeferredSemaphore = field(factory=partial(DeferredSemaphore, MOST_DOWNLOADS))

    def take(self, length: int) -> None:
        """There are so many bytes more. Raises why the image can't be had, if it can't."""
        self.go_on()
        self.taken += length

    def end(self, why: Exception) -> None:
        """It is not to go on."""
        self.failed = self.failed or why
        self.hang_up()

    def lose_one(self, _: object) -> None:
        """One of those who want it has hung up."""
        self.wanted -= 1
        if not self.wanted:
            self.end(CalledOff(f"pulling {self.name}", "nobody waits for it any more"))


@define(eq=False)
class Arrivals:
    """What comes to the images."""

    images: Images
    registries: Registries
    work: str  # a folder for what is not checked yet
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    tell: Callable[[str], object] = lambda text: None  # that an image is here
    insecure_loopback: bool = False  # whether launches pull from this machine over plain HTTP
    pulls: dict[str, Pull] = field(factory=dict)  # those under way, by their folders
    loading: Few = field(factory=lambda: Few("loads of images", MOST_LOADS, MOST_WAITING))
    pulling: Few = field(factory=lambda: Few("pulls of images", MOST_PULLS, MOST_WAITING))
    # Pulls by the name of the image, and whether it comes over plain HTTP.
    _begun: dict[tuple[str, bool], Pull] = field(factory=dict)
    _unpackings: DeferredSemaphore = field(factory=partial(DeferredSemaphore, MOST_UNPACKINGS))
    # Of each registry that is asked now, whose turn it is.
    _turns: WeakValueDictionary[str, Few] = field(factory=WeakValueDictionary)

    async def get_base(
        self, spec: Spec, folder: str, layers: list[str], held: list[str]
    ) -> Image | None:
        """Append the layers of a config's base image, the highest first.

        :param folder: that of the base images
        :param held: gets the folders of layers before they are made
        Returns the image, if it is not a tarball of a root.
        Raises InvalidData, ConfigAtFault, NoSuchImage, TooMany, MachineAtFault.
        """
        name, tarball = spec.base_image, os.path.join(folder, spec.base_image)
        image: Image | None
        if is_reference(name):
            image = await self._by_name(spec, held)
        elif not os.path.isfile(tarball) and (image := self.images.find(name)):
            pass
        elif not (image := self.images.of_file(tarball)):
            layer = await self.images.layers.get(folder, name)
            held.append(layer)
            if not self.images.layers.metadata(layer).archive:
                layers.append(layer)
                return None
            image = await self.settle_file(tarball, layer, held)
        paths = self.images.paths(image)
        held += paths
        await self.images.layers.flush(paths)  # which an instance may need after a power cut
        layers += tops(tuple(paths))
        return image

    async def _by_name(self, spec: Spec, held: list[str]) -> Image:
        """The image of a config, as its ``pull`` says."""
        name = spec.base_image
        found = self.images.find(name) if spec.pull != "always" else None
        if found is None and spec.pull == "never":
            hint = f"pull it: `txcontain image pull {name}`"
            raise ConfigAtFault(
                f'there is no image {name} here, and its config has "pull": "never"', hint
            )
        return found or await self.pull(name, held)

    @asynccontextmanager
    async def working(self, what: str) -> AsyncIterator[str]:
        """An empty folder for what comes; it is removed in the end. Raises MachineAtFault."""
        path = os.path.join(self.work, token_hex(8))
        try:
            await self.images.threads(os.mkdir, path, 0o700)
            yield path
        except OSError as error:
            raise MachineAtFault(what, of_os(error)) from error
        finally:
            await self.remove(path)

    async def settle(self, found: Found, names: Iterable[str], held: list[str]) -> Image:
        """Make layers of what is new in an image that was found in an archive, and keep it.

        :param held: gets the folders of all its layers, before any is made
        Raises ConfigAtFault, InvalidData, MachineAtFault.
        """
        image = make_image(found.manifest, found.config, self.images.platform, self.images.now())
        self._check_size(image)
        held += self.images.places(image)
        arrival = Arrival()
        await together(
            *(
                self._settle_layer(arrival, image, found.blobs[one.digest], one)
                for one in self._needed(image)
            )
        )
        arrival.go_on()
        return await self._keep(image, names)

    async def _keep(self, image: Image, names: Iterable[str]) -> Image:
        layers = self.images.layers
        if image.merged:
            async with self._unpackings:
                await layers.merge(image.merged)
        await self.images.add(image, names)
        background(layers.flush(self.images.paths(image)), f"flushing the layers of {image.digest}")
        return image

    def _needed(self, image: Image) -> list[Descriptor]:
        """The layers without which it can't be kept, each once."""
        layers = {layer.digest: layer for layer in image.manifest.layers}
        return [layers[digest] for digest in self.images.needed(image) if digest in layers]

    def _check_size(self, image: Image) -> None:
        """Raise ConfigAtFault if the layers are together longer than a tarball may be."""
        largest = self.images.layers.unpacker.bounds.size
        sizes = {layer.digest: layer.size for layer in image.manifest.layers}
        if sum(sizes.values()) > largest:
            raise ConfigAtFault(f"its layers have more than {largest} bytes together")

    async def _settle_layer(
        self, arrival: Arrival, image: Image, blob: str, layer: Descriptor
    ) -> None:
        async with self._unpackings:
            if arrival.failed or os.path.isdir(self.images.layers.path_of(layer.digest)):
                return
            try:
                await self.images.threads(check_blob, blob, layer)
                await self._unpack(image, blob, layer)
            except OSError as error:
                what = f"reading the layer {layer.digest}"
                arrival.failed = arrival.failed or MachineAtFault(what, of_os(error))
            except Exception as error:
                arrival.failed = arrival.failed or error

    async def _unpack(self, image: Image, blob: str, layer: Descriptor) -> None:
        """Unpack a layer, if those of the image are not too large with it.

        Raises ConfigAtFault, MachineAtFault.
        """
        layers = self.images.layers
        await layers.get_of_image(blob, layer.digest)
        layers.check_total(list(map(layers.path_of, self.images.needed(image))))

    async def settle_file(self, tarball: str, folder: str, held: list[str]) -> Image:
        """The same for the only image in a file of base_images, which is unpacked in ``folder``."""
        found = await self.find_in(folder)
        if len(found) > 1:
            what = os.path.basename(tarball)
            raise ConfigAtFault(
                f"{what} holds {len(found)} images, and a container has one",
                f"load them: `txcontain image load {what}`",
            )
        self.images.layers.spent.add(folder)
        name = name_of_file(tarball)
        stem = name.partition(MARK)[0]
        image = await self.settle(found[0], [name], held)
        old = [one for one in self.images.names if one.startswith(stem + MARK) and one != name]
        await self.images.forget(old)
        return image

    async def find_in(self, folder: str) -> list[Found]:
        """The images in an unpacked archive. Raises ConfigAtFault, InvalidData, MachineAtFault."""
        try:
            found: list[Found] = await self.images.threads(
                find_images, folder, self.images.platform, self.images.layers.unpacker.bounds.size
            )
        except OSError as error:
            raise MachineAtFault("reading the archive of an image", of_os(error)) from error
        return found

    async def pull(
        self,
        name: str,
        held: list[str],
        insecure: bool = False,
        gone: Deferred[None] | None = None,
    ) -> Image:
        """Get an image from its registry, as far as its layers are not here yet.

        :param held: gets the folders of all its layers, before any is made
        :param insecure: over plain HTTP, which only a registry on this machine may be asked by
        :param gone: fires if who wants it hangs up; the last one's hang-up ends the pull
        Raises InvalidData, ConfigAtFault, TooMany, MachineAtFault, CalledOff.
        """
        reference = read_reference(name)
        insecure = insecure or (self.insecure_loopback and reference.is_loopback)
        key = str(reference), insecure
        pull = self._begun.get(key)
        if pull is not None and pull.wanted:  # it is on its way
            pull.wanted += 1
            pull.waiting.append(Deferred())
            coming: Any = pull.waiting[-1]
        else:
            pull = self._begun[key] = Pull(name=reference.short)
            coming = self._pull_for_all(key, pull, reference, held)
        if gone is not None:
            gone.addCallback(pull.lose_one)
        image: Image = await coming
        return image

    async def _pull_for_all(
        self, key: tuple[str, bool], pull: Pull, reference: Reference, held: list[str]
    ) -> Image:
        outcome: Image | Failure
        try:
            outcome = image = await self._pull_once(pull, reference, held, insecure=key[1])
        except Exception:
            outcome = Failure()
            raise
        finally:
            if self._begun.get(key) is pull:
                del self._begun[key]
            for waiting in pull.waiting:
                waiting.callback(outcome)  # with a Failure, it fails
        return image

    async def _pull_once(
        self, pull: Pull, reference: Reference, held: list[str], insecure: bool
    ) -> Image:
        what, reactor = f"pulling {reference.short}", self.registries.reactor
        too_slow = ConfigAtFault(f"it takes longer than {LONGEST_PULL} hours")
        late = Timer(reactor, pull.end)
        registry = reference.registry
        few = Few(f"pulls from {registry}", MOST_OF_ONE, MOST_WAITING)
        turns = self._turns.setdefault(registry, few)
        async with turns.turn(), self.pulling.turn(), self.working(what) as folder:
            conversation = await self.registries.converse(reference, insecure)
            pull.begun, pull.hang_up = reactor.seconds(), conversation.end
            self.pulls[folder] = pull
            late.after(LONGEST_PULL * 3600, too_slow)
            try:
                pull.go_on()
                image = await self._pull(conversation, pull, folder, held)
            except (InvalidData, ConfigAtFault, CalledOff) as error:
                why = pull.failed or error  # which may have ended what then failed
                if not isinstance(why, ConfigAtFault | InvalidData) or why.chain[0] == what:
                    raise why from error
                raise ConfigAtFault(what, *why.chain) from error
            finally:
                late.cancel()
                del self.pulls[folder]
                conversation.end()
        self.tell(f"{reference.short} was pulled: {image.digest}")
        return image

    async def _pull(
        self, conversation: Conversation, pull: Pull, folder: str, held: list[str]
    ) -> Image:
        reference = conversation.reference
        manifest = await self._manifest(conversation)
        image = self.images.known.get(oci.digest_of(manifest))
        if image is None:
            config = await conversation.document(read_manifest(manifest).config)
            image = make_image(manifest, config, self.images.platform, self.images.now())
        self._check_size(image)
        held += self.images.places(image)
        new = [
            layer
            for layer in self._needed(image)
            if not os.path.isdir(self.images.layers.path_of(layer.digest))
        ]
        pull.size = sum(layer.size for layer in new)
        downloads = [self._pull_layer(conversation, pull, folder, image, one) for one in new]
        await together(*downloads)
        pull.go_on()
        return await self._keep(image, [str(reference)])

    async def _manifest(self, conversation: Conversation) -> bytes:
        """The manifest for this platform, by way of indexes if there are some."""
        wanted, expected = conversation.reference.wanted, conversation.reference.digest
        for _ in range(DEEPEST + 1):
            document, kind = await conversation.manifest(wanted)
            if expected and oci.digest_of(document) != expected:
                raise ConfigAtFault(
                    f"the registry sends another manifest than {expected}",
                    "it is damaged, or not what it says",
                )
            read = oci.read_image(document, kind)
            if isinstance(read, Manifest):
                return document
            wanted = expected = oci.choose(read, self.images.platform).digest
        raise ConfigAtFault(f"it has more than {DEEPEST} indexes within each other")

    async def _pull_layer(
        self,
        conversation: Conversation,
        pull: Pull,
        folder: str,
        image: Image,
        layer: Descriptor,
    ) -> None:
        path = os.path.join(folder, layer.hex)
        try:
            async with pull.downloads:
                pull.go_on()
                await conversation.download(layer, path, pull.take)
            async with self._unpackings:
                pull.go_on()
                await self._unpack(image, path, layer)
        except Exception as error:
            pull.failed = pull.failed or error
        with suppress(FileNotFoundError):  # it may not have been begun
            await self.images.threads(os.unlink, path)


def make_arrivals(layers: Layers, journal: Journal) -> Arrivals:
    """What comes to the images of a manager with these layers."""
    unpacker, state = layers.unpacker, os.path.dirname(layers.folder)
    images = Images(
        os.path.join(state, "images"), layers, unpacker.threads, unpacker.pool.kernel.now
    )
    registries = Registries(unpacker.pool.reactor, unpacker.threads)
    work, tell = os.path.join(state, "run/images"), partial(journal.add, "image")
    return Arrivals(images, registries, work, unpacker.remove, tell)
