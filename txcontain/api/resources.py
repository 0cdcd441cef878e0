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
from txcontain.api.verbs import Collection, ExtensionResource, NotFound
from txcontain.engine.interface import Engine


def make_root(engine: Engine) -> Resource:
    """The tree: what each area has, below the root and below an instance."""
    areas = [area(engine) for area in AREAS.values()]
    instances = Instances(engine)

    def instance(name: str) -> Resource:
        return _with(instances.one(name), *(area.below_instance(name) for area in areas))

    everything: Resources = {
        b"instances": Collection(
            ExtensionResource("GET", GET=instances.all, POST=instances.launch), instance
        ),
        b"openapi.json": ExtensionResource(GET=openapi),
    }
    return _with(NotFound(), page.files(), everything, *(area.resources() for area in areas))


def _with(resource: Resource, *below: Resources) -> Resource:
    put: Any = resource.putChild  # its annotation knows interfaces, not classes
    for resources in below:
        for name, child in resources.items():
            put(name, child)
    return resource


async def openapi(request: Request) -> dict[str, Any]:
    """GET /openapi.json."""
    return DOCUMENT
