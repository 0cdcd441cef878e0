"""Instances of a swarm as the list of all tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from txcontain.container.spec import ANY_ADDRESS, Port
from txcontain.logs.times import SECOND, read_moment
from txcontain.runtime.exits import Exit
from txcontain.swarm.mapping import (
    INSTANCE,
    Json,
    is_ours,
    is_over,
    moment,
    said_of,
    state_of,
    summary_of,
)
from txcontain.swarm.nodes import Node


@frozen
class Seen:
    """What there was at a time."""

    services: Sequence[Json]  # those that are instances
    tasks: Sequence[Json]
    nodes: Mapping[str, Node] = {}  # by its id
    began: float = 0.0  # when it was asked for, by the reactor's clock
    time: float = 0.0  # the same, unix time


@frozen
class State:
    """What an instance does."""

    what: str  # running, starting or ended
    why: str
    node: str  # its name; empty if it has none yet


def changes(before: Seen, after: Seen) -> Iterator[tuple[str, str, str]]:
    """What has changed of instances that were there before: name, what, and why."""
    were = states(before)
    for name, state in states(after).items():
        old = were.get(name)
        if old and (old.what, old.node) != (state.what, state.node):
            where = f", on {state.node}" if state.node else ""
            yield name, state.what, f"{state.why}{where}"


def states(seen: Seen) -> dict[str, State]:
    """What each instance does, by its name: its newest task tells."""
    names = {one["ID"]: one["Spec"]["Labels"][INSTANCE] for one in seen.services if is_ours(one)}
    newest = {task["ServiceID"]: task for task in _by_age(seen.tasks)}
    return {names[key]: _state(task, seen) for key, task in newest.items() if key in names}


def records(seen: Seen) -> list[dict[str, Any]]:
    """All instances in the order of their launch, also those that have ended."""
    of_service: dict[str, list[Json]] = {}
    for task in _by_age(seen.tasks):
        of_service.setdefault(task["ServiceID"], []).append(task)
    ours = sorted(filter(is_ours, seen.services), key=lambda one: moment(one["CreatedAt"]))
    return [_record(service, of_service.get(service["ID"], []), seen) for service in ours]


def _by_age(tasks: Sequence[Json]) -> list[Json]:
    return sorted(tasks, key=lambda task: moment(task.get("CreatedAt", "")))


def _state(task: Json, seen: Seen) -> State:
    what = "ended" if is_over(task) else "running" if state_of(task) == "running" else "starting"
    node = task.get("NodeID", "")
    known = seen.nodes.get(node)
    return State(what, said_of(task), known.node if known else node)


def _record(service: Json, tasks: Sequence[Json], seen: Seen) -> dict[str, Any]:
    """One instance. Docker does not tell what is None here, nor whether it listens."""
    launched = _unix_time(service["CreatedAt"])
    newest = tasks[-1] if tasks else None
    state = _state(newest, seen) if newest else State("starting", "", "")
    since = _unix_time(newest["Status"]["Timestamp"]) if newest else launched
    ended = newest is not None and state.what == "ended"
    return {
        **summary_of(service),
        "state": state.what,
        "since": since,
        "launched": launched,
        "ready": False,
        "health": None,
        "port": None,
        "ports": [_port(port) for port in service["Spec"]["EndpointSpec"].get("Ports") or ()],
        "address": None,
        "address6": None,
        "paused": False,
        "pid": None,
        "restarts": max(0, len(tasks) - 1),
        "exit": asdict(_exit(newest, state, since)) if newest and ended else None,
        "labels": {},
        "node": state.node or None,
    }


def _unix_time(text: str) -> float:
    return read_moment("a time", text) / SECOND


def _port(port: Json) -> str:
    number, target = port["PublishedPort"], port["TargetPort"]
    return Port(ANY_ADDRESS, number, target, port["Protocol"]).mapping


def _exit(task: Json, state: State, at: float) -> Exit:
    status = (task["Status"].get("ContainerStatus") or {}).get("ExitCode")
    reason = state.why if status is None else f"exit status {status}"
    return Exit(status, reason=reason, at=at)
