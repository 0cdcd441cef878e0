"""Commands for configs, and launches beyond the course's, against a fake manager in memory."""

import json

from tests.cli.session import Session

LAUNCHED = {"instance": "front", "name": "web", "major": "1", "minor": "10"}
WEB = {"name": "web", "major": "1", "minor": "10"}
PROBLEM = {"title": "Conflict", "detail": "web-1-10.cfg is in use", "chain": ["by a", "destroy it"]}


class ConfigTests(Session):
    """configs ls, show and rm."""

    def test_ls(self) -> None:
        """The configs are a table, in the order of the manager; without a word too."""
        kept = [{**WEB, "minor": "9", "instances": []}, {**WEB, "instances": ["a", "b"]}]
        self.manager.answers_to("GET /configs", {"configs": kept})
        for words in (("configs",), ("configs", "ls"), ("config", "ls")):
            self.stdout.seek(0)
            self.stdout.truncate(0)
            self.assertEqual(self.run_command(*words), 0)
            self.assertEqual(
                self.out,
                "NAME  MAJOR  MINOR  INSTANCES\nweb   1      9      -\nweb   1      10     a b\n",
            )

    def test_show(self) -> None:
        """A config is printed byte for byte; a terminal gets no control character."""
        document = b'{"name": "\xff\x1b[2J" }\r\n'
        self.manager.answers_to("GET /configs/web-1-10", document)
        self.assertEqual(self.run_command("configs", "show", "web-1-10.cfg"), 0)
        self.stdout.flush()
        self.assertEqual(self.stdout.buffer.getvalue(), document)
        self.stdout.buffer.truncate(0)
        self.stdout.buffer.seek(0)
        self.patch(self.stdout, "isatty", lambda: True)
        self.assertEqual(self.run_command("configs", "show", "web-1-10"), 0)
        self.assertIn("\\x1b[2J", self.out)

    def test_rm(self) -> None:
        """Each config that was removed is named; a refusal is told."""
        self.manager.answers_to("DELETE /configs/a-1-1")
        self.manager.answers_to(
            "DELETE /configs/web-1-10", PROBLEM, status=409, Content_Type="application/problem+json"
        )
        self.assertEqual(self.run_command("configs", "rm", "a-1-1", "web-1-10"), 1)
        self.assertEqual(self.out, "a-1-1\n")
        self.assertEqual(self.err, "Conflict: web-1-10.cfg is in use\n  by a\n  destroy it\n")

    def test_no_config(self) -> None:
        """What can't be a config is a usage error."""
        for name in ("web", "web-1", "a/b-1-1", "", "a b-1-1"):
            self.assertRaises(SystemExit, self.run_command, "configs", "show", name)
        self.assertIn("is not NAME-MAJOR-MINOR", self.err)


class LaunchTests(Session):
    """launch without a version, and with a name."""

    def test_newest(self) -> None:
        """Without a minor or a major, the manager finds the newest."""
        self.manager.answers_to("POST /instances", LAUNCHED)
        for words, asked in (
            (["web"], {"config": "web"}),
            (["web", "1"], {"config": "web", "major": "1"}),
            (["web", "--name", "front"], {"config": "web", "instance": "front"}),
            (
                ["--name=front", "web", "1", "10"],
                {"config": "web", "major": "1", "minor": "10", "instance": "front"},
            ),
        ):
            self.assertEqual(self.run_command("launch", *words), 0)
            self.assertEqual(json.loads(self.manager.asked[-1][1]), asked)
        self.assertEqual(self.out, "Success: front\n" * 4)
