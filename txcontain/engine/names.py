"""From what a person typed to the names of the instances that it stands for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from itertools import chain, islice

from attrs import field, frozen

from txcontain.errors import Ambiguous, InstanceExists, NoSuchInstance

OF_CONFIG, OF_SERVICE = "config:", "service:"  # begin what stands for all instances of one
MOST_COMPARED = 500  # names, to find the one that was meant
MOST_NAMED = 5  # in an error


@frozen
class Known:
    """What an instance is found by, beside its name."""

    config: tuple[str, str, str]  # its name, major and minor
    labels: Mapping[str, str] = field(factory=dict)


def match_all(wanted: str, known: Mapping[str, Known]) -> list[str]:
    """The names of the instances that ``wanted`` stands for; one, except for a config or service.

    ``wanted`` is an instance's name, a beginning that no other has, ``config:`` and a config's
    NAME, NAME-MAJOR or NAME-MAJOR-MINOR, or ``service:`` and a service's NAME or STACK-NAME.

    Raises NoSuchInstance, Ambiguous.
    """
    if wanted in known:
        return [wanted]
    kind, bare = _kind_of(wanted)
    if kind:
        found = [name for name, one in known.items() if bare in FORMS[kind](one)]
    else:
        found = [name for name in known if wanted and name.startswith(wanted)]
        if len(found) > 1:
            raise Ambiguous(f"{len(found)} instances begin with {wanted}", _choose(found))
    if not found:
        names = chain((one.config[0] for one in known.values()), known)
        hint = meant(bare, names) or ["`txcontain ps -a` shows those there are"]
        raise NoSuchInstance(f"there is no instance {wanted}", *hint)
    return found


def match(wanted: str, known: Mapping[str, Known]) -> str:
    """The name of the one instance that ``wanted`` stands for.

    Raises NoSuchInstance; Ambiguous if there are several.
    """
    found = match_all(wanted, known)
    if len(found) > 1:
        raise Ambiguous(f"{wanted} stands for {len(found)} instances", _choose(found))
    return found[0]


def _kind_of(wanted: str) -> tuple[str, str]:
    kind = next(filter(wanted.startswith, FORMS), "")
    return kind, wanted.removeprefix(kind)


def _configs(one: Known) -> set[str]:
    return {"-".join(one.config[:parts]) for parts in (1, 2, 3)}


def _services(one: Known) -> set[str]:
    stack, service = one.labels.get("stack"), one.labels.get("service")
    return {service, f"{stack}-{service}"} if stack and service else set()


FORMS = {OF_CONFIG: _configs, OF_SERVICE: _services}


def taken(holder: Mapping[str, str], state: str) -> InstanceExists:
    """The error if an instance has a name already.

    :param holder: what its launch answered
    """
    error = InstanceExists(
        f"there is an instance {holder['instance']} already",
        f"it is of {'{name}-{major}-{minor}.cfg'.format(**holder)}, and {state}",
        "destroy it, or choose another name",
    )
    error.details["holder"] = {**holder, "state": state}
    return error


def _choose(names: Collection[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"name one of them: {', '.join(islice(names, MOST_NAMED))}{more}"


def meant(wanted: str, names: Iterable[str]) -> list[str]:
    """A question with the most similar name, if any is similar."""
    similar = get_close_matches(wanted, islice(dict.fromkeys(names), MOST_COMPARED), n=1)
    return [f"did you mean {name}?" for name in similar]
