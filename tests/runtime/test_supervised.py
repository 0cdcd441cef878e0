"""A container's processes, as the manager holds them: how they end, and what an init says."""

import json
import os
import shutil
import signal
import subprocess
from itertools import product
from typing import Any, ClassVar, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeSocket, MachineTestCase, make_folder, make_pool
from txcontain.container import plan
from txcontain.errors import MachineAtFault
from txcontain.host import cgroups
from txcontain.host.cgroups import Cgroups
from txcontain.host.kernel import Kernel
from txcontain.runtime import exits
from txcontain.runtime.adopted import FOLLOW_AGAIN, Adopted
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit, read_exit
from txcontain.runtime.supervised import LOOK_AFTER, LOOK_WITHIN, UNKNOWN

PLAN = [("output", {}), ("exec", {"path": "/run.sh"})]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KINDS = st.sampled_from(["token", "ready", "wants", "done", "failed", "x"])
MESSAGES = st.dictionaries(KINDS, JSON, min_size=1)


class ExitTests(MachineTestCase):
    """What the monitor wrote."""

    MONITORS_WORDS: ClassVar = {
        "[1] + Done \n": (0, None, "exit status 0"),
        "[1] + Done(3) \n": (3, None, "exit status 3"),
        "[1] + Done(137) \n": (137, None, "exit status 137"),
        "[1] + Killed \n": (None, 9, "killed by SIGKILL"),
        "[1] + Terminated \n": (None, 15, "killed by SIGTERM"),
        "[1] + Segmentation fault (core dumped) \n": (None, 11, "killed by SIGSEGV"),
        "[1] + Segmentation fault\n": (None, 11, "killed by SIGSEGV"),
        "[1] + Done(3) \n                \n": (3, None, "exit status 3"),  # written over blanks
    }

    def read(self, content: Any) -> Any:
        """The exit of a container whose monitor wrote this."""
        with open(os.path.join(self.folder, "exit"), "wb") as file:
            file.write(content)
        return read_exit(self.folder, 2e9)

    def test_words(self) -> None:
        """A shell's words about an end are its status or its signal."""
        for words, (status, number, reason) in self.MONITORS_WORDS.items():
            how = self.read(words.encode())
            self.assertEqual((how.status, how.signal, how.reason), (status, number, reason))

    def test_time(self) -> None:
        """The time of the end is when the monitor wrote it, however long ago."""
        self.read(b"[1] + Done")
        os.utime(os.path.join(self.folder, "exit"), (1000, 1000))
        self.assertEqual(read_exit(self.folder, 2e9).at, 1000)

    def test_nothing_written(self) -> None:
        """A monitor that left its blanks was killed too, at an unknown time."""
        path = os.path.join(self.folder, "exit")
        for content in (b"", b" " * 64 + b"\n"):
            self.read(content)
            os.utime(path, (1000, 1000))
            how = read_exit(self.folder, 2e9)
            self.assertIn("monitor was killed too", how.reason)
            self.assertGreater(how.at, 1e9)
        os.unlink(path)
        self.assertIn("monitor was killed too", read_exit(self.folder, 2e9).reason)

    @given(st.binary(max_size=300))
    def test_garbage(self, content: Any) -> None:
        """Whatever is in the file, it is read as an exit that is not a success."""
        how = self.read(b"[1] + x" + content)
        self.assertTrue(how.failed)
        self.assertTrue(how.reason)

    def test_failed(self) -> None:
        """Only exit status 0 is a success."""
        self.assertEqual(
            [Exit(0).failed, Exit(1).failed, Exit(None, 9).failed, Exit().failed],
            [False, True, True, True],
        )


class PoolTestCase(MachineTestCase):
    """A test of an init that a real pool spawns and that does nothing by itself."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor.connects = self.reactor.works = False
        self.pool = make_pool(self.reactor, self.folder, base_plan=PLAN[:1], size=0)
        self.pool.start()

    def connected(self) -> Any:
        """An init that has connected."""
        taken = self.pool.take(PLAN)
        self.init.connect()
        return self.successResultOf(taken)


class ChildTests(PoolTestCase):
    """An init, from its start to its end."""

    def test_connects(self) -> None:
        """An init that says its token is PID 1, and the process that was spawned is its monitor."""
        child = self.connected()
        self.assertEqual((child.process, child.monitor), (self.init.process, self.init.monitor))

    def test_carries_out(self) -> None:
        """ "done", then end-of-file, is a plan carried out; "done" only is not yet."""
        outcome = self.connected().carry_out(PLAN)
        self.assertEqual(self.init.plan, PLAN)
        self.init.say({"done": [0.5]})
        self.assertNoResult(outcome)
        self.init.hang_up()
        self.assertEqual(self.successResultOf(outcome), [0.5])

    def test_fails(self) -> None:
        """The error of a failed step has all that the init said."""
        outcome = self.connected().carry_out(PLAN)
        self.init.fail(step=1, errno=13)
        details = self.failureResultOf(outcome, StepFailed).value.details
        self.assertEqual((details["step"], details["errno"]), (1, 13))

    def test_early_steps(self) -> None:
        """An init is handed out when it has done the base plan, not before."""
        self.reactor.prepares = False
        taken = self.pool.take(PLAN)
        self.init.connect()
        self.assertEqual(self.init.early_steps, PLAN[:1])
        self.assertNoResult(taken)
        self.init.say({"ready": 1})
        self.successResultOf(taken)

    def test_early_steps_fail(self) -> None:
        """An init that can't do the base plan fails the launch with the step."""
        self.reactor.prepares = False
        taken = self.pool.take(PLAN)
        self.init.connect()
        self.init.fail(step=0, errno=28)
        error = self.failureResultOf(taken, MachineAtFault).value
        self.assertEqual(error.chain[0], "step 1 of 1, output")

    def test_says_too_much(self) -> None:
        """What an init says of its base plan later on changes nothing."""
        self.connected()
        self.init.say({"ready": 1})
        self.init.fail(step=0)

    def test_exec_fails(self) -> None:
        """An exec that fails after all else worked is a failure."""
        outcome = self.connected().carry_out(PLAN)
        self.init.say({"done": [0.5]})
        self.init.fail(step=1)
        self.failureResultOf(outcome, StepFailed)

    def test_end_of_file_half_way(self) -> None:
        """End-of-file before "done" is an init that was killed."""
        outcome = self.connected().carry_out(PLAN)
        self.init.hang_up()
        self.failureResultOf(outcome, MachineAtFault)

    def test_signals(self) -> None:
        """SIGKILL goes to PID 1 by its pidfd, and nowhere once it has ended."""
        child = self.connected()
        child.kill("why")
        self.init.end("Killed")
        child.kill("why")
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])

    def test_descriptors(self) -> None:
        """With the end the pidfd is closed."""
        self.connected()
        self.init.end()
        self.assertEqual(self.kernel.pidfds, {})

    def test_ends_once(self) -> None:
        """The end is told once, with how it happened."""
        child = self.connected()
        told: list[Any] = []
        child.on_exit = told.append
        self.init.end("Done(3)")
        self.assertEqual([how.status for how in told], [3])

    def test_out_of_memory(self) -> None:
        """If the kernel killed PID 1 or its last child for want of memory, the exit says so."""
        self.patch(Cgroups, "out_of_memory_kills", lambda self, token: 2)
        for words, how in (("Killed", "killed by SIGKILL"), ("Done(137)", "exit status 137")):
            child = self.connected()
            self.init.end(words)
            self.assertEqual(str(child.exit), f"out of memory ({how})")

    def test_others_were_out_of_memory(self) -> None:
        """If it killed other processes, that may or may not be why the container ended later."""
        self.patch(Cgroups, "out_of_memory_kills", lambda self, token: 2)
        for words, how in (("Done(3)", "exit status 3"), ("Terminated", "killed by SIGTERM")):
            child = self.connected()
            self.init.end(words)
            killed = "2 of its processes had been killed for want of memory"
            self.assertEqual(str(child.exit), f"{how}; {killed}")

    def test_not_out_of_memory(self) -> None:
        """If nothing was killed for want of memory, the exit doesn't mention memory."""
        others = "killed by SIGKILL, by someone else than this manager"
        for words, how in (("Killed", others), ("Done(137)", "exit status 137")):
            child = self.connected()
            self.init.end(words)
            self.assertEqual(str(child.exit), how)

    def test_success_is_no_lack_of_memory(self) -> None:
        """An exit with status 0 is a success, whatever was killed before it."""
        child = self.connected()
        self.patch(Cgroups, "out_of_memory_kills", lambda self, token: 1)
        self.init.end("Done")
        self.assertEqual(str(child.exit), "exit status 0")

    def test_never_connects(self) -> None:
        """An init that ends before it connects fails with what it complained of."""
        taken = self.pool.take(PLAN)
        self.reactor.inits[0].child.errReceived(b"unshare: not permitted\n")
        self.init.end("Done(1)")
        error = self.failureResultOf(taken, MachineAtFault).value
        why = ("making the container's namespaces", "unshare: not permitted")
        self.assertEqual(error.chain[:2], why)

    def test_complains_without_end(self) -> None:
        """Only the end of a long complaint is kept."""
        child = self.connected()
        for _ in range(100):
            child.errReceived(b"x" * 1000)
        self.assertEqual(len(child.stderr), 4096)

    def test_dead_when_it_is_heard(self) -> None:
        """An init that is dead when its token is read fails the launch."""
        taken = self.pool.take(PLAN)
        del self.kernel.living[self.init.process]
        self.init.connect()
        self.failureResultOf(taken, MachineAtFault)


class HostileTests(PoolTestCase):
    """What an init must not say, but may."""

    @given(st.binary(max_size=100).filter(lambda line: b"\n" not in line))
    @settings(max_examples=50)
    def test_garbage(self, line: Any) -> None:
        """A line that is not a message ends its connection, and nothing else."""
        self.assertRefused(line)

    @given(MESSAGES)
    def test_messages(self, message: Any) -> None:
        """A message before the token's, or with an invalid value, does no harm."""
        self.assertHarmless(json.dumps(message).encode())

    def test_examples(self) -> None:
        """Lines that others have tripped over end their connection, and nothing else."""
        for line in (
            b"",
            b"null",
            b"[1]",
            b'"token"',
            b"{",
            b"[" * 50_000,
            b"\xff",
            b"x" * 70_000,
            b'{"token": "nobody"}',
            b'{"token": []}',
            b'{"token": null}',
            b'{"what": 1}',
            b'{"done": 1}',
            b'{"done": ["x"]}',
            b'{"done": [1e999, {}]}',
            b'{"token": 1e999}',
        ):
            self.assertRefused(line)

    def test_token_twice(self) -> None:
        """A token is good for one connection."""
        taken = self.pool.take(PLAN)
        self.init.connect()
        first = self.init.socket
        self.init.connect()
        self.assertTrue(self.init.socket.disconnecting)
        self.assertFalse(first.disconnecting)
        self.successResultOf(taken)

    @given(JSON)
    def test_failures_that_are_none(self, details: Any) -> None:
        """A failure with parts missing still makes the launch fail, with an error in words."""
        outcome = self.connected().carry_out(PLAN)
        self.init.say({"failed": details})
        self.assertTrue(self.init.socket.disconnecting)
        self.init.hang_up()
        self.failureResultOf(outcome, MachineAtFault)

    def assertRefused(self, line: Any) -> None:
        """The line's connection is ended."""
        self.assertTrue(self.assertHarmless(line).disconnecting, line[:100])

    def assertHarmless(self, line: Any) -> Any:
        """An init that connects meanwhile is not harmed by a line on another connection."""
        taken = self.pool.take(PLAN)
        connection, socket = self.pool.buildProtocol(None), FakeSocket(self.init)
        connection.makeConnection(socket)
        connection.dataReceived(line + b"\n")
        self.init.connect()
        self.successResultOf(taken)
        return socket


class AdoptedTests(MachineTestCase):
    """A container that an earlier manager started."""

    def setUp(self) -> None:
        super().setUp()
        self.monitor, self.process = self.kernel.begin(), self.kernel.begin()
        self.ends: list[Any] = []
        self.adopted = Adopted(
            self.reactor,
            cast(Kernel, self.kernel),
            Cgroups(),
            maybeDeferred,
            self.folder,
            self.process,
            self.monitor,
            on_exit=self.ends.append,
        )

    def test_alive(self) -> None:
        """One that runs is followed, and its end is noticed with its true status."""
        self.adopted.follow()
        (watch,) = self.reactor.readers
        with open(os.path.join(self.folder, "exit"), "w") as file:
            file.write("[1] + Done(3)")
        watch.doRead()
        self.assertEqual([how.status for how in self.ends], [3])
        self.assertEqual((self.reactor.readers, self.kernel.pidfds), ([], {}))

    def test_killed(self) -> None:
        """SIGKILL goes to its PID 1."""
        self.adopted.follow()
        self.adopted.kill("why")
        self.assertEqual(self.kernel.signals, [(self.process.pid, signal.SIGKILL)])

    def test_ended(self) -> None:
        """If its monitor has ended, it has too: that is told at once, and nothing is left open."""
        del self.kernel.living[self.monitor]
        self.adopted.follow()
        self.assertEqual(len(self.ends), 1)
        self.assertEqual((self.reactor.readers, self.kernel.pidfds), ([], {}))

    def test_about_to_end(self) -> None:
        """If PID 1 has ended, and its monitor is about to, it is followed to its end."""
        del self.kernel.living[self.process]
        self.adopted.follow()
        self.adopted.kill("why")
        self.assertEqual(self.kernel.signals, [])
        self.reactor.readers[0].doRead()
        self.assertEqual(len(self.ends), 1)

    def test_one_descriptor(self) -> None:
        """It takes one descriptor; another only while it is being ended."""
        self.adopted.follow()
        self.assertEqual(list(self.kernel.pidfds.values()), [self.monitor])
        self.adopted.watch_init(lambda: None)
        self.assertEqual(set(self.kernel.pidfds.values()), {self.monitor, self.process})

    def test_no_descriptor_left(self) -> None:
        """If no descriptor is free, it is followed as soon as there is one."""
        self.kernel.most_open = 1
        self.adopted.follow()
        self.assertEqual((self.ends, self.reactor.readers), ([], []))
        self.kernel.most_open = None
        self.reactor.advance(FOLLOW_AGAIN)
        self.assertEqual((self.ends, len(self.reactor.readers)), ([], 1))

    def test_descriptors_to_spare(self) -> None:
        """Some descriptors are kept for everything else; its end is noticed anyway."""
        self.kernel.most_open = 6
        self.adopted.follow()
        self.assertEqual((self.ends, self.kernel.pidfds), ([], {}))
        del self.kernel.living[self.monitor]
        self.reactor.advance(FOLLOW_AGAIN)
        self.assertEqual(len(self.ends), 1)

    def test_no_init(self) -> None:
        """One that has only a monitor is about to end: nobody looks for a process 0."""
        asked = []
        for name in ("open_process", "signal_process", "lives"):
            real = getattr(self.kernel, name)
            self.patch(
                self.kernel,
                name,
                lambda process, *rest, real=real: (asked.append(process), real(process, *rest))[1],
            )
        self.adopted.process = UNKNOWN
        self.adopted.follow()
        self.adopted.watch_init(lambda: None)
        self.adopted.kill("why")
        self.reactor.readers[0].doRead()
        self.now(self.adopted.remove())
        self.assertEqual(set(asked), {self.monitor})

    def test_exit_can_not_be_read(self) -> None:
        """If its exit can't be read, that is tried again; in the end it counts as ended anyway."""
        for errors, wanted in ((3, "exit status 3"), (100, "can't be read: EMFILE")):
            self.ends.clear()
            os.makedirs(self.folder, exist_ok=True)
            with open(os.path.join(self.folder, "exit"), "w") as file:
                file.write("[1] + Done(3)")
            failing = iter([OSError(24, "Too many open files")] * errors)
            real = exits.open_file
            self.patch(exits, "open_file", lambda path, f=failing, r=real: fail_or(f, r, path))
            self.adopted.has_ended()
            self.assertEqual(self.ends, [])
            self.reactor.pump([LOOK_AFTER] * 50)
            self.assertEqual(len(self.ends), 1)
            self.assertIn(wanted, self.ends[0].reason)
            self.patch(exits, "open_file", real)


def fail_or(errors: Any, function: Any, *arguments: Any) -> Any:
    """Raise the next of some errors; when none is left, do the work."""
    for error in errors:
        raise error
    return function(*arguments)


class MonitorTests(SynchronousTestCase):
    """The monitor's script, as different shells run it."""

    ENDS = {  # noqa: RUF012 (never changed)
        "exit 0": (0, None),
        "exit 3": (3, None),
        "exit 137": (137, None),
        "exit 255": (255, None),
        "kill -9 $$": (None, signal.SIGKILL),
        "kill -11 $$": (None, signal.SIGSEGV),
        "kill -10 $$": (None, signal.SIGUSR1),
        "kill -40 $$": (None, 40),
    }

    def test_every_shell(self) -> None:
        """Whatever shell the host's sh is, a status is told from a signal."""
        shells = [path for path in map(shutil.which, ("dash", "bash")) if path]
        self.assertTrue(shells)
        for shell, (script, wanted) in product(shells, self.ENDS.items()):
            folder = make_folder(self)
            command = [shell, plan.MONITOR, os.devnull, folder, "512", "1024", "sh", "-c", script]
            subprocess.run(command, env={"LC_ALL": "C"}, stderr=subprocess.DEVNULL, check=False)
            how = read_exit(folder, 2e9)
            self.assertEqual((how.status, how.signal), wanted, (shell, script))

    def test_limits(self) -> None:
        """Its command may open as many files as it says, and inherits none of the shell's."""
        for shell in filter(None, map(shutil.which, ("dash", "bash"))):
            folder = make_folder(self)
            script = "ulimit -Sn; ulimit -Hn; test -e /proc/$$/fd/9 || echo none"
            command = [shell, plan.MONITOR, os.devnull, folder, "512", "600", "sh", "-c", script]
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            self.assertEqual(said.split(), ["512", "600", "none"], shell)


class RemoveTests(MachineTestCase):
    """What is left of a container that has ended."""

    def setUp(self) -> None:
        super().setUp()
        self.run_directory = os.path.join(self.folder, "0123")
        self.cgroups = Cgroups({"pids": os.path.join(self.folder, "cgroup")})
        self.group = os.path.join(self.folder, "cgroup/0123")
        os.makedirs(self.run_directory)
        os.makedirs(self.group)
        self.processes = Adopted(
            self.reactor, cast(Kernel, self.kernel), self.cgroups, maybeDeferred, self.run_directory
        )
        self.patch(cgroups, "_remove", self.remove_group)

    def remove_group(self, folder: Any) -> Any:
        """As the kernel does: an empty group can be removed, whatever files it has."""
        members = self.cgroups.members("0123")
        if any(process.pid in members for process in self.kernel.living):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def join(self, *processes: Any) -> None:
        """These are in the group."""
        with open(os.path.join(self.group, "cgroup.procs"), "w") as file:
            file.writelines(f"{process.pid}\n" for process in processes)

    def test_all(self) -> None:
        """The run directory and the group go at once."""
        open(os.path.join(self.run_directory, "exit"), "w").close()
        self.assertEqual(self.now(self.processes.remove()), [])
        self.assertEqual(os.listdir(self.folder), ["cgroup"])
        self.assertEqual(os.listdir(os.path.join(self.folder, "cgroup")), [])

    def test_group_goes_first(self) -> None:
        """A removed one loses its group at PID 1's end; the kills in it are known later."""
        with open(os.path.join(self.group, "memory.oom_control"), "w") as file:
            file.write("oom_kill 2\n")
        self.cgroups.tops["memory"] = self.cgroups.tops["pids"]
        self.processes.process = self.kernel.begin()
        self.processes.watch_init(lambda: None, is_removed=True)
        self.reactor.readers[0].doRead()
        self.assertFalse(os.path.lexists(self.group))
        with open(os.path.join(self.run_directory, "exit"), "w") as file:
            file.write("[1] + Killed")
        self.processes.has_ended()
        self.assertIn("out of memory", str(self.processes.exit))

    def test_who_survived(self) -> None:
        """A process that is still in the group is killed, whatever became of its monitor."""
        survivor = self.kernel.begin(killed=lambda: self.kernel.living.pop(survivor))
        self.join(survivor)
        removed = self.start(self.processes.remove())
        self.assertEqual(self.kernel.signals, [(survivor.pid, signal.SIGKILL)])
        self.reactor.advance(LOOK_AFTER)
        self.assertEqual(self.successResultOf(removed), [])

    def test_who_came_later(self) -> None:
        """A process outside the group that got a pid from it meanwhile is left alone."""
        stranger = self.kernel.begin()
        listed = iter([{stranger.pid}, set()])
        self.patch(Cgroups, "members", lambda *_: next(listed))
        self.processes._kill_members()
        self.assertEqual(self.kernel.signals, [])

    def test_what_is_no_slot(self) -> None:
        """A run directory that holds other files is reported, and delays nothing."""
        os.mkdir(os.path.join(self.run_directory, "folder"))
        removed = self.start(self.processes.remove())
        self.reactor.pump([LOOK_AFTER] * (1 + round(LOOK_WITHIN / LOOK_AFTER)))
        self.assertEqual(self.successResultOf(removed), [self.run_directory])
