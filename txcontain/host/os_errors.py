"""An operating system's error in words: what it is, and what to do."""

from __future__ import annotations

import errno

CAUSES = {
    errno.ENOSPC: ("the disk that holds the state folder is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.ENOMEM: ("the machine is out of memory", "end something, or add memory"),
    errno.EAGAIN: ("a limit on processes or memory is reached", "see ulimit -u and pids.max"),
    errno.EMFILE: ("too many files are open", "raise the limit: ulimit -n"),
    errno.ENFILE: ("too many files are open on this machine", "raise fs.file-max"),
    errno.EPERM: ("the manager lacks the privilege", "run it as root, outside of a container"),
    errno.ENODEV: ("the kernel has no such file system, or can't load it", "see modprobe(8)"),
    errno.ENOTDIR: ("a part of this path is a file in the image", "mount it somewhere else"),
    errno.EISDIR: ("the image has a folder where a file belongs", "change the image"),
    errno.ELOOP: (
        "a symbolic link in this path leads in circles, or is not allowed here",
        "correct the image",
    ),
    errno.EINVAL: (
        "the kernel refuses this mount",
        "the state folder may lie on an overlay: put it on a real disk (--state)",
    ),
}


def of_os(error: OSError) -> str:
    """An operating system's error in words, with its path and what is known of the cause."""
    cause = CAUSES.get(error.errno or 0, ("", ""))[0]
    said = f"{errno.errorcode.get(error.errno or 0, '')}: {error.strerror or error}"
    return " → ".join(filter(None, [said, str(error.filename or ""), cause]))
