"""Looks at a swarm again and again: what was seen last answers while the swarm does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred

from txcontain.engine.counts import Histogram
from txcontain.errors import Error, Unavailable
from txcontain.later import Timer, background
from txcontain.swarm.client import ANSWER_WITHIN
from txcontain.swarm.records import Seen, changes

LOOK_EVERY = 1.0  # seconds
REST = 2.0  # as long as a look has taken: with many instances it takes seconds
COSTLY = 0.5  # seconds that a look has taken: then no one has a look of his own
AT_ONCE = 0.04  # seconds
OLD = 2.0  # seconds: a look to those who ask again and again


@define(eq=False)
class Watch:
    """Has the last look at a swarm."""

    reactor: Any
    look: Callable[[], Coroutine[Any, Any, Seen]]  # raises Unavailable, MachineAtFault
    tell: Callable[[str, str, str], object]  # of each change: the instance, what, and why
    settle: Callable[[Seen], object] = lambda seen: None  # with each look
    seen: Seen | None = None
    trouble: Sequence[str] = ()  # why the last look has failed, if it has
    durations: Histogram = field(factory=Histogram)  # of looks
    failed: int = 0  # looks
    _took: float = 0.0  # seconds, the last look that has succeeded
    _written: float = -math.inf  # when this manager has changed something last
    _under_way: tuple[float, Deferred[None]] | None = None  # a look: when it began, and its end
    _timer: Timer = field(
        default=Factory(lambda self: Timer(self.reactor, self._begin), takes_self=True)
    )

    def start(self) -> None:
        """Look from now on."""
        self._timer.after(0)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()
        self.settle = lambda seen: None  # for a look that is under way

    @property
    def is_silent(self) -> bool:
        """Whether no look has succeeded for as long as an answer may take, and a pause before."""
        long_ago = self.reactor.seconds() - ANSWER_WITHIN - self._pause - self._took
        return self.seen is None or self.seen.began < long_ago

    @property
    def _pause(self) -> float:
        """Seconds between two looks."""
        return max(LOOK_EVERY, REST * self._took)

    def wrote(self) -> None:
        """This manager has changed something: what was seen before does not have it."""
        self._written = self.reactor.seconds()

    async def now(self) -> tuple[Seen, float | None]:
        """What there is, and None; or what was seen last, and the unix time of that.

        A swarm that does not answer at once is not waited for, unless this manager has changed
        something since the last look. Raises Unavailable if there was none.
        """
        before = self.seen
        is_whole = before is not None and before.began > self._written
        if before and is_whole and self._took > COSTLY:
            return before, before.time
        within = AT_ONCE if is_whole else ANSWER_WITHIN
        await wait_for(self.reactor, within, self._refresh())
        if self.seen is None:
            why = self.trouble or ("it does not answer: try again",)
            raise Unavailable("asking the swarm", *why)
        return self.seen, self.seen.time if self.seen is before else None

    async def lately(self) -> Seen:
        """The last look, if that is not old; else what there is now. Raises Unavailable."""
        if self.seen and self.seen.began > self.reactor.seconds() - OLD:
            return self.seen
        return (await self.now())[0]

    def _begin(self) -> None:
        self._timer.after(self._pause)
        self._refresh()

    def _refresh(self) -> Deferred[None]:
        """The end of a look that has all that was written; those who ask meanwhile share it."""
        if self._under_way is None or self._under_way[0] <= self._written:
            began, looking = self.reactor.seconds(), background(self._look(), "watching the swarm")
            self._under_way = began, looking
            looking.addCallback(lambda _: self._is_over(looking))
            return looking
        return self._under_way[1]

    def _is_over(self, looking: Deferred[None]) -> None:
        if self._under_way and self._under_way[1] is looking:
            self._under_way = None

    async def _look(self) -> None:
        try:
            seen = await self.look()
        except Error as error:
            self.trouble = error.chain[1:]
            self.failed += 1
            raise
        self.trouble = ()
        if self.seen is None or seen.began >= self.seen.began:
            before, self.seen = self.seen, seen
            for change in changes(before, seen) if before else ():
                self.tell(*change)
            self.settle(seen)
        self._took = self.reactor.seconds() - seen.began
        self.durations.add(self._took)


def wait_for(reactor: Any, seconds: float, begun: Deferred[None]) -> Deferred[None]:
    """Fires when this does, or after so many seconds: then it goes on all the same."""
    waited: Deferred[None] = Deferred(lambda waited: waited.callback(None))
    begun.addCallback(lambda _: None if waited.called else waited.callback(None))
    return waited.addTimeout(seconds, reactor)
