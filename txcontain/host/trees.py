"""Removes file trees, whatever containers have put into them."""

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
    """Run a program of the host; returns its complaint, and nothing if it has worked."""
    ran = getProcessOutputAndValue(
        program, arguments, env={"LC_ALL": "C"}, reactor=reactor, stdinBytes=stdin
    )
    # If the program was killed, the failure holds no exception but a tuple with the signal.
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
        """Remove a tree, if there is one.

        Raises OSError if something of it is left.
        """
        if await self.in_thread(_remove_ordinary, path):
            return
        # It may be deeper than Python can follow: rm(1) copes with any tree.
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
