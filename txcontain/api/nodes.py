"""The nodes of an engine of many hosts."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from attrs import define
from twisted.web.resource import Resource
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
    one_of,
    ref,
    string,
    structure,
)
from txcontain.api.verbs import Collection, ExtensionResource, as_of, read_body
from txcontain.container.document import refuse, shown
from txcontain.container.keys import Key

LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
LONGEST_VALUE = 255  # characters
MOST_LABELS = 64  # in a request
NODE = in_path("node", "its name, or its id")
NO_NODE = {"404": "there is no such node"}


def _labels(key: str, value: object) -> dict[str, str | None]:
    if not isinstance(value, dict) or not 0 < len(value) <= MOST_LABELS:
        refuse(f'{key} must be an object such as {{"disk": "ssd"}}, not {shown(value)}')
    for name, text in value.items():
        if not LABEL.fullmatch(name):
            refuse(f"{key}: a label's name is letters, digits, '.', '_' and '-', not {shown(name)}")
        printable = isinstance(text, str) and text.isprintable() and len(text) <= LONGEST_VALUE
        if text is not None and not printable:
            name = f"{key}.{name}"
            refuse(f"{name} must be up to {LONGEST_VALUE} characters or null: {shown(text)}")
    return value


LABELS = {
    "labels": Key(
        "NAME: VALUE; null takes a label away",
        {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        _labels,
    )
}


def _verb(name: str, summary: str, **more: Any) -> Json:
    return {"post": extension(name, summary, answer("it is noted"), NO_NODE, **more)}


@define
class Nodes(Area):
    """The hosts, how they stand, and what is to run there."""

    schemas: ClassVar[Json] = {
        "Node": structure(
            {
                "id": string("as the swarm has it"),
                "node": string("its name"),
                "address": string("where the others find it"),
                "state": string("ready, down, disconnected or unknown"),
                "availability": one_of("what may run there", "active", "pause", "drain"),
                "role": one_of("whether it is one of those that decide", "manager", "worker"),
                "leader": {"type": "boolean", "description": "whether it leads the managers"},
                "engine": string("version of its Docker"),
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "instances": numeric("instances that run there", 0),
            },
            closed=True,
        )
    }
    paths: ClassVar[Json] = {
        "/nodes": {
            "get": extension(
                "listNodes",
                "List the nodes of a swarm",
                answer("each", structure({"nodes": array(ref("Node"))})),
                {"404": "this manager has one host, and no nodes"},
            )
        },
        "/nodes/{node}": {
            "get": extension(
                "inspectNode", "Tell how a node stands", answer("it", ref("Node")), NO_NODE
            ),
            "parameters": [NODE],
        },
        "/nodes/{node}/drain": {
            **_verb("drainNode", "Have nothing run on a node: what does moves to others"),
            "parameters": [NODE],
        },
        "/nodes/{node}/activate": {
            **_verb("activateNode", "Let new instances run on a node again"),
            "parameters": [NODE],
        },
        "/nodes/{node}/labels": {
            **_verb("labelNode", "Give a node labels", requestBody=body_of(LABELS, *LABELS)),
            "parameters": [NODE],
        },
    }

    def resources(self) -> Resources:
        """All nodes, and what is asked of one."""
        return {b"nodes": Collection(ExtensionResource(GET=self.all), self.one)}

    async def all(self, request: Request) -> Json:
        """GET /nodes."""
        told = await self.engine.nodes()
        as_of(request, told.as_of)
        return {"nodes": told.records}

    def one(self, name: str) -> Resource:
        """/nodes/NODE."""

        async def get(request: Request) -> Any:
            told = await self.engine.nodes(name)
            as_of(request, told.as_of)
            return told.records[0]

        async def drain(request: Request) -> None:
            await self.engine.set_availability(name, "drain")

        async def activate(request: Request) -> None:
            await self.engine.set_availability(name, "active")

        async def label(request: Request) -> None:
            asked = read_body(request, LABELS, *LABELS)
            await self.engine.set_labels(name, asked["labels"])

        resource = ExtensionResource(GET=get)
        put: Any = resource.putChild  # its annotation knows interfaces, not classes
        for part, verb in ((b"drain", drain), (b"activate", activate), (b"labels", label)):
            put(part, ExtensionResource(POST=verb))
        return resource
