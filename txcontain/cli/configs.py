"""The commands `configs ls`, `configs show` and `configs rm`."""

import sys
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import Argument, Command
from txcontain.cli.screen import show_table
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

CONFIGS = {"configs": [{"name": str, "major": str, "minor": str, "instances": [str]}]}


async def ls(client: "Client", _: Namespace) -> int:
    """Print a table of the configs, the newest of each name last."""
    rows = [["NAME", "MAJOR", "MINOR", "INSTANCES"]]
    for one in (await client.ask("GET", "/configs", shape=CONFIGS))["configs"]:
        rows.append([one["name"], one["major"], one["minor"], " ".join(one["instances"]) or "-"])
    show_table(rows)
    return 0


async def show(client: "Client", arguments: Namespace) -> int:
    """Print a config as it was uploaded."""
    document = await client.read(f"/configs/{arguments.config}")
    if sys.stdout.isatty():
        print(plain(document.decode(errors="replace")))
    else:
        sys.stdout.buffer.write(document)
    return 0


async def rm(client: "Client", arguments: Namespace) -> int:
    """Remove configs."""
    for config in arguments.configs:
        await client.ask("DELETE", f"/configs/{config}")
        print(plain(config))
    return 0


def config_name(text: str) -> str:
    """Return an argument that names a config, as it stands in a path of the API.

    :raises ArgumentTypeError: if it has not three parts
    """
    name = text.removesuffix(".cfg")
    if len(name.rsplit("-", 2)) != 3 or not all(c.isalnum() or c in "-._" for c in name):
        raise ArgumentTypeError(f"{text!r} is not NAME-MAJOR-MINOR: `txcontain configs` shows them")
    return name


CONFIG = {"metavar": "NAME-MAJOR-MINOR", "type": config_name, "help": "as `configs` shows them"}
COMMANDS = (
    Command(
        "configs",
        "show the stored configs by version, print one, or remove it",
        ls,
        aliases=("config",),
        commands=(
            Command("ls", "show the stored configs, by name and version", ls),
            Command(
                "show", "print a config as it was uploaded", show, (Argument("config", **CONFIG),)
            ),
            Command(
                "rm",
                "remove configs that no instance uses",
                rm,
                (Argument("configs", nargs="+", **CONFIG),),
            ),
        ),
    ),
)
