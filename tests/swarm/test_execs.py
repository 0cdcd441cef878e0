"""Commands in containers of a swarm, against a Docker in memory."""

import io
import json
import tarfile
from typing import Any

from twisted.internet.interfaces import INegotiated
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides

from tests.integration.tarballs import GROUP, PASSWD, Member, file, link
from tests.swarm.docker import Line, Lines
from tests.swarm.test_logs import frame
from tests.swarm.test_swarm import SwarmCase
from txcontain import errors
from txcontain.container.exec_plan import Size, read_command
from txcontain.engine import execs
from txcontain.runtime.session import KILL_AFTER
from txcontain.runtime.sessions import JOIN_WITHIN, MOST, MOST_EACH
from txcontain.swarm.client import NoAnswer
from txcontain.swarm.commands import LONGEST_DATABASE, MARK
from txcontain.swarm.execs import COMPLAINS_WITHIN, LOOK_MOST
from txcontain.swarm.frames import LONGEST_FRAME
from txcontain.swarm.hijack import LONGEST_EARLY, LONGEST_REFUSAL, Hijacked

TAKEN = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def tarball(*members: Member) -> bytes:
    """A tarball, as Docker sends what is at a path."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return whole.getvalue()


class ExecCase(SwarmCase):
    """A test with an instance that runs."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.name = self.launched()
        self.lines = Lines()
        self.swarm.docker.managers[0].endpoint = self.lines

    def ask(self, *words: str, size: Size | None = None, **keys: Any) -> Any:
        """Begin to run a command; what its start comes to."""
        command = read_command({"command": list(words or ["cat"]), **keys}, size)
        return self.start(self.swarm.exec(self.name, command))

    def run_(self, *words: str, **keys: Any) -> Any:
        """A command that runs."""
        asked = self.ask(*words, **keys)
        self.lines.made[-1].dataReceived(TAKEN)
        return self.successResultOf(asked)

    def end(self, status: int = 0) -> None:
        """Have the last command end."""
        self.fake.how = {"Pid": 7, "Running": False, "ExitCode": status}
        if not self.lines.made[-1].gone.called:
            self.lines.made[-1].transport.abortConnection()

    @property
    def line(self) -> Any:
        """The last connection that was taken over."""
        return self.lines.made[-1].transport


class StreamTests(ExecCase):
    """What goes in, and comes out."""

    def test_whole(self) -> None:
        """A command gets its input and its end, and both outputs are told, then the status."""
        session = self.run_("sh", "-c", "x", env=["A=2"], workdir="/etc")
        self.assertIn(b"POST /v1.41/exec/e1/start HTTP/1.1\r\n", self.line.value())
        told = self.start(execs.run(session, b"given", 10))
        self.assertTrue(self.line.value().endswith(b'"Tty": false}given'))
        self.assertTrue(self.line.half_closed)
        self.lines.made[-1].dataReceived(frame("out") + frame("err", 2) + frame("", 1))
        self.end(3)
        said = self.successResultOf(told)
        self.assertEqual((said["stdout"], said["stderr"]), ("out", "err"))
        self.assertEqual((said["exit"]["status"], said["exit"]["reason"]), (3, "exit status 3"))
        (asked,) = self.fake.execs
        self.assertEqual((asked["Cmd"], asked["WorkingDir"]), (["sh", "-c", "x"], "/etc"))
        self.assertEqual(asked["Env"][:2], ["A=2", "HOME=/root"])
        self.assertFalse(self.swarm.sessions.running)
        self.assertIn("exec: sh was started in it", self.events())

    def test_terminal(self) -> None:
        """A terminal has one stream, no end of its input, and a size that can change."""
        session = self.run_(size=Size(30, 100))
        heard: list[Any] = []
        session.heard = lambda *what: heard.append(what)
        session.resumeProducing()
        self.lines.made[-1].dataReceived(b"\1\0\0\0")
        session.close_input()
        session.resize(Size(40, 120))
        self.assertEqual(heard, [(1, b"\1\0\0\0")])
        self.assertEqual(self.fake.asked.count("POST /exec/e1/resize"), 2)
        self.assertFalse(self.line.half_closed)

    def test_paused(self) -> None:
        """Nothing is read until it is asked for, what came with the answer is not lost."""
        asked = self.ask()
        self.lines.made[-1].dataReceived(TAKEN + frame("early"))
        session, heard = self.successResultOf(asked), []
        self.assertEqual(self.line.producerState, "paused")
        session.heard = lambda stream, data: heard.append(data)
        session.resumeProducing()
        self.assertEqual((heard, self.line.producerState), ([b"early"], "producing"))
        session.pauseProducing()
        self.assertEqual((session.paused, self.line.producerState), (True, "paused"))

    def test_records(self) -> None:
        """What TLS had read with the answer comes though paused, and is not lost either."""
        asked = self.ask()
        self.lines.made[-1].dataReceived(TAKEN + frame("a"))
        self.lines.made[-1].dataReceived(frame("b")[:3])
        session, heard = self.successResultOf(asked), []
        self.lines.made[-1].dataReceived(frame("b")[3:])

        def hear(stream: int, data: bytes) -> None:
            heard.append(data)
            session.pauseProducing()

        session.heard = hear
        session.resumeProducing()
        self.assertEqual((heard, self.line.producerState), ([b"a", b"b"], "paused"))

    def test_input_waits(self) -> None:
        """Who gives input waits while the command reads none."""
        session, producer = self.run_(), StringTransport()
        session.register_input(producer)
        self.assertIs(self.line.producer, producer)

    def test_over_tls(self) -> None:
        """Over TLS, the end of input is told as TLS has it: the other way stays open."""
        session = self.run_()
        directlyProvides(self.line, INegotiated)
        session.close_input()
        self.assertTrue(self.line.disconnecting)
        self.assertFalse(self.line.half_closed)

    def test_garbage(self) -> None:
        """What is in no frames ends the command."""
        session = self.run_()
        session.resumeProducing()
        self.lines.made[-1].dataReceived(b"\1\0\0\0" + LONGEST_FRAME.to_bytes(4, "big"))
        self.end(137)
        self.reactor.advance(LOOK_MOST)
        self.assertIn("not in frames", str(self.successResultOf(session.ended)))


class UserTests(ExecCase):
    """As whom a command runs."""

    def asked(self, **keys: Any) -> Any:
        """What Docker was asked."""
        self.run_(**keys)
        return self.fake.execs[-1]

    def test_own(self) -> None:
        """Without another, it is the container's; at home, if there is such a folder."""
        self.assertEqual((self.asked()["User"], self.asked()["WorkingDir"]), ("", "/"))
        self.fake.files["/root"] = tarball(file("root", b""))
        self.assertEqual(self.asked()["WorkingDir"], "/")
        self.fake.files["/root/."] = tarball()
        self.assertEqual(self.asked()["WorkingDir"], "/root")

    def test_another(self) -> None:
        """Another is found in the container's own files, with its home and its name."""
        self.fake.files |= {
            "/etc/passwd": tarball(file("passwd", PASSWD)),
            "/etc/group": tarball(file("group", GROUP)),
            "/home/worker/.": tarball(),
        }
        for user, told, home in (
            ("worker", "worker", "/home/worker"),
            ("worker:others", "worker:others", "/home/worker"),
            ("4711", "4711:4711", "/"),
            ("root", "0:0", "/"),
        ):
            asked = self.asked(user=user)
            self.assertEqual((asked["User"], asked["WorkingDir"]), (told, home))
        self.assertIn("USER=root", asked["Env"])

    def test_nobody(self) -> None:
        """One that is not known is refused, whatever the container has in place of the file."""
        for content in (
            None,
            tarball(link("passwd", "/etc/shadow")),
            tarball(),
            b"x" * LONGEST_DATABASE + b"x",
        ):
            if content is not None:
                self.fake.files["/etc/passwd"] = content
            error = self.failureResultOf(self.ask(user="bob"), errors.CannotRun).value
            self.assertIn("the image knows no user 'bob'", str(error))
        self.assertEqual(self.fake.execs, [])
        self.assertIsNotNone(self.swarm.docker.managers[0].version)


class RefusedTests(ExecCase):
    """Commands that do not run."""

    def test_not_started(self) -> None:
        """What Docker says of a command that it could not start is told as on one host."""
        for said, kind, words in (
            ('exec: "cat": stat cat: no such file or directory', errors.NoSuchProgram, "no cat"),
            ('exec: "cat": executable file not found in $PATH', errors.NoSuchProgram, "no cat"),
            ('exec: "cat": permission denied', errors.CannotRun, "cat can't be run"),
            ('chdir to cwd ("/x") failed: no such file', errors.CannotRun, "/x can't be its"),
            ("something else", errors.CannotRun, "cat can't be run"),
        ):
            self.fake.how = {"Pid": 0, "Running": False, "ExitCode": 126}
            asked = self.ask(workdir="/x")
            self.lines.made[-1].dataReceived(TAKEN + frame(said))
            self.line.abortConnection()
            self.reactor.advance(COMPLAINS_WITHIN)
            error = self.failureResultOf(asked, kind).value
            self.assertIn(words, str(error))

    def test_home(self) -> None:
        """If it can't be started at home, that is named."""
        self.fake.files["/root/."] = tarball()
        self.fake.how = {"Pid": 0, "Running": False, "ExitCode": 126}
        asked = self.ask()
        self.lines.made[-1].dataReceived(TAKEN + frame("chdir to cwd: permission denied"))
        self.line.abortConnection()
        self.reactor.advance(COMPLAINS_WITHIN)
        error = self.failureResultOf(asked, errors.CannotRun).value
        self.assertIn("/root can't be its working directory", str(error))

    def test_never_runs(self) -> None:
        """A command that neither runs nor fails is not waited for."""
        self.fake.how = {"Pid": 0, "Running": True, "ExitCode": None}
        asked = self.ask()
        self.lines.made[-1].dataReceived(TAKEN)
        self.reactor.pump([LOOK_MOST] * round(JOIN_WITHIN / LOOK_MOST + 5))
        error = self.failureResultOf(asked, errors.MachineAtFault).value
        self.assertIn("the command does not run after 10 s", str(error))

    def test_no_answer(self) -> None:
        """A Docker that does not take the connection over is not waited for, nor believed."""
        for answer, kind, words in (
            (b"HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\n", errors.MachineAtFault, ""),
            (b"nonsense\r\n\r\n", errors.Unavailable, "its answer is no HTTP"),
            (None, errors.Unavailable, "closed the connection"),
        ):
            asked = self.ask()
            if answer is None:
                self.line.abortConnection()
            else:
                self.lines.made[-1].dataReceived(answer + b'{"message": "x"}')
            error = self.failureResultOf(asked, kind).value
            self.assertIn(words or "Docker says: x", str(error))

    def test_late_answer(self) -> None:
        """Who has not answered in time is hung up on, and what it may have started is ended."""
        asked = self.ask()
        self.reactor.advance(JOIN_WITHIN)
        error = self.failureResultOf(asked, errors.Unavailable).value
        self.assertIn("unix:/0 does not answer within 10 seconds", str(error))
        self.successResultOf(self.lines.made[-1].gone)
        of_command, of_signal = self.fake.execs
        self.assertEqual(of_signal["Cmd"][-2:], [of_command["Env"][-1], "KILL"])
        self.assertFalse(self.swarm.sessions.running)

    def test_gone(self) -> None:
        """A container that has gone meanwhile is one in which nothing can be run."""
        for asked in ("POST /containers/c1/exec", "GET /containers/c1/json"):
            for status in (404, 409):
                self.fake.refusals[asked] = status, "it is not running"
                error = self.failureResultOf(self.ask(), errors.NotRunning).value
                self.assertIn("does not run any more", str(error))
            self.fake.refusals[asked] = 500, "broken"
            self.failureResultOf(self.ask(), errors.MachineAtFault)

    def test_bounds(self) -> None:
        """There are only so many commands of an instance, and of all."""
        for _ in range(MOST_EACH):
            self.run_()
        error = self.failureResultOf(self.ask(), errors.TooMany).value
        self.assertIn(f"{MOST_EACH} commands run in {self.name} already", str(error))
        for _ in range(MOST // MOST_EACH - 1):
            self.name = self.launched()
            for _ in range(MOST_EACH):
                self.run_()
        self.name = self.launched()
        error = self.failureResultOf(self.ask(), errors.TooMany).value
        self.assertIn(f"{MOST} commands run in instances already", str(error))

    def test_bound_together(self) -> None:
        """Those that are being started count, as long as they are."""
        asked = [self.ask() for _ in range(MOST_EACH + 1)]
        self.failureResultOf(asked.pop(), errors.TooMany)
        self.assertEqual(len(self.lines.made), MOST_EACH)
        for line in self.lines.made:
            line.dataReceived(b"nonsense\r\n\r\n")
        for one in asked:
            self.failureResultOf(one, errors.Unavailable)
        self.run_()

    def test_over(self) -> None:
        """Nothing is run where nothing runs; the same of an instance that there is not."""
        self.fake.tasks[0]["Status"]["State"] = "complete"
        self.swarm.watch.wrote()
        error = self.failureResultOf(self.ask(), errors.NotRunning).value
        self.assertIn(f"{self.name} has ended", str(error))
        self.name = "nobody"
        self.failureResultOf(self.ask(), errors.NoSuchInstance)

    def test_elsewhere(self) -> None:
        """A node whose Docker is not among those that are known is named, with what to do."""
        self.fake.node = "n2"
        error = self.failureResultOf(self.ask(), errors.NotInSwarm).value
        for words in ("runs on the node h1", "by --docker", "`docker exec` there"):
            self.assertIn(words, str(error))
        self.fake.refusals["GET /info"] = 500, "broken"
        self.swarm.docker.managers[0].node = None
        self.failureResultOf(self.ask(), errors.NotInSwarm)


class EndTests(ExecCase):
    """How a command ends, or is ended."""

    def test_ended(self) -> None:
        """One that nobody wants any more gets SIGHUP, then SIGKILL; its exit says why."""
        session = self.run_(user="4711")
        mark = self.fake.execs[0]["Env"][-1]
        self.assertTrue(mark.startswith(f"{MARK}="))
        session.end("the client hung up")
        session.end("again")
        self.reactor.advance(KILL_AFTER)
        found = [(one["Cmd"][-2:], one["User"]) for one in self.fake.execs[1:]]
        self.assertEqual(found, [([mark, name], "4711:4711") for name in ("HUP", "KILL")])
        self.end(137)
        how = self.successResultOf(session.ended)
        self.assertEqual(str(how), "the client hung up (exit status 137)")

    def test_never_ends(self) -> None:
        """One that can't be ended is let go, and that is said."""
        session = self.run_()
        session.stopProducing()
        self.reactor.pump([KILL_AFTER] * 3)
        self.assertIn("it may run on", str(self.successResultOf(session.ended)))
        self.assertFalse(self.swarm.sessions.running)

    def test_output_closed(self) -> None:
        """One that has closed its output is waited for until it has ended."""
        session = self.run_()
        self.line.abortConnection()
        self.reactor.pump([LOOK_MOST] * 10)
        self.assertNoResult(session.ended)
        session.close_input()
        self.end(0)
        self.reactor.pump([LOOK_MOST] * 3)
        self.assertEqual(self.successResultOf(session.ended).status, 0)

    def test_no_one_tells(self) -> None:
        """If Docker does not know it any more, its end is unknown."""
        session = self.run_()
        self.fake.refusals["GET /exec/e1/json"] = 404, "No such exec instance"
        self.line.abortConnection()
        how = self.successResultOf(session.ended)
        self.assertEqual((how.status, how.kind), (None, "unknown"))

    def test_garbled(self) -> None:
        """What is no answer is told as the end, too."""
        session = self.run_()
        self.fake.how = b"<html>"
        self.line.abortConnection()
        self.assertIn("is no JSON", str(self.successResultOf(session.ended)))
        self.assertFalse(self.swarm.sessions.running)

    def test_stopped(self) -> None:
        """With the manager, commands end."""
        self.run_()
        self.now(self.swarm.sessions.stop())
        self.assertEqual(self.fake.execs[-1]["Cmd"][-1], "HUP")

    def test_ended_before_its_size(self) -> None:
        """What has ended before its terminal could get a size has run, and its output is told."""
        self.fake.refusals["POST /exec/e1/resize"] = 500, "cannot resize a stopped container"
        asked = self.ask(size=Size())
        self.lines.made[-1].dataReceived(TAKEN + b"hello\r\n")
        session, heard = self.successResultOf(asked), []
        session.heard = lambda stream, data: heard.append(data)
        session.resumeProducing()
        self.end(0)
        self.reactor.advance(LOOK_MOST)
        self.assertEqual(heard, [b"hello\r\n"])
        self.assertEqual(self.successResultOf(session.ended).status, 0)
        self.assertEqual(self.fake.asked.count("POST /exec/e1/resize"), 1)
        self.assertEqual(len(self.fake.execs), 1)


class ExplainTests(ExecCase):
    """What is printed."""

    def test_words(self) -> None:
        """A command is explained as one of Docker's CLI, and where to type it."""
        values = {"command": ["ls", "a b"], "env": ["A=1"], "user": "bob", "workdir": "/x"}
        script = self.now(self.swarm.explain_exec(self.name, read_command(values, Size())))
        self.assertIn(f"# On the node h1, where {self.name} runs:", script)
        wanted = "docker exec --interactive --tty --user=bob --workdir=/x --env=A=1 c1 ls 'a b'\n"
        self.assertTrue(script.endswith(wanted), script)


class HijackedTests(ExecCase):
    """The connection itself."""

    def test_long_refusal(self) -> None:
        """Of an answer that refuses, only so much is read."""
        hijacked = Hijacked("/x", {}, "asking")
        hijacked.makeConnection(Line(hijacked))
        hijacked.dataReceived(b"HTTP/1.1 500 X\r\nContent-Length: 99999999\r\n\r\n")
        hijacked.dataReceived(b"x" * (LONGEST_REFUSAL + 1))
        self.failureResultOf(hijacked.taken, errors.MachineAtFault)
        self.successResultOf(hijacked.gone)

    def test_long_before_resumed(self) -> None:
        """What comes though it is paused is bounded."""
        hijacked = Hijacked("/x", {}, "asking")
        hijacked.makeConnection(Line(hijacked))
        hijacked.dataReceived(TAKEN)
        hijacked.dataReceived(b"x" * LONGEST_EARLY)
        self.assertNoResult(hijacked.gone)
        hijacked.dataReceived(b"x")
        self.successResultOf(hijacked.gone)

    def test_long_head(self) -> None:
        """The head of an answer is bounded."""
        hijacked = Hijacked("/x", {}, "asking")
        hijacked.makeConnection(Line(hijacked))
        hijacked.dataReceived(b"HTTP/1.1 101 X\r\nA: " + b"x" * (1 << 20))
        self.failureResultOf(hijacked.taken, NoAnswer)
        self.assertEqual(json.loads(hijacked._asked.partition(b"\r\n\r\n")[2]), {})
