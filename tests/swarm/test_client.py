"""What is asked of a swarm's managers, whichever of them answers."""

from operator import itemgetter
from typing import Any

from twisted.internet.defer import CancelledError, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import MachineTestCase
from tests.swarm.docker import FakeDocker, docker_of
from tests.swarm.test_elements import Answer
from txcontain.errors import MachineAtFault, Unavailable
from txcontain.swarm import client
from txcontain.swarm.client import (
    ANSWER_WITHIN,
    NoAnswer,
    Refused,
    choose_version,
    message,
    read,
    why,
)

TASKS = ["GET /version", "GET /tasks"]


class AskingTests(MachineTestCase):
    """Two managers."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.other = FakeDocker(), FakeDocker()
        self.clock = Clock()
        self.docker = docker_of(self.clock, self.one, self.other)

    def ask(self, path: str = "/tasks") -> Any:
        """Begin to ask."""
        return self.start(self.docker.ask("GET", path, doing="asking"))

    def test_one_of_them(self) -> None:
        """The first is asked, its version once, and the other is not."""
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.ask()), [])
        self.assertEqual((self.one.asked, self.other.asked), ([*TASKS, "GET /tasks"], []))

    def test_list(self) -> None:
        """Of a list there is what is kept of each element; one that is none is told as such."""
        self.one.log = b"<html>"
        self.one.tasks = [{"ServiceID": name, "Slot": 1} for name in ("a", "b")]
        for path, expected in (("/tasks", ["a", "b"]), ("/services/x/logs", None)):
            keep = itemgetter("ServiceID")
            listed = self.start(self.docker.list(path, keep, doing="asking", filters={}))
            if expected:
                self.assertEqual(self.successResultOf(listed), expected)
            else:
                error = self.failureResultOf(listed, Unavailable).value
                self.assertEqual(str(error), "asking → a list is cut, or none → try again")

    def test_rest_of_a_list(self) -> None:
        """If the rest of a list does not come, that is said."""
        self.patch(client, "read_list", lambda *_: fail(CancelledError()))
        listed = self.start(self.docker.list("/tasks", dict, doing="asking"))
        error = self.failureResultOf(listed, Unavailable).value
        self.assertEqual(str(error), "asking → the rest of a list does not come → try again")

    def test_silent(self) -> None:
        """One that does not answer in time is passed over, and from then on comes last."""
        self.one.is_silent = True
        asked = self.ask()
        self.assertNoResult(asked)
        self.clock.advance(ANSWER_WITHIN / 2)
        self.assertEqual(self.successResultOf(asked), [])
        self.assertEqual(self.successResultOf(self.ask()), [])
        self.assertEqual(self.one.asked, ["GET /version"])

    def test_half_an_answer(self) -> None:
        """One whose answer does not end in time is hung up on, and passed over."""
        answer = Answer()
        self.patch(self.docker.managers[0].http, "request", lambda *_, **__: succeed(answer))
        asked = self.ask()
        answer.protocol.dataReceived(b"{")
        self.assertFalse(answer.transport.disconnecting)
        self.clock.advance(ANSWER_WITHIN / 2)
        self.assertTrue(answer.transport.disconnecting)
        self.assertEqual(self.successResultOf(asked), [])

    def test_read(self) -> None:
        """What is no document is read up to a bound; one that is longer is no fault of Docker's."""
        self.one.log = b"four"

        def reading(longest: int = 4) -> Any:
            return self.start(self.docker.read("/services/x/logs", longest, doing="reading"))

        self.assertEqual(self.successResultOf(reading()), b"four")
        error = self.failureResultOf(reading(3), Refused).value
        self.assertIn("its answer is longer than 3 bytes", str(error))
        self.assertIsNotNone(self.docker.managers[0].version)
        for lost in (False, True):
            answer = Answer()
            self.patch(
                self.docker.managers[0].http, "request", lambda *_, a=answer, **__: succeed(a)
            )
            asked = reading()
            if lost:
                answer.protocol.connectionLost(Failure(ConnectionLost("cut")))
            else:
                self.clock.advance(ANSWER_WITHIN)
            error = self.failureResultOf(asked, Unavailable).value
            self.assertIn("cut" if lost else "the rest of an answer does not come", str(error))

    def test_worker(self) -> None:
        """A worker is asked for nothing of the swarm, once it has said that it is one."""
        said = "This node is not a swarm manager. Worker nodes can't be used to view state."
        self.one.refusals["GET /tasks"] = 503, said
        for _ in range(2):
            self.assertEqual(self.successResultOf(self.ask()), [])
        self.assertEqual(self.one.asked, TASKS)
        self.other.refusals["GET /tasks"] = 503, "The swarm does not have a leader."
        error = self.failureResultOf(self.ask(), Unavailable).value
        self.assertNotIn("not a swarm manager", str(error))
        self.other.refusals["GET /tasks"] = 503, said
        self.failureResultOf(self.ask(), Unavailable)
        self.one.refusals.clear()  # it was promoted
        self.assertEqual(self.successResultOf(self.ask()), [])

    def test_without_a_leader(self) -> None:
        """If no manager can do it, what each says is told, and that it may soon work."""
        for fake in (self.one, self.other):
            fake.refusals["GET /tasks"] = 503, "The swarm does not have a leader."
        error = self.failureResultOf(self.ask(), Unavailable).value
        self.assertEqual(str(error).count("The swarm does not have a leader."), 2)

    def test_gap(self) -> None:
        """What a manager without a leader answers is asked of another, whatever its status."""
        lead, code = "The swarm does not have a leader.", "rpc error: code = Unavailable desc = x"
        for status, said in ((500, f"rpc error: code = Unknown desc = {lead}"), (500, code)):
            self.one.refusals["GET /tasks"] = status, said
            self.assertEqual(self.successResultOf(self.ask()), [])
            self.docker.managers.reverse()
        self.other.refusals["GET /tasks"] = 400, lead
        self.docker.managers.reverse()
        self.failureResultOf(self.ask(), Refused)

    def test_refused(self) -> None:
        """What one manager refuses is asked of no other."""
        error = self.failureResultOf(self.ask("/nothing"), Refused).value
        self.assertEqual((error.status, self.other.asked), (404, []))
        self.assertEqual(str(error), "asking → Docker says: page not found")


class AnswerTests(SynchronousTestCase):
    """What managers answer."""

    def test_versions(self) -> None:
        """The oldest version that fits both is spoken; if there is none, both ranges are named."""
        for newest, oldest, chosen in (("1.41", "1.12", (1, 41)), ("1.52", "1.44", (1, 44))):
            body = f'{{"ApiVersion": "{newest}", "MinAPIVersion": "{oldest}"}}'.encode()
            self.assertEqual(choose_version("unix:/x", 200, body), chosen)
        for body, words in (
            (b'{"ApiVersion": "1.40", "MinAPIVersion": "1.12"}', "versions 1.12 to 1.40"),
            (b'{"ApiVersion": "1.99", "MinAPIVersion": "1.90"}', "from 1.41 to 1.51"),
            (b'{"ApiVersion": "x"}', "unix:/x is no Docker: it answers 200"),
            (b"<html>", "no Docker"),
        ):
            error = self.assertRaises(NoAnswer, choose_version, "unix:/x", 200, body)
            self.assertIn(words, str(error))

    def test_no_json(self) -> None:
        """An answer that is no document is an error, an empty one is none."""
        self.assertEqual((read("asking", b"\n"), read("asking", b"[]")), (None, []))
        error = self.assertRaises(MachineAtFault, read, "asking", b"<html>")
        self.assertEqual(str(error), "asking → the answer of Docker is no JSON")

    def test_messages(self) -> None:
        """What Docker says is one line, whatever it holds; and it need not say anything."""
        for body, said in (
            (b'{"message": "a\\nb"}', "a\\nb"),
            (b"{}", "it does not say why"),
            (b"no JSON", "it does not say why"),
        ):
            self.assertEqual(message(body), said)

    def test_why(self) -> None:
        """An error without words is told by its name."""
        self.assertEqual((why(OSError()), why(ValueError("so"))), ("OSError", "so"))
