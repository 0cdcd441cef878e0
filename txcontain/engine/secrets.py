"""What a manager can be asked about secrets."""

from __future__ import annotations

from txcontain.container.small_files import LONGEST_SECRET, SECRET_NAME
from txcontain.engine.manager import Manager
from txcontain.engine.vault import no_such_secret
from txcontain.errors import InvalidData, MachineAtFault, SecretInUse, TooLarge
from txcontain.host.os_errors import of_os


async def put(manager: Manager, name: str, content: bytes) -> None:
    """Keep a secret, in place of an earlier one.

    Raises InvalidData, TooLarge; MachineAtFault if it can't be written.
    """
    if not SECRET_NAME.fullmatch(name):
        raise InvalidData("the name of a secret is up to 63 letters, digits, '.', '_' and '-'")
    if len(content) > LONGEST_SECRET:
        raise TooLarge(f"a secret has up to {LONGEST_SECRET} bytes")
    if not content:
        raise InvalidData("the secret is empty")
    try:
        await manager.threads(manager.vault.put, name, content)
    except OSError as error:
        raise MachineAtFault(f"keeping the secret {name}", of_os(error)) from error
    manager.journal.add("secret", f"{name} was set", secret=name)


def users_of(manager: Manager, name: str) -> list[str]:
    """The names of the instances that have a secret, or will have it when they are started."""
    return [
        one.name
        for one in manager.instances.values()
        if one.state != "ended" and name in (secret.name for secret in one.spec.secrets)
    ]


async def remove(manager: Manager, name: str) -> None:
    """Remove a secret that no instance has.

    Raises NoSuchSecret, SecretInUse; MachineAtFault if it can't be removed.
    """
    if not SECRET_NAME.fullmatch(name):
        raise no_such_secret(name)
    users = users_of(manager, name)
    if users:
        error = SecretInUse(
            f"the secret {name} is in use", f"by {', '.join(users)}", "destroy them"
        )
        error.details["instances"] = users
        raise error
    try:
        await manager.threads(manager.vault.remove, name)
    except OSError as error:
        raise MachineAtFault(f"removing the secret {name}", of_os(error)) from error
    manager.journal.add("secret", f"{name} was removed", secret=name)
