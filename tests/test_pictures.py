"""The pictures of docs/architecture.md, which are drawn from the code."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SCRIPT = Path(__file__).resolve().parents[1] / "scripts/make-pictures"


class Pictures(SynchronousTestCase):
    """What scripts/make-pictures draws."""

    def test_up_to_date(self) -> None:
        """The page shows the rooms, and the life of an instance, as the code has them."""
        command = [sys.executable, str(SCRIPT), "--check"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
