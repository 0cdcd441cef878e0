"""Asking by TCP and HTTP: what a container may answer, and what that means."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeReactor
from txcontain.container.health import Health
from txcontain.host.kernel import Kernel
from txcontain.runtime.probes import (
    CONNECTED,
    LATE,
    LONGEST_ANSWER,
    LONGEST_REST,
    SILENT,
    Probes,
    of_error,
)

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
# What a container answers, in parts; whether that passes, and what is said of it.
ANSWERS: list[tuple[list[bytes], bool, str]] = [
    ([b"HTTP/1.1 200 OK\r\n\r\nok"], True, "HTTP/1.1 200 OK"),
    ([b"HTTP/1.0 204\r\n\r\n"], True, "HTTP/1.0 204"),
    ([b"HT", b"TP/1.1 3", b"02 Found\r", b"\nLocation: http://evil/\r\n"], True, "302 Found"),
    ([b"HTTP/1.1 200 OK\n"], True, "200 OK"),
    ([b"HTTP/1.1 503 Busy\r\nA: b\r\n\r\n", b"the disk", b" is full"], False, "503 Busy: the disk"),
    ([b"HTTP/1.1 404 Not Found\r\nA: b"], False, "HTTP/1.1 404 Not Found"),
    ([b"HTTP/1.1 199 Early\r\n\r\n"], False, "HTTP/1.1 199 Early"),
    ([], False, SILENT),
    ([b"SSH-2.0-OpenSSH\r\n"], False, "no HTTP/1: SSH-2.0-OpenSSH"),
    ([b"\x16\x03\x01\xff"], False, "no HTTP/1: \x16\x03\x01\\xff"),
    ([b"HTTP/2 200\r\n"], False, "no HTTP/1: HTTP/2 200"),
    ([b"HTTP/1.1 20 OK\r\n"], False, "no HTTP/1: HTTP/1.1 20 OK"),
    ([b"HTTP/1.1 200"], False, "no HTTP/1: HTTP/1.1 200"),
    ([b"HTTP/1.1 600 Ok\r\n"], False, "no HTTP/1"),
    ([b"HTTP/1.1 200 " + b"x" * LONGEST_ANSWER], False, "no HTTP/1: HTTP/1.1 200 xxx"),
    ([b"HTTP/1.1 500 \xff\r\n\r\n" + b"x" * 10_000], False, "500 \\xff: xxx"),
]


class ProbesTests(SynchronousTestCase):
    """Questions to a container that is a socket of this test."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.kernel = self.reactor.kernel
        self.kernel.listening[80] = 1
        self.probes = Probes(self.reactor, cast(Kernel, self.kernel))
        self.addCleanup(self.probes.stop)
        self.told: list[tuple[bool | None, str]] = []

    def ask(self, request: bytes = REQUEST, port: int = 80, **health: Any) -> socket.socket | None:
        """Ask, for 2 s; returns the container's end."""
        expects = Health(http="/", **health).expects
        self.close = self.probes.ask(
            port, 7, request, expects, 2, lambda passed, said: self.told.append((passed, said))
        )
        self.reactor.advance(0)
        if not self.kernel.connected:
            return None
        theirs = self.kernel.connected.pop()
        self.addCleanup(theirs.close)
        return theirs

    def fail_to_hear(self, passed: bool | None, said: str) -> None:
        """Have a mistake."""
        raise ZeroDivisionError

    def answer(self, theirs: socket.socket | None, *parts: bytes, ends: bool = False) -> None:
        """Answer in parts, each of which is read before the next."""
        assert theirs is not None
        with contextlib.suppress(BlockingIOError):
            theirs.recv(1000, socket.MSG_DONTWAIT)
        for part in parts:
            theirs.sendall(part)
            self.probes.doRead()
        if ends:
            theirs.close()
        self.look()

    def look(self) -> None:
        """Read all that has come."""
        for _ in range(100):
            if self.probes._epoll is not None:
                self.probes.doRead()

    def is_over(self) -> bool:
        """Whether nothing waits any more."""
        return not self.probes._open

    def test_answers(self) -> None:
        """Only a status line of HTTP/1 with a status that is expected passes."""
        for parts, passed, said in ANSWERS:
            self.told.clear()
            self.answer(self.ask(), *parts, ends=True)
            self.assertEqual([one for one, _ in self.told], [passed], parts)
            self.assertIn(said, self.told[0][1])
            self.assertLessEqual(len(self.told[0][1]), LONGEST_ANSWER + 100)
            self.assertTrue(self.is_over())

    def test_what_is_sent(self) -> None:
        """The request is sent as soon as the connection is there, and once."""
        theirs = self.ask()
        assert theirs is not None
        self.assertEqual(theirs.recv(1000), REQUEST)
        self.assertEqual(self.reactor.readers, [self.probes])

    def test_expected(self) -> None:
        """A status that is named is the only good one."""
        self.answer(self.ask(status=401), b"HTTP/1.1 401 No\r\n\r\n", ends=True)
        self.answer(self.ask(status=401), b"HTTP/1.1 200 OK\r\n\r\n", ends=True)
        self.assertEqual(self.told, [(True, "HTTP/1.1 401 No"), (False, "HTTP/1.1 200 OK")])

    def test_good_at_once(self) -> None:
        """A good status is told before the rest has come; that is read, and not kept."""
        theirs = self.ask()
        self.answer(theirs, b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(self.told, [(True, "HTTP/1.1 200 OK")])
        self.answer(theirs, *[b"x" * 4096] * (LONGEST_REST // 4096 - 1))
        self.assertFalse(self.is_over())
        self.answer(theirs, b"x" * 4096)
        self.assertTrue(self.is_over())
        self.assertEqual(len(self.told), 1)

    def test_tcp(self) -> None:
        """Without a request it is enough to be connected, and that is told at once."""
        self.ask(request=b"")
        self.assertEqual((self.told, self.is_over()), ([(True, CONNECTED)], True))

    def test_refused(self) -> None:
        """A port on which no one listens fails at once."""
        self.ask(port=81)
        self.assertEqual(self.told, [(False, "connection refused")])

    def test_reset(self) -> None:
        """A connection that is reset, as what was sent is not read, has failed."""
        theirs = self.ask()
        assert theirs is not None
        theirs.close()
        self.look()
        self.assertEqual(self.told, [(False, "connection reset by peer")])

    def test_late(self) -> None:
        """What has not answered in time has failed, also if it sends a byte now and then."""
        theirs = self.ask()
        for byte in b"HTTP/1.1 200 OK":
            self.answer(theirs, bytes([byte]))
            self.reactor.advance(0.1)
        self.assertEqual(self.told, [])
        self.reactor.advance(0.5)
        self.assertEqual(self.told, [(False, LATE)])
        self.assertTrue(self.is_over())

    def test_late_after_a_bad_status(self) -> None:
        """Of a bad answer that does not end, what has come is told."""
        self.answer(self.ask(), b"HTTP/1.1 500 Oh\r\n\r\nwhy")
        self.assertEqual(self.told, [])
        self.reactor.advance(2)
        self.assertEqual(self.told, [(False, "HTTP/1.1 500 Oh: why")])

    def test_late_after_a_good_status(self) -> None:
        """A good answer that does not end is closed, and stays good."""
        self.answer(self.ask(), b"HTTP/1.1 200 OK\r\n")
        self.reactor.advance(2)
        self.assertEqual(([one for one, _ in self.told], self.is_over()), ([True], True))

    def test_each_has_its_time(self) -> None:
        """Of several, each is ended when its own time is over."""
        self.ask()
        self.reactor.advance(1)
        self.ask()
        self.reactor.advance(1)
        self.assertEqual(len(self.told), 1)
        self.reactor.advance(1)
        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_called_off(self) -> None:
        """What is ended before an answer tells nothing, and can be ended again."""
        self.ask()
        self.close()
        self.close()
        self.reactor.advance(3)
        self.assertEqual((self.told, self.is_over()), ([], True))

    def test_one_fails(self) -> None:
        """A mistake in one that is told does not keep the others from being told."""
        first = self.ask()
        self.probes._open[next(iter(self.probes._open))].told = self.fail_to_hear
        second = self.ask()
        for theirs in (first, second):
            assert theirs is not None
            theirs.sendall(b"HTTP/1.1 200 OK\r\n")
        self.look()
        self.assertEqual(len(self.told), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_few_descriptors(self) -> None:
        """The manager's own shortages are no failure of the container."""
        self.patch(self.kernel, "is_scarce", lambda descriptor: True)
        self.ask()
        self.assertEqual(self.told, [(None, "the manager has too many files open")])
        for number, passed in (
            (errno.EMFILE, None),
            (errno.ENOENT, None),
            (errno.EADDRNOTAVAIL, None),
            (errno.ECONNREFUSED, False),
            (errno.ECONNRESET, False),
            (errno.ETIMEDOUT, False),
        ):
            self.assertIs(of_error(OSError(number, "Why"))[0], passed)

    def test_too_few_watches(self) -> None:
        """Nor is it one if the kernel can't watch one connection more (epoll_ctl(2))."""

        def fail(self: Probes, probe: object, events: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(Probes, "watch", fail)
        self.ask()
        self.assertEqual(self.told, [(None, "no space left on device")])

    def test_an_event_of_another(self) -> None:
        """An event that brings nothing to read is passed over."""
        self.ask()
        next(iter(self.probes._open.values())).go_on()
        self.assertEqual((self.told, self.is_over()), ([], False))

    def test_stop(self) -> None:
        """When the manager ends, nothing is open and nothing is told."""
        self.ask()
        self.probes.stop()
        self.assertEqual((self.told, self.reactor.readers), ([], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
