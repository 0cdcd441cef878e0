"""What is expected to be launched next: its name, its folder, and what of its plan is done by then.

The next launch is expected to be what the last two had in common. If both were of one config, only
the instance's name is unknown in its plan: so a name is drawn, and its folder made, in advance.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from secrets import token_hex

from attrs import define, field

from txcontain.container.blueprint import Blueprint
from txcontain.container.plan import Plan, begins_with, common_start
from txcontain.later import background


def new_name(stem: str) -> str:
    """A name that no other instance has."""
    return f"{stem}-{token_hex(4)}"


def stem_of(name: str) -> str:
    """The name of the config, in an instance's."""
    return name.rpartition("-")[0]


@define(eq=False)
class Prepared:
    """Expects launches, and draws up what can be done for the next one."""

    folder: str  # in which instances have theirs
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    names: set[str] = field(factory=set)  # that have a folder, and are no instance's yet
    _last: list[Blueprint] = field(factory=list)  # of the last two launches

    def launched(self, blueprint: Blueprint) -> None:
        """There was a launch."""
        self._last = [*self._last, blueprint][-2:]

    def forget(self) -> None:
        """Expect nothing, until there are two more launches."""
        self._last = []

    def expects(self, name: str, steps: Plan) -> bool:
        """Whether a launch like the last one, of this name, would begin with these steps."""
        return any(
            (not name or stem_of(name) == last.spec.name) and begins_with(last.plan(name), steps)
            for last in self._last[-1:]
        )

    def draw(self) -> tuple[str, Plan]:
        """A name, and the steps to be carried out for it in advance; no name if any would do.

        No steps if nothing is expected. Whoever draws a name makes its folder.
        """
        if len(self._last) < 2:
            return "", []
        name, other = (new_name("") for _ in range(2))
        steps = self._alike(name)
        if steps == self._alike(other):
            return "", steps
        name = self._last[-1].spec.name + name
        self.names.add(name)
        return name, steps

    def _alike(self, digits: str) -> Plan:
        return common_start(*(last.plan(last.spec.name + digits) for last in self._last))

    def path(self, name: str) -> str:
        """The folder of an instance of this name."""
        return os.path.join(self.folder, name)

    def give(self, name: str) -> None:
        """The name and its folder are an instance's from now on."""
        self.names.discard(name)

    def drop(self, name: str) -> None:
        """The name will be no instance's: remove its folder, if it has one."""
        if name not in self.names:
            return

        async def remove() -> None:
            try:
                await self.remove(self.path(name))
            finally:
                self.names.discard(name)

        background(remove(), f"removing {name}")
