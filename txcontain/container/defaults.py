"""What an image has a container be, as far as its config does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import evolve, field, frozen

from txcontain.container.document import read_object, refuse, shown
from txcontain.container.spec import KEYS, Spec, from_json

# The keys of a config for which an image may have a default.
FROM_IMAGES = (
    "command",
    "startup_env",
    "startup_owner",
    "workdir",
    "stop_signal",
    "health",
    "writable_root",
)
PROGRAMS = ("command", "startup_script")  # an image's program is for a config that has neither
CONFIG, IMAGE, BOTH, DEFAULT = "config", "image", "config and image", "default"


@frozen(eq=False)
class Used:
    """The image that a launch has used; the same object for launches of the same name and image."""

    name: str  # as the config has it
    digest: str
    defaults: Mapping[str, Any] = field(factory=dict)  # by the key of a config, as it is written
    exposed: tuple[str, ...] = ()  # the ports at which it serves, for people: PORT/PROTOCOL
    volumes: tuple[str, ...] = ()  # the paths at which it keeps data, for people


def with_defaults(spec: Spec, image: Used | None) -> Spec:
    """A spec with the defaults of its image, if it has one. To add them again changes nothing.

    Raises InvalidData if the image has a value that a config can't have.
    """
    return evolve(spec, **_checked(spec.document, image)) if image else spec


@lru_cache(maxsize=16)  # as from_json has: it would be a tenth of what the manager does in a launch
def _checked(document: str, image: Used) -> dict[str, Any]:
    """What an image says, as far as a config leaves room for it, by the name of the key."""
    own = from_json(document.encode())
    given, checked = _given(own), {}
    for key in _applying(given, image.defaults):
        try:
            checked[key] = KEYS[key](key, image.defaults[key])
        except Exception as error:
            refuse(f"the image {image.name} can't be run as it says", str(error))
    if "startup_env" in checked:
        checked["startup_env"] += own.startup_env
    return checked


def sources(spec: Spec, image: Used | None) -> dict[str, str]:
    """Where the value of each key comes from that an image can have a default for."""
    given = _given(spec)
    applying = _applying(given, image.defaults) if image else []
    told = {}
    for key in (*FROM_IMAGES, "startup_script"):
        said = IMAGE if key in applying else DEFAULT
        told[key] = (BOTH if key in applying else CONFIG) if key in given else said
    return told


def _given(spec: Spec) -> set[str]:
    return set(read_object(spec.document.encode()))


def _applying(given: set[str], defaults: Mapping[str, Any]) -> list[str]:
    """Those of an image's defaults that its config leaves room for: variables are added."""
    hidden = given - {"startup_env"}
    if given & set(PROGRAMS):
        hidden.add("command")
    return [key for key in FROM_IMAGES if key in defaults and key not in hidden]


def read_used(values: object) -> Used | None:
    """The image of a launch, as a record has it. Raises InvalidData."""
    if values is None:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("defaults"), dict):
        refuse(f"image must be an object, not {shown(values)}")
    exposed, volumes = (tuple(map(str, values.get(name, ()))) for name in ("exposed", "volumes"))
    name, digest = (str(values[key]) for key in ("name", "digest"))
    return Used(name, digest, values["defaults"], exposed, volumes)
