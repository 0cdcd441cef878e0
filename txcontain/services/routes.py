"""Where a service's name and ports lead to: to those of its instances that serve."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

from attrs import frozen

from txcontain.container.spec import Port
from txcontain.engine.names import meant
from txcontain.errors import Ambiguous, NoSuchService
from txcontain.services.decide import Seen
from txcontain.services.wish import Wish, Wished

T = TypeVar("T")


@frozen
class Route:
    """What leads to a service, and where."""

    service: str
    names: tuple[str, ...]
    ports: tuple[Port, ...]
    replicas: tuple[str, ...]  # the instances that get new connections
    per_connection: bool = False  # whether each gets an instance of its own


def routes_of(wished: Wished, seen: Seen) -> dict[str, Route]:
    """The routes of a stack, by the services' full names. Pure."""
    if wished.down:
        return {}
    serving: dict[str, list[str]] = {}
    for one in seen.replicas:
        if one.serves and not one.leaving:
            serving.setdefault(one.service, []).append(one.name)
    return {
        full_name(wished.name, name): _route(wished.name, wish, serving.get(name, []))
        for name, wish in wished.services.items()
        if is_routed(wish)
    }


def is_routed(wish: Wish) -> bool:
    """Whether a name leads to a service."""
    spec = wish.revision.spec
    return not wish.revision.service.is_job and (spec.network == "private" or spec.per_connection)


def full_name(stack: str, service: str) -> str:
    """What a service is called among those of all stacks."""
    return f"{stack}-{service}"


def find_named(name: str, known: Sequence[tuple[str, str, T]]) -> T:
    """The service of this full name STACK-SERVICE, or of its own if only one stack has that.

    :param known: of each its stack, its own name, and what is returned
    Raises NoSuchService, Ambiguous.
    """
    called = [(own, full_name(stack, own), one) for stack, own, one in known]
    found = [(full, one) for own, full, one in called if name in (own, full)]
    if not found:
        names = chain.from_iterable((own, full) for own, full, _ in called)
        raise NoSuchService(f"there is no service {name}", *meant(name, names))
    if len(found) > 1:
        every = ", ".join(full for full, _ in found)
        raise Ambiguous(f"{len(found)} services are called {name}", f"name one of them: {every}")
    return found[0][1]


def _route(stack: str, wish: Wish, replicas: list[str]) -> Route:
    names = wish.name, f"{wish.name}.{stack}"
    return Route(
        wish.name,
        names,
        wish.revision.ports,
        tuple(sorted(replicas)),
        wish.revision.spec.per_connection,
    )
