"""Removing file trees, whatever containers have made of them."""

from __future__ import annotations

import os
import shutil
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.internet.utils import getProcessOutputAndValue


async def complaint_of(
    reactor: Any, program: str, arguments: list[str], stdin: bytes | None = None
) -> str:
    """Run a program of the host's; returns what it complained of, and nothing if it has worked."""
    ran = getProcessOutputAndValue(
        program, arguments, env={"LC_ALL": "C"}, reactor=reactor, stdinBytes=stdin
    )
    # If it was killed, what fails is no exception: a tuple, with a signal for the status.
    ran.addErrback(lambda failure: (*failure.value[:2], -failure.value[2]))
    _, complaint, status = await ran
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return (complaint.decode(errors="replace").strip() or how) if status else ""


@define
class Trees:
    """Works on file trees off the reactor's thread."""

    reactor: Any

    def in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Run a function in the reactor's thread pool."""
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)

    async def remove(self, path: str) -> None:
        """Remove a tree; nothing where there is none.

        Raises OSError where something of it is left.
        """
        if await self.in_thread(_remove_ordinary, path):
            return
        # A tree deeper than Python can follow, or with more to it: rm(1) copes with any.
        arguments = ["-rf", "--one-file-system", "--", path]
        if complaint := await complaint_of(self.reactor, "/bin/rm", arguments):
            raise OSError(complaint)


def _remove_ordinary(path: str) -> bool:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return not os.path.lexists(path)
    except (OSError, RecursionError):
        return False
    return True
