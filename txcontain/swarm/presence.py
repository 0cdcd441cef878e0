"""Has nodes get images before they need them: what ran on a node that dies starts sooner elsewhere.

Docker has a node get an image only when it is to run there. Only the nodes that --docker leads to
can be told.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from attrs import Factory, define, field

from txcontain.later import Timer, background, together
from txcontain.swarm.client import FAULT, Docker, Manager, NoAnswer, Request
from txcontain.swarm.mapping import Json
from txcontain.swarm.places import dockers_of
from txcontain.swarm.records import Seen

AFTER = 1.0  # seconds: what was just launched comes first
ASK_EVERY = 30.0  # seconds, a Docker that has not said on which node it is
WITHIN = 600.0  # seconds, for one image at one node


@define(eq=False)
class Presence:
    """Gets one image after the other, at all nodes that may need it at the same time."""

    reactor: Any
    docker: Docker
    _wanted: dict[str, set[str]] = field(factory=dict)  # images, and the ids of the nodes
    _fit: set[str] = field(factory=set)  # nodes that may be started on
    _ask_at: float = 0.0
    _told: set[tuple[str, str]] = field(factory=set)  # images and nodes, once each
    _is_busy: bool = False
    _timer: Timer = field(
        default=Factory(lambda self: Timer(self.reactor, self._begin), takes_self=True)
    )

    def settle(self, seen: Seen) -> None:
        """Go by what there is now. A node that comes back is told again."""
        self._fit = {
            one.id
            for one in seen.nodes.values()
            if (one.state, one.availability) == ("ready", "active")
        }
        nodes = self._fit & {one.node for one in self.docker.managers if one.node}
        images = {image_of(one) for one in seen.services if may_move(one)}
        self._told = {
            (image, node) for image, node in self._told if image in images and node in nodes
        }
        missing = {image: {n for n in nodes if (image, n) not in self._told} for image in images}
        self._wanted = {image: nodes for image, nodes in missing.items() if nodes}
        is_new = any(one.node is None for one in self.docker.managers)
        if self._wanted or (images and is_new and self.reactor.seconds() >= self._ask_at):
            self._timer.within(AFTER)

    async def stop(self) -> None:
        """Get no more."""
        self._wanted = {}
        self._timer.cancel()

    def _begin(self) -> None:
        if self._is_busy:
            return
        self._is_busy = True
        self._ask_at = self.reactor.seconds() + ASK_EVERY
        background(self._get_all(), "getting images before they are needed")

    async def _get_all(self) -> None:
        try:
            await dockers_of(self.docker, self._fit)  # the next look goes by what is known then
            while self._wanted:
                image, nodes = self._wanted.popitem()
                self._told |= {(image, node) for node in nodes}
                dockers, _ = await dockers_of(self.docker, nodes)
                found = nodes & dockers.keys()
                await together(*(self._get_at(dockers[node], image) for node in found))
        finally:
            self._is_busy = False

    async def _get_at(self, manager: Manager, image: str) -> None:
        with suppress(NoAnswer):  # then it gets it when it needs it
            answer, _ = await manager.ask(Request("GET", f"/images/{image}/json"), WITHIN)
            if answer.code >= FAULT:
                query = {"fromImage": image}
                await manager.ask(Request("POST", "/images/create", None, query), WITHIN)


def image_of(service: Json) -> str:
    """The image of a service."""
    return str(service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])


def may_move(service: Json) -> bool:
    """Whether its tasks are started on another node if theirs dies."""
    policy = service["Spec"]["TaskTemplate"].get("RestartPolicy") or {}
    return bool(policy.get("Condition") != "none")
