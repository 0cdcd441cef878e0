"""The images that are kept: their names, and what a new manager finds of them."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.images.archives import HERE, ImageMaker, image
from tests.integration.tarballs import file
from txcontain.engine import images
from txcontain.engine.images import Image, Images, make_image
from txcontain.errors import Ambiguous, InUse, MachineAtFault, NoSuchImage, TooMany
from txcontain.images import oci
from txcontain.images.layers import merged_digest
from txcontain.images.oci import Descriptor, to_bytes

ONE, OTHER = image([[file("a", "a")]]), image([[file("b", "b")]])


def made(maker: ImageMaker) -> Image:
    """An image as it is kept."""
    return make_image(to_bytes(maker.manifest), to_bytes(maker.config), HERE, 7.0)


class ImagesCase(SynchronousTestCase):
    """A test with images, of which the layers are empty folders."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        for name in ("images", "layers"):
            (self.folder / name).mkdir(parents=True)
        self.images = self.new()

    def new(self) -> Images:
        """The images, as a manager has them that starts."""
        layers: Any = mock.Mock()
        layers.path_of = lambda digest: str(self.folder / "layers" / digest.partition(":")[2])
        return Images(str(self.folder / "images"), layers, maybeDeferred, lambda: 7.0)

    def do(self, work: Any) -> Any:
        """What a coroutine returns; it waits for nothing."""
        return self.successResultOf(Deferred.fromCoroutine(work))

    def add(self, maker: ImageMaker, *names: str) -> Image:
        """Keep an image."""
        kept = made(maker)
        for layer in self.images.paths(kept):
            os.makedirs(layer, exist_ok=True)
        self.do(self.images.add(kept, [f"docker.io/library/{name}" for name in names]))
        return kept

    def files(self) -> set[str]:
        """What is kept on the disk."""
        return set(os.listdir(self.folder / "images"))


class ManyLayers(ImagesCase):
    """Images with more layers than one overlay can have."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(images, "MOST_LOWER", 2)
        self.digests = [f"sha256:{number:064}" for number in range(5)]

    def of_layers(self, *numbers: int) -> Image:
        """An image of these layers, the lowest first."""
        layers = [Descriptor(oci.LAYER, self.digests[number], 1) for number in numbers]
        kept = made(ONE)
        return evolve(kept, manifest=evolve(kept.manifest, layers=layers))

    def test_merged(self) -> None:
        """Always as many of the lowest are merged, each once, and the others lie on that."""
        for numbers, merged in (
            ((0, 1), ()),
            ((0, 1, 0, 1, 1), ()),
            ((0, 1, 2), (1, 0)),
            ((0, 1, 2, 3, 4), (1, 0)),
            ((0, 1, 0, 2, 3), (0, 1)),  # the lowest 0 is hidden
        ):
            kept = self.of_layers(*numbers)
            self.assertEqual(kept.merged, [self.digests[number] for number in merged])
            if merged:
                above = [self.digests[number] for number in range(max(numbers), 1, -1)]
                self.assertEqual(kept.lower, [*above, merged_digest(kept.merged)])
            else:
                self.assertEqual(kept.lower, kept.layers)

    def test_needed(self) -> None:
        """Layers that are merged are only needed until they are."""
        kept = self.of_layers(0, 1, 2)
        self.assertEqual(self.images.needed(kept), kept.layers)
        os.mkdir(self.images.paths(kept)[-1])
        self.assertEqual(self.images.needed(kept), kept.lower)
        path_of = self.images.layers.path_of
        self.assertEqual(set(self.images.places(kept)), set(map(path_of, kept.lower + kept.layers)))


class Names(ImagesCase):
    """Names of images."""

    def test_found(self) -> None:
        """An image is found by its name, however that is written, and by its digest."""
        kept = self.add(ONE, "app:latest")
        for text in (
            *("app", "app:latest", "docker.io/library/app", "docker.io/app"),
            *(kept.digest, kept.digest[7:], kept.digest[:14], kept.digest[7:13]),
            f"app@{kept.digest}",
        ):
            self.assertIs(self.images.find(text), kept, text)
        for text in ("app:1", "other", kept.digest[:12], "sha256:" + "0" * 64, "no image", ""):
            self.assertIsNone(self.images.find(text), text)
        self.assertRaises(NoSuchImage, self.images.get, "other")
        error = self.assertRaises(NoSuchImage, self.images.get, "docker.io/app:1")
        self.assertEqual(error.chain[1], "there is app:latest")

    def test_ambiguous(self) -> None:
        """The beginning of a digest that several images have stands for none of them."""
        kept = self.add(ONE, "app:1")
        self.images.known["sha256:" + kept.digest[7:20] + "0" * 51] = kept
        error = self.assertRaises(Ambiguous, self.images.find, kept.digest[:19])
        self.assertEqual(
            str(error), f"{kept.digest[:19]} stands for 2 images → give more of the digest"
        )

    def test_moved(self) -> None:
        """An image without a name is not kept."""
        first, second = self.add(ONE, "app:1"), self.add(OTHER, "app:1")
        self.assertEqual(set(self.images.known), {second.digest})
        self.assertEqual(self.files(), {"names.json", f"{second.digest[7:]}.json"})
        self.assertNotEqual(first.digest, second.digest)

    def test_removed(self) -> None:
        """A name is removed, and with the last one the image; by its digest, all names."""
        kept = self.add(ONE, "app:1", "app:2", "app:3")
        self.do(self.images.remove("app:1", lambda digest: ["web"]))
        self.assertEqual(len(self.images.names), 2)
        self.do(self.images.remove(kept.digest, lambda digest: []))
        self.assertEqual((self.images.names, self.images.known), ({}, {}))
        self.assertEqual(self.files(), {"names.json"})

    def test_removed_by_any_spelling(self) -> None:
        """However a name is written, only this one is removed."""
        for text in ("app", "app:latest", "docker.io/app", "docker.io/library/app:latest"):
            self.add(ONE, "app:latest", "other:1")
            self.assertEqual(
                self.do(self.images.remove(text, lambda _: ["web"])),
                ["docker.io/library/app:latest"],
                text,
            )

    def at_once(self, *works: Any) -> list[Deferred[Any]]:
        """What becomes of several coroutines that begin at the same time."""
        self.successResultOf(self.images._lock.acquire())
        begun = [Deferred.fromCoroutine(work) for work in works]
        self.images._lock.release()
        return begun

    def test_removed_at_once(self) -> None:
        """Of two that remove a name each, the second is refused if the image is in use."""
        self.add(ONE, "a:1", "b:1")
        one, other = self.at_once(
            *(self.images.remove(name, lambda _: ["web-1"]) for name in ("a:1", "b:1"))
        )
        self.assertEqual(self.successResultOf(one), ["docker.io/library/a:1"])
        self.failureResultOf(other, InUse)

    def test_tagged_as_it_goes(self) -> None:
        """An image that is removed meanwhile gets no other name: its layers go too."""
        self.add(ONE, "a:1")
        removed, tagged = self.at_once(
            self.images.remove("a:1", lambda _: []), self.images.tag("a:1", "b:1")
        )
        self.successResultOf(removed)
        self.failureResultOf(tagged, NoSuchImage)
        self.assertEqual(self.files(), {"names.json"})

    def test_too_many(self) -> None:
        """A name more than a new manager would read is refused; one that is there may move."""
        self.patch(images, "MOST_NAMES", 2)
        self.add(ONE, "a:1", "b:1")
        error = self.failureResultOf(
            Deferred.fromCoroutine(self.images.tag("a:1", "c:1")), TooMany
        ).value
        self.assertEqual(str(error), "images have 2 names already → remove some")
        self.add(OTHER, "b:1")
        self.assertEqual(len(self.images.names), 2)

    def test_disk_full(self) -> None:
        """An image that can't be written is not kept."""
        os.rmdir(self.folder / "images")
        work = self.images.add(made(ONE), ["docker.io/library/app:1"])
        error = self.failureResultOf(Deferred.fromCoroutine(work), MachineAtFault).value
        self.assertIn(f"keeping the image {ONE.top.digest} → ENOENT", str(error))
        self.assertEqual((self.images.names, self.images.known), ({}, {}))


class Recovery(ImagesCase):
    """What a new manager finds."""

    def test_found_again(self) -> None:
        """A new manager knows all images and names."""
        self.add(ONE, "app:1", "app:2")
        self.add(OTHER, "other:1")
        new = self.new()
        self.assertEqual(new.recover(), [])
        self.assertEqual((new.known, new.names), (self.images.known, self.images.names))

    def test_nameless(self) -> None:
        """An image whose name a killed manager had not written is removed."""
        one, other = self.add(ONE, "app:1"), made(OTHER)
        nameless = self.folder / "images" / f"{other.digest[7:]}.json"
        nameless.write_bytes(b"{}")
        new = self.new()
        self.assertEqual(new.recover(), [f"removed {nameless.name}, an image without a name"])
        self.assertEqual(self.files(), {"names.json", f"{one.digest[7:]}.json"})

    def test_damaged(self) -> None:
        """What can't be used is told, and the others can be."""
        one, other = self.add(ONE, "app:1"), self.add(OTHER, "other:1")
        path = self.folder / "images" / f"{one.digest[7:]}.json"
        whole = path.read_bytes()
        (layer,) = self.images.paths(one)
        for damage in (b"", b"{}", b"[", whole.replace(b"schemaVersion", b"x"), None):
            if damage is None:
                path.write_bytes(whole)
                os.rmdir(layer)
            else:
                path.write_bytes(damage)
            new = self.new()
            (said,) = new.recover()
            self.assertIn(f"the image {one.digest} can't be used: ", said)
            self.assertEqual(new.names, {"docker.io/library/other:1": other.digest})
        (self.folder / "images" / "names.json").write_bytes(b'{"a": "../../etc"}')
        self.assertEqual(
            self.new().recover(), ["the names of the images can't be read: names.json is damaged"]
        )
