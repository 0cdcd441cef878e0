"""The walls between a container and the host: which of them hold, and what each is for.

All of it is decided by what the kernel tells of PID 1 (``host/isolation.py``) and by the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from txcontain.container.facts import MASKED
from txcontain.container.plan import CAPABILITIES
from txcontain.container.shell_steps import Shell
from txcontain.container.spec import Spec

Facts = Mapping[str, Any]
# How much is missing, in per cent of all weights, is at least this: as systemd-analyze(1) says it.
WORDS = ((100, "DANGEROUS"), (90, "UNSAFE"), (75, "EXPOSED"), (50, "MEDIUM"), (10, "OK"))
SAFE = "SAFE"


@frozen
class Wall:
    """A wall, and by what it is known whether it holds."""

    name: str
    purpose: str
    weight: int  # how much of a way out its lack is, beside the others
    test: str  # the test that runs against it, below tests.integration
    holds: Callable[[Facts, Spec], bool]
    key: str = ""  # what a config says to have it


# What a step of a plan keeps a container from, and the test that tries it.
ATTACKS = {
    "unshare": ("see what the host has", "test_isolation.ProcessTests.test_namespaces"),
    "read_only_path": (
        "change the host's settings",
        "test_wall.PrivilegeTests.test_kernel_settings",
    ),
    "mask": ("read of the host what only root may", "test_isolation.KernelTests.test_masked"),
    "device": ("make a node of the host's disk", "test_wall.PrivilegeTests.test_devices"),
    "input": ("change the host's /dev/null", "test_wall.HostTests.test_standard_input"),
    "limits": ("use up a user's share", "test_wall.HostTests.test_what_is_counted_for_a_user"),
    "bounding_set": ("use root's powers over the host", "test_isolation.PowerTests.test_root"),
    "seccomp": ("ask the kernel for a way around", "test_wall.SystemCallTests.test_refused"),
    "user_namespace_of": (
        "be root on the host",
        "test_user_namespace.IdentityTests.test_powers_are_over_its_own_alone",
    ),
    "disk": ("fill the host's disk", "test_disk_size.DiskSizeTests.test_full"),
    "root_overlay": (
        "change the image that others have",
        "test_isolation.FileTests.test_read_only",
    ),
    "overlay": ("change what others have", "test_isolation.FileTests.test_two_of_one_config"),
    "host_folder": ("leave the folder by a link", "test_volumes.HostFolderTests.test_links"),
    "seal": ("write to a READ mount", "test_isolation.FileTests.test_no_remount"),
    "pivot_root": ("leave its root, as one leaves a chroot", "test_wall.HostTests.test_chroot"),
    "close_descriptors": (
        "leave by a descriptor that was left open",
        "test_wall.DescriptorTests.test_every_variant",
    ),
    "user": ("act as root", "test_isolation.OwnerTests.test_owner"),
    "no_new_privileges": ("get powers by setuid bits", "test_wall.PrivilegeTests.test_setuid"),
}


def purpose_of(op: str) -> dict[str, str]:
    """What a step is for, what it keeps a container from, and the test that tries that."""
    said = " ".join(str(getattr(Shell, op).__doc__).split())
    attack, test = ATTACKS.get(op, ("", ""))
    return {"why": said, "attack": attack, "test": test}


def _own(kind: str) -> Callable[[Facts, Spec], bool]:
    return lambda facts, spec: bool(facts["namespaces"][kind]["own"])


def _options(facts: Facts, target: str) -> Sequence[str]:
    found = [mount["options"] for mount in facts["mounts"] if mount["target"] == target]
    return found[-1] if found else ()


def _is_masked(facts: Facts, spec: Spec) -> bool:
    return any(mount["target"] in MASKED for mount in facts["mounts"])


WALLS = (
    Wall(
        "mount namespace",
        "its file tree is not the host's",
        15,
        "test_isolation.KernelTests.test_mounts",
        _own("mnt"),
    ),
    Wall(
        "user namespace",
        "its root is nobody on the host",
        13,
        "test_user_namespace.IdentityTests.test_root",
        _own("user"),
        '"user_namespace": true',
    ),
    Wall(
        "system calls",
        "only those of a list reach the kernel",
        12,
        "test_wall.SystemCallTests.test_refused",
        lambda facts, spec: facts["seccomp"] == "filter",
    ),
    Wall(
        "capabilities",
        "root has none over the host as a whole",
        12,
        "test_isolation.PowerTests.test_root",
        lambda facts, spec: set(facts["capabilities"]) <= set(CAPABILITIES),
    ),
    Wall(
        "pid namespace",
        "it sees and signals no process but its own",
        10,
        "test_isolation.ProcessTests.test_alone",
        _own("pid"),
    ),
    Wall(
        "network namespace",
        "it has neither the host's addresses nor its abstract sockets",
        8,
        "test_network.NoneTests.test_what_listens_on_the_host",
        _own("net"),
        '"network": "private" or "none"',
    ),
    Wall(
        "new privileges",
        "no program gets any by setuid bits",
        6,
        "test_wall.PrivilegeTests.test_setuid",
        lambda facts, spec: bool(facts["no_new_privileges"]),
    ),
    Wall(
        "no root",
        "its first program has no capability at all",
        5,
        "test_isolation.PowerTests.test_owner",
        lambda facts, spec: not facts["capabilities"],
        '"startup_owner": a user other than root',
    ),
    Wall(
        "settings",
        "it can't change the host's, in /proc/sys",
        4,
        "test_isolation.KernelTests.test_read_only",
        lambda facts, spec: "ro" in _options(facts, "/proc/sys"),
    ),
    Wall(
        "masks",
        "what shows the host in /proc and /sys is hidden",
        4,
        "test_isolation.KernelTests.test_masked",
        _is_masked,
    ),
    Wall(
        "memory",
        "it can't take all of the host's",
        4,
        "test_limits.MemoryTests.test_hog",
        lambda facts, spec: spec.limits.memory is not None,
        '"limits": {"memory": "512M"}',
    ),
    Wall(
        "ipc namespace",
        "it shares no memory and no queue with the host",
        3,
        "test_wall.HostTests.test_system_v",
        _own("ipc"),
    ),
    Wall(
        "processes",
        "it can't start any number of them",
        3,
        "test_limits.ProcessTests.test_fork_bomb",
        lambda facts, spec: bool(spec.limits.pids),
    ),
    Wall(
        "no host folder",
        "nothing of the host's files is mounted",
        3,
        "test_isolation.KernelTests.test_mounts",
        lambda facts, spec: not any(volume.on_host for volume in spec.volumes),
        '"volumes": by name only',
    ),
    Wall(
        "read-only root",
        "it can't change its own programs",
        2,
        "test_isolation.FileTests.test_read_only",
        lambda facts, spec: "ro" in _options(facts, "/"),
        '"writable_root": false',
    ),
    Wall(
        "cgroup namespace",
        "it sees no group of others",
        2,
        "test_isolation.ProcessTests.test_namespaces",
        _own("cgroup"),
    ),
    Wall(
        "uts namespace",
        "its host name is its own",
        2,
        "test_isolation.ProcessTests.test_name",
        _own("uts"),
    ),
    Wall(
        "processors",
        "it can't take all of their time",
        1,
        "test_limits.MemoryTests.test_processor",
        lambda facts, spec: spec.limits.cpus is not None,
        '"limits": {"cpus": 1}',
    ),
)


def card(facts: Facts, spec: Spec) -> dict[str, Any]:
    """Each wall, and whether it holds; the exposure, from 0 (all hold) to 10, and a word for it."""
    rows = []
    for wall in WALLS:
        row = {**asdict(wall, filter=lambda field, _: field.name != "holds")}
        rows.append({**row, "holds": wall.holds(facts, spec)})
    missing = sum(wall["weight"] for wall in rows if not wall["holds"])
    share = 100 * missing / sum(wall.weight for wall in WALLS)
    word = next((word for least, word in WORDS if share >= least), SAFE)
    return {"walls": rows, "exposure": round(share / 10, 1), "word": word}


def compare(one: Facts, other: Facts) -> list[dict[str, Any]]:
    """What holds two processes, wall by wall."""
    rows = []
    for kind, namespace in one["namespaces"].items():
        theirs = other["namespaces"][kind]
        told = ["its own" if which["own"] else "the host's" for which in (namespace, theirs)]
        same = namespace["id"] == theirs["id"]
        rows.append(_row(f"{kind} namespace", *told, same=same))
    said = zip(_said(one).items(), _said(other).values(), strict=True)
    rows += [_row(name, ours, theirs, same=ours == theirs) for (name, ours), theirs in said]
    return rows


def _row(wall: str, one: str, other: str, *, same: bool) -> dict[str, Any]:
    return {"wall": wall, "one": one, "other": other, "same": same}


def _said(facts: Facts) -> dict[str, str]:
    return {
        "user on the host": str(facts["host_user"]),
        "groups on the host": " ".join(map(str, [facts["host_group"], *facts["host_groups"]])),
        "capabilities": " ".join(facts["capabilities"]) or "none",
        "system calls": facts["seccomp"],
        "new privileges": "never" if facts["no_new_privileges"] else "possible",
        "root": "read-only" if "ro" in _options(facts, "/") else "writable",
        "mounts": str(len(facts["mounts"]) + facts["more"]),
        "cgroup": "; ".join(dict.fromkeys(one["path"] for one in facts["cgroups"])),
    }
