"""The program `txcontain`: reads its command line, and carries out one command."""

import os
import re
import signal
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from txcontain import __version__
from txcontain.cli.command import Command
from txcontain.cli.commands import COMMANDS
from txcontain.cli.complete import complete, print_names
from txcontain.cli.errors import CliError, Misused
from txcontain.cli.system import give_help
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

DEFAULT_URL = "http://localhost:8080"
ADDRESS = re.compile(r"unix:/.+|https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?")
# What other programs of this kind call a command: no similar word.
ELSEWHERE = {"rm": "destroy", "unpause": "resume", "port": "publish"}
TIMES = tuple(f"argument --{name}" for name in ("since", "until"))  # of what a parser complains
FILES = {
    "ca": "the CA of the manager's certificate",
    "cert": "a certificate to be known by",
    "key": "its key",
}


def main(commands: Iterable[Command] = COMMANDS) -> NoReturn:
    """Carry out the command that this process was started with, one of these, and exit."""
    die_quietly_of_ctrl_c()
    open_what_is_closed()
    open_stdout()
    arguments = parse(sys.argv[1:], os.environ, commands)
    if arguments.run is complete:
        os._exit(print_names(arguments))
    if not arguments.url.startswith("https:"):
        do_without_tls()
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    loop: Any = reactor  # its annotation lacks most methods
    Deferred.fromCoroutine(session(loop, arguments)).addErrback(have_a_bug)
    # Without Twisted's handlers a signal ends this process at once. With them the reactor would
    # hang up first, and the error message would blame the manager.
    loop.run(installSignalHandlers=False)
    os._exit(1)


def have_a_bug(failure: Any) -> NoReturn:
    """Print the traceback of a bug, and exit."""
    failure.printTraceback()
    os._exit(1)


def die_quietly_of_ctrl_c() -> None:
    """Let Ctrl-C end this process as it ends a C program: at any time, without a traceback."""
    # If it is ignored (a job in the background), it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def open_what_is_closed() -> None:
    """Open standard streams that the caller has closed, before other files get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def open_stdout() -> None:
    """Make sure that standard output exists and accepts any text."""
    # It is None if the caller has closed it, and may know only ASCII.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (it stays open)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a file


def do_without_tls() -> None:
    """Keep Twisted from loading OpenSSL, a quarter of a command's time.

    Only https needs it. Twisted treats a module that can't be imported as not installed, and
    goes on without it.
    """
    for name in ("OpenSSL", "ssl"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None is allowed


async def session(reactor: Any, arguments: Namespace) -> NoReturn:
    """Carry out one command over the network, and exit."""
    from txcontain.cli.client import Client

    files = {name: getattr(arguments, name) for name in FILES}
    try:
        client = Client.connecting(arguments.url, reactor, arguments.token, **files)
    except CliError as error:
        status = failed(error, arguments)
    else:
        status = await carry_out(client, arguments)
    # All output is flushed. An orderly shutdown of the reactor and the interpreter would take
    # a sixth of a command's time.
    os._exit(status)


async def carry_out(client: "Client", arguments: Namespace) -> int:
    """Carry out one command, and return its exit status; what went wrong goes to stderr."""
    try:
        status: int = await arguments.run(client, arguments)
        sys.stdout.flush()
    except CliError as error:
        return failed(error, arguments)
    except BrokenPipeError:
        # The reader of the output has closed it.
        return 128 + signal.SIGPIPE
    except OSError as error:
        return failed(CliError(f"Can't write the output: {error.strerror}."), arguments)
    for note in client.notes:
        print(plain(note), file=sys.stderr)
    return status


def failed(error: CliError, arguments: Namespace) -> int:
    """Say what went wrong, and return the exit status.

    A wrong command line has the same one whether the parser or the command has seen it.
    """
    with suppress(OSError):  # which may be what went wrong
        sys.stdout.flush()
    print(plain(str(error)), file=sys.stderr)
    status: int = (arguments.parser if isinstance(error, Misused) else arguments).failure
    return status


def parse(
    words: list[str], environment: Mapping[str, str], commands: Iterable[Command] = COMMANDS
) -> Namespace:
    """Return what a command line asks for; with no command in it, say which there are, and exit.

    :param environment: where TXCONTAIN_URL and TXCONTAIN_TOKEN may be
    """
    top = parser(commands)
    arguments, unknown = top.parse_known_args(words)
    if unknown:
        arguments.parser.error(f"there is no argument {unknown[0]!r}: --help shows those there are")
    if arguments.run is give_help:
        top.parse_args([*arguments.of, "--help"])  # which exits
    if arguments.run is None:
        top.print_help(sys.stderr)
        raise SystemExit(2)
    where = environment.get("TXCONTAIN_URL") or DEFAULT_URL
    try:
        arguments.url = arguments.url or manager_url(where)
    except ArgumentTypeError as error:
        top.error(f"TXCONTAIN_URL: {error}")
    arguments.token = environment.get("TXCONTAIN_TOKEN", "").strip()
    if not re.fullmatch(r"[\w.~+/-]*=*", arguments.token, re.ASCII):
        top.error("TXCONTAIN_TOKEN: it holds a character that no token has")
    return arguments


class Parser(ArgumentParser):
    """A parser that asks whether a similar command was meant.

    :ivar failure: the exit status if the command line is wrong
    :ivar commands: the names of the commands that it has
    """

    failure = 2
    commands: Iterable[str] = ()

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and exit."""
        if match := re.search("argument COMMAND: invalid choice: '(.*?)' ", message):
            from difflib import get_close_matches  # which only a mistyped command needs

            message = f"there is no command {match[1]!r}"
            meant = [ELSEWHERE[match[1]]] if match[1] in ELSEWHERE else []
            meant = meant or get_close_matches(match[1], list(self.commands), 1)
            message += f": did you mean {meant[0]}?" if meant else ": --help shows those there are"
        elif message.startswith(TIMES):
            message += ": a time is as 2026-01-31T12:00:00Z, or how long ago, as 90s, 10m or 2h"
        self.print_usage(sys.stderr)
        self.exit(self.failure, f"{self.prog}: error: {message}\n")


def parser(commands: Iterable[Command] = COMMANDS) -> Parser:
    """Return the parser of the command line, for these commands."""
    top = Parser("txcontain", description="Runs and looks after containers.")
    top.set_defaults(run=None, parser=top)
    top.add_argument("--version", action="version", version=f"txcontain {__version__}")
    add_where(top, None)
    add_commands(top, commands)
    return top


def add_commands(parser: Parser, commands: Iterable[Command]) -> None:
    """Add commands, and those below them."""
    kinds = parser.add_subparsers(metavar="COMMAND")
    parser.commands = kinds.choices
    for command in commands:
        aliases, described = command.aliases, command.help
        kind = kinds.add_parser(
            command.name, aliases=aliases, help=described, description=described
        )
        kind.set_defaults(run=command.run, failure=command.failure, parser=kind)
        # That of a command which passes on a status must not look like one that it has passed on.
        kind.failure = max(command.failure, kind.failure)
        # Without a default of its own, it leaves what stood before the command as it is.
        add_where(kind, SUPPRESS)
        for argument in command.arguments:
            kind.add_argument(*argument.names, **argument.options)
        if command.commands:
            add_commands(kind, command.commands)


def add_where(parser: ArgumentParser, default: str | None) -> None:
    """Add the options that say where the manager is and what it is to be shown."""
    where = f"unix:/PATH, http:// or https://HOST:PORT (default: $TXCONTAIN_URL, or {DEFAULT_URL})"
    parser.add_argument("--url", type=manager_url, default=default, metavar="URL", help=where)
    for name, what in FILES.items():
        parser.add_argument(
            f"--{name}", type=Path, default=default, metavar="FILE", help=f"over https: {what}"
        )


def manager_url(text: str) -> str:
    """Return an argument that is the address of a manager.

    :raises ArgumentTypeError: if it is none
    """
    match = ADDRESS.fullmatch(text)
    if not match or int(match[1] or 80) > 65535:
        raise ArgumentTypeError(
            f"{text!r} is not the address of a manager: write http://HOST:PORT, https://HOST:PORT"
            " or unix:/PATH"
        )
    return text


if __name__ == "__main__":
    main()
