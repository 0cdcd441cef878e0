"""Keeps what is wished: looks at a stack when something has changed, and begins what is decided.

Who wishes for something else calls ``change``; it is on disk before anything is done for it.
Everything else follows from ``decide.py``. A look never waits, and each step is carried out by
itself, so that no service holds up another.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from txcontain.container.launch_request import LaunchRequest
from txcontain.engine.life import start
from txcontain.engine.manager import Manager
from txcontain.errors import CalledOff, Error, MachineAtFault, NoSuchInstance
from txcontain.host.os_errors import of_os
from txcontain.later import Timer, background, pause, poll
from txcontain.runtime.instance import Instance
from txcontain.services.connections import Connections
from txcontain.services.decide import (
    DRAINED,
    REMOVING,
    WITHDRAWING,
    Seen,
    decide,
    noted,
    outcome,
)
from txcontain.services.routes import Route, routes_of
from txcontain.services.seen import Sight
from txcontain.services.sleeping import Sleeping
from txcontain.services.stacks import Stacks
from txcontain.services.steps import (
    NOTES,
    Consider,
    Forget,
    GiveUp,
    Launch,
    OfInstance,
    Ran,
    Remove,
    Settle,
    Start,
    Step,
    Wait,
    Withdraw,
)
from txcontain.services.wish import DONE, ROLLING_BACK, Wish, Wished

TRY_AGAIN = 2.0  # seconds after something that the machine did not let us do
LOOK_AFTER, LOOK_AT_MOST = 0.05, 0.5  # seconds between two looks at the connections of an instance
DRAIN = 10.0  # seconds, for an instance of a service that is not wished any more
# What may fail, as a person is told of it.
DOING = {Launch: "launching", Start: "starting", Withdraw: "withdrawing", Remove: "removing"}
KEEPING, LEADING = "keeping what is wished", "leading names and ports to it"

log = Logger()
Alter = Callable[["Wished | None"], Wished]


def keeper_of(manager: Manager) -> Keeper:
    """The keeper of a manager's stacks."""
    if manager.keeper is None:
        folders = (os.path.join(manager.state, name) for name in ("stacks", "aside"))
        manager.keeper = Keeper(manager, Stacks(next(folders), next(folders)))
    keeper: Keeper = manager.keeper
    return keeper


@define
class Waiter:
    """Someone who waits until services are as wished, or can't be."""

    services: Collection[str]
    outcome: Deferred[list[str]]


@define(eq=False)
class Keeper:
    """All the stacks of a manager."""

    manager: Manager
    store: Stacks
    wished: dict[str, Wished] = field(factory=dict)  # by the stack's name
    sight: Sight = field(init=False)
    sleeping: Sleeping = field(init=False)
    connections: Connections = field(init=False)
    _timers: dict[str, Timer] = field(factory=dict)  # the next look at each stack
    _locks: dict[str, DeferredLock] = field(factory=dict)  # one change of a wish at a time
    _routes: dict[str, dict[str, Route]] = field(factory=dict)  # by stack and full name
    _leading: Counter[str] = field(factory=Counter)  # what is under way for that, by stack
    _waiting: dict[str, list[Waiter]] = field(factory=dict)
    _told: dict[tuple[str, str, str], str] = field(factory=dict)  # why what fails, by what that is

    def __attrs_post_init__(self) -> None:
        self.sight = Sight(self.manager)
        self.sleeping = Sleeping(self.manager, self._idle_of, self.look_soon)
        self.sight.awake = self.sleeping.awake
        self.connections = Connections(self.manager, self._launch_for_connection)
        self.manager.network.doorways.knocked = self._knocked
        self.manager.network.scope_of = self._stack_of

    def start(self) -> None:
        """Go on with all that is wished. Raises OSError if it can't be read."""
        found, done = self.store.read_all()
        self.wished = {one.name: one for one in found}
        for what in done:
            self.manager.journal.add("recovered", what)
        self.manager.watchers.append(self._changed)
        self.sleeping.start()
        for name in self.wished:
            self._look(name)

    def stop(self) -> None:
        """Do nothing later: the manager ends."""
        self.manager.watchers.clear()
        self.sleeping.stop()
        for timer in self._timers.values():
            timer.cancel()
        self.wished.clear()

    # -- what is wished --------------------------------------------------------------

    async def change(self, name: str, alter: Alter) -> Wished:
        """Wish for something else; ``alter`` makes it of what is wished now. Then it is begun.

        Raises what ``alter`` raises; MachineAtFault if it can't be kept, and nothing has changed.
        """
        async with self._lock(name):
            before = self.wished.get(name)
            wished = alter(before)
            if wished != before:
                await self._keep(wished)
                self._forget_told(name)
                for service, wish in wished.services.items():
                    if before is None or before.services.get(service) is not wish:
                        self.sight.forget_trouble(name, service)
        self.look_soon(name)
        return wished

    async def _keep(self, wished: Wished) -> None:
        try:
            await self.manager.pool.writes(self.store.keep, wished)
        except OSError as error:
            raise MachineAtFault(f"keeping the stack {wished.name}", of_os(error)) from error
        self.wished[wished.name] = wished

    def _lock(self, name: str) -> DeferredLock:
        return self._locks.setdefault(name, DeferredLock())

    def settled(self, name: str, services: Collection[str]) -> Deferred[list[str]]:
        """Fires when these services are as wished, or can't be: with why not, a sentence each.

        It can be cancelled.
        """
        waiting = self._waiting.setdefault(name, [])
        waiter = Waiter(services, Deferred(lambda _: waiting.remove(waiter)))
        waiting.append(waiter)
        self.look_soon(name)
        return waiter.outcome

    # -- looking -----------------------------------------------------------------------

    def look_soon(self, name: str) -> None:
        """Look at a stack as soon as what happens now is over."""
        self._look_after(name, 0)

    def _look_after(self, name: str, seconds: float) -> None:
        if name not in self._timers:
            self._timers[name] = Timer(self.manager.reactor, partial(self._look, name))
        self._timers[name].after(seconds)

    def _changed(self, instance: Instance) -> None:
        stack, service = (instance.labels.get(key, "") for key in ("stack", "service"))
        wish = self._wish(stack, service)
        if wish and wish.revision.spec.per_connection and "replica" not in instance.labels:
            return  # it comes and goes with its connection, whatever is wished
        if stack in self.wished:
            self.look_soon(stack)

    def _look(self, name: str) -> None:
        wished = self.wished.get(name)
        if wished is None:
            if not self._leading[name]:  # else there is another look when that is done
                self._tell_all(name)
        elif self.manager.unread:  # these may be instances of this stack
            self._look_after(name, TRY_AGAIN)
        else:
            self._do(wished)

    def _do(self, wished: Wished) -> None:
        self.sight.forget_gone()
        seen, now = self.sight.see(wished.name), self.sight.now()
        self._lead(wished, seen)
        steps = decide(wished, seen, now)
        for step in steps:
            if isinstance(step, OfInstance):
                self._begin(wished, step)
        if notes := [step for step in steps if isinstance(step, NOTES)]:
            noting = self._telling_once(wished.name, "", KEEPING, self._note(wished, notes))
            background(noting, f"keeping the stack {wished.name}")
        if waits := [step.until for step in steps if isinstance(step, Wait)]:
            self._look_after(wished.name, max(min(waits) - now.seconds, 0))
        for waiter in list(self._waiting.get(wished.name, ())):
            names = [service for service in waiter.services if service in wished.services]
            wrong = outcome(wished, seen, now, names)
            if wrong is not None and not wished.down and not self._leading[wished.name]:
                self._tell(wished.name, waiter, wrong)

    def _tell_all(self, name: str) -> None:
        """Nothing of a stack is there any more; nor is anything kept for its name."""
        for waiter in list(self._waiting.get(name, ())):
            self._tell(name, waiter, [])
        for table in (self._timers, self._routes, self._waiting, self._leading):
            table.pop(name, None)
        if not self._lock(name).locked:
            del self._locks[name]
        self.sight.forget_stack(name)
        self._forget_told(name)

    def _tell(self, name: str, waiter: Waiter, wrong: list[str]) -> None:
        self._waiting[name].remove(waiter)
        waiter.outcome.callback(wrong)

    # -- taking note ---------------------------------------------------------------------

    async def _note(self, wished: Wished, notes: Sequence[Step]) -> None:
        name = wished.name
        async with self._lock(name):
            if self.wished.get(name) is not wished:
                return  # something else is wished meanwhile
            try:
                await self._keep_noted(wished, notes)
            except Exception:
                self._look_after(name, TRY_AGAIN)
                raise
        for step in notes:
            self._say_noted(name, step)
        self.look_soon(name)

    async def _keep_noted(self, wished: Wished, notes: Sequence[Step]) -> None:
        if any(isinstance(step, Forget) for step in notes):
            await self._forget(wished.name)
            return
        after = wished
        for step in notes:
            after = noted(after, step)
        await self._keep(after)

    async def _forget(self, name: str) -> None:
        try:
            await self.manager.pool.writes(self.store.remove, name)
        except OSError as error:
            raise MachineAtFault(f"removing the stack {name}", of_os(error)) from error
        del self.wished[name]
        for instance in list(self.manager.instances.values()):  # launches that failed
            if instance.labels.get("stack") == name:
                background(self._destroy(instance.name), f"removing {instance.name}")

    def _say_noted(self, name: str, step: Step) -> None:
        wished = self.wished.get(name)
        if wished is None:
            self.manager.journal.add("stack", f"{name} is gone", stack=name)
            return
        wish = wished.services[step.service]
        if isinstance(step, GiveUp):
            if wish.state == ROLLING_BACK:
                self.sight.forget_trouble(name, step.service)  # it was another revision's
                self._say_rolled_back(wished, wish, step.why)
            elif self._told.get((name, step.service, DOING[Launch])) == step.why:
                self._say(name, step.service, wish.state)
            else:
                self._say(name, step.service, f"{wish.state}: {step.why}")
        elif isinstance(step, Settle):
            self._say(name, step.service, "as wished" if wish.state == DONE else wish.state)
            self.sight.forget_trouble(name, step.service)
        elif isinstance(step, Consider) and step.told:
            self._say(name, step.service, step.told)
        elif isinstance(step, Ran) and step.why:
            self._say(name, step.service, f"its run was left out: {step.why}")
            self.sight.forget_trouble(name, step.service)

    def _say(self, stack: str, service: str, what: str, instance: str | None = None) -> None:
        about = {"stack": stack, "service": service} if service else {"stack": stack}
        kind = "service" if service else "stack"
        self.manager.journal.add(kind, what, instance=instance, **about)

    def _say_rolled_back(self, wished: Wished, wish: Wish, why: str) -> None:
        said = f"{wish.name} of {wished.name}, to {wish.revision.config}: {why}"
        about = {"stack": wished.name, "service": wish.name}
        self.manager.journal.add("rolled back", said, instance=None, **about)

    async def _telling_once(
        self, stack: str, service: str, what: str, work: Coroutine[Any, Any, None]
    ) -> None:
        """Do this. Why it fails is told once, however often it is tried again.

        Raises CalledOff; at first, what is no error of ours.
        """
        key = stack, service, what
        try:
            await work
        except CalledOff:
            raise
        except Exception as error:
            before, self._told[key] = self._told.get(key), why_of(error)
            if before == why_of(error):
                return
            self._say(stack, service, f"{what} fails: {why_of(error)}")
            if not isinstance(error, Error):
                raise
        else:
            self._told.pop(key, None)

    def _forget_told(self, stack: str) -> None:
        """Something else is wished: what fails from now on is news."""
        for key in [key for key in self._told if key[0] == stack]:
            del self._told[key]

    # -- doing ---------------------------------------------------------------------------

    def _begin(self, wished: Wished, step: OfInstance) -> None:
        about = wished.name, step.service, DOING[type(step)]
        if about not in self._told:  # else it is one more try
            self._say(wished.name, step.service, str(step), step.instance)
        work = self._telling_once(*about, self._work(wished, step))
        background(self._carry_out(wished.name, work), str(step))

    async def _carry_out(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self.look_soon(name)

    def _work(self, wished: Wished, step: OfInstance) -> Coroutine[Any, Any, None]:
        """What carries out a step; that it is under way is to be seen at once."""
        sight, name = self.sight, step.instance
        if isinstance(step, Launch):
            sight.launches[name] = wished.name, step
            return self._launch(wished, step)
        if isinstance(step, Start):
            sight.starts.add(name)
            return self._start(wished, step)
        if isinstance(step, Withdraw):
            sight.leaving[name] = WITHDRAWING
            return self._withdraw(wished, step)
        assert isinstance(step, Remove)
        sight.leaving[name] = REMOVING
        return self._remove(step)

    async def _launch(self, wished: Wished, step: Launch) -> None:
        labels = {
            "stack": wished.name,
            "service": step.service,
            "revision": step.revision,
        }
        revision = wished.services[step.service].revision
        if step.number:
            labels["replica"] = str(step.number)
        if step.due is not None:
            labels["due"] = str(step.due)
        asked = LaunchRequest(revision.spec, instance=step.instance, labels=labels)
        try:
            await self._trying(wished.name, step, self.manager.launch_as_asked(asked))
        finally:
            del self.sight.launches[step.instance]

    async def _start(self, wished: Wished, step: Start) -> None:
        instance = self.manager.instances[step.instance]
        try:
            await self._trying(wished.name, step, start(self.manager, instance))
        finally:
            self.sight.starts.discard(step.instance)

    async def _trying(
        self, stack: str, step: OfInstance, work: Coroutine[Any, Any, object]
    ) -> None:
        """Do this, and take note of whether it has worked."""
        try:
            await work
        except CalledOff:
            raise
        except Exception as error:
            if stack in self.wished:
                self.sight.has_failed(stack, step.service, why_of(error))
            raise
        self.sight.forget_trouble(stack, step.service)

    async def _withdraw(self, wished: Wished, step: Withdraw) -> None:
        leaving: str | None = None
        try:
            self._lead(wished, self.sight.see(wished.name))
            await self._lead_away(step.instance)
            leaving = DRAINED
            wish = wished.services.get(step.service)
            within = wish.revision.service.drain if wish else DRAIN
            reactor = self.manager.reactor
            async for _ in poll(reactor, LOOK_AFTER, most=LOOK_AT_MOST, within=within):
                if not await self._has_connections(step.instance):
                    break
                if self.sleeping.came_back(wished.name, step.service):
                    leaving = None
                    break
        finally:
            self.sight.leaving.pop(step.instance, None)
            if leaving:
                self.sight.leaving[step.instance] = leaving

    async def _lead_away(self, instance: str) -> None:
        try:
            await self.manager.network.withdraw(instance)
        except Exception:  # connections may still be led to it: it does not end yet
            await pause(self.manager.reactor, TRY_AGAIN)
            raise

    async def _has_connections(self, instance: str) -> bool:
        try:
            return await self.manager.network.flows(instance) > 0
        except MachineAtFault as error:
            log.warn("{error}", error=error)
            return True  # then it has all of its time

    async def _remove(self, step: Remove) -> None:
        try:
            await self.manager.network.withdraw(step.instance)
            await self._destroy(step.instance)
        except Exception:
            await pause(self.manager.reactor, TRY_AGAIN)
            raise
        finally:
            self.sight.leaving.pop(step.instance, None)

    async def _destroy(self, instance: str) -> None:
        with contextlib.suppress(NoSuchInstance):  # a person has destroyed it
            await self.manager.destroy(instance)

    # -- who is connected --------------------------------------------------------------------

    def _knocked(self, full: str) -> None:
        """Someone waits at a port of a service, none of whose instances serves."""
        for stack, routes in self._routes.items():
            if full in routes:
                service = routes[full].service
                if self._idle_of((stack, service)) is not None:
                    self.sleeping.wake(stack, service)

    def _idle_of(self, key: tuple[str, str]) -> float | None:
        wish = self._wish(*key)
        on_demand = wish.revision.service.on_demand if wish else None
        return on_demand.idle if on_demand else None

    def _wish(self, stack: str, service: str) -> Wish | None:
        wished = self.wished.get(stack)
        return wished.services.get(service) if wished and not wished.down else None

    def _launch_for_connection(self, stack: str, service: str) -> LaunchRequest | None:
        """What is launched for a connection to a service; None if it serves them otherwise."""
        wish = self._wish(stack, service)
        if wish is None or not wish.revision.spec.per_connection:
            return None
        labels = {"stack": stack, "service": service, "revision": wish.key}
        return LaunchRequest(wish.revision.spec, labels=labels, remove=True)

    # -- where names and ports lead ---------------------------------------------------------

    def _stack_of(self, instance: str) -> str:
        found = self.manager.instances.get(instance)
        return found.labels.get("stack", "") if found else ""

    def _lead(self, wished: Wished, seen: Seen) -> None:
        """Have names and ports lead to those that serve; only what differs is begun."""
        for work in self._leads(wished, seen):
            self._leading[wished.name] += 1
            background(self._led(wished.name, work), f"leading to the services of {wished.name}")

    def _leads(self, wished: Wished, seen: Seen) -> list[Coroutine[Any, Any, None]]:
        wanted, before = routes_of(wished, seen), self._routes.get(wished.name, {})
        self._routes[wished.name] = wanted
        gone = {full: self._drop(full) for full in before.keys() - wanted.keys()}
        changed = [full for full, route in wanted.items() if before.get(full) != route]
        led = {full: self._serve(wished.name, full, wanted[full]) for full in changed}
        services = {full: route.service for full, route in {**before, **wanted}.items()}
        return [
            self._telling_once(wished.name, services[full], LEADING, work)
            for full, work in {**gone, **led}.items()
        ]

    async def _serve(self, stack: str, full: str, route: Route) -> None:
        self.connections.serve(full, stack, route.service)
        try:
            serve = self.manager.network.serve
            await serve(full, route.names, route.ports, route.replicas, stack)
        except Exception:
            await pause(self.manager.reactor, TRY_AGAIN)
            routes = self._routes.get(stack, {})
            if routes.get(full) == route:  # the next look leads to it again
                del routes[full]
            raise

    async def _led(self, stack: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._leading[stack] -= 1
            self.look_soon(stack)

    async def _drop(self, full: str) -> None:
        self.connections.drop(full)
        await self.manager.network.drop(full)


def why_of(error: Exception) -> str:
    """Why something has failed, for a person."""
    if isinstance(error, Error):
        return str(error)
    return f"the manager has a bug: {error!r} → its log has the details: please report them"
