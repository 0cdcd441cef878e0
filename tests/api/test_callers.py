"""Which callers are inside a container, and what becomes of their requests."""

import errno
import os
import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import ManagerTestCase
from txcontain.api import callers
from txcontain.api.callers import Callers
from txcontain.api.server import ApiSite
from txcontain.engine.this_host import ThisHost
from txcontain.errors import Forbidden
from txcontain.host import sockets, syscalls
from txcontain.host.cgroups import SOCKETS, Cgroups
from txcontain.runtime.instance import Instance

GROUPS = "/sys/fs/cgroup/txcontain"
TOP = f"{GROUPS}/0123"
GET = b"GET /list HTTP/1.1\r\nHost: localhost\r\n\r\n"


class CallerTests(ManagerTestCase):
    """Callers of a manager with instances."""

    def setUp(self) -> None:
        super().setUp()
        self.manager.pool.cgroups = Cgroups()
        self.groups = {7: "/sys/fs/cgroup/user.slice", sockets.ROOT: "/sys/fs/cgroup"}
        self.maker: int | None = 7
        self.own = True
        self.patch(sockets, "group_of_peer", lambda own, peer: self.maker)
        self.patch(syscalls, "path_of_group", self.path_of_group)
        self.patch(sockets, "is_own", lambda host: self.own)

    def path_of_group(self, some: str, number: int) -> str:
        if number not in self.groups:
            raise OSError(errno.ESTALE, "Stale file handle")
        return self.groups[number]

    def begin(self, **keys: Any) -> Instance:
        """An instance, whose sockets are of group 9."""
        self.launch(**keys)
        instance = list(self.manager.instances.values())[-1]
        self.groups[9] = f"{TOP}/{instance.processes.token}"
        self.manager.pool.cgroups = Cgroups({SOCKETS: TOP}, frozenset({SOCKETS}))
        return instance

    def ask(self, peer: str = "127.0.0.1", kind: type[Any] = IPv4Address) -> bytes:
        """The answer to a request from this address."""
        connection = ApiSite(ThisHost(self.manager)).buildProtocol(None)
        own = kind("TCP", peer, 8080)
        transport = StringTransport(hostAddress=own, peerAddress=kind("TCP", peer, 1234))
        connection.makeConnection(transport)
        connection.dataReceived(GET * 2)
        self.reactor.advance(1)
        answer = transport.value()
        connection.connectionLost(ConnectionError())
        return answer

    def assert_refused(self, answer: bytes, *words: bytes) -> None:
        """Fail unless there was one answer, a 403 with its reason, and then the end."""
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1, answer)
        self.assertTrue(answer.startswith(b"HTTP/1.1 403"), answer)
        self.assertIn(b"Connection: close", answer)
        for word in words:
            self.assertIn(word, answer)

    def test_outside(self) -> None:
        """A caller in no container's group is answered, however many containers run."""
        self.begin(name="web")
        for self.maker in (7, sockets.ROOT, sockets.UNTOLD):
            self.assertEqual(self.ask().count(b"HTTP/1.1 200"), 2)
        self.groups[8] = f"{TOP}/keepers"
        self.maker = 8
        self.assertEqual(self.ask().count(b"HTTP/1.1 200"), 2)

    def test_in_a_container(self) -> None:
        """A caller in a container is refused, by IPv4 and IPv6, and is told what to do."""
        instance = self.begin(name="web")
        self.maker = 9
        for peer in ("127.0.0.1", "192.0.2.1", "::1", "::ffff:127.0.0.1"):
            kind = IPv6Address if ":" in peer else IPv4Address
            self.assert_refused(self.ask(peer, kind), instance.name.encode(), b'"manage": true')

    def test_of_another_manager(self) -> None:
        """So is a caller in a container of another manager, or in one that has just ended."""
        self.begin(name="web")
        self.maker = 9
        for path in (f"{TOP}/fedcba", f"{GROUPS}/4567/89ab"):
            self.groups[9] = path
            self.assert_refused(self.ask(), b"inside of a container")

    def test_may_manage(self) -> None:
        """A container whose config says so is answered, and the journal has its name."""
        instance = self.begin(name="web", manage=True)
        self.maker = 9
        channel = ApiSite(ThisHost(self.manager)).buildProtocol(None)
        channel.makeConnection(StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1)))
        body = b'{"name": "web", "major": "1", "minor": "01"}'
        head = b"POST /launch HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        channel.dataReceived(head % len(body) + body)
        self.reactor.advance(1)
        asked_by = {event.get("by") for event in self.manager.journal.since(0)}
        self.assertIn(f"loopback in {instance.name}", asked_by)
        channel.connectionLost(ConnectionError())

    def test_gone(self) -> None:
        """A caller whose socket is gone may have been in a container, unless on another host."""
        self.begin(name="web")
        for maker in (None, 1234):
            self.maker = maker
            self.own = True
            self.assert_refused(self.ask(), b"hung up")
            self.own = False
            self.assertEqual(self.ask("192.0.2.1").count(b"HTTP/1.1 200"), 2)

    def test_not_to_be_told(self) -> None:
        """If the kernel can't be asked, all callers count as outside."""
        self.begin(name="web")

        def refuse(own: tuple[str, int], peer: tuple[str, int]) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        self.patch(sockets, "group_of_peer", refuse)
        self.assertEqual(self.ask().count(b"HTTP/1.1 200"), 2)
        self.manager.pool.cgroups = Cgroups()
        self.assertEqual(self.ask().count(b"HTTP/1.1 200"), 2)

    def test_not_to_be_told_now(self) -> None:
        """If there is too little to ask the kernel with, no caller counts as outside."""
        self.begin(name="web")

        def fails(own: Any, peer: Any) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(sockets, "group_of_peer", fails)
        self.assert_refused(self.ask(), b"can't tell where this request comes from")

    def test_private(self) -> None:
        """A caller from the private network is the instance that has, or had, that address."""
        self.begin(name="web", network="private")
        (instance,) = self.manager.instances.values()
        self.assert_refused(self.ask(instance.address or ""), instance.name.encode())
        self.assert_refused(self.ask("10.87.0.6"), b"inside of a container")
        bridge = str(self.manager.network.interface.ip)
        self.assertEqual(self.ask(bridge).count(b"HTTP/1.1 200"), 2)

    def test_untold(self) -> None:
        """A caller is refused if its place can't be learnt: it may be a container."""
        self.begin(name="web")

        def fails(own: Any, peer: Any) -> int:
            raise RuntimeError("sock_diag(7) said something new")

        self.patch(sockets, "group_of_peer", fails)
        self.assert_refused(self.ask(), b"can't tell where this request comes from")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_unix(self) -> None:
        """A caller on the unix socket is known by the cgroups of its process."""
        instance = self.begin(name="web")
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        transport = SimpleNamespace(getPeer=lambda: UNIXAddress(None), socket=ours)
        self.assertIsNone(Callers(self.manager).instance_of(transport))
        groups = ["/", f"/txcontain/0123/{instance.processes.token}", "/user.slice"]
        self.patch(callers, "_groups_of", lambda pid: groups if pid == os.getpid() else [])
        self.assertRaises(Forbidden, Callers(self.manager).instance_of, transport)


class SocketTests(SynchronousTestCase):
    """What the kernel says of real connections."""

    def test_peer(self) -> None:
        """The other end of a connection is found, by IPv4, IPv6 and both, until it is gone."""
        known = set()
        for listens, connects in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")):
            family = socket.AF_INET6 if ":" in listens else socket.AF_INET
            dual = listens == "::"
            with socket.create_server((listens, 0), family=family, dualstack_ipv6=dual) as server:
                client = socket.create_connection((connects, server.getsockname()[1]))
                accepted, peer = server.accept()
                ends = accepted.getsockname()[:2], peer[:2]
                with accepted:
                    with client:
                        known.add(sockets.group_of_peer(*ends))
                    # Now it is in FIN_WAIT2, or what is left of it in TIME_WAIT.
                    self.assertIn(sockets.group_of_peer(*ends), {None, *known})
                self.assertIsNone(sockets.group_of_peer(ends[0], (peer[0], 1)))
        self.assertEqual(len(known), 1)  # all are of this process
        self.assertFalse(known & {None, sockets.UNTOLD})

    def test_own_addresses(self) -> None:
        """An address is this host's if a socket can be bound to it."""
        for host, own in (
            ("127.0.0.1", True),
            ("127.9.9.9", True),
            ("::1", True),
            ("192.0.2.1", False),
            ("2001:db8::1", False),
        ):
            self.assertEqual(sockets.is_own(host), own, host)
