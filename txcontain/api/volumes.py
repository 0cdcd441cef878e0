"""Volumes: data that outlives the instances that use it."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import Json, answer, array, extension, numeric, ref, string, structure
from txcontain.api.verbs import Collection, ExtensionResource
from txcontain.engine.volumes import users_of

NO_VOLUME = {"404": "there is no such volume"}
NAME = {
    "name": "volume",
    "in": "path",
    "required": True,
    "description": "as a config names it",
    "schema": {"type": "string", "minLength": 1},
}


@define
class Volumes(Area):
    """Data that outlives the instances that use it."""

    schemas: ClassVar[Json] = {
        "Volume": structure(
            {
                "volume": string("its name"),
                "created": numeric("unix time", kind="number"),
                "size": numeric("bytes on the disk, or null", 0, kind=["integer", "null"]),
                "used_by": array(string("an instance, which may have ended")),
                "folder": string("where it is on the host"),
            },
            closed=True,
        ),
    }
    paths: ClassVar[Json] = {
        "/volumes": {
            "get": extension(
                "listVolumes",
                "List all volumes",
                answer("by name", structure({"volumes": array(ref("Volume"))})),
            ),
        },
        "/volumes/{volume}": {
            "get": extension(
                "inspectVolume",
                "Tell what is known of a volume",
                answer("its record", ref("Volume")),
                NO_VOLUME,
            ),
            "delete": extension(
                "removeVolume",
                "Remove a volume and all that is in it",
                answer("it is gone", structure({"removed": string("its name")})),
                {**NO_VOLUME, "409": "instances use it, which may have ended"},
            ),
            "parameters": [NAME],
        },
    }

    def resources(self) -> Resources:
        """/volumes, and below it one for each."""
        return {b"volumes": Collection(ExtensionResource(GET=self.all), self.one)}

    async def all(self, request: Request) -> Json:
        """GET /volumes."""
        return {"volumes": await self._told(sorted(self.manager.volumes.known))}

    def one(self, name: str) -> Resource:
        """/volumes/NAME."""

        async def inspect(request: Request) -> Json:
            self.manager.volumes.get(name)
            (told,) = await self._told([name])
            return told

        async def remove(request: Request) -> Json:
            await self.manager.remove_volume(name)
            return {"removed": name}

        return ExtensionResource(GET=inspect, DELETE=remove)

    async def _told(self, names: list[str]) -> list[Json]:
        volumes = [self.manager.volumes.get(name) for name in names]
        sizes = await self.manager.volumes.sizes(names)
        return [
            {
                "volume": volume.name,
                "created": volume.created,
                "size": size,
                "used_by": users_of(volume.name, self.manager.instances.values()),
                "folder": f"{self.manager.volumes.path(volume.name)}/data",
            }
            for volume, size in zip(volumes, sizes, strict=True)
        ]
