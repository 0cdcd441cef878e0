"""Files and folders that are there only when they are whole, and beside their place until then."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape, glob
from secrets import token_hex

from txcontain.cli.errors import CliError


@contextmanager
def part_of(path: str, *, is_folder: bool = False) -> Iterator[str]:
    """Have an empty file or folder beside a path, to be renamed to that; else it is removed.

    Its command holds a lock on it. So one without was left by a command that was killed: such are
    removed first.

    :raises CliError: if it can't be made
    """
    for left in glob(f"{escape(path)}.{8 * '[0-9a-f]'}.part"):
        with suppress(OSError), locked(left):
            remove(left)
    part = f"{path}.{token_hex(4)}.part"
    try:
        if is_folder:
            os.mkdir(part)
        else:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise CliError(f"Can't write {path}: {error.strerror}.") from error
    try:
        with locked(part):
            yield part
    finally:
        remove(part)


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock on a file or folder.

    :raises OSError: if another process holds it
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
