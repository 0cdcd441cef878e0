"""Warm inits: some are kept that are connected, and wait for a plan.

One of them has carried out only the base plan. The others went on as far as the last two plans
were alike: for a config that is launched again and again, that is everything up to the exec, for
an instance whose name is drawn in advance (prepared.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from txcontain.container.blueprint import Blueprint
from txcontain.container.plan import Plan, begins_with
from txcontain.later import Timer
from txcontain.runtime.child import Child
from txcontain.runtime.prepared import Prepared, stem_of
from txcontain.runtime.refill import LATELY, Drop, Spawn, Wanted, Warm, decide, share

REFILL_AFTER = 0.05  # seconds after a launch
RETRY_AFTER = 5.0  # seconds after a warm init was lost


@define(eq=False)
class WarmInits:
    """Keeps as many as are needed, and finds the one that has done most of a plan."""

    reactor: Any
    prepared: Prepared
    base_plan: Plan
    spawn: Callable[[Plan, str], Child]  # an init that carries out these steps, under this name
    least: int  # to keep; 0: none
    most: int  # to keep, if many were taken lately
    _children: list[Child] = field(factory=list)
    # When the last ones were, and whether an unexpected launch took a plain one, or found none.
    _taken: list[tuple[float, bool]] = field(factory=list)
    _refill: Timer = field(init=False)
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self._refill = Timer(self.reactor, self._look)

    @property
    def ready(self) -> int:
        """How many wait for a launch."""
        return len(self._children)

    def stop(self) -> None:
        """Let go of all, and keep none."""
        self._refill.cancel()
        self.least = self.most = 0
        for child in self._children:
            child.hang_up()

    def lease(self, blueprint: Blueprint) -> Child | None:
        """One that has prepared such an instance, under a reserved name.

        No other launch gets it. The caller takes it, or gives it back.
        """
        for child in self._children:
            name = child.reserved
            if stem_of(name) == blueprint.spec.name and begins_with(
                blueprint.plan(name), child.early_steps
            ):
                self._children.remove(child)
                return child
        return None

    def give_back(self, leased: Child | None) -> None:
        """The launch that leased it does not take place."""
        if leased is not None and leased.connection is not None:
            self._children.append(leased)

    def take(self, plan: Plan) -> Child | None:
        """The one that has carried out most of a plan."""
        fit = [child for child in self._children if begins_with(plan, child.early_steps)]
        child = max(fit, key=lambda child: len(child.early_steps), default=None)
        if child is not None:
            self._children.remove(child)
        return child

    def demand(self, taken: Child | None) -> None:
        """A launch has taken this one, or found none: as many are kept as were needed lately."""
        plain = taken is None or taken.early_steps == self.base_plan
        self._taken.append((self.reactor.seconds(), plain))
        if self.most:
            self._refill.within(REFILL_AFTER)

    def lost(self, child: Child) -> None:
        """An init has ended, or is ending: no launch may get it."""
        if child in self._children:
            if self.least:
                self._log.warn("a warm init has ended; another will be started")
            self._children.remove(child)
            self.look_after(RETRY_AFTER)

    def look_after(self, seconds: float) -> None:
        """Look then whether there are too few, too many, or some that nobody will need."""
        if self.most:
            self._refill.after(seconds)

    def _look(self) -> None:
        decision = decide(
            [self._good_for(one) for one in self._children], self._wanted(), self.least
        )
        if isinstance(decision, Drop):
            for which in reversed(decision.which):
                self._children.pop(which).hang_up()
            self.look_after(0)
        elif isinstance(decision, Spawn):
            name, steps = self.prepared.draw() if decision.prepared else ("", [])
            child = self.spawn(steps or self.base_plan, name)
            child.waiting.addCallbacks(self._warmed, self._not_warmed)
        elif decision.seconds is not None:
            self.look_after(decision.seconds)

    def _wanted(self) -> Wanted:
        """How many to have now: as many as were taken lately, within limits."""
        since = self.reactor.seconds() - LATELY
        self._taken = [taken for taken in self._taken if taken[0] > since]
        if not self.least:
            return Wanted(0, 0)
        plain = sum(plain for _, plain in self._taken)
        return share(plain, len(self._taken), self.least, self.most)

    def _good_for(self, child: Child) -> Warm:
        if child.early_steps == self.base_plan:
            return Warm.PLAIN
        expected = self.prepared.expects(child.reserved, child.early_steps)
        return Warm.EXPECTED if expected else Warm.STALE

    def _warmed(self, child: Child) -> None:
        if self.most:
            child.in_advance = len(child.early_steps)
            self._children.append(child)
            self.look_after(0)
        else:  # stopped meanwhile
            child.hang_up()

    def _not_warmed(self, reason: Any) -> None:
        if self.most:
            self._log.warn("no warm init could be started: {why}", why=reason.getErrorMessage())
        self.prepared.forget()
        self.look_after(RETRY_AFTER)
