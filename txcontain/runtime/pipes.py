"""Named pipes between the manager and a program that runs in a jail.

What comes, and what goes, is held up as long as the other end does not take it: nothing is kept
here but what one read has brought.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer


class Pipe(FileDescriptor):
    """The manager's end of a named pipe, which it makes."""

    def __init__(self, reactor: Any, path: str, flags: int) -> None:
        super().__init__(reactor)
        os.mkfifo(path, 0o600)
        self._descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
        self.connected = 1

    def fileno(self) -> int:
        """For the reactor."""
        return self._descriptor

    def connectionLost(self, reason: Failure) -> None:
        """Close it, once."""
        super().connectionLost(reason)
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def close(self) -> None:
        """Close it now, whatever is on its way."""
        if self._descriptor >= 0:
            self.stopReading()
            self.stopWriting()
            self.connectionLost(Failure(ConnectionError()))


@implementer(IPushProducer)
class OutOf(Pipe):
    """What a program writes, for a consumer. Begin when the program has opened it."""

    def __init__(self, reactor: Any, path: str) -> None:
        super().__init__(reactor, path, os.O_RDONLY)
        self._ended: Deferred[bool] = Deferred()
        self._consumer: Any = None
        self._took: Callable[[int], None] = lambda length: None

    def deliver(self, consumer: Any, took: Callable[[int], None]) -> Deferred[bool]:
        """Hand on everything; fires when the program has closed its end, or no one wants the rest.

        It fires with whether that was everything.

        :param took: told how many bytes the consumer was given (it says when it has enough)
        """
        self._consumer, self._took = consumer, took
        consumer.registerProducer(self, True)
        self.startReading()
        return self._ended

    def doRead(self) -> Any:
        """Read what there is."""
        return fdesc.readFromFD(self._descriptor, self._hand_on)

    def _hand_on(self, data: bytes) -> None:
        self._took(len(data))
        self._consumer.write(data)

    def pauseProducing(self) -> None:
        """The consumer has enough for now."""
        self.stopReading()

    def resumeProducing(self) -> None:
        """The consumer takes more."""
        if self._descriptor >= 0:
            self.startReading()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.close()

    def connectionLost(self, reason: Failure) -> None:
        """The program has closed its end, or no one wants the rest."""
        super().connectionLost(reason)
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.unregisterProducer()
            self._ended.callback(bool(reason.check(ConnectionDone)))


class Into(Pipe):
    """What a program reads, as a consumer. (It may be open before the program opens it.)"""

    def __init__(self, reactor: Any, path: str) -> None:
        super().__init__(reactor, path, os.O_RDWR)

    def writeSomeData(self, data: bytes) -> Any:
        """For the reactor: write what fits."""
        return fdesc.writeToFD(self._descriptor, data)
