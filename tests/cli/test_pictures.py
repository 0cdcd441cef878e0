"""The commands that draw an instance."""

from typing import Any
from xml.etree import ElementTree

from tests.cli.session import Session
from txcontain.cli.pictures import bars_of, drawn, mounts_of, processes_of


def mount(target: str, *options: str) -> dict[str, Any]:
    """A mount as the manager tells it."""
    return {"target": target, "type": "tmpfs", "source": "x", "options": list(options)}


def process(pid: int, parent: int) -> dict[str, Any]:
    """A process as the manager tells it."""
    return {"pid": pid, "host_pid": pid, "host_parent": parent, "memory": 1024, "command": "\x1b"}


INSPECTED = {
    "plan": [
        {"op": "unshare", "seconds": 0.001},
        {"op": "mount", "seconds": 0.002},
        {"op": "mount", "seconds": 0.002},
        {"op": "exec", "seconds": None},
    ],
    "in_advance": 1,
    "phases": {"manager": 0.001, "steps": 0.004, "exec": 0.005},
}
STARTED_NEVER = {"plan": [{"op": "exec", "seconds": None}], "in_advance": 0, "phases": {}}


class TreeTests(Session):
    """`txcontain tree`."""

    def test_tree(self) -> None:
        """All of it is one tree, and what is the host's is said."""
        spaces = {
            "net": {"id": 1, "host": 1, "own": False},
            "pid": {"id": 2, "host": 1, "own": True},
        }
        groups = [{"controllers": name, "path": "/c"} for name in ("pids", "")]
        mounts = [mount("/", "ro"), mount("/a"), mount("/a/b"), mount("/ab")]
        held = {"namespaces": spaces, "cgroups": groups, "mounts": mounts, "more": 7}
        ran = {"processes": [process(5, 4), process(6, 5)], "more": 0}
        self.manager.answers_to("GET /instances/web/isolation", held)
        self.manager.answers_to("GET /instances/web/top", ran)
        self.assertEqual((self.run_command("tree", "web"), self.err), (0, ""))
        self.assertEqual(
            self.out,
            "web\n"
            "├─ namespaces\n"
            "│  ├─ net: 1, the host's\n"
            "│  └─ pid: 2, the host's is 1\n"
            "├─ mounts\n"
            "│  ├─ / tmpfs ro\n"
            "│  │  ├─ /a tmpfs\n"
            "│  │  │  └─ /a/b tmpfs\n"
            "│  │  └─ /ab tmpfs\n"
            "│  └─ and 7 more\n"
            "├─ cgroups\n"
            "│  └─ /c: pids, version 2\n"
            "└─ processes\n"
            "   └─ 5 (host: 5) \\x1b, 1.0K\n"
            "      └─ 6 (host: 6) \\x1b, 1.0K\n",
        )

    def test_twice_at_one_place(self) -> None:
        """A mount on top of another is below it."""
        (top,) = mounts_of([mount("/a"), mount("/a")])
        self.assertEqual(drawn(top), ["/a tmpfs", "└─ /a tmpfs"])

    def test_orphans(self) -> None:
        """A process whose parent is not of the instance is at the top."""
        self.assertEqual(len(processes_of([process(5, 1), process(6, 1)])), 2)


class CardTests(Session):
    """`txcontain card` and `txcontain compare`."""

    def test_card(self) -> None:
        """Each wall is a line; of those that lack, what a config says to have them."""
        wall = {"purpose": "it is apart", "weight": 1, "test": "t.T.t"}
        walls = [
            {**wall, "name": "pid namespace", "key": "", "holds": True},
            {**wall, "name": "memory", "key": '"limits"', "holds": False},
        ]
        told = {"walls": walls, "exposure": 5.0, "word": "MEDIUM"}
        self.manager.answers_to("GET /instances/web/card", told)
        self.assertEqual((self.run_command("card", "web"), self.err), (0, ""))
        self.assertIn("✓  pid namespace  it is apart               t.T.t\n", self.out)
        self.assertIn("✗  memory         it is apart     5.0       t.T.t\n", self.out)
        self.assertIn("Exposure of the host: 5.0 of 10, MEDIUM\n", self.out)
        self.assertIn('\n  memory: "limits"\n', self.out)

    def test_compare(self) -> None:
        """Two columns, and whether they are the same."""
        walls = [
            {"wall": "pid namespace", "one": "its own", "other": "the host's", "same": False},
            {"wall": "root", "one": "writable", "other": "writable", "same": True},
        ]
        self.manager.answers_to("GET /instances/web/compare?to=7", {"to": "7", "walls": walls})
        self.assertEqual((self.run_command("compare", "web", "7"), self.err), (0, ""))
        self.assertEqual(
            self.out,
            "WALL                  web       7\n"
            "pid namespace  apart  its own   the host's\n"
            "root           same   writable  writable\n",
        )


class TimelineTests(Session):
    """`txcontain timeline`."""

    def test_bars(self) -> None:
        """What was done in advance is before the beginning; steps of one kind are one bar."""
        bars = [(bar.label, round(bar.begin, 3), round(bar.end, 3)) for bar in bars_of(INSPECTED)]
        self.assertEqual(
            bars,
            [
                ("- unshare", -0.001, 0.0),
                ("the manager finds the image, a name, an init", 0.0, 0.001),
                ("the init carries out the plan", 0.001, 0.005),
                ("- mount", 0.001, 0.005),
                ("- exec", 0.005, 0.005),
                ("the init becomes the program", 0.005, 0.01),
            ],
        )

    def test_in_the_terminal(self) -> None:
        """Each bar is where it was, as long as it took."""
        self.manager.answers_to("GET /instances/web", INSPECTED)
        self.assertEqual((self.run_command("timeline", "web"), self.err), (0, ""))
        lines = self.out.splitlines()
        self.assertIn("11.0 MS IN ALL", lines[0])
        self.assertRegex(lines[1], "^- unshare +1.00  ░░░░$")
        self.assertRegex(lines[-1], "  5.00 +█{18}$")

    def test_svg(self) -> None:
        """The picture is XML, with a bar each."""
        self.manager.answers_to("GET /instances/web", INSPECTED)
        self.assertEqual(self.run_command("timeline", "--svg", "web"), 0)
        bars = ElementTree.fromstring(self.out).findall("{http://www.w3.org/2000/svg}rect")
        self.assertEqual(len(bars), 6)

    def test_nothing_known(self) -> None:
        """Of an instance that has not come so far, that is said."""
        self.assertEqual(bars_of(STARTED_NEVER), [])
        self.manager.answers_to("GET /instances/web", STARTED_NEVER)
        self.assertEqual((self.run_command("timeline", "web"), self.out), (1, ""))
        self.assertIn("Nothing is known of the time of its launch", self.err)
