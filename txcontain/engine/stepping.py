"""Launches that one can stop: a container is made step by step, and looked at in between.

Its init waits before each step, as the plan says. The program of the container never runs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from secrets import token_hex
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

from txcontain.container.defaults import with_defaults
from txcontain.container.plan import Plan, make_plan, step
from txcontain.container.spec import Limits, Spec, from_json
from txcontain.container.walls import purpose_of
from txcontain.engine.manager import Manager
from txcontain.errors import ConfigAtFault, InvalidData, MachineAtFault, NoSuchStep, TooMany
from txcontain.host.id_ranges import free_range
from txcontain.host.os_errors import of_os
from txcontain.host.snapshots import Snapshot, changes, snapshot
from txcontain.later import Timer, poll
from txcontain.runtime import diagnose
from txcontain.runtime.child import Child
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit

MOST_AT_ONCE, LONGEST = 4, 1800.0  # launches that are stepped through; seconds of one
LOOK_AFTER, STOP_WITHIN = 0.02, 5.0  # seconds
WHAT = "stepping through a launch"


@define(eq=False)
class Stepped:
    """A launch that is stepped through."""

    manager: Manager
    plan: Plan
    child: Child
    name: str = field(factory=lambda: token_hex(8))
    first: int = 0  # the number of the first step before which it waits
    at: int = -1  # the number of the step that comes next; one less: not there yet
    over: Deferred[str] = field(factory=Deferred)  # fires with why nothing can follow
    failure: BaseException | None = None  # why a step failed
    _seen: Snapshot = field(factory=dict)
    _pausing: bool = False  # whether the init waits
    _waiting: Deferred[None] | None = None  # for the next stop
    _lock: DeferredLock = field(factory=DeferredLock)

    def begin(self, to: int) -> None:
        """Have the init carry out the plan, and wait before this step and each one after it."""
        self.first = min(to, len(self.plan) - 1)
        self.at = self.first - 1
        self.child.on_pause = self._pauses
        paused = [one for each in self.plan[self.first :] for one in (step("pause"), each)]
        self.child.carry_out([*self.plan[: self.first], *paused]).addErrback(self._fail)

    def _pauses(self) -> None:
        self.at, self._pausing = self.at + 1, True
        if self._waiting is not None:
            self._waiting.callback(None)

    def _fail(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, StepFailed):
            number = error.details["step"]
            if self.child.on_pause is not None and number > self.first:
                error.details["step"] = (self.first + number) // 2  # of those without a pause
            error = diagnose.of_step(self.plan, error)
        self.failure = error
        self.end(str(error))
        if self._waiting is not None and not self._waiting.called:
            self._waiting.errback(error)

    def end(self, why: str) -> None:
        """Nothing can follow; a step that waits is cut short."""
        if not self.over.called:
            self.over.callback(why)
            self.child.kill(f"{WHAT} is over")

    async def until(self, number: int) -> dict[str, Any]:
        """Carry out the steps before this one; returns where it is, and what that has changed.

        Raises InvalidData, ConfigAtFault, MachineAtFault.
        """
        if not self.at <= number < len(self.plan):
            there = f"from {max(self.at, 0)} to {len(self.plan) - 1}"
            raise InvalidData(f"the next step can be one {there}, not {number}")
        async with self._lock:
            while self.at < number:
                if self.over.called:
                    raise MachineAtFault(WHAT, "it is over", "begin again")
                self._waiting = Deferred()
                if self._pausing:
                    self._pausing = False
                    self.child.go_on()
                await self._waiting
            return await self._look()

    async def run(self, within: float) -> str:
        """Carry out all of the plan, without a stop; returns what its program has complained.

        It has ended then, or is ended after so many seconds: see the child's exit. Raises
        ConfigAtFault, MachineAtFault.
        """
        self.child.carry_out(self.plan).addErrback(self._fail)
        async for _ in poll(self.manager.reactor, LOOK_AFTER, within=within):
            if self.child.exit is not None and self.child.silent.called:
                break
        if self.failure is not None:
            raise self.failure
        self.end("it took too long")
        return self.child.stderr.decode(errors="replace")

    async def _look(self) -> dict[str, Any]:
        before = self._seen
        try:
            self._seen = await self.manager.threads(self._snapshot)
            before = before or await self.manager.threads(_of_manager)
        except OSError as error:
            raise MachineAtFault(WHAT, of_os(error)) from error
        changed = changes(before, self._seen)
        return {"at": self.at, "pid": self.child.process.pid, "changes": changed}

    def _snapshot(self) -> Snapshot:
        limits = self.manager.pool.cgroups.limits_of(self.child.token)
        return {**snapshot(self.child.process.pid), "limits of cgroups": limits}

    @property
    def described(self) -> list[dict[str, str]]:
        """Each step, with what it is for, and what it does in a word or two."""
        return [{"op": op, "about": _about(said), **purpose_of(op)} for op, said in self.plan]


def _of_manager() -> Snapshot:
    """What an init has been given before its first step is what it has not from the manager."""
    told = {**snapshot(os.getpid()), "limits of cgroups": []}
    return {kind: lines for kind, lines in told.items() if kind not in ("descriptors", "folders")}


def _about(said: dict[str, Any]) -> str:
    keys = ("target", "path", "name", "owner", "source", "namespaces", "mode")
    found = next((said[key] for key in keys if key in said), "")
    return found if isinstance(found, str) else ", ".join(map(str, found))


@define(eq=False)
class Steps:
    """All launches that are stepped through."""

    manager: Manager
    known: dict[str, Stepped] = field(factory=dict)  # by their names
    _open: int = 0
    _ids: set[int] = field(factory=set)  # the first of each range of ids that is used here

    def __attrs_post_init__(self) -> None:
        self.manager.endings.append(self.stop)

    async def stop(self) -> None:
        """End all of them, and wait until nothing of them is left."""
        for stepped in [*self.known.values()]:  # which leave it
            stepped.end("the manager ends")
        async for _ in poll(self.manager.reactor, LOOK_AFTER, within=STOP_WITHIN):
            if not self._open:
                break

    def get(self, name: str) -> Stepped:
        """One of them. Raises NoSuchStep."""
        try:
            return self.known[name]
        except KeyError:
            hint = "it has ended, or its client has gone: begin again"
            raise NoSuchStep("there is no such launch to step through", hint) from None

    @asynccontextmanager
    async def begin(self, file_name: str, to: int) -> AsyncIterator[Stepped]:
        """A launch of a kept config that waits before a step; afterwards all of it is gone.

        Raises NoSuchConfig, TooMany, ConfigAtFault, MachineAtFault.
        """
        with self.turn():
            async with self.made(self.config(file_name)) as stepped:
                stepped.begin(to)
                yield stepped

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One of those that may be there at once. Raises TooMany."""
        if self._open >= MOST_AT_ONCE:
            hint = "end one of them"
            raise TooMany(f"{MOST_AT_ONCE} launches are stepped through already", hint)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def config(self, file_name: str) -> Spec:
        """A kept config, as this manager launches it. Raises NoSuchConfig."""
        spec = from_json(self.manager.read_config(file_name))
        return evolve(spec, user_namespace=spec.user_namespace or self.manager.user_namespace)

    @asynccontextmanager
    async def made(
        self, spec: Spec, draw: Callable[[Plan], Plan] = lambda plan: plan, shared: str = ""
    ) -> AsyncIterator[Stepped]:
        """A launch of a config of which nothing is carried out yet.

        :param draw: makes of the container's plan the one that is carried out
        :param shared: the kind of namespace that is the host's
        Raises ConfigAtFault, MachineAtFault.
        """
        manager = self.manager
        if spec.per_connection:
            hint = 'have no "per_connection" in the config'
            raise ConfigAtFault("no connection is there for a launch in steps", hint)
        with manager.holding() as layers:
            spec = with_defaults(spec, await manager.get_layers(spec, layers))
            await manager.make_volumes(spec)
            name = f"{spec.name}-step-{token_hex(4)}"
            async with self._address_for(name, spec) as address:
                with self._ids_for(spec) as ids:
                    paths = manager.blueprint(spec, layers, address, ids).paths
                    async with manager.arrivals.working(WHAT) as folder:
                        plan = make_plan(spec, evolve(paths, private=folder), f"{spec.name}-step")
                        async with self._carried_out(name, draw(plan), spec.limits, shared) as one:
                            yield one

    @asynccontextmanager
    async def _address_for(self, name: str, spec: Spec) -> AsyncIterator[str | None]:
        """An address on the private network, if the config says so; no port is published."""
        network = self.manager.network
        address = network.reserve(name, evolve(spec, ports=()))
        if address is None:
            yield None
            return
        try:
            yield address
        finally:
            await network.release(name)
            await network.remove_link(address)

    @contextmanager
    def _ids_for(self, spec: Spec) -> Iterator[int | None]:
        """A range of ids from the end of all: instances take the first ones."""
        if not spec.user_namespace:
            yield None
            return
        others = {one.ids for one in self.manager.instances.values() if one.ids is not None}
        first = free_range(others | self._ids, last=True)
        self._ids.add(first)
        try:
            yield first
        finally:
            self._ids.remove(first)

    @asynccontextmanager
    async def _carried_out(
        self, name: str, plan: Plan, limits: Limits, shared: str
    ) -> AsyncIterator[Stepped]:
        pool = self.manager.pool
        child = await pool.take([step("pause"), *plan], shared=shared)
        ended: Deferred[Exit] = Deferred()
        child.on_exit = ended.callback
        child.make_link = partial(self.manager.network.connect, name)
        stepped = Stepped(self.manager, plan, child)
        limit = Timer(self.manager.reactor, lambda: stepped.end("it took too long"))
        limit.after(LONGEST)
        self.known[stepped.name] = stepped
        try:
            child.limit(limits)
            yield stepped
        finally:
            del self.known[stepped.name]
            limit.cancel()
            stepped.end("its request has ended")
            await ended
            await child.remove()
