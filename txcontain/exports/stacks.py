"""A stack as a Compose file, or as objects of Kubernetes: its services, as they work together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import fields, frozen

from txcontain.container.spec import Port
from txcontain.exports import compose, kubernetes
from txcontain.exports.kubernetes import Object
from txcontain.exports.notes import comments
from txcontain.exports.subject import Subject, label
from txcontain.exports.written import Document, filled, milliseconds, to_yaml
from txcontain.services.document import COMPLETED, HEALTHY, STARTED, Service, Update
from txcontain.services.schedule import MACROS

# Keys of a service that neither of both has, and why.
CANNOT = {
    "drain": "connections get stop_timeout to end, after the signal",
    "placement": "which hosts it may run on is not kept: choose them there",
    "spread": "over which hosts it is spread is not kept: choose it there",
    "on_demand": "it runs always, and not only while someone is connected",
    "per_connection": "it is started once, and not for each connection",
    "catch_up": "a run that was missed is not made up for",
}
CONDITIONS = {
    STARTED: "service_started",
    HEALTHY: "service_healthy",
    COMPLETED: "service_completed_successfully",
}
SCHEDULED = "scheduled"  # the profile of services that `docker compose up` does not start


@frozen
class Member:
    """A service of a stack."""

    service: Service
    subject: Subject
    ports: Sequence[Port] = ()  # of the host that are the service's

    @property
    def has_check(self) -> bool:
        """Whether Docker can ask whether it is healthy."""
        health = self.subject.spec.health
        return bool(health and health.command)


Members = Mapping[str, Member]  # by the name of each service


def _document(
    name: str, members: Members, target: str, notes: Sequence[str], text: str
) -> Document:
    images = ", ".join(dict.fromkeys(member.subject.image for member in members.values()))
    lines = [
        f"The stack {name}, as `txcontain export --stack {name} --to {target} FILE` writes it.",
        f"Its images are {images}:",
        "`txcontain export NAME MAJOR MINOR --to docker-archive FILE` makes each, of a config.",
    ]
    return Document(comments(lines, notes) + text, notes)


def _is_set(service: Service, key: str) -> bool:
    (default,) = (one.default for one in fields(Service) if one.name == key)
    return bool(getattr(service, key) != default)


def _shared_notes(name: str, member: Member, others: Sequence[str]) -> list[str]:
    """What is said of each service, whatever the target; ``others``: of its config."""
    found = [f"{key}: {why}" for key, why in CANNOT.items() if _is_set(member.service, key)]
    return [f"services.{name}.{note}" for note in [*others, *found]]


# -- Compose -----------------------------------------------------------------------


def to_compose(name: str, members: Members) -> Document:
    """The Compose file of a stack."""
    volumes = dict.fromkeys(v for one in members.values() for v in one.subject.spec.volume_names)
    secrets: Object = {}
    for member in members.values():
        secrets |= compose.secrets_of(member.subject.spec)
    whole = {
        "services": {own: _composed(member, members) for own, member in members.items()},
        **filled(volumes={volume: {} for volume in volumes}, secrets=secrets),
    }
    notes = [
        note for own, member in members.items() for note in _composed_notes(own, member, members)
    ]
    return _document(name, members, "compose", notes, to_yaml(compose.escaped(whole)))


def _composed(member: Member, members: Members) -> Object:
    service = member.service
    waits = {
        other: {"condition": CONDITIONS[_condition(wanted, members[other])]}
        for other, wanted in service.after.items()
    }
    return compose.service_of(member.subject) | filled(
        ports=[port.written for port in member.ports],
        depends_on=waits,
        profiles=[SCHEDULED] if service.schedule else [],
        deploy={} if service.is_job else _deploy(service),
    )


def _condition(wanted: str, other: Member) -> str:
    """What can be waited for: without a check, Docker never finds anything healthy."""
    return STARTED if wanted == HEALTHY and not other.has_check else wanted


def _deploy(service: Service) -> Object:
    update = service.update
    return {
        "replicas": service.replicas,
        "update_config": {
            "order": update.order,
            "parallelism": update.parallelism,
            "delay": milliseconds(update.delay),
            "monitor": milliseconds(update.monitor),
            "failure_action": update.failure_action,
            "max_failure_ratio": update.max_failure_ratio,
        },
    }


def _composed_notes(name: str, member: Member, members: Members) -> list[str]:
    service = member.service
    notes = [*compose.notes_of(member.subject)]
    if service.schedule:
        notes.append(
            f"schedule: Compose has no times: have cron run `docker compose run {name}` "
            f"({service.schedule.text})"
        )
    if service.replicas > 1 and member.ports:
        notes.append("ports: only one of its replicas can have a port of the host")
    if service.update != Update():
        notes.append("update: only `docker stack deploy` replaces instances in this way")
    if service.update.healthy_deadline != Update().healthy_deadline:
        notes.append("update.healthy_deadline: Compose has none")
    for other, wanted in service.after.items():
        if _condition(wanted, members[other]) != wanted:
            notes.append(
                f"after: {other} is only started before it, as Docker can't ask its health"
            )
    return _shared_notes(name, member, notes)


# -- Kubernetes --------------------------------------------------------------------


def to_kubernetes(name: str, members: Members) -> Document:
    """The objects of a stack, as one file for `kubectl apply`."""
    objects = [one for own, member in members.items() for one in _objects(own, member)]
    notes = [note for own, member in members.items() for note in _notes_on_pods(own, member)]
    return _document(name, members, "kubernetes", notes, to_yaml(*objects))


def _objects(name: str, member: Member) -> list[Object]:
    subject, service, own = member.subject, member.service, label(name)
    files = kubernetes.config_maps_of(subject, own)
    if service.is_job:
        return [_job(own, member), *files]
    deployment = kubernetes.deployment_of(subject, own, service.replicas)
    deployment["spec"] |= _rollout(service.update)
    services = kubernetes.services_of(subject, own, tuple(member.ports))
    return [deployment, *(services or [_without_ports(own)]), *files]


def _without_ports(name: str) -> Object:
    """What only makes its name lead to it: its ports are not known."""
    selector = {kubernetes.NAME: name}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": selector},
        "spec": {"clusterIP": "None", "selector": selector},
    }


def _rollout(update: Update) -> Object:
    many = update.parallelism or "100%"
    more, fewer = (many, 0) if update.order == "start-first" else (0, many)
    ready = math.ceil(update.monitor)
    return {
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": more, "maxUnavailable": fewer},
        },
        "minReadySeconds": ready,
        "progressDeadlineSeconds": max(math.ceil(update.healthy_deadline), ready + 1),
    }


def _job(name: str, member: Member) -> Object:
    """What runs to its end, once or at times."""
    deployment = kubernetes.deployment_of(member.subject, name)
    template = deployment["spec"]["template"]
    template["spec"]["restartPolicy"] = (
        "OnFailure" if member.subject.spec.restart == "on-failure" else "Never"
    )
    job = {"template": template, "backoffLimit": member.subject.spec.max_restarts or 0}
    schedule = member.service.schedule
    whole = {
        "apiVersion": "batch/v1",
        "kind": "CronJob" if schedule else "Job",
        "metadata": deployment["metadata"],
        "spec": job,
    }
    if schedule:
        times = {"schedule": _cron(schedule.text, schedule.weekdays), "concurrencyPolicy": "Forbid"}
        whole["spec"] = {**times, "jobTemplate": {"spec": job}}
    return whole


def _cron(text: str, weekdays: frozenset[int]) -> str:
    """The five fields as Kubernetes reads them: its Sunday is 0, and never 7."""
    *others, days = MACROS.get(text, text).split()
    return " ".join([*others, ",".join(map(str, sorted(weekdays))) if "7" in days else days])


def _notes_on_pods(name: str, member: Member) -> list[str]:
    service, update = member.service, member.service.update
    notes = [*kubernetes.notes_of(member.subject)]
    if service.is_job:  # it may end
        notes = [note for note in notes if not note.startswith("restart:")]
    else:
        if update.failure_action != "pause":
            notes.append(
                "update.failure_action: a rollout that fails stops, and goes back if asked"
            )
        if update.delay:
            notes.append("update.delay: a rollout does not wait between its steps")
        if update.max_failure_ratio:
            notes.append("update.max_failure_ratio: a rollout goes on until its deadline")
        if update.monitor != int(update.monitor):
            notes.append("update.monitor: rounded up to whole seconds")
    if member.ports:
        notes.append(kubernetes.NO_ADDRESS)
    if service.schedule:
        notes.append("schedule: the times are those of the cluster's time zone")
    if service.after:
        notes.append(f"after: nothing is waited for: {', '.join(service.after)}")
    return _shared_notes(name, member, notes)
