"""The journal and its followers."""

import os
from functools import partial
from itertools import pairwise
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred

from tests.fakes import FakeConsumer, MachineTestCase
from txcontain.logs import follower
from txcontain.logs import journal as events
from txcontain.logs.follower import Follower
from txcontain.logs.journal import Journal


class JournalTests(MachineTestCase):
    """Every change, on disk."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.folder, "events.jsonl")
        self.journal = self.opened()

    def opened(self) -> Any:
        """The journal as the next manager opens it."""
        journal = Journal(self.reactor, self.path, self.reactor.seconds)
        journal.open()
        return journal

    def numbers(self, since: int = 0) -> Any:
        """The numbers of the events that are replayed."""
        self.journal.write()
        return [event["seq"] for event in self.journal.since(since)]

    def fill(self, count: int) -> Any:
        """Write some events; returns the number of the last."""
        for number in range(count):
            self.journal.add("running", f"reason {number}", instance="web-1")
        self.reactor.advance(events.WRITE_AFTER)
        return self.journal.last

    def test_number_before(self) -> None:
        """The last events are found by their number of lines, in both files, also if torn."""
        self.assertEqual(self.journal.number_before(5), 0)
        last = self.fill(10)
        self.assertEqual(self.journal.number_before(10), 0)
        self.assertEqual(self.numbers(self.journal.number_before(3)), [last - 2, last - 1, last])
        self.assertEqual(self.numbers(self.journal.number_before(0)), [])
        os.rename(self.path, f"{self.path}.old")
        self.fill(2)
        self.assertEqual(len(self.numbers(self.journal.number_before(4))), 4)
        with open(self.path, "a") as file:
            file.write("{torn")
        self.assertEqual(self.numbers(self.journal.number_before(1)), [])

    def test_event(self) -> None:
        """An event says what happened, to which instance, why, and what else is known."""
        self.journal.add("config", "uploaded", config="web-1-01.cfg")
        self.journal.write()
        (event,) = self.journal.since(0)
        self.assertEqual(event.pop("time"), 0)
        self.assertEqual(
            event,
            {
                "seq": 1,
                "instance": None,
                "what": "config",
                "reason": "uploaded",
                "config": "web-1-01.cfg",
            },
        )

    def test_log(self) -> None:
        """Each event is one line of the log, whatever it holds."""
        lines: list[Any] = []
        self.patch(self.journal, "_log", Recorder(lines))
        self.journal.add("running", "a\nb", instance="web-1", by="root")
        self.journal.add("config", "uploaded", config="web-1-01.cfg")
        self.assertEqual(lines, [])
        self.journal.write()
        self.assertEqual(
            lines, ["web-1 running: a\\nb, by root", "config: uploaded, config web-1-01.cfg"]
        )

    def test_told_when_written(self) -> None:
        """Nobody hears of an event before it is on disk, so the next manager knows its number."""
        heard = []
        self.journal.listen(lambda event: heard.append((event["seq"], os.stat(self.path).st_size)))
        self.journal.add("running", "it runs")
        self.assertEqual(heard, [])
        self.reactor.advance(events.WRITE_AFTER)
        self.assertEqual(heard, [(1, os.stat(self.path).st_size)])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_replayed_at_once(self) -> None:
        """A client also gets an event that has just happened and was not written yet."""
        self.journal.add("running", "it runs")
        self.assertEqual(self.numbers(), [1])

    def test_replay(self) -> None:
        """The events after a number are replayed in order, each once."""
        self.fill(5)
        self.assertEqual(self.numbers(), [1, 2, 3, 4, 5])
        self.assertEqual(self.numbers(3), [4, 5])
        self.assertEqual(self.numbers(5), [])

    def test_next_manager(self) -> None:
        """The next manager's events come after the last one's."""
        self.fill(3)
        self.journal = self.opened()
        last = self.fill(1)
        self.assertEqual(self.numbers(), [1, 2, 3, last])
        self.assertEqual(self.numbers(3), [last])

    def test_torn_line(self) -> None:
        """A line that a crash cut short is left out, and does not damage the next one."""
        self.fill(3)
        os.truncate(self.path, os.stat(self.path).st_size - 5)
        self.journal = self.opened()
        last = self.fill(1)
        self.assertEqual(self.numbers(), [1, 2, last])

    def test_lost(self) -> None:
        """No number is used again, even if the files are damaged, missing or unreadable."""
        for spoil in (self.scribble, os.unlink, lambda path: os.truncate(path, 0), self.block):
            self.fill(3)
            told = self.journal.last
            spoil(self.path)
            self.reactor.advance(1)
            self.journal = self.opened()
            self.assertGreater(self.journal.add("running", "it runs")["seq"], told)
            self.assertLess(self.journal.last, 1e6)
            self.journal.write()

    def scribble(self, path: Any) -> None:
        """Spoil a file's content, but not its length."""
        with open(path, "r+b") as file:
            file.write(b"\xff" * os.stat(path).st_size)

    def block(self, path: Any) -> None:
        """Replace a file by a folder."""
        os.unlink(path)
        os.mkdir(path)

    def test_told_but_not_written(self) -> None:
        """A number that was told while the disk was full, and so not written, is not used again."""
        self.fill(1)
        heard: list[Any] = []
        self.journal.listen(heard.append)
        with mock.patch("os.write", lambda descriptor, line: fail(28)):
            self.fill(5)
        self.reactor.advance(1)
        self.journal = self.opened()
        self.assertGreater(self.journal.add("running", "it runs")["seq"], heard[-1]["seq"])

    def test_clock_set_back(self) -> None:
        """If the clock was set back, the numbers go on from the largest on disk."""
        self.reactor.advance(1000)
        self.journal = self.opened()
        self.fill(3)
        self.reactor.rightNow = 0
        self.journal = self.opened()
        self.fill(1)
        self.assertEqual(self.numbers(), [1_000_001, 1_000_002, 1_000_003, 1_000_004])

    def test_no_number(self) -> None:
        """A line with an impossible number is ignored, and so has no effect on the next numbers."""
        with open(self.path, "w") as file:
            for number in ("true", "-1", "0", "1e3", f"1{'0' * 400}", f"1{'0' * 15}", '"7"'):
                file.write(f'{{"seq":{number}}}\n')
        self.journal = self.opened()
        self.fill(1)
        self.assertEqual(self.numbers(), [1])

    @given(st.lists(st.binary(max_size=20), max_size=5))
    def test_scribbled(self, lines: Any) -> None:
        """Whatever the file holds, it is opened, and what is written from then on is replayed."""
        with open(self.path, "wb") as file:
            file.write(b"\n".join([*lines, b"[" * 2000]))
        self.journal = self.opened()
        number = self.journal.add("running", "it runs")["seq"]
        self.assertIn(number, self.numbers())

    def test_bound(self) -> None:
        """The journal's two files keep to their bound, and at least half of it can be replayed."""
        self.patch(events, "LARGEST", 2000)
        self.fill(100)
        kept = self.numbers()
        self.assertEqual(kept, list(range(kept[0], 101)))
        sizes = [os.stat(path).st_size for path in (self.path, f"{self.path}.old")]
        self.assertLessEqual(max(sizes), 2000)
        self.assertGreater(sum(sizes), 2000)

    def test_bound_across_managers(self) -> None:
        """A journal that is opened again knows how full it is."""
        self.patch(events, "LARGEST", 2000)
        for _ in range(100):
            self.fill(1)
            self.journal = self.opened()
        self.assertLessEqual(os.stat(self.path).st_size, 2000)

    def test_disk_full(self) -> None:
        """Listeners hear of an event even if it can't be written."""
        heard: list[Any] = []
        self.journal.listen(heard.append)
        self.patch(os, "write", lambda descriptor, line: fail(28))
        self.fill(1)
        self.assertEqual([event["seq"] for event in heard], [1])

    def test_no_thread(self) -> None:
        """If no thread can be had to write, listeners hear of an event, and later ones are kept."""
        heard: list[Any] = []
        self.journal.listen(heard.append)
        error = RuntimeError("can't start new thread")
        self.journal.writes = mock.Mock(side_effect=error)
        self.fill(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.journal.writes = maybeDeferred
        self.fill(1)
        self.assertEqual([event["seq"] for event in heard], [1, 2])
        self.assertEqual(self.numbers(), [2])

    def test_broken_listener(self) -> None:
        """What goes wrong in a listener is logged, and all others hear of the event."""
        heard: list[Any] = []
        self.journal.listen(lambda event: 1 / 0)
        self.journal.listen(heard.append)
        self.fill(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(heard), 1)

    def test_frozen_disk(self) -> None:
        """While the disk takes nothing, a bounded number of events waits; the rest is counted."""
        self.patch(events, "MOST_WAITING", 3)
        waiting = []

        def write(function: Any, *arguments: Any) -> Any:
            waiting.append(Deferred().addCallback(lambda _: function(*arguments)))
            return waiting[-1]

        self.journal.writes = write
        first = self.fill(2)
        self.fill(7)
        self.assertEqual(len(waiting), 2)
        self.journal.writes = maybeDeferred
        for written in waiting:
            written.callback(None)
        reasons = [event["reason"] for event in self.journal.since(first - 2)]
        self.assertEqual(reasons, ["reason 0", "reason 1", "reason 0"])
        self.reactor.advance(events.WRITE_AFTER)
        *_, told = self.journal.since(first)
        self.assertEqual(told["reason"], "6 events came while the disk took none")
        self.assertEqual(self.fill(1), told["seq"] + 1)

    def test_half_a_write(self) -> None:
        """An event of which the disk took only a part does not damage the next one."""
        write = os.write
        self.patch(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
        self.fill(1)
        self.patch(os, "write", write)
        self.fill(1)
        self.assertEqual(self.numbers(), [2])

    def test_listen(self) -> None:
        """A listener hears each event until it stops listening."""
        heard: list[Any] = []
        end = self.journal.listen(heard.append)
        self.fill(2)
        end()
        self.fill(1)
        self.assertEqual([event["seq"] for event in heard], [1, 2])


class Recorder:
    """A logger that keeps the lines."""

    def __init__(self, lines: Any) -> None:
        self.lines = lines

    def info(self, text: str, line: Any) -> None:
        self.lines.append(text.format(line=line))


def fail(number: int) -> None:
    """Fail like a system call."""
    raise OSError(number, os.strerror(number))


class FollowerTests(MachineTestCase):
    """Clients who ask for events."""

    def setUp(self) -> None:
        super().setUp()
        self.journal = Journal(
            self.reactor, os.path.join(self.folder, "events.jsonl"), self.reactor.seconds
        )
        self.consumer = FakeConsumer()

    def add(self, count: int) -> None:
        """Let some things happen."""
        for _ in range(count):
            self.journal.add("running", "it runs")
        self.journal.write()

    def follow(self, since: int = 0, follow: bool = True) -> Any:
        """Begin to send the events after a number."""
        follower = Follower(self.consumer, journal=self.journal, reactor=self.reactor, last=since)
        return self.start(follower.send(follow))

    def sent(self) -> Any:
        """The numbers of the events that were sent."""
        return [event["seq"] for event in self.consumer.lines()]

    def test_not_followed(self) -> None:
        """Without follow, a client gets the events that are there, and the answer ends."""
        self.add(3)
        self.successResultOf(self.follow(since=1, follow=False))
        self.assertEqual(self.sent(), [2, 3])
        self.assertIsNone(self.consumer.producer)

    def test_since_a_time(self) -> None:
        """Events before a time are passed over, also if the clock was set back meanwhile."""
        for now in (100.0, 300.0, 200.0):
            self.journal.now = partial(float, now)
            self.add(1)
        follower = Follower(
            self.consumer, journal=self.journal, reactor=self.reactor, last=0, earliest=200.0
        )
        sending = self.start(follower.send(True))
        self.reactor.advance(0)
        for now in (199.0, 201.0):
            self.journal.now = partial(float, now)
            self.add(1)
        self.assertEqual([event["time"] for event in self.consumer.lines()], [300, 200, 201])
        follower.stopProducing()
        self.successResultOf(sending)

    def test_followed(self) -> None:
        """With follow, a client gets the events that are there, then each as it happens."""
        self.add(2)
        sending = self.follow()
        self.add(1)
        self.assertEqual(self.sent(), [1, 2, 3])
        self.assertNoResult(sending)

    def test_during_the_replay(self) -> None:
        """What happens during a long replay comes after it, in order, once."""
        self.add(1000)
        self.patch(self.reactor, "callLater", self.happens_then(self.reactor.callLater))
        self.follow()
        self.assertTrue(all(a + 1 == b for a, b in pairwise(self.sent())))
        self.assertEqual(self.sent()[-1], self.journal.last)
        self.assertGreater(self.journal.last, 1000)

    def happens_then(self, call_later: Any) -> Any:
        """Let something happen whenever the replay lets others take their turn."""

        def call(delay: Any, *arguments: Any) -> Any:
            if delay == 0:
                self.add(1)
            return call_later(delay, *arguments)

        return call

    def test_paused(self) -> None:
        """A follower that is paused gets nothing until it resumes, and then everything."""
        self.follow()
        self.consumer.producer.pauseProducing()
        self.add(3)
        self.assertEqual(self.sent(), [])
        self.consumer.producer.resumeProducing()
        self.assertEqual(self.sent(), [1, 2, 3])

    def test_gone(self) -> None:
        """A follower that is gone is sent nothing more."""
        for paused in (False, True):
            sending = self.follow(since=self.journal.last)
            if paused:
                self.consumer.producer.pauseProducing()
                self.add(1)
            self.consumer.producer.stopProducing()
            self.successResultOf(sending)
            self.add(1)
            self.assertEqual((self.sent(), self.journal._listeners), ([], []))

    def test_too_slow(self) -> None:
        """A follower that reads nothing is cut off at a bound, and nothing is kept for it."""
        self.patch(follower, "MOST_WAITING", 10)
        sending = self.follow()
        self.consumer.producer.pauseProducing()
        self.add(11)
        self.assertFalse(self.consumer.aborted)
        told: Any = self.journal._listeners[0]
        self.add(1)
        self.assertTrue(self.consumer.aborted)
        self.successResultOf(sending)
        self.assertEqual(self.journal._listeners, [])
        self.assertLessEqual(len(told.__self__.waiting), 10)
