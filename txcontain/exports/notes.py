"""What a target can't express: it is said, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import NOTHING, fields

from txcontain.container.health import Health
from txcontain.container.spec import Limits, Spec
from txcontain.exports.subject import Subject, in_order

# Keys that no target has, and why.
NOWHERE = {
    "pull": "the base image is in what is exported, and no registry is asked for it",
    "manage": "only txcontain has a manager that a container may ask",
    "per_connection": "it is started once, and not for each connection",
    "limits.disk": "what is written goes to the disk, and has no bound of its own",
    "disk_size": "what is written has no bound of its own",
}
WITHIN: Mapping[str, type[Any]] = {"": Spec, "limits": Limits, "health": Health}


def is_set(spec: Spec, key: str) -> bool:
    """Whether a config has another value than the default for a key, such as limits.memory."""
    above, _, name = key.rpartition(".")
    holder = getattr(spec, above) if above else spec
    if holder is None:
        return False
    default = getattr(fields(WITHIN[above]), name).default
    return bool(default is NOTHING or getattr(holder, name) != default)


def notes_on(spec: Spec, table: Mapping[str, str]) -> list[str]:
    """A sentence for each key of the table that a config has set."""
    table = {**NOWHERE, **table}
    return [f"{key}: {why}" for key, why in table.items() if is_set(spec, key)]


def made_of(spec: Spec) -> list[str]:
    """What each layer of a config's image is, for a person; the lowest first."""
    return [spec.base_image, *(f"{mount.tarball} at {mount.target}" for mount in in_order(spec))]


def heading(subject: Subject, command: str, notes: Sequence[str]) -> str:
    """The comments at the top of a document: what it is, what it needs, and what it can't say."""
    spec = subject.spec
    name = f"{spec.name} {spec.major} {spec.minor}"
    lines = [
        f"{name}, as `txcontain export {name} --to {command}` writes it.",
        f"The image {subject.image} holds {', '.join(made_of(spec))}.",
        f"`txcontain export {name} --to docker-archive FILE` makes it.",
    ]
    return comments(lines, notes)


def comments(lines: Sequence[str], notes: Sequence[str]) -> str:
    """Lines of a document that its reader skips: these, and what could not be said."""
    if notes:
        lines = [*lines, "", "What could not be said here:", *(f"- {note}" for note in notes)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
