"""What the manager counts of what it does, for whoever collects its figures; it begins at 0."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakSet

from attrs import define, field

from txcontain.runtime.exits import ALL_KINDS, Exit
from txcontain.runtime.instance import Instance

STARTS = ("warm", "prepared", "cold")  # how much of a launch was done in advance: see warm.py
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
ENDS = ("waiting", "stopped", "ended")  # states after an end


@define
class Histogram:
    """How many durations were at most so long."""

    bounds: Sequence[float] = SECONDS
    counts: list[int] = field(init=False)  # one for each bound, and one for what is longer
    total: float = 0.0  # seconds of all together

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@define
class Counts:
    """All that is counted."""

    launches: dict[str, Histogram] = field(
        factory=lambda: {start: Histogram() for start in STARTS}
    )  # until the program runs
    failed_launches: int = 0
    exits: Counter[str] = field(factory=lambda: Counter(dict.fromkeys(ALL_KINDS, 0)))
    requests: dict[tuple[str, str], Histogram] = field(factory=dict)  # by method and route
    answers: Counter[int] = field(factory=Counter)  # by status
    _asked: WeakSet[Instance] = field(factory=WeakSet)  # those that are being ended
    _counted: WeakKeyDictionary[Instance, Exit] = field(factory=WeakKeyDictionary)

    def launched(self, instance: Instance, seconds: float) -> None:
        """An instance was launched: its program ran after so many seconds."""
        prepared = bool(getattr(instance.processes, "reserved", ""))
        start = "prepared" if prepared else "warm" if instance.in_advance else "cold"
        self.launches[start].add(seconds)

    def changed(self, instance: Instance) -> str | None:
        """Count the end of an instance, if this is one; returns its kind (``Exit.kind``)."""
        if instance.state == "stopping":
            self._asked.add(instance)
        if instance.state not in ENDS or instance.exit in (None, self._counted.get(instance)):
            return None
        assert instance.exit is not None
        kind = instance.exit.kind
        if instance in self._asked and kind != "out_of_memory":
            kind = "asked"
        self._asked.discard(instance)
        self._counted[instance] = instance.exit
        self.exits[kind] += 1
        return kind

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests.setdefault((method, route), Histogram()).add(seconds)
        self.answers[status] += 1
