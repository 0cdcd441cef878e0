"""The course's commands (v1)."""

from argparse import Namespace
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

from txcontain.cli.command import VERSION, Argument, Command, instance_name
from txcontain.cli.errors import CliError
from txcontain.cli.progress import say_if_it_listens, with_progress
from txcontain.cli.words import config, plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

STDIN = Path("-")


async def upload(client: "Client", arguments: Namespace) -> int:
    """Store a config."""
    return await verdict(send(client, arguments.file))


async def send(client: "Client", file: Path) -> None:
    """Send a file as it is: the manager checks whether it is a config.

    :param file: - is standard input
    :raises CliError: if it can't be read, or is refused
    """
    try:
        with open(0 if file == STDIN else file, "rb", closefd=file != STDIN) as given:
            document = given.read()
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
        launched = await with_progress(client, _launch(client, arguments))
    except CliError as error:
        print("Failure:", plain(str(error)))
        return 1
    print("Success:", plain(launched["instance"]))
    await say_if_it_listens(client, launched["instance"])
    return 0


async def _launch(client: "Client", arguments: Namespace) -> "Json":
    """Launch as the course does if all that it takes is given, and nothing else."""
    name, major, minor = arguments.name, arguments.major, arguments.minor
    if minor is not None and arguments.instance is None:
        return await client.launch(name, major, minor)
    asked = {"config": name, "major": major, "minor": minor, "instance": arguments.instance}
    return await client.launch_instance(**asked)


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


DESTROY = Command(
    "destroy",
    "end an instance and remove what it kept",
    destroy,
    (Argument("instance", metavar="INSTANCE", type=instance_name, help="its name, all of it"),),
)
COMMANDS = (
    Command(
        "upload",
        "store a config",
        upload,
        (
            Argument(
                "file", metavar="FILE", type=Path, help="the config, as JSON; -: standard input"
            ),
        ),
    ),
    Command("cfginfo", "list the stored configs", cfginfo),
    Command(
        "launch",
        "start a container from a stored config",
        launch,
        (
            Argument("name", metavar="NAME", help="the config's name"),
            *VERSION,
            Argument(
                "--name",
                dest="instance",
                metavar="NAME",
                help="what to call the instance (default: a name is drawn)",
            ),
        ),
    ),
    Command("list", "list the running instances", list_running),
    DESTROY,
    Command("destroyall", "end and remove all instances", destroyall),
)
