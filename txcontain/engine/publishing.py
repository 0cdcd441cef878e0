"""Publishes ports of an instance that runs, and withdraws them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from txcontain.container.spec import Port
from txcontain.engine.life import Notes, processes_of
from txcontain.engine.manager import Manager
from txcontain.engine.ports import check_ports
from txcontain.errors import MachineAtFault, WrongState
from txcontain.network.doorways import WAIT_WITHIN
from txcontain.runtime import diagnose
from txcontain.runtime.instance import Instance

Ports = Sequence[Port]


async def change_ports(
    manager: Manager, instance: Instance, publish: Ports = (), withdraw: Sequence[str] = ()
) -> Notes:
    """Change which ports of the host lead to an instance, at once; its later starts keep them.

    ``withdraw``: each as it was published, or only HOST or ADDRESS:HOST.

    Raises NotRunning, WrongState; ConfigAtFault if a port is taken; MachineAtFault.
    """
    async with instance.moving:
        _check_network(instance)
        gone = _named(instance, withdraw)
        left = [port for port in instance.spec.ports if port not in gone]
        new = [port for port in publish if port not in left]
        await _check_free(manager, instance, left, new)
        processes_of(instance)  # it may have ended meanwhile
        await _set_ports(manager, instance, tuple(left + new))
    said = [f"published {port}" for port in new] + [f"withdrew {text}" for text in withdraw]
    manager.journal.add("ports", ", ".join(said) or "as they were", instance=instance.name)
    return []


def tell_unserved(manager: Manager, service: str, port: Port, count: int) -> None:
    """The journal says how many connections to a service's port were closed."""
    why = f"no instance of it has served within {WAIT_WITHIN:.0f} s"
    text = f"connections to port {port} were closed: {count}, as {why}"
    manager.journal.add("unserved", text, service=service)


def _check_network(instance: Instance) -> None:
    processes_of(instance)
    if instance.spec.network != "private":
        raise WrongState(
            f"{instance.name} has no address of its own to publish ports of",
            'write "network": "private" in its config',
        )


def _named(instance: Instance, texts: Sequence[str]) -> list[Port]:
    """The published ports that these texts name.

    Raises WrongState if there is none.
    """
    found = []
    for text in texts:
        named = [port for port in instance.spec.ports if text in port.forms]
        if not named:
            ports = ", ".join(map(str, instance.spec.ports)) or "none"
            raise WrongState(f"{instance.name} does not publish {text}", f"it publishes {ports}")
        found += named
    return found


async def _check_free(manager: Manager, instance: Instance, left: Ports, new: Ports) -> None:
    for port in new:
        if any(port.clashes_with(other) for other in left):
            raise diagnose.of_port(port, f"the instance {instance.name}")
    wanted = evolve(instance.spec, ports=tuple(new))
    others = {name: one for name, one in manager.instances.items() if one is not instance}
    await check_ports(wanted, others, manager.kernel, manager.threads)


async def _set_ports(manager: Manager, instance: Instance, ports: tuple[Port, ...]) -> None:
    before = instance.spec
    instance.spec = evolve(before, ports=ports)  # at once: from now on no one else gets them
    try:
        await manager.network.publish(instance.name, ports)
    except MachineAtFault:
        instance.spec = before
        raise
    instance.save()
