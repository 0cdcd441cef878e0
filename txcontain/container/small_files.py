"""Keys for small files that are written at a launch: ``files`` and ``secrets``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from txcontain.container.document import refuse, refuse_unknown, shown
from txcontain.container.keys import (
    FILE_NAME,
    OWNER,
    SURROGATE,
    Key,
    absolute_path,
    file_name,
    is_kernels_own,
    object_schema,
    owner,
    printable,
    string_schema,
    strings,
)

MOST_FILES = 64
LONGEST_SECRET = 64 << 10  # bytes
LONGEST_CONTENT = 256 << 10  # bytes of all contents together
MODE = re.compile("0?[0-7]{3}")
SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
FORM = "a secret is 'NAME /absolute/path', 'NAME /absolute/path 0400' or the same with an owner"


@frozen
class SmallFile:
    """A file that a config brings along."""

    path: str
    content: str = ""
    source: str = ""  # a file in mountables/ whose content it gets; empty: ``content``
    mode: int = 0o644
    owner: str = "root"


@frozen
class Secret:
    """A secret of the manager's, as a file."""

    name: str
    path: str
    mode: int = 0o400
    owner: str | None = None  # None: the owner of the container's program


def paths_of(files: Sequence[SmallFile], secrets: Sequence[Secret]) -> list[str]:
    """Where they are to be. Raises InvalidData if two are at one place."""
    paths = [one.path for one in files] + [one.path for one in secrets]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            refuse(f"two files or secrets are at {shown(path)}: one would hide the other")
    return paths


def _files(key: str, value: object) -> tuple[SmallFile, ...]:
    if not isinstance(value, list) or len(value) > MOST_FILES:
        refuse(f"{key} must be a list of up to {MOST_FILES} objects, not {shown(value)}")
    files = tuple(_file(key, one) for one in value)
    if sum(len(one.content.encode()) for one in files) > LONGEST_CONTENT:
        refuse(f"{key} has contents of more than {LONGEST_CONTENT} bytes together")
    return files


def _file(key: str, value: object) -> SmallFile:
    if not isinstance(value, dict):
        refuse(f'{key} has objects such as {{"path": "/x", "content": ""}}, not {shown(value)}')
    refuse_unknown("a file", value, FILE_KEYS)
    if "path" not in value or len({"content", "from"} & set(value)) != 1:
        refuse(f"each of {key} has a path, and either content or from")
    checked = {name: FILE_KEYS[name](f"{name} in {key}", value[name]) for name in value}
    if "from" in checked:
        checked["source"] = checked.pop("from")
    return SmallFile(**checked)


def _path(key: str, value: object) -> str:
    path = absolute_path(key, value)
    if path == "/" or is_kernels_own(path):
        refuse(f"no file can be put at {shown(path)}: the container has its own there")
    return path


def _content(key: str, value: object) -> str:
    if not isinstance(value, str) or SURROGATE.search(value):
        refuse(f"{key} must be a text, not {shown(value)}")
    return value


def _mode(key: str, value: object) -> int:
    text = value if isinstance(value, str) else ""
    if not MODE.fullmatch(text):
        refuse(f"{key} must be a string of octal digits such as '0644', not {shown(value)}")
    return int(text, 8)


def _secret(key: str, value: object) -> Secret:
    words = printable(key, value).split()
    if not 2 <= len(words) <= 4 or not SECRET_NAME.fullmatch(words[0]):
        refuse(f"{FORM}, not {shown(value)}")
    more: dict[str, Any] = {}
    if len(words) > 2:
        more["mode"] = _mode(f"the mode in {key}", words[2])
    if len(words) > 3:
        more["owner"] = owner(f"the owner in {key}", words[3])
    return Secret(words[0], _path(f"the path in {key}", words[1]), **more)


FILE_KEYS = {
    "path": Key("where it is to be: an absolute path", {"type": "string"}, _path),
    "content": Key("what is in it", {"type": "string"}, _content),
    "from": Key("a file in mountables/, up to 64K", string_schema(FILE_NAME), file_name),
    "mode": Key("its permissions, in octal", string_schema(MODE), _mode),
    "owner": Key("USER or USER:GROUP: names in the image, or numbers", string_schema(OWNER), owner),
}
FILES = Key(
    "small files, written at the launch, read-only",
    {"type": "array", "maxItems": MOST_FILES, "items": object_schema(FILE_KEYS, required=["path"])},
    _files,
)
SECRETS = strings(
    "each NAME /absolute/path [MODE [OWNER]]: a secret as a file, read-only",
    MOST_FILES,
    lambda key, lines: tuple(_secret(key, line) for line in lines),
)
