"""System calls that Python has no function for."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator

AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000  # <linux/fcntl.h>
OPEN_TREE_CLONE, MOUNT_ATTR_RDONLY = 1, 1  # <linux/mount.h>
CLONE_NEWNET = 0x40000000  # <linux/sched.h>
IPC_PRIVATE, IPC_RMID = 0, 0  # <linux/ipc.h>
FILEID_KERNFS = 0xFE  # <linux/exportfs.h>
SYS_OPEN_TREE, SYS_MOUNT_SETATTR = 428, 442  # the same numbers on every architecture
SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "armv7l": 380, "s390x": 345}
SCHED_FLAG_RESET_ON_FORK, SHORT_SLICE = 1, 100_000  # <linux/sched.h>; nanoseconds
# <linux/fs.h>, as most machines have it: on the others we are only slower.
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x20000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """Call a function of libc. Raises OSError."""
    result: int = getattr(_libc, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def be_prompt() -> None:
    """Make the scheduler run this thread soon after it wakes, for short times.

    Otherwise a busy script on the same processor delays it. Since Linux 6.12 the thread that asks
    for a shorter slice than the others (sched_setattr(2)) goes first; an older kernel takes no
    notice. What this thread starts does not inherit it.
    """
    number, nice = SYS_SCHED_SETATTR.get(os.uname().machine), os.nice(0)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    flags = SCHED_FLAG_RESET_ON_FORK
    wanted = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, flags, nice, 0, SHORT_SLICE, 0, 0)
    with contextlib.suppress(OSError):  # without it we are only slower
        _call("syscall", number, 0, wanted, 0)


def read_only(folder: str) -> int:
    """A descriptor of a folder through which nobody can write.

    It refers to a read-only mount that is not attached to any file tree (open_tree(2),
    mount_setattr(2); Linux 5.12). Raises OSError.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    descriptor = _call("syscall", SYS_OPEN_TREE, AT_FDCWD, os.fsencode(folder), flags)
    wanted = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    try:
        _call("syscall", SYS_MOUNT_SETATTR, descriptor, b"", AT_EMPTY_PATH, wanted, len(wanted))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def flush_disk(folder: str) -> None:
    """Make all that was written to a folder's disk survive a power cut (syncfs(2)).

    Raises OSError. It takes its time: not for the reactor's thread.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def keep_apart(folder: str) -> None:
    """Have ext4 put each tree that is made in a folder into a part of the disk of its own.

    By ext4's rules the folder is the top of a hierarchy then (+T of chattr(1)). Otherwise a tree
    goes where the others are, and if one of those was removed within the last minute, ext4 looks
    past all its inodes, one by one, for each new file. Other filesystems know no such flag.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("q", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, bytes(8)))
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("q", flags | FS_TOPDIR_FL))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def shared_memory() -> Iterator[int]:
    """The number of a piece of System V shared memory, which is gone with this process (shmget(2)).

    Raises OSError.
    """
    number = _call("shmget", IPC_PRIVATE, 1, 0o600)
    _libc.shmat.restype = ctypes.c_ssize_t
    try:
        place = ctypes.c_void_p(_call("shmat", number, None, 0))
    finally:
        _call("shmctl", number, IPC_RMID, None)  # when nobody has it any more
    try:
        yield number
    finally:
        _call("shmdt", place)


def enter_network(descriptor: int) -> None:
    """Move this thread to a network namespace, or to that of a process (setns(2)).

    The descriptor is of one of both. Raises OSError.
    """
    _call("setns", descriptor, CLONE_NEWNET)


def path_of_group(some: str, number: int) -> str:
    """The folder of a cgroup of version 2 (open_by_handle_at(2)); ``some`` is that of another one.

    Raises OSError: ESTALE if it is gone.
    """
    handle = ctypes.create_string_buffer(struct.pack("=IiQ", 8, FILEID_KERNFS, number))
    below = os.open(some, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _call("open_by_handle_at", below, handle, os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(below)
    try:
        return os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)
