"""Commands that run something in an instance: exec, shell."""

import os
import re
import sys
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from txcontain.cli.command import COMMAND, INSTANCE, Argument, Command
from txcontain.cli.errors import CliError, Misused, Refused
from txcontain.cli.instances import UNKNOWN, status_of
from txcontain.cli.logs import emit
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

CANNOT_RUN, NO_SUCH_PROGRAM = 126, 127  # exit statuses, as a shell's
STATUSES = {
    "urn:txcontain:cannot-run": CANNOT_RUN,
    "urn:txcontain:no-such-program": NO_SUCH_PROGRAM,
}
# The shell that the image's /etc/passwd gives the user, if it is one that can be used.
SHELL = """\
shell=/bin/sh
while IFS=: read -r name _ _ _ _ _ found; do
    case $name:$found in
        "$USER":*/nologin | "$USER":*/false) ;;
        "$USER":/*) if [ -x "$found" ]; then shell=$found; fi ;;
    esac
done 2>/dev/null </etc/passwd
exec "$shell"
"""


async def exec_(client: "Client", arguments: Namespace) -> int:
    """Run a command in an instance; return its exit status."""
    if not arguments.command:
        raise Misused("Say what to run in it: txcontain exec INSTANCE COMMAND...")
    check_terminal(arguments)
    return await run(client, arguments, arguments.command, arguments.interactive, arguments.tty)


def check_terminal(arguments: Namespace) -> None:
    """Raise CliError if a terminal is asked for, and this is not one."""
    if arguments.tty and not sys.stdin.isatty():
        raise CliError("-t needs a terminal, and standard input is none: leave -t out.")


async def shell(client: "Client", arguments: Namespace) -> int:
    """Run the user's shell in an instance, on a terminal if this is one."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    return await run(client, arguments, ["/bin/sh", "-c", SHELL], True, on_terminal)


async def attach(client: "Client", arguments: Namespace) -> int:
    """Show what an instance writes from now on; once it has ended, return its status.

    If it has a terminal, and this is one, what is typed here is typed there.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        inspected = await client.inspect(arguments.instance)
        if inspected.get("spec", {}).get("tty"):
            return await use(client, inspected["instance"], arguments.detach_keys) or 0
    async for chunk in client.logs([arguments.instance], True, tail=0):
        emit(chunk, sys.stdout)
    return status_of(await client.wait(arguments.instance))


async def use(
    client: "Client",
    instance: str,
    leave: bytes,
    *,
    interactive: bool = True,
    from_start: bool = False,
) -> int | None:
    """Use the terminal of an instance; return its status, or None if the terminal is left."""
    from txcontain.cli.streams import use_terminal

    status = await use_terminal(
        client, instance, leave, interactive=interactive, from_start=from_start
    )
    if status is None:
        print(plain(f"\n{instance} runs on: txcontain attach {instance}"), file=sys.stderr)
    return status


async def run(
    client: "Client", arguments: Namespace, command: list[str], interactive: bool, tty: bool
) -> int:
    """Run a command over a WebSocket; return its exit status."""
    from txcontain.cli.streams import run_command

    asked: dict[str, Any] = {
        "command": command,
        "env": [*terminal_type()] * tty + arguments.env,
        "user": arguments.user,
        "workdir": arguments.workdir,
    }
    try:
        return await run_command(client, arguments.instance, asked, interactive, tty)
    except Refused as refusal:
        arguments.failure = STATUSES.get(refusal.kind, UNKNOWN)
        raise


def terminal_type() -> list[str]:
    """Return the variable that says what kind of terminal this is, if that is known."""
    kind = os.environ.get("TERM", "")
    return [f"TERM={kind}"] if re.fullmatch(r"[\w.+-]{1,64}", kind, re.ASCII) else []


def variable(text: str) -> str:
    """Return an argument NAME=VALUE; if it is only a NAME, with the value that it has here.

    :raises ArgumentTypeError: if that has none
    """
    name, equals, _ = text.partition("=")
    if not equals and name not in os.environ:
        raise ArgumentTypeError(f"write NAME=VALUE: there is no variable {name!r} here")
    return text if equals else f"{name}={os.environ[name]}"


def keys(text: str) -> bytes:
    """Return the keys that an argument such as ctrl-p,ctrl-q or ctrl-x,d stands for.

    :raises ArgumentTypeError: if it stands for none
    """
    found = [re.fullmatch(r"(ctrl-)?([!-~])", key) for key in text.split(",")]
    if not all(found) or len(found) > MOST_KEYS:
        raise ArgumentTypeError(f"write keys such as ctrl-p,ctrl-q or ctrl-x,d, not {text!r}")
    return bytes(
        ord(key[2].upper()) & 0x1F if key[1] else ord(key[2]) for key in found if key is not None
    )


MOST_KEYS = 8
DETACH_KEYS = Argument(
    "--detach-keys",
    metavar="KEYS",
    type=keys,
    default="ctrl-p,ctrl-q",
    help="what leaves its terminal, and lets it run on (default: ctrl-p,ctrl-q)",
)
INTERACTIVE = Argument("-i", "--interactive", action="store_true", help="it reads standard input")
TTY = Argument("-t", "--tty", action="store_true", help="give it a terminal")
WHO = (
    Argument(
        "-u", "--user", metavar="USER[:GROUP]", help="who runs it (default: as in its config)"
    ),
    Argument(
        "-e",
        "--env",
        metavar="NAME=VALUE",
        type=variable,
        action="append",
        default=[],
        help="a variable on top of the container's; of only a NAME, the value that it has here; may"
        " be repeated",
    ),
    Argument("-w", "--workdir", metavar="/PATH", help="where it starts (default: the user's home)"),
)

COMMANDS = (
    Command(
        "exec",
        "run a command in an instance, and exit with its status",
        exec_,
        (
            INTERACTIVE,
            TTY,
            *WHO,
            INSTANCE,
            COMMAND,
        ),
        failure=UNKNOWN,
    ),
    Command(
        "attach",
        "use an instance's terminal, or show what it writes from now on; exit with its status",
        attach,
        (DETACH_KEYS, INSTANCE),
        failure=UNKNOWN,
    ),
    Command(
        "shell",
        "start a shell in an instance",
        shell,
        (*WHO, INSTANCE),
        failure=UNKNOWN,
    ),
)
