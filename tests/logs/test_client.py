"""The log process is found or started, and told what to read."""

import os
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from tests.fakes import MachineTestCase
from txcontain.host.processes import Process
from txcontain.logs import client
from txcontain.logs.client import (
    CONNECT_AGAIN,
    DRAIN_WITHIN,
    END_WITHIN,
    LOST,
    LOST_WITHIN,
    MOST_LOSSES,
    LogClient,
)
from txcontain.logs.logd import STREAMS


class ProcessTests(MachineTestCase):
    """The manager's side of the log process."""

    def setUp(self) -> None:
        super().setUp()
        self.client = LogClient(self.reactor, self.folder, self.folder, maybeDeferred)
        self.client.start()
        self.other = self.reactor.log_process

    def test_journald(self) -> None:
        """Each log process is told to send all to systemd's journal, before it reads anything."""
        self.client.journald = "/run/journal"
        self.other.lose()
        self.other.told.clear()
        self.reactor.advance(0)
        self.assertEqual(self.other.told[:2], ["sync", "journal /run/journal"])

    def test_told_again(self) -> None:
        """A new log process is told all that the one before it was told."""
        self.client.open("a")
        self.client.name("a", "web-1", 100)
        self.client.open("b")
        self.other.silent = True
        closing = self.start(self.client.close("a"))
        draining = self.start(self.client.settle("b"))
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

    def test_settled_by_instance(self) -> None:
        """Who reads the log of an instance waits for its last slot, also if that is closing."""
        self.client.adopt("a", "web-1", 100)
        self.client.adopt("b", "web-1", 100)
        self.other.silent = True
        closing = self.start(self.client.close("b"))
        settling = self.start(self.client.settle_log("web-1"))
        self.assertNoResult(settling)
        self.other.say("closed", "b")
        for one in (closing, settling):
            self.successResultOf(one)
        self.now(self.client.settle_log("web-1"))
        self.assertEqual(self.client._tokens, {})

    def test_busy(self) -> None:
        """If the log process takes only a part now, it gets all the rest, in order."""
        self.other.told.clear()
        self.other.takes = 7
        self.client.open("a")
        self.client.name("a", "web-1", 100)
        self.assertEqual(self.other.told, ["open a", "name a web-1 100"])

    def test_closed_at_once(self) -> None:
        """Without pipes there is nothing to close or to wait for."""
        self.now(self.client.close("none"))
        self.now(self.client.settle("none"))

    def test_closed_twice(self) -> None:
        """If the same pipes are closed twice, both calls return."""
        self.client.open("a")
        self.other.silent = True
        closing = [self.start(self.client.close("a")) for _ in range(2)]
        self.assertEqual(self.other.told.count("close a"), 1)
        self.other.say("closed", "a")
        for one in closing:
            self.successResultOf(one)

    def test_refused(self) -> None:
        """If pipes can't be opened, the reason is told."""
        self.other.silent = True
        self.client.open("a")
        holding = self.client.hold("a")
        self.assertNoResult(holding)
        self.other.say("failed", "a", "Too many open files")
        for one in (holding, self.client.hold("a")):
            self.assertEqual(self.successResultOf(one), "Too many open files")
        self.assertEqual(self.successResultOf(self.client.hold("b")), "they are closed")

    def test_held_again(self) -> None:
        """Who asks whether pipes are held waits until the next log process holds them, too."""
        self.client.open("a")
        self.assertEqual(self.successResultOf(self.client.hold("a")), "")
        self.other.lose()
        self.other.silent = True
        holding = self.client.hold("a")
        self.reactor.advance(0)
        self.assertNoResult(holding)
        self.other.say("opened", "a")
        self.assertEqual(self.successResultOf(holding), "")
        self.other.lose()
        holding = self.client.hold("a")
        self.reactor.advance(DRAIN_WITHIN)
        self.assertEqual(self.successResultOf(holding), LOST)

    def test_no_descriptor(self) -> None:
        """If there is no descriptor left to connect with, it tries again until there is one."""
        connect, failing = self.other.connect, [OSError(24, "Too many open files")] * 3

        def connect_or_fail(factory: Any) -> None:
            if failing:
                raise failing.pop()
            connect(factory)

        self.other.connect = connect_or_fail
        self.other.lose()
        for _ in range(4):
            self.reactor.advance(CONNECT_AGAIN)
        self.assertIsNotNone(self.other.connection)

    def test_started(self) -> None:
        """If there is no log process, one is started, and looked for until it is found."""
        connect = self.other.connect
        self.lose_for_good()
        for _ in range(20):
            self.reactor.advance(CONNECT_AGAIN)
        self.assertEqual(len(self.reactor.spawned), 1)
        self.other.connect = connect
        self.reactor.advance(CONNECT_AGAIN)
        self.assertIsNotNone(self.other.connection)
        self.assertEqual(STREAMS, ("stdout", "stderr"))

    def test_older(self) -> None:
        """One that hangs up again and again is of an older version: it is killed, and replaced."""
        older, killed = [Process(7, 1), Process(8, 1)], []

        def kill(process: Process, number: int) -> None:
            older.remove(process)
            killed.append((process.pid, number))

        self.patch(client, "started_with", lambda *_: [*older])
        self.patch(client, "signal_process", kill)
        for _ in range(MOST_LOSSES - 1):
            self.other.lose()
            self.reactor.advance(0)
        self.assertEqual(killed, [])
        self.other.lose()
        self.other.told.clear()
        self.reactor.advance(CONNECT_AGAIN)
        self.assertEqual(killed, [(7, signal.SIGKILL), (8, signal.SIGKILL)])
        self.assertEqual(self.other.told, ["sync"])

    def test_older_can_not_be_found(self) -> None:
        """If it can't be looked for, it is spoken to again; not once the manager has stopped."""
        looking: list[Deferred[Any]] = []

        def look(*_: Any) -> Deferred[Any]:
            looking.append(Deferred())
            return looking[-1]

        self.client.threads = look
        for stopped in (False, True):
            for _ in range(MOST_LOSSES):
                self.other.lose()
                self.reactor.advance(0)
            if stopped:
                self.reactor.connects = False
                self.start(self.client.stop())
                self.reactor.advance(END_WITHIN)
            looking.pop().errback(OSError(24, "Too many open files"))
            self.reactor.advance(0)
            self.assertEqual(self.other.connection is None, stopped)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_lost_now_and_then(self) -> None:
        """One that is killed now and then is not replaced by us."""
        self.patch(client, "started_with", self.fail)
        for _ in range(2 * MOST_LOSSES):
            self.other.lose()
            self.reactor.advance(LOST_WITHIN / 2)
        self.assertIsNotNone(self.other.connection)

    def lose_for_good(self) -> None:
        """Have no log process any more, and none that answers."""
        self.reactor.connects = False
        self.other.connect = lambda factory: factory.clientConnectionFailed(
            None, Failure(ConnectionRefusedError())
        )
        self.other.lose()
        self.reactor.advance(0)

    def test_stopped_early(self) -> None:
        """If a log process was started and not found yet, stopping finds and disconnects it."""
        connect = self.other.connect
        self.lose_for_good()
        stopping = self.start(self.client.stop())
        self.assertNoResult(stopping)
        self.other.connect = connect
        self.reactor.pump([CONNECT_AGAIN] * 2)
        self.assertIn("sync", self.other.told)
        self.successResultOf(stopping)
        self.assertIsNone(self.other.connection)

    def test_stopped_in_between(self) -> None:
        """If the log process was just lost, stopping tells the next one what that was not told."""
        self.other.lose()
        self.other.told.clear()
        stopping = self.start(self.client.stop())
        self.reactor.pump([CONNECT_AGAIN] * 2)
        self.assertEqual(self.other.told, ["sync"])
        self.successResultOf(stopping)

    def test_stopped_without(self) -> None:
        """If none is ever found, stopping has an end, and nothing is tried after it."""
        self.lose_for_good()
        stopping = self.start(self.client.stop())
        self.reactor.pump([CONNECT_AGAIN] * int(END_WITHIN / CONNECT_AGAIN + 1))
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class TerminalTests(MachineTestCase):
    """Terminals that outlive the manager, and the log process."""

    def setUp(self) -> None:
        super().setUp()
        self.client = LogClient(self.reactor, self.folder, self.folder, maybeDeferred)
        self.client.start()
        self.other = self.reactor.log_process
        self.client.open("a")
        self.client.name("a", "web-1", 100)
        self.master, self.slave = os.openpty()
        self.addCleanup(os.close, self.slave)

    def is_the_terminal(self, master: int) -> bool:
        """Whether this is the other end, which it closes."""
        os.write(self.slave, b"x")
        try:
            return os.read(master, 10) == b"x"
        finally:
            os.close(master)

    def test_held(self) -> None:
        """The log process is told of it, each new one again; whoever wants it gets a copy."""
        self.client.hold_terminal("a", self.master)
        self.assertTrue(self.is_the_terminal(self.other.terminals.pop("a")))
        self.other.lose()
        self.reactor.advance(0)
        self.assertTrue(self.is_the_terminal(self.other.terminals.pop("a")))
        self.assertTrue(self.is_the_terminal(self.client.terminal_of("a")))
        self.assertEqual(self.client.terminal_of("b"), -1)
        self.now(self.client.close("a"))
        self.assertRaises(OSError, os.fstat, self.master)

    def test_lent(self) -> None:
        """The next manager is lent it, and no one inherits it; without one, there is none."""
        self.other.terminals["b"] = self.master
        self.client.adopt("b", "web-2", 100, terminal=True)
        copy = self.client.terminal_of("b")
        self.assertFalse(os.get_inheritable(copy))
        self.assertTrue(self.is_the_terminal(copy))
        self.client.adopt("c", "web-3", 100, terminal=True)
        self.assertEqual(self.client.terminal_of("c"), -1)
        self.now(self.client.close("b"))

    def test_too_late(self) -> None:
        """One whose container has ended already is closed."""
        self.now(self.client.close("a"))
        self.client.hold_terminal("a", self.master)
        self.assertRaises(OSError, os.fstat, self.master)

    def test_each_its_own(self) -> None:
        """A descriptor that comes with a later line, as the kernel may have it, is that line's."""
        for token in ("b", "c"):
            self.client.adopt(token, f"web-{token}", 100, terminal=True)
        self.other.connection.fileDescriptorReceived(self.master)
        self.other.connection.dataReceived(b"lent b 0\nlent c 1\n")
        self.assertEqual(self.client.terminal_of("b"), -1)
        self.assertTrue(self.is_the_terminal(self.client.terminal_of("c")))
        self.now(self.client.close("c"))


class KeptTests(MachineTestCase):
    """Sockets that outlive the manager."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.reactor.log_process
        self.addCleanup(lambda: [self.other.unkeep(key) for key in [*self.other.kept]])
        self.client = self.begin()

    def begin(self) -> LogClient:
        """A manager's client."""
        client = LogClient(self.reactor, self.folder, self.folder, maybeDeferred)
        client.start()
        self.addCleanup(lambda: [client.unkeep(key) for key in [*client.kept]])
        return client

    def listener(self) -> socket.socket:
        """A socket that listens."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")
        listener.listen()
        return listener

    def test_next_manager(self) -> None:
        """The next manager finds the sockets that are kept, and no one inherits them."""
        names = {}
        for key in ("a", "b"):
            listener = self.listener()
            names[key] = listener.getsockname()
            self.assertEqual(self.now(self.client.keep(key, listener)), "")
        second = self.begin()
        self.now(second.find_kept())
        self.assertTrue(second.has_found)
        found = {key: one.getsockname() for key, one in second.kept.items()}
        self.assertEqual(found, names)
        self.assertFalse(any(one.get_inheritable() for one in second.kept.values()))
        second.unkeep("a")
        self.assertEqual([*self.other.kept], ["b"])

    def test_not_told(self) -> None:
        """If the log process does not answer in time, it is not said that these are all."""
        self.other.silent = True
        finding = self.start(self.client.find_kept())
        self.reactor.advance(DRAIN_WITHIN)
        self.successResultOf(finding)
        self.assertFalse(self.client.has_found)

    def test_told_again(self) -> None:
        """A new log process gets them all again, and one that is lost meanwhile is asked again."""
        self.now(self.client.keep("a", self.listener()))
        self.other.silent = True
        finding = self.start(self.client.find_kept())
        self.other.lose()
        self.other.unkeep("a")
        self.other.silent = False
        self.reactor.advance(0)
        self.successResultOf(finding)
        self.assertEqual([*self.other.kept], ["a"])

    def test_unkept_meanwhile(self) -> None:
        """What is not to be kept any more, while none can be told, the next one closes."""
        self.now(self.client.find_kept())
        for key in ("a", "b"):
            self.now(self.client.keep(key, self.listener()))
        self.other.lose()
        self.client.unkeep("a")
        self.assertEqual([*self.other.kept], ["a", "b"])
        self.reactor.advance(0)
        self.assertEqual([*self.other.kept], ["b"])

    def test_not_found_yet(self) -> None:
        """Before it has found those of the manager before, it has none of them closed."""
        self.now(self.client.keep("a", self.listener()))
        second = self.begin()
        self.assertEqual([*self.other.kept], ["a"])
        self.now(second.find_kept())
        self.assertEqual([*second.kept], ["a"])

    def test_busy(self) -> None:
        """If the log process takes nothing now, the socket goes with the rest."""
        self.other.takes = 0
        self.assertEqual(self.now(self.client.keep("a", self.listener())), "")
        self.assertEqual([*self.other.kept], ["a"])

    def test_refused(self) -> None:
        """If the log process keeps too many already, it says so."""
        self.other.silent = True
        keeping = self.start(self.client.keep("a", self.listener()))
        self.other.say("refused", "a", "4096", "sockets")
        self.assertEqual(self.successResultOf(keeping), "4096 sockets")

    def test_lost(self) -> None:
        """What was passed, and then not named, is closed."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.other.connection.fileDescriptorReceived(theirs.detach())
        self.other.lose()
        self.assertEqual(ours.recv(1), b"")
