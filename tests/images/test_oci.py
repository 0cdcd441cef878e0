"""The documents of an image."""

import json
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import InvalidData
from txcontain.images import oci
from txcontain.images.oci import (
    Descriptor,
    Healthcheck,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    Step,
    check_platform,
    choose,
    described,
    read_config,
    read_image,
    this_platform,
    to_bytes,
)

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
LAYER = Descriptor(oci.LAYER_GZIP, DIGEST, 100)
MANIFEST = Manifest(Descriptor(oci.CONFIG, OTHER, 20), (LAYER,))
IMAGE = ImageConfig(
    AMD64,
    (DIGEST,),
    ("/bin/sh",),
    ("-c", "true"),
    ("A=1", "B="),
    "nobody:users",
    "/srv",
    ("80/tcp",),
    ("/data",),
    "SIGINT",
    Healthcheck(("CMD", "true"), 10**9, retries=2),
    {"name": "value"},
    "2026-01-01T00:00:00Z",
    "me",
    (Step("2026-01-01T00:00:00Z", "COPY", "", False), Step(empty_layer=True)),
)


def plain(document: Manifest | Index = MANIFEST, **changes: Any) -> bytes:
    """A document with some keys changed, or left out if they are None."""
    values = {**document.plain(), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None}).encode()


def config(**changes: Any) -> bytes:
    """The config of an image, with the keys of how to run it changed."""
    values = IMAGE.plain()
    return json.dumps({**values, "config": {**values["config"], **changes}}).encode()


def index(*platforms: Platform | None) -> Index:
    """An index of a manifest for each platform."""
    return Index(tuple(Descriptor(oci.MANIFEST, DIGEST, 9, platform) for platform in platforms))


# What is read, and why it is refused.
REFUSED: tuple[tuple[Callable[[], object], str], ...] = (
    (lambda: read_image(b"[]"), "the document is not a JSON object"),
    (
        lambda: read_image(plain(annotations={"\ud800": "a"})),
        "the document has a lone surrogate, which is half a character",
    ),
    (
        lambda: read_config(b'{"os": "\\ud800"}'),
        "the document has a lone surrogate, which is half a character",
    ),
    (
        lambda: read_image(b'{"schemaVersion": 1}'),
        "it is a manifest of schema 1, which has no digests that can be checked → "
        "have it pushed again by a program from after 2016",
    ),
    (
        lambda: read_image(b"{}", oci.SCHEMA1[1]),
        "it is a manifest of schema 1, which has no digests that can be checked → "
        "have it pushed again by a program from after 2016",
    ),
    (lambda: read_image(plain(schemaVersion="2")), "schemaVersion must be 2, not '2'"),
    (
        lambda: read_image(plain(manifests=[])),
        "it has both manifests and layers: it must be an index or a manifest",
    ),
    (
        lambda: read_image(plain(config={**LAYER.plain()})),
        f"it is no image but something else: its config is '{oci.LAYER_GZIP}'",
    ),
    (
        lambda: read_image(plain(layers=[MANIFEST.config.plain()])),
        f"it has a layer of a kind that can't be unpacked: '{oci.CONFIG}'",
    ),
    (lambda: read_image(plain(layers=[])), "it has no layer: there is nothing to run"),
    (lambda: read_image(plain(layers={})), "layers must be a list, not an object of 0"),
    (
        lambda: read_image(plain(layers=[LAYER.plain()] * 1000)),
        "layers has 1000 entries, and may have 999",
    ),
    (lambda: read_image(plain(config=7)), "config must be an object, not 7"),
    (
        lambda: read_image(plain(config={"mediaType": oci.CONFIG, "digest": DIGEST})),
        "config has a descriptor without a size",
    ),
    (
        lambda: read_image(plain(layers=[{**LAYER.plain(), "size": -1}])),
        "the size in layers must be a whole number up to 1125899906842624, not -1",
    ),
    (
        lambda: read_image(plain(layers=[{**LAYER.plain(), "digest": "sha256:../../etc"}])),
        "a digest in layers must be sha256: and 64 digits, not 'sha256:../../etc'",
    ),
    (lambda: read_image(plain(annotations={"a": 1})), "one of annotations must be a string, not 1"),
    (lambda: read_image(plain(annotations=[])), "annotations must be an object, not a list of 0"),
    (
        lambda: choose(index(ARM64, Platform("windows", "amd64")), AMD64),
        "it is not for this machine, linux/amd64, only for linux/arm64/v8, windows/amd64",
    ),
    (lambda: choose(index(), AMD64), "it is not for this machine, linux/amd64, only for nothing"),
    (
        lambda: check_platform(IMAGE, ARM64),
        "it is not for this machine, linux/arm64/v8, only for linux/amd64",
    ),
    (lambda: read_config(config(Cmd="ls")), "Cmd must be a list, not 'ls'"),
    (lambda: read_config(config(Env=[1])), "one of Env must be a string, not 1"),
    (
        lambda: read_config(config(Healthcheck={"Interval": 0.5})),
        "Interval must be a whole number up to 1125899906842624, not 0.5",
    ),
    (lambda: read_config(b'{"history": [1]}'), "one of history is not an object"),
)


class Documents(SynchronousTestCase):
    """Documents that are read and written."""

    def test_refused(self) -> None:
        """Whatever is not as the specification has it is refused with a sentence."""
        for call, wanted in REFUSED:
            self.assertEqual(str(self.assertRaises(InvalidData, call)), wanted)

    def test_written_again(self) -> None:
        """What is written is read as the same."""
        self.assertEqual(read_image(to_bytes(MANIFEST)), MANIFEST)
        self.assertEqual(read_config(to_bytes(IMAGE)), IMAGE)
        self.assertEqual(read_image(to_bytes(index(AMD64, ARM64))), index(AMD64, ARM64))

    def test_bytes(self) -> None:
        """The same document has the same bytes, and so the same digest; unset keys are left out."""
        self.assertEqual(
            to_bytes(ImageConfig(AMD64, (DIGEST,))).decode(),
            '{"architecture":"amd64","os":"linux",'
            f'"rootfs":{{"diff_ids":["{DIGEST}"],"type":"layers"}}}}',
        )
        one = described(to_bytes(MANIFEST), oci.MANIFEST)
        self.assertEqual(one, described(to_bytes(evolve(MANIFEST)), oci.MANIFEST))
        self.assertEqual(one.size, len(to_bytes(MANIFEST)))

    def test_docker(self) -> None:
        """What Docker wrote before OCI is read as well, by its own media types, null and all."""
        layer = {"mediaType": f"{oci.LAYER_OF_DOCKER}.gzip", "digest": DIGEST, "size": 3}
        read = read_image(
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": oci.MANIFEST_OF_DOCKER,
                    "config": {"mediaType": oci.CONFIG_OF_DOCKER, "digest": OTHER, "size": 2},
                    "layers": [layer],
                }
            ).encode()
        )
        assert isinstance(read, Manifest)
        self.assertEqual(read.media_type, oci.MANIFEST_OF_DOCKER)
        self.assertEqual([one.hex for one in read.layers], ["a" * 64])
        image = read_config(b'{"os": "linux", "architecture": "amd64", "config": {"Cmd": null}}')
        self.assertEqual(image, ImageConfig(AMD64))

    def test_unknown_keys(self) -> None:
        """Keys that nobody knows yet are no reason to refuse an image."""
        self.assertEqual(read_image(plain(subject={"a": 1}, new=2)), MANIFEST)


class Platforms(SynchronousTestCase):
    """The manifest for this machine."""

    def test_choice(self) -> None:
        """The exact variant is best, then one that is older or names none, then one untold."""
        old, new = Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7")
        any_arm = Platform("linux", "arm")
        for offered, wanted, taken in (
            ([AMD64, new, old], old, 2),
            ([AMD64, old, new], new, 2),
            ([AMD64, old], new, 1),
            ([AMD64, any_arm], new, 1),
            ([None, AMD64], AMD64, 1),
            ([ARM64, None], AMD64, 1),
        ):
            found = index(*offered)
            self.assertIs(choose(found, wanted), found.manifests[taken], offered)

    def test_machines(self) -> None:
        """Machines have other names in images than for uname(2)."""
        self.assertEqual(this_platform("x86_64"), AMD64)
        self.assertEqual(this_platform("aarch64"), ARM64)
        self.assertEqual(this_platform("mips64"), Platform("linux", "mips64"))
