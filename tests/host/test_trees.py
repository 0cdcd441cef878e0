"""Removing file trees."""

import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from txcontain.host import trees
from txcontain.host.programs import complaint_of
from txcontain.host.trees import Trees, remove_but


class RemoveTests(TestCase):
    """What a removal does."""

    async def test_inside(self) -> None:
        """What can be removed of a folder is, and all of it once the last one is not in use."""
        path = os.path.abspath(self.mktemp())
        for name in (
            "log",
            "base-upper",
            "base-work/work/incompat/volatile",
            "0-upper/folder",
            "0-work/work",
            "1-work/work/#1",
        ):
            os.makedirs(os.path.join(path, name))
        for name in ("0-upper/file", "base-work/work/incompat/volatile/dirty"):
            with open(os.path.join(path, name), "w"):
                pass
        self.assertFalse(remove_but(path, "log", lambda: False))
        self.assertEqual(os.listdir(path), ["log"])
        self.assertTrue(remove_but(path, "log", lambda: True))
        self.assertFalse(os.path.lexists(path))
        self.assertFalse(remove_but(path, "log", lambda: True))

    async def test_rm_is_killed(self) -> None:
        """If rm is killed, that is an OSError."""
        self.patch(trees, "_remove_ordinary", lambda path: False)
        path = os.path.abspath(self.mktemp())
        os.makedirs(path)

        async def killed(*arguments: Any) -> Any:
            return await complaint_of(reactor, "/bin/sh", ["-c", f"kill -{signal.SIGKILL} $$"])

        self.patch(trees, "complaint_of", killed)
        removed = Deferred.fromCoroutine(Trees(reactor).remove(path))
        await self.assertFailure(removed, OSError)
