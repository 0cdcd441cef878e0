"""Who is attached to an instance's terminal, byte by byte, on a fake machine."""

import json
import os

from tests.api.test_streams import RESIZE, STATUS, STDIN, STDOUT, StreamsCase
from tests.fakes import write_log
from txcontain.engine.attaching import MOST_ATTACHED
from txcontain.logs import segments
from txcontain.runtime.instance import Instance


class AttachTests(StreamsCase):
    """GET /instances/INSTANCE/attach."""

    verb = "attach"

    def setUp(self) -> None:
        super().setUp()
        self.with_terminal("shell")

    def with_terminal(self, name: str) -> None:
        """From now on, the instance is one that has a terminal."""
        self.instance: Instance = self.launch(tty=True, name=name, startup_env="")
        self.name = self.instance.name
        master, self.slave = os.openpty()
        self.addCleanup(os.close, self.slave)
        assert self.instance.processes is not None
        self.token = self.instance.processes.token
        self.manager.pool.log_process.hold_terminal(self.token, master)

    def settle(self) -> None:
        """Do what is due at once."""
        for _ in range(5):
            self.reactor.advance(0)

    def attach(self, query: str = "") -> None:
        """A client attaches."""
        self.be_client(self.request(query))

    def test_both_ways(self) -> None:
        """What is typed goes to the terminal; what the log gets comes from it; then the end."""
        write_log(self.instance, b"before")
        self.attach("rows=30&columns=100")
        self.assertEqual(os.get_terminal_size(self.slave), (100, 30))
        self.say(RESIZE, b'{"Width": 120, "Height": 40}')
        self.assertEqual(os.get_terminal_size(self.slave), (120, 40))
        self.say(STDIN, b"typed\n")
        (keyboard,) = self.reactor.writers
        keyboard.doWrite()
        self.assertEqual(os.read(self.slave, 100), b"typed\n")
        write_log(self.instance, b"shown")
        self.manager.pool.log_process.wake(self.name)
        self.settle()
        self.assertEqual(self.told(), [(STDOUT, b"shown")])
        self.reactor.inits[-1].end("Done(3)")
        self.settle()
        (channel, said), *_ = self.told()
        self.assertEqual((channel, json.loads(said)["exit"]["status"]), (STATUS, 3))

    def test_from_the_start(self) -> None:
        """Whoever asks for that sees what there was before."""
        write_log(self.instance, b"before")
        self.attach("logs=1")
        self.settle()
        self.assertEqual(self.told(), [(STDOUT, b"before")])

    def test_log_is_unreadable(self) -> None:
        """Who is attached is told why nothing is shown, then or later; the instance runs on."""
        fail, works = [False], segments.end

        def end(folder: str) -> segments.Position:
            if fail[0]:
                raise OSError(5, "Input/output error")
            return works(folder)

        self.patch(segments, "end", end)
        for later in (True, False):
            fail[0] = not later
            self.attach()
            self.settle()
            fail[0] = True
            write_log(self.instance, b"shown")
            self.manager.pool.log_process.wake(self.name)
            self.settle()
            (stream, why), (channel, said), _ = self.told()
            self.assertIn(b"can't be read", why)
            self.assertIn(b"Input/output error", why)
            self.assertEqual((stream, channel), (2, STATUS))
            self.assertEqual(json.loads(said)["exit"]["status"], 125)
            self.assertTrue(self.instance.running)
            self.assertEqual(self.reactor.writers, [])

    def test_left(self) -> None:
        """A client that hangs up ends nothing."""
        self.attach()
        self.hang_up(self.connection)
        self.assertTrue(self.instance.running)
        self.assertIn("attach: someone has attached to its terminal", self.events())

    def test_no_terminal(self) -> None:
        """An instance without a terminal says what its config needs."""
        self.name = self.launch(name="other").name
        answer = self.request("")
        self.assertIn(b"409 Conflict", answer)
        self.assertIn(b"has no terminal", answer)

    def test_bound(self) -> None:
        """Only so many can be attached to one; who has left is not counted."""
        for _ in range(MOST_ATTACHED):
            self.attach()
        self.assertIn(f"{MOST_ATTACHED} are attached".encode(), self.request(""))
        self.with_terminal("other")
        self.attach()
        self.hang_up(self.connection)
        for _ in range(MOST_ATTACHED):
            self.attach()
