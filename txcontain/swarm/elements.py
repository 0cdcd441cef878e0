"""Reads a long list of the Engine API as it comes.

All tasks of a large swarm are hundreds of megabytes of JSON: read at once, they would hold up the
reactor for seconds, and take a gigabyte.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from json import JSONDecoder
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from txcontain.later import Timer, bounded
from txcontain.swarm.body import collect

WITHIN = 60.0  # seconds, for all of it
SILENT_FOR = 20.0  # seconds
LONGEST_ELEMENT = 8 << 20  # characters
ENDS = ("]", "[]", "null")  # what is left of a list without its elements

scan = JSONDecoder().raw_decode


@define(eq=False)
class Elements:
    """The objects in a list, and of each only what is kept."""

    keep: Callable[[Any], Any]
    found: list[Any] = field(factory=list)
    _rest: str = ""  # of what has come, without the elements that were whole
    _decoder: Any = field(factory=codecs.getincrementaldecoder("utf-8"))

    def received(self, data: bytes) -> None:
        """Some of it has come. Raises ValueError."""
        text, at = self._rest + self._decoder.decode(data), 0
        while (start := text.find("{", at)) >= 0:
            try:
                element, end = scan(text, start)
            except ValueError:  # its end has yet to come
                break
            self.found.append(self.keep(element))
            at = end
        self._rest = text[at:]
        if len(self._rest) > LONGEST_ELEMENT:
            raise ValueError("an element is too long")

    def end(self) -> list[Any]:
        """All has come. Raises ValueError."""
        rest = "".join(self._rest.split())
        if rest not in ENDS and (rest or self.found):
            raise ValueError("a list is cut, or none")
        return self.found


async def read_list(reactor: Any, response: Any, keep: Callable[[Any], Any]) -> list[Any]:
    """The list in an answer, of each of its objects what is kept.

    Raises TimeoutError, ValueError; else what the network raises.
    """
    elements = Elements(keep)
    silence = Timer(reactor, lambda: reading.cancel())

    def received(data: bytes) -> None:
        silence.after(SILENT_FOR)
        elements.received(data)

    async def whole() -> list[Any]:
        await collect(response, received)
        return elements.end()

    silence.after(SILENT_FOR)
    reading: Deferred[list[Any]] = bounded(reactor, WITHIN, whole())
    try:
        return await reading
    finally:
        silence.cancel()
