"""What a manager can be asked about configs."""

from __future__ import annotations

from txcontain.container.spec import Spec, from_json
from txcontain.engine.manager import Manager
from txcontain.errors import ConfigInUse, MachineAtFault
from txcontain.host.os_errors import of_os


async def upload(manager: Manager, document: bytes) -> Spec:
    """Check and store a config.

    Raises InvalidData, ConfigExists; MachineAtFault if it can't be written.
    """
    spec = from_json(document)
    try:
        await manager.threads(manager.configs.add, spec.file_name, document)
    except OSError as error:
        raise MachineAtFault(f"keeping {spec.file_name}", of_os(error)) from error
    manager.journal.add("config", f"{spec.file_name} was uploaded", config=spec.file_name)
    return spec


def users(manager: Manager) -> dict[str, list[str]]:
    """By file name, the instances that were launched from a config, except those that are over."""
    found: dict[str, list[str]] = {}
    for one in manager.instances.values():
        if not one.inline and not one.is_over:
            found.setdefault(one.spec.file_name, []).append(one.name)
    return found


async def remove(manager: Manager, file_name: str) -> None:
    """Remove a config that no instance uses.

    Raises NoSuchConfig, ConfigInUse; MachineAtFault if it can't be removed.
    """
    if names := users(manager).get(file_name):
        error = ConfigInUse(f"{file_name} is in use", f"by {', '.join(names)}", "destroy them")
        error.details["instances"] = names
        raise error
    try:
        await manager.threads(manager.configs.remove, file_name)
    except OSError as error:
        raise MachineAtFault(f"removing {file_name}", of_os(error)) from error
    manager.journal.add("config", f"{file_name} was removed", config=file_name)
