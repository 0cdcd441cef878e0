"""The stacks of this host, as the API asks for them: those that the keeper keeps."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from txcontain.engine.interface import Planned, Told
from txcontain.engine.manager import Manager
from txcontain.services import asking
from txcontain.services.asking import Plan
from txcontain.services.keeper import Keeper, keeper_of
from txcontain.services.steps import OfInstance


@frozen
class KeptStacks:
    """Fulfils ``Stacks`` of engine/interface.py."""

    manager: Manager

    @property
    def keeper(self) -> Keeper:
        """What keeps them."""
        return keeper_of(self.manager)

    async def all(self) -> Told:
        """All stacks, and how their services stand."""
        stacks = self.keeper.wished.values()
        services = {one.name: asking.told(self.keeper, one) for one in stacks}
        return Told([{"stack": name, "services": told} for name, told in services.items()])

    async def one(self, name: str) -> dict[str, Any]:
        """One stack, and its document. Raises NoSuchStack."""
        wished = asking.find_stack(self.keeper, name)
        services = asking.told(self.keeper, wished)
        return {"stack": name, "document": wished.document, "services": services}

    async def service(self, name: str) -> dict[str, Any]:
        """How a service stands. Raises NoSuchService, Ambiguous."""
        wished, wish = asking.find_service(self.keeper, name)
        return asking.told(self.keeper, wished)[list(wished.services).index(wish.name)]

    async def plan(self, values: dict[str, Any]) -> Planned:
        """What ``up`` would do. Raises what ``asking.plan`` raises."""
        return planned(await asking.plan(self.keeper, values))

    async def up(self, values: dict[str, Any]) -> Planned:
        """Have a stack be as a document says. Raises what ``asking.up`` raises."""
        return planned(await asking.up(self.keeper, values))

    async def down(self, name: str) -> Planned:
        """Remove a stack. Raises NoSuchStack, MachineAtFault."""
        return planned(await asking.down(self.keeper, name))

    async def scale(self, service: str, replicas: int) -> Planned:
        """Have another number of instances. Raises what ``asking.scale`` raises."""
        return self._of(service, await asking.scale(self.keeper, service, replicas))

    async def update(self, service: str, major: str, minor: str) -> Planned:
        """Have another version of its config. Raises what ``asking.update`` raises."""
        return self._of(service, await asking.update(self.keeper, service, major, minor))

    async def rollback(self, service: str) -> Planned:
        """Go back to its last good revision. Raises what ``asking.rollback`` raises."""
        return self._of(service, await asking.rollback(self.keeper, service))

    def _of(self, service: str, plan: Plan) -> Planned:
        _, wish = asking.find_service(self.keeper, service)
        return planned(plan, wish.name)

    def settled(self, done: Planned) -> Deferred[list[str]]:
        """Fires when that is as wished, or can't be: with why not, a sentence each."""
        return self.keeper.settled(done.stack, done.services)


def planned(plan: Plan, *services: str) -> Planned:
    """A plan as plain data; it concerns these services, or all."""
    steps = [_told(step) for step in plan.steps]
    return Planned(plan.wished.name, services or [*plan.wished.services], plan.changes, steps)


def _told(step: OfInstance) -> dict[str, str]:
    return {
        "step": type(step).__name__.lower(),
        "service": step.service,
        "instance": step.instance,
        "text": str(step),
    }
