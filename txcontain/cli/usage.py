"""Commands that show what instances use: all of them, or the processes of one."""

import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import Argument, Command, instance_name
from txcontain.cli.errors import Misused
from txcontain.cli.ps import INSTANCES, named_ones
from txcontain.cli.screen import show_table
from txcontain.cli.words import size

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

CLEAR = "\x1b[H\x1b[2J"  # a terminal's: to the top left, and all empty
OF_ONE = "its name, or the beginning of it: show its processes"
EVERY = 1.0  # seconds
HEAD = ("INSTANCE", "CPU", "MEMORY", "LIMIT", "PEAK", "PIDS", "NET I/O", "BLOCK I/O", "PRESSURE")
PROCESS = {"pid": int, "host_pid": int, "user": int, "cpu_usec": int, "memory": int, "command": str}


async def stats(client: "Client", arguments: Namespace) -> int:
    """Print what the running instances use; on a terminal, again and again."""
    watched = sys.stdout.isatty() and not arguments.once
    wanted = {one["instance"] for one in await named_ones(client, arguments.instances)}
    usages, at = await client.stats(), time.monotonic()
    while True:
        before, since = {usage["instance"]: usage.get("cpu_usec") for usage in usages}, at
        await client.pause(EVERY)  # processor time is the difference of two readings
        usages, at = await client.stats(), time.monotonic()
        shown = [usage for usage in usages if not wanted or usage["instance"] in wanted]
        rows = [list(HEAD), *(usage_row(usage, before, at - since) for usage in shown)]
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
    return [
        usage["instance"],
        share,
        *map(size, memory),
        "-" if pids is None else str(pids),
        in_and_out(usage, "network_received", "network_sent"),
        in_and_out(usage, "io_read", "io_written"),
        pressure(usage.get("pressure", {})),
    ]


def in_and_out(usage: "Json", *keys: str) -> str:
    """Return two numbers of bytes, or - if they are not counted."""
    return " / ".join(size(usage[key]) for key in keys) if usage.keys() >= set(keys) else "-"


def pressure(waits: "Json") -> str:
    """Return what processes waited for in the last 10 s, and for how much of that time."""
    return ", ".join(f"{what} {share:.0f} %" for what, share in waits.items() if share >= 1) or "-"


async def top(client: "Client", arguments: Namespace) -> int:
    """Print the processes of an instance; without one, show all instances until the user leaves."""
    if arguments.instance is None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise Misused("Without an instance, top needs a terminal: `txcontain stats` does not.")
        from txcontain.cli.terminal import watch

        return await watch(client, arguments)
    from txcontain.cli.client import quoted

    shape = {"processes": [PROCESS], "more": int}
    told = await client.ask("GET", f"/instances/{quoted(arguments.instance)}/top", shape=shape)
    rows = [["PID", "HOST PID", "USER", "CPU", "MEMORY", "COMMAND"]]
    for one in told["processes"]:
        numbers = [str(one[key]) for key in ("pid", "host_pid", "user")]
        seconds = f"{one['cpu_usec'] / 1e6:.1f}s"
        rows.append([*numbers, seconds, size(one["memory"]), one["command"]])
    show_table(rows)
    if told["more"]:
        print(f"and {told['more']} more", file=sys.stderr)
    return 0


COMMANDS = (
    Command(
        "stats",
        "show what the running instances use",
        stats,
        (Argument("--once", action="store_true", help="print it once, and end"), INSTANCES),
    ),
    Command(
        "top",
        "show all instances, and what they use, on the whole terminal; or an instance's processes",
        top,
        (Argument("instance", metavar="INSTANCE", nargs="?", type=instance_name, help=OF_ONE),),
    ),
)
