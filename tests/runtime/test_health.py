"""What health checks come to, and when they are made."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import ManagerTestCase
from txcontain.container.health import Health
from txcontain.later import Rounds
from txcontain.runtime.health import (
    HEALTHY,
    STARTING,
    TOGETHER,
    UNHEALTHY,
    Standing,
    decide,
    one_line,
    pause,
)

CHECK = Health(tcp=80, interval=10, start_period=0, start_interval=5, retries=3)
SLOW = Health(tcp=80, interval=10, start_period=60, start_interval=5, retries=1)
STOP = Health(tcp=80, interval=10, retries=1, on_failure="stop")
NONE = Health(tcp=80, interval=10, retries=1, on_failure="none")
# What is checked, its standing, whether it passed, its age; then its standing, what is to be done.
DECISIONS: list[tuple[Health, Standing, bool, float, Standing, str]] = [
    (CHECK, Standing(STARTING), True, 0, Standing(HEALTHY), "none"),
    (CHECK, Standing(STARTING), False, 0, Standing(STARTING), "none"),  # the first interval
    (CHECK, Standing(STARTING), False, 9.9, Standing(STARTING), "none"),
    (CHECK, Standing(STARTING), False, 10, Standing(STARTING, 1), "none"),
    (CHECK, Standing(STARTING, 2), False, 30, Standing(UNHEALTHY, 3), "restart"),
    (CHECK, Standing(STARTING, 2), True, 30, Standing(HEALTHY), "none"),
    (CHECK, Standing(HEALTHY), False, 1, Standing(HEALTHY, 1), "none"),  # it has passed before
    (CHECK, Standing(HEALTHY, 1), True, 99, Standing(HEALTHY), "none"),
    (CHECK, Standing(HEALTHY, 1), False, 99, Standing(HEALTHY, 2), "none"),
    (CHECK, Standing(HEALTHY, 2), False, 99, Standing(UNHEALTHY, 3), "restart"),
    (CHECK, Standing(UNHEALTHY, 3), False, 99, Standing(UNHEALTHY, 4), "restart"),
    (CHECK, Standing(UNHEALTHY), False, 99, Standing(UNHEALTHY, 1), "restart"),  # recalled
    (CHECK, Standing(UNHEALTHY, 9), True, 99, Standing(HEALTHY), "none"),
    (SLOW, Standing(STARTING), False, 59, Standing(STARTING), "none"),
    (SLOW, Standing(STARTING), False, 60, Standing(UNHEALTHY, 1), "restart"),
    (SLOW, Standing(HEALTHY), False, 1, Standing(UNHEALTHY, 1), "restart"),
    (STOP, Standing(HEALTHY), False, 1, Standing(UNHEALTHY, 1), "stop"),
    (NONE, Standing(HEALTHY), False, 1, Standing(UNHEALTHY, 1), "none"),
]
# What is checked, its status, its age; then the seconds until the next check.
PAUSES = [
    (CHECK, STARTING, 0, 0.02),
    (CHECK, STARTING, 1, 0.5),
    (CHECK, STARTING, 8, 2),  # so that the first one that counts comes as Docker's would
    (CHECK, STARTING, 10, 10),
    (CHECK, HEALTHY, 0, 10),
    (CHECK, UNHEALTHY, 99, 10),
    (SLOW, STARTING, 6, 3),
    (SLOW, STARTING, 40, 5),
    (SLOW, STARTING, 58, 2),
    (SLOW, STARTING, 60, 10),
    (SLOW, HEALTHY, 6, 10),
]


class Decisions(SynchronousTestCase):
    """Deciding, as a table."""

    def test_decide(self) -> None:
        """A check and the standing before it give the standing after it, and what is to be done."""
        for health, before, passed, age, after, action in DECISIONS:
            found = decide(health, before, passed, age)
            self.assertEqual(found, (after, action), (before, passed, age))

    def test_pause(self) -> None:
        """Until it has passed once, it is asked soon after its start, and then less often."""
        for health, status, age, wait in PAUSES:
            self.assertAlmostEqual(pause(health, Standing(status), age), wait, msg=(status, age))

    def test_as_docker(self) -> None:
        """What never passes is unhealthy just when it would be so in Docker."""
        now, standing, counted = 0.0, Standing(), []
        while standing.status == STARTING:
            after, _ = decide(CHECK, standing, False, now)
            counted += [now] * (after != standing)
            standing, now = after, now + pause(CHECK, standing, now)
        self.assertEqual(counted, [10, 20, 30])

    def test_one_line(self) -> None:
        """What a container says takes one line of the journal, and can't command a terminal."""
        self.assertEqual(one_line("a\n\tb  \x1b[31m\x07é"), "a b \\x1b[31m\\x07é")
        self.assertEqual(len(one_line("x" * 10_000)), 200)


class ChecksTests(ManagerTestCase):
    """The checks of an instance, answered by the test."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Any] = []  # what is to be told each answer
        self.ended = 0  # how many were called off
        self.manager.prober = self  # type: ignore[assignment]  # it asks in its place
        self.probes = self  # of that
        self.rounds = Rounds(self.reactor, TOGETHER)

    def stop(self) -> None:
        """For the manager, which ends."""

    def ask(self, instance: Any, told: Any) -> Any:
        """A check is made."""
        self.asked.append(told)
        return self.end

    def end(self) -> None:
        """A check is called off, or was answered."""
        self.ended += 1

    def answer(self, passed: bool | None, said: str = "words") -> None:
        """Answer the last check."""
        self.asked[-1](passed, said)

    def begin(self, **health: Any) -> Any:
        """An instance with a check of its port each 10 s, three times."""
        keys = {"interval": 10, "tcp": 80, **health}
        instance = self.launch(startup_script="/run.sh", health=keys)
        instance.checks.chance = lambda: 1.0
        self.reactor.advance(0)
        return instance

    def be_healthy(self, **health: Any) -> Any:
        """The same, which has passed once."""
        instance = self.begin(**health)
        self.answer(True)
        return instance

    def fail_after(self, seconds: float, times: int = 1) -> None:
        """Let time go by until the next check, which fails."""
        for _ in range(times):
            before = len(self.asked)
            self.reactor.advance(seconds)
            self.assertEqual(len(self.asked), before + 1)
            self.answer(False, "no\nanswer")

    def test_without_a_check(self) -> None:
        """An instance without a check has no health, and serves as soon as it runs."""
        instance = self.launch(startup_script="/run.sh")
        self.reactor.advance(60)
        self.assertEqual((instance.health, instance.serves, self.asked), (None, True, []))

    def test_healthy(self) -> None:
        """It is asked at once, and serves when it has passed; then each interval."""
        instance = self.begin()
        self.assertEqual((instance.health, instance.serves), (STARTING, False))
        self.answer(True)
        self.assertEqual((instance.health, instance.serves), (HEALTHY, True))
        self.assertIn("healthy: port 80: words", self.events())
        for number in range(2, 5):
            self.reactor.advance(9.9)
            self.assertEqual(len(self.asked), number - 1)
            self.reactor.advance(0.1)
            self.assertEqual(len(self.asked), number)
            self.answer(True)
        self.assertEqual(len([1 for event in self.events() if event.startswith("healthy")]), 1)

    def test_restarted(self) -> None:
        """After three failures it is unhealthy, ended, and started again, without any policy."""
        instance = self.be_healthy()
        self.fail_after(10, times=2)
        self.assertEqual(instance.health, HEALTHY)
        self.fail_after(10)
        self.assertEqual((instance.health, instance.serves), (UNHEALTHY, False))
        why = "unhealthy: 3 checks in a row have failed; port 80: no answer"
        self.assertIn(why, self.events())
        self.reactor.advance(0)
        self.assertEqual(instance.state, "waiting")
        self.assertEqual(instance.exit.reason, "unhealthy (killed by SIGKILL)")
        self.reactor.advance(0.1)
        self.assertEqual((instance.state, instance.restarts), ("running", 1))
        self.assertEqual(instance.health, STARTING)
        self.reactor.advance(0)
        self.answer(True)
        self.assertEqual(instance.health, HEALTHY)

    def test_replaced_in_time(self) -> None:
        """What hangs runs again interval x retries + 0.2 s after the last check that passed."""
        instance = self.be_healthy(interval=1, timeout=0.05)
        passed_at = self.reactor.seconds()
        while not instance.restarts:
            before = len(self.asked)
            self.reactor.advance(0.01)
            if len(self.asked) > before:
                self.reactor.callLater(0.05, self.asked[-1], False, "no answer in time")
        self.assertLess(self.reactor.seconds() - passed_at, 3.2)
        self.assertEqual(instance.state, "running")

    def test_delay(self) -> None:
        """What is unhealthy again and again is started ever later, and at most so often."""
        instance = self.begin(interval=0.1, retries=1)
        instance.spec = type(instance.spec)(
            **{
                **{name: getattr(instance.spec, name) for name in ("name", "major", "minor")},
                "base_image": "x",
                "health": instance.spec.health,
                "max_restarts": 2,
            }
        )
        delays = []
        for _ in range(600):
            self.reactor.advance(0.01)
            if instance.running and instance.health == STARTING:
                self.answer(False)
            elif instance.state == "waiting":
                delays.append(instance.delay)
        self.assertEqual((sorted(set(delays)), instance.state), ([0.2, 0.4], "ended"))

    def test_stopped(self) -> None:
        """With "stop" it is stopped, and kept."""
        instance = self.be_healthy(on_failure="stop", retries=1)
        self.fail_after(10)
        self.reactor.advance(0)
        self.assertEqual((instance.state, instance.health), ("stopped", UNHEALTHY))
        self.reactor.advance(100)
        self.assertEqual(instance.state, "stopped")

    def test_none(self) -> None:
        """With "none" it runs on, serves no one, and may become healthy again."""
        instance = self.be_healthy(on_failure="none", retries=1)
        self.fail_after(10, times=3)
        self.assertEqual((instance.state, instance.serves), ("running", False))
        self.reactor.advance(10)
        self.answer(True)
        self.assertEqual((instance.health, instance.serves), (HEALTHY, True))
        self.assertEqual(len([1 for event in self.events() if event.startswith("unhealthy")]), 1)

    def test_not_asked(self) -> None:
        """If it could not be asked, that counts for nothing, and is told as that."""
        instance = self.be_healthy(retries=1)
        self.reactor.advance(10)
        self.answer(None, "too many files")
        self.assertEqual(instance.health, HEALTHY)
        self.assertEqual(instance.checks.results[-1].passed, None)

    def test_paused(self) -> None:
        """It is not asked while it is paused, and at once when it runs on."""
        instance = self.be_healthy(retries=1)
        token = instance.processes.token
        self.reactor.advance(10)
        self.reactor.frozen.add(token)
        instance.set_paused(True)
        self.answer(False)  # too late: it is called off
        self.reactor.advance(1000)
        self.assertEqual((len(self.asked), instance.health), (2, HEALTHY))
        self.assertFalse(instance.serves)
        self.reactor.frozen.discard(token)
        instance.set_paused(False)
        self.reactor.advance(0)
        self.assertEqual((len(self.asked), instance.serves), (3, True))

    def test_frozen_for_a_copy(self) -> None:
        """A failure of one that is frozen for something else, such as an export, does not count."""
        instance = self.be_healthy(retries=1)
        self.reactor.frozen.add(instance.processes.token)
        self.fail_after(10)
        self.assertEqual(instance.health, HEALTHY)
        self.assertIn("frozen", instance.checks.results[-1].output)

    def test_ended(self) -> None:
        """What ends in the middle of a check is asked no more, and a late answer is nothing."""
        instance = self.be_healthy(retries=1)
        self.reactor.advance(10)
        self.init.end("Done(3)")
        self.answer(False)
        self.reactor.advance(100)
        self.assertEqual((instance.state, len(self.asked)), ("ended", 2))
        self.assertEqual(instance.exit.reason, "exit status 3")
        self.assertEqual(instance.health, HEALTHY)

    def test_asked_again_when_it_listens(self) -> None:
        """A change of an instance that has not passed yet is a reason to ask it at once."""
        instance = self.begin()
        for _ in range(8):
            self.answer(False)
            self.reactor.advance(1)
        self.answer(False)
        before = len(self.asked)
        instance.checks.follow()
        self.reactor.advance(0)
        self.assertEqual(len(self.asked), before + 1)

    def test_not_while_its_launch_waits(self) -> None:
        """A launch that waits for PORT is not cut short by the checks, however often they fail."""
        keys = {"interval": 0.1, "tcp": True, "retries": 1}
        self.add(startup_script="/run.sh", startup_env="PORT=80", health=keys)
        launched = self.start(self.manager.launch("web", "1", "01"))
        for _ in range(480):
            self.reactor.advance(0.01)
            if self.asked:
                self.answer(False)
        self.assertNoResult(launched)
        self.assertEqual(self.manager.running()[0].restarts, 0)

    def test_results(self) -> None:
        """The last 20 results are kept, each with 4 KB of what it said."""
        instance = self.begin()
        for number in range(30):
            self.answer(True, str(number) + "x" * 10_000)
            self.reactor.advance(10)
        results = list(instance.checks.results)
        self.assertEqual(len(results), 20)
        self.assertTrue(results[-1].output.startswith("29x"))
        self.assertEqual({len(result.output) for result in results}, {4096})
        self.assertTrue(all(result.passed for result in results))

    def test_together(self) -> None:
        """Those that are due within 50 ms are asked at one moment, which costs less."""
        instance = self.begin()
        instance.checks.chance = lambda: 0.2512
        self.reactor.advance(-self.reactor.seconds() % TOGETHER)
        self.answer(True)
        self.reactor.advance(2.49)
        self.assertEqual(len(self.asked), 1)
        self.reactor.advance(0.02)
        self.assertEqual(len(self.asked), 2)

    def test_stopped_in_its_round(self) -> None:
        """One that is stopped by what another check of the same moment has told is not asked."""
        instance = self.begin()
        self.rounds.add(10, instance.checks.stop)
        self.answer(True)
        self.reactor.advance(20)
        self.assertEqual(len(self.asked), 1)

    def test_spread(self) -> None:
        """Those that became healthy at one moment are asked at different ones from then on."""
        instance = self.begin()
        instance.checks.chance = lambda: 0.25
        self.answer(True)
        self.reactor.advance(2.4)
        self.assertEqual(len(self.asked), 1)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.asked), 2)
        self.answer(True)
        self.reactor.advance(9.9)
        self.assertEqual(len(self.asked), 2)
