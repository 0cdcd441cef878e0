"""Volumes: what there is, and what is done with one."""

import json
import sys
import time
from argparse import Namespace
from typing import IO, TYPE_CHECKING

from txcontain.cli.command import QUIET, Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.files import write_file
from txcontain.cli.screen import show_table
from txcontain.cli.words import age, plain, size

if TYPE_CHECKING:
    from txcontain.cli.client import Client


async def ls(client: "Client", arguments: Namespace) -> int:
    """Print a table of the volumes, or only their names."""
    if arguments.quiet:
        for volume in await client.volumes():
            print(plain(volume["volume"]))
        return 0
    rows = [["VOLUME", "SIZE", "BOUND", "AGE", "USED BY"]]
    for volume in await client.volumes():
        users = ", ".join(volume["used_by"]) or "-"
        old = age(time.time() - volume["created"])
        taken, bound = size(volume["size"]), size(volume["bound"])
        rows.append([volume["volume"], taken, bound, old, users])
    show_table(rows)
    return 0


async def inspect(client: "Client", arguments: Namespace) -> int:
    """Print all that is known of volumes."""
    for name in arguments.names:
        print(plain(json.dumps(await client.volume(name), indent=2, ensure_ascii=False)))
    return 0


async def create(client: "Client", arguments: Namespace) -> int:
    """Make an empty volume; print its name."""
    await client.make_volume(arguments.name, arguments.size)
    print(plain(arguments.name))
    return 0


async def rm(client: "Client", arguments: Namespace) -> int:
    """Remove volumes; print the name of each that is gone."""
    for name in arguments.names:
        await client.remove_volume(name)
        print(plain(name))
    return 0


async def export(client: "Client", arguments: Namespace) -> int:
    """Write a volume to a tarball, which is there only when it is whole."""
    await write_file(client.export_volume(arguments.name, arguments.pause), arguments.file)
    return 0


async def import_(client: "Client", arguments: Namespace) -> int:
    """Make a volume of a tarball."""
    name, file = arguments.name, arguments.file
    if file == "-":
        await client.import_volume(name, sys.stdin.buffer)
        return 0
    with opened(file) as tarball:
        await client.import_volume(name, tarball)
    return 0


def opened(path: str) -> IO[bytes]:
    """Return a file that is open for reading.

    :raises CliError: if it can't be opened
    """
    try:
        file: IO[bytes] = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise CliError(f"Can't open {path}: {error.strerror}.") from error
    return file


NAMES = Argument("names", metavar="VOLUME", nargs="+", help="as a config names it")
COMMANDS = (
    Command(
        "volumes",
        "show the volumes, make or remove some, copy one to or from a tarball",
        ls,
        (QUIET,),
        aliases=("volume",),
        commands=(
            Command("ls", "show the volumes, and who uses them", ls, (QUIET,)),
            Command("inspect", "show all that is known of volumes", inspect, (NAMES,)),
            Command(
                "create",
                "make an empty volume, as the first launch that names one does",
                create,
                (
                    Argument("name", metavar="NAME", help="what to call the volume"),
                    Argument(
                        "--size",
                        metavar="SIZE",
                        help="the most that it may take, such as 1G (16M or more): it gets a file "
                        "system of its own",
                    ),
                ),
            ),
            Command("rm", "remove volumes that no instance uses", rm, (NAMES,)),
            Command(
                "export",
                "copy a volume to a tarball",
                export,
                (
                    Argument("name", metavar="VOLUME", help="as a config names it"),
                    Argument("file", metavar="FILE", help="the tarball, or - for standard output"),
                    Argument(
                        "--pause",
                        action="store_true",
                        help="freeze the instances that use it meanwhile",
                    ),
                ),
            ),
            Command(
                "import",
                "make a volume of a tarball",
                import_,
                (
                    Argument("name", metavar="NAME", help="what to call the volume"),
                    Argument("file", metavar="FILE", help="the tarball, or - for standard input"),
                ),
            ),
        ),
    ),
)
