"""What a person can ask of stacks and services. All is checked before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, frozen

from txcontain.container.spec import Port
from txcontain.engine.names import meant
from txcontain.engine.ports import check_ports
from txcontain.errors import (
    ConfigAtFault,
    InUse,
    MachineAtFault,
    NoSuchConfig,
    NoSuchStack,
    TooMany,
    WrongState,
)
from txcontain.services.decide import OVER, UP, Replica, Seen, foresee
from txcontain.services.document import Stack, read_stack, refuse_same_ports
from txcontain.services.keeper import Keeper
from txcontain.services.revision import Revision, make_revision, with_replicas
from txcontain.services.routes import find_named, full_name, is_routed
from txcontain.services.steps import OfInstance
from txcontain.services.wish import (
    UPDATING,
    Wish,
    Wished,
    changed_services,
    roll_back_one,
    wish_for,
)

MOST_STACKS = 200
MOST_VERSIONS = 5  # of a config, in an error


@frozen
class Plan:
    """What is wished next of a stack, and what will be done for that."""

    before: Wished | None
    wished: Wished
    changes: list[str]  # to services, a sentence each
    steps: list[OfInstance]


async def plan(keeper: Keeper, values: dict[str, Any]) -> Plan:
    """What ``up`` would do with a stack. Nothing is changed.

    Raises InvalidData, NoSuchConfig, ConfigAtFault, TooMany, InUse, MachineAtFault.
    """
    stack = read_stack(values)
    _check_one_host(stack)
    before = keeper.wished.get(stack.name)
    if before is None and len(keeper.wished) >= MOST_STACKS:
        raise TooMany(f"there are {MOST_STACKS} stacks already", "take one down")
    if before and before.down:
        raise InUse(f"the stack {stack.name} is being taken down", "try again when it is gone")
    revisions = {name: _revision(keeper, name, asked) for name, asked in stack.asked.items()}
    refuse_same_ports({name: revision.ports for name, revision in revisions.items()})
    wished = wish_for(before, stack, revisions, keeper.sight.now().time)
    await _check_free(keeper, before, wished)
    return _planned(keeper, before, wished)


async def up(keeper: Keeper, values: dict[str, Any]) -> Plan:
    """Have a stack be as a document says.

    Raises what ``plan`` raises; MachineAtFault if it can't be kept.
    """
    planned = await plan(keeper, values)
    return await _go_on(keeper, planned)


async def down(keeper: Keeper, name: str) -> Plan:
    """Remove all instances of a stack, then the stack; volumes stay.

    Raises NoSuchStack, MachineAtFault.
    """
    before = find_stack(keeper, name)
    planned = _planned(keeper, before, evolve(before, down=True))
    return await _go_on(keeper, evolve(planned, changes=[f"drop {one}" for one in before.services]))


async def scale(keeper: Keeper, service: str, replicas: int) -> Plan:
    """Have another number of instances of a service.

    Raises NoSuchService, Ambiguous, InvalidData, WrongState, MachineAtFault.
    """
    wished, wish = find_service(keeper, service)
    if wish.revision.service.is_job:
        raise WrongState(f"{wish.name} has no replicas: it is to end by itself")
    return await _change(keeper, wished, wish, with_replicas(wish.name, wish.revision, replicas))


async def update(keeper: Keeper, service: str, major: str, minor: str) -> Plan:
    """Have the instances of a service be of another version of its config.

    Raises NoSuchService, Ambiguous, NoSuchConfig, InvalidData, ConfigAtFault, MachineAtFault.
    """
    wished, wish = find_service(keeper, service)
    name = wish.revision.service.config[0]
    config = f"{name}-{major}-{minor}"
    try:
        document = keeper.manager.read_config(f"{config}.cfg")
    except NoSuchConfig as error:
        raise NoSuchConfig(error.chain[0], _versions(keeper, name)) from None
    asked = {**wish.revision.asked, "config": config}
    return await _change(keeper, wished, wish, make_revision(wish.name, asked, document))


async def rollback(keeper: Keeper, service: str) -> Plan:
    """Go back to the last good revision of a service that is another one than now.

    Raises NoSuchService, Ambiguous; WrongState if there is none; MachineAtFault.
    """
    wished, wish = find_service(keeper, service)
    if wish.revision.service.is_job:
        hint = "what it has done stays done; update it to the version that is to run"
        raise WrongState(f"{wish.name} can't be rolled back: it is to end by itself", hint)
    if wish.before is None:
        why = f"no other revision of {wish.name} has been good since its first one"
        raise WrongState(f"{wish.name} can't be rolled back", why)
    return await _change(keeper, wished, wish, roll_back_one(wish, UPDATING, "").revision)


async def _change(keeper: Keeper, wished: Wished, wish: Wish, revision: Revision) -> Plan:
    """Wish for another revision of one service."""
    if wished.down:
        raise WrongState(f"the stack {wished.name} is being taken down")
    if revision == wish.revision and wish.state not in ("failed", "paused"):
        return Plan(wished, wished, [], [])
    new = evolve(wish, revision=revision, state=UPDATING, why="")
    after = wished.having(new)
    refuse_same_ports({name: one.revision.ports for name, one in after.services.items()})
    await _check_free(keeper, wished, after)
    return await _go_on(keeper, _planned(keeper, wished, after))


def _planned(keeper: Keeper, before: Wished | None, wished: Wished) -> Plan:
    seen, now = keeper.sight.see(wished.name), keeper.sight.now()
    steps = [step for step in foresee(wished, seen, now) if isinstance(step, OfInstance)]
    return Plan(before, wished, list(changed_services(before, wished)), steps)


async def _go_on(keeper: Keeper, planned: Plan) -> Plan:
    def alter(before: Wished | None) -> Wished:
        if before is not planned.before and before != planned.before:
            raise InUse(
                f"the stack {planned.wished.name} was changed meanwhile",
                "look at what has changed, and try again",
            )
        return planned.wished

    await keeper.change(planned.wished.name, alter)
    return planned


def _versions(keeper: Keeper, name: str) -> str:
    """Which versions of a config there are, the newest first."""
    versions = [
        f"{major} {minor}"
        for found, major, minor in keeper.manager.configs.versions()
        if found == name
    ]
    if not versions:
        return "upload it first"
    newest = ", ".join(versions[: -MOST_VERSIONS - 1 : -1])
    return f"upload it first, or take one of the newest versions that there are: {newest}"


def _revision(keeper: Keeper, name: str, asked: dict[str, Any]) -> Revision:
    try:
        config = keeper.manager.read_config(f"{asked['config']}.cfg")
    except NoSuchConfig as error:
        raise NoSuchConfig(f"services.{name}.config: {error.chain[0]}", *error.chain[1:]) from None
    return make_revision(name, asked, config)


# -- what is taken ---------------------------------------------------------------------


async def _check_free(keeper: Keeper, before: Wished | None, wished: Wished) -> None:
    """Check that no other stack and no other program has what this one wants, and the host can.

    Raises ConfigAtFault, MachineAtFault.
    """
    _check_beside_others(keeper, wished)
    held = set(_ports(before.services.values())) if before else set()
    for wish in wished.services.values():
        new = tuple(port for port in wish.revision.ports if port not in held)
        wanted, manager = evolve(wish.revision.spec, ports=new), keeper.manager
        if is_routed(wish):
            _check_host(keeper, wish.name, new)
        if new:
            await check_ports(wanted, manager.instances, manager.kernel, manager.threads)


def _check_host(keeper: Keeper, name: str, ports: Sequence[Port]) -> None:
    try:
        keeper.manager.network.check_host(ports)
    except MachineAtFault as error:
        raise MachineAtFault(f"services.{name}: {error.chain[0]}", *error.chain[1:]) from None


def _check_one_host(stack: Stack) -> None:
    """Raise ConfigAtFault if a service is to choose among hosts."""
    for name, service in stack.services.items():
        for key in ("placement", "spread"):
            if getattr(service, key):
                raise ConfigAtFault(
                    f"services.{name}.{key}: this manager has one host",
                    "leave it out, or have a swarm: see docs/many-hosts.md",
                )


def _ports(wishes: Iterable[Wish]) -> list[Port]:
    return [port for wish in wishes for port in wish.revision.ports]


def _check_beside_others(keeper: Keeper, wished: Wished) -> None:
    full_names: dict[str, str] = {}
    ports: dict[tuple[str, int], list[tuple[Port, str]]] = {}
    for other in keeper.wished.values():
        for wish in other.services.values() if other.name != wished.name else ():
            full = full_name(other.name, wish.name)
            full_names[full] = other.name
            for port in wish.revision.ports:
                ports.setdefault((port.protocol, port.number), []).append((port, full))
    for name, wish in wished.services.items():
        path = f"services.{name}"
        if other_stack := full_names.get(full_name(wished.name, name)):
            raise ConfigAtFault(
                f"{path}: a service of the stack {other_stack} has the same full name",
                "give one of them another name",
            )
        for port in wish.revision.ports:
            for held, full in ports.get((port.protocol, port.number), ()):
                if port.clashes_with(held):
                    raise ConfigAtFault(f"{path}.ports: the service {full} publishes port {port}")


# -- finding and telling -----------------------------------------------------------------


def find_stack(keeper: Keeper, name: str) -> Wished:
    """A stack. Raises NoSuchStack."""
    try:
        return keeper.wished[name]
    except KeyError:
        raise NoSuchStack(f"there is no stack {name}", *meant(name, keeper.wished)) from None


def find_service(keeper: Keeper, name: str) -> tuple[Wished, Wish]:
    """A service, by its full name STACK-SERVICE, or by its own if only one stack has it.

    Raises NoSuchService, Ambiguous.
    """
    return find_named(
        name,
        [
            (wished.name, wish.name, (wished, wish))
            for wished in keeper.wished.values()
            for wish in wished.services.values()
        ],
    )


def told(keeper: Keeper, wished: Wished) -> list[dict[str, Any]]:
    """How the services of a stack stand."""
    seen = keeper.sight.see(wished.name)
    return [_told(wished, wish, seen) for wish in wished.services.values()]


def _fault(replicas: list[Replica]) -> str:
    """What is wrong with the first instance that is not as it should be."""
    faulty = [one for one in replicas if one.fault and not (one.leaving or one.succeeded)]
    return f"{faulty[0].name} {faulty[0].fault}" if faulty else ""


def _told(wished: Wished, wish: Wish, seen: Seen) -> dict[str, Any]:
    service, trouble = wish.revision.service, seen.troubles.get(wish.name)
    replicas = [one for one in seen.replicas if one.service == wish.name]
    current = [one for one in replicas if one.revision == wish.key]
    schedule = service.schedule
    return {
        "service": full_name(wished.name, wish.name),
        "stack": wished.name,
        "config": wish.revision.config,
        "state": "going down" if wished.down else wish.state,
        "why": wish.why or (trouble.why if trouble else _fault(current)),
        "replicas": None if service.is_job else service.replicas,
        "running": sum(one.state == UP for one in replicas),
        "serving": sum(one.serves for one in replicas),
        "current": len(current),
        "completed": any(one.state == OVER and one.succeeded for one in current),
        "ports": [str(port.mapping) for port in wish.revision.ports],
        "after": service.after,
        "schedule": schedule.text if schedule else None,
        "next": schedule.next(wish.considered) if schedule else None,
        "before": wish.before.config if wish.before else None,
        "instances": [one.name for one in sorted(replicas, key=lambda one: one.number)],
    }
