"""Bounds what callers who are refused write into the log of the manager: a line a second each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from attrs import define, field

LINE_EVERY = 1.0  # seconds
MOST_ADDRESSES = 1000  # known at a time
OTHERS = "others"  # the one name of all beyond those


@define
class Strangers:
    """Writes lines about callers who were refused, and counts those that it leaves out."""

    seconds: Callable[[], float]
    write: Callable[[str], None]
    # By address: when its last line was written, and how many were left out since.
    _known: dict[str, tuple[float, int]] = field(factory=dict)

    def tell(self, peer: Any, line: str) -> None:
        """Write a line about a peer (an IAddress), unless the one before is not a second old."""
        now, address = self.seconds(), self._name(getattr(peer, "host", "") or "a local program")
        when, left_out = self._known.get(address, (-math.inf, 0))
        if now - when < LINE_EVERY:
            self._known[address] = when, left_out + 1
            return
        self._known[address] = now, 0
        more = f" ({left_out} lines about {address} were left out before)" if left_out else ""
        self.write(line + more)

    def _name(self, address: str) -> str:
        if address in self._known or len(self._known) < MOST_ADDRESSES:
            return address
        recent = self.seconds() - LINE_EVERY
        self._known = {name: known for name, known in self._known.items() if known[0] > recent}
        return address if len(self._known) < MOST_ADDRESSES else OTHERS
