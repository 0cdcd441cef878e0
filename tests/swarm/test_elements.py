"""Long lists of the Engine API, read as they come."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from tests.fakes import MachineTestCase
from txcontain.swarm.elements import LONGEST_ELEMENT, SILENT_FOR, WITHIN, Elements, read_list

TASKS = [{"ID": "ä]{", "Spec": {"Env": ['"', "}"]}, "Slot": 1}, {}, {"ID": "b", "Slot": 2}]


def name(element: Any) -> Any:
    """What is kept here."""
    return element.get("ID")


class ElementTests(SynchronousTestCase):
    """Pieces of a list."""

    def test_pieces(self) -> None:
        """Wherever a list is cut into pieces, its elements are the same, in their order."""
        for text in (json.dumps(TASKS), json.dumps(TASKS, ensure_ascii=False, indent=1) + "\n"):
            whole = text.encode()
            for size in range(1, len(whole) + 1):
                elements = Elements(name)
                for at in range(0, len(whole), size):
                    elements.received(whole[at : at + size])
                self.assertEqual(elements.end(), ["ä]{", None, "b"])

    def test_empty(self) -> None:
        """There may be no elements, or nothing at all."""
        for text in (b"[]", b"[ ]\n", b"null", b""):
            elements = Elements(name)
            elements.received(text)
            self.assertEqual(elements.end(), [])

    def test_no_list(self) -> None:
        """What is cut, or is no JSON, is no list."""
        for text in (b'[{"ID": "a"}', b'[{"ID": "a"}, {"ID"', b"<html>", b"[{]"):
            elements = Elements(name)
            elements.received(text)
            self.assertRaises(ValueError, elements.end)

    def test_too_long(self) -> None:
        """An element has a bound."""
        self.assertRaises(ValueError, Elements(name).received, b"{" * (LONGEST_ELEMENT + 1))


class Answer:
    """An answer whose body a test delivers."""

    code, length = 200, 1

    def deliverBody(self, protocol: Any) -> None:
        """Take note of who reads it."""
        self.protocol, self.transport = protocol, StringTransport()
        protocol.makeConnection(self.transport)


class ReadTests(MachineTestCase):
    """An answer that takes long."""

    def setUp(self) -> None:
        super().setUp()
        self.clock, self.answer = Clock(), Answer()
        self.read: Deferred[Any] = self.start(read_list(self.clock, self.answer, name))

    def test_long(self) -> None:
        """It may take longer than it may be silent."""
        for piece in (b"[", b'{"ID": "a"}', b"]"):
            self.clock.advance(SILENT_FOR - 0.1)
            self.answer.protocol.dataReceived(piece)
        self.assertNoResult(self.read)
        self.clock.advance(SILENT_FOR)
        self.failureResultOf(self.read)

    def test_silent(self) -> None:
        """If it stays away for some seconds no one waits any more: it is hung up on."""
        self.answer.protocol.dataReceived(b"[")
        self.clock.advance(SILENT_FOR)
        self.failureResultOf(self.read)
        self.assertTrue(self.answer.transport.disconnecting)
        self.answer.protocol.dataReceived(b'{"ID": "a"}')
        self.answer.protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_endless(self) -> None:
        """All of it has a bound, too."""
        for _ in range(int(WITHIN / SILENT_FOR) + 1):
            self.clock.advance(SILENT_FOR - 0.1)
            if not self.read.called:
                self.answer.protocol.dataReceived(b" ")
        self.failureResultOf(self.read)
        self.assertTrue(self.answer.transport.disconnecting)

    def test_how_it_ends(self) -> None:
        """What is no list is hung up on; one of unknown length has come, one cut off has not."""
        self.answer.protocol.dataReceived(b"{" * (LONGEST_ELEMENT + 1))
        self.failureResultOf(self.read, ValueError)
        self.assertTrue(self.answer.transport.disconnecting)
        for reason, kind in (
            (PotentialDataLoss(), None),
            (ResponseDone(), None),
            (ConnectionLost(), ConnectionLost),
        ):
            answer = Answer()
            read = self.start(read_list(self.clock, answer, name))
            answer.protocol.dataReceived(b"[]")
            answer.protocol.connectionLost(Failure(reason))
            if kind:
                self.failureResultOf(read, kind)
            else:
                self.assertEqual(self.successResultOf(read), [])
