"""The walls of instances: which of them hold, and which of them another process has."""

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
    in_query,
    numeric,
    string,
    structure,
)
from txcontain.api.verbs import ExtensionResource, query, require_write, text
from txcontain.container.document import refuse
from txcontain.container.walls import card
from txcontain.engine.inspection import held, held_beside


@define
class Walls(Area):
    """How an instance is held apart from the host, in words."""

    paths: ClassVar[Json] = {
        "/instances/{instance}/card": {
            "get": extension(
                "card",
                "Tell which walls hold an instance, and how exposed the host is",
                answer(
                    "each wall, and the sum",
                    structure(
                        {
                            "walls": array(
                                structure(
                                    {
                                        "name": string("what it is called"),
                                        "purpose": string("what it is for"),
                                        "weight": numeric("of its lack, beside the others", 1),
                                        "test": string("the test that runs against it"),
                                        "key": string("what a config says to have it"),
                                        "holds": {
                                            "type": "boolean",
                                            "description": "as the kernel has it now",
                                        },
                                    }
                                )
                            ),
                            "exposure": numeric("0: all hold; 10: none", 0, 10, kind="number"),
                            "word": string("for that, as systemd-analyze security has it"),
                        }
                    ),
                ),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/compare": {
            "get": extension(
                "compare",
                "Tell what holds an instance and another process, wall by wall",
                answer(
                    "both, and whether they share it",
                    structure(
                        {
                            "to": string("the instance, or the pid"),
                            "walls": array(
                                structure(
                                    {
                                        "wall": string("what it is called"),
                                        "one": string("what the instance has"),
                                        "other": string("what the other has"),
                                        "same": {
                                            "type": "boolean",
                                            "description": "whether that is one and the same",
                                        },
                                    }
                                )
                            ),
                        }
                    ),
                ),
                NO_INSTANCE,
                parameters=[
                    in_query("to", "an instance, or the pid of a process", string("which one"))
                ],
            ),
            "parameters": [INSTANCE],
        },
    }

    def below_instance(self, name: str) -> Resources:
        """What is asked of one instance."""

        async def which_hold(request: Request) -> Json:
            instance = self.manager.match(name)
            return card(await held(self.manager, instance), instance.spec)

        async def beside(request: Request) -> Json:
            other = query(request, to=text)["to"]
            if not other:
                refuse("the query names nothing to compare it with: ?to=INSTANCE or ?to=PID")
            if other.isdecimal():  # any process of the host
                require_write(request)
            return await held_beside(self.manager, self.manager.match(name), other)

        return {
            b"card": ExtensionResource(GET=which_hold),
            b"compare": ExtensionResource("GET", GET=beside),
        }
