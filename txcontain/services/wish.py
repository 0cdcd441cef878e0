"""What is kept of a stack: for each service what there should be, and the last good revisions.

Every change of it is a function from one ``Wished`` to the next. It is on disk before anything is
done for it, so whoever finds it there knows all that is to be done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from txcontain.services.document import Stack, in_order
from txcontain.services.revision import Revision, read_revision

# States of a service. In the first two, its instances are brought to what they should be.
UPDATING, ROLLING_BACK = "updating", "rolling back"
DONE, ROLLED_BACK, FAILED, PAUSED = "done", "rolled back", "failed", "paused"
STATES = (UPDATING, ROLLING_BACK, DONE, ROLLED_BACK, FAILED, PAUSED)
UNDER_WAY = (UPDATING, ROLLING_BACK)
KEEP_GOOD = 2  # revisions: the present one, and the one to go back to


@frozen
class Wish:
    """What there should be of a service."""

    name: str
    revision: Revision
    good: tuple[Revision, ...] = ()  # revisions that all its instances have had, the latest last
    state: str = UPDATING
    why: str = ""  # a sentence, if something went wrong
    considered: float = 0.0  # unix time up to which its schedule has been looked at
    due: float | None = None  # unix time of the run that is to be begun
    attempt: int = 0  # how often a job that had failed was asked for again

    @property
    def key(self) -> str:
        """What the label "revision" of its instances is."""
        return f"{self.revision.id}.{self.attempt}" if self.attempt else self.revision.id

    @property
    def is_new(self) -> bool:
        """Whether its revision is to take the place of another, and has yet to show that it can.

        One that was good before has to show it again: what it works with may be another by now.
        """
        return bool(self.good) and self.good[-1].id != self.revision.id

    @property
    def before(self) -> Revision | None:
        """The last good revision that is another one."""
        others = [one for one in self.good if one.id != self.revision.id]
        return others[-1] if others else None

    @property
    def record(self) -> dict[str, Any]:
        """What is kept, as plain data."""
        return {
            "revision": self.revision.record,
            "good": [one.record for one in self.good],
            "state": self.state,
            "why": self.why,
            "considered": self.considered,
            "due": self.due,
            "attempt": self.attempt,
        }


@frozen
class Wished:
    """What there should be of a stack."""

    name: str
    services: dict[str, Wish] = field(factory=dict)  # each after those that it waits for
    down: bool = False  # whether all of it is to go

    def having(self, *wishes: Wish) -> Wished:
        """The same with these services in place of those of the same names."""
        return evolve(self, services={**self.services, **{one.name: one for one in wishes}})

    @property
    def document(self) -> dict[str, Any]:
        """As a person writes it."""
        return {
            "stack": self.name,
            "services": {name: wish.revision.asked for name, wish in self.services.items()},
        }

    @property
    def record(self) -> dict[str, Any]:
        """What is kept, as plain data."""
        services = {name: wish.record for name, wish in self.services.items()}
        return {"stack": self.name, "services": services, "down": self.down}


def wish_for(
    before: Wished | None, stack: Stack, revisions: Mapping[str, Revision], time: float
) -> Wished:
    """What is wished once a person has asked for a stack.

    ``time``: the unix time, from which on a new schedule counts.
    """
    known = before.services if before and not before.down else {}
    services = {
        name: _wish(known.get(name), name, revisions[name], time) for name in stack.services
    }
    return Wished(stack.name, services)


def _wish(before: Wish | None, name: str, revision: Revision, time: float) -> Wish:
    if before is None:
        return Wish(name, revision, considered=time)
    if before.revision == revision and before.state == ROLLED_BACK:
        return evolve(before, state=DONE, why="")  # it is what is asked for now
    if before.revision == revision and before.state in (DONE, *UNDER_WAY):
        return before
    again = before.state == FAILED and before.revision == revision and revision.service.is_job
    new_times = before.revision.service.schedule != revision.service.schedule
    considered = time if new_times else before.considered
    due = None if new_times else before.due
    return evolve(
        before,
        revision=revision,
        state=UPDATING,
        why="",
        considered=considered,
        due=due,
        attempt=before.attempt + again,
    )


def settle(wished: Wished, name: str) -> Wished:
    """A service has come to what it should be."""
    wish = wished.services[name]
    others = [one for one in wish.good if one.id != wish.revision.id]
    good = (*others, wish.revision)[-KEEP_GOOD:]
    state = ROLLED_BACK if wish.state == ROLLING_BACK else DONE
    why = wish.why if wish.state == ROLLING_BACK else ""
    return wished.having(evolve(wish, good=good, state=state, why=why))


def give_up(wished: Wished, name: str, why: str) -> Wished:
    """An update of a service has failed: what its failure_action says.

    If it is rolled back, so are the updates of those that come after it.
    """
    wish = wished.services[name]
    service = wish.revision.service
    if service.is_job or not wish.is_new:
        return wished.having(evolve(wish, state=FAILED, why=why))
    if service.update.failure_action == "pause":
        return wished.having(evolve(wish, state=PAUSED, why=why))
    because = f"{name} was rolled back: {why}"
    others = [wished.services[other] for other in dependents(wished, name)]
    called_off = [_call_off(other, because) for other in others if other.state == UPDATING]
    return wished.having(roll_back_one(wish, ROLLING_BACK, why), *called_off)


def _call_off(wish: Wish, why: str) -> Wish:
    if wish.revision.service.is_job:  # what it has done is not undone by running another one
        return evolve(wish, state=FAILED, why=why)
    return roll_back_one(wish, ROLLING_BACK, why) if wish.is_new else wish


def roll_back_one(wish: Wish, state: str, why: str) -> Wish:
    """Wish for the last good revision of a service; the number of its instances stays."""
    before = wish.before
    assert before is not None
    return evolve(wish, revision=_scaled_as(before, wish), state=state, why=why)


def _scaled_as(revision: Revision, wish: Wish) -> Revision:
    replicas = wish.revision.service.replicas
    if revision.service.is_job or replicas == revision.service.replicas:
        return revision
    service = evolve(revision.service, replicas=replicas)
    return evolve(revision, service=service, asked={**revision.asked, "replicas": replicas})


def dependents(wished: Wished, name: str) -> list[str]:
    """The services that come after one, directly or not."""
    found: dict[str, None] = {name: None}
    for other, wish in wished.services.items():  # which are in order
        if found.keys() & wish.revision.service.after:
            found[other] = None
    return list(found)[1:]


def read_wished(record: dict[str, Any]) -> Wished:
    """A stack as it was kept.

    Raises InvalidData, KeyError, TypeError, ValueError, AttributeError if it is damaged.
    """
    services = {name: _read_wish(name, one) for name, one in record["services"].items()}
    after = {name: wish.revision.service.after for name, wish in services.items()}
    ordered = {name: services[name] for name in in_order(after)}
    return Wished(str(record["stack"]), ordered, bool(record["down"]))


def _read_wish(name: str, record: dict[str, Any]) -> Wish:
    if record["state"] not in STATES:
        raise ValueError(f"{record['state']!r} is no state of a service")
    return Wish(
        name,
        read_revision(name, record["revision"]),
        tuple(read_revision(name, one) for one in record["good"]),
        record["state"],
        str(record["why"]),
        float(record["considered"]),
        None if record["due"] is None else float(record["due"]),
        int(record["attempt"]),
    )


def changed_services(before: Wished | None, after: Wished) -> Iterable[str]:
    """What differs between two wishes, a sentence for each service."""
    known = before.services if before and not before.down else {}
    for name, wish in after.services.items():
        if name not in known:
            yield f"add {name}: {wish.revision.config}"
        elif wish.revision != known[name].revision:
            yield f"change {name}: {difference(known[name].revision.asked, wish.revision.asked)}"
    for name in known:
        if name not in after.services:
            yield f"drop {name}"


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """How a service as it was written differs from what was written before."""
    parts = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old != new:
            simple = all(isinstance(value, (str, int, float, type(None))) for value in (old, new))
            parts.append(f"{key} {old} → {new}" if simple else key)
    return ", ".join(parts) or "its config was uploaded anew"
