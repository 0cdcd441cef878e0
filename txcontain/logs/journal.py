"""The journal: every change with its reason, numbered, kept on disk within a bound.

Each event is a line of JSON. When the file is full, it replaces the old file, and a new one
begins: so at least half of the bound can always be replayed. A moment after an event has happened
it is written, then sent to listeners, then put in the manager's log. So no launch waits for it, and
nobody hears of an event that the next manager doesn't know.

A client asks for what comes after the last number it has heard. So no number may be used twice,
even if the files were damaged, or the disk was full and an event was sent but not written. So a
manager begins with the time of its start in milliseconds, or after the highest number on disk if
that is higher. No manager has a thousand events a second, so this needs no other file.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txcontain.errors import logged
from txcontain.host.files import open_file, to_json
from txcontain.later import Timer

LARGEST = 4 << 20  # bytes of each of the two files
LARGEST_NUMBER = 10**15  # of an event: exact in JSON; queries take up to 15 digits
MOST_WAITING = 10_000  # events that wait while the disk takes none
WRITE_AFTER = 0.01  # seconds: by then, the caller has the answer
# So we neither write to a link nor wait for the reader of a pipe.
APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
Event = dict[str, Any]
Listener = Callable[[Event], None]

# Who asked for what is being done. A coroutine keeps it through all its awaits, because a Deferred
# made from it copies the context; so the manager's verbs need not pass it on. What the reactor
# begins by itself, such as a restart, has none.
asked_by: ContextVar[str | None] = ContextVar("asked_by", default=None)


@define(eq=False)
class Journal:
    """The events of one state folder."""

    reactor: Any
    path: str
    now: Callable[[], float] = time.time  # of the day
    writes: Callable[..., Deferred[Any]] = maybeDeferred  # runs a function that may wait
    last: int = 0  # the number of the last event
    _new: list[Event] = field(factory=list)  # not given to the disk yet
    _waiting: int = 0  # events given to the disk, and not written yet
    _lost: int = 0  # events dropped because too many were waiting
    _writing: Timer = field(init=False)
    _size: int = 0
    _torn: bool = False  # whether the last line was cut short and needs a newline first
    _listeners: list[Listener] = field(factory=list)
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self._writing = Timer(self.reactor, self.write)

    def open(self) -> None:
        """Find the next number that was never used; log a warning if the files can't be read."""
        self.last = int(self.now() * 1000)
        try:
            self._open()
        except OSError as error:
            self._log.warn("the journal can't be read: {error}", error=error)

    def _open(self) -> None:
        for event in self.since(0):
            self.last = max(self.last, event["seq"])
        with contextlib.suppress(FileNotFoundError), open_file(self.path) as file:
            self._size = file.seek(0, os.SEEK_END)
            file.seek(max(0, self._size - 1))
            self._torn = file.read(1) not in (b"", b"\n")

    def add(self, what: str, reason: str, instance: str | None = None, **details: Any) -> Event:
        """Record an event, and who asked for it."""
        self.last += 1
        if by := asked_by.get():
            details["by"] = by
        event = {
            "seq": self.last,
            "time": self.now(),
            "instance": instance,
            "what": what,
            "reason": reason,
            **details,
        }
        if self._waiting >= MOST_WAITING:
            self._lost += 1
            return event
        self._waiting += 1
        self._new.append(event)
        if not self._writing.is_set:
            self._writing.after(WRITE_AFTER)
        return event

    def write(self) -> Deferred[None]:
        """Write the new events, send them to listeners, and log them; fires when that is done."""
        self._writing.cancel()
        new, self._new = self._new, []
        written = maybeDeferred(self.writes, self._write, [to_json(event) for event in new])
        written.addErrback(self._not_written)  # such as for want of a thread
        written.addCallback(lambda _: self._written(new))
        return written

    def _not_written(self, failure: Failure) -> None:
        self._log.failure("events can't be written", failure)

    def _written(self, events: list[Event]) -> None:
        self._tell(events)
        self._waiting -= len(events)
        if self._lost and not self._waiting:
            lost, self._lost = self._lost, 0
            self.add("lost", f"{lost} events came while the disk took none")

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            for listener in list(self._listeners):
                try:
                    listener(event)
                except Exception:
                    self._log.failure("telling a listener what happened")
            self._log.info("{line}", line=line_of(event))

    def _write(self, lines: list[bytes]) -> None:
        for line in lines:
            with contextlib.suppress(OSError):  # a full disk does not stop the containers
                self._append(line)

    def _append(self, line: bytes) -> None:
        if self._size + len(line) > LARGEST:
            os.replace(self.path, f"{self.path}.old")
            self._size, self._torn = 0, False
        descriptor = os.open(self.path, APPENDING, 0o600)
        line = b"\n" * self._torn + line
        try:
            written = os.write(descriptor, line)
        finally:
            os.close(descriptor)
        self._size += written
        self._torn = written < len(line)

    def since(self, number: int) -> Iterator[Event]:
        """The events after that number that are on disk."""
        for path in (f"{self.path}.old", self.path):
            with contextlib.suppress(FileNotFoundError), open_file(path) as file:
                for line in file:
                    event = _parse(line)
                    if event is not None and event["seq"] > number:
                        yield event

    def number_before(self, count: int) -> int:
        """The number after which there are only the last ``count`` events on disk; 0: all."""
        lines: deque[bytes] = deque(maxlen=count + 1)
        for path in (f"{self.path}.old", self.path):
            with contextlib.suppress(FileNotFoundError), open_file(path) as file:
                lines.extend(file)
        first = next(filter(None, map(_parse, lines)), None) if len(lines) > count else None
        return first["seq"] if first else 0

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each event from now on; returns a function that ends this."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


def line_of(event: Event) -> str:
    """An event as a line of the log, as "web-1 running: it listens on port 80, by root"."""
    known = {"seq", "time", "instance", "what", "reason"}
    more = "".join(f", {key} {value}" for key, value in event.items() if key not in known)
    about = f"{event['instance']} " if event["instance"] else ""
    return logged(f"{about}{event['what']}: {event['reason']}{more}")


def _parse(line: bytes) -> Event | None:
    """The event of a line; None if the line is damaged."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    number = event.get("seq") if isinstance(event, dict) else None
    return event if type(number) is int and 0 < number < LARGEST_NUMBER else None
