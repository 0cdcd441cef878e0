"""Commands in containers: how they start, what flows, how they end, and the inits kept warm."""

import errno
import os
import signal
from typing import Any

from tests.fakes import FakeJoiner, ManagerTestCase
from txcontain.container.exec_plan import Command, Size
from txcontain.engine import execs
from txcontain.errors import CannotRun, MachineAtFault, NoSuchProgram, NotRunning, TooMany
from txcontain.host.cgroups import Cgroups
from txcontain.runtime import sessions
from txcontain.runtime.instance import Instance
from txcontain.runtime.session import KILL_AFTER, LINGER, PASSED_AS_KILL, Session
from txcontain.runtime.sessions import CONNECT_WITHIN, JOIN_WITHIN, LATELY, MOST_EACH, MOST_WARM
from txcontain.runtime.terminal import Terminal

LS = Command(("ls", "-l"))


class SessionCase(ManagerTestCase):
    """A test with an instance that runs."""

    def setUp(self) -> None:
        super().setUp()
        self.instance: Instance = self.launch()
        self.heard: list[Any] = []

    @property
    def joiner(self) -> FakeJoiner:
        """The init that was started last."""
        return self.reactor.joiners[-1]

    def starting(self, command: Command = LS) -> Any:
        """A command that is about to run."""
        return self.start(execs.start(self.manager, self.instance, command))

    def run_one(self) -> tuple[Session, FakeJoiner]:
        """A command that runs, and what plays it."""
        session = self.successResultOf(self.starting())
        session.heard = lambda *said: self.heard.append(said)
        playing = next(one for one in self.reactor.joiners if one.session is session)
        return session, playing


class StartTests(SessionCase):
    """How a command starts."""

    def test_it_runs(self) -> None:
        """It is in the journal by its program only: the arguments may hold a secret."""
        self.run_one()
        self.assertEqual(self.events()[-1], "exec: ls was started in it")

    def test_how_it_is_started(self) -> None:
        """Its init is not the manager's own: it has the limits and the program of PID 1's."""
        self.run_one()
        shell, *_, init, socket, token = self.joiner.arguments
        self.assertEqual(
            (shell, init), ("/bin/sh", os.path.join(self.manager.pool.folder, "init.pyc"))
        )
        self.assertEqual((socket, len(token)), (self.manager.pool.socket, 16))

    def test_only_in_one_that_runs(self) -> None:
        """In one that has ended, a command is refused with a sentence."""
        self.reactor.inits[-1].end("Done(1)")
        self.reactor.advance(0)
        error = self.failureResultOf(self.starting(), NotRunning).value
        self.assertEqual(error.chain[0], f"{self.instance.name} has ended")

    def test_failures(self) -> None:
        """What the command lacks, and what the machine lacks, are different errors."""
        self.reactor.works = False
        for op, number, kind, said in (
            ("exec", errno.ENOENT, NoSuchProgram, "running ls"),
            ("exec", errno.EACCES, CannotRun, "running ls"),
            ("user", 0, CannotRun, "becoming the user root"),
            ("fork", errno.EAGAIN, CannotRun, "as many processes as limits.pids allows"),
            ("join", errno.ESRCH, MachineAtFault, "entering the container"),
        ):
            starting = self.starting()
            self.joiner.fail(op, number)
            error = self.failureResultOf(starting, kind).value
            self.assertIn(said, str(error))
        self.assertEqual(self.manager.sessions.of, {})

    def test_init_killed(self) -> None:
        """If its init ends before it connects, or half-way, the machine is at fault."""
        self.reactor.connects = False
        starting = self.starting()
        self.joiner.session.errReceived(b"python: not found\n")
        self.joiner.end(127)
        error = self.failureResultOf(starting, MachineAtFault).value
        self.assertIn("python: not found", str(error))
        self.reactor.connects, self.reactor.works = True, False
        starting = self.starting()
        self.joiner.end(None, signal.SIGKILL)
        self.failureResultOf(starting, MachineAtFault)

    def test_too_slow(self) -> None:
        """What does not connect, or does not get into the container, is given up and killed."""
        self.reactor.connects = False
        starting = self.starting()
        self.reactor.advance(CONNECT_WITHIN)
        self.assertIn("connected within", str(self.failureResultOf(starting).value))
        self.assertEqual({*self.reactor.joiners[0].signals}, {PASSED_AS_KILL})
        self.reactor.advance(CONNECT_WITHIN)  # those that were to be warm
        self.reactor.connects, self.reactor.works = True, False
        starting = self.starting()
        self.reactor.advance(JOIN_WITHIN)
        self.assertIn("does not run after", str(self.failureResultOf(starting).value))
        (late,) = [one for one in self.reactor.joiners if one.session in self.manager.sessions.of]
        self.assertEqual(late.signals, [PASSED_AS_KILL])

    def test_can_not_spawn(self) -> None:
        """If no process can be started, that is said."""
        self.reactor.spawn_error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        error = self.failureResultOf(self.starting(), MachineAtFault).value
        self.assertIn("starting an init", str(error))
        self.assertEqual(self.manager.sessions.of, {})

    def test_bounds(self) -> None:
        """Only so many commands run in an instance, and in all of them."""
        for _ in range(MOST_EACH):
            self.run_one()
        error = self.failureResultOf(self.starting(), TooMany).value
        self.assertIn(f"{MOST_EACH} commands run in {self.instance.name} already", str(error))
        other = self.launch(minor="2")
        self.patch(sessions, "MOST", MOST_EACH)
        error = self.failureResultOf(
            self.start(execs.start(self.manager, other, LS)), TooMany
        ).value
        self.assertIn("commands run in instances already", str(error))


class WarmTests(SessionCase):
    """The inits that are kept warm."""

    def test_none_before(self) -> None:
        """As long as no command was asked for, none is started."""
        self.reactor.advance(LATELY)
        self.assertEqual(self.reactor.joiners, [])

    def test_lately(self) -> None:
        """After a command some wait, and the next command takes one; later they are let go."""
        self.run_one()
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.joiners), 1 + MOST_WARM)
        session, _ = self.run_one()
        self.assertIs(session, self.reactor.joiners[1].session)
        self.reactor.advance(1)
        waiting = [one for one in self.reactor.joiners if one.connection]
        self.assertEqual(len(waiting), MOST_WARM)
        self.reactor.advance(LATELY)
        self.assertTrue(all(one.socket.disconnecting for one in waiting))

    def test_one_is_killed(self) -> None:
        """One that was killed is not taken."""
        self.run_one()
        self.reactor.advance(1)
        killed = self.reactor.joiners[1]
        killed.end(None, signal.SIGKILL)
        session, _ = self.run_one()
        self.assertIsNot(session, killed.session)

    def test_none_can_be_started(self) -> None:
        """If none can be started in advance, no one waits for that."""
        self.run_one()
        self.reactor.spawn_error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.reactor.advance(1)
        self.assertEqual(len(self.reactor.joiners), 1)


class StreamTests(SessionCase):
    """What flows."""

    def test_output(self) -> None:
        """Its output waits until it is asked for, and is told by its stream."""
        session, joiner = self.run_one()
        self.assertTrue(joiner.paused)
        session.resumeProducing()
        self.assertFalse(joiner.paused)
        joiner.write_out(b"a")
        joiner.write_out(b"b", 2)
        self.assertEqual(self.heard, [(1, b"a"), (2, b"b")])
        session.pauseProducing()
        self.assertTrue(joiner.paused)

    def test_input(self) -> None:
        """What it is to read is written; whoever writes it pauses as long as it does not read."""
        session, joiner = self.run_one()
        producer = object()
        session.register_input(producer)
        self.assertIs(joiner.producer, producer)
        session.write(b"x")
        session.close_input()
        self.assertEqual((joiner.given, joiner.input_closed), (b"x", True))

    def test_run(self) -> None:
        """A command that is run to its end gets its input, and all its output is returned."""
        session, joiner = self.run_one()
        running = self.start(execs.run(session, b"given", 60))
        joiner.write_out(b"out\xff")
        joiner.write_out(b"err", 2)
        joiner.end(3)
        joiner.close_pipes()
        said = self.successResultOf(running)
        self.assertEqual((said["stdout"], said["stderr"]), ("out\ufffd", "err"))
        self.assertEqual((said["exit"]["status"], said["exit"]["reason"]), (3, "exit status 3"))
        self.assertEqual((joiner.given, joiner.input_closed), (b"given", True))

    def test_too_much(self) -> None:
        """One that writes too much is ended; what it wrote before is returned."""
        self.patch(execs, "MOST_OUTPUT", 10)
        session, joiner = self.run_one()
        running = self.start(execs.run(session, b"", 60))
        joiner.write_out(b"x" * 11)
        joiner.write_out(b"more", 2)
        self.assertEqual(joiner.signals, [signal.SIGHUP])
        joiner.end(None, signal.SIGHUP)
        joiner.close_pipes()
        said = self.successResultOf(running)
        self.assertEqual((said["stdout"], said["stderr"]), ("x" * 10, ""))
        why = "it wrote 10 bytes or more to stdout (killed by SIGHUP)"
        self.assertEqual(said["exit"]["reason"], why)

    def test_too_long(self) -> None:
        """One that takes too long is ended, and its exit says so."""
        session, joiner = self.run_one()
        running = self.start(execs.run(session, b"", 2.5))
        self.reactor.advance(2.5)
        joiner.end(None, signal.SIGHUP)
        joiner.close_pipes()
        why = "it took more than 2.5 s (killed by SIGHUP)"
        self.assertEqual(self.successResultOf(running)["exit"]["reason"], why)


class EndTests(SessionCase):
    """How a command ends."""

    def test_by_whom(self) -> None:
        """What is killed was out of memory, or someone else's victim."""
        count = [0]
        self.patch(Cgroups, "out_of_memory_kills", lambda *_: count[0])
        for kills, why in (
            (0, "killed by SIGKILL, by someone else than this manager"),
            (1, "out of memory (killed by SIGKILL)"),
        ):
            session, joiner = self.run_one()
            count[0] += kills
            session.resumeProducing()
            joiner.end(None, signal.SIGKILL)
            joiner.close_pipes()
            self.assertEqual(self.successResultOf(session.ended).reason, why)

    def test_last_words(self) -> None:
        """Its end is told after its last output, also if a child of it has its pipes open."""
        session, joiner = self.run_one()
        session.resumeProducing()
        joiner.end(None, signal.SIGSEGV)
        joiner.write_out(b"last words")
        self.assertNoResult(session.ended)
        self.reactor.advance(LINGER)
        self.assertEqual(self.successResultOf(session.ended).reason, "killed by SIGSEGV")
        self.assertEqual(self.heard, [(1, b"last words")])
        self.assertEqual(self.manager.sessions.of, {})

    def test_no_reader_yet(self) -> None:
        """As long as no one takes its output, its end waits, since there may be more."""
        session, joiner = self.run_one()
        joiner.end()
        self.reactor.advance(10 * LINGER)
        self.assertNoResult(session.ended)
        session.resumeProducing()
        self.reactor.advance(LINGER)
        self.assertEqual(self.successResultOf(session.ended).status, 0)

    def test_hang_up(self) -> None:
        """It is ended by SIGHUP, and by SIGKILL if that does not help; both once."""
        session, joiner = self.run_one()
        session.stopProducing()
        self.assertEqual((joiner.signals, joiner.paused), ([signal.SIGHUP], False))
        joiner.write_out(b"nobody hears this")
        self.reactor.advance(KILL_AFTER)
        self.assertEqual(joiner.signals, [signal.SIGHUP, PASSED_AS_KILL])
        joiner.end(None, signal.SIGKILL)
        session.end("again")
        joiner.close_pipes()
        why = "no one reads its output any more (killed by SIGKILL)"
        self.assertEqual(self.successResultOf(session.ended).reason, why)
        self.assertEqual((self.heard, joiner.signals[2:]), ([], []))

    def test_with_the_instance(self) -> None:
        """When the instance ends, so do its commands, and only those."""
        other = self.launch(minor="2")
        self.run_one()
        self.instance.stop()
        self.assertEqual(self.joiner.signals, [signal.SIGHUP])
        self.assertIn("is about to", self.joiner.session.ended_because)
        self.assertTrue(other.running)

    def test_with_the_manager(self) -> None:
        """When the manager ends, so do they, and the journal says so."""
        self.run_one()
        self.manager.pause()
        self.assertEqual(self.joiner.signals, [signal.SIGHUP])
        ended = "exec: a command in it was ended: the manager ends"
        self.assertEqual(self.events()[-1], ended)


class TerminalTests(SessionCase):
    """A command with a terminal: here, a pair of sockets."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor.works = False
        starting = self.starting(Command(("sh",), terminal=Size()))
        self.master, self.slave = os.openpty()
        self.addCleanup(os.close, self.slave)
        self.joiner.connection.fileDescriptorReceived(self.master)
        self.joiner.say({"passes": "terminal"})
        self.joiner.carry_out()
        self.session = self.successResultOf(starting)
        self.session.heard = lambda *said: self.heard.append(said)
        assert self.session.terminal is not None
        self.terminal: Terminal = self.session.terminal
        self.addCleanup(self.terminal.close)

    def test_streams(self) -> None:
        """What is typed and what is shown goes through it; there is one stream of output."""
        self.session.resumeProducing()
        self.assertIn(self.terminal, self.reactor.readers)
        os.write(self.slave, b"prompt")
        self.terminal.doRead()
        self.assertEqual(self.heard, [(1, b"prompt")])
        self.assertEqual(self.terminal.writeSomeData(b"typed\n"), 6)
        self.assertEqual(os.read(self.slave, 100), b"typed\n")
        self.session.pauseProducing()
        self.assertNotIn(self.terminal, self.reactor.readers)
        self.session.close_input()  # it has no end
        self.assertFalse(self.joiner.input_closed)

    def test_size(self) -> None:
        """It has the size that it is given."""
        self.session.resize(Size(30, 100))
        self.assertEqual(os.get_terminal_size(self.slave), (100, 30))

    def test_end(self) -> None:
        """Its end is told once the command has ended, and the terminal is closed."""
        self.session.resumeProducing()
        self.joiner.end(3)
        self.joiner.close_pipes()
        self.assertNoResult(self.session.ended)
        self.reactor.advance(LINGER)
        self.assertEqual(self.successResultOf(self.session.ended).status, 3)
        self.assertFalse(self.terminal.is_open)
        self.session.resize(Size(1, 1))  # which changes nothing

    def test_hang_up(self) -> None:
        """When it is ended, its terminal is closed, so that the kernel tells all its processes."""
        self.session.end("its client has hung up")
        self.assertFalse(self.terminal.is_open)
        self.assertEqual(self.joiner.signals, [signal.SIGHUP])

    def test_a_terminal_for_nobody(self) -> None:
        """A descriptor that is not taken is closed."""
        one, other = os.pipe()
        self.addCleanup(os.close, other)
        self.joiner.connect()
        self.joiner.connection.fileDescriptorReceived(one)
        self.joiner.hang_up()
        self.assertRaises(OSError, os.fstat, one)
