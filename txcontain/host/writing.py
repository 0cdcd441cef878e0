"""One thread for all writes to the state folder: in order, and off the reactor.

A disk may be slow, or frozen (fsfreeze(8)): then only the writes wait.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

STOP_WITHIN = 5.0  # seconds
Writes = Callable[..., Deferred[Any]]  # runs a function in that thread; fires with its result
log = Logger()


class Daemon(Thread):
    """A thread that the process does not wait for: a frozen disk must not keep it alive."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(daemon=True, **arguments)


class OneThread(ThreadPool):
    """A pool of one thread."""

    threadFactory: Any = Daemon

    def __init__(self) -> None:
        super().__init__(minthreads=1, maxthreads=1, name="writing")


@define(eq=False)
class Writer:
    """The thread, started by the first write."""

    reactor: Any
    _thread: OneThread = field(factory=OneThread)

    def write(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Run a function after all earlier writes."""
        if not self._thread.started:
            self._thread.start()
        return deferToThreadPool(self.reactor, self._thread, function, *arguments)

    async def stop(self) -> None:
        """Wait a few seconds until everything is written."""
        written = self.write(int)
        written.addTimeout(STOP_WITHIN, self.reactor)
        try:
            await written
        except TimeoutError:
            log.warn("the state folder's disk does not respond: some records may be lost")
        else:
            self._thread.stop()
