"""Where an instance runs: the Docker of its node can do what no manager of the swarm can."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from txcontain.engine.names import match
from txcontain.errors import Error, NotInSwarm, NotRunning
from txcontain.later import together
from txcontain.runtime.sessions import WHY_NOT
from txcontain.swarm.client import Docker, Manager, NoAnswer, Refused, Request, read
from txcontain.swarm.mapping import state_of
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
    return instance, _running_task(instance)


def _running_task(instance: Instance) -> Any:
    return next(task for task in reversed(instance.tasks) if state_of(task) == "running")


async def place_of(docker: Docker, seen: Seen, name: str, instead: str) -> Place:
    """Where an instance runs.

    :param instead: what to do on the node, if no Docker that is known is there
    Raises as ``find`` does; NotInSwarm.
    """
    instance, task = find(seen, name)
    dockers, complaints = await dockers_of(docker, {task["NodeID"]})
    if task["NodeID"] not in dockers:
        called = _called(seen, task)
        raise NotInSwarm(
            f"{instance.name} runs on the node {called}, and no --docker leads to the Docker there",
            *complaints,
            f"give the manager its address by --docker, too; or `{instead}` there",
        )
    return _place(seen, instance, task, dockers[task["NodeID"]])


def refusal_of(place: Place, error: Refused) -> Error:
    """Why Docker does not do something with the container of an instance: that may have gone."""
    if error.status not in (404, 409):
        return error
    return NotRunning(f"{place.instance.name} does not run any more", *error.chain)


async def places(docker: Docker, seen: Seen) -> tuple[dict[str, Place | None], list[str]]:
    """Where each instance that runs does, in the order of their launch.

    It is None if no Docker that is known is there; with what kept some from telling theirs.
    """
    running = [(one, _running_task(one)) for one in instances(seen) if one.runs]
    dockers, complaints = await dockers_of(docker, {task["NodeID"] for _, task in running})
    found = {
        one.name: _place(seen, one, task, manager) if manager else None
        for one, task in running
        for manager in [dockers.get(task["NodeID"])]
    }
    return found, complaints


def _place(seen: Seen, instance: Instance, task: Any, manager: Manager) -> Place:
    called = _called(seen, task)
    only = Docker([manager], f"see what Docker does on the node {called}")
    container = task["Status"]["ContainerStatus"]["ContainerID"]
    return Place(instance, called, container, manager, only)


def _called(seen: Seen, task: Any) -> str:
    """The name of its node."""
    node = seen.nodes.get(task["NodeID"])
    return node.node if node else str(task["NodeID"])


async def dockers_of(docker: Docker, nodes: set[str]) -> tuple[dict[str, Manager], list[str]]:
    """The Dockers that are known, by their nodes; asked for theirs if one of these is missing.

    With what kept some from telling it.
    """
    complaints: list[str] = []
    if not nodes <= {one.node for one in docker.managers}:
        unknown = [_learn(one) for one in docker.managers if one.node is None]
        complaints = [said for said in await together(*unknown) if said]
    # The last to be asked are those that did not answer.
    return {one.node: one for one in reversed(docker.managers) if one.node}, complaints


async def _learn(manager: Manager) -> str:
    """Have a Docker say which node it is on; returns why it does not, if so."""
    try:
        _, body = await manager.ask(Request("GET", "/info"), TOLD_WITHIN)
        told = read("asking for its node", body)
        manager.node = (told.get("Swarm") or {}).get("NodeID") or None
    except (NoAnswer, Error) as error:
        return str(error)
    return ""
