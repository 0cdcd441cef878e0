"""The plan that unpacks a tarball: tar(1) in a jail of its own."""

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

# Enough to unpack a tarball: any owner, any mode, and nothing else.
UNPACKING = [CAPABILITIES[name] for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")]
# Limits of each process that unpacks: seconds of CPU time, bytes of memory.
UNPACKING_TIME, UNPACKING_MEMORY = 1800, 1 << 30
# Unpack all of each entry that the jail allows. With --block-number tar says how the archive ends;
# otherwise it accepts one that is cut short. Warnings that don't matter here are off.
TAR = [
    "--extract",
    "--absolute-names",
    "--block-number",
    "--numeric-owner",
    "--same-owner",
    "--same-permissions",
    "--xattrs",
    "--xattrs-include=user.*",
    "--xattrs-include=security.*",
    "--xattrs-exclude=user.overlay.*",
    "--xattrs-exclude=security.selinux",
    "--warning=no-timestamp",
    "--warning=no-unknown-keyword",
    "--warning=no-alone-zero-block",
    "--warning=no-contiguous-cast",
]


def make_unpacking_plan(
    tarball: str,
    folder: str,
    scratch: str,
    hidden: str,
    tar: Program,
    decompress: Program | None = None,
    host: Host = NOWHERE,
    *,
    piped: bool = False,
) -> Plan:
    """The steps that unpack ``tarball`` into ``folder``, which is the root of ``tar``.

    Whatever the tarball makes tar do, it can write nowhere else. So links are made as they are,
    wherever they lead (-P), and a file that is placed through a link lands where a container would
    find it. Tar's own files are below ``hidden``, a path that no tarball can know. It has no
    network, and only the system calls that the host's filter allows.

    :param piped: whether the tarball is a named pipe, which can be opened only once
    """
    root = f"{scratch}/root"
    programs = [tar, decompress] if decompress else [tar]
    folders = sorted({folder for program in programs for folder in program.folders})
    file = "-" if piped else f"{hidden}/tarball"
    command = [*tar.command(hidden), f"--file={file}"]
    if decompress:
        command.append("--use-compress-program=" + " ".join(decompress.command(hidden)))
    return [
        step("unshare", namespaces=["mount", "net"]),
        step("propagation", mode="private"),
        step("scratch", path=scratch, size="1m"),
        step("root_folder", mountpoint=root, source=folder, flags=HARMLESS),
        step("mount", target=hidden, fstype="tmpfs", flags=NO_POWERS, data="size=1m"),
        *[
            step("bind", source=path, target=hidden + path, flags=["ro", *NO_POWERS])
            for path in folders
        ],
        step("bind", source=tarball, target=f"{hidden}/tarball", flags=["ro", *HARMLESS]),
        # The tarball, read-only, is stdin: /dev/null would be the host's, and tar could chmod it.
        step("input", path=f"{root}{hidden}/tarball"),
        step("output_as_error"),
        step("bounding_set", keep=UNPACKING),
        step("pivot_root", path=root),
        step("limits", most={"cpu": UNPACKING_TIME, "as": UNPACKING_MEMORY}),
        *user_steps("root", UNPACKING),
        *seccomp_steps(host),
        step("exec", path=command[0], arguments=[*command[1:], *TAR], environment=[]),
    ]
