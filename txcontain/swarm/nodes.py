"""The nodes of a swarm: how they stand, and what can be asked of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from txcontain.engine.names import meant
from txcontain.errors import Ambiguous, MachineAtFault, NoSuchNode
from txcontain.swarm.client import OUT_OF_SEQUENCE, Docker, Refused
from txcontain.swarm.mapping import Json, address_of, state_of

TRIES = 5  # to change a node that something else changes at the same time


@frozen
class Node:
    """One host of a swarm."""

    id: str
    node: str  # its name
    address: str
    state: str  # ready, down, disconnected or unknown
    availability: str  # active; drain: nothing is to run there; pause: nothing more is to
    role: str  # manager or worker
    leader: bool
    engine: str  # version of its Docker
    labels: Mapping[str, str]


def read_node(told: Json) -> Node:
    """A node as Docker tells it."""
    spec, description = told["Spec"], told.get("Description") or {}
    return Node(
        told["ID"],
        description.get("Hostname") or told["ID"],  # until it has said what it is
        address_of(told),
        told["Status"]["State"],
        spec["Availability"],
        spec["Role"],
        bool((told.get("ManagerStatus") or {}).get("Leader")),
        (description.get("Engine") or {}).get("EngineVersion", ""),
        dict(spec.get("Labels") or {}),
    )


def records(nodes: Iterable[Node], tasks: Iterable[Json]) -> list[dict[str, Any]]:
    """All nodes by name, and how many of these tasks run on each."""
    run = Counter(task.get("NodeID") for task in tasks if state_of(task) == "running")
    ordered = sorted(nodes, key=lambda one: (one.node, one.id))
    return [{**asdict(one), "instances": run[one.id]} for one in ordered]


def find(nodes: Sequence[Node], name: str) -> Node:
    """The node of this name, or of this id. Raises NoSuchNode, Ambiguous."""
    found = [one for one in nodes if name in (one.id, one.node)]
    if not found:
        names = [one.node for one in nodes]
        raise NoSuchNode(f"there is no node {name}", *meant(name, names))
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise Ambiguous(f"{len(found)} nodes are called {name}", f"name one by its id: {ids}")
    return found[0]


async def listed(docker: Docker) -> list[Node]:
    """The nodes that there are now. Raises Unavailable, MachineAtFault."""
    found = await docker.ask("GET", "/nodes", doing="asking which nodes there are")
    return [read_node(one) for one in found or ()]


def available(availability: str) -> Callable[[dict[str, Any]], None]:
    """What gives a node's spec this availability."""
    return lambda spec: spec.update(Availability=availability)


def labelled(labels: Mapping[str, str | None]) -> Callable[[dict[str, Any]], None]:
    """What gives a node's spec these labels; None takes one away."""

    def alter(spec: dict[str, Any]) -> None:
        every = {**(spec.get("Labels") or {}), **labels}
        spec["Labels"] = {name: value for name, value in every.items() if value is not None}

    return alter


async def change(docker: Docker, name: str, alter: Callable[[dict[str, Any]], None]) -> str:
    """Change the spec of a node; returns its name.

    Raises NoSuchNode, Ambiguous, Unavailable, MachineAtFault.
    """
    node = find(await listed(docker), name)
    path, doing = f"/nodes/{node.id}", f"changing the node {node.node}"
    for _ in range(TRIES):
        told = await docker.ask("GET", path, doing=doing)
        alter(told["Spec"])
        version = told["Version"]["Index"]
        try:
            await docker.ask("POST", f"{path}/update", told["Spec"], doing=doing, version=version)
        except Refused as error:
            if OUT_OF_SEQUENCE not in str(error):
                raise
        else:
            return node.node
    raise MachineAtFault(doing, "something else changes it all the time: try again")
