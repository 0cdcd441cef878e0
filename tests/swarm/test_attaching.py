"""Terminals of instances of a swarm, against a Docker in memory."""

from typing import Any

from tests.swarm.test_execs import TAKEN, ExecCase
from txcontain import errors
from txcontain.container.exec_plan import Size
from txcontain.engine.attaching import MOST_ATTACHED
from txcontain.swarm.attaching import ENDS_WITHIN
from txcontain.swarm.execs import LOOK_MOST

REFUSED = b"HTTP/1.1 %d No\r\nContent-Length: 16\r\n\r\n" + b'{"message": "x"}'


class AttachCase(ExecCase):
    """A test with an instance that has a terminal."""

    def setUp(self) -> None:
        super().setUp()
        self.keep(tty=True, minor="2")
        self.name = self.now(self.swarm.launch("web", "1", "2")).summary["instance"]
        self.heard: list[Any] = []

    def begin(self, size: Size | None = None, *, from_start: bool = False) -> Any:
        """Begin to attach; what that comes to."""
        return self.start(self.swarm.attach(self.name, size, from_start=from_start))

    def attach(self, **how: Any) -> Any:
        """Be attached, and see what is shown."""
        begun = self.begin(**how)
        self.lines.made[-1].dataReceived(TAKEN)
        attached = self.successResultOf(begun)
        attached.heard = lambda *what: self.heard.append(what)
        attached.resumeProducing()
        return attached


class AttachTests(AttachCase):
    """Who is attached."""

    def test_whole(self) -> None:
        """Keys and the window pass through, all is one stream, and the end is the container's."""
        attached = self.attach(size=Size(30, 100), from_start=True)
        head, _, typed = self.line.value().partition(b"\r\n\r\n")
        self.assertIn(b"POST /v1.41/containers/c1/attach?stream=1&stdin=1", head)
        self.assertIn(b"&logs=1 HTTP/1.1", head)
        self.assertIn(b"Content-Length: 0", head)
        self.assertEqual(typed, b"")
        attached.write(b"ls\r")
        attached.close_input()
        self.lines.made[-1].dataReceived(b"\1\0\0\0")
        self.assertTrue(self.line.value().endswith(b"\r\n\r\nls\r"))
        self.assertEqual(self.heard, [(1, b"\1\0\0\0")])
        self.assertIn("POST /containers/c1/resize", self.fake.asked)
        self.assertIn("attach: someone has attached to its terminal", self.events())
        self.fake.ended = {"Running": False, "ExitCode": 4}
        self.line.abortConnection()
        self.assertEqual(self.successResultOf(attached.ended).status, 4)
        self.assertEqual(self.swarm.attaching.attached, set())

    def test_left(self) -> None:
        """Who leaves it is attached no more; the instance is left alone."""
        self.attach().stopProducing()
        self.assertTrue(self.lines.made[-1].gone.called)
        self.assertEqual(self.swarm.attaching.attached, set())
        attached = self.attach()
        self.now(self.swarm.attaching.stop())
        self.assertTrue(self.lines.made[-1].gone.called)
        self.assertNoResult(attached.ended)

    def test_cut(self) -> None:
        """If Docker cuts the connection, that is no end of the container."""
        attached = self.attach()
        self.line.abortConnection()
        self.assertNoResult(attached.ended)
        self.reactor.pump([LOOK_MOST] * round(ENDS_WITHIN / LOOK_MOST + 10))
        self.assertIn("it runs on: attach again", str(self.successResultOf(attached.ended)))
        attached = self.attach()
        self.fake.refusals["GET /containers/c1/json"] = 404, "no such container"
        self.line.abortConnection()
        self.assertIn("does not tell how it ended", str(self.successResultOf(attached.ended)))


class RefusedTests(AttachCase):
    """Who is not attached."""

    def test_without_terminal(self) -> None:
        """An instance without a terminal says so."""
        self.name = self.launched()
        error = self.failureResultOf(self.begin(), errors.WrongState).value
        self.assertIn(f"{self.name} has no terminal", str(error))

    def test_bound(self) -> None:
        """Only so many are attached to one instance."""
        for _ in range(MOST_ATTACHED):
            self.attach()
        error = self.failureResultOf(self.begin(), errors.TooMany).value
        self.assertIn(f"{MOST_ATTACHED} are attached to {self.name} already", str(error))

    def test_gone(self) -> None:
        """A container that has gone meanwhile does not run; other refusals are Docker's fault."""
        for status, kind in (
            (404, errors.NotRunning),
            (409, errors.NotRunning),
            (500, errors.MachineAtFault),
        ):
            begun = self.begin()
            self.lines.made[-1].dataReceived(REFUSED % status)
            self.failureResultOf(begun, kind)
        self.assertEqual(self.swarm.attaching.attached, set())
