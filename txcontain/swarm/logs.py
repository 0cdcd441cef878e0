"""What instances have written, as Docker sends it: frames, each with the time and a line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from txcontain.engine.interface import LogsAsked
from txcontain.engine.names import match, match_all
from txcontain.errors import InvalidData, MachineAtFault, NotInSwarm, TooMany
from txcontain.images.answers import drop
from txcontain.later import Timer, begin
from txcontain.logs.push import PushProducer
from txcontain.logs.segments import FOREVER
from txcontain.logs.times import SECOND, read_moment
from txcontain.swarm.client import Docker
from txcontain.swarm.frames import Frames, Lines
from txcontain.swarm.records import Instance, Seen, instances, known

MOST = 64  # logs that are sent together
SILENT_FOR = 10.0  # seconds, if no more is to come: a node of a swarm may have gone
ENDS_AFTER = 1.0  # seconds without more, if its instance has ended
KEEPS_WAITING = 0.5  # seconds: for so long the others wait for a log that is followed
MOST_HELD = 1 << 18  # bytes of a log that wait for those of others, or for the consumer
LONGEST_WRITE = 1 << 16  # bytes


def query_of(asked: LogsAsked) -> dict[str, str]:
    """The parameters of GET /services/ID/logs."""
    since = asked.wanted.since
    return {
        "stdout": str(0 in asked.wanted.streams).lower(),
        "stderr": str(1 in asked.wanted.streams).lower(),
        "follow": str(asked.follow).lower(),
        "timestamps": "true",
        **({} if asked.tail is None else {"tail": str(asked.tail)}),
        **({"since": f"{since // SECOND}.{since % SECOND:09}"} if since else {}),
    }


def read_frame(frame: bytes, asked: LogsAsked, name: str) -> tuple[bytes, bytes]:
    """The time of a frame of an instance, each as long as all others; and what is sent of it.

    That is nothing if it is too late. Raises InvalidData.
    """
    time, _, text = frame.partition(b" ")
    if asked.wanted.until < FOREVER and read_moment("a time", time.decode()) > asked.wanted.until:
        return time, b""
    if asked.timestamps:
        text = frame
    if asked.labelled:  # a line that ends with the log, or is sent in parts, has no end of its own
        text = f"{name} | ".encode() + text.removesuffix(b"\n") + b"\n"
    return time, text


def in_time(asked: LogsAsked, now: float) -> LogsAsked:
    """What is asked for at this time: nothing is to be followed if it would be too late."""
    return evolve(asked, follow=asked.follow and asked.wanted.until > now * SECOND)


@define(eq=False)
class Log(Protocol):
    """The body of an answer, which is a log: its frames wait until they are sent."""

    name: str  # of its instance
    asked: LogsAsked
    cut: Frames | Lines  # how it comes
    reactor: Any
    told: Callable[[], object] = int  # called when there is more of it, or it is over
    frames: deque[tuple[bytes, bytes]] = field(factory=deque)  # as they are read
    over: bool = False
    is_whole: bool = False
    transport: Any = None
    _held: int = 0  # bytes of the frames
    _is_paused: bool = False
    _ends: bool = False  # whether its instance has ended
    _came: float = 0.0  # when the last of it came
    _silence: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._silence = Timer(self.reactor, self._fell_silent)

    @property
    def keeps_waiting(self) -> bool:
        """Whether something older than what others have may be on its way."""
        if self.over or self.frames:
            return False
        return not self.asked.follow or self.reactor.seconds() < self._came + KEEPS_WAITING

    def connectionMade(self) -> None:
        """It begins."""
        self._expect_more()

    def dataReceived(self, data: bytes) -> None:
        """Some of it has come."""
        try:
            cut = [frame for _, frame in self.cut.feed(data)]
            read = [read_frame(frame, self.asked, self.name) for frame in cut]
        except InvalidData:
            self.hang_up()
            return
        came = [(time, text) for time, text in read if text]
        if came or not (read and self._ends):  # else all of it is too late
            self._expect_more()
        self.frames += came
        self._held += sum(len(text) for _, text in came)
        if self._held > MOST_HELD and not self._is_paused:
            self._is_paused = True
            self._silence.cancel()
            self.transport.pauseProducing()
        self.told()

    def take(self) -> bytes:
        """What is sent of the next of its frames."""
        _, text = self.frames.popleft()
        self._held -= len(text)
        if self._is_paused and self._held <= MOST_HELD // 2:
            self._is_paused = False
            self._expect_more()
            self.transport.resumeProducing()
        return text

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over, or cut off."""
        self._silence.cancel()
        self.over, self.is_whole = True, self.is_whole or bool(reason.check(ResponseDone))
        self.told()

    def end(self) -> None:
        """No more is to come, as its instance has ended, or it is late: but what is on its way."""
        self._ends = True
        if not (self.over or self._is_paused):
            self._expect_more()

    def _fell_silent(self) -> None:
        self.is_whole = self._ends
        self.hang_up()

    def hang_up(self) -> None:
        """Let no more of it come."""
        if not self.over:
            self.transport.loseConnection()

    def _expect_more(self) -> None:
        self._came = self.reactor.seconds()
        if self._ends:
            self._silence.after(ENDS_AFTER)
        elif not self.asked.follow:
            self._silence.after(SILENT_FOR)


@define(eq=False)
class Delivery(PushProducer):
    """Sends logs to a consumer by the times of their lines, no faster than it takes them."""

    logs: Sequence[Log] = field(kw_only=True)
    reactor: Any = field(kw_only=True)

    async def send(self) -> None:
        """Send all, to the end. Raises MachineAtFault."""
        waited = Timer(self.reactor, self.go_on)
        self.begin()
        try:
            while await self.free():
                if ready := self._ready():
                    self.consumer.write(ready)
                elif all(log.over for log in self.logs):
                    break
                else:
                    if any(log.frames for log in self.logs):
                        waited.after(KEEPS_WAITING)
                    await self.news()
        finally:
            waited.cancel()
            for log in self.logs:
                log.hang_up()
            self.finish()
        if not self.gone and not all(log.is_whole for log in self.logs):
            raise MachineAtFault("sending a log", "Docker did not send all of it")

    def end(self) -> None:
        """Send no more than what is on its way."""
        for log in self.logs:
            log.end()

    def _ready(self) -> bytes:
        """Some of what no log can have an older line than."""
        ready, length = list[bytes](), 0
        while length < LONGEST_WRITE and not any(log.keeps_waiting for log in self.logs):
            waiting = [log for log in self.logs if log.frames]
            if not waiting:
                break
            ready.append(min(waiting, key=lambda log: log.frames[0][0]).take())
            length += len(ready[-1])
        return b"".join(ready)


def choose(seen: Seen, asked: LogsAsked) -> list[Instance]:
    """The instances whose logs are wanted.

    Raises NoSuchInstance, Ambiguous, NotInSwarm, TooMany.
    """
    found, names = {one.name: one for one in instances(seen)}, known(seen)
    if asked.names is None:
        if asked.follow:
            raise NotInSwarm(
                "a swarm does not tell of later instances", "name those whose logs to follow"
            )
        return _few([*found.values()])
    look_up = match_all if asked.labelled else lambda *given: [match(*given)]
    chosen = dict.fromkeys(name for wanted in asked.names for name in look_up(wanted, names))
    return _few([found[name] for name in chosen])


def _few(chosen: list[Instance]) -> list[Instance]:
    if len(chosen) > MOST:
        raise TooMany(
            f"{len(chosen)} logs are asked for, and up to {MOST} are sent together",
            "name fewer instances",
        )
    return chosen


@frozen
class Sending:
    """How logs are sent."""

    docker: Docker
    asked: LogsAsked
    reactor: Any
    wait: Callable[[str], Coroutine[Any, Any, object]]  # returns when an instance has ended
    now: Callable[[], float]  # unix time

    async def send(
        self, chosen: Sequence[Instance], consumer: Any, begin_to_send: Callable[[], object]
    ) -> None:
        """Send what instances have written. Raises Unavailable, MachineAtFault.

        :param begin_to_send: is called before anything is sent
        """
        responses = await self._open(chosen)
        begin_to_send()
        delivery = Delivery(consumer, reactor=self.reactor, logs=list(map(self._log, chosen)))
        for response, log in zip(responses, delivery.logs, strict=True):
            log.told = delivery.go_on
            response.deliverBody(log)
        # Docker goes on to follow a service whose task has ended, and knows no `until`.
        ends = [begin(self._end(log)) for log in delivery.logs if self.asked.follow]
        for end in ends:
            end.addErrback(lambda _: None)  # then it is followed for longer
        at_last = Timer(self.reactor, delivery.end)
        if self.asked.follow and self.asked.wanted.until < FOREVER:
            at_last.after(max(0, self.asked.wanted.until / SECOND - self.now()))
        try:
            await delivery.send()
        finally:
            at_last.cancel()
            for end in ends:
                end.cancel()

    async def _open(self, chosen: Sequence[Instance]) -> list[Any]:
        responses = list[Any]()
        with ExitStack() as unread:
            for one in chosen:
                query = query_of(self.asked)
                opening = self.docker.open(one.log, doing="reading a log", **query)
                responses.append(await opening)
                unread.callback(drop, responses[-1])
            unread.pop_all()
        return responses

    def _log(self, instance: Instance) -> Log:
        cut = Lines() if instance.has_terminal else Frames()
        return Log(instance.name, self.asked, cut, self.reactor)

    async def _end(self, log: Log) -> None:
        await self.wait(log.name)
        log.end()
