"""What is known of a layer: found out when it was unpacked, and kept in a file beside it.

A layer is never written again, so this stays true.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from typing import Any

from attrs import field, frozen

from txcontain.container.facts import RUN, TMP, Place
from txcontain.images.complaints import NAMED
from txcontain.images.layout import lists_images
from txcontain.images.stack import place

RECORD, LONGEST_RECORD = ".json", 1 << 20  # the suffix of the file beside a layer; its bytes
JUNK = {".DS_Store", "__MACOSX"}  # what a Mac adds beside the packed folder; also ._NAME


@frozen
class Metadata:
    """What is known of a layer."""

    tarball: str = ""  # its path
    size: int = 0  # bytes on the disk
    left_out: dict[str, dict[str, Any]] = field(factory=dict)  # kind: {"count", "names"}
    run: Place = RUN
    tmp: Place = TMP
    archive: str = ""  # what kind of archive it is, if it holds the layers of an image
    begun: float | None = None  # unix time when its unpacking began; None: not known
    entries: int = 0  # files, folders and all else; 0 if an earlier version has unpacked it

    @property
    def told(self) -> str:
        """What a person should know of it where it is mounted; empty if there is nothing."""
        kinds = [
            f"{left['count']} {kind} ({', '.join(left['names'])}"
            + (", ..)" if left["count"] > len(left["names"]) else ")")
            for kind, left in self.left_out.items()
        ]
        name = os.path.basename(self.tarball)
        said = [
            f"{name} is {self.archive}: its files are mounted as they are, not as the root of an "
            "image (base_image can name it)"
        ] * bool(self.archive)
        said += [f"left out of {name}: {', '.join(kinds)}; see docs/images.md"] * bool(kinds)
        return "; ".join(said)


def read(document: bytes) -> Metadata:
    """Parse what was kept of a layer; if that is damaged, the defaults, which fit most layers.

    Raises nothing.
    """
    try:
        values = json.loads(document)
        run, tmp = (Place(**values.pop(name)) for name in ("run", "tmp"))
        return Metadata(run=run, tmp=tmp, **values)
    except (ValueError, TypeError, AttributeError, KeyError):
        return Metadata()


def merged(parts: Sequence[Metadata]) -> dict[str, Any]:
    """What is known of layers together; returns arguments of ``Metadata``."""
    left_out: dict[str, dict[str, Any]] = {}
    for part in parts:
        for kind, left in part.left_out.items():
            all_left = left_out.setdefault(kind, {"count": 0, "names": []})
            all_left["count"] += left["count"]
            all_left["names"] = [*all_left["names"], *left["names"]][:NAMED]
    begun = [part.begun for part in parts if part.begun is not None]
    return {"left_out": left_out, "begun": min(begun, default=None)}


def look(folder: str) -> dict[str, Any]:
    """Look at an unpacked root; returns arguments of ``Metadata``."""
    run, tmp = place([folder], "/run"), place([folder], "/tmp")
    return {"run": run, "tmp": tmp, "archive": archive(folder)}


def archive(folder: str) -> str:
    """What an unpacked tarball is if it is no root; empty if it may be one."""
    names = set(os.listdir(folder))
    if "manifest.json" in names and (
        names & {"repositories", "oci-layout"} or lists_images(folder)  # saved without a name
    ):
        return "an archive of `docker save`"
    return "an OCI image layout" if "oci-layout" in names else ""


def top(tarball: str, unpacked: str) -> str:
    """The folder where the content begins: one that is named after the tarball, or ``unpacked``.

    The folder may have the first part of the name: debian-12.5.tar.gz may hold debian-12.
    """
    names = [name for name in os.listdir(unpacked) if name not in JUNK and name[:2] != "._"]
    if len(names) == 1 and f"{os.path.basename(tarball)}.".startswith(f"{names[0]}."):
        inner = os.path.join(unpacked, names[0])
        if stat.S_ISDIR(os.lstat(inner).st_mode):
            return inner
    return unpacked
