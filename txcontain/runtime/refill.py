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
class Spawn:
    """Warm one more."""

    prepared: bool  # for the launch that is expected next, if one is


@frozen
class Drop:
    """Let one go."""

    which: int


@frozen
class Wait:
    """Do nothing for so many seconds; None: until there is a launch."""

    seconds: float | None = None


def decide(warm: Sequence[Warm], wanted: int, least: int) -> Spawn | Drop | Wait:
    """What to do next, of these warm inits, if so many are wanted now and at the least."""
    stale = [which for which, good_for in enumerate(warm) if good_for is Warm.STALE]
    surplus = stale or range(wanted, len(warm))
    if surplus:
        return Drop(surplus[-1])
    if len(warm) < wanted:
        return Spawn(prepared=Warm.PLAIN in warm)
    return Wait(LATELY if wanted > least else None)
