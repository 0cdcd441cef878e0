"""What instances have used."""

import sys
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeMeters, ManagerTestCase
from txcontain.engine.history import (
    CPU_DIGITS,
    MEMORY_DIGITS,
    PAGE,
    POINTS,
    Ring,
    Track,
    pack,
    unpack,
)
from txcontain.engine.renaming import rename

MIB = 1 << 20
NOTHING = (None, None)


class PackTests(SynchronousTestCase):
    """A number in few bits."""

    @given(st.integers(0, 1 << 38))
    def test_rounded(self, number: int) -> None:
        """It is exact, or wrong by half of its last binary digit; two bytes hold it."""
        code = pack(number, MEMORY_DIGITS, 65535)
        self.assertLess(code, 65535)
        self.assertLessEqual(abs(unpack(code, MEMORY_DIGITS) - number) << MEMORY_DIGITS, number)

    def test_in_order(self) -> None:
        """Every code stands for a number of its own, larger than the one before."""
        numbers = [unpack(code, 5) for code in range(1, 256)]
        self.assertEqual([pack(number, 5, 255) for number in numbers], [*range(1, 256)])
        self.assertEqual(numbers, sorted({*numbers}))

    def test_too_large(self) -> None:
        """What is larger than all codes is the largest."""
        self.assertEqual(pack(10**9, 5, 255), 255)


class RingTests(SynchronousTestCase):
    """The last points."""

    @given(st.lists(st.integers(1, 4), max_size=40), st.integers(1, 12), st.integers(-3, 3))
    def test_like_a_table(self, steps: list[int], points: int, later: int) -> None:
        """It tells what a table of all points has, of the last ones, and None for the others."""
        ring, table, tick = Ring(8), {}, 100
        for code, step in enumerate(steps, 1):
            tick += step
            ring.add(tick, code, code)
            table[tick] = unpack(code, CPU_DIGITS) / 1024, unpack(code, MEMORY_DIGITS) * PAGE
        last = tick + later
        told = list(zip(*ring.read(last, points), strict=True))
        ticks = range(last - points + 1, last + 1)
        kept = [table.get(at, NOTHING) if at > tick - 8 else NOTHING for at in ticks]
        self.assertEqual(told, kept)

    def test_missed(self) -> None:
        """Points that are missing before another one become what one says, or None."""
        ring = Ring(8)
        ring.add(1, 1, 1)
        ring.add(4, 5, 5, (3, 3))
        ring.add(6, 1, 1)
        cpu, memory = ring.read(6, 6)
        self.assertEqual([share and share * 1024 for share in cpu], [0, 2, 2, 4, None, 0])
        self.assertEqual(memory, [0, 2 * PAGE, 2 * PAGE, 4 * PAGE, None, 0])

    def test_size(self) -> None:
        """A thousand instances take less than 10 MB, however long they run."""
        track = Track()
        for second in range(POINTS[10] * 10 + 20):
            track.add(second, float(second), "token", (second * 1000, MIB))
        arrays = [one for ring in track.rings.values() for one in (ring._cpu, ring._memory)]
        self.assertLess(sum(map(sys.getsizeof, arrays)), 9500)
        self.assertEqual([len(one) for one in arrays], [600, 600, 2160, 2160])


class HistoryTests(ManagerTestCase):
    """What the manager remembers."""

    def setUp(self) -> None:
        super().setUp()
        self.history = self.manager.history
        self.meters = FakeMeters()
        self.history.meters = self.meters
        self.ask()

    def ask(self) -> None:
        """Someone asks for the history."""
        self.now(self.history.asked())

    def told(self, name: str, points: int, step: int = 1) -> Any:
        """The points of an instance."""
        _, told = self.history.read([name], step, points)
        return [(cpu, memory) for _, cpu, memory in told]

    def use(self, *used: Any) -> None:
        """Seconds pass, in which an instance uses that."""
        for reading in used:
            self.meters.readings = [reading]
            self.reactor.advance(1)

    def test_each_second(self) -> None:
        """Processor time is the difference of two readings; memory is as it was read."""
        name = self.launch().name
        self.use((0, MIB), (500_000, 2 * MIB), (500_000, None), (None, MIB))
        self.assertEqual(
            self.told(name, 5), [([None, None, 0.5, 0, None], [None, MIB, 2 * MIB, None, MIB])]
        )

    def test_ten_seconds(self) -> None:
        """A coarse point has the mean of processor time, and the largest memory."""
        name = self.launch().name
        self.reactor.advance(9 - self.reactor.seconds() % 10)
        readings = [(1_000_000 * second, second * MIB) for second in range(11)]
        self.use(*readings)
        ((cpu, memory),) = self.told(name, 1, step=10)
        self.assertEqual((cpu, memory), ([1.0], [10 * MIB]))

    def test_unasked(self) -> None:
        """Ten minutes after the last question it is looked twice a minute; means are in between."""
        name = self.launch().name
        self.use((0, MIB))
        self.reactor.pump([1] * 600)
        self.meters.readings = [(0, MIB)]
        self.reactor.advance(30 - self.reactor.seconds() % 30)
        self.meters.readings = [(15_000_000, 3 * MIB)]
        self.reactor.pump([1] * 29)
        self.assertEqual(self.told(name, 28), [([None] * 28, [None] * 28)])
        self.reactor.advance(1)
        self.assertEqual(
            self.told(name, 31), [([0.0, *[0.5] * 30], [MIB, *[2 * MIB] * 29, 3 * MIB])]
        )
        self.assertEqual(self.told(name, 3, step=10), [([0.5] * 3, [2 * MIB, 2 * MIB, 3 * MIB])])

    def test_asked_again(self) -> None:
        """Who asks after a while finds all up to now, and from now on there is a point a second."""
        name = self.launch().name
        self.use((0, MIB))
        self.reactor.pump([600])
        self.meters.readings = [(0, MIB)]
        self.reactor.advance(30 - self.reactor.seconds() % 30)
        self.reactor.advance(5)
        self.meters.readings = [(2_500_000, MIB)]
        self.ask()
        self.assertEqual(self.told(name, 6), [([0.0, *[0.5] * 5], [MIB] * 6)])
        self.use((3_500_000, MIB))
        self.assertEqual(self.told(name, 2), [([0.5, 1.0], [MIB, MIB])])

    def test_asked_in_the_same_second(self) -> None:
        """A second that is read twice, as someone asks, has one point."""
        name = self.launch().name
        self.reactor.pump([600])
        self.meters.readings = [(0, MIB)]
        self.reactor.advance(30 - self.reactor.seconds() % 30)
        self.reactor.advance(0.5)
        self.meters.readings = [(500, 2 * MIB)]
        self.ask()
        self.assertEqual(self.told(name, 1), [([None], [MIB])])

    def test_none_to_ask_for(self) -> None:
        """To ask where nothing runs wakes nothing."""
        self.ask()
        self.assertFalse(self.history._timer.is_set)

    def test_started_anew(self) -> None:
        """Of the time between an end and the next start nothing is known."""
        track = Track()
        track.add(1, 1.0, "first", (1000, MIB))
        track.add(4, 4.0, "second", (3_000_000, MIB))
        self.assertEqual(track.rings[1].read(4, 4), ([None] * 4, [MIB, None, None, MIB]))

    def test_counted_anew(self) -> None:
        """If less was used than before, the count has begun anew: that second is not known."""
        name = self.launch().name
        self.use((9_000_000, 0), (1000, 0), (11_000, 0))
        ((cpu, _),) = self.told(name, 3)
        self.assertEqual(cpu, [None, None, 10 / 1024])

    def test_until(self) -> None:
        """The last point's time is that of the day, whatever the clock of durations says."""
        name = self.launch().name
        self.use((0, 0))
        until, _ = self.history.read([name], 1, 1)
        behind = self.reactor.seconds() % 1
        self.assertAlmostEqual(until, self.kernel.now() - behind)
        self.reactor.advance(0.5)
        self.assertAlmostEqual(self.history.read([name], 1, 1)[0], self.kernel.now() - behind - 0.5)

    def test_none_runs(self) -> None:
        """Without a running instance nothing wakes; what has ended is still told."""
        instance = self.launch()
        self.use((0, MIB))
        self.init.end()
        self.reactor.pump([0, 1, 1])
        self.assertEqual(self.told(instance.name, 2), [([None, None], [MIB, None])])
        self.assertFalse(self.history._timer.is_set)
        self.now(self.manager.destroy(instance.name))
        self.assertEqual(self.told(instance.name, 2), [])

    def test_slow_machine(self) -> None:
        """There is one look at a time; what was missed is missing; an end meanwhile is no harm."""
        first, second = self.launch(), self.launch(minor="02")
        looks: list[Deferred[Any]] = []

        def later(*_: Any) -> Deferred[Any]:
            looks.append(Deferred())
            return looks[-1]

        self.history.threads = later
        self.reactor.pump([1, 1, 1])
        self.init.end()
        self.reactor.advance(0)
        looks.pop().callback([(0, MIB), (0, MIB)])
        self.assertEqual(looks, [])
        self.assertEqual(self.told(first.name, 3)[0][1], [None, None, MIB])
        self.assertEqual(self.told(second.name, 3), [])

    def test_no_thread(self) -> None:
        """A look that fails is told in the log, and the next one is taken."""
        name = self.launch().name
        with mock.patch.object(self.history, "threads", lambda *_: fail(RuntimeError("none"))):
            self.reactor.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.use((0, MIB))
        self.assertEqual(self.told(name, 1)[0][1], [MIB])

    def test_renamed(self) -> None:
        """The history follows an instance to another name."""
        instance = self.launch()
        self.use((0, MIB))
        self.init.end()
        self.reactor.advance(0)
        self.now(rename(self.manager, instance, "other"))
        self.assertEqual(self.told("other", 1)[0][1], [MIB])
