"""Real processes for tests: children that end with the test."""

import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host.kernel import Kernel


class ChildrenCase(SynchronousTestCase):
    """Starts children that end with the test."""

    def setUp(self) -> None:
        self.kernel = Kernel()

    def start(self, *command: str, **options: Any) -> Any:
        """A child that ends when its stdin is closed."""
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, **options)
        self.addCleanup(self.end, child)
        return child

    def start_shell(self, script: str) -> Any:
        """A shell that runs a script, and then waits; returns it and the line that it wrote.

        What the script starts with ``&`` finds its stdin as descriptor 3: as 0 it has none.
        """
        child = self.start("sh", "-c", f"exec 3<&0\n{script}\necho $!\nread line || exit 3")
        return child, child.stdout.readline().decode().strip()

    def end(self, child: Any) -> None:
        """Let a child end, and see it off."""
        child.stdin.close()
        child.stdout.close()
        child.wait(10)
