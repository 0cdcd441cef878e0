"""The command that shows what has happened."""

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import FOLLOW, JSON, Argument, Command
from txcontain.cli.words import moment, one_line

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

EVENT_KEYS = ("seq", "time", "instance", "what", "reason")  # of every event; some have more


async def events(client: "Client", arguments: Namespace) -> int:
    """Print what has happened."""
    async for event in client.events(arguments.follow, arguments.since):
        print(json.dumps(event) if arguments.json else told(event), flush=True)
    return 0


def told(event: "Json") -> str:
    """Return an event as a line to read."""
    why = f": {event['reason']}" if event["reason"] else ""
    more = ", ".join(f"{key} {value}" for key, value in event.items() if key not in EVENT_KEYS)
    line = f"{event['seq']} {moment(event['time'])} {event['instance'] or '-'} {event['what']}{why}"
    return one_line(f"{line} ({more})" if more else line)


COMMANDS = (
    Command(
        "events",
        "show what has happened",
        events,
        (
            FOLLOW,
            Argument(
                "--since",
                metavar="TIME",
                help="only from then on: RFC 3339, or 10m, 2h ago; or after the number of an event",
            ),
            JSON,
        ),
    ),
)
