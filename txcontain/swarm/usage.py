"""What instances of a swarm use, each as the Docker of its node tells it.

docs.docker.com/reference/api/engine: "Get container stats based on resource usage".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.defer import TimeoutError

from txcontain.engine.interface import Told
from txcontain.errors import Error, NotRunning
from txcontain.later import bounded, slices, together
from txcontain.swarm.client import Docker, Manager, Refused
from txcontain.swarm.mapping import Json, limits_of
from txcontain.swarm.places import Place, places
from txcontain.swarm.records import Seen, states

AT_ONCE = 10  # of the containers of one Docker
WITHIN = 10.0  # seconds, for all of one Docker
NAMED = 5  # of those that are left out


async def usage_of_all(reactor: Any, docker: Docker, seen: Seen) -> Told:
    """What all that run use, in the order of their launch; a note names those that are left out."""
    found, complaints = await places(docker, seen)
    of_docker: dict[Manager, list[Place]] = {}
    for place in found.values():
        if place:
            of_docker.setdefault(place.manager, []).append(place)
    failures: list[str] = []
    every = (_of_docker(reactor, some, failures) for some in of_docker.values())
    told = {name: used for one in await together(*every) for name, used in one.items()}
    out_of_reach = [f"{name} on {states(seen)[name].node}" for name, at in found.items() if not at]
    failed = [name for name, place in found.items() if place and name not in told]
    notes = [
        *_left_out(out_of_reach, ["no --docker leads to the Docker there", *complaints]),
        *_left_out(failed, failures),
    ]
    return Told([used for name in found if (used := told.get(name))], notes=notes)


async def _of_docker(
    reactor: Any, wanted: Sequence[Place], complaints: list[str]
) -> dict[str, Json | None]:
    """What these use, by name, and None for those that have ended; those of before it failed."""
    told: dict[str, Json | None] = {}

    async def ask(place: Place) -> None:
        told[place.instance.name] = await _unless_ended(place)

    async def ask_all() -> None:
        async for some in slices(reactor, wanted, AT_ONCE):
            await together(*map(ask, some))

    try:
        await bounded(reactor, WITHIN, ask_all())
    except TimeoutError:
        address = wanted[0].manager.address
        complaints.append(f"{address} does not tell of all within {WITHIN:g} seconds")
    except Error as error:
        complaints.append(str(error))
    return told


def _left_out(names: Sequence[str], why: Sequence[str]) -> Iterator[str]:
    if names:
        more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
        yield f"left out: {', '.join([*names[:NAMED], *more])}: {'; '.join(why[:NAMED])}"


async def _unless_ended(place: Place) -> Json | None:
    try:
        return await usage(place)
    except NotRunning:
        return None


async def usage(place: Place) -> Json:
    """What an instance uses. Raises NotRunning, Unavailable, MachineAtFault."""
    name, path = place.instance.name, f"/containers/{place.container}/stats"
    asked = {"stream": False, "one-shot": True}
    try:
        told = await place.docker.ask("GET", path, doing=f"asking what {name} uses", **asked)
    except Refused as error:
        if error.status != 404:
            raise
        raise NotRunning(f"{name} does not run any more", *error.chain) from None
    limits = limits_of(place.instance.service)
    return {**place.instance.summary, "limits": limits, **figures(told), "pressure": {}}


def figures(told: Json) -> dict[str, int]:
    """What Docker tells in our words; it leaves out what is not counted, and so is it here."""
    memory, networks = told.get("memory_stats") or {}, (told.get("networks") or {}).values()
    time = (told.get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage")
    disks = (told.get("blkio_stats") or {}).get("io_service_bytes_recursive")
    found = {
        "memory": memory.get("usage"),
        "memory_peak": memory.get("max_usage"),
        "cpu_usec": None if time is None else time // 1000,
        "pids": (told.get("pids_stats") or {}).get("current"),
        "io_read": None if disks is None else _moved(disks, "read"),
        "io_written": None if disks is None else _moved(disks, "write"),
        "network_received": sum(one["rx_bytes"] for one in networks) if networks else None,
        "network_sent": sum(one["tx_bytes"] for one in networks) if networks else None,
    }
    return {name: number for name, number in found.items() if number is not None}


def _moved(disks: Sequence[Json], way: str) -> int:
    """Bytes; version 1 of cgroups writes the way with a capital letter."""
    return sum(one["value"] for one in disks if one["op"].lower() == way)
