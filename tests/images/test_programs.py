"""What is needed to run a program of this machine inside an image."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import MachineAtFault
from txcontain.images import programs
from txcontain.images.programs import COMPRESSIONS, Program, compression_of, find


class FindTests(SynchronousTestCase):
    """Programs of this machine."""

    def test_starts(self) -> None:
        """The command starts the program, by its loader and with its libraries."""
        for name in ("tar", "gzip"):
            program = find(name)
            said = subprocess.run(
                [*program.command(""), "--version"], stdout=subprocess.PIPE, check=True
            ).stdout
            self.assertIn(name.encode(), said)

    def test_elsewhere(self) -> None:
        """Every path in the command is below the root, in one of the program's folders."""
        program = find("tar")
        for word in program.command("/root"):
            for path in word.split(":") if word.startswith("/") else ():
                self.assertTrue(path.startswith("/root/"))
        for folder in program.folders:
            self.assertEqual(os.path.realpath(folder), folder)

    def test_missing(self) -> None:
        """A missing program is named, with what to do."""
        error = self.assertRaises(MachineAtFault, find, "no-such-program")
        self.assertEqual(error.chain, ("this machine has no no-such-program", "install it"))

    def test_without_a_loader(self) -> None:
        """A statically linked program is run without a loader."""
        path = os.path.realpath(sys.executable)
        self.patch(programs.shutil, "which", lambda name, path: sys.executable)
        self.patch(programs.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=""))
        self.assertEqual(find("static"), Program(path))
        self.assertEqual(find("static").command("/root"), [f"/root{path}"])


class CompressionTests(SynchronousTestCase):
    """What a file is compressed with."""

    def test_compressions(self) -> None:
        """It is recognised by the first bytes; a file that begins otherwise is not compressed."""
        path = self.mktemp()
        for start, name in [*COMPRESSIONS.items(), (b"", ""), (b"etc/passwd", "")]:
            Path(path).write_bytes(start + b"rest")
            self.assertEqual(compression_of(path), name)
