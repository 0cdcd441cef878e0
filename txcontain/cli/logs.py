"""The command that shows what instances have written."""

import re
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, TextIO

from txcontain.cli.command import FOLLOW, Argument, Command, instance_name, whole_number
from txcontain.cli.errors import Misused

if TYPE_CHECKING:
    from txcontain.cli.client import Client

# Control characters; only colours (in group 1) are let through (ECMA-48, SGR).
COMMANDING = re.compile(
    rb"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]"
)


async def logs(client: "Client", arguments: Namespace) -> int:
    """Print what instances have written, byte for byte; a terminal gets no control characters."""
    if arguments.all == bool(arguments.instances):
        raise Misused("Name the instances whose logs to show, or give --all.")
    chunks = client.logs(
        arguments.instances,
        arguments.follow,
        tail=arguments.lines,
        stream=arguments.stream,
        since=arguments.since,
        until=arguments.until,
        timestamps=1 if arguments.timestamps else None,
    )
    async for chunk in chunks:
        emit(chunk, sys.stdout)
    return 0


def emit(chunk: bytes, stream: TextIO) -> None:
    """Write what a container has written; a terminal gets no control characters."""
    stream.buffer.write(COMMANDING.sub(_shown, chunk) if stream.isatty() else chunk)
    stream.buffer.flush()


def _shown(match: "re.Match[bytes]") -> bytes:
    return match[1] or b"".join(b"\\x%02x" % byte for byte in match[0])


COMMANDS = (
    Command(
        "logs",
        "show what instances have written",
        logs,
        (
            FOLLOW,
            Argument(
                "-n",
                "--lines",
                "--tail",
                metavar="N",
                type=whole_number,
                help="only the last lines",
            ),
            Argument("--since", metavar="TIME", help="only from then on: RFC 3339, or 10m, 2h ago"),
            Argument("--until", metavar="TIME", help="only up to then"),
            Argument("-t", "--timestamps", action="store_true", help="each line with its time"),
            Argument("--stream", choices=("stdout", "stderr"), help="only one of the two"),
            Argument(
                "--all", action="store_true", help="all instances, later ones too with -f, by time"
            ),
            Argument(
                "instances",
                metavar="INSTANCE",
                nargs="*",
                type=instance_name,
                help="its name, the beginning of it, or config:NAME or service:NAME for all of"
                " that; several are merged by time",
            ),
        ),
    ),
)
