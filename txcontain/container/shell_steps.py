"""Says each step of a plan in shell.

Each op of ``init.Container`` has a method here: it returns the lines, and its docstring is the
comment above them. Its first sentence says what the step is for, with the man page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any

from txcontain.container.facts import IDS
from txcontain.container.plan import CAPABILITIES
from txcontain.container.spec import Assignment, fill_in

FULL = ["ro", "nosuid", "nodev", "noexec"]
FEW_LAYERS = 20  # with paths of any usual length
Lines = list[str]


def _mount(options: Lines, source: str, target: str, fstype: str = "") -> str:
    kind = f"-t {fstype} " if fstype else ""
    return f"mount {kind}-o {quote(','.join(filter(None, options)))} {source} {target}"


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


class Shell:
    """Says each step in shell: one method an op, called with the step's arguments.

    :param own: the variable of the script that stands for a folder, by the folder's path
    :param bridge: what the link of a private network is attached to
    """

    def __init__(self, own: Mapping[str, str] | None = None, bridge: str = "") -> None:
        self.own, self.bridge = own or {}, bridge
        self.to_seal: Lines = []
        self.powers: Lines = []
        self.bounding_set_is = ""  # an option of setpriv
        self.first = 0  # of the ids of a user namespace
        self.users = ""  # the file of the user namespace
        self.by_root = ""  # what runs a command as root of the user namespace
        self.enter = ""  # the command that enters one, or those of a container
        self.run = "exec "  # or empty, if this shell is to stay
        self.volumes = 0  # how many there were so far

    def path(self, path: str, write: Callable[[str], str] = str) -> str:
        """A path of the host as a word of the script.

        :param write: how a path is written where this one stands
        """
        for folder, variable in self.own.items():
            if path == folder:
                return variable
            if path.startswith(f"{folder}/"):
                return variable + quote(write(path.removeprefix(folder)))
        return quote(write(path))

    def _make_folder(self, path: str) -> str:
        """A folder of the container; root of the container owns it."""
        return f"{self.by_root}mkdir -p {self._for_root(path)}"

    def _for_root(self, path: str) -> str:
        """A path of the container for ``by_root``, which works in its root folder."""
        return quote(f".{path}") if self.by_root else _inside(path)

    def input(self, path: str) -> Lines:
        """The container's own standard input, which is not the manager's (dup2(2))."""
        return [f"exec <{self.path(path)}"]

    def output(self, stdout: str, stderr: str = "") -> Lines:
        """Its output goes to a log, by pipes (dup2(2)). By hand, you see it."""
        return []

    def output_as_error(self) -> Lines:
        """All output goes to one place (dup2(2))."""
        return ["exec >&2"]

    def unshare(self, namespaces: Lines) -> Lines:
        """It leaves the host's namespaces of these kinds (unshare(2)). The beginning of this file
        did that, as a shell can't do it to itself.
        """
        return []

    def propagation(self, mode: str) -> Lines:
        """What is mounted from now on stays in this mount namespace (mount_namespaces(7))."""
        return [f"mount --make-r{mode} /"]

    def scratch(self, path: str, size: str) -> Lines:
        """Memory that only this namespace sees, until its last process ends (tmpfs(5))."""
        options = ["nosuid", "nodev", f"size={size}"]
        place = self.path(path)
        return [f"mkdir -p {place}", _mount(options, "scratch", place, "tmpfs")]

    def disk(self, path: str, image: str, size: int, flags: Lines, lock: str = "") -> Lines:
        """A file system of its own in a file, all of whose bytes are reserved, bounds what fits
        (loop(4)). It is unmounted, and the loop device freed, with the last process. All who use a
        volume share its device, which mount(8) finds. By hand, one not made yet is only of here.
        """
        file = self.path(image)
        if lock:
            mount = _mount(["loop", *flags], file, self.path(path), "ext4")
            return [f"mkdir -p {self.path(path)}", f"[ ! -e {file} ] || {mount}"]
        make = f"fallocate -l {size} {file} && mke2fs -q -F -t ext4 -m 0 -E nodiscard {file}"
        return [
            f"mkdir -p {self.path(path)}",
            make,
            _mount(["loop", *flags], file, self.path(path), "ext4"),
        ]

    def staging(self, path: str) -> Lines:
        """What all containers share is mounted here first, as there is no root yet (mount(2)). The
        manager lets some processes do this in advance, so that a launch is faster.
        """
        return self._new_root(path)

    def move(self, source: str, target: str) -> Lines:
        """Move it to where it belongs (mount(2), MS_MOVE)."""
        move = f"mount --move {self.path(source)} {_inside(target)}"
        return [self._make_folder(target), move]

    def root_overlay(self, mountpoint: str, flags: Lines, sealed: bool, **layers: Any) -> Lines:
        """The base image, below a writable layer, becomes the root (Linux: overlayfs.rst). The
        image is shared and never changed: missing mount points are made in the upper layer.
        """
        mount = self._overlay('"$root"', flags, sealed, **layers)
        return [*self._new_root(mountpoint), *mount]

    def root_folder(self, mountpoint: str, source: str, flags: Lines) -> Lines:
        """A folder of the host becomes the root (mount(8), --bind)."""
        mount = f'mount --bind {self.path(source)} "$root"'
        return [*self._new_root(mountpoint), mount, _remount('"$root"', flags)]

    def _new_root(self, mountpoint: str) -> Lines:
        return [f"root={self.path(mountpoint)}", 'mkdir "$root"']

    def overlay(self, target: str, flags: Lines, sealed: bool, **layers: Any) -> Lines:
        """The unpacked tarballs of the config are mounted copy-on-write, so that what is written
        goes into the upper layers (Linux: overlayfs.rst). volatile: it need not survive a power
        cut.
        """
        mount = self._overlay(_inside(target), flags, sealed, **layers)
        return [self._make_folder(target), *mount]

    def _overlay(
        self,
        target: str,
        flags: Lines,
        sealed: bool,
        lower: Lines,
        upper: str,
        work: str,
        volatile: bool,
    ) -> Lines:
        if sealed:
            self.to_seal.append(_remount(target, ["ro", *flags]))
        many, links = len(lower) > FEW_LAYERS, self.path(f"{work}-layers")
        lowers = [str(i) if many else self.path(path, _escaped) for i, path in enumerate(lower)]
        own = [f"upperdir={self.path(upper, _escaped)}", f"workdir={self.path(work, _escaped)}"]
        layers = [f"lowerdir={':'.join(lowers)}", *own, *["volatile"] * volatile]
        mount = [f"mount -t overlay -o {','.join([*flags, *layers])} overlay {target}"]
        if many:  # a mount takes only a page of options: the layers get short names
            named = [f"ln -s {self.path(path)} {links}/{i}" for i, path in enumerate(lower)]
            mount = [f"mkdir {links}", *named, f"(cd {links} && {mount[0]})"]
        top, like = self.path(upper), self.path(lower[0])
        return [
            f"mkdir -p {top} {self.path(work)}",
            f"chown --reference={like} {top}",
            f"chmod --reference={like} {top}",
            *mount,
        ]

    def mount(self, target: str, fstype: str, flags: Lines, data: str = "") -> Lines:
        """File systems of its own, of which /proc shows only this pid namespace (mount(2))."""
        mount = _mount([*flags, data], fstype, _inside(target), fstype)
        return [self._make_folder(target), mount]

    def resize(self, path: str, size: str, flags: Lines) -> Lines:
        """It is made as large as the config says (tmpfs(5), size=)."""
        return [f"mount -o {','.join(['remount', *flags, f'size={size}'])} {_inside(path)}"]

    def bind(self, source: str, target: str, flags: Lines) -> Lines:
        """Files of the host, seen in the container with all that is mounted below them
        (mount_setattr(2)).
        """
        place, file = _inside(target), self.path(source)
        return [
            f"if [ -d {file} ]; then mkdir -p {place}; else touch {place}; fi",
            f"bind {file} {place} {','.join(flags)}",
        ]

    def volume(self, source: str, lock: str, target: str, flags: Lines) -> Lines:
        """A volume is data that stays when the container is gone, filled at the first use with what
        the image has there (mount(8), --bind). By hand, one that is not filled yet is only of here.
        """
        self.volumes += 1
        own = f'"$scratch"/volume-{self.volumes}'
        place, empty = _inside(target), '[ -d "$data" ]'
        lines = [
            self._make_folder(target),
            f"data={self.path(f'{source}/data')}",
            f"{empty} || data={own}",
        ]
        if not self.users:
            copy = f'{empty} || cp -a {place} "$data"'
            return [*lines, copy, f'mount -o bind "$data" {place}', _remount(place, flags)]
        return [
            *lines,
            f"{empty} || {{",
            f'    mkdir "$data" {own}-mapped && bind "$data" {own}-mapped nodev {self.users}',
            f"    {self.by_root}cp -a {self._for_root(target)}/. /dev/fd/7/ 7<{own}-mapped",
            f"    umount {own}-mapped",
            "}",
            f'bind "$data" {place} {",".join(flags)} {self.users}',
        ]

    def host_folder(self, path: str, target: str, flags: Lines, allowed: Lines) -> Lines:
        """A folder of the host (mount_setattr(2)). The real init makes sure that no symbolic link
        in it leads out of the folders that the manager allows.
        """
        place = _inside(target)
        bind = f"bind {self.path(path)} {place} {','.join(flags)} {self.users}"
        return [self._make_folder(target), bind.rstrip()]

    def seal(self) -> Lines:
        """All mount points exist now, so READ mounts become read-only (mount(8), remount)."""
        return self.to_seal

    def mask(self, path: str, source: str) -> Lines:
        """What shows the host, or reaches it, is hidden behind something empty (mount(8))."""
        flags = FULL if source != "/dev/null" else [flag for flag in FULL if flag != "nodev"]
        return [f"mount --bind {quote(source)} {_inside(path)}", _remount(_inside(path), flags)]

    def read_only_path(self, path: str) -> Lines:
        """Settings of the host, which even root must not change, are read-only (proc_sys(5))."""
        place = _inside(path)
        return [f"mount --rbind {place} {place}", _remount(place, FULL)]

    def device(self, path: str, major: int, minor: int) -> Lines:
        """There are only the harmless devices, as the right to make more is dropped below
        (null(4)).
        """
        return [f"mknod -m 666 {_inside(path)} c {major} {minor}"]

    def symlink(self, path: str, target: str) -> Lines:
        """Names in /dev that programs expect (symlink(7))."""
        return [f"ln -s {quote(target)} {_inside(path)}"]

    def file(self, path: str, content: str) -> Lines:
        """Files that say who this is and where to look up names, in place of the image's (hosts(5),
        resolv.conf(5)).
        """
        place = _inside(path)
        return [
            f"{self._make_folder(os.path.dirname(path))} && rm -f {place}",
            f"printf %s {quote(content)} >{place}",
            *[f"chown {self.first}:{self.first} {place}"] * bool(self.first),
        ]

    def add_file(self, path: str, place: str, mode: int, owner: str, content: str) -> Lines:
        """Small files of the config, read-only, in place of the image's (mount(8), --bind)."""
        return self._add(path, place, mode, owner, f"printf %s {quote(content)}")

    def add_copy(self, path: str, place: str, mode: int, owner: str, source: str) -> Lines:
        """Copies of secrets, and of files that the config names, read-only (mount(8), --bind)."""
        return self._add(path, place, mode, owner, f"cat {self.path(source)}")

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
        to, file = _inside(path), self.path(place)
        return [
            f"{writing} >{file}",
            *lines,
            f"chown $((${{ids%:*}} + {self.first})):$((${{ids#*:}} + {self.first})) {file}",
            f"chmod {mode:o} {file}",
            self._make_folder(os.path.dirname(path)),
            f"[ ! -L {to} ] || rm {to}",
            f"[ -e {to} ] || {self.by_root}touch {self._for_root(path)}",
            f"mount --bind {file} {to}",
            _remount(to, ["ro", "nosuid", "nodev"]),
        ]

    def loopback(self) -> Lines:
        """Its network has nothing that is up yet, not even its own loopback (ip-link(8))."""
        return ["ip link set lo up"]

    def setting(self, path: str, value: str) -> Lines:
        """In a network of its own anyone may listen on any port (ip(7)), and ping (icmp(7))."""
        return [f"echo {quote(value)} >{path}"]

    def ask_for_link(self) -> Lines:
        """The manager connects this network namespace with its bridge (veth(4)). By hand, ip(8)
        runs in the host's network namespace, which is kept open for that, and we are PID 1.
        """
        host = "nsenter --net=/dev/fd/9"
        alone = "it reaches nobody: no container has the bridge made yet"
        return [
            f'{host} ip link add "$link" up type veth peer name eth0 netns 1',
            f'{host} ip link set "$link" master {quote(self.bridge)} || echo "{alone}" >&2',
            "exec 9<&-",
        ]

    def pause(self) -> Lines:
        """Someone looks at what there is so far (recv(2))."""
        return []

    def link(self, address: str, netmask: str, gateway: str) -> Lines:
        """The link gets an address and becomes the default route (ip-address(8), ip-route(8)). By
        hand, the address is one that is free, as the container's own may be in use.
        """
        return [
            f"ip address add {address}/{netmask} dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {gateway}",
        ]

    def link6(self, address: str, length: int, gateway: str) -> Lines:
        """The same for IPv6 (ip-address(8))."""
        return [
            f"ip address add {address}/{length} dev eth0 nodad",
            f"ip -6 route add default via {gateway}",
        ]

    def pivot_root(self, path: str) -> Lines:
        """The new root takes the place of the old one (pivot_root(2)). The real init does this by
        pivot_root . . && umount -l .
        but then no program of the host is left to run. We still need three, so we move the
        new root on top of the old one, and enter it at the very end.
        """
        return ['cd "$root"', 'mount --move "$root" /']

    def hostname(self, name: str) -> Lines:
        """It gets a name of its own, in this UTS namespace (uts_namespaces(7))."""
        return [f"hostname {quote(name)}"]

    def bounding_set(self, keep: list[int]) -> Lines:
        """From now on, these are the only capabilities that anything in the container can have,
        even root (capabilities(7)). setpriv, below, drops the others; but for that of chroot(2),
        which by hand is still to come.
        """
        kept = {*keep, CAPABILITIES["SYS_CHROOT"]}
        names = [name.lower() for name, number in CAPABILITIES.items() if number in kept]
        self.bounding_set_is = "--bounding-set=" + ",+".join(["-all", *names])
        return []

    def hide(self) -> Lines:
        """No process of the container may look into this one (prctl(2), PR_SET_DUMPABLE). No shell
        command does this.
        """
        return []

    def join_cgroups(self, files: Lines) -> Lines:
        """It is counted, and limited, with the container (cgroups(7))."""
        return [f"echo 0 >{quote(path)}" for path in files]

    def join(self, pid: int, start_time: int, namespaces: Lines) -> Lines:
        """It enters the container's namespaces, and its root (setns(2)). nsenter, below, does that
        for all but the mount namespace. The real init also looks whether this is still the same
        process.
        """
        names = [name for name in namespaces if name != "mount"]
        kinds = " ".join(f"--{name}" for name in names)
        self.enter = f"/usr/bin/nsenter --target {pid} {kinds} "
        return [f"cd /proc/{pid}/root"]

    def user_namespace_at(self, pid: int) -> Lines:
        """The user namespace to enter at the end (setns(2)). nsenter takes it from this process."""
        return []

    def lend(self, files: Lines) -> Lines:
        """These files of the host are needed in the container's root (open_tree(2))."""
        return [f"# {path}" for path in files]

    def borrow(self, target: str) -> Lines:
        """They are mounted there, where only this process sees them (move_mount(2)). A shell can't
        hold a mount until then: bind them by hand.
        """
        return [f"mkdir -p {_inside(target)}"]

    def visit(self, folder: str, name: str) -> Lines:
        """It works in a folder of the container that has something of this name (chdir(2))."""
        return [f"cd {_inside(folder)}", f"ls -d {quote(name)}"]

    def fork(self) -> Lines:
        """Only a child is in the pid namespace (pid_namespaces(7)). nsenter makes one."""
        return []

    def terminal(self, rows: int, columns: int) -> Lines:
        """It gets a terminal of the container's (pty(7)), as its session's own. No shell command
        opens one there: by hand, it has the terminal that this is run on.
        """
        return []

    def close_descriptors(self) -> Lines:
        """Only the standard streams stay open (close_range(2)). This shell has no other."""
        return []

    def user(self, owner: str, capabilities: list[int]) -> Lines:
        """The image's own files say who the owner is (passwd(5), group(5))."""
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
        """It starts in this folder (chdir(2))."""
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
        """A process may have only so much of each resource (getrlimit(2)). Some are counted for all
        of a user.
        """
        return [" ".join(["prlimit --pid $$", *(f"--{name}={most[name]}" for name in most)])]

    def user_namespace_of(self, first: int, staging: str) -> Lines:
        """A user namespace, whose ids from 0 on are the host's ids from this one on, is made here
        and entered at the end (user_namespaces(7)). Its root becomes the owner of what was made so
        far. (A process of root makes it. The real init has one of that first id do so.)
        """
        place = self.path(staging)
        above = self.path(os.path.dirname(staging))
        self.first, self.users = first, f"{above}/users"
        self.by_root = "by_root "
        mapping, holder = f'"0 {first} {IDS}"', f"{place}/proc/$holder"
        return [
            "unshare --user sleep infinity & holder=$!",
            f'until [ "$(readlink {holder}/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do',
            "    sleep 0.01",
            "done",
            f"echo {mapping} >{holder}/uid_map",
            f"echo {mapping} >{holder}/gid_map",
            f"touch {self.users}",
            f"mount --bind {holder}/ns/user {self.users}",
            "kill $holder",
            f'by_root() {{ (cd "$root" && nsenter --user={self.users} -- "$@"); }}',
            f"chown {first}:{first} {place}/dev {place}/dev/shm",
        ]

    def idmap(self, source: str, target: str) -> Lines:
        """The layer, with its owners mapped by that user namespace (mount_setattr(2))."""
        place = self.path(target)
        return [f"mkdir -p {place}", f"bind {self.path(source)} {place} '' {self.users}"]

    def enter_user_namespace(self) -> Lines:
        """From now on, all powers are only over the ids of the user namespace (setns(2)). nsenter,
        below, enters it.
        """
        self.enter = f"/usr/bin/nsenter --user={self.users} "
        return []

    def seccomp(self, program: bytes) -> Lines:
        """From now on, there are only the system calls of a list (seccomp(2)). No shell command
        does this: the init gives the kernel a program that libseccomp has compiled.
        """
        return []

    def stream(self) -> Lines:
        """The connection becomes its standard input and output, as inetd does it (unix(7),
        SCM_RIGHTS). By hand, it is this file's own standard input and output.
        """
        return ["exec <&4 >&5 4<&- 5>&-"]

    def no_new_privileges(self) -> Lines:
        """exec ignores setuid bits from now on (prctl(2), PR_SET_NO_NEW_PRIVS). setpriv, below."""
        self.powers.append("--no-new-privs")
        return []

    def look_after(self) -> Lines:
        """PID 1 has to reap processes that end, so this shell stays, and waits (wait(2)). The real
        init also passes signals on.
        """
        self.run = ""
        return []

    def exec(
        self, path: str, arguments: Lines, environment: list[Assignment], key: str = ""
    ) -> Lines:
        """Its program runs inside the new root, as the owner, with a clean environment and no other
        powers (execve(2)). It is PID 1, if the shell does not stay.
        """
        before = {"HOME": '"$home"', "USER": '"$user"'}
        variables = fill_in(environment, before, quote)
        words = " ".join(f"{name}={word}" for name, word in variables.items())
        return [
            " \\\n    ".join(
                [
                    f"{self.run}env -i {words}",
                    self.enter + " ".join(["/usr/bin/setpriv", self.bounding_set_is, *self.powers]),
                    '/usr/bin/unshare --root=. --wd="$directory" --setuid="$uid"',
                    " ".join(map(quote, [path, *arguments])),
                ]
            )
        ]

    def idle(self, environment: list[Assignment]) -> Lines:
        """PID 1 does nothing, inside the new root, with a clean environment and no other powers
        (execve(2)).
        """
        return self.exec("sleep", ["infinity"], environment)
