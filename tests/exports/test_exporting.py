"""How an image is sent: no faster than its client takes it, and not without end."""

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from tests.fakes import ManagerTestCase, Taker
from txcontain.errors import CalledOff
from txcontain.exports.compose import to_compose
from txcontain.exports.exporting import exporter_of
from txcontain.images.oci_writing import BATCH
from txcontain.images.packing import LEAST_WITHIN


class Consumer(Taker):
    """A client that takes one batch, and then no more until it is told to."""

    def write(self, data: bytes) -> None:
        """Something comes."""
        super().write(data)
        if len(self.taken) == BATCH:
            self.producer.pauseProducing()


class DeliveryTests(ManagerTestCase):
    """An archive on its way."""

    def setUp(self) -> None:
        super().setUp()
        self.closed = False

    def pieces(self) -> Iterator[bytes]:
        """Three batches."""
        try:
            for number in range(3):
                yield bytes([number]) * BATCH
        finally:
            self.closed = True

    def deliver(self, consumer: Consumer) -> Deferred[None]:
        """Begin to send them."""
        work = exporter_of(self.manager)._deliver("exporting x", self.pieces(), consumer)
        return self.start(work)

    def test_one(self) -> None:
        """Whoever exports shares the manager's turns, and what it knows of layers."""
        self.assertIs(exporter_of(self.manager), exporter_of(self.manager))

    def test_document(self) -> None:
        """A thread writes a document: what a config's files hold can make it long."""
        spec, work = self.add(), []

        def in_thread(function: Any, *arguments: Any) -> Deferred[Any]:
            work.append(function)
            return maybeDeferred(function, *arguments)

        self.manager.threads = in_thread
        exporter = exporter_of(self.manager)
        told = self.successResultOf(self.start(exporter.document(spec.file_name, "compose", None)))
        self.assertIn("services:", told.text)
        self.assertIn(to_compose, work)

    def test_all(self) -> None:
        """A client that pauses gets everything, in order."""
        consumer = Consumer()
        delivered = self.deliver(consumer)
        self.assertNoResult(delivered)
        self.assertEqual(len(consumer.taken), BATCH)
        consumer.producer.resumeProducing()
        self.successResultOf(delivered)
        self.assertEqual([*consumer.taken[::BATCH]], [0, 1, 2])
        self.assertIsNone(consumer.producer)
        self.assertTrue(self.closed)

    def test_too_slow(self) -> None:
        """A client that takes nothing any more is given up, and others get its turn."""
        consumer = Consumer()
        delivered = self.deliver(consumer)
        self.reactor.advance(LEAST_WITHIN)
        error = self.failureResultOf(delivered, CalledOff).value
        self.assertIn("took less than 1 MiB in 60 seconds", str(error))

    def test_gone(self) -> None:
        """If a client hangs up, nothing more is read."""
        consumer = Consumer()
        delivered = self.deliver(consumer)
        consumer.producer.stopProducing()
        error = self.failureResultOf(delivered, CalledOff).value
        self.assertIn("the client hung up", str(error))
        self.assertEqual(len(consumer.taken), BATCH)
