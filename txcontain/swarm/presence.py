"""Has nodes get an image before they need it: what ran on a node that dies starts sooner elsewhere.

Docker has a node get an image only when it is to run there. Only the nodes that --docker leads to
can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from attrs import Factory, define, field

from txcontain.later import Timer, background, together
from txcontain.swarm.client import FAULT, Docker, Manager, NoAnswer, Request
from txcontain.swarm.places import dockers_of
from txcontain.swarm.records import Seen

AFTER = 1.0  # seconds: what was just launched comes first
WITHIN = 600.0  # seconds, for one image at one node
MOST = 100  # images that wait; the oldest is left out


@define(eq=False)
class Presence:
    """Gets one image after the other, at all such nodes at the same time."""

    reactor: Any
    docker: Docker
    look: Callable[[], Coroutine[Any, Any, Seen]]  # raises Unavailable
    _wanted: dict[str, None] = field(factory=dict)  # in order
    _is_busy: bool = False
    _timer: Timer = field(
        default=Factory(lambda self: Timer(self.reactor, self._begin), takes_self=True)
    )

    def want(self, image: str) -> None:
        """Have all nodes get this image soon."""
        self._wanted[image] = None
        for oldest in [*self._wanted][:-MOST]:
            del self._wanted[oldest]
        self._timer.within(AFTER)

    async def stop(self) -> None:
        """Get no more."""
        self._wanted.clear()
        self._timer.cancel()

    def _begin(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            background(self._get_all(), "getting images before they are needed")

    async def _get_all(self) -> None:
        try:
            while self._wanted:
                image = next(iter(self._wanted))
                del self._wanted[image]
                await self._get(image)
        finally:
            self._is_busy = False

    async def _get(self, image: str) -> None:
        nodes = (await self.look()).nodes.values()
        fit = {one.id for one in nodes if (one.state, one.availability) == ("ready", "active")}
        dockers, _ = await dockers_of(self.docker, fit)
        await together(*(self._get_at(dockers[node], image) for node in fit & dockers.keys()))

    async def _get_at(self, manager: Manager, image: str) -> None:
        with suppress(NoAnswer):  # then it gets it when it needs it
            answer, _ = await manager.ask(Request("GET", f"/images/{image}/json"), WITHIN)
            if answer.code >= FAULT:
                query = {"fromImage": image}
                await manager.ask(Request("POST", "/images/create", None, query), WITHIN)
