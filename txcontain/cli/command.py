"""What a command is, and the arguments that several commands take."""

import re
from argparse import REMAINDER, ArgumentTypeError, Namespace
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from txcontain.cli.client import Client


class Argument:
    """The arguments of a call of `ArgumentParser.add_argument`."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.names = names
        self.options = options


class Command(NamedTuple):
    """A command: its name, what it does in a sentence, what does it, and what it takes."""

    name: str
    help: str
    run: "Callable[[Client, Namespace], Coroutine[Any, Any, int]]"
    arguments: tuple[Argument, ...] = ()
    failure: int = 1  # the exit status if the command itself fails
    aliases: tuple[str, ...] = ()
    commands: "tuple[Command, ...]" = ()  # below it; `run` is what it does without one


def instance_name(text: str) -> str:
    """Return an argument that names an instance.

    :raises ArgumentTypeError: if it is empty, which a script's unset variable is
    """
    if not text:
        raise ArgumentTypeError("the name is empty: `txcontain ps` shows the instances")
    return text


def whole_number(text: str) -> int:
    """Return an argument that is a whole number.

    :raises ArgumentTypeError: if it is not one, or negative
    """
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ArgumentTypeError(f"it must be a whole number, 0 or more, not {text!r}")
    return int(text)


INSTANCE = Argument(
    "instance", metavar="INSTANCE", type=instance_name, help="its name, or the beginning of it"
)
INSTANCES = Argument(
    "instances",
    metavar="INSTANCE",
    nargs="+",
    type=instance_name,
    help="its name, the beginning of it, or config:NAME or service:NAME for all of that",
)
COMMAND = Argument(
    "command", metavar="COMMAND", nargs=REMAINDER, help="a program, and its arguments"
)
VERSION = tuple(
    Argument(
        word, metavar=word.upper(), nargs="?", help=f"its {word} version (default: the newest)"
    )
    for word in ("major", "minor")
)
QUIET = Argument("-q", "--quiet", action="store_true", help="only the names")
JSON = Argument("--json", action="store_true", help="a JSON document a line")
FOLLOW = Argument("-f", "--follow", action="store_true", help="go on with what is to come")
