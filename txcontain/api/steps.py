"""Launches that one can stop, step by step."""

from __future__ import annotations

import json
from typing import ClassVar

from attrs import Factory, define, field
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    Json,
    answer,
    array,
    body_of,
    extension,
    in_path,
    numeric,
    string,
    structure,
)
from txcontain.api.verbs import Collection, ExtensionResource, NamedChildren, hang_up_of, read_body
from txcontain.container.escapes import ESCAPES, OF_WALL
from txcontain.container.keys import number, one_of
from txcontain.engine.escaping import attempt
from txcontain.engine.stepping import Steps

WITHOUT = {"without": one_of("the wall that is left out", *OF_WALL)}
TO = {"to": number("the step that is to be the next one", 0, 10_000)}


TRIED = structure(
    {
        "escaped": {"type": "boolean", "description": "whether it got out"},
        "ended": string("how it ended"),
        "said": string("what it has found, or what stopped it"),
    }
)


@define
class Stepping(Area):
    """Launches that one can stop."""

    paths: ClassVar[Json] = {
        "/steps/{config}": {
            "post": extension(
                "beginSteps",
                "Begin a launch that stops before each step, and is gone with this request",
                answer(
                    "a line of JSON: its steps and where it is; in the end, another one: why",
                    {"type": "string"},
                    "application/x-ndjson",
                ),
                {"404": "there is no such config"},
                requestBody=body_of(TO),
            ),
            "parameters": [in_path("config", "NAME-MAJOR-MINOR")],
        },
        "/steps/{config}/{launch}": {
            "post": extension(
                "step",
                "Carry out the steps before one, and tell what they have changed",
                answer(
                    "where it is",
                    structure(
                        {
                            "at": numeric("the number of the next step", 0),
                            "pid": numeric("PID 1, as the host sees it", 1),
                            "changes": array(
                                structure(
                                    {
                                        "of": string("namespaces, mounts, powers, .."),
                                        "gone": array(string("a line")),
                                        "new": array(string("a line")),
                                    }
                                )
                            ),
                        }
                    ),
                ),
                {"404": "there is no such launch"},
                requestBody=body_of(TO),
            ),
            "parameters": [
                in_path("config", "NAME-MAJOR-MINOR"),
                in_path("launch", "as the first line has it"),
            ],
        },
        "/escapes": {
            "get": extension(
                "listEscapes",
                "Tell which walls can be left out, and the escape that each of them stops",
                answer(
                    "all of them",
                    structure(
                        {
                            "escapes": array(
                                structure(
                                    {
                                        "wall": string("what it is called"),
                                        "purpose": string("what it is for"),
                                        "key": string("what a config says to have it"),
                                        "does": string("what the escape does"),
                                        "script": string("how: run by /bin/sh in the container"),
                                    }
                                )
                            )
                        }
                    ),
                ),
            )
        },
        "/escapes/{config}": {
            "post": extension(
                "tryEscape",
                "Try an escape from a container without one wall, and from one that has it",
                answer("how it went", structure({"without": TRIED, "with": TRIED})),
                {
                    "403": "this manager was not started with --allow-unsafe",
                    "404": "there is no such config",
                },
                requestBody=body_of(WITHOUT, "without"),
            ),
            "parameters": [in_path("config", "NAME-MAJOR-MINOR")],
        },
    }

    steps: Steps = field(
        default=Factory(lambda self: Steps(self.manager), takes_self=True), init=False
    )

    def resources(self) -> Resources:
        """Below each config, its launches; and the escapes."""
        escapes = Collection(ExtensionResource(GET=listed), self.escape_of)
        return {b"steps": NamedChildren(self.of), b"escapes": escapes}

    def of(self, config: str) -> Collection:
        """/steps/NAME-MAJOR-MINOR."""

        async def begin(request: Request) -> None:
            gone, to = hang_up_of(request), read_body(request, TO).get("to", 0)
            async with self.steps.begin(f"{config}.cfg", to) as stepped:
                gone.addCallback(lambda _: stepped.end("its client has gone"))
                told = await stepped.until(to)
                request.setHeader(b"Content-Type", b"application/x-ndjson")
                about = {"launch": stepped.name, "steps": stepped.described, **told}
                request.write(json.dumps(about).encode() + b"\n")
                over = {"over": await stepped.over}
            if not gone.called:
                request.write(json.dumps(over).encode() + b"\n")

        return Collection(ExtensionResource(POST=begin), self.one)

    def one(self, launch: str) -> ExtensionResource:
        """/steps/NAME-MAJOR-MINOR/LAUNCH."""

        async def go_on(request: Request) -> Json:
            to = read_body(request, TO, "to")["to"]
            return await self.steps.get(launch).until(to)

        return ExtensionResource(POST=go_on)

    def escape_of(self, config: str) -> ExtensionResource:
        """/escapes/NAME-MAJOR-MINOR."""

        async def attempted(request: Request) -> Json:
            gone, wall = hang_up_of(request), read_body(request, WITHOUT, "without")["without"]
            return await attempt(self.steps, f"{config}.cfg", wall, gone)

        return ExtensionResource(POST=attempted)


async def listed(request: Request) -> Json:
    """GET /escapes."""
    told = [
        {
            "wall": one.wall,
            "purpose": one.about.purpose,
            "key": one.key,
            "does": one.does,
            "script": one.script,
        }
        for one in ESCAPES
    ]
    return {"escapes": told}
