"""Removes file trees, whatever containers have put into them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from txcontain.host.programs import complaint_of, run

MEASURED_WITHIN = 10  # seconds
# In the work folder of a volatile overlay (Documentation/filesystems/overlayfs.rst).
VOLATILE = "work/incompat/volatile"


@define
class Trees:
    """Works on file trees off the reactor's thread."""

    reactor: Any

    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Run a function in the reactor's thread pool."""
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)

    async def remove(self, path: str) -> None:
        """Remove a tree, if there is one.

        Raises OSError if something of it is left.
        """
        if await self.in_thread(_remove_ordinary, path):
            return
        # It may be deeper than Python can follow: rm(1) copes with any tree.
        arguments = ["-rf", "--one-file-system", "--", path]
        if complaint := await complaint_of(self.reactor, "/bin/rm", arguments):
            raise OSError(complaint)

    async def measure(self, paths: Sequence[str]) -> str:
        """What du(1) says of these trees: a line for each, BYTES, a tab, PATH.

        What du has not told within MEASURED_WITHIN is missing. (Nothing in a tree can lead it out,
        and it copes with any tree.)
        """
        command = ["-s", "-x", "--block-size=1", "--", *paths]
        said, _, _ = await run(self.reactor, "/usr/bin/du", command, None, MEASURED_WITHIN)
        return os.fsdecode(said)


def remove_but(folder: str, kept: str, is_over: Callable[[], bool]) -> bool:
    """Remove a folder as far as that is easy; ``kept`` in it only if it is not in use any more.

    Returns whether all of it is gone; else ``remove`` does the rest. It takes its time: not for the
    reactor's thread.
    """
    with contextlib.suppress(OSError, RecursionError):
        for entry in list(os.scandir(folder)):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
            elif entry.name != kept and not _remove_unused(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)
        if is_over():
            shutil.rmtree(os.path.join(folder, kept), ignore_errors=True)
            os.rmdir(folder)
            return True
    return False


def _remove_unused(path: str) -> bool:
    """Remove an overlay's folder that holds nothing of its container; returns whether that worked.

    It is the most frequent case, and much faster than to look first. No container has ever seen a
    work folder: so no link in it leads elsewhere.
    """
    with contextlib.suppress(OSError):
        if path.endswith("-work"):
            with contextlib.suppress(FileNotFoundError):  # it was not a volatile one
                os.unlink(f"{path}/{VOLATILE}/dirty")
                for inside in (VOLATILE, os.path.dirname(VOLATILE)):
                    os.rmdir(f"{path}/{inside}")
            os.rmdir(f"{path}/work")
        os.rmdir(path)
        return True
    return False


def _remove_ordinary(path: str) -> bool:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return not os.path.lexists(path)
    except (OSError, RecursionError):
        return False
    return True
