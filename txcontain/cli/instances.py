"""Commands that show an instance, and wait for it."""

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import COMMAND, INSTANCE, Argument, Command
from txcontain.cli.errors import Misused, chain
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

EXPLAINED = "INSTANCE, NAME MAJOR MINOR, --exec INSTANCE COMMAND, or --unpacking TARBALL"
UNKNOWN = 125  # the exit status of Docker's commands if Docker itself fails


async def inspect(client: "Client", arguments: Namespace) -> int:
    """Print all that is known of an instance."""
    print(plain(json.dumps(await client.inspect(arguments.instance), indent=2, ensure_ascii=False)))
    return 0


async def explain(client: "Client", arguments: Namespace) -> int:
    """Print the shell script that would make a container, run a command in one, or unpack it."""
    from txcontain.cli.client import QUICK, quoted

    name, words, asked = arguments.instance, arguments.command, {}
    patience: int | None = QUICK
    if arguments.unpacking and not arguments.exec and not words:
        path, asked = "/unpacking/explain", {"tarball": name}
    elif arguments.exec and not arguments.unpacking:
        path, asked = f"/instances/{quoted(name)}/exec/explain", {"command": words}
    elif arguments.exec or arguments.unpacking or len(words) not in (0, 2):
        raise Misused(f"Explain {EXPLAINED}.")
    elif words:
        path = f"/configs/{quoted('-'.join([name, *words]))}/explain"
        patience = None  # its image is pulled and unpacked first, if need be
    else:
        path = f"/instances/{quoted(name)}/explain"
    async for chunk in client.stream("GET", path, params=asked, patience=patience):
        sys.stdout.buffer.write(chunk)
    return 0


async def wait(client: "Client", arguments: Namespace) -> int:
    """Print how an instance ended, once it has; return what a shell would call its status."""
    end = await client.wait(arguments.instance)
    print(plain(chain(end["reason"])))
    return status_of(end)


def status_of(end: "Json") -> int:
    """Return what a shell would call the status of an end."""
    if end["signal"] is not None:
        return 128 + int(end["signal"])
    # Neither status nor signal: the machine went down, and how it ended is unknown.
    return UNKNOWN if end["status"] is None else int(end["status"])


COMMANDS = (
    Command("inspect", "show all that is known of an instance", inspect, (INSTANCE,)),
    Command(
        "explain",
        f"show how to make a container by hand: {EXPLAINED}",
        explain,
        (
            Argument("--exec", action="store_true", help="how to run a command in it instead"),
            Argument(
                "--unpacking", action="store_true", help="how to unpack a tarball of this name"
            ),
            INSTANCE,
            COMMAND,
        ),
    ),
    Command(
        "wait",
        f"wait until an instance has ended; exit with its status ({UNKNOWN}: not known)",
        wait,
        (INSTANCE,),
        failure=UNKNOWN,
    ),
)
