"""What the processes that the manager spawns inherit."""

import os
from typing import Any

from twisted.internet import process
from twisted.internet import reactor as twisted_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from txcontain.host.spawning import LOW, inherit_nothing

reactor: Any = twisted_reactor


class Listing(ProcessProtocol):
    """Takes down what a program writes."""

    def __init__(self) -> None:
        self.out = b""
        self.ended: Deferred[bytes] = Deferred()

    def outReceived(self, data: bytes) -> None:
        """It has written this."""
        self.out += data

    def processEnded(self, reason: Any) -> None:
        """It has ended."""
        self.ended.callback(self.out)


class SpawningTests(TestCase):
    """Descriptors that were open before."""

    async def test_inherit_nothing(self) -> None:
        """A process has none but those that it is given, though nobody looks for others."""
        self.patch(process.detector, "_listOpenFDs", process.detector._listOpenFDs)
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
            os.set_inheritable(end, True)
        inherit_nothing()
        self.assertEqual(process._listOpenFDs(), LOW)
        listing = Listing()
        given = {0: ends[0], 1: "r", 2: ends[1], 7: ends[0]}
        arguments = ["sh", "-c", "echo /proc/$$/fd/*"]
        reactor.spawnProcess(listing, "/bin/sh", arguments, childFDs=given)
        found = {os.path.basename(path) for path in (await listing.ended).decode().split()}
        self.assertEqual(found - {"3"}, {"0", "1", "2", "7"})  # 3: the folder that the shell reads
