"""Logs: their last lines, what is read across a cut, and the bound that is kept."""

import os
import threading
from contextlib import closing
from types import SimpleNamespace
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred

from tests.fakes import FakeConsumer, MachineTestCase
from tests.support import make_spec
from txcontain import kernel, logs
from txcontain.kernel import Kernel
from txcontain.logs import BLOCK, Bounds, Cursor, Reader

LOG = st.lists(st.sampled_from([b"", b"a", b"long" * 10, b"\n", b"\n\n"])).map(b"".join)


class HoleKernel(Kernel):
    """One whose file systems can't take a range out of a file."""

    def cut_off(self, descriptor, offset, length):
        with patch.object(kernel, "COLLAPSE_RANGE", -1):
            return super().cut_off(descriptor, offset, length)


class LogTestCase(MachineTestCase):
    """A test of the logs of an instance that is but a spec and a folder."""

    def setUp(self):
        super().setUp()
        self.instance = SimpleNamespace(
            name="web-1", spec=make_spec(log_max_size=BLOCK, log_max_files=2),
            ended=False, ending=False,
            folder=self.folder, path=lambda name: os.path.join(self.folder, name),
        )  # fmt: skip
        self.path = self.instance.path("stdout")
        self.bounds = Bounds(self.reactor, Kernel(), maybeDeferred)
        self.addCleanup(self.bounds.stop)

    def write(self, *blocks, stream="stdout"):
        """The container writes."""
        with open(self.instance.path(stream), "ab") as file:
            file.writelines(blocks)

    def on_disk(self):
        """How many bytes the log takes on the disk."""
        return os.stat(self.path).st_blocks * 512

    def cursor(self, place=0):
        """A place in the log."""
        cursor = Cursor(self.bounds.log(self.instance, "stdout"), place)
        self.addCleanup(cursor.close)
        return cursor

    def read_all(self, place=0):
        """What is there of a log from a place on."""
        return b"".join(iter(self.cursor(place).read, b""))

    def last_lines(self, lines):
        """A place before the last lines of a log."""
        cursor = self.cursor()
        newlines = cursor.go_to_end(lines)
        while newlines:
            newlines = cursor.look_back(newlines)
        return cursor

    def held_open(self):
        """How many descriptors there are of the log's file."""
        mine = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        paths = [os.readlink(path) for path in mine if os.path.lexists(path)]
        return sum(path.startswith(self.path) for path in paths)


class LastLinesTests(LogTestCase):
    """The end of a log, by lines."""

    @given(LOG, st.integers(0, 10), st.integers(1, 7))
    def test_reference(self, content, lines, block):
        """Whatever the log and the size of a read, these are its last lines and no more."""
        with open(self.path, "wb") as file:
            file.write(content)
        self.patch(logs, "BLOCK", block)
        self.patch(logs, "LONGEST_LOOK", 2 * block)
        all_lines = content.splitlines(keepends=True)
        kept = b"".join(all_lines[max(0, len(all_lines) - lines) :])
        with closing(self.last_lines(lines)) as cursor:
            self.assertEqual(b"".join(iter(cursor.read, b"")), kept)

    def allow(self, most, name):
        """Let a function of os be called so many times at most from now on."""
        calls, function = [], getattr(os, name)

        def counted(*arguments):
            calls.append(arguments)
            self.assertLessEqual(len(calls), most, name)
            return function(*arguments)

        self.patch(os, name, counted)

    def test_hole(self):
        """A hole is not read, however long it is."""
        self.write(b"1\n2\n")
        os.truncate(self.path, 4 << 40)
        self.allow(10, "pread")
        self.allow(200, "lseek")
        self.assertEqual([self.last_lines(lines).place for lines in (0, 1, 2, 9)],
                         [4 << 40, 4, 2, 0])  # fmt: skip

    def test_islands(self):
        """Nor are many holes: the lines between them are found all the same."""
        with open(self.path, "wb") as file:
            for island in range(1, 100):
                file.seek((island << 30) - 2)
                file.write(b"x\n")
        self.allow(400, "pread")
        self.assertEqual([self.last_lines(lines).place >> 30 for lines in (1, 50, 98, 99)],
                         [98, 49, 1, 0])  # fmt: skip

    def test_a_look_is_short(self):
        """So that no one holds up others, no look back reads more than a few blocks."""
        self.patch(logs, "LONGEST_LOOK", 2 * BLOCK)
        self.write(bytes(5 * BLOCK))
        cursor = self.cursor()
        self.assertEqual(cursor.go_to_end(1), 1)
        self.allow(2, "pread")
        self.assertEqual(cursor.look_back(1), 1)
        self.assertEqual(cursor.place, 3 * BLOCK)


class CutTests(LogTestCase):
    """A log that is too long loses its oldest part, in place."""

    BLOCKS = [bytes([letter]) * BLOCK for letter in b"abcdefgh"]  # noqa: RUF012 (never changed)

    def test_short(self):
        """A log within its bound is left as it is."""
        self.write(*self.BLOCKS[:2])
        self.bounds.check(self.instance)
        self.assertEqual(self.read_all(), b"".join(self.BLOCKS[:2]))

    def test_cut(self):
        """A longer one keeps its latest bytes, log_max_files times log_max_size at most."""
        for kind in (Kernel, HoleKernel):
            self.bounds = Bounds(self.reactor, kind(), maybeDeferred)
            self.write(*self.BLOCKS)
            self.bounds.check(self.instance)
            self.assertLessEqual(self.on_disk(), 2 * BLOCK)
            self.assertEqual(self.read_all(), b"".join(self.BLOCKS[6:]))
            os.unlink(self.path)

    def test_write_goes_on(self):
        """Whoever has the log open for appending writes on to its end."""
        with open(self.path, "ab", buffering=0) as file:
            for block in self.BLOCKS:
                file.write(block)
                self.bounds.check(self.instance)
                self.assertLessEqual(self.on_disk(), 2 * BLOCK)
        self.assertEqual(self.read_all(), b"".join(self.BLOCKS[6:]))

    def test_reader_across_a_cut(self):
        """Who had read a part goes on where it was, or where the log begins now; nothing twice."""
        for kind in (Kernel, HoleKernel):
            self.bounds = Bounds(self.reactor, kind(), maybeDeferred)
            self.write(*self.BLOCKS[:4])
            cursor = self.cursor()
            cursor.read()
            one_read = cursor.place
            three_read = 3 * BLOCK
            self.bounds.check(self.instance)
            self.assertEqual(self.read_all(one_read), b"".join(self.BLOCKS[2:4]))
            self.assertEqual(self.read_all(three_read), self.BLOCKS[3])
            self.write(*self.BLOCKS[4:6])
            self.bounds.check(self.instance)
            self.assertEqual(self.read_all(three_read), b"".join(self.BLOCKS[4:6]))
            os.unlink(self.path)

    def test_cut_while_it_is_read(self):
        """A cut in the middle of a read takes nothing from it."""
        lseek, cuts = os.lseek, [self.bounds.check]

        def seek(*arguments):
            place = lseek(*arguments)
            if cuts:
                cuts.pop()(self.instance)
            return place

        self.write(*self.BLOCKS[:4])
        self.patch(os, "lseek", seek)
        self.assertEqual(self.cursor(3 * BLOCK).read(), self.BLOCKS[3])
        self.assertEqual(cuts, [])

    def test_cut_half_done(self):
        """Who looks when the file is cut, and that is not counted yet, waits until it is."""
        cursor, looked, blocks = self.cursor(3 * BLOCK), threading.Event(), []
        reader = threading.Thread(target=lambda: blocks.append(cursor.read()))

        class SlowKernel(Kernel):
            def cut_off(self, *arguments):
                moved = super().cut_off(*arguments)
                reader.start()
                looked.wait(10)
                return moved

        def pread(*arguments):
            block = read(*arguments)
            looked.set()
            return block

        read = os.pread
        self.patch(os, "pread", pread)
        self.write(*self.BLOCKS[:4])
        self.bounds.kernel = SlowKernel()
        self.bounds.check(self.instance)
        reader.join(10)
        self.assertEqual(blocks, self.BLOCKS[3:4])

    def test_last_lines_after_a_cut(self):
        """The last lines are found in what is left."""
        for kind in (Kernel, HoleKernel):
            self.bounds = Bounds(self.reactor, kind(), maybeDeferred)
            self.write(*self.BLOCKS[:4], b"\none\ntwo\n")
            self.bounds.check(self.instance)
            self.assertEqual(self.last_lines(2).read(), b"one\ntwo\n")
            os.unlink(self.path)

    def test_one_more_byte(self):
        """A log a byte over its bound loses one part, not all."""
        self.write(*self.BLOCKS[:2], b"x")
        self.bounds.check(self.instance)
        self.assertEqual(self.read_all(), self.BLOCKS[1] + b"x")

    def test_all_hole(self):
        """A log that is nothing but a hole, or of which a cut leaves nothing else, is emptied."""
        for kind in (Kernel, HoleKernel):
            for before in (b"", b"hello\n"):
                self.bounds = Bounds(self.reactor, kind(), maybeDeferred)
                self.write(before)
                os.truncate(self.path, 4 << 40)
                self.bounds.check(self.instance)
                self.assertEqual(os.stat(self.path).st_size, 0)
                self.write(b"on\n")
                self.assertEqual(self.read_all(), b"on\n")
                os.unlink(self.path)

    def test_islands(self):
        """Of data scattered over a log of holes what is within the bound of its end is left."""
        for kind in (Kernel, HoleKernel):
            self.bounds = Bounds(self.reactor, kind(), maybeDeferred)
            with open(self.path, "wb") as file:
                for island in range(100):
                    file.seek(island << 30)
                    file.write(b"lost\n")
            self.write(b"\n", *self.BLOCKS[:1], b"\nkept\n")
            self.bounds.check(self.instance)
            with open(self.path, "rb") as file:
                first = os.lseek(file.fileno(), 0, os.SEEK_DATA)
            self.assertLessEqual(os.stat(self.path).st_size - first, 3 * BLOCK)
            self.assertLessEqual(self.on_disk(), 3 * BLOCK)
            self.assertTrue(self.read_all().endswith(b"\nkept\n"))
            os.unlink(self.path)

    def test_removed(self):
        """What is known of the logs of an instance goes with it."""
        self.write(*self.BLOCKS)
        self.bounds.check(self.instance)
        self.bounds.removed(self.instance)
        self.assertEqual(self.bounds._logs, {})

    def test_no_log(self):
        """A log that is not there has nothing in it."""
        self.assertEqual(self.bounds.check(self.instance), 0)
        self.assertEqual(self.last_lines(5).place, 0)
        self.assertEqual(self.read_all(), b"")

    def test_symbolic_link(self):
        """A link in place of a log is not followed."""
        other = os.path.join(self.folder, "other")
        with open(other, "wb") as file:
            file.writelines(self.BLOCKS)
        os.symlink(other, self.path)
        self.assertRaises(OSError, self.bounds.check, self.instance)
        self.assertEqual(os.stat(other).st_size, 8 * BLOCK)


class WatchTests(LogTestCase):
    """When the bound is looked after."""

    def setUp(self):
        super().setUp()
        self.checks, self.grown = [], 0
        self.bounds.start()
        self.patch(Bounds, "check", lambda _, instance: self.check())

    def check(self):
        """Take note of a look, and say how much was written since the last."""
        self.checks.append(self.reactor.seconds())
        return self.grown

    def watch(self):
        """Begin to watch, and forget the look that comes with it."""
        self.bounds.watch(self.instance)
        self.checks.clear()

    def told(self):
        """The kernel tells of what was written."""
        for reader in list(self.reactor.readers):
            reader.doRead()

    def test_written_before(self):
        """What was written before the watch began is looked at with it."""
        self.write(b"x")
        self.bounds.watch(self.instance)
        self.assertEqual(self.checks, [0])

    def test_silent(self):
        """As long as nothing is written nothing is looked at again."""
        self.watch()
        self.reactor.advance(100)
        self.assertEqual((self.checks, self.reactor.getDelayedCalls()), ([], []))

    def test_writes(self):
        """A write is followed by a look soon; one who goes on writing is looked at on and on."""
        self.write(b"")
        self.watch()
        self.write(b"x")
        self.told()
        self.grown = 1 << 20
        self.reactor.pump([0.1] * 10)
        self.assertEqual(len(self.checks), 10)

    def test_writes_no_more(self):
        """Who has stopped to write costs nothing again, until it writes again."""
        self.write(b"")
        self.bounds.watch(self.instance)
        for _ in range(2):
            self.checks, self.grown = [], 0
            self.write(b"x")
            self.told()
            self.reactor.pump([0.1] * 100)
            self.assertTrue(0 < len(self.checks) < 10)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_ended(self):
        """With the end comes a last look, and none after it."""
        self.write(b"")
        self.watch()
        self.write(b"x")
        self.told()
        self.bounds.forget(self.instance)
        self.reactor.advance(10)
        self.assertEqual(self.checks, [0])
        self.write(b"x")
        self.told()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop(self):
        """A manager that ends leaves no watch and no call."""
        self.write(b"")
        self.bounds.watch(self.instance)
        self.write(b"x")
        self.told()
        self.bounds.stop()
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))


class ReaderTests(LogTestCase):
    """Who asks for logs."""

    def setUp(self):
        super().setUp()
        self.consumer = FakeConsumer()

    def send(self, lines=None, follow=False, streams=("stdout", "stderr")):
        """Begin to send logs."""
        reader = Reader(self.consumer, reactor=self.reactor, bounds=self.bounds,
                        instance=self.instance, streams=streams)  # fmt: skip
        return self.start(reader.send(lines, follow))

    @property
    def sent(self):
        """What was sent so far."""
        return b"".join(self.consumer.written)

    def test_all(self):
        """All of a log is sent, however long, and that is the end."""
        content = b"0123456\n" * 30_000
        self.write(content)
        self.successResultOf(self.send())
        self.assertEqual(self.sent, content)
        self.assertIsNone(self.consumer.producer)

    def test_streams(self):
        """Both streams are sent, or the one that is asked for."""
        self.write(b"out\n")
        self.write(b"err\n", stream="stderr")
        self.send()
        self.assertEqual(self.sent, b"out\nerr\n")
        self.consumer.written.clear()
        self.send(streams=("stderr",))
        self.assertEqual(self.sent, b"err\n")

    def test_last_lines(self):
        """The last lines of each stream are sent."""
        self.write(b"1\n2\n3\n")
        self.write(b"4\n5", stream="stderr")
        self.send(lines=1)
        self.assertEqual(self.sent, b"3\n5")

    def test_follow(self):
        """Who follows gets what is written, soon after, until the instance has ended."""
        self.write(b"1\n")
        sending = self.send(follow=True)
        self.write(b"2\n")
        self.reactor.advance(0.1)
        self.assertEqual(self.sent, b"1\n2\n")
        self.write(b"3\n")
        self.instance.ended = True
        self.reactor.advance(0.1)
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"1\n2\n3\n")

    def test_follow_across_a_cut(self):
        """Who follows loses nothing when the log is cut behind it."""
        sending = self.send(follow=True)
        for letter in b"abcdefgh":
            self.write(bytes([letter]) * BLOCK)
            self.reactor.advance(0.1)
            self.bounds.check(self.instance)
        self.instance.ended = True
        self.reactor.advance(0.1)
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"".join(CutTests.BLOCKS))

    def test_follow_across_a_shortening(self):
        """Who follows a log that its container empties goes on at its beginning."""
        sending = self.send(follow=True)
        self.write(b"long ago\n")
        self.reactor.advance(0.1)
        for words in (b"1\n", b"2\n"):
            os.truncate(self.path, 0)
            self.write(words)
            self.reactor.advance(0.1)
            self.write(b"on\n")
            self.reactor.advance(0.1)
        os.truncate(self.path, 0)
        self.reactor.advance(0.1)
        self.write(b"as long again\n")
        self.instance.ended = True
        self.reactor.advance(0.1)
        self.successResultOf(sending)
        self.assertEqual(self.sent, b"long ago\n1\non\n2\non\nas long again\n")

    def test_follow_to_the_end(self):
        """Who follows gets the last words too, when the folder is removed before it looks."""
        for kind in (Kernel, HoleKernel):
            self.instance.ended, self.bounds.kernel = False, kind()
            self.consumer.written.clear()
            self.write(*CutTests.BLOCKS[:3])
            self.bounds.check(self.instance)
            sending = self.send(follow=True)
            self.consumer.written.clear()
            self.write(b"last\n")
            self.instance.ended = True
            os.unlink(self.path)
            self.bounds.removed(self.instance)
            self.reactor.advance(0.1)
            self.successResultOf(sending)
            self.assertEqual(self.sent, b"last\n")

    def test_descriptors(self):
        """Between two looks a reader holds its logs open, and no longer than it reads them."""
        self.write(b"1\n")
        sending = self.send(follow=True)
        self.reactor.advance(0.1)
        self.assertEqual(self.held_open(), 1)
        self.consumer.producer.stopProducing()
        self.reactor.advance(0.1)
        self.successResultOf(sending)
        self.patch(Cursor, "_go", lambda *_: 1 / 0)
        self.failureResultOf(self.send(), ZeroDivisionError)
        self.assertEqual((self.held_open(), self.bounds.readers), (0, 0))

    def test_crowd(self):
        """Of very many readers none holds a log open, and each gets all the same."""
        self.patch(logs, "MOST_HOLDING", 2)
        self.write(b"1\n")
        for _ in range(5):
            self.send(follow=True)
        self.write(b"2\n")
        self.reactor.advance(0.1)
        self.assertEqual((self.sent.count(b"1"), self.sent.count(b"2")), (5, 5))
        self.assertEqual(self.held_open(), 0)
        self.instance.ended = True
        self.reactor.advance(0.1)

    def test_gone(self):
        """Who is gone is not sent to any more."""
        sending = self.send(follow=True)
        self.consumer.producer.stopProducing()
        self.write(b"1\n")
        self.reactor.advance(0.1)
        self.successResultOf(sending)
        self.assertEqual((self.sent, self.reactor.getDelayedCalls()), (b"", []))

    def test_gone_while_lines_are_looked_for(self):
        """For who is gone no more lines are looked for."""
        self.patch(logs, "LONGEST_LOOK", BLOCK)
        self.write(bytes(9 * BLOCK))
        look_back, looks = Cursor.look_back, []

        def look(cursor, newlines):
            looks.append(newlines)
            self.consumer.producer.stopProducing()
            return look_back(cursor, newlines)

        self.patch(Cursor, "look_back", look)
        self.successResultOf(self.send(lines=1, streams=("stdout",)))
        self.assertEqual((looks, self.sent), ([1], b""))

    def test_paused(self):
        """Who has had enough gets nothing until it takes more, and then all."""
        sending = self.send(follow=True)
        self.consumer.producer.pauseProducing()
        self.write(b"1\n")
        self.reactor.advance(10)
        self.assertEqual(self.sent, b"")
        self.consumer.producer.resumeProducing()
        self.assertEqual(self.sent, b"1\n")
        self.consumer.producer.stopProducing()
        self.reactor.advance(0.1)
        self.successResultOf(sending)

    def test_unreadable(self):
        """Where a log can't be read the consumer is let go, with the error for whoever asked."""
        self.write(b"1\n")
        self.patch(Cursor, "read", lambda *_: 1 / 0)
        self.failureResultOf(self.send(), ZeroDivisionError)
        self.assertIsNone(self.consumer.producer)
