"""exec and shell, against a fake manager in memory."""

import errno
import io
import json
import os
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from wsproto import WSConnection
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, BytesMessage, RejectConnection, RejectData, Request

from tests.cli.session import Session
from txcontain.cli import exec as commands
from txcontain.cli import streams
from txcontain.cli.streams import Leaving

EXIT = {"status": 3, "signal": None, "reason": "exit status 3"}


class ExecTests(Session):
    """What is asked for, and what comes of it."""

    def setUp(self) -> None:
        super().setUp()
        self.written: list[Any] = []
        self.patch(streams, "write_all", lambda *said: self.written.append(said))
        self.way = lambda uri: self
        self.transport = StringTransport()
        self.server = WSConnection(ConnectionType.SERVER)

    def connect(self, factory: Any) -> Deferred[Any]:
        """As an endpoint: the manager accepts the connection."""
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)

    def heard(self) -> list[Any]:
        """What the manager hears."""
        self.server.receive_data(self.transport.value())
        self.transport.clear()
        return list(self.server.events())

    def answer(self, event: Any) -> None:
        """The manager says something."""
        self.protocol.dataReceived(self.server.send(event))

    def running(self, *words: str) -> tuple[Deferred[Any], str]:
        """A command that runs, and what was asked for it."""
        status = self.start("exec", *words)
        (request,) = self.heard()
        assert isinstance(request, Request)
        self.answer(AcceptConnection(subprotocol=request.subprotocols[0]))
        return status, request.target

    def test_whole(self) -> None:
        """Its words are asked for, its output is written, and its status is ours."""
        status, target = self.running("-u", "bob", "-e", "A=1", "-w", "/srv", "web-1", "ls", "-l")
        wanted = "/instances/web-1/exec?command=ls&command=-l&env=A%3D1&user=bob&workdir=%2Fsrv"
        self.assertEqual(target, wanted)
        (closed,) = self.heard()
        self.assertEqual(bytes(closed.data), b"\xff\0")  # no input, without -i
        self.answer(BytesMessage(b"\1out"))
        self.answer(BytesMessage(b"\2err"))
        self.answer(BytesMessage(b"\3" + json.dumps({"exit": EXIT}).encode()))
        self.assertEqual(self.successResultOf(status), 3)
        self.assertEqual(self.written, [(1, b"out"), (2, b"err")])

    def test_signal(self) -> None:
        """Ended by a signal, it exits as a shell says that."""
        status, _ = self.running("web-1", "ls")
        how = {"exit": {**EXIT, "status": None, "signal": 15}}
        self.answer(BytesMessage(b"\3" + json.dumps(how).encode()))
        self.assertEqual(self.successResultOf(status), 128 + 15)

    def test_lost(self) -> None:
        """If the connection is lost, a sentence says so."""
        status, _ = self.running("web-1", "ls")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(status), 125)
        self.assertIn("hung up before its answer was complete", self.err)

    def test_unwritten(self) -> None:
        """If nobody reads its output, it ends as by SIGPIPE; if the disk is full, it says so."""
        for number, status, said in (
            (errno.EPIPE, 128 + 13, ""),
            (errno.ENOSPC, 125, "Can't write the output: No space left on device.\n"),
        ):
            self.transport, self.server = StringTransport(), WSConnection(ConnectionType.SERVER)
            write = Mock(side_effect=OSError(number, os.strerror(number)))
            self.patch(streams, "write_all", write)
            ended, _ = self.running("web-1", "yes")
            self.answer(BytesMessage(b"\1y"))
            self.answer(BytesMessage(b"\1y"))  # what came with it
            self.assertEqual((self.successResultOf(ended), self.err), (status, said))
            write.assert_called_once()

    def test_refused(self) -> None:
        """What is refused is told, with the status that a shell has for it."""
        for kind, number in (("no-such-program", 127), ("cannot-run", 126), ("not-running", 125)):
            self.transport, self.server = StringTransport(), WSConnection(ConnectionType.SERVER)
            status = self.start("exec", "web-1", "ls")
            self.heard()
            problem = {
                "type": f"urn:txcontain:{kind}",
                "title": "Conflict",
                "status": 409,
                "detail": "running ls",
                "chain": ["it is not there"],
            }
            headers = [(b"content-type", b"application/problem+json")]
            self.answer(RejectConnection(status_code=409, headers=headers, has_body=True))
            self.answer(RejectData(json.dumps(problem).encode()))
            self.assertEqual(self.successResultOf(status), number)
            self.assertIn("Conflict: running ls\n  it is not there\n", self.err)

    def test_attach(self) -> None:
        """What an instance writes from now on is printed until it has ended; its status is ours."""
        self.manager.answers_to("GET /instances/web-1/logs?tail=0&follow=1", b"written\n")
        self.manager.answers_to("GET /instances/web-1/wait", {"exit": EXIT})
        self.assertEqual(self.run_command("attach", "web-1"), 3)
        self.assertEqual(self.out, "written\n")

    def test_keys(self) -> None:
        """All keys are passed on but those that leave, in whatever pieces they come."""
        for typed, passed, is_left in (
            ((b"ls\r",), b"ls\r", False),
            ((b"a\x10\x11b",), b"a", True),
            ((b"\x10", b"\x11"), b"", True),
            ((b"\x10", b"a\x11"), b"\x10a\x11", False),
            ((b"\x10\x10", b"\x11"), b"\x10", True),
            ((b"",), b"", False),
        ):
            leaving = Leaving(commands.keys("ctrl-p,ctrl-q"))
            taken = [leaving.take(data) for data in typed]
            got = b"".join(data for data, _ in taken), taken[-1][1]
            self.assertEqual(got, (passed, is_left), typed)
        self.assertEqual(Leaving().take(b"\x10\x11"), (b"\x10\x11", False))
        self.assertEqual(commands.keys("ctrl-@,ctrl-[,d"), b"\0\x1bd")

    def test_no_command(self) -> None:
        """A command that is left out is missed before anything is sent: it is not a shell."""
        self.assertEqual(self.run_command("exec", "web-1"), 125)
        self.assertIn("txcontain exec INSTANCE COMMAND...", self.err)

    def test_no_terminal(self) -> None:
        """-t without a terminal is refused before anything is sent."""
        self.patch(sys, "stdin", io.StringIO())
        self.assertEqual(self.run_command("exec", "-t", "web-1", "sh"), 125)
        self.assertIn("-t needs a terminal", self.err)

    def test_variables(self) -> None:
        """A variable without a value has the one that it has here; TERM goes with a terminal."""
        self.patch(os, "environ", {"A": "1", "TERM": "xterm-256color"})
        self.assertEqual((commands.variable("A"), commands.variable("A=2")), ("A=1", "A=2"))
        self.assertEqual(commands.terminal_type(), ["TERM=xterm-256color"])
        self.patch(os, "environ", {"TERM": "a b"})
        self.assertEqual(commands.terminal_type(), [])


class InputTests(SynchronousTestCase):
    """This process's standard input."""

    def test_hung_up(self) -> None:
        """Once the connection is gone, it is read no more, and nothing is written to it."""
        reactor = MemoryReactor()
        connection: Any = SimpleNamespace(transport=StringTransport())
        typed = streams.Input(reactor, connection)
        typed.begin()
        self.assertEqual(reactor.getReaders(), [typed])
        typed.stopProducing()
        self.assertEqual((reactor.getReaders(), reactor.getWriters()), ([], []))
