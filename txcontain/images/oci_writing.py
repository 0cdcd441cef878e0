"""Writes images: layers as tar streams (pax, POSIX.1-2001), and archives of them.

The same layer becomes the same bytes, on every machine and at any time: entries are in the order
of their names, there is nothing in them but what is in the file system, and they are not
compressed. (So the digest of a layer is that of its content, too.)
"""

from __future__ import annotations

import json
import math
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from hashlib import sha256

from attrs import evolve, frozen

from txcontain.errors import ConfigAtFault
from txcontain.images.bounds import FOLDER, USUAL
from txcontain.images.oci import LAYER, Descriptor, Index, to_bytes

HIDES, OPAQUE = ".wh.", ".wh..wh..opq"  # whiteouts (image-spec, layer.md)
OPAQUE_MARKS = ("trusted.overlay.opaque", "user.overlay.opaque")
# Marks with which an overlay leads from an entry to what belongs to it in a layer below.
NOT_WHOLE = {"trusted.overlay.redirect", "trusted.overlay.metacopy"}
KEPT_XATTRS, LEFT_OUT = "user.", "user.overlay."
PIECE = 1 << 18  # bytes of a file that are read at once
BATCH = 1 << 20  # bytes that a thread brings at once
KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
END = bytes(2 * tarfile.BLOCKSIZE)
Entry = tuple[str, os.stat_result, int]  # path in the layer, status, descriptor of its folder


@frozen
class Tree:
    """What becomes a layer: a folder, at a place of the image's root."""

    folder: str
    target: str = "/"
    title: str = ""  # what it is, for a person
    # Whether it hides what layers below have at this place, as something that is mounted does.
    hides: bool = False
    # The time (unix) when its unpacking began. Folders that are newer were made by tar itself,
    # as their archive has none: their times say nothing.
    begun: float = math.inf
    first_id: int = 0  # of the range that the owners of what a container wrote are mapped to


@frozen
class File:
    """A file that is not on the disk."""

    path: str
    content: bytes
    mode: int
    uid: int
    gid: int


@frozen
class Blob:
    """A part of an image: what it is called, and how to get it."""

    descriptor: Descriptor
    source: Tree | Sequence[File] | bytes

    def pieces(self) -> Iterator[bytes]:
        """Its content."""
        return iter([self.source]) if isinstance(self.source, bytes) else layer(self.source)


def layer(source: Tree | Sequence[File]) -> Iterator[bytes]:
    """The content of a layer, in pieces. Raises ConfigAtFault, OSError."""
    yield from _of_tree(source) if isinstance(source, Tree) else _of_files(source)
    yield END


def described_layer(source: Tree | Sequence[File]) -> Descriptor:
    """What a layer is called: all of it is read. Raises ConfigAtFault, OSError."""
    digest, size = sha256(), 0
    for piece in layer(source):
        digest.update(piece)
        size += len(piece)
    return Descriptor(LAYER, f"sha256:{digest.hexdigest()}", size)


def batch(pieces: Iterator[bytes]) -> bytes:
    """The next pieces, about BATCH bytes; nothing at the end."""
    brought, size = [], 0
    for piece in pieces:
        brought.append(piece)
        size += len(piece)
        if size >= BATCH:
            break
    return b"".join(brought)


# -- what is on the disk -----------------------------------------------------------


def _of_tree(tree: Tree) -> Iterator[bytes]:
    names: dict[tuple[int, int], str] = {}  # of files with several names, the first
    for path, status, above in _walk(tree.folder):
        name = f"{tree.target.strip('/')}/{path}".strip("/")
        info = tarfile.TarInfo(name or ".")
        if _is_whiteout(status):
            folder, _, last = name.rpartition("/")
            yield _header(tarfile.TarInfo(f"{folder}/{HIDES}{last}".lstrip("/")))
            continue
        if stat.S_IFMT(status.st_mode) not in KINDS:  # a socket, whose server is not here
            continue
        if os.path.basename(path).startswith(HIDES):
            raise ConfigAtFault(
                f"{name} can't be in an image: a name with {HIDES} hides a file there", "rename it"
            )
        place = f"/proc/self/fd/{above}/{os.path.basename(path) or '.'}"
        _describe(
            info, status, tree.first_id, is_dated=bool(path) and _is_dated(status, tree.begun)
        )
        marks = _add_xattrs(info, place)
        if marks & NOT_WHOLE:
            raise ConfigAtFault(f"{name} can't be in an image: a part of it is in a layer below")
        file = (status.st_dev, status.st_ino)
        if info.isreg() and status.st_nlink > 1 and names.setdefault(file, name) != name:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, names[file], 0
        elif info.issym():
            info.linkname = os.readlink(os.path.basename(path), dir_fd=above)
        yield _header(info)
        if info.isreg():
            yield from _content(above, os.path.basename(path), info.size, name)
        if (tree.hides and not path) or marks & {*OPAQUE_MARKS}:
            yield _header(tarfile.TarInfo(f"{name}/{OPAQUE}"))


def _walk(folder: str) -> Iterator[Entry]:
    """A folder and all in it, by name, each folder before what is in it; no link is followed."""
    top = os.open(folder, FOLDER)
    levels = [(top, "", iter(_sorted(top)))]
    try:
        yield "", os.fstat(top), top
        while levels:
            above, path, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(levels.pop()[0])
                continue
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            yield path + name, status, above
            if stat.S_ISDIR(status.st_mode):
                if len(levels) > USUAL.depth:
                    raise ConfigAtFault(f"{path} is more than {USUAL.depth} folders deep")
                inner = os.open(name, FOLDER, dir_fd=above)
                levels.append((inner, f"{path}{name}/", iter(_sorted(inner))))
    finally:
        for descriptor, _, _ in levels:
            os.close(descriptor)


def _sorted(folder: int) -> list[str]:
    return sorted(os.listdir(folder), key=os.fsencode)


def _is_whiteout(status: os.stat_result) -> bool:
    """Whether an overlay takes this for a mark that hides a file."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_dated(status: os.stat_result, begun: float) -> bool:
    """Whether its archive says the time of a file.

    It does of every folder but those that tar made itself, which are as new as the unpacking. What
    is newer than its last change was given a time to come: on another day it is to have that too.
    """
    is_folder = stat.S_ISDIR(status.st_mode)
    return not is_folder or status.st_mtime < begun or status.st_mtime_ns > status.st_ctime_ns


def _describe(info: tarfile.TarInfo, status: os.stat_result, first: int, *, is_dated: bool) -> None:
    kind = stat.S_IFMT(status.st_mode)
    info.type, info.mode = KINDS[kind], stat.S_IMODE(status.st_mode)
    info.uid, info.gid = (max(0, number - first) for number in (status.st_uid, status.st_gid))
    info.size = status.st_size if kind == stat.S_IFREG else 0
    if not is_dated:
        return
    info.mtime, fraction = divmod(status.st_mtime_ns, 10**9)
    if fraction:
        info.pax_headers = {"mtime": f"{Decimal(status.st_mtime_ns).scaleb(-9).normalize():f}"}


def _add_xattrs(info: tarfile.TarInfo, path: str) -> set[str]:
    """Add the attributes that are kept; returns the names of all."""
    names = os.listxattr(path, follow_symlinks=False)
    info.pax_headers = dict(info.pax_headers)
    for name in sorted(names):
        if name.startswith(KEPT_XATTRS) and not name.startswith(LEFT_OUT):
            value = os.getxattr(path, name, follow_symlinks=False)
            info.pax_headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
    return set(names)


def _content(above: int, name: str, size: int, path: str) -> Iterator[bytes]:
    """A file's content, and zeros up to the end of a block."""
    flags = (
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    )  # a pipe keeps no one waiting
    with open(os.open(name, flags, dir_fd=above), "rb", buffering=0) as file:
        left = size
        while left:
            piece = file.read(min(left, PIECE))
            if not piece:
                raise ConfigAtFault(f"{path} became shorter while it was read")
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


# -- what is not -------------------------------------------------------------------


def _of_files(files: Iterable[File]) -> Iterator[bytes]:
    for file in sorted(files, key=lambda file: file.path):
        info = tarfile.TarInfo(file.path.strip("/"))
        info.mode, info.uid, info.gid, info.size = file.mode, file.uid, file.gid, len(file.content)
        yield _header(info)
        yield file.content + bytes(-info.size % tarfile.BLOCKSIZE)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


# -- archives ----------------------------------------------------------------------


@frozen
class Image:
    """A whole image: its documents, and its layers with the lowest first."""

    name: str  # as Docker knows it: web:1-01
    tag: str
    manifest: Blob
    config: Blob
    layers: Sequence[Blob]


def archive(image: Image, *, for_docker: bool = False) -> Iterator[bytes]:
    """A tarball of an OCI image layout (image-spec, image-layout.md), in pieces.

    :param for_docker: whether it is to be what `docker save` writes: with a manifest.json instead
        of an index. (With both, Podman takes the index, which has no whole name of the image.)
    Raises ConfigAtFault, OSError.
    """
    blobs = {blob.descriptor.digest: blob for blob in (image.manifest, image.config, *image.layers)}
    documents = {"manifest.json": _for_docker(image)} if for_docker else _of_layout(image)
    for name, document in documents.items():
        yield from _entry(name, len(document), [document])
    for folder in ("blobs/", "blobs/sha256/"):
        info = tarfile.TarInfo(folder)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        yield _header(info)
    for blob in blobs.values():
        yield from _entry(_place(blob), blob.descriptor.size, blob.pieces())
    yield END


def _entry(name: str, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    yield _header(info)
    yield from pieces
    yield bytes(-size % tarfile.BLOCKSIZE)


def _place(blob: Blob) -> str:
    return f"blobs/sha256/{blob.descriptor.hex}"


def _of_layout(image: Image) -> dict[str, bytes]:
    tag = {"org.opencontainers.image.ref.name": image.tag}
    index = Index([evolve(image.manifest.descriptor, annotations=tag)])
    return {"oci-layout": LAYOUT, "index.json": to_bytes(index)}


def _for_docker(image: Image) -> bytes:
    """The manifest.json of `docker save`."""
    layers = [_place(blob) for blob in image.layers]
    said = [{"Config": _place(image.config), "RepoTags": [image.name], "Layers": layers}]
    return json.dumps(said, separators=(",", ":")).encode()
