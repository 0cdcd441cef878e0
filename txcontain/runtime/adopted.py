"""A container that an earlier manager started."""

from __future__ import annotations

from attrs import define
from twisted.logger import Logger

from txcontain.later import Timer
from txcontain.runtime.supervised import UNKNOWN, Supervised
from txcontain.runtime.watch import Watch

FOLLOW_AGAIN = 5.0  # seconds
log = Logger()


@define(eq=False)
class Adopted(Supervised):
    """The monitor's pidfd tells the end, because the monitor is no child of this manager."""

    def follow(self) -> None:
        """Begin to follow it; if it has ended already, say so at once.

        If it can't be followed now, for want of a descriptor for example, try again later.
        """
        try:
            self._watch_monitor()
        except ProcessLookupError:
            self.has_ended()
        except OSError as error:
            log.warn("{folder} can't be watched yet: {error}", folder=self.folder, error=error)
            Timer(self.reactor, self.follow).after(FOLLOW_AGAIN)

    def _watch_monitor(self) -> None:
        if self.monitor == UNKNOWN or not self.kernel.lives(self.monitor):
            raise ProcessLookupError(f"process {self.monitor.pid} has ended")
        monitor = self.hold(self.monitor)

        def monitor_ended() -> None:
            self.kernel.close(monitor)
            self.has_ended()

        Watch(self.reactor, monitor, monitor_ended).start()
