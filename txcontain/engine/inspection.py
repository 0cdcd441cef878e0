"""What is known of instances: all of it, what they use, what they wrote."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from ipaddress import IPv4Address
from itertools import zip_longest
from typing import Any

from attrs import asdict

from txcontain.container.defaults import sources
from txcontain.container.document import shown
from txcontain.container.walls import compare
from txcontain.engine.manager import Manager
from txcontain.errors import InvalidData, NotRunning
from txcontain.host.cgroups import Cgroups
from txcontain.host.isolation import isolation
from txcontain.host.machine import machine
from txcontain.host.processes import describe
from txcontain.logs.reader import Reader
from txcontain.logs.segments import Wanted
from txcontain.network.bridge import traffic, traffic_of_links
from txcontain.runtime.instance import Instance

LONGEST_PID = 10  # digits
MOST_PROCESSES = 2000  # of one instance that are told


def inspect(manager: Manager, instance: Instance) -> dict[str, Any]:
    """Everything known about an instance, with its plan and the seconds that each step took."""
    record = instance.record | instance.standing
    del record["document"]
    record["spec"] = instance.spec.described()
    record["sources"] = sources(instance.spec, instance.image)
    contents = [manager.layers.metadata(layer) for layer in instance.layers]
    record["left_out"] = {
        os.path.basename(one.tarball): one.left_out for one in contents if one.left_out
    }
    record["checks"] = [asdict(result) for result in instance.checks.results]
    names = instance.spec.volume_names
    record["volumes"] = {name: manager.volumes.place(name).data for name in names}
    steps = zip_longest(instance.plan, instance.timeline)
    record["plan"] = [{"op": op, **arguments, "seconds": s} for (op, arguments), s in steps]
    for step in record["plan"]:
        if "program" in step:
            step["program"] = f"{len(step['program'])} bytes, see seccomp.py"
    return record


async def usage(manager: Manager, instances: Sequence[Instance]) -> list[dict[str, Any]]:
    """What instances use now, with their limits.

    Raises TooMany.
    """
    summaries = [{**one.summary, "limits": asdict(one.spec.limits)} for one in instances]
    found = [(one.processes.token if one.processes else None, one.address) for one in instances]
    async with manager.surveys.turn():
        figures = await manager.threads(_figures, manager.pool.cgroups, found)
    return [{**summary, **used} for summary, used in zip(summaries, figures, strict=True)]


def _figures(
    cgroups: Cgroups, instances: Sequence[tuple[str | None, str | None]]
) -> list[dict[str, Any]]:
    """What each uses: of a thousand instances, that is eight thousand files."""
    links = traffic_of_links() if any(address for _, address in instances) else {}
    return [
        {
            **(cgroups.usage(token) if token else {}),
            **(traffic(IPv4Address(address), links) if address else {}),
            "pressure": cgroups.pressure(token) if token else {},
        }
        for token, address in instances
    ]


async def host(manager: Manager) -> dict[str, Any]:
    """What the machine has, and how short of it its processes are; how many inits are warm.

    Raises TooMany.
    """
    async with manager.surveys.turn():
        found: dict[str, Any] = await manager.threads(machine, manager.state)
    warm = manager.pool.warm
    return {**found, "pool": {"wanted": warm.least, "warm": warm.ready}}


async def top(manager: Manager, instance: Instance) -> dict[str, Any]:
    """The processes of an instance, up to MOST_PROCESSES, and how many more there are.

    Raises NotRunning, TooMany.
    """
    if not instance.running or instance.processes is None:
        raise _no_processes(instance, instance.state)
    token, ids = instance.processes.token, instance.ids or 0
    async with manager.surveys.turn():
        found, more = await manager.threads(_processes, manager.pool.cgroups, token)
    for one in found:
        one["user"] -= ids if one["user"] >= ids else 0
    return {"processes": found, "more": more}


async def held(manager: Manager, instance: Instance) -> dict[str, Any]:
    """How the PID 1 of an instance is held apart from the host.

    Raises NotRunning, TooMany.
    """
    pid = instance.standing["pid"]
    if not instance.running or instance.processes is None or pid is None:
        raise _no_processes(instance, instance.state)
    token = instance.processes.token
    try:
        async with manager.surveys.turn():
            found: dict[str, Any] = await manager.threads(isolation, pid)
        if pid in manager.pool.cgroups.members(token):  # else the pid may be another's by now
            return found
    except OSError:
        pass
    raise _no_processes(instance, "ending")


async def held_beside(manager: Manager, instance: Instance, other: str) -> dict[str, Any]:
    """What holds the PID 1 of an instance, and another process, wall by wall.

    :param other: an instance, or the pid of a process of the host
    Raises NotRunning, NoSuchInstance, Ambiguous, InvalidData, TooMany.
    """
    one = await held(manager, instance)
    if not other.isdecimal():
        beside = manager.match(other)
        return {"to": beside.name, "walls": compare(one, await held(manager, beside))}
    try:
        async with manager.surveys.turn():
            theirs = await manager.threads(isolation, int(other[:LONGEST_PID]))
    except PermissionError as error:  # a security module, or the PID 1 of a virtual machine
        what = f"this manager may not look at process {shown(other)}"
        raise InvalidData(what, "compare another one") from error
    except OSError as error:
        raise InvalidData(f"there is no process {shown(other)}", "compare another one") from error
    return {"to": other, "walls": compare(one, theirs)}


def _no_processes(instance: Instance, state: str) -> NotRunning:
    return NotRunning(f"{instance.name} is {state}", "only one that runs has processes")


def _processes(cgroups: Cgroups, token: str) -> tuple[list[dict[str, Any]], int]:
    pids = sorted(cgroups.members(token))
    found = []
    for pid in pids[:MOST_PROCESSES]:
        with contextlib.suppress(ProcessLookupError):
            found.append(describe(pid))
    # A pid may have become another process's meanwhile.
    still = cgroups.members(token)
    return [one for one in found if one["host_pid"] in still], max(len(pids) - MOST_PROCESSES, 0)


def log_reader(
    manager: Manager,
    instances: Sequence[Instance] | None,
    wanted: Wanted,
    consumer: Any,
    **looks: Any,
) -> Reader:
    """A reader that sends the logs of instances to a consumer.

    :param instances: None: all; while it follows, also those that are launched later
    """
    return Reader(
        consumer,
        client=manager.pool.log_process,
        instances=list(manager.instances.values()) if instances is None else instances,
        wanted=wanted,
        all_readers=manager.log_readers if instances is None else None,
        **looks,
    )
