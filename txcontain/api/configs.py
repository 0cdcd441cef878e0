"""Configs: which are kept, and each as it was uploaded. (The course's API uploads them.)"""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    SCRIPT,
    Json,
    answer,
    array,
    extension,
    in_path,
    string,
    structure,
)
from txcontain.api.exports import PATHS as EXPORTS
from txcontain.api.exports import export_of, push_of
from txcontain.api.v1 import KEY
from txcontain.api.verbs import Collection, ExtensionResource, send_script
from txcontain.engine.store import SUFFIX

CONFIG = in_path("config", "NAME-MAJOR-MINOR")
BY_ONE_HOST = "a manager of one host exports it"
NO_CONFIG = {"404": "there is no such config"}


@define
class Configs(Area):
    """The configs that are kept."""

    paths: ClassVar[Json] = {
        "/configs": {
            "get": extension(
                "listKeptConfigs",
                "List the configs by name and version, with the instances that use them",
                answer(
                    "versions are compared as numbers: 1.9 comes before 1.10",
                    structure(
                        {
                            "configs": array(
                                structure({**KEY, "instances": array(string("an instance's name"))})
                            )
                        }
                    ),
                ),
            ),
        },
        "/configs/{config}": {
            "get": extension(
                "readConfig",
                "Send a config as it was uploaded, byte for byte",
                answer("the document", {"type": "object"}),
                NO_CONFIG,
            ),
            "delete": extension(
                "removeConfig",
                "Remove a config that no instance uses",
                answer("it is gone"),
                {**NO_CONFIG, "409": "instances use it"},
            ),
            "parameters": [CONFIG],
        },
        "/configs/{config}/explain": {
            "get": extension(
                "explainConfig",
                "Tell how to make by hand the container that a launch of a config would make",
                SCRIPT,
                {**NO_CONFIG, "409": "an image is missing, or can't be unpacked"},
            ),
            "parameters": [CONFIG],
        },
        **{path: {**said, "parameters": [CONFIG]} for path, said in EXPORTS.items()},
    }

    def resources(self) -> Resources:
        """All configs, and each by its name and version."""
        return {b"configs": Collection(ExtensionResource(GET=self.all), self.one)}

    async def all(self, request: Request) -> Json:
        """GET /configs."""
        return {
            "configs": [
                {**dict(zip(KEY, key, strict=True)), "instances": names}
                for key, names in await self.engine.configs()
            ]
        }

    def one(self, name: str) -> ExtensionResource:
        """/configs/NAME-MAJOR-MINOR."""
        file_name = name + SUFFIX

        async def read(request: Request) -> None:
            document = await self.engine.read_config(file_name)
            request.setHeader(b"Content-Type", b"application/json")
            request.setHeader(b"Content-Length", str(len(document)).encode())
            request.write(document)

        async def delete(request: Request) -> None:
            await self.engine.remove_config(file_name)

        async def explanation(request: Request) -> None:
            send_script(request, await self.engine.explain_config(file_name))

        resource = ExtensionResource(GET=read, DELETE=delete)
        put: Any = resource.putChild
        put(b"explain", ExtensionResource(GET=explanation))
        below = {
            b"export": export_of(self.manager, file_name),
            b"push": push_of(self.manager, file_name),
        }
        for part, child in below.items():
            put(part, self.of_one_host(child, BY_ONE_HOST))
        return resource
