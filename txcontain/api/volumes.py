"""Volumes: data that outlives the instances that use it."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import define
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    BINARY,
    FLAG,
    Json,
    answer,
    array,
    body_of,
    bytes_body,
    extension,
    in_path,
    in_query,
    numeric,
    ref,
    string,
    structure,
)
from txcontain.api.verbs import (
    Collection,
    ExtensionResource,
    flag,
    query,
    read_body,
    require_write,
    stream,
)
from txcontain.container.keys import size
from txcontain.engine.transfers import export, import_volume, make_volume
from txcontain.engine.volumes import users_of

NO_VOLUME = {"404": "there is no such volume"}
NAME = in_path("volume", "as a config names it")
KEYS = {"size": size("the most that it may take, which is reserved at its first use", 16 << 20)}


@define
class Volumes(Area):
    """Data that outlives the instances that use it."""

    streamed: ClassVar[str] = "/volumes/[^/]+/import/?"
    schemas: ClassVar[Json] = {
        "Volume": structure(
            {
                "volume": string("its name"),
                "created": numeric("unix time", kind="number"),
                "size": numeric("bytes on the disk, or null", 0, kind=["integer", "null"]),
                "bound": numeric(
                    "the most bytes that it may take, in a file system of its own, or null",
                    kind=["integer", "null"],
                ),
                "used_by": array(string("an instance, which may have ended")),
                "folder": string("where it is on the host; with a bound, the file of its disk"),
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
            "put": extension(
                "makeVolume",
                "Make an empty volume",
                answer("it is made", structure({"made": string("its name")})),
                {"404": "there is no such path", "409": "there is such a volume"},
                requestBody=body_of(KEYS),
            ),
            "delete": extension(
                "removeVolume",
                "Remove a volume and all that is in it",
                answer("it is gone", structure({"removed": string("its name")})),
                {**NO_VOLUME, "409": "instances use it, which may have ended"},
            ),
            "parameters": [NAME],
        },
        "/volumes/{volume}/export": {
            "get": extension(
                "exportVolume",
                "Read a volume as a tarball",
                answer("a tarball", BINARY, "application/x-tar"),
                NO_VOLUME,
                parameters=[
                    in_query("pause", "freeze the instances that use it (needs write)", FLAG)
                ],
            ),
            "parameters": [NAME],
        },
        "/volumes/{volume}/import": {
            "put": extension(
                "importVolume",
                "Make a volume of a tarball",
                answer("it is made", structure({"imported": string("its name")})),
                {
                    "404": "there is no such path",
                    "409": "it is no tarball, or there is such a volume, in use or not empty",
                },
                requestBody=bytes_body(),
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

        async def make(request: Request) -> Json:
            await make_volume(self.manager, name, read_body(request, KEYS).get("size"))
            return {"made": name}

        async def remove(request: Request) -> Json:
            await self.manager.remove_volume(name)
            return {"removed": name}

        async def send(request: Request) -> None:
            pause = bool(query(request, pause=flag)["pause"])
            if pause:
                require_write(request)
            if request.method == b"HEAD":
                self.manager.volumes.get(name)
                return
            request.setHeader(b"Content-Type", b"application/x-tar")
            await export(self.manager, name, request, pause)

        async def take(request: Request) -> Json:
            await import_volume(self.manager, name, stream(request))
            return {"imported": name}

        resource = ExtensionResource(GET=inspect, PUT=make, DELETE=remove)
        put: Any = resource.putChild
        put(b"export", ExtensionResource("GET", GET=send))
        put(b"import", ExtensionResource(PUT=take))
        return resource

    async def _told(self, names: list[str]) -> list[Json]:
        volumes = [self.manager.volumes.get(name) for name in names]
        sizes = await self.manager.volumes.sizes(names)
        return [
            {
                "volume": volume.name,
                "created": volume.created,
                "size": taken,
                "bound": volume.bound,
                "used_by": users_of(volume.name, self.manager.instances.values()),
                "folder": self.manager.volumes.place(volume.name).data,
            }
            for volume, taken in zip(volumes, sizes, strict=True)
        ]
