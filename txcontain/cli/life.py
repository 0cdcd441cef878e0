"""Commands that change the life of instances, of several at once."""

import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from txcontain.cli.command import INSTANCE, INSTANCES, Argument, Command
from txcontain.cli.errors import CliError
from txcontain.cli.ps import state
from txcontain.cli.words import GROUPS, one_line, plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client


async def change(client: "Client", words: list[str], verb: str, **values: Any) -> int:
    """Do something to all these instances at the same time; print a line for each.

    :return: 1 if any failed
    """
    from twisted.internet.defer import Deferred, gatherResults

    names, failed = await named(client, words)
    works = [change_one(client, name, verb, values) for name in names]
    done: list[bool] = await gatherResults([Deferred.fromCoroutine(work) for work in works])
    return int(failed or not all(done))


async def named(client: "Client", words: list[str]) -> tuple[list[str], bool]:
    """Return the instances that these words stand for, and whether any stands for none.

    Whatever stands for one instance is left to the manager.
    """
    names: dict[str, None] = {}
    failed = False
    for word in words:
        if not word.startswith(GROUPS):
            names[word] = None
            continue
        found, none = await look_up(client, [word])
        names.update(dict.fromkeys(found))
        failed |= none
    return list(names), failed


async def change_one(client: "Client", name: str, verb: str, values: dict[str, Any]) -> bool:
    """Do something to one instance; return whether that worked."""
    try:
        record = await client.change(name, verb, **values)
    except CliError as error:
        return not complain(name, error)
    print(plain(f"{record['instance']}: {state(record)}"))
    return True


def complain(word: str, error: CliError) -> bool:
    """Say what went wrong with one of several instances; return True."""
    print(f"{plain(word)}: {one_line(str(error))}", file=sys.stderr)
    return True


def verb(name: str, *options: str) -> "Callable[[Client, Namespace], Coroutine[Any, Any, int]]":
    """Return what carries out a command that is a verb of the API, with these options."""

    async def run(client: "Client", arguments: Namespace) -> int:
        values = {option: getattr(arguments, option) for option in options}
        return await change(client, arguments.instances, name, **values)

    return run


async def destroy(client: "Client", arguments: Namespace) -> int:
    """End all these instances at the same time, and remove what they kept; print a line for each.

    What is asked for is looked up first: so nothing is removed that only later begins with a word.
    """
    from twisted.internet.defer import Deferred, gatherResults

    names, failed = await look_up(client, arguments.instances)
    works = [Deferred.fromCoroutine(destroy_one(client, name)) for name in names]
    done: list[bool] = await gatherResults(works)
    return int(failed or not all(done))


async def look_up(client: "Client", words: list[str]) -> tuple[list[str], bool]:
    """Return the names that these words stand for, and whether any stands for none."""
    names: dict[str, None] = {}
    failed = False
    for word in words:
        try:
            names.update((record["instance"], None) for record in await client.matching(word))
        except CliError as error:
            failed = complain(word, error)
    return list(names), failed


async def destroy_one(client: "Client", name: str) -> bool:
    """Destroy the instance of this name; return whether that worked."""
    try:
        await client.destroy(name)
    except CliError as error:
        return not complain(name, error)
    print(plain(f"{name}: destroyed"))
    return True


async def rename(client: "Client", arguments: Namespace) -> int:
    """Give an instance another name."""
    record = await client.change(arguments.instance, "rename", to=arguments.name)
    print(plain(f"{arguments.instance}: renamed to {record['instance']}"))
    return 0


async def publish(client: "Client", arguments: Namespace) -> int:
    """Publish ports of an instance."""
    return await change_ports(client, arguments.instance, publish=arguments.ports)


async def withdraw(client: "Client", arguments: Namespace) -> int:
    """Withdraw ports of an instance."""
    return await change_ports(client, arguments.instance, withdraw=arguments.ports)


async def change_ports(client: "Client", instance: str, **ports: list[str]) -> int:
    """Change the ports of an instance, and print those that it has then."""
    record = await client.change(instance, "ports", **ports)
    print(plain(f"{record['instance']}: {', '.join(record['ports']) or 'no ports'}"))
    return 0


TIMEOUT = Argument(
    "-t",
    "--timeout",
    metavar="SECONDS",
    type=float,
    help="until SIGKILL (default: as in its config)",
)
SIGNAL = Argument("-s", "--signal", metavar="SIGNAL", help="its name or number (default: KILL)")

DESTROY = Command(
    "destroy", "end instances and remove what they kept", destroy, (INSTANCES,)
)  # that of cli/ is in v1.py
COMMANDS = (
    Command(
        "stop",
        "end instances, and keep their data until they are started again",
        verb("stop", "timeout"),
        (TIMEOUT, INSTANCES),
    ),
    Command("start", "start instances that are stopped or have ended", verb("start"), (INSTANCES,)),
    Command(
        "restart",
        "stop instances, and start them",
        verb("restart", "timeout"),
        (TIMEOUT, INSTANCES),
    ),
    Command(
        "kill",
        "send a signal to the PID 1 of instances; KILL stops them at once",
        verb("kill", "signal"),
        (SIGNAL, INSTANCES),
    ),
    Command("pause", "freeze all processes of instances", verb("pause"), (INSTANCES,)),
    Command("resume", "let paused instances run on", verb("resume"), (INSTANCES,)),
    Command(
        "rename",
        "give an instance another name",
        rename,
        (INSTANCE, Argument("name", metavar="NAME", help="its new name")),
    ),
    Command(
        "publish",
        "publish ports of a running instance on a private network",
        publish,
        (
            INSTANCE,
            Argument(
                "ports", metavar="PORT", nargs="+", help="[ADDRESS:]HOST:CONTAINER[/tcp|/udp]"
            ),
        ),
    ),
    Command(
        "withdraw",
        "stop publishing ports of a running instance",
        withdraw,
        (INSTANCE, Argument("ports", metavar="PORT", nargs="+", help="as published, or its HOST")),
    ),
)
