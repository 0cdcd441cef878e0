"""Commands that show an instance, and wait for it."""

import json
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import INSTANCE, Argument, Command
from txcontain.cli.screen import show_table
from txcontain.cli.words import plain, size

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

CLEAR = "\x1b[H\x1b[2J"  # a terminal's: to the top left, and all empty
EVERY = 1.0  # seconds
UNKNOWN = 125  # the exit status of Docker's commands if Docker itself fails


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
        print(CLEAR if watched else "", end="")
        show_table(rows)
        sys.stdout.flush()
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


async def explain(client: "Client", arguments: Namespace) -> int:
    """Print the shell script that would make an instance's container."""
    async for chunk in client.explain(arguments.instance):
        sys.stdout.buffer.write(chunk)
    return 0


async def wait(client: "Client", arguments: Namespace) -> int:
    """Print how an instance ended, once it has; return what a shell would call its status."""
    end = await client.wait(arguments.instance)
    print(plain(end["reason"]))
    if end["signal"] is not None:
        return 128 + int(end["signal"])
    # Neither status nor signal: the machine went down, and how it ended is unknown.
    return UNKNOWN if end["status"] is None else int(end["status"])


COMMANDS = (
    Command("inspect", "show all that is known of an instance", inspect, (INSTANCE,)),
    Command(
        "stats",
        "show what the running instances use",
        stats,
        (Argument("--once", action="store_true", help="print it once, and end"),),
    ),
    Command("explain", "show how to make an instance's container by hand", explain, (INSTANCE,)),
    Command(
        "wait",
        f"wait until an instance has ended; exit with its status ({UNKNOWN}: not known)",
        wait,
        (INSTANCE,),
        failure=UNKNOWN,
    ),
)
