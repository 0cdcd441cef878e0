"""Named pipes, with a real reactor's calls made by hand."""

import os
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.fakes import MachineTestCase, Taker
from txcontain.runtime.pipes import Into, OutOf


class Reactor:
    """Knows who wants to read and to write."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard


class PipeTests(MachineTestCase):
    """Both directions."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.folder, "pipe")
        self.io, self.taker, self.took = Reactor(), Taker(), list[int]()

    def out_of(self) -> tuple[OutOf, Any]:
        """A pipe out of a program, that delivers, and when it has."""
        pipe = OutOf(self.io, self.path)
        self.addCleanup(pipe.close)
        return pipe, pipe.deliver(self.taker, self.took.append)

    def test_out_of(self) -> None:
        """What a program writes goes to the consumer, until the program closes its end."""
        pipe, delivered = self.out_of()
        with open(self.path, "wb", buffering=0) as program:
            program.write(b"hello")
            self.assertIsNone(pipe.doRead())
        self.assertEqual(pipe.doRead(), main.CONNECTION_DONE)
        self.assertEqual((self.taker.taken, self.took), (b"hello", [5]))
        self.assertNoResult(delivered)
        pipe.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.successResultOf(delivered))
        self.assertEqual((pipe.fileno(), self.taker.producer), (-1, None))

    def test_held_up(self) -> None:
        """Nothing is read while the consumer has enough."""
        pipe, _ = self.out_of()
        self.assertEqual(self.io.readers, {pipe})
        pipe.pauseProducing()
        self.assertEqual(self.io.readers, set())
        pipe.resumeProducing()
        self.assertEqual(self.io.readers, {pipe})

    def test_unwanted(self) -> None:
        """If the consumer goes, that was not everything."""
        pipe, delivered = self.out_of()
        pipe.stopProducing()
        self.assertFalse(self.successResultOf(delivered))
        pipe.resumeProducing()
        pipe.close()
        self.assertEqual((self.io.readers, pipe.fileno()), (set(), -1))

    def test_into(self) -> None:
        """What is written reaches the program, which sees the end when that is closed."""
        pipe = Into(self.io, self.path)
        self.addCleanup(pipe.close)
        pipe.write(b"hello")
        program = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, program)
        self.assertIsNone(pipe.doWrite())
        self.assertEqual(os.read(program, 100), b"hello")
        pipe.loseConnection()
        reason = pipe.doWrite()
        self.assertEqual(reason, main.CONNECTION_DONE)
        pipe.connectionLost(Failure(reason))
        self.assertEqual(os.read(program, 100), b"")
