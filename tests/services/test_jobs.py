"""Jobs: those that run once, and those that run at times."""

from datetime import datetime

from tests.services.case import WEB, KeeperCase
from txcontain.engine.disk import prune

HOUR = 3600.0
HOURLY = {**WEB, "schedule": "0 * * * *"}


class OnceTests(KeeperCase):
    """Jobs that run once."""

    def test_once(self) -> None:
        """It runs once for each version, whatever becomes of its instance's leftovers."""
        job = {**WEB, "run": "once"}
        self.up(a=job)
        self.advance(5)
        self.assertEqual(self.take_steps(), ["launch shop-a-1, of web-1-01"])
        self.now(prune(self.manager))
        self.restart()
        self.advance(60)
        self.assertEqual((self.take_steps(), self.up(a=job)), ([], []))
        self.up(a={**job, "config": "web-1-02"})
        self.advance(5)
        self.assertEqual(self.take_steps(), ["remove shop-a-1", "launch shop-a-1, of web-1-02"])

    def test_failed(self) -> None:
        """If it fails, what comes after it is not started, until up tries again."""
        services = {
            "a": {**WEB, "run": "once"},
            "b": {**WEB, "after": {"a": "completed_successfully"}},
        }
        self.up("shop", **services)
        settled = self.keeper.settled("shop", ["a", "b"])
        self.advance(60, "Done(1)")
        self.assertEqual(
            self.successResultOf(settled),
            ["a: failed: shop-a-1 ended: exit status 1", "b: waits for a to complete"],
        )
        self.take_steps()
        self.up("shop", **services)
        self.advance(5)
        steps = ["remove shop-a-1", "launch shop-a-1, of web-1-01", "launch shop-b-1, of web-1-01"]
        self.assertEqual(self.take_steps(), steps)


class ScheduleTests(KeeperCase):
    """Jobs that run at times."""

    def setUp(self) -> None:
        super().setUp()
        noon = datetime(2026, 1, 30, 12, 0, 30).timestamp()
        self.kernel.set_forward = noon - self.reactor.seconds()

    def runs(self, seconds: float) -> int:
        """How often a job is launched within so many seconds."""
        self.take_steps()
        self.advance(seconds)
        return sum(step.startswith("launch") for step in self.take_steps())

    def test_times(self) -> None:
        """It runs at its times, and only the last instance is kept."""
        self.up(a=HOURLY)
        self.assertEqual(self.services(), {"shop-a": "done"})
        self.assertEqual((self.runs(60), self.runs(3 * HOUR)), (0, 3))
        self.assertEqual(list(self.states().values()), ["ended"])

    def test_missed(self) -> None:
        """What is missed is told, and made up for once with catch_up."""
        self.up(a=HOURLY, b={**HOURLY, "catch_up": True})
        self.advance(60)
        self.keeper.stop()
        self.kernel.set_forward += 5.5 * HOUR
        self.take_steps()
        self.restart()
        self.advance(60)
        steps = ["remove shop-b-1", "launch shop-b-1, of web-1-01"]
        self.assertEqual(self.take_steps()[-1:], steps[-1:])
        told = [event for event in self.events() if "missed" in event]
        self.assertEqual(
            [text.rpartition(", and ")[2] for text in told], ["does not catch up", "runs late"]
        )
        self.assertEqual(self.runs(HOUR), 2)

    def test_clock_set_back(self) -> None:
        """A time that comes again within three hours is not taken twice; a correction counts."""
        self.up(a=HOURLY)
        self.assertEqual(self.runs(HOUR), 1)
        self.kernel.set_forward -= HOUR
        self.assertEqual((self.runs(HOUR), self.runs(HOUR)), (0, 1))
        self.kernel.set_forward -= 24 * HOUR
        self.assertEqual(self.runs(2 * HOUR), 2)

    def test_goes_on(self) -> None:
        """A run that is due while the last one goes on is left out."""
        self.patch(self, "end_jobs", lambda words: None)
        self.up(a=HOURLY)
        self.assertEqual(self.runs(3 * HOUR), 1)
        self.assertIn("service: its run was left out: its last run still goes on", self.events())

    def test_killed(self) -> None:
        """A manager that is killed when a run is due has it done once."""
        for moment in range(8):
            self.setUp()
            self.up(a=HOURLY)
            self.advance(HOUR - 31)
            self.reactor.advance(21)
            for _ in range(moment):
                self.reactor.advance(0.001)
            before = len(self.take_steps())
            self.restart()
            self.assertLessEqual(before + self.runs(300), 2, moment)
            self.assertEqual(list(self.states().values()), ["ended"], moment)
