"""The plans that make a layer, of a tarball or of other layers: tar(1) in a jail of its own."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import join

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
# Pack all that an overlay shows. Of a file that a layer hides, a folder that no layer below has
# still tells the name: for tar, it was removed.
PACK = [
    "--create",
    "--file=-",
    "--numeric-owner",
    "--sparse",
    "--format=posix",
    "--xattrs",
    "--xattrs-include=user.*",
    "--warning=no-file-removed",
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
    programs = [tar, decompress] if decompress else [tar]
    file = "-" if piped else f"{hidden}/tarball"
    command = [*tar.command(hidden), f"--file={file}"]
    if decompress:
        command.append("--use-compress-program=" + " ".join(decompress.command(hidden)))
    bind = step("bind", source=tarball, target=f"{hidden}/tarball", flags=["ro", *HARMLESS])
    jail = _jail(folder, scratch, hidden, programs)
    return [*jail, bind, *_run([*command, *TAR], f"{scratch}/root", f"{hidden}/tarball", host)]


def make_merging_plan(
    layers: Sequence[str],
    folder: str,
    scratch: str,
    hidden: str,
    tar: Program,
    sh: Program,
    host: Host = NOWHERE,
) -> Plan:
    """The steps that put what an overlay of layers, the highest first, shows into ``folder``.

    The kernel says what that is. One tar packs it, and another one unpacks that, in the same jail
    as when a tarball is unpacked. (If the first one fails, it says so, or the end mark is missing.)
    """
    command, place = tar.command(hidden), f"{hidden}/layers"
    pack = [*command, *PACK, f"--directory={place}", "."]
    unpack = [*command, "--file=-", *TAR]
    over = step(
        "overlay",
        lower=[*layers],
        upper=f"{scratch}/upper",
        work=f"{scratch}/work",
        target=place,
        flags=HARMLESS,
        sealed=True,
        volatile=True,
    )
    run = [*sh.command(hidden), "-c", f"{join(pack)} | {join(unpack)}"]
    jail = _jail(folder, scratch, hidden, [tar, sh])
    return [*jail, over, step("seal"), *_run(run, f"{scratch}/root", hidden + sh.path, host)]


def _jail(folder: str, scratch: str, hidden: str, programs: Sequence[Program]) -> Plan:
    """A root that is ``folder``, with these programs below ``hidden``."""
    folders = sorted({folder for program in programs for folder in program.folders})
    return [
        step("unshare", namespaces=["mount", "net"]),
        step("propagation", mode="private"),
        step("scratch", path=scratch, size="1m"),
        step("root_folder", mountpoint=f"{scratch}/root", source=folder, flags=HARMLESS),
        step("mount", target=hidden, fstype="tmpfs", flags=NO_POWERS, data="size=1m"),
        *[
            step("bind", source=path, target=hidden + path, flags=["ro", *NO_POWERS])
            for path in folders
        ],
    ]


def _run(command: Sequence[str], root: str, file: str, host: Host) -> Plan:
    """Run a program in that root, which reads a file in it."""
    return [
        # The file, read-only, is stdin: /dev/null would be the host's, and tar could chmod it.
        step("input", path=f"{root}{file}"),
        step("output_as_error"),
        step("bounding_set", keep=UNPACKING),
        step("pivot_root", path=root),
        step("limits", most={"cpu": UNPACKING_TIME, "as": UNPACKING_MEMORY}),
        *user_steps("root", UNPACKING),
        *seccomp_steps(host),
        step("exec", path=command[0], arguments=[*command[1:]], environment=[]),
    ]
