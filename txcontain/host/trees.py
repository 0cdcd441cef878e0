"""Removes file trees, whatever containers have put into them."""

from __future__ import annotations

import os
import shutil
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from txcontain.host.programs import complaint_of


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
