"""Who listens on a port: which container, and which process of the host."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from itertools import chain, islice

from txcontain.host import sockets
from txcontain.host.processes import descendants, program

MOST_PROCESSES, MOST_FILES = 256, 4096  # of a container, that one look goes through


def listening_sockets(
    port: int, network_of: int | str = "self", protocol: str = "tcp", address: str = "0.0.0.0"
) -> set[str]:
    """The inodes of the sockets that listen on a port at an IPv4 address; 0.0.0.0 is any."""
    found = sockets.listeners(port, network_of, protocol)
    return {one.inode for one in found if sockets.overlap(one.address, address)}


def holds_socket(pid: int, inodes: set[str]) -> bool:
    """Whether a process has one of these sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return not wanted.isdisjoint(islice(_open_files(pid), MOST_FILES))


def surely_listens(pid: int, port: int, group: int | None) -> bool | None:
    """Whether the container with this PID 1, and a cgroup of this number, listens on a TCP port.

    None if only ``listens`` can tell. In a network namespace of its own, all sockets are the
    container's; in the host's, the number of the cgroup tells whose a socket is.
    """
    found = {one.group for one in sockets.listeners(port, pid)}
    if not found or group in found or not _shares_network(pid):
        return bool(found)
    untold = group is None or found & {sockets.ROOT, sockets.UNTOLD}
    return None if untold else False


def listens(pid: int, port: int) -> bool:
    """The same, by the descriptors of its processes; of very many, only the first are looked at.

    It takes its time: not for the reactor's thread.
    """
    inodes = listening_sockets(port, pid)
    members = islice(descendants(pid), MOST_PROCESSES) if inodes else ()
    files = chain.from_iterable(map(_open_files, members))
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return not wanted.isdisjoint(islice(files, MOST_FILES))


def listener(port: int, protocol: str = "tcp", address: str = "0.0.0.0") -> tuple[int, str] | None:
    """The pid and the program that listens on a port of the host; 0 and "" if we can't see it.

    None if nothing listens at that address. Looks through all processes: not for the reactor's
    thread.
    """
    inodes = listening_sockets(port, protocol=protocol, address=address)
    if not inodes:
        return None
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and holds_socket(int(entry), inodes):
            return int(entry), program(int(entry))
    return 0, ""


def _open_files(pid: int) -> Iterator[str]:
    gone = contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError)
    with gone, os.scandir(f"/proc/{pid}/fd") as files:  # one by one: there may be very many
        for file in files:  # it may be closed by now, or we may not look at it
            with gone:
                yield os.readlink(file.path)


def _shares_network(pid: int) -> bool:
    """Whether a process is in this network namespace."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/ns/net"), os.stat("/proc/self/ns/net"))
    except (FileNotFoundError, ProcessLookupError):
        return True
