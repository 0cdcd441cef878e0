"""What the manager asks of the kernel, as one object: a test puts another in its place."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import time

from txcontain.host import listeners, processes, sockets, syscalls

SPARE_FILES = 128  # kept for connections, launches and other short uses


class Kernel:
    """The real kernel."""

    boot_id = staticmethod(processes.boot_id)
    identify = staticmethod(processes.identify)
    monitors = staticmethod(processes.monitors)
    open_process = staticmethod(processes.open_process)
    send_signal = staticmethod(processes.send_signal)
    signal_process = staticmethod(processes.signal_process)
    lives = staticmethod(processes.lives)
    catchers = staticmethod(processes.catchers)
    catchers_at_once = staticmethod(processes.catchers_at_once)
    listening_sockets = staticmethod(listeners.listening_sockets)
    surely_listens = staticmethod(listeners.surely_listens)
    listens = staticmethod(listeners.listens)
    listener = staticmethod(listeners.listener)
    be_prompt = staticmethod(syscalls.be_prompt)
    read_only = staticmethod(syscalls.read_only)
    send = staticmethod(sockets.send_now)
    connect = staticmethod(sockets.connect)

    def now(self) -> float:
        """The time of day, in unix time: only to show it, as it may be set at any moment."""
        return time.time()

    def boot_time(self) -> float:
        """When this boot began, in unix time."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def open_more(self, most: int) -> int:
        """Let this process open that many files, or as many as it may (getrlimit(2)).

        Returns how many that is.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in (max(hard, most), hard):
            with contextlib.suppress(OSError, ValueError):  # it may not raise the hard limit
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
                break
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def is_scarce(self, descriptor: int) -> bool:
        """Whether so many files are open that this one should not be held for long.

        open(2) always returns the lowest free number, so the number tells how many are open.
        """
        return descriptor >= most_held(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def mounts_below(self, folder: str) -> list[str]:
        """The mount points of this mount namespace that lie below a folder."""
        with open("/proc/self/mountinfo") as file:
            paths = [line.split()[4] for line in file]
        return [path for path in paths if path.startswith(folder + "/")]

    def close(self, descriptor: int) -> None:
        """close(2)."""
        os.close(descriptor)

    def peer(self, connection: socket.socket) -> int:
        """The pid of the process that connected, as seen from here (SO_PEERCRED, unix(7))."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid: int = struct.unpack("iII", credentials)[0]
        return pid


def most_held(most: int) -> int:
    """How many descriptors may be held for long, if ``most`` may be open."""
    return most - min(most // 2, SPARE_FILES)
