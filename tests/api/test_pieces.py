"""Answers that are sent piece by piece."""

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import Taker
from txcontain.api.pieces import TAKE_WITHIN, send_pieces


class FakeRequest(Taker):
    """A request whose client may take nothing."""

    aborted = False
    is_slow = False  # whether it takes one piece, and then none for a while

    def write(self, data: bytes) -> None:
        """Take a piece."""
        super().write(data)
        if self.is_slow:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        """Hang up, which the producer is told of."""
        self.aborted = True
        self.producer.stopProducing()


class PiecesTests(SynchronousTestCase):
    """Three pieces for a client."""

    def setUp(self) -> None:
        self.clock, self.request, self.made = Clock(), FakeRequest(), 0
        sending = send_pieces(self.clock, self.request, self.pieces())
        self.sent = Deferred.fromCoroutine(sending)

    def pieces(self) -> Iterator[bytes]:
        """Each is made when it is wanted."""
        for number in range(3):
            self.made += 1
            yield b"%d" % number

    def test_all(self) -> None:
        """Others have a turn after each piece; in the end nothing is left."""
        self.assertEqual((self.made, self.request.taken), (1, b"0"))
        self.clock.advance(0)
        self.successResultOf(self.sent)
        self.assertEqual((self.request.taken, self.request.producer), (b"012", None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """A client that takes a piece now and then gets all, and none is made in advance."""
        self.request.is_slow = True
        self.request.producer.pauseProducing()
        for taken in (b"0", b"01"):
            self.clock.advance(0)
            self.clock.advance(TAKE_WITHIN - 1)
            self.assertEqual((self.request.taken, self.made), (taken, len(taken) + 1))
            self.request.producer.resumeProducing()
        self.clock.advance(0)
        self.successResultOf(self.sent)
        self.assertEqual((self.request.taken, self.request.aborted), (b"012", False))

    def test_takes_nothing(self) -> None:
        """One that takes nothing for long is given up, and nothing is kept for it."""
        self.request.producer.pauseProducing()
        self.clock.advance(0)
        self.clock.advance(TAKE_WITHIN)
        self.successResultOf(self.sent)
        self.assertTrue(self.request.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """For one who hangs up no more is made."""
        self.request.producer.stopProducing()
        self.clock.advance(0)
        self.successResultOf(self.sent)
        self.assertEqual(self.request.taken, b"0")
        self.assertEqual(self.clock.getDelayedCalls(), [])
