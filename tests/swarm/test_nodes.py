"""The nodes of a swarm."""

from copy import deepcopy
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.swarm.docker import NODE, task
from tests.swarm.test_swarm import SwarmCase
from txcontain import errors
from txcontain.swarm.nodes import TRIES, find, read_node, records
from txcontain.swarm.watch import AT_ONCE


def named(name: str, identity: str) -> Any:
    """A node that is called so."""
    return {**deepcopy(NODE), "ID": identity, "Description": {"Hostname": name}}


class NodeTests(SynchronousTestCase):
    """What is made of what Docker tells."""

    def test_records(self) -> None:
        """All nodes are told by name, with how many tasks run on each."""
        nodes = [read_node(named("b", "n2")), read_node(NODE)]
        tasks = [task("s", "running"), task("s", "running", node="n2"), task("s", "failed")]
        told = [(one["node"], one["instances"]) for one in records(nodes, tasks)]
        self.assertEqual(told, [("b", 1), ("h1", 1)])

    def test_new(self) -> None:
        """One that has not said yet what it is has its id as a name."""
        told: Any
        for told in (None, {}):
            self.assertEqual(read_node({**NODE, "Description": told}).node, "n1")

    def test_find(self) -> None:
        """A node is found by its name or its id; one of several of a name only by its id."""
        nodes = [read_node(named("a", "n2")), read_node(named("a", "n3")), read_node(NODE)]
        self.assertEqual([find(nodes, name).id for name in ("h1", "n3")], ["n1", "n3"])
        error = self.assertRaises(errors.Ambiguous, find, nodes, "a")
        self.assertEqual(str(error), "2 nodes are called a → name one by its id: n2, n3")
        error = self.assertRaises(errors.NoSuchNode, find, nodes, "h12")
        self.assertEqual(str(error), "there is no node h12 → did you mean h1?")


class ChangeTests(SwarmCase):
    """What is asked of one."""

    def test_listed(self) -> None:
        """Nodes are told as of now; while the swarm is silent, as they were."""
        (node,) = self.now(self.swarm.nodes()).records
        self.assertEqual(
            (node["node"], node["leader"], node["labels"]), ("h1", True, {"disk": "ssd"})
        )
        self.fake.is_silent = True
        asked = self.start(self.swarm.nodes("h1"))
        self.reactor.advance(AT_ONCE)
        self.assertIsNotNone(self.successResultOf(asked).as_of)

    def test_changes(self) -> None:
        """Availability and labels are changed, and what else the node has stays."""
        self.now(self.swarm.set_availability("h1", "drain"))
        self.now(self.swarm.set_labels("n1", {"zone": "a", "disk": None}))
        spec = self.fake.nodes[0]["Spec"]
        wanted = {"Role": "manager", "Availability": "drain", "Labels": {"zone": "a"}}
        self.assertEqual(spec, wanted)

    def test_changed_meanwhile(self) -> None:
        """If something else changes it all the time, that is told after some tries."""
        asked = "POST /nodes/n1/update"
        self.fake.refusals[asked] = 500, "rpc error: update out of sequence"
        error = self.refused(self.swarm.set_availability("h1", "drain"), errors.MachineAtFault)
        self.assertIn("something else changes it all the time: try again", str(error))
        self.assertEqual(self.fake.asked.count(asked), TRIES)
