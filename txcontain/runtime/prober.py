"""Asks instances whether they work, in the way that their configs say."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from attrs import define, field
from twisted.internet.defer import DeferredSemaphore

from txcontain import __version__
from txcontain.container.exec_plan import Command
from txcontain.container.facts import Host
from txcontain.container.health import Health
from txcontain.errors import CannotRun, Error, NoSuchProgram
from txcontain.later import Rounds, Timer, background
from txcontain.runtime.health import HEALTHY, TOGETHER
from txcontain.runtime.instance import Instance
from txcontain.runtime.probes import LATE, LONGEST_ANSWER, Probes, Told, no_one, nothing
from txcontain.runtime.session import Session
from txcontain.runtime.sessions import JOIN_WITHIN, Sessions, plan_of

MOST_OUTPUT = 1 << 20  # bytes that a command may write
SOON = 0.005  # seconds until the answer of one that was healthy is looked for, with others'
MOST_COMMANDS = 8  # at the same time, of all instances; others wait for their turn
REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: txcontain/{version}\r\n"
    "Accept: */*\r\nConnection: close\r\n\r\n"
)


@lru_cache(maxsize=1000)
def request_for(path: str, port: int) -> bytes:
    """What is sent to ask by HTTP."""
    return REQUEST.format(path=path, port=port, version=__version__).encode()


@define(eq=False)
class Prober:
    """Asks the instances of a manager."""

    sessions: Sessions
    host: Host
    probes: Probes
    rounds: Rounds
    _turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(MOST_COMMANDS))

    def ask(self, instance: Instance, told: Told) -> Callable[[], None]:
        """Ask an instance once; ``told`` is called once, maybe before this returns.

        Returns what ends it before that.
        """
        spec, processes = instance.spec, instance.processes
        health, port = spec.health, spec.port_asked
        if health is None or processes is None or not processes.process.pid:
            told(None, "it has ended")
            return nothing
        if health.command or port is None:
            check = CommandCheck(self, instance, health, told)
            background(check.run(self._turns), f"checking {instance.name}")
            return check.close
        network_of = "self" if spec.network == "host" else processes.process.pid
        request = request_for(health.http, port) if health.http else b""
        soon = SOON if instance.health == HEALTHY else 0
        expects, timeout = health.expects, health.timeout
        return self.probes.ask(port, network_of, request, expects, timeout, told, soon)


@define(eq=False)
class CommandCheck:
    """A command that checks an instance, until it has ended."""

    prober: Prober
    instance: Instance
    health: Health
    told: Told
    session: Session | None = None
    output: bytes = b""
    written: int = 0  # bytes, of which the output is the beginning
    _late: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._late = Timer(self.instance.reactor, self._be_late)

    async def run(self, turns: DeferredSemaphore) -> None:
        """Run it when it is its turn, and tell what came of it."""
        async with turns:
            if self.told is no_one:
                return
            try:
                await self._run()
            except (CannotRun, NoSuchProgram) as error:
                self._tell(False, str(error))
            except Error as error:  # the machine's, or the manager's fault
                self._tell(None, str(error))
            finally:
                self._late.cancel()

    async def _run(self) -> None:
        sessions, command = self.prober.sessions, Command(self.health.command)
        plan = plan_of(self.instance, self.prober.host, command)
        # An instance can keep what joins it from doing so: that is a failure of its own.
        self._late.after(min(self.health.timeout, JOIN_WITHIN / 2))
        self.session = session = await sessions.start(self.instance, plan, counts=False)
        self._late.after(self.health.timeout)
        session.heard = self._hear
        session.close_input()
        if self.told is no_one:
            self._end()
        session.resumeProducing()
        how = await session.ended
        self._tell(how.status == 0, self._said or str(how))

    def _hear(self, stream: int, data: bytes) -> None:
        """Keep the beginning of what it writes, and let the rest go."""
        self.output += data[: LONGEST_ANSWER - len(self.output)]
        self.written += len(data)
        if self.written > MOST_OUTPUT:
            self._tell(False, f"it wrote more than {MOST_OUTPUT} bytes: {self._said}")
            self._end()

    def _be_late(self) -> None:
        self._tell(False, f"{LATE}: {self._said}" if self._said else LATE)
        self._end()

    @property
    def _said(self) -> str:
        return self.output.decode(errors="backslashreplace").strip()

    def _tell(self, passed: bool | None, said: str) -> None:
        told, self.told = self.told, no_one
        told(passed, said)

    def _end(self) -> None:
        if self.session is not None:
            self.session.kill("its check is over")

    def close(self) -> None:
        """End it, and tell nothing."""
        self.told = no_one
        self._end()


def make_prober(sessions: Sessions, host: Host) -> Prober:
    """What asks the instances of a manager."""
    reactor, kernel = sessions.pool.reactor, sessions.pool.kernel
    return Prober(sessions, host, Probes(reactor, kernel), Rounds(reactor, TOGETHER))
