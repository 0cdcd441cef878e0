"""What the kernel says of real processes and sockets: our own, and children of ours."""

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
from inspect import getsource, signature
from itertools import product
from typing import Any
from unittest import mock

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests import kernel_contract
from tests.fakes import FakeKernel
from tests.kernel_contract import Contract, FakeWorld, PrivilegedContract, RealWorld
from txcontain.host import kernel, sockets
from txcontain.host.kernel import Kernel, program

NOT_THE_KERNELS = {"begin", "end", "reap"}  # by these a test of the fake one makes things happen
NOT_FAKED = {"cut_off"}  # a test of logs uses the real one


class RealKernel(RealWorld, Contract, SynchronousTestCase):
    """The real kernel keeps the contract."""


class FakeKernelTests(FakeWorld, Contract, PrivilegedContract, SynchronousTestCase):
    """So does the fake one: what passes on it proves something."""

    def test_nothing_is_left_out(self) -> None:
        """Every method of both is in the contract, and takes the same arguments in both."""
        contract = getsource(kernel_contract)
        for name in vars(FakeKernel).keys() - NOT_THE_KERNELS - NOT_FAKED:
            if name.startswith("_"):
                continue
            fake, real = getattr(FakeKernel, name), getattr(Kernel, name)
            self.assertEqual(list(signature(fake).parameters), list(signature(real).parameters))
            self.assertIn(f"self.kernel.{name}", contract)


class Case(SynchronousTestCase):
    """Starts children that end with the test."""

    def setUp(self) -> None:
        self.kernel = Kernel()

    def start(self, *command: str, **options: Any) -> Any:
        """A child that ends when its stdin is closed."""
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, **options)
        self.addCleanup(self.end, child)
        return child

    def start_shell(self, script: str) -> Any:
        """A shell that runs a script, and then waits; returns it and the line that it wrote.

        What the script starts with ``&`` finds its stdin as descriptor 3: as 0 it has none.
        """
        child = self.start("sh", "-c", f"exec 3<&0\n{script}\necho $!\nread line || exit 3")
        return child, child.stdout.readline().decode().strip()

    def end(self, child: Any) -> None:
        """Let a child end, and see it off."""
        child.stdin.close()
        child.stdout.close()
        child.wait(10)


class Processes(Case):
    """Pids, and the processes behind them."""

    def test_identity(self) -> None:
        """A process is known by its pid and start time, which stay the same."""
        child = self.start("cat")
        ours, its = self.kernel.identify(os.getpid()), self.kernel.identify(child.pid)
        self.assertEqual(ours, self.kernel.identify(os.getpid()))
        self.assertEqual(its.pid, child.pid)
        self.assertGreaterEqual(its.start_time, ours.start_time)
        self.assertTrue(self.kernel.lives(its))

    def test_a_process_that_has_ended(self) -> None:
        """A process that is gone is neither identified nor opened, and does not live."""
        child = self.start("cat")
        process = self.kernel.identify(child.pid)
        self.end(child)
        self.assertRaises(ProcessLookupError, self.kernel.identify, child.pid)
        self.assertRaises(ProcessLookupError, self.kernel.open_process, process)
        self.assertFalse(self.kernel.lives(process))
        self.assertFalse(self.kernel.catches(child.pid, signal.SIGTERM))
        self.assertFalse(self.kernel.holds_socket(child.pid, {"1"}))
        self.assertEqual(list(self.kernel.descendants(child.pid)), [child.pid])
        self.assertEqual(program(child.pid), "")
        self.kernel.signal_process(process, signal.SIGTERM)  # which is nothing to do

    def test_monitors(self) -> None:
        """A monitor is who works in a slot, and its child is PID 1, who may work there too."""
        slots = os.path.abspath(self.mktemp())
        for name in ("one", "two", "three"):
            os.makedirs(os.path.join(slots, name))
        monitor, child = self.start_shell(f"cd {slots}/one; cat <&3 &")
        lonely = self.start("cat", cwd=os.path.join(slots, "two"))
        self.start("cat", cwd=slots)
        lonely, monitor, child = map(self.kernel.identify, (lonely.pid, monitor.pid, int(child)))
        self.assertEqual(
            self.kernel.monitors(slots), {"one": (monitor, child), "two": (lonely, None)}
        )
        link = os.path.abspath(self.mktemp())
        os.symlink(slots, link)
        self.assertEqual(len(self.kernel.monitors(link)), 2)

    def test_no_monitor(self) -> None:
        """Who works in another folder that has the slot's path, in its own root, is none."""
        folder = os.path.abspath(self.mktemp())
        slot = os.path.join(folder, "one")
        os.makedirs(slot)
        self.start("cat", cwd=slot)
        self.assertEqual(len(self.kernel.monitors(folder)), 1)
        readlink = os.readlink
        os.rename(slot, f"{slot}.old")
        os.mkdir(slot)
        self.patch(os, "readlink", lambda path: readlink(path).removesuffix(".old"))
        self.assertEqual(self.kernel.monitors(folder), {})

    def test_a_stranger_deep_down(self) -> None:
        """Who works in a folder whose path is too long to be told keeps no monitor from us."""
        slots = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(slots, "one"))
        self.start("cat", cwd=os.path.join(slots, "one"))
        script = (
            "import os\nname = 'x' * 250\n"
            "for _ in range(20): os.mkdir(name); os.chdir(name)\n"
            "print(flush=True); os.read(0, 1)\n"
            "for _ in range(20): os.chdir('..'); os.rmdir(name)"
        )
        deep = self.start(sys.executable, "-ISc", script, cwd=self.mktemp_folder())
        deep.stdout.readline()
        error = self.assertRaises(OSError, os.readlink, f"/proc/{deep.pid}/cwd")
        self.assertEqual(error.errno, errno.ENAMETOOLONG)
        self.assertEqual(list(self.kernel.monitors(slots)), ["one"])

    def test_flush_disk(self) -> None:
        """A disk is flushed by any of its folders, and what is none is an error."""
        kernel.flush_disk(self.mktemp_folder())
        self.assertRaises(FileNotFoundError, kernel.flush_disk, self.mktemp())

    def mktemp_folder(self) -> Any:
        """A folder."""
        os.mkdir(path := self.mktemp())
        return path

    def test_names_of_any_bytes(self) -> None:
        """A process whose name is no UTF-8, or looks like other fields, is one like any other."""
        name = b"\xff) R 1 ("
        script = f"open('/proc/self/comm', 'wb').write({name!r})\nprint(flush=True)\nopen(0).read()"
        child = self.start(sys.executable, "-ISc", script)
        child.stdout.readline()
        self.assertTrue(self.kernel.lives(self.kernel.identify(child.pid)))
        self.assertFalse(self.kernel.catches(child.pid, signal.SIGTERM))
        self.assertEqual(program(child.pid), name.decode(errors="replace"))

    def test_the_boot(self) -> None:
        """The boot has an id that stays the same."""
        self.assertRegex(self.kernel.boot_id(), r"^[0-9a-f-]{36}$")
        self.assertEqual(self.kernel.boot_id(), self.kernel.boot_id())

    def test_prompt(self) -> None:
        """Who is to be prompt keeps its priority, and what it starts is like any other."""
        script = """
import os
from txcontain.host.kernel import Kernel
os.nice(3)
Kernel().be_prompt()
scheduler = os.sched_getscheduler(0)
print(scheduler & os.SCHED_RESET_ON_FORK > 0, os.nice(0), flush=True)
if os.fork() == 0:
    print(os.sched_getscheduler(0) == os.SCHED_OTHER, os.nice(0), flush=True)
else:
    os.wait()
"""
        child = self.start(sys.executable, "-c", script)
        self.assertEqual(child.communicate()[0].split(), [b"True", b"3"] * 2)


class Families(Case):
    """Processes below a process, and the signals that they catch."""

    def test_descendants(self) -> None:
        """A process's children and theirs are found, and it is the first."""
        child, grandchild = self.start_shell("(cat; :) <&3 & ")
        found = list(self.kernel.descendants(child.pid))
        self.assertEqual(found[0], child.pid)
        self.assertIn(int(grandchild), found)
        self.assertNotIn(os.getpid(), found)
        self.assertIn(int(grandchild), list(self.kernel.descendants(os.getpid())))

    def test_catches(self) -> None:
        """A signal is caught where a handler is installed, and only there."""
        child, _ = self.start_shell("trap : TERM; trap '' INT")
        self.assertTrue(self.kernel.catches(child.pid, signal.SIGTERM))
        self.assertFalse(self.kernel.catches(child.pid, signal.SIGINT))
        self.assertFalse(self.kernel.catches(child.pid, signal.SIGHUP))

    def test_catchers(self) -> None:
        """Of a family the first is named if it catches the signal, else all others that do."""
        worker = "sh -c 'trap : TERM; echo; read line <&3'"
        for trap, wanted in (("trap : TERM", "parent"), ("trap : HUP", "worker")):
            child, line = self.start_shell(f"{trap}; {worker} &")
            lines = [line, child.stdout.readline().decode().strip()]  # the worker's is empty
            family = {"parent": child.pid, "worker": int("".join(lines))}
            expected = [self.kernel.identify(family[wanted])]
            self.assertEqual(self.kernel.catchers(child.pid, signal.SIGTERM), expected)

    def test_blocked(self) -> None:
        """Who blocks a signal may be waiting for it: that is handling it, too."""
        blocked = {signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        child = self.start("cat")  # inherits the mask
        self.assertTrue(self.kernel.catches(child.pid, signal.SIGTERM))
        self.assertFalse(self.kernel.catches(child.pid, signal.SIGHUP))


class Sockets(Case):
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

    def test_ipv6(self) -> None:
        """A socket that listens by IPv6 counts as well."""
        try:
            other = socket.create_server(("::1", 0), family=socket.AF_INET6)
        except OSError:
            raise SkipTest("this machine has no IPv6") from None
        with other:
            self.assertTrue(self.kernel.listens(os.getpid(), other.getsockname()[1]))

    def test_two_ways_to_know(self) -> None:
        """Where the kernel can't be asked, its tables say the same, but for the time it takes."""
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
        """A process does not listen because its parent does."""
        self.socket.listen()
        child = self.start("cat")  # to which the socket is not passed on
        self.assertFalse(self.kernel.listens(child.pid, self.port))

    def test_a_child_with_the_socket(self) -> None:
        """A process listens where one below it holds the socket, though it does not itself."""
        self.socket.listen()
        child = self.start("cat", pass_fds=[self.socket.fileno()])
        self.socket.close()
        inodes = self.kernel.listening_sockets(self.port)
        self.assertFalse(self.kernel.holds_socket(os.getpid(), inodes))
        self.assertTrue(self.kernel.holds_socket(child.pid, inodes))
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
            listeners = [sockets.Socket(b"", "1", number) for number in found]
            self.patch(sockets, "listeners", lambda *_, listeners=listeners: listeners)
            self.patch(kernel, "_shares_network", lambda pid, shares=shares: shares)
            self.assertIs(self.kernel.surely_listens(1, 80, group), wanted)

    def test_very_many_descriptors(self) -> None:
        """However many processes and descriptors a container has, a look is at so many of them."""
        self.socket.listen()
        looked = []

        def some_link(path: Any) -> Any:
            looked.append(path)
            return "/dev/null"

        self.patch(kernel, "MOST_FILES", 100)
        self.patch(kernel, "MOST_PROCESSES", 5)
        self.patch(self.kernel, "descendants", lambda pid: itertools.repeat(pid))
        for each, most in ((1000, 100), (3, 5 * 3)):  # of descriptors, and of processes
            looked.clear()
            files = mock.patch.object(
                kernel, "_open_files", lambda pid, each=each: map(some_link, range(each))
            )
            with files:
                self.assertFalse(self.kernel.listens(os.getpid(), self.port))
            self.assertEqual(len(looked), most)

    def test_a_descriptor_closed_meanwhile(self) -> None:
        """A file that is closed while a process's files are looked through hides no other."""
        self.socket.listen()
        readlink = os.readlink

        def vanished(path: Any) -> Any:
            if "socket" not in readlink(path):
                raise FileNotFoundError(path)
            return readlink(path)

        self.patch(os, "readlink", vanished)
        self.assertTrue(self.kernel.listens(os.getpid(), self.port))
