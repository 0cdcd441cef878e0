"""How to make by hand what a manager makes: containers, and the layers of their images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from secrets import token_hex

from txcontain.container.blueprint import Blueprint
from txcontain.container.defaults import with_defaults
from txcontain.container.explain import Around, explain, explain_unpacking
from txcontain.container.spec import Spec, from_json
from txcontain.engine.manager import Manager
from txcontain.errors import ConfigAtFault
from txcontain.images.unpack import programs_for
from txcontain.images.unpacking_plan import make_unpacking_plan
from txcontain.runtime.instance import Instance
from txcontain.runtime.prepared import new_name

BESIDE = "/by-hand"  # a folder that the script has another name for


def explain_instance(manager: Manager, instance: Instance) -> str:
    """The container of an instance as a shell script, which can run beside it.

    Raises MachineAtFault, InvalidData.
    """
    spec, ids = instance.spec, instance.ids
    return _explained(manager, spec, instance.layers, ids, instance.name)


async def explain_config(manager: Manager, file_name: str) -> str:
    """The container that a launch of a kept config would make, which unpacks its images.

    Raises NoSuchConfig, ConfigAtFault, MachineAtFault, InvalidData.
    """
    spec = from_json(manager.read_config(file_name))
    with manager.holding() as layers:
        spec = with_defaults(spec, await manager.get_layers(spec, layers))
        return _explained(manager, spec, layers, manager.free_ids(spec), new_name(spec.name))


def _explained(
    manager: Manager, spec: Spec, layers: Sequence[str], ids: int | None, name: str
) -> str:
    link = manager.network.spare() if spec.network == "private" else None
    blueprint: Blueprint = manager.blueprint(spec, layers, link.address if link else None, ids)
    group = manager.pool.cgroups.by_hand(spec.limits)
    around = Around(blueprint.folder(name), group, manager.network.bridge.name)
    return explain(blueprint.plan(name), around)


async def explain_unpacking_of(manager: Manager, name: str) -> str:
    """How a tarball becomes a layer: one of the base images or, if there is none, of mountables.

    Raises ConfigAtFault, MachineAtFault.
    """
    tops = map(os.path.abspath, (manager.base_images, manager.mountables))
    paths = [os.path.join(top, name) for top in tops if os.path.basename(name) == name]
    path = next(filter(os.path.isfile, paths), None)
    if path is None:
        raise ConfigAtFault(
            f"there is no tarball {name}", "`txcontain df -v` shows those there are"
        )
    tar, decompress = await manager.threads(programs_for, path)
    hidden = f"/.{token_hex(16)}"
    folders = f"{BESIDE}/layer", f"{BESIDE}/scratch"
    plan = make_unpacking_plan(path, *folders, hidden, tar, decompress, manager.host)
    return explain_unpacking(plan, BESIDE, hidden)
