"""What a client asks for when it has an instance launched."""

from __future__ import annotations

import json
import re
from typing import Any

from attrs import field, frozen

from txcontain.container.document import refuse, refuse_missing, refuse_unknown, shown
from txcontain.container.keys import Key, printable
from txcontain.container.spec import KEYS, Spec, from_json
from txcontain.errors import ConfigAtFault

# A hostname has up to 64 bytes (uname(2)), and a label of DNS up to 63 (RFC 1035).
INSTANCE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9_])?")
RESERVED = {"localhost"}  # /etc/hosts has it for every container
LAUNCH_KEYS = ("config", "major", "minor", "instance", "remove", "labels")
LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
MOST_LABELS, LONGEST_LABEL = 64, 255  # of an instance; characters of a value
OF_SERVICES = (
    "stack",
    "service",
    "revision",
    "replica",
    "due",
)  # by these the manager knows its own


@frozen
class LaunchRequest:
    """Which config to launch, and as what."""

    config: Spec | str  # a whole one, or the name of one that is kept
    major: str | None = None  # None: the newest
    minor: str | None = None
    instance: str | None = None  # its name; None: one is drawn
    remove: bool = False  # whether to remove it when it has ended for good
    stream: int | None = None  # the descriptor of a connection that it is to serve
    ago: float = 0.0  # seconds since this was asked for

    def check_stream(self, spec: Spec) -> None:
        """Raise ConfigAtFault if its config needs a connection, and there is none."""
        if spec.per_connection and self.stream is None:
            raise ConfigAtFault(
                f"{spec.file_name} is for one connection, and here is none",
                "write a stack with a service of it: it runs one for each connection to its ports",
            )

    labels: dict[str, str] = field(factory=dict)  # what else it is to be known by


def read_launch_request(values: dict[str, Any]) -> LaunchRequest:
    """The launch that an object asks for. Raises InvalidData."""
    refuse_unknown("a launch", values, LAUNCH_KEYS)
    refuse_missing(values, "config")
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
        labels=LABELS("labels", values.get("labels", {})),
    )


def _config(value: object) -> Spec | str:
    if isinstance(value, dict):
        return from_json(json.dumps(value).encode())
    if not isinstance(value, str):
        refuse(f"config must be the name of a config, or a whole one, not {shown(value)}")
    name: str = KEYS["name"]("config", value)
    return name


def check_labels(key: str, value: object) -> dict[str, str]:
    """Check labels, whoever gives them. Raises InvalidData."""
    if not isinstance(value, dict) or len(value) > MOST_LABELS:
        refuse(f"{key} must be an object of up to {MOST_LABELS} strings, not {shown(value)}")
    for name, text in value.items():
        if not LABEL.fullmatch(name):
            refuse(
                f"a label's name must be up to 63 letters, digits, '.', '_', '/' and '-', with a "
                f"letter or digit at both ends, not {shown(name)}"
            )
        if len(printable(f"the label {name}", text)) > LONGEST_LABEL:
            refuse(f"the label {name} is longer than {LONGEST_LABEL} characters")
    return value


def _clients_labels(key: str, value: object) -> dict[str, str]:
    labels = check_labels(key, value)
    for name in OF_SERVICES:
        if name in labels:
            refuse(f"the label {name} is only for instances of services", "choose another name")
    return labels


LABELS = Key(
    "NAME: VALUE, what else it is to be known by",
    {
        "type": "object",
        "propertyNames": {"pattern": f"^(?:{LABEL.pattern})$", "not": {"enum": [*OF_SERVICES]}},
        "additionalProperties": {"type": "string", "maxLength": LONGEST_LABEL},
        "maxProperties": MOST_LABELS,
    },
    _clients_labels,
)


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
