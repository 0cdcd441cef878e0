"""The tree of all REST resources; API.md describes them."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api import page
from txcontain.api.area import Area, Resources
from txcontain.api.areas import AREAS
from txcontain.api.instances import Instances
from txcontain.api.openapi import DOCUMENT
from txcontain.api.verbs import NOT_THERE, Collection, ExtensionResource, NotFound, NotThere
from txcontain.engine.interface import Engine


def make_root(engine: Engine) -> Resource:
    """The tree: what each area has, below the root and below an instance."""
    there, others = _areas_of(engine)
    instances = Instances(engine)
    has_records = any(isinstance(area, Instances) for area in there)

    def instance(name: str) -> Resource:
        lacking = {part: NotThere() for area in others for part in area.below_instance(name)}
        below = (area.below_instance(name) for area in there)
        return _with(instances.one(name), lacking, *below)

    launch = instances.launch if has_records else not_there
    every = ExtensionResource("GET", GET=instances.all, POST=launch)
    everything: Resources = {
        b"instances": Collection(every, instance),
        b"openapi.json": ExtensionResource(GET=openapi),
    }
    lacking = {name: NotThere() for area in others for name in area.resources()}
    resources = (area.resources() for area in there)
    return _with(NotFound(), page.files(), lacking, everything, *resources)


async def not_there(request: Request) -> None:
    """What an engine does not have. Raises NotInSwarm."""
    raise NOT_THERE()


def _areas_of(engine: Engine) -> tuple[list[Area], list[Area]]:
    """The areas that an engine has, and the others."""
    there, others = list[Area](), list[Area]()
    for name, area in AREAS.items():
        has = engine.areas is None or name in engine.areas
        (there if has else others).append(area(engine))
    return there, others


def _with(resource: Resource, *below: Resources) -> Resource:
    put: Any = resource.putChild  # its annotation knows interfaces, not classes
    for resources in below:
        for name, child in resources.items():
            put(name, child)
    return resource


async def openapi(request: Request) -> dict[str, Any]:
    """GET /openapi.json."""
    return DOCUMENT
