"""How instances are asked: which port of which network, or by which command."""

from __future__ import annotations

from typing import Any

from tests.fakes import FakeJoiner, ManagerTestCase
from txcontain.container.plan import Plan
from txcontain.runtime.health import HEALTHY, Standing
from txcontain.runtime.prober import MOST_COMMANDS, MOST_OUTPUT, SOON
from txcontain.runtime.probes import CONNECTED, LATE, LONGEST_ANSWER
from txcontain.runtime.session import LINGER, PASSED_AS_KILL
from txcontain.runtime.sessions import JOIN_WITHIN


class PortTests(ManagerTestCase):
    """Checks that ask a port."""

    def asked(self, **keys: Any) -> tuple[Any, list[Any]]:
        """The instance of a config, and what its first check has told."""
        told: list[Any] = []
        connect = self.kernel.connect

        def note(port: int, network_of: int | str) -> Any:
            told.append((port, network_of))
            return connect(port, network_of)

        self.patch(self.kernel, "connect", note)
        instance = self.launch(startup_script="/run.sh", **keys)
        self.reactor.advance(0)
        return instance, told

    def test_of_the_host(self) -> None:
        """On the host's network it is asked there."""
        _, told = self.asked(health={"tcp": 81})
        self.assertEqual(told, [(81, "self")])

    def test_of_its_own(self) -> None:
        """In a network of its own it is asked by way of its PID 1."""
        for network in ("none", "private"):
            self.patch(self, "kernel", self.reactor.kernel)
            instance, told = self.asked(network=network, minor=network, health={"tcp": 81})
            self.assertEqual(told, [(81, instance.processes.process.pid)])

    def test_http(self) -> None:
        """The request names the path and the port, and asks for the end of the connection."""
        self.kernel.listening[81] = 1
        self.asked(health={"http": "/a?b", "port": 81})
        request = self.kernel.connected[0].recv(1000).decode()
        self.assertTrue(request.startswith("GET /a?b HTTP/1.1\r\nHost: localhost:81\r\n"))
        self.assertTrue(request.endswith("\r\nConnection: close\r\n\r\n"))
        self.kernel.connected[0].close()
        self.manager.prober.probes.stop()

    def test_healthy(self) -> None:
        """The answer of one that is healthy is only looked for a moment later, with others'."""
        self.kernel.listening[81] = 1
        instance, _ = self.asked(health={"http": "/", "port": 81})
        instance.checks.stop()
        instance.checks.standing = Standing(HEALTHY)
        told: list[Any] = []
        self.manager.prober.ask(instance, lambda *said: told.append(said))
        theirs = self.kernel.connected.pop()
        theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        theirs.close()
        self.reactor.advance(SOON / 2)
        self.assertEqual(told, [])
        self.reactor.advance(SOON / 2)
        self.assertEqual(told, [(True, "HTTP/1.1 200 OK")])

    def test_tcp(self) -> None:
        """If it takes connections it is healthy."""
        self.kernel.listening[81] = 1
        instance, _ = self.asked(health={"tcp": 81})
        self.assertEqual(instance.checks.results[-1].output, CONNECTED)
        self.assertEqual(instance.health, "healthy")
        self.kernel.connected[0].close()

    def test_ended(self) -> None:
        """One whose PID 1 is gone can't be asked."""
        instance, _ = self.asked(health={"tcp": 81})
        instance.processes = None
        told: list[Any] = []
        self.manager.prober.ask(instance, lambda *said: told.append(said))()
        self.assertEqual(told, [(None, "it has ended")])


class CommandTests(ManagerTestCase):
    """Checks by a command."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[Any] = []
        self.instance = self.launch(
            startup_script="/run.sh",
            health={"command": ["check", "-v"], "timeout": 8, "interval": 3600},
        )
        self.instance.checks.stop()
        self.end(137)

    def ask(self) -> Any:
        """Make a check."""
        end = self.manager.prober.ask(self.instance, lambda *said: self.told.append(said))
        self.reactor.advance(0)
        return end

    @property
    def joiner(self) -> FakeJoiner:
        """What plays the command that was started last, of those that run."""
        running = self.manager.sessions.of
        return next(one for one in reversed(self.reactor.joiners) if one.session in running)

    def end(self, status: int) -> None:
        """The command ends."""
        joiner = self.joiner
        joiner.end(status)
        self.reactor.advance(LINGER)
        joiner.close_pipes()

    def test_what_is_run(self) -> None:
        """It is the command, in the container, as any other."""
        self.ask()
        plan: Plan = self.joiner.steps
        self.assertEqual((plan[-1][1]["path"], plan[-1][1]["arguments"]), ("check", ["-v"]))
        self.assertTrue(self.joiner.input_closed)

    def test_how_it_ends(self) -> None:
        """It passes if it ends with 0; what it writes is told, and else how it ended."""
        for status, said, expected in (
            (0, b"fine\n", (True, "fine")),
            (3, b"\xff", (False, "\\xff")),
            (3, b"", (False, "exit status 3")),
        ):
            self.ask()
            self.joiner.write_out(said, 2)
            self.end(status)
            self.assertEqual(self.told.pop(), expected)

    def test_it_writes_much(self) -> None:
        """The beginning of its output is told; one that floods is ended."""
        self.ask()
        self.joiner.write_out(b"x" * 10_000)
        self.end(0)
        self.assertEqual(self.told.pop(), (True, "x" * LONGEST_ANSWER))
        self.ask()
        self.joiner.write_out(b"x" * (MOST_OUTPUT + 1))
        passed, said = self.told.pop()
        self.assertEqual((passed, said[:10]), (False, "it wrote m"))
        self.assertEqual(self.joiner.signals, [PASSED_AS_KILL])
        self.end(137)
        self.assertEqual(self.told, [])

    def test_late(self) -> None:
        """One that takes too long has failed, and is killed."""
        self.ask()
        self.joiner.write_out(b"well")
        self.reactor.advance(8)
        self.assertEqual(self.told, [(False, f"{LATE}: well")])
        self.assertEqual(self.joiner.signals, [PASSED_AS_KILL])
        self.end(137)
        self.assertEqual(len(self.told), 1)

    def test_it_can_not_be_joined(self) -> None:
        """A container that keeps the command from joining it has failed."""
        self.reactor.works = False
        self.ask()
        self.reactor.advance(JOIN_WITHIN / 2)
        self.assertEqual(self.told, [(False, LATE)])
        self.reactor.advance(JOIN_WITHIN)
        self.assertEqual(len(self.told), 1)

    def test_no_such_program(self) -> None:
        """A command that is not there has failed; what is the machine's fault does not count."""
        self.reactor.works = False
        for op, number, passed in (("exec", 2, False), ("join", 3, None)):
            self.ask()
            self.joiner.fail(op, number)
            self.reactor.advance(0)
            self.assertIs(self.told.pop()[0], passed)

    def test_called_off(self) -> None:
        """What is called off is killed, and tells nothing, also while it waits to join."""
        self.ask()()
        self.assertEqual(self.joiner.signals, [PASSED_AS_KILL])
        self.end(137)
        self.reactor.works = False
        end = self.ask()
        end()
        self.joiner.carry_out()
        self.reactor.advance(0)
        self.assertEqual(self.joiner.signals, [PASSED_AS_KILL])
        self.end(137)
        self.assertEqual(self.told, [])

    def test_turns(self) -> None:
        """Only a few run at the same time; others wait for their turn, and may be called off."""
        ends = [self.ask() for _ in range(MOST_COMMANDS + 2)]
        running = self.manager.sessions.of
        first = set(running)
        self.assertEqual(len(first), MOST_COMMANDS)
        ends[-2]()
        self.end(0)
        self.reactor.advance(0)
        self.assertEqual((len(self.told), len(running)), (1, MOST_COMMANDS))
        self.assertEqual(len(set(running) - first), 1)
        self.end(0)
        self.reactor.advance(0)
        self.assertEqual((len(self.told), len(running)), (2, MOST_COMMANDS - 1))
        for end in ends:
            end()
