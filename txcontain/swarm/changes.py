"""What an instance of a swarm has changed of its image, as the Docker of its node tells it.

docs.docker.com/reference/api/engine: "Get changes on a container's filesystem".
"""

from __future__ import annotations

from typing import Any

from txcontain.engine.changes import ADDED, CHANGED, DELETED, LONGEST, MOST
from txcontain.errors import NotRunning
from txcontain.swarm.client import Refused
from txcontain.swarm.mapping import Json
from txcontain.swarm.places import Place

KINDS = (CHANGED, ADDED, DELETED)  # by the numbers that Docker has for them


async def changes(place: Place) -> dict[str, Any]:
    """The changes by path, and whether these are all.

    Raises NotRunning, Unavailable, MachineAtFault.
    """
    name, path = place.instance.name, f"/containers/{place.container}/changes"
    room = LONGEST

    def keep(told: Json) -> dict[str, str] | None:
        nonlocal room
        room -= len(told["Path"])
        return {"kind": KINDS[told["Kind"]], "path": told["Path"]} if room >= 0 else None

    try:
        told = await place.docker.list(path, keep, doing=f"asking what {name} has changed")
    except Refused as error:
        if error.status != 404:
            raise
        raise NotRunning(f"{name} does not run any more", *error.chain) from None
    found = [one for one in told[:MOST] if one]
    found.sort(key=lambda one: one["path"])
    return {"changes": found, "complete": len(found) == len(told)}
