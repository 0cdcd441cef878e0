"""The tree of all REST resources; API.md describes them."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api import page
from txcontain.api.area import Resources
from txcontain.api.areas import AREAS
from txcontain.api.instances import Instances
from txcontain.api.openapi import DOCUMENT
from txcontain.api.verbs import Collection, ExtensionResource, NotFound, NotThere
from txcontain.engine.interface import Engine


def make_root(engine: Engine) -> Resource:
    """The tree: what each area has, below the root and below an instance."""
    areas = {name: area(engine) for name, area in AREAS.items()}
    there = [area for name, area in areas.items() if name not in engine.lacks]
    others = [(areas[name], NotThere(instead)) for name, instead in engine.lacks.items()]
    instances = Instances(engine)

    def instance(name: str) -> Resource:
        lacking = {part: none for area, none in others for part in area.below_instance(name)}
        below = (area.below_instance(name) for area in there)
        return _with(instances.one(name), lacking, *below)

    every = ExtensionResource("GET", GET=instances.all, POST=instances.launch)
    everything: Resources = {
        b"instances": Collection(every, instance),
        b"openapi.json": ExtensionResource(GET=openapi),
    }
    lacking = {name: none for area, none in others for name in area.resources()}
    resources = (area.resources() for area in there)
    return _with(NotFound(), page.files(), lacking, everything, *resources)


def _with(resource: Resource, *below: Resources) -> Resource:
    put: Any = resource.putChild  # its annotation knows interfaces, not classes
    for resources in below:
        for name, child in resources.items():
            put(name, child)
    return resource


async def openapi(request: Request) -> dict[str, Any]:
    """GET /openapi.json."""
    return DOCUMENT
