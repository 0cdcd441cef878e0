"""The command `step`: a launch that stops before each step, or lacks a wall."""

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from txcontain.cli.command import Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.words import one_line

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

STEP = {"op": str, "about": str, "why": str, "attack": str, "test": str}
CHANGE = {"of": str, "gone": [str], "new": [str]}
WHERE = {"at": int, "pid": int, "changes": [CHANGE]}
BEGUN = {"launch": str, "steps": [STEP], **WHERE}
ESCAPE = {"wall": str, "purpose": str, "key": str, "does": str, "script": str}
ESCAPES = {"escapes": [ESCAPE]}
TRIED = {"escaped": bool, "ended": str, "said": str}
WENT = {"without": TRIED, "with": TRIED}
HELP = """\
next             carry out the next step
continue         all steps but the last one, which would run the program
until OP|N       stop before the next step of this name, or before step N
back             begin again, and stop one step before
diff             what has changed since the last stop; at first, since the manager
why              what the next step is for, what it prevents, and the test that tries that
list             all steps
shell            a shell in what there is so far (as root, on the manager's host)
quit             end it: nothing of it is left but its volumes
The first letter of each does as well; an empty line is next."""
NAMES = ("next", "continue", "until", "back", "diff", "why", "list", "shell", "quit", "help")
ENTER = "nsenter --target {} --mount --uts --ipc --net --pid --cgroup --root --wd sh -c"
# The last shell is a job of the second one's. On its exit a shell gives the terminal back to the
# group that had it; that of the second is of another pid namespace, so it fails, and says so.
SHELL = "sh -mc 'sh 2>&3 3>&-; exit' 3>&2 2>/dev/null"


class Launch:
    """A launch that is stepped through."""

    def __init__(self, client: "Client", config: str) -> None:
        self.client, self.config = client, config
        self.chunks: AsyncGenerator[bytes, None] | None = None
        self.path, self.at, self.pid = "", 0, 0
        self.steps: list[Json] = []
        self.changes: list[Json] = []

    async def begin(self, to: int) -> None:
        """Begin anew, and stop before a step."""
        from txcontain.cli.client import parse, quoted

        await self.end()
        path = f"/steps/{quoted(self.config)}"
        self.chunks = self.client.stream("POST", path, json={"to": to}, patience=None)
        begun = b""
        async for chunk in self.chunks:
            begun += chunk
            if b"\n" in begun:
                break
        try:
            told = parse(begun, BEGUN)
        except ValueError as error:
            raise CliError(f"The manager's answer makes no sense: {error}") from error
        self.path, self.steps = f"{path}/{quoted(told['launch'])}", told["steps"]
        self._be_at(told)

    async def go_to(self, to: int) -> None:
        """Carry out all steps before one."""
        asked = {"json": {"to": to}, "patience": None}  # a step may copy or wait for a lot
        self._be_at(await self.client.ask("POST", self.path, shape=WHERE, **asked))

    async def go_back(self) -> None:
        """Begin anew, and carry out the step before the last one by itself: its changes count."""
        to = max(self.at - 1, 0)
        await self.begin(max(to - 1, 0))
        if to:
            await self.go_to(to)

    def _be_at(self, told: "Json") -> None:
        self.at, self.pid, self.changes = told["at"], told["pid"], told["changes"]

    async def end(self) -> None:
        """Hang up: the manager ends it."""
        if self.chunks is not None:
            await self.chunks.aclose()
            self.chunks = None

    @property
    def last(self) -> int:
        """The number of the last step, which is never carried out."""
        return len(self.steps) - 1

    def find(self, op: str) -> int:
        """The number of the next step of a name, or of the one that a number (from 1) names."""
        if op.isdecimal():
            return min(max(int(op) - 1, self.at), self.last)
        found = [i for i, one in enumerate(self.steps) if i > self.at and one["op"] == op]
        if not found:
            raise CliError(f"No step {op} is still to come: `list` shows them.")
        return found[0]


async def step(client: "Client", arguments: Namespace) -> int:
    """Make a container step by step, at a prompt; or without a wall, for an escape."""
    config = f"{arguments.name}-{arguments.major}-{arguments.minor}"
    if arguments.without:
        return await escape(client, config, arguments.without)
    launch = Launch(client, config)
    try:
        await launch.begin(0)
        if arguments.at:
            await launch.go_to(launch.find(arguments.at))
        print(place(launch))
        while (typed := prompt()) is not None:
            name, _, rest = typed.partition(" ")
            command = next((one for one in NAMES if name and one.startswith(name)), "")
            if command == "quit":
                break
            await answer(launch, command or ("next" if not name else "help"), rest.strip())
    finally:
        await launch.end()
    return 0


async def escape(client: "Client", config: str, wall: str) -> int:
    """Try an escape without its wall and with it; return whether only the first has got out."""
    from txcontain.cli.client import quoted

    known = (await client.ask("GET", "/escapes", shape=ESCAPES))["escapes"]
    about = next((one for one in known if one["wall"] == wall), None)
    if about is None:
        walls = ", ".join(one["wall"] for one in known)
        raise CliError(f"There is no wall {wall!r}. The walls are: {walls}")
    asked = {"json": {"without": wall}, "patience": None}  # an image may have to be unpacked
    went = await client.ask("POST", f"/escapes/{quoted(config)}", shape=WENT, **asked)
    print(f"{about['wall']}: {about['purpose']}.\nWithout it, this {about['does']}:\n")
    print(*(f"    {line}" for line in about["script"].splitlines()), sep="\n")
    for which in ("without", "with"):
        print(f"\n{which.capitalize()} the wall: {outcome(went[which])}")
        for line in went[which]["said"].splitlines():
            print(f"    {one_line(line)}".rstrip())
    return 0 if went["without"]["escaped"] and not went["with"]["escaped"] else 1


def outcome(tried: "Json") -> str:
    """Return how an escape went, in a word and the end of its process."""
    return f"{'it got out' if tried['escaped'] else 'held'} ({one_line(tried['ended'])})"


def prompt() -> str | None:
    """Return what was typed; None at its end."""
    print("step> ", end="", flush=True)
    line = sys.stdin.readline()
    return line.strip() if line else None


async def answer(launch: Launch, command: str, rest: str) -> None:
    """Do what was typed, and print what there is to see."""
    moves = {"next": launch.at + 1, "continue": launch.last}
    try:
        if command in ("next", "continue", "until"):
            to = launch.find(rest) if command == "until" else moves[command]
            if to > launch.last:
                print("Only the program is left to run, which a launch in steps does not do.")
                return
            await launch.go_to(to)
            print(place(launch))
        elif command == "back":
            await launch.go_back()
            print(place(launch))
        elif command == "shell":
            enter(launch.pid)
        else:
            print(told(launch, command))
    except CliError as error:
        print(error, file=sys.stderr)


def enter(pid: int) -> None:
    """Run a shell in the container as it is now."""
    if os.geteuid() != 0:
        raise CliError("Only root can enter it, on the manager's host.")
    subprocess.run([*ENTER.format(pid).split(), SHELL], check=False)
    take_terminal_back()


def take_terminal_back() -> None:
    """Be in its foreground: a shell of another pid namespace can't undo that (tcsetpgrp(3))."""
    if os.isatty(0):
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # which is for those who are not
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, before)


def told(launch: Launch, command: str) -> str:
    """Return what a command that changes nothing prints."""
    if command == "diff":
        return "\n".join(differences(launch.changes)) or "Nothing that /proc tells has changed."
    if command == "list":
        return "\n".join(
            f"{'>' if i == launch.at else ' '} {named(i, one)}"
            for i, one in enumerate(launch.steps)
        )
    if command == "why":
        one = launch.steps[launch.at]
        lines = [one["why"]]
        if one["attack"]:
            lines += [f"It prevents: to {one['attack']}.", f"The test: {one['test']}"]
        return "\n".join(map(one_line, lines))
    return HELP


def place(launch: Launch) -> str:
    """Return where a launch has stopped."""
    return f"Next: {named(launch.at, launch.steps[launch.at])} (of {len(launch.steps)})"


def named(number: int, one: "Json") -> str:
    """Return a step in a line."""
    return one_line(f"{number + 1} {one['op']} {one['about']}".rstrip())


def differences(changes: "list[Json]") -> list[str]:
    """Return what has changed, a line each, as diff(1) has them."""
    lines = []
    for change in changes:
        lines.append(f"{one_line(change['of'])}:")
        lines += [f"  - {one_line(line)}" for line in change["gone"]]
        lines += [f"  + {one_line(line)}" for line in change["new"]]
    return lines


COMMANDS = (
    Command(
        "step",
        "make a container step by step, and look at it in between",
        step,
        (
            Argument("--at", metavar="OP|N", help="stop first before this step"),
            Argument(
                "--without",
                metavar="WALL",
                help="leave out this wall, and see what gets out (docs/walls.md)",
            ),
            Argument("name", metavar="NAME"),
            Argument("major", metavar="MAJOR"),
            Argument("minor", metavar="MINOR"),
        ),
    ),
)
