"""What a stack is in a swarm: a service for each of its services, with replicas and updates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import field, fields, frozen

from txcontain.container.spec import PORTS, Port
from txcontain.errors import ConfigAtFault
from txcontain.exports.subject import Subject, label
from txcontain.logs.times import SECOND, read_moment
from txcontain.services.document import Service, Update
from txcontain.services.revision import Revision
from txcontain.services.routes import full_name
from txcontain.services.wish import DONE, FAILED, PAUSED, ROLLED_BACK, ROLLING_BACK, UPDATING
from txcontain.swarm import mapping
from txcontain.swarm.mapping import KEY, Json, nanoseconds, state_of

STACK, SERVICE = "txcontain.stack", "txcontain.service"  # labels: what is of a stack
ASKED, BEFORE = "txcontain.asked", "txcontain.before"  # as it was written, now and before
REVISION, PUBLISHED = "txcontain.revision", "txcontain.published"  # also of its containers; ports
# If so many tasks of one place have failed, for so many seconds, it is not waited for any more.
MOST_ENDED, FAILS_FOR = 3, 10.0

SOON = "a swarm starts all services at the same time: leave it out, and try again until it answers"
JOBS = "a swarm keeps its services running: have a manager of one host run what is to end"
ON_DEMAND = "a swarm does not wait for connections: leave it out"
REFUSED = {
    "after": SOON,
    "run": JOBS,
    "schedule": JOBS,
    "catch_up": JOBS,
    "on_demand": ON_DEMAND,
    "per_connection": ON_DEMAND,
    "drain": "Docker ends at once what it replaces: let the program finish at its stop_signal, "
    "within its config's stop_timeout, and leave it out",
    "update.healthy_deadline": "Docker has none: write health.start_period and health.retries",
}
# What Docker says of an update, in our words.
STATES = {
    "updating": UPDATING,
    "paused": PAUSED,
    "completed": DONE,
    "rollback_started": ROLLING_BACK,
    "rollback_paused": FAILED,
    "rollback_completed": ROLLED_BACK,
}


@frozen
class Kept:
    """A service of a stack, as the swarm has it."""

    stack: str
    name: str
    asked: dict[str, Any]  # as it was written
    told: Json  # by Docker
    tasks: Sequence[Json] = field(factory=list)

    @property
    def id(self) -> str:
        """As Docker has it."""
        return str(self.told["ID"])

    @property
    def full(self) -> str:
        """What it is called among those of all stacks."""
        return full_name(self.stack, self.name)

    @property
    def labels(self) -> Mapping[str, str]:
        """Those of its service."""
        labels: Mapping[str, str] = self.told["Spec"]["Labels"]
        return labels

    @property
    def revision(self) -> str:
        """The id of its revision."""
        return self.labels.get(REVISION, "")

    @property
    def before(self) -> dict[str, Any] | None:
        """What was asked before, if that was another revision."""
        text = self.labels.get(BEFORE)
        return json.loads(text) if text else None

    @property
    def replicas(self) -> int:
        """How many there should be."""
        return int(self.told["Spec"]["Mode"]["Replicated"].get("Replicas", 1))


def is_of_stack(service: Json) -> bool:
    """Whether a service of the swarm is one of a stack of ours."""
    labels = service["Spec"].get("Labels") or {}
    return {STACK, SERVICE, ASKED, REVISION}.issubset(labels)


def read_kept(services: Iterable[Json], tasks: Sequence[Json]) -> list[Kept]:
    """All services of stacks, by stack, then in the order in which they were made."""
    ours = [one for one in services if is_of_stack(one)]
    ours.sort(key=lambda one: (one["Spec"]["Labels"][STACK], mapping.moment(one["CreatedAt"])))
    own: dict[str, list[Json]] = {}
    for task in tasks:
        own.setdefault(task["ServiceID"], []).append(task)
    return [_read_kept(one, own.get(one["ID"], [])) for one in ours]


def _read_kept(service: Json, own: Sequence[Json]) -> Kept:
    labels = service["Spec"]["Labels"]
    return Kept(labels[STACK], labels[SERVICE], json.loads(labels[ASKED]), service, own)


# -- what can't be kept --------------------------------------------------------------


def check(name: str, revision: Revision) -> None:
    """Refuse a service with anything that a swarm can't keep. Raises ConfigAtFault."""
    found = [f"{key}: {why}" for key, why in REFUSED.items() if _is_set(revision.service, key)]
    for port in revision.ports:
        if port.protocol != "tcp":
            found.append(f"ports: only TCP is balanced, and {port} is not: leave it out")
    if found:
        raise ConfigAtFault(f"services.{name} can't be kept in a swarm", *found)
    mapping.check(revision.spec)


def _is_set(service: Service, key: str) -> bool:
    above, _, name = key.rpartition(".")
    kind: Any = Update if above else Service
    holder: Any = service.update if above else service
    plain: Any = getattr(fields(kind), name).default
    default = plain.factory() if hasattr(plain, "factory") else plain
    return bool(getattr(holder, name) != default)


# -- services ------------------------------------------------------------------------


def name_of_service(stack: str, name: str) -> str:
    """What a service is called in the swarm: some characters of ours can't be in its names.

    So those of two services may be alike but for these; the end tells them apart.
    """
    full = full_name(stack, name)
    end = hashlib.sha256(f"{stack}/{name}".encode()).hexdigest()[:6]
    return f"txs-{label(full)[:50]}-{end}"


def name_of_network(stack: str) -> str:
    """What a stack's network is called in the swarm."""
    return f"{mapping.NETWORK}-{stack}"


def service_of(
    stack: str, name: str, revision: Revision, subject: Subject, before: Kept | None = None
) -> dict[str, Any]:
    """The service of the swarm (the body of POST /services/create, and of its update)."""
    full, wanted = full_name(stack, name), revision.service
    made = mapping.service_of(subject, full)
    template = made["TaskTemplate"]
    container = {
        **template["ContainerSpec"],
        "Hostname": f"{full}-{{{{.Task.Slot}}}}",
        "Labels": {STACK: stack, SERVICE: name, REVISION: revision.id},
    }
    return {
        **made,
        "Name": name_of_service(stack, name),
        "Labels": labels_of(stack, name, revision, before),
        "TaskTemplate": {
            **template,
            "ContainerSpec": container,
            "Placement": _placement(wanted),
            "Networks": _networks(stack, name, revision),
        },
        "Mode": {"Replicated": {"Replicas": wanted.replicas}},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": _ports(revision)},
        "UpdateConfig": _update(wanted.update, wanted.update.failure_action),
        "RollbackConfig": _update(wanted.update, "pause"),
    }


def labels_of(
    stack: str, name: str, revision: Revision, before: Kept | None = None
) -> dict[str, str]:
    """What tells whose a service is, and what was asked."""
    labels = {
        STACK: stack,
        SERVICE: name,
        ASKED: json.dumps(revision.asked),
        REVISION: revision.id,
        PUBLISHED: json.dumps(revision.published),
        **{f"txcontain.{key}": getattr(revision.spec, key) for key in KEY},
    }
    if before and _but_replicas(before.asked) != _but_replicas(revision.asked):
        labels[BEFORE] = json.dumps(before.asked)
    elif before and BEFORE in before.labels:
        labels[BEFORE] = before.labels[BEFORE]
    return labels


def _but_replicas(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A service as it was written, but for how many: to have more or fewer is no other version."""
    return {key: value for key, value in asked.items() if key != "replicas"}


def _networks(stack: str, name: str, revision: Revision) -> list[dict[str, Any]]:
    if revision.spec.network != "private":
        return [{"Target": "host"}]
    return [{"Target": name_of_network(stack), "Aliases": [name, f"{name}.{stack}"]}]


def _ports(revision: Revision) -> list[dict[str, Any]]:
    """Any free port of the node leads to each: the balancers have those that are published."""
    targets = dict.fromkeys(port.target for port in revision.ports)
    return [
        {"Protocol": "tcp", "TargetPort": target, "PublishMode": "host"} for target in targets
    ] + [mapping.port_of_node(port) for port in revision.spec.taken_ports]


def _placement(service: Service) -> dict[str, Any]:
    placement: dict[str, Any] = {
        "Constraints": [f"{key}=={value}" for key, value in sorted(service.placement.items())]
    }
    if service.spread:
        placement["Preferences"] = [{"Spread": {"SpreadDescriptor": service.spread}}]
    return placement


def _update(update: Update, action: str) -> dict[str, Any]:
    return {
        "Parallelism": update.parallelism,
        "Delay": nanoseconds(update.delay),
        "FailureAction": action,
        "Monitor": nanoseconds(update.monitor),
        "MaxFailureRatio": update.max_failure_ratio,
        "Order": update.order,
    }


# -- how they stand --------------------------------------------------------------------


def slots(kept: Kept) -> dict[int, list[Json]]:
    """The tasks of each place of a service, the oldest first, as long as there is to be one."""
    found: dict[int, list[Json]] = {slot: [] for slot in range(1, kept.replicas + 1)}
    for task in mapping.by_age(kept.tasks):
        found.setdefault(task.get("Slot", 0), []).append(task)
    return {
        slot: tasks
        for slot, tasks in sorted(found.items())
        if slot <= kept.replicas or not all(map(mapping.is_over, tasks))
    }


def is_of_place(full: str, instance: str) -> bool:
    """Whether this is the name of a replica that a service of this name has, or may have."""
    name, _, number = instance.rpartition("-")
    return name == full and number.isdecimal()


def is_current(kept: Kept, task: Json) -> bool:
    """Whether a task is of the revision that its service is to have."""
    container = (task.get("Spec") or {}).get("ContainerSpec") or {}
    return bool((container.get("Labels") or {}).get(REVISION) == kept.revision)


def state(kept: Kept) -> str:
    """Whether a service is as wished: one of the states of a service."""
    update = (kept.told.get("UpdateStatus") or {}).get("State", "")
    if update and STATES.get(update, UPDATING) != DONE:
        return STATES.get(update, UPDATING)
    run = [task for task in kept.tasks if state_of(task) == "running"]
    current = sum(is_current(kept, task) for task in run)
    if current == kept.replicas and current == len(run):
        return DONE
    return FAILED if any(_fails(kept, tasks) for tasks in slots(kept).values()) else UPDATING


def _fails(kept: Kept, tasks: Sequence[Json]) -> bool:
    """Whether the tasks of a place have failed again and again, for long, and none runs now."""
    own = [task for task in tasks if is_current(kept, task)]
    failures = [_time(one) for one in own if state_of(one) in ("failed", "rejected")]
    if len(failures) < MOST_ENDED or "running" in map(state_of, own):
        return False
    return max(failures) - read_moment("a time", kept.told["UpdatedAt"]) >= FAILS_FOR * SECOND


def _time(task: Json) -> int:
    """When it came into its state, in ns."""
    return read_moment("a time", task["Status"]["Timestamp"])


def why(kept: Kept) -> str:
    """What went wrong: what Docker says of the update, or of the newest task that has failed."""
    if state(kept) == DONE:
        return ""
    failed = [
        mapping.said_of(task)
        for task in mapping.by_age(kept.tasks)
        if state_of(task) in ("failed", "rejected", "pending") and task["Status"].get("Err")
    ]
    said = str((kept.told.get("UpdateStatus") or {}).get("Message", ""))
    parts = [said if state(kept) not in (UPDATING, DONE) else "", *failed[-1:]]
    return ": ".join(filter(None, parts))


def told(kept: Kept) -> dict[str, Any]:
    """How a service stands, as the API tells it."""
    run = [task for task in kept.tasks if state_of(task) == "running"]
    before = kept.before
    return {
        "service": kept.full,
        "stack": kept.stack,
        "config": config_of(kept),
        "state": state(kept),
        "why": why(kept),
        "replicas": kept.replicas,
        "running": len(run),
        "serving": len(run),
        "current": sum(is_current(kept, task) for task in run),
        "completed": False,
        "ports": [str(port.mapping) for port in published(kept.told)],
        "after": {},
        "schedule": None,
        "next": None,
        "before": before["config"] if before else None,
        "instances": [f"{kept.full}-{slot}" for slot in slots(kept)],
    }


def config_of(kept: Kept) -> str:
    """NAME-MAJOR-MINOR of its config."""
    return "-".join(kept.labels[f"txcontain.{key}"] for key in KEY)


def published(service: Json) -> list[Port]:
    """The ports that the balancers publish of a service."""
    labels = service["Spec"].get("Labels") or {}
    return list(PORTS("ports", json.loads(labels.get(PUBLISHED, "[]"))))


def document_of(kept: Sequence[Kept]) -> dict[str, Any]:
    """A stack as a person writes it."""
    return {"stack": kept[0].stack, "services": {one.name: one.asked for one in kept}}
