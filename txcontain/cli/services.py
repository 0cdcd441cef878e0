"""Commands for stacks and services: up, down, services, scale, update, rollback."""

import json
import re
import sys
import time
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from txcontain.cli.command import JSON, Argument, Command
from txcontain.cli.errors import CliError, HungUp, Misused
from txcontain.cli.screen import show_table
from txcontain.cli.words import one_line, plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

LONGEST = 1 << 20  # bytes of a stack's document
STEPS = {"stack": str, "changes": [str], "steps": [{"text": str}]}
EVENT = {"what": str, "reason": (str, None)}
OUTCOME = {"outcome": str, "wrong": [str]}
SERVICE = {
    "service": str,
    "config": str,
    "state": str,
    "why": str,
    "replicas": (int, None),
    "running": int,
    "serving": int,
    "ports": [str],
    "schedule": (str, None),
    "next": (int, float, None),
}


def read(path: str) -> bytes:
    """Return the document of a stack, from a file or from standard input.

    :raises CliError: if it can't be read
    """
    try:
        if path == "-":
            return sys.stdin.buffer.read(LONGEST + 1)
        with open(path, "rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise CliError(f"The stack {path} can't be read: {error.strerror}.") from error


def is_stack(word: str) -> bool:
    """Say whether a word names a file with a stack, and no instance."""
    return word == "-" or "/" in word or word.endswith(".json")


async def diff(client: "Client", path: str) -> int:
    """Print what `up` would do."""
    answer = await client.ask("POST", "/stacks?dry_run=1", data=read(path), shape=STEPS)
    for line in lines_of(answer) or ["nothing to do"]:
        print(line)
    return 0


def lines_of(plan: "Json") -> list[str]:
    """Return what changes, and what is done for it."""
    return [plain(text) for text in (*plan["changes"], *(step["text"] for step in plan["steps"]))]


async def up(client: "Client", arguments: Namespace) -> int:
    """Have a stack be as a file says."""
    return await change(client, "POST", "/stacks", arguments, data=read(arguments.file))


async def down(client: "Client", arguments: Namespace) -> int:
    """Remove a stack and all its instances."""
    return await change(client, "DELETE", f"/stacks/{arguments.stack}", arguments)


async def scale(client: "Client", arguments: Namespace) -> int:
    """Have another number of instances of services, one after the other."""
    names = [service for service, _ in arguments.services]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Misused(f"{twice} is named twice: give it one number.")
    status = 0
    for service, replicas in arguments.services:
        path = f"/services/{service}/scale"
        status |= await change(client, "POST", path, arguments, json={"replicas": replicas})
    return status


async def update(client: "Client", arguments: Namespace) -> int:
    """Have a service be of another version of its config."""
    version = {"major": arguments.major, "minor": arguments.minor}
    path = f"/services/{arguments.service}/update"
    return await change(client, "POST", path, arguments, json=version)


async def rollback(client: "Client", arguments: Namespace) -> int:
    """Go back to the last good revision of a service."""
    return await change(client, "POST", f"/services/{arguments.service}/rollback", arguments)


async def change(
    client: "Client", method: str, path: str, arguments: Namespace, **body: object
) -> int:
    """Change a stack; show what happens until it is done.

    :return: 1 if something is not as wished
    """
    if arguments.detach:
        for line in lines_of(await client.ask(method, path, shape=STEPS, **body)):
            print(line)
        return 0
    wrong: list[str] | None = None
    stack = ""
    chunks = client.stream(method, f"{path}?wait=1", patience=None, **body)
    try:
        async for said in client.by_line(chunks):
            kind = client.understood(said, dict)
            if "outcome" in kind:
                wrong = client.understood(said, OUTCOME)["wrong"]
            elif "what" in kind:
                print(told(client.understood(said, EVENT)), flush=True)
            else:
                plan = client.understood(said, STEPS)
                stack = plan["stack"]
                for text in plan["changes"]:
                    print(plain(text), flush=True)
    except HungUp:
        if not stack:  # it may not have heard of it
            raise
    if wrong is None:
        raise CliError(
            "The manager has ended before this was done. The next one goes on with it:"
            " `txcontain services` shows how far it is."
        )
    for text in wrong:
        print(one_line(text), file=sys.stderr)
        say_where_to_look(f"{stack}-{text.partition(':')[0]}")
    return int(bool(wrong))


def say_where_to_look(service: str) -> None:
    """Tell whoever reads this on a terminal how to see more of a service."""
    if sys.stderr.isatty():
        print(
            f"`txcontain ps service:{service}` shows its instances,"
            f" `txcontain logs service:{service}` what they have written.",
            file=sys.stderr,
        )


def told(event: "Json") -> str:
    """Return what has happened as a line to read."""
    service = event.get("service")
    about = f"{service}: " if service else ""
    return one_line(f"{about}{event['reason']}")


async def services(client: "Client", arguments: Namespace) -> int:
    """Print the services and how they stand."""
    answer = await client.ask("GET", "/services", shape={"services": [SERVICE]})
    if arguments.json:
        for one in answer["services"]:
            print(json.dumps(one))
        return 0
    head = ["SERVICE", "CONFIG", "STATE", "REPLICAS", "PORTS", "NEXT RUN"]
    show_table([head, *map(row, answer["services"])])
    for one in answer["services"]:
        if one["why"]:
            print(one_line(f"{one['service']}: {one['why']}"), file=sys.stderr)
    for one in answer["services"][:1]:
        say_where_to_look(one["service"])
    return 0


def row(one: "Json") -> list[str]:
    """Return a service's row of the table."""
    replicas = "-" if one["replicas"] is None else f"{one['serving']}/{one['replicas']}"
    when = one["next"]
    due = time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else "-"
    ports = ", ".join(one["ports"]) or "-"
    return [one["service"], one["config"], one["state"], replicas, ports, due]


def service_name(text: str) -> str:
    """Return an argument that names a service or a stack.

    :raises ArgumentTypeError: if none can have this name
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}", text):
        raise ArgumentTypeError(
            f"a name is letters, digits, '_' and '-', not {text!r}: `txcontain services` shows them"
        )
    return text


def scaled(text: str) -> tuple[str, int]:
    """Return an argument SERVICE=N as both.

    :raises ArgumentTypeError: if it is no such argument
    """
    name, equals, number = text.partition("=")
    if not equals or not re.fullmatch("[0-9]{1,4}", number):
        raise ArgumentTypeError(f"write SERVICE=N, not {text!r}")
    return service_name(name), int(number)


DETACH = Argument("-d", "--detach", action="store_true", help="begin it, and do not wait")
NAMED = Argument(
    "service",
    metavar="SERVICE",
    type=service_name,
    help="STACK-SERVICE, or its own name if only one stack has it",
)
COMMANDS = (
    Command(
        "up",
        "have services be as a file says; exit with 1 if they can't be",
        up,
        (DETACH, Argument("file", metavar="FILE", help="a stack, as JSON (-: standard input)")),
    ),
    Command(
        "down",
        "remove a stack and all its instances; volumes stay",
        down,
        (DETACH, Argument("stack", metavar="STACK", type=service_name, help="its name")),
    ),
    Command(
        "services",
        "show the services, and whether they are as wished",
        services,
        (JSON,),
    ),
    Command(
        "scale",
        "have another number of instances of services",
        scale,
        (
            DETACH,
            Argument("services", metavar="SERVICE=N", nargs="+", type=scaled, help="how many"),
        ),
    ),
    Command(
        "update",
        "replace the instances of a service by those of another version of its config",
        update,
        (
            DETACH,
            NAMED,
            Argument("major", metavar="MAJOR", help="the major version of its config"),
            Argument("minor", metavar="MINOR", help="the minor version of its config"),
        ),
    ),
    Command("rollback", "go back to the last good version of a service", rollback, (DETACH, NAMED)),
)
