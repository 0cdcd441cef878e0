"""Stores configs: the documents exactly as they were uploaded."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable

from attrs import frozen

from txcontain.container.spec import NAME, VERSION
from txcontain.errors import ConfigExists, NoSuchConfig
from txcontain.host.files import (
    DISK,
    Disk,
    NoFile,
    create,
    flush_folder,
    read_file,
    remove_leftovers,
)

LONGEST = 16 << 20  # bytes read of a config; uploads are shorter
SUFFIX = ".cfg"
# Only a name can have a dash in it.
FILE_NAME = re.compile(f"({NAME.pattern})-({VERSION.pattern})-({VERSION.pattern}){SUFFIX}")

Key = tuple[str, str, str]  # a config's name, major and minor
Order = tuple[tuple[int, int, str], ...]


@frozen
class Configs:
    """The uploaded documents, each in a file NAME-MAJOR-MINOR.cfg."""

    folder: str
    disk: Disk = DISK

    def add(self, file_name: str, document: bytes) -> None:
        """Store a document.

        Raises ConfigExists if there is one of that name; OSError if it can't be written.
        """
        try:
            create(os.path.join(self.folder, file_name), document, self.disk)
        except FileExistsError:
            hint = "change its minor version, and upload it again"
            raise ConfigExists(f"{file_name} exists already", hint) from None

    def remove(self, file_name: str) -> None:
        """Remove a document; when this returns, it is gone after a power cut too.

        Raises NoSuchConfig; OSError if it can't be removed.
        """
        try:
            self.disk.unlink(self._path(file_name))
        except FileNotFoundError:
            raise NoSuchConfig(
                f"there is no config {file_name}", "`txcontain configs` shows those there are"
            ) from None
        flush_folder(self.folder, self.disk)

    def recover(self) -> list[str]:
        """Remove the temporary files of interrupted uploads; returns their names."""
        return remove_leftovers(self.folder)

    def names(self) -> list[str]:
        """All file names, sorted; only regular files count."""
        with os.scandir(self.folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(SUFFIX) and entry.name[0] != "." and entry.is_file()
            )

    def versions(self) -> list[Key]:
        """All configs, by name, and the versions of each as numbers: 1.9 comes before 1.10."""
        return in_order(self.names())

    def newest(self, name: str, major: str | None = None) -> Key:
        """The newest config of this name, or of this name and major.

        Raises NoSuchConfig; OSError.
        """
        return newest(self.versions(), name, major)

    def read(self, file_name: str) -> bytes:
        """A document.

        Raises NoSuchConfig; OSError if it exists but can't be read.
        """
        with contextlib.suppress(FileNotFoundError, NoFile):
            return read_file(self._path(file_name), LONGEST)
        raise no_such_config(file_name)

    def _path(self, file_name: str) -> str:
        """Where a document is; raises NoSuchConfig if this can't be the name of one."""
        if not FILE_NAME.fullmatch(file_name):
            raise no_such_config(file_name)
        return os.path.join(self.folder, file_name)


def no_such_config(file_name: str) -> NoSuchConfig:
    """The error if a config is not there."""
    return NoSuchConfig(f"there is no config {file_name}", "upload it first")


def in_order(file_names: Iterable[str]) -> list[Key]:
    """Configs by name, and the versions of each as numbers: 1.9 comes before 1.10."""
    found = (FILE_NAME.fullmatch(name) for name in file_names)
    keys = [(match[1], match[2], match[3]) for match in found if match]
    return sorted(keys, key=lambda key: (key[0], *map(order_of, key[1:])))


def newest(ordered: Iterable[Key], name: str, major: str | None = None) -> Key:
    """The last of this name, or of this name and major. Raises NoSuchConfig."""
    fit = [key for key in ordered if key[0] == name and major in (None, key[1])]
    if not fit:
        which = name if major is None else f"{name} with the major version {major}"
        raise NoSuchConfig(f"there is no config {which}", "upload it first")
    return fit[-1]


def order_of(version: str) -> tuple[Order, str]:
    """What to compare a version by, as rpm does it (rpm-version(7)).

    Numbers are compared as numbers and letters as text; a number is newer than letters, and what
    goes on is newer than what ends. Versions that are equal by that, as 1 and 01, come as text.
    """
    parts = re.findall("[0-9]+|[A-Za-z]+", version)
    order = tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)
    return order, version
