"""The configs that a swarm keeps, as it keeps configs of its own: by their labels."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from txcontain.container.launch_request import LaunchRequest
from txcontain.container.spec import from_json
from txcontain.engine.store import FILE_NAME, Key, in_order, newest, no_such_config
from txcontain.errors import ConfigExists, ConfigInUse
from txcontain.swarm import mapping
from txcontain.swarm.client import Docker, Refused
from txcontain.swarm.mapping import CONFIG
from txcontain.swarm.records import Seen, instances


async def upload(docker: Docker, document: bytes) -> str:
    """Check and keep a config; returns its file name.

    Raises InvalidData, ConfigAtFault, ConfigExists, Unavailable, MachineAtFault.
    """
    spec = from_json(document)
    mapping.check(spec)
    asked = {
        "Name": mapping.name_of_config(spec.file_name),
        "Labels": {CONFIG: spec.file_name},
        "Data": base64.b64encode(document).decode(),
    }
    try:
        await docker.ask("POST", "/configs/create", asked, doing=f"keeping {spec.file_name}")
    except Refused as error:
        if error.status != 409:
            raise
        hint = "change its minor version, and upload it again"
        raise ConfigExists(f"{spec.file_name} exists already", hint) from None
    return spec.file_name


async def names(docker: Docker) -> list[str]:
    """The file names of the configs that are kept, sorted."""
    kept = await docker.ask(
        "GET", "/configs", doing="listing the configs", filters={"label": [CONFIG]}
    )
    return sorted(one["Spec"]["Labels"][CONFIG] for one in kept or ())


async def read(docker: Docker, file_name: str) -> bytes:
    """A config as it was uploaded. Raises NoSuchConfig, Unavailable, MachineAtFault."""
    path = f"/configs/{mapping.name_of_config(file_name)}"
    try:
        kept = await docker.ask("GET", path, doing=f"reading {file_name}")
    except Refused as error:
        if error.status != 404:
            raise
        raise no_such_config(file_name) from None
    return base64.b64decode(kept["Spec"]["Data"])


def with_users(names: Sequence[str], seen: Seen) -> list[tuple[Key, list[str]]]:
    """Configs by name, their versions as numbers, each with its instances."""
    return [(key, users(key, seen)) for key in in_order(names)]


def key_of(file_name: str) -> Key:
    """The name, major and minor of a config, by its file name. Raises NoSuchConfig."""
    match = FILE_NAME.fullmatch(file_name)
    if match is None:
        raise no_such_config(file_name)
    return match[1], match[2], match[3]


async def chosen(docker: Docker, asked: LaunchRequest) -> Key:
    """Which of the configs that are kept is to be launched: the newest if it is not said.

    Raises NoSuchConfig, Unavailable, MachineAtFault.
    """
    name = str(asked.config)
    if asked.major is not None and asked.minor is not None:
        return name, asked.major, asked.minor
    return newest(in_order(await names(docker)), name, asked.major)


def users(key: Key, seen: Seen) -> list[str]:
    """The instances of a config, also those that have ended: to inspect one takes its config."""
    return [one.name for one in instances(seen) if one.key == key and not one.whole]


async def remove(docker: Docker, file_name: str, seen: Seen) -> None:
    """Remove a config that no instance has.

    Raises NoSuchConfig, ConfigInUse, Unavailable, MachineAtFault.
    """
    if found := users(key_of(file_name), seen):
        error = ConfigInUse(f"{file_name} is in use", f"by {', '.join(found)}", "destroy them")
        error.details["instances"] = found
        raise error
    path = f"/configs/{mapping.name_of_config(file_name)}"
    try:
        await docker.ask("DELETE", path, doing=f"removing {file_name}")
    except Refused as refused:
        if refused.status != 404:
            raise
        raise no_such_config(file_name) from None
