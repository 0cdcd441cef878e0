"""Logs: what the log process writes and keeps within its bound, and what is read of that."""

import os
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from tests.fakes import FakeConsumer, MachineTestCase, make_folder, write_log
from tests.support import make_spec
from txcontain.errors import InvalidData
from txcontain.logs import logd, segments
from txcontain.logs.log_process import CONNECT_AGAIN, DRAIN_WITHIN, LogProcess
from txcontain.logs.logd import LOG, RECORD, STREAMS, Log
from txcontain.logs.reader import MOST_HELD, Reader, Source, read_moment, timestamp
from txcontain.logs.segments import EVERYTHING, Lines, Piece, Place, Wanted

# What a container writes: pieces of a stream each. One that is no text has its writer killed.
PIECES = st.lists(
    st.tuples(
        st.sampled_from([0, 1]), st.sampled_from([b"", b"a", b"long" * 99, b"\n", b"b\n\nc"])
    ),
    max_size=60,
)


class LogTestCase(MachineTestCase):
    """A test of logs in a temporary folder, which a pipe is written into."""

    def setUp(self) -> None:
        super().setUp()
        self.log_folder = os.path.join(self.folder, LOG)
        self.pipe, self.into = os.pipe2(os.O_NONBLOCK)
        self.addCleanup(os.close, self.pipe)
        self.addCleanup(os.close, self.into)

    def on_disk(self) -> Any:
        """How many bytes the files of the log have."""
        return sum(entry.stat().st_size for entry in os.scandir(self.log_folder))

    def move(self, log: Any, data: Any, stream: int = 0) -> None:
        """A container writes, and the log process moves it."""
        while data:
            data = data[os.write(self.into, data) :]
            try:
                while log.take(self.pipe, stream):
                    pass
            except BlockingIOError:
                pass

    def read_all(
        self, place: Any = segments.BEGINNING, wanted: Any = EVERYTHING, folder: Any = None
    ) -> Any:
        """All pieces that are there from a place on."""
        folder = folder or self.log_folder
        found: list[Any] = []
        last = segments.end(folder)
        while True:
            pieces, place = segments.read(folder, place, last, wanted)
            if not pieces:
                return found
            found += pieces


def text_of(pieces: Any) -> Any:
    """The bytes of pieces."""
    return b"".join(piece.data for piece in pieces)


class WritingTests(LogTestCase):
    """What the log process makes of pieces."""

    @given(PIECES, st.integers(0, 60), st.integers(100, 3000))
    @settings(max_examples=60)
    def test_reference(self, pieces: Any, killed_at: Any, most: Any) -> None:
        """The newest pieces are there in their order, in no more bytes than the bound."""
        self.log_folder = os.path.join(make_folder(self), LOG)
        all_of_it = b""
        with patch.object(logd, "LEAST_SEGMENT", 100):
            log = Log(self.log_folder, most)
            for number, (stream, data) in enumerate(pieces):
                if number == killed_at:
                    log.close()
                    log = Log(self.log_folder, most)
                self.move(log, data, stream)
                all_of_it += data
                if data:
                    self.assertLessEqual(self.on_disk(), most)
        log.close()
        kept = text_of(self.read_all())
        self.assertTrue(all_of_it.endswith(kept))
        if len(all_of_it) + len(pieces) * RECORD.size < most // 3:
            self.assertEqual(kept, all_of_it)

    def test_each_stream(self) -> None:
        """Each piece is known by its stream, and no time is before that of an earlier one."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for number in range(20):
            self.move(log, b"%d\n" % number, number % 2)
        pieces = self.read_all()
        self.assertEqual([piece.stream for piece in pieces], [0, 1] * 10)
        self.assertEqual(sorted(pieces, key=lambda one: one.time), pieces)
        self.assertEqual(
            text_of(self.read_all(wanted=Wanted(frozenset([1])))),
            b"".join(b"%d\n" % number for number in range(1, 20, 2)),
        )

    def test_bound_of_one_byte_pieces(self) -> None:
        """What says where pieces are counts as well, however small those are."""
        log = Log(self.log_folder, 8192)
        self.addCleanup(log.close)
        for number in range(5000):
            self.move(log, b"x", number % 2)
            self.assertLessEqual(self.on_disk(), 8192)
        self.assertGreater(len(text_of(self.read_all())), 200)

    def test_the_oldest_goes_first(self) -> None:
        """Before a segment is begun that would be too much, the oldest has gone, and no other."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for letter in b"abcdefghijklmnopqrst":
            self.move(log, bytes([letter]) * (1 << 16))
            self.assertLessEqual(self.on_disk(), 1 << 20)
        kept = text_of(self.read_all())
        self.assertGreaterEqual(len(kept), (1 << 20) * 7 // 8 - (1 << 17))
        self.assertEqual(kept[-1:], b"t")

    def test_killed_before_the_piece(self) -> None:
        """A record without its piece is none: the next one takes its place."""
        log = Log(self.log_folder, 1 << 20)
        self.move(log, b"1\n")
        log._add_record(time.time_ns(), 1)
        log.close()
        self.assertEqual(text_of(self.read_all()), b"1\n")
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        self.move(log, b"2\n", 0)
        self.assertEqual(
            [(one.stream, one.data) for one in self.read_all()], [(0, b"1\n"), (0, b"2\n")]
        )

    def test_full_disk(self) -> None:
        """Where the disk is full, what is in the pipe stays in it."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        self.move(log, b"1\n")
        os.write(self.into, b"2\n")
        with patch.object(os, "splice", side_effect=OSError(28, "full")):
            self.assertRaises(OSError, log.take, self.pipe, 0)
        with patch.object(os, "pwrite", return_value=7):
            self.assertRaises(OSError, log.take, self.pipe, 1)
        log.take(self.pipe, 0)
        self.assertEqual(text_of(self.read_all()), b"1\n2\n")

    def test_after_a_power_cut(self) -> None:
        """What does not fit together any more is left alone: a new segment is begun."""
        for spoil in (lambda data, _: os.truncate(data, 1), lambda _, index: os.unlink(index)):
            log = Log(self.log_folder, 1 << 20)
            for number in range(3):
                self.move(log, b"%d\n" % number, number % 2)
            log.close()
            spoil(*logd.paths(self.log_folder, logd.numbers(self.log_folder)[-1]))
            log = Log(self.log_folder, 1 << 20)
            self.addCleanup(log.close)
            self.move(log, b"after\n")
            self.assertTrue(text_of(self.read_all()).endswith(b"after\n"))

    def test_no_folder(self) -> None:
        """Where the instance has been removed, that is what is said."""
        log = Log(os.path.join(self.folder, "none", LOG), 1 << 20)
        self.assertRaises(FileNotFoundError, log.take, self.pipe, 0)


class ReadingTests(LogTestCase):
    """What is found in the segments."""

    @given(PIECES, st.integers(0, 10), st.integers(1, 9), st.sets(st.sampled_from([0, 1])))
    @settings(max_examples=60)
    def test_last_lines(self, pieces: Any, lines: Any, block: Any, streams: Any) -> None:
        """Whatever the log and the size of a read, these are its last lines and no more."""
        self.log_folder = os.path.join(make_folder(self), LOG)
        log = Log(self.log_folder, 1 << 16)
        with patch.object(logd, "LEAST_SEGMENT", 2000):
            for stream, data in pieces:
                self.move(log, data, stream)
        log.close()
        wanted = Wanted(frozenset(streams))
        all_lines = text_of(self.read_all(wanted=wanted)).splitlines(keepends=True)
        with patch.multiple(segments, LONGEST_READ=block, MOST_RECORDS=block, LONGEST_LOOK=block):
            last = segments.end(self.log_folder)
            (*_, place) = segments.look_back(self.log_folder, last, lines, wanted)
            found = text_of(self.read_all(place, wanted))
        self.assertEqual(found, b"".join(all_lines[max(0, len(all_lines) - lines) :]))

    @given(st.binary(max_size=8 * RECORD.size), st.binary(max_size=40))
    def test_nonsense(self, index: Any, data: Any) -> None:
        """No index is too odd to be read, in a time that its length bounds."""
        folder = make_folder(self)
        for path, content in zip(logd.paths(folder, 1), (data, index), strict=True):
            with open(path, "wb") as file:
                file.write(content)
        self.assertLessEqual(len(text_of(self.read_all(folder=folder))), len(data) * 8)
        list(segments.look_back(folder, segments.end(folder), 3, EVERYTHING))
        segments.last_words(folder, "stderr", 9)

    def test_times(self) -> None:
        """Only pieces from one time to another are read."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for second in range(10):
            with patch.object(time, "time_ns", return_value=second * 10**9):
                self.move(log, b"%d" % second)
        found = self.read_all(wanted=Wanted(since=3 * 10**9, until=6 * 10**9))
        self.assertEqual(text_of(found), b"3456")

    def test_removed_meanwhile(self) -> None:
        """Who reads goes on with the oldest segment that is still there."""
        log = Log(self.log_folder, 1 << 19)
        self.addCleanup(log.close)
        for letter in b"abcdefgh" * 2:
            self.move(log, bytes([letter]) * (1 << 16))
        left = self.read_all(Place(1, 7))
        self.assertEqual(text_of(left), text_of(self.read_all()))

    def test_last_words(self) -> None:
        """The last lines of one stream are told, as far as a bound goes."""
        self.assertEqual(segments.last_words(self.log_folder, "stderr", 100), "")
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for number in range(50):
            self.move(log, b"%d\n" % number, 1)
            self.move(log, b"not this\n", 0)
        self.assertEqual(
            segments.last_words(self.log_folder, "stderr", 1000).split(),
            [str(number) for number in range(50)],
        )
        self.assertEqual(segments.last_words(self.log_folder, "stderr", 8), "48\n49")

    def test_lines(self) -> None:
        """A line is whole though it came in pieces, and though the other stream came between."""
        lines = Lines()
        pieces = [Piece(1, 0, b"on"), Piece(2, 1, b"err\nmo"), Piece(3, 0, b"e\ntwo\n")]
        self.assertEqual(
            [(one.time, one.data) for one in lines.of(pieces)],
            [(2, b"err\n"), (1, b"one\n"), (3, b"two\n")],
        )
        self.assertEqual([one.data for one in lines.rest()], [b"mo\n"])
        long = [*lines.of([Piece(4, 0, b"x" * 200_000)] * 3)]
        self.assertEqual(len(long), 3)


class ReaderTestCase(LogTestCase):
    """A test of who reads the logs of instances that are but a spec and a folder."""

    def setUp(self) -> None:
        super().setUp()
        self.process = LogProcess(self.reactor, self.folder, self.folder, maybeDeferred)
        self.process.start()
        self.addCleanup(lambda: self.now(self.process.stop()))
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
        """The container writes; who follows is told."""
        instance = instance or self.instance
        write_log(instance, text, stream)
        if f"follow {instance.name}" in " ".join(self.reactor.log_process.told):
            self.reactor.log_process.say("grew", instance.name)

    def end(self) -> None:
        """The container ends."""
        self.instance.ended = True
        self.process.wake(self.instance.name)

    def send(
        self,
        lines: Any = None,
        follow: bool = False,
        instances: Any = (),
        wanted: Any = EVERYTHING,
        **looks: Any,
    ) -> Any:
        """Begin to send."""
        sources = [Source(self.process, one, wanted) for one in instances or [self.instance]]
        reader = Reader(self.consumer, reactor=self.reactor, sources=sources, **looks)
        return self.start(reader.send(lines, follow))

    @property
    def sent(self) -> Any:
        """All that was sent."""
        return b"".join(self.consumer.written)


class ReaderTests(ReaderTestCase):
    """A log, sent."""

    def test_what_is_there(self) -> None:
        """All is sent in its order, or the last lines, or one stream."""
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
        """What is still in the pipes is in the files before these are read."""
        self.process.adopt("tokenweb-1", "web-1", 1)
        self.reactor.log_process.silent = True
        sending = self.send()
        self.assertEqual(self.reactor.log_process.told[-1], "drain tokenweb-1")
        write_log(self.instance, b"just now\n")
        self.reactor.log_process.say("drained", "tokenweb-1")
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"just now\n")

    def test_no_log_process(self) -> None:
        """Where it does not answer, what is in the files is sent after some seconds."""
        self.process.adopt("tokenweb-1", "web-1", 1)
        self.reactor.log_process.silent = True
        write_log(self.instance, b"1\n")
        sending = self.send()
        self.reactor.advance(DRAIN_WITHIN)
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n")

    def test_follow(self) -> None:
        """Who follows gets what is written when it is, until the instance has ended."""
        self.write(b"1\n")
        sending = self.send(follow=True)
        self.write(b"2\n")
        self.assertEqual(self.sent, b"1\n2\n")
        write_log(self.instance, b"3\n")
        self.end()
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n2\n3\n")

    def test_end_while_it_is_sent(self) -> None:
        """Who follows is let go also where the end comes between two looks."""
        waiting: list[Any] = []

        def thread(function: Any, *arguments: Any) -> Any:
            if function is segments.read:
                waiting.append((Deferred(), arguments))
                return waiting[-1][0]
            return maybeDeferred(function, *arguments)

        self.process.threads = thread
        self.write(b"1\n")
        sending = self.send(follow=True)
        self.end()  # it reads now, and so waits for nothing that could be told
        while waiting:
            found, arguments = waiting.pop()
            found.callback(segments.read(*arguments))
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n")

    def test_quiet(self) -> None:
        """While nothing is written, nothing is done, held open, or due."""
        before = len(os.listdir("/proc/self/fd"))
        self.send(follow=True)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(self.reactor.log_process.told.count("follow web-1 0 0"), 1)
        self.end()

    def test_follow_until(self) -> None:
        """Who follows until a time is let go then."""
        with patch.object(time, "time_ns", return_value=10**9):
            sending = self.send(follow=True, wanted=Wanted(until=3 * 10**9))
        self.assertNoResult(sending)
        self.reactor.advance(2)
        self.successResultOf(sending)

    def test_new_log_process(self) -> None:
        """Who follows looks again where the log process was killed."""
        sending = self.send(follow=True)
        write_log(self.instance, b"meanwhile\n")
        self.reactor.log_process.lose()
        self.reactor.advance(0)
        self.assertEqual(self.sent, b"meanwhile\n")
        self.end()
        self.successResultOf(sending)

    def test_removed(self) -> None:
        """Who follows a log that is removed gets the rest of it, within a bound."""
        sending = self.send(follow=True)
        self.consumer.producer.pauseProducing()
        write_log(self.instance, b"last\n" * 10)
        self.now(self.process.removing("web-1"))
        for entry in os.scandir(self.instance.path(LOG)):
            os.unlink(entry)
        self.consumer.producer.resumeProducing()
        self.end()
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"last\n" * 10)
        source = Source(self.process, self.instance)
        for _ in range(40):
            write_log(self.instance, bytes(50_000))
        self.now(source.hold_rest())
        self.assertLess(len(text_of(source._held)), MOST_HELD + segments.LONGEST_READ)

    def test_gone(self) -> None:
        """Who is gone is not sent to any more, and nothing is kept for it."""
        for looks in ({}, {"timestamps": True}):
            sending = self.send(lines=0, follow=True, **looks)
            self.consumer.producer.stopProducing()
            self.write(b"1\n")
            self.successResultOf(sending)
            self.assertEqual((self.sent, self.reactor.getDelayedCalls()), (b"", []))
            self.assertEqual((dict(self.process._followers), dict(self.process.readers)), ({}, {}))

    def test_gone_while_lines_are_looked_for(self) -> None:
        """For who is gone no more lines are looked for."""
        for _ in range(4):
            write_log(self.instance, bytes(50_000))
        self.patch(segments, "LONGEST_LOOK", 1)
        looks = []

        def thread(function: Any, *arguments: Any) -> Any:
            if function is next:
                looks.append(function)
                self.consumer.producer.stopProducing()
            return maybeDeferred(function, *arguments)

        self.process.threads = thread
        self.successResultOf(self.send(lines=1))
        self.assertEqual((len(looks), self.sent), (1, b""))

    def test_paused(self) -> None:
        """Who has had enough gets nothing until it takes more, and then all."""
        sending = self.send(follow=True)
        self.consumer.producer.pauseProducing()
        self.write(b"1\n")
        self.assertEqual(self.sent, b"")
        self.consumer.producer.resumeProducing()
        self.assertEqual(self.sent, b"1\n")
        self.end()
        self.successResultOf(sending)

    def test_unreadable(self) -> None:
        """Where a log can't be read the consumer is let go, with the error for whoever asked."""
        self.patch(segments, "read", lambda *_: 1 / 0)
        self.failureResultOf(self.send(), ZeroDivisionError)
        self.assertIsNone(self.consumer.producer)

    def test_merged(self) -> None:
        """Lines of several instances are sent by their times, also those that follow."""
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


class MomentTests(LogTestCase):
    """Times, read and written."""

    def test_moments(self) -> None:
        """A moment or a duration is read, to the nanosecond."""
        now = 1_000_000 * 10**9
        for text, wanted in (
            ("1970-01-01T00:00:01Z", 10**9),
            ("1970-01-01t00:00:01.5z", 1_500_000_000),
            ("1970-01-01T01:00:00.000000001+01:00", 1),
            ("1970-01-01 01:00:00 01:00", 0),
            ("1969-01-01T00:00:00Z", 0),
            ("90s", now - 90 * 10**9),
            ("1h30m", now - 5400 * 10**9),
            ("9999d", 0),
        ):
            self.assertEqual(read_moment("since", text, now), wanted, text)

    def test_none(self) -> None:
        """What is none is refused, with what would be one."""
        for text in (
            "",
            "10",
            "m",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-02-30T00:00:00Z",
            "1970-01-01T25:00:00Z",
            "yesterday",
            "-1s",
            "1e9s",
            "\u0661s",
            "1970-01-01T00:00:00+99:99",
        ):
            error = self.assertRaises(InvalidData, read_moment, "since", text, 0)
            self.assertIn("since must be a time such as", str(error))

    @given(st.integers(0, 1 << 62))
    def test_there_and_back(self, moment: Any) -> None:
        """What is written is read as the same."""
        self.assertEqual(read_moment("since", timestamp(moment), 0), moment)


class ProcessTests(MachineTestCase):
    """The manager's side of the log process."""

    def setUp(self) -> None:
        super().setUp()
        self.process = LogProcess(self.reactor, self.folder, self.folder, maybeDeferred)
        self.process.start()
        self.other = self.reactor.log_process

    def test_told_again(self) -> None:
        """Another log process is told all that the one before it knew, and what it was to do."""
        self.assertEqual(self.successResultOf(self.process.open("a")), "")
        self.process.name("a", "web-1", 100)
        self.process.open("b")
        self.other.silent = True
        closing = self.start(self.process.close("a"))
        draining = self.start(self.process.settle("b"))
        self.other.lose()
        self.other.told.clear()
        self.other.silent = False
        self.reactor.advance(0)
        self.assertEqual(
            self.other.told,
            [
                "sync a b",
                "open a",
                "name a web-1 100",
                "close a",
                "open b",
                "drain b",
            ],
        )
        self.successResultOf(closing)
        self.successResultOf(draining)
        self.other.lose()
        self.reactor.advance(0)
        self.assertIn("sync b", self.other.told)

    def test_closed_at_once(self) -> None:
        """What has no pipes has nothing to close or to wait for."""
        self.now(self.process.close("none"))
        self.now(self.process.settle("none"))

    def test_closed_twice(self) -> None:
        """Two who close the same pipes are both told."""
        self.process.open("a")
        self.other.silent = True
        closing = [self.start(self.process.close("a")) for _ in range(2)]
        self.assertEqual(self.other.told.count("close a"), 1)
        self.other.say("closed", "a")
        for one in closing:
            self.successResultOf(one)

    def test_refused(self) -> None:
        """Why pipes can't be held is told."""
        self.other.silent = True
        opening = self.process.open("a")
        self.other.say("failed", "a", "Too many open files")
        self.assertEqual(self.successResultOf(opening), "Too many open files")

    def test_started(self) -> None:
        """Where there is none it is started, and looked for until it is found."""
        self.reactor.connects = False
        connect = self.other.connect
        self.other.connect = lambda factory: factory.clientConnectionFailed(
            None, Failure(ConnectionRefusedError())
        )
        self.other.lose()
        for _ in range(20):
            self.reactor.advance(CONNECT_AGAIN)
        self.assertEqual(len(self.reactor.spawned), 1)
        self.other.connect = connect
        self.reactor.advance(CONNECT_AGAIN)
        self.assertIsNotNone(self.other.connection)
        self.assertEqual(STREAMS, ("stdout", "stderr"))
