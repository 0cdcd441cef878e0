"""The commands: what each is called, what it takes, and what it does.

A new command is a coroutine function and an entry in COMMANDS. Nothing here loads
Twisted, so that help and a mistyped command answer at once.
"""

import json
import re
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from txcontain.cli.errors import CliError

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json


CLEAR = "\x1b[H\x1b[2J"  # a terminal's: to the top left, and all empty
EVERY = 1.0  # seconds
UNKNOWN = 125  # the exit status of Docker's commands if Docker itself fails
EVENT_KEYS = ("seq", "time", "instance", "what", "reason")  # of every event; some have more
# Control characters; only colours (in group 1) are let through (ECMA-48, SGR).
COMMANDING = re.compile(
    rb"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]"
)

# The course's commands (v1).


async def upload(client: "Client", arguments: Namespace) -> int:
    """Store a config."""
    return await verdict(send(client, arguments.file))


async def send(client: "Client", file: Path) -> None:
    """Send a file as it is: the manager checks whether it is a config.

    :raises CliError: if it can't be read, or is refused
    """
    try:
        document = file.read_bytes()
    except OSError as error:
        raise CliError(f"Can't read {file}: {error.strerror}.") from error
    await client.upload(document)


async def cfginfo(client: "Client", _: Namespace) -> int:
    """Print the stored configs."""
    for name in await client.cfginfo():
        print(plain(name))
    return 0


async def launch(client: "Client", arguments: Namespace) -> int:
    """Start a container, and print its name."""
    try:
        launched = await client.launch(arguments.name, arguments.major, arguments.minor)
    except CliError as error:
        print("Failure:", plain(str(error)))
        return 1
    print("Success:", plain(launched["instance"]))
    return 0


async def list_running(client: "Client", _: Namespace) -> int:
    """Print the running instances."""
    for record in await client.list():
        print(plain(f"{record['instance']}: {config(record)}"))
    return 0


async def destroy(client: "Client", arguments: Namespace) -> int:
    """End one instance."""
    return await verdict(client.destroy(arguments.instance))


async def destroyall(client: "Client", _: Namespace) -> int:
    """End all instances."""
    return await verdict(client.destroyall())


async def verdict(doing: Awaitable[None]) -> int:
    """Print the one word that the course compares; the reason is left to the caller.

    :raises CliError: what `doing` raised
    """
    try:
        await doing
    except CliError:
        print("Failure")
        raise
    print("Success")
    return 0


# The extensions.


async def ps(client: "Client", arguments: Namespace) -> int:
    """Print a table of the instances."""
    rows = [["INSTANCE", "CONFIG", "STATE", "AGE", "PID", "RESTARTS", "EXIT"]]
    for record in await client.instances():
        if arguments.all or record["state"] != "ended":
            rows.append(row(record))
    print(table(rows))
    return 0


def table(rows: list[list[str]]) -> str:
    """Return rows of cells as lines, the columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows)


def row(record: "Json") -> list[str]:
    """Return the cells of an instance, in the order of the columns."""
    cells = [
        record["instance"],
        config(record),
        record["state"],
        age(time.time() - record["since"]),
        str(record["pid"] or "-"),
        str(record["restarts"]),
        record["exit"]["reason"] if record["exit"] else "-",
    ]
    return [one_line(cell) for cell in cells]


async def inspect(client: "Client", arguments: Namespace) -> int:
    """Print all that is known of an instance."""
    print(plain(json.dumps(await client.inspect(arguments.instance), indent=2, ensure_ascii=False)))
    return 0


async def stats(client: "Client", arguments: Namespace) -> int:
    """Print what the running instances use; on a terminal, again and again."""
    watched = sys.stdout.isatty() and not arguments.once
    usages, at = await client.stats(), time.monotonic()
    while True:
        before, since = {usage["instance"]: usage.get("cpu_usec") for usage in usages}, at
        await client.pause(EVERY)  # processor time is the difference of two readings
        usages, at = await client.stats(), time.monotonic()
        rows = [["INSTANCE", "CPU", "MEMORY", "LIMIT", "PEAK", "PIDS"]]
        rows += [usage_row(usage, before, at - since) for usage in usages]
        print(f"{CLEAR if watched else ''}{table(rows)}", flush=True)
        if not watched:
            return 0


def usage_row(usage: "Json", before: "Json", seconds: float) -> list[str]:
    """Return the cells of what an instance uses.

    :param before: microseconds of processor time that each had used, so many `seconds` ago
    """
    used, was = usage.get("cpu_usec"), before.get(usage["instance"])
    share = "-"
    if used is not None and was is not None and used >= was:  # else it was started again
        share = f"{(used - was) / seconds / 10_000:.1f} %"
    memory = (usage.get("memory"), usage["limits"].get("memory"), usage.get("memory_peak"))
    pids = usage.get("pids")
    return [usage["instance"], share, *map(size, memory), "-" if pids is None else str(pids)]


def size(number: int | None) -> str:
    """Return a number of bytes in its largest unit: 512B, 1.5M, 2.0G."""
    if number is None:
        return "-"
    for unit, scale in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if number >= scale:
            return f"{number / scale:.1f}{unit}"
    return f"{number}B"


async def explain(client: "Client", arguments: Namespace) -> int:
    """Print the shell script that would make an instance's container."""
    async for chunk in client.explain(arguments.instance):
        sys.stdout.buffer.write(chunk)
    return 0


async def doctor(client: "Client", _: Namespace) -> int:
    """Print what was found, and what was done about it."""
    for finding in await client.doctor() or ["All is well: nothing was found."]:
        print(plain(finding))
    return 0


async def logs(client: "Client", arguments: Namespace) -> int:
    """Print what instances have written, byte for byte; a terminal gets no control characters."""
    if arguments.all == bool(arguments.instances):
        raise CliError("Name the instances whose logs to show, or give --all.")
    chunks = client.logs(
        arguments.instances,
        arguments.follow,
        tail=arguments.lines,
        stream=arguments.stream,
        since=arguments.since,
        until=arguments.until,
        timestamps=1 if arguments.timestamps else None,
    )
    on_terminal = sys.stdout.isatty()
    async for chunk in chunks:
        sys.stdout.buffer.write(COMMANDING.sub(_shown, chunk) if on_terminal else chunk)
        sys.stdout.buffer.flush()
    return 0


def _shown(match: "re.Match[bytes]") -> bytes:
    return match[1] or b"".join(b"\\x%02x" % byte for byte in match[0])


async def events(client: "Client", arguments: Namespace) -> int:
    """Print what has happened."""
    async for event in client.events(arguments.follow, arguments.since):
        print(json.dumps(event) if arguments.json else told(event), flush=True)
    return 0


def told(event: "Json") -> str:
    """Return an event as a line to read."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    why = f": {event['reason']}" if event["reason"] else ""
    more = ", ".join(f"{key} {value}" for key, value in event.items() if key not in EVENT_KEYS)
    line = f"{event['seq']} {when} {event['instance'] or '-'} {event['what']}{why}"
    return one_line(f"{line} ({more})" if more else line)


async def wait(client: "Client", arguments: Namespace) -> int:
    """Print how an instance ended, once it has; return what a shell would call its status."""
    end = await client.wait(arguments.instance)
    print(plain(end["reason"]))
    if end["signal"] is not None:
        return 128 + int(end["signal"])
    # Neither status nor signal: the machine went down, and how it ended is unknown.
    return UNKNOWN if end["status"] is None else int(end["status"])


async def token(_: "Client", arguments: Namespace) -> int:
    """Print a new token, which is kept nowhere, and its line for the manager's file of tokens."""
    from hashlib import sha256  # which loads OpenSSL: no other command needs it
    from secrets import token_urlsafe

    made = f"txcontain_{token_urlsafe(32)}"
    print(f"TXCONTAIN_TOKEN={made}")
    print(f"{arguments.name} {arguments.role} {sha256(made.encode()).hexdigest()}")
    return 0


# Words.


def config(record: "Json") -> str:
    """Return the name of the config that an instance was launched from."""
    return f"{record['name']}-{record['major']}-{record['minor']}.cfg"


def age(seconds: float) -> str:
    """Return a duration in its largest unit: 59s, 3m, 2h, 12d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds / size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def plain(text: str) -> str:
    """Return a text with control characters escaped: a container may have written it."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def one_line(text: str) -> str:
    """Return a text of several lines as one."""
    return plain("; ".join(line.strip() for line in text.splitlines()))


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


def token_name(text: str) -> str:
    """Return an argument that names the holder of a token.

    :raises ArgumentTypeError: if the manager's file can't hold it
    """
    if not re.fullmatch(r"[\w.@-]{1,64}", text, re.ASCII):
        raise ArgumentTypeError("a name is up to 64 letters, digits, '_', '.', '@' and '-'")
    return text


# The table.


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


INSTANCE = Argument("instance", metavar="INSTANCE", type=instance_name, help="as launch named it")
FOLLOW = Argument("-f", "--follow", action="store_true", help="go on with what is to come")

COMMANDS = (
    Command(
        "upload",
        "store a config",
        upload,
        (Argument("file", metavar="FILE", type=Path, help="the config, a JSON document"),),
    ),
    Command("cfginfo", "list the stored configs", cfginfo),
    Command(
        "launch",
        "start a container from a stored config",
        launch,
        (
            Argument("name", metavar="NAME", help="the config's name"),
            Argument("major", metavar="MAJOR", help="its major version, such as 1"),
            Argument("minor", metavar="MINOR", help="its minor version, such as 01"),
        ),
    ),
    Command("list", "list the running instances", list_running),
    Command("destroy", "end an instance and remove what it kept", destroy, (INSTANCE,)),
    Command("destroyall", "end and remove all instances", destroyall),
    Command(
        "ps",
        "show the instances with their state",
        ps,
        (Argument("-a", "--all", action="store_true", help="also those that have ended"),),
    ),
    Command("inspect", "show all that is known of an instance", inspect, (INSTANCE,)),
    Command(
        "stats",
        "show what the running instances use",
        stats,
        (Argument("--once", action="store_true", help="print it once, and end"),),
    ),
    Command("explain", "show how to make an instance's container by hand", explain, (INSTANCE,)),
    Command("doctor", "look for what should not be there, and remove it", doctor),
    Command(
        "logs",
        "show what instances have written",
        logs,
        (
            FOLLOW,
            Argument("-n", "--lines", metavar="N", type=whole_number, help="only the last lines"),
            Argument("--since", metavar="TIME", help="only from then on: RFC 3339, or 10m, 2h ago"),
            Argument("--until", metavar="TIME", help="only up to then"),
            Argument("-t", "--timestamps", action="store_true", help="each line with its time"),
            Argument("--stream", choices=("stdout", "stderr"), help="only one of the two"),
            Argument("--all", action="store_true", help="all instances, merged by time"),
            Argument(
                "instances",
                metavar="INSTANCE",
                nargs="*",
                type=instance_name,
                help="as launch named it; several are merged by time",
            ),
        ),
    ),
    Command(
        "events",
        "show what has happened",
        events,
        (
            FOLLOW,
            Argument(
                "--since",
                metavar="N",
                type=whole_number,
                help="only events after number N: the last one that you have seen",
            ),
            Argument("--json", action="store_true", help="a JSON document a line"),
        ),
    ),
    Command(
        "wait",
        f"wait until an instance has ended; exit with its status ({UNKNOWN}: not known)",
        wait,
        (INSTANCE,),
        failure=UNKNOWN,
    ),
    Command(
        "token",
        "make a token: prints it, and the line for the manager's --tokens file",
        token,
        (
            Argument("name", metavar="NAME", type=token_name, help="whose it will be"),
            Argument("role", choices=("read", "write"), help="what it will be good for"),
        ),
    ),
)
