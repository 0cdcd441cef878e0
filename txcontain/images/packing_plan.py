"""The plans that pack a volume, and that move one to a file system of its own.

Each is a jail with a program of this machine, the volume's folder, read-only, and no other.
"""

from __future__ import annotations

from txcontain.container.facts import NOWHERE, Host
from txcontain.container.plan import (
    CAPABILITIES,
    HARMLESS,
    NO_POWERS,
    Plan,
    VolumePlace,
    seccomp_steps,
    step,
    user_steps,
    volume_at,
    volume_disk,
)
from txcontain.images.programs import Program

READING = [CAPABILITIES["DAC_OVERRIDE"]]
PACKING_TIME, PACKING_MEMORY = 3600, 1 << 30  # seconds of CPU time, bytes
FOLDER, TOOLS = "/folder", "/tools"
TAR = [
    "--create",
    "--file=-",
    f"--directory={FOLDER}",
    "--numeric-owner",
    "--sparse",
    "--format=posix",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.*",
    "--xattrs-exclude=security.selinux",
    "--warning=no-file-ignored",  # sockets
    ".",
]


def make_packing_plan(
    volume: VolumePlace, scratch: str, pipe: str, tar: Program, host: Host = NOWHERE
) -> Plan:
    """The steps that write a tarball of a volume to a pipe.

    Nothing that is in the volume can lead out of it: there is nothing else but tar itself.
    """
    root, disk = f"{scratch}/root", f"{scratch}/disk"
    folder = volume.folder if volume.size is None else disk
    command = tar.command(TOOLS)
    return [
        *_jail(scratch, tar),
        *volume_disk(volume, disk),
        step("bind", source=f"{folder}/data", target=FOLDER, flags=["ro", *HARMLESS]),
        step("output", stdout=pipe),
        step("input", path=f"{root}{TOOLS}{tar.path}"),  # read-only; /dev/null is the host's
        step("bounding_set", keep=READING),
        step("pivot_root", path=root),
        step("limits", most={"cpu": PACKING_TIME, "as": PACKING_MEMORY}),
        *user_steps("root", READING),
        *seccomp_steps(host),
        step("exec", path=command[0], arguments=[*command[1:], *TAR], environment=[]),
    ]


def make_moving_plan(volume: VolumePlace, scratch: str, true: Program) -> Plan:
    """The steps that fill the file system of a volume with what is in its folder.

    They do what the first container that uses a volume does, and in the end they run true(1).
    """
    disk, command = f"{scratch}/disk", true.command(TOOLS)
    at = {"target": FOLDER, "flags": HARMLESS}
    return [
        *_jail(scratch, true),
        *volume_disk(volume, disk),
        step("bind", source=f"{volume.folder}/data", target=FOLDER, flags=["ro", *HARMLESS]),
        volume_at(volume, disk, at),
        step("bounding_set", keep=[]),
        step("pivot_root", path=f"{scratch}/root"),
        *user_steps("root", []),
        step("exec", path=command[0], arguments=command[1:], environment=[]),
    ]


def _jail(scratch: str, program: Program) -> Plan:
    return [
        step("unshare", namespaces=["mount", "net"]),
        step("propagation", mode="private"),
        step("scratch", path=scratch, size="1m"),
        step("root_folder", mountpoint=f"{scratch}/root", source=scratch, flags=NO_POWERS),
        *[
            step("bind", source=path, target=TOOLS + path, flags=["ro", *NO_POWERS])
            for path in sorted(program.folders)
        ],
    ]
