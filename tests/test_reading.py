"""The guide to the code (docs/reading.md), held against the code."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import PROJECT

HOURS = ("First", "Second", "Third", "Fourth")
GUIDE = (PROJECT / "docs/reading.md").read_text()


class Reading(SynchronousTestCase):
    """What the guide names is there."""

    def test_files(self) -> None:
        """Every file that it names exists."""
        paths = re.findall(r"`((?:txcontain|tests)/[\w/.]+)`", GUIDE)
        self.assertGreater(len(paths), 10)
        for path in paths:
            self.assertTrue((PROJECT / path).is_file(), path)

    def test_functions(self) -> None:
        """Every function that an hour names is in the file that the hour's heading names."""
        hours = re.findall(r"^## (\w+) hour: `(.+)`\n((?:(?!## ).*\n)*)", GUIDE, re.MULTILINE)
        self.assertEqual(tuple(hour for hour, _, _ in hours), HOURS)
        for _, path, text in hours:
            code = (PROJECT / path).read_text()
            names = re.findall(r"`(\w+)\(\)`", text)
            self.assertGreater(len(names), 4, path)
            for name in names:
                self.assertRegex(code, rf"\bdef {name}\(", path)

    def test_names(self) -> None:
        """So is every class, constant and attribute that it names there."""
        for path, text in re.findall(r"hour: `(.+)`\n((?:(?!## ).*\n)*)", GUIDE):
            code = (PROJECT / path).read_text()
            names = re.findall(r"`(?:[a-z]+\.)?([A-Z]\w+|(?<=\.)[a-z]\w+)`", text)
            for name in names:
                self.assertRegex(code, rf"\b{name}\b", f"{path}: {name}")

    def test_stops(self) -> None:
        """Stops are numbered from 1 on; each has a question, and an answer to open."""
        stops = re.split(r"^\*\*Stop (\d+):", GUIDE, flags=re.MULTILINE)[1:]
        numbers, texts = stops[::2], stops[1::2]
        self.assertEqual(numbers, [str(number) for number in range(1, len(texts) + 1)])
        for number, text in zip(numbers, texts, strict=True):
            question, answer = text.split("<details><summary>Answer</summary>\n\n")
            self.assertIn("?", question, number)
            self.assertIn(".\n\n</details>", answer, number)
