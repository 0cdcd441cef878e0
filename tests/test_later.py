"""What is done later, by a clock in memory."""

import errno
import os
import select
import time
from typing import Any

from twisted.internet import epollreactor
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import MachineAtFault, TooMany
from txcontain.later import (
    WATCH_AGAIN,
    Few,
    Rounds,
    Timer,
    background,
    be_monotonic,
    be_persistent,
    bounded,
    poll,
    slices,
    together,
)


class SlicesTests(SynchronousTestCase):
    """Some of many at a time."""

    def test_slices(self) -> None:
        """All are told once, in order, and others have a turn after each slice."""
        clock, told = Clock(), list[list[int]]()

        async def tell() -> None:
            async for some in slices(clock, [1, 2, 3, 4, 5], 2):
                told.append([*some])
                clock.callLater(0, told.append, [0])

        telling = Deferred.fromCoroutine(tell())
        clock.advance(0)
        self.successResultOf(telling)
        self.assertEqual([one for one in told if one != [0]], [[1, 2], [3, 4], [5]])
        self.assertEqual(told[1], [0])

    def test_none(self) -> None:
        """Of none there is no slice, and nobody has to wait."""

        async def tell() -> None:
            async for _ in slices(Clock(), []):
                self.fail("there is nothing")

        self.successResultOf(Deferred.fromCoroutine(tell()))


class TimerTests(SynchronousTestCase):
    """A call that is made later."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[Any] = []
        self.timer = Timer(self.clock, lambda *arguments: self.calls.append(arguments))

    def test_once(self) -> None:
        """The call is made when its time has come, once."""
        self.timer.after(2, "a", 1)
        self.assertTrue(self.timer.is_set)
        self.clock.pump([1.9, 0.2, 10])
        self.assertEqual(self.calls, [("a", 1)])
        self.assertFalse(self.timer.is_set)

    def test_moved(self) -> None:
        """To set it again is to move it."""
        self.timer.after(2, "early")
        self.timer.after(5, "late")
        self.clock.pump([3, 3])
        self.assertEqual(self.calls, [("late",)])

    def test_cancelled(self) -> None:
        """It may be cancelled at any time: before, after, twice, and before it was ever set."""
        self.timer.cancel()
        self.timer.after(2)
        self.timer.cancel()
        self.timer.cancel()
        self.clock.advance(3)
        self.assertEqual(self.calls, [])
        self.timer.after(1)
        self.clock.advance(1)
        self.timer.cancel()
        self.assertEqual(self.calls, [()])

    def test_set_by_its_own_call(self) -> None:
        """The call may set it again, or cancel it."""
        self.timer.function = lambda: self.calls.append(()) or self.timer.after(1)
        self.timer.after(1)
        self.clock.pump([1, 1])
        self.assertEqual(len(self.calls), 2)
        self.timer.function = lambda: self.timer.cancel()
        self.clock.advance(1)
        self.assertFalse(self.timer.is_set)


class RoundsTests(SynchronousTestCase):
    """Calls that are made at the same moment as others."""

    def setUp(self) -> None:
        self.clock, self.made = Clock(), list[float]()
        self.rounds = Rounds(self.clock, 0.5)

    def call(self) -> None:
        """Take note of a call."""
        self.made.append(self.clock.seconds())

    def other(self) -> None:
        """Take note of another one."""
        self.call()

    def test_moments(self) -> None:
        """What is due at about the same time is one call for the reactor, at a moment near it."""
        self.clock.advance(0.1)
        for seconds, call in ((1.0, self.call), (0.8, self.other)):
            self.rounds.add(seconds, call)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.89)
        self.assertEqual(self.made, [])
        self.clock.advance(0.02)
        self.assertEqual(len(self.made), 2)

    def test_a_moment_that_is_over(self) -> None:
        """What is due so soon that the nearest moment is over is made at once."""
        self.clock.advance(0.1)
        self.rounds.add(0.1, self.call)
        self.clock.advance(0)
        self.assertEqual(self.made, [0.1])

    def test_removed(self) -> None:
        """A call that is removed is not made, and can be removed again; others are made."""
        number = self.rounds.add(1, self.call)
        self.rounds.add(1, self.other)
        for _ in range(2):
            self.rounds.remove(number, self.call)
        self.clock.advance(1)
        self.rounds.remove(number, self.other)
        self.assertEqual(self.made, [1])

    def test_one_fails(self) -> None:
        """A call that fails keeps none of the others from being made."""
        self.rounds.add(1, lambda: 1 // 0)
        self.rounds.add(1, self.call)
        self.clock.advance(1)
        self.assertEqual(self.made, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class PollTests(SynchronousTestCase):
    """Times to look at something."""

    def looks(self, *arguments: Any, enough: int = 100, **bounds: Any) -> Any:
        """When someone looked, who had seen enough after so many looks."""
        clock, times = Clock(), []

        async def look() -> None:
            async for _ in poll(clock, *arguments, **bounds):
                times.append(clock.seconds())
                if len(times) == enough:
                    break

        looked = Deferred.fromCoroutine(look())
        clock.pump([0.5] * 100)
        self.successResultOf(looked)
        return times

    def test_growing_pauses(self) -> None:
        """The first look is now; the pauses grow up to a bound; the last is at the deadline."""
        self.assertEqual(self.looks(1, most=4, within=10), [0, 1, 3, 7, 10])
        self.assertEqual(self.looks(1, most=4, within=15, growth=3), [0, 1, 4, 8, 12, 15])

    def test_equal_pauses(self) -> None:
        """Without a bound to grow up to, they are all alike."""
        self.assertEqual(self.looks(1, within=3), [0, 1, 2, 3])

    def test_seen(self) -> None:
        """Who has seen it looks no more."""
        self.assertEqual(self.looks(1, within=9, enough=2), [0, 1])


class BoundedTests(SynchronousTestCase):
    """Work that may take only so long."""

    def test_in_time(self) -> None:
        """What it returns, or raises, is passed on."""

        async def work() -> int:
            return 7

        self.assertEqual(self.successResultOf(bounded(Clock(), 1.0, work())), 7)

    def test_too_late(self) -> None:
        """It is cancelled, and that is told as such whatever it makes of it."""
        clock, waiting = Clock(), Deferred[None]()

        async def work() -> None:
            try:
                await waiting
            except CancelledError:
                raise ValueError("another error") from None

        begun = bounded(clock, 1.0, work())
        clock.advance(1.0)
        self.failureResultOf(begun, TimeoutError)


class BackgroundTests(SynchronousTestCase):
    """Coroutines that no one waits for."""

    async def fail_with(self, error: Any) -> None:
        raise error

    async def wait(self, deferred: Any) -> Any:
        return await deferred

    def test_failure(self) -> None:
        """A failure is logged, with what it was that failed; none goes further."""
        self.successResultOf(background(self.fail_with(KeyError("x")), "doing this"))
        (failure,) = self.flushLoggedErrors(KeyError)
        self.assertEqual(failure.value.args, ("x",))

    def test_error_of_ours(self) -> None:
        """An error that says its cause is logged as that, without a traceback."""
        self.successResultOf(background(self.fail_with(MachineAtFault("a", "b")), "doing this"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_together(self) -> None:
        """What is done together is awaited to its end, and returned in order."""
        first: Deferred[Any] = Deferred()
        second: Deferred[Any] = Deferred()
        done = Deferred.fromCoroutine(together(self.wait(first), self.wait(second)))
        second.callback(2)
        self.assertNoResult(done)
        first.callback(1)
        self.assertEqual(self.successResultOf(done), [1, 2])

    def test_together_with_failures(self) -> None:
        """The first failure is raised when all is over, and every other is logged."""
        last: Deferred[Any] = Deferred()
        works = self.fail_with(KeyError("x")), self.fail_with(ValueError("y")), self.wait(last)
        done = Deferred.fromCoroutine(together(*works))
        self.assertNoResult(done)
        last.callback(None)
        self.failureResultOf(done, KeyError)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_together_with_errors_of_ours(self) -> None:
        """Of errors that say their cause, the log has no traceback: a silent swarm gives many."""
        works = [self.fail_with(MachineAtFault("a", cause)) for cause in ("b", "c")]
        with capturedLogs() as events:
            error = self.failureResultOf(Deferred.fromCoroutine(together(*works))).value
        self.assertEqual(str(error), "a → b")
        self.assertEqual([formatEvent(event) for event in events], ["also failed: a → c"])
        self.assertEqual(self.flushLoggedErrors(), [])


class FewTests(SynchronousTestCase):
    """What only a few may do at the same time."""

    def test_turns(self) -> None:
        """Beyond those that have their turn some wait for one, and no more than are to."""
        few, done = Few("looks", 1, 1), list[int]()

        async def look(number: int, until: Deferred[None]) -> None:
            async with few.turn():
                done.append(number)
                await until

        ends = [Deferred[None]() for _ in range(4)]
        looks = [Deferred.fromCoroutine(look(i, end)) for i, end in enumerate(ends)]
        self.assertEqual(done, [0])
        for late in looks[2:]:
            error = self.failureResultOf(late, TooMany).value
            self.assertEqual(str(error), "2 looks are asked for already → try again later")
        ends[0].callback(None)
        self.assertEqual(done, [0, 1])
        ends[1].errback(ZeroDivisionError())
        self.failureResultOf(looks[1], ZeroDivisionError)
        ends[2] = Deferred()
        ends[2].callback(None)
        self.successResultOf(Deferred.fromCoroutine(look(4, ends[2])))


class MonotonicTests(SynchronousTestCase):
    """The clock of a real reactor."""

    def setUp(self) -> None:
        self.reactor = SelectReactor()
        self.addCleanup(self.reactor.removeAll)
        self.addCleanup(self.reactor._uninstallHandler)

    def test_time_of_day_set(self) -> None:
        """A call is made in its time, though the time of day is set back before."""
        be_monotonic(self.reactor)
        calls: list[Any] = []
        self.reactor.callLater(0, calls.append, 1)
        self.patch(time, "time", lambda: 0.0)
        self.reactor.runUntilCurrent()
        self.assertEqual(calls, [1])
        self.assertLess(abs(self.reactor.seconds() - time.monotonic()), 60)

    def test_too_late(self) -> None:
        """A reactor that has something to do already keeps its clock."""
        self.reactor.callLater(5, lambda: None)
        self.assertRaises(RuntimeError, be_monotonic, self.reactor)


class ScarceEpoll:
    """An epoll(7) instance for which there may be no watch left."""

    error: int | None = None  # that the kernel answers then

    def __init__(self, size: int) -> None:
        real = select.epoll()
        self.add = real.register
        self.poll, self.modify, self.unregister = real.poll, real.modify, real.unregister
        self.close = real.close

    def register(self, descriptor: int, events: int) -> None:
        """EPOLL_CTL_ADD."""
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self.add(descriptor, events)


class Ear:
    """Hears what comes out of a pipe, or that something fits into it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.heard = descriptor, 0

    def fileno(self) -> int:
        """For the reactor."""
        return self.descriptor

    def logPrefix(self) -> str:
        """For the reactor."""
        return "ear"

    def doRead(self) -> None:
        """It has heard something."""
        self.heard += 1

    doWrite = doRead


class PersistentTests(SynchronousTestCase):
    """A real reactor that can't watch a descriptor now."""

    def setUp(self) -> None:
        self.patch(epollreactor, "epoll", ScarceEpoll)
        self.reactor: Any = epollreactor.EPollReactor()
        self.addCleanup(self.reactor._poller.close)
        self.addCleanup(self.reactor.removeAll)
        self.addCleanup(self.reactor._uninstallHandler)
        self.now = 0.0
        self.reactor.seconds = lambda: self.now
        be_persistent(self.reactor)
        pipe = os.pipe()
        for end in pipe:
            self.addCleanup(os.close, end)
        self.reads, self.writes = map(Ear, pipe)
        os.write(pipe[1], b"x")

    def scarce(self, error: int | None) -> None:
        """From now on there is no watch left; or, with None, there is again."""
        self.patch(ScarceEpoll, "error", error)

    def heard(self) -> list[int]:
        """How often each end has heard something, after some time."""
        self.now += WATCH_AGAIN
        self.reactor.runUntilCurrent()
        self.reactor.doIteration(0)
        return [self.reads.heard, self.writes.heard]

    def test_one_of_them_is_closed(self) -> None:
        """One that can't be watched any more does not keep the others from being watched."""
        self.scarce(errno.ENOSPC)
        closed = Ear(self.writes.fileno() + 100)
        self.reactor.addReader(closed)
        self.reactor.addReader(self.reads)
        self.scarce(None)
        self.assertEqual(self.heard(), [1, 0])
        self.reactor.removeReader(self.reads)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_tried_again(self) -> None:
        """It is watched as soon as that is possible; nothing that came before is missed."""
        for error in (errno.ENOSPC, errno.ENOMEM):
            self.scarce(error)
            self.reactor.addReader(self.reads)
            self.reactor.addWriter(self.writes)
            self.assertEqual([self.heard(), self.heard()], [[0, 0], [0, 0]])
            self.scarce(None)
            self.assertEqual(self.heard(), [1, 1])
            self.reactor.removeReader(self.reads)
            self.reactor.removeWriter(self.writes)
            self.assertEqual(self.heard(), [1, 1])
            self.reads.heard = self.writes.heard = 0

    def test_removed(self) -> None:
        """What is no longer to be watched is not tried again."""
        self.scarce(errno.ENOSPC)
        self.reactor.addReader(self.reads)
        self.reactor.removeReader(self.reads)
        self.scarce(None)
        self.assertEqual(self.heard(), [0, 0])

    def test_other_errors(self) -> None:
        """Any other error is a bug, and is raised."""
        self.scarce(errno.EBADF)
        self.assertRaises(OSError, self.reactor.addReader, self.reads)
