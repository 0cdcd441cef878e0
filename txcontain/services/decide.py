"""Decides what to do next for a stack, from what is wished and what is seen. Nothing here acts.

    wished: what there should be (wish.py)  ─┐
    seen: the instances that there are       ├─► decide ─► the steps to begin now (steps.py)
    now: two clocks                         ─┘

The keeper begins these steps, and asks again when anything has changed. ``foresee`` does the same
in a world in which all goes well: that is the list that a person is shown.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from txcontain.services.document import COMPLETED, STARTED
from txcontain.services.steps import (
    NOTES,
    SHOWN,
    Consider,
    Forget,
    GiveUp,
    Launch,
    OfInstance,
    Ran,
    Remove,
    Settle,
    Start,
    Step,
    Wait,
    Withdraw,
)
from txcontain.services.wish import (
    DONE,
    FAILED,
    PAUSED,
    ROLLED_BACK,
    UNDER_WAY,
    UPDATING,
    Wish,
    Wished,
    give_up,
    settle,
)

COMING, MAKING, UP, RESTING, OVER = "coming", "making", "up", "resting", "over"
WITHDRAWING, DRAINED, REMOVING = "withdrawing", "drained", "removing"
LATE = 60.0  # seconds after its time at which a run counts as missed
# cron(8): "Clock changes of more than 3 hours are considered to be corrections".
CORRECTION = 3 * 3600.0  # seconds
LOOK_AGAIN = 20.0  # seconds between two looks at the time of day, which may be set
ITS_TIME, BETWEEN = "its time", "between"  # what is waited for
MOST_FORESEEN = 100_000  # steps


@frozen
class Replica:
    """An instance of a service, as far as it matters for deciding."""

    name: str
    service: str
    number: int  # 0: it is a run of a job
    revision: str
    # coming: its launch has not come so far that it is there; making: being launched or started;
    # up; resting: to be started; over: ended by itself
    state: str
    serves: bool = False
    since: float = 0.0  # when that last changed, or when it was launched
    fault: str = ""  # why it is not good, if that is more than that it does not serve yet
    succeeded: bool = False  # whether it is over, as it should be
    leaving: str = ""  # withdrawing; drained: no connection is left; removing
    due: str = ""  # the label: of which run of a schedule it is


@frozen
class Trouble:
    """Launches of a service that have failed, one after the other."""

    count: int
    why: str
    retry_at: float  # by the clock that counts seconds


@frozen
class Seen:
    """What there is of a stack."""

    replicas: tuple[Replica, ...] = ()
    troubles: Mapping[str, Trouble] = field(factory=dict)  # by service
    taken: Collection[str] = ()  # names of other instances
    awake: Collection[str] = ()  # services on demand that someone wants now


@frozen
class Now:
    """What the clocks show."""

    seconds: float  # a clock that no one sets
    time: float  # unix time


def decide(wished: Wished, seen: Seen, now: Now) -> list[Step]:
    """The steps to begin now. Those that are under way are seen, and not decided again."""
    return list(_Look(wished, seen, now).steps())


def foresee(wished: Wished, seen: Seen, now: Now) -> list[Step]:
    """The steps that will be done from now on, in order, if all goes well."""
    world = _World(wished, _going_well(wished, seen), now)
    foreseen: list[Step] = []
    while len(foreseen) < MOST_FORESEEN:
        steps = decide(world.wished, world.seen, world.now)
        doing = [step for step in steps if not isinstance(step, Wait)]
        if not doing:
            waits = [step for step in steps if isinstance(step, Wait)]
            pauses = [step.until for step in waits if step.what == BETWEEN]
            if not pauses:
                break
            world = evolve(world, now=_later(world.now, min(pauses)))
        for step in doing:
            world = world.after(step)
        foreseen += [step for step in doing if isinstance(step, SHOWN)]
    return foreseen


def outcome(wished: Wished, seen: Seen, now: Now, services: Collection[str]) -> list[str] | None:
    """What is not as a person wished it with these services of a stack, a sentence each.

    None while anything is still to come.
    """
    look = _Look(wished, seen, now)
    wrong = []
    for name in services:
        wish = wished.services[name]
        if wish.state in (FAILED, PAUSED, ROLLED_BACK):
            wrong.append(f"{name}: {wish.state}: {wish.why}")
        elif wish.state in UNDER_WAY:
            hindrance = look.hindrance(wish)
            if not hindrance:
                return None
            wrong.append(f"{name}: {hindrance}")
    return wrong


def noted(wished: Wished, step: Step) -> Wished:
    """What is wished once a step of ``NOTES`` is done."""
    if isinstance(step, Settle):
        return settle(wished, step.service)
    if isinstance(step, GiveUp):
        return give_up(wished, step.service, step.why)
    if isinstance(step, Forget):
        return Wished(wished.name)
    wish = wished.services[step.service]
    if isinstance(step, Consider):
        return wished.having(evolve(wish, considered=step.until, due=step.due))
    return wished.having(evolve(wish, due=None))  # Ran


@frozen
class _Look:
    """One look at a stack, in which all is decided that can be."""

    wished: Wished
    seen: Seen
    now: Now
    by_service: dict[str, list[Replica]] = field(init=False)

    @by_service.default
    def _sorted(self) -> dict[str, list[Replica]]:
        found: dict[str, list[Replica]] = {}
        for replica in self.seen.replicas:
            found.setdefault(replica.service, []).append(replica)
        return found

    def steps(self) -> Iterator[Step]:
        """The steps to begin now, in the order of the services."""
        if self.wished.down:
            yield from self._down()
            return
        for name, replicas in self.by_service.items():
            if name not in self.wished.services:
                yield from _leave(replicas)
        for wish in self.wished.services.values():
            decide_one = self._job if wish.revision.service.is_job else self._replicas
            yield from decide_one(wish, self.by_service.get(wish.name, []))

    def _down(self) -> Iterator[Step]:
        """Those that others wait for go last."""
        if not self.seen.replicas:
            yield Forget("")
        for name, replicas in self.by_service.items():
            wishes = self.wished.services.values()
            users = {one.name for one in wishes if name in one.revision.service.after}
            if not users & self.by_service.keys():
                yield from _leave(replicas)

    # -- replicas ------------------------------------------------------------------

    def _replicas(self, wish: Wish, mine: list[Replica]) -> Iterator[Step]:
        """One thing at a time for each service, so that what was foreseen is what happens."""
        if wish.revision.spec.per_connection:
            yield from self._per_connection(wish, mine)
            return
        ready = not self.waits_for(wish)
        current = [one for one in mine if one.revision == wish.key]
        old = [one for one in mine if one.revision != wish.key]
        failed = [one for one in current if not one.leaving and self._has_failed(wish, one)]
        missing = self._wanted(wish) - len(mine)
        if why := self._too_many_failed(wish, failed):
            yield GiveUp(wish.name, why)
        elif leaving := [one for one in mine if one.leaving]:
            yield from _leave(leaving)
        elif resting := [one for one in mine if one.state == RESTING]:
            if ready and not (yield from self._pause_after_trouble(wish)):
                yield from (Start(wish.name, one.name) for one in resting)
        elif missing > 0:
            if ready:
                yield from self._launch(wish, missing)
        elif missing < 0 and not old:
            yield from _leave(_superfluous(current, old, -missing))
        elif wish.state == PAUSED:
            return
        elif unsure := [
            one for one in current if one not in failed and not self.is_good(wish, one)
        ]:
            yield from self._wait(wish, unsure)
        elif missing < 0:
            yield from _leave(_superfluous(current, old, -missing))
        elif old:
            if ready:
                yield from self._replace(wish, current, old)
        elif wish.state not in (DONE, ROLLED_BACK) and not (failed and _is_strict(wish)):
            yield Settle(wish.name)

    def _wanted(self, wish: Wish) -> int:
        service = wish.revision.service
        is_asleep = service.on_demand is not None and wish.name not in self.seen.awake
        return 0 if is_asleep else service.replicas

    def _per_connection(self, wish: Wish, mine: list[Replica]) -> Iterator[Step]:
        """What serves a connection ends by itself; only what was a replica before has to go."""
        if replicas := [one for one in mine if one.number]:
            yield from _leave(replicas)
        elif wish.state in UNDER_WAY:
            yield Settle(wish.name)

    def _replace(self, wish: Wish, current: list[Replica], old: list[Replica]) -> Iterator[Step]:
        policy = wish.revision.service.update
        pause = self._monitor(wish) + policy.delay
        until = max((one.since + pause for one in current if one.serves), default=0.0)
        if until > self.now.seconds:
            yield Wait(wish.name, until, BETWEEN)
            return
        batch = min(policy.parallelism or len(old), len(old))
        if policy.order == "start-first":
            yield from self._launch(wish, batch)
        else:
            yield from _leave(_superfluous([], old, batch))

    def _launch(self, wish: Wish, count: int, due: float | None = None) -> Iterator[Step]:
        if (yield from self._pause_after_trouble(wish)):
            return
        taken = {one.name for one in self.seen.replicas} | {*self.seen.taken}
        is_job = wish.revision.service.is_job
        for number, name in _free_names(self.wished.name, wish.name, taken, count):
            launched = 0 if is_job else number
            yield Launch(wish.name, name, launched, wish.key, wish.revision.config, due)

    def _pause_after_trouble(self, wish: Wish) -> Generator[Step, None, bool]:
        """Wait if a launch has failed a moment ago; returns whether one has."""
        trouble = self.seen.troubles.get(wish.name)
        if trouble is None or trouble.retry_at <= self.now.seconds:
            return False
        yield Wait(wish.name, trouble.retry_at)
        return True

    def _wait(self, wish: Wish, unsure: list[Replica]) -> Iterator[Step]:
        policy = wish.revision.service.update
        for one in unsure:
            if one.serves:
                yield Wait(wish.name, one.since + self._monitor(wish), BETWEEN)
            elif wish.state in UNDER_WAY:
                yield Wait(wish.name, one.since + policy.healthy_deadline)

    def is_good(self, wish: Wish, replica: Replica) -> bool:
        """Whether an instance does what it should, and has for a while if it is new."""
        return replica.serves and self.now.seconds >= replica.since + self._monitor(wish)

    def _monitor(self, wish: Wish) -> float:
        is_tried = wish.state in UNDER_WAY and wish.is_new
        return wish.revision.service.update.monitor if is_tried else 0.0

    def _has_failed(self, wish: Wish, replica: Replica) -> bool:
        deadline = wish.revision.service.update.healthy_deadline
        if self.is_good(wish, replica):
            return False
        late = not replica.serves and self.now.seconds >= replica.since + deadline
        return bool(replica.fault) or replica.state == OVER or late

    def _too_many_failed(self, wish: Wish, failed: Sequence[Replica]) -> str:
        """Why an update is not to go on; "" if it is."""
        service, trouble = wish.revision.service, self.seen.troubles.get(wish.name)
        count = len(failed) + (trouble.count if trouble else 0)
        if wish.state not in UNDER_WAY or not count:
            return ""
        if wish.is_new and service.update.failure_action == "continue":
            return ""
        if count <= service.update.max_failure_ratio * service.replicas:
            return ""
        if trouble:
            return trouble.why
        one, deadline = failed[0], service.update.healthy_deadline
        return f"{one.name} {one.fault or f'does not serve within {deadline:g} s'}"

    # -- jobs ------------------------------------------------------------------------

    def _job(self, wish: Wish, mine: list[Replica]) -> Iterator[Step]:
        if leaving := [one for one in mine if one.leaving]:
            yield from _leave(leaving)
        elif wish.revision.service.schedule:
            yield from self._scheduled(wish, mine)
        elif current := [one for one in mine if one.revision == wish.key]:
            yield from self._settle_job(wish, current[0])
        elif wish.state != FAILED:  # it is tried once, until a person asks for it again
            trouble = self.seen.troubles.get(wish.name)
            yield from [GiveUp(wish.name, trouble.why)] if trouble else self._run(wish, mine)

    def _settle_job(self, wish: Wish, replica: Replica) -> Iterator[Step]:
        if replica.succeeded and wish.state != DONE:
            yield Settle(wish.name)
        elif replica.state in (OVER, RESTING) and not replica.succeeded and wish.state == UPDATING:
            yield GiveUp(wish.name, f"{replica.name} {replica.fault or 'was stopped'}")

    def _run(self, wish: Wish, mine: list[Replica], due: float | None = None) -> Iterator[Step]:
        """Launch a job; what is left of its last run goes first, unless that still runs."""
        if any(map(_is_running, mine)) or self.waits_for(wish):
            return
        if mine:
            yield from _leave(mine)
        else:
            yield from self._launch(wish, 1, due)

    def _scheduled(self, wish: Wish, mine: list[Replica]) -> Iterator[Step]:
        if wish.state in UNDER_WAY:
            yield Settle(wish.name)
        if wish.due is None:
            yield from self._consider(wish)
        elif any(one.due == str(wish.due) for one in mine):
            yield Ran(wish.name)
        elif any(map(_is_running, mine)):
            yield Ran(wish.name, "its last run still goes on")
        elif trouble := self.seen.troubles.get(wish.name):
            yield Ran(wish.name, trouble.why)
        else:
            yield from self._run(wish, mine, wish.due)

    def _consider(self, wish: Wish) -> Iterator[Step]:
        service, time = wish.revision.service, self.now.time
        schedule, base = service.schedule, wish.considered
        assert schedule is not None
        if time < base - CORRECTION:
            yield Consider(wish.name, time)
            return
        last = schedule.last(base, time)
        if last is None:
            yield Wait(wish.name, self.now.seconds + self._until_due(wish), ITS_TIME)
            return
        first, is_late = schedule.next(base), time - last > LATE
        due = last if service.catch_up or not is_late else None
        yield Consider(wish.name, time, due, first if is_late or first != last else None)

    def _until_due(self, wish: Wish) -> float:
        schedule = wish.revision.service.schedule
        due = schedule.next(max(wish.considered, self.now.time)) if schedule else None
        return LOOK_AGAIN if due is None else min(due - self.now.time, LOOK_AGAIN)

    # -- what comes after what ---------------------------------------------------------

    def waits_for(self, wish: Wish) -> list[tuple[str, str]]:
        """The services for which this one waits, each with what it waits for."""
        after = wish.revision.service.after
        return [(name, what) for name, what in after.items() if not self._is(name, what)]

    def _is(self, name: str, condition: str) -> bool:
        wish, mine = self.wished.services[name], self.by_service.get(name, [])
        current = [one for one in mine if one.revision == wish.key]
        if wish.revision.service.is_job:
            return any(condition == STARTED or one.succeeded for one in current)
        wanted = wish.revision.service.replicas
        if wish.state not in UNDER_WAY:  # one is enough to work with, whatever becomes of the rest
            current, wanted = mine, min(wanted, 1)
        fit = [one for one in current if self._fits(wish, one, condition)]
        return len(fit) >= wanted

    def _fits(self, wish: Wish, replica: Replica, condition: str) -> bool:
        return replica.state == UP if condition == STARTED else self.is_good(wish, replica)

    def hindrance(self, wish: Wish) -> str:
        """Why a service does not get further for now, as another one has failed; "" if it does."""
        for name, what in self.waits_for(wish):
            other = self.wished.services[name]
            if other.state in (FAILED, PAUSED, ROLLED_BACK) or self.hindrance(other):
                how = {STARTED: "to be started", COMPLETED: "to complete"}.get(
                    what, "to be healthy"
                )
                return f"waits for {name} {how}"
        return ""


def _is_running(run: Replica) -> bool:
    """Whether a job is running, which is not cut short."""
    return not run.number and run.state in (COMING, MAKING, UP)


def _is_strict(wish: Wish) -> bool:
    """Whether instances that have failed keep an update from being done."""
    policy = wish.revision.service.update
    tolerated = policy.max_failure_ratio or (wish.is_new and policy.failure_action == "continue")
    return not tolerated


def _leave(replicas: Iterable[Replica]) -> Iterator[Step]:
    """The next step on the way out of each: who serves is withdrawn first."""
    for one in replicas:
        if one.state == COMING:
            continue  # there is nothing to remove yet
        if one.leaving == DRAINED or not (one.leaving or one.serves):
            yield Remove(one.service, one.name)
        elif not one.leaving:
            yield Withdraw(one.service, one.name)


def _superfluous(current: list[Replica], old: list[Replica], count: int) -> list[Replica]:
    """Those that go first: old ones, and of these who does not serve; else the newest."""
    first = sorted(old, key=lambda one: (one.serves, one.number))
    then = sorted(current, key=lambda one: (one.serves, -one.number))
    return [*first, *then][:count]


def _free_names(
    stack: str, service: str, taken: Collection[str], count: int
) -> Iterator[tuple[int, str]]:
    number = 0
    while count:
        number += 1
        name = f"{stack}-{service}-{number}"
        if name not in taken:
            count -= 1
            yield number, name


# -- a world in which all goes well ----------------------------------------------------


@frozen
class _World:
    wished: Wished
    seen: Seen
    now: Now

    def after(self, step: Step) -> _World:
        """The world once a step is done."""
        if isinstance(step, NOTES):
            return evolve(self, wished=noted(self.wished, step))
        assert isinstance(step, OfInstance)
        return evolve(self, seen=evolve(self.seen, replicas=self._replicas_after(step)))

    def _replicas_after(self, step: OfInstance) -> tuple[Replica, ...]:
        replicas = self.seen.replicas
        if isinstance(step, Launch):
            return (*replicas, self._launched(step))
        if isinstance(step, Remove):
            return tuple(one for one in replicas if one.name != step.instance)
        changes: dict[str, Any] = {"leaving": DRAINED} if isinstance(step, Withdraw) else self._up
        return tuple(
            evolve(one, **changes) if one.name == step.instance else one for one in replicas
        )

    @property
    def _up(self) -> dict[str, Any]:
        return {"state": UP, "serves": True, "since": self.now.seconds, "fault": ""}

    def _launched(self, step: Launch) -> Replica:
        due = "" if step.due is None else str(step.due)
        new = Replica(step.instance, step.service, step.number, step.revision, UP, due=due)
        if self.wished.services[step.service].revision.service.is_job:
            return evolve(new, state=OVER, succeeded=True)
        return evolve(new, **self._up)


def _going_well(wished: Wished, seen: Seen) -> Seen:
    """What is under way comes to a good end."""
    stay = [one for one in seen.replicas if one.leaving != REMOVING]
    replicas = tuple(_at_its_best(wished.services.get(one.service), one) for one in stay)
    return evolve(seen, replicas=replicas, troubles={})


def _at_its_best(wish: Wish | None, replica: Replica) -> Replica:
    if replica.leaving:
        return evolve(replica, leaving=DRAINED)
    if replica.state not in (COMING, MAKING, UP):
        return replica
    if wish and not replica.number:
        return evolve(replica, state=OVER, succeeded=True)
    return evolve(replica, state=UP, serves=bool(replica.number), fault="")


def _later(now: Now, until: float) -> Now:
    return Now(until, now.time + until - now.seconds)
