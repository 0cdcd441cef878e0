"""What is done later, or while no one waits for it: timers, pauses, looking again, background work.

Nothing else in the manager calls ``callLater``, ``deferLater`` or ``fromCoroutine``: so no timer
is cancelled twice, and no failure is lost. Durations are those of ``reactor.seconds()``, which
``be_monotonic`` makes a clock that no one sets; times of day (``Kernel.now``) are for people only.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txcontain.errors import Error, TooMany

WATCH_AGAIN = 0.1  # seconds
TOO_FEW = {errno.ENOMEM, errno.ENOSPC}  # for epoll_ctl(2): memory; fs.epoll.max_user_watches

T = TypeVar("T")
log = Logger()


def be_monotonic(reactor: Any) -> None:
    """Have a reactor that has nothing to do yet count by CLOCK_MONOTONIC (clock_gettime(2)).

    Twisted's own counts by the time of day: where that is set back by an hour, all that is to
    happen later waits an hour more. Raises RuntimeError if calls are due by that clock already.
    """
    if reactor.getDelayedCalls():
        raise RuntimeError("calls of this reactor's are due by another clock")
    reactor.seconds = time.monotonic


def be_persistent(reactor: Any) -> None:
    """Have a reactor try again to watch a descriptor if the kernel has too few resources now.

    Twisted's raises OSError: then a request is never answered, or an end never noticed.
    """
    for kind in ("Reader", "Writer"):
        add, remove = f"add{kind}", f"remove{kind}"
        watches = Watches(reactor, getattr(reactor, add), getattr(reactor, remove))
        setattr(reactor, add, watches.add)
        setattr(reactor, remove, watches.remove)


@define(eq=False)
class Watches:
    """Descriptors that a reactor is to watch, for reading or for writing."""

    reactor: Any
    add_now: Callable[[Any], None]
    remove_now: Callable[[Any], None]
    _waiting: dict[Any, None] = field(factory=dict)  # that the kernel could not take yet, in order
    _again: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._again = Timer(self.reactor, self._try_again)

    def add(self, descriptor: Any) -> None:
        """Watch this, as soon as that is possible."""
        try:
            self.add_now(descriptor)
        except OSError as error:
            if error.errno not in TOO_FEW:
                raise
            self._wait(descriptor, error)

    def _wait(self, descriptor: Any, error: OSError) -> None:
        if not self._again.is_set:
            log.warn("descriptors can't be watched, trying again: {error}", error=error)
            self._again.after(WATCH_AGAIN)
        self._waiting[descriptor] = None

    def _try_again(self) -> None:
        for descriptor in list(self._waiting):
            del self._waiting[descriptor]
            try:
                self.add(descriptor)
            except Exception:  # it can't be watched at all; the others can
                log.failure("watching {descriptor}", descriptor=descriptor)

    def remove(self, descriptor: Any) -> None:
        """Watch this no longer."""
        self._waiting.pop(descriptor, None)
        self.remove_now(descriptor)


@define(eq=False)
class Timer:
    """A call that is made later, once; to set it again is to move it."""

    reactor: Any
    function: Callable[..., object]
    _call: Any = None  # an IDelayedCall, until it is made

    @property
    def is_set(self) -> bool:
        """Whether the call is yet to be made."""
        return self._call is not None

    def after(self, seconds: float, *arguments: Any) -> None:
        """Call the function with these arguments so many seconds from now, and not before."""
        self.cancel()
        self._call = self.reactor.callLater(seconds, self._make_call, arguments)

    def within(self, seconds: float) -> None:
        """Call the function so many seconds from now, unless it is called sooner anyway."""
        if self._call is None or self._call.getTime() > self.reactor.seconds() + seconds:
            self.after(seconds)

    def cancel(self) -> None:
        """Make no call; nothing if none is to be made."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _make_call(self, arguments: tuple[Any, ...]) -> None:
        self._call = None
        self.function(*arguments)


@define(eq=False)
class Rounds:
    """Calls that are due at about the same time are made at the same moment, which costs less."""

    reactor: Any
    apart: float  # seconds from one moment to the next
    _calls: dict[int, dict[Callable[[], object], None]] = field(factory=dict)  # by the moment

    def add(self, seconds: float, call: Callable[[], object]) -> int:
        """Make a call in about so many seconds; returns the number of that moment."""
        now: float = self.reactor.seconds()
        number = round((now + seconds) / self.apart)
        if number not in self._calls:
            self._calls[number] = {}
            self.reactor.callLater(max(0, number * self.apart - now), self._make_calls, number)
        self._calls[number][call] = None
        return number

    def remove(self, number: int, call: Callable[[], object]) -> None:
        """Don't make this call at that moment; nothing if that has come."""
        self._calls.get(number, {}).pop(call, None)

    def _make_calls(self, number: int) -> None:
        for call in self._calls.pop(number):
            try:
                call()
            except Exception:  # of one; the others are made all the same
                log.failure("making a call in a round")


def begin(work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Fires with what this returns, or fails as it does; whoever has begun it may cancel it."""
    return Deferred.fromCoroutine(work)


def bounded(reactor: Any, seconds: float, work: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Fires with what this returns; it is cancelled, and fails with TimeoutError, after so long."""
    return begin(work).addTimeout(seconds, reactor, _too_late)


def _too_late(outcome: object, seconds: float) -> NoReturn:
    """Whatever a cancelled work made of that: a request, for one, wraps it in errors of its own."""
    raise TimeoutError(seconds, "work")


def pause(reactor: Any, seconds: float) -> Deferred[None]:
    """Fires after so many seconds; to be awaited."""
    return deferLater(reactor, seconds)


async def poll(
    reactor: Any, first: float, *, within: float, most: float | None = None, growth: float = 2
) -> AsyncIterator[None]:
    """Times to look at something, for ``async for``; whoever has seen it breaks out of the loop.

    The first is now. The pauses begin with ``first`` seconds and grow by this factor up to ``most``
    (if given; else they are all alike); there is one look more when ``within`` seconds are over.
    """
    deadline = reactor.seconds() + within
    while True:
        yield
        left = deadline - reactor.seconds()
        if left <= 0:
            return
        await pause(reactor, min(first, left))
        first = first if most is None else min(growth * first, most)


async def slices(reactor: Any, items: Sequence[T], size: int = 100) -> AsyncIterator[Sequence[T]]:
    """Some of many at a time, with a turn of the reactor for others in between."""
    for first in range(0, len(items), size):
        if first:
            await pause(reactor, 0)
        yield items[first : first + size]


def background(work: Coroutine[Any, Any, Any], what: str) -> Deferred[None]:
    """Begin what no one waits for; if it fails, the log says so, and of what.

    What is returned fires when it is over, and never fails.
    """

    begun = Deferred.fromCoroutine(work)
    begun.addCallbacks(lambda _: None, lambda failure: _tell(what, failure))
    return begun


def _tell(what: str, failure: Any) -> None:
    """Have the log say what failed; an error of ours says why itself, without a traceback."""
    if failure.check(Error):
        log.warn("{what}: {error}", what=what, error=failure.value)
    else:
        log.failure("{what}", failure, what=what)


async def together(*works: Coroutine[Any, Any, Any]) -> list[Any]:
    """Do all of this at the same time, to the end, whatever fails; returns what each returned.

    Raises what the first that failed has raised; the log has what the others did.
    """
    begun = [Deferred.fromCoroutine(work) for work in works]
    outcomes: list[Any] = await DeferredList(begun, consumeErrors=True)
    failures = [outcome for succeeded, outcome in outcomes if not succeeded]
    for failure in failures[1:]:
        _tell("also failed", failure)
    for failure in failures[:1]:
        failure.raiseException()
    return [outcome for _, outcome in outcomes]


class Few:
    """Lets only a few do something at the same time, and only so many others wait for that.

    Work goes on if its client hangs up. So the number of connections bounds neither of both.
    """

    def __init__(self, what: str, at_once: int, waiting: int) -> None:
        """:param what: are done, as in "8 exports of volumes" """
        self._what, self._at_once, self._waiting = what, at_once, waiting
        self._turns = DeferredSemaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, which lasts as long as this.

        Raises TooMany.
        """
        if not self._turns.tokens and len(self._turns.waiting) >= self._waiting:
            number = self._at_once + self._waiting
            raise TooMany(f"{number} {self._what} are asked for already", "try again later")
        async with self._turns:
            yield
