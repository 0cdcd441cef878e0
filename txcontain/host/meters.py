"""What containers use, read again and again, and so no more of it than can have changed.

To read a file of a cgroup that is open takes a quarter of the time that it takes to open it, too.
So two of each container are held open if there is room; more would slow down each start of a
process, which looks at all descriptors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Lock

from attrs import define, field

from txcontain.host.cgroups import ACCOUNTS, LONGEST, SOCKETS, Cgroups, Source, read_figures

READ_AGAIN = ("cpu_usec", "memory")  # held open
# These also change while no process of a container runs: the kernel does something for them.
ASLEEP = [name for name in ACCOUNTS if name.startswith(("io_", "memory_waiting", "memory_stalled"))]
Reading = tuple[int | None, int | None]  # one number for each of READ_AGAIN; None: not counted


@define(eq=False)
class Meters:
    """Threads that use it take turns."""

    may_hold: Callable[[int], bool]  # whether so high a descriptor may be held
    _held: dict[tuple[str, str], int] = field(factory=dict)  # by token and file
    _told: dict[str, tuple[Reading, dict[str, int]]] = field(factory=dict)  # by token
    _told_of_all: dict[str, dict[str, int]] = field(factory=dict)  # by file
    _turn: Lock = field(factory=Lock)

    def read(self, cgroups: Cgroups, tokens: Sequence[str]) -> list[Reading]:
        """What these containers use now; files of all others are closed."""
        with self._turn:
            return self._read(cgroups, tokens)

    def accounts(self, cgroups: Cgroups, tokens: Sequence[str]) -> list[dict[str, int]]:
        """All that is counted for these containers: ACCOUNTS.

        Most of it can only have changed if the container has run, or has more memory or less; the
        rest only if it has also changed in the group above, which counts for all.
        """
        every = cgroups.sources([name for name in ACCOUNTS if name not in READ_AGAIN])
        with self._turn:
            by_kernel = self._changed_by_kernel(cgroups)
            told, self._told = self._told, {}
            for token, reading in zip(tokens, self._read(cgroups, tokens), strict=True):
                before, figures = told.get(token, (None, {}))
                has_run = reading != before or None in reading
                fresh = read_figures(token, every if has_run else by_kernel)
                self._told[token] = reading, figures | fresh
            return [figures | _named(reading) for reading, figures in self._told.values()]

    def _changed_by_kernel(self, cgroups: Cgroups) -> list[Source]:
        before, version2 = self._told_of_all, cgroups.tops.get(SOCKETS)
        sources = [one for one in cgroups.sources(ASLEEP) if one.top == version2]
        self._told_of_all = {one.file: read_figures("", [one]) for one in sources}
        return [one for one in sources if self._told_of_all[one.file] != before.get(one.file)]

    def _read(self, cgroups: Cgroups, tokens: Sequence[str]) -> list[Reading]:
        wanted, sources = set(tokens), cgroups.sources(READ_AGAIN)
        for token, file in [one for one in self._held if one[0] not in wanted]:
            os.close(self._held.pop((token, file)))
        return [self._reading(token, sources) for token in tokens]

    def _reading(self, token: str, sources: Iterable[Source]) -> Reading:
        figures: dict[str, int] = {}
        for source in sources:
            with suppress(OSError):
                figures.update(source.find(self._content(token, source)))
        cpu, memory = READ_AGAIN
        return figures.get(cpu), figures.get(memory)

    def _content(self, token: str, source: Source) -> bytes:
        descriptor = self._held.get((token, source.file))
        if descriptor is None:
            descriptor = os.open(source.path(token), os.O_RDONLY | os.O_CLOEXEC)
            self._hold(token, source.file, descriptor)
        try:
            return os.pread(descriptor, LONGEST, 0)
        finally:
            if (token, source.file) not in self._held:
                os.close(descriptor)

    def _hold(self, token: str, file: str, descriptor: int) -> None:
        if self.may_hold(descriptor):
            self._held[token, file] = descriptor


def _named(reading: Reading) -> dict[str, int]:
    return {what: n for what, n in zip(READ_AGAIN, reading, strict=True) if n is not None}
