"""What is known of real processes: our own, and children of ours."""

import errno
import os
import signal
import sys
from typing import Any

from tests.fakes import make_folder
from tests.host.children import ChildrenCase
from txcontain.host import processes
from txcontain.host.listeners import holds_socket
from txcontain.host.processes import Process, catches, descendants, describe, program


class Processes(ChildrenCase):
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
        """A process that is gone can't be identified or opened, and does not live."""
        child = self.start("cat")
        process = self.kernel.identify(child.pid)
        self.end(child)
        self.assertRaises(ProcessLookupError, self.kernel.identify, child.pid)
        self.assertRaises(ProcessLookupError, self.kernel.open_process, process)
        self.assertFalse(self.kernel.lives(process))
        self.assertFalse(catches(child.pid, signal.SIGTERM))
        self.assertFalse(holds_socket(child.pid, {"1"}))
        self.assertEqual(list(descendants(child.pid)), [child.pid])
        self.assertEqual(program(child.pid), "")
        self.kernel.signal_process(process, signal.SIGTERM)  # which is nothing to do

    def start_cat(self, *arguments: str) -> Any:
        """A cat that runs: while its exec goes on, the kernel does not know its words yet."""
        child = self.start("cat", *arguments)
        child.stdin.write(b"it runs\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"it runs\n")
        return child

    def test_description(self) -> None:
        """A process is described by its ids, what it uses, and its command as it says itself."""
        told = describe(os.getpid())
        self.assertEqual((told["pid"], told["host_pid"]), (os.getpid(), os.getpid()))
        self.assertEqual(told["user"], os.geteuid())
        self.assertGreater(min(told["memory"], told["cpu_usec"]), 0)
        child = self.start_cat("--", "/dev/fd/0", "\udcff\x1b", "-")
        for word in ("cat", "\\xff\x1b"):
            self.assertIn(word, describe(child.pid)["command"])
        self.end(child)
        self.assertRaises(ProcessLookupError, describe, child.pid)

    def test_kernel_thread(self) -> None:
        """What has no command line is told by its name."""
        child = self.start_cat()
        self.patch(processes, "_command_line", lambda _: "")
        self.assertEqual(describe(child.pid)["command"], "[cat]")

    def test_started_with(self) -> None:
        """A process is found by some of its arguments, whole ones and in their order."""
        child = self.start("cat", "-", "/dev/null", "-")
        found = [processes.started_with("-", "/dev/null"), processes.started_with("/dev/null", "-")]
        self.assertEqual([child.pid in [one.pid for one in each] for each in found], [True, True])
        for wrong in (["/dev/null", "/dev/null"], ["/dev/nul"], ["-", "-"]):
            self.assertNotIn(child.pid, [one.pid for one in processes.started_with(*wrong)])

    def test_monitors(self) -> None:
        """A monitor works in a slot; its child is PID 1, which may work there too."""
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

    def test_monitor_with_the_last_pid(self) -> None:
        """A monitor that began in the same tick as its child is known, whatever their pids are."""
        parents = {32767: 1, 300: 32767}
        self.patch(os, "listdir", lambda _: map(str, parents))
        self.patch(processes, "_working_below", lambda _, pid: "one" if int(pid) in parents else "")
        self.patch(processes, "identify", lambda pid: Process(pid, 7))
        self.patch(processes, "_parent", parents.get)
        self.patch(processes, "_children", lambda pid: [p for p in parents if parents[p] == pid])
        told = {"one": (Process(32767, 7), Process(300, 7))}
        self.assertEqual(self.kernel.monitors("/slots"), told)

    def test_no_monitor(self) -> None:
        """A process that works in a folder of the same path, but in another root, is not one."""
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
        """A process in a folder whose path is too long hides no monitor."""
        slots = os.path.abspath(self.mktemp())
        os.makedirs(os.path.join(slots, "one"))
        self.start("cat", cwd=os.path.join(slots, "one"))
        script = (
            "import os\nname = 'x' * 250\n"
            "for _ in range(20): os.mkdir(name); os.chdir(name)\n"
            "print(flush=True); os.read(0, 1)\n"
            "for _ in range(20): os.chdir('..'); os.rmdir(name)"
        )
        deep = self.start(sys.executable, "-ISc", script, cwd=make_folder(self))
        deep.stdout.readline()
        error = self.assertRaises(OSError, os.readlink, f"/proc/{deep.pid}/cwd")
        self.assertEqual(error.errno, errno.ENAMETOOLONG)
        self.assertEqual(list(self.kernel.monitors(slots)), ["one"])

    def test_names_of_any_bytes(self) -> None:
        """A name that is not UTF-8, or looks like other fields, changes nothing."""
        name = b"\xff) R 1 ("
        script = f"open('/proc/self/comm', 'wb').write({name!r})\nprint(flush=True)\nopen(0).read()"
        child = self.start(sys.executable, "-ISc", script)
        child.stdout.readline()
        self.assertTrue(self.kernel.lives(self.kernel.identify(child.pid)))
        self.assertFalse(catches(child.pid, signal.SIGTERM))
        self.assertEqual(program(child.pid), name.decode(errors="replace"))


class Families(ChildrenCase):
    """Processes below a process, and the signals that they catch."""

    def test_descendants(self) -> None:
        """A process is the first; its children and theirs follow."""
        child, grandchild = self.start_shell("(cat; :) <&3 & ")
        found = list(descendants(child.pid))
        self.assertEqual(found[0], child.pid)
        self.assertIn(int(grandchild), found)
        self.assertNotIn(os.getpid(), found)
        self.assertIn(int(grandchild), list(descendants(os.getpid())))

    def test_catches(self) -> None:
        """A signal is caught only if a handler is installed."""
        child, _ = self.start_shell("trap : TERM; trap '' INT")
        self.assertTrue(catches(child.pid, signal.SIGTERM))
        self.assertFalse(catches(child.pid, signal.SIGINT))
        self.assertFalse(catches(child.pid, signal.SIGHUP))

    def test_catchers(self) -> None:
        """Only the first process is named if it catches the signal; otherwise all that do."""
        worker = "sh -c 'trap : TERM; echo; read line <&3'"
        for trap, wanted in (("trap : TERM", "parent"), ("trap : HUP", "worker")):
            child, line = self.start_shell(f"{trap}; {worker} &")
            lines = [line, child.stdout.readline().decode().strip()]  # the worker's is empty
            family = {"parent": child.pid, "worker": int("".join(lines))}
            expected = [self.kernel.identify(family[wanted])]
            self.assertEqual(self.kernel.catchers(child.pid, signal.SIGTERM), expected)
            at_once = expected if wanted == "parent" else None
            self.assertEqual(self.kernel.catchers_at_once(child.pid, signal.SIGTERM), at_once)

    def test_blocked(self) -> None:
        """Blocking a signal counts as handling it: the process may be waiting for it."""
        blocked = {signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        child = self.start("cat")  # inherits the mask
        self.assertTrue(catches(child.pid, signal.SIGTERM))
        self.assertFalse(catches(child.pid, signal.SIGHUP))
