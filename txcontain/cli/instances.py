"""Commands that show an instance, and wait for it."""

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import COMMAND, INSTANCE, Argument, Command
from txcontain.cli.errors import Misused
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

UNKNOWN = 125  # the exit status of Docker's commands if Docker itself fails


async def inspect(client: "Client", arguments: Namespace) -> int:
    """Print all that is known of an instance."""
    print(plain(json.dumps(await client.inspect(arguments.instance), indent=2, ensure_ascii=False)))
    return 0


async def explain(client: "Client", arguments: Namespace) -> int:
    """Print the shell script that would make an instance's container, or run a command in it."""
    if arguments.command and not arguments.exec:
        raise Misused("Only with --exec a command can be explained.")
    from txcontain.cli.client import quoted

    path = f"/instances/{quoted(arguments.instance)}/{'exec/' * arguments.exec}explain"
    async for chunk in client.feed(path, follow=False, command=arguments.command or None):
        sys.stdout.buffer.write(chunk)
    return 0


async def wait(client: "Client", arguments: Namespace) -> int:
    """Print how an instance ended, once it has; return what a shell would call its status."""
    end = await client.wait(arguments.instance)
    print(plain(end["reason"]))
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
        "show how to make an instance's container by hand",
        explain,
        (
            Argument("--exec", action="store_true", help="how to run a command in it instead"),
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
