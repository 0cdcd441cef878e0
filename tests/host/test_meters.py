"""Files of cgroups that are read again and again."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from txcontain.host.cgroups import Cgroups
from txcontain.host.meters import Meters


def descriptors() -> set[str]:
    """Those of this process."""
    return set(os.listdir("/proc/self/fd"))


class MetersTests(SynchronousTestCase):
    """Groups of version 2, which are folders with files here."""

    def setUp(self) -> None:
        self.top = make_folder(self)
        tops = dict.fromkeys(("memory", "cpuacct"), self.top)
        self.cgroups = Cgroups(tops, frozenset(tops))
        self.meters = Meters(lambda descriptor: True)
        self.addCleanup(self.meters.read, self.cgroups, [])
        self.use("a", 5, 4096)
        self.use("b", 7, 8192)

    def use(self, token: str, cpu_usec: int, memory: int) -> None:
        """Have a container use that."""
        os.makedirs(os.path.join(self.top, token), exist_ok=True)
        for name, text in (
            ("cpu.stat", f"usage_usec {cpu_usec}\nuser_usec 1\n"),
            ("memory.current", f"{memory}\n"),
        ):
            with open(os.path.join(self.top, token, name), "r+" if token == "c" else "w") as file:
                file.write(text)

    def test_read_again(self) -> None:
        """Each look tells what is used then, and opens nothing anew."""
        before = descriptors()
        self.assertEqual(self.meters.read(self.cgroups, ["a", "b"]), [(5, 4096), (7, 8192)])
        held = descriptors()
        self.assertEqual(len(held - before), 4)
        self.use("a", 6, 0)
        self.assertEqual(self.meters.read(self.cgroups, ["a", "b"]), [(6, 0), (7, 8192)])
        self.assertEqual(descriptors(), held)

    def test_forgotten(self) -> None:
        """Of a container that is not asked for any more, nothing is held."""
        before = descriptors()
        self.meters.read(self.cgroups, ["a", "b"])
        self.meters.read(self.cgroups, ["b"])
        self.assertEqual(len(descriptors() - before), 2)
        self.meters.read(self.cgroups, [])
        self.assertEqual(descriptors(), before)

    def test_no_room(self) -> None:
        """If descriptors are scarce, none is held, and the figures are the same."""
        before = descriptors()
        self.meters.may_hold = lambda descriptor: False
        for _ in range(2):
            self.assertEqual(self.meters.read(self.cgroups, ["a"]), [(5, 4096)])
        self.assertEqual(descriptors(), before)

    def test_not_counted(self) -> None:
        """What is not there, or is no number, is None."""
        self.assertEqual(self.meters.read(self.cgroups, ["gone"]), [(None, None)])
        self.assertEqual(self.meters.read(Cgroups(), ["a"]), [(None, None)])
        for name in ("cpu.stat", "memory.current"):
            with open(os.path.join(self.top, "a", name), "w") as file:
                file.write("nonsense")
        self.assertEqual(self.meters.read(self.cgroups, ["a"]), [(None, None)])
