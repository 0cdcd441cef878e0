"""One thread for all writes to the state folder: in order, and off the reactor.

A disk may be slow, or frozen (fsfreeze(8)): then only the writes wait. A launch waits for this
thread, so it has a queue of its own, which costs less than Twisted's pool of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

STOP_WITHIN = 5.0  # seconds
Writes = Callable[..., Deferred[Any]]  # runs a function in that thread; fires with its result
Job = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]
log = Logger()


@define(eq=False)
class Writer:
    """The thread, started by the first write."""

    reactor: Any
    _jobs: SimpleQueue[Job | None] = field(factory=SimpleQueue)  # None: the last one was done
    _thread: Thread | None = None

    def write(self, function: Any, *arguments: Any) -> Deferred[Any]:
        """Run a function after all earlier writes."""
        if self._thread is None:
            # The process does not wait for a daemon: a frozen disk must not keep it alive.
            self._thread = Thread(target=self._work, name="writing", daemon=True)
            self._thread.start()
        written: Deferred[Any] = Deferred()
        self._jobs.put((written, function, arguments))
        return written

    def _work(self) -> None:
        while job := self._jobs.get():
            written, function, arguments = job
            result: Any
            try:
                result = function(*arguments)
            except Exception:
                result = Failure()
            with contextlib.suppress(OSError):  # it could not be woken: it looks in its next turn
                self.reactor.callFromThread(written.callback, result)

    async def stop(self) -> None:
        """Wait a few seconds until everything is written."""
        written = self.write(int)
        written.addTimeout(STOP_WITHIN, self.reactor)
        try:
            await written
        except TimeoutError:
            log.warn("the state folder's disk does not respond: some records may be lost")
        else:
            self._jobs.put(None)
            self._thread = None
