"""The pictures of docs/architecture.md, and docs/walls.md, which are made from the code."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SCRIPT = Path(__file__).resolve().parents[1] / "scripts/make-pictures"


class Pictures(SynchronousTestCase):
    """What scripts/make-pictures draws."""

    def test_up_to_date(self) -> None:
        """The pages show the rooms, the life of an instance and the walls as the code has them."""
        command = [sys.executable, str(SCRIPT), "--check"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
