"""The disk, as the commands show it, and ask before they remove."""

import io
import json
import sys

from tests.cli.session import Session

WEB = {"instance": "web-1", "state": "running", "bytes": 3 << 20, "logs": 1 << 20}
JOB = {"instance": "job-1", "state": "ended", "bytes": 2048, "logs": 1024}
USED = {"layer": "0123456789abcdef", "tarball": "base.tgz", "bytes": 1 << 30, "used": True}
UNUSED = {"layer": "fedcba9876543210", "tarball": "", "bytes": 1024, "used": False}
DATA = {"volume": "pgdata", "bytes": 4 << 20, "used": True}
OLD = {"volume": "old", "bytes": None, "used": False}
DF = {
    "images": [{"folder": "base_images", "image": "base\x1b.tgz", "bytes": 5 << 20}],
    "layers": [USED, UNUSED],
    "volumes": [DATA, OLD],
    "instances": [WEB, JOB],
    "whole": True,
}
PRUNED = {"instances": [JOB], "layers": [UNUSED], "volumes": [], "bytes": 3072}


class DfTests(Session):
    """`txcontain df`."""

    def test_sums(self) -> None:
        """A line for each kind of thing says how many, how much, and how much could go."""
        self.manager.answers_to("GET /df", DF)
        self.assertEqual((self.run_command("df"), self.err), (0, ""))
        self.assertEqual(
            self.out.splitlines(),
            [
                "TYPE        COUNT  SIZE  NOT IN USE",
                "images      1      5.0M  -",
                "layers      2      1.0G  1.0K",
                "volumes     2      4.0M  0B",
                "instances   2      3.0M  2.0K",
                "their logs  -      1.0M  1.0K",
            ],
        )

    def test_each(self) -> None:
        """With -v each thing is a line, escaped."""
        self.manager.answers_to("GET /df", DF)
        self.assertEqual(self.run_command("df", "-v"), 0)
        self.assertEqual(
            self.out.splitlines(),
            [
                "TYPE      NAME                                SIZE  IN USE",
                "image     base_images/base\\x1b.tgz            5.0M  -",
                "layer     0123456789ab of base.tgz            1.0G  yes",
                "layer     fedcba987654 of an unknown tarball  1.0K  no",
                "volume    pgdata                              4.0M  yes",
                "volume    old                                 -     no",
                "instance  web-1                               3.0M  running",
                "its logs  web-1                               1.0M",
                "instance  job-1                               2.0K  ended",
                "its logs  job-1                               1.0K",
            ],
        )

    def test_json(self) -> None:
        """With --json the answer is passed on; that it is not whole is said on stderr."""
        self.manager.answers_to("GET /df", {**DF, "whole": False})
        self.assertEqual(self.run_command("df", "--json"), 0)
        self.assertEqual(json.loads(self.out), {**DF, "whole": False})
        self.assertEqual(self.err, "There are too many files to count them all: it is more.\n")


class PruneTests(Session):
    """`txcontain prune`."""

    def setUp(self) -> None:
        super().setUp()
        self.manager.answers_to("POST /prune", PRUNED)

    def asked(self) -> list[bool]:
        """Return for each request whether it was a dry run."""
        return [json.loads(body)["dry_run"] for _, body in self.manager.asked]

    def type_in(self, words: str, terminal: bool = True) -> None:
        """Type at the keyboard."""
        keyboard = io.StringIO(words)
        self.patch(keyboard, "isatty", lambda: terminal)
        self.patch(sys, "stdin", keyboard)

    def test_forced(self) -> None:
        """With --force it says what is not needed, removes that, and says so."""
        self.assertEqual((self.run_command("prune", "-f"), self.err), (0, ""))
        self.assertEqual(self.asked(), [True, False])
        self.assertEqual(
            self.out.splitlines(),
            [
                "Not needed any more, 3.0K in all:",
                "TYPE      NAME                                SIZE",
                "instance  job-1                               2.0K",
                "layer     fedcba987654 of an unknown tarball  1.0K",
                "Removed 3.0K (instances: 1, layers: 1, volumes: 0).",
            ],
        )

    def test_volumes(self) -> None:
        """Volumes are removed only if they are asked for."""
        self.manager.answers_to("POST /prune", {**PRUNED, "volumes": [OLD]})
        self.assertEqual(self.run_command("prune", "-f", "--volumes"), 0)
        asked = [json.loads(body)["volumes"] for _, body in self.manager.asked]
        self.assertEqual(asked, [True, True])
        self.assertIn("\nvolume    old                                 -\n", self.out)
        self.assertIn("volumes: 1).", self.out)

    def test_dry_run(self) -> None:
        """With --dry-run nothing is removed, even by force."""
        self.assertEqual(self.run_command("prune", "--dry-run", "-f"), 0)
        self.assertEqual(self.asked(), [True])

    def test_answers(self) -> None:
        """On a terminal it asks; only a yes is one."""
        for words, removes in (("y\n", True), ("Yes\n", True), ("\n", False), ("", False)):
            self.type_in(words)
            self.manager.asked.clear()
            self.assertEqual(self.run_command("prune"), 0)
            self.assertEqual(self.asked(), [True, *[False] * removes], words)
            self.assertIn("Remove it? [y/N] ", self.out)

    def test_nobody_to_ask(self) -> None:
        """Elsewhere it is an error, and nothing is removed."""
        self.type_in("y\n", terminal=False)
        self.assertEqual(self.run_command("prune"), 1)
        self.assertEqual(self.asked(), [True])
        self.assertIn("Nothing was removed: there is no terminal to ask at.", self.err)

    def test_nothing(self) -> None:
        """If all is needed it says so, and asks nothing."""
        self.manager.answers_to("POST /prune", {key: [] for key in PRUNED} | {"bytes": 0})
        self.assertEqual(
            (self.run_command("prune"), self.out), (0, "There is nothing to remove.\n")
        )
