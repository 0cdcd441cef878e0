"""One thread for what is written to the state's disk: in order, and beside the reactor.

A disk may take its time, or be frozen (fsfreeze(8)): then all that is written waits, and nothing
else does.
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
    """A thread that keeps no process from ending: what a frozen disk holds up is given up."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(daemon=True, **arguments)


class OneThread(ThreadPool):
    """A single thread, which does one thing after the other."""

    threadFactory: Any = Daemon

    def __init__(self) -> None:
        super().__init__(minthreads=1, maxthreads=1, name="writing")


@define(eq=False)
class Writer:
    """The thread, which begins with the first thing to write."""

    reactor: Any
    _thread: OneThread = field(factory=OneThread)

    def write(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Run a function when all is done that was begun before it."""
        if not self._thread.started:
            self._thread.start()
        return deferToThreadPool(self.reactor, self._thread, function, *arguments)

    async def stop(self) -> None:
        """Wait until all is written, if not for long."""
        written = self.write(int)
        written.addTimeout(STOP_WITHIN, self.reactor)
        try:
            await written
        except TimeoutError:
            log.warn("the disk of the state folder takes no more: some records may be lost")
        else:
            self._thread.stop()
