"""Files of cgroups that are read again and again."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import make_folder
from txcontain.host.cgroups import SOCKETS, Cgroups
from txcontain.host.meters import Meters


def descriptors() -> set[str]:
    """Those of this process."""
    return set(os.listdir("/proc/self/fd"))


class MetersTests(SynchronousTestCase):
    """Groups of version 2, which are folders with files here."""

    def setUp(self) -> None:
        self.top = make_folder(self)
        tops = dict.fromkeys(("memory", "cpuacct", "pids", "io", SOCKETS), self.top)
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
            self.put(f"{token}/{name}", text)

    def put(self, path: str, text: str) -> None:
        """Write a file of a group."""
        with open(os.path.join(self.top, path), "w") as file:
            file.write(text)

    def told(self, what: str) -> list[int | None]:
        """A figure of both containers."""
        return [one.get(what) for one in self.meters.accounts(self.cgroups, ["a", "b"])]

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

    def test_not_run(self) -> None:
        """What only changes while a container runs is read again if it has run, or its memory is
        another; what it uses is always read.
        """
        for token in "ab":
            self.put(f"{token}/pids.current", "1")
        self.assertEqual(self.told("pids"), [1, 1])
        for token in "ab":
            self.put(f"{token}/pids.current", "2")
        self.assertEqual(self.told("pids"), [1, 1])
        self.use("a", 6, 4096)
        self.assertEqual(self.told("pids"), [2, 1])
        self.use("b", 7, 0)
        self.assertEqual(self.told("memory"), [4096, 0])
        self.assertEqual(self.told("pids"), [2, 2])

    def test_by_the_kernel(self) -> None:
        """What the kernel does for a container is read again if the group above has it, too."""
        for path in ("a/io.stat", "b/io.stat", "io.stat"):
            self.put(path, "8:0 wbytes=1")
        self.assertEqual(self.told("io_written"), [1, 1])
        self.put("b/io.stat", "8:0 wbytes=2")
        self.put("io.stat", "8:0 wbytes=3")
        self.assertEqual(self.told("io_written"), [1, 2])
        self.assertEqual(self.told("io_written"), [1, 2])

    def test_new(self) -> None:
        """Of a container that has just begun, all is read; of one that is gone, nothing is kept."""
        self.assertEqual(self.told("pids"), [None, None])
        self.use("c", 1, 1)
        self.put("c/pids.current", "3")
        (told,) = self.meters.accounts(self.cgroups, ["c"])
        self.assertEqual(told, {"pids": 3, "user_usec": 1, "cpu_usec": 1, "memory": 1})
        self.put("a/pids.current", "4")
        self.assertEqual(self.told("pids"), [4, None])

    def test_uncounted(self) -> None:
        """If it is not known whether a container has run, all of it is read each time."""
        cgroups = Cgroups({"pids": self.top}, frozenset({"pids"}))
        for pids in (1, 2):
            self.put("a/pids.current", str(pids))
            self.assertEqual(self.meters.accounts(cgroups, ["a"]), [{"pids": pids}])
