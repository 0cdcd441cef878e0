"""The command `export`: a config as an image, or as a document for other tools."""

import os
import sys
from argparse import Namespace
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from txcontain.cli.command import VERSION, Argument, Command
from txcontain.cli.configs import CONFIGS
from txcontain.cli.errors import CliError, Misused
from txcontain.cli.files import STREAM, unpack, write_file
from txcontain.cli.parts import part_of
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

FOLDER, ARCHIVE = "oci", "docker-archive"
PUSHED = {"image": str, "digest": str}
OF_STACKS = ("compose", "kubernetes")
REGISTRY = "registry"
KINDS = (FOLDER, ARCHIVE, REGISTRY, "compose", "kubernetes", "systemd")


async def export(client: "Client", arguments: Namespace) -> int:
    """Write a config as another tool reads it."""
    kind, place = arguments.to
    if kind not in KINDS:
        raise Misused(f"There is no target {kind}: it is one of {', '.join(KINDS)}.")
    if arguments.stack and (arguments.major or arguments.image or kind not in OF_STACKS):
        raise Misused(f"A stack has neither version nor image: --to is {' or '.join(OF_STACKS)}.")
    if arguments.image and kind == REGISTRY:
        raise Misused("The image is called as --to says: leave out --image.")
    if arguments.insecure and kind != REGISTRY:
        raise Misused(f"No registry is asked: --insecure goes with --to {REGISTRY}.")
    if kind == FOLDER and place != STREAM:
        check_folder(place)
    if kind in (FOLDER, ARCHIVE) and place == STREAM and sys.stdout.isatty():
        raise CliError("An image is nothing for a terminal: send it to a file or program.")
    from txcontain.cli.client import quoted

    if arguments.stack:
        path = f"/stacks/{quoted(arguments.name)}/export"
    else:
        name = await config_meant(client, arguments.name, arguments.major, arguments.minor)
        if kind == REGISTRY:
            return await push(client, name, place, arguments.insecure)
        path = f"/configs/{quoted(name)}/export"
    asked = {"to": kind, **({"image": arguments.image} if arguments.image else {})}
    chunks = client.stream("GET", path, params=asked, patience=None)
    if kind == FOLDER and place != STREAM:
        await fill_folder(chunks, place)
    else:
        await write_file(chunks, place)
    return 0


async def push(client: "Client", config: str, image: str, insecure: bool) -> int:
    """Have the manager send an image to a registry; print its name there, with its digest."""
    from txcontain.cli.client import quoted

    asked = {"image": image, **({"insecure": True} if insecure else {})}
    path = f"/configs/{quoted(config)}/push"
    told = await client.ask("POST", path, json=asked, shape=PUSHED, patience=None)
    print(plain(f"{told['image']}@{told['digest']}"))
    return 0


async def config_meant(
    client: "Client", name: str, major: "str | None", minor: "str | None"
) -> str:
    """Return NAME-MAJOR-MINOR of a config: of the newest, if versions are left out.

    :raises CliError: if there is none
    """
    if major and minor:
        return f"{name}-{major}-{minor}"
    configs = (await client.ask("GET", "/configs", shape=CONFIGS))["configs"]  # the newest is last
    fit = [one for one in configs if one["name"] == name and major in (None, one["major"])]
    if not fit:
        which = " ".join(filter(None, (name, major)))
        raise CliError(f"There is no config {which}: `txcontain configs` shows those there are.")
    return f"{name}-{fit[-1]['major']}-{fit[-1]['minor']}"


def check_folder(path: str) -> None:
    """Raise CliError unless a folder can be made at a path: there is none, or an empty one."""
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path) or os.listdir(path):
        raise CliError(f"{path} is there already, and no empty folder: name another one.")


async def fill_folder(chunks: AsyncIterator[bytes], path: str) -> None:
    """Unpack a tar stream to a folder, which is there only when it is whole."""
    with part_of(path.rstrip("/"), is_folder=True) as part:
        await unpack(chunks, part, archive=False)
        os.rename(part, path)  # also over an empty folder


COMMANDS = (
    Command(
        "export",
        "write a config as an image, or as a file for Compose, Kubernetes or systemd",
        export,
        (
            Argument("--stack", action="store_true", help="NAME is that of a stack"),
            Argument("name", metavar="NAME", help="the config's name"),
            *VERSION,
            Argument(
                "--to",
                nargs=2,
                required=True,
                metavar=("TARGET", "FILE"),
                help=f"what to write: {', '.join(KINDS)}; and where: a file or -, for {FOLDER} a"
                f" folder, for {REGISTRY} REGISTRY/REPOSITORY[:TAG]",
            ),
            Argument(
                "--insecure",
                action="store_true",
                help="ask a registry on this machine over plain HTTP",
            ),
            Argument(
                "--image",
                metavar="NAME[:TAG]",
                help="what to call the image (default: NAME:MAJOR-MINOR of the config)",
            ),
        ),
    ),
)
