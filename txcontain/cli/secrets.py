"""The commands `secrets ls`, `secrets set` and `secrets rm`."""

import re
import sys
from argparse import ArgumentTypeError, Namespace
from getpass import getpass
from typing import TYPE_CHECKING

from txcontain.cli.command import Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.screen import show_table

if TYPE_CHECKING:
    from txcontain.cli.client import Client

SECRETS = {"secrets": [{"name": str, "instances": [str]}]}
LONGEST = 1 << 16  # bytes


async def ls(client: "Client", _: Namespace) -> int:
    """Print the names of the secrets, and who has them."""
    rows = [["NAME", "INSTANCES"]]
    for one in (await client.ask("GET", "/secrets", shape=SECRETS))["secrets"]:
        rows.append([one["name"], " ".join(one["instances"]) or "-"])
    show_table(rows)
    return 0


async def put(client: "Client", arguments: Namespace) -> int:
    """Keep what comes on standard input as a secret."""
    if sys.stdin.isatty():
        content = getpass("The secret (it is not shown): ").encode()
    else:
        content = sys.stdin.buffer.read(LONGEST + 1)
    if not 0 < len(content) <= LONGEST:
        raise CliError(f"A secret has 1 to {LONGEST} bytes: send it to standard input.")
    await client.ask("PUT", f"/secrets/{arguments.secret}", data=content)
    return 0


async def rm(client: "Client", arguments: Namespace) -> int:
    """Remove secrets."""
    for name in arguments.secrets:
        await client.ask("DELETE", f"/secrets/{name}")
        print(name)
    return 0


def secret_name(text: str) -> str:
    """Return an argument that names a secret.

    :raises ArgumentTypeError: if no secret can have this name
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", text):
        raise ArgumentTypeError("a name is up to 63 letters, digits, '.', '_' and '-'")
    return text


SECRET = {"metavar": "SECRET", "type": secret_name, "help": "the name of a secret"}
COMMANDS = (
    Command(
        "secrets",
        "show the names of the secrets, set one, or remove it",
        ls,
        aliases=("secret",),
        commands=(
            Command("ls", "show the names of the secrets, and who has them", ls),
            Command(
                "set",
                "keep what comes on standard input as a secret",
                put,
                (Argument("secret", **SECRET),),
            ),
            Command(
                "rm",
                "remove secrets that no instance has",
                rm,
                (Argument("secrets", nargs="+", **SECRET),),
            ),
        ),
    ),
)
