"""What is needed to run a program of this machine inside an image."""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import MachineAtFault
from txcontain.images import programs
from txcontain.images.programs import (
    COMPRESSIONS,
    Program,
    compression_of,
    find,
    find_decompressor,
)


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


class DecompressorTests(SynchronousTestCase):
    """Which program decompresses."""

    def have(self, *names: str) -> None:
        """The machine has only these programs."""
        self.patch(programs, "_path_of", lambda name: name if name in names else None)
        self.patch(programs, "find", lambda name: Program(name))

    def test_fastest(self) -> None:
        """The fastest program that there is, or the usual one, which is then named if it lacks."""
        for there in (("gzip", "igzip"), ("igzip",)):
            self.have(*there)
            self.assertEqual(find_decompressor("gzip"), Program("igzip"))
        for others in (("gzip",), ()):
            self.have(*others)
            self.assertEqual(find_decompressor("gzip"), Program("gzip"))

    def test_others(self) -> None:
        """What only one program can read is given to that; nothing to none."""
        self.have("gzip", "igzip", "zstd")
        wanted = {"compress": Program("gzip"), "zstd": Program("zstd"), "": None}
        for compression, program in wanted.items():
            self.assertEqual(find_decompressor(compression), program)

    def test_real(self) -> None:
        """Each that this machine has for gzip reads several parts, and refuses cut ones."""
        content = os.urandom(100_000) + bytes(1_000_000)
        packed = gzip.compress(content) + gzip.compress(content[:5000])
        for program in {find("gzip"), find_decompressor("gzip")}:
            assert program is not None
            command = [*program.command(""), "-d"]
            run = subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True)
            self.assertEqual(run.stdout, content + content[:5000])
            cut = subprocess.run(command, input=packed[:90_000], capture_output=True, check=False)
            self.assertTrue(cut.returncode and cut.stderr)


class CompressionTests(SynchronousTestCase):
    """What a file is compressed with."""

    def test_compressions(self) -> None:
        """It is recognised by the first bytes; a file that begins otherwise is not compressed."""
        path = self.mktemp()
        for start, name in [*COMPRESSIONS.items(), (b"", ""), (b"etc/passwd", "")]:
            Path(path).write_bytes(start + b"rest")
            self.assertEqual(compression_of(path), name)
