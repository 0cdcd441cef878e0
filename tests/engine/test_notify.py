"""Who is told what should not have happened."""

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import ManagerTestCase, Taker
from txcontain.engine.couriers import Command, HangUp, NotTaken, Run, Webhook, Whole
from txcontain.engine.notify import (
    DELIVER_WITHIN,
    LOOK_AT_DISK,
    MOST_WAITING,
    TRIES,
    Notifier,
    Outbox,
)


class FakeCourier:
    """Takes what it is told, or answers as a test says."""

    name = "a courier"

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.answers: list[Deferred[None]] = []  # to the next ones

    def deliver(self, document: bytes) -> Deferred[None]:
        """Take note of it."""
        self.taken.append(json.loads(document))
        return self.answers.pop(0) if self.answers else succeed(None)


class OutboxTests(SynchronousTestCase):
    """The queue of a courier."""

    def setUp(self) -> None:
        self.clock, self.courier = Clock(), FakeCourier()
        self.outbox = Outbox(self.clock, self.courier)

    def put(self, *numbers: int) -> None:
        """Notifications are to be delivered."""
        for number in numbers:
            self.outbox.put({"number": number})

    def numbers(self) -> list[int]:
        """Those that were brought to the courier."""
        return [one["number"] for one in self.courier.taken]

    def test_in_order(self) -> None:
        """Each is delivered once, and only when the one before is taken."""
        first: Deferred[None] = Deferred()
        self.courier.answers = [first]
        self.put(1, 2, 3)
        self.assertEqual(self.numbers(), [1])
        first.callback(None)
        self.assertEqual(self.numbers(), [1, 2, 3])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again(self) -> None:
        """What is not taken is tried again, later and later, then given up and counted."""
        self.courier.answers = [fail(NotTaken("no")) for _ in range(TRIES)]
        self.put(1, 2)
        for wait in (1, 2, 4, 8, 16):
            self.clock.advance(wait - 0.1)
            before = len(self.courier.taken)
            self.clock.advance(0.1)
            self.assertEqual(len(self.courier.taken) - before, 1 if wait < 16 else 2)
        self.assertEqual(self.numbers(), [1] * TRIES + [2])
        self.assertEqual([one["lost"] for one in self.courier.taken], [0] * TRIES + [1])
        self.put(3)
        self.assertEqual(self.courier.taken[-1]["lost"], 0)

    def test_hangs(self) -> None:
        """One who does not answer is given up after a while."""
        self.courier.answers = [Deferred()]
        self.put(1)
        self.clock.advance(DELIVER_WITHIN)
        self.clock.advance(1)
        self.assertEqual(self.numbers(), [1, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        """If too many wait, the oldest are lost, and it is told how many."""
        first: Deferred[None] = Deferred()
        self.courier.answers = [first]
        self.put(*range(MOST_WAITING + 6))
        first.callback(None)
        self.assertEqual(self.numbers(), [0, *range(6, MOST_WAITING + 6)])
        self.assertEqual([one["lost"] for one in self.courier.taken[:3]], [0, 0, 0])

    def test_stopped(self) -> None:
        """When the manager ends nothing is left, whatever was being waited for."""
        for answer in (Deferred(), fail(NotTaken("no"))):
            self.courier.answers = [answer]
            outbox = Outbox(self.clock, self.courier)
            outbox.put({"number": 1})
            outbox.put({"number": 2})
            before = len(self.courier.taken)
            outbox.stop()
            self.clock.advance(100)
            self.assertEqual(len(self.courier.taken), before)
            self.assertEqual(self.clock.getDelayedCalls(), [])


class NotifierTests(ManagerTestCase):
    """What is told."""

    def setUp(self) -> None:
        super().setUp()
        self.courier, self.part = FakeCourier(), 0.5
        outbox = Outbox(self.reactor, self.courier)
        self.notifier = Notifier(self.manager, [outbox], lambda folder: self.part)
        self.notifier.start()
        self.reactor.advance(0)

    def kinds(self) -> list[str]:
        """The kinds of what was told."""
        return [one["kind"] for one in self.courier.taken]

    def end(self, words: str, **changes: Any) -> Any:
        """Launch an instance that ends so."""
        instance = self.launch(**changes)
        self.init.end(words)
        self.reactor.advance(0)
        return instance

    def test_failure(self) -> None:
        """An end with a failure is told, with all that says which instance it is."""
        instance = self.end("Done(3)")
        (told,) = self.courier.taken
        self.assertEqual(
            {key: told[key] for key in ("kind", "instance", "name", "major", "reason", "lost")},
            {
                "kind": "failure",
                "instance": instance.name,
                "name": "web",
                "major": "1",
                "reason": "exit status 3",
                "lost": 0,
            },
        )
        self.assertIn(f"{instance.name} failure: exit status 3", told["text"])

    def test_no_failure(self) -> None:
        """An end with success, or one that someone asked for, is not told."""
        self.end("Done")
        instance = self.launch(minor="02")
        self.start(self.manager.destroy(instance.name))
        self.reactor.advance(100)
        self.assertEqual(self.kinds(), [])

    def test_events(self) -> None:
        """An instance that becomes unhealthy is told, and an update that was rolled back."""
        name = self.launch().name
        self.manager.journal.add("unhealthy", "it answered 500", instance=name)
        self.manager.journal.add("rolled back", "its instances ended")
        self.manager.journal.write()
        self.assertEqual(self.kinds(), ["unhealthy", "rolled_back"])
        self.assertEqual([one["instance"] for one in self.courier.taken], [name, None])

    def test_disk(self) -> None:
        """A disk that becomes nearly full is told once, and again when it had room meanwhile."""
        for part, told in ((0.05, 1), (0.05, 1), (0.11, 1), (0.09, 1), (0.13, 1), (0.09, 2)):
            self.part = part
            self.reactor.advance(LOOK_AT_DISK)
            self.assertEqual(self.kinds(), ["disk_nearly_full"] * told, part)

    def test_stopped(self) -> None:
        """After the manager has stopped nothing is told, and no timer is left."""
        self.notifier.stop()
        self.end("Done(3)")
        self.manager.history.stop()
        self.assertEqual(self.manager.journal._listeners, [])


class FakeAgent:
    """Answers with a status, and an endless body."""

    def __init__(self, code: int) -> None:
        self.code, self.sent = code, Taker()
        self.transport = StringTransport()

    def request(self, method: bytes, url: bytes, headers: Any, body: Any) -> Deferred[Any]:
        """Take the request."""
        self.asked = method, url, dict(headers.getAllRawHeaders())
        body.startProducing(self.sent)
        return succeed(self)

    def deliverBody(self, protocol: HangUp) -> None:
        """Begin with the body."""
        protocol.makeConnection(self.transport)


class WebhookTests(SynchronousTestCase):
    """A URL."""

    def test_taken(self) -> None:
        """It is POSTed; the body of the answer is not read."""
        agent = FakeAgent(204)
        delivered = Webhook(None, "http://a/b?c", agent).deliver(b"{}\n")
        self.assertIsNone(self.successResultOf(delivered))
        self.assertEqual(agent.asked[:2], (b"POST", b"http://a/b?c"))
        self.assertEqual(agent.asked[2][b"Content-Type"], [b"application/json"])
        self.assertEqual(agent.sent.taken, b"{}\n")
        self.assertTrue(agent.transport.disconnecting)

    def test_not_taken(self) -> None:
        """Any other status is a failure, also a redirect, and its body is not read either."""
        for code in (199, 301, 307, 404, 500):
            agent = FakeAgent(code)
            delivered = Webhook(None, "http://a", agent).deliver(b"{}\n")
            why = self.failureResultOf(delivered, NotTaken).value
            self.assertEqual(str(why), f"it answered {code}")
            self.assertTrue(agent.transport.disconnecting)

    def test_body(self) -> None:
        """The body is sent at once, with its length."""
        body, taker = Whole(b"abc"), Taker()
        body.pauseProducing()
        body.resumeProducing()
        self.successResultOf(body.startProducing(taker))
        body.stopProducing()
        self.assertEqual((body.length, taker.taken), (3, b"abc"))


class FakeProcess:
    """The transport of a program that has ended."""

    pid = None
    written = b""
    closed = False

    def write(self, data: bytes) -> None:
        """Take what goes to stdin."""
        self.written += data

    def closeStdin(self) -> None:
        """No more comes."""
        self.closed = True

    def loseConnection(self) -> None:
        """Its pipes are not needed."""


class CommandTests(SynchronousTestCase):
    """A program."""

    def run_it(self) -> Run:
        """It runs."""
        run = Run(b"{}\n")
        run.makeConnection(FakeProcess())
        return run

    def test_argv(self) -> None:
        """It is run by its words, without a shell, and gets the notification on its stdin."""
        spawned: list[Any] = []

        class Reactor:
            def spawnProcess(self, *words: Any, **options: Any) -> None:
                spawned.append((words, options))

        courier = Command(Reactor(), ["/bin/page", "--to", "$(ops); x"])
        courier.deliver(b"{}\n")
        ((run, program, words), options) = spawned[0]
        self.assertEqual((program, words), ("/usr/bin/setsid", ["setsid", *courier.command]))
        self.assertEqual(set(options["env"]), {"PATH", "LC_ALL"})
        process: Any = FakeProcess()
        run.makeConnection(process)
        self.assertEqual((process.written, process.closed), (b"{}\n", True))

    def test_taken(self) -> None:
        """With 0 it has taken the notification, whatever it has said."""
        run = self.run_it()
        run.errReceived(b"x" * 100_000)
        run.processExited(Failure(ProcessDone(0)))
        self.assertIsNone(self.successResultOf(run.ended))

    def test_not_taken(self) -> None:
        """Otherwise it has not; the last line that it said is kept, and not too much."""
        run = self.run_it()
        run.errReceived(b"x" * 100_000 + b"\nno network\n")
        run.processExited(Failure(ProcessTerminated(1)))
        why = str(self.failureResultOf(run.ended, NotTaken).value)
        self.assertEqual(why, "exit status 1: no network")

    def test_cancelled(self) -> None:
        """One that is given up may have ended just now; that it ends later is no harm."""
        run = self.run_it()
        run.ended.addErrback(lambda _: None)
        run.ended.cancel()
        run.processExited(Failure(ProcessTerminated(1)))
