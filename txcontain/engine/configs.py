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


def users_of(manager: Manager, file_name: str) -> list[str]:
    """The names of the instances that were launched from a config, except those that ended."""
    return [
        one.name
        for one in manager.instances.values()
        if one.spec.file_name == file_name and not one.inline and one.state != "ended"
    ]


async def remove(manager: Manager, file_name: str) -> None:
    """Remove a config that no instance uses.

    Raises NoSuchConfig, ConfigInUse; MachineAtFault if it can't be removed.
    """
    users = users_of(manager, file_name)
    if users:
        error = ConfigInUse(f"{file_name} is in use", f"by {', '.join(users)}", "destroy them")
        error.details["instances"] = users
        raise error
    try:
        await manager.threads(manager.configs.remove, file_name)
    except OSError as error:
        raise MachineAtFault(f"removing {file_name}", of_os(error)) from error
    manager.journal.add("config", f"{file_name} was removed", config=file_name)
