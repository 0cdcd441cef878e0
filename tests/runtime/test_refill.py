"""Which warm inits to have."""

from twisted.trial.unittest import SynchronousTestCase

from txcontain.runtime.refill import LATELY, Drop, Spawn, Wait, Wanted, Warm, decide, share

PLAIN, EXPECTED, STALE = Warm.PLAIN, Warm.EXPECTED, Warm.STALE
DECISIONS = [  # the warm ones, how many of each are wanted now, how many at least, what to do
    ([], (0, 0), 0, Wait()),
    ([], (1, 0), 1, Spawn(prepared=False)),
    ([PLAIN], (1, 0), 1, Wait()),
    ([PLAIN], (1, 1), 2, Spawn(prepared=True)),
    ([EXPECTED], (1, 1), 2, Spawn(prepared=False)),
    ([PLAIN, EXPECTED], (1, 1), 2, Wait()),
    ([PLAIN, EXPECTED], (1, 3), 2, Spawn(prepared=True)),
    ([PLAIN, EXPECTED], (2, 2), 2, Spawn(prepared=False)),
    ([PLAIN, EXPECTED], (1, 1), 1, Wait(LATELY)),
    ([PLAIN, EXPECTED, EXPECTED], (1, 1), 2, Drop([2])),
    ([PLAIN, PLAIN, EXPECTED], (1, 1), 2, Drop([1])),
    ([PLAIN, PLAIN], (1, 1), 2, Wait()),
    ([EXPECTED, EXPECTED], (1, 1), 2, Drop([1])),
    ([EXPECTED, EXPECTED, EXPECTED], (1, 1), 2, Drop([1, 2])),
    ([PLAIN], (0, 0), 0, Drop([0])),
    ([STALE, PLAIN], (1, 1), 2, Drop([0])),
    ([STALE, PLAIN], (1, 3), 2, Drop([0])),
    ([STALE, STALE, PLAIN, EXPECTED], (1, 1), 2, Drop([0, 1])),
    ([STALE, PLAIN, EXPECTED, EXPECTED], (1, 1), 2, Drop([0, 3])),
]
SHARES = [  # how many unexpected launches and launches there were lately, least and most, and so
    (0, 0, 2, 16, (1, 1)),
    (0, 0, 1, 16, (1, 0)),
    (2, 2, 1, 16, (1, 1)),
    (2, 2, 2, 16, (1, 1)),
    (0, 9, 2, 16, (1, 8)),
    (4, 9, 2, 16, (4, 5)),
    (9, 9, 2, 16, (8, 1)),
    (40, 50, 2, 16, (15, 1)),
]


class DecideTests(SynchronousTestCase):
    """One decision at a time."""

    def test_table(self) -> None:
        """What is not wanted goes first, and together; else one more is warmed, or none."""
        for warm, wanted, least, decision in DECISIONS:
            self.assertEqual(decide(warm, Wanted(*wanted), least), decision, (warm, wanted, least))

    def test_share(self) -> None:
        """As many are wanted for unexpected launches, and for expected ones, as there were."""
        for *lately, wanted in SHARES:
            self.assertEqual(share(*lately), Wanted(*wanted), lately)

    def test_comes_to_rest(self) -> None:
        """Whatever there is, with and without an expected launch, it ends in what is wanted."""
        for wanted in (Wanted(1, 1), Wanted(3, 2), Wanted(1, 0), Wanted(0, 0)):
            for spawned in (PLAIN, EXPECTED):
                warm = [STALE, EXPECTED, EXPECTED, EXPECTED, PLAIN, PLAIN, STALE]
                for _ in range(20):
                    decision = decide(warm, wanted, 0)
                    if isinstance(decision, Drop):
                        warm = [one for i, one in enumerate(warm) if i not in decision.which]
                    elif isinstance(decision, Spawn):
                        warm.append(spawned if decision.prepared else PLAIN)
                self.assertIsInstance(decision, Wait)
                self.assertEqual(len(warm), wanted.all)
                self.assertGreaterEqual(warm.count(PLAIN), wanted.plain)
