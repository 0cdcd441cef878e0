"""Connections that are handed on."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.network.pump import Pump
from txcontain.network import relay
from txcontain.network.relay import Relay, Relays, connect

MUCH = 1 << 22  # bytes: more than all buffers on the way take


class RelayCase(SynchronousTestCase):
    """A client and a server, each with a socket whose other end is handed on to the other's."""

    def setUp(self) -> None:
        self.reactor = Pump()
        self.client, front = self.pair()
        self.server, back = self.pair()
        self.ends = front, back

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two sockets that are connected."""
        pair = socket.socketpair()
        for one in pair:
            self.addCleanup(one.close)
        pair[0].setblocking(False)
        return pair

    def heard(self, end: socket.socket) -> bytes:
        """What has come at an end, until it has nothing more to read now."""
        heard = b""
        while True:
            self.reactor.turn()
            try:
                data = end.recv(1 << 16)
            except BlockingIOError:
                return heard
            if not data:
                return heard + b"<end>"
            heard += data


class RelayTests(RelayCase):
    """One connection."""

    def setUp(self) -> None:
        super().setUp()
        self.relay = Relay(self.reactor, self.ends)

    def is_over(self) -> bool:
        """Whether both ends are closed, and nothing is left to do."""
        left = self.reactor.readers, self.reactor.writers, self.reactor.getDelayedCalls()
        return self.relay.over.called and not any(left)

    def test_there_and_back(self) -> None:
        """What one says the other hears, and it is over when both have closed."""
        self.client.send(b"question")
        self.assertEqual(self.heard(self.server), b"question")
        self.server.send(b"answer")
        self.assertEqual(self.heard(self.client), b"answer")
        self.server.close()
        self.assertEqual(self.heard(self.client), b"<end>")
        self.assertFalse(self.is_over())
        self.client.close()
        self.reactor.turn()
        self.assertTrue(self.is_over())

    def test_half_close(self) -> None:
        """A client that has said all hears the whole answer."""
        self.client.send(b"question")
        self.client.shutdown(socket.SHUT_WR)
        self.assertEqual(self.heard(self.server), b"question<end>")
        self.server.send(b"answer")
        self.assertEqual(self.heard(self.client), b"answer")
        self.server.shutdown(socket.SHUT_WR)
        self.assertEqual(self.heard(self.client), b"<end>")
        self.assertTrue(self.is_over())

    def test_slow_reader(self) -> None:
        """Whoever reads nothing holds up the other end, and then gets every byte."""
        sent = self.send_much(self.server)
        self.assertLess(sent, MUCH)
        heard = b""
        while len(heard) < MUCH:
            heard += self.heard(self.client)
            sent += self.send_much(self.server, sent)
        self.assertEqual(heard, b"x" * MUCH)

    def send_much(self, end: socket.socket, sent: int = 0) -> int:
        """Send as much as is taken; return how much that is."""
        before = sent
        while sent < MUCH:
            try:
                sent += end.send(b"x" * min(1 << 16, MUCH - sent))
            except BlockingIOError:
                break
            self.reactor.turn()
        return sent - before

    def test_gone_in_the_middle(self) -> None:
        """If the server is gone, the client gets the last it has said."""
        sent = self.send_much(self.server)
        self.server.close()
        self.assertEqual(self.heard(self.client), b"x" * sent + b"<end>")

    def test_lingers(self) -> None:
        """What a client has said before it hung up waits for the server, but not for ever."""
        while not self.relay._ends[1]._tempDataLen:  # all buffers on the way are full
            self.client.send(b"x" * 1000)
            self.reactor.turn()
        self.client.close()
        self.server.send(b"too late")
        self.reactor.turn()
        self.assertFalse(self.is_over())
        self.reactor.advance(relay.LINGER)
        self.assertTrue(self.is_over())

    def test_gone_before_it_has_heard_all(self) -> None:
        """If the client is gone, the server is hung up on."""
        self.send_much(self.server)
        self.client.close()
        self.reactor.turn(100)
        with self.assertRaises(OSError):
            while True:
                self.server.send(b"x")
                self.reactor.turn()
        self.assertTrue(self.is_over())

    def test_ended(self) -> None:
        """If no one is at the second end any more, the client hears the rest, and is hung up on."""
        for closed_before in (False, True):
            self.setUp()
            self.server.send(b"last words")
            if closed_before:
                self.server.close()
                self.reactor.turn()
            self.relay.end()
            self.server.close()
            self.assertEqual(self.heard(self.client), b"last words<end>")
            self.assertRaises(BrokenPipeError, self.client.send, b"x")
            self.assertTrue(self.is_over())

    def test_ended_and_kept_open(self) -> None:
        """If someone else keeps the second end open, it is closed all the same, a little later."""
        self.relay.end()
        self.server.send(b"still here")
        self.assertEqual(self.heard(self.client), b"still here")
        self.reactor.advance(relay.LINGER)
        self.assertTrue(self.is_over())

    def test_lost(self) -> None:
        """If the host of the second end is gone, the client hears what came, and is hung up on."""
        self.send_much(self.server)
        self.relay.lose()
        self.relay.lose()
        self.assertRegex(self.heard(self.client), b"^x+<end>$")
        self.assertTrue(self.is_over())

    def test_cut(self) -> None:
        """Both ends can be closed at once, also twice."""
        self.relay.cut()
        self.relay.cut()
        self.assertTrue(self.is_over())
        self.assertEqual(self.heard(self.client), b"<end>")


class RelaysTests(RelayCase):
    """Only so many at the same time."""

    def setUp(self) -> None:
        super().setUp()
        self.relays = Relays(self.reactor, 1)
        self.over: Any = Deferred.fromCoroutine(self.carry())
        self.told: list[str] = []

    async def carry(self) -> None:
        """Hand one on, to its end."""
        with self.relays.room():
            await self.relays.hand_on(*self.ends).over

    def wait(self) -> None:
        """One more waits."""
        self.relays.when_there_is_room(lambda: self.told.append("room"))

    def test_room(self) -> None:
        """Who waits is told, once, when another is over."""
        self.assertTrue(self.relays.is_full)
        self.wait()
        self.client.close()
        self.server.close()
        self.reactor.turn()
        self.assertEqual((self.told, self.relays.count), (["room"], 0))
        self.assertNoResult(self.over.addCallback(lambda _: Deferred()))

    def test_silent(self) -> None:
        """One that is silent for long makes room for who waits; no one waits, and it may stay."""
        self.reactor.advance(relay.SILENT)
        self.assertTrue(self.relays.is_full)
        self.client.send(b"x")
        self.reactor.turn()
        self.wait()
        self.reactor.pump([1] * int(relay.SILENT - 1))
        self.assertEqual(self.told, [])
        self.reactor.pump([1] * 2)
        self.assertEqual(self.told, ["room"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """When the manager ends, all are closed, and no one is told."""
        self.wait()
        self.relays.stop()
        self.assertEqual((self.told, self.relays.count), ([], 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ConnectTests(SynchronousTestCase):
    """A connection to an instance."""

    def setUp(self) -> None:
        self.reactor = Pump()

    def begin(self, address: tuple[str, int]) -> Deferred[socket.socket]:
        """Begin to connect."""
        return Deferred.fromCoroutine(connect(self.reactor, address, 3))

    def test_refused(self) -> None:
        """Where no one listens it fails at once."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
        connecting = self.begin(address)
        self.reactor.turn()
        self.assertEqual(self.failureResultOf(connecting, OSError).value.errno, errno.ECONNREFUSED)

    def test_late(self) -> None:
        """Where no one answers it fails in time, and watches no more."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            address = listener.getsockname()
            first = self.begin(address)
            self.reactor.turn()
            self.addCleanup(self.successResultOf(first).close)
            second = self.begin(address)
            self.reactor.turn()
            self.assertNoResult(second)
            self.reactor.advance(3)
            self.failureResultOf(second, TimeoutError)
        self.assertEqual(self.reactor.writers, {})
