"""What is asked of an instance's processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from txcontain.engine import inspection
from txcontain.errors import InvalidData


class BesideTests(SynchronousTestCase):
    """What holds an instance and another process."""

    def test_a_process_that_may_not_be_seen(self) -> None:
        """One that is there, but that the kernel shows to nobody, is not said to be gone."""

        @asynccontextmanager
        async def turn() -> AsyncIterator[None]:
            yield

        async def held(*_: Any) -> dict[str, Any]:
            return {}

        def isolation(pid: int) -> None:
            raise errors.pop(0)

        errors: list[Any] = [PermissionError(13, "no"), ProcessLookupError(3, "no")]
        self.patch(inspection, "held", held)
        self.patch(inspection, "isolation", isolation)
        instance: Any = None
        manager: Any = SimpleNamespace(surveys=SimpleNamespace(turn=turn), threads=maybeDeferred)
        for said in ("this manager may not look at process '1'", "there is no process '1'"):
            asked = ensureDeferred(inspection.held_beside(manager, instance, "1"))
            self.assertIn(said, str(self.failureResultOf(asked, InvalidData).value))
