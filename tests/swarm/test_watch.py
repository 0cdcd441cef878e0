"""What was seen of a swarm answers while it does not."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import MachineTestCase
from tests.swarm.test_records import at, seen
from txcontain.errors import Unavailable
from txcontain.swarm.client import ANSWER_WITHIN
from txcontain.swarm.records import Seen
from txcontain.swarm.watch import AT_ONCE, LOOK_EVERY, REST, Watch, wait_for


class WatchTests(MachineTestCase):
    """Who asks, and what is answered."""

    def setUp(self) -> None:
        super().setUp()
        self.clock, self.looks = Clock(), list[Deferred[Seen]]()
        self.told: list[Any] = []
        self.watch = Watch(self.clock, self.look, lambda *change: self.told.append(change))

    async def look(self) -> Seen:
        """A look that lasts until a test ends it."""
        self.looks.append(Deferred())
        return await self.looks[-1]

    def end(self, *tasks: Any) -> Seen:
        """The last look ends so."""
        found = seen(*tasks, began=self.clock.seconds())
        self.looks[-1].callback(found)
        return found

    def ask(self) -> Any:
        """Ask what there is now."""
        return self.start(self.watch.now())

    def test_now(self) -> None:
        """What is asked is looked at anew, and those who ask meanwhile share a look."""
        asked = [self.ask(), self.ask()]
        found = self.end()
        for one in asked:
            self.assertEqual(self.successResultOf(one), (found, None))
        self.assertEqual(len(self.looks), 1)
        self.ask()
        self.assertEqual(len(self.looks), 2)

    def test_silent(self) -> None:
        """A swarm that does not answer at once is not waited for: what was seen last is told."""
        self.ask()
        found = self.end()
        self.clock.advance(1)
        asked = self.ask()
        self.clock.advance(AT_ONCE)
        self.assertEqual(self.successResultOf(asked), (found, 0.0))
        later = self.end()  # the look has gone on
        self.assertEqual(self.watch.seen, later)

    def test_own_changes(self) -> None:
        """What this manager has changed is in every answer, if the swarm answers at all."""
        self.ask()
        old = self.end()
        self.clock.advance(1)
        before = self.ask()
        self.watch.wrote()
        asked = self.ask()
        self.assertEqual(len(self.looks), 3)
        self.clock.advance(AT_ONCE)
        self.assertEqual(self.successResultOf(before), (old, 0.0))
        self.assertNoResult(asked)
        found = self.end()
        self.assertEqual(self.successResultOf(asked), (found, None))

    def test_never_seen(self) -> None:
        """If the swarm has never answered, there is nothing to tell."""
        asked = self.ask()
        self.clock.advance(ANSWER_WITHIN)
        error = self.failureResultOf(asked, Unavailable).value
        self.assertEqual(str(error), "asking the swarm → it does not answer: try again")

    def test_trouble(self) -> None:
        """Why it has not answered is told, as long as that is so."""
        asked = self.ask()
        self.looks[-1].errback(Unavailable("asking", "it is no Docker", "try again"))
        error = self.failureResultOf(asked, Unavailable).value
        self.assertEqual(str(error), "asking the swarm → it is no Docker → try again")
        self.ask()
        self.end()
        self.assertEqual(self.watch.trouble, ())

    def test_is_silent(self) -> None:
        """A swarm is silent if no look has succeeded for some seconds, or ever."""
        self.assertTrue(self.watch.is_silent)
        self.ask()
        self.end()
        self.clock.advance(ANSWER_WITHIN)
        self.assertFalse(self.watch.is_silent)
        self.clock.advance(LOOK_EVERY + 0.1)
        self.assertTrue(self.watch.is_silent)

    def test_watching(self) -> None:
        """It looks each second, tells of changes, and goes on after a failure, until it ends."""
        self.watch.start()
        self.clock.advance(0)
        self.end(at(1, "running"))
        self.clock.advance(LOOK_EVERY)
        self.looks[-1].errback(Unavailable("no leader"))
        self.clock.advance(LOOK_EVERY)
        self.end(at(1, "complete"))
        self.assertEqual(self.told, [("web", "ended", "complete, on h1")])
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """Looks that take long are rare, and no one has one of his own but who has changed it."""
        self.watch.start()
        self.clock.advance(0)
        began = self.clock.seconds()
        self.clock.advance(3)
        found = seen(began=began)
        self.looks[-1].callback(found)
        self.clock.advance(REST * 3 - 3 - 0.1)
        self.assertEqual(self.successResultOf(self.ask()), (found, 0.0))
        self.assertEqual(len(self.looks), 2)  # of which one began before it was known

        self.end()
        self.watch.wrote()
        self.ask()
        self.assertEqual(len(self.looks), 3)


class WaitTests(SynchronousTestCase):
    """Waiting for what goes on anyway."""

    def test_wait(self) -> None:
        """The wait is over when it is, or when the time is; it is not cancelled, and may end."""
        for in_time in (True, False):
            clock, begun = Clock(), Deferred[None]()
            waited = wait_for(clock, 1.0, begun)
            self.assertNoResult(waited)
            if in_time:
                begun.callback(None)
            else:
                clock.advance(1.0)
            self.assertIsNone(self.successResultOf(waited))
            if not in_time:
                begun.callback(None)
            self.assertIsNone(self.successResultOf(begun))
            self.assertEqual(clock.getDelayedCalls(), [])
