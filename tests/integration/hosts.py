"""Network namespaces in the place of hosts: what a test does reaches no network of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host.syscalls import CLONE_NEWNET, enter_network
from txcontain.network.bridge import IFA_F_NODAD, netlink
from txcontain.network.firewall import find_nft

HERE, BEYOND = "192.0.2.1", "192.0.2.2"  # the host in the outside world, and another one there
HERE_6, BEYOND_6 = "2001:db8::1", "2001:db8::2"
FORWARD = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
OWN = "/proc/thread-self/ns/net"
libc = ctypes.CDLL(None, use_errno=True)


def have_host(test: SynchronousTestCase, host: int | None = None) -> None:
    """Have this thread, and what it starts, be on a host to itself until a test ends.

    Managers of several tests at a time have no bridge, no address and no port in common.

    :param host: a descriptor of it; a new one if none is given
    """
    before = os.open(OWN, os.O_RDONLY)
    test.addCleanup(os.close, before)
    test.addCleanup(enter_network, before)
    if host is None:
        move_to_new_host()
    else:
        enter_network(host)


def have_outside(test: SynchronousTestCase) -> World:
    """Make an outside world, with a link to this host, which forwards packets."""
    outside = World()
    test.addCleanup(os.close, outside.descriptor)
    with netlink("a test") as connection:
        peer = {"ifname": "eth0", "net_ns_fd": outside.descriptor}
        connection.link("add", ifname="eth0", kind="veth", peer=peer)
        give_address(connection, HERE, HERE_6)
    with outside(), netlink("a test") as connection:
        give_address(connection, BEYOND, BEYOND_6)
        connection.route("add", dst="10.87.0.0/16", gateway=HERE)
    for setting in FORWARD:
        Path("/proc/sys/net", setting).write_text("1")
    return outside


def have_silent_name_server(test: SynchronousTestCase) -> socket.socket:
    """Have this machine's name servers (resolv.conf(5)) be here until a test ends, and say nothing.

    Returns where the first one is asked. To be called on a host that the test has to itself.
    """
    text = Path("/etc/resolv.conf").read_text()
    servers = []
    for address in re.findall(r"^nameserver\s+([\d.]+)", text, re.MULTILINE) or ["127.0.0.1"]:
        with netlink("a test") as connection:
            connection.addr("replace", index=1, address=address, prefixlen=32)
        servers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        test.addCleanup(servers[-1].close)
        servers[-1].settimeout(60)
        servers[-1].bind((address, 53))
    return servers[0]


class World:
    """A network namespace that lives as long as this object's descriptor."""

    def __init__(self) -> None:
        with back_again():
            move_to_new_host()
            self.descriptor = os.open(OWN, os.O_RDONLY)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with back_again():
            enter_network(self.descriptor)
            yield


@contextlib.contextmanager
def back_again() -> Iterator[None]:
    """Have this thread return to its network namespace in the end."""
    before = os.open(OWN, os.O_RDONLY)
    try:
        yield
    finally:
        enter_network(before)
        os.close(before)


def move_to_new_host() -> None:
    """Move this thread to a new network namespace, which has a loopback."""
    assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    with netlink("a test") as connection:
        connection.link("set", index=1, state="up")


def give_address(connection: Any, address: str, address6: str) -> None:
    """Set eth0 up."""
    index = socket.if_nametoindex("eth0")
    connection.addr("add", index=index, address=address, prefixlen=24)
    connection.addr("add", index=index, address=address6, prefixlen=64, flags=IFA_F_NODAD)
    connection.link("set", index=index, state="up")


def nft(*arguments: str) -> str:
    """What nft(8) prints."""
    command = [str(find_nft()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
