"""Turns the whiteouts of an image's layer into those of an overlay.

In a tarball a file ``.wh.NAME`` hides NAME of the layers below, and ``.wh..wh..opq`` all that is in
its folder (image-spec, layer.md). For an overlay, that is a character device 0, 0 with the name
NAME, and an attribute of the folder (Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import os
import stat

from txcontain.container.document import shown
from txcontain.errors import ConfigAtFault
from txcontain.images.bounds import FOLDER

PREFIX, SPECIAL, OPAQUE = ".wh.", ".wh..wh.", ".wh..wh..opq"
ATTRIBUTE = "trusted.overlay.opaque"


def convert(what: str, folder: str) -> None:
    """Convert all whiteouts in the file tree of a layer, which nobody else changes.

    Descriptors only: nothing in the tree can lead elsewhere.

    :param what: the layer, for an error
    Raises ConfigAtFault if one of them can be none.
    """
    top = os.open(folder, FOLDER)
    try:
        _convert(what, top)
    finally:
        os.close(top)


def _convert(what: str, folder: int) -> None:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    marks = [entry for entry in found if entry[0].startswith(PREFIX)]
    if marks:
        times = os.stat(folder)
        for name, is_folder in marks:
            _check(what, name, is_folder)
            os.unlink(name, dir_fd=folder)
            _mark(folder, name)
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    for name, is_folder in found:
        if is_folder:
            below = os.open(name, FOLDER, dir_fd=folder)
            try:
                _convert(what, below)
            finally:
                os.close(below)


def _check(what: str, name: str, is_folder: bool) -> None:
    if is_folder:
        raise ConfigAtFault(f"{what} has a folder {shown(name)}: only a file can be a whiteout")
    if name.removeprefix(PREFIX) in ("", ".", ".."):
        raise ConfigAtFault(f"{what} has a whiteout that leads out of its folder: {shown(name)}")


def _mark(folder: int, name: str) -> None:
    if name == OPAQUE:
        os.setxattr(folder, ATTRIBUTE, b"y")
    elif not name.startswith(SPECIAL):  # else it is one of aufs' own files, which mean nothing
        _hide(folder, name.removeprefix(PREFIX))


def _hide(folder: int, name: str) -> None:
    """Hide what the layers below have by this name; what this layer has stays."""
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            own = os.open(name, FOLDER, dir_fd=folder)
            try:
                os.setxattr(own, ATTRIBUTE, b"y")
            finally:
                os.close(own)
