"""Gives an instance another name."""

from __future__ import annotations

import os
from functools import partial

from txcontain.engine.life import Notes
from txcontain.engine.manager import Manager
from txcontain.errors import CalledOff, MachineAtFault, WrongState
from txcontain.host.os_errors import of_os
from txcontain.runtime.instance import Instance

# States in which nothing is being made in its folder.
STEADY = ("running", "ended", "failed", "stopped")


async def rename(manager: Manager, instance: Instance, to: str) -> Notes:
    """Give an instance another name. The hostname inside stays until its next start.

    Raises WrongState, InstanceExists, CalledOff; ConfigAtFault if the name is taken on the private
    network; MachineAtFault if the folder can't be renamed.
    """
    async with instance.moving, instance.removing:
        before = instance.name
        _check(manager, instance, to)
        await _move(manager, instance, to)
        _give_name(manager, instance, to)
    manager.journal.add("renamed", f"it was {before}", instance=to)
    return []


def _check(manager: Manager, instance: Instance, to: str) -> None:
    if manager.instances.get(instance.name) is not instance or instance.ending:
        raise CalledOff(f"{instance.name} was destroyed meanwhile")
    if instance.state not in STEADY or (instance.ended and instance.remove):
        hint = "wait until it runs, or has ended and is kept"
        raise WrongState(f"{instance.name} can't be renamed: it is {instance.state}", hint)
    manager.check_that_it_is_free(to)
    if instance.address and instance.running:
        manager.network.check_name(to, instance.spec.name)


async def _move(manager: Manager, instance: Instance, to: str) -> None:
    """Rename the folder; what the log process writes to is renamed by it, so it loses no line."""
    old, new = instance.folder, os.path.join(manager.folder, to)
    processes = instance.processes
    try:
        if processes is not None and instance.running:
            await manager.pool.written()  # what is being written now
            await manager.pool.log_process.rename(processes.token, to)
            await manager.pool.writes(os.stat, new)
        else:
            await manager.pool.standby.drop(instance.name)
            await manager.pool.writes(os.rename, old, new)
    except OSError as error:
        raise MachineAtFault(f"renaming {instance.name}", of_os(error)) from error


def _give_name(manager: Manager, instance: Instance, to: str) -> None:
    before = instance.name
    in_order = {to if name == before else name: one for name, one in manager.instances.items()}
    manager.instances.clear()
    manager.instances.update(in_order)
    blueprint = manager.blueprint(instance.spec, instance.layers, instance.address, instance.ids)
    instance.be_called(to, blueprint.folder(to), blueprint.plan(to))
    instance.make_link = partial(manager.network.connect, to)
    manager.network.rename(before, to)
    manager.history.rename(before, to)
    manager.pool.log_process.renamed(before, to, instance.spec.longest_log)
    instance.save()
