"""The command `lesson`: the exercises of docs/lessons/, whether one is solved, and how.

A page's blocks that begin with ```` ```console ```` are sessions of root's: lines with ``# `` are
commands, those with ``> `` go on with one, and the others are output. Words after ``console`` name
what differs from run to run (``MASKS``). The block with the word ``check`` is that of the exercise.
"""

import os
import re
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from txcontain.cli.command import Argument, Command, whole_number
from txcontain.cli.errors import CliError

if TYPE_CHECKING:
    from txcontain.cli.client import Client

FOLDER = Path(__file__).parents[2] / "docs/lessons"
BLOCK = re.compile(r"^```console(.*)\n((?s:.*?))^```$", re.MULTILINE)
COMMAND = re.compile(r"^# (.*(?:\n> .*)*)\n?((?:(?!# ).*\n)*)", re.MULTILINE)
EXERCISE = re.compile(r"(?s)\n## Exercise\n\n(.*?)\n<details>.*?</summary>\n\n(.*?)\n</details>")
# Wherever a block names one of them, what it matches is not compared.
MASKS = {
    "pids": r"\b\d+\b",
    "namespaces": r"\[\d+\]",
    "times": r"\b\d+:\d\d(:\d\d)?\b|\b[A-Z][a-z]{2} +\d+\b",
    "capabilities": r"\b[0-9a-f]{16}\b",
    "digests": r"\b[0-9a-f]{64}\b",
    "sizes": r"\b\d+(\.\d+)?[KMG]?\b",
}
# A shell that reads a pipe says more than one at a terminal does. Blanks at the end aren't seen.
OF_PIPES = (
    (r"(?m)^(\S*bash): line \d+: +\d+ (Killed|Terminated)\b.*$", r"\2"),
    (r"(?m)^(\S*bash): line \d+: ", r"\1: "),
    (r"(?m) +$", ""),
)
SHELL = ("bash", "--noprofile", "--norc")
WITHIN = 30  # seconds, for each command


class Block(NamedTuple):
    """Commands of a page, each with its output, and the words after ``console``."""

    words: list[str]
    commands: list[tuple[str, str]]


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page's text, in its order."""
    return [Block(words.split(), COMMAND.findall(text)) for words, text in BLOCK.findall(page)]


def plain(command: str) -> str:
    """Return a command without the marks of its further lines."""
    return command.replace("\n> ", "\n")


def masked(output: str, words: list[str]) -> str:
    """Return an output without what differs from run to run."""
    for name in words:
        output = re.sub(MASKS.get(name, "(?!)"), f"<{name}>", output)
    # Columns are as wide as what was masked.
    return re.sub(" +", " ", output) if words else output


def as_at_a_terminal(output: str) -> str:
    """Return what a shell without a terminal has written as one with a terminal writes it."""
    for pattern, replacement in OF_PIPES:
        output = re.sub(pattern, replacement, output)
    # What ends without a newline is shown with one.
    output = output.removesuffix("\n")
    return output if not output or output.endswith("\n") else f"{output}\n"


def pages() -> list[Path]:
    """Return the files of all lessons, in order."""
    return sorted(FOLDER.glob("[0-9]*.md"))


def page_of(number: int) -> str:
    """Return the text of a lesson's page."""
    known = pages()
    if not known:
        raise CliError("The lessons are not installed: they are in docs/lessons/ of the sources.")
    if not 1 <= number <= len(known):
        raise CliError(f"There is no lesson {number}: they are 1 to {len(known)}.")
    return known[number - 1].read_text()


def exercise_of(page: str) -> tuple[str, str]:
    """Return a page's exercise, and its solution."""
    match = EXERCISE.search(page)
    assert match is not None  # a test looks at all pages
    return match[1], match[2]


async def ls(client: "Client", arguments: Namespace) -> int:
    """Show the lessons."""
    page_of(1)
    for page in pages():
        print(page.read_text().partition("\n")[0].removeprefix("# "))
    return 0


async def exercise(client: "Client", arguments: Namespace) -> int:
    """Show a lesson's exercise."""
    print(exercise_of(page_of(arguments.number))[0], end="")
    return 0


async def solution(client: "Client", arguments: Namespace) -> int:
    """Show the solution of a lesson's exercise."""
    print(exercise_of(page_of(arguments.number))[1], end="")
    return 0


async def check(client: "Client", arguments: Namespace) -> int:
    """Run the check of a lesson's exercise here."""
    number = arguments.number
    (block,) = [one for one in blocks_of(page_of(number)) if "check" in one.words]
    for command, wanted in block.commands:
        got = as_at_a_terminal(run(plain(command)))
        if masked(got, block.words) != masked(wanted, block.words):
            print(f"This should write:\n\n# {command}\n{wanted}\nIt writes:\n\n{got}")
            print(f"Lesson {number} is not solved yet.")
            return 1
    print(f"Lesson {number} is solved.")
    return 0


def run(command: str) -> str:
    """Return what a command of a lesson writes."""
    try:
        done = subprocess.run(
            [*SHELL, "-c", command],
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CliError(f"It has not ended within {WITHIN} s: {command}") from error
    return done.stdout.decode(errors="replace")


NUMBER = Argument("number", metavar="N", type=whole_number, help="the number of the lesson")
COMMANDS = (
    Command(
        "lesson",
        "show an exercise of docs/lessons, check whether it is solved, or how to",
        ls,
        commands=(
            Command("ls", "show the lessons", ls),
            Command("exercise", "show a lesson's exercise", exercise, (NUMBER,)),
            Command("check", "check here whether it is solved", check, (NUMBER,)),
            Command("solution", "show how to solve it", solution, (NUMBER,)),
        ),
    ),
)
