"""What the machine as a whole has."""

import os

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host.machine import disk_of, machine, pressures

SOME = "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 total=0\n"


class MachineTests(SynchronousTestCase):
    """What is read of it."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)

    def test_pressures(self) -> None:
        """The share of the last ten seconds is told; what can't be read is left out."""
        for what, content in (("cpu", SOME), ("memory", "some\n"), ("io", "")):
            with open(f"{self.folder}/{what}", "w") as file:
                file.write(content)
        self.assertEqual(pressures(f"{self.folder}/{{}}"), {"cpu": 1.5})
        self.assertEqual(pressures(f"{self.folder}/none/{{}}"), {})

    def test_machine(self) -> None:
        """There is some of everything, and not more left than there is."""
        found = machine(self.folder)
        self.assertEqual(found["disk"]["total"], disk_of(self.folder)[1])
        for what in ("memory", "disk"):
            self.assertLessEqual(0, found[what]["available"])
            self.assertLess(found[what]["available"], found[what]["total"])
        self.assertEqual(found["processors"], os.cpu_count())
