"""Commands that are about no instance."""

import re
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from txcontain import __version__
from txcontain.cli.command import Argument, Command
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client


async def doctor(client: "Client", _: Namespace) -> int:
    """Print what was found, and what was done about it."""
    for finding in await client.doctor() or ["All is well: nothing was found."]:
        print(plain(finding))
    return 0


async def version(client: "Client", _: Namespace) -> int:
    """Print the version of this program, and those of the manager and of what it runs on."""
    print(f"txcontain {__version__}")
    told = await client.ask("GET", "/version", shape={"version": str})
    rest = ", ".join(f"{name} {value}" for name, value in told.items() if name != "version")
    print(plain(f"manager {told['version']} ({rest})"))
    return 0


async def give_help(_: "Client", __: Namespace) -> int:
    """Do nothing: the parser has shown the help, and ended the program."""
    return 0


async def token(_: "Client", arguments: Namespace) -> int:
    """Print a new token, which is kept nowhere, and its line for the manager's file of tokens."""
    from hashlib import sha256  # which loads OpenSSL: no other command needs it
    from secrets import token_urlsafe

    made = f"txcontain_{token_urlsafe(32)}"
    print(f"TXCONTAIN_TOKEN={made}")
    print(f"{arguments.name} {arguments.role} {sha256(made.encode()).hexdigest()}")
    return 0


def token_name(text: str) -> str:
    """Return an argument that names the holder of a token.

    :raises ArgumentTypeError: if the manager's file can't hold it
    """
    if not re.fullmatch(r"[\w.@-]{1,64}", text, re.ASCII):
        raise ArgumentTypeError("a name is up to 64 letters, digits, '_', '.', '@' and '-'")
    return text


COMMANDS = (
    Command("doctor", "look for what should not be there, and remove it", doctor),
    Command(
        "token",
        "make a token: prints it, and the line for the manager's --tokens file",
        token,
        (
            Argument("name", metavar="NAME", type=token_name, help="whose it will be"),
            Argument(
                "role",
                metavar="{read,write}",
                choices=("read", "write"),
                help="what it may do: only read, or all",
            ),
        ),
    ),
    Command("version", "show the version of this program and of the manager", version),
    Command(
        "help",
        "show how to use a command",
        give_help,
        (Argument("of", metavar="COMMAND", nargs="*", help="which; all if left out"),),
    ),
)
