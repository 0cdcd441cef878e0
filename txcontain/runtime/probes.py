"""Asks containers by TCP and HTTP whether they work, without a process for it.

All that is sent back is the container's, and may be an attack. So an answer has a time and a size:
what decides is its first line, which has to be there within LONGEST_ANSWER bytes. What follows is
read up to LONGEST_REST bytes, so that a well-behaved server can finish, and not kept.

There may be a thousand checks a second. So the answers to what was asked at one moment are looked
for together, a little later. Those connections that have none by then are in an epoll(7) of their
own, which is one descriptor to the reactor, and have one timer together.
"""

from __future__ import annotations

import errno
import re
import select
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txcontain.host.kernel import Kernel
from txcontain.later import Timer

LONGEST_ANSWER, LONGEST_REST = 4096, 1 << 16  # bytes
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?:[ \r][^\n]*)?\n")
BEGINNING = b"HTTP/1."
LOOK_AFTER = 0.02  # seconds at least between two looks for answers that are late
MOST_AT_ONCE = 256  # connections that are served before the reactor's other work
READS_AT_ONCE = 2  # of one connection: the answer, and its end
READS, WRITES = select.EPOLLIN, select.EPOLLOUT
NEVER = float("inf")
CONNECTED = "it takes connections"
SILENT = "it closed the connection without an answer"
LATE = "no answer in time"

# Told whether the container works (None: it could not be asked), and what was said.
Told = Callable[["bool | None", str], None]
log = Logger()


def nothing() -> None:
    """End what has ended."""


def no_one(passed: bool | None, said: str) -> None:
    """Hear what was told already."""


@define(eq=False)
class Probe:
    """A question to a container, until its answer has been read."""

    probes: Probes
    connection: socket.socket
    request: bytes  # empty: it is enough to be connected
    expects: Callable[[int], bool]  # whether a status is a good answer
    deadline: float  # by the reactor's clock
    told: Told
    soon: float  # seconds until its answer is looked for
    answer: bytes = b""
    rest: int = LONGEST_REST  # bytes that may follow
    is_asked: bool = False
    waits_for: int = 0  # events of its connection

    @property
    def is_over(self) -> bool:
        """Whether nothing more is asked or heard."""
        return self.connection.fileno() < 0

    def go_on(self) -> None:
        """Do what can be done now, and wait for the rest."""
        try:
            self._ask_or_read()
        except OSError as error:
            passed, said = of_error(error)
            self.end(passed, self._bad_status() or said)

    def _ask_or_read(self) -> None:
        try:
            if self.is_asked:
                self._read()
            else:
                self._ask()
        except BlockingIOError:  # maybe the event was of an earlier connection of the same number
            self._wait_for(READS if self.is_asked else WRITES)

    def _wait_for(self, events: int) -> None:
        if self.waits_for != events:
            self.probes.watch(self, events)
            self.waits_for = events

    def _ask(self) -> None:
        self.connection.send(self.request)  # which fails if it is not connected, even for nothing
        self.is_asked = True
        if self.request:
            self.probes.look_soon(self)
        else:
            self.end(True, CONNECTED)

    def _read(self) -> None:
        for _ in range(READS_AT_ONCE):
            data = self.connection.recv(LONGEST_ANSWER)
            if self.told is no_one:
                self.rest -= len(data)
            else:
                self.answer += data
                self._judge(not data or len(self.answer) >= LONGEST_ANSWER)
            if not data or self.rest <= 0:
                self.close()
            if self.is_over:
                return
        self._wait_for(READS)

    def _judge(self, is_all: bool) -> None:
        """Tell what the answer means, as soon as that is sure; what is bad is read to its end."""
        line = STATUS_LINE.match(self.answer)
        if line and self.expects(int(line[1])):
            self._tell(True, _text(line[0].strip()))
        elif is_all or (line is None and not self._may_begin()):
            said = f"it answered with no HTTP/1: {_text(self.answer)}" if self.answer else SILENT
            self.end(False, self._bad_status() or said)

    def _may_begin(self) -> bool:
        """Whether this may be the beginning of a status line."""
        begun = self.answer[: len(BEGINNING)]
        return BEGINNING.startswith(begun) and b"\n" not in self.answer

    def _bad_status(self) -> str:
        """A status that is not expected, if one has come, and what has come of the body."""
        line = STATUS_LINE.match(self.answer)
        if line is None:
            return ""
        body = self.answer.partition(b"\r\n\r\n")[2]
        return _text(line[0].strip() + (b": " + body if body else b""))

    def be_late(self) -> None:
        """Its time is over. A bad status may have come without all that belongs to it."""
        self.end(False, self._bad_status() or LATE)

    def end(self, passed: bool | None, said: str) -> None:
        """Tell this, if nothing was told yet, and ask no more."""
        self.close()
        self._tell(passed, said)

    def _tell(self, passed: bool | None, said: str) -> None:
        told, self.told = self.told, no_one
        told(passed, said)

    def close(self) -> None:
        """Ask no more, and tell nothing."""
        if self.waits_for:
            self.probes.forget(self)
        self.connection.close()


def _text(answer: bytes) -> str:
    return answer[:LONGEST_ANSWER].decode(errors="backslashreplace")


def of_error(error: OSError) -> tuple[bool | None, str]:
    """What an error means. Only a connection refused or broken off is the container's fault."""
    its_fault = isinstance(error, (ConnectionError, TimeoutError))
    return (False if its_fault else None), (error.strerror or str(error)).lower()


@implementer(IReadDescriptor)
@define(eq=False)
class Probes:
    """The questions that are asked now."""

    reactor: Any
    kernel: Kernel
    _asked: list[Probe] = field(factory=list)  # those whose answers are to be looked for
    _look: Timer = field(init=False)
    _open: dict[int, Probe] = field(factory=dict)  # those that wait, by descriptor
    _epoll: Any = None  # as soon as one waits
    _due: float = NEVER  # when the first deadline is, at the earliest
    _late: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._look = Timer(self.reactor, self._look_for_answers)
        self._late = Timer(self.reactor, self._end_late_ones)

    def ask(
        self,
        port: int,
        network_of: int | str,
        request: bytes,
        expects: Callable[[int], bool],
        timeout: float,
        told: Told,
        soon: float = 0,
    ) -> Callable[[], None]:
        """Ask a port of a container once; ``told`` is called once, maybe before this returns.

        :param network_of: the pid of a process in its network namespace, or "self"
        :param timeout: seconds
        :param soon: seconds until its answer is looked for, with those of others
        Returns what ends it before that.
        """
        try:
            connection = self.kernel.connect(port, network_of)
        except OSError as error:
            told(*of_error(error))
            return nothing
        deadline = self.reactor.seconds() + timeout
        probe = Probe(self, connection, request, expects, deadline, told, soon)
        probe.go_on()
        return probe.close

    def look_soon(self, probe: Probe) -> None:
        """Look for its answer in a moment."""
        self._asked.append(probe)
        self._look.within(probe.soon)

    def _look_for_answers(self) -> None:
        asked, self._asked = self._asked, []
        for probe in asked:
            if not probe.is_over:
                self._try(probe.go_on)

    def watch(self, probe: Probe, events: int) -> None:
        """Have a probe go on after one of these events.

        Raises OSError: EMFILE if so many files are open that it can't wait for that; epoll_ctl(2).
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self.reactor.addReader(self)
        number = probe.connection.fileno()
        if self.kernel.is_scarce(number):
            raise OSError(errno.EMFILE, "the manager has too many files open")
        if number in self._open:
            self._epoll.modify(number, events)
        else:
            self._epoll.register(number, events)
            self._open[number] = probe
        self._look_at(probe.deadline)

    def forget(self, probe: Probe) -> None:
        """Its connection is about to be closed."""
        number = probe.connection.fileno()
        if self._open.get(number) is probe:
            del self._open[number]
            self._epoll.unregister(number)

    # -- for the reactor -------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor that can be read if something has happened."""
        number: int = self._epoll.fileno()
        return number

    def doRead(self) -> None:
        """Go on with those to which something has happened."""
        for number, _ in self._epoll.poll(0, MOST_AT_ONCE):
            if probe := self._open.get(number):
                self._try(probe.go_on)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""

    def logPrefix(self) -> str:
        """Name this in the log."""
        return "probes"

    # -- those that are late -----------------------------------------------------------

    def _look_at(self, deadline: float) -> None:
        if deadline < self._due:
            self._due = deadline
            self._late.after(max(deadline - self.reactor.seconds(), LOOK_AFTER))

    def _end_late_ones(self) -> None:
        now, self._due = self.reactor.seconds(), NEVER
        for probe in [one for one in self._open.values() if one.deadline <= now]:
            self._try(probe.be_late)
        if self._open:
            self._look_at(min(one.deadline for one in self._open.values()))

    def stop(self) -> None:
        """Ask nothing more: the manager ends."""
        for probe in [*self._asked, *self._open.values()]:
            probe.close()
        self._asked.clear()
        self._look.cancel()
        self._late.cancel()
        if self._epoll is not None:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll, self._due = None, NEVER

    def _try(self, function: Callable[[], None]) -> None:
        """Whatever comes of one must not keep the others from going on."""
        try:
            function()
        except Exception:
            log.failure("hearing the answer to a check")
