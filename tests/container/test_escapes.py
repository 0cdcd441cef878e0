"""Containers without one of their walls, as plans."""

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.support import make_spec
from txcontain.container.escapes import ESCAPES, OF_WALL, plan_of_escape
from txcontain.container.facts import Host
from txcontain.container.plan import Paths, Plan, make_plan
from txcontain.container.spec import Spec
from txcontain.container.walls import WALLS

HOST = Host("/e", (("/proc/kcore", False),), ("/proc/sys",), (b"one", b"two"))
PATHS = Paths("/l/base", [], "/own", "/scratch", HOST)
BAIT = {"WORD": "w", "FILE": "/bait/file"}


def plan_of(wall: str, spec: Spec, *, held: bool) -> Plan:
    """The plan of a try to escape."""
    plan = make_plan(spec, PATHS, "web-step")
    return plan_of_escape(plan, spec, OF_WALL[wall], BAIT, held=held)


class EscapeTests(SynchronousTestCase):
    """The table of all escapes."""

    spec = make_spec(startup_owner="worker", limits={"memory": "16M", "pids": 20, "cpus": 0.01})

    def test_all_walls(self) -> None:
        """Each wall of the isolation card has its escape, in its order."""
        self.assertEqual([one.wall for one in ESCAPES], [wall.name for wall in WALLS])

    def test_one_wall_less(self) -> None:
        """Without a wall, a container has another plan, config or namespace; never two of these."""
        for one in ESCAPES:
            spec = evolve(self.spec, user_namespace=True, network="none")
            self.assertTrue(one.stands(spec), one.wall)
            changed = [
                plan_of(one.wall, spec, held=False) != plan_of(one.wall, spec, held=True),
                one.without(spec) != spec,
                one.shared != "",
            ]
            expected = 2 if one.wall == "uts namespace" else 1  # nor is the host's name set
            self.assertEqual(sum(changed), expected, one.wall)

    def test_the_program(self) -> None:
        """The escape takes its place, with what it has to know."""
        plan = plan_of("memory", self.spec, held=True)
        op, said = plan[-1]
        self.assertEqual((op, said["path"]), ("exec", "/bin/sh"))
        variables: dict[str, Any] = dict(said["environment"])
        self.assertEqual((variables["WORD"], variables["MORE"]), (("w",), (str(17 << 20),)))
        self.assertNotIn("output", [op for op, _ in plan])
        shown = plan_of("memory", evolve(self.spec, tty=True), held=True)
        self.assertNotIn("terminal", [op for op, _ in shown])  # nobody would read it

    def test_which_walls_stand(self) -> None:
        """A config has a wall only if it says so, and no escape takes more than a little."""
        least = make_spec(writable_root=True)
        large = make_spec(limits={"memory": "1G", "pids": 1000})
        for spec in (least, large):
            standing = {one.wall for one in ESCAPES if not one.stands(spec)}
            wanted = {"user namespace", "network namespace", "no root", "memory", "processes"}
            self.assertEqual(standing - {"read-only root"}, wanted | {"processors"})

    def test_setuid(self) -> None:
        """Without new privileges refused, no mount refuses them, and the filters are all there."""
        plan = plan_of("new privileges", self.spec, held=False)
        ops = [op for op, _ in plan]
        self.assertEqual(ops.count("seccomp"), 2)
        self.assertLess(ops.index("pivot_root"), ops.index("close_descriptors") - 1)
        self.assertEqual(ops[ops.index("close_descriptors") - 1], "seccomp")
        self.assertFalse([said for _, said in plan if "nosuid" in said.get("flags", ())])
