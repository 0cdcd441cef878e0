"""What a person at a terminal sees on stderr while a launch takes long, and after it."""

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
UNPACKING = {"unpacking": [{"tarball": str, "seconds": (int, float), "bytes": int}]}


async def with_progress(client: "Client", launch: "Coroutine[Any, Any, Json]") -> "Json":
    """Return what a launch returns; meanwhile, show on a terminal what is unpacked for it.

    :raises CliError: what the launch raised
    """
    if not sys.stderr.isatty():
        return await launch
    from twisted.internet.defer import CancelledError, Deferred

    showing = Deferred.fromCoroutine(show(client))
    showing.addErrback(lambda failure: failure.trap(CancelledError, CliError))
    try:
        return await launch
    finally:
        showing.cancel()
        print(CLEAR, end="", file=sys.stderr, flush=True)


async def show(client: "Client") -> None:
    """Show what is unpacked, again and again.

    :raises CliError: if the manager does not tell; an earlier version can't
    """
    while True:
        await client.pause(EVERY)
        told = (await client.ask("GET", "/unpacking", shape=UNPACKING))["unpacking"]
        parts = [f"{one['tarball']} ({sofar(one)})" for one in told]
        line = f"unpacking {', '.join(parts)}" if parts else ""
        width = shutil.get_terminal_size().columns
        print(CLEAR + cut(plain(line), width - 1), end="", file=sys.stderr, flush=True)


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
