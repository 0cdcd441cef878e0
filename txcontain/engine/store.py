"""Stores configs: the documents exactly as they were uploaded."""

from __future__ import annotations

import contextlib
import os

from attrs import frozen

from txcontain.errors import ConfigExists, NoSuchConfig
from txcontain.host.files import DISK, Disk, NoFile, create, read_file, remove_leftovers

LONGEST = 16 << 20  # bytes read of a config; uploads are shorter


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

    def recover(self) -> list[str]:
        """Remove the temporary files of interrupted uploads; returns their names."""
        return remove_leftovers(self.folder)

    def names(self) -> list[str]:
        """All file names, sorted; only regular files count."""
        with os.scandir(self.folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(".cfg") and entry.name[0] != "." and entry.is_file()
            )

    def read(self, file_name: str) -> bytes:
        """A document.

        Raises NoSuchConfig; OSError if it exists but can't be read.
        """
        with contextlib.suppress(FileNotFoundError, NoFile):
            return read_file(os.path.join(self.folder, file_name), LONGEST)
        raise NoSuchConfig(f"there is no config {file_name}", "upload it first")
