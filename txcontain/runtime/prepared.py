"""What the next launch will probably need: a name, a folder, and the steps to carry out early.

The next launch is expected to be like the last two. If both were of one config, only the
instance's name is unknown: so a name is drawn, and its folder made, in advance. After a start of an
instance that was stopped, another one is expected.
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
    """Says what can be prepared for the next launch."""

    folder: str  # in which instances have theirs
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    names: set[str] = field(factory=set)  # those that have a folder and no instance yet
    _last: list[Blueprint] = field(factory=list)  # of the last two launches
    _has_name: bool = False  # whether the next one is expected to be of an instance that is there

    def launched(self, blueprint: Blueprint) -> None:
        """There was a launch."""
        self._last, self._has_name = [*self._last, blueprint][-2:], False

    def started(self, blueprint: Blueprint) -> None:
        """There was a start of an instance that had been launched before.

        The next one is expected to be a start too. What it had written may change until then, so
        only those steps can be done early that do not depend on the instance.
        """
        self._last, self._has_name = [blueprint, blueprint], True

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
        """A name, and the steps to carry out for it; no name if the steps don't depend on it.

        No steps if nothing is expected. The caller makes the folder of the name.
        """
        if len(self._last) < 2:
            return "", []
        name, other = (new_name("") for _ in range(2))
        steps = self._alike(name)
        of_any_name = common_start(steps, self._alike(other))
        if self._has_name or steps == of_any_name:
            return "", of_any_name
        name = self._last[-1].spec.name + name
        self.names.add(name)
        return name, steps

    def _alike(self, digits: str) -> Plan:
        return common_start(*(last.plan(last.spec.name + digits) for last in self._last))

    def path(self, name: str) -> str:
        """The folder of an instance of this name."""
        return os.path.join(self.folder, name)

    def give(self, name: str) -> None:
        """From now on the name and its folder belong to an instance."""
        self.names.discard(name)

    def drop(self, name: str) -> None:
        """No instance will have this name: remove its folder, if it has one."""
        if name not in self.names:
            return

        async def remove() -> None:
            try:
                await self.remove(self.path(name))
            finally:
                self.names.discard(name)

        background(remove(), f"removing {name}")
