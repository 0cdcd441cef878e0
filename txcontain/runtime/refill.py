"""What to do next about the warm inits: a decision, apart from what carries it out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from attrs import frozen

LATELY = 5.0  # seconds: the demand that the number of warm inits follows


class Warm(Enum):
    """What a warm init is good for."""

    PLAIN = auto()  # any launch: it has done only the base plan
    EXPECTED = auto()  # the launch that is expected next
    STALE = auto()  # a launch that is expected no more


@frozen
class Wanted:
    """How many warm inits to have."""

    plain: int
    expected: int  # plain ones too, if nothing is expected

    @property
    def all(self) -> int:
        """How many together."""
        return self.plain + self.expected


@frozen
class Spawn:
    """Warm one more."""

    prepared: bool  # for the launch that is expected next, if one is


@frozen
class Drop:
    """Let these go."""

    which: Sequence[int]


@frozen
class Wait:
    """Do nothing for so many seconds; None: until there is a launch."""

    seconds: float | None = None


def share(plain: int, taken: int, least: int, most: int) -> Wanted:
    """How many to have if so many were ``taken`` lately, ``plain`` of them by unexpected launches.

    One at least is for any launch, and if there are two, one for what is expected.
    """
    wanted = min(max(least, taken), most)
    plain = min(max(1, plain), max(1, wanted - 1), wanted)
    return Wanted(plain, wanted - plain)


def decide(warm: Sequence[Warm], wanted: Wanted, least: int) -> Spawn | Drop | Wait:
    """What to do next, of these warm inits, if so many are wanted now and at the least.

    What is not wanted goes at once, as it would only delay what is.
    """
    of = {kind: [which for which, one in enumerate(warm) if one is kind] for kind in Warm}
    plain, expected = of[Warm.PLAIN], of[Warm.EXPECTED]
    missing = max(0, wanted.plain - len(plain))
    dispensable = plain[wanted.plain :] + expected[wanted.expected :]
    best_first = plain[: wanted.plain] + expected[: wanted.expected] + dispensable
    if unwanted := of[Warm.STALE] + best_first[wanted.all - missing :]:
        return Drop(sorted(unwanted))
    if len(warm) < wanted.all:
        return Spawn(prepared=not missing)
    return Wait(LATELY if wanted.all > least else None)
