"""What an instance is made from: all that its plan says, but its name."""

from __future__ import annotations

import os
from collections.abc import Sequence

from attrs import evolve, frozen

from txcontain.container.plan import Paths, Plan, make_plan
from txcontain.container.spec import Spec


@frozen
class Blueprint:
    """A plan with a blank for the name."""

    spec: Spec
    paths: Paths  # ``private`` is the folder in which each instance has its own

    @property
    def layers(self) -> Sequence[str]:
        """The base image's, then each mount's."""
        return [self.paths.base, *self.paths.mounts]

    @property
    def address(self) -> str | None:
        """On the private network."""
        return self.paths.link.address if self.paths.link else None

    @property
    def ids(self) -> int | None:
        """The first of its ids, if it has a user namespace."""
        return self.paths.ids

    def folder(self, name: str) -> str:
        """That of the instance of this name."""
        return os.path.join(self.paths.private, name)

    def plan(self, name: str) -> Plan:
        """The plan of the instance of this name."""
        return make_plan(self.spec, evolve(self.paths, private=self.folder(name)), name)
