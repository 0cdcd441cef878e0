"""Keeps what is wished, a file for each stack: STATE/stacks/NAME.json."""

from __future__ import annotations

import json
import os
from secrets import token_hex

from attrs import frozen

from txcontain.errors import Error
from txcontain.host.files import (
    DISK,
    Disk,
    NoFile,
    flush_folder,
    read_file,
    remove_leftovers,
    to_json,
    write,
)
from txcontain.host.os_errors import of_os
from txcontain.services.wish import Wished, read_wished

SUFFIX = ".json"
LONGEST = 64 << 20  # bytes read of a file; an entry holds its config three times at most
DAMAGED = ValueError, KeyError, TypeError, AttributeError, RecursionError, NoFile, Error


@frozen
class Stacks:
    """The files. When a method returns, what it did survives a power cut."""

    folder: str
    aside: str  # the folder for what can't be read
    disk: Disk = DISK

    def keep(self, wished: Wished) -> None:
        """Keep what is wished of a stack. Raises OSError."""
        write(self._path(wished.name), to_json(wished.record), self.disk)

    def remove(self, name: str) -> None:
        """Keep nothing of a stack any more. Raises OSError."""
        try:
            self.disk.unlink(self._path(name))
        except FileNotFoundError:
            return
        flush_folder(self.folder, self.disk)

    def read_all(self) -> tuple[list[Wished], list[str]]:
        """All that is kept, and what was done about what is damaged, a sentence each.

        Raises OSError.
        """
        done = [f"removed {name}, a write cut short" for name in remove_leftovers(self.folder)]
        found = []
        for file_name in sorted(os.listdir(self.folder)):
            try:
                found.append(self._read(file_name))
            except DAMAGED as why:
                done.append(self._put_away(file_name, why))
        return found, done

    def _read(self, file_name: str) -> Wished:
        wished = read_wished(json.loads(read_file(os.path.join(self.folder, file_name), LONGEST)))
        if file_name != wished.name + SUFFIX:
            raise ValueError(f"it is of the stack {wished.name}")
        return wished

    def _put_away(self, name: str, why: Exception) -> str:
        path = os.path.join(self.folder, name)
        try:
            os.rename(path, os.path.join(self.aside, f"{name}-{token_hex(4)}"))
        except OSError as error:
            return f"could not set stacks/{name} aside: {of_os(error)}; {why}"
        return f"set stacks/{name} aside, which can't be used: {why}"

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name + SUFFIX)
