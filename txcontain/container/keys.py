"""The keys of a config: what each takes, as a check and as a JSON schema.

A key is told once, as an annotation: ``init: Annotated[bool, boolean("what it is")] = False``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from attrs import frozen

from txcontain.container.document import refuse, shown

LONGEST_PATH, LONGEST_NAME = 1024, 255  # bytes
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
FILE_NAME = re.compile(r"[^./\s-][^/]{0,254}")
_WHO = r"([0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?)"
OWNER = re.compile(f"{_WHO}(?::{_WHO})?")
LARGEST_ID = (1 << 32) - 2  # of a user or group: to the kernel, the next one means none
SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_COMMAND = 32_000  # characters: as UTF-8, execve(2) takes that as a single string
MOST_ARGUMENTS = 1000  # of a command
KERNELS_OWN = ("proc", "sys", "dev")  # top folders in which a config can put nothing


@frozen
class Key:
    """What a key of a config takes. To call it is to check a value, which raises InvalidData."""

    description: str
    schema: dict[str, Any]  # the same as a JSON schema, as far as that can say it
    check: Callable[[str, object], Any]  # takes the key's name and value, returns what Spec keeps

    def __call__(self, name: str, value: object) -> Any:
        """What ``Spec`` keeps of a value."""
        return self.check(name, value)


def keys_of(kind: type) -> dict[str, Key]:
    """The keys that a class has as annotations, by the names of their fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: get_args(hint)[1] for name, hint in hints.items() if get_origin(hint) is Annotated
    }


def schema_of(keys: Mapping[str, Key]) -> dict[str, Any]:
    """The JSON schema of an object's properties."""
    return {name: {**key.schema, "description": key.description} for name, key in keys.items()}


def object_schema(keys: Mapping[str, Key], **more: Any) -> dict[str, Any]:
    """The JSON schema of an object that has no other keys than these."""
    return {"type": "object", "properties": schema_of(keys), "additionalProperties": False, **more}


def boolean(description: str) -> Key:
    """A key that takes true or false."""

    def check(key: str, value: object) -> bool:
        if not isinstance(value, bool):
            refuse(f"{key} must be true or false, not {shown(value)}")
        return value

    return Key(description, {"type": "boolean"}, check)


def one_of(description: str, *choices: str) -> Key:
    """A key that takes one of these strings."""

    def check(key: str, value: object) -> str:
        if value not in choices or not isinstance(value, str):
            refuse(f"{key} must be one of {', '.join(choices)}, not {shown(value)}")
        return value

    return Key(description, {"type": "string", "enum": list(choices)}, check)


def number(description: str, least: float, most: float, kind: type = int) -> Key:
    """A key that takes a number: a whole one, or with ``float`` any."""
    kinds = {int, kind}

    def check(key: str, value: object) -> Any:
        given: Any = value
        if type(given) not in kinds or not least <= given <= most:
            refuse(f"{key} must be a number from {least} to {most}, not {shown(value)}")
        return value

    name = "number" if kind is float else "integer"
    return Key(description, {"type": name, "minimum": least, "maximum": most}, check)


def size(description: str, least: int) -> Key:
    """A key that takes a number of bytes."""

    def check(key: str, value: object) -> int:
        match = SIZE.fullmatch(str(value)) if type(value) in (int, str) else None
        number = int(match[1]) << 10 * " KMGT".index(match[2] or " ") if match else -1
        if not least <= number < 1 << 62:
            refuse(f"{key} must be {least} bytes or more, such as '10M', not {shown(value)}")
        return number

    schema = {**string_schema(SIZE), "type": ["integer", "string"], "minimum": least}
    return Key(f"{description}; bytes, or a string such as 10M", schema, check)


def matching(description: str, pattern: re.Pattern[str], what: str) -> Key:
    """A key that takes a string that matches; ``what`` says it to a person."""

    def check(key: str, value: object) -> str:
        text = printable(key, value)
        if not pattern.fullmatch(text):
            refuse(f"{key} must be {what}, not {shown(text)}")
        return text

    return Key(description, string_schema(pattern), check)


def strings(
    description: str,
    most: int,
    check: Callable[[str, list[object]], Any],
    pattern: re.Pattern[str] | None = None,
) -> Key:
    """A key that takes a list of strings; ``check`` is called with the list, and looks at each."""

    def check_list(key: str, value: object) -> Any:
        if not isinstance(value, list) or len(value) > most:
            refuse(f"{key} must be a list of up to {most} strings, not {shown(value)}")
        return check(key, value)

    items = string_schema(pattern) if pattern else {"type": "string"}
    return Key(description, {"type": "array", "items": items, "maxItems": most}, check_list)


def texts(description: str, most: int) -> Key:
    """The same, if any strings will do that can be printed."""
    return strings(description, most, lambda key, given: [printable(key, text) for text in given])


def words(description: str) -> Key:
    """A key that takes a command: a program and its arguments."""
    items = {"type": "string"}
    bounds = {"minItems": 1, "maxItems": MOST_ARGUMENTS}
    return Key(description, {"type": "array", "items": items, **bounds}, _command)


def _command(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_ARGUMENTS:
        refuse(
            f'{key} must be a list such as ["redis-server", "--port", "7000"] of up to '
            f"{MOST_ARGUMENTS} strings, not {shown(value)}"
        )
    command = tuple(_argument(key, word) for word in value)
    if not command[0].strip():
        refuse(f"{key} begins with an empty string: the first one names a program")
    if sum(map(len, command)) > LONGEST_COMMAND:
        refuse(f"{key} is longer than {LONGEST_COMMAND} characters")
    return command


def _argument(key: str, word: object) -> str:
    """Any text that execve(2) takes, even with tabs and line ends."""
    if not isinstance(word, str):
        refuse(f"a word of {key} must be a string, not {shown(word)}")
    if "\0" in word or SURROGATE.search(word):
        refuse(f"a word of {key} has a NUL or a lone surrogate: {shown(word)}")
    return word


def string_schema(pattern: re.Pattern[str]) -> dict[str, Any]:
    """The schema of a string that matches a pattern."""
    return {"type": "string", "pattern": f"^(?:{pattern.pattern})$"}


def printable(key: str, value: object) -> str:
    """Check that a value is a string that can be printed."""
    if not isinstance(value, str):
        refuse(f"{key} must be a string, not {shown(value)}")
    if not value.isprintable():  # so no NUL, line ends or lone surrogates
        refuse(f"{key} holds a character that can't be printed: {shown(value)}")
    return value


def absolute_path(key: str, value: object) -> str:
    """Check that a value is an absolute path; returns it without needless slashes and dots."""
    text = printable(key, value)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts:
        refuse(f"{key} must be an absolute path without '..', not {shown(text)}")
    if len(text.encode()) > LONGEST_PATH or any(len(p.encode()) > LONGEST_NAME for p in parts):
        refuse(f"{key} has more than {LONGEST_PATH} bytes, or a part with more than {LONGEST_NAME}")
    return "/" + "/".join(parts)


def is_kernels_own(path: str) -> bool:
    """Whether an absolute path is in one of the kernel's own file systems."""
    return path.split("/")[1] in KERNELS_OWN


def owner(key: str, value: object) -> str:
    """Check that a value names a user of an image, and maybe a group."""
    text = printable(key, value)
    match = OWNER.fullmatch(text)
    numbers = [int(part) for part in match.groups() if part and part.isdecimal()] if match else []
    if not match or any(number > LARGEST_ID for number in numbers):
        refuse(
            f"{key} must be USER or USER:GROUP, each a name or a number up to {LARGEST_ID}, "
            f"not {shown(text)}"
        )
    return text


def file_name(key: str, value: object) -> str:
    """Check that a value is the plain name of a file."""
    text = printable(key, value)
    if not FILE_NAME.fullmatch(text) or len(text.encode()) > LONGEST_NAME:
        refuse(f"{key} must be the plain name of a file, not {shown(text)}")
    return text
