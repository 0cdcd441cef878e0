"""Services that run only while someone is connected to them.

A connection that no instance serves wakes a service (``network/doorways.py`` has it wait). After
some time without a connection it sleeps again. Which are awake is kept nowhere: after a restart of
the manager those are that have an instance.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.logger import Logger

from txcontain.engine.manager import Manager
from txcontain.errors import MachineAtFault
from txcontain.later import Timer, background
from txcontain.network.doorways import WAIT_WITHIN
from txcontain.runtime.instance import Instance
from txcontain.services.routes import full_name

LOOK_AFTER = 2.0  # seconds between two looks at the connections of those that are awake
Key = tuple[str, str]  # the names of a stack, and of a service of it
log = Logger()


@define(eq=False)
class Sleeping:
    """Which services on demand are awake, and since when no one has been connected to them."""

    manager: Manager
    idle_of: Callable[[Key], float | None]  # after how many seconds it sleeps; None: it never does
    changed: Callable[[str], object]  # told the stack of one that is awake now, or asleep
    awake: dict[Key, float] = field(factory=dict)  # when someone was connected last
    _serving: set[Key] = field(factory=set)  # those of which an instance served at the last look
    _next_look: Timer = field(init=False)
    _is_looking: bool = False

    def __attrs_post_init__(self) -> None:
        self._next_look = Timer(self.manager.reactor, self._look_again)

    def start(self) -> None:
        """Those that have instances are awake."""
        for instance in self.manager.instances.values():
            key = instance.labels.get("stack", ""), instance.labels.get("service", "")
            if self.idle_of(key) is not None:
                self.wake(*key)

    def stop(self) -> None:
        """Look no more."""
        self._next_look.cancel()

    def wake(self, stack: str, service: str) -> None:
        """Someone is connected, or waits to be."""
        self.awake[stack, service] = self.manager.reactor.seconds()
        if not self._next_look.is_set and not self._is_looking:
            self._next_look.after(LOOK_AFTER)
        self.changed(stack)

    def came_back(self, stack: str, service: str) -> bool:
        """Someone has connected as a service was about to sleep; returns whether it was."""
        key = stack, service
        if self.idle_of(key) is None or key in self.awake:
            return False
        self.wake(*key)
        return True

    def _look_again(self) -> None:
        background(self._look(), "looking who is connected to services on demand")

    async def _look(self) -> None:
        self._is_looking = True  # it may take longer than LOOK_AFTER
        try:
            for key in list(self.awake):
                if await self._is_idle(key):
                    del self.awake[key]
                    self._serving.discard(key)
                    self.changed(key[0])
        finally:
            self._is_looking = False
            if self.awake:
                self._next_look.after(LOOK_AFTER)

    async def _is_idle(self, key: Key) -> bool:
        idle = self.idle_of(key)
        if idle is None:  # it is not on demand any more
            return True
        instances = [one for one in self.manager.instances.values() if _is_of(one, key)]
        for instance in instances:
            await self._note_connections(key, instance)
        self._note_who_serves(key, any(one.serves for one in instances))
        if key not in self._serving:  # those who wait are hung up on in that time
            idle = max(idle, WAIT_WITHIN)
        since = self.awake[key]
        return bool(self.manager.reactor.seconds() - since >= idle)

    def _note_who_serves(self, key: Key, serves: bool) -> None:
        """It has not been idle while it was still being started, or while someone waited."""
        begins = serves and key not in self._serving
        (self._serving.add if serves else self._serving.discard)(key)
        if begins or self.manager.network.doorways.someone_waits(full_name(*key)):
            self.awake[key] = self.manager.reactor.seconds()

    async def _note_connections(self, key: Key, instance: Instance) -> None:
        quiet = 0.0
        try:
            quiet = await self.manager.network.quiet_for(instance.name)
        except MachineAtFault as error:  # then it stays awake
            log.warn("{error}", error=error)
        last = self.manager.reactor.seconds() - quiet
        self.awake[key] = max(self.awake[key], last)


def _is_of(instance: Instance, key: Key) -> bool:
    return (instance.labels.get("stack"), instance.labels.get("service")) == key
