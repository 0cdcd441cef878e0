"""Makes the plan of a command that joins a container which runs already.

It is carried out by ``init.py``, like every plan. The command is to be held as tightly as PID 1:
the same namespaces, cgroup, limits, capabilities and system calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from attrs import frozen

from txcontain.container.document import refuse, refuse_missing, refuse_unknown, shown
from txcontain.container.facts import Host
from txcontain.container.keys import Key, schema_of
from txcontain.container.plan import (
    CAPABILITIES,
    Plan,
    environment_of,
    open_files,
    seccomp_steps,
    step,
    user_steps,
)
from txcontain.container.spec import KEYS, Assignment, Spec

ALWAYS = ("mount", "pid", "uts", "ipc", "cgroup")  # the namespaces that every container has
LONGEST_SIDE = 0xFFFF  # of a terminal: rows and columns are 16 bits each (ioctl_tty(2))


@frozen
class Size:
    """The size of a terminal."""

    rows: int = 24
    columns: int = 80


@frozen
class Command:
    """What is to be run in a container, checked."""

    command: tuple[str, ...]  # the program, and its arguments
    user: str | None = None  # None: the container's startup_owner
    env: tuple[Assignment, ...] = ()  # on top of the container's
    workdir: str | None = None  # None: the user's home
    terminal: Size | None = None  # if it is to have one


@frozen
class Joined:
    """The container that a command joins."""

    pid: int  # of PID 1, as the host sees it
    start_time: int  # of that process
    cgroups: Sequence[str]  # the files by which its cgroups are joined
    user_namespace: bool = False


COMMAND_KEYS: dict[str, Key] = {
    "command": KEYS["command"],
    "user": KEYS["startup_owner"],
    "env": KEYS["startup_env"],
    "workdir": KEYS["workdir"],
}
DESCRIBED = schema_of(COMMAND_KEYS)


def read_command(values: Mapping[str, Any], terminal: Size | None = None) -> Command:
    """A command of its JSON object, all of whose keys are to be known.

    Raises InvalidData.
    """
    refuse_unknown("an exec", values, COMMAND_KEYS)
    refuse_missing(values, "command")
    checked = {key: COMMAND_KEYS[key](key, value) for key, value in values.items()}
    return Command(**checked, terminal=terminal)


def read_size(rows: object, columns: object) -> Size:
    """The size of a terminal.

    Raises InvalidData.
    """
    for side in (rows, columns):
        if type(side) is not int or not 0 < side <= LONGEST_SIDE:
            refuse(f"a terminal has 1 to {LONGEST_SIDE} rows and columns, not {shown(side)}")
    return Size(rows, columns)  # type: ignore[arg-type]  # they are checked


def make_exec_plan(spec: Spec, host: Host, joined: Joined, command: Command) -> Plan:
    """The steps by which a command joins a container of ``spec``; the last one runs it."""
    capabilities = list(CAPABILITIES.values())
    namespaces = [*ALWAYS, *["net"] * (spec.network != "host"), *["user"] * joined.user_namespace]
    return [
        *make_exec_base_plan(host),
        *open_files(spec),
        step("join_cgroups", files=list(joined.cgroups)),
        step("join", pid=joined.pid, start_time=joined.start_time, namespaces=namespaces),
        *[step("bounding_set", keep=capabilities)] * joined.user_namespace,  # which has its own
        step("fork"),
        *user_steps(command.user or spec.startup_owner, capabilities),
        *_workdir(command),
        *_terminal(command),
        seccomp_steps(host)[1],
        step(
            "exec",
            path=command.command[0],
            arguments=list(command.command[1:]),
            environment=[*environment_of(spec), *command.env],
            key="command",
        ),
    ]


@lru_cache(maxsize=1)
def make_exec_base_plan(host: Host) -> Plan:
    """What a warm init does in advance, whatever the command and the container."""
    return [
        step("hide"),
        step("limits", most=dict(host.limits)),
        step("bounding_set", keep=list(CAPABILITIES.values())),
        seccomp_steps(host)[0],
    ]


def _workdir(command: Command) -> Plan:
    return [] if command.workdir is None else [step("workdir", path=command.workdir)]


def _terminal(command: Command) -> Plan:
    size = command.terminal
    return [] if size is None else [step("terminal", rows=size.rows, columns=size.columns)]
