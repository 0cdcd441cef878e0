"""How a process is held apart from the host, as the kernel tells it (proc(5))."""

from __future__ import annotations

import os
import re
from typing import Any

from txcontain.host.processes import read_status

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
# By their numbers (linux/capability.h).
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
SECCOMP = ("none", "strict", "filter")  # by the kernel's numbers
MOST_MOUNTS = 1000
ESCAPED = re.compile(r"\\([0-7]{3})")  # a byte of a path in mountinfo


def isolation(pid: int) -> dict[str, Any]:
    """A process's namespaces, capabilities, filter, ids and mounts, beside what this one has.

    Raises OSError if it is gone.
    """
    status, own = read_status(pid), read_status(os.getpid())
    mounts = _mounts(pid)
    return {
        "namespaces": {name: _namespace(pid, name) for name in NAMESPACES},
        "capabilities": _capabilities(status),
        "host_capabilities": _capabilities(own),
        "seccomp": SECCOMP[int(status["Seccomp"][0])],
        "filters": int(status.get("Seccomp_filters", ["0"])[0]),  # Linux 5.9
        "no_new_privileges": status["NoNewPrivs"] == ["1"],
        "host_user": int(status["Uid"][1]),  # the effective ones
        "host_group": int(status["Gid"][1]),
        "host_groups": [int(group) for group in status["Groups"]],
        "cgroups": _cgroups(pid),
        "mounts": mounts[:MOST_MOUNTS],
        "more": max(0, len(mounts) - MOST_MOUNTS),
    }


def _namespace(pid: int, name: str) -> dict[str, Any]:
    """Its number, that of the manager's, and whether it is another one."""
    number, host = (os.stat(f"/proc/{which}/ns/{name}").st_ino for which in (pid, "self"))
    return {"id": number, "host": host, "own": number != host}


def _cgroups(pid: int) -> list[dict[str, str]]:
    """Its group in each hierarchy that groups it (cgroups(7)); version 2 names no controllers."""
    with open(f"/proc/{pid}/cgroup") as file:
        found = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    return [{"controllers": names, "path": path} for names, path in found if path != "/"]


def _capabilities(status: dict[str, list[str]]) -> list[str]:
    mask = int(status["CapEff"][0], 16)
    return [name for number, name in enumerate(CAPABILITIES) if mask >> number & 1]


def _mounts(pid: int) -> list[dict[str, Any]]:
    """In the order of their paths, so that each comes after those above it."""
    with open(f"/proc/{pid}/mountinfo", errors="backslashreplace") as file:
        found = [_mount(line) for line in file]
    return sorted(found, key=lambda mount: str(mount["target"]).split("/"))


def _mount(line: str) -> dict[str, Any]:
    """What a line of mountinfo says (proc_pid_mountinfo(5))."""
    before, _, after = line.partition(" - ")
    _, _, _, _, target, options, *shared = before.split(" ")
    kind, source, *_ = after.rstrip("\n").split(" ")
    return {
        "target": _path(target),
        "type": kind,
        "source": _path(source),
        "options": options.split(","),
        "propagation": _propagation(shared),
    }


def _propagation(shared: list[str]) -> str:
    """As findmnt(8) says it (mount_namespaces(7))."""
    words = {"shared": "shared", "master": "slave", "unbindable": "unbindable"}
    found = [words[tag] for one in shared if (tag := one.partition(":")[0]) in words]
    return ",".join(found) or "private"


def _path(text: str) -> str:
    return ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
