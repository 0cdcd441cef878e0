"""The pictures of docs/architecture.md, and docs/walls.md, show the code as it is."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from twisted.trial.unittest import SynchronousTestCase

from tests.api.test_resources import WebTestCase

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = PROJECT / "scripts/make-pictures"
ARCHITECTURE = (PROJECT / "docs/architecture.md").read_text()


class Pictures(SynchronousTestCase):
    """What scripts/make-pictures draws."""

    def test_up_to_date(self) -> None:
        """The pages show the rooms, the life of an instance and the walls as the code has them."""
        command = [sys.executable, str(SCRIPT), "--check"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class LaunchTests(WebTestCase):
    """The picture of a launch, which is drawn by hand."""

    def test_calls(self) -> None:
        """Each arrow between two modules is a call that a launch makes, and they come in order."""
        letters = dict(re.findall(r"participant (\w) as (\w+/\w+)$", ARCHITECTURE, re.MULTILINE))
        arrows = re.findall(r"^ +(\w)->>(\w): ", ARCHITECTURE, re.MULTILINE)
        drawn = [(letters[a], letters[b]) for a, b in arrows if a != b and {a, b} <= {*letters}]
        self.assertEqual(len(letters), 5)
        self.add()
        with calls_between([*letters.values()]) as made:
            self.assertEqual(self.post_launch()[0], 200)
        self.assertEqual([call for call in dict.fromkeys(made) if call in drawn], drawn)


@contextmanager
def calls_between(modules: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """All calls from one of these modules to another, also by way of others, in their order."""
    made: list[tuple[str, str]] = []
    paths = {str(PROJECT / f"txcontain/{module}.py"): module for module in modules}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (callee := paths.get(frame.f_code.co_filename)):
            above: FrameType | None = frame.f_back
            while above and above.f_code.co_filename not in paths:
                above = above.f_back
            if above and (caller := paths[above.f_code.co_filename]) != callee:
                made.append((caller, callee))

    sys.setprofile(note)
    try:
        yield made
    finally:
        sys.setprofile(None)
