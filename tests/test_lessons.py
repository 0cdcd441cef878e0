"""How the lessons are written, and read by what runs them (txcontain/cli/lesson.py)."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import PROJECT
from txcontain.cli.lesson import Block, blocks_of, exercise_of, masked, pages, plain

PAGES = pages()
ONE_SCREEN = 110  # lines, with the exercise and its solution


class Pages(SynchronousTestCase):
    """What every lesson has."""

    def test_their_order(self) -> None:
        """The lessons have numbers without gaps, and their list has all of them, in order."""
        listed = (PAGES[0].parent / "README.md").read_text()
        lines = []
        for number, page in enumerate(PAGES, 1):
            self.assertEqual(page.name[:3], f"{number:02}-")
            heading = page.read_text().splitlines()[0]
            self.assertTrue(heading.startswith(f"# {number}. "), heading)
            lines.append(f"{heading.removeprefix('# ').replace(' ', ' [', 1)}]({page.name})")
        self.assertIn("\n".join(lines) + "\n\n", listed)

    def test_what_each_has(self) -> None:
        """A lesson is no longer than a screen or two, and ends with an exercise, solved."""
        for page in PAGES:
            lines = page.read_text().splitlines()
            self.assertLessEqual(len(lines), ONE_SCREEN, page.name)
            self.assertEqual(lines.count("## Exercise"), 1, page.name)
            self.assertEqual(lines[-1], "</details>", page.name)
            for part in exercise_of(page.read_text()):
                self.assertIn("```console", part, page.name)
            checks = ["check" in block.words for block in blocks_of(page.read_text())]
            self.assertEqual(checks[-2:], [True, False], page.name)
            self.assertNotIn(True, checks[:-2], page.name)

    def test_every_block_is_run(self) -> None:
        """A lesson has no block of commands but those that are run, each a command and more."""
        for page in PAGES:
            text = page.read_text()
            self.assertEqual(text.count("```"), 2 * len(blocks_of(text)), page.name)
            for block in blocks_of(text):
                self.assertTrue(block.commands, page.name)

    def test_files_that_are_named(self) -> None:
        """A file of the project that a lesson names is there."""
        for page in PAGES:
            for path in re.findall(r"`((?:txcontain|cli|tests)/[\w/.]+)[ `]", page.read_text()):
                self.assertTrue((PROJECT / path).is_file(), f"{page.name}: {path}")


class Reading(SynchronousTestCase):
    """How a page is read."""

    def test_blocks(self) -> None:
        """Commands have further lines and output; words say what is not compared."""
        page = (
            "a\n```console pids\n# a <<END\n> b\n> END\nc\n\nd\n# e\n```\n\n```console\n# f\n```\n"
        )
        first, second = blocks_of(page)
        self.assertEqual(first, Block(["pids"], [("a <<END\n> b\n> END", "c\n\nd\n"), ("e", "")]))
        self.assertEqual(second, Block([], [("f", "")]))
        self.assertEqual(plain(first.commands[0][0]), "a <<END\nb\nEND")

    def test_masks(self) -> None:
        """What differs from run to run is left out only if the block says so."""
        for words, output, expected in (
            ([], "  1 a  mnt:[12]", "  1 a  mnt:[12]"),
            (["pids"], "  1 a2  3", " <pids> a2 <pids>"),
            (["namespaces"], "mnt:[12]", "mnt:<namespaces>"),
            (["times"], "12:30 Nov  2 1", "<times> <times> 1"),
            (["check"], "1  a", "1 a"),
        ):
            self.assertEqual(masked(output, words), expected)
