"""Whether a manager can do its work now."""

from __future__ import annotations

from attrs import define

from txcontain.engine.manager import Manager

DISK_WITHIN = 2.0  # seconds


@define(eq=False)
class Readiness:
    """Looks at what a manager needs, without waiting for it."""

    manager: Manager
    _asked: float | None = None  # when the disk was asked for something that it has not done yet

    def reasons(self) -> list[str]:
        """Why it can't do its work, a sentence each; none if it can."""
        found = {
            "some records of instances can't be read yet": bool(self.manager.unread),
            "the log process is not connected": not self.manager.pool.log_process.is_connected,
            "the disk of the state folder does not respond": self._disk_is_stuck(),
        }
        return [reason for reason, applies in found.items() if applies]

    def _disk_is_stuck(self) -> bool:
        """Whether a write has been waiting for too long; at most one is asked for."""
        now = self.manager.reactor.seconds()
        if self._asked is None:
            self._asked = now
            self.manager.pool.written().addBoth(self._answered)
        return self._asked is not None and now - self._asked > DISK_WITHIN

    def _answered(self, _: object) -> None:
        self._asked = None
