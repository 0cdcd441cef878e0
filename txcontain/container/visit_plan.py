"""Makes the plan of a program of the host that reads or writes the files of a container.

It sees the container's root, and nothing else: so no symbolic link leads out. No process of the
container sees it: it is in namespaces of its own, and in none of the container's cgroups, which may
be frozen. If the container runs, its mounts are joined. If not, they are made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from txcontain.container.exec_plan import make_exec_base_plan
from txcontain.container.facts import Host
from txcontain.container.plan import (
    CAPABILITIES,
    HARMLESS,
    NO_POWERS,
    Plan,
    Step,
    seccomp_steps,
    step,
    user_steps,
)

BORROWED = "/proc"  # where the program is: a mount point of every container, empty in here
# To reach every file, and to write it with any owner and mode; nothing else.
POWERS = [CAPABILITIES[name] for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")]
MOST_TIME, MOST_MEMORY = 1800, 1 << 30  # seconds of CPU time, bytes of memory
# The steps of a container's plan that make its file tree, apart from the overlays.
OF_TREE = {
    "staging",
    "user_namespace_of",
    "idmap",
    "volume",
    "host_folder",
    "file",
    "seal",
    "pivot_root",
}


@frozen
class Visit:
    """What is to be run, and where."""

    folder: str  # of the container, in which the program works
    name: str  # that must be there
    files: Sequence[str]  # of the host, that the program needs
    command: Sequence[str]  # by its paths below BORROWED
    output: str | None = None  # a file of the host; else standard output
    most_output: int | None = None  # bytes of a file


def plan_of_running(host: Host, pid: int, start_time: int, visit: Visit, *, mapped: bool) -> Plan:
    """The plan for a container that runs, by its PID 1.

    :param mapped: whether it has a user namespace
    """
    return [
        *_begin(host, visit),
        *[step("user_namespace_at", pid=pid)] * mapped,
        step("join", pid=pid, start_time=start_time, namespaces=["mount"]),
        _leave(),
        step("propagation", mode="private"),
        *_end(host, visit, mapped=mapped),
    ]


def plan_of_ended(host: Host, plan: Plan, visit: Visit, *, mapped: bool, writing: bool) -> Plan:
    """The plan for a container that does not run, by its own plan.

    :param mapped: whether it has a user namespace
    :param writing: if not, nothing of it is changed, not even on the disk
    """
    return [*_begin(host, visit), *_tree(plan, writing), *_end(host, visit, mapped=mapped)]


def _begin(host: Host, visit: Visit) -> Plan:
    output = [] if visit.output is None else [step("output", stdout=visit.output)]
    return [*make_exec_base_plan(host), step("lend", files=list(visit.files)), *output]


def _leave() -> Step:
    return step("unshare", namespaces=["mount", "uts", "ipc", "net"])


def _end(host: Host, visit: Visit, *, mapped: bool) -> Plan:
    enter = [step("enter_user_namespace"), step("bounding_set", keep=POWERS)]
    most = {"cpu": MOST_TIME, "as": MOST_MEMORY}
    if visit.most_output is not None:
        most["fsize"] = visit.most_output
    return [
        step("borrow", target=BORROWED),
        *enter * mapped,
        step("limits", most=most),
        step("unshare", namespaces=["pid"]),
        step("fork"),
        *user_steps("0", POWERS),
        step("visit", folder=visit.folder, name=visit.name),
        seccomp_steps(host)[1],
        step("exec", path=visit.command[0], arguments=list(visit.command[1:]), environment=[]),
    ]


# -- the file tree of a container that does not run --------------------------------


def _tree(plan: Plan, writing: bool) -> Plan:
    """The steps of a container's plan that make its file tree, and no more of it than that."""
    first = next(arguments["path"] for op, arguments in plan if op == "scratch")
    gone = [arguments["path"] for op, arguments in plan if op == "scratch"][1:]
    steps = [_leave(), step("propagation", mode="private"), step("scratch", path=first, size="1m")]
    for number, (op, arguments) in enumerate(plan):
        if op in ("root_overlay", "overlay"):
            steps.append((op, _layers(arguments, f"{first}/{number}", gone, writing)))
            if op == "root_overlay":
                steps.append(_empty(BORROWED))
        elif op == "disk":
            shared = writing or "lock" in arguments  # a file system can't be read-only for some
            flags = arguments["flags"] if shared else ["ro", *arguments["flags"]]
            steps.append((op, {**arguments, "flags": flags}))
        elif op in OF_TREE:
            steps.append((op, arguments))
        if op == "staging":  # to make a user namespace takes these
            proc = step("mount", target="/proc", fstype="proc", flags=HARMLESS)
            steps += [proc, _empty("/dev"), _empty("/dev/shm")]
    return steps


def _empty(target: str) -> Step:
    return step("mount", target=target, fstype="tmpfs", flags=NO_POWERS, data="size=64k,mode=755")


def _layers(
    arguments: dict[str, Any], scratch: str, gone: Sequence[str], writing: bool
) -> dict[str, Any]:
    """An overlay of what the container had, on top of it a layer of ours if nothing is written.

    What was in memory (``gone``) is not there any more. A READ mount has nothing to be kept.
    """
    upper = arguments["upper"]
    ours = {"upper": f"{scratch}-upper", "work": f"{scratch}-work", "volatile": True}
    if arguments["sealed"]:
        return arguments
    if any(upper.startswith(f"{path}/") for path in gone):
        return {**arguments, **ours, "sealed": True}
    if writing:  # the kernel does not take a work folder again that was in use as volatile
        return {**arguments, "work": f"{upper}-work", "volatile": False}
    return {**arguments, **ours, "lower": [upper, *arguments["lower"]], "sealed": True}
