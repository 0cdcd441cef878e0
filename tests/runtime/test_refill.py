"""Which warm inits to have."""

from twisted.trial.unittest import SynchronousTestCase

from txcontain.runtime.refill import LATELY, Drop, Spawn, Wait, Warm, decide

PLAIN, EXPECTED, STALE = Warm.PLAIN, Warm.EXPECTED, Warm.STALE
DECISIONS = [  # the warm ones, how many are wanted now and at the least, and what to do
    ([], 0, 0, Wait()),
    ([], 1, 1, Spawn(prepared=False)),
    ([PLAIN], 1, 1, Wait()),
    ([PLAIN], 2, 2, Spawn(prepared=True)),
    ([EXPECTED], 2, 2, Spawn(prepared=False)),
    ([PLAIN, EXPECTED], 2, 2, Wait()),
    ([PLAIN, EXPECTED], 4, 2, Spawn(prepared=True)),
    ([PLAIN, EXPECTED], 2, 1, Wait(LATELY)),
    ([PLAIN, EXPECTED, EXPECTED], 2, 2, Drop(2)),
    ([PLAIN], 0, 0, Drop(0)),
    ([STALE, PLAIN], 2, 2, Drop(0)),
    ([STALE, PLAIN], 4, 2, Drop(0)),
    ([STALE, STALE, PLAIN, EXPECTED], 2, 2, Drop(1)),
]


class DecideTests(SynchronousTestCase):
    """One decision at a time."""

    def test_table(self) -> None:
        """What is stale goes first, then what is too much; else one more is warmed, or none."""
        for warm, wanted, least, decision in DECISIONS:
            self.assertEqual(decide(warm, wanted, least), decision, (warm, wanted, least))
