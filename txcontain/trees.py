"""Removing file trees, whatever containers have made of them."""

from __future__ import annotations

import os
import shutil
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.internet.utils import getProcessOutputAndValue


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
        _, complaint, status = await getProcessOutputAndValue(
            "/bin/rm", ["-rf", "--one-file-system", "--", path], reactor=self.reactor
        )
        if status:
            raise OSError(complaint.decode(errors="replace").strip() or f"rm: status {status}")


def _remove_ordinary(path: str) -> bool:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return not os.path.lexists(path)
    except (OSError, RecursionError):
        return False
    return True
