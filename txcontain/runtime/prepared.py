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
    _plans: dict[str, Plan] = field(factory=dict)  # of the last one, for the names it is asked for
    _has_name: bool = False  # whether the next one is expected to be of an instance that is there

    def launched(self, blueprint: Blueprint) -> None:
        """There was a launch."""
        self._expect([*self._last, blueprint.early][-2:], has_name=False)

    def started(self, blueprint: Blueprint) -> None:
        """There was a start of an instance that had been launched before.

        The next one is expected to be a start too. What it had written may change until then, so
        only those steps can be done early that do not depend on the instance.
        """
        self._expect([blueprint.early] * 2, has_name=True)

    def forget(self) -> None:
        """Expect nothing, until there are two more launches."""
        self._expect([], has_name=False)

    def _expect(self, last: list[Blueprint], *, has_name: bool) -> None:
        if last[-1:] != self._last[-1:]:
            self._plans.clear()
        self._last, self._has_name = last, has_name

    def expects(self, name: str, steps: Plan) -> bool:
        """Whether a launch like the last one, of this name, would begin with these steps."""
        if not self._last or (name and stem_of(name) != self._last[-1].spec.name):
            return False
        return begins_with(self._plan(name), steps)

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
        before, last = self._last
        plan = other = last.plan(last.spec.name + digits)
        if before != last:
            other = before.plan(before.spec.name + digits)
        return common_start(plan, other)

    def _plan(self, name: str) -> Plan:
        """That of the last launch under another name; it is asked for again and again."""
        if name not in self._plans:
            self._plans[name] = self._last[-1].plan(name)
        return self._plans[name]

    def path(self, name: str) -> str:
        """The folder of an instance of this name."""
        return os.path.join(self.folder, name)

    def give(self, name: str) -> None:
        """From now on the name and its folder belong to an instance."""
        self.names.discard(name)
        self._plans.pop(name, None)

    def drop(self, name: str) -> None:
        """No instance will have this name: remove its folder, if it has one."""
        self._plans.pop(name, None)
        if name not in self.names:
            return

        async def remove() -> None:
            try:
                await self.remove(self.path(name))
            finally:
                self.names.discard(name)

        background(remove(), f"removing {name}")
