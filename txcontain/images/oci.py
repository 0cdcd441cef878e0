"""The documents of an image: descriptor, index, manifest and config.

Sources: the OCI Image Format Specification 1.1 (image-spec), and Docker's Image Manifest Version 2,
Schema 2, which says the same by other media types. What is read comes from strangers: it is
checked, bounded, and unknown keys are ignored, as the specification demands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar

from attrs import field, frozen

from txcontain.container.document import LONGEST_DOCUMENT, read_object, refuse, shown
from txcontain.container.reference import DIGEST

OCI, DOCKER = "application/vnd.oci.image", "application/vnd.docker"
INDEX, INDEX_OF_DOCKER = f"{OCI}.index.v1+json", f"{DOCKER}.distribution.manifest.list.v2+json"
MANIFEST = f"{OCI}.manifest.v1+json"
MANIFEST_OF_DOCKER = f"{DOCKER}.distribution.manifest.v2+json"
CONFIG, CONFIG_OF_DOCKER = f"{OCI}.config.v1+json", f"{DOCKER}.container.image.v1+json"
LAYER, LAYER_GZIP, LAYER_ZSTD = (f"{OCI}.layer.v1.tar{end}" for end in ("", "+gzip", "+zstd"))
LAYER_OF_DOCKER = f"{DOCKER}.image.rootfs.diff.tar"
INDEXES, MANIFESTS = (INDEX, INDEX_OF_DOCKER), (MANIFEST, MANIFEST_OF_DOCKER)
CONFIGS = (CONFIG, CONFIG_OF_DOCKER)
LAYERS = (
    *(LAYER, LAYER_GZIP, LAYER_ZSTD),
    *(LAYER_OF_DOCKER + end for end in ("", ".gzip", ".zstd")),
)
SCHEMA1 = (
    f"{DOCKER}.distribution.manifest.v1+json",
    f"{DOCKER}.distribution.manifest.v1+prettyjws",
)

LONGEST = LONGEST_DOCUMENT  # bytes of an index, a manifest or a config
MOST_LOWER = 500  # layers of one overlay (OVL_MAX_STACK in <fs/overlayfs/params.h>)
MOST_LAYERS = 2 * MOST_LOWER - 1  # of an image: as many merged into one, and the others on that
MOST_MANIFESTS = 1000  # of an index
LARGEST = 1 << 50  # bytes of a blob
MOST_WORDS, MOST_HISTORY = 1000, 2000
# What Go, and so an image, calls a machine (uname(2)), and its variant.
MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
}
Kind = TypeVar("Kind")


@frozen
class Platform:
    """What a manifest of an index is for."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@frozen
class Descriptor:
    """What is somewhere else: by its digest, its size in bytes and its kind."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(factory=dict)

    @property
    def hex(self) -> str:
        """The digest without its algorithm: the name of its blob in a layout."""
        return self.digest.partition(":")[2]

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        said: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.platform:
            parts = {"os": self.platform.os, "architecture": self.platform.architecture}
            said["platform"] = parts | ({"variant": v} if (v := self.platform.variant) else {})
        if self.annotations:
            said["annotations"] = dict(self.annotations)
        return said


@frozen
class Manifest:
    """An image for one platform: its config, and its layers with the lowest first."""

    config: Descriptor
    layers: Sequence[Descriptor]
    media_type: str = MANIFEST
    annotations: Mapping[str, str] = field(factory=dict)

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        said = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.plain(),
            "layers": [layer.plain() for layer in self.layers],
        }
        return said | ({"annotations": dict(self.annotations)} if self.annotations else {})


@frozen
class Index:
    """The manifests of an image, one for each platform; or of all images of a layout."""

    manifests: Sequence[Descriptor]

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [one.plain() for one in self.manifests],
        }


@frozen
class Healthcheck:
    """How the image is asked whether it works; durations are nanoseconds, 0: not said."""

    test: Sequence[str] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@frozen
class Step:
    """How one layer was made, or what was done without one."""

    created: str = ""  # RFC 3339
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        said = {"created": self.created, "created_by": self.created_by, "comment": self.comment}
        empty = {"empty_layer": True} if self.empty_layer else {}
        return {name: text for name, text in said.items() if text} | empty


@frozen
class ImageConfig:
    """How an image is to be run, and how it was made."""

    platform: Platform
    diff_ids: Sequence[str] = ()  # the digest of each layer, decompressed; the lowest first
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Sequence[str] = ()  # each NAME=VALUE
    user: str = ""
    working_dir: str = ""
    exposed_ports: Sequence[str] = ()  # each PORT or PORT/PROTOCOL, sorted
    volumes: Sequence[str] = ()  # absolute paths, sorted
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    labels: Mapping[str, str] = field(factory=dict)
    created: str = ""  # RFC 3339
    author: str = ""
    history: Sequence[Step] = ()

    def plain(self) -> dict[str, Any]:
        """As it is written."""
        said: dict[str, Any] = {
            "created": self.created,
            "author": self.author,
            "os": self.platform.os,
            "architecture": self.platform.architecture,
            "variant": self.platform.variant,
            "config": self._run(),
            "history": [one.plain() for one in self.history],
        }
        filled = {name: value for name, value in said.items() if value}
        return {**filled, "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)}}

    def _run(self) -> dict[str, Any]:
        check = self.healthcheck
        said: dict[str, Any] = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": list(self.env),
            "User": self.user,
            "WorkingDir": self.working_dir,
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Volumes": {path: {} for path in self.volumes},
            "StopSignal": self.stop_signal,
            "Labels": dict(self.labels),
            "Healthcheck": check
            and {
                "Test": list(check.test),
                "Interval": check.interval,
                "Timeout": check.timeout,
                "StartPeriod": check.start_period,
                "StartInterval": check.start_interval,
                "Retries": check.retries,
            },
        }
        return {name: value for name, value in said.items() if value}


def to_bytes(document: Manifest | Index | ImageConfig) -> bytes:
    """A document as it is stored: the same bytes each time for the same content."""
    text = json.dumps(document.plain(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def digest_of(document: bytes) -> str:
    """The digest of these bytes."""
    return f"sha256:{sha256(document).hexdigest()}"


def described(document: bytes, media_type: str, **more: Any) -> Descriptor:
    """The descriptor of these bytes."""
    return Descriptor(media_type, digest_of(document), len(document), **more)


def this_platform(machine: str) -> Platform:
    """The platform of this machine, by the name that uname(2) has for it."""
    return Platform("linux", *MACHINES.get(machine, (machine, "")))


# -- reading ---------------------------------------------------------------------


def read_image(document: bytes, media_type: str = "") -> Manifest | Index:
    """What is behind a name: an index, or a manifest.

    :param media_type: what the registry calls it, or its descriptor; the document says it too
    Raises InvalidData; TooLarge.
    """
    values = _read(document)
    said = values.get("mediaType") or media_type
    if values.get("schemaVersion") == 1 or said in SCHEMA1:
        refuse(
            "it is a manifest of schema 1, which has no digests that can be checked",
            "have it pushed again by a program from after 2016",
        )
    if values.get("schemaVersion") != 2:
        refuse(f"schemaVersion must be 2, not {shown(values.get('schemaVersion'))}")
    if "manifests" in values and "layers" in values:
        refuse("it has both manifests and layers: it must be an index or a manifest")
    if "manifests" in values:
        return Index(_list(values, "manifests", _descriptor, MOST_MANIFESTS))
    kind = said if said in MANIFESTS else MANIFEST
    return _manifest(values, kind)


def _manifest(values: dict[str, Any], kind: str) -> Manifest:
    config = _descriptor("config", values.get("config"))
    if config.media_type not in CONFIGS:
        refuse(f"it is no image but something else: its config is {shown(config.media_type)}")
    layers = _list(values, "layers", _descriptor, MOST_LAYERS)
    for layer in layers:
        if layer.media_type not in LAYERS:
            refuse(f"it has a layer of a kind that can't be unpacked: {shown(layer.media_type)}")
    if not layers:
        refuse("it has no layer: there is nothing to run")
    return Manifest(config, layers, kind, _texts(values, "annotations"))


def all_for(index: Index, platform: Platform) -> list[Descriptor]:
    """What an index has for this platform, or for none that it names."""
    return [one for one in index.manifests if not one.platform or _fits(one.platform, platform)]


def choose(index: Index, platform: Platform) -> Descriptor:
    """The manifest, or further index, of an index that is for this platform.

    One without a platform is taken if there is nothing better, since only the manifest tells.
    Raises InvalidData.
    """
    known = [one for one in index.manifests if one.media_type in (*MANIFESTS, *INDEXES)]
    fits = [one for one in known if one.platform and _fits(one.platform, platform)]
    exact = [one for one in fits if one.platform == platform]
    untold = [one for one in known if one.platform is None]
    for found in (exact, fits, untold):
        if found:
            return found[0]
    names = sorted({str(one.platform) for one in known if one.platform})
    others = ", ".join(names[:8]) or "nothing"
    refuse(f"it is not for this machine, {platform}, only for {others}")


def check_platform(image: ImageConfig, platform: Platform) -> None:
    """Raise InvalidData if an image is not for this platform."""
    if not _fits(image.platform, platform):
        refuse(f"it is not for this machine, {platform}, only for {image.platform}")


def _fits(offered: Platform, wanted: Platform) -> bool:
    """Whether one can run the other: an image that names no variant, or an older one, runs too."""
    same = (offered.os, offered.architecture) == (wanted.os, wanted.architecture)
    return same and (not offered.variant or offered.variant <= wanted.variant)


def read_config(document: bytes) -> ImageConfig:
    """The config of an image. Raises InvalidData; TooLarge."""
    values = _read(document)
    run, rootfs = _object(values, "config"), _object(values, "rootfs")
    return ImageConfig(
        Platform(_text(values, "os"), _text(values, "architecture"), _text(values, "variant")),
        _list(rootfs, "diff_ids", _digest, MOST_LAYERS),
        _list(run, "Entrypoint", _string, MOST_WORDS),
        _list(run, "Cmd", _string, MOST_WORDS),
        _list(run, "Env", _string, MOST_WORDS),
        _text(run, "User"),
        _text(run, "WorkingDir"),
        tuple(sorted(_object(run, "ExposedPorts"))),
        tuple(sorted(_object(run, "Volumes"))),
        _text(run, "StopSignal"),
        _healthcheck(run),
        _texts(run, "Labels"),
        _text(values, "created"),
        _text(values, "author"),
        _list(values, "history", _step, MOST_HISTORY),
    )


def _read(document: bytes) -> dict[str, Any]:
    """An object of which people are shown the texts: each has to be Unicode (RFC 8259, 8.2).

    Raises InvalidData; TooLarge.
    """
    values = read_object(document)
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        refuse("the document has a lone surrogate, which is half a character")
    except RecursionError:
        refuse("the document is nested too deep")
    return values


def _healthcheck(run: dict[str, Any]) -> Healthcheck | None:
    if run.get("Healthcheck") is None:
        return None
    said = _object(run, "Healthcheck")
    times = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")
    return Healthcheck(
        _list(said, "Test", _string, MOST_WORDS), *(_whole(name, said.get(name)) for name in times)
    )


def _step(key: str, value: object) -> Step:
    said = value if isinstance(value, dict) else refuse(f"one of {key} is not an object")
    created, by, comment = (_text(said, name) for name in ("created", "created_by", "comment"))
    return Step(created, by, comment, said.get("empty_layer") is True)


def _descriptor(key: str, value: object) -> Descriptor:
    if not isinstance(value, dict):
        refuse(f"{key} must be an object, not {shown(value)}")
    if "size" not in value:
        refuse(f"{key} has a descriptor without a size")
    platform = _object(value, "platform")
    names = (_text(platform, name) for name in ("os", "architecture", "variant"))
    return Descriptor(
        _text(value, "mediaType"),
        _digest(key, value.get("digest")),
        _whole(f"the size in {key}", value["size"]),
        Platform(*names) if platform else None,
        _texts(value, "annotations"),
    )


def _digest(key: str, value: object) -> str:
    text = _string(key, value)
    if not DIGEST.fullmatch(text):
        refuse(f"a digest in {key} must be sha256: and 64 digits, not {shown(text)}")
    return text


def _whole(key: str, value: object) -> int:
    number = 0 if value is None else value
    if type(number) is not int or not 0 <= number <= LARGEST:
        refuse(f"{key} must be a whole number up to {LARGEST}, not {shown(value)}")
    return number


def _string(key: str, value: object) -> str:
    if not isinstance(value, str):
        refuse(f"one of {key} must be a string, not {shown(value)}")
    return value


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return "" if value is None else _string(key, value)


def _object(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    value = {} if value is None else value
    if not isinstance(value, dict):
        refuse(f"{key} must be an object, not {shown(value)}")
    return value


def _texts(values: Mapping[str, Any], key: str) -> dict[str, str]:
    return {name: _string(key, text) for name, text in _object(values, key).items()}


def _list(
    values: Mapping[str, Any], key: str, read: Callable[[str, object], Kind], most: int
) -> tuple[Kind, ...]:
    value = values.get(key)
    value = [] if value is None else value
    if not isinstance(value, list):
        refuse(f"{key} must be a list, not {shown(value)}")
    if len(value) > most:
        refuse(f"{key} has {len(value)} entries, and may have {most}")
    return tuple(read(key, one) for one in value)
