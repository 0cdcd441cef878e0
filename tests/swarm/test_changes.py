"""What an instance of a swarm has changed, against a Docker in memory."""

from unittest import mock

from tests.swarm.test_swarm import SwarmCase
from txcontain import errors
from txcontain.swarm import changes


class ChangesTests(SwarmCase):
    """GET /instances/INSTANCE/diff."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.name = self.launched()

    def test_changes(self) -> None:
        """They are told by path, in the words of one host; Docker has null if there are none."""
        self.assertEqual(self.now(self.swarm.diff(self.name)), {"changes": [], "complete": True})
        kinds = {"/c": 0, "/a": 1, "/b": 2}
        self.fake.changes = [{"Path": path, "Kind": kind} for path, kind in kinds.items()]
        told = self.now(self.swarm.diff(self.name))
        found = [(one["kind"], one["path"]) for one in told["changes"]]
        self.assertEqual((found, told["complete"]), ([("A", "/a"), ("D", "/b"), ("C", "/c")], True))

    def test_many(self) -> None:
        """Not more are told than on one host."""
        self.fake.changes = [{"Path": f"/{number}", "Kind": 1} for number in range(3)]
        for bound, most, number in (("MOST", 2, 2), ("LONGEST", 2, 1)):
            with mock.patch.object(changes, bound, most):
                told = self.now(self.swarm.diff(self.name))
            self.assertEqual((len(told["changes"]), told["complete"]), (number, False))

    def test_refused(self) -> None:
        """Out of reach, ended meanwhile, or what Docker says."""
        for status, kind in ((404, errors.NotRunning), (500, errors.MachineAtFault)):
            self.fake.refusals["GET /containers/c1/changes"] = status, "broken"
            self.assertIn("broken", str(self.refused(self.swarm.diff(self.name), kind)))
        self.swarm.docker.managers[0].node = None
        self.fake.node = "n7"
        error = self.refused(self.swarm.diff(self.name), errors.NotInSwarm)
        self.assertIn("`docker diff` there", str(error))
