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


def users(manager: Manager) -> dict[str, list[str]]:
    """By secret, the names of the instances that have it, or will have it when they are started."""
    found: dict[str, list[str]] = {}
    for one in manager.instances.values():
        if not one.is_over:
            for name in dict.fromkeys(secret.name for secret in one.spec.secrets):
                found.setdefault(name, []).append(one.name)
    return found


async def remove(manager: Manager, name: str) -> None:
    """Remove a secret that no instance has.

    Raises NoSuchSecret, SecretInUse; MachineAtFault if it can't be removed.
    """
    if not SECRET_NAME.fullmatch(name):
        raise no_such_secret(name)
    if names := users(manager).get(name):
        error = SecretInUse(
            f"the secret {name} is in use", f"by {', '.join(names)}", "destroy them"
        )
        error.details["instances"] = names
        raise error
    try:
        await manager.threads(manager.vault.remove, name)
    except OSError as error:
        raise MachineAtFault(f"removing the secret {name}", of_os(error)) from error
    manager.journal.add("secret", f"{name} was removed", secret=name)
