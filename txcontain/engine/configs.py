"""What a manager can be asked about configs."""

from __future__ import annotations

from txcontain.container.spec import Spec, from_json
from txcontain.engine.manager import Manager
from txcontain.errors import MachineAtFault
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
