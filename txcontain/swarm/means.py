"""What both instances and stacks of a swarm are made with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen

from txcontain.container.reference import read_reference
from txcontain.container.spec import Spec, from_json
from txcontain.engine.store import SUFFIX
from txcontain.exports.exporting import Exporter
from txcontain.exports.subject import Subject
from txcontain.later import together
from txcontain.swarm import configs, mapping
from txcontain.swarm.client import Docker, Refused
from txcontain.swarm.mapping import INSTANCE, Json

REPOSITORY = "txcontain"  # one for all images, so that they share layers
OURS = "txcontain.name"  # a label of all services that are ours


@frozen
class Means:
    """A swarm, a registry, and what makes images."""

    docker: Docker
    registry: str  # HOST:PORT, as all hosts find it
    exporter: Exporter

    async def read_config(self, file_name: str) -> Spec:
        """A config that is kept. Raises NoSuchConfig, Unavailable, MachineAtFault."""
        return from_json(await configs.read(self.docker, file_name))

    async def publish(self, spec: Spec, tag: str = "") -> Subject:
        """Have a config's image in the registry; the tag keeps it if that is cleaned.

        :param tag: in place of the config's name
        """
        place = f"{self.registry}/{REPOSITORY}"
        image = f"{place}:{tag or spec.file_name.removesuffix(SUFFIX)}"
        insecure = read_reference(image).is_loopback  # as Docker has it
        subject, digest = await self.exporter.publish(spec, image, insecure)
        return evolve(subject, image=f"{place}@{digest}")

    async def make_network(self, name: str) -> None:
        """Have an overlay network of this name."""
        asked, doing = mapping.network_of(name), "making the network"
        try:
            await self.docker.ask("POST", "/networks/create", asked, doing=doing)
        except Refused as error:
            if error.status != 409:
                raise

    async def named_networks(self, service: Json) -> dict[str, Any]:
        """What a service is made of, with the names of its networks: Docker tells their ids."""
        template = service["TaskTemplate"]
        networks = [
            {**one, "Target": await self._name_of_network(one["Target"])}
            for one in template["Networks"]
        ]
        return {**service, "TaskTemplate": {**template, "Networks": networks}}

    async def _name_of_network(self, identity: str) -> str:
        told = await self.docker.ask("GET", f"/networks/{identity}", doing="finding a network")
        return str(told["Name"])

    async def services(self) -> list[Json]:
        """All services that are ours: instances, and those of stacks."""
        doing = "asking which services there are"
        return await self.docker.list("/services", dict, doing=doing, filters={"label": [OURS]})

    async def tasks_and_nodes(self) -> tuple[list[Json], list[Json]]:
        """The tasks of all that is ours, and all nodes."""
        tasks, nodes = await together(self._tasks(OURS), self._nodes())
        return mapping.lost(tasks, nodes), nodes

    async def tasks(self) -> list[Json]:
        """The tasks of all that is ours."""
        return (await self.tasks_and_nodes())[0]

    async def tasks_of(self, instance: str, service: str) -> list[Json]:
        """Those of an instance, also if its service is gone: a filter by that would be refused.

        :param service: its id: an earlier instance may have had the same name
        """
        tasks = await self._tasks(f"{INSTANCE}={instance}")
        return [one for one in tasks if one["ServiceID"] == service]

    async def lost(self, tasks: list[Json]) -> list[Json]:
        """The tasks, with those that a node has lost as ended."""
        where = sorted({task["NodeID"] for task in tasks if task.get("NodeID")})
        return mapping.lost(tasks, await self._nodes(id=where)) if where else tasks

    async def _tasks(self, label: str) -> list[Json]:
        doing, keep = "asking what runs", mapping.essence_of
        return await self.docker.list("/tasks", keep, doing=doing, filters={"label": [label]})

    async def _nodes(self, **filters: Sequence[str]) -> list[Json]:
        doing = "asking which nodes there are"
        return await self.docker.list("/nodes", dict, doing=doing, filters=filters)

    async def service(self, name: str) -> Json | None:
        """The service of this name, if there is one."""
        try:
            found: Json = await self.docker.ask("GET", f"/services/{name}", doing=f"finding {name}")
        except Refused as error:
            if error.status != 404:
                raise
            return None
        return found

    async def delete(self, service: str) -> bool:
        """Remove a service; returns whether there was one."""
        doing = f"removing the service {service}"
        try:
            await self.docker.ask("DELETE", f"/services/{service}", doing=doing)
        except Refused as error:
            if error.status != 404:
                raise
            return False
        return True
