"""Programs of this machine, and what is needed to run one inside an image's file tree.

There is no dynamic loader there, or only the image's own. So the loader is named on the command
line, and told where the libraries are (ld.so(8)).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from attrs import frozen

from txcontain.errors import MachineAtFault

# The first bytes of a compressed file, and what has compressed it.
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x1f\x9d": "compress",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x5d\0\0": "xz",
    b"(\xb5/\xfd": "zstd",
    b"LZIP": "lzip",
    b"\x89LZO": "lzop",
}
# The PROGRAMs that decompress by `PROGRAM -d`, the fastest first, where it is not the one that has
# compressed. igzip is a part of Intel's ISA-L, and up to three times as fast as gzip.
PROGRAMS = {"gzip": ("igzip", "gzip"), "compress": ("gzip",)}


@frozen
class Program:
    """A program, with the absolute paths of all files that are needed to start it."""

    path: str
    loader: str = ""  # empty if it is linked statically
    libraries: tuple[str, ...] = ()

    @property
    def folders(self) -> set[str]:
        """The folders of these files."""
        return {os.path.dirname(path) for path in (self.path, self.loader, *self.libraries) if path}

    def command(self, root: str) -> list[str]:
        """The command that starts it if its folders are below ``root``."""
        if not self.loader:
            return [root + self.path]
        folders = dict.fromkeys(os.path.dirname(path) for path in self.libraries)
        places = ":".join(root + folder for folder in folders)
        return [root + self.loader, "--library-path", places, root + self.path]


def find(name: str) -> Program:
    """This machine's program of this name.

    Raises MachineAtFault if it has none.
    """
    path = _path_of(name)
    if path is None:
        raise MachineAtFault(f"this machine has no {name}", "install it")
    real = os.path.realpath(path)
    # As ldd(1) does. (A program without a loader runs; ours do nothing without arguments.)
    told = subprocess.run(
        [real],
        env={"LD_TRACE_LOADED_OBJECTS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout
    loader = re.search(r"^\s*(/\S+) \(0x", told, re.MULTILINE)
    if loader is None:
        return Program(real)
    libraries = re.findall(r"=> (/\S+) \(0x", told)
    return Program(real, os.path.realpath(loader[1]), tuple(map(_in_real_folder, libraries)))


def find_decompressor(compression: str) -> Program | None:
    """This machine's program for a kind of compression; None if that is empty.

    Raises MachineAtFault if it has none.
    """
    if not compression:
        return None
    *faster, usual = PROGRAMS.get(compression, (compression,))
    return find(next((name for name in faster if _path_of(name)), usual))


def _path_of(name: str) -> str | None:
    return shutil.which(name, path=os.defpath)


def _in_real_folder(path: str) -> str:
    """A library by the name that programs use, which may be a link beside the file."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def compression_of(path: str) -> str:
    """What a file is compressed by; empty if it is not compressed."""
    with open(path, "rb") as file:
        return compression_in(file.read(8))


def compression_in(start: bytes) -> str:
    """The same, for the first 8 bytes of something."""
    return next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), "")
