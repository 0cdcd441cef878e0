"""The disk: what takes how much of it, and the removal of what is not needed any more."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import asdict, define, field
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    SCRIPT,
    Json,
    answer,
    array,
    body_of,
    extension,
    in_query,
    numeric,
    one_of,
    ref,
    string,
    structure,
)
from txcontain.api.instances import STATES
from txcontain.api.verbs import ExtensionResource, query, read_body, send_script, text
from txcontain.container.keys import boolean
from txcontain.engine.disk import df, prune, pulling, unpacking
from txcontain.engine.explaining import explain_unpacking_of
from txcontain.later import Few

PRUNE_KEYS = {
    "dry_run": boolean("only say what would be removed"),
    "volumes": boolean("also volumes that nothing uses"),
}
BYTES = numeric("of the disk", 0)
MOST_WAITING = 20  # looks at the disk, while one is taken


@define
class Disk(Area):
    """What takes how much of the disk, and the removal of what is not needed."""

    schemas: ClassVar[Json] = {
        "Layer": structure(
            {
                "layer": string("its name"),
                "tarball": string("what it was unpacked from"),
                "bytes": BYTES,
                "used": {
                    "type": "boolean",
                    "description": "whether an instance or an image needs it",
                },
            },
            "used",
        ),
        "Footprint": structure(
            {
                "instance": string("its name"),
                "state": one_of("where it is in its life", *STATES),
                "bytes": numeric("of the disk, all that belongs to it", 0),
                "logs": numeric("how much of that are its logs", 0),
            }
        ),
        "VolumeSize": structure(
            {
                "volume": string("its name"),
                "bytes": numeric("of the disk, or null", 0, kind=["integer", "null"]),
                "used": {"type": "boolean", "description": "whether an instance has it"},
            },
            "used",
        ),
    }
    paths: ClassVar[Json] = {
        "/df": {
            "get": extension(
                "df",
                "Tell what takes how much of the disk",
                answer(
                    "images, layers, volumes and instances",
                    structure(
                        {
                            "images": array(
                                structure(
                                    {
                                        "folder": string("where it is"),
                                        "image": string("the name of the file"),
                                        "bytes": BYTES,
                                    }
                                )
                            ),
                            "layers": array(ref("Layer")),
                            "volumes": array(ref("VolumeSize")),
                            "instances": array(ref("Footprint")),
                            "whole": {
                                "type": "boolean",
                                "description": "false: there are too many files to count them all",
                            },
                        }
                    ),
                ),
            ),
        },
        "/unpacking": {
            "get": extension(
                "unpacking",
                "List what is being unpacked and pulled now, for launches that wait for it",
                answer(
                    "how far each is",
                    structure(
                        {
                            "unpacking": array(
                                structure(
                                    {
                                        "tarball": string("its name"),
                                        "seconds": numeric("since it was begun", 0, kind="number"),
                                        "bytes": numeric("so far; looked at every 3 s", 0),
                                    }
                                )
                            ),
                            "pulling": array(
                                structure(
                                    {
                                        "image": string("its name"),
                                        "seconds": numeric("since it was begun", 0, kind="number"),
                                        "bytes": numeric("of its new layers, so far", 0),
                                        "size": numeric("bytes of these; 0: not known yet", 0),
                                    }
                                )
                            ),
                        }
                    ),
                ),
            ),
        },
        "/unpacking/explain": {
            "get": extension(
                "explainUnpacking",
                "Tell how to unpack a tarball by hand as a launch does",
                SCRIPT,
                parameters=[
                    in_query("tarball", "the name of a base image or mountable", string("its name"))
                ],
            ),
        },
        "/prune": {
            "post": extension(
                "prune",
                "Remove instances that have ended, and layers that nothing uses",
                answer(
                    "what was removed, or would be",
                    structure(
                        {
                            "instances": array(ref("Footprint")),
                            "layers": array(ref("Layer")),
                            "volumes": array(ref("VolumeSize")),
                            "bytes": numeric("what that is together", 0),
                        }
                    ),
                ),
                requestBody=body_of(PRUNE_KEYS),
            ),
        },
    }

    # Each keeps a thread and the disk busy.
    _one_by_one: Few = field(factory=lambda: Few("looks at the disk", 1, MOST_WAITING), init=False)

    def resources(self) -> Resources:
        """All of them."""
        unpacking: Any = ExtensionResource(GET=self.unpacking)
        unpacking.putChild(b"explain", ExtensionResource("GET", GET=self.explain_unpacking))
        return {
            b"unpacking": unpacking,
            b"df": ExtensionResource(GET=self.df),
            b"prune": ExtensionResource(POST=self.prune),
        }

    async def unpacking(self, request: Request) -> Json:
        """GET /unpacking."""
        return {"unpacking": unpacking(self.manager), "pulling": pulling(self.manager)}

    async def explain_unpacking(self, request: Request) -> None:
        """GET /unpacking/explain."""
        tarball = query(request, tarball=text)["tarball"] or ""
        send_script(request, await explain_unpacking_of(self.manager, tarball))

    async def df(self, request: Request) -> Json:
        """GET /df."""
        async with self._one_by_one.turn():
            return await df(self.manager)

    async def prune(self, request: Request) -> Json:
        """POST /prune."""
        asked = read_body(request, PRUNE_KEYS)
        async with self._one_by_one.turn():
            pruned = await prune(self.manager, **asked)
        return {**asdict(pruned), "bytes": pruned.bytes}
