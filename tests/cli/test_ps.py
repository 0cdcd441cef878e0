"""`txcontain ps`: which instances, and how they are shown."""

import json
import os
import shutil
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.session import Session
from txcontain.cli import main, ps, screen

WEB = {
    "instance": "web-1",
    "name": "web",
    "major": "1",
    "minor": "01",
    "state": "running",
    "since": 1000,
    "ready": True,
    "health": "healthy",
    "port": 80,
    "ports": ["127.0.0.1:8000->80/tcp"],
    "address": "10.1.2.3",
    "pid": 4711,
    "restarts": 0,
    "exit": None,
}
DB = {
    **WEB,
    "instance": "db-1",
    "name": "db",
    "labels": {"team": "a=b"},
    "ready": False,
    "health": None,
    "ports": [],
    "address": None,
}
JOB = {
    **DB,
    "instance": "job-1",
    "name": "job",
    "state": "ended",
    "port": None,
    "pid": None,
    "restarts": 3,
    "exit": {"status": None, "signal": 9, "reason": "out of\n memory\x1b"},
}
PORTS = {"port": 80, "ready": True, "ports": ["127.0.0.1:8000->80/tcp"]}  # of when it ran
CRON = {**JOB, **PORTS, "instance": "cron-1", "name": "cron", "state": "stopped"}
HEAD = (
    "INSTANCE  CONFIG        STATE    READY  HEALTH   AGE  PID   PORTS                   ADDRESS   "
)


class PsTests(Session):
    """The command, with four instances."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(ps.time, "time", lambda: 1075)
        self.manager.answers_to("GET /instances", {"instances": [WEB, DB, JOB, CRON]})

    def says(self, *words: str) -> list[str]:
        """Return the lines that ps prints."""
        before = len(self.out)
        self.assertEqual(self.run_command("ps", *words), 0, self.err)
        return self.out[before:].splitlines()

    def test_table(self) -> None:
        """The table shows what has not come to rest, in columns."""
        self.assertEqual(
            self.says(),
            [
                f"{HEAD}RESTARTS  EXIT",
                "web-1     web-1-01.cfg  running  yes    healthy  1m   4711  "
                "127.0.0.1:8000->80/tcp  10.1.2.3  0         -",
                "db-1      db-1-01.cfg   running  no     -        1m   4711  "
                "-                       -         0         -",
            ],
        )

    def test_all(self) -> None:
        """With -a the ended and stopped ones are there too, without ports; a reason is one line."""
        lines = self.says("-a")
        self.assertEqual(
            [line.split()[0] for line in lines[1:]], ["web-1", "db-1", "job-1", "cron-1"]
        )
        self.assertTrue(lines[3].endswith("  -         3         out of; memory\\x1b"), lines)
        self.assertRegex(lines[4], r"^cron-1 .* stopped  -      -        1m   -     -        ")

    def test_quiet(self) -> None:
        """With -q only the names are printed."""
        self.assertEqual(self.says("-q"), ["web-1", "db-1"])
        self.assertEqual(self.says("-aq"), ["web-1", "db-1", "job-1", "cron-1"])

    def test_json(self) -> None:
        """With --json each record is passed on whole."""
        self.assertEqual([json.loads(line) for line in self.says("--json")], [WEB, DB])

    def test_filter(self) -> None:
        """One of a key's values must fit, and every key; a state may be one that is at rest."""
        for words, names in (
            (["name=b-1"], ["web-1", "db-1"]),
            (["config=web"], ["web-1"]),
            (["config=web-1", "config=db-1-01"], ["web-1", "db-1"]),
            (["config=db-1-01.cfg", "ready=yes"], []),
            (["ready=no"], ["db-1"]),
            (["health=healthy"], ["web-1"]),
            (["health=-"], ["db-1"]),
            (["state=ended"], ["job-1"]),
            (["state=stopped", "state=ended"], ["job-1", "cron-1"]),
            (["state=paused"], []),
            (["state=failed"], []),
            (["label=team"], ["db-1"]),
            (["label=team=a=b"], ["db-1"]),
            (["label=team=a"], []),
        ):
            given = [part for word in words for part in ("--filter", word)]
            self.assertEqual(self.says("-q", *given), names, words)

    def test_named(self) -> None:
        """Only those that are named are shown, each once, also if they are at rest."""
        self.manager.answers_to("GET /instances?match=job", {"instances": [JOB]})
        self.manager.answers_to("GET /instances?match=config%3Aweb", {"instances": [WEB, JOB]})
        self.assertEqual(self.says("-q", "job", "config:web"), ["job-1", "web-1"])
        self.assertEqual(self.says("-q", "job", "--filter", "state=running"), [])
        self.manager.answers_to("GET /instances?match=x", status=404)
        self.assertEqual(self.run_command("ps", "x"), 1)

    def test_paused(self) -> None:
        """A paused instance is called so, and is found by both of its states."""
        self.manager.answers_to("GET /instances", {"instances": [{**WEB, "paused": True}]})
        self.assertEqual(self.says("--format", "{{.State}}"), ["paused"])
        for state in ("paused", "running"):
            self.assertEqual(self.says("-q", "--filter", f"state={state}"), ["web-1"])

    def test_format(self) -> None:
        """A template is filled in for each; case and spaces in a field don't matter."""
        lines = self.says("--format", r"{{.Instance}}\t{{ .ports }} {{.READY}}")
        self.assertEqual(lines, ["web-1\t127.0.0.1:8000->80/tcp yes", "db-1\t- no"])

    def test_older_manager(self) -> None:
        """A manager of an earlier version tells less, and is shown all the same."""
        new = ("ready", "health", "port", "ports", "address")
        known = {key: WEB[key] for key in WEB if key not in new}
        self.manager.answers_to("GET /instances", {"instances": [known]})
        self.assertIn("running  -      -       1m   4711  -      -        0", self.says()[1])

    def test_wrong_words(self) -> None:
        """A filter or a field that does not exist is a usage error that names those that do."""
        keys = "is no KEY=VALUE with one of these keys: name, config, state, ready, health, label"
        for words, said in (
            (["--filter", "colour=red"], f"'colour=red' {keys}"),
            (["--filter", "web"], f"'web' {keys}"),
            (["--filter", "ready=true"], "there is no ready 'true': it is one of yes, no, -"),
            (["--format", "{{.Colour}}"], "there is no field .Colour: the fields are .Instance, "),
            (["--format", "{{json .}}"], "'{{json .}}': write a field as {{.Instance}}"),
        ):
            self.assertEqual(self.assertRaises(SystemExit, main.parse, ["ps", *words], {}).code, 2)
            self.assertIn(said, self.err)


class ScreenTests(SynchronousTestCase):
    """Tables on a terminal."""

    rows: ClassVar[list[list[str]]] = [
        ["NAME", "STATE", "EXIT"],
        ["running", "running", "-"],
        ["a", "new", "x" * 9],
    ]

    def test_width(self) -> None:
        """A line that is longer than the terminal is wide is cut, and says so."""
        self.assertEqual(
            screen.screen_lines(self.rows, 20, colour=False),
            ["NAME     STATE    E…", "running  running  -", "a        new      x…"],
        )

    def test_colour(self) -> None:
        """The head is bold, and a state has a colour; a name never has."""
        head, first, second = screen.screen_lines(self.rows, 80, colour=True)
        self.assertEqual(head, "\x1b[1mNAME     STATE    EXIT\x1b[m")
        self.assertEqual(first, "running  \x1b[32mrunning\x1b[m  -")
        self.assertEqual(second, "a        new      xxxxxxxxx")

    def test_cut_state(self) -> None:
        """A state that is cut off has no colour."""
        self.assertEqual(screen.screen_lines(self.rows, 12, colour=True)[1], "running  ru…")

    def test_wanted(self) -> None:
        """NO_COLOR, if it is not empty, and a terminal that can't, are respected."""
        for environment, wanted in (
            ({"TERM": "xterm"}, True),
            ({"NO_COLOR": "", "TERM": "xterm"}, True),
            ({"NO_COLOR": "1", "TERM": "xterm"}, False),
            ({"TERM": "dumb"}, False),
        ):
            self.patch(os, "environ", environment)
            self.assertEqual(screen.has_colour(), wanted, environment)


class TerminalTests(Session):
    """What is printed on a terminal, and what elsewhere."""

    def test_both(self) -> None:
        """Only a terminal gets lines that are cut."""
        rows = [["NAME", "EXIT"], ["web", "x" * 200]]
        self.patch(shutil, "get_terminal_size", lambda: os.terminal_size((40, 20)))
        self.patch(os, "environ", {"NO_COLOR": "1"})
        screen.show_table(rows)
        self.patch(self.stdout, "isatty", lambda: True)
        screen.show_table(rows)
        plain, cut = self.out.splitlines()[1::2]
        self.assertEqual((len(plain), len(cut)), (206, 40))

    def test_hostile(self) -> None:
        """What stands in a cell can neither command a terminal nor look like another row."""
        for terminal in (False, True):
            self.patch(self.stdout, "isatty", lambda terminal=terminal: terminal)
            self.patch(os, "environ", {"NO_COLOR": "1"})
            screen.show_table([["NAME", "EXIT"], ["web", "\x1b[2J\ndb  -"]])
        self.assertEqual(self.out.splitlines()[1::2], ["web   \\x1b[2J; db  -"] * 2)


class DocumentTests(SynchronousTestCase):
    """docs/cli.md."""

    def test_columns_and_filters(self) -> None:
        """It names each field of a template, and each key of a filter."""
        text = (Path(__file__).resolve().parents[2] / "docs/cli.md").read_text()
        names = [*(f"`{column}`" for column in ps.COLUMNS), *(f"`{key}=`" for key in ps.FILTERS)]
        self.assertEqual([name for name in names if name not in text], [])
