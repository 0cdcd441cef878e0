"""Volumes: what there is, and what is done with one."""

import json
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.words import age, plain, size, table

if TYPE_CHECKING:
    from txcontain.cli.client import Client


async def volumes(client: "Client", arguments: Namespace) -> int:
    """Do what the first word says with the volumes that are named."""
    action, takes_names = ACTIONS[arguments.action]
    if takes_names != bool(arguments.names):
        what = "the name of a volume, or several" if takes_names else "no name"
        raise CliError(f"`volumes {arguments.action}` takes {what}.")
    return await action(client, arguments.names)


async def ls(client: "Client", _: list[str]) -> int:
    """Print a table of the volumes."""
    rows = [["VOLUME", "SIZE", "AGE", "USED BY"]]
    for volume in await client.volumes():
        users = ", ".join(volume["used_by"]) or "-"
        old = age(time.time() - volume["created"])
        rows.append([plain(volume["volume"]), size(volume["size"]), old, plain(users)])
    print(table(rows))
    return 0


async def inspect(client: "Client", names: list[str]) -> int:
    """Print all that is known of volumes."""
    for name in names:
        print(plain(json.dumps(await client.volume(name), indent=2, ensure_ascii=False)))
    return 0


async def rm(client: "Client", names: list[str]) -> int:
    """Remove volumes; print the name of each that is gone."""
    for name in names:
        await client.remove_volume(name)
        print(plain(name))
    return 0


ACTIONS = {"ls": (ls, False), "inspect": (inspect, True), "rm": (rm, True)}
COMMANDS = (
    Command(
        "volumes",
        "show the volumes (ls, inspect), remove some (rm)",
        volumes,
        (
            Argument("action", choices=ACTIONS, help="what to do"),
            Argument("names", metavar="VOLUME", nargs="*", help="as a config names it"),
        ),
    ),
)
