"""Hearing from the reactor that a process has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
@define(eq=False)
class Watch:
    """Tells once that a process has ended: from then on its pidfd is readable (pidfd_open(2))."""

    reactor: Any
    pidfd: int
    ended: Callable[[], None]

    def start(self) -> None:
        """Begin to watch."""
        self.reactor.addReader(self)

    def stop(self) -> None:
        """Watch no longer: the pidfd may be closed."""
        self.reactor.removeReader(self)

    def fileno(self) -> int:
        """For the reactor."""
        return self.pidfd

    def doRead(self) -> None:
        """The process has ended."""
        self.stop()
        self.ended()

    def connectionLost(self, reason: Failure) -> None:
        """For the reactor."""

    def logPrefix(self) -> str:
        """For the reactor."""
        return "watch"
