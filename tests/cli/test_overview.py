"""What `txcontain top` shows, and what its keys do."""

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.session import Session
from txcontain.cli.errors import Refused
from txcontain.cli.overview import ALERT, ASCII_BARS, FAINT, KEYS, Action, View, sparkline
from txcontain.cli.terminal import fetch

RECORD = {
    "name": "web",
    "major": "1",
    "minor": "01",
    "state": "running",
    "since": 0,
    "pid": 1,
    "restarts": 2,
    "exit": None,
    "port": 80,
    "ready": True,
    "ports": ["127.0.0.1:8000->80/tcp"],
    "address": None,
    "labels": {"team": "shop\x1b[2J"},
}


def record(name: str, **changes: Any) -> Any:
    """An instance of this name."""
    return {**RECORD, "instance": name, **changes}


class ViewCase(SynchronousTestCase):
    """Some instances."""

    def setUp(self) -> None:
        self.view = View(ASCII_BARS)
        self.view.update(
            [record("web-1"), record("web-2", state="ended"), record("db", major="3")],
            {"web-1": {"cpu": [None, 0.5, 1.0], "memory": [0, 1 << 20, 2 << 20]}},
            {},
        )

    def press(self, *keys: str) -> Action | None:
        """Press keys; what the last one asks for."""
        done = None
        for key in keys:
            done = self.view.press(key)
        return done

    def text(self, width: int = 120, height: int = 20) -> list[str]:
        """The lines of the screen."""
        lines = self.view.screen_of(width, height)
        return ["".join(piece for piece, _ in line) for line in lines]


class ScreenTests(ViewCase):
    """What is seen."""

    def test_list(self) -> None:
        """The list has a line for each instance, with figures, below what all have together."""
        title, head, first, second, third, *_ = self.text()
        self.assertEqual(title, "txcontain  2 running, 1 ended   CPU 1.00   memory 2.0M")
        self.assertTrue(head.startswith("INSTANCE  STATE     READY  RST  CPU"), head)
        self.assertEqual(
            first.split(),
            ["web-1", "running", "yes", "2", "+@", "1.00", "_+@", "2.0M", "127.0.0.1:8000->80/tcp"],
        )
        self.assertEqual(second.split()[:3], ["web-2", "ended", "-"])
        self.assertEqual(third.split()[0], "db")

    def test_host(self) -> None:
        """The first line ends with what the machine has left, and for what its processes wait."""
        for cpu, style in ((20, FAINT), (21.4, ALERT)):
            left = {"memory": {"available": 3 << 30}, "disk": {"available": 5 << 30}}
            self.view.update([], {}, {**left, "pressure": {"cpu": cpu, "io": 0}})
            self.assertIn(
                f"waiting: cpu {cpu:.0f} %, io 0 %   free: memory 3.0G, disk 5.0G", self.text()[0]
            )
            self.assertEqual(self.view.screen_of(120, 20)[0][2][1], style)
        self.view.update([], {}, {**left, "pressure": {}})
        self.assertNotIn("waiting", self.text()[0])

    def test_any_size(self) -> None:
        """On every terminal, however small, no line is too long, and there are not too many."""
        for keys in ((), ("enter",), ("?",), ("/", "w")):
            self.press(*keys)
            for width in (1, 5, 40, 400):
                for height in (1, 2, 3, 24):
                    lines = self.text(width, height)
                    self.assertLessEqual(len(lines), height)
                    self.assertLessEqual(max(map(len, lines)), width)
            self.press("esc", "esc")

    def test_scrolled(self) -> None:
        """The chosen instance is always in sight."""
        self.view.update([record(f"i{number}") for number in range(100)], {}, {})
        for key in ("j", "G", "k", "^B", "g", "^F"):
            self.press(key)
            self.assertIn(self.view.chosen, [line.split(" ")[0] for line in self.text(80, 10)])

    def test_one(self) -> None:
        """The page of an instance has all that the list knows, and nothing of it is a command."""
        self.press("j", "k", "enter")
        text = "\n".join(self.text())
        for word in ("web-1-01", "Health", "team=shop\\x1b[2J", "at most 1.00 processors"):
            self.assertIn(word, text)
        self.view.update([], {}, {})
        self.assertIn("This instance is gone", "\n".join(self.text()))

    def test_keys(self) -> None:
        """The page of keys has all of them."""
        self.press("?")
        text = "\n".join(self.text())
        for keys, what in KEYS:
            self.assertIn(f"{keys:14}{what}", text)

    def test_trouble(self) -> None:
        """If the manager does not answer, what was known stays, and the last line says why."""
        self.view.trouble = "No answer:\n\x1b[31mred"
        lines = self.text()
        self.assertEqual(lines[-1], "No answer:; \\x1b[31mred")
        self.assertTrue(lines[2].startswith("web-1"))


class KeyTests(ViewCase):
    """What keys do."""

    def test_moves(self) -> None:
        """They choose an instance, and stop at both ends."""
        for key, chosen in (("j", "web-2"), ("j", "db"), ("j", "db"), ("g", "web-1"), ("G", "db")):
            self.press(key)
            self.assertEqual(self.view.chosen, chosen)
        self.press("k", "k", "k")
        self.assertEqual(self.view.chosen, "web-1")

    def test_actions(self) -> None:
        """What needs the terminal is asked for, of the chosen instance."""
        self.assertEqual(self.press("l"), Action("logs", "web-1"))
        self.assertEqual(self.press("j", "s"), Action("shell", "web-2"))
        self.assertEqual(self.press("enter", "e"), Action("explain", "web-2"))

    def test_leave(self) -> None:
        """q and Ctrl-C go back from a page, and leave from the list."""
        for key in ("q", "^C"):
            self.press("?", key)
            self.assertEqual(self.view.page, "list")
            self.assertEqual(self.press(key), Action("quit"))

    def test_filter(self) -> None:
        """The list has what fits the text, while it is typed too; other keys are part of it."""
        self.press("/", "W", "e", "b", "q", "backspace", "-", "2")
        self.assertEqual([one["instance"] for one in self.view.shown], ["web-2"])
        self.assertEqual(self.text()[-1], "/Web-2_")
        self.press("enter")
        self.assertEqual(self.press("l"), Action("logs", "web-2"))
        self.press("esc")
        self.assertEqual(len(self.view.shown), 3)
        self.press("/", "e", "n", "d", "e", "d", "^C")
        self.assertEqual(len(self.view.shown), 3)

    def test_nothing_fits(self) -> None:
        """With nothing in the list, no key does harm."""
        self.press("/", *"nobody", "enter")
        for key in ("j", "G", "enter", "l", "s", "e", "resize", "x"):
            self.assertIsNone(self.press(key))
        self.assertTrue(self.text())

    def test_gone(self) -> None:
        """If the chosen instance is gone, the first one is chosen."""
        self.press("G")
        self.view.update([record("web-1")], {}, {})
        self.assertEqual(self.press("l"), Action("logs", "web-1"))


class SparklineTests(SynchronousTestCase):
    """Bars."""

    def test_table(self) -> None:
        """The largest is the highest; what is unknown is blank."""
        for values, width, drawn in (
            ([], 3, "   "),
            ([0, 0], 2, "__"),
            ([None, 1, 2], 4, "  +@"),
            ([9, 1, 2], 2, "+@"),
            ([1], 0, ""),
        ):
            self.assertEqual(sparkline(values, width, ASCII_BARS), drawn)


class Teller:
    """A manager that has one instance, and answers a question about the host with a status."""

    def __init__(self, status: int) -> None:
        self.status = status

    async def instances(self) -> list[Any]:
        """List the instance."""
        return [record("web-1")]

    async def ask(self, method: str, path: str, shape: Any) -> Any:
        """Tell what instances have used, and nothing of the host."""
        if path == "/host":
            raise Refused(self.status, "why")
        return {"instances": {}}


class FetchTests(SynchronousTestCase):
    """What is shown of what the manager tells."""

    def test_no_host(self) -> None:
        """One that is too old to tell how its host is, is no trouble; one that can't is."""
        for status, trouble, shown in ((404, "", 1), (500, "why", 0)):
            view = View()
            self.successResultOf(Deferred.fromCoroutine(fetch(cast(Any, Teller(status)), view)))
            self.assertEqual((view.trouble, len(view.shown)), (trouble, shown))


class CommandTests(Session):
    """`txcontain top` without a terminal."""

    def test_no_terminal(self) -> None:
        """It says what does without."""
        self.assertEqual((self.run_command("top"), self.out), (2, ""))
        self.assertIn("`txcontain stats` does not", self.err)
