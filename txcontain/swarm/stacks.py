"""Stacks of a swarm: what a person asks of them, as services of Docker.

Docker keeps what is wished, replaces replicas, and rolls back; nothing of that is done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred

from txcontain.engine.interface import Planned, Told
from txcontain.engine.manager import Manager
from txcontain.engine.names import meant
from txcontain.errors import (
    ConfigAtFault,
    InUse,
    MachineAtFault,
    NoSuchConfig,
    NoSuchStack,
    Unavailable,
    WrongState,
)
from txcontain.exports.subject import Subject
from txcontain.later import background, bounded, poll, together
from txcontain.services.document import read_stack, refuse_same_ports
from txcontain.services.revision import Revision, make_revision
from txcontain.services.routes import find_named, full_name
from txcontain.services.wish import DONE, UNDER_WAY, difference
from txcontain.swarm import mapping, stack_mapping
from txcontain.swarm.client import OUT_OF_SEQUENCE, Refused
from txcontain.swarm.means import Means
from txcontain.swarm.records import refuse_taken
from txcontain.swarm.stack_mapping import Kept, is_of_place, read_kept
from txcontain.swarm.watch import Watch

LOOK_AFTER, LOOK_MOST = 0.1, 1.0  # seconds between looks at what is not settled
SETTLES_WITHIN = 3600.0  # seconds
NETWORK_GONE_WITHIN = 120.0  # seconds after the last service


@define(eq=False)
class SwarmStacks:
    """Fulfils ``Stacks`` of engine/interface.py."""

    host: Manager
    means: Means
    watch: Watch

    # -- telling -----------------------------------------------------------------------

    async def all(self) -> Told:
        """All stacks, and how their services stand, or stood when that could be seen last."""
        seen, as_of = await self.watch.now()
        stacks: dict[str, list[Any]] = {}
        for kept in read_kept(seen.services, seen.tasks):
            stacks.setdefault(kept.stack, []).append(stack_mapping.told(kept))
        told = [{"stack": name, "services": services} for name, services in stacks.items()]
        return Told(told, as_of)

    async def one(self, name: str) -> dict[str, Any]:
        """One stack, and its document. Raises NoSuchStack."""
        kept = await self._stack(name)
        services = [stack_mapping.told(one) for one in kept]
        return {"stack": name, "document": stack_mapping.document_of(kept), "services": services}

    async def service(self, name: str) -> dict[str, Any]:
        """How a service stands. Raises NoSuchService, Ambiguous."""
        return stack_mapping.told(find(await self._kept(), name))

    async def _kept(self) -> list[Kept]:
        return read_kept(*await together(self.means.services(), self.means.tasks()))

    async def _stack(self, name: str) -> list[Kept]:
        every = await self._kept()
        found = [one for one in every if one.stack == name]
        if not found:
            names = dict.fromkeys(one.stack for one in every)
            raise NoSuchStack(f"there is no stack {name}", *meant(name, names))
        return found

    # -- changing ----------------------------------------------------------------------

    async def plan(self, values: dict[str, Any]) -> Planned:
        """What ``up`` would do."""
        return (await self._planned(values))[0]

    async def up(self, values: dict[str, Any]) -> Planned:
        """Have a stack be as a document says: first the images, then all services."""
        planned, before, after = await self._planned(values)
        changed = {
            name: revision
            for name, revision in after.items()
            if name not in before or _differs(before[name], revision)
        }
        subjects = {name: await self.means.publish(one.spec) for name, one in changed.items()}
        for name in before.keys() - after.keys():
            await self.means.delete(before[name].id)
            self.watch.wrote()
        for name, revision in changed.items():
            await self._apply(planned.stack, name, revision, subjects[name], before.get(name))
        return planned

    async def _planned(
        self, values: dict[str, Any]
    ) -> tuple[Planned, dict[str, Kept], dict[str, Revision]]:
        stack, every = read_stack(values), await self._kept()
        before = {one.name: one for one in every if one.stack == stack.name}
        after = {name: await self._revision(name, asked) for name, asked in stack.asked.items()}
        refuse_same_ports({name: revision.ports for name, revision in after.items()})
        check_beside(stack.name, after, every)
        await self._check_names([full_name(stack.name, name) for name in after.keys() - before])
        return Planned(stack.name, [*after], [*changes(before, after)]), before, after

    async def _check_names(self, added: Sequence[str]) -> None:
        """Raise InstanceExists if an instance has a name that one of these gives a replica."""
        seen, _ = await self.watch.now()
        refuse_taken(
            seen,
            lambda one: not one.is_replica and any(is_of_place(full, one.name) for full in added),
        )

    async def _revision(self, name: str, asked: dict[str, Any]) -> Revision:
        try:
            config = await self.means.read_config(f"{asked['config']}.cfg")
        except NoSuchConfig as error:
            where = f"services.{name}.config: {error.chain[0]}"
            raise NoSuchConfig(where, *error.chain[1:]) from None
        revision = make_revision(name, asked, config.document.encode())
        stack_mapping.check(name, revision)
        return revision

    async def _apply(
        self, stack: str, name: str, revision: Revision, subject: Subject, before: Kept | None
    ) -> None:
        """Have a service of the swarm be of a revision."""
        if revision.spec.network == "private":
            await self.means.make_network(stack_mapping.name_of_network(stack))
        asked = stack_mapping.service_of(stack, name, revision, subject, before)
        await (self._alter(before, asked) if before else self._create(asked, revision))

    async def _create(self, asked: dict[str, Any], revision: Revision) -> None:
        name, doing = asked["Name"], f"making the service {asked['Name']}"
        docker = self.means.docker
        try:
            await docker.ask("POST", "/services/create", asked, doing=doing)
        except Refused as error:
            if error.status != 409:
                raise
            made = await docker.ask("GET", f"/services/{name}", doing=doing)
            labels = made["Spec"].get("Labels") or {}
            if stack_mapping.STACK not in labels:
                raise InUse(
                    f"the swarm has a service {name} that is someone else's",
                    "remove that, or give yours another name",
                ) from None
            if labels.get(stack_mapping.REVISION) != revision.id:
                raise changed_meanwhile(asked["Labels"][stack_mapping.STACK]) from None
            # else a manager has done it, and its answer was lost
        self.watch.wrote()

    async def _alter(self, kept: Kept, spec: dict[str, Any]) -> None:
        try:
            await self.means.docker.ask(
                "POST",
                f"/services/{kept.id}/update",
                spec,
                doing=f"changing the service {kept.full}",
                version=kept.told["Version"]["Index"],
            )
        except Refused as error:
            if OUT_OF_SEQUENCE in str(error):
                raise changed_meanwhile(kept.stack) from None
            raise
        self.watch.wrote()

    async def down(self, name: str) -> Planned:
        """Remove all services of a stack. Raises NoSuchStack."""
        kept = await self._stack(name)
        for one in kept:
            await self.means.delete(one.id)
        self.watch.wrote()
        background(self._drop_network(name), f"removing the network of the stack {name}")
        names = [one.name for one in kept]
        return Planned(name, names, [f"drop {one}" for one in names])

    async def _drop_network(self, stack: str) -> None:
        """Remove a stack's network, once nothing uses it any more."""
        path = f"/networks/{stack_mapping.name_of_network(stack)}"
        within = NETWORK_GONE_WITHIN
        async for _ in poll(self.host.reactor, LOOK_AFTER, within=within, most=LOOK_MOST):
            try:
                await self.means.docker.ask("DELETE", path, doing="removing a network")
            except Unavailable:
                continue
            except Refused as error:
                if error.status == 404:
                    return
            else:
                return

    async def scale(self, service: str, replicas: int) -> Planned:
        """Have another number of replicas; all else stays. Raises NoSuchService, Ambiguous."""
        kept = find(await self._kept(), service)
        asked = {**kept.asked, "replicas": replicas}
        revision = await self._revision(kept.name, asked)
        if asked == kept.asked or revision.id != kept.revision:  # several need another network
            return await self._change(kept, asked)
        spec = {
            **kept.told["Spec"],
            "Mode": {"Replicated": {"Replicas": revision.service.replicas}},
            "Labels": stack_mapping.labels_of(kept.stack, kept.name, revision, kept),
        }
        await self._alter(kept, spec)
        return _planned_one(kept, asked)

    async def update(self, service: str, major: str, minor: str) -> Planned:
        """Have another version of its config. Raises NoSuchService, Ambiguous, NoSuchConfig."""
        kept = find(await self._kept(), service)
        name = kept.labels["txcontain.name"]
        return await self._change(kept, {**kept.asked, "config": f"{name}-{major}-{minor}"})

    async def rollback(self, service: str) -> Planned:
        """Go back to what was asked before, with as many replicas as now. Raises WrongState."""
        kept = find(await self._kept(), service)
        if kept.before is None:
            why = f"no other revision of {kept.name} was there since its first one"
            raise WrongState(f"{kept.name} can't be rolled back", why)
        asked = dict(kept.before)
        if asked.get("replicas", 1) != kept.replicas:
            asked["replicas"] = kept.replicas
        return await self._change(kept, asked)

    async def _change(self, kept: Kept, asked: dict[str, Any]) -> Planned:
        revision = await self._revision(kept.name, asked)
        if not _differs(kept, revision):
            return Planned(kept.stack, [kept.name], [])
        subject = await self.means.publish(revision.spec)
        await self._apply(kept.stack, kept.name, revision, subject, kept)
        return _planned_one(kept, asked)

    # -- waiting -----------------------------------------------------------------------

    def settled(self, done: Planned) -> Deferred[list[str]]:
        """Fires when that is as wished, or can't be: with why not, a sentence each."""
        return bounded(self.host.reactor, 2 * SETTLES_WITHIN, self._settle(done))

    async def _settle(self, done: Planned) -> list[str]:
        standing: dict[str, dict[str, Any]] = {}
        left: Sequence[str] = done.services
        within = SETTLES_WITHIN
        async for _ in poll(self.host.reactor, LOOK_AFTER, within=within, most=LOOK_MOST):
            try:
                tasks = await self.means.tasks()
                every = read_kept(await self.means.services(), tasks)
            except (Unavailable, MachineAtFault):  # it may answer well again
                continue
            kept = {one.name: one for one in every if one.stack == done.stack}
            told = {name: stack_mapping.told(one) for name, one in kept.items()}
            self._tell(done, standing, told)
            standing = told
            left = [
                name
                for name in done.services
                if (told[name]["state"] in UNDER_WAY if name in told else _ends(done, name, tasks))
            ]
            if not left:
                break
        silent = f"the swarm has not said how it is within {within:g} s"
        unknown = [f"{name}: {silent}" for name in left if name not in standing]
        return unknown + [
            f"{name}: {one['why'] or one['state']}"
            for name, one in standing.items()
            if name in done.services and one["state"] != DONE
        ]

    def _tell(self, done: Planned, before: dict[str, Any], after: dict[str, Any]) -> None:
        for name in done.services:
            was, now = _shown(before.get(name)), _shown(after.get(name))
            if was != now:
                about = {"stack": done.stack, "service": name}
                self.host.journal.add("service", now, instance=None, **about)


def _shown(told: dict[str, Any] | None) -> str:
    if told is None:
        return "is gone"
    said = f": {told['why']}" if told["why"] and told["state"] != DONE else ""
    return f"{told['state']}, {told['current']} of {told['replicas']} run{said}"


def _ends(done: Planned, name: str, tasks: Sequence[mapping.Json]) -> bool:
    """Whether something of a service that was removed still runs."""
    wanted = {stack_mapping.STACK: done.stack, stack_mapping.SERVICE: name}
    for task in tasks:
        labels = ((task.get("Spec") or {}).get("ContainerSpec") or {}).get("Labels") or {}
        if wanted.items() <= labels.items() and not mapping.is_over(task):
            return True
    return False


# -- deciding ------------------------------------------------------------------------


def changes(before: dict[str, Kept], after: dict[str, Revision]) -> Iterable[str]:
    """What differs between what there is and what is asked, a sentence for each service."""
    for name, revision in after.items():
        if name not in before:
            yield f"add {name}: {revision.config}"
        elif _differs(before[name], revision):
            yield f"change {name}: {difference(before[name].asked, revision.asked)}"
    for name in before.keys() - after.keys():
        yield f"drop {name}"


def _differs(kept: Kept, revision: Revision) -> bool:
    return kept.revision != revision.id or kept.asked != revision.asked


def _planned_one(kept: Kept, asked: dict[str, Any]) -> Planned:
    change = f"change {kept.name}: {difference(kept.asked, asked)}"
    return Planned(kept.stack, [kept.name], [change])


def changed_meanwhile(stack: str) -> InUse:
    """The error if someone else has changed a stack."""
    return InUse(
        f"the stack {stack} was changed meanwhile", "look at what has changed, and try again"
    )


def check_beside(stack: str, after: dict[str, Revision], every: Sequence[Kept]) -> None:
    """Check that no other stack has what this one publishes. Raises ConfigAtFault."""
    others = [
        (port, one.full)
        for one in every
        if one.stack != stack
        for port in stack_mapping.published(one.told)
    ]
    for name, revision in after.items():
        path = f"services.{name}"
        for port in revision.ports:
            for held, full in others:
                if port.clashes_with(held):
                    raise ConfigAtFault(f"{path}.ports: the service {full} publishes port {port}")


def find(every: Sequence[Kept], name: str) -> Kept:
    """A service, by one of its names. Raises NoSuchService, Ambiguous."""
    return find_named(name, [(one.stack, one.name, one) for one in every])
