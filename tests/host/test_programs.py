"""Programs of the host that run beside the reactor."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from txcontain.host.programs import complaint_of


class ProgramTests(TestCase):
    """Every end of a program is told in words."""

    def run_shell(self, script: str, stdin: Any = None) -> Any:
        """The words for the end of a shell."""
        return Deferred.fromCoroutine(complaint_of(reactor, "/bin/sh", ["-c", script], stdin))

    async def test_ends(self) -> None:
        """A success, a status, a complaint and a signal."""
        for script, wanted in (
            ("exit 0", ""),
            ("echo no >&2", ""),
            ("exit 3", "exit status 3"),
            ("echo no >&2; exit 3", "no"),
            ("kill -9 $$", "killed by signal 9"),
            ("echo no >&2; kill -9 $$", "no"),
        ):
            self.assertEqual(await self.run_shell(script), wanted, script)

    async def test_too_slow(self) -> None:
        """One that takes too long is ended, and named."""
        said = await complaint_of(reactor, "/bin/cat", ["/dev/zero"], within=0.1)
        self.assertEqual(said, "/bin/cat did not end within 0.1 s")

    async def test_stdin(self) -> None:
        """It is given what it is to read."""
        self.assertEqual(await self.run_shell("cat >&2; exit 1", b"words"), "words")
