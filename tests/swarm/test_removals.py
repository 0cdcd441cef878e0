"""Instances that are removed when they have ended."""

from typing import Any

from tests.swarm.test_swarm import OVER, WEB, SwarmCase
from txcontain import errors
from txcontain.container.launch_request import LaunchRequest
from txcontain.engine.manager import REMOVE_AFTER


class RemovalTests(SwarmCase):
    """Launches with `remove`."""

    def setUp(self) -> None:
        super().setUp()
        self.keep(restart="on-failure")
        asked = LaunchRequest(*WEB, remove=True)
        self.name = self.now(self.swarm.launch_as_asked(asked)).summary["instance"]

    def end(self, **keys: Any) -> None:
        """Have all tasks end."""
        for one in self.fake.tasks:
            one.update(Status=OVER, **{"DesiredState": "shutdown", **keys})

    def look(self) -> None:
        """See what there is."""
        self.now(self.swarm.running())

    def after(self, seconds: float) -> None:
        """Look again after so many seconds."""
        self.reactor.advance(seconds)
        self.look()

    def test_removed(self) -> None:
        """It is removed five seconds after its end was seen, and another one is not."""
        other = self.launched()
        self.look()
        self.end()
        self.look()
        self.after(REMOVE_AFTER - 0.1)
        self.assertEqual(len(self.fake.services), 2)
        self.assertEqual(self.now(self.swarm.wait(self.name)).reason, "")  # not destroyed
        self.after(0.1)
        (left,) = self.now(self.swarm.records(None)).records
        self.assertEqual(left["instance"], other)

    def test_goes_on(self) -> None:
        """One that runs, or that the swarm starts again, stays."""
        self.look()
        self.after(2 * REMOVE_AFTER)
        self.end(DesiredState="running")
        self.look()
        self.after(2 * REMOVE_AFTER)
        self.assertEqual(len(self.fake.services), 1)

    def test_again(self) -> None:
        """What did not work is done with a later look; another manager may have done it."""
        self.end()
        self.look()
        (service,) = self.fake.services.values()
        asked = f"DELETE /services/{service['ID']}"
        for refusal in ((500, "broken"), (404, "it is gone")):
            self.fake.refusals[asked] = refusal
            self.fake.asked.clear()
            self.after(REMOVE_AFTER)
            self.assertIn(asked, self.fake.asked)
        self.flushLoggedErrors(errors.MachineAtFault)
