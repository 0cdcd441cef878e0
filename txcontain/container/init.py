"""PID 1 of a container: connects to the manager, gets a plan, carries it out.

Run by its path as ``python3 -I -S -B init.py SOCKET TOKEN CGROUP_FILE..``; it uses the
standard library only and imports nothing of this project, so that it starts in some
milliseconds and needs nothing installed. ``txcontain/container/plan.py`` makes the plans.

The protocol, on one unix stream socket::

    init                                   manager
     | -- {"token": TOKEN} ----------------> |  and SO_PEERCRED: the pid of PID 1
     | <----------- [(OP, {ARG: ..}), ..] -- |  the base plan: what all containers share
     | -- {"ready": STEPS} ----------------> |
     |            ...waits, warm...          |
     | <----------- [(OP, {ARG: ..}), ..] -- |  the rest of a plan (end-of-file: not wanted)
     | -- {"wants": "link"} ---------------> |  it has a network namespace now (private ones)
     | <-------------------------- newline -- |  and a link to the bridge in it: eth0
     | -- {"wants": "step"} ---------------> |  it waits before a step, if a person looks at each
     | <------------------------------ dot -- |  (the newline for a link may come before this)
     | -- {"done": [SECONDS, ..]} ---------> |  every step but the exec is done
     | -- end-of-file ---------------------> |  the exec worked: the socket closes on it
    or, at any time
     | -- {"failed": {"step": N, ..}} -----> |  step N failed, and why

The init speaks in lines of JSON. A plan comes marshalled, after its length (4 bytes,
big-endian). That works because both ends are the same Python; to read JSON would take a
third of the time from spawn to exec. If the program is to serve one connection, the
descriptor of that comes with the plan (SCM_RIGHTS).

The last step of a plan is its ``exec`` (or ``idle``). Any failure ends the init, and with it
the namespaces and all mounts in them: there is nothing to undo.

A command in a container that runs already has a plan too, carried out by this program in the same
way; only that it enters namespaces instead of making them (``container/exec_plan.py``).
"""

from __future__ import annotations

# Below os, stat, ctypes, signal, socket and json: importing those would take a third of the start.
import _ctypes
import _signal
import _socket
import _stat as stat
import _struct as struct
import errno
import marshal
import posix as os
import sys
import time
from _json import encode_basestring_ascii as quoted

TYPE_CHECKING = False  # importing typing would cost a millisecond of every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")
    Strings = list[str]
    # A variable's name, and its value in parts: text, NAME, text, .., text.
    Assignments = list[tuple[str, Strings]]
    Plan = list[tuple[str, dict[str, Any]]]

# <linux/mount.h>, <linux/sched.h>, <linux/prctl.h>, <linux/openat2.h>
# The first four have the same numbers in mount_setattr(2).
MOUNT_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "remount": 32, "noatime": 1024}
MOUNT_FLAGS |= {"bind": 4096, "move": 8192, "rec": 16384, "private": 1 << 18, "slave": 1 << 19}
CLONE_NEWUSER = 0x10000000
NAMESPACES = {"mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000}
NAMESPACES |= {"user": CLONE_NEWUSER, "pid": 0x20000000, "net": 0x40000000}
PR_SET_DUMPABLE, PR_SET_NAME = 4, 15
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
MNT_DETACH, SECCOMP_MODE_FILTER, LOCK_EX, LOCK_NB = 2, 2, 2, 4
# <linux/loop.h>; the flags: AUTOCLEAR, DIRECT_IO
LOOP_CTL_GET_FREE, LOOP_CONFIGURE, LOOP_GET_STATUS64, LOOP_FLAGS = 0x4C82, 0x4C0A, 0x4C05, 4 | 16
MKE2FS = "/usr/sbin/mke2fs", "/sbin/mke2fs"
# A discard would give back the bytes that were reserved. They are zeros: none need be written.
FORMAT = "-q -F -t ext4 -m 0 -E nodiscard,lazy_itable_init=1,lazy_journal_init=1".split()
DISK_DATA = "errors=remount-ro,noinit_itable"
FREE_WITHIN, MOST_TRIES = 5.0, 100  # seconds until a disk is mounted no more; to get a loop device
# <asm-generic/resource.h>
RLIMITS = {"cpu": 0, "fsize": 1, "nofile": 7, "memlock": 8, "as": 9}
RLIMITS |= {"sigpending": 11, "msgqueue": 12}
SIOCADDRT, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8914, 0x8916, 0x891C
# <linux/netlink.h>, <linux/if_addr.h>, <linux/rtnetlink.h>
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE = 0x1, 0x4, 0x400
RTM_NEWADDR, RTM_NEWROUTE, IFA_LOCAL, IFA_F_NODAD = 20, 24, 2, 2
RTA_OIF, RTA_GATEWAY, RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 4, 5, 254, 4, 1
IFF_UP, RTF_UP, RTF_GATEWAY = 1, 1, 2  # <linux/if.h>, <linux/route.h>
IDS = 65536  # user and group ids that a user namespace has
OPEN_TREE_CLONE, MOUNT_ATTR_IDMAP = 1, 0x00100000
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_SYMLINKS = 0x04, 0x10
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x08, 0x10
# <asm-generic/ioctls.h>, <linux/major.h>
TIOCSCTTY, TIOCSWINSZ, TIOCSPTLCK, TIOCGPTPEER = 0x540E, 0x5414, 0x40045431, 0x5441
MULTIPLEXER = os.makedev(5, 2)  # /dev/pts/ptmx
# The same numbers on every architecture.
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_OPENAT2, SYS_MOUNT_SETATTR = 428, 429, 437, 442
SYS_CLOSE_RANGE = 436
OPENAT2_TRIES = 128
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "armv7l": 218, "s390x": 217}
CAPABILITY_VERSION_3, MOST_CAPABILITIES = 0x20080522, 64  # <linux/capability.h>
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
KERNELS_OWN = ("proc", "sys", "dev")  # folders of a container's root
LIBCS_OWN = (32, 33)  # signals that glibc keeps to itself
COPIED = ("user.", "security.")  # extended attributes that a copy has too (xattr(7))
KILL = _signal.SIGRTMAX  # asks who looks after a child to kill it: SIGKILL can't be passed on
LAST_OPS = ("exec", "idle")  # after them the process is another program
MOST_OPTIONS = 4096  # bytes for the options of a mount, with a NUL: a page (mount(2))
LONGEST_FILE = 1 << 20  # bytes of an /etc/passwd or /etc/group
LONGEST_COPY = 1 << 16  # bytes of a secret, or of another small file of the host
LONGEST_ENVIRONMENT = 32_000  # characters: as UTF-8, execve(2) takes that as a single string
INSIDE = -1  # in place of a descriptor of the image's root, once that is the root
LARGEST_ID = (1 << 32) - 2  # of a user or group
# What functions of libc take, beside int and bytes, and return: int, long, char *.
Int, Long, Pointer = (type(c, (_ctypes._SimpleCData,), {"_type_": c}) for c in "iLz")
FLAGS = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
Function = type("Function", (_ctypes.CFuncPtr,), {"_flags_": FLAGS, "_restype_": Int})
LIBC = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # the stub knows no None


class StepError(Exception):
    """A step failed: the call, its errno (0 if none), the path, the cause and a hint."""

    def __init__(
        self, call: str, number: int | None, path: str = "", cause: str = "", hint: str = ""
    ) -> None:
        super().__init__(call, number, path, cause, hint)
        self.call, self.number, self.path = call, number or 0, path
        self.cause, self.hint = cause, hint


def named(function: Callable[P, T]) -> Callable[P, T]:
    """The function; its OSError knows the name of the system call, which is the function's."""

    def call(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return function(*arguments, **options)
        except OSError as error:
            error.call = function.__name__  # type: ignore[attr-defined]  # only we set it
            raise

    return call


readlink = named(os.readlink)


class Kernel:
    """Every privileged call that a plan makes goes through here.

    Each raises OSError. A test puts a recorder in its place.
    """

    def _call(self, name: str, *arguments: object, number: int | None = None) -> int:
        """Make a system call, by libc's function or (as syscall(2)) by its number."""
        function = Function(_ctypes.dlsym(LIBC, name if number is None else "syscall"))
        result: int = function(*(() if number is None else (number,)), *arguments)
        if result == -1:
            error = OSError(_ctypes.get_errno(), os.strerror(_ctypes.get_errno()))
            error.call = name  # type: ignore[attr-defined]  # only we set it
            raise error
        return result

    def mount(
        self, source: str | None, target: str, fstype: str | None, flags: int, data: str
    ) -> None:
        """mount(2)."""
        texts = [None if text is None else encoded(text) for text in (source, target, fstype)]
        self._call("mount", *texts, Long(flags), encoded(data))

    def pivot_root(self, root: str) -> None:
        """pivot_root(2), with the old root stacked below the new one and then detached."""
        self._leave_python()
        os.chdir(root)
        self._call("pivot_root", b".", b".", number=PIVOT_ROOT[os.uname().machine])
        self._call("umount2", b".", MNT_DETACH)
        os.chdir("/")

    def _leave_python(self) -> None:
        """Import nothing from here on, and read no source to show an error.

        Python's own files will be gone, but an image may have others in their places.
        """
        sys.meta_path.clear()
        sys.tracebacklimit = 0

    def join(self, pid: int, start_time: int, kinds: int) -> None:
        """setns(2): enter all namespaces of these kinds that a process has, at once.

        The process is told from a later one with its pid by its start time (proc_pid_stat(5)). The
        mount namespace's root becomes ours; the pid namespace is only that of children.
        """
        process = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # from the third one on
            if int(fields[19]) != start_time:
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
            self._leave_python()
            self._call("setns", process, kinds)
        finally:
            os.close(process)

    def unshare(self, flags: int) -> None:
        """unshare(2)."""
        self._call("unshare", flags)

    def make_user_namespace(self, first: int, proc: str) -> int:
        """A descriptor of a new user namespace, whose id 0 is the id ``first`` outside.

        Only a child can make one that we are not in ourselves (user_namespaces(7)). The kernel
        charges its maker for what is used in it, up to a limit for each user. So the maker is that
        id, which nobody else has, and not root.
        """
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, bytes([self._make_user_namespace_as(first)]))
            _signal.pause()
        try:
            number = os.read(told, 1)[0]
            if number:
                raise OSError(number, os.strerror(number))
            for table in ("uid_map", "gid_map"):
                with open(f"{proc}/{child}/{table}", "w") as file:
                    file.write(f"0 {first} {IDS}")
            return os.open(f"{proc}/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.kill(child, _signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(told)
            os.close(tell)

    def _make_user_namespace_as(self, user: int) -> int:
        """Become another user in a new user namespace, with all powers; returns 0 or an errno."""
        try:
            self.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
            os.seteuid(user)
            self.unshare(CLONE_NEWUSER)
        except OSError as error:
            return error.errno or errno.EPERM
        return 0

    def enter_user_namespace(self, descriptor: int) -> None:
        """setns(2)."""
        self._call("setns", descriptor, CLONE_NEWUSER)

    def bind(self, source: str, target: str, attributes: int, user_namespace: int = 0) -> None:
        """Mount ``source``, with all mounts below it, at ``target`` as well.

        At no time is it there without the attributes: flags of mount(2), or MOUNT_ATTR_IDMAP, which
        maps the owners of files by a user namespace. open_tree(2), mount_setattr(2), move_mount(2).
        """
        tree = self.copy_mounts(source, attributes, user_namespace)
        try:
            self.move_mounts(tree, target)
        finally:
            os.close(tree)

    def copy_mounts(self, source: str, attributes: int, user_namespace: int = 0) -> int:
        """The same in two halves: a descriptor of the mount, which is nowhere yet."""
        path, flags = encoded(source), OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
        tree = self._call("open_tree", AT_FDCWD, path, flags, number=SYS_OPEN_TREE)
        try:
            wanted = struct.pack("QQQQ", attributes, 0, 0, user_namespace)
            to = (tree, b"", AT_EMPTY_PATH | AT_RECURSIVE, wanted, len(wanted))
            self._call("mount_setattr", *to, number=SYS_MOUNT_SETATTR)
        except OSError:
            os.close(tree)
            raise
        return tree

    def move_mounts(self, tree: int, target: str) -> None:
        """And now it is at ``target``."""
        flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS
        move = (tree, b"", AT_FDCWD, encoded(target), flags)
        self._call("move_mount", *move, number=SYS_MOVE_MOUNT)

    def open_beneath(self, root: int, path: str, flags: int, resolve: int = 0) -> int:
        """openat2(2): a descriptor of ``path``, which can't lead out of ``root``."""
        return self._openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve)

    def open_strictly(self, folder: int, path: str, flags: int) -> int:
        """openat2(2): the same, but a path that leads out fails with EXDEV."""
        return self._openat2(folder, path, flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)

    def open_inside(self, path: str, flags: int) -> int:
        """openat2(2) of a path in the image, after pivot_root.

        No magic link is followed (proc(5)): one that stands for a descriptor leads out of any root.
        """
        return self._openat2(AT_FDCWD, path, flags, RESOLVE_NO_MAGICLINKS)

    def _openat2(self, folder: int, path: str, flags: int, resolve: int) -> int:
        """Fails with EAGAIN if anyone on this machine mounts or renames while it goes up by "..".

        So it is tried again, but not for ever: someone may do that on purpose.
        """
        how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)
        order = folder, encoded(path), how, len(how)
        for _ in range(OPENAT2_TRIES - 1):
            try:
                return self._call("openat2", *order, number=SYS_OPENAT2)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
        return self._call("openat2", *order, number=SYS_OPENAT2)

    def place(self, root: int, descriptor: int) -> str:
        """The path of a descriptor below ``root``, without symbolic links (proc(5))."""
        top, path = (readlink(f"/proc/self/fd/{each}") for each in (root, descriptor))
        return path[len(top) :] or "/"

    def close_from(self, first: int) -> None:
        """close_range(2): close all descriptors from this number on."""
        self._call("close_range", first, -1, 0, number=SYS_CLOSE_RANGE)

    def prctl(self, option: int, argument: int) -> None:
        """prctl(2)."""
        self._call("prctl", option, Long(argument), 0, 0, 0)

    def limit_resource(self, resource: int, most: int) -> None:
        """prlimit(2), for this process and those below it."""
        self._call("prlimit", 0, resource, struct.pack("QQ", most, most), None)

    def load_filter(self, program: bytes) -> None:
        """prctl(2), PR_SET_SECCOMP: from now on, only the calls that ``program`` allows."""
        header = struct.pack("H0P", len(program) // 8) + bytes(memoryview(Pointer(program)))
        self._call("prctl", PR_SET_SECCOMP, Long(SECCOMP_MODE_FILTER), header)

    def configure_network(self, request: int, argument: bytes) -> None:
        """ioctl(2) on any IPv4 socket of this network namespace (netdevice(7))."""
        endpoint = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        try:
            self._call("ioctl", endpoint.fileno(), Long(request), argument)
        finally:
            endpoint.close()

    if_nametoindex = staticmethod(named(_socket.if_nametoindex))

    def configure_routes(self, kind: int, body: bytes) -> None:
        """Make an address or a route in this network namespace (rtnetlink(7))."""
        flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
        endpoint = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW)
        try:
            endpoint.send(struct.pack("IHHII", 16 + len(body), kind, flags, 0, 0) + body)
            number = -struct.unpack_from("i", endpoint.recv(4096), 16)[0]  # struct nlmsgerr
        finally:
            endpoint.close()
        if number:
            error = OSError(number, os.strerror(number))
            error.call = "rtnetlink"  # type: ignore[attr-defined]  # only we set it
            raise error

    def capset(self, mask: int) -> None:
        """capset(2): ``mask`` becomes the permitted and effective set; nothing is inheritable."""
        header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        low, high = mask & 0xFFFFFFFF, mask >> 32
        self._call("capset", header, struct.pack("IIIIII", low, low, 0, high, high, 0))

    def fork(self) -> int:
        """fork(2): 0 in the child, which leads a new session. The parent blocks all signals."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        child = os.fork()
        if child == 0:
            os.setsid()
            _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        return child

    def fill(self, folder: str, lock: int, source: int, owner: int) -> None:
        """Make ``folder``/data, if it is missing, as a copy of ``source``.

        It is copied beside its place and then renamed: half a copy is never taken for a whole one.
        If several want to fill it, one does, and the others wait for the lock (flock(2)).

        :param owner: the id that root of the container has in ``source``
        """
        self._call("flock", lock, LOCK_EX)
        if stat.S_ISDIR(mode_of(f"{folder}/data")):
            return
        left = [f"{folder}/{name}" for name in os.listdir(folder) if name.startswith("filling-")]
        if left:  # by a fill that was cut short
            os.waitpid(os.posix_spawn("/bin/rm", ["rm", "-rf", *left], {}), 0)
        beside = f"{folder}/filling-{os.urandom(8).hex()}"
        os.mkdir(beside, 0o700)
        copies = [os.open(path, FOLDER) for path in (f"/proc/self/fd/{source}/.", beside)]
        try:
            copy_folder(copies[0], copies[1], owner)
            self._call("syncfs", copies[1])
        finally:
            for descriptor in copies:
                os.close(descriptor)
        os.rename(beside, f"{folder}/data")

    def make_disk(self, image: str, size: int, lock: int = -1) -> None:
        """Make a file with a file system of this size (ext4), unless it is there.

        All of its bytes are reserved now: what is written to it later always has room.
        """
        if lock >= 0:  # others may want to make it now
            self._call("flock", lock, LOCK_EX)
        if mode_of(image):
            return
        beside = f"{image}.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(beside, flags, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
        program = next(filter(mode_of, MKE2FS), MKE2FS[0])
        child = os.posix_spawn(program, ["mke2fs", *FORMAT, beside], {})
        if os.waitpid(child, 0)[1]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), beside)
        os.rename(beside, image)

    def loop(self, image: str, shared: bool = False) -> int:
        """A descriptor of a block device that shows a file (loop(4)) until nothing uses it.

        Two that show it at once would destroy its file system. So it is locked (flock(2)): the lock
        is that of the open file, which the device has as long as it is mounted anywhere, even if
        all who knew of it were killed. All who share it get one device, and so one file system.
        """
        file = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if shared and (device := self._shown(file)) is not None:
                return device
            self._lock(file, time.monotonic() + FREE_WITHIN)
            return self._show(file)
        finally:
            os.close(file)

    def _shown(self, file: int) -> int | None:
        """The device that shows a file: it stays that as long as it is open here."""
        status, told = os.fstat(file), bytes(232)  # a struct loop_info64, which the kernel fills in
        for name in [name for name in os.listdir("/sys/block") if name.startswith("loop")]:
            try:
                with open(f"/dev/{name}", "rb", buffering=0) as device:
                    self._call("ioctl", device.fileno(), Long(LOOP_GET_STATUS64), told)
                    if struct.unpack_from("=QQ", told) == (status.st_dev, status.st_ino):
                        return os.dup(device.fileno())
            except OSError:  # it shows nothing, or is gone
                continue
        return None

    def _lock(self, file: int, deadline: float) -> None:
        while True:
            try:
                self._call("flock", file, LOCK_EX | LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    def _show(self, file: int) -> int:
        config = struct.pack("=II52xI240x", file, 0, LOOP_FLAGS)  # struct loop_config
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for left in reversed(range(MOST_TRIES)):
                number = self._call("ioctl", control, Long(LOOP_CTL_GET_FREE))
                device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    self._call("ioctl", device, Long(LOOP_CONFIGURE), config)
                    return device
                except OSError as error:  # EBUSY: another process was faster
                    os.close(device)
                    if error.errno != errno.EBUSY or not left:
                        raise
        finally:
            os.close(control)
        raise AssertionError  # the last try returns or raises

    def rename(self, name: bytes) -> None:
        """Give this process another name and command line: its own ones show paths of the host.

        prctl(2), PR_SET_NAME; proc_pid_stat(5) has the addresses of the arguments.
        """
        self._call("prctl", PR_SET_NAME, name)
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # from the third one on
        start, end = int(fields[45]), int(fields[46])
        shown = name[: end - start - 1].ljust(end - start, b"\0")
        Function(_ctypes.dlsym(LIBC, "memcpy"))(Long(start), shown, Long(len(shown)))

    def look_after(self, child: int) -> int:
        """Pass signals on to a child and reap all that end; returns its status, like a shell."""
        while True:
            number = _signal.sigwait(_signal.valid_signals())
            if number != _signal.SIGCHLD:
                os.kill(child, number)
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    status = os.waitstatus_to_exitcode(ended[1])
                    return status if status >= 0 else 128 - status

    def stand_for(self, child: int) -> None:
        """Pass signals on to a child and all of its process group, and end as the child does.

        KILL is passed on as SIGKILL.
        """
        while True:
            number = _signal.sigwait(_signal.valid_signals())
            if number != _signal.SIGCHLD:
                signal = _signal.SIGKILL if number == KILL else number
                try:
                    os.killpg(child, signal)
                except ProcessLookupError:  # it does not lead its group yet
                    os.kill(child, signal)
            elif (ended := os.waitpid(child, os.WNOHANG))[0]:
                break
        status = os.waitstatus_to_exitcode(ended[1])
        if status < 0:
            number = -status
            if number != _signal.SIGKILL:
                _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [number])
            os.kill(os.getpid(), number)
        os._exit(status)

    def open_terminal(self) -> int:
        """The master of a new terminal of the container (pty(7)).

        Only the kernel's own device is opened, whatever the container has made of its /dev.
        """
        resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
        place = self._openat2(AT_FDCWD, "/dev/pts/ptmx", os.O_PATH, resolve)
        try:
            status = os.fstat(place)
            if not stat.S_ISCHR(status.st_mode) or status.st_rdev != MULTIPLEXER:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            return os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        finally:
            os.close(place)

    def open_other_end(self, master: int) -> int:
        """The other end of a terminal, which is not looked up by a path (ioctl_tty(2))."""
        self._call("ioctl", master, Long(TIOCSPTLCK), struct.pack("i", 0))
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        return self._call("ioctl", master, Long(TIOCGPTPEER), Long(flags))

    def control(self, terminal: int, rows: int, columns: int) -> None:
        """Make a terminal, of this size, the one of this session (ioctl_tty(2))."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        self._call("ioctl", terminal, Long(TIOCSWINSZ), size)
        self._call("ioctl", terminal, Long(TIOCSCTTY), Long(0))

    # Python has these already; they are here so that a recorder sees them too.
    mkdir = staticmethod(named(os.mkdir))
    mknod = staticmethod(named(os.mknod))
    symlink = staticmethod(named(os.symlink))
    readlink = staticmethod(named(os.readlink))
    unlink = staticmethod(named(os.unlink))
    open = staticmethod(named(os.open))
    read = staticmethod(named(os.read))
    write = staticmethod(named(os.write))
    dup2 = staticmethod(named(os.dup2))
    close = staticmethod(named(os.close))
    stat = staticmethod(named(os.stat))
    chown = staticmethod(named(os.chown))
    chmod = staticmethod(named(os.chmod))
    sethostname = staticmethod(named(_socket.sethostname))
    setgroups = staticmethod(named(os.setgroups))
    setgid = staticmethod(named(os.setgid))
    setuid = staticmethod(named(os.setuid))
    chdir = staticmethod(named(os.chdir))
    execve = staticmethod(named(os.execve))


class Container:
    """Carries out steps: one method an op, called with the step's arguments."""

    def __init__(self, kernel: Kernel, connection: _socket.socket) -> None:
        self.kernel = kernel
        self.connection = connection  # to the manager
        self.root = -1  # a descriptor of the new root, until it is the root
        self.user_namespace = -1  # a descriptor of the one to enter last, if there is one
        self.owner = 0  # the id outside of root in the container
        self.to_seal: list[tuple[int, Strings]] = []  # mounts to make read-only, and their flags
        self.lent: list[tuple[str, int]] = []  # files of the host, each with a mount of it
        self.environment: dict[str, str] = {}
        self.has_link = False  # to the private network, and the manager has said so
        self.passed = -1  # a descriptor that came with the plan

    # -- paths of the container ------------------------------------------------

    def _directory(self, path: str, resolve: int = 0) -> int:
        """A descriptor of a directory of the container, made if it is missing.

        The path may lead through symbolic links of the image, if ``resolve`` does not forbid that,
        but not into the kernel's own file systems.
        """
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            descriptor = self.kernel.open_beneath(self.root, path, flags, resolve)
            if not resolve & RESOLVE_NO_SYMLINKS:
                self._refuse_kernels_own(path, descriptor)
            return descriptor
        except FileNotFoundError:
            if path == "/":
                raise
        above, name = split(path)
        parent = self._directory(above, resolve)
        try:
            self.kernel.mkdir(name, 0o755, dir_fd=parent)
            self._own(name, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:  # it is a link to nowhere: make its target
            to = self.kernel.readlink(name, dir_fd=parent).rstrip("/")
            return self._directory(to if to.startswith("/") else f"{above}/{to}", resolve)
        finally:
            self.kernel.close(parent)
        return self.kernel.open_beneath(self.root, path, flags, resolve)

    def _refuse_kernels_own(self, path: str, descriptor: int) -> None:
        """Raise StepError if ``path`` has led into one of the kernel's file systems."""
        reached = self.kernel.place(self.root, descriptor)
        if reached.split("/")[1] in KERNELS_OWN:
            raise led_astray(path, reached)

    def _hold_root(self, path: str) -> None:
        """From now on, paths are resolved in the root ``path``."""
        if self.root >= 0:
            self.kernel.close(self.root)
        self.root = self.kernel.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _own(self, path: str | int, **options: Any) -> None:
        """Give a file to root of the container, if that is not the root out here."""
        if self.owner:
            self.kernel.chown(path, self.owner, self.owner, **options)

    def _mount_on(
        self, place: int, source: str | None, fstype: str | None, flags: Strings, data: str = ""
    ) -> None:
        target = f"/proc/self/fd/{place}"
        self.kernel.mount(source, target, fstype, bits(flags), data)

    # -- ops: preparing --------------------------------------------------------

    def input(self, path: str) -> None:
        """Open the container's own standard input, on a path of the host."""
        self._redirect(0, path, os.O_RDONLY)

    def output(self, stdout: str, stderr: str = "") -> None:
        """Open the container's own standard output and error, on paths of the host.

        They may be relative to its run directory, where the init works until it has its root.
        Without a path for it, standard error stays as it is.
        """
        for number, path in ((1, stdout), (2, stderr)):
            if path:
                self._redirect(number, path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def output_as_error(self) -> None:
        """Send standard output to where standard error goes."""
        self.kernel.dup2(2, 1)

    def _redirect(self, number: int, path: str, flags: int) -> None:
        opened = self.kernel.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self.kernel.dup2(opened, number)
        self.kernel.close(opened)

    def unshare(self, namespaces: Strings) -> None:
        """Leave the manager's namespaces of these kinds for new ones."""
        self.kernel.unshare(sum(NAMESPACES[name] for name in namespaces))

    def user_namespace_of(self, first: int, staging: str) -> None:
        """Make the user namespace to enter later; its root becomes the owner of what is there."""
        self.user_namespace = self.kernel.make_user_namespace(first, f"{staging}/proc")
        self.owner = first
        for path in (f"{staging}/dev", f"{staging}/dev/shm"):
            self._own(path)

    def idmap(self, source: str, target: str) -> None:
        """Mount a layer at ``target``, with its owners mapped by the user namespace."""
        self._make(target)
        self.kernel.bind(source, target, MOUNT_ATTR_IDMAP, self.user_namespace)

    def user_namespace_at(self, pid: int) -> None:
        """Hold the user namespace of a process, to enter it later."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        self.user_namespace = self.kernel.open(f"/proc/{pid}/ns/user", flags)

    def enter_user_namespace(self) -> None:
        """Enter the user namespace: from now on, all powers are only over its ids."""
        self.kernel.enter_user_namespace(self.user_namespace)
        self.kernel.close(self.user_namespace)
        self.user_namespace = -1

    def join_cgroups(self, files: Strings) -> None:
        """Enter cgroups, each by a file of the host's."""
        for path in files:
            descriptor = self.kernel.open(path, os.O_WRONLY | os.O_CLOEXEC)
            self.kernel.write(descriptor, b"0")
            self.kernel.close(descriptor)

    def join(self, pid: int, start_time: int, namespaces: Strings) -> None:
        """Enter the namespaces of a container's PID 1, and with them its root."""
        self.kernel.join(pid, start_time, sum(NAMESPACES[name] for name in namespaces))

    def propagation(self, mode: str) -> None:
        """Keep what is mounted here from the host; a slave still follows the host's mounts."""
        self.kernel.mount(None, "/", None, bits(["rec", mode]), "")

    def scratch(self, path: str, size: str) -> None:
        """Mount a tmpfs that only this container can see."""
        self._make(path)
        self.kernel.mount("scratch", path, "tmpfs", bits(["nosuid", "nodev"]), f"size={size}")

    def disk(self, path: str, image: str, size: int, flags: Strings, lock: str = "") -> None:
        """Mount a file system in a file, which bounds what fits; with a lock, it is shared."""
        self._make(path)
        held = self._hold(lock) if lock else -1
        try:
            self.kernel.make_disk(image, size, held)
            device = self.kernel.loop(image, bool(lock))
        except OSError as error:
            call = getattr(error, "call", "open")
            raise StepError(call, error.errno, image, *why_no_disk(error)) from error
        self.kernel.mount(f"/proc/self/fd/{device}", path, "ext4", bits(flags), DISK_DATA)
        for descriptor in (device, held) if lock else (device,):
            self.kernel.close(descriptor)

    def lend(self, files: Strings) -> None:
        """Hold programs of the host and what they need, to have them in another root."""
        attributes = bits(["ro", "nosuid", "nodev"])
        for path in files:
            self.lent.append((path, self.kernel.copy_mounts(path, attributes)))

    def borrow(self, target: str) -> None:
        """Have them below a folder of this root. No process of the container is in this mount
        namespace, so none sees them.
        """
        flags = ["nosuid", "nodev"]
        self.kernel.mount("lent", target, "tmpfs", bits(flags), "size=1m,mode=755")
        for path, tree in self.lent:
            place = target + path
            self._make(split(place)[0])
            self.kernel.mknod(place, stat.S_IFREG | 0o755)
            self.kernel.move_mounts(tree, place)
            self.kernel.close(tree)
        self.lent = []
        self.kernel.mount(None, target, None, bits(["remount", "bind", "ro", *flags]), "")

    # -- ops: the file tree ----------------------------------------------------

    def staging(self, path: str) -> None:
        """Make a folder to mount in, until there is a new root to move those mounts to."""
        self.kernel.mkdir(path, 0o755)
        self._hold_root(path)

    def move(self, source: str, target: str) -> None:
        """Move a mount, and those below it, from ``source`` to the new root's ``target``."""
        descriptor = self._directory(target, RESOLVE_NO_SYMLINKS)
        self._mount_on(descriptor, source, None, ["move"])
        self.kernel.close(descriptor)

    def root_overlay(self, mountpoint: str, flags: Strings, sealed: bool, **layers: Any) -> None:
        """Mount the base image, below a writable layer, as the new root."""
        self.kernel.mkdir(mountpoint, 0o755)
        self._overlay(mountpoint, flags, **layers)
        self._hold_root(mountpoint)
        if sealed:
            self._seal_later("/", flags)

    def root_folder(self, mountpoint: str, source: str, flags: Strings) -> None:
        """Mount a folder of the host as the new root."""
        self.kernel.mkdir(mountpoint, 0o755)
        self.kernel.mount(source, mountpoint, None, bits(["bind"]), "")
        self.kernel.mount(None, mountpoint, None, bits(["remount", "bind", *flags]), "")
        self._hold_root(mountpoint)

    def overlay(self, target: str, flags: Strings, sealed: bool, **layers: Any) -> None:
        """Mount a tarball's layer, below a writable layer, at ``target``."""
        descriptor, place = self._mount_point(target)
        self._overlay(f"/proc/self/fd/{descriptor}", flags, **layers)
        self.kernel.close(descriptor)
        if sealed:  # by its real place: the target may lead elsewhere by now
            self._seal_later(place, flags)

    def _mount_point(self, target: str) -> tuple[int, str]:
        """A descriptor of a directory to mount something on, and its real place: not the root."""
        descriptor = self._directory(target)
        place = self.kernel.place(self.root, descriptor)
        if place == "/":
            raise led_astray(target, place)
        return descriptor, place

    def volume(self, source: str, lock: str, target: str, flags: Strings) -> None:
        """Mount a volume at ``target``. At the first use, what is there fills it.

        The lock is a file of the volume with a name that no other volume ever has.
        """
        descriptor, _ = self._mount_point(target)
        held = self._hold(lock if lock.startswith("/") else f"{source}/{lock}")
        self.kernel.fill(source, held, descriptor, self.owner)
        self.kernel.close(held)
        self._bind_owned(f"{source}/data", descriptor, flags)

    def _hold(self, lock: str) -> int:
        try:
            return self.kernel.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            path, cause = split(lock)[0], "the volume was removed"
            raise StepError("open", error.errno, path, cause, "launch it again") from error

    def host_folder(self, path: str, target: str, flags: Strings, allowed: Strings) -> None:
        """Mount a folder of the host, which must lie below one that is allowed, at ``target``."""
        descriptor, _ = self._mount_point(target)
        known = f"the manager allows those below {', '.join(allowed)} (--host-folders)"
        top = next((top for top in allowed if f"{path}/".startswith(f"{top}/")), None)
        if top is None:
            cause = "it is no folder that may be mounted"
            known = known if allowed else "the manager allows none: start it with --host-folders"
            raise StepError("openat2", errno.EXDEV, path, cause, known)
        above = self.kernel.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            below = path[len(top) :].strip("/") or "."
            source = self.kernel.open_strictly(above, below, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            call = getattr(error, "call", "openat2")
            if error.errno == errno.EXDEV:
                cause = f"a symbolic link leads out of {top}"
                raise StepError(call, error.errno, path, cause, known) from error
            hint = "make it, or correct the config"
            cause = "it is no folder of the host"
            raise StepError(call, error.errno, path, cause, hint) from error
        finally:
            self.kernel.close(above)
        self._bind_owned(f"/proc/self/fd/{source}", descriptor, flags)
        self.kernel.close(source)

    def _bind_owned(self, source: str, descriptor: int, flags: Strings) -> None:
        """Mount ``source``; in a user namespace its owners are right as they are seen from there.

        Raises StepError if the file system can't do that.
        """
        mapped = MOUNT_ATTR_IDMAP if self.owner else 0
        target = f"/proc/self/fd/{descriptor}"
        try:
            self.kernel.bind(source, target, bits(flags) | mapped, max(self.user_namespace, 0))
        except OSError as error:
            if not (mapped and error.errno == errno.EINVAL):
                raise
            cause = "this kernel can't map the owners of files on its file system"
            hint = 'have it on ext4, XFS or Btrfs, or leave "user_namespace" out'
            raise StepError("mount_setattr", error.errno, source, cause, hint) from error
        self.kernel.close(descriptor)

    def _seal_later(self, target: str, flags: Strings) -> None:
        descriptor = self.kernel.open_beneath(self.root, target, os.O_PATH, RESOLVE_NO_SYMLINKS)
        self.to_seal.append((descriptor, flags))

    def seal(self) -> None:
        """Make every READ mount read-only, now that all mount points below them exist."""
        for descriptor, flags in self.to_seal:
            self._mount_on(descriptor, None, None, ["remount", "bind", "ro", *flags])
            self.kernel.close(descriptor)
        self.to_seal = []

    def _overlay(
        self,
        target: str,
        flags: Strings,
        lower: Strings,  # the highest one first
        upper: str,
        work: str,
        volatile: bool,
    ) -> None:
        for path in (upper, work):
            self._make(path)
        like = self.kernel.stat(lower[0])  # the top folder's owner and mode are the upper one's
        self.kernel.chown(upper, like.st_uid, like.st_gid)
        self.kernel.chmod(upper, stat.S_IMODE(like.st_mode))
        own = f",upperdir={escaped(upper)},workdir={escaped(work)}" + ",volatile" * volatile
        lowerdir = f"lowerdir={':'.join(map(escaped, lower))}"
        if len(encoded(lowerdir + own)) < MOST_OPTIONS:
            self.kernel.mount("overlay", target, "overlay", bits(flags), lowerdir + own)
        else:
            self._mount_many(target, lower, flags, own)

    def _mount_many(self, target: str, lower: Strings, flags: Strings, own: str) -> None:
        """Mount an overlay of more folders than there is room for the names of.

        Each has the number of a descriptor as its name, in the folder where these are.
        """
        here = self.kernel.open(".", os.O_PATH | os.O_CLOEXEC)
        opened = [self.kernel.open(path, os.O_PATH | os.O_CLOEXEC) for path in lower]
        self.kernel.chdir("/proc/self/fd")
        data = f"lowerdir={':'.join(map(str, opened))}{own}"
        self.kernel.mount("overlay", target, "overlay", bits(flags), data)
        self.kernel.chdir(f"/proc/self/fd/{here}")
        for descriptor in (here, *opened):
            self.kernel.close(descriptor)

    def _make(self, path: str) -> None:
        try:
            self.kernel.mkdir(path, 0o755)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self._make(split(path)[0])
            self.kernel.mkdir(path, 0o755)

    def mount(self, target: str, fstype: str, flags: Strings, data: str = "") -> None:
        """Mount a new file system at a path, which may not lead through a symbolic link."""
        descriptor = self._directory(target, RESOLVE_NO_SYMLINKS)
        self._mount_on(descriptor, fstype, fstype, flags, data)
        self.kernel.close(descriptor)

    def resize(self, path: str, size: str, flags: Strings) -> None:
        """Give a tmpfs another size (tmpfs(5)); all else stays."""
        descriptor = self.kernel.open_beneath(self.root, path, os.O_PATH, RESOLVE_NO_SYMLINKS)
        self._mount_on(descriptor, None, None, ["remount", *flags], f"size={size}")
        self.kernel.close(descriptor)

    def bind(self, source: str, target: str, flags: Strings) -> None:
        """Mount ``source`` of the host at ``target``, with flags of its own."""
        is_folder = stat.S_ISDIR(self.kernel.stat(source).st_mode)
        self._bind(source, self._directory(target) if is_folder else self._file(target), flags)

    def _file(self, path: str) -> int:
        above, name = split(path)
        parent = self._directory(above)
        self.kernel.mknod(name, stat.S_IFREG | 0o644, dir_fd=parent)
        self.kernel.close(parent)
        return self.kernel.open_beneath(self.root, path, os.O_PATH)

    def _bind(self, source: str, descriptor: int, flags: Strings) -> None:
        self.kernel.bind(source, f"/proc/self/fd/{descriptor}", bits(flags))
        self.kernel.close(descriptor)

    def mask(self, path: str, source: str) -> None:
        """Hide a file of /proc or /sys behind ``source``: /dev/null, or an empty folder."""
        descriptor = self.kernel.open_beneath(self.root, path, os.O_PATH)
        device = [] if source == "/dev/null" else ["nodev"]  # it stays one, to read as empty
        self._bind(source, descriptor, ["ro", "nosuid", "noexec", *device])

    def read_only_path(self, path: str) -> None:
        """Make a part of /proc read-only."""
        descriptor = self.kernel.open_beneath(self.root, path, os.O_PATH)
        flags = ["ro", "nosuid", "nodev", "noexec"]
        self._bind(f"/proc/self/fd/{descriptor}", descriptor, flags)

    def device(self, path: str, major: int, minor: int) -> None:
        """Make a character device that anyone may open."""
        above, name = split(path)
        directory = self._directory(above, RESOLVE_NO_SYMLINKS)
        self.kernel.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=directory)
        self.kernel.chmod(name, 0o666, dir_fd=directory)  # whatever the umask is
        self.kernel.close(directory)

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link at ``path``."""
        above, name = split(path)
        directory = self._directory(above, RESOLVE_NO_SYMLINKS)
        self.kernel.symlink(target, name, dir_fd=directory)
        self.kernel.close(directory)

    def pivot_root(self, path: str) -> None:
        """Make ``path`` the root, and unmount the old one."""
        self.kernel.close(self.root)
        self.root = -1
        self.kernel.pivot_root(path)

    def file(self, path: str, content: str) -> None:
        """Write a file in place of the image's one, or of its symbolic link."""
        above, name = split(path)
        directory = self._directory(above)
        try:  # noqa: SIM105 (contextlib would have to be imported)
            self.kernel.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        descriptor = self.kernel.open(name, NEW_FILE, 0o644, dir_fd=directory)
        self._own(descriptor)
        self.kernel.write(descriptor, content.encode())
        self.kernel.close(descriptor)
        self.kernel.close(directory)

    def add_file(self, path: str, place: str, mode: int, owner: str, content: str) -> None:
        """Put a small file at ``path``, read-only; it is in a tmpfs, at ``place``."""
        self._add(path, place, mode, owner, content.encode())

    def add_copy(self, path: str, place: str, mode: int, owner: str, source: str) -> None:
        """The same with the content of a file of the host: the plan does not hold it."""
        self._add(path, place, mode, owner, self._content_of(source))

    def _content_of(self, source: str) -> bytes:
        try:
            descriptor = self.kernel.open(source, FILE)
            try:
                content: bytes = self.kernel.read(descriptor, LONGEST_COPY + 1)
            finally:
                self.kernel.close(descriptor)
        except OSError as error:
            call = getattr(error, "call", "open")
            cause = f"{source} can't be copied"
            raise StepError(call, error.errno, source, cause, "put it there again") from error
        if len(content) > LONGEST_COPY:
            cause = f"{source} is longer than {LONGEST_COPY} bytes"
            raise StepError("read", 0, source, cause, "mount it in a tarball")
        return content

    def _add(self, path: str, place: str, mode: int, owner: str, content: bytes) -> None:
        account = find_account(owner, self.root)
        ids = account.uid, account.gid
        if self.owner and max(ids) >= IDS:
            cause = f"a user namespace has only the ids below {IDS}"
            raise StepError("fchown", 0, path, cause, f"give {path} another owner")
        descriptor = self.kernel.open(place, NEW_FILE, 0o600)
        while content:
            content = content[self.kernel.write(descriptor, content) :]
        self.kernel.chown(descriptor, *(self.owner + number for number in ids))
        self.kernel.chmod(descriptor, mode)
        self.kernel.close(descriptor)
        descriptor = self._place_of_file(path)
        if stat.S_ISDIR(self.kernel.stat(descriptor).st_mode):
            self.kernel.close(descriptor)
            cause = f"there is a folder at {path}"
            raise StepError("move_mount", errno.EISDIR, path, cause, "put the file somewhere else")
        self._bind(place, descriptor, ["ro", "nosuid", "nodev"])

    def _place_of_file(self, path: str) -> int:
        """A descriptor of a file to mount on, made if it is missing, or if a link is there."""
        above, name = split(path)
        directory = self._directory(above)
        try:
            try:
                return self.kernel.open_beneath(directory, name, os.O_PATH, RESOLVE_NO_SYMLINKS)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    self.kernel.unlink(name, dir_fd=directory)
                elif error.errno != errno.ENOENT:
                    raise
            self.kernel.mknod(name, stat.S_IFREG | 0o644, dir_fd=directory)
            self._own(name, dir_fd=directory, follow_symlinks=False)
            return self.kernel.open_beneath(directory, name, os.O_PATH, RESOLVE_NO_SYMLINKS)
        finally:
            self.kernel.close(directory)

    # -- ops: the network ------------------------------------------------------

    def loopback(self) -> None:
        """Let processes of the container reach each other at 127.0.0.1."""
        self._up("lo")

    def setting(self, path: str, value: str) -> None:
        """Change a setting of this network namespace, in the host's /proc/sys/net."""
        descriptor = self.kernel.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.kernel.write(descriptor, value.encode())
        self.kernel.close(descriptor)

    def pause(self) -> None:
        """Wait until the manager says to go on: someone looks at what there is so far."""
        self.connection.sendall(to_json({"wants": "step"}).encode() + b"\n")
        while (said := receive(self.connection, 1)) == b"\n":
            self.has_link = True
        if not said:
            raise StepError("recv", errno.ECONNRESET, "", "the manager has ended")

    def ask_for_link(self) -> None:
        """Ask the manager to make the link, since there is a namespace for it now."""
        self.connection.sendall(to_json({"wants": "link"}).encode() + b"\n")

    def link(self, address: str, netmask: str, gateway: str) -> None:
        """Wait for the link, and give it its address and route."""
        if not self.has_link and not receive(self.connection, 1):
            raise StepError("recv", errno.ECONNRESET, "", "the manager has ended")
        self.kernel.configure_network(SIOCSIFADDR, interface("eth0", internet(address)))
        self.kernel.configure_network(SIOCSIFNETMASK, interface("eth0", internet(netmask)))
        self._up("eth0")
        ends = [internet(each) for each in ("0.0.0.0", gateway, "0.0.0.0")]  # of struct rtentry
        route = struct.pack("L16s16s16sH64x", 0, *ends, RTF_UP | RTF_GATEWAY)
        self.kernel.configure_network(SIOCADDRT, route)

    def link6(self, address: str, length: int, gateway: str) -> None:
        """Give the link an IPv6 address and route, too.

        No one else has the address: it is used at once (IFA_F_NODAD), and not after a second.
        """
        index = self.kernel.if_nametoindex("eth0")
        own, other = (_socket.inet_pton(_socket.AF_INET6, each) for each in (address, gateway))
        head = struct.pack("BBBBI", _socket.AF_INET6, length, IFA_F_NODAD, 0, index)  # ifaddrmsg
        self.kernel.configure_routes(RTM_NEWADDR, head + attribute(IFA_LOCAL, own))
        to_all = _socket.AF_INET6, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, 0, RTN_UNICAST, 0
        way = attribute(RTA_GATEWAY, other) + attribute(RTA_OIF, struct.pack("I", index))
        self.kernel.configure_routes(RTM_NEWROUTE, struct.pack("8BI", *to_all) + way)  # rtmsg

    def _up(self, name: str) -> None:
        self.kernel.configure_network(SIOCSIFFLAGS, interface(name, struct.pack("H", IFF_UP)))

    # -- ops: the process ------------------------------------------------------

    def hostname(self, name: str) -> None:
        """Set the host name of this UTS namespace."""
        self.kernel.sethostname(name)

    def bounding_set(self, keep: list[int]) -> None:
        """Keep only these capabilities in the bounding set."""
        for capability in sorted({*range(MOST_CAPABILITIES)} - {*keep}):
            try:
                self.kernel.prctl(PR_CAPBSET_DROP, capability)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return  # the kernel has no more of them

    def hide(self) -> None:
        """Let no process of a container look into this one, nor take over what it has open.

        (ptrace(2), "Ptrace access mode checking"; prctl(2), PR_SET_DUMPABLE; CVE-2016-9962.) A
        change of user does not undo this, only the exec.
        """
        self.kernel.prctl(PR_SET_DUMPABLE, 0)

    def fork(self) -> None:
        """Go on in a child, in the pid namespace; stay outside of that, and end as the child does.

        Both end with the manager.
        """
        child = self.kernel.fork()
        self.kernel.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)  # a user namespace has cleared it
        if child:
            self.kernel.close_from(0)  # so that what the command closes is closed
            self.kernel.stand_for(child)

    def close_descriptors(self) -> None:
        """Close all that steps have left open: now no descriptor leads out of the root.

        What came with the plan is for the program, and is moved out of the way.
        """
        first = self.connection.fileno() + 1
        if self.passed != -1:
            self.kernel.dup2(self.passed, first)
            self.passed, first = first, first + 1
        self.kernel.close_from(first)

    def user(self, owner: str, capabilities: list[int]) -> None:
        """Become ``owner``: USER or USER:GROUP, names that the image knows, or numbers."""
        account = find_account(owner)
        try:
            self.kernel.setgroups(account.groups)
            self.kernel.setgid(account.gid)
            self.kernel.setuid(account.uid)
        except OSError as error:
            if error.errno == errno.EINVAL:  # there are no other ids to be had
                cause = f"a user namespace has only the ids below {IDS}"
                raise StepError("setuid", 0, owner, cause, "name another user") from error
            raise StepError("setuid", error.errno, owner) from error
        kept = capabilities if account.uid == 0 else []
        self.kernel.capset(sum(1 << number for number in kept))
        # The container ends with its monitor. (A change of user has cleared this.)
        self.kernel.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
        self.environment = {"HOME": account.home, "USER": account.name}
        self._go_home(account.home)

    def _go_home(self, path: str) -> None:
        """Work in a folder of the container; stay at the top if it can't be entered."""
        try:  # noqa: SIM105 (contextlib would have to be imported)
            self._work_in(path)
        except OSError:
            pass

    def _work_in(self, path: str) -> None:
        descriptor = self.kernel.open_inside(path, os.O_PATH | os.O_DIRECTORY)
        try:
            self.kernel.chdir(descriptor)
        finally:
            self.kernel.close(descriptor)

    def workdir(self, path: str) -> None:
        """Work in a folder of the container that the owner may enter."""
        try:
            self._work_in(path)
        except OSError as error:
            call = getattr(error, "call", "chdir")
            raise StepError(call, error.errno, path, *why_no_workdir(path, error.errno)) from error

    def visit(self, folder: str, name: str) -> None:
        """Work in a folder of the container, if there is something of this name in it."""
        path = folder if name == "." else f"{folder.rstrip('/')}/{name}"
        try:
            self._work_in(folder)
            self.kernel.close(self.kernel.open_inside(name, os.O_PATH | os.O_NOFOLLOW))
        except OSError as error:
            cause = why_no_visit(path, error.errno)
            raise StepError(getattr(error, "call", "chdir"), error.errno, path, cause) from error

    def terminal(self, rows: int, columns: int) -> None:
        """Have a new terminal as standard input, output and error; the manager gets its master."""
        master = self.kernel.open_terminal()
        end = self.kernel.open_other_end(master)
        self.kernel.control(end, rows, columns)
        for number in range(3):
            self.kernel.dup2(end, number)
        passed = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", master))]
        self.connection.sendmsg([to_json({"passes": "terminal"}).encode() + b"\n"], passed)
        self.kernel.close(end)
        self.kernel.close(master)

    def stream(self) -> None:
        """Have the connection that came with the plan as standard input and output."""
        for number in range(2):
            self.kernel.dup2(self.passed, number)
        self.kernel.close(self.passed)

    def no_new_privileges(self) -> None:
        """From now on, exec ignores setuid bits and file capabilities."""
        self.kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)

    def limits(self, most: dict[str, int]) -> None:
        """Limit the resources (setrlimit(2)) of this process and those below it."""
        for name, amount in most.items():
            self.kernel.limit_resource(RLIMITS[name], amount)

    def seccomp(self, program: bytes) -> None:
        """From now on, make only the system calls that the program allows."""
        self.kernel.load_filter(program)

    def look_after(self) -> None:
        """Leave the rest to a child, and stay as PID 1: reap, pass signals on, end as it does."""
        self.kernel.rename(b"init")  # before there is a script that could look at it
        child = self.kernel.fork()
        if child == 0:
            return
        self.connection.close()  # the child reports the rest
        if self.passed != -1:
            self.kernel.close(self.passed)  # which ends when the child closes it
        sys.exit(self.kernel.look_after(child))

    def exec(
        self, path: str, arguments: Strings, environment: Assignments, key: str = "startup_script"
    ) -> None:
        """Become the program at ``path``; a script without ``#!`` is run by /bin/sh.

        A name without ``/`` is looked for along PATH. ``key`` is what of the config named it.
        """
        variables = fill_in(environment, self.environment)
        program = path if "/" in path else find_program(path, variables.get("PATH", ""), key)
        try:
            self.kernel.execve(program, [path, *arguments], variables)
        except OSError as error:
            if error.errno == errno.ENOEXEC and is_script(program):
                refuse_late_interpreter(program)
                self._exec_by_shell(program, arguments, variables)
            why = why_no_exec(program, error.errno, key)
            raise StepError("execve", error.errno, program, *why) from error

    def _exec_by_shell(self, path: str, arguments: Strings, environment: dict[str, str]) -> None:
        try:
            self.kernel.execve("/bin/sh", ["/bin/sh", path, *arguments], environment)
        except OSError as error:
            cause = f"{path} has no #! line and there is no working /bin/sh to run it"
            hint = "give it a #! line with an interpreter that the image has"
            raise StepError("execve", error.errno, "/bin/sh", cause, hint) from error

    def idle(self, environment: Assignments) -> None:
        """Do nothing, with as little memory as possible, until the container is destroyed."""
        variables = fill_in(environment, self.environment)
        for sleep in ("/bin/sleep", "/usr/bin/sleep"):
            try:
                self.kernel.execve(sleep, ["sleep", "infinity"], variables)
            except OSError:
                continue
        raise Idle


def led_astray(path: str, reached: str) -> StepError:
    """The error if a path of the image leads into the container's own file systems."""
    cause = f"a symbolic link leads to {reached}, which is the container's own"
    hint = "mount it somewhere else, or correct the image"
    return StepError("openat2", errno.ELOOP, path, cause, hint)


class Idle(Exception):
    """The image has no program that idles: this process does it instead."""


def bits(flags: Strings) -> int:
    """The mount(2) flags of these names, as one number."""
    return sum(MOUNT_FLAGS[flag] for flag in flags)


def escaped(path: str) -> str:
    """A path, possibly from an image, as an option of an overlay, where ``,`` and ``:`` end one.

    Documentation/filesystems/overlayfs.rst
    """
    return "".join("\\" * (mark in "\\,:") + mark for mark in path)


def interface(name: str, value: bytes) -> bytes:
    """A struct ifreq (netdevice(7))."""
    return struct.pack("16s24s", name.encode(), value)


def attribute(kind: int, value: bytes) -> bytes:
    """A struct rtattr (rtnetlink(7)); all of ours are multiples of 4 bytes."""
    return struct.pack("HH", 4 + len(value), kind) + value


def internet(address: str) -> bytes:
    """A struct sockaddr_in (ip(7))."""
    return struct.pack("HH4s8x", _socket.AF_INET, 0, _socket.inet_aton(address))


# -- filling a volume -------------------------------------------------------------


def copy_folder(source: int, target: int, owner: int) -> None:
    """Copy what is in a folder, with owners, modes, times, hard links and extended attributes.

    Both are descriptors. Nothing in ``source`` can lead out of it: links are copied as they are.
    Devices and sockets are left out, as they could not be used.

    :param owner: the id that is 0 in the copy
    """
    linked: dict[tuple[int, int], str] = {}  # the first copy of files with several names

    def copy(source: int, target: int, above: str) -> None:
        for name in os.listdir(source):
            status, here = os.stat(name, dir_fd=source, follow_symlinks=False), f"{above}{name}"
            first = linked.get((status.st_dev, status.st_ino))
            if first is not None:
                os.link(first, name, src_dir_fd=top, dst_dir_fd=target, follow_symlinks=False)
                continue
            if not copy_one(source, target, name, here, status):
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                linked[status.st_dev, status.st_ino] = here
            own(name, status, dir_fd=target, follow_symlinks=False)

    def copy_one(source: int, target: int, name: str, here: str, status: os.stat_result) -> bool:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind == stat.S_IFIFO:
            os.mkfifo(name, 0o600, dir_fd=target)
        elif kind in (stat.S_IFREG, stat.S_IFDIR):
            is_folder = kind == stat.S_IFDIR
            if is_folder:
                os.mkdir(name, 0o700, dir_fd=target)
            new_flags = FOLDER if is_folder else NEW_FILE
            old = os.open(name, FOLDER if is_folder else FILE, dir_fd=source)
            try:
                new = os.open(name, new_flags, 0o600, dir_fd=target)
                try:
                    if is_folder:
                        copy(old, new, f"{here}/")
                    else:
                        copy_content(old, new)
                    copy_attributes(old, new)
                finally:
                    os.close(new)
            finally:
                os.close(old)
        else:
            return False
        return True

    def own(path: Any, status: os.stat_result, **options: Any) -> None:
        os.chown(path, max(status.st_uid - owner, 0), max(status.st_gid - owner, 0), **options)
        if not stat.S_ISLNK(status.st_mode):  # after the owner: that clears setuid bits
            os.chmod(path, stat.S_IMODE(status.st_mode), dir_fd=options.get("dir_fd"))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), **options)

    top = target
    copy(source, target, "")
    copy_attributes(source, target)
    own(target, os.fstat(source))


def copy_content(old: int, new: int) -> None:
    """Copy a file's bytes."""
    while os.sendfile(new, old, None, 1 << 24):
        pass


def copy_attributes(old: int, new: int) -> None:
    """Copy a file's extended attributes, as far as the file system has them."""
    for name in os.listxattr(old):
        if name.startswith(COPIED) and name != "security.selinux":
            os.setxattr(new, name, os.getxattr(old, name))


# -- what an image says about its users ------------------------------------------


class Account:
    """Who a container runs as."""

    def __init__(self, name: str, uid: int, gid: int, home: str, groups: list[int]) -> None:
        self.name, self.uid, self.home = name, uid, home
        self.gid, self.groups = gid, [gid, *(number for number in groups if number != gid)]


def read_file(path: str, root: int = INSIDE) -> str:
    """The text of a regular file of the image, up to LONGEST_FILE; ``root`` as in ``database``.

    To open other files may already do something. So look first: refuse all that is not regular or
    is made by the kernel (such file systems have no blocks, statfs(2)).
    """
    kernel = Kernel()
    if root == INSIDE:
        place = kernel.open_inside(path, os.O_PATH)
    else:
        place = kernel.open_beneath(root, path, os.O_PATH)
    try:
        if not (stat.S_ISREG(os.fstat(place).st_mode) and os.fstatvfs(place).f_blocks):
            raise OSError(errno.EINVAL, "not a regular file of the image's")
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        text = b""
        while len(text) < LONGEST_FILE and (part := os.read(descriptor, 1 << 14)):
            text += part
    finally:
        os.close(descriptor)
    return text.decode("utf-8", "surrogateescape")


def database(path: str, fields: int, root: int) -> Iterator[list[str]]:
    """The records of a passwd(5) or group(5) file; none if there is no such file.

    ``root`` is a descriptor of the image's root, or INSIDE after pivot_root.
    """
    try:
        lines = read_file(path, root).split("\n")
    except OSError:
        return
    for line in lines:
        record = line.split(":")
        if len(record) == fields and is_id(record[2]) and "\0" not in line:
            yield record  # (a NUL can't be in HOME or USER)


def is_id(text: str) -> bool:
    """Whether this is the number of a user or group."""
    return text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST_ID


def find_account(owner: str, root: int = INSIDE) -> Account:
    """Who ``owner`` is in the container: USER with all groups, or USER:GROUP with only that one.

    A number is never taken for a name. Raises StepError if the image does not know a name.
    """
    user, _, group = owner.partition(":")
    account = find_user(user, root)
    if group:
        return Account(account.name, account.uid, find_group(group, root), account.home, [])
    return account


def find_user(user: str, root: int) -> Account:
    """A user of the image's /etc/passwd, with all groups; root and numbers need not be in there."""
    number = int(user) if user.isdecimal() else None
    for name, _, uid, gid, _, home, _ in database("/etc/passwd", 7, root):
        if is_id(gid) and (name == user if number is None else int(uid) == number):
            return Account(name, int(uid), int(gid), home or "/", groups_of(name, root))
    if user == "root":
        number = 0
    if number is not None:
        return Account(user, number, number, "/", [])
    hint = "name a user of its /etc/passwd, or a number"
    raise StepError("getpwnam", 0, "/etc/passwd", f"the image knows no user {user!r}", hint)


def find_group(group: str, root: int) -> int:
    """The number of a group of the image's /etc/group; a number need not be in there."""
    if group.isdecimal():
        return int(group)
    for name, _, number, _ in database("/etc/group", 4, root):
        if name == group:
            return int(number)
    hint = "name a group of its /etc/group, or a number"
    raise StepError("getgrnam", 0, "/etc/group", f"the image knows no group {group!r}", hint)


def groups_of(name: str, root: int) -> list[int]:
    """The numbers of the groups that a user is a member of."""
    records = database("/etc/group", 4, root)
    return [int(number) for _, _, number, members in records if name in members.split(",")]


def fill_in(assignments: Assignments, environment: dict[str, str]) -> dict[str, str]:
    """``environment`` with the assignments on top, in their order.

    A NAME in a value stands for the value that the variable had before.
    """
    variables, room = dict(environment), LONGEST_ENVIRONMENT
    for name, parts in assignments:
        words = [variables.get(part, "") if i % 2 else part for i, part in enumerate(parts)]
        room -= sum(map(len, words))
        if room < 0:
            cause = f"startup_env, filled in, is longer than {LONGEST_ENVIRONMENT} characters"
            raise StepError("setenv", 0, "", cause, "shorten it")
        variables[name] = "".join(words)
    return variables


# -- which program, and why it does not start --------------------------------------


SPLIT = "make each argument of command a string of its own"


def find_program(name: str, path: str, key: str) -> str:
    """Where the program of this name is, as execvp(3) finds it along ``path``.

    Raises StepError if it is nowhere.
    """
    places = [f"{folder or '.'}/{name}" for folder in path.split(":")]
    there = [place for place in places if stat.S_ISREG(mode_of(place))]
    if not there:
        cause = f"there is no {name} in the folders of PATH ({path})"
        hint = SPLIT if " " in name else f"correct {key}, or add the program to the image"
        raise StepError("execve", errno.ENOENT, name, cause, hint)
    return next((place for place in there if os.access(place, os.X_OK)), there[0])


MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "arm64", 243: "riscv", 22: "s390", 21: "ppc64"}
OURS = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "armv7l": 40, "s390x": 22, "ppc64le": 21}
BOM = b"\xef\xbb\xbf"  # UTF-8's byte order mark


def head(path: str) -> bytes:
    """The first bytes of a file; none if it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def is_script(path: str) -> bool:
    """Whether this is text without a ``#!`` line: shells run such a file themselves."""
    start = head(path)
    return not start.startswith((b"#!", b"\x7fELF")) and b"\0" not in start


def refuse_late_interpreter(path: str) -> None:
    """Raise StepError if the ``#!`` of a script is not at its beginning, where the kernel looks.

    /bin/sh would take that for a comment, and run a program of any language.
    """
    text = head(path)
    for line in text.removeprefix(BOM).splitlines():
        if names_interpreter(line):
            before = "a byte order mark" if text.startswith(BOM) else "something else"
            cause = f"the #! of {path} is not at the very beginning: {before} is before it"
            hint = "make #! the first two bytes of the file"
            raise StepError("execve", errno.ENOEXEC, path, cause, hint)
        if line.strip() and not line.startswith(b"#"):
            return


def names_interpreter(line: bytes) -> bool:
    """Whether this line would name an interpreter, if it were the first one."""
    return line.lstrip().startswith(b"#!") and line.lstrip()[2:].lstrip().startswith(b"/")


def why_no_exec(path: str, number: int | None, key: str = "startup_script") -> tuple[str, str]:
    """Why exec of ``path`` failed with errno ``number``, and what to do."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.access(path, os.F_OK, follow_symlinks=False):
            return f"{path} is a symbolic link to {os.readlink(path)}, which is missing", (
                f"correct the link, or name another program as {key}"
            )
        if key == "startup_script" and mode_of(path.split()[0]):
            return f"there is no {path}: startup_script is a path, and takes no arguments", (
                "name a script that runs it with its arguments"
            )
        if key == "command" and " " in path:
            return f"there is no {path} in the container", SPLIT
        return f"there is no {path} in the container", f"correct {key}, or mount it"
    except PermissionError:
        return why_no_entry(path)
    except OSError as error:
        return f"{path} can't be looked at: {error.strerror}", f"correct {key}"
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a regular file", f"name a script or program as {key}"
    if os.statvfs(path).f_flag & os.ST_NOEXEC:
        return f"{path} lies on a file system mounted noexec", "place it outside of it"
    if not status.st_mode & 0o111:
        return f"{path} is not executable", f"chmod +x {split(path)[1]} and pack it again"
    return _why_no_exec_by_content(path, number)


def why_no_entry(path: str) -> tuple[str, str]:
    """The same, if a folder on the way to it may not be entered."""
    folders = [path[:i] or "/" for i, letter in enumerate(path) if letter == "/"]
    shut = next((folder for folder in folders if not os.access(folder, os.X_OK)), path)
    which = "/, the top folder (./) of the image," if shut == "/" else shut
    return f"{which} may not be entered by this startup_owner", (
        f"give it the mode 755 in its tarball (it has {os.stat(shut).st_mode & 0o7777:o})"
    )


def why_no_workdir(path: str, number: int | None) -> tuple[str, str]:
    """Why nothing can work in this folder, and what to do."""
    if number == errno.ENOENT:
        return f"there is no folder {path} in the container", "correct workdir, or mount it"
    if number == errno.EACCES:
        return why_no_entry(f"{path}/")
    return f"{path} is not a folder that can be entered", "name another one as workdir"


def why_no_disk(error: OSError) -> tuple[str, str]:
    """Why there is no file system of its own for a container, and what to do."""
    missing = str(error.filename) if error.errno in (errno.ENOENT, errno.ENXIO) else ""
    if missing in MKE2FS:
        return "there is no mke2fs on this machine", "install e2fsprogs, or do without a size"
    if missing.startswith("/dev/loop"):
        return "this machine has no loop devices", "modprobe loop, or do without a size"
    if getattr(error, "call", "") == "flock":
        return "it is in use: files are copied, or its last processes end", "try again in a moment"
    return "", ""


def why_no_visit(path: str, number: int | None) -> str:
    """Why there is nothing at this path; empty if its errno says it all."""
    if number == errno.ENOENT:
        return f"there is no {path} in the container, or a link on the way leads to nothing"
    if number == errno.ENOTDIR:
        return f"{path} is no folder, or one of those above it is none"
    return ""


def _why_no_exec_by_content(path: str, number: int | None) -> tuple[str, str]:
    start = head(path)
    if start.startswith(b"#!"):
        words = start[2:].split(b"\n", 1)[0].split()
        interpreter = words[0].decode(errors="surrogateescape") if words else "(none)"
        if interpreter.endswith("\r") or (words and b"\r" in start.split(b"\n", 1)[0]):
            return f"{path} has Windows line ends", "convert them, as with: sed -i 's/\\r$//'"
        if not mode_of(interpreter):
            return f"its interpreter {interpreter} is not in the container", (
                "change the script's first line, or add the interpreter to the image"
            )
        return f"its interpreter {interpreter} can't be run", "check that it is executable"
    if start.startswith(b"\x7fELF") and len(start) > 20:
        if number == errno.ENOENT:
            return f"the dynamic loader that {path} asks for is not in the container", (
                "add its C library to the image, or link it statically"
            )
        machine = int.from_bytes(start[18:20], "little" if start[5] == 1 else "big")
        if machine != OURS.get(os.uname().machine, machine):
            return f"{path} is built for {MACHINES.get(machine, machine)}, not for this machine", (
                f"build it for {os.uname().machine}"
            )
    if number == errno.EACCES:
        return f"{path} may not be run by this startup_owner", "check its mode and its folders'"
    return f"the kernel can't run {path}", "it needs a #! line, or to be a program for this machine"


# -- what os has of paths --------------------------------------------------------


def encoded(path: str) -> bytes:
    """A path as the kernel has it, where any other bytes than UTF-8's are surrogates (PEP 383)."""
    return path.encode(errors="surrogateescape")


def split(path: str) -> tuple[str, str]:
    """The folder that a path is in, and its name there (os.path.split)."""
    end = path.rfind("/") + 1
    return path[:end].rstrip("/") or path[:end], path[end:]


def mode_of(path: str) -> int:
    """The type and the mode of a file (inode(7)), wherever links lead; 0 if there is none."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return 0


# -- the conversation ------------------------------------------------------------


def carry_out(
    plan: Plan,
    container: Container,
    say: Callable[[object], None],
    durations: list[float],
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Carry out the steps of ``plan`` in order; ``say`` takes the messages to the manager.

    Each step's seconds are appended to ``durations``. Returns whether all went well. (After an exec
    it does not return.)
    """
    for op, arguments in plan:
        if op in LAST_OPS:
            say({"done": durations})
        before = clock()
        try:
            getattr(container, op)(**arguments)
        except Idle:
            raise
        except Exception as error:
            say(failure(len(durations), explained(op, arguments, error)))
            return False
        durations.append(round(clock() - before, 6))
    return True


def explained(op: str, arguments: dict[str, Any], error: Exception) -> StepError:
    """The error of a step, with all that is known about it."""
    if isinstance(error, StepError):
        return error
    if isinstance(error, OSError):
        path = arguments.get("target") or arguments.get("path") or error.filename or ""
        return StepError(getattr(error, "call", op), error.errno, str(path))
    said = f"{type(error).__name__}: {error}"
    return StepError(op, 0, "", said, "this is a bug in txcontain: report it")


def failure(number: int, error: StepError) -> object:
    """The message that says that step ``number`` failed."""
    said = {"call": error.call, "path": error.path, "cause": error.cause, "hint": error.hint}
    valid = {key: text.encode(errors="replace").decode() for key, text in said.items()}
    return {"failed": {"step": number, "errno": error.number, **valid}}  # (a path may not be UTF-8)


def to_json(value: object) -> str:
    """A message as JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(key)}:{to_json(value[key])}" for key in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return quoted(value) if isinstance(value, str) else repr(value)


def receive(connection: _socket.socket, length: int) -> bytes:
    """So many bytes; nothing if the other end hung up first."""
    received = connection.recv(length, _socket.MSG_WAITALL)
    return received if len(received) == length else b""


def receive_plan(connection: _socket.socket) -> tuple[Plan | None, int]:
    """A plan, or None if the manager hung up instead; the descriptor that came with it, or -1."""
    space, flags = _socket.CMSG_SPACE(4), _socket.MSG_WAITALL | _socket.MSG_CMSG_CLOEXEC
    length, passed, *_ = connection.recvmsg(4, space, flags)
    descriptor = struct.unpack("i", passed[0][2])[0] if passed else -1
    plan = receive(connection, int.from_bytes(length, "big")) if len(length) == 4 else b""
    return marshal.loads(plan) if plan else None, descriptor


def reset_process() -> None:
    """Undo what this process has inherited: signal handling, session, descriptors, umask."""
    for number in range(1, _signal.SIGRTMIN):
        if number not in (_signal.SIGKILL, _signal.SIGSTOP, *LIBCS_OWN):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    os.umask(0o022)


def main(path: str, token: str, *cgroups: str) -> None:
    """Be a container's PID 1, in the cgroups that are joined by these files."""
    kernel = Kernel()
    kernel.prctl(PR_SET_PDEATHSIG, _signal.SIGKILL)
    reset_process()
    for procs in cgroups:
        with open(procs, "w") as file:
            file.write("0")
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(path)

    def say(message: object) -> None:
        connection.sendall(to_json(message).encode() + b"\n")

    say({"token": token})
    container = Container(kernel, connection)
    durations: list[float] = []
    try:
        while True:
            plan, container.passed = receive_plan(connection)
            if plan is None or not carry_out(plan, container, say, durations):
                break
            say({"ready": len(durations)})
    except Idle:
        connection.close()
        while True:
            _signal.pause()
    sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
