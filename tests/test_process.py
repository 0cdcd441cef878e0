"""What the manager holds of a container's processes: how they end, and what an init says."""

import json
import os
import shutil
import signal

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import FakeSocket, MachineTestCase, make_pool
from txcontain import cgroups
from txcontain.cgroups import Cgroups
from txcontain.errors import MachineAtFault
from txcontain.process import LOOK_AFTER, LOOK_WITHIN, Adopted, Exit, StepFailed, read_exit

PLAN = [("output", {}), ("exec", {"path": "/run.sh"})]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KINDS = st.sampled_from(["token", "ready", "wants", "done", "failed", "x"])
MESSAGES = st.dictionaries(KINDS, JSON, min_size=1)


class ExitTests(MachineTestCase):
    """What the keeper wrote."""

    KEEPERS_WORDS = {  # noqa: RUF012 (never changed)
        "[1] + Done \n": (0, None, "exit status 0"),
        "[1] + Done(3) \n": (3, None, "exit status 3"),
        "[1] + Done(137) \n": (137, None, "exit status 137"),
        "[1] + Killed \n": (None, 9, "killed by SIGKILL"),
        "[1] + Terminated \n": (None, 15, "killed by SIGTERM"),
        "[1] + Segmentation fault (core dumped) \n": (None, 11, "killed by SIGSEGV"),
        "[1] + Segmentation fault\n": (None, 11, "killed by SIGSEGV"),
        "[1] + Done(3) \n                \n": (3, None, "exit status 3"),  # written over blanks
    }

    def read(self, content):
        """How a container ended whose keeper wrote this."""
        with open(os.path.join(self.folder, "exit"), "wb") as file:
            file.write(content)
        return read_exit(self.folder)

    def test_words(self):
        """A shell's words about an end are its status or its signal."""
        for words, (status, number, reason) in self.KEEPERS_WORDS.items():
            how = self.read(words.encode())
            self.assertEqual((how.status, how.signal, how.reason), (status, number, reason))

    def test_time(self):
        """The time of the end is that at which the keeper wrote it, however long ago."""
        self.read(b"[1] + Done")
        os.utime(os.path.join(self.folder, "exit"), (1000, 1000))
        self.assertEqual(read_exit(self.folder).at, 1000)

    def test_nothing_written(self):
        """A keeper that wrote nothing over its blanks was killed too, who knows how long ago."""
        path = os.path.join(self.folder, "exit")
        for content in (b"", b" " * 64 + b"\n"):
            self.read(content)
            os.utime(path, (1000, 1000))
            how = read_exit(self.folder)
            self.assertIn("keeper was killed too", how.reason)
            self.assertGreater(how.at, 1e9)
        os.unlink(path)
        self.assertIn("keeper was killed too", read_exit(self.folder).reason)

    @given(st.binary(max_size=300))
    def test_garbage(self, content):
        """Whatever is in the file, an end is read of it that counts as no success."""
        how = self.read(b"[1] + x" + content)
        self.assertTrue(how.failed)
        self.assertTrue(how.reason)

    def test_failed(self):
        """Only exit status 0 is a success."""
        self.assertEqual([Exit(0).failed, Exit(1).failed, Exit(None, 9).failed, Exit().failed],
                         [False, True, True, True])  # fmt: skip


class PoolTestCase(MachineTestCase):
    """A test of an init that a real pool spawns, and that does nothing by itself."""

    def setUp(self):
        super().setUp()
        self.reactor.connects = self.reactor.works = False
        self.pool = make_pool(self.reactor, self.folder, groundwork=PLAN[:1], size=0)
        self.pool.start()

    def connected(self):
        """An init that has connected."""
        taken = self.pool.take(PLAN)
        self.init.connect()
        return self.successResultOf(taken)


class ChildTests(PoolTestCase):
    """An init, from its start to its end."""

    def test_connects(self):
        """An init that says its token is PID 1, and its keeper is who was spawned."""
        child = self.connected()
        self.assertEqual((child.process, child.keeper), (self.init.process, self.init.keeper))

    def test_carries_out(self):
        """Done and then end-of-file is a plan carried out; done alone is not yet."""
        outcome = self.connected().carry_out(PLAN)
        self.assertEqual(self.init.plan, PLAN)
        self.init.say({"done": [0.5]})
        self.assertNoResult(outcome)
        self.init.hang_up()
        self.assertEqual(self.successResultOf(outcome), [0.5])

    def test_fails(self):
        """A step that failed is told with all that the init said."""
        outcome = self.connected().carry_out(PLAN)
        self.init.fail(step=1, errno=13)
        details = self.failureResultOf(outcome, StepFailed).value.details
        self.assertEqual((details["step"], details["errno"]), (1, 13))

    def test_groundwork(self):
        """An init is handed out when it has done the groundwork, not before."""
        self.reactor.prepares = False
        taken = self.pool.take(PLAN)
        self.init.connect()
        self.assertEqual(self.init.groundwork, PLAN[:1])
        self.assertNoResult(taken)
        self.init.say({"ready": 1})
        self.successResultOf(taken)

    def test_groundwork_fails(self):
        """An init that can't do the groundwork fails the launch with the step."""
        self.reactor.prepares = False
        taken = self.pool.take(PLAN)
        self.init.connect()
        self.init.fail(step=0, errno=28)
        error = self.failureResultOf(taken, MachineAtFault).value
        self.assertEqual(error.chain[0], "step 1 of 1, output")

    def test_says_too_much(self):
        """What an init says of its groundwork later on changes nothing."""
        self.connected()
        self.init.say({"ready": 1})
        self.init.fail(step=0)

    def test_exec_fails(self):
        """An exec that fails after all else was done is a failure."""
        outcome = self.connected().carry_out(PLAN)
        self.init.say({"done": [0.5]})
        self.init.fail(step=1)
        self.failureResultOf(outcome, StepFailed)

    def test_end_of_file_half_way(self):
        """End-of-file before done is an init that was killed."""
        outcome = self.connected().carry_out(PLAN)
        self.init.hang_up()
        self.failureResultOf(outcome, MachineAtFault)

    def test_signals(self):
        """SIGKILL goes to PID 1 by its pidfd, and nowhere once it has ended."""
        child = self.connected()
        child.kill()
        self.init.end("Killed")
        child.kill()
        self.assertEqual(self.kernel.signals, [(self.init.process.pid, signal.SIGKILL)])

    def test_descriptors(self):
        """With the end the pidfd is closed."""
        self.connected()
        self.init.end()
        self.assertEqual(self.kernel.pidfds, {})

    def test_ends_once(self):
        """The end is told once, with how it happened."""
        child, told = self.connected(), []
        child.on_exit = told.append
        self.init.end("Done(3)")
        self.assertEqual([how.status for how in told], [3])

    def test_out_of_memory(self):
        """Where the kernel has killed PID 1 for want of memory, or its last child, this is why."""
        self.patch(Cgroups, "out_of_memory_kills", lambda self, token: 2)
        for words, how in (("Killed", "killed by SIGKILL"), ("Done(137)", "exit status 137")):
            child = self.connected()
            self.init.end(words)
            self.assertEqual(str(child.exit), f"out of memory ({how})")

    def test_others_were_out_of_memory(self):
        """Where it has killed other processes, that may or may not be why it ended later."""
        self.patch(Cgroups, "out_of_memory_kills", lambda self, token: 2)
        for words, how in (("Done(3)", "exit status 3"), ("Terminated", "killed by SIGTERM")):
            child = self.connected()
            self.init.end(words)
            killed = "2 of its processes had been killed for want of memory"
            self.assertEqual(str(child.exit), f"{how}; {killed}")

    def test_not_out_of_memory(self):
        """Where nothing was killed for want of memory, memory is not spoken of."""
        for words, how in (("Killed", "killed by SIGKILL"), ("Done(137)", "exit status 137")):
            child = self.connected()
            self.init.end(words)
            self.assertEqual(str(child.exit), how)

    def test_success_is_no_lack_of_memory(self):
        """An end with status 0 is one, whatever was killed before it."""
        child = self.connected()
        self.patch(Cgroups, "out_of_memory_kills", lambda self, token: 1)
        self.init.end("Done")
        self.assertEqual(str(child.exit), "exit status 0")

    def test_never_connects(self):
        """An init that ends before it connects fails with what it complained of."""
        taken = self.pool.take(PLAN)
        self.reactor.inits[0].child.errReceived(b"unshare: not permitted\n")
        self.init.end("Done(1)")
        error = self.failureResultOf(taken, MachineAtFault).value
        why = ("making the container's namespaces", "unshare: not permitted")
        self.assertEqual(error.chain[:2], why)

    def test_complains_without_end(self):
        """Of a long complaint the end is kept."""
        child = self.connected()
        for _ in range(100):
            child.errReceived(b"x" * 1000)
        self.assertEqual(len(child.stderr), 4096)

    def test_dead_when_it_is_heard(self):
        """An init that is dead by the time that its token is read fails the launch."""
        taken = self.pool.take(PLAN)
        del self.kernel.living[self.init.process]
        self.init.connect()
        self.failureResultOf(taken, MachineAtFault)


class HostileTests(PoolTestCase):
    """What an init may say that it should not."""

    @given(st.binary(max_size=100).filter(lambda line: b"\n" not in line))
    @settings(max_examples=50)
    def test_garbage(self, line):
        """A line that is no message ends its connection, and nothing else."""
        self.assertRefused(line)

    @given(MESSAGES)
    def test_messages(self, message):
        """A message before the token's, or with a value that is none, harms no one."""
        self.assertHarmless(json.dumps(message).encode())

    def test_examples(self):
        """Lines that others have tripped over end their connection, and nothing else."""
        for line in (b"", b"null", b"[1]", b'"token"', b"{", b"[" * 50_000, b"\xff", b"x" * 70_000,
                     b'{"token": "nobody"}', b'{"token": []}', b'{"token": null}', b'{"what": 1}',
                     b'{"done": 1}', b'{"done": ["x"]}', b'{"done": [1e999, {}]}',
                     b'{"token": 1e999}'):  # fmt: skip
            self.assertRefused(line)

    def test_token_twice(self):
        """A token is good for one connection."""
        taken = self.pool.take(PLAN)
        self.init.connect()
        first = self.init.socket
        self.init.connect()
        self.assertTrue(self.init.socket.disconnecting)
        self.assertFalse(first.disconnecting)
        self.successResultOf(taken)

    @given(JSON)
    def test_failures_that_are_none(self, details):
        """What a failure lacks to be one makes the launch fail all the same, in words."""
        outcome = self.connected().carry_out(PLAN)
        self.init.say({"failed": details})
        self.assertTrue(self.init.socket.disconnecting)
        self.init.hang_up()
        self.failureResultOf(outcome, MachineAtFault)

    def assertRefused(self, line):
        """The line's connection is ended."""
        self.assertTrue(self.assertHarmless(line).disconnecting, line[:100])

    def assertHarmless(self, line):
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

    def setUp(self):
        super().setUp()
        self.keeper, self.process = self.kernel.begin(), self.kernel.begin()
        self.ends = []
        self.adopted = Adopted(self.kernel, Cgroups(), self.folder, self.process, self.keeper,
                               reactor=self.reactor, on_exit=self.ends.append)  # fmt: skip

    def test_alive(self):
        """One that runs is followed, and its end is noticed with its true status."""
        self.adopted.watch()
        (watch,) = self.reactor.readers
        with open(os.path.join(self.folder, "exit"), "w") as file:
            file.write("[1] + Done(3)")
        watch.doRead()
        self.assertEqual([how.status for how in self.ends], [3])
        self.assertEqual((self.reactor.readers, self.kernel.pidfds), ([], {}))

    def test_killed(self):
        """SIGKILL goes to its PID 1."""
        self.adopted.watch()
        self.adopted.kill()
        self.assertEqual(self.kernel.signals, [(self.process.pid, signal.SIGKILL)])

    def test_ended(self):
        """One whose keeper has ended can't be followed, and nothing is left open."""
        del self.kernel.living[self.keeper]
        self.assertRaises(ProcessLookupError, self.adopted.watch)
        self.assertEqual((self.reactor.readers, self.kernel.pidfds), ([], {}))

    def test_about_to_end(self):
        """One whose PID 1 has ended, and whose keeper is about to, is followed to its end."""
        del self.kernel.living[self.process]
        self.adopted.watch()
        self.adopted.kill()
        self.assertEqual(self.kernel.signals, [])
        self.reactor.readers[0].doRead()
        self.assertEqual(len(self.ends), 1)


class RemoveTests(MachineTestCase):
    """What is left of a container that has ended."""

    def setUp(self):
        super().setUp()
        self.slot = os.path.join(self.folder, "0123")
        self.cgroups = Cgroups({"pids": os.path.join(self.folder, "cgroup")})
        self.group = os.path.join(self.folder, "cgroup/0123")
        os.makedirs(self.slot)
        os.makedirs(self.group)
        self.processes = Adopted(self.kernel, self.cgroups, self.slot, reactor=self.reactor)
        self.patch(cgroups, "_remove", self.remove_group)

    def remove_group(self, folder):
        """As the kernel does: a group goes when no one is in it, whatever files it has."""
        members = self.cgroups.members("0123")
        if any(process.pid in members for process in self.kernel.living):
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def join(self, *processes):
        """These are in the group."""
        with open(os.path.join(self.group, "cgroup.procs"), "w") as file:
            file.writelines(f"{process.pid}\n" for process in processes)

    def test_all(self):
        """The slot and the group go at once."""
        open(os.path.join(self.slot, "exit"), "w").close()
        self.assertEqual(self.now(self.processes.remove(self.reactor)), [])
        self.assertEqual(os.listdir(self.folder), ["cgroup"])
        self.assertEqual(os.listdir(os.path.join(self.folder, "cgroup")), [])

    def test_who_survived(self):
        """Who is still in the group is killed, whatever became of its keeper."""
        survivor = self.kernel.begin(killed=lambda: self.kernel.living.pop(survivor))
        self.join(survivor)
        removed = self.start(self.processes.remove(self.reactor))
        self.assertEqual(self.kernel.signals, [(survivor.pid, signal.SIGKILL)])
        self.reactor.advance(LOOK_AFTER)
        self.assertEqual(self.successResultOf(removed), [])

    def test_who_came_later(self):
        """Whoever has a pid of the group by now, and is not in it, is left alone."""
        stranger = self.kernel.begin()
        listed = iter([{stranger.pid}, set()])
        self.patch(Cgroups, "members", lambda *_: next(listed))
        self.processes._kill_members()
        self.assertEqual(self.kernel.signals, [])

    def test_what_is_no_slot(self):
        """A slot that holds what is not ours is told of, and stops no one."""
        os.mkdir(os.path.join(self.slot, "folder"))
        removed = self.start(self.processes.remove(self.reactor))
        self.reactor.pump([LOOK_AFTER] * (1 + round(LOOK_WITHIN / LOOK_AFTER)))
        self.assertEqual(self.successResultOf(removed), [self.slot])
