"""Archives of images for tests: well-made ones, and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from attrs import define, evolve, field

from tests.integration.tarballs import Member, file
from txcontain.images import oci
from txcontain.images.oci import Descriptor, ImageConfig, Index, Manifest, described, to_bytes

HERE = oci.this_platform(os.uname().machine)


def tarball(*members: Member) -> bytes:
    """A tarball of these members."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


@lru_cache(maxsize=16)
def zipped(tarball: bytes) -> bytes:
    """A tarball as a layer: most images of tests have the same lowest one."""
    return gzip.compress(tarball, 1, mtime=0)


@define
class ImageMaker:
    """An image, of which a test may change each part before it is packed."""

    layers: list[bytes]  # tarballs, the lowest first
    config: ImageConfig = field(factory=lambda: ImageConfig(HERE))
    compress: bool = True
    blobs: dict[str, bytes] = field(factory=dict)  # by digest
    manifest: Manifest = field(init=False)
    top: Descriptor = field(init=False)  # of the manifest, or what stands for it

    def __attrs_post_init__(self) -> None:
        kind = oci.LAYER_GZIP if self.compress else oci.LAYER
        packed = [zipped(one) if self.compress else one for one in self.layers]
        layers = tuple(self.put(one, kind) for one in packed)
        diffs = tuple(map(oci.digest_of, self.layers))
        self.config = evolve(self.config, diff_ids=diffs)
        config = self.put(to_bytes(self.config), oci.CONFIG)
        self.manifest = Manifest(config, layers)
        self.top = self.put(to_bytes(self.manifest), oci.MANIFEST)

    def put(self, content: bytes, kind: str) -> Descriptor:
        """Add a blob."""
        descriptor = described(content, kind)
        self.blobs[descriptor.digest] = content
        return descriptor

    def layout(self, *names: str) -> list[Member]:
        """The files of an OCI layout."""
        key = "org.opencontainers.image.ref.name"
        tops = [
            Descriptor(self.top.media_type, self.top.digest, self.top.size, None, {key: name})
            for name in names
        ]
        return [
            file("oci-layout", '{"imageLayoutVersion":"1.0.0"}'),
            file("index.json", to_bytes(Index(tuple(tops or [self.top])))),
            *(
                file(f"blobs/sha256/{digest.partition(':')[2]}", content)
                for digest, content in self.blobs.items()
            ),
        ]

    def archive(self, *names: str) -> bytes:
        """An OCI archive."""
        return tarball(*self.layout(*names))

    def of_docker(self, *names: str) -> bytes:
        """What `docker save` wrote before it wrote OCI layouts too."""
        layers = [f"{number}/layer.tar" for number in range(len(self.layers))]
        said: list[Any] = [{"Config": "config.json", "RepoTags": names, "Layers": layers}]
        return tarball(
            file("manifest.json", json.dumps(said)),
            file("config.json", to_bytes(self.config)),
            *(file(name, one) for name, one in zip(layers, self.layers, strict=True)),
        )


def image(layers: Sequence[Sequence[Member]], **run: Any) -> ImageMaker:
    """An image of these layers, the lowest first, with these keys of its config."""
    return ImageMaker([tarball(*one) for one in layers], ImageConfig(HERE, **run))
