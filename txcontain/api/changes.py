"""What instances have changed of their images."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    INSTANCE,
    NO_INSTANCE,
    Json,
    answer,
    array,
    extension,
    one_of,
    ref,
    string,
    structure,
)
from txcontain.api.verbs import ExtensionResource
from txcontain.engine.changes import ADDED, CHANGED, DELETED


@define
class Changes(Area):
    """What instances have changed of their images."""

    schemas: ClassVar[Json] = {
        "Changes": structure(
            {
                "changes": array(
                    structure(
                        {
                            "kind": one_of("added, changed, deleted", ADDED, CHANGED, DELETED),
                            "path": string("in the container"),
                        }
                    )
                ),
                "complete": {"type": "boolean", "description": "whether these are all"},
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/instances/{instance}/diff": {
            "get": extension(
                "diff",
                "Tell what an instance has changed in its writable mounts",
                answer("the changes, by path", ref("Changes")),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
    }

    def below_instance(self, name: str) -> Resources:
        """What one instance has changed."""

        async def diff(request: Request) -> Json:
            return await self.engine.diff(name)

        return {b"diff": ExtensionResource(GET=diff)}
