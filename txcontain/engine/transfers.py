"""Volumes that are made by hand, and volumes as tarballs: written to a client, and made of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from txcontain.container.plan import VolumePlace
from txcontain.engine.manager import Manager
from txcontain.engine.volumes import users_of
from txcontain.errors import InUse, MachineAtFault, NoSuchVolume
from txcontain.host.os_errors import of_os
from txcontain.images.packing import Packer, Stream
from txcontain.later import poll
from txcontain.runtime.instance import Instance

FROZEN_WITHIN, LOOK_AFTER, LOOK_AT_MOST = 10.0, 0.001, 0.05  # seconds


def packer_of(manager: Manager) -> Packer:
    """What packs and unpacks for a manager."""
    return Packer(manager.layers.unpacker, os.path.join(manager.state, "run", "packing"))


async def make_volume(manager: Manager, name: str, bound: int | None) -> None:
    """Make an empty volume.

    :param bound: the most bytes that it may take
    Raises InvalidData; InUse if there is one of this name; MachineAtFault.
    """
    if not await manager.volumes.make(name, bound):
        raise InUse(f"there is a volume {name} already", "choose another name, or remove it")
    manager.journal.add("volume", f"{name} was made", volume=name)


async def export(manager: Manager, name: str, consumer: Any, pause: bool) -> None:
    """Write a volume to a consumer as a tarball.

    :param pause: whether the instances that use it stand still meanwhile
    Raises NoSuchVolume, also if nothing is in it yet; TooMany, MachineAtFault, CalledOff.
    """
    manager.volumes.get(name)
    place = manager.volumes.place(name)
    if not os.path.exists(place.data):
        raise NoSuchVolume(f"the volume {name} has no data yet", "its first use makes it")
    what = f"exporting the volume {name}"
    users = [one for one in manager.instances.values() if name in one.spec.volume_names]
    async with manager.volumes.exports.turn():
        if pause:
            async with manager.volumes.pausing, still(manager, users):
                await packer_of(manager).pack(what, place, consumer, still=True)
        else:
            await packer_of(manager).pack(what, place, consumer, still=not users)
    manager.journal.add("volume", f"{name} was exported", volume=name)


@asynccontextmanager
async def still(manager: Manager, instances: Sequence[Instance]) -> AsyncIterator[None]:
    """Freeze those of the instances that run, as long as this lasts.

    Raises MachineAtFault if this machine can't.
    """
    cgroups, frozen = manager.pool.cgroups, dict[str, Instance]()
    try:
        for one in instances:
            if one.running and one.processes and not one.paused:
                frozen[one.processes.token] = one
                cgroups.freeze(one.processes.token)
        async for _ in poll(manager.reactor, LOOK_AFTER, within=FROZEN_WITHIN, most=LOOK_AT_MOST):
            if all(map(cgroups.is_frozen, frozen)):
                break
        else:
            raise MachineAtFault("pausing instances", "some can't be stopped: the kernel is busy")
        yield
    except OSError as error:
        raise MachineAtFault("pausing instances", of_os(error)) from error
    finally:
        for token, one in frozen.items():
            if not one.paused:  # by a person, meanwhile
                with contextlib.suppress(OSError):  # it has ended
                    cgroups.thaw(token)


async def import_volume(manager: Manager, name: str, stream: Stream) -> None:
    """Make a volume of a tarball; half of one is never seen.

    Raises InvalidData, InUse if there is one that is not empty or that instances use,
    ConfigAtFault if this is no tarball, TooMany, MachineAtFault, CalledOff.
    """

    async def unpack(place: VolumePlace) -> None:
        packer, what = packer_of(manager), f"importing the volume {name}"
        await packer.unpack(what, stream, f"{place.folder}/data")
        if place.size is not None:
            await packer.move_to_disk(what, place)

    async with manager.volumes.imports.turn():
        await manager.volumes.put(name, unpack, lambda: users_of(name, manager.instances.values()))
    manager.pool.expect_nothing()  # a warm init may have mounted the one before
    manager.journal.add("volume", f"{name} was imported", volume=name)
