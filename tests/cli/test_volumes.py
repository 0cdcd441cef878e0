"""`txcontain volumes`, against a fake manager in memory."""

import json
from pathlib import Path

from tests.cli.session import Session

VOLUME = {"volume": "pg", "created": 0, "size": 2048, "bound": None, "used_by": ["db-1", "db-2"]}


class VolumeTests(Session):
    """What it prints."""

    def test_ls(self) -> None:
        """A table, in which what is not known is a dash."""
        unused = {**VOLUME, "volume": "x", "size": None, "bound": 1 << 30, "used_by": []}
        self.manager.answers_to("GET /volumes", {"volumes": [VOLUME, unused]})
        self.assertEqual(self.run_command("volumes", "ls"), 0)
        head, first, second = self.out.splitlines()
        self.assertEqual(head.split(), ["VOLUME", "SIZE", "BOUND", "AGE", "USED", "BY"])
        users = ["db-1,", "db-2"]
        self.assertEqual([*first.split()[:3], *first.split()[4:]], ["pg", "2.0K", "-", *users])
        self.assertEqual(second.split()[1:3] + second.split()[4:], ["-", "1.0G", "-"])

    def test_only_names(self) -> None:
        """For a script there are only the names."""
        self.manager.answers_to("GET /volumes", {"volumes": [VOLUME, {**VOLUME, "volume": "x"}]})
        self.assertEqual(self.run_command("volumes", "ls", "-q"), 0)
        self.assertEqual(self.out, "pg\nx\n")

    def test_inspect(self) -> None:
        """All that is known, as JSON."""
        self.manager.answers_to("GET /volumes/pg", VOLUME)
        self.assertEqual(self.run_command("volumes", "inspect", "pg"), 0)
        self.assertIn('"size": 2048', self.out)

    def test_create(self) -> None:
        """One is made, with a bound or without, and named."""
        self.manager.answers_to("PUT /volumes/pg", {"made": "pg"})
        self.assertEqual(self.run_command("volumes", "create", "pg", "--size", "1G"), 0)
        self.assertEqual(self.run_command("volumes", "create", "pg"), 0)
        self.assertEqual(self.out, "pg\npg\n")
        bodies = [json.loads(body) for _, body in self.manager.asked]
        self.assertEqual(bodies, [{"size": "1G"}, {}])

    def test_rm(self) -> None:
        """Each is removed in turn, and named."""
        for name in ("a", "b%2Fc"):
            self.manager.answers_to(f"DELETE /volumes/{name}", {"removed": name})
        self.assertEqual(self.run_command("volumes", "rm", "a", "b/c"), 0)
        self.assertEqual(self.out, "a\nb/c\n")

    def test_wrong_command_lines(self) -> None:
        """A name too few or too many is a wrong command line, and help tells of each command."""
        for words in (("rm",), ("ls", "a"), ("import", "a"), ("export", "a", "b", "c")):
            wrong = self.assertRaises(SystemExit, self.run_command, "volumes", *words)
            self.assertEqual(wrong.code, 2, words)
        helped = self.assertRaises(SystemExit, self.run_command, "help", "volumes", "rm")
        self.assertEqual(helped.code, 0)
        self.assertIn("txcontain volumes rm [", self.out)

    def test_export(self) -> None:
        """A file is there only when it is whole."""
        path = Path(self.mktemp())
        self.manager.answers_to("GET /volumes/pg/export?pause=1", b"tar")
        self.assertEqual(self.run_command("volumes", "export", "pg", str(path), "--pause"), 0)
        self.assertEqual(path.read_bytes(), b"tar")
        self.manager.answers_to("GET /volumes/x/export", b"", 404)
        self.assertEqual(self.run_command("volumes", "export", "x", f"{path}2"), 1)
        self.assertEqual(sorted(path.parent.glob(f"{path.name}2*")), [])
        self.manager.answers_to("GET /volumes/pg/export", b"tar")
        self.assertEqual(self.run_command("volumes", "export", "pg", "-"), 0)
        self.assertEqual(self.out, "tar")
