"""The keeper, on a fake machine: what it does for stacks, and after whatever happens to it."""

from typing import Any

from tests.services.case import WEB, KeeperCase


class UpTests(KeeperCase):
    """A stack comes up, changes, and goes down."""

    def test_up(self) -> None:
        """What was foreseen is done, and the second time there is nothing to do."""
        services: dict[str, Any] = {
            "app": {**WEB, "after": {"db": "healthy", "job": "completed_successfully"}},
            "db": {"config": "db-1-01"},
            "job": {"config": "job-1-01", "run": "once", "after": {"db": "started"}},
        }
        foreseen = self.up(**services)
        self.advance(1)
        steps = [
            "launch shop-db-1, of db-1-01",
            "launch shop-job-1, of job-1-01",
            "launch shop-app-1, of web-1-01",
        ]
        self.assertEqual((foreseen, self.take_steps()), (steps, steps))
        self.assertEqual(set(self.services().values()), {"done"})
        self.assertEqual(self.up(**services), [])
        self.advance(60)
        self.assertEqual(self.take_steps(), [])
