"""What becomes of a launch: whether its script runs, and listens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from txcontain.container.spec import Spec
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.later import poll
from txcontain.swarm import mapping
from txcontain.swarm.mapping import Json
from txcontain.swarm.means import Means

LOOK_AFTER, LOOK_MOST = 0.02, 0.1  # seconds between looks at tasks
GROWTH = 1.03  # of those of a launch, which takes half a second: a pause is a part of all before
RUNS_WITHIN = 60.0  # seconds: a node may have to get the image first
LISTENS_WITHIN = 5.0  # seconds, as on one host
CONNECTS_WITHIN = 1.0  # seconds


class Hears(Protocol):
    """Wants to know only that someone listens."""

    def connectionMade(self) -> None:
        """Someone does."""
        transport: Any = self.transport
        transport.loseConnection()


@frozen
class Start:
    """Looks at an instance until it works, or can't."""

    means: Means
    reactor: Any
    instance: str  # its name
    service: str  # the id of its service

    async def until_it_works(self, spec: Spec) -> bool:
        """Wait until its script runs, and listens on its PORT; returns whether it does."""
        task = await self._until_it_runs(spec)
        return spec.port is None or await self._until_it_listens(task, spec.port, spec)

    async def _until_it_runs(self, spec: Spec) -> Json:
        said = ""
        async for _ in self._looks(RUNS_WITHIN):
            tasks = await self._tasks()
            for task in filter(mapping.has_begun, tasks):
                return task
            tasks = await self.means.lost(tasks)
            failures = [mapping.failure_of(task, spec.program) for task in tasks]
            if failure := mapping.worst(filter(None, failures), spec.restart):
                raise failure
            said = mapping.said_of(tasks[0]) if tasks else said
        raise MachineAtFault(f"it does not run within {RUNS_WITHIN:g} seconds", said)

    async def _tasks(self) -> list[Json]:
        return await self.means.tasks_of(self.instance, self.service)

    async def _until_it_listens(self, task: Json, port: int, spec: Spec) -> bool:
        node = await self.means.docker.ask(
            "GET", f"/nodes/{task['NodeID']}", doing="finding its node"
        )
        address = mapping.address_of(node)
        async for _ in self._looks(LISTENS_WITHIN):
            if await self._listens(address, port):
                return True
            tasks = await self.means.lost(await self._tasks())
            if tasks and all(map(mapping.is_over, tasks)):
                raise ConfigAtFault(
                    f"{spec.program} ended before it listened on port {port}",
                    mapping.said_of(tasks[0]),
                )
        return False

    def _looks(self, within: float) -> AsyncIterator[None]:
        return poll(self.reactor, LOOK_AFTER, within=within, most=LOOK_MOST, growth=GROWTH)

    async def _listens(self, address: str, port: int) -> bool:
        endpoint = TCP4ClientEndpoint(self.reactor, address, port, timeout=CONNECTS_WITHIN)
        try:
            await connectProtocol(endpoint, Hears())
        except Exception:  # whatever the network may raise: no one listens there
            return False
        return True
