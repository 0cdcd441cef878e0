"""What an image is called: [REGISTRY/]REPOSITORY[:TAG][@DIGEST], as Docker writes it."""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import evolve, frozen

from txcontain.container.document import refuse, shown
from txcontain.container.keys import Key, file_name
from txcontain.errors import InvalidData

HUB, HUBS_HOST, HUBS_OWN = "docker.io", "registry-1.docker.io", "library"
LATEST = "latest"
LONGEST_NAME = 255  # characters of registry and repository
LONGEST_REFERENCE = LONGEST_NAME + 1 + 128 + 1 + 71  # the same with a tag and a digest
PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(f"{PART}(?:/{PART})*")
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
REGISTRY = re.compile(rf"({LABEL}(?:\.{LABEL})*|\[[0-9a-fA-F:.]+\])(?::([0-9]{{1,5}}))?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HINT = "an image is [REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST], such as registry:5000/app:1.4"


@frozen
class Reference:
    """The name of an image. At least one of ``tag`` and ``digest`` is there."""

    registry: str  # HOST or HOST:PORT
    repository: str
    tag: str | None = None
    digest: str | None = None  # of a manifest or an index

    @property
    def host(self) -> str:
        """The HOST or HOST:PORT to ask for it."""
        return HUBS_HOST if self.registry == HUB else self.registry

    @property
    def wanted(self) -> str:
        """What to ask the registry for: a digest is more exact than a tag."""
        return self.digest or self.tag or LATEST

    @property
    def is_loopback(self) -> bool:
        """Whether its registry can only be on this machine."""
        match = REGISTRY.fullmatch(self.registry)
        return match is not None and is_loopback(match[1].strip("[]"))

    def at(self, digest: str) -> Reference:
        """The same image, by the digest that it has now."""
        return evolve(self, digest=digest)

    @property
    def short(self) -> str:
        """As a person writes it: without what is Docker Hub's."""
        return str(self).removeprefix(f"{HUB}/").removeprefix(f"{HUBS_OWN}/")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def is_loopback(host: str) -> bool:
    """Whether a host, by its name or its address, can only be this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_reference(text: str) -> bool:
    """Whether a text can only be meant as the name of an image, and not as that of a file."""
    return not text.startswith(("/", ".")) and any(mark in text for mark in "/:")


def read_reference(text: str) -> Reference:
    """The image that a person names. Without a registry it is Docker Hub's.

    Raises InvalidData.
    """
    rest, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        refuse(f"{shown(text)} has a digest that is not sha256: and 64 digits from 0 to f", HINT)
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # the colon is that of a port
        name, tag = rest, ""
    elif not TAG.fullmatch(tag):
        refuse(f"{shown(text)} has a tag that can't be one", HINT)
    registry, repository = _split(name)
    match = REGISTRY.fullmatch(registry)
    if not match or not 0 < int(match[2] or 1) < 65536:
        refuse(f"{shown(text)} names a registry that can't be one", HINT)
    if not REPOSITORY.fullmatch(repository) or len(f"{registry}/{repository}") > LONGEST_NAME:
        refuse(f"{shown(text)} is not the name of an image", HINT)
    return Reference(registry, repository, tag or (None if digest else LATEST), digest or None)


def _split(name: str) -> tuple[str, str]:
    """Registry and repository; a first part counts as a registry if it looks like a host."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, repository = first, rest
    else:
        registry, repository = HUB, name
    if registry in (HUB, f"index.{HUB}"):
        return HUB, repository if "/" in repository else f"{HUBS_OWN}/{repository}"
    return registry, repository


def _base_image(key: str, value: object) -> str:
    """A plain name is that of a file; with a '/' or ':' it is that of an image."""
    if not isinstance(value, str) or not is_reference(value):
        return file_name(key, value)
    try:
        read_reference(value)
    except InvalidData as error:
        refuse(f"{key} is no image: {error.chain[0]}", *error.chain[1:])
    return value


BASE_IMAGE = Key(
    "a file in base_images/, or an image such as registry:5000/app:1.4",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_REFERENCE},
    _base_image,
)
