"""The disk: what takes how much of it, and the removal of what is not needed any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from attrs import define

from txcontain.engine.manager import Manager
from txcontain.engine.volumes import users_of
from txcontain.errors import InUse, NoSuchInstance, NoSuchVolume
from txcontain.images.layers import KEEP_NONE
from txcontain.images.sizes import Meter
from txcontain.logs.logd import LOG
from txcontain.runtime.instance import Instance

MOST_IMAGES = 10_000  # files that are looked at in each of the two folders


@define
class Pruned:
    """What a prune removes: instances that have ended, and what nothing uses."""

    instances: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    volumes: list[dict[str, Any]]

    @property
    def bytes(self) -> int:
        """How much that is together."""
        everything = (*self.instances, *self.layers, *self.volumes)
        return sum(one["bytes"] or 0 for one in everything)


async def df(manager: Manager) -> dict[str, Any]:
    """What takes how many bytes: images, layers, volumes, and each instance with its logs.

    ``whole`` is false if something has too many files to look at all of them.
    """
    meter = Meter()
    everyone = list(manager.instances.values())
    folders = manager.base_images, manager.mountables
    images = [image for folder in folders for image in await manager.threads(_images, folder)]
    instances = await manager.threads(_instances, meter, everyone)
    in_use = manager.layers_in_use()
    layers = [
        {**_layer(manager, path), "used": path in in_use}
        for path in await manager.threads(manager.layers.paths)
    ]
    names = sorted(manager.volumes.known)
    volumes = [
        {**told, "used": bool(users_of(told["volume"], manager.instances.values()))}
        for told in await _volumes(manager, names)
    ]
    return {
        "images": images,
        "layers": layers,
        "volumes": volumes,
        "instances": instances,
        "whole": meter.whole,
    }


def unpacking(manager: Manager) -> list[dict[str, Any]]:
    """The tarballs that are being unpacked now, with how far that is."""
    now, under_way = manager.reactor.seconds(), manager.layers.unpacker.under_way
    return [
        {"tarball": os.path.basename(one.tarball), "seconds": now - one.begun, "bytes": one.size}
        for one in under_way.values()
    ]


def pulling(manager: Manager) -> list[dict[str, Any]]:
    """The images that are being pulled now, with how far that is."""
    now = manager.reactor.seconds()
    return [
        {"image": one.name, "seconds": now - one.begun, "bytes": one.taken, "size": one.size}
        for one in manager.arrivals.pulls.values()
    ]


async def prune(manager: Manager, dry_run: bool = False, volumes: bool = False) -> Pruned:
    """Remove the instances that have ended, then the layers that nothing uses, and the volumes if
    these are to go too.

    With ``dry_run``, only say which they are. A stopped instance is kept, and what it uses.

    Raises MachineAtFault if something can't be removed.
    """
    ended = [one for one in manager.instances.values() if one.is_disposable]
    instances = await manager.threads(_instances, Meter(), ended)
    used = manager.layers_in_use
    unused = await manager.layers.superfluous(used, KEEP_NONE)
    layers = {os.path.basename(path): _layer(manager, path) for path in unused}
    idle = await _volumes(manager, _unused_volumes(manager, ended)) if volumes else []
    if not dry_run:
        gone = [one.name for one in ended if await _destroy(manager, one)]
        removed = await manager.layers.remove_unused(used, KEEP_NONE)
        instances = [told for told in instances if told["instance"] in gone]
        layers = {name: layers[name] for name in removed if name in layers}
        for told in layers.values():
            manager.journal.add("layer", f"removed {told['layer']}, which nothing uses")
        idle = [told for told in idle if await _remove_volume(manager, told["volume"])]
    return Pruned(instances, list(layers.values()), idle)


def _unused_volumes(manager: Manager, ended: Sequence[Instance]) -> list[str]:
    """The names of the volumes that no instance uses but these."""
    others = [one for one in manager.instances.values() if one not in ended]
    return [name for name in sorted(manager.volumes.known) if not users_of(name, others)]


async def _volumes(manager: Manager, names: Sequence[str]) -> list[dict[str, Any]]:
    sizes = await manager.volumes.sizes(names)
    return [{"volume": name, "bytes": size} for name, size in zip(names, sizes, strict=True)]


async def _remove_volume(manager: Manager, name: str) -> bool:
    """Remove a volume, if nobody uses it by now."""
    try:
        await manager.remove_volume(name)
    except (NoSuchVolume, InUse):
        return False
    return True


async def _destroy(manager: Manager, instance: Instance) -> bool:
    """Destroy an instance, if nobody else has removed or started it meanwhile."""
    if not instance.is_disposable:
        return False
    try:
        await manager.destroy(instance.name)
    except NoSuchInstance:
        return False
    return True


def _layer(manager: Manager, path: str) -> dict[str, Any]:
    known = manager.layers.metadata(path)
    tarball = os.path.basename(known.tarball)
    return {"layer": os.path.basename(path), "tarball": tarball, "bytes": known.size}


def _images(folder: str) -> list[dict[str, Any]]:
    """The tarballs in a folder: whatever has an ending."""
    found = []
    with os.scandir(folder) as entries:
        for _, entry in zip(range(MOST_IMAGES), entries, strict=False):
            if "." in entry.name.strip(".") and entry.is_file():
                size = entry.stat().st_blocks * 512
                where = {"folder": os.path.basename(folder), "image": _text(entry.name)}
                found.append({**where, "bytes": size})
    return sorted(found, key=lambda one: str(one["image"]))


def _text(name: str) -> str:
    """A file's name as text, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _instances(meter: Meter, instances: Sequence[Instance]) -> list[dict[str, Any]]:
    """What each takes on the disk; a part of it are its logs."""
    return [
        {
            "instance": one.name,
            "state": one.state,
            "bytes": meter.measure(one.folder),
            "logs": meter.measure(one.path(LOG)),
        }
        for one in instances
    ]
