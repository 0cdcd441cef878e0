"""Logs are sent to clients, and followed."""

import os
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred

from tests.fakes import FakeConsumer, write_log
from tests.logs.case import LogTestCase, text_of
from tests.support import make_spec
from txcontain.logs import segments
from txcontain.logs.client import DRAIN_WITHIN, LogClient
from txcontain.logs.logd import LOG
from txcontain.logs.reader import Reader
from txcontain.logs.segments import EVERYTHING, Wanted
from txcontain.logs.source import MOST_HELD, Source


class ReaderTestCase(LogTestCase):
    """A test of readers of logs; each instance is only a spec and a folder."""

    def setUp(self) -> None:
        super().setUp()
        self.client = LogClient(self.reactor, self.folder, self.folder, maybeDeferred)
        self.client.start()
        self.addCleanup(lambda: self.now(self.client.stop()))
        self.instance = self.make_instance("web-1")
        self.consumer = FakeConsumer()

    def make_instance(self, name: str) -> Any:
        """An instance."""
        folder = os.path.join(self.folder, name)
        os.mkdir(folder)
        return SimpleNamespace(
            name=name,
            spec=make_spec(log_max_size=1 << 20, log_max_files=1),
            ended=False,
            processes=SimpleNamespace(token=f"token{name}"),
            folder=folder,
            path=lambda name: os.path.join(folder, name),
        )

    def write(self, text: bytes, stream: str = "stdout", instance: Any = None) -> None:
        """The container writes; its followers are told."""
        instance = instance or self.instance
        write_log(instance, text, stream)
        if f"follow {instance.name}" in " ".join(self.reactor.log_process.told):
            self.reactor.log_process.say("grew", instance.name)

    def end(self) -> None:
        """The container ends."""
        self.instance.ended = True
        self.client.wake(self.instance.name)

    def send(
        self,
        lines: Any = None,
        follow: bool = False,
        instances: Any = (),
        wanted: Any = EVERYTHING,
        **looks: Any,
    ) -> Any:
        """Begin to send."""
        which = {"instances": instances or [self.instance], "wanted": wanted}
        self.reader = Reader(self.consumer, client=self.client, **which, **looks)
        return self.start(self.reader.send(lines, follow))

    @property
    def sent(self) -> Any:
        """All bytes that were sent."""
        return b"".join(self.consumer.written)


class ReaderTests(ReaderTestCase):
    """A log, sent."""

    def test_what_is_there(self) -> None:
        """All of it is sent in order, or the last lines, or one stream."""
        self.write(b"1\n")
        self.write(b"2\n", "stderr")
        self.write(b"3\n")
        for options, wanted in (
            ({}, b"1\n2\n3\n"),
            ({"lines": 2}, b"2\n3\n"),
            ({"lines": 0}, b""),
            ({"wanted": Wanted(frozenset([1]))}, b"2\n"),
        ):
            self.consumer.written.clear()
            self.successResultOf(self.send(**options))
            self.assertEqual(self.sent, wanted)

    def test_it_is_asked_for_first(self) -> None:
        """What is still in the pipes gets into the files before they are read."""
        self.client.adopt("tokenweb-1", "web-1", 1)
        self.reactor.log_process.silent = True
        sending = self.send()
        self.assertEqual(self.reactor.log_process.told[-1], "drain tokenweb-1")
        write_log(self.instance, b"just now\n")
        self.reactor.log_process.say("drained", "tokenweb-1")
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"just now\n")

    def test_no_log_process(self) -> None:
        """If the log process does not answer, what is in the files is sent after some seconds."""
        self.client.adopt("tokenweb-1", "web-1", 1)
        self.reactor.log_process.silent = True
        write_log(self.instance, b"1\n")
        sending = self.send()
        self.reactor.advance(DRAIN_WITHIN)
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n")

    def test_follow(self) -> None:
        """A follower gets what is written, as it is written, until the instance ends."""
        self.write(b"1\n")
        sending = self.send(follow=True)
        self.write(b"2\n")
        self.assertEqual(self.sent, b"1\n2\n")
        write_log(self.instance, b"3\n")
        self.end()
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n2\n3\n")

    def test_end_while_it_is_sent(self) -> None:
        """A follower is let go even if the instance ends between two looks."""
        waiting: list[Any] = []

        def thread(function: Any, *arguments: Any) -> Any:
            if function is segments.read:
                waiting.append((Deferred(), arguments))
                return waiting[-1][0]
            return maybeDeferred(function, *arguments)

        self.client.threads = thread
        self.write(b"1\n")
        sending = self.send(follow=True)
        self.end()  # it reads now, and so waits for nothing that could be told
        while waiting:
            found, arguments = waiting.pop()
            found.callback(segments.read(*arguments))
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n")

    def test_quiet(self) -> None:
        """While nothing is written, nothing is done, open, or scheduled."""
        before = len(os.listdir("/proc/self/fd"))
        self.send(follow=True)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.reactor.log_process.told.count("follow web-1 0 0"), 1)
        self.end()

    def test_follow_until(self) -> None:
        """A follower until a certain time is let go at that time."""
        with patch.object(time, "time_ns", return_value=10**9):
            sending = self.send(follow=True, wanted=Wanted(until=3 * 10**9))
        self.assertNoResult(sending)
        self.reactor.advance(2)
        self.successResultOf(sending)

    def test_new_log_process(self) -> None:
        """Followers look again after the log process was killed."""
        sending = self.send(follow=True)
        write_log(self.instance, b"meanwhile\n")
        self.reactor.log_process.lose()
        self.reactor.advance(0)
        self.assertEqual(self.sent, b"meanwhile\n")
        self.end()
        self.successResultOf(sending)

    def test_removed(self) -> None:
        """If a log is removed, its followers still get the rest of it, up to a bound."""
        sending = self.send(follow=True)
        self.consumer.producer.pauseProducing()
        write_log(self.instance, b"last\n" * 10)
        self.now(self.client.removing("web-1"))
        for entry in os.scandir(self.instance.path(LOG)):
            os.unlink(entry)
        self.consumer.producer.resumeProducing()
        self.end()
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"last\n" * 10)
        source = Source(self.client, self.instance)
        for _ in range(40):
            write_log(self.instance, bytes(50_000))
        self.now(source.hold_rest())
        self.assertLess(len(text_of(source._held)), MOST_HELD + segments.LONGEST_READ)

    def test_gone(self) -> None:
        """A client that is gone is sent nothing more, and nothing is kept for it."""
        for looks in ({}, {"timestamps": True}):
            sending = self.send(lines=0, follow=True, **looks)
            self.consumer.producer.stopProducing()
            self.write(b"1\n")
            self.successResultOf(sending)
            self.assertEqual((self.sent, self.reactor.getDelayedCalls()), (b"", []))
            self.assertEqual((dict(self.client._waiters), dict(self.client.readers)), ({}, {}))

    def test_gone_while_lines_are_looked_for(self) -> None:
        """The search for the last lines stops when the client is gone."""
        for _ in range(4):
            write_log(self.instance, bytes(50_000))
        self.patch(segments, "LONGEST_LOOK", 1)
        looks = []

        def thread(function: Any, *arguments: Any) -> Any:
            if function is next:
                looks.append(function)
                self.consumer.producer.stopProducing()
            return maybeDeferred(function, *arguments)

        self.client.threads = thread
        self.successResultOf(self.send(lines=1))
        self.assertEqual((len(looks), self.sent), (1, b""))

    def test_paused(self) -> None:
        """A client that is paused gets nothing until it resumes, and then everything."""
        sending = self.send(follow=True)
        self.consumer.producer.pauseProducing()
        self.write(b"1\n")
        self.assertEqual(self.sent, b"")
        self.consumer.producer.resumeProducing()
        self.assertEqual(self.sent, b"1\n")
        self.end()
        self.successResultOf(sending)

    def test_unreadable(self) -> None:
        """If a log can't be read, the answer ends with the error."""
        self.write(b"1\n")
        self.patch(segments, "read", lambda *_: 1 / 0)
        self.failureResultOf(self.send(), ZeroDivisionError)
        self.assertIsNone(self.consumer.producer)

    def test_all(self) -> None:
        """Who follows all logs gets those of later instances too, from their beginning."""
        everyone: set[Reader] = set()
        self.write(b"1\n")
        sending = self.send(lines=0, follow=True, names=True, all_readers=everyone)
        later = self.make_instance("db-1")
        write_log(later, b"2\n")
        for _ in range(2):  # it is told of each start
            (reader,) = everyone
            reader.add(later)
        self.write(b"3\n")
        self.write(b"4\n", instance=later)
        self.assertEqual(self.sent, b"db-1 | 2\nweb-1 | 3\ndb-1 | 4\n")
        self.consumer.producer.stopProducing()
        self.successResultOf(sending)
        self.assertEqual((everyone, dict(self.client._waiters)), (set(), {}))

    def test_all_without_end(self) -> None:
        """It goes on when all instances have ended, and keeps nothing of those."""
        everyone: set[Reader] = set()
        sending = self.send(follow=True, names=True, all_readers=everyone)
        write_log(self.instance, b"no newline")
        self.end()
        self.assertEqual(self.sent, b"web-1 | no newline\n")
        self.assertNoResult(sending)
        self.assertEqual((self.reader._sources, dict(self.client.readers)), ([], {}))
        later = self.make_instance("db-1")
        write_log(later, b"2\n")
        self.reader.add(later)
        self.assertEqual(self.sent, b"web-1 | no newline\ndb-1 | 2\n")
        self.consumer.producer.stopProducing()
        self.successResultOf(sending)

    def test_all_until(self) -> None:
        """It ends at the time that was asked for."""
        with patch.object(time, "time_ns", return_value=10**9):
            wanted = Wanted(until=3 * 10**9)
            sending = self.send(follow=True, names=True, all_readers=set(), wanted=wanted)
        self.reactor.advance(2)
        self.successResultOf(sending)

    def test_all_without_following(self) -> None:
        """What is not followed ends, even if it is of all."""
        self.write(b"1\n")
        self.successResultOf(self.send(names=True, all_readers=set()))
        self.assertEqual(self.sent, b"web-1 | 1\n")

    def test_removed_before_its_end(self) -> None:
        """A log that is removed is over, even if its instance is still ending."""
        self.write(b"1\nno newline")
        sending = self.send(follow=True, timestamps=True)
        self.now(self.client.removing("web-1"))
        self.client.wake("web-1")
        self.successResultOf(sending)
        self.assertIn(b"no newline\n", self.sent)

    def test_merged(self) -> None:
        """Lines of several instances are sent by their times, followed ones too."""
        other = self.make_instance("db-1")
        for text, instance in ((b"1\n2\n", self.instance), (b"3\n", other), (b"4", self.instance)):
            self.write(text, instance=instance)
        both: dict[str, Any] = {"instances": [self.instance, other], "names": True}
        self.successResultOf(self.send(**both))
        self.assertEqual(self.sent, b"web-1 | 1\nweb-1 | 2\ndb-1 | 3\nweb-1 | 4\n")
        self.consumer.written.clear()
        sending = self.send(lines=0, follow=True, **both)
        self.write(b"5\n")
        self.write(b"6\n", instance=other)
        self.assertEqual(self.sent, b"web-1 | 5\ndb-1 | 6\n")
        other.ended = True
        self.end()
        self.successResultOf(sending)
