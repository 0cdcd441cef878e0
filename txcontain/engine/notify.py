"""Tells people what should not have happened: by a webhook, by a program, or by both.

For each of the two there is a queue, so that neither waits for the other, and nothing else waits
for them. A queue is bounded, and so is how often and how long is tried to deliver what is in it.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txcontain.engine.couriers import Courier
from txcontain.engine.manager import Manager
from txcontain.errors import logged
from txcontain.host.files import to_json
from txcontain.host.machine import disk_of
from txcontain.later import Timer, background, pause
from txcontain.logs.journal import Event
from txcontain.runtime.instance import Instance

MOST_WAITING = 100  # in a queue
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 6, 1.0, 60.0  # seconds; doubled each time
DELIVER_WITHIN = 10.0  # seconds
LOOK_AT_DISK = 60.0  # seconds
NEARLY_FULL, AGAIN_FREE = 0.1, 0.12  # of the disk that is free: the second ends the first
FAILURES = ("failure", "signal", "unknown")  # kinds of ends, as Exit.kind has them
# Events of the journal that are told, and as what.
TOLD = {"unhealthy": "unhealthy", "rolled back": "rolled_back"}

log = Logger()


@define(eq=False)
class Outbox:
    """What is to be delivered by one courier, in order."""

    reactor: Any
    courier: Courier
    _waiting: deque[dict[str, Any]] = field(factory=deque)
    _lost: int = 0  # since the last one that was taken
    _busy: bool = False
    _stopped: bool = False
    _now: Deferred[None] | None = None  # what is being waited for

    def put(self, notification: dict[str, Any]) -> None:
        """Deliver this after all that waits; if too much waits, the oldest is lost."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(notification)
        if not self._busy:
            self._busy = True
            background(self._deliver_all(), f"notifying by {self.courier.name}")

    def stop(self) -> None:
        """Deliver nothing more."""
        self._stopped = True
        self._waiting.clear()
        if self._now is not None:
            self._now.cancel()

    async def _deliver_all(self) -> None:
        try:
            while self._waiting:
                notification = self._waiting.popleft()
                document = to_json({**notification, "lost": self._lost})
                if await self._deliver(document):
                    self._lost = 0
                else:
                    self._lost += 1
        finally:
            self._busy = False

    async def _deliver(self, document: bytes) -> bool:
        """Try it a few times; returns whether it was taken."""
        wait = FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                self._now = self.courier.deliver(document)
                self._now.addTimeout(DELIVER_WITHIN, self.reactor)
                await self._now
                return True
            except Exception as error:
                if self._stopped:
                    return False
                why = logged(str(error) or type(error).__name__)
                then = f"trying again in {wait:.0f} s" if left else "it is given up"
                log.warn(
                    "{name} does not take a notification: {why}; {then}",
                    name=self.courier.name,
                    why=why,
                    then=then,
                )
            if left:
                self._now = pause(self.reactor, wait)
                try:
                    await self._now
                except Exception:  # cancelled: the manager ends
                    return False
                wait = min(2 * wait, LONGEST_PAUSE)
        return False


@define(eq=False)
class Notifier:
    """Notices what is to be told."""

    manager: Manager
    outboxes: Sequence[Outbox]
    free: Callable[[str], float]  # which part of a folder's disk is free
    _is_full: bool = False  # whether that was told
    _end: Callable[[], None] = lambda: None
    _disk: Timer = field(
        default=Factory(lambda self: Timer(self.manager.reactor, self._look), takes_self=True)
    )

    def start(self) -> None:
        """Notice from now on."""
        self.manager.on_end = self._ended
        self._end = self.manager.journal.listen(self._happened)
        self._disk.after(0)

    def stop(self) -> None:
        """Notice nothing more."""
        self._end()
        self._disk.cancel()
        for outbox in self.outboxes:
            outbox.stop()

    def tell(self, kind: str, reason: str, instance: Instance | None = None) -> None:
        """Put a notification into each outbox."""
        host = socket.gethostname()
        about: dict[str, Any] = {"instance": None}
        if instance is not None:
            about = {**instance.summary, "labels": instance.labels, "restarts": instance.restarts}
        name = f"{about['instance']} " if instance else ""
        notification = {
            "kind": kind,
            "time": self.manager.kernel.now(),
            "host": host,
            "text": f"{host}: {name}{kind.replace('_', ' ')}: {reason}",
            "reason": reason,
            **about,
        }
        for outbox in self.outboxes:
            outbox.put(notification)

    def _ended(self, instance: Instance, kind: str) -> None:
        if kind == "out_of_memory" or kind in FAILURES:
            assert instance.exit is not None
            told = kind if kind == "out_of_memory" else "failure"
            self.tell(told, instance.exit.reason, instance)

    def _happened(self, event: Event) -> None:
        if kind := TOLD.get(event["what"]):
            self.tell(kind, event["reason"], self.manager.instances.get(event["instance"]))

    def _look(self) -> None:
        background(self._look_at_disk(), "looking how full the disk is")

    async def _look_at_disk(self) -> None:
        try:
            free = await self.manager.threads(self.free, self.manager.state)
        finally:
            self._disk.after(LOOK_AT_DISK)
        if free < NEARLY_FULL and not self._is_full:
            self.tell(
                "disk_nearly_full", f"{free:.1%} of the disk with {self.manager.state} are free"
            )
        self._is_full = free < (AGAIN_FREE if self._is_full else NEARLY_FULL)


def free_part(folder: str) -> float:
    """Which part of the disk is free, for root, where a folder is. Raises OSError."""
    free, size = disk_of(folder)
    return free / max(size, 1)
