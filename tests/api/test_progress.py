"""What a client is sent who waits until a stack is as wished."""

import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.fakes import ManagerTestCase, Taker
from txcontain.api.progress import Progress
from txcontain.errors import MachineAtFault


class ProgressTests(ManagerTestCase):
    """Its last line."""

    def setUp(self) -> None:
        super().setUp()
        self.cancelled: list[Any] = []
        self.taker, self.settled = Taker(), Deferred[list[str]](self.cancelled.append)
        progress = Progress(self.taker, journal=self.manager.journal)
        progress.listen()
        self.sending = self.start(progress.send("shop", {"stack": "shop"}, self.settled))

    def lines(self) -> list[Any]:
        """What was sent."""
        return [json.loads(line) for line in self.taker.taken.splitlines()]

    def test_done(self) -> None:
        """It is as wished: the events of the stack come first, and of no other."""
        for stack in ("shop", "other"):
            self.manager.journal.add("service", "runs", instance=None, stack=stack)
        self.settled.callback([])
        self.successResultOf(self.sending)
        first, event, last = self.lines()
        self.assertEqual((first, event["stack"]), ({"stack": "shop"}, "shop"))
        self.assertEqual(last, {"outcome": "done", "wrong": []})

    def test_nobody_knows(self) -> None:
        """If that can't be found out, the client is told why, and need not wait for ever."""
        self.settled.errback(MachineAtFault("asking the swarm", "no JSON"))
        self.successResultOf(self.sending)
        wrong = ["asking the swarm → no JSON"]
        self.assertEqual(self.lines()[-1], {"outcome": "failed", "wrong": wrong})

    def test_hung_up(self) -> None:
        """If the client hangs up, nothing is waited for any more."""
        self.taker.producer.stopProducing()
        self.successResultOf(self.sending)
        self.assertEqual(self.lines(), [{"stack": "shop"}])
        self.assertEqual(self.cancelled, [self.settled])
