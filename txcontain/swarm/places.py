"""Where an instance runs: the Docker of its node can do what no manager of the swarm can."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from txcontain.engine.names import match
from txcontain.errors import Error, NotInSwarm, NotRunning
from txcontain.later import together
from txcontain.runtime.sessions import WHY_NOT
from txcontain.swarm.client import Docker, Manager, NoAnswer, Request, read
from txcontain.swarm.records import Instance, Seen, instances, known, states

TOLD_WITHIN = 2.0  # seconds, by each Docker, which node it is on


@frozen
class Place:
    """The container of an instance, and the Docker of its node."""

    instance: Instance
    node: str  # its name
    container: str  # its id
    manager: Manager
    docker: Docker  # of only this node


def find(seen: Seen, name: str) -> tuple[Instance, Any]:
    """The instance that a name stands for, and its task, which runs.

    Raises NoSuchInstance, Ambiguous, NotRunning.
    """
    chosen = match(name, known(seen))
    instance = next(one for one in instances(seen) if one.name == chosen)
    if not instance.runs:
        state = states(seen)[chosen].what if instance.tasks else "starting"
        raise NotRunning(
            f"{chosen} {WHY_NOT[state]}", "only one that runs can be looked into, or run a command"
        )
    return instance, next(task for task in reversed(instance.tasks) if _runs(task))


def _runs(task: Any) -> bool:
    return bool(task["Status"]["State"] == "running")


async def place_of(docker: Docker, seen: Seen, name: str, instead: str) -> Place:
    """Where an instance runs.

    :param instead: what to do on the node, if no Docker that is known is there
    Raises as ``find`` does; NotInSwarm.
    """
    instance, task = find(seen, name)
    node = seen.nodes.get(task["NodeID"])
    called = node.node if node else task["NodeID"]
    manager, complaints = await _docker_of(docker, task["NodeID"])
    if manager is None:
        raise NotInSwarm(
            f"{instance.name} runs on the node {called}, and no --docker leads to the Docker there",
            *complaints,
            f"give the manager its address by --docker, too; or `{instead}` there",
        )
    only = Docker([manager], f"see what Docker does on the node {called}")
    container = task["Status"]["ContainerStatus"]["ContainerID"]
    return Place(instance, called, container, manager, only)


async def _docker_of(docker: Docker, node: str) -> tuple[Manager | None, list[str]]:
    """The Docker of a node; None, and what kept others from telling theirs."""
    complaints: list[str] = []
    if all(one.node != node for one in docker.managers):
        unknown = [_learn(one) for one in docker.managers if one.node is None]
        complaints = [said for said in await together(*unknown) if said]
    return next((one for one in docker.managers if one.node == node), None), complaints


async def _learn(manager: Manager) -> str:
    """Have a Docker say which node it is on; returns why it does not, if so."""
    try:
        _, body = await manager.ask(Request("GET", "/info"), TOLD_WITHIN)
        told = read("asking for its node", body)
        manager.node = (told.get("Swarm") or {}).get("NodeID") or None
    except (NoAnswer, Error) as error:
        return str(error)
    return ""
