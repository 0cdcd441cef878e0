"""Finds the images in an unpacked archive: an OCI image layout, or what `docker save` writes.

The archive is a stranger's: links in it lead nowhere but into it, and each file is checked by its
digest and its size. Nobody changes it meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import IO, Any

from attrs import evolve, frozen

from txcontain.container.document import read_object, refuse, shown
from txcontain.errors import ConfigAtFault, Error
from txcontain.host.files import NoFile, open_file
from txcontain.images import oci
from txcontain.images.oci import Descriptor, ImageConfig, Index, Manifest, Platform
from txcontain.images.programs import compression_in
from txcontain.images.stack import link_in, resolve

INDEX, OF_DOCKER = "index.json", "manifest.json"
KEYS = {"Config", "Layers"}  # that an image in the second has
NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")  # annotations
DEEPEST = 3  # indexes within each other
MOST_IMAGES = 100
CHUNK = 1 << 20  # bytes
NOT_THERE = errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG
KINDS = {"": oci.LAYER, "gzip": oci.LAYER_GZIP, "zstd": oci.LAYER_ZSTD}  # by compression


@frozen
class Found:
    """An image in an archive."""

    names: tuple[str, ...]  # as the archive has them
    manifest: bytes
    config: bytes
    blobs: Mapping[str, str]  # by a layer's digest: its file, which is not checked yet


def find_images(folder: str, platform: Platform, largest: int) -> list[Found]:
    """The images in an unpacked archive that are for this platform. It reads the disk.

    :param largest: how many bytes of layers it reads. Files may be sparse: they can be far longer
        than what they take on the disk, and named many times
    Raises InvalidData, ConfigAtFault if it is no archive of images, or one of them is damaged.
    """
    archive = Archive(folder)
    if archive.has("oci-layout"):
        index = oci.read_image(archive.read(INDEX))
        if not isinstance(index, Index):
            refuse(f"{INDEX} of the archive has no manifests")
        images = _of_index(archive, index, platform, DEEPEST)
    elif archive.has(OF_DOCKER):
        images = _of_docker(archive, platform, largest)
    else:
        raise ConfigAtFault(
            "it is no archive of an image: it has neither oci-layout nor manifest.json",
            "make one with `docker save`, `podman save` or `skopeo copy`",
        )
    found: dict[bytes, Found] = {}
    for number, image in enumerate(images):
        if number == MOST_IMAGES:
            refuse(f"the archive has more than {MOST_IMAGES} images")
        same = found.get(image.manifest)  # it is there once for each name
        found[image.manifest] = evolve(image, names=same.names + image.names) if same else image
    if not found:
        refuse("the archive has no image")
    return list(found.values())


def check_blob(path: str, expected: Descriptor) -> None:
    """Check a file by its digest and size. It takes a while.

    Raises ConfigAtFault, OSError.
    """
    hashed, size = sha256(), 0
    with open_file(path) as file:
        check_size(expected, os.fstat(file.fileno()).st_size)
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    check_digest(expected, size, f"sha256:{hashed.hexdigest()}")


def check_size(expected: Descriptor, size: int) -> None:
    """Raise ConfigAtFault if what there is has another size than its descriptor says."""
    if size != expected.size:
        raise ConfigAtFault(
            f"the blob {expected.digest} has {size} bytes, and should have {expected.size}",
            "it was cut short, or is damaged: get it again",
        )


def check_digest(expected: Descriptor, size: int, digest: str) -> None:
    """Raise ConfigAtFault if what was read is not what its descriptor says."""
    check_size(expected, size)
    if digest != expected.digest:
        raise ConfigAtFault(
            f"the blob {expected.digest} has another digest, {digest}",
            "it is damaged, or not what it says: get it again",
        )


def check_config(manifest: Manifest, config: bytes, platform: Platform) -> ImageConfig:
    """The config of an image, if it is that of this manifest, and for this platform.

    Raises InvalidData, ConfigAtFault.
    """
    check_digest(manifest.config, len(config), oci.digest_of(config))
    image = oci.read_config(config)
    oci.check_platform(image, platform)
    if len(image.diff_ids) != len(manifest.layers):
        refuse(f"it has {len(manifest.layers)} layers, and its config {len(image.diff_ids)}")
    return image


@frozen
class Archive:
    """An unpacked archive."""

    folder: str

    def path(self, name: str) -> str:
        """Where a file of the archive is, which a link in it may have led to."""
        return self.folder + resolve(f"/{name}", partial(link_in, self.folder))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(self.path(name))

    def open(self, name: str) -> IO[bytes]:
        """A file of the archive. Raises ConfigAtFault if it is not there, or can't be."""
        try:
            return open_file(self.path(name))
        except (OSError, NoFile, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_THERE:
                raise
            raise ConfigAtFault(f"the archive has no file {shown(name)}") from None

    def read(self, name: str) -> bytes:
        """A document of the archive, or its beginning if it is too long to be one.

        Raises ConfigAtFault if it is not there.
        """
        with self.open(name) as file:
            return file.read(oci.LONGEST + 1)

    def blob(self, descriptor: Descriptor) -> bytes:
        """A document of the archive, by its digest. Raises ConfigAtFault."""
        document = self.read(_blob(descriptor))
        check_digest(descriptor, len(document), oci.digest_of(document))
        return document


def _blob(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.hex}"


def _of_index(
    archive: Archive, index: Index, platform: Platform, deep: int, names: tuple[str, ...] = ()
) -> Iterator[Found]:
    """The images of a layout; in an index below it, only the one for this platform."""
    fitting = oci.all_for(index, platform) if deep == DEEPEST else []
    for descriptor in fitting or [oci.choose(index, platform)]:
        own = names or tuple(filter(None, map(descriptor.annotations.get, NAMES)))
        document = archive.blob(descriptor)
        image = oci.read_image(document, descriptor.media_type)
        if isinstance(image, Index):
            if deep == 0:
                refuse(f"the archive has more than {DEEPEST} indexes within each other")
            yield from _of_index(archive, image, platform, deep - 1, own)
            continue
        config = archive.blob(image.config)
        check_config(image, config, platform)
        blobs = {layer.digest: archive.path(_blob(layer)) for layer in image.layers}
        yield Found(own, document, config, blobs)


def lists_images(folder: str) -> bool:
    """Whether an unpacked tarball has a manifest.json of `docker save`, not one of a web page."""
    archive = Archive(folder)
    try:
        listed = _list(read_object(b'{"images":' + archive.read(OF_DOCKER) + b"}"), "images")
    except (Error, OSError):
        return False
    return bool(listed) and all(isinstance(one, dict) and {*one} >= KEYS for one in listed)


def _of_docker(archive: Archive, platform: Platform, largest: int) -> Iterator[Found]:
    """The images that manifest.json lists, which has no digests: each layer gets one."""
    listed = b'{"images":' + archive.read(OF_DOCKER) + b"}"
    for said in _list(read_object(listed), "images"):
        if not isinstance(said, dict):
            refuse(f"an image of {OF_DOCKER} must be an object, not {shown(said)}")
        config = archive.read(_string(OF_DOCKER, said.get("Config")))
        image = oci.read_config(config)
        names = [_string(OF_DOCKER, name) for name in _list(said, "Layers")]
        if len(names) != len(image.diff_ids):
            refuse(f"it has {len(names)} layers, and its config {len(image.diff_ids)}")
        layers = []
        for name, diff_id in zip(names, image.diff_ids, strict=True):
            layers.append(_described(archive, name, diff_id, largest))
            largest -= layers[-1].size
        files = [archive.path(name) for name in names]
        manifest = Manifest(oci.described(config, oci.CONFIG), tuple(layers))
        check_config(manifest, config, platform)
        blobs = {layer.digest: path for layer, path in zip(layers, files, strict=True)}
        tags = tuple(_string(OF_DOCKER, tag) for tag in _list(said, "RepoTags"))
        yield Found(tags, oci.to_bytes(manifest), config, blobs)


def _described(archive: Archive, name: str, diff_id: str, largest: int) -> Descriptor:
    """The descriptor of a layer's file; its digest is known if it is not compressed."""
    hashed, size = sha256(), 0
    with archive.open(name) as file:
        if os.fstat(file.fileno()).st_size > largest:
            raise ConfigAtFault("the layers of the archive are longer than a tarball may be")
        kind = compression_in(file.read(8))
        file.seek(0)
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    if kind not in KINDS:
        refuse(f"the layer {shown(name)} is compressed by {kind}, which no image is")
    found = Descriptor(KINDS[kind], f"sha256:{hashed.hexdigest()}", size)
    if not kind:
        check_digest(Descriptor(oci.LAYER, diff_id, size), size, found.digest)
    return found


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values.get(key) or []
    if not isinstance(value, list):
        refuse(f"{key} must be a list, not {shown(value)}")
    return value


def _string(key: str, value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        refuse(f"one of {key} must be a string, not {shown(value)}")
    return value
