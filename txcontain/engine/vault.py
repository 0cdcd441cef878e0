"""Where secrets are kept: a file each, which only root can read."""

from __future__ import annotations

import os

from attrs import frozen

from txcontain.container.small_files import SECRET_NAME
from txcontain.container.spec import Spec
from txcontain.errors import ConfigAtFault, NoSuchSecret
from txcontain.host.files import DISK, Disk, flush_folder, remove_leftovers, write


@frozen
class Vault:
    """The secrets of one state folder. A name is checked by whoever gives it."""

    folder: str
    disk: Disk = DISK

    def put(self, name: str, content: bytes) -> None:
        """Keep a secret durably, in place of an earlier one. Raises OSError."""
        write(os.path.join(self.folder, name), content, self.disk)

    def names(self) -> list[str]:
        """The names of all secrets, sorted."""
        return sorted(filter(SECRET_NAME.fullmatch, os.listdir(self.folder)))

    def has(self, name: str) -> bool:
        """Whether there is a secret of this name."""
        return os.path.isfile(os.path.join(self.folder, name))

    def remove(self, name: str) -> None:
        """Remove a secret. Raises NoSuchSecret; OSError if it can't be removed."""
        try:
            self.disk.unlink(os.path.join(self.folder, name))
        except FileNotFoundError:
            raise no_such_secret(name) from None
        flush_folder(self.folder, self.disk)

    def recover(self) -> list[str]:
        """Remove the temporary files of interrupted writes; returns their names."""
        return remove_leftovers(self.folder)


def no_such_secret(name: str) -> NoSuchSecret:
    """The error if a secret is not there."""
    return NoSuchSecret(f"there is no secret {name}", "`txcontain secrets` shows those there are")


def check_small_files(spec: Spec, vault: Vault, mountables: str) -> None:
    """Raise ConfigAtFault if a secret or another file that a config names is not there.

    :param mountables: the folder of the other files
    """
    for secret in spec.secrets:
        if not vault.has(secret.name):
            raise ConfigAtFault(
                f"there is no secret {secret.name}",
                f"set it: `txcontain secrets set {secret.name}`",
            )
    for name in (file.source for file in spec.files if file.source):
        if not os.path.isfile(os.path.join(mountables, name)):
            folder = os.path.basename(mountables)
            hint = "put it there, or correct the config"
            raise ConfigAtFault(f"there is no file {name} in {folder}/", hint)
