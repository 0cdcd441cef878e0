"""A plan as shell commands that a person could type: to read, and to run.

Each op of ``init.Container`` has a method here: it returns the lines, and its docstring is the
comment above them.
"""

from __future__ import annotations

import os
import re
from itertools import groupby
from shlex import quote
from typing import Any

from txcontain.container.facts import IDS
from txcontain.container.plan import CAPABILITIES, Plan
from txcontain.container.spec import Assignment, fill_in

HEAD = """\
#!/bin/sh
# The container by hand. Run it as root: sh FILE
# (Use only an image that you trust: the real init lets no symbolic link lead out of the
# image, but a shell can't. The folders named here must exist.)

# First make new namespaces of these kinds. The rest of this file runs in them as PID 1, in a
# session of its own without a terminal. (To end all of it: kill -KILL the unshare.)
exec unshare --pid --fork --kill-child --uts --ipc{namespaces} \
    setsid sh -eu /dev/fd/3 3<<'{end}'
exec 3<&-
umask 022
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
FULL = ["ro", "nosuid", "nodev", "noexec"]
Lines = list[str]


def explain(plan: Plan) -> str:
    """The plan of a container as a POSIX shell script that makes the same container.

    Raises InvalidData if the environment becomes too long.
    """
    names = [name for op, arguments in plan if op == "unshare" for name in arguments["namespaces"]]
    script = _steps(plan)
    end = "CONTAINER"
    while f"\n{end}\n" in script:  # it is a line of the script, such as in a variable's value
        end += "_"
    head = HEAD.format(namespaces="".join(f" --{name}" for name in names), end=end)
    if any(op == "stream" for op, _ in plan):
        head = head.replace("exec unshare", f"{KEEP_STREAM}exec unshare", 1)
    return f"{head}{script}{end}\n"


def explain_exec(plan: Plan) -> str:
    """The plan of a command as a POSIX shell script that runs it in the same container.

    Raises InvalidData if the environment becomes too long.
    """
    return EXEC_HEAD + _steps(plan)


def _steps(plan: Plan) -> str:
    script, shell = "", _Shell()
    steps = enumerate(plan, 1)
    for op, group in groupby(steps, key=lambda numbered: numbered[1][0]):
        run = list(group)
        numbers = "-".join(str(number) for number in dict.fromkeys((run[0][0], run[-1][0])))
        speak = getattr(shell, op)
        lines = [line for _, (_, arguments) in run for line in speak(**arguments)]
        script += "\n".join([f"\n# {numbers}: {op}", _comment(speak.__doc__), *lines, ""])
    return script


def _comment(text: str) -> str:
    return "\n".join(f"# {line.strip()}" for line in text.strip().splitlines())


def _mount(options: Lines, source: str, target: str, fstype: str = "") -> str:
    kind = f"-t {fstype} " if fstype else ""
    return f"mount {kind}-o {quote(','.join(filter(None, options)))} {quote(source)} {target}"


def _escaped(path: str) -> str:
    """A path as an option of an overlay, as ``init.py`` (which shares no code) writes it."""
    return re.sub(r"([\\,:])", r"\\\1", path)


def _inside(path: str) -> str:
    return '"$root"' + ("" if path == "/" else quote(path))


def _remount(target: str, flags: Lines) -> str:
    return f"mount -o {','.join(['remount', 'bind', *flags])} {target}"


def _find(who: str) -> str:
    """The beginning of an awk(1) program for the record with this name or number."""
    condition = f"$3 == {int(who)}" if who.isdecimal() else "$1 == who"
    return f"awk -F: -v who={quote(who)} '{condition}"


class _Shell:
    """Says each step in shell: one method an op, called with the step's arguments."""

    def __init__(self) -> None:
        self.to_seal: Lines = []
        self.powers: Lines = []
        self.first = 0  # of the ids of a user namespace
        self.enter = ""  # the command that enters one, or those of a container
        self.run = "exec "  # or empty, if this shell is to stay

    def input(self, path: str) -> Lines:
        """The container's own standard input."""
        return [f"exec <{quote(path)}"]

    def output(self, stdout: str, stderr: str) -> Lines:
        """Its output and error: pipes of its log (leave this out to see them here)."""
        return [f"exec >>{quote(stdout)} 2>>{quote(stderr)}"]

    def output_as_error(self) -> Lines:
        """All output goes to one place."""
        return ["exec >&2"]

    def unshare(self, namespaces: Lines) -> Lines:
        """The first line did this: a shell can't do it to itself."""
        return []

    def propagation(self, mode: str) -> Lines:
        """What is mounted from now on stays in this mount namespace."""
        return [f"mount --make-r{mode} /"]

    def scratch(self, path: str, size: str) -> Lines:
        """A tmpfs that only this namespace sees; it disappears with the last process."""
        mount = _mount(["nosuid", "nodev", f"size={size}"], "scratch", quote(path), "tmpfs")
        return [f"mkdir -p {quote(path)}", mount]

    def disk(self, path: str, image: str, size: int, flags: Lines) -> Lines:
        """A file system of its own in a file, which bounds what fits; all its bytes are reserved.
        (The real init waits until no other mount has it.) It is unmounted, and the loop device
        freed, with the last process.
        """
        file = quote(image)
        make = f"fallocate -l {size} {file} && mke2fs -q -F -t ext4 -m 0 -E nodiscard {file}"
        return [
            f"mkdir -p {quote(path)}",
            f"[ -e {file} ] || {{ {make}; }}",
            _mount(["loop", *flags], image, quote(path), "ext4"),
        ]

    def staging(self, path: str) -> Lines:
        """What all containers share is mounted here first, as there is no root yet. (The manager
        lets some processes do this in advance, so that a launch is faster.)
        """
        return self._new_root(path)

    def move(self, source: str, target: str) -> Lines:
        """Move it to where it belongs."""
        return [f"mkdir -p {_inside(target)}", f"mount --move {quote(source)} {_inside(target)}"]

    def root_overlay(self, mountpoint: str, flags: Lines, sealed: bool, **layers: Any) -> Lines:
        """The base image, below a writable layer, becomes the root. The image is shared and never
        changed: missing mount points are made in the upper layer.
        """
        return [*self._new_root(mountpoint), *self._overlay("/", flags, sealed, **layers)]

    def root_folder(self, mountpoint: str, source: str, flags: Lines) -> Lines:
        """A folder of the host becomes the root."""
        mount = f'mount --bind {quote(source)} "$root"'
        return [*self._new_root(mountpoint), mount, _remount('"$root"', flags)]

    def _new_root(self, mountpoint: str) -> Lines:
        return [f"root={quote(mountpoint)}", 'mkdir "$root"']

    def overlay(self, target: str, flags: Lines, sealed: bool, **layers: Any) -> Lines:
        """The unpacked tarballs of the config, copy-on-write: what is written goes into the upper
        layers. (volatile: it need not survive a power cut. The kernel mounts such a layer only
        once. Here the instance has mounted it already, so the kernel's mark is removed.)
        """
        return [f"mkdir -p {_inside(target)}", *self._overlay(target, flags, sealed, **layers)]

    def _overlay(
        self,
        target: str,
        flags: Lines,
        sealed: bool,
        lower: str | Lines,
        upper: str,
        work: str,
        volatile: bool,
    ) -> Lines:
        if sealed:
            self.to_seal.append(_remount(_inside(target), ["ro", *flags]))
        lowers = [lower] if isinstance(lower, str) else lower
        paths = {"lowerdir": lowers, "upperdir": [upper], "workdir": [work]}
        layers = [f"{name}={':'.join(map(_escaped, folders))}" for name, folders in paths.items()]
        layers += ["volatile"] * volatile
        used = f"{work}/work/incompat/volatile"  # the mark
        return [
            *[f"rm -rf {quote(used)}"] * volatile,
            f"mkdir -p {quote(upper)} {quote(work)}",
            f"chown --reference={quote(lowers[0])} {quote(upper)}",
            f"chmod --reference={quote(lowers[0])} {quote(upper)}",
            _mount([*flags, *layers], "overlay", _inside(target), "overlay"),
        ]

    def mount(self, target: str, fstype: str, flags: Lines, data: str = "") -> Lines:
        """File systems of its own. /proc shows this pid namespace, whose PID 1 we are."""
        return [
            f"mkdir -p {_inside(target)}",
            _mount([*flags, data], fstype, _inside(target), fstype),
        ]

    def resize(self, path: str, size: str, flags: Lines) -> Lines:
        """As large as the config says."""
        return [f"mount -o {','.join(['remount', *flags, f'size={size}'])} {_inside(path)}"]

    def bind(self, source: str, target: str, flags: Lines) -> Lines:
        """Files of the host, seen in the container, with all that is mounted below them
        (util-linux 2.39 or later).
        """
        place = _inside(target)
        options = ["rbind", *(f"{flag}=recursive" for flag in flags)]
        return [
            f"if [ -d {quote(source)} ]; then mkdir -p {place}; else touch {place}; fi",
            _mount(options, source, place),
        ]

    def volume(self, source: str, lock: str, target: str, flags: Lines) -> Lines:
        """A volume: data that stays when the container is gone. What the image has at this place
        fills it at the first use. (The real init does that in a folder beside it, and renames it,
        and maps its owners by the user namespace, if there is one.)
        """
        place, data = _inside(target), quote(f"{source}/data")
        return [
            f"mkdir -p {place}",
            f"[ -d {data} ] || cp -a {place} {data}",
            _mount(["bind"], f"{source}/data", place),
            _remount(place, flags),
        ]

    def host_folder(self, path: str, target: str, flags: Lines, allowed: Lines) -> Lines:
        """A folder of the host. (The real init makes sure that no symbolic link in it leads out of
        the folders that the manager allows.)
        """
        place = _inside(target)
        options = ["rbind", *(f"{flag}=recursive" for flag in flags)]
        return [f"mkdir -p {place}", _mount(options, path, place)]

    def seal(self) -> Lines:
        """All mount points exist now: READ mounts become read-only."""
        return self.to_seal

    def mask(self, path: str, source: str) -> Lines:
        """What shows the host, or reaches it, is hidden behind something empty."""
        flags = FULL if source != "/dev/null" else [flag for flag in FULL if flag != "nodev"]
        return [f"mount --bind {quote(source)} {_inside(path)}", _remount(_inside(path), flags)]

    def read_only_path(self, path: str) -> Lines:
        """Settings of the host, which even root must not change."""
        place = _inside(path)
        return [f"mount --rbind {place} {place}", _remount(place, FULL)]

    def device(self, path: str, major: int, minor: int) -> Lines:
        """Only the harmless devices: the right to make more is dropped below."""
        return [f"mknod -m 666 {_inside(path)} c {major} {minor}"]

    def symlink(self, path: str, target: str) -> Lines:
        """Names in /dev that programs expect."""
        return [f"ln -s {quote(target)} {_inside(path)}"]

    def file(self, path: str, content: str) -> Lines:
        """Files that say who this is and where to look up names, in place of the image's."""
        place = _inside(path)
        return [
            f"mkdir -p {_inside(os.path.dirname(path))} && rm -f {place}",
            f"printf %s {quote(content)} >{place}",
        ]

    def add_file(self, path: str, place: str, mode: int, owner: str, content: str) -> Lines:
        """Small files of the config, read-only, in place of the image's ones or of their links."""
        return self._add(path, place, mode, owner, f"printf %s {quote(content)}")

    def add_copy(self, path: str, place: str, mode: int, owner: str, source: str) -> Lines:
        """Copies of files of the host, read-only: secrets, and files that the config names."""
        return self._add(path, place, mode, owner, f"cat {quote(source)}")

    def _add(self, path: str, place: str, mode: int, owner: str, writing: str) -> Lines:
        name, _, group = owner.partition(":")
        number = {"root": "0"}.get(name, name if name.isdecimal() else "")
        default = f":-{number}:{number}" if number else f":?the image knows no user {name}"
        passwd, groups = '"$root"/etc/passwd', '"$root"/etc/group'
        lines = [
            f'ids=$({_find(name)} {{ print $3 ":" $4; exit }}\' {passwd} 2>/dev/null || true)',
            f"ids=${{ids{default}}}",
        ]
        if group.isdecimal():
            lines.append(f"ids=${{ids%:*}}:{int(group)}")
        elif group:
            lines += [
                f"gid=$({_find(group)} {{ print $3; exit }}' {groups} 2>/dev/null || true)",
                f"ids=${{ids%:*}}:${{gid:?the image knows no group {group}}}",
            ]
        to, file = _inside(path), quote(place)
        return [
            f"{writing} >{file}",
            *lines,
            f"chown $((${{ids%:*}} + {self.first})):$((${{ids#*:}} + {self.first})) {file}",
            f"chmod {mode:o} {file}",
            f"mkdir -p {_inside(os.path.dirname(path))}",
            f"[ ! -L {to} ] || rm {to}",
            f"[ -e {to} ] || touch {to}",
            f"mount --bind {file} {to}",
            _remount(to, ["ro", "nosuid", "nodev"]),
        ]

    def loopback(self) -> Lines:
        """A network of its own, in which no interface is up yet."""
        return ["ip link set lo up"]

    def setting(self, path: str, value: str) -> Lines:
        """In a private network namespace anyone may listen on any port, and ping."""
        return [f"echo {quote(value)} >{path}"]

    def ask_for_link(self) -> Lines:
        """The manager makes a link now. Do it by hand in another terminal of the host:
        ip link add NAME up master BRIDGE type veth peer name eth0 netns PID
        where PID is that of this shell, as the host sees it.
        """
        return []

    def link(self, address: str, netmask: str, gateway: str) -> Lines:
        """The link gets an address and becomes the default route."""
        return [
            "until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done",
            f"ip address add {address}/{netmask} dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {gateway}",
        ]

    def link6(self, address: str, length: int, gateway: str) -> Lines:
        """The same for IPv6."""
        return [
            f"ip address add {address}/{length} dev eth0 nodad",
            f"ip -6 route add default via {gateway}",
        ]

    def pivot_root(self, path: str) -> Lines:
        """The new root takes the place of the old one. The real init does this by
        pivot_root . . && umount -l .
        but then no program of the host is left to run. We still need three, so we move the
        new root on top of the old one, and enter it at the very end.
        """
        return ['cd "$root"', 'mount --move "$root" /']

    def hostname(self, name: str) -> Lines:
        """A name of its own, in this UTS namespace."""
        return [f"hostname {quote(name)}"]

    def bounding_set(self, keep: list[int]) -> Lines:
        """From now on, these are the only capabilities that anything in the container can have,
        even root. (setpriv, below, drops the others.)
        """
        names = [name.lower() for name, number in CAPABILITIES.items() if number in keep]
        self.powers.append("--bounding-set=" + ",+".join(["-all", *names]))
        return []

    def hide(self) -> Lines:
        """No process of the container may look into this one. (No shell command does this.)"""
        return []

    def join_cgroups(self, files: Lines) -> Lines:
        """Be counted, and limited, with the container."""
        return [f"echo 0 >{quote(path)}" for path in files]

    def join(self, pid: int, start_time: int, namespaces: Lines) -> Lines:
        """Enter the container's namespaces (nsenter, below) and its root. The real init also looks
        whether this is still the same process.
        """
        names = [name for name in namespaces if name != "mount"]
        kinds = " ".join(f"--{name}" for name in names)
        self.enter = f"/usr/bin/nsenter --target {pid} {kinds} "
        return [f"cd /proc/{pid}/root"]

    def user_namespace_at(self, pid: int) -> Lines:
        """The user namespace to enter at the end. (nsenter would take it from this process.)"""
        return []

    def lend(self, files: Lines) -> Lines:
        """These files of the host are needed in the container's root."""
        return [f"# {path}" for path in files]

    def borrow(self, target: str) -> Lines:
        """They are mounted there, where only this process sees them. (A shell can't hold a mount
        until then: bind them by hand.)
        """
        return [f"mkdir -p {_inside(target)}"]

    def visit(self, folder: str, name: str) -> Lines:
        """Work in a folder of the container, in which there is something of this name."""
        return [f"cd {_inside(folder)}", f"ls -d {quote(name)}"]

    def fork(self) -> Lines:
        """Only a child is in the pid namespace. (nsenter makes one, and waits for it.)"""
        return []

    def terminal(self, rows: int, columns: int) -> Lines:
        """A terminal of the container's. (No shell command opens one there: here, the command has
        the terminal that this is run on.)
        """
        return []

    def close_descriptors(self) -> Lines:
        """Only the standard streams stay open. (This shell has nothing else open.)"""
        return []

    def user(self, owner: str, capabilities: list[int]) -> Lines:
        """Who is the owner? The image's own files say it."""
        name, _, group = owner.partition(":")
        known = {"root": ":-root:x:0:0::/:"}
        if name.isdecimal():
            known[name] = f":-{name}:x:{int(name)}:{int(name)}::/:"
        default = known.get(name, f":?the image knows no user {name}")
        self.powers += ['--regid="$gid"', '--groups="$groups"', "--inh-caps=-all"]
        return [
            f"account=$({_find(name)} {{ print; exit }}' etc/passwd 2>/dev/null || true)",
            "IFS=: read -r user _ uid gid _ home _ <<ACCOUNT",
            f"${{account{default}}}",
            "ACCOUNT",
            "home=${home:-/} && directory=/",
            '[ -d ".$home" ] && directory=$home',
            *self._groups(group),
        ]

    def workdir(self, path: str) -> Lines:
        """It starts in this folder."""
        return [f"directory={quote(path)}"]

    def _groups(self, group: str) -> Lines:
        if group.isdecimal():
            return [f"gid={int(group)} groups={int(group)}"]
        if group:
            found = f"gid=$({_find(group)} {{ print $3; exit }}' etc/group 2>/dev/null || true)"
            return [found, f'groups="${{gid:?the image knows no group {group}}}"']
        return [
            """groups=$gid$(awk -F: -v who="${account%%:*}" """
            """'who != "" && index("," $4 ",", "," who ",") { printf ",%s", $3 }' """
            "etc/group 2>/dev/null || true)"
        ]

    def limits(self, most: dict[str, int]) -> Lines:
        """How much of each resource a process may have. Some are counted for all of a user."""
        return [" ".join(["prlimit --pid $$", *(f"--{name}={most[name]}" for name in most)])]

    def user_namespace_of(self, first: int, staging: str) -> Lines:
        """A user namespace: its ids from 0 on are the host's ids from this one on. It is entered at
        the end (--map-users, below). Its root becomes the owner of what was made so far.
        """
        self.first = first
        return [f"chown {first}:{first} {quote(staging)}/dev {quote(staging)}/dev/shm"]

    def idmap(self, source: str, target: str) -> Lines:
        """The layer, with its owners mapped by that user namespace (util-linux 2.39 or later)."""
        mapping = f"X-mount.idmap=b:0:{self.first}:{IDS}"
        return [
            f"mkdir -p {quote(target)}",
            f"mount --bind -o {mapping} {quote(source)} {quote(target)}",
        ]

    def enter_user_namespace(self) -> Lines:
        """From now on, all powers are only over the ids of the user namespace."""
        mapping = f"0,{self.first},{IDS}"
        self.enter = f"/usr/bin/unshare --user --map-users={mapping} --map-groups={mapping} "
        return []

    def seccomp(self, program: bytes) -> Lines:
        """From now on, only the system calls of a list. No shell command does this: the init gives
        the kernel a program that libseccomp has compiled.
        """
        return []

    def stream(self) -> Lines:
        """The connection becomes its standard input and output, as inetd does it: what was this
        file's own standard input and output until here.
        """
        return ["exec <&4 >&5 4<&- 5>&-"]

    def no_new_privileges(self) -> Lines:
        """And exec ignores setuid bits. (setpriv, below.)"""
        self.powers.append("--no-new-privs")
        return []

    def look_after(self) -> Lines:
        """PID 1 has to reap processes that end, so this shell stays, and waits. (The real init also
        passes signals on.)
        """
        self.run = ""
        return []

    def exec(
        self, path: str, arguments: Lines, environment: list[Assignment], key: str = ""
    ) -> Lines:
        """Run its program inside the new root, as the owner, with a clean environment and no
        other powers. It is PID 1, if the shell does not stay.
        """
        before = {"HOME": '"$home"', "USER": '"$user"'}
        variables = fill_in(environment, before, quote)
        words = " ".join(f"{name}={word}" for name, word in variables.items())
        return [
            " \\\n    ".join(
                [
                    f"{self.run}env -i {words}",
                    self.enter + "/usr/bin/setpriv " + " ".join(self.powers),
                    '/usr/bin/unshare --root=. --wd="$directory" --setuid="$uid"',
                    " ".join(map(quote, [path, *arguments])),
                ]
            )
        ]

    def idle(self, environment: list[Assignment]) -> Lines:
        """Become a process that does nothing, still as PID 1: inside the new root, with a clean
        environment and no other powers.
        """
        return self.exec("sleep", ["infinity"], environment)
