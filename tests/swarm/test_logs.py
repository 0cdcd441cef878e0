"""Logs as a swarm tells them."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed

from tests.fakes import Taker
from txcontain.engine.interface import LogsAsked
from txcontain.errors import InvalidData, MachineAtFault
from txcontain.logs.segments import Wanted
from txcontain.logs.times import SECOND, read_moment
from txcontain.swarm.frames import LONGEST_FRAME, Frames, Lines
from txcontain.swarm.logs import (
    ENDS_AFTER,
    KEEPS_WAITING,
    MOST_HELD,
    SILENT_FOR,
    Delivery,
    Log,
    Sending,
    in_time,
    query_of,
    read_frame,
)
from txcontain.swarm.records import Instance

EARLY, LATE = "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:02Z"


def frame(text: str, stream: int = 1) -> bytes:
    """What Docker sends of a line."""
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text.encode()


class FrameTests(SynchronousTestCase):
    """What comes, in pieces."""

    def test_pieces(self) -> None:
        """Frames are found however what comes is cut, and only whole ones."""
        whole = frame("t one\n") + frame("") + frame("t two\n", 2)
        for size in (1, 3, len(whole)):
            frames = Frames()
            pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
            found = [one for piece in pieces for one in frames.feed(piece)]
            self.assertEqual(found, [(1, b"t one\n"), (1, b""), (2, b"t two\n")])

    def test_lines(self) -> None:
        """So are lines, where there are no frames; one without an end is not waited for."""
        lines = Lines()
        found = [one for piece in (b"t on", b"e\nt two\nt", b" x") for one in lines.feed(piece)]
        self.assertEqual(found, [(1, b"t one\n"), (1, b"t two\n")])
        self.assertRaises(InvalidData, list, lines.feed(b"x" * LONGEST_FRAME))

    def test_too_long(self) -> None:
        """What is no frame is not waited for."""
        head = b"\1\0\0\0" + LONGEST_FRAME.to_bytes(4, "big")
        self.assertRaises(InvalidData, list, Frames().feed(head))

    def test_shown(self) -> None:
        """Lines have their times if that is asked for, and end with the last that is wanted."""
        line = f"{LATE} a b\n".encode()
        until = Wanted(until=read_moment("until", EARLY))
        for asked, said in (
            (LogsAsked(["x"]), b"a b\n"),
            (LogsAsked(["x"], timestamps=True), line),
            (LogsAsked(["x"], until), b""),
            (LogsAsked(["x"], labelled=True), b"x | a b\n"),
            (LogsAsked(["x"], labelled=True, timestamps=True), b"x | " + line),
        ):
            self.assertEqual(read_frame(line, asked, "x"), (LATE.encode(), said))
        self.assertEqual(
            read_frame(f"{EARLY} a\n".encode(), LogsAsked(["x"], until), "x")[1], b"a\n"
        )
        self.assertEqual(read_frame(b"t a", LogsAsked(["x"], labelled=True), "x")[1], b"x | a\n")

    def test_query(self) -> None:
        """Docker is asked for no more than what is wanted, as far as it can tell."""
        since = read_moment("since", EARLY)
        asked = LogsAsked(["x"], Wanted(frozenset([1]), since), tail=3, follow=True)
        self.assertEqual(
            query_of(asked),
            {
                "stdout": "false",
                "stderr": "true",
                "follow": "true",
                "timestamps": "true",
                "tail": "3",
                "since": "1767225600.500000000",
            },
        )


class Transport:
    """The connection to Docker."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.said.append(name)


class DeliveryTests(SynchronousTestCase):
    """Logs on their way."""

    def setUp(self) -> None:
        self.clock, self.taker = Clock(), Taker()

    def deliver(self, *names: str, **asked: Any) -> list[Log]:
        """Begin."""
        wanted = LogsAsked(names, labelled=len(names) > 1, **asked)
        logs = [Log(name, wanted, Frames(), self.clock) for name in names]
        delivery = Delivery(self.taker, logs=logs, reactor=self.clock)
        for log in logs:
            log.told = delivery.go_on
            log.makeConnection(Transport())
        self.sent = Deferred.fromCoroutine(delivery.send())
        return logs

    def end(self, *logs: Log) -> None:
        """Have these end as they should, which then is all."""
        for log in logs:
            log.connectionLost(Failure(ResponseDone()))
        self.successResultOf(self.sent)
        self.assertIsNone(self.taker.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whole(self) -> None:
        """What comes is passed on, no faster than it is taken."""
        (log,) = self.deliver("x")
        log.dataReceived(frame("t a\n"))
        self.assertEqual(self.taker.taken, b"a\n")
        self.taker.producer.pauseProducing()
        lines = MOST_HELD // 1000 + 1
        for _ in range(lines):
            log.dataReceived(frame("t " + "b" * 1000))
        self.assertEqual(log.transport.said, ["pauseProducing"])
        self.clock.advance(SILENT_FOR)
        self.assertEqual(self.taker.taken, b"a\n")
        self.taker.producer.resumeProducing()
        self.assertEqual(self.taker.taken, b"a\n" + b"b" * 1000 * lines)
        self.assertEqual(log.transport.said, ["pauseProducing", "resumeProducing"])
        self.end(log)

    def test_too_late(self) -> None:
        """What is too late is not kept, either, while the client takes nothing."""
        (log,) = self.deliver("x", wanted=Wanted(until=read_moment("until", EARLY)))
        self.taker.producer.pauseProducing()
        log.dataReceived(frame(f"{EARLY} a\n") + frame(f"{LATE} b\n"))
        self.assertEqual(len(log.frames), 1)
        self.taker.producer.resumeProducing()
        self.end(log)
        self.assertEqual(self.taker.taken, b"a\n")

    def test_cut_off(self) -> None:
        """A log that is not whole does not pass for one: it is cut, silent or no log."""
        for spoil, said in (
            (lambda log: None, []),
            (lambda log: self.clock.advance(SILENT_FOR), ["loseConnection"]),
            (lambda log: log.dataReceived(b"\1\0\0\0\xff\xff\xff\xff"), ["loseConnection"]),
        ):
            (log,) = self.deliver("x")
            spoil(log)
            log.connectionLost(Failure(ResponseFailed([])))
            self.failureResultOf(self.sent, MachineAtFault)
            self.assertEqual(log.transport.said, said)

    def test_following(self) -> None:
        """A log that is followed may be silent for long."""
        (log,) = self.deliver("x", follow=True)
        self.clock.advance(1e6)
        self.assertEqual(log.transport.said, [])

    def test_ended(self) -> None:
        """A log that is followed is over soon after its instance, with what is on its way."""
        (log,) = self.deliver("x", follow=True)
        log.end()
        self.clock.advance(ENDS_AFTER - 0.1)
        log.dataReceived(frame("t a\n"))
        self.clock.advance(ENDS_AFTER - 0.1)
        self.assertEqual(log.transport.said, [])
        self.clock.advance(0.1)
        self.assertEqual(log.transport.said, ["loseConnection"])
        log.connectionLost(Failure(ResponseFailed([])))
        self.successResultOf(self.sent)
        self.assertEqual(self.taker.taken, b"a\n")

    def test_late(self) -> None:
        """At the time with which it is to end, what is later keeps it no longer."""
        (log,) = self.deliver("x", follow=True, wanted=Wanted(until=read_moment("until", EARLY)))
        log.end()
        for _ in range(2):
            log.dataReceived(frame(f"{EARLY} a\n") + frame(f"{LATE} b\n"))
            log.dataReceived(frame(f"{LATE} b\n")[:-2])
            self.clock.advance(ENDS_AFTER - 0.1)
            log.dataReceived(b"b\n")
        self.assertEqual(log.transport.said, [])
        self.clock.advance(0.1)
        self.assertEqual(log.transport.said, ["loseConnection"])
        log.connectionLost(Failure(ResponseFailed([])))
        self.successResultOf(self.sent)
        self.assertEqual(self.taker.taken, b"a\na\n")

    def test_gone(self) -> None:
        """If the client hangs up, so do we."""
        (log,) = self.deliver("x")
        self.taker.producer.stopProducing()
        self.assertEqual(log.transport.said, ["loseConnection"])
        self.successResultOf(self.sent)

    def test_merged(self) -> None:
        """Lines of several logs are sent by their times, each with its instance."""
        one, other = self.deliver("x", "y")
        one.dataReceived(frame("1 a\n") + frame("4 b\n"))
        self.assertEqual(self.taker.taken, b"")
        other.dataReceived(frame("2 c\n") + frame("3 d\n"))
        self.assertEqual(self.taker.taken, b"x | a\ny | c\ny | d\n")
        other.connectionLost(Failure(ResponseDone()))
        self.assertEqual(self.taker.taken, b"x | a\ny | c\ny | d\nx | b\n")
        self.end(one)

    def test_followed_together(self) -> None:
        """Of logs that are followed, a quiet one does not keep the others waiting for long."""
        one, other = self.deliver("x", "y", follow=True)
        one.dataReceived(frame("2 a\n"))
        self.assertEqual(self.taker.taken, b"")
        other.dataReceived(frame("1 b\n"))
        self.assertEqual(self.taker.taken, b"y | b\n")
        self.clock.advance(KEEPS_WAITING)
        self.assertEqual(self.taker.taken, b"y | b\nx | a\n")
        one.dataReceived(frame("3 c\n"))
        self.assertEqual(self.taker.taken, b"y | b\nx | a\nx | c\n")
        self.end(one, other)


class Open:
    """An answer of Docker's whose body has no end, and who asks for it."""

    body: Log

    async def open(self, *_: Any, **__: Any) -> Any:
        """Ask."""
        return self

    def deliverBody(self, body: Log) -> None:
        """Begin."""
        self.body = body
        body.makeConnection(Transport())


class UntilTests(SynchronousTestCase):
    """Logs that are followed until a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)

    def follow(self, docker: Any, until: float) -> Any:
        """Follow the log of an instance that does not end."""
        asked = in_time(LogsAsked(["x"], Wanted(until=int(until * SECOND)), follow=True), 1000)

        async def never(name: str) -> None:
            await Deferred()

        sending = Sending(docker, asked, self.clock, never, self.clock.seconds)
        service = {"ID": "s", "Spec": {"TaskTemplate": {"ContainerSpec": {}}}}
        instance = Instance({"instance": "x"}, service, [])
        return Deferred.fromCoroutine(sending.send([instance], Taker(), int))

    def test_ends(self) -> None:
        """They end soon after it."""
        docker = Open()
        sent = self.follow(docker, 1060)
        self.clock.advance(60)
        self.clock.advance(ENDS_AFTER - 0.1)
        said = docker.body.transport.said
        self.assertEqual(said, [])
        self.clock.advance(0.1)
        self.assertEqual(said, ["loseConnection"])
        docker.body.connectionLost(Failure(ResponseFailed([])))
        self.successResultOf(sent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone_before(self) -> None:
        """If they end before, nothing is left to be done then."""
        docker = Open()
        sent = self.follow(docker, 1060)
        docker.body.connectionLost(Failure(ResponseDone()))
        self.successResultOf(sent)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_over(self) -> None:
        """If that is over, nothing is followed: Docker says itself when that is all."""
        for until, follow in ((999.0, False), (1001.0, True)):
            asked = LogsAsked(["x"], Wanted(until=int(until * SECOND)), follow=True)
            self.assertEqual(in_time(asked, 1000).follow, follow)
