"""What every kernel does, real or fake: one contract, so that the fake is never kinder.

A test of the manager that passes on the fake kernel proves something only where the real one
behaves the same: the same answers, and the same errors. A class of tests mixes `Contract` with
a `World`, which makes the processes, sockets and shortages that the contract speaks of.
"""

import contextlib
import errno
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeInit, FakeReactor, FakeSocket, make_folder
from tests.support import unmount
from txcontain.host.kernel import Kernel
from txcontain.host.processes import Process

NEVER = 1 << 22  # a pid past the greatest that Linux gives
NO_PROCESS = Process(0, 0)


if TYPE_CHECKING:

    class World(SynchronousTestCase):
        """What a world has, and a contract may speak of."""

        kernel: Any  # the fake one or the real one

        def begin(self) -> Process: ...
        def begin_catching(self, number: int) -> Process: ...
        def begin_monitor(self, slots: str, name: str) -> tuple[Process, Process]: ...
        def end(self, process: Process) -> None: ...
        def reap(self, process: Process) -> None: ...
        def wait_until_it_ended(self, process: Process) -> None: ...
        def readable(self, pidfd: int) -> bool: ...
        def descriptors(self) -> list[int]: ...
        def room_for(self, count: int) -> AbstractContextManager[None]: ...
        def connect(self) -> tuple[Any, int]: ...
        def hang_up(self) -> None: ...
        def close_ours(self) -> None: ...
        def listen(self) -> tuple[int, Process]: ...
        def listen_no_more(self) -> None: ...
        def mount(self, folder: str) -> None: ...

else:
    World = object


class Errors(World):
    """What both contracts need."""

    def assert_errno(self, number: int, function: Any, *arguments: Any) -> None:
        """Fail unless a call fails with just this error."""
        error = self.assertRaises(OSError, function, *arguments)
        self.assertEqual(errno.errorcode.get(error.errno), errno.errorcode[number])


class Contract(Errors):
    """What holds without root."""

    def opened(self, process: Process) -> int:
        """A pidfd that is closed with the test."""
        pidfd = self.kernel.open_process(process)
        self.addCleanup(self.kernel.close, pidfd)
        return pidfd

    # -- who is it? -----------------------------------------------------------------

    def test_a_process_that_runs(self) -> None:
        """A running process is identified by its pid, lives, and its pidfd is not readable."""
        process = self.begin()
        self.assertEqual(self.kernel.identify(process.pid), process)
        self.assertTrue(self.kernel.lives(process))
        self.assertFalse(self.readable(self.opened(process)))

    def test_two_processes(self) -> None:
        """Two processes are not the same."""
        self.assertNotEqual(self.begin(), self.begin())

    def test_a_zombie(self) -> None:
        """A zombie, which no one has waited for, keeps its pid, but does not live."""
        process = self.begin()
        before = self.opened(process)
        self.end(process)
        self.assertEqual(self.kernel.identify(process.pid), process)
        self.assertFalse(self.kernel.lives(process))
        self.assertTrue(self.readable(before))
        self.assertTrue(self.readable(self.opened(process)))
        self.kernel.send_signal(before, signal.SIGKILL)  # which does nothing
        self.kernel.signal_process(process, signal.SIGKILL)
        self.assertEqual(self.kernel.catchers(process.pid, signal.SIGTERM), [])

    def test_a_process_that_is_gone(self) -> None:
        """After a wait the process is gone: asking for it is an error, signalling it is not."""
        process = self.begin()
        pidfd = self.opened(process)
        self.end(process)
        self.reap(process)
        self.assert_errno(errno.ESRCH, self.kernel.identify, process.pid)
        self.assert_errno(errno.ESRCH, self.kernel.open_process, process)
        self.assertFalse(self.kernel.lives(process))
        self.assertTrue(self.readable(pidfd))
        self.kernel.send_signal(pidfd, signal.SIGKILL)
        self.kernel.signal_process(process, signal.SIGKILL)
        self.assertEqual(self.kernel.catchers(process.pid, signal.SIGTERM), [])
        self.assertFalse(self.kernel.listens(process.pid, 1))

    def test_pids_that_no_process_has(self) -> None:
        """A pid past the greatest is a process that is gone."""
        self.assert_errno(errno.ESRCH, self.kernel.identify, NEVER)
        self.assert_errno(errno.ESRCH, self.kernel.open_process, Process(NEVER, 1))
        self.assertFalse(self.kernel.lives(Process(NEVER, 1)))
        self.kernel.signal_process(Process(NEVER, 1), signal.SIGKILL)

    def test_pids_that_no_process_can_have(self) -> None:
        """Neither 0 nor a negative number is a pid: pidfd_open(2) does not take it."""
        for pid in (0, -1, -NEVER):
            self.assert_errno(errno.ESRCH, self.kernel.identify, pid)
            self.assert_errno(errno.EINVAL, self.kernel.open_process, Process(pid, 0))
            self.assert_errno(errno.EINVAL, self.kernel.signal_process, Process(pid, 0), 9)
            self.assertFalse(self.kernel.lives(Process(pid, 0)))
            self.assertEqual(self.kernel.catchers(pid, signal.SIGTERM), [])

    def test_a_pid_that_is_used_again(self) -> None:
        """A process of that pid with another start time is neither opened nor signalled."""
        process = self.begin()
        other = evolve(process, start_time=process.start_time + 1)
        before = self.descriptors()
        self.assert_errno(errno.ESRCH, self.kernel.open_process, other)
        self.assertFalse(self.kernel.lives(other))
        self.kernel.signal_process(other, signal.SIGKILL)
        self.assertTrue(self.kernel.lives(process))
        self.assertEqual(self.descriptors(), before)

    # -- signals ---------------------------------------------------------------------

    def test_signal_by_a_pidfd(self) -> None:
        """SIGKILL by a pidfd ends the process, and no other one."""
        process, other = self.begin(), self.begin()
        pidfd = self.opened(process)
        self.kernel.send_signal(pidfd, signal.SIGKILL)
        self.wait_until_it_ended(process)
        self.assertTrue(self.readable(pidfd))
        self.assertTrue(self.kernel.lives(other))

    def test_signal_without_a_pidfd(self) -> None:
        """So does SIGKILL to a process, and no descriptor is left open."""
        process, other = self.begin(), self.begin()
        before = self.descriptors()
        self.kernel.signal_process(process, signal.SIGKILL)
        self.wait_until_it_ended(process)
        self.assertTrue(self.kernel.lives(other))
        self.assertEqual(self.descriptors(), before)

    def test_no_signal(self) -> None:
        """A number that is not a signal is refused."""
        pidfd = self.opened(self.begin())
        self.assert_errno(errno.EINVAL, self.kernel.send_signal, pidfd, 999)

    def test_catchers(self) -> None:
        """Only processes below this one that have a handler are named."""
        catching = self.begin_catching(signal.SIGTERM)
        self.assertEqual(self.kernel.catchers(catching.pid, signal.SIGTERM), [catching])
        self.assertEqual(self.kernel.catchers(catching.pid, signal.SIGHUP), [])
        self.assertEqual(self.kernel.catchers(self.begin().pid, signal.SIGTERM), [])

    def test_catchers_at_once(self) -> None:
        """If a process handles the signal, or is alone, the answer is known at once."""
        catching = self.begin_catching(signal.SIGTERM)
        for process, found in ((catching, [catching]), (self.begin(), [])):
            self.assertEqual(self.kernel.catchers_at_once(process.pid, signal.SIGTERM), found)

    # -- descriptors -------------------------------------------------------------------

    def test_descriptors(self) -> None:
        """The number of a closed descriptor is used again; until then it is an error."""
        process, other = self.begin(), self.begin()
        pidfd = self.kernel.open_process(process)
        self.kernel.close(pidfd)
        self.assert_errno(errno.EBADF, self.kernel.close, pidfd)
        self.assert_errno(errno.EBADF, self.kernel.send_signal, pidfd, signal.SIGKILL)
        self.assertEqual(self.opened(other), pidfd)
        self.assertTrue(self.kernel.lives(process))

    def test_no_descriptor(self) -> None:
        """-1 is not a descriptor."""
        self.assert_errno(errno.EBADF, self.kernel.close, -1)
        self.assert_errno(errno.EBADF, self.kernel.send_signal, -1, signal.SIGKILL)

    def test_no_room(self) -> None:
        """With no descriptor left, each method that needs one says so, and leaves none open."""
        process, folder = self.begin(), make_folder(self)
        pidfd = self.opened(process)
        before = self.descriptors()
        asks = [
            (self.kernel.identify, process.pid),
            (self.kernel.open_process, process),
            (self.kernel.lives, process),
            (self.kernel.lives, NO_PROCESS),
            (self.kernel.signal_process, process, 0),
            (self.kernel.monitors, folder),
            (self.kernel.catchers, process.pid, signal.SIGTERM),
            (self.kernel.listening_sockets, 1),
            (self.kernel.listens, process.pid, 1),
            (self.kernel.surely_listens, process.pid, 1, None),
            (self.kernel.listener, 1),
            (self.kernel.mounts_below, folder),
        ]
        for ask in asks:
            with self.room_for(0):
                self.assert_errno(errno.EMFILE, *ask)
        self.assertEqual(self.descriptors(), before)
        with self.room_for(0):  # which needs none
            self.kernel.send_signal(pidfd, signal.SIGKILL)
        self.wait_until_it_ended(process)

    def test_room_for_one(self) -> None:
        """Opening a process takes two descriptors for a moment; with one left, none leaks."""
        process, other = self.begin(), self.begin()
        before = self.descriptors()
        with self.room_for(1):
            self.assertEqual(self.kernel.identify(process.pid), process)
            self.assertTrue(self.kernel.lives(process))
            self.assert_errno(errno.EMFILE, self.kernel.open_process, process)
            self.assert_errno(errno.EMFILE, self.kernel.signal_process, process, 9)
        self.assertEqual(self.descriptors(), before)
        with self.room_for(2):
            self.opened(process)
            self.assert_errno(errno.EMFILE, self.kernel.open_process, other)

    def test_scarce(self) -> None:
        """A descriptor is scarce if few are left; with any number left, none is."""
        self.assertFalse(self.kernel.is_scarce(3))
        with self.room_for(1):
            self.assertTrue(self.kernel.is_scarce(1 << 20))

    def test_open_more(self) -> None:
        """As many files may be open as asked for, or as allowed; it never becomes fewer."""
        self.addCleanup(
            resource.setrlimit, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)
        )
        self.assertGreaterEqual(self.kernel.open_more(100), 100)
        before = self.kernel.open_more(100)
        self.assertGreaterEqual(before + 1, self.kernel.open_more(before + 1))

    # -- monitors -------------------------------------------------------------------------

    def test_monitors(self) -> None:
        """Monitors are found with the PID 1 below them, also those without one."""
        slots = make_folder(self)
        one, two = self.begin_monitor(slots, "one"), self.begin_monitor(slots, "two")
        self.begin()
        self.assertEqual(self.kernel.monitors(slots), {"one": one, "two": two})
        self.end(two[1])
        self.assertEqual(self.kernel.monitors(slots), {"one": one, "two": two})
        self.reap(two[1])
        self.assertEqual(self.kernel.monitors(slots), {"one": one, "two": (two[0], None)})
        self.end(two[0])
        self.assertEqual(self.kernel.monitors(slots), {"one": one})
        self.reap(two[0])
        self.assertEqual(self.kernel.monitors(slots), {"one": one})

    def test_no_slots(self) -> None:
        """Without slots there are no monitors."""
        self.assertEqual(self.kernel.monitors(make_folder(self)), {})

    # -- sockets -------------------------------------------------------------------------

    def test_the_peer(self) -> None:
        """The pid at the other end is known, also after it has hung up."""
        ours, pid = self.connect()
        self.assertEqual(self.kernel.peer(ours), pid)
        self.hang_up()
        self.assertEqual(self.kernel.peer(ours), pid)

    def test_send(self) -> None:
        """What fits into the socket's buffer is sent at once; the rest is for later."""
        ours, _ = self.connect()
        sent = self.kernel.send(ours, bytes(1 << 22))
        self.assertTrue(0 < sent < 1 << 22, sent)
        self.assertEqual(self.kernel.send(ours, b"more"), 0)

    def test_send_to_who_has_hung_up(self) -> None:
        """Nothing is sent if the other end has hung up: the socket itself tells that."""
        ours, _ = self.connect()
        self.hang_up()
        self.assertEqual(self.kernel.send(ours, b"a plan"), 0)

    def test_a_closed_socket(self) -> None:
        """A socket that was closed here is an error."""
        ours, _ = self.connect()
        self.close_ours()
        self.assert_errno(errno.EBADF, self.kernel.send, ours, b"a plan")
        self.assert_errno(errno.EBADF, self.kernel.peer, ours)

    def test_listening(self) -> None:
        """A port has one listener, until that process closes it."""
        port, process = self.listen()
        self.assertTrue(self.kernel.listens(process.pid, port))
        self.assertFalse(self.kernel.listens(self.begin().pid, port))
        self.assertIn(self.kernel.surely_listens(process.pid, port, None), (None, True))
        self.assertEqual(len(self.kernel.listening_sockets(port)), 1)
        self.assertEqual(self.kernel.listener(port)[0], process.pid)
        self.listen_no_more()
        self.assertFalse(self.kernel.listens(process.pid, port))
        self.assertIs(self.kernel.surely_listens(process.pid, port, None), False)
        self.assertEqual(self.kernel.listening_sockets(port), set())
        self.assertIsNone(self.kernel.listener(port))

    def test_connect(self) -> None:
        """A connection to a port that has a listener is there at once, and any other refused."""
        port, _ = self.listen()
        connection = self.kernel.connect(port)
        self.addCleanup(connection.close)
        self.assertEqual(connection.send(b""), 0)
        self.assertFalse(connection.getblocking())
        self.listen_no_more()
        self.assertRaises(ConnectionRefusedError, lambda: self.kernel.connect(port).send(b""))

    # -- the machine ------------------------------------------------------------------------

    def test_the_boot(self) -> None:
        """The boot stays the same and was before now; only the first call takes a descriptor."""
        boot_id = self.kernel.boot_id()
        with self.room_for(0):
            self.assertEqual(self.kernel.boot_id(), boot_id)
            self.assertLess(self.kernel.boot_time(), self.kernel.now())

    def test_prompt(self) -> None:
        """Asking for promptness is never an error, and takes no descriptor."""
        with self.room_for(0), ThreadPoolExecutor(1) as thread:  # of which it then is
            thread.submit(self.kernel.be_prompt).result()


class PrivilegedContract(Errors):
    """What takes root, with CAP_SYS_ADMIN."""

    def test_read_only(self) -> None:
        """A folder gets a descriptor of its own, which is closed like any other."""
        before = self.descriptors()
        descriptor = self.kernel.read_only(make_folder(self))
        self.assertEqual(len(self.descriptors()), len(before) + 1)
        self.kernel.close(descriptor)
        self.assertEqual(self.descriptors(), before)

    def test_read_only_without_room(self) -> None:
        """With no descriptor left, that is an error."""
        folder = make_folder(self)
        with self.room_for(0):
            self.assert_errno(errno.EMFILE, self.kernel.read_only, folder)

    def test_read_only_of_nothing(self) -> None:
        """A missing folder can't be opened, and leaves nothing open."""
        before = self.descriptors()
        self.assert_errno(errno.ENOENT, self.kernel.read_only, "/nowhere")
        self.assertEqual(self.descriptors(), before)

    def test_mounts_below(self) -> None:
        """Only the mounts below a folder are named, not those on it or beside it."""
        folder = make_folder(self)
        for name in ("a", "a/b", "ab"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
            self.mount(os.path.join(folder, name))
        self.assertEqual(self.kernel.mounts_below(f"{folder}/a"), [f"{folder}/a/b"])


class FakeWorld(World):
    """Has a fake kernel."""

    def setUp(self) -> None:
        """An empty machine."""
        self.reactor = FakeReactor()
        self.kernel = self.reactor.kernel

    def begin(self) -> Process:
        """A process that SIGKILL ends."""
        process: Process = self.kernel.begin(killed=lambda: self.kernel.end(process))
        return process

    def begin_catching(self, number: int) -> Process:
        """A process that has a handler for one signal."""
        process = self.begin()
        self.kernel.catching[process.pid] = [process]
        self.kernel.caught = number
        return process

    def begin_monitor(self, slots: str, name: str) -> tuple[Process, Process]:
        """A monitor, and the process below it."""
        self.kernel.working[name] = pair = self.begin(), self.begin()
        return pair

    def end(self, process: Process) -> None:
        """A process ends, and no one waits for it."""
        self.kernel.end(process)

    def reap(self, process: Process) -> None:
        """Someone has waited for it."""
        self.kernel.reap(process)

    def wait_until_it_ended(self, process: Process) -> None:
        """Fail if a killed process still runs."""
        self.assertFalse(self.kernel.lives(process))

    def readable(self, pidfd: int) -> bool:
        """Whether a pidfd can be read."""
        return self.kernel.pidfds[pidfd] not in self.kernel.living

    def descriptors(self) -> list[int]:
        """Those that are open."""
        return sorted([*self.kernel.pidfds, *self.kernel.folders])

    @contextlib.contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Only so many descriptors can be opened meanwhile."""
        self.kernel.most_open = len(self.descriptors()) + count
        yield
        self.kernel.most_open = None

    def connect(self) -> tuple[Any, int]:
        """A connection's end that is ours, and the pid of who has the other."""
        self.socket = FakeSocket.__new__(FakeSocket)
        init = FakeInit.__new__(FakeInit)
        init.process, init.connection = self.begin(), object()
        init.received = lambda data: None
        FakeSocket.__init__(self.socket, init)
        return self.socket.getHandle(), init.process.pid

    def hang_up(self) -> None:
        """The other end is closed."""
        self.socket.init.connection = None

    def close_ours(self) -> None:
        """Our end is closed."""
        self.socket.closed = True

    def listen(self) -> tuple[int, Process]:
        """A port, and the process that listens on it."""
        process = self.begin()
        self.kernel.listening[8000] = process.pid
        return 8000, process

    def listen_no_more(self) -> None:
        """That closes it."""
        self.kernel.listening.clear()

    def mount(self, folder: str) -> None:
        """Mount something on a folder."""
        self.kernel.mounts.append(folder)


class RealWorld(World):
    """Has the kernel that this test runs on, and children that end with the test."""

    def setUp(self) -> None:
        """No child yet, and nothing that other tests have left, which would close descriptors."""
        gc.collect()
        self.kernel = Kernel()
        self.children: dict[Any, Any] = {}

    def spawn(self, *command: str, **options: Any) -> Any:
        """A child that ends when its stdin is closed."""
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, **options)
        self.addCleanup(self.see_off, child)
        self.children[child.pid] = child
        return child

    def see_off(self, child: Any) -> None:
        """Let a child end, and wait for it."""
        child.stdin.close()
        child.stdout.close()
        child.wait(10)

    def begin(self) -> Process:
        """A process that SIGKILL ends."""
        return self.kernel.identify(self.spawn("cat").pid)

    def begin_catching(self, number: int) -> Process:
        """A process that has a handler for one signal."""
        script = f"trap : {signal.Signals(number).name[3:]}; echo; read line"
        child = self.spawn("sh", "-c", script)
        child.stdout.readline()
        return self.kernel.identify(child.pid)

    def begin_monitor(self, slots: str, name: str) -> tuple[Process, Process]:
        """A monitor, and the process below it, which it waits for when it is told to."""
        os.mkdir(slot := os.path.join(slots, name))
        script = (
            "import os, sys; child = os.fork()\nif not child: os.read(0, 1); os._exit(0)\n"
            "print(child, flush=True)\nos.read(0, 1); os.wait()\n"
            "print(flush=True)\nos.read(0, 1)"
        )
        child = self.spawn(sys.executable, "-ISc", script, cwd=slot)
        below = self.kernel.identify(int(child.stdout.readline()))
        self.children[below.pid] = child
        return self.kernel.identify(child.pid), below

    def end(self, process: Process) -> None:
        """A process ends, and no one waits for it."""
        child = self.children[process.pid]
        if child.pid != process.pid:  # it is a monitor's, which waits for it later
            os.kill(process.pid, signal.SIGKILL)
            self.wait_until_it_ended(process)
        else:
            child.stdin.close()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def reap(self, process: Process) -> None:
        """Someone has waited for it."""
        child = self.children[process.pid]
        if child.pid != process.pid:
            child.stdin.write(b"w")
            child.stdin.flush()
            child.stdout.readline()
        else:
            child.wait(10)

    def wait_until_it_ended(self, process: Process) -> None:
        """Fail if a killed process still runs."""
        pidfd = os.pidfd_open(process.pid)
        try:
            self.assertTrue(select.select([pidfd], [], [], 10)[0])
        finally:
            os.close(pidfd)

    def readable(self, pidfd: int) -> bool:
        """Whether a pidfd can be read."""
        return bool(select.select([pidfd], [], [], 0)[0])

    def descriptors(self) -> list[int]:
        """Those that are open."""
        with os.scandir("/proc/self/fd") as entries:
            names = [entry.name for entry in entries]
        return sorted(number for number in map(int, names) if is_open(number))

    @contextlib.contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Only so many descriptors can be opened meanwhile."""
        free = [os.open("/", os.O_PATH) for _ in range(count + 1)]
        for descriptor in free:
            os.close(descriptor)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def connect(self) -> tuple[Any, int]:
        """A connection's end that is ours, and the pid of who has the other."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("")  # an abstract name that the kernel chooses (unix(7))
            listener.listen()
            script = (
                "import socket, sys; s = socket.socket(socket.AF_UNIX)\n"
                "s.connect(bytes.fromhex(sys.argv[1])); sys.stdin.read()"
            )
            name = listener.getsockname().hex()
            self.other = self.spawn(sys.executable, "-ISc", script, name)
            self.ours, _ = listener.accept()
        self.addCleanup(self.ours.close)
        self.ours.setblocking(False)  # as Twisted has it
        return self.ours, self.other.pid

    def hang_up(self) -> None:
        """The other end is closed, for its process has ended."""
        self.see_off(self.other)

    def close_ours(self) -> None:
        """Our end is closed."""
        self.ours.close()

    def listen(self) -> tuple[int, Process]:
        """A port, and the process that listens on it."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        return self.listener.getsockname()[1], self.kernel.identify(os.getpid())

    def listen_no_more(self) -> None:
        """That closes it."""
        self.listener.close()

    def mount(self, folder: str) -> None:
        """Mount something on a folder."""
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        self.addCleanup(unmount, folder)


def is_open(descriptor: int) -> bool:
    """Whether a descriptor is open."""
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False
