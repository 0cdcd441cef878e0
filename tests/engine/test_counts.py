"""What the manager counts."""

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import ManagerTestCase
from txcontain.engine.counts import Histogram
from txcontain.errors import MachineAtFault
from txcontain.runtime.exits import ALL_KINDS, Exit


class HistogramTests(SynchronousTestCase):
    """Durations."""

    def test_bounds(self) -> None:
        """A duration is counted at the first bound that it does not exceed, or beyond all."""
        durations = Histogram((1.0, 2.0))
        for seconds in (0.5, 1.0, 1.5, 2.0, 9.0):
            durations.add(seconds)
        self.assertEqual((durations.counts, durations.total), ([2, 2, 1], 14.0))


class KindTests(SynchronousTestCase):
    """How an instance has ended, in a word."""

    def test_kinds(self) -> None:
        """Each kind of end has its word, whatever the status is."""
        for how, kind in (
            (Exit(0, reason="exit status 0"), "success"),
            (Exit(3, reason="exit status 3"), "failure"),
            (Exit(None, 11, "killed by SIGSEGV"), "signal"),
            (Exit(None, 9, "out of memory (killed by SIGKILL)"), "out_of_memory"),
            (Exit(None, 9, "asked to end (killed by SIGKILL)"), "asked"),
            (Exit(reason="ended by a reboot of the machine"), "reboot"),
            (Exit(None, 9, "unhealthy (killed by SIGKILL)"), "unhealthy"),
            (Exit(reason="no one saw how"), "unknown"),
        ):
            self.assertEqual(how.kind, kind)
            self.assertIn(kind, ALL_KINDS)


class CountsTests(ManagerTestCase):
    """What a manager does."""

    def test_launches(self) -> None:
        """Each launch is counted by how much was done in advance, with its time."""
        self.launch()
        launches = self.manager.counts.launches
        self.assertEqual({start: sum(one.counts) for start, one in launches.items()}["cold"], 1)

    def test_failed_launches(self) -> None:
        """A launch that fails is counted as one, and has no duration."""
        spec = self.add()
        self.reactor.works = False
        launched = self.start(self.manager.launch(spec.name, spec.major, spec.minor))
        self.init.fail(call="unshare", errno=1)
        self.reactor.advance(1)
        self.failureResultOf(launched, MachineAtFault)
        counts = self.manager.counts
        self.assertEqual((counts.failed_launches, counts.launches["cold"].total), (1, 0.0))

    def test_ends(self) -> None:
        """An end is counted once, by its kind; one that someone asked for is not a failure."""
        for minor, words in (("1", "Done(3)"), ("2", "Done"), ("3", "Segmentation fault")):
            self.launch(minor=minor)
            self.init.end(words)
            self.reactor.advance(0)
        stopped = self.launch(minor="4")
        self.start(self.manager.destroy(stopped.name))
        self.reactor.advance(100)
        counted = {kind: n for kind, n in self.manager.counts.exits.items() if n}
        self.assertEqual(counted, {"failure": 1, "success": 1, "signal": 1, "asked": 1})

    def test_told_again(self) -> None:
        """What is told again of the same end is not counted again."""
        instance = self.launch()
        self.init.end("Done(3)")
        self.reactor.advance(0)
        self.manager.changed(instance, "again", "ended")
        self.assertEqual(self.manager.counts.exits["failure"], 1)
