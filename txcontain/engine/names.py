"""From what a person typed to the names of the instances that it stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from itertools import chain, islice

from txcontain.errors import Ambiguous, NoSuchInstance

OF_CONFIG = "config:"  # begins what stands for all instances of a config
MOST_COMPARED = 500  # names, to find the one that was meant
MOST_NAMED = 5  # in an error
Config = tuple[str, str, str]  # its name, major and minor


def match_all(wanted: str, known: Mapping[str, Config]) -> list[str]:
    """The names of the instances that ``wanted`` stands for; one, except for ``config:NAME``.

    ``wanted`` is an instance's name, a beginning that no other has, or ``config:`` and a config's
    NAME, NAME-MAJOR or NAME-MAJOR-MINOR. ``known`` has each instance's name, with its config.

    Raises NoSuchInstance, Ambiguous.
    """
    if wanted in known:
        return [wanted]
    config = wanted.removeprefix(OF_CONFIG)
    if config != wanted:
        found = [name for name, key in known.items() if config in _forms(key)]
    else:
        found = [name for name in known if wanted and name.startswith(wanted)]
        if len(found) > 1:
            raise Ambiguous(f"{len(found)} instances begin with {wanted}", _choose(found))
    if not found:
        raise NoSuchInstance(f"there is no instance {wanted}", *_meant(config, known))
    return found


def match(wanted: str, known: Mapping[str, Config]) -> str:
    """The name of the one instance that ``wanted`` stands for.

    Raises NoSuchInstance; Ambiguous if there are several.
    """
    found = match_all(wanted, known)
    if len(found) > 1:
        raise Ambiguous(f"{wanted} stands for {len(found)} instances", _choose(found))
    return found[0]


def _forms(key: Config) -> set[str]:
    return {"-".join(key[:parts]) for parts in (1, 2, 3)}


def _choose(names: Collection[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"name one of them: {', '.join(islice(names, MOST_NAMED))}{more}"


def _meant(wanted: str, known: Mapping[str, Config]) -> list[str]:
    """A question with the most similar name, if any is similar."""
    names = dict.fromkeys(chain((key[0] for key in known.values()), known))
    similar = get_close_matches(wanted, islice(names, MOST_COMPARED), n=1)
    return [f"did you mean {name}?" for name in similar]
