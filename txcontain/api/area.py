"""What an area of the API is: some resources, and how the OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import define
from twisted.web.resource import Resource

from txcontain.api.describe import Json
from txcontain.api.verbs import NotThere
from txcontain.engine.interface import Engine
from txcontain.engine.manager import Manager

Resources = Mapping[bytes, Resource]  # by the part of the path that leads to them


@define
class Area:
    """A subclass is a module of its own, and a line in areas.py."""

    paths: ClassVar[Json] = {}  # of the OpenAPI document: path to methods to operations
    schemas: ClassVar[Json] = {}  # those that the operations refer to, by name

    streamed: ClassVar[str] = ""  # a pattern of the paths whose PUT takes its body as it comes

    engine: Engine

    @property
    def manager(self) -> Manager:
        """The manager of this host."""
        return self.engine.host

    def of_one_host(self, resource: Resource, instead: str) -> Resource:
        """A resource; if containers are on many hosts, one that says what to do instead."""
        return resource if self.engine.stacks is None else NotThere(instead)

    def resources(self) -> Resources:
        """The area's resources below the root."""
        return {}

    def below_instance(self, name: str) -> Resources:
        """The area's resources below /instances/NAME; there may be no such instance."""
        return {}
