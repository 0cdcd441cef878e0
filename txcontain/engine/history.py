"""What instances have used: each second of the last ten minutes, every ten of the last six hours.

It is in memory, and begins anew with each manager. Once someone asks, a thread reads the files of
all running instances every second, for ten minutes after the last question. Before and after that
it reads them twice a minute, and the points in between are means. While no instance runs, nothing
wakes. A point takes three bytes, so 1,000 instances take 8.3 MB after six hours: memory has 12
binary digits, processor time 5.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from math import floor
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred

from txcontain.host.cgroups import Cgroups
from txcontain.host.kernel import Kernel
from txcontain.host.meters import Meters, Reading
from txcontain.later import Timer, background, slices
from txcontain.runtime.instance import Instance

POINTS = {1: 600, 10: 2160}  # how many are kept, by the seconds from one to the next
FINE, COARSE = POINTS
UNASKED = 30  # seconds from one look to the next while no one asks
ASKED_FOR = 600.0  # seconds for which it is looked often after someone has asked
PAGE = 4096  # bytes: memory is counted in pages
SHARE = 1024  # processor time is counted in such parts of a processor
CPU_DIGITS, MEMORY_DIGITS = 5, 12  # binary ones, of thousandths of a processor and of pages
NONE = 0  # for a point at which nothing was known
Values = list[float | None]


def pack(number: int, digits: int, most: int) -> int:
    """A number as one from 1 to ``most``: its first binary digits, and how many more there are.

    It is exact if it has no more digits than these; else it is rounded to them. A larger number has
    a larger code, and all codes are in use.
    """
    more = max(0, number.bit_length() - digits)
    rounded = number + (1 << more >> 1)
    return min(1 + (more << (digits - 1)) + (rounded >> more), most)


def unpack(code: int, digits: int) -> int:
    """The number that ``pack`` has packed."""
    more = max(0, (code - 1 >> digits - 1) - 1)
    return (code - 1 - (more << (digits - 1))) << more


CPU = [None, *(unpack(code, CPU_DIGITS) / SHARE for code in range(1, 1 << 8))]  # processors


@define(eq=False)
class Ring:
    """The last points of an instance, one for each tick; at most ``most``."""

    most: int
    last: int = -1  # the tick of the newest point
    _at: int = 0  # where the oldest point is
    _cpu: array[int] = field(factory=lambda: array("B"))
    _memory: array[int] = field(factory=lambda: array("H"))

    def add(self, tick: int, cpu: int, memory: int, missed: tuple[int, int] = (NONE, NONE)) -> None:
        """Add a point; those that are missing before it become ``missed``."""
        if not self._cpu or tick - self.last > self.most:
            self.last, self._at = tick - 1, 0
            del self._cpu[:], self._memory[:]
        while self.last < tick - 1:
            self._put(*missed)
        self._put(cpu, memory)

    def _put(self, cpu: int, memory: int) -> None:
        if len(self._cpu) < self.most:
            self._cpu.append(cpu)
            self._memory.append(memory)
        else:
            self._cpu[self._at], self._memory[self._at] = cpu, memory
            self._at = (self._at + 1) % self.most
        self.last += 1

    def read(self, last: int, points: int) -> tuple[Values, Values]:
        """The processors and bytes of so many ticks up to the last; None for what is missing."""
        cpu, memory = (one[self._at :] + one[: self._at] for one in (self._cpu, self._memory))
        first, oldest = last - points + 1, self.last - len(cpu) + 1
        kept = slice(max(0, first - oldest), max(0, last + 1 - oldest))
        cpu, memory = cpu[kept], memory[kept]
        before: Values = [None] * min(points, max(0, oldest - first))
        after: Values = [None] * (points - len(before) - len(cpu))
        return (
            [*before, *(CPU[code] for code in cpu), *after],
            [*before, *(_bytes(code) for code in memory), *after],
        )


def _bytes(code: int) -> int | None:
    return None if code == NONE else unpack(code, MEMORY_DIGITS) * PAGE


@define(eq=False)
class Track:
    """What is known of an instance, by the seconds between two points."""

    rings: dict[int, Ring] = field(
        factory=lambda: {step: Ring(most) for step, most in POINTS.items()}
    )
    token: str = ""  # of the processes that were read last
    at: float = 0.0  # when that was, by the reactor's clock
    cpu_usec: int | None = None  # what was read then
    memory: int | None = None  # the same
    _before: dict[int, tuple[float, int | None]] = field(factory=dict)  # a step's last reading
    _largest: int = NONE  # memory since the last coarse point

    def add(self, second: int, at: float, token: str, reading: Reading) -> None:
        """Add what was read in a second; ``at`` is the time by the same clock."""
        if second <= self.rings[FINE].last:
            return  # read twice in a second, as someone has asked
        if token != self.token:  # it was started again: nothing is known of the time between
            self.token, self.memory = token, None
            self._before.clear()
        cpu, memory = reading
        code, mean = _pack(memory), _mean(self.memory, memory)
        self.at, self.cpu_usec, self.memory = at, cpu, memory
        self._largest = max(self._largest, code)
        self._put(FINE, second, code, mean)
        if second // COARSE != self.rings[COARSE].last:
            self._put(COARSE, second // COARSE, self._largest, mean)
            self._largest = NONE

    def _put(self, step: int, tick: int, memory: int, mean: int) -> None:
        share = self._share(step)
        self.rings[step].add(tick, share, memory, (share, mean))

    def _share(self, step: int) -> int:
        """How many processors it has used since the last point, packed."""
        since, before = self._before.get(step, (self.at, None))
        self._before[step] = self.at, self.cpu_usec
        if self.cpu_usec is None or before is None or self.cpu_usec < before or self.at <= since:
            return NONE
        shares = round((self.cpu_usec - before) / (self.at - since) * SHARE / 1e6)
        return pack(shares, CPU_DIGITS, (1 << 8) - 1)


def _pack(memory: int | None) -> int:
    return NONE if memory is None else pack(memory // PAGE, MEMORY_DIGITS, (1 << 16) - 1)


def _mean(before: int | None, now: int | None) -> int:
    return NONE if before is None or now is None else _pack((before + now) // 2)


@define(eq=False)
class History:
    """The history of all instances."""

    reactor: Any
    kernel: Kernel
    cgroups: Callable[[], Cgroups]
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    running: Callable[[], list[Instance]]
    meters: Meters
    tracks: dict[str, Track] = field(factory=dict)  # by instance
    _timer: Timer = field(
        default=Factory(lambda self: Timer(self.reactor, self._look), takes_self=True)
    )
    _looking: bool = False
    _asked: float | None = None  # when someone has asked last

    def look(self) -> None:
        """Look from now on, as long as an instance runs."""
        if not self._timer.is_set and not self._looking:
            now, step = self.reactor.seconds(), FINE if self._is_asked() else UNASKED
            self._timer.after((floor(now / step) + 1) * step - now)

    async def asked(self) -> None:
        """Someone is about to read it: look every second, and now if the last look is older."""
        slept, self._asked = not self._is_asked(), self.reactor.seconds()
        if slept and self._timer.is_set:
            self._timer.cancel()
            await background(self._sample(), "looking at what instances use")

    def _is_asked(self) -> bool:
        return self._asked is not None and self.reactor.seconds() < self._asked + ASKED_FOR

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def forget(self, name: str) -> None:
        """An instance is removed."""
        self.tracks.pop(name, None)

    def rename(self, name: str, to: str) -> None:
        """An instance has another name."""
        if track := self.tracks.pop(name, None):
            self.tracks[to] = track

    def _look(self) -> None:
        background(self._sample(), "looking at what instances use")

    async def _sample(self) -> None:
        found = [(one, one.processes.token) for one in self.running() if one.processes]
        self._looking = True
        try:
            tokens = [token for _, token in found]
            readings = await self.threads(self.meters.read, self.cgroups(), tokens)
            at = self.reactor.seconds()
            async for some in slices(self.reactor, list(zip(found, readings, strict=True))):
                self._add(at, some)
        finally:
            self._looking = False
            if found:
                self.look()

    def _add(self, at: float, some: Sequence[tuple[tuple[Instance, str], Reading]]) -> None:
        for (instance, token), reading in some:
            if instance.running and not instance.ending:
                track = self.tracks.setdefault(instance.name, Track())
                track.add(floor(at), at, token, reading)

    def read(
        self, names: Sequence[str], step: int, points: int
    ) -> tuple[float, Iterator[tuple[str, Values, Values]]]:
        """When the last point was (in unix time), and each instance's processors and bytes."""
        now = self.reactor.seconds()
        tracks = [(name, self.tracks[name]) for name in names if name in self.tracks]
        newest = max((track.rings[step].last for _, track in tracks), default=0)
        last = max(newest, floor(now / step) - 1)  # this second's may not be known yet
        until = self.kernel.now() - (now - last * step)
        return until, ((name, *track.rings[step].read(last, points)) for name, track in tracks)
