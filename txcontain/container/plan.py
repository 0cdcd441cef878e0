"""Makes a container's plan of its spec, its layers and the host's facts.

A plan is a list of steps, and a step is plain data: an op of ``init.Container`` and
its arguments. This module decides, ``init.py`` carries it out, ``explain.py`` says it
in shell. A failure names a step by its number in this list.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

from attrs import asdict, frozen

from txcontain.container.facts import NOWHERE, RUN, TMP, Host, Place
from txcontain.container.small_files import SmallFile
from txcontain.container.spec import SHM_SIZE, Assignment, Spec, Volume

Step = tuple[str, dict[str, Any]]
Plan = list[Step]

INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "init.py")
MONITOR = os.path.join(os.path.dirname(INIT), "monitor.sh")

# capabilities(7), by <linux/capability.h>: what Docker keeps, without MKNOD and NET_RAW.
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "SYS_CHROOT": 18,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}

IMAGE = "disk.img"  # in the folder of an instance or a volume: what its size bounds
SMALL_FILES = "16m"  # of memory for files and secrets, which are at most 128 of 64K
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
# In a private network namespace any user may bind low ports, and ping needs no privilege (ip(7),
# icmp(7)): root of a user namespace has no power over it.
SETTINGS = {
    "/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
    "/proc/sys/net/ipv4/ping_group_range": "0 2147483647",
}
NO_RESOLVER = "# There is no network, and so no name server.\n"
HARMLESS = ["nosuid", "nodev", "noexec"]
NO_POWERS = ["nosuid", "nodev"]
OF_DEVICES = ["nosuid", "noexec"]
# These steps, and all after them, run only at launch: they look at what may have changed since, or
# consume manager resources (an address, a range of ids), or are the launch itself.
LATE = {
    "disk",
    "host_folder",
    "add_copy",
    "ask_for_link",
    "user_namespace_of",
    "look_after",
    "terminal",
    "stream",
    "exec",
    "idle",
}


@frozen
class Link6:
    """A container's place on the bridge: IPv6 addresses."""

    address: str
    length: int  # of the prefix, in bits
    gateway: str


@frozen
class Link:
    """A container's place on the bridge: IPv4 addresses."""

    address: str
    netmask: str
    gateway: str
    v6: Link6 | None = None


@frozen
class VolumePlace:
    """Where a volume is."""

    folder: str
    lock: str  # a file in it, with a name that no other volume ever has
    size: int | None = None  # bytes of its own file system, if it has one

    @property
    def data(self) -> str:
        """Where its data is: a folder, or the file of its own file system."""
        return f"{self.folder}/{'data' if self.size is None else IMAGE}"


@frozen
class Paths:
    """Where the host keeps what one container is made of."""

    base: str  # the base image's highest layer
    mounts: Sequence[str]  # the layer of each mount, in the order of the spec
    private: str  # folder for the writable layers of the instance
    scratch: str  # an existing folder; inside the container, a tmpfs is mounted on it
    host: Host = NOWHERE
    link: Link | None = None  # if the network is private
    ids: int | None = None  # the first of its range of ids, if it has a user namespace
    run: Place = RUN  # where the base image has /run and /tmp
    tmp: Place = TMP
    resolv_conf: str = ""  # the text of the host's; empty if there is none
    mountables: str = ""  # the folders of what files and secrets are copies of
    secrets: str = ""
    volumes: Mapping[str, VolumePlace] = {}  # by name
    host_folders: Sequence[str] = ()  # below which a folder of the host may be mounted
    below: Sequence[str] = ()  # the base image's other layers, the highest first


def step(op: str, /, **arguments: Any) -> Step:
    """A step of a plan: an op of ``init.Container``, with its arguments."""
    return op, arguments


def make_plan(spec: Spec, paths: Paths, hostname: str) -> Plan:
    """The steps that make the container of ``spec``, the last of which runs its script."""
    root, staging = f"{paths.scratch}/root", f"{paths.scratch}/staging"
    capabilities = list(CAPABILITIES.values())
    return [
        *make_base_plan(paths.host, paths.scratch),
        *_network(spec),
        *_user_namespace(paths),
        *_bounded_disk(spec, paths),
        _root(spec, paths, root),
        step("move", source=f"{staging}/proc", target="/proc"),
        step("move", source=f"{staging}/dev", target="/dev"),
        step("mount", target="/sys", fstype="sysfs", flags=["ro", *HARMLESS]),
        *_masks(paths.host, "/sys"),
        *_in_memory(spec, paths),
        *_shared_memory(spec),
        *_mounts(spec, paths),
        *_names(spec, paths, hostname),
        *_small_files(spec, paths),
        step("output", stdout="stdout", stderr="stderr"),  # in its run directory, where it works
        step("propagation", mode="private"),
        step("seal"),
        step("pivot_root", path=root),
        step("hostname", name=hostname),
        *_link(paths),
        *open_files(spec),
        *_enter_user_namespace(paths, capabilities),
        *user_steps(spec.startup_owner, capabilities),
        *_workdir(spec),
        seccomp_steps(paths.host)[1],
        *_init(spec),
        *_terminal(spec),
        *[step("stream")] * spec.per_connection,
        _start(spec),
    ]


@lru_cache(maxsize=1)  # plans begin with the same objects then, which compare fast
def make_base_plan(host: Host, scratch: str) -> Plan:
    """The base plan: the first steps of every container's plan, whatever its config.

    A warm init carries them out in advance. While it waits it follows what the host unmounts:
    otherwise it would keep a disk busy.
    """
    return [
        step("unshare", namespaces=["mount", "cgroup"]),
        step("propagation", mode="slave"),
        step("scratch", path=scratch, size="1m"),
        step("staging", path=f"{scratch}/staging"),
        step("mount", target="/proc", fstype="proc", flags=HARMLESS),
        *[step("read_only_path", path=path) for path in host.read_only],
        *_masks(host, "/proc"),
        *_devices(),
        # Not the host's /dev/null: root in the container could change its mode.
        step("input", path=f"{scratch}/staging/dev/null"),
        step("limits", most=dict(host.limits)),
        step("bounding_set", keep=list(CAPABILITIES.values())),
        seccomp_steps(host)[0],
    ]


def begins_with(plan: Plan, start: Plan) -> bool:
    """Whether these are the first steps of a plan."""
    return plan[: len(start)] == start


def common_start(one: Plan, other: Plan) -> Plan:
    """The first steps that two plans have in common and that can be done before a launch."""
    pairs = zip(one, other, strict=False)
    alike = takewhile(lambda pair: pair[0] == pair[1] and pair[0][0] not in LATE, pairs)
    return [one for one, _ in alike]


def seccomp_steps(host: Host) -> Plan:
    """Load the filter of system calls, in two parts."""
    return [step("seccomp", program=program) for program in host.seccomp]


def _network(spec: Spec) -> Plan:
    if spec.network == "host":
        return []
    asks = [step("ask_for_link")] if spec.network == "private" else []
    settings = [step("setting", path=path, value=value) for path, value in SETTINGS.items()]
    return [step("unshare", namespaces=["net"]), *asks, step("loopback"), *settings]


def _user_namespace(paths: Paths) -> Plan:
    if paths.ids is None:
        return []
    layers = dict.fromkeys([paths.base, *paths.below, *paths.mounts])
    return [
        step("user_namespace_of", first=paths.ids, staging=f"{paths.scratch}/staging"),
        *[step("idmap", source=layer, target=_mapped(paths, layer)) for layer in layers],
    ]


def _mapped(paths: Paths, layer: str) -> str:
    """Where a layer is mounted with its owners mapped, or where it lies if they are not."""
    return layer if paths.ids is None else f"{paths.scratch}/layers/{os.path.basename(layer)}"


def _enter_user_namespace(paths: Paths, capabilities: list[int]) -> Plan:
    if paths.ids is None:
        return []
    return [step("enter_user_namespace"), step("bounding_set", keep=capabilities)]


def _link(paths: Paths) -> Plan:
    if paths.link is None:
        return []
    said = asdict(paths.link)
    v6 = said.pop("v6")
    return [step("link", **said), *([step("link6", **v6)] if v6 else [])]


def _names(spec: Spec, paths: Paths, hostname: str) -> Plan:
    """The files that say who this is and where to look up names.

    What all instances share comes first.
    """
    address = paths.link.address if paths.link else "127.0.1.1"
    contents = {
        "/etc/resolv.conf": _resolv_conf(spec, paths),
        "/etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{address} {hostname}\n",
        "/etc/hostname": f"{hostname}\n",
    }
    return [step("file", path=path, content=text) for path, text in contents.items() if text]


def _small_files(spec: Spec, paths: Paths) -> Plan:
    """The config's files and secrets, in a tmpfs of their own; their content is in no record."""
    if not spec.files and not spec.secrets:
        return []
    folder = f"{paths.scratch}/files"
    own = [_small_file(one, paths) for one in spec.files]
    own += [
        step(
            "add_copy",
            path=one.path,
            mode=one.mode,
            owner=one.owner or spec.startup_owner,
            source=os.path.join(paths.secrets, one.name),
        )
        for one in spec.secrets
    ]
    places = [(op, {**said, "place": f"{folder}/{i}"}) for i, (op, said) in enumerate(own)]
    return [step("scratch", path=folder, size=SMALL_FILES), *places]


def _small_file(file: SmallFile, paths: Paths) -> Step:
    said = {"path": file.path, "mode": file.mode, "owner": file.owner}
    if file.source:
        return step("add_copy", **said, source=os.path.join(paths.mountables, file.source))
    return step("add_file", **said, content=file.content)


def _resolv_conf(spec: Spec, paths: Paths) -> str:
    """resolv.conf(5) of a container; empty if it keeps its image's one."""
    if spec.network == "none":
        return NO_RESOLVER
    if paths.link:  # no search: a name is tried as it stands (resolv.conf(5))
        return f"nameserver {paths.link.gateway}\nsearch .\n"
    return paths.resolv_conf


def _in_memory(spec: Spec, paths: Paths) -> Plan:
    """/run and /tmp, where the image's links lead; if one is below the other, it comes later."""
    folders = [(paths.run, "mode=755", "64m"), (paths.tmp, "mode=1777", str(spec.tmp_size))]
    folders.sort(key=lambda folder: folder[0].path)
    return [one for folder in folders for one in _memory(paths, *folder)]


def _memory(paths: Paths, place: Place, mode: str, size: str) -> Plan:
    """A folder in memory, on top of the image's one if that has files."""
    if not place.path:
        return []
    if not place.holds:
        owned = "" if paths.ids is None else f",uid={paths.ids},gid={paths.ids}"
        data = f"{mode},size={size}{owned}"
        return [step("mount", target=place.path, fstype="tmpfs", flags=NO_POWERS, data=data)]
    memory = f"{paths.scratch}/memory{place.path.replace('/', '-')}"
    layers = place.layers or (paths.base,)
    halves = _halves(paths, layers, f"{memory}/own", place.path)
    over = {"target": place.path, "flags": NO_POWERS, "sealed": False, "volatile": True}
    return [step("scratch", path=memory, size=size), step("overlay", **halves, **over)]


def _bounded_disk(spec: Spec, paths: Paths) -> Plan:
    path = _private(spec, paths)
    if spec.limits.disk is not None:
        return [step("scratch", path=path, size=str(spec.limits.disk))]
    if spec.disk_size is not None:
        image = f"{paths.private}/{IMAGE}"
        return [step("disk", path=path, image=image, size=spec.disk_size, flags=NO_POWERS)]
    return []


def _private(spec: Spec, paths: Paths) -> str:
    """Where the writable layers are: in the instance's folder, or in a file system of their own."""
    is_bounded = spec.limits.disk is not None or spec.disk_size is not None
    return f"{paths.private}/disk" if is_bounded else paths.private


def open_files(spec: Spec) -> Plan:
    """Limit how many files a process may open, if the config does."""
    most = spec.limits.files
    return [] if most is None else [step("limits", most={"nofile": most})]


def _halves(paths: Paths, layers: Sequence[str], private: str, folder: str = "") -> dict[str, Any]:
    """What an overlay of a folder of these layers, the highest first, is made of."""
    lower = [_mapped(paths, layer) + folder for layer in layers]
    return {"lower": lower, "upper": f"{private}-upper", "work": f"{private}-work"}


def _root(spec: Spec, paths: Paths, root: str) -> Step:
    private = _private(spec, paths) if spec.writable_root else paths.scratch
    return step(
        "root_overlay",
        **_halves(paths, [paths.base, *paths.below], f"{private}/base"),
        mountpoint=root,
        flags=NO_POWERS,
        sealed=not spec.writable_root,
        volatile=_volatile(spec),
    )


def _volatile(spec: Spec) -> bool:
    """Whether a power cut may lose what is written.

    An instance that is never restarted will not read it again. Keeping it is expensive: the kernel
    flushes the whole disk whenever an overlay is unmounted. (A disk of its own is small.)
    """
    return spec.restart == "no" and spec.disk_size is None


def _masks(host: Host, top: str) -> Plan:
    return [
        step("mask", path=path, source=host.empty if is_folder else "/dev/null")
        for path, is_folder in host.masked
        if path.startswith(top)
    ]


def _devices() -> Plan:
    terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    shm = f"mode=1777,size={SHM_SIZE}"
    return [
        step("mount", target="/dev", fstype="tmpfs", data="mode=755,size=64k", flags=OF_DEVICES),
        *[
            step("device", path=f"/dev/{name}", major=major, minor=minor)
            for name, (major, minor) in DEVICES.items()
        ],
        *[step("symlink", path=f"/dev/{name}", target=target) for name, target in LINKS.items()],
        step("mount", target="/dev/pts", fstype="devpts", data=terminals, flags=OF_DEVICES),
        step("mount", target="/dev/shm", fstype="tmpfs", data=shm, flags=HARMLESS),
        step("mount", target="/dev/mqueue", fstype="mqueue", flags=HARMLESS),
    ]


def _shared_memory(spec: Spec) -> Plan:
    if spec.shm_size == SHM_SIZE:
        return []
    return [step("resize", path="/dev/shm", size=str(spec.shm_size), flags=HARMLESS)]


def _mounts(spec: Spec, paths: Paths) -> Plan:
    """The mounts and then the volumes, in the order of the spec, but each before those below it."""
    steps = [*_overlays(spec, paths), *(_volume(volume, paths) for volume in spec.volumes)]
    places = [(paths.volumes[name], _disk_of(name, paths)) for name in spec.volume_names]
    disks = [one for place in places for one in volume_disk(*place)]
    return [*disks, *sorted(steps, key=lambda step: step[1]["target"].count("/"))]


def _overlays(spec: Spec, paths: Paths) -> Plan:
    own = _private(spec, paths)
    return [
        step(
            "overlay",
            **_halves(paths, [layer], f"{own if mount.writable else paths.scratch}/{i}"),
            target=mount.target,
            flags=NO_POWERS,
            sealed=not mount.writable,
            volatile=_volatile(spec),
        )
        for i, (mount, layer) in enumerate(zip(spec.mounts, paths.mounts, strict=True))
    ]


def _volume(volume: Volume, paths: Paths) -> Step:
    flags = NO_POWERS if volume.writable else ["ro", *NO_POWERS]
    at = {"target": volume.target, "flags": flags}
    if volume.on_host:
        return step("host_folder", path=volume.source, **at, allowed=list(paths.host_folders))
    return volume_at(paths.volumes[volume.source], _disk_of(volume.source, paths), at)


def _disk_of(volume: str, paths: Paths) -> str:
    return f"{paths.scratch}/volumes/{volume}"


def volume_disk(place: VolumePlace, path: str) -> Plan:
    """Mount a volume's own file system, if it has one, at a path of the host."""
    if place.size is None:
        return []
    lock = os.path.join(place.folder, place.lock)
    said = {"image": place.data, "size": place.size, "lock": lock, "flags": NO_POWERS}
    return [step("disk", path=path, **said)]


def volume_at(place: VolumePlace, disk: str, at: Mapping[str, Any]) -> Step:
    """Mount a volume in the container.

    :param disk: where its own file system is mounted, if it has one
    :param at: the target and the flags
    """
    if place.size is None:
        return step("volume", source=place.folder, lock=place.lock, **at)
    lock = os.path.join(place.folder, place.lock)
    return step("volume", source=disk, lock=lock, **at)


def user_steps(owner: str, capabilities: list[int]) -> Plan:
    """Become a user of the image, who has at most these capabilities."""
    return [
        step("close_descriptors"),
        step("user", owner=owner, capabilities=capabilities),
        step("no_new_privileges"),
    ]


def _workdir(spec: Spec) -> Plan:
    return [] if spec.workdir is None else [step("workdir", path=spec.workdir)]


def _init(spec: Spec) -> Plan:
    return [step("look_after")] if spec.init and spec.program is not None else []


def _terminal(spec: Spec) -> Plan:
    """After the init's fork: a terminal belongs to a session (credentials(7))."""
    return [step("terminal", rows=24, columns=80)] if spec.tty and spec.program is not None else []


def environment_of(spec: Spec) -> list[Assignment]:
    """The variables of a container's programs, beside HOME and USER."""
    return [("PATH", (PATH,)), ("TERM", ("xterm" if spec.tty else "dumb",)), *spec.startup_env]


def _start(spec: Spec) -> Step:
    environment = environment_of(spec)
    if spec.program is None:
        return step("idle", environment=environment)
    key = "command" if spec.command else "startup_script"
    arguments = list(spec.command[1:])
    return step("exec", path=spec.program, arguments=arguments, environment=environment, key=key)
