"""What a person sees on stderr while a launch or a pull takes long, and after it."""

import shutil
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from txcontain.cli.errors import CliError
from txcontain.cli.screen import cut
from txcontain.cli.words import age, plain, size

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

EVERY = 0.5  # seconds
CLEAR = "\r\x1b[K"  # a terminal's: to the left, and the line empty
LINES_EVERY = 10  # of these: a line where no terminal is
BAR = 20  # characters
UNPACKING = {"unpacking": [{"tarball": str, "seconds": (int, float), "bytes": int}]}


async def with_progress(
    client: "Client", launch: "Coroutine[Any, Any, Json]", lines: bool = False
) -> "Json":
    """Return what a launch returns; meanwhile, show on a terminal what is pulled and unpacked.

    :param lines: whether to print lines where no terminal is
    :raises CliError: what the launch raised, or that nothing goes on any more
    """
    from twisted.internet.defer import CancelledError, Deferred

    from txcontain.cli.client import SLOW

    is_terminal = sys.stderr.isatty()
    begun, lost = Deferred.fromCoroutine(launch), []

    def lose_patience(_: object) -> None:
        lost.append(client.silent(SLOW))
        begun.cancel()

    watches = [Deferred.fromCoroutine(wait_while_images_come(client)).addCallback(lose_patience)]
    if is_terminal or lines:
        watches.append(Deferred.fromCoroutine(show(client, is_terminal)))
    for watch in watches:
        watch.addErrback(lambda failure: failure.trap(CancelledError, CliError))
    try:
        return await begun
    except (CancelledError, CliError):
        if lost:
            raise lost[0] from None
        raise
    finally:
        for watch in watches:
            watch.cancel()
        if is_terminal:
            print(CLEAR, end="", file=sys.stderr, flush=True)


async def wait_while_images_come(client: "Client") -> None:
    """Return when nothing has come for a while, and nothing was unpacked."""
    from txcontain.cli.client import SLOW

    before: list[int] = []
    while True:
        await client.pause(SLOW)
        try:
            told = await client.ask("GET", "/unpacking", shape=UNPACKING)
        except CliError:  # an earlier version can't tell
            return
        now = [one["bytes"] for one in (*told["unpacking"], *told.get("pulling", ()))]
        if now in ([], before):
            return
        before = now


async def show(client: "Client", is_terminal: bool = True) -> None:
    """Show what is pulled and unpacked, again and again.

    :raises CliError: if the manager does not tell; an earlier version can't
    """
    while True:
        await client.pause(EVERY if is_terminal else EVERY * LINES_EVERY)
        told = await client.ask("GET", "/unpacking", shape=UNPACKING)
        unpacking = [f"{one['tarball']} ({sofar(one)})" for one in told["unpacking"]]
        pulling = [f"pulling {one['image']} {taken(one)}" for one in told.get("pulling", ())]
        line = plain(
            ", ".join([*pulling, *["unpacking " + ", ".join(unpacking)] * bool(unpacking)])
        )
        if is_terminal:
            width = shutil.get_terminal_size().columns
            print(CLEAR + cut(line, width - 1), end="", file=sys.stderr, flush=True)
        elif line:
            print(line, file=sys.stderr, flush=True)


def taken(one: "Json") -> str:
    """Return how far a pull is: a bar, bytes, and bytes in a second."""
    if not one["size"]:
        return f"({age(one['seconds'])})"
    done = "#" * (BAR * one["bytes"] // one["size"])
    rate = f"{size(int(one['bytes'] / max(one['seconds'], 0.1)))}/s"
    return f"[{done:-<{BAR}}] {size(one['bytes'])} of {size(one['size'])}, {rate}"


def sofar(one: "Json") -> str:
    """Return how far an unpacking is."""
    taken = age(one["seconds"])
    return f"{taken}, {size(one['bytes'])} so far" if one["bytes"] else taken


async def say_if_it_listens(client: "Client", instance: str) -> None:
    """Say on a terminal that an instance listens on its PORT, if it has one and does."""
    if not sys.stderr.isatty():
        return
    sys.stdout.flush()  # the launch has worked: that comes first
    try:
        record = await client.inspect(instance)
    except CliError:  # it has ended, and is gone: it has been launched all the same
        return
    if record.get("ready") and record.get("port"):
        print(plain(f"{instance} listens on port {record['port']}"), file=sys.stderr)
