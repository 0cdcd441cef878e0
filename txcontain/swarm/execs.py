"""Commands in containers of a swarm, each by the Docker of its node: their streams and their ends.

docs.docker.com/reference/api/engine: "Exec". Docker can't end a command. So each has a variable by
which a second command finds it, and sends it a signal: both run as the same user.
"""

from __future__ import annotations

import math
import signal

from attrs import define, evolve, field

from txcontain.container.exec_plan import Command, Size
from txcontain.engine.manager import Manager
from txcontain.errors import Error, InvalidData, MachineAtFault, TooMany, Unavailable
from txcontain.later import Timer, background, poll
from txcontain.runtime.exits import Exit, exit_of
from txcontain.runtime.session import KILL_AFTER
from txcontain.runtime.sessions import JOIN_WITHIN, MOST, MOST_EACH
from txcontain.swarm import commands
from txcontain.swarm.commands import Made
from txcontain.swarm.frames import Frames
from txcontain.swarm.hijack import Streamed, take_over
from txcontain.swarm.places import Place

LOOK_AFTER, LOOK_MOST = 0.01, 0.5  # seconds between looks at a command
COMPLAINS_WITHIN = 2.0  # seconds: why it was not started
LONGEST_COMPLAINT = 4096  # bytes of that


@define(eq=False)
class Session(Streamed):
    """A command in a container: a Stdio."""

    made: Made = field(kw_only=True)
    _because: str = ""  # why it was ended by the manager, if it was
    _frames: Frames = field(factory=Frames)
    _kill: Timer = field(init=False)
    _give_up: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._kill = Timer(self.reactor, self._send_kill)
        self._give_up = Timer(self.reactor, self._never_ended)
        self.streams.heard = self._hear
        self.streams.gone.addCallback(
            lambda _: background(self._until_it_ends(), f"waiting for the exec {self.made.id}")
        )

    # -- its input -------------------------------------------------------------

    def close_input(self) -> None:
        """No more input comes. (A terminal has no end: there, Ctrl-D is input like any other.)"""
        if not self.made.has_terminal:
            self.streams.close_input()

    def resize(self, size: Size) -> None:
        """The terminal, if it has one, has this size now."""
        if self.made.has_terminal:
            work = commands.resize(self.place, self.made, size)
            background(work, f"resizing the terminal of the exec {self.made.id}")

    # -- its output ------------------------------------------------------------

    def stopProducing(self) -> None:
        """No one reads its output any more."""
        self.end("no one reads its output any more")

    def _hear(self, data: bytes) -> None:
        if self.made.has_terminal:
            self.tell(1, data)
            return
        try:
            for stream, part in self._frames.feed(data):
                self.tell(stream, part)
        except InvalidData as error:
            self.end(str(error))
            self.streams.abort()

    # -- its end ---------------------------------------------------------------

    def end(self, because: str) -> None:
        """End the command: by SIGHUP, and in the end by SIGKILL.

        :param because: why, as its exit will say
        """
        if self._because or self.ended.called:
            return
        self._because, self.heard = because, None
        self.resumeProducing()
        self._signal(signal.SIGHUP)
        self._kill.after(KILL_AFTER)

    def _send_kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._give_up.after(KILL_AFTER)

    def _never_ended(self) -> None:
        self._is_over(Exit(reason="it may run on in the container: nothing there could end it"))

    def _signal(self, number: signal.Signals) -> None:
        work = commands.send_signal(self.place, self.made, number)
        background(work, f"ending a command in {self.place.instance.name}")

    async def _until_it_ends(self) -> None:
        """Its streams are closed: look until it has ended, too."""
        try:
            async for _ in poll(self.reactor, LOOK_AFTER, within=math.inf, most=LOOK_MOST):
                told = await commands.look(self.place, self.made)
                if self.ended.called:
                    return
                if not told["Running"] and told["ExitCode"] is not None:
                    self._is_over(exit_of(told["ExitCode"], None, 0.0))
                    return
        except Error as error:
            self._is_over(Exit(reason=f"Docker does not tell how it ended ({error})"))

    def _is_over(self, how: Exit) -> None:
        if self.ended.called:
            return
        self._kill.cancel()
        self._give_up.cancel()
        self.streams.abort()
        if self._because and how.failed:
            how = evolve(how, reason=f"{self._because} ({how.reason})")
        self.lost(self)
        self.ended.callback(evolve(how, at=self.manager.kernel.now()))


@define(eq=False)
class Sessions:
    """Starts commands, and knows those that run."""

    manager: Manager  # of this host
    running: set[Session] = field(factory=set)
    _starting: list[str] = field(factory=list)  # the instance of each that is being started

    async def start(self, place: Place, command: Command) -> Session:
        """A command that runs in an instance; its output waits until it is asked for.

        Raises NotRunning, TooMany, CannotRun, NoSuchProgram, Unavailable, MachineAtFault.
        """
        name = place.instance.name
        self._check_bounds(name)
        self._starting.append(name)
        try:
            made = await commands.make(place, command)
            session = await self._join(place, made)
        finally:
            self._starting.remove(name)
        try:
            await self._until_it_runs(session, command)
        except Exception:
            session.end("its start failed")
            raise
        if command.terminal is not None:  # no failure if that is refused: it may have ended
            session.resize(command.terminal)
        self.manager.journal.add("exec", f"{command.command[0]} was started in it", instance=name)
        return session

    def _check_bounds(self, name: str) -> None:
        names = [*self._starting, *(one.place.instance.name for one in self.running)]
        here = names.count(name)
        if here >= MOST_EACH:
            raise TooMany(f"{here} commands run in {name} already", "end one of them first")
        if len(names) >= MOST:
            raise TooMany(f"{MOST} commands run in instances already", "end one of them first")

    async def _join(self, place: Place, made: Made) -> Session:
        """Have Docker start it, and be its streams."""
        asked = {"Detach": False, "Tty": made.has_terminal}
        doing = f"running a command in {place.instance.name}"
        try:
            streams = await take_over(place.manager, f"/exec/{made.id}/start", asked, doing)
        except Unavailable:
            stray = commands.send_signal(place, made, signal.SIGKILL)  # it may run all the same
            background(stray, f"ending a command in {place.instance.name}")
            raise
        session = Session(place, self.manager, streams, self.running.discard, made=made)
        self.running.add(session)
        return session

    async def _until_it_runs(self, session: Session, command: Command) -> None:
        async for _ in poll(self.manager.reactor, LOOK_AFTER, within=JOIN_WITHIN, most=LOOK_MOST):
            told = await commands.look(session.place, session.made)
            if told["Pid"]:
                return
            if not told["Running"] and told["ExitCode"] is not None:
                said = await self._complaint(session)
                raise commands.why_not(said, command, session.made)
        raise MachineAtFault(
            "joining the container", f"the command does not run after {JOIN_WITHIN:.0f} s"
        )

    async def _complaint(self, session: Session) -> str:
        """What Docker says of a command that was not started: it is sent as its output."""
        said = bytearray()
        session.heard = lambda _, data: said.extend(data[: LONGEST_COMPLAINT - len(said)])
        session.resumeProducing()
        async for _ in poll(self.manager.reactor, LOOK_AFTER, within=COMPLAINS_WITHIN):
            if session.ended.called:
                break
        return said.decode(errors="replace").strip()

    async def stop(self) -> None:
        """End all that run, as far as they end at once."""
        for session in list(self.running):
            session.end("the manager has ended")
