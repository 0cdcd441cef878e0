"""Looks at layers that lie on each other, as the overlay of them will show them.

Nobody changes a layer. So a path that was looked at part by part leads nowhere else later.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from txcontain.container.facts import Place
from txcontain.errors import ConfigAtFault
from txcontain.images.whiteouts import ATTRIBUTE

MOST_LINKS = 40  # symbolic links in a path, as for the kernel (path_resolution(7))
KERNELS_OWN = {"proc", "sys", "dev"}  # top folders that are never the image's own


def place(layers: Sequence[str], path: str) -> Place:
    """Where ``path`` leads in an image of these layers, the highest first."""
    found = resolve_in(layers, path)
    if found == "/" or found.split("/")[1] in KERNELS_OWN:
        return Place()
    holding = [layer for layer in seen(layers, found) if os.path.isdir(layer + found)]
    holds = any(os.listdir(layer + found) for layer in holding)
    return Place(found, holds, tuple(holding) if len(layers) > 1 else ())


def resolve(path: str, link: Callable[[str], str | None]) -> str:
    """Where a path leads in a file tree that nobody changes.

    :param link: where a path, of which only the last part can be a symbolic link, leads
    Raises ConfigAtFault if it leads in circles.
    """
    parts, found, links = path.split("/")[::-1], "", 0
    while parts:
        part = parts.pop()
        if part == "..":
            found = os.path.dirname(found).rstrip("/")
        elif part not in ("", ".") and (target := link(f"{found}/{part}")) is not None:
            links += 1
            if links > MOST_LINKS:
                raise ConfigAtFault(f"{path} is a symbolic link that leads in circles")
            found = "" if target.startswith("/") else found
            parts += target.split("/")[::-1]
        elif part not in ("", "."):
            found += f"/{part}"
    return found or "/"


def resolve_in(layers: Sequence[str], path: str) -> str:
    """Where a path leads in an image of these layers, the highest first.

    Raises ConfigAtFault if it leads in circles.
    """
    return resolve(path, lambda asked: _link(layers, asked))


def seen(layers: Sequence[str], path: str) -> list[str]:
    """Those of the layers, the highest first, of which something is seen at a path.

    Several if all have a folder there, which the overlay merges.
    """
    found: list[str] = []
    for layer in layers:
        is_there, hides = _look(layer, path, bool(found))
        if is_there:
            found.append(layer)
        if hides:
            break
    return found


def _look(layer: str, path: str, merging: bool) -> tuple[bool, bool]:
    """Whether something of this layer is seen at a path, and whether it hides the layers below.

    :param merging: whether a higher layer has a folder there
    """
    parts, hides, at = [part for part in path.split("/") if part], _is_opaque(layer), layer
    for number, part in enumerate(parts, 1):
        at = f"{at}/{part}"
        try:
            status = os.lstat(at)
        except FileNotFoundError:
            return False, hides
        if not stat.S_ISDIR(status.st_mode):
            is_last, is_whiteout = number == len(parts), stat.S_ISCHR(status.st_mode)
            return is_last and not is_whiteout and not merging, True
        hides = hides or _is_opaque(at)
    return True, hides


def _is_opaque(folder: str) -> bool:
    try:
        return os.getxattr(folder, ATTRIBUTE, follow_symlinks=False) == b"y"
    except OSError:  # it has none, or its file system can't have any
        return False


def _link(layers: Sequence[str], path: str) -> str | None:
    """Where a symbolic link leads; None if the path is none."""
    highest = seen(layers, path)[:1]
    return link_in(highest[0], path) if highest else None


def link_in(root: str, path: str) -> str | None:
    """Where a symbolic link in the file tree ``root`` leads; None if the path is none."""
    return os.readlink(root + path) if os.path.islink(root + path) else None
