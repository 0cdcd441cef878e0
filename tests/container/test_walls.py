"""Which walls hold a container."""

from importlib import import_module
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import make_spec
from tests.ways_out import OLDEST, TRIED, proved_by, sentences, tests_of
from txcontain.container.walls import ATTACKS, WALLS, card, compare, purpose_of

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def facts(*, own: bool, **changes: Any) -> dict[str, Any]:
    """What the kernel tells of a process that is held as tightly as can be, or not at all."""
    options = ["ro"] if own else ["rw"]
    targets = ("/", "/proc/sys", "/proc/kcore") if own else ("/",)
    number = 2 if own else 1
    return {
        "namespaces": {kind: {"id": number, "host": 1, "own": own} for kind in KINDS},
        "capabilities": [] if own else ["SYS_ADMIN"],
        "seccomp": "filter" if own else "none",
        "no_new_privileges": own,
        "host_user": 7 if own else 0,
        "host_group": 7 if own else 0,
        "host_groups": [],
        "mounts": [{"target": target, "options": options} for target in targets],
        "more": 0,
        "cgroups": [{"controllers": "", "path": "/c" if own else "/"}],
        **changes,
    }


TIGHT = make_spec(limits={"memory": "1M", "cpus": 1})


class CardTests(SynchronousTestCase):
    """The isolation card."""

    def lacking(self, told: dict[str, Any]) -> list[str]:
        """The walls that don't hold."""
        return [wall["name"] for wall in told["walls"] if not wall["holds"]]

    def test_all_hold(self) -> None:
        """A container that has every wall exposes nothing."""
        told = card(facts(own=True), TIGHT)
        self.assertEqual((self.lacking(told), told["exposure"], told["word"]), ([], 0.0, "SAFE"))

    def test_none_holds(self) -> None:
        """A process of the host has none but the limits that a config always has."""
        told = card(facts(own=False), make_spec(volumes=["/srv /srv"]))
        held = [wall["name"] for wall in told["walls"] if wall["holds"]]
        self.assertEqual((held, told["word"]), (["processes"], "UNSAFE"))

    def test_one_lacks(self) -> None:
        """Each fact is told by its own wall, and weighs something."""
        shared = facts(own=True)["namespaces"] | {"net": {"id": 1, "host": 1, "own": False}}
        for changes, wall in (
            ({"namespaces": shared}, "network namespace"),
            ({"capabilities": ["CHOWN"]}, "no root"),
            ({"seccomp": "none"}, "system calls"),
            ({"no_new_privileges": False}, "new privileges"),
        ):
            told = card(facts(own=True, **changes), TIGHT)
            self.assertEqual(self.lacking(told), [wall])
            self.assertGreater(told["exposure"], 0)

    def test_tests(self) -> None:
        """The test that is named for each wall and for each step is there."""
        for name in [wall.test for wall in WALLS] + [test for _, test in ATTACKS.values()]:
            module, case, test = name.split(".")
            found = getattr(import_module(f"tests.integration.{module}"), case)
            self.assertTrue(callable(getattr(found, test)), name)

    def test_listed(self) -> None:
        """Each test of ways out is listed with a wall that there is (docs/walls.md)."""
        self.assertLessEqual({*TRIED}, {wall.name for wall in WALLS})
        listed = [test for wall in WALLS for test in tests_of(wall.name)]
        self.assertEqual({name for name, _ in sentences(OLDEST)} - {*listed}, set())
        for test in listed:
            self.assertTrue(proved_by(test).endswith("."), test)

    def test_purpose(self) -> None:
        """Each step is for something; some prevent an attack, which a test tries."""
        told = purpose_of("seccomp")
        self.assertIn("seccomp(2)", told["why"])
        self.assertEqual(told["test"], "test_wall.SystemCallTests.test_refused")
        self.assertEqual(purpose_of("move")["attack"], "")


class CompareTests(SynchronousTestCase):
    """Two processes, wall by wall."""

    def test_apart(self) -> None:
        """What one has and the other has not is said of both."""
        rows = compare(facts(own=True), facts(own=False))
        self.assertEqual([row["wall"] for row in rows if row["same"]], [])
        told = {row["wall"]: (row["one"], row["other"]) for row in rows}
        self.assertEqual(told["pid namespace"], ("its own", "the host's"))
        self.assertEqual(told["capabilities"], ("none", "SYS_ADMIN"))
        self.assertEqual(told["root"], ("read-only", "writable"))

    def test_same(self) -> None:
        """A process has all walls in common with itself."""
        one = facts(own=True)
        self.assertTrue(all(row["same"] for row in compare(one, one)))

    def test_two_of_a_kind(self) -> None:
        """Two containers have namespaces of the same kinds, and not the same ones."""
        other = {kind: {"id": 3, "host": 1, "own": True} for kind in KINDS}
        row, *_ = compare(facts(own=True), facts(own=True, namespaces=other))
        self.assertEqual((row["one"], row["other"], row["same"]), ("its own", "its own", False))
