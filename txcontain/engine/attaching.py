"""Who is attached to the terminal of an instance's PID 1.

What is typed goes to the terminal. What comes from there is read from the log, as by all who follow
that: so several can be attached, and one who does not read holds nobody up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from txcontain.container.exec_plan import Size
from txcontain.engine.inspection import log_reader
from txcontain.engine.manager import Manager
from txcontain.errors import MachineAtFault, WrongState
from txcontain.host.os_errors import of_os
from txcontain.later import pause
from txcontain.logs.reader import Reader
from txcontain.logs.segments import EVERYTHING
from txcontain.runtime.exits import Exit
from txcontain.runtime.instance import Instance
from txcontain.runtime.terminal import Keyboard

MOST_ATTACHED = 20  # at the same time, to one instance
NOT_SHOWN = 125  # the status, as of any failure that is not the container's


@implementer(IPushProducer)
@define(eq=False)
class Attached:
    """One of them: a Stdio.

    Raises WrongState if the instance has no terminal.
    """

    manager: Manager
    instance: Instance
    lost: Callable[[Attached], object] = lambda attached: None  # told that it is over
    heard: Callable[[int, bytes], None] | None = None  # told the stream (1) and what came
    ended: Deferred[Exit] = field(factory=Deferred)  # fires when the instance has ended for good
    paused: bool = True
    _size: Size | None = None
    _typist: Any = None  # the push producer of what is typed
    _token: str = ""  # of the start whose terminal the keyboard belongs to
    _keyboard: Keyboard | None = None
    _reader: Reader = field(init=False)

    def __attrs_post_init__(self) -> None:
        if not self.instance.spec.tty:
            raise without_terminal(self.instance.name)
        screen = _Screen(self)
        self._reader = log_reader(self.manager, [self.instance], EVERYTHING, screen)

    @property
    def reactor(self) -> Any:
        """The manager's."""
        return self.manager.reactor

    async def show(self, lines: int | None) -> None:
        """Show the last ``lines`` of what there is (None: all), and what follows."""
        await pause(self.reactor, 0)  # until the connection is handed over: then someone hears it
        try:
            await self._reader.send(lines, True)
        except OSError as error:
            self.end("")
            self._fail(error)
            return
        if self.instance.exit is not None and not self._reader.gone:
            self.ended.callback(self.instance.exit)
        self.end("")

    def _fail(self, error: OSError) -> None:
        """Nothing can be shown: say so, rather than have someone type at a dead screen."""
        what = f"the log of {self.instance.name}, from which its terminal is shown, can't be read"
        hint = "it runs on: see what is wrong with the state folder's disk, and attach again"
        why = str(MachineAtFault(what, of_os(error), hint))
        if self.heard is not None:
            self.heard(2, f"\r\n{why}\r\n".encode())
        if not self.ended.called:
            self.ended.callback(Exit(NOT_SHOWN, reason=why, at=self.manager.kernel.now()))

    # -- what is typed -----------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Something was typed. It is lost if there is no terminal, as between two starts."""
        if keyboard := self._find_keyboard():
            keyboard.write(data)

    def register_input(self, producer: Any) -> None:
        """Have a push producer pause while the terminal takes nothing."""
        self._typist = producer
        self._find_keyboard()

    def resize(self, size: Size) -> None:
        """The terminal has this size now, and after each start."""
        self._size = size
        if keyboard := self._find_keyboard():
            keyboard.resize(size)

    def close_input(self) -> None:
        """A terminal has no end: there, Ctrl-D is input like any other."""

    def _find_keyboard(self) -> Keyboard | None:
        """The keyboard of the terminal that PID 1 has now, if it has one."""
        processes = self.instance.processes
        if processes is not None and processes.token != self._token:
            self._close_keyboard()
            master = self.manager.pool.log_process.terminal_of(processes.token)
            if master >= 0:
                self._token, self._keyboard = processes.token, Keyboard(self.reactor, master)
                self._set_up(self._keyboard)
        return self._keyboard

    def _set_up(self, keyboard: Keyboard) -> None:
        if self._typist is not None:
            keyboard.registerProducer(self._typist, True)
        if self._size is not None:
            keyboard.resize(self._size)

    def _close_keyboard(self) -> None:
        if self._keyboard is not None:
            self._keyboard.close()
            self._keyboard = None

    # -- what it shows -----------------------------------------------------------

    def look(self, data: bytes) -> None:
        """The terminal has shown this; it may be a new one, which needs a keyboard."""
        self._find_keyboard()
        if self.heard is not None:
            self.heard(1, data)

    def pauseProducing(self) -> None:
        """Show no more for now."""
        self.paused = True
        self._reader.pauseProducing()

    def resumeProducing(self) -> None:
        """Show more."""
        self.paused = False
        self._reader.resumeProducing()

    def stopProducing(self) -> None:
        """No one looks any more."""
        self.end("")

    def end(self, because: str) -> None:
        """Be attached no longer; the instance goes on."""
        self.lost(self)
        self._close_keyboard()
        if not self._reader.gone:
            self._reader.stopProducing()


@implementer(IConsumer)
@define(eq=False)
class _Screen:
    """Gets what the log has."""

    attached: Attached

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The log is about to come."""
        if self.attached.paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """That was all."""

    def write(self, data: bytes) -> None:
        """Some of it."""
        self.attached.look(data)


def without_terminal(name: str) -> WrongState:
    """The error if someone would be attached to an instance that has no terminal."""
    hint = 'its config needs "tty": true; its output is in its log'
    return WrongState(f"{name} has no terminal", hint)
