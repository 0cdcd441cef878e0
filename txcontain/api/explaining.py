"""How to make the container of an instance by hand."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import INSTANCE, NO_INSTANCE, SCRIPT, Json, extension
from txcontain.api.verbs import ExtensionResource, send_script


@define
class Explaining(Area):
    """How to make by hand what a launch has made."""

    paths: ClassVar[Json] = {
        "/instances/{instance}/explain": {
            "get": extension(
                "explain", "Tell how to make an instance's container by hand", SCRIPT, NO_INSTANCE
            ),
            "parameters": [INSTANCE],
        },
    }

    def below_instance(self, name: str) -> Resources:
        """That of one instance."""

        async def explanation(request: Request) -> None:
            send_script(request, await self.engine.explain(name))

        return {b"explain": ExtensionResource(GET=explanation)}
