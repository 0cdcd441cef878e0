"""Instances of a swarm as the list of all tells them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from attrs import asdict, frozen

from txcontain.container.spec import ANY_ADDRESS, Port
from txcontain.engine.names import Known, taken
from txcontain.logs.times import SECOND, read_moment
from txcontain.runtime.exits import Exit
from txcontain.swarm.mapping import (
    KEY,
    REMOVE,
    WHOLE,
    Json,
    by_age,
    is_ours,
    is_over,
    labels_of,
    moment,
    said_of,
    state_of,
    summary_of,
)
from txcontain.swarm.nodes import Node
from txcontain.swarm.stack_mapping import read_kept, slots

GIVEN_UP = ("shutdown", "remove")  # the states that a swarm wishes for what it does not start again
LAST = 2  # looks, of which it is kept what was worked out: that takes long with many instances


@frozen(eq=False)
class Seen:
    """What there was at a time."""

    services: Sequence[Json]  # those that are instances, and those of stacks
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


@frozen
class Instance:
    """An instance: a service of one task, or one place of a service of a stack."""

    summary: dict[str, str]
    service: Json
    tasks: Sequence[Json]  # those that it has had, as far as Docker knows, the oldest first
    labels: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """What it is called."""
        return self.summary["instance"]

    @property
    def is_replica(self) -> bool:
        """Whether it is one of those of a service of a stack. No launch gives such a label."""
        return "stack" in self.labels

    @property
    def is_to_be_removed(self) -> bool:
        """Whether that is to be done when it has ended for good."""
        return REMOVE in self.service["Spec"]["Labels"]

    @property
    def launched(self) -> str:
        """When, as Docker writes it."""
        oldest = self.tasks[0] if self.tasks and self.is_replica else self.service
        return str(oldest.get("CreatedAt") or self.service["CreatedAt"])

    @property
    def key(self) -> tuple[str, str, str]:
        """The name, major and minor of its config."""
        return self.summary["name"], self.summary["major"], self.summary["minor"]

    @property
    def has_ended(self) -> bool:
        """Whether that is for good: what ends is to be shut down, and another one made, at once."""
        newest = self.tasks[-1] if self.tasks else None
        return newest is not None and is_over(newest) and newest.get("DesiredState") in GIVEN_UP

    @property
    def whole(self) -> str:
        """Its config, if that is not kept."""
        return str(self.service["Spec"]["Labels"].get(WHOLE, ""))

    @property
    def log(self) -> str:
        """Where the Engine API has its log: that of a place is the one of its newest task."""
        if self.is_replica and self.tasks:
            return f"/tasks/{self.tasks[-1]['ID']}/logs"
        return f"/services/{self.service['ID']}/logs"

    @property
    def has_terminal(self) -> bool:
        """Whether its program has: then its log has one stream only."""
        return bool(self.service["Spec"]["TaskTemplate"]["ContainerSpec"].get("TTY"))

    @property
    def runs(self) -> bool:
        """Whether its program does."""
        return any(state_of(task) == "running" for task in self.tasks)


@lru_cache(LAST)
def instances(seen: Seen) -> Sequence[Instance]:
    """All instances in the order of their launch, also those that have ended."""
    of_service: dict[str, list[Json]] = {}
    for task in by_age(seen.tasks):
        of_service.setdefault(task["ServiceID"], []).append(task)
    single = [
        Instance(summary_of(one), one, of_service.get(one["ID"], []), labels_of(one))
        for one in filter(is_ours, seen.services)
    ]
    found = [*single, *_replicas(seen)]
    return sorted(found, key=lambda one: moment(one.launched))


def known(seen: Seen) -> dict[str, Known]:
    """What each instance is found by."""
    return {one.name: Known(one.key, one.labels) for one in instances(seen)}


def refuse_taken(seen: Seen, is_wanted: Callable[[Instance], bool]) -> None:
    """Raise InstanceExists if there is an instance like this."""
    for one in filter(is_wanted, instances(seen)):
        state = states(seen).get(one.name)
        raise taken(one.summary, state.what if state else "starting")


def _replicas(seen: Seen) -> Iterator[Instance]:
    for kept in read_kept(seen.services, seen.tasks):
        key = {name: kept.labels[f"txcontain.{name}"] for name in KEY}
        labels = {"stack": kept.stack, "service": kept.name}
        for slot, tasks in slots(kept).items():
            name = f"{kept.full}-{slot}"
            yield Instance({"instance": name, **key}, kept.told, tasks, labels)


def running(seen: Seen) -> list[dict[str, str]]:
    """What runs, in the order of its launch."""
    return [one.summary for one in instances(seen) if one.runs]


@lru_cache(LAST)
def states(seen: Seen) -> Mapping[str, State]:
    """What each instance does, by its name: its newest task tells."""
    return {one.name: _state(one.tasks[-1], seen) for one in instances(seen) if one.tasks}


def records(seen: Seen) -> list[dict[str, Any]]:
    """How all instances stand."""
    return [_record(one, seen) for one in instances(seen)]


def _state(task: Json, seen: Seen) -> State:
    what = "ended" if is_over(task) else "running" if state_of(task) == "running" else "starting"
    node = task.get("NodeID", "")
    known = seen.nodes.get(node)
    return State(what, said_of(task), known.node if known else node)


def _record(instance: Instance, seen: Seen) -> dict[str, Any]:
    """One instance. Docker does not tell what is None here, nor whether it listens."""
    launched, tasks = _unix_time(instance.launched), instance.tasks
    newest = tasks[-1] if tasks else None
    state = _state(newest, seen) if newest else State("starting", "", "")
    since = _unix_time(newest["Status"]["Timestamp"]) if newest else launched
    ended = newest is not None and state.what == "ended"
    ports = instance.service["Spec"]["EndpointSpec"].get("Ports") or ()
    return {
        **instance.summary,
        "state": state.what,
        "since": since,
        "launched": launched,
        "ready": False,
        "health": None,
        "port": None,
        "ports": [_port(port) for port in ports if port.get("PublishedPort")],
        "address": None,
        "address6": None,
        "paused": False,
        "pid": None,
        "restarts": max(0, len(tasks) - 1),
        "exit": asdict(_exit(newest, state, since)) if newest and ended else None,
        "labels": dict(instance.labels),
        "node": state.node or None,
    }


def end_of(instance: Instance, seen: Seen) -> Exit:
    """How an instance has ended that has."""
    newest = instance.tasks[-1]
    return _exit(newest, _state(newest, seen), _unix_time(newest["Status"]["Timestamp"]))


def _unix_time(text: str) -> float:
    return read_moment("a time", text) / SECOND


def _port(port: Json) -> str:
    number, target = port["PublishedPort"], port["TargetPort"]
    return Port(ANY_ADDRESS, number, target, port["Protocol"]).mapping


def _exit(task: Json, state: State, at: float) -> Exit:
    status = (task["Status"].get("ContainerStatus") or {}).get("ExitCode")
    reason = state.why if status is None else f"exit status {status}"
    return Exit(status, reason=reason, at=at)
