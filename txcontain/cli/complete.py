"""Names that a shell completes words with: asked of the manager, soon or not at all.

A person waits for them at each press of Tab. So this does without Twisted, which takes a fifth of a
second to load: one request, over a plain socket.
"""

import json
import socket
import sys
from argparse import Namespace
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from txcontain.cli.command import Argument, Command
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client

WITHIN = 0.1  # seconds in which the manager has to answer, each time it is waited for
MOST = 1 << 22  # bytes of an answer
# What can be asked for: a path, the key of its list, and what of an item makes its name.
KINDS = {
    "instances": ("/instances", "instances", ("instance",)),
    "configs": ("/configs", "configs", ("name", "major", "minor")),
    "secrets": ("/secrets", "secrets", ("name",)),
    "volumes": ("/volumes", "volumes", ("volume",)),
    "names": ("/configs", "configs", ("name",)),
}


def print_names(arguments: Namespace) -> int:
    """Print the names of a kind, a line each; none if there is no manager that answers soon."""
    path, key, parts = KINDS[arguments.kind]
    # Whatever goes wrong: an error message would stand in the middle of the line being typed.
    with suppress(OSError, ValueError, LookupError, TypeError):
        items = fetch(arguments.url, path, arguments.token)[key]
        for name in dict.fromkeys("-".join(item[part] for part in parts) for item in items):
            print(plain(name))
    sys.stdout.flush()
    return 0


def fetch(url: str, path: str, token: str) -> Any:
    """Return what a manager answers to GET.

    :raises OSError: if it can't be reached, or not soon
    :raises ValueError: if the answer is no success, or no JSON
    """
    shown = f"Authorization: Bearer {token}\r\n" if token else ""
    with connected(url) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.0\r\nHost: localhost\r\n{shown}\r\n".encode("ascii", "strict")
        )
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
            if len(answer) > MOST:
                raise ValueError("the answer is too long")
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split()[1:2] != [b"200"]:
        raise ValueError("the manager refuses")
    return json.loads(body)


def connected(url: str) -> socket.socket:
    """Return a connection to a manager.

    :raises OSError: if there is none, or only one over TLS, which would take too long
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WITHIN)
        connection.connect(parts.path)
        return connection
    if parts.scheme != "http":
        raise OSError("only https")
    return socket.create_connection((parts.hostname, parts.port or 80), WITHIN)


async def complete(_: "Client", __: Namespace) -> int:
    """Do nothing: `main` has printed the names, before it would have loaded Twisted."""
    return 0


COMMANDS = (
    Command(
        "complete",
        "list names, for a shell that completes words",
        complete,
        (Argument("kind", choices=tuple(KINDS), help="names of what"),),
    ),
)
