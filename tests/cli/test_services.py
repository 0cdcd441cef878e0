"""`txcontain up`, `down`, `services` and so on, against a fake manager in memory."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.cli.session import Session
from txcontain.cli import services
from txcontain.cli.client import Client
from txcontain.cli.errors import HungUp

STACK = b'{"stack": "shop", "services": {}}'
PLAN = {
    "stack": "shop",
    "changes": ["add app: app-1-4"],
    "steps": [{"step": "launch", "service": "app", "instance": "a", "text": "launch a"}],
}
EVENT = {"what": "service", "reason": "launch a", "stack": "shop", "service": "app"}
DONE: dict[str, Any] = {"outcome": "done", "wrong": []}
FAILED = {"outcome": "failed", "wrong": ["app: rolled back: it is unhealthy"]}
APP = {
    "service": "shop-app",
    "config": "app-1-4",
    "state": "rolled back",
    "why": "it is unhealthy",
    "replicas": 3,
    "running": 3,
    "serving": 2,
    "ports": ["127.0.0.1:80->8000/tcp"],
    "schedule": None,
    "next": None,
}
JOB = {**APP, "service": "shop-job", "state": "done", "why": "", "replicas": None, "ports": []}


def lines(*values: Any) -> bytes:
    """Values as the manager sends them."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


class ServicesTests(Session):
    """The commands."""

    def setUp(self) -> None:
        super().setUp()
        self.file = str(Path(self.mktemp()).absolute()) + ".json"
        Path(self.file).write_bytes(STACK)

    def test_up(self) -> None:
        """What changes and what happens is shown; the status is 0 if all is as wished."""
        self.manager.answers_to("POST /stacks?wait=1", lines(PLAN, EVENT, DONE))
        self.assertEqual(self.run_command("up", self.file), 0, self.err)
        self.assertEqual(self.out, "add app: app-1-4\napp: launch a\n")
        self.assertEqual(self.manager.asked[-1], ("POST /stacks?wait=1", STACK))

    def test_failed(self) -> None:
        """Whatever is not as wished is told on stderr, and the status is 1."""
        for path, words in (
            ("POST /stacks", ["up", self.file]),
            ("DELETE /stacks/shop", ["down", "shop"]),
            ("POST /services/app/update", ["update", "app", "1", "5"]),
            ("POST /services/app/rollback", ["rollback", "app"]),
            ("POST /services/app/scale", ["scale", "app=3"]),
        ):
            self.manager.answers_to(f"{path}?wait=1", lines(PLAN, FAILED))
            self.assertEqual(self.run_command(*words), 1)
        self.assertEqual(self.err, "app: rolled back: it is unhealthy\n" * 5)

    def test_where_to_look(self) -> None:
        """On a terminal, whoever sees that something is wrong is told how to see more of it."""
        self.patch(self.stderr, "isatty", lambda: True)
        hint = (
            "`txcontain ps service:shop-app` shows its instances, "
            "`txcontain logs service:shop-app` what they have written.\n"
        )
        self.manager.answers_to("POST /stacks?wait=1", lines(PLAN, FAILED))
        self.assertEqual(self.run_command("up", self.file), 1)
        self.assertEqual(self.err, "app: rolled back: it is unhealthy\n" + hint)
        self.manager.answers_to("GET /services", {"services": [JOB, APP]})
        self.assertEqual(self.run_command("services"), 0)
        self.assertIn("`txcontain ps service:shop-job`", self.err)

    def test_cut_short(self) -> None:
        """A manager that ends meanwhile is told of."""
        self.manager.answers_to("POST /stacks?wait=1", lines(PLAN, EVENT))
        self.assertEqual(self.run_command("up", self.file), 1)
        self.assertIn("The next one goes on with it", self.err)

    def test_killed(self) -> None:
        """So is one that is killed, once it has said what it begins to do."""
        for said, told in (([], "run this command again"), ([PLAN], "goes on with it")):

            async def stream(*_: Any, said: Any = said, **__: Any) -> AsyncIterator[bytes]:
                yield lines(*said)
                raise HungUp("Hung up: run this command again.")

            self.patch(Client, "stream", stream)
            self.assertEqual(self.run_command("up", self.file), 1)
            self.assertIn(told, self.err.splitlines()[-1])

    def test_detached(self) -> None:
        """With -d it is only begun."""
        self.manager.answers_to("POST /stacks", PLAN)
        self.assertEqual(self.run_command("up", "-d", self.file), 0)
        self.assertEqual(self.out, "add app: app-1-4\nlaunch a\n")

    def test_diff(self) -> None:
        """diff shows what up would do."""
        self.manager.answers_to("POST /stacks?dry_run=1", PLAN)
        self.assertEqual(self.run_command("diff", self.file), 0)
        self.manager.answers_to("POST /stacks?dry_run=1", {**PLAN, "changes": [], "steps": []})
        self.assertEqual(self.run_command("diff", self.file), 0)
        self.assertEqual(self.out, "add app: app-1-4\nlaunch a\nnothing to do\n")

    def test_no_file(self) -> None:
        """A file that can't be read is named."""
        self.assertEqual(self.run_command("up", "/no/file"), 1)
        self.assertEqual(
            self.err.strip(), "The stack /no/file can't be read: No such file or directory."
        )

    def test_wrong_words(self) -> None:
        """What can't name a service, or is no number, is a usage error."""
        for words in (["down", "a/b"], ["scale", "app"], ["scale", "app=x"], ["scale", "-=1"]):
            self.assertRaises(SystemExit, self.run_command, *words)

    def test_twice(self) -> None:
        """Two numbers for one service are refused, before anything is asked for."""
        self.assertEqual(self.run_command("scale", "app=2", "app=3"), 2)
        self.assertIn("app is named twice: give it one number.", self.err)
        self.assertEqual(self.manager.asked, [])

    def test_services(self) -> None:
        """A row for each service, and what went wrong."""
        self.patch(services.time, "localtime", lambda when: (2026, 1, 2, 3, 4, 0, 0, 0, 0))
        answer = {"services": [APP, {**JOB, "next": 7}]}
        self.manager.answers_to("GET /services", answer)
        self.assertEqual(self.run_command("services"), 0)
        rows = [line.split("  ") for line in self.out.splitlines()]
        cells = [[cell.strip() for cell in row if cell] for row in rows]
        self.assertEqual(cells[1][3:], ["2/3", "127.0.0.1:80->8000/tcp", "-"])
        self.assertEqual(cells[2][3:], ["-", "-", "2026-01-02 03:04"])
        self.assertEqual(self.err, "shop-app: it is unhealthy\n")
        self.assertEqual(self.run_command("services", "--json"), 0)
        self.assertEqual(json.loads(self.out.splitlines()[3]), APP)
