"""A plan as a shell script that a person could type: to read, and to run.

It makes the same container beside the real one: what it writes is in a scratch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from shlex import quote

from attrs import frozen

from txcontain.container.plan import Plan
from txcontain.container.shell_steps import Lines, Shell

BEGIN = """\
#!/bin/sh
# {what} by hand. Run it as root: sh FILE
# (Use only an image that you trust: the real init lets no symbolic link lead out of the
# image, but a shell can't. To end all of it: kill the process that runs this file.)
set -eu
umask 022

# All that is written is in here. ($TMPDIR may name another folder than /var/tmp.)
scratch=$(mktemp -d "${{TMPDIR:-/var/tmp}}/by-hand.XXXXXX")
hand=${{scratch##*/}}
chmod 711 "$scratch"
mkdir "$scratch"/own
export scratch
"""
CLEAN = """\
trap 'rm -rf --one-file-system "$scratch"{groups}' EXIT
"""
GROUPS = """
# A cgroup of its own, with its limits (cgroups(7)).
"""
BINDER = """
# bind SOURCE TARGET FLAGS [USER_NAMESPACE]: mount what is at SOURCE, and below it, at TARGET too,
# with owners mapped by a user namespace (open_tree(2), mount_setattr(2), move_mount(2)). The script
# is in Python, as mount(8) can do so only from util-linux 2.39 on.
cat >"$scratch"/bind.py <<'PYTHON'
import ctypes, os, struct, sys

source, target, flags, *users = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
known = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}  # <linux/mount.h>
attributes = sum(known[flag] for flag in flags.split(",") if flag) | (0x100000 if users else 0)
mapping = os.open(users[0], os.O_RDONLY) if users else 0

def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        sys.exit(f"bind {source}: {os.strerror(ctypes.get_errno())}")
    return result

def path(text):
    return ctypes.c_char_p(os.fsencode(text))

tree = call(428, -100, path(source), 0x8000 | 0x80000 | 1)  # open_tree, a copy with all below it
wanted = struct.pack("=QQQQ", attributes, 0, 0, mapping)
call(442, tree, path(""), 0x8000 | 0x1000, wanted, len(wanted))  # mount_setattr
call(429, tree, path(""), -100, path(target), 4)  # move_mount
PYTHON
"""
BIND = """\
bind() { python3 -I -S "$scratch"/bind.py "$@"; }
"""
START = """
# First make new namespaces of these kinds. What follows runs in them as PID 1, in a session of its
# own without a terminal.
{keep}(
{enter}    exec env --default-signal unshare --pid --fork --kill-child --uts --ipc{namespaces} \\
        setsid sh -eu /dev/fd/3 3<<'{end}'
exec 3<&-
umask 022
"""
END = """\
{end}
) <&0 &
child=$!
end() {{ kill -KILL $(cat /proc/$child/task/$child/children) || kill -KILL $child; }}  # PID 1
trap 'end; wait $child; exit 143' HUP INT TERM
wait $child
"""
EXEC_HEAD = """\
#!/bin/sh
# A command in the container by hand. Run it as root: sh FILE
# (Only in a container that you trust: the real init can't be looked into while it joins, and
# also enters the mount namespace. If a shell did that, no program of the host would be left to
# run. So this only takes the container's root.)
set -eu
umask 022
"""
KEEP_STREAM = """\
exec 4<&0 5>&1  # the connection: run this file for each, as by socat TCP-L:PORT,fork EXEC:"sh FILE"
"""
KEEP_NETWORK = """\
link=hand${scratch##*.}  # the host's end of the link to the bridge
export link
exec 9</proc/self/ns/net
"""
File = tuple[str, str]  # the folder of a hierarchy's groups, and the name of a group's file


@frozen
class Group:
    """The cgroup of a container, which is made beside those of managers."""

    tops: Sequence[str] = ()  # the folders in which it is made
    texts: Sequence[tuple[File, str]] = ()  # what is written to which file, if there is one
    entrances: Sequence[File] = ()  # to join it


@frozen
class Around:
    """What a container has that is not in its plan."""

    folder: str = ""  # of the instance: the script has its scratch in place of that
    group: Group = Group()
    bridge: str = ""  # of the private network


def explain(plan: Plan, around: Around | None = None) -> str:
    """The plan of a container as a POSIX shell script that makes the same container.

    Raises InvalidData if the environment becomes too long.
    """
    around = around or Around()
    return _explained("The container", plan, around, CLEAN)


def explain_unpacking(plan: Plan, folder: str, hidden: str) -> str:
    """The plan that unpacks a tarball as a POSIX shell script.

    :param folder: in which it is unpacked
    :param hidden: the folder in there that is not from the tarball
    """
    script = _explained("Unpacking a tarball", plan, Around(folder), "")
    kept = f'rmdir "$scratch"/own/layer{quote(hidden)}\necho "It is in $scratch/own/layer"\n'
    made = 'mkdir "$scratch"/own\n'
    return script.replace(made, 'mkdir -p "$scratch"/own/layer\n', 1) + kept


def explain_exec(plan: Plan) -> str:
    """The plan of a command as a POSIX shell script that runs it in the same container.

    Raises InvalidData if the environment becomes too long.
    """
    return EXEC_HEAD + _steps(plan, Shell())


def _explained(what: str, plan: Plan, around: Around, clean: str) -> str:
    ops = {op for op, _ in plan}
    own = {around.folder: '"$scratch"/own'} if around.folder else {}
    first = next((arguments["path"] for op, arguments in plan if op == "scratch"), "")
    if first and not (own and first.startswith(f"{around.folder}/")):
        own[first] = '"$scratch"/memory'
    script = _steps(plan, Shell(own, around.bridge))
    names = [name for op, arguments in plan if op == "unshare" for name in arguments["namespaces"]]
    end = "CONTAINER"
    while f"\n{end}\n" in script:  # it is a line of the script, such as in a variable's value
        end += "_"
    groups = " ".join(_group(top) for top in around.group.tops)
    binds = bool(ops & {"bind", "idmap", "host_folder"})
    return "".join(
        [
            BEGIN.format(what=what),
            clean.format(groups="; rmdir " * bool(groups) + groups),
            _make_group(around.group),
            BINDER * binds,
            START.format(
                keep=KEEP_STREAM * ("stream" in ops) + KEEP_NETWORK * ("ask_for_link" in ops),
                enter="".join(f"    echo 0 >{_file(*file)}\n" for file in around.group.entrances),
                namespaces="".join(f" --{name}" for name in names),
                end=end,
            ),
            BIND * binds,
            script,
            END.format(end=end),
        ]
    )


def _make_group(group: Group) -> str:
    if not group.tops:
        return ""
    lines = [f"mkdir {_group(top)}" for top in group.tops]
    for file, text in group.texts:
        lines.append(f"[ ! -e {_file(*file)} ] || echo {quote(text)} >{_file(*file)}")
    return GROUPS + "".join(f"{line}\n" for line in lines)


def _group(top: str) -> str:
    return f'{quote(top)}/"$hand"'


def _file(top: str, name: str) -> str:
    return f"{_group(top)}/{name}"


def _steps(plan: Plan, shell: Shell) -> str:
    script = ""
    steps = enumerate(plan, 1)
    for op, group in groupby(steps, key=lambda numbered: numbered[1][0]):
        run = list(group)
        numbers = "-".join(str(number) for number in dict.fromkeys((run[0][0], run[-1][0])))
        speak = getattr(shell, op)
        lines: Lines = [line for _, (_, arguments) in run for line in speak(**arguments)]
        script += "\n".join([f"\n# {numbers}: {op}", _comment(speak.__doc__), *lines, ""])
    return script


def _comment(text: str) -> str:
    return "\n".join(f"# {line.strip()}" for line in text.strip().splitlines())
