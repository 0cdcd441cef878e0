"""Ranges of user ids, and what is said where there can be no user namespace."""

import errno
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.facts import FIRST_ID, IDS, MOST_RANGES
from txcontain.errors import MachineAtFault
from txcontain.host.id_ranges import free_range, read_range
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.diagnose import of_step


class RangeTests(SynchronousTestCase):
    """One each."""

    def test_free(self) -> None:
        """The first free range is taken, also one that was given back."""
        self.assertEqual(free_range([]), FIRST_ID)
        self.assertEqual(free_range([FIRST_ID, FIRST_ID + 2 * IDS]), FIRST_ID + IDS)

    def test_all_taken(self) -> None:
        """If none is left, the launch fails and says so."""
        taken = [FIRST_ID + number * IDS for number in range(MOST_RANGES)]
        self.assertIn("4000 ranges", str(self.assertRaises(MachineAtFault, free_range, taken)))

    def test_of_the_host(self) -> None:
        """No range has an id of the host, and all fit into 31 bits."""
        self.assertLess(65536, FIRST_ID)
        self.assertLess(FIRST_ID + MOST_RANGES * IDS, (1 << 31) - 1)

    def test_record(self) -> None:
        """A record is believed only if it has a range of ours."""
        self.assertEqual(read_range(FIRST_ID + IDS), FIRST_ID + IDS)
        self.assertIsNone(read_range(None))
        values: tuple[Any, ...] = (
            0,
            1000,
            FIRST_ID + 1,
            FIRST_ID - IDS,
            FIRST_ID + MOST_RANGES * IDS,
            "1",
            [],
            1.5,
        )
        for value in values:
            self.assertRaises(ValueError, read_range, value)


class FailureTests(SynchronousTestCase):
    """A machine that can't do it."""

    def error(self, op: str, number: int) -> Any:
        details = {"step": 0, "call": "call", "errno": number, "path": "", "cause": "", "hint": ""}
        return of_step([(op, {"target": "/layers/1"})], StepFailed(details))

    def test_old_kernel(self) -> None:
        """If owners can't be mapped, the message says what is needed."""
        for number in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            error = self.error("idmap", number)
            self.assertIsInstance(error, MachineAtFault)
            self.assertIn("Linux 5.19", str(error))

    def test_forbidden(self) -> None:
        """If no user namespace can be made, the message names the setting."""
        for number in (errno.ENOSPC, errno.EPERM, errno.EINVAL):
            error = self.error("user_namespace_of", number)
            self.assertIsInstance(error, MachineAtFault)
            self.assertIn("user.max_user_namespaces", str(error))
