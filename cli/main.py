"""The program `txcontain`: reads its command line, and carries out one command."""

import os
import re
import signal
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from txcontain.cli.commands import COMMANDS, plain
from txcontain.cli.errors import Trouble

if TYPE_CHECKING:
    from txcontain.cli.client import Client

DEFAULT_URL = "http://localhost:8080"
FILES = {
    "ca": "the CA of the manager's certificate",
    "cert": "a certificate to be known by",
    "key": "its key",
}


def main() -> NoReturn:
    """Carry out the command that this process was started with, and exit."""
    die_quietly_of_ctrl_c()
    arguments = parser(os.environ.get("TXCONTAIN_URL") or DEFAULT_URL).parse_args()
    open_stdout()
    if not arguments.url.startswith("https:"):
        do_without_tls()
    from twisted.internet.task import react

    react(session, (arguments,))


def die_quietly_of_ctrl_c() -> None:
    """Let Ctrl-C end this process as it ends a C program: at any time, without a traceback."""
    # Where it is ignored (a job in the background), it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def open_stdout() -> None:
    """Have a standard output that takes every text, whatever this process was given."""
    # It is None where the caller has closed it, and may know ASCII alone.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def do_without_tls() -> None:
    """Keep Twisted from loading OpenSSL, a quarter of a command's time.

    Only https needs it. Twisted takes a module that can't be imported for
    one that is not installed, and does without.
    """
    for name in ("OpenSSL", "ssl"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


async def session(reactor: Any, arguments: Namespace) -> NoReturn:
    """Carry out one command over the network, and exit."""
    from txcontain.cli.client import Client

    files = {name: getattr(arguments, name) for name in FILES}
    token = os.environ.get("TXCONTAIN_TOKEN", "").strip()
    try:
        client = Client.connecting(arguments.url, reactor, token, **files)
    except Trouble as trouble:
        status = failed(trouble)
    else:
        status = await carry_out(client, arguments)
    # All is said and flushed. To take down the reactor and the interpreter piece by
    # piece would be a sixth of a command's time.
    os._exit(status)


async def carry_out(client: "Client", arguments: Namespace) -> int:
    """Carry out one command, and return its exit status; what went wrong goes to stderr."""
    try:
        status: int = await arguments.run(client, arguments)
        sys.stdout.flush()
        return status
    except Trouble as trouble:
        return failed(trouble)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"Can't write the output: {error.strerror}.", file=sys.stderr)
        return 1


def failed(trouble: Trouble) -> int:
    """Say what went wrong, and return the exit status."""
    sys.stdout.flush()
    print(plain(str(trouble)), file=sys.stderr)
    return 1


def parser(url: str) -> ArgumentParser:
    """Return the parser of the command line, for COMMANDS and a default address."""
    top = ArgumentParser("txcontain", description="Runs and looks after containers.")
    add_where(top, url, None)
    kinds = top.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        kind = kinds.add_parser(command.name, help=command.help, description=command.help)
        kind.set_defaults(run=command.run)
        # Without a default of its own, it leaves alone what stood before the command.
        add_where(kind, SUPPRESS, SUPPRESS)
        for argument in command.arguments:
            kind.add_argument(*argument.names, **argument.options)
    return top


def add_where(parser: ArgumentParser, url: str, nothing: str | None) -> None:
    """Add the options that say where the manager is and what it is to be shown."""
    where = f"unix:/PATH, http:// or https://HOST:PORT (default: $TXCONTAIN_URL, or {DEFAULT_URL})"
    parser.add_argument("--url", type=manager_url, default=url, metavar="URL", help=where)
    for name, what in FILES.items():
        parser.add_argument(
            f"--{name}", type=Path, default=nothing, metavar="FILE", help=f"over https: {what}"
        )


def manager_url(text: str) -> str:
    """Return an argument that is the address of a manager.

    :raises ArgumentTypeError: if it is none
    """
    match = re.fullmatch(r"unix:/.+|https?://[A-Za-z0-9.-]+(?::([0-9]{1,5}))?/?", text)
    if not match or int(match[1] or 80) > 65535:
        raise ArgumentTypeError(
            f"{text!r} is no address of a manager: write http://HOST:PORT, https://HOST:PORT or"
            " unix:/PATH"
        )
    return text


if __name__ == "__main__":
    main()
