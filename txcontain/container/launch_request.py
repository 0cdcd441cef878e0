"""What a client asks for when it has an instance launched."""

from __future__ import annotations

import json
import re
from typing import Any

from attrs import frozen

from txcontain.container.document import refuse, shown
from txcontain.container.spec import KEYS, Spec, from_json

# A hostname has up to 64 bytes (uname(2)), and a label of DNS up to 63 (RFC 1035).
INSTANCE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9_])?")
RESERVED = {"localhost"}  # /etc/hosts has it for every container
LAUNCH_KEYS = ("config", "major", "minor", "instance", "remove")


@frozen
class LaunchRequest:
    """Which config to launch, and as what."""

    config: Spec | str  # a whole one, or the name of one that is kept
    major: str | None = None  # None: the newest
    minor: str | None = None
    instance: str | None = None  # its name; None: one is drawn
    remove: bool = False  # whether to remove it when it has ended for good


def read_launch_request(values: dict[str, Any]) -> LaunchRequest:
    """The launch that an object asks for. Raises InvalidData."""
    unknown = sorted(set(values) - set(LAUNCH_KEYS))
    if unknown:
        known = "the keys are " + ", ".join(LAUNCH_KEYS)
        refuse(f"a launch has no key {shown(unknown[0])}", known)
    if "config" not in values:
        refuse("the key 'config' is missing")
    config, versions = _config(values["config"]), {"major", "minor"} & set(values)
    if isinstance(config, Spec) and versions:
        refuse("a whole config has its own major and minor: leave out those of the launch")
    if "minor" in values and "major" not in values:
        refuse("a launch with a minor has a major too")
    checked = {key: KEYS[key](key, values[key]) for key in versions}
    name, remove = values.get("instance"), values.get("remove", False)
    if not isinstance(remove, bool):
        refuse(f"remove must be true or false, not {shown(remove)}")
    return LaunchRequest(
        config,
        **checked,
        instance=None if name is None else instance_name("instance", name),
        remove=remove,
    )


def _config(value: object) -> Spec | str:
    if isinstance(value, dict):
        return from_json(json.dumps(value).encode())
    if not isinstance(value, str):
        refuse(f"config must be the name of a config, or a whole one, not {shown(value)}")
    name: str = KEYS["name"]("config", value)
    return name


def instance_name(key: str, value: object) -> str:
    """Check the name of an instance. Raises InvalidData."""
    if not isinstance(value, str) or not INSTANCE_NAME.fullmatch(value):
        refuse(
            f"{key} must be up to 63 letters, digits, '.', '_' and '-', with a letter, digit or "
            f"'_' at both ends, not {shown(value)}"
        )
    if value.lower() in RESERVED:
        refuse(f"no instance can have the name {value}: it stands for the container itself")
    return value
