"""The plan that packs a folder: tar(1) in a jail that has this folder, read-only, and no other."""

from __future__ import annotations

from txcontain.container.facts import NOWHERE, Host
from txcontain.container.plan import (
    CAPABILITIES,
    HARMLESS,
    NO_POWERS,
    Plan,
    seccomp_steps,
    step,
    user_steps,
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
    folder: str, scratch: str, pipe: str, tar: Program, host: Host = NOWHERE
) -> Plan:
    """The steps that write a tarball of ``folder`` to a pipe.

    Nothing that is in the folder can lead out of it: there is nothing else but tar itself.
    """
    root = f"{scratch}/root"
    command = tar.command(TOOLS)
    return [
        step("unshare", namespaces=["mount", "net"]),
        step("propagation", mode="private"),
        step("scratch", path=scratch, size="1m"),
        step("root_folder", mountpoint=root, source=scratch, flags=NO_POWERS),
        *[
            step("bind", source=path, target=TOOLS + path, flags=["ro", *NO_POWERS])
            for path in sorted(tar.folders)
        ],
        step("bind", source=folder, target=FOLDER, flags=["ro", *HARMLESS]),
        step("output", stdout=pipe),
        step("input", path=f"{root}{TOOLS}{tar.path}"),  # read-only; /dev/null is the host's
        step("bounding_set", keep=READING),
        step("pivot_root", path=root),
        step("limits", most={"cpu": PACKING_TIME, "as": PACKING_MEMORY}),
        *user_steps("root", READING),
        *seccomp_steps(host),
        step("exec", path=command[0], arguments=[*command[1:], *TAR], environment=[]),
    ]
