"""Everything that a plan depends on, except the name of the instance."""

from __future__ import annotations

import os
from collections.abc import Sequence

from attrs import evolve, frozen

from txcontain.container.plan import Paths, Plan, make_plan
from txcontain.container.spec import Spec


@frozen
class Blueprint:
    """Makes the plan for any name."""

    spec: Spec
    paths: Paths  # ``private`` is the parent of the instances' folders

    @property
    def layers(self) -> Sequence[str]:
        """The folders of the base image's layers, the highest first, then of each mount's."""
        return [self.paths.base, *self.paths.below, *self.paths.mounts]

    @property
    def address(self) -> str | None:
        """The IPv4 address on the private network, if there is one."""
        return self.paths.link.address if self.paths.link else None

    @property
    def address6(self) -> str | None:
        """The same of IPv6."""
        return self.paths.link.v6.address if self.paths.link and self.paths.link.v6 else None

    @property
    def ids(self) -> int | None:
        """The first id of the user namespace, if there is one."""
        return self.paths.ids

    @property
    def early(self) -> Blueprint:
        """The same without what only the last step of its plans depends on."""
        return evolve(self, spec=evolve(self.spec, startup_env=()))

    def folder(self, name: str) -> str:
        """The folder of an instance with this name."""
        return os.path.join(self.paths.private, name)

    def plan(self, name: str) -> Plan:
        """The plan of an instance with this name."""
        return make_plan(self.spec, evolve(self.paths, private=self.folder(name)), name)
