"""Sockets of published ports, in which connections wait."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeLogProcess
from tests.network.pump import Pump
from tests.support import needs_ipv6
from txcontain.container.spec import Port
from txcontain.logs.client import DRAIN_WITHIN, LogClient
from txcontain.network import doorways
from txcontain.network.doorways import SETTLE_AGAIN, Doorways, key_of, listen
from txcontain.network.relay import SILENT, Relays


class Machine(Pump):
    """With a log process."""

    def __init__(self, log_process: FakeLogProcess) -> None:
        super().__init__()
        self.log_process = log_process

    def connectUNIX(self, path: str, factory: LogClient) -> None:
        self.log_process.connect(factory)


class DoorwaysCase(SynchronousTestCase):
    """A manager that publishes port 80 of "web"."""

    def setUp(self) -> None:
        self.log_process = FakeLogProcess()
        self.addCleanup(lambda: [self.log_process.unkeep(key) for key in [*self.log_process.kept]])
        self.told: list[Any] = []
        self.targets: list[tuple[str, int]] = []
        self.port = self.free_port()
        self.begin()

    def free_port(self) -> Port:
        """A port that no one listens on."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return Port("127.0.0.1", listener.getsockname()[1], 80, "tcp")

    def begin(self) -> None:
        """A manager begins."""
        self.reactor = Machine(self.log_process)
        client = LogClient(self.reactor, "", "", maybeDeferred)
        client.start()
        self.doorways = Doorways(self.reactor, client, lambda service, port: self.targets)
        self.doorways.knocked = self.told.append
        self.doorways.refused = lambda *words: self.told.append(words)
        self.addCleanup(self.end, self.doorways)

    def end(self, which: Doorways) -> None:
        """A manager ends, and its sockets with it."""
        which.stop()
        for listener in which.log_process.kept.values():
            listener.close()

    def settle(self, *ports: Port, service: str = "web") -> None:
        """Have doorways for these ports."""
        wanted = {key_of(port): (service, port) for port in ports}
        self.successResultOf(Deferred.fromCoroutine(self.doorways.settle(wanted)))

    def knock(self) -> socket.socket:
        """A client that has connected, and has to wait."""
        client = socket.create_connection((self.port.address, self.port.number), 5)
        self.addCleanup(client.close)
        client.settimeout(5)
        self.reactor.turn()
        return client

    def serve(self) -> socket.socket:
        """An instance serves now; return its listening socket."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        listener.settimeout(5)
        self.targets = [listener.getsockname()]
        self.doorways.look()
        self.reactor.turn()
        return listener

    def answer(self, listener: socket.socket, client: socket.socket) -> None:
        """The instance accepts, and what it says comes to the client."""
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"hello")
            self.reactor.turn()
        self.assertEqual(client.recv(10), b"hello")


class WaitingTests(DoorwaysCase):
    """While no instance serves, connections wait."""

    def setUp(self) -> None:
        super().setUp()
        self.settle(self.port)

    def test_knock(self) -> None:
        """Who waits is told once; all are handed on when an instance serves, also later ones."""
        first, second = self.knock(), self.knock()
        self.assertEqual(self.told, ["web"])
        self.assertTrue(self.doorways.someone_waits("web"))
        self.assertFalse(self.doorways.someone_waits("shop"))
        listener = self.serve()
        self.assertFalse(self.doorways.someone_waits("web"))
        for client in (first, second, self.knock()):
            self.answer(listener, client)
        self.assertEqual(self.told, ["web"])

    def test_again(self) -> None:
        """When no instance serves any more, the next one knocks again."""
        self.answer(self.serve(), self.knock())
        self.targets = []
        self.doorways.look()
        self.knock()
        self.assertEqual(self.told, ["web"])

    def test_never(self) -> None:
        """If no instance comes, those who wait are hung up on, that is told, and one may knock
        again."""
        clients = [self.knock() for _ in range(3)]
        self.reactor.advance(doorways.WAIT_WITHIN - 1)
        self.reactor.turn()
        self.assertEqual(self.told, ["web"])
        self.reactor.advance(1)
        for client in clients:
            self.assertEqual(client.recv(1), b"")
        self.reactor.advance(doorways.TELL_AFTER)
        self.assertEqual(self.told, ["web", ("web", self.port, 3)])
        self.knock()
        self.assertEqual(self.told[2:], ["web"])

    def test_hung_up_meanwhile(self) -> None:
        """A client that hangs up before it is its turn does no harm."""
        self.knock().close()
        second, listener = self.knock(), self.serve()
        with listener.accept()[0] as first:
            self.assertEqual(first.recv(1), b"")
        self.answer(listener, second)

    def test_does_not_listen_yet(self) -> None:
        """If an instance does not listen yet, it is tried again, and not for ever."""
        with socket.create_server(("127.0.0.1", 0)) as gone:
            self.targets = [gone.getsockname()]
        client = self.knock()
        self.doorways.look()
        self.reactor.turn()
        self.reactor.pump([0.5, 0.5])
        self.assertEqual(self.doorways.relays.count, 1)
        listener = self.serve()
        self.reactor.advance(doorways.TRY_AT_MOST)
        self.reactor.turn()
        self.answer(listener, client)
        self.targets = [gone_address(self)]
        client = self.knock()
        for _ in range(int(doorways.WAIT_WITHIN / doorways.TRY_AT_MOST) + 20):
            self.reactor.advance(doorways.TRY_AT_MOST)
            self.reactor.turn(1)
        self.assertEqual(client.recv(1), b"")
        self.reactor.advance(doorways.TELL_AFTER)
        self.assertEqual(self.told, ["web", ("web", self.port, 1)])

    def test_too_many(self) -> None:
        """Only so many are handed on at once; the others wait, until one that is silent goes."""
        self.doorways.relays.most = 1
        first, second = self.knock(), self.knock()
        listener = self.serve()
        connection, _ = listener.accept()
        self.addCleanup(connection.close)
        self.reactor.turn()
        listener.setblocking(False)
        self.assertRaises(BlockingIOError, listener.accept)
        for _ in range(int(SILENT) + 1):
            self.reactor.advance(1)
            self.reactor.turn()
        self.assertEqual(first.recv(1), b"")
        self.answer(listener, second)

    def test_too_few_descriptors(self) -> None:
        """If no descriptor is left, connections wait until there is one."""
        client = self.knock()
        door: Any = self.doorways._doors[key_of(self.port)]
        none_left = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        before, door.listener = door.listener, FailingListener(door.listener, none_left)
        listener = self.serve()
        door.listener = before
        self.reactor.advance(doorways.ACCEPT_AGAIN)
        self.reactor.turn()
        self.answer(listener, client)

    def test_stopped(self) -> None:
        """When the manager ends, nothing is left to do, and the next one has who waits."""
        client = self.knock()
        self.end(self.doorways)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ({}, []))
        self.begin()
        self.settle(self.port)
        self.answer(self.serve(), client)


def gone_address(case: DoorwaysCase) -> tuple[str, int]:
    """Where no one listens."""
    port = case.free_port()
    return port.address, port.number


class FailingListener:
    """A socket from which no connection can be accepted."""

    def __init__(self, listener: socket.socket, error: OSError) -> None:
        self.fileno = listener.fileno
        self.error = error

    def accept(self) -> None:
        raise self.error


class SocketsTests(DoorwaysCase):
    """Which sockets there are."""

    def test_none(self) -> None:
        """If no service publishes a port any more, what the manager before kept is closed."""
        self.settle(self.port)
        self.begin()
        self.settle()
        self.assertEqual(self.log_process.kept, {})

    def test_only_what_differs(self) -> None:
        """A port that goes is closed, one that comes is listened on, and the others stay."""
        others = [self.free_port(), self.free_port()]
        self.settle(self.port, others[0])
        before = self.doorways._doors[key_of(self.port)]
        self.settle(self.port, others[1])
        self.assertIs(self.doorways._doors[key_of(self.port)], before)
        self.assertEqual({*self.log_process.kept}, {key_of(self.port), key_of(others[1])})
        gone = (others[0].address, others[0].number)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, gone)
        self.settle()
        self.assertEqual(self.log_process.kept, {})

    def test_another_service(self) -> None:
        """If another service has the port now, those who wait there are its."""
        self.settle(self.port)
        client = self.knock()
        self.settle(self.port, service="shop")
        self.reactor.turn()
        self.assertEqual(self.told, ["web", "shop"])
        self.answer(self.serve(), client)

    def test_other_target(self) -> None:
        """If only the container's port is another one, it leads there."""
        self.settle(self.port)
        self.settle(evolve(self.port, target=81))
        found: list[Port] = []
        self.doorways.leads_to = lambda service, port: found.append(port) or []
        self.doorways.look()
        self.assertEqual([port.target for port in found], [81])

    def test_taken(self) -> None:
        """A port at which another program listens is that program's, until it is free."""
        other = self.free_port()
        self.doorways.again = lambda: self.settle(other, self.port)
        with socket.create_server((other.address, other.number)):
            self.settle(other, self.port)
            self.reactor.advance(SETTLE_AGAIN)
            self.assertEqual(self.known(other, self.port), [(False, True), (True, False)])
        self.reactor.advance(SETTLE_AGAIN)
        self.assertEqual(self.known(other, self.port), [(True, False), (True, False)])
        self.assertEqual(self.known(evolve(other, protocol="udp")), [(False, False)])

    def test_wanted_no_more(self) -> None:
        """A taken port that no service wants is not tried again."""
        with socket.create_server((self.port.address, self.port.number)):
            self.settle(self.port)
            self.settle()
        self.assertEqual(
            (self.known(self.port), self.reactor.getDelayedCalls()), ([(False,) * 2], [])
        )

    def known(self, *ports: Port) -> list[tuple[bool, bool]]:
        """Of each, whether it is had, and whether another program has it."""
        return [(self.doorways.holds(port), self.doorways.is_taken(port)) for port in ports]

    def test_asked_again(self) -> None:
        """If the log process does not tell what it keeps, it is asked again, and all is found."""
        self.settle(self.port)
        client = self.knock()
        self.end(self.doorways)
        self.log_process.silent = True
        self.begin()
        wanted = {key_of(self.port): ("web", self.port)}
        settled = list[bool]()
        self.doorways.again = lambda: Deferred.fromCoroutine(
            self.doorways.settle(wanted)
        ).addCallback(settled.append)
        self.doorways.again()
        self.reactor.advance(DRAIN_WITHIN)
        self.assertEqual((settled, self.known(self.port)), ([False], [(False, False)]))
        self.log_process.silent = False
        self.reactor.advance(SETTLE_AGAIN)
        self.assertEqual((settled, self.known(self.port)), ([False, True], [(True, False)]))
        self.answer(self.serve(), client)

    def test_not_kept(self) -> None:
        """If the log process does not keep it, it is there all the same."""
        with patch.object(LogClient, "keep", keep_nothing):
            self.settle(self.port)
        self.answer(self.serve(), self.knock())

    def test_carried_otherwise(self) -> None:
        """A service may take care of connections itself, whether or not an instance serves."""

        async def greet(connection: socket.socket) -> None:
            connection.send(b"hello")

        self.doorways.carried["web"] = greet, Relays(self.reactor, 1)
        self.settle(self.port)
        self.assertEqual(self.knock().recv(10), b"hello")
        self.assertEqual(self.told, [])


async def keep_nothing(client: LogClient, key: str, listener: socket.socket) -> str:
    """As the log process does that keeps too many."""
    client.kept[key] = listener
    return "too many"


@needs_ipv6
class SixTests(SynchronousTestCase):
    """Sockets of ports at IPv6 addresses."""

    def test_both(self) -> None:
        """The same port is listened on at all IPv4 addresses and at all of IPv6, separately."""
        with listen(Port("0.0.0.0", 0, 80, "tcp")) as one:
            number = one.getsockname()[1]
            with listen(Port("::", number, 80, "tcp")) as other:
                for host, listener in (("127.0.0.1", one), ("::1", other)):
                    listener.settimeout(5)
                    with socket.create_connection((host, number), 5):
                        listener.accept()[0].close()
