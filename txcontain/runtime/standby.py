"""Inits that stand by for instances that were stopped last: who stops one often starts it again.

Each has carried out all of its instance's plan that can be done before the start. So it has mounted
what the instance wrote, and nobody else may mount that meanwhile: who wants to has it let go first.
The kernel marks that as volatile, but nothing is written there: the instance's record says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from txcontain.container.plan import Plan, begins_with, common_start
from txcontain.errors import MachineAtFault
from txcontain.later import Timer, background, poll
from txcontain.runtime.child import Child
from txcontain.runtime.supervised import UNKNOWN

SOON = 0.01  # seconds after a stop
LOOK_AFTER, LOOK_AT_MOST, WITHIN = 0.002, 0.05, 30.0  # seconds

log = Logger()


@define(eq=False)
class Reserve:
    """An init that stands by, or will soon, or is ending."""

    child: Child
    is_ready: bool = False
    is_wanted: bool = True

    @property
    def has_nothing(self) -> bool:
        """Whether it has not connected yet, and so has mounted nothing."""
        return self.child.process == UNKNOWN

    def is_of_use_for(self, plan: Plan) -> bool:
        """Whether it lives, and has done nothing that is not in a plan."""
        lives = self.is_ready and self.child.connection is not None
        return lives and begins_with(plan, self.child.early_steps)

    def let_go(self) -> None:
        """Have it end, however far it is."""
        self.is_ready = self.is_wanted = False
        if self.has_nothing:
            self.child.early_steps = []  # what it is told if it connects all the same
        self.child.hang_up()
        self.child.waiting.cancel()  # nothing if it waits already


@define(eq=False)
class Standby:
    """Has an init for each of the instances that were stopped last."""

    reactor: Any
    spawn: Callable[[Plan], Child]  # an init that carries out these steps
    most: int  # to keep; 0: none
    _stopped: dict[str, Plan] = field(factory=dict)  # since the last look; what can be prepared
    _reserves: dict[str, Reserve] = field(factory=dict)  # by the instance's name, until gone
    _soon: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._soon = Timer(self.reactor, self._look)

    def stopped(self, name: str, plan: Plan) -> None:
        """An instance was stopped, and its record says that all it wrote is on the disk."""
        if self.most:
            self._stopped[name] = common_start(plan, plan)
            self._soon.after(SOON)

    def _look(self) -> None:
        stopped, self._stopped = list(self._stopped.items())[-self.most :], {}
        for name, steps in stopped:
            if name not in self._reserves:  # else that one is not gone yet
                reserve = self._reserves[name] = Reserve(self.spawn(steps))
                background(self._prepare(reserve), f"preparing a start of {name}")
        for reserve in list(self._reserves.values())[: -self.most]:
            reserve.let_go()

    async def _prepare(self, reserve: Reserve) -> None:
        child = reserve.child
        try:
            await child.waiting
        except Exception:
            if reserve.is_wanted:
                reserve.let_go()
                raise
        if reserve.is_wanted:
            child.in_advance, reserve.is_ready = len(child.early_steps), True

    async def take(self, name: str, plan: Plan) -> Child | None:
        """The init for a start of this instance; if its plan is another now, it is gone then.

        Raises MachineAtFault if it does not end.
        """
        self._stopped.pop(name, None)
        async for _ in poll(self.reactor, LOOK_AFTER, most=LOOK_AT_MOST, within=WITHIN):
            reserve = self._reserves.get(name)
            if reserve is None:
                return None
            if reserve.is_of_use_for(plan):
                return self._reserves.pop(name).child
            if reserve.is_ready or reserve.has_nothing:
                reserve.let_go()
            if reserve.has_nothing:
                del self._reserves[name]
                return None
        raise MachineAtFault(
            f"ending the process that was prepared for a start of {name}",
            f"it was told to, and has not within {WITHIN:.0f} s",
            "see in /proc/PID/stack what the kernel waits for",
        )

    def give_back(self, name: str, child: Child) -> None:
        """The start does not take place."""
        self._reserves[name] = reserve = Reserve(child)
        reserve.let_go()

    async def drop(self, name: str) -> None:
        """Wait until none stands by for this instance: its files can be mounted then.

        Raises MachineAtFault if it does not end.
        """
        if reserve := self._reserves.get(name):
            reserve.let_go()
        await self.take(name, [])

    def drop_all(self) -> None:
        """Let go of all of them."""
        self._stopped.clear()
        for reserve in list(self._reserves.values()):
            reserve.let_go()

    def stop(self) -> None:
        """Let go of all, and keep none."""
        self._soon.cancel()
        self.most = 0
        self.drop_all()

    def lost(self, child: Child) -> None:
        """An init without a plan has ended."""
        for name, reserve in list(self._reserves.items()):
            if reserve.child is child:
                reserve.is_ready = reserve.is_wanted = False
                background(self._forget(name, reserve), f"ending what was prepared for {name}")

    async def _forget(self, name: str, reserve: Reserve) -> None:
        """Its monitor may have ended first. While something of it is left, it has its mounts."""
        async for _ in poll(self.reactor, LOOK_AFTER, most=LOOK_AT_MOST, within=WITHIN):
            if not await reserve.child.remove():
                if self._reserves.get(name) is reserve:
                    del self._reserves[name]
                return
