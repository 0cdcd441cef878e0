"""Long answers, sent no faster than the client takes them."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.fakes import FakeConsumer
from txcontain.logs.push import PushProducer


class StreamTests(SynchronousTestCase):
    """The sender waits for the consumer."""

    def setUp(self) -> None:
        self.consumer = FakeConsumer()
        self.stream = PushProducer(self.consumer)
        self.stream.begin()

    def free(self) -> Any:
        """Begin to wait until the consumer takes more."""
        return Deferred.fromCoroutine(self.stream.free())

    def test_interface(self) -> None:
        """It is a push producer, as transports expect."""
        verifyObject(IPushProducer, self.stream)
        self.assertIs(self.consumer.producer, self.stream)

    def test_free(self) -> None:
        """A consumer that is not paused takes more at once."""
        self.assertTrue(self.successResultOf(self.free()))

    def test_paused(self) -> None:
        """A paused sender waits until it is resumed, however often either is called."""
        self.stream.pauseProducing()
        self.stream.pauseProducing()
        waiting = self.free()
        self.assertNoResult(waiting)
        self.stream.resumeProducing()
        self.stream.resumeProducing()
        self.assertTrue(self.successResultOf(waiting))

    def test_gone(self) -> None:
        """When the consumer is gone, the wait ends and nothing more is sent."""
        self.stream.pauseProducing()
        waiting = self.free()
        self.stream.stopProducing()
        self.assertFalse(self.successResultOf(waiting))
        self.assertFalse(self.successResultOf(self.free()))

    def test_finish(self) -> None:
        """The producer is unregistered once: at the end, or when the consumer is gone."""
        self.stream.finish()
        self.assertIsNone(self.consumer.producer)
        self.stream.begin()
        self.stream.stopProducing()
        self.assertIsNone(self.consumer.producer)
        self.consumer.producer = "another"
        self.stream.finish()
        self.assertEqual(self.consumer.producer, "another")
