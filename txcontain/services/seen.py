"""Sees what there is of a stack: its instances, by their labels, and what is done with them."""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field

from txcontain.engine.manager import Manager
from txcontain.runtime.health import UNHEALTHY
from txcontain.runtime.instance import Instance
from txcontain.services.decide import (
    COMING,
    MAKING,
    OVER,
    REMOVING,
    RESTING,
    UP,
    Now,
    Replica,
    Seen,
    Trouble,
)
from txcontain.services.steps import Launch

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds after a launch that failed; doubled each time


@define(eq=False)
class Sight:
    """What the keeper knows beside what instances tell themselves. None of it is kept on disk."""

    manager: Manager
    launches: dict[str, tuple[str, Launch]] = field(factory=dict)  # under way, with their stacks
    starts: set[str] = field(factory=set)  # the same, of instances that are started again
    awake: Collection[tuple[str, str]] = ()  # services on demand, by their stacks and names
    leaving: dict[str, str] = field(factory=dict)  # withdrawing, drained or removing, by the name
    _troubles: dict[tuple[str, str], Trouble] = field(factory=dict)  # by stack and service
    _serving: dict[str, tuple[bool, float]] = field(factory=dict)  # whether one serves, since when

    def now(self) -> Now:
        """What the clocks show."""
        return Now(self.manager.reactor.seconds(), self.manager.kernel.now())

    def see(self, stack: str) -> Seen:
        """What there is of a stack."""
        instances = self.manager.instances
        mine = [one for one in instances.values() if one.labels.get("stack") == stack]
        failed = {one.name for one in mine if one.state == "failed"}  # their names are free
        there = tuple(self._replica(one) for one in mine if one.name not in failed)
        coming = tuple(
            self._coming(launch)
            for name, (of, launch) in self.launches.items()
            if of == stack and (name not in instances or name in failed)
        )
        troubles = {
            service: trouble for (of, service), trouble in self._troubles.items() if of == stack
        }
        others = instances.keys() - {one.name for one in mine}
        awake = {service for of, service in self.awake if of == stack}
        return Seen((*there, *coming), troubles, others, awake)

    def has_failed(self, stack: str, service: str, why: str) -> None:
        """Take note that a launch has failed; the next one waits longer and longer."""
        before = self._troubles.get((stack, service))
        count = before.count + 1 if before else 1
        pause = min(FIRST_PAUSE * 2 ** min(count - 1, 10), LONGEST_PAUSE)
        self._troubles[stack, service] = Trouble(count, why, self.now().seconds + pause)

    def forget_trouble(self, stack: str, service: str) -> None:
        """All goes well again, or something else is wished for."""
        self._troubles.pop((stack, service), None)

    def forget_stack(self, stack: str) -> None:
        """Nothing of a stack is there any more."""
        for key in [key for key in self._troubles if key[0] == stack]:
            del self._troubles[key]

    def forget_gone(self) -> None:
        """Keep nothing of instances that there are not any more."""
        for name in self._serving.keys() - self.manager.instances.keys():
            del self._serving[name]

    def _coming(self, launch: Launch) -> Replica:
        due = "" if launch.due is None else str(launch.due)
        names = launch.instance, launch.service, launch.number, launch.revision
        return Replica(*names, COMING, since=self.now().seconds, due=due)

    def _replica(self, instance: Instance) -> Replica:
        labels = instance.labels
        is_serving = "replica" in labels and instance.serves  # a job serves no one
        state = self._state(instance)
        leaving = self.leaving.get(instance.name, REMOVING if instance.ending else "")
        return Replica(
            instance.name,
            labels.get("service", ""),
            int(labels.get("replica", 0)),
            labels.get("revision", ""),
            state,
            is_serving,
            self._since(instance, is_serving),
            _fault(instance),
            succeeded=state == OVER and instance.exit is not None and not instance.exit.failed,
            leaving=leaving,
            due=labels.get("due", ""),
        )

    def _state(self, instance: Instance) -> str:
        if instance.name in self.launches or instance.name in self.starts:
            return MAKING
        if instance.state == "stopped":
            return OVER if stops_when_unhealthy(instance) else RESTING
        return OVER if instance.state == "ended" else UP

    def _since(self, instance: Instance, serves: bool) -> float:
        """When it began to serve, or to serve no more, by the clock that counts seconds."""
        now = self.now().seconds
        before = self._serving.get(instance.name)
        if before is None or before[0] != serves:
            begun = instance.up_at if before is None and not serves else now
            self._serving[instance.name] = serves, min(begun or now, now)
        return self._serving[instance.name][1]


def stops_when_unhealthy(instance: Instance) -> bool:
    """Whether it may be its health check that has stopped it."""
    health = instance.spec.health
    return health is not None and health.on_failure == "stop"


def _fault(instance: Instance) -> str:
    """Why an instance is not as it should be, as words after its name; "" if it is, or will be."""
    reason = instance.exit.reason if instance.exit else "it is not known how"
    if instance.state in ("ended", "waiting") and not instance.checks.ask_for_restart:
        return f"ended: {reason}"
    if instance.state == "stopped" and stops_when_unhealthy(instance):
        return "was stopped, as it was unhealthy"
    if instance.health == UNHEALTHY:
        return f"is unhealthy: {instance.checks.why}".removesuffix(": ")
    if instance.restarts and not instance.serves:
        return f"was started again, after it had ended: {reason}"
    return ""
