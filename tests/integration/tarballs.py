"""Tarballs for tests: well-made and hostile ones, and a small image of this host's own tools."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

Member = tuple[tarfile.TarInfo, bytes]
TOOLS = "cat chmod chown env grep id ln ls mkdir mknod mount mv readlink rm sh sleep touch umount"
PASSWD = "root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n"
GROUP = "root:x:0:\nworker:x:1000:\ncrew:x:2000:other,worker\nothers:x:2001:other\n"


def file(name: str, content: str | bytes = b"", mode: int = 0o644) -> Member:
    """A regular file."""
    member = tarfile.TarInfo(name)
    member.mode = mode
    data = content.encode() if isinstance(content, str) else content
    member.size = len(data)
    return member, data


def script(name: str, text: str) -> Member:
    """An executable script, as it stands."""
    return file(name, text, 0o755)


def special(name: str, kind: bytes, target: str = "", mode: int = 0o755) -> Member:
    """Anything else that a tarball may hold: tarfile's DIRTYPE, SYMTYPE, LNKTYPE, CHRTYPE, .."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, target, mode
    return member, b""


def folder(name: str, mode: int = 0o755) -> Member:
    """A directory."""
    return special(name, tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Member:
    """A symbolic link."""
    return special(name, tarfile.SYMTYPE, target)


def device(name: str, kind: bytes, major: int, minor: int) -> Member:
    """A device node."""
    member = special(name, kind)
    member[0].devmajor, member[0].devminor = major, minor
    return member


def pack(path: Path, *members: Member) -> None:
    """Write a tarball of these members, in this order, whatever they are named."""
    with tarfile.open(path, "w") as tarball:
        for member, content in members:
            tarball.addfile(member, io.BytesIO(content))


def tools(*names: str) -> list[Member]:
    """Programs of the host's, with the libraries they need."""
    programs = {f"bin/{name}": str(shutil.which(name)) for name in names}
    linked = subprocess.run(["ldd", *programs.values()], capture_output=True, text=True).stdout
    libraries = {path.lstrip("/"): path for path in re.findall(r"(/\S+) \(0x", linked)}
    found = programs | libraries
    return [file(name, Path(path).read_bytes(), 0o755) for name, path in found.items()]


@cache
def small_image() -> tuple[Member, ...]:
    """A root filesystem of the host's shell and a few tools, with the libraries they need."""
    return (
        *(folder(name) for name in ("bin", "etc", "root", "home", "home/worker")),
        *tools(*TOOLS.split()),
        file("etc/passwd", PASSWD),
        file("etc/group", GROUP),
    )
