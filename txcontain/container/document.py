"""Reads a JSON document from a stranger, strictly."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

from txcontain.errors import InvalidData, TooLarge

LONGEST_DOCUMENT = 1 << 20  # bytes


def read_object(document: bytes) -> dict[str, Any]:
    """The JSON object in ``document``, read strictly (RFC 8259, and no key twice).

    Raises InvalidData; TooLarge if it is longer than a mebibyte.
    """
    if len(document) > LONGEST_DOCUMENT:
        raise TooLarge(f"the document is longer than {LONGEST_DOCUMENT} bytes")
    try:
        text = document.decode("utf-8-sig")  # Windows editors write a byte order mark first
        values = json.loads(text, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidData(f"the document is not UTF-8: byte {error.start} can't be read") from None
    except RecursionError:
        raise InvalidData("the document is nested too deep") from None
    except ValueError as error:
        raise InvalidData(f"the document is not JSON: {error}") from None
    if not isinstance(values, dict):
        refuse("the document is not a JSON object")
    return values


def shown(value: object) -> str:
    """``value`` as a message shows it: printable, and not too long."""
    if isinstance(value, (list, dict)):  # which may be nested as deep as the stack allows
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def refuse(*chain: str) -> NoReturn:
    """Raise InvalidData: the sentences lead from what was read to what is wrong with it."""
    raise InvalidData(*chain)


def refuse_unknown(what: str, values: Iterable[str], known: Collection[str]) -> None:
    """Raise InvalidData if there is a key that is not known.

    :param what: has the keys, as in "a config" or "services.web"
    """
    unknown = sorted({*values} - {*known})
    if unknown:
        told = "the keys are " + ", ".join(known) if known else "it takes none"
        refuse(f"{what} has no key {shown(unknown[0])}", told)


def refuse_missing(values: Collection[str], *wanted: str) -> None:
    """Raise InvalidData if one of these keys is missing."""
    for key in wanted:
        if key not in values:
            refuse(f"the key {key!r} is missing")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:  # each is looked up once: there may be very many
        if key in values:
            refuse(f"the key {shown(key)} is there twice")
        values[key] = value
    return values


def _no_constant(name: str) -> NoReturn:
    refuse(f"{name} is not JSON")
