"""Who is attached to the terminal of an instance of a swarm, by the Docker of its node.

docs.docker.com/reference/api/engine: "Attach to a container".
"""

from __future__ import annotations

from urllib.parse import urlencode

from attrs import define, evolve, field

from txcontain.container.exec_plan import Size
from txcontain.engine.attaching import MOST_ATTACHED, without_terminal
from txcontain.engine.manager import Manager
from txcontain.errors import Error, TooMany
from txcontain.later import background, poll
from txcontain.runtime.exits import Exit, exit_of
from txcontain.swarm.client import Refused
from txcontain.swarm.commands import LEAVING
from txcontain.swarm.execs import LOOK_AFTER, LOOK_MOST
from txcontain.swarm.hijack import Streamed, take_over
from txcontain.swarm.places import Place, refusal_of

ENDS_WITHIN = 10.0  # seconds after its terminal was closed


@define(eq=False)
class Attached(Streamed):
    """One of them: a Stdio. It ends with the container; another start has another one."""

    _is_left: bool = False  # whether it was ended here

    def __attrs_post_init__(self) -> None:
        self.streams.heard = lambda data: self.tell(1, data)
        self.streams.gone.addCallback(
            lambda _: background(self._tell_end(), f"waiting for {self.place.instance.name}")
        )

    def close_input(self) -> None:
        """A terminal has no end: there, Ctrl-D is input like any other."""

    def resize(self, size: Size) -> None:
        """The terminal has this size now."""
        path, doing = f"/containers/{self.place.container}/resize", "resizing a terminal"
        asked = self.place.docker.ask("POST", path, doing=doing, h=size.rows, w=size.columns)
        background(asked, f"resizing the terminal of {self.place.instance.name}")

    def stopProducing(self) -> None:
        """No one looks any more."""
        self.end("")

    def end(self, because: str) -> None:
        """Be attached no longer; the instance goes on."""
        self._is_left = True
        self.lost(self)
        self.streams.abort()

    async def _tell_end(self) -> None:
        """The connection is closed: if Docker has done that, say how the container has ended."""
        if self._is_left:
            return
        try:
            how = await self._find_end()
        except Error as error:
            how = Exit(reason=f"Docker does not tell how it ended ({error})")
        self.lost(self)
        self.ended.callback(evolve(how, at=self.manager.kernel.now()))

    async def _find_end(self) -> Exit:
        path, doing = f"/containers/{self.place.container}/json", "asking how it has ended"
        async for _ in poll(self.reactor, LOOK_AFTER, within=ENDS_WITHIN, most=LOOK_MOST):
            state = (await self.place.docker.ask("GET", path, doing=doing))["State"]
            if not state["Running"]:
                return exit_of(state["ExitCode"], None, 0.0)
        return Exit(reason="Docker has closed the connection, and it runs on: attach again")


@define(eq=False)
class Attaching:
    """Attaches to terminals, and knows who is attached."""

    manager: Manager  # of this host
    attached: set[Attached] = field(factory=set)

    async def start(self, place: Place, size: Size | None, *, from_start: bool) -> Attached:
        """Use the terminal of an instance; what it shows waits until it is asked for.

        Raises WrongState, NotRunning, TooMany, Unavailable, MachineAtFault.
        """
        name = place.instance.name
        if not place.instance.has_terminal:
            raise without_terminal(name)
        here = sum(one.place.instance.name == name for one in self.attached)
        if here >= MOST_ATTACHED:
            raise TooMany(f"{here} are attached to {name} already", "end one of them first")
        query = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1, "detachKeys": LEAVING}
        asked = urlencode({**query, "logs": int(from_start)})
        path, doing = f"/containers/{place.container}/attach?{asked}", f"attaching to {name}"
        try:
            streams = await take_over(place.manager, path, None, doing)
        except Refused as error:
            raise refusal_of(place, error) from None
        attached = Attached(place, self.manager, streams, self.attached.discard)
        self.attached.add(attached)
        self.manager.journal.add("attach", "someone has attached to its terminal", instance=name)
        if size is not None:
            attached.resize(size)
        return attached

    async def stop(self) -> None:
        """Let go of all."""
        for one in list(self.attached):
            one.end("")
