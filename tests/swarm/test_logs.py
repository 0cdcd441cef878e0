"""Logs as a swarm tells them."""

from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed

from tests.fakes import Taker
from txcontain.engine.interface import LogsAsked
from txcontain.errors import InvalidData, MachineAtFault
from txcontain.logs.segments import Wanted
from txcontain.logs.times import read_moment
from txcontain.swarm.frames import LONGEST_FRAME, Frames, Lines
from txcontain.swarm.logs import SILENT_FOR, Delivery, query_of, shown

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
        ):
            self.assertEqual(shown(line, asked), said)
        self.assertEqual(shown(f"{EARLY} a\n".encode(), LogsAsked(["x"], until)), b"a\n")

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
    """A log on its way."""

    def setUp(self) -> None:
        self.clock, self.taker, self.docker = Clock(), Taker(), Transport()

    def deliver(self, **asked: Any) -> Delivery:
        """Begin."""
        delivery = Delivery(self.taker, asked=LogsAsked(["x"], **asked), reactor=self.clock)
        delivery.connected(self.docker)
        return delivery

    def test_whole(self) -> None:
        """What comes is passed on, no faster than it is taken."""
        delivery = self.deliver()
        delivery.received(frame("t a\n"))
        delivery.pauseProducing()
        delivery.resumeProducing()
        delivery.ended(Failure(ResponseDone()))
        self.successResultOf(delivery.over)
        self.assertEqual(self.taker.taken, b"a\n")
        self.assertEqual(self.docker.said, ["pauseProducing", "resumeProducing"])
        self.assertIsNone(self.taker.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cut_off(self) -> None:
        """A log that is not whole does not pass for one: it is cut, silent or no log."""
        for spoil in (
            lambda delivery: None,
            lambda delivery: self.clock.advance(SILENT_FOR),
            lambda delivery: delivery.received(b"\1\0\0\0\xff\xff\xff\xff"),
        ):
            delivery = self.deliver()
            spoil(delivery)
            delivery.ended(Failure(ResponseFailed([])))
            self.failureResultOf(delivery.over, MachineAtFault)
        self.assertEqual(self.docker.said, ["loseConnection"] * 2)

    def test_following(self) -> None:
        """A log that is followed may be silent for long."""
        self.deliver(follow=True)
        self.clock.advance(1e6)
        self.assertEqual(self.docker.said, [])

    def test_gone(self) -> None:
        """If the client hangs up, so do we."""
        self.deliver().stopProducing()
        self.assertEqual(self.docker.said, ["loseConnection"])
