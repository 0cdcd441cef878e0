"""The system: the manager itself and its machine."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import Json, answer, array, extension, string, structure
from txcontain.api.verbs import ExtensionResource
from txcontain.engine.recovery import doctor


@define
class System(Area):
    """What concerns no instance."""

    paths: ClassVar[Json] = {
        "/doctor": {
            "post": extension(
                "doctor",
                "Look for what should not be there, and remove it",
                answer(
                    "a sentence each",
                    structure({"findings": array(string("what was found and done"))}),
                ),
            ),
        },
    }

    def resources(self) -> Resources:
        """The doctor."""
        return {b"doctor": ExtensionResource(POST=self.doctor)}

    async def doctor(self, request: Request) -> dict[str, list[str]]:
        """POST /doctor."""
        return {"findings": await doctor(self.manager)}
