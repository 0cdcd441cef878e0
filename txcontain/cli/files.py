"""Commands for the files of instances: copy them out and in, tell and keep what has changed."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from argparse import ArgumentTypeError, Namespace
from collections.abc import AsyncIterator
from secrets import token_hex
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from txcontain.cli import services
from txcontain.cli.command import INSTANCE, Argument, Command, instance_name
from txcontain.cli.errors import CliError, Misused, Refused
from txcontain.cli.parts import part_of
from txcontain.cli.words import GROUPS, plain, size

if TYPE_CHECKING:
    from txcontain.cli.client import Client

STREAM = "-"
NO_SUCH_PATH = "urn:txcontain:no-such-path"
TAR = ["tar", "--extract", "--file=-", "--no-overwrite-dir", "--warning=no-timestamp"]
AS_USER = ["--no-same-owner", "--no-same-permissions"]
AS_IT_IS = ["--same-owner", "--same-permissions", "--numeric-owner"]


class Place(NamedTuple):
    """One end of a copy: a path here, or in an instance."""

    path: str
    instance: str | None = None

    @property
    def is_content(self) -> bool:
        """Whether what is in the folder is meant, not the folder."""
        return os.path.basename(self.path) in (".", "..") or not self.path.rstrip("/")

    def __str__(self) -> str:
        return f"{self.instance}:{self.path}" if self.instance else self.path


def place(text: str) -> Place:
    """Return an argument that names a file.

    :raises ArgumentTypeError: if it is empty, or names an instance and no path
    """
    begin = text.index(":") + 1 if text.startswith(GROUPS) else 0  # such a name has a colon in it
    instance, colon, path = text[begin:].partition(":")
    if not text or (colon and not instance):
        raise ArgumentTypeError("it must be a path, or INSTANCE:PATH")
    if not colon or text.startswith(("/", "./", "../")):
        return Place(text)
    if not path:
        raise ArgumentTypeError(f"it names no path: write {text}/PATH")
    return Place(path if path.startswith("/") else f"/{path}", text[:begin] + instance)


async def cp(client: "Client", arguments: Namespace) -> int:
    """Copy files out of an instance, or into one."""
    source, target = arguments.source, arguments.target
    if source.instance and target.instance:
        raise Misused("Files can't be copied from one instance to another: copy them here first.")
    if source.instance:
        await copy_out(client, source, target.path, arguments.archive)
    elif target.instance:
        await copy_in(client, source, target, arguments.archive)
    else:
        raise Misused("One of the two must be in an instance: INSTANCE:PATH.")
    return 0


# -- out of an instance ------------------------------------------------------------


async def copy_out(client: "Client", source: Place, target: str, archive: bool) -> None:
    """Copy files of an instance to a path here, or as a tar stream to standard output."""
    chunks = client.read_files(str(source.instance), source.path)
    if target == STREAM:
        if sys.stdout.isatty():
            raise CliError("A tar stream is nothing for a terminal: send it to a file or program.")
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        return
    entry = await client.look_at_file(str(source.instance), source.path)
    if os.path.isdir(target):
        if not source.is_content:
            inner = os.path.join(target, entry["name"])
            check(entry["kind"], kind_here(inner), inner)
        await unpack(chunks, target, archive)
        return
    check(entry["kind"], kind_here(target), target)
    folder = os.path.dirname(target.rstrip("/")) or "."
    if not os.path.isdir(folder):
        raise CliError(f"There is no folder {folder}: make it first.")
    if entry["kind"] != "folder" and target.endswith("/"):
        raise CliError(f"There is no folder {target}: make it first, or leave out the slash.")
    await replace(chunks, source, entry["name"], target.rstrip("/"), folder, archive)


async def replace(
    chunks: AsyncIterator[bytes], source: Place, name: str, target: str, folder: str, archive: bool
) -> None:
    """Unpack a stream beside `target`, and give it that name when it is whole."""
    beside = os.path.join(folder, f".txcontain-{token_hex(8)}")
    try:
        os.mkdir(beside)
    except OSError as error:
        raise CliError(f"Can't write to {folder}: {error.strerror}.") from error
    try:
        await unpack(chunks, beside, archive)
        os.replace(beside if source.is_content else os.path.join(beside, name), target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


async def write_file(chunks: AsyncIterator[bytes], path: str) -> None:
    """Write a file, which is there only when it is whole; `-` is standard output.

    What is no regular file, such as a device, a pipe or a link, is written to as it stands.

    :raises CliError: if it can't be written
    """
    if path == STREAM:
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        return
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
        await _write(chunks, path, path)
        return
    with part_of(path) as part:
        await _write(chunks, part, path)
        os.replace(part, path)


async def _write(chunks: AsyncIterator[bytes], path: str, meant: str) -> None:
    try:
        with open(path, "wb") as file:
            async for chunk in chunks:
                file.write(chunk)
    except OSError as error:
        raise CliError(f"Can't write {meant}: {error.strerror}.") from error


async def unpack(chunks: AsyncIterator[bytes], folder: str, archive: bool) -> None:
    """Have tar(1) unpack a stream, which it does without following links out of the folder.

    :param archive: whether owners and all bits of modes are kept
    """
    command = [*TAR, *(AS_IT_IS if archive else AS_USER), "--directory", folder]
    with tempfile.TemporaryFile() as said:
        try:
            tar = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=said)
        except FileNotFoundError as error:
            raise CliError("`cp` needs the program tar: install it.") from error
        assert tar.stdin is not None
        try:
            async for chunk in chunks:
                tar.stdin.write(chunk)
            tar.stdin.close()
        except BrokenPipeError:  # it says why
            pass
        except BaseException:
            tar.kill()
            raise
        finally:
            status = tar.wait()
        said.seek(0)
        if status:
            words = said.read(4096).decode(errors="replace").splitlines()
            raise CliError(f"Not everything could be written: {plain('; '.join(words[:3]))}.")


# -- into an instance --------------------------------------------------------------


async def copy_in(client: "Client", source: Place, target: Place, archive: bool) -> None:
    """Copy a path here, or the tar stream of standard input, into an instance."""
    instance = str(target.instance)
    if source.path == STREAM:
        await client.write_files(instance, target.path, sys.stdin.buffer, archive)
        return
    kind = kind_here(source.path)
    if kind is None:
        raise CliError(f"There is no {source.path} here.")
    there = await kind_there(client, instance, target.path)
    if there == "folder":
        folder, name = target.path, os.path.basename(source.path.rstrip("/"))
        if not source.is_content:
            inner = os.path.join(folder, name)
            check(kind, await kind_there(client, instance, inner), f"{instance}:{inner}")
    else:
        check(kind, there, str(target))
        if kind != "folder" and target.path.endswith("/"):
            raise CliError(f"There is no folder {target}: make it first, or leave out the slash.")
        folder, name = os.path.split(target.path.rstrip("/"))
    if source.is_content and there == "folder":
        name = "."
    stream = Packed(source.path, name)
    try:
        await client.write_files(instance, folder, stream, archive)
    except Refused as error:
        stream.close()
        raise CliError(stream.failed or error.reason) from error
    finally:
        stream.close()
    if stream.failed:
        raise CliError(stream.failed)


class Packed:
    """A file or folder of this machine as a tar stream, made by a thread while it is read.

    :ivar failed: why it is not whole, as a sentence
    """

    def __init__(self, path: str, name: str) -> None:
        self.failed = ""
        self._out, into = os.pipe()
        self._thread = Thread(target=self._pack, args=(path, name, into), daemon=True)
        self._thread.start()

    def read(self, length: int) -> bytes:
        """Return some bytes; none at the end."""
        return os.read(self._out, length)

    def close(self) -> None:
        """Stop, whatever is left."""
        if self._out >= 0:
            os.close(self._out)
            self._out = -1
            self._thread.join()

    def _pack(self, path: str, name: str, into: int) -> None:
        try:
            with (
                open(into, "wb") as pipe,
                tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT) as tar,
            ):  # if this fails, the stream lacks its end
                tar.add(os.path.realpath(path) if path.endswith("/") else path, arcname=name)
        except BrokenPipeError:  # no one wants the rest
            pass
        except OSError as error:
            self.failed = f"Can't read {error.filename or path}: {error.strerror}."


# -- what is where -----------------------------------------------------------------


def kind_here(path: str) -> str | None:
    """Return what is at a path here: "folder", "file", "device" (or its like) or None."""
    if os.path.isdir(path) and not (os.path.islink(path) and not path.endswith("/")):
        return "folder"
    if not os.path.lexists(path):
        return None
    return "file" if os.path.islink(path) or os.path.isfile(path) else "device"


async def kind_there(client: "Client", instance: str, path: str) -> str | None:
    """Return the same of a path in an instance; of a link, what it leads to."""
    for followed in (path, f"{path}/"):
        try:
            kind: str = (await client.look_at_file(instance, followed))["kind"]
        except Refused as error:
            if error.kind != NO_SUCH_PATH:  # no such instance, for one
                raise
            return None if followed == path else "file"
        if kind != "link":
            return kind
    return None


def check(kind: str, there: str | None, where: str) -> None:
    """Raise CliError if a folder would take the place of a file, for example, or a file of one."""
    if there == "device":  # root could replace it, also /dev/null
        raise CliError(f"{where} is a device, a pipe or a socket: copy to another name.")
    if kind == "folder" and there not in ("folder", None):
        raise CliError(f"A folder can't be copied over the file {where}.")
    if kind != "folder" and there == "folder":
        raise CliError(f"A file can't be copied over the folder {where}.")


# -- what has changed --------------------------------------------------------------


async def diff(client: "Client", arguments: Namespace) -> int:
    """Print what an instance has added (A), changed (C) and deleted (D), a line each.

    Of a file with a stack: what `up` would do.
    """
    if services.is_stack(arguments.instance):
        return await services.diff(client, arguments.instance)
    told = await client.changes(arguments.instance)
    for change in told["changes"]:
        print(plain(f"{change['kind']} {change['path']}"))
    if not told["complete"]:
        print("txcontain diff: there are more changes than these.", file=sys.stderr)
    return 0


async def commit(client: "Client", arguments: Namespace) -> int:
    """Keep what an instance has at a writable mount as a new mountable, or all as an image."""
    if not arguments.mountable.endswith(".tar"):
        return await commit_image(client, arguments)
    told = await client.commit(
        arguments.instance, arguments.mountable, arguments.mount, arguments.pause
    )
    print(
        plain(f"{told['mountable']}: {told['mount']} of {arguments.instance}, {size(told['size'])}")
    )
    return 0


async def commit_image(client: "Client", arguments: Namespace) -> int:
    """Keep an instance as an image."""
    if arguments.mount or arguments.pause:
        raise Misused("An image has all of an instance, which stands still: leave out the options.")
    from txcontain.cli.client import quoted

    where, asked = f"/instances/{quoted(arguments.instance)}/commit", {"image": arguments.mountable}
    shape = {"image": str, "digest": str, "layers": int}
    told = await client.ask("POST", where, json=asked, shape=shape, patience=None)
    layers = "1 layer" if told["layers"] == 1 else f"{told['layers']} layers"
    print(plain(f"{told['image']}: {arguments.instance}, {layers}, {told['digest']}"))
    return 0


COPY_HELP = "INSTANCE:PATH, or a path here, or - for a tar stream"
COMMANDS = (
    Command(
        "cp",
        "copy files out of an instance, or into one, also if it is stopped",
        cp,
        (
            Argument("-a", "--archive", action="store_true", help="keep owners and modes"),
            Argument("source", metavar="SOURCE", type=place, help=COPY_HELP),
            Argument("target", metavar="TARGET", type=place, help="the same"),
        ),
    ),
    Command(
        "diff",
        "show what an instance has added, changed and deleted, or what `up FILE` would do",
        diff,
        (
            Argument(
                "instance",
                metavar="INSTANCE|FILE",
                type=instance_name,
                help="an instance, or a stack's file: a path with a '/', or with .json at its end",
            ),
        ),
    ),
    Command(
        "commit",
        "keep what an instance wrote as a new tarball for mounts, or all of it as an image",
        commit,
        (
            Argument("--mount", metavar="FOLDER", help="the writable mount, or / (if several)"),
            Argument("--pause", action="store_true", help="freeze its processes meanwhile"),
            INSTANCE,
            Argument(
                "mountable",
                metavar="NAME.tar|IMAGE",
                help="the name of the new file, or of the image: [REGISTRY/]REPOSITORY[:TAG]",
            ),
        ),
    ),
)
