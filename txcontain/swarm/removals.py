"""Removes instances that were launched to be removed when they have ended for good.

That is written in the swarm, so it is done by whichever managers there are, also by later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field

from txcontain.engine.manager import REMOVE_AFTER
from txcontain.later import background
from txcontain.swarm.mapping import Json
from txcontain.swarm.records import Seen, instances


@define(eq=False)
class Removals:
    """Has each removed some seconds after it was seen to have ended."""

    reactor: Any
    remove: Callable[[Json], Coroutine[Any, Any, object]]  # a service
    _ended: dict[str, float] = field(factory=dict)  # when each was seen to have, by its service
    _under_way: set[str] = field(factory=set)

    def settle(self, seen: Seen) -> None:
        """Go by what there is now. What has failed is tried again with the next look."""
        now = self.reactor.seconds()
        found = [one for one in instances(seen) if one.is_to_be_removed and one.has_ended]
        services = {str(one.service["ID"]): one for one in found}
        self._ended = {key: self._ended.get(key, now) for key in services}
        for key, one in services.items():
            if self._ended[key] + REMOVE_AFTER <= now and key not in self._under_way:
                self._under_way.add(key)
                background(self._remove(key, one.service), f"removing {one.name}")

    async def _remove(self, key: str, service: Json) -> None:
        try:
            await self.remove(service)
        finally:
            self._under_way.discard(key)
