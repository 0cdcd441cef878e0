"""What Docker is asked of a command in a container.

docs.docker.com/reference/api/engine: "Exec".
"""

from __future__ import annotations

import io
import re
import shlex
import signal
import tarfile
from secrets import token_hex

from attrs import frozen

from txcontain.container.exec_plan import Command, Size
from txcontain.container.spec import fill_in
from txcontain.errors import (
    CannotRun,
    ConfigAtFault,
    Error,
    NoSuchProgram,
    logged,
)
from txcontain.exports.accounts import find_account
from txcontain.exports.subject import Account
from txcontain.swarm.client import Refused
from txcontain.swarm.mapping import Json, of_program
from txcontain.swarm.places import Place, refusal_of

LONGEST_DATABASE = 1 << 20  # bytes of /etc/passwd, as a tarball
# By which Docker would let go of a terminal, instead of Ctrl-P Ctrl-Q: our clients have keys of
# their own. It holds back the first until another key comes: so that one hardly anybody types.
LEAVING = "ctrl-^,ctrl-@,ctrl-^,ctrl-_"
MARK = "TXCONTAIN_EXEC"  # the variable by which a command is found
# Those that came from outside of the container (their parent is 0), and have the mark.
FIND_AND_SIGNAL = """\
for folder in /proc/[0-9]*; do
    grep -qs "^PPid:.0$" "$folder/status" && grep -qsa "$1" "$folder/environ" &&
        kill -s "$2" "${folder#/proc/}"
done
"""


@frozen
class Made:
    """A command that Docker is to run."""

    id: str  # of Docker's exec
    user: str  # as Docker was told
    mark: str  # the value of its MARK
    has_terminal: bool
    workdir: str


async def make(place: Place, command: Command) -> Made:
    """Tell Docker of a command. Raises NotRunning, CannotRun, Unavailable, MachineAtFault."""
    try:
        return await _make(place, command)
    except Refused as error:
        raise refusal_of(place, error) from None


async def _make(place: Place, command: Command) -> Made:
    doing = f"running {command.command[0]} in {place.instance.name}"
    held = f"/containers/{place.container}"
    container = await place.docker.ask("GET", f"{held}/json", doing=doing)
    told = container["Config"]
    user, env = told["User"], dict(one.partition("=")[::2] for one in told["Env"] or ())
    if command.user is not None:
        account = await _account(place, command.user)
        user, env = _named(command.user, account), {**env, **_own(account)}
    home, mark = env.get("HOME", "/"), token_hex(8)
    workdir = command.workdir or (home if await _has_folder(place, home) else "/")
    env = {**fill_in(command.env, env), MARK: mark}
    asked = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": command.terminal is not None,
        "DetachKeys": LEAVING,
        "Cmd": list(command.command),
        "Env": [f"{name}={value}" for name, value in env.items()],
        "User": user,
        "WorkingDir": workdir,
    }
    made = await place.docker.ask("POST", f"{held}/exec", asked, doing=doing)
    return Made(made["Id"], user, mark, bool(asked["Tty"]), workdir)


def _own(account: Account) -> dict[str, str]:
    return {"HOME": account.home, "USER": account.name}


def _named(owner: str, account: Account) -> str:
    """A user as Docker reads it: by name, if that is known, so that all groups are there."""
    if ":" in owner:
        return owner
    is_name = account.uid and not account.name.isdecimal()
    return account.name if is_name else f"{account.uid}:{account.gid}"


async def _account(place: Place, owner: str) -> Account:
    """Who this is in the container. Raises CannotRun."""
    files = [await _file(place, path) for path in ("/etc/passwd", "/etc/group")]
    try:
        return find_account(owner, *files)
    except ConfigAtFault as error:
        raise CannotRun(*error.chain) from None


async def _file(place: Place, path: str) -> str:
    """A file of the container; nothing if there is none, or it is too long for one."""
    where = f"/containers/{place.container}/archive"
    try:
        asked = place.docker.read(where, LONGEST_DATABASE, doing=f"reading {path}", path=path)
        body = await asked
    except Refused:
        return ""
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = next(iter(archive), None)
        file = archive.extractfile(member) if member is not None and member.isfile() else None
        return file.read().decode(errors="replace") if file else ""


async def _has_folder(place: Place, path: str) -> bool:
    where, inside = f"/containers/{place.container}/archive", f"{path.rstrip('/')}/."
    try:  # of a file there is no such path, and a link is followed
        await place.docker.ask("HEAD", where, doing=f"looking for {path}", path=inside)
    except Refused:
        return False
    return True


async def look(place: Place, made: Made) -> Json:
    """How a command stands. Raises Refused, Unavailable."""
    told: Json = await place.docker.ask("GET", f"/exec/{made.id}/json", doing="looking at it")
    return told


async def resize(place: Place, made: Made, size: Size) -> None:
    """Give its terminal a size. Raises Refused, Unavailable."""
    path, doing = f"/exec/{made.id}/resize", "resizing a terminal"
    await place.docker.ask("POST", path, doing=doing, h=size.rows, w=size.columns)


async def send_signal(place: Place, made: Made, number: signal.Signals) -> None:
    """Send a command a signal, if the container has a shell. Raises Refused, Unavailable."""
    name = number.name.removeprefix("SIG")
    script = ["/bin/sh", "-c", FIND_AND_SIGNAL, "sh", f"{MARK}={made.mark}", name]
    doing = "sending a signal"
    asked = {"Cmd": script, "User": made.user}
    path = f"/containers/{place.container}/exec"
    beside = await place.docker.ask("POST", path, asked, doing=doing)
    await place.docker.ask("POST", f"/exec/{beside['Id']}/start", {"Detach": True}, doing=doing)


def why_not(said: str, command: Command, made: Made) -> Error:
    """Why a command was not started, by what Docker says."""
    program = command.command[0]
    if re.search("chdir to cwd|mkdir |working directory", said):
        return CannotRun(f"{made.workdir} can't be its working directory", said)
    found = of_program(said, program)
    if isinstance(found, (NoSuchProgram, CannotRun)):
        return found
    return CannotRun(f"{program} can't be run in the container", said)


def explain(place: Place, command: Command) -> str:
    """The same as a command of Docker's CLI."""
    words = ["docker", "exec", "--interactive"]
    words += ["--tty"] if command.terminal is not None else []
    words += [f"--user={command.user}"] if command.user is not None else []
    words += [f"--workdir={command.workdir}"] if command.workdir is not None else []
    words += [f"--env={name}={value}" for name, value in fill_in(command.env, {}).items()]
    line = shlex.join([*words, place.container[:12], *command.command])
    where = logged(f"On the node {place.node}, where {place.instance.name} runs")
    return f"#!/bin/sh\n# {where}:\n{line}\n"
