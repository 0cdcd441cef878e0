"""Archives of images, as they are found once they are unpacked."""

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.images.archives import HERE, ImageMaker, image, tarball
from tests.integration.tarballs import file, link
from txcontain.errors import ConfigAtFault, Error
from txcontain.images import oci
from txcontain.images.layout import Found, check_blob, find_images
from txcontain.images.oci import Descriptor, ImageConfig, Index, Manifest, Platform, to_bytes

A, B = [file("a", "a")], [file("b", "b")]
OTHER = Platform("plan9", "amd64")


def layout(change: Callable[[ImageMaker], object]) -> bytes:
    """The archive of an image of which something was changed."""
    made = image([A])
    change(made)
    return made.archive("app:1")


def with_manifest(**changes: Any) -> Callable[[ImageMaker], object]:
    """The manifest has these fields instead."""

    def change(made: ImageMaker) -> None:
        made.top = made.put(to_bytes(evolve(made.manifest, **changes)), oci.MANIFEST)

    return change


def damage(made: ImageMaker) -> None:
    """The config is another one."""
    made.blobs[made.manifest.config.digest] = b"x" * made.manifest.config.size


def nest(made: ImageMaker) -> None:
    """Indexes within each other."""
    for _ in range(5):
        made.top = made.put(to_bytes(Index((made.top,))), oci.INDEX)


def of_docker(said: Any, *more: Any) -> bytes:
    """An archive with this manifest.json."""
    return tarball(file("manifest.json", json.dumps(said)), *more)


CONFIG = file("c", to_bytes(ImageConfig(HERE, ("sha256:" + "0" * 64,))))
ONE = tarball(*A)
OF_THREE = file("c", to_bytes(ImageConfig(HERE, (oci.digest_of(ONE),) * 3)))
LARGEST = 2 * len(ONE)  # bytes of layers
BZIP2 = file("l", b"BZh91AY&SY")
LACKS = (
    "it has neither oci-layout nor manifest.json → make one with `docker save`, `podman save` or"
)
# What is unpacked, and why it is refused.
REFUSED: tuple[tuple[Callable[[], bytes], str], ...] = (
    (lambda: tarball(*A), f"it is no archive of an image: {LACKS} `skopeo copy`"),
    (
        lambda: tarball(file("oci-layout"), file("index.json", to_bytes(image([A]).manifest))),
        "index.json of the archive has no manifests",
    ),
    (lambda: tarball(file("oci-layout")), "the archive has no file 'index.json'"),
    (
        lambda: tarball(file("oci-layout"), link("index.json", "/etc/passwd")),
        "the archive has no file 'index.json'",
    ),
    (
        lambda: layout(damage),
        "the blob DIGEST has another digest, DIGEST → it is damaged, or not what it says: "
        "get it again",
    ),
    (
        lambda: layout(with_manifest(config=Descriptor(oci.CONFIG, "sha256:" + "1" * 64, 7))),
        f"the archive has no file 'blobs/sha256/{'1' * 43}...",
    ),
    (
        lambda: layout(with_manifest(layers=image([A, B]).manifest.layers)),
        "it has 2 layers, and its config 1",
    ),
    (lambda: layout(nest), "the archive has more than 3 indexes within each other"),
    (
        lambda: ImageMaker([tarball(*A)], ImageConfig(OTHER)).archive("app:1"),
        f"it is not for this machine, {HERE}, only for plan9/amd64",
    ),
    (lambda: of_docker([]), "the archive has no image"),
    (lambda: of_docker([7]), "an image of manifest.json must be an object, not 7"),
    (
        lambda: of_docker([{"Config": "c", "Layers": ["l"]}] * 101, CONFIG, file("l")),
        "the blob DIGEST has another digest, DIGEST → it is damaged, or not what it says: "
        "get it again",
    ),
    (lambda: of_docker([{"Config": 7}]), "one of manifest.json must be a string, not 7"),
    (
        lambda: of_docker([{"Config": "c", "Layers": ["l"]}], CONFIG, BZIP2),
        "the layer 'l' is compressed by bzip2, which no image is",
    ),
    (lambda: of_docker([{"Config": "c", "Layers": "l"}], CONFIG), "Layers must be a list, not 'l'"),
    (
        lambda: of_docker([{"Config": "c", "Layers": []}], CONFIG),
        "it has 0 layers, and its config 1",
    ),
    (
        lambda: of_docker([{"Config": "c", "Layers": ["a" * 5000]}], CONFIG),
        f"the archive has no file '{'a' * 56}...",
    ),
    (
        lambda: of_docker([{"Config": "c", "Layers": ["\ud800"]}], CONFIG),
        "the archive has no file '\\ud800'",
    ),
    (
        lambda: of_docker(
            [{"Config": "c", "Layers": ["l"]}], CONFIG, file("l", "a" * (LARGEST + 1))
        ),
        "the layers of the archive are longer than a tarball may be",
    ),
    (
        lambda: of_docker([{"Config": "c", "Layers": ["l"] * 3}], OF_THREE, file("l", ONE)),
        "the layers of the archive are longer than a tarball may be",
    ),
    (
        lambda: of_docker([{"Config": "c", "Layers": ["../../../etc/passwd"]}], CONFIG),
        "the archive has no file '../../../etc/passwd'",
    ),
    (
        lambda: tarball(
            file("oci-layout"),
            file("index.json", to_bytes(Index(tuple([image([A]).top] * 101)))),
            *image([A]).layout()[2:],
        ),
        "the archive has more than 100 images",
    ),
)


class ArchiveCase(SynchronousTestCase):
    """A test with an unpacked archive."""

    def unpacked(self, archive: bytes) -> str:
        """The folder where an archive is unpacked."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extraction_filter = lambda member, _: member  # Debian 12's Python has no other way
            tar.extractall(folder)
        return str(folder)

    def find(self, archive: bytes) -> list[Found]:
        """The images in an archive."""
        return find_images(self.unpacked(archive), HERE, LARGEST)


class Archives(ArchiveCase):
    """What is found in an archive."""

    def test_refused(self) -> None:
        """Whatever is wrong with an archive is told with a sentence."""
        for archive, wanted in REFUSED:
            error = self.assertRaises(Error, self.find, archive())
            said = re.sub("sha256:[0-9a-f]{64}", "DIGEST", str(error))
            self.assertEqual(said, wanted)

    def test_layout(self) -> None:
        """An image is found with all names that the archive has for it."""
        made = image([A, B])
        (found,) = self.find(made.archive("app:1", "app:2"))
        self.assertEqual(found.names, ("app:1", "app:2"))
        self.assertEqual(found.manifest, to_bytes(made.manifest))
        self.assertEqual(found.config, to_bytes(made.config))
        for layer in made.manifest.layers:
            check_blob(found.blobs[layer.digest], layer)

    def test_platforms(self) -> None:
        """Of an index only the manifest for this machine is taken; others need not be there."""
        made = image([A])
        absent = Descriptor(oci.MANIFEST, "sha256:" + "2" * 64, 7, OTHER)
        mine = evolve(made.top, platform=HERE)
        made.top = made.put(to_bytes(Index((absent, mine))), oci.INDEX)
        (found,) = self.find(made.archive("app:1"))
        self.assertEqual(found.manifest, to_bytes(made.manifest))

    def test_of_docker(self) -> None:
        """What `docker save` wrote has no manifest: the same one is made each time."""
        made = ImageMaker([tarball(*A), tarball(*B)], compress=False)
        (found,) = self.find(made.of_docker("app:1"))
        (again,) = self.find(made.of_docker("app:1"))
        self.assertEqual(found.manifest, again.manifest)
        read = oci.read_image(found.manifest)
        assert isinstance(read, Manifest)
        self.assertEqual(read.layers, made.manifest.layers)
        self.assertEqual(found.names, ("app:1",))

    def test_blobs(self) -> None:
        """A layer's blob that was cut short, or changed, is not taken."""
        made = image([A])
        (found,) = self.find(made.archive("app:1"))
        (layer,) = made.manifest.layers
        path = Path(found.blobs[layer.digest])
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        error = self.assertRaises(ConfigAtFault, check_blob, str(path), layer)
        self.assertEqual(
            error.chain,
            (
                f"the blob {layer.digest} has {layer.size - 1} bytes, and should have {layer.size}",
                "it was cut short, or is damaged: get it again",
            ),
        )
        path.write_bytes(whole[:-1] + b"x")
        error = self.assertRaises(ConfigAtFault, check_blob, str(path), layer)
        self.assertIn("has another digest", str(error))
