"""Who listens on a port, of real processes: our own, and children of ours."""

import errno
import itertools
import os
import socket
from itertools import product
from typing import Any
from unittest import mock

from tests.host.children import ChildrenCase
from tests.support import needs_ipv6
from txcontain.host import listeners, sockets
from txcontain.host.listeners import holds_socket
from txcontain.host.processes import program


class Listeners(ChildrenCase):
    """Who listens on a port."""

    def setUp(self) -> None:
        super().setUp()
        self.socket = socket.socket()
        self.addCleanup(self.socket.close)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def test_bound_is_not_listening(self) -> None:
        """A socket that is bound listens only after listen(2), and no longer when it is closed."""
        self.assertFalse(self.kernel.listens(os.getpid(), self.port))
        self.assertIsNone(self.kernel.listener(self.port))
        self.socket.listen()
        self.assertTrue(self.kernel.listens(os.getpid(), self.port))
        self.assertFalse(self.kernel.listens(os.getpid(), self.port ^ 1))
        self.socket.close()
        self.assertFalse(self.kernel.listens(os.getpid(), self.port))

    def test_the_listener(self) -> None:
        """The process that has a port is named."""
        self.socket.listen()
        self.assertEqual(self.kernel.listener(self.port), (os.getpid(), program(os.getpid())))

    @needs_ipv6
    def test_ipv6(self) -> None:
        """A socket that listens by IPv6 counts as well."""
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
            self.assertTrue(self.kernel.listens(os.getpid(), other.getsockname()[1]))

    def test_two_ways_to_know(self) -> None:
        """If sock_diag can't be asked, the tables in /proc say the same."""
        self.socket.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", self.port))
            asked = self.found()
            self.patch(sockets, "question_socket", self.refuse)
            self.assertEqual(asked, self.found())
        self.assertEqual([len(inodes) for inodes in asked], [1, 1, 0] * 4)

    def found(self) -> Any:
        """The sockets that listen on the port, by process, protocol and address."""
        addresses = ("0.0.0.0", "127.0.0.1", "127.0.0.2")
        every = product(("self", str(os.getpid())), ("tcp", "udp"), addresses)
        return [self.kernel.listening_sockets(self.port, *which) for which in every]

    def refuse(self, network_of: Any) -> None:
        """As a kernel without sock_diag(7)."""
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    def test_of_a_process_that_has_ended(self) -> None:
        """Nothing listens any more."""
        child = self.start("true")
        child.wait()
        self.assertEqual(self.kernel.listening_sockets(self.port, child.pid), set())

    def test_a_child_without_the_socket(self) -> None:
        """That its parent listens does not make a process listen."""
        self.socket.listen()
        child = self.start("cat")  # to which the socket is not passed on
        self.assertFalse(self.kernel.listens(child.pid, self.port))

    def test_a_child_with_the_socket(self) -> None:
        """A process listens if one below it holds the socket."""
        self.socket.listen()
        child = self.start("cat", pass_fds=[self.socket.fileno()])
        self.socket.close()
        inodes = self.kernel.listening_sockets(self.port)
        self.assertFalse(holds_socket(os.getpid(), inodes))
        self.assertTrue(holds_socket(child.pid, inodes))
        self.assertTrue(self.kernel.listens(os.getpid(), self.port))

    def test_by_the_tables(self) -> None:
        """A socket's cgroup tells whose it is; in a network of its own, all are the container's."""
        root, ours, others = sockets.ROOT, 7, 8
        for shares, found, group, wanted in (
            (True, [], ours, False),
            (True, [ours, others], ours, True),
            (True, [others], ours, False),
            (True, [others], None, None),  # this container has no such group
            (True, [root], ours, None),  # an old kernel does not say
            (False, [others], None, True),
            (False, [], None, False),
        ):
            told = [sockets.Socket(b"", "1", number) for number in found]
            self.patch(sockets, "listeners", lambda *_, told=told: told)
            self.patch(listeners, "_shares_network", lambda pid, shares=shares: shares)
            self.assertIs(self.kernel.surely_listens(1, 80, group), wanted)

    def test_very_many_descriptors(self) -> None:
        """However many processes and descriptors there are, only so many are looked at."""
        self.socket.listen()
        looked = []

        def some_link(path: Any) -> Any:
            looked.append(path)
            return "/dev/null"

        self.patch(listeners, "MOST_FILES", 100)
        self.patch(listeners, "MOST_PROCESSES", 5)
        self.patch(listeners, "descendants", lambda pid: itertools.repeat(pid))
        for each, most in ((1000, 100), (3, 5 * 3)):  # of descriptors, and of processes
            looked.clear()
            files = mock.patch.object(
                listeners, "_open_files", lambda pid, each=each: map(some_link, range(each))
            )
            with files:
                self.assertFalse(self.kernel.listens(os.getpid(), self.port))
            self.assertEqual(len(looked), most)

    def test_a_descriptor_closed_meanwhile(self) -> None:
        """A descriptor that is closed meanwhile hides no other."""
        self.socket.listen()
        readlink = os.readlink

        def vanished(path: Any) -> Any:
            if "socket" not in readlink(path):
                raise FileNotFoundError(path)
            return readlink(path)

        self.patch(os, "readlink", vanished)
        self.assertTrue(self.kernel.listens(os.getpid(), self.port))
