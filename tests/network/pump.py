"""A reactor that a test turns by hand, over real sockets of this process."""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure


class Pump(Clock):
    """Its time is the test's. What is ready is read and written as often as ``turn`` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[Any, None] = {}
        self.writers: dict[Any, None] = {}

    def addReader(self, reader: Any) -> None:
        self.readers[reader] = None

    def removeReader(self, reader: Any) -> None:
        self.readers.pop(reader, None)

    def addWriter(self, writer: Any) -> None:
        self.writers[writer] = None

    def removeWriter(self, writer: Any) -> None:
        self.writers.pop(writer, None)

    def turn(self, times: int = 20) -> None:
        """Turn so often."""
        for _ in range(times):
            ready = select.select([*self.readers], [*self.writers], [], 0)
            for reader in ready[0]:
                if reader in self.readers:
                    self._after(reader, reader.doRead(), is_read=True)
            for writer in ready[1]:
                if writer in self.writers:
                    self._after(writer, writer.doWrite(), is_read=False)

    def _after(self, one: Any, why: Any, *, is_read: bool) -> None:
        """As ``posixbase`` does when a descriptor says that its connection is lost."""
        if why is None:
            return
        self.removeReader(one)
        is_half = is_read and why is CONNECTION_DONE and IHalfCloseableDescriptor.providedBy(one)
        if is_half:
            one.readConnectionLost(Failure(why))
        else:
            self.removeWriter(one)
            one.connectionLost(Failure(why))
