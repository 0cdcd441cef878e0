"""What the log process writes, within its bound."""

import contextlib
import errno
import os
import socket
import threading
import time
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import MachineTestCase, make_folder
from tests.logs.case import PIECES, LogTestCase, text_of
from txcontain.logs import logd
from txcontain.logs.logd import LOG, RECORD, STREAMS, Kept, Log, Partner, Server, Slots, hold
from txcontain.logs.segments import Wanted


class WritingTests(LogTestCase):
    """What the log process does with pieces."""

    @given(PIECES, st.integers(0, 60), st.integers(100, 3000))
    @settings(max_examples=60)
    def test_reference(self, pieces: Any, killed_at: Any, most: Any) -> None:
        """The newest pieces are there in order, within the bound."""
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
        """Each piece has its stream, and the times don't go back."""
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
        """The index counts too, however small the pieces are."""
        log = Log(self.log_folder, 8192)
        self.addCleanup(log.close)
        for number in range(5000):
            self.move(log, b"x", number % 2)
            self.assertLessEqual(self.on_disk(), 8192)
        self.assertGreater(len(text_of(self.read_all())), 200)

    def test_the_oldest_goes_first(self) -> None:
        """Before a segment begins that would exceed the bound, only the oldest is removed."""
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for letter in b"abcdefghijklmnopqrst":
            self.move(log, bytes([letter]) * (1 << 16))
            self.assertLessEqual(self.on_disk(), 1 << 20)
        kept = text_of(self.read_all())
        self.assertGreaterEqual(len(kept), (1 << 20) * 7 // 8 - (1 << 17))
        self.assertEqual(kept[-1:], b"t")

    def test_killed_before_the_piece(self) -> None:
        """A record without its piece is overwritten by the next one."""
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

    def test_killed_while_it_removes(self) -> None:
        """Nothing of an old segment stays if the process is killed when half of it is removed."""
        real = os.unlink

        def unlink_and_die(path: str) -> None:
            real(path)
            raise KeyboardInterrupt

        log = Log(self.log_folder, 1 << 20)
        with patch.object(os, "unlink", unlink_and_die), self.assertRaises(KeyboardInterrupt):
            for _ in range(20):
                self.move(log, b"x" * (1 << 16))
        log.close()
        log = Log(self.log_folder, 1 << 20)
        self.addCleanup(log.close)
        for _ in range(2):
            self.move(log, b"y" * (1 << 16))
        kept = [
            path
            for number in logd.numbers(self.log_folder)
            for path in logd.paths(self.log_folder, number)
        ]
        self.assertEqual(sorted(os.listdir(self.log_folder)), sorted(map(os.path.basename, kept)))

    def test_full_disk(self) -> None:
        """If the disk is full, what is in the pipe stays there."""
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
        """If a segment's files don't match, they are left alone and a new segment begins."""
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
        """If the instance was removed, the error says so."""
        log = Log(os.path.join(self.folder, "none", LOG), 1 << 20)
        self.assertRaises(FileNotFoundError, log.take, self.pipe, 0)


PATIENCE = 30  # seconds, for what takes milliseconds
SIZE = 1 << 20


class ServerCase(MachineTestCase):
    """The log process, in a thread of the test's process."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(logd, "TRY_AGAIN", 0.01)
        self.instances = os.path.join(self.folder, "instances")
        os.makedirs(os.path.join(self.instances, "web"))
        self.writers = {token: self.make_slot(token) for token in ("a", "b")}
        self.listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listener.close)
        self.listener.bind("")  # any name
        self.listener.listen()
        self.slots: Slots = {}
        self.kept: Kept = {}
        self.begin()
        self.manager = self.connect()

    def make_slot(self, token: str) -> list[int]:
        """Make the FIFOs of a slot; return the ends that a container writes to."""
        slot = os.path.join(self.folder, "slots", token)
        os.makedirs(slot)
        paths = [os.path.join(slot, stream) for stream in STREAMS]
        for path in paths:
            os.mkfifo(path)
        return [os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in paths]

    def write(self, text: bytes) -> None:
        """A container writes to its stdout."""
        os.write(self.writers["a"][0], text)

    def end(self, token: str) -> None:
        """A container ends."""
        for writer in self.writers.pop(token):
            os.close(writer)

    def begin(self) -> None:
        """A server begins, with the slots that its holder has held."""
        ours, self.holder = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held = self.slots, self.kept
        self.server = Server(self.folder, self.instances, self.listener, *held, Partner(ours))
        self.slots = {}  # those of the holder
        self.kept = {key: os.dup(descriptor) for key, descriptor in self.kept.items()}
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()
        for cleanup in (self.holder.close, ours.close, self.kill):
            self.addCleanup(cleanup)

    def connect(self) -> Any:
        """A manager."""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(PATIENCE)
        connection.connect(self.listener.getsockname())
        return connection

    def tell(self, *lines: str) -> None:
        """Tell the server something."""
        self.manager.sendall(b"".join(line.encode() + b"\n" for line in lines))

    def assert_said(self, *lines: str) -> None:
        """Fail unless this is what the server says next."""
        wanted = b"".join(line.encode() + b"\n" for line in lines)
        said = b""
        while len(said) < len(wanted) and (data := self.manager.recv(len(wanted) - len(said))):
            said += data
        self.assertEqual(said, wanted)

    def assert_hung_up(self, connection: Any) -> None:
        """Fail unless the server has closed a connection."""
        self.assertEqual(connection.recv(1), b"")

    def assert_log(self, text: bytes) -> None:
        """Fail unless the instance's log has this text."""
        folder = os.path.join(self.instances, "web", LOG)
        self.assertEqual(b"".join(self.contents(folder)), text)

    def contents(self, folder: str) -> Any:
        """What is in each segment."""
        for number in logd.numbers(folder):
            with open(logd.paths(folder, number)[0], "rb") as file:
                yield file.read()

    def has_ended(self) -> bool:
        """Whether the server ends; the holder has been told all until then."""
        ended = not hold(self.holder, self.slots, self.kept)
        self.kill()
        return ended

    def kill(self) -> None:
        """End the thread of the server, if it has not ended itself."""
        with contextlib.suppress(OSError):
            self.holder.shutdown(socket.SHUT_WR)
        self.thread.join(PATIENCE)
        self.assertFalse(self.thread.is_alive())

    def leave(self) -> None:
        """The server is killed: what the holder has is all that is left."""
        self.kill()
        self.server.leave()
        self.server.partner.connection.close()
        self.assertTrue(hold(self.holder, self.slots, self.kept))
        for slot in self.server.slots.values():
            slot.close()
        for descriptor in self.server.kept.values():
            os.close(descriptor)


class ServerTests(ServerCase):
    """What it does for a manager."""

    def test_life(self) -> None:
        """A slot is opened, read once it has a name, and closed when all is in the log."""
        self.write(b"one\n")
        self.tell("open a", "open a", f"name a web {SIZE}", f"name a other {SIZE}", "drain a")
        self.assert_said("opened a", "opened a", "drained a")
        self.assert_log(b"one\n")
        self.write(b"two\n")
        self.tell("close a", "close a", f"name a web {SIZE}")
        self.assert_said("closed a", "closed a")
        self.assert_log(b"one\ntwo\n")
        self.manager.close()
        self.assertTrue(self.has_ended())
        self.assertEqual(self.slots, {})

    def test_terminal(self) -> None:
        """What comes from a terminal is in the log, also what came while nobody read it."""
        master, slave = os.openpty()
        self.tell("open a")
        self.assert_said("opened a")
        socket.send_fds(self.manager, [b"terminal a\n"], [master])
        os.close(master)
        self.tell("drain a")
        self.assert_said("drained a")
        os.write(slave, b"one\n")
        self.tell(f"name a web {SIZE}", "drain a")
        self.assert_said("drained a")
        self.assert_log(b"one\r\n")
        self.leave()
        os.write(slave, b"two\n")
        self.begin()
        self.manager = self.connect()
        self.tell("sync a", "lend a")
        said, (lent,), _, _ = socket.recv_fds(self.manager, 100, 1)
        self.assertEqual(said, b"lent a 1\n")
        os.close(lent)
        os.write(slave, b"three\n")
        os.close(slave)  # then there is nobody to hear
        self.tell("drain a", "close a", "lend a")
        self.assert_said("drained a", "closed a", "lent a 0")
        self.assert_log(b"one\r\ntwo\r\nthree\r\n")

    def test_too_few_files(self) -> None:
        """If a terminal can't be read for want of descriptors, that is tried again later."""
        master, slave = os.openpty()
        self.addCleanup(os.close, slave)
        self.tell("open a", f"name a web {SIZE}")
        self.assert_said("opened a")
        open_file, failing = os.open, [OSError(errno.EMFILE, "Too many open files")]

        def open_or_fail(path: Any, *flags: Any, **more: Any) -> int:
            if str(path).startswith("/proc/self/fd/") and failing:
                raise failing.pop()
            return open_file(path, *flags, **more)

        self.patch(os, "open", open_or_fail)
        os.write(slave, b"one\n")
        socket.send_fds(self.manager, [b"terminal a\n"], [master])
        os.close(master)
        for _ in range(2):
            self.tell("drain a")
            self.assert_said("drained a")
        self.assertEqual(failing, [])
        self.assert_log(b"one\r\n")

    def test_closed_terminal(self) -> None:
        """One that nobody has open is looked at again later; a second one is not taken."""
        master, slave = os.openpty()
        name = os.ttyname(slave)
        os.close(slave)
        self.tell("open a", f"name a web {SIZE}")
        self.assert_said("opened a")
        for _ in range(2):
            socket.send_fds(self.manager, [b"terminal a\n"], [master])
        slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
        os.close(master)
        os.write(slave, b"again\n")
        self.tell("drain a")
        self.assert_said("drained a")
        self.assert_log(b"again\r\n")
        os.close(slave)
        self.tell("close a")
        self.assert_said("closed a")

    def test_silent(self) -> None:
        """A container that writes nothing takes no files."""
        self.tell("open a", f"name a web {SIZE}", "drain a", "close a")
        self.assert_said("opened a", "drained a", "closed a")
        self.assertEqual(os.listdir(os.path.join(self.instances, "web")), [])

    def test_follow(self) -> None:
        """Growth is announced once; at once if the log has grown already, or is no more."""
        self.tell("open a", f"name a web {SIZE}", "follow web 0 0", "drain a")
        self.assert_said("opened a", "drained a")
        self.write(b"one\n")
        self.assert_said("grew web")
        self.write(b"two\n")
        self.tell("drain a", "follow web 0 0", "follow web 1 8", "close a")
        self.assert_said("drained a", "grew web", "grew web", "closed a")

    def test_missing(self) -> None:
        """A slot without its FIFOs is refused with the reason."""
        os.unlink(os.path.join(self.folder, "slots/b", STREAMS[1]))
        self.tell("open none", "open b")
        self.assert_said(
            "failed none No such file or directory", "failed b No such file or directory"
        )

    def test_sync(self) -> None:
        """Slots that the manager does not know are closed."""
        self.tell("open a", "open b", "sync b", "drain b")
        self.assert_said("opened a", "opened b", "drained b")
        self.leave()
        self.assertEqual(list(self.slots), ["b"])
        self.slots["b"].close()

    def test_no_manager(self) -> None:
        """Whoever talks as no manager does is cut off; the next one is heard."""
        self.patch(logd, "LONGEST_LINE", 100)
        self.tell("open a")
        self.assert_said("opened a")
        for line in (b"nonsense\n", b"open\n", b"open a b\n", b"follow a b c\n", b"x" * 200):
            self.manager.sendall(line)
            self.assert_hung_up(self.manager)
            self.manager = self.connect()
        self.tell("close a")
        self.assert_said("closed a")

    def test_next_manager(self) -> None:
        """The newest manager is the only one, and finds the slots."""
        self.tell("open a")
        self.assert_said("opened a")
        old, self.manager = self.manager, self.connect()
        self.tell("close a")
        self.assert_said("closed a")
        self.assert_hung_up(old)

    def test_removed(self) -> None:
        """If an instance was removed, its slot is closed."""
        self.tell("open a", f"name a gone {SIZE}")
        self.write(b"one\n")
        self.tell("drain a", "close a")
        self.assert_said("opened a", "drained a", "closed a")

    def test_full_disk(self) -> None:
        """What the disk does not take stays in the pipe, is told once, and is tried again."""
        full = OSError(errno.ENOSPC, "full")
        with patch.object(Log, "take", side_effect=full):
            self.tell("open a", f"name a web {SIZE}")
            self.write(b"one\n")
            self.assert_said("opened a", "trouble web full")
            self.tell("close a")
            self.assert_said("closed a")
            self.manager.close()
        self.assertTrue(self.has_ended())
        self.assert_log(b"one\n")

    def test_last_words(self) -> None:
        """Without a manager it serves as long as there is a writer, and moves the last words."""
        self.tell("open a", f"name a web {SIZE}")
        self.assert_said("opened a")
        self.manager.close()
        self.write(b"last\n")
        self.end("a")
        self.assertTrue(self.has_ended())
        self.assert_log(b"last\n")

    def test_killed(self) -> None:
        """If it is killed, what is in the pipes is read by the next one, from the holder."""
        self.tell("open a", f"name a web {SIZE}")
        self.assert_said("opened a")
        self.leave()
        self.write(b"meanwhile\n")
        self.begin()
        self.manager = self.connect()
        self.tell("close a")
        self.assert_said("closed a")
        self.assert_log(b"meanwhile\n")

    def make_listener(self) -> socket.socket:
        """A socket that a manager listens on."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind("")
        listener.listen()
        return listener

    def keep(self, key: str, listener: socket.socket) -> None:
        """Have it keep a socket."""
        line = f"keep {key}\n".encode()
        socket.send_fds(self.manager, [line], [listener.fileno()])

    def given(self, first: int) -> dict[str, str]:
        """The sockets that it gives, from this one on, each with the address it listens on."""
        self.tell(f"give {first}")
        line, passed, _, _ = socket.recv_fds(self.manager, 1 << 16, logd.MOST_GIVEN)
        verb, number, *keys = line.decode().split()
        self.assertEqual((verb, number, len(keys)), ("given", str(first), len(passed)))
        listeners = [socket.socket(fileno=descriptor) for descriptor in passed]
        found = {key: one.getsockname() for key, one in zip(keys, listeners, strict=True)}
        for listener in listeners:
            listener.close()
        return found

    def test_kept(self) -> None:
        """A socket that is kept outlives its manager and this process; the next manager gets it."""
        listener = self.make_listener()
        self.keep("127.0.0.1:80", listener)
        self.assert_said("kept 127.0.0.1:80")
        name = listener.getsockname()
        listener.close()
        self.leave()
        self.begin()
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.connect(name)  # no one has accepted, and it is not refused
        self.manager = self.connect()
        self.assertEqual(self.given(0), {"127.0.0.1:80": name})
        self.assertEqual(self.given(1), {})
        self.tell("unkeep 127.0.0.1:80", "unkeep other")
        self.assert_said("unkept 127.0.0.1:80", "unkept other")
        self.assertEqual(self.given(0), {})
        self.manager.close()
        self.assertTrue(self.has_ended())
        self.assertEqual(self.kept, {})
        self.assertRaises(ConnectionError, client.recv, 1)  # now no process has it

    def test_kept_twice(self) -> None:
        """A second socket of the same name takes the place of the first one."""
        first, second = self.make_listener(), self.make_listener()
        for listener in (first, second):
            self.keep("a", listener)
            self.assert_said("kept a")
        self.assertEqual(self.given(0), {"a": second.getsockname()})
        self.tell("unkeep a")
        self.assert_said("unkept a")

    def test_retained(self) -> None:
        """The manager can say which ones are all that it wants kept; the others are closed."""
        listener = self.make_listener()
        for key in "abc":
            self.keep(key, listener)
        self.assert_said("kept a", "kept b", "kept c")
        self.tell("retain b x")
        self.assertEqual([*self.given(0)], ["b"])
        self.tell("retain")
        self.assertEqual(self.given(0), {})

    def test_most_kept(self) -> None:
        """It keeps only so many, gives them a few at a time, and ends with none."""
        self.patch(logd, "MOST_KEPT", 3)
        self.patch(logd, "MOST_GIVEN", 2)
        listener = self.make_listener()
        for key in "abcd":
            self.keep(key, listener)
        self.assert_said("kept a", "kept b", "kept c", "refused d 3 sockets are kept already")
        self.assertEqual([*self.given(0)], ["a", "b"])
        self.assertEqual([*self.given(2)], ["c"])
        self.tell("unkeep a", "unkeep b", "unkeep c")
        self.assert_said("unkept a", "unkept b", "unkept c")

    def test_nothing_came_along(self) -> None:
        """Whoever passes no socket is no manager, and what is passed to no purpose is closed."""
        self.tell("open a")
        self.assert_said("opened a")
        self.tell("keep a")
        self.assert_hung_up(self.manager)
        self.manager = self.connect()
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        socket.send_fds(self.manager, [b"nonsense\n"], [theirs.fileno()])
        theirs.close()
        self.assert_hung_up(self.manager)
        self.assertEqual(ours.recv(1), b"")

    def tearDown(self) -> None:
        for token in list(self.writers):
            self.end(token)
