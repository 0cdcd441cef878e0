"""The manager's end of a terminal that a program in a container has."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from txcontain.container.exec_plan import Size


class Keyboard(FileDescriptor):
    """Writes to the master of a terminal (pty(7)), which it has from now on."""

    def __init__(self, reactor: Any, master: int) -> None:
        super().__init__(reactor)
        self._master = master
        fdesc.setNonBlocking(master)
        self.connected = 1

    def fileno(self) -> int:
        """For the reactor."""
        return self._master

    def writeSomeData(self, data: bytes) -> int | Exception:
        """Something was typed. Returns how many bytes the kernel took."""
        written: int | Exception = fdesc.writeToFD(self._master, data)
        return written

    def resize(self, size: Size) -> None:
        """Give it a size, which its foreground processes are told (SIGWINCH, ioctl_tty(2))."""
        if self.is_open:
            wanted = struct.pack("HHHH", size.rows, size.columns, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, wanted)

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._master >= 0

    def close(self) -> None:
        """Close it at once."""
        if self.is_open:
            self.connectionLost(Failure(CONNECTION_DONE))

    def connectionLost(self, reason: Failure) -> None:
        """No one in the container has it open any more, or we close it."""
        super().connectionLost(reason)
        os.close(self._master)
        self._master = -1


class Terminal(Keyboard):
    """Reads it, too. If it is closed, who has it in the container gets SIGHUP."""

    def __init__(
        self,
        reactor: Any,
        master: int,
        heard: Callable[[bytes], None],
        closed: Callable[[], None],
    ) -> None:
        super().__init__(reactor, master)
        self._heard, self._closed = heard, closed
        self.startReading()

    def doRead(self) -> Any:
        """Something was written in the container; EIO if no one there has it open any more."""
        return fdesc.readFromFD(self._master, self._heard)

    def connectionLost(self, reason: Failure) -> None:
        """There is nothing to read from it any more."""
        super().connectionLost(reason)
        self._closed()
