"""Why a launch failed: the step, the system call, errno, path, cause, and what to do."""

from __future__ import annotations

import errno
import os

from txcontain.container.plan import Plan
from txcontain.container.spec import Port
from txcontain.errors import (
    CannotRun,
    ConfigAtFault,
    Error,
    MachineAtFault,
    NoSuchPath,
    NoSuchProgram,
)
from txcontain.host.os_errors import CAUSES
from txcontain.runtime.conversation import StepFailed
from txcontain.runtime.exits import Exit

# Errors that are the fault of a config and its images, in steps that follow them.
FROM_CONFIG = {
    0,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.ELOOP,
    errno.ENOEXEC,
    errno.EISDIR,
    errno.EEXIST,
    errno.EXDEV,
}
FOLLOW_CONFIG = {
    "overlay",
    "volume",
    "host_folder",
    "mount",
    "move",
    "device",
    "symlink",
    "file",
    "add_file",
    "add_copy",
    "user",
    "workdir",
    "exec",
}
DOING = {
    "exec": "running",
    "user": "becoming the user",
    "workdir": "working in",
    "join": "entering the container",
    "fork": "starting one more process in the container",
    "terminal": "opening a terminal of the container",
}  # the steps of a command's plan, in words
# Steps that explain more than their error does.
CAUSES_OF_STEPS = {
    "user_namespace_of": (
        "this machine allows no user namespace",
        'raise user.max_user_namespaces (sysctl), or leave "user_namespace" out',
    ),
    "idmap": (
        "this kernel can't map the owners of files on the state folder's file system",
        'use Linux 5.19 or later with ext4, XFS or Btrfs, or leave "user_namespace" out',
    ),
}


def of_step(plan: Plan, failure: StepFailed) -> Error:
    """The error that says why a step of a plan failed."""
    said = failure.details
    op, arguments = plan[said["step"]]
    at_fault = op in FOLLOW_CONFIG and said["errno"] in FROM_CONFIG
    object_ = arguments.get("target") or arguments.get("path") or arguments.get("owner") or ""
    step = f"step {said['step'] + 1} of {len(plan)}, {op} {object_}".rstrip()
    kind = _kind(op, said["errno"]) if at_fault else MachineAtFault
    return kind(step, *_chain(failure, CAUSES_OF_STEPS.get(op) or _too_small(plan, failure)))


def _kind(op: str, number: int) -> type[ConfigAtFault]:
    """The same for a container's own program as for a command in it."""
    if (op, number) == ("exec", errno.ENOENT):
        return NoSuchProgram
    return CannotRun if op in ("user", "workdir", "exec") else ConfigAtFault


def of_command(plan: Plan, failure: StepFailed) -> Error:
    """The error that says why a command could not be run in a container."""
    said = failure.details
    op, arguments = plan[said["step"]]
    what = arguments.get("path") or arguments.get("owner") or ""
    doing = f"{DOING.get(op, op)} {what}".rstrip()
    if op == "visit" and said["errno"] in FROM_CONFIG:
        cause = said["cause"] or f"{said['path']} can't be reached: {os.strerror(said['errno'])}"
        return NoSuchPath(cause)
    if op in ("user", "workdir", "exec") and said["errno"] in FROM_CONFIG:
        return _kind(op, said["errno"])(doing, *_chain(failure))
    if (op, said["errno"]) == ("fork", errno.EAGAIN):
        cause = "it has as many processes as limits.pids allows"
        return CannotRun(doing, cause, "end some of them, or raise the limit")
    return MachineAtFault(doing, *_chain(failure))


def of_tool(what: str, plan: Plan, failure: StepFailed) -> Error:
    """The error that says why a program of this machine could not be run."""
    return MachineAtFault(what, *_chain(failure, _too_small(plan, failure)))


def _too_small(plan: Plan, failure: StepFailed) -> tuple[str, str] | None:
    """What to say if a volume has no room for what is to fill it."""
    if failure.details["errno"] != errno.ENOSPC:
        return None
    op, arguments = plan[failure.details["step"]]
    sizes = {each["path"]: each["size"] for other, each in plan if other == "disk"}
    if op != "volume" or arguments["source"] not in sizes:
        return None
    size = sizes[arguments["source"]]
    return f"it takes more than the volume's size, {size} bytes", "make a larger volume"


def _chain(failure: StepFailed, known: tuple[str, str] | None = None) -> list[str]:
    said = failure.details
    number = said["errno"]
    cause, hint = known or CAUSES.get(number, ("", ""))
    parts = [
        f"{said['call']}(2)" if number else f"{said['call']}(3)",
        f"{errno.errorcode.get(number, number)}: {os.strerror(number)}" if number else "",
        said["path"],
        said["cause"] or cause,
        said["hint"] or hint,
    ]
    return [str(part) for part in parts if part]


def of_early_end(script: str, port: int, how: Exit, last_words: str) -> ConfigAtFault:
    """The error of a script that ended before it listened on its PORT."""
    quoted = f"its last words: {last_words}" if last_words else "it wrote nothing to stderr"
    return ConfigAtFault(f"{script} ended before it listened on port {port}", str(how), quoted)


def of_port(port: Port, holder: str) -> ConfigAtFault:
    """The error of a port of the host that a config asks for and that is taken."""
    hint = "end that, or set another PORT in startup_env (or publish another, in ports)"
    return ConfigAtFault(f"port {port} is taken", f"by {holder}", hint)
