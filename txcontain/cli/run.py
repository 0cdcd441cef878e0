"""The command `run`: a container without a file of a config."""

import re
import signal
import sys
from argparse import ArgumentTypeError, Namespace
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from txcontain.cli.command import COMMAND, Argument, Command
from txcontain.cli.errors import CliError, HungUp, Misused, Refused
from txcontain.cli.exec import (
    DETACH_KEYS,
    INTERACTIVE,
    STATUSES,
    TTY,
    check_terminal,
    terminal_type,
    use,
    variable,
)
from txcontain.cli.exec import run as run_inside
from txcontain.cli.instances import UNKNOWN, status_of
from txcontain.cli.logs import emit
from txcontain.cli.progress import with_progress
from txcontain.cli.words import plain

if TYPE_CHECKING:
    from txcontain.cli.client import Client, Json

# Those that ask a program to do something; it gets them in place of this one.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
NOT_IN_SWARM = "urn:txcontain:not-in-swarm"  # the kind of a refusal
MOST_PASSED_ON = 3  # then this program itself is ended by the next, and the container runs on


async def run(client: "Client", arguments: Namespace) -> int:
    """Launch a container, show what it writes, and return its exit status."""
    piped = arguments.interactive and not arguments.tty
    if not arguments.command and (piped or not may_say(arguments.image)):
        raise Misused("Say what to run in it: txcontain run IMAGE COMMAND...")
    if piped and arguments.detach:
        raise Misused("-d leaves it, and -i without -t stays with it: choose one of them.")
    if not arguments.detach:
        check_terminal(arguments)
    asked = {
        "config": config_of(arguments),
        "instance": arguments.instance,
        "remove": arguments.rm or None,
    }
    try:
        launched = await with_progress(client, client.launch_instance(**asked))
    except Refused as refusal:
        arguments.failure = STATUSES.get(refusal.kind, UNKNOWN)
        raise
    if arguments.detach:
        print(plain(launched["instance"]))
        return 0
    show = converse if piped else use_its_terminal if arguments.tty else attend
    try:
        return await show(client, launched["instance"], arguments)
    except HungUp as error:
        arguments.detach = True  # it is not removed before it ends
        raise CliError(
            f"The manager has ended, and {launched['instance']} may run on: if there is another"
            f" manager, `txcontain logs -f {launched['instance']}` shows what it writes."
        ) from error
    finally:
        if arguments.rm and not arguments.detach:
            with suppress(Refused):  # the manager may have removed it already
                await client.destroy(launched["instance"])


async def use_its_terminal(client: "Client", instance: str, arguments: Namespace) -> int:
    """Use the container's terminal from its start; return its exit status, or 0 if that is left."""
    how = {"interactive": arguments.interactive, "from_start": True}
    status = await use(client, instance, arguments.detach_keys, **how)
    arguments.detach = status is None  # it is not removed before it ends
    return status or 0


async def converse(client: "Client", instance: str, arguments: Namespace) -> int:
    """Run the command in a container that does nothing else; return the command's status.

    PID 1 has no standard input.
    """
    asked = Namespace(**vars(arguments) | {"instance": instance, "user": None, "env": []})
    try:
        words = arguments.command, arguments.interactive, arguments.tty
        return await run_inside(client, asked, *words)
    finally:
        arguments.failure = asked.failure
        if not arguments.rm:  # else it is removed at once
            await end(client, instance)


async def end(client: "Client", instance: str) -> None:
    """Stop what nobody needs any more; of a swarm, which stops nothing, remove it."""
    try:
        await client.change(instance, "stop", timeout=0)
    except Refused as refusal:
        if refusal.kind != NOT_IN_SWARM:
            raise
        await client.destroy(instance)


def config_of(arguments: Namespace) -> "Json":
    """Return the config that the words of a command line stand for."""
    piped = arguments.interactive and not arguments.tty
    # Attached, it is a child of an init: Ctrl-C would not end a PID 1 that does not expect it.
    of_command = {
        "command": arguments.command,
        "init": arguments.tty or not arguments.detach,
        "tty": arguments.tty or None,
        "workdir": arguments.workdir,
    }
    given = {
        **({} if piped else of_command),
        "name": named_after(arguments.image),
        "major": "0",
        "minor": "0",
        "base_image": arguments.image,
        "startup_owner": arguments.user,
        "startup_env": [*terminal_type()] * arguments.tty + (arguments.env or []),
        "ports": arguments.publish,
        "volumes": arguments.volume,
        "network": arguments.network or ("private" if arguments.publish else None),
        "limits": {"memory": arguments.memory} if arguments.memory else None,
    }
    config = {key: value for key, value in given.items() if value not in (None, [])}
    if piped and may_say(arguments.image):
        config["startup_script"] = None  # not the image's own program
    return config


def may_say(image: str) -> bool:
    """Say whether this is the name of an OCI image, which may say itself what is run."""
    return "/" in image or ":" in image


def named_after(image: str) -> str:
    """Return the name of a config for an image: the last part of its own, without the rest."""
    stem = re.split("[.:@]", image.rpartition("/")[2])[0]
    return re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-")[:50] or "run"


async def attend(client: "Client", instance: str, _: Namespace) -> int:
    """Show what a container writes, pass signals on to it, and return its exit status.

    If that can't be written here (nobody reads it any more, for one), the container is stopped.
    """
    from twisted.internet.defer import Deferred, FirstError, gatherResults

    async def show(stream: str) -> None:
        async for chunk in client.logs([instance], True, stream=stream):
            emit(chunk, sys.stdout if stream == "stdout" else sys.stderr)

    pass_signals_on(client, instance)
    parts = client.wait(instance), show("stdout"), show("stderr")
    try:
        of_each = await gatherResults(map(Deferred.fromCoroutine, parts), consumeErrors=True)
    except FirstError as first:
        if first.subFailure.check(OSError):
            with suppress(CliError):  # it may have ended by itself
                await client.change(instance, "stop")
        first.subFailure.raiseException()
    return status_of(of_each[0])


def pass_signals_on(client: "Client", instance: str) -> None:
    """From now on, signals are the container's."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    loop: Any = reactor  # its annotation lacks most methods
    passed: list[int] = []

    def caught(number: int, _: object) -> None:
        passed.append(number)
        if len(passed) == MOST_PASSED_ON:
            for each in PASSED_ON:
                signal.signal(each, signal.SIG_DFL)
            loop.callFromThread(tell)
        loop.callFromThread(send, number)

    def tell() -> None:
        said = f"{instance} has not ended: once more leaves it, and lets it run on."
        print(plain(f"\n{said}"), file=sys.stderr)

    def send(number: int) -> None:
        Deferred.fromCoroutine(client.kill(instance, number)).addErrback(complain)

    def complain(failure: Any) -> None:
        print(plain(f"The signal did not reach {instance}: {failure.value}"), file=sys.stderr)

    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as with a job in the background
            signal.signal(number, caught)


def volume(text: str) -> str:
    """Return an argument NAME:/PATH or NAME:/PATH:ro as a config has it.

    :raises ArgumentTypeError: if it is neither
    """
    match = re.fullmatch(r"([^\s:]+):(/[^\s:]*)(:ro|:rw)?", text)
    if not match:
        raise ArgumentTypeError(f"write NAME:/PATH, or NAME:/PATH:ro, not {text!r}")
    return f"{match[1]} {match[2]}" + (" READ" if match[3] == ":ro" else "")


def size(text: str) -> str:
    """Return an argument that is a number of bytes, such as 256m, as a config has it."""
    return text.upper()


COMMANDS = (
    Command(
        "run",
        "run a command in a new container; exit with its status (125: refused)",
        run,
        (
            Argument(
                "-d", "--detach", action="store_true", help="print its name, and let it run on"
            ),
            INTERACTIVE,
            TTY,
            DETACH_KEYS,
            Argument("--rm", action="store_true", help="remove it when it has ended"),
            Argument(
                "--name",
                dest="instance",
                metavar="NAME",
                help="what to call it (default: a name is drawn)",
            ),
            Argument(
                "-e",
                "--env",
                metavar="NAME=VALUE",
                action="append",
                type=variable,
                help="a variable; of only a NAME, the value that it has here; may be repeated",
            ),
            Argument(
                "-p",
                "--publish",
                metavar="[ADDRESS:]HOST:CONTAINER",
                action="append",
                help="publish a port, on a private network; may be repeated",
            ),
            Argument(
                "-v",
                "--volume",
                metavar="NAME:/PATH[:ro]",
                action="append",
                type=volume,
                help="a volume, or a folder of the host that the manager allows; may be repeated",
            ),
            Argument("-u", "--user", metavar="USER[:GROUP]", help="who runs it (default: root)"),
            Argument(
                "-w",
                "--workdir",
                metavar="/PATH",
                help="where it starts (default: the user's home)",
            ),
            Argument(
                "-m",
                "--memory",
                metavar="BYTES",
                type=size,
                help="the most memory that it may take, such as 256M",
            ),
            Argument(
                "--network",
                choices=("host", "none", "private"),
                help="which one (default: host; with -p private)",
            ),
            Argument("image", metavar="IMAGE", help="a file in the manager's base_images/"),
            COMMAND,
        ),
        failure=UNKNOWN,
    ),
)
