"""The kernel's tables of sockets: which listen on a port, and which is at the other end.

Since Linux 5.9, sock_diag(7) also tells in which cgroup of version 2 a socket was made. That never
changes, even if another process has the socket by now.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from itertools import islice

from attrs import frozen

from txcontain.host.netlink import NLM_F_REQUEST, NLM_F_REQUEST_DUMP, answers, attributes
from txcontain.host.syscalls import enter_network

# The state of a socket that receives from anyone, in /proc/net/tcp and udp (proc_pid_net(5)).
LISTENING = {"tcp": "0A", "udp": "07"}
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
# <linux/sock_diag.h>, <linux/inet_diag.h>
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
ANY_STATE, NO_COOKIE, CGROUP_ID = 0xFFFFFFFF, 0xFFFFFFFF, 21
MESSAGE = 72  # bytes of a struct inet_diag_msg; attributes follow
LOOPBACK = "127.0.0.1"
ROOT = 1  # the number of the top cgroup
UNTOLD = 0  # instead of a cgroup's number
MOST_LISTENERS = 1000  # that we look at: a container can listen on one port any number of times


@frozen
class Socket:
    """A socket in a table of the kernel."""

    address: bytes
    inode: str
    group: int = UNTOLD  # the number of its cgroup; an old kernel may say ROOT for any


def listeners(port: int, network_of: int | str = "self", protocol: str = "tcp") -> list[Socket]:
    """The sockets that listen on a port, in the network namespace of a process."""
    try:
        return list(islice(_by_question(port, network_of, protocol), MOST_LISTENERS))
    except OSError:  # the kernel can't, or this process may not
        return list(islice(_by_table(port, network_of, protocol), MOST_LISTENERS))


def overlap(local: bytes, address: str) -> bool:
    """Whether a socket's IPv4 or IPv6 address is or covers this address, or the other way round."""
    if ":" in address:
        six = socket.inet_pton(socket.AF_INET6, address)
        return len(local) == 16 and (not any(six) or local in (bytes(16), six))
    wanted = socket.inet_aton(address)
    mapped = local[:-4] in (b"", bytes(12), bytes(10) + b"\xff\xff")  # as ::, ::ffff:a.b.c.d
    return not any(wanted) or (mapped and local[-4:] in (bytes(4), wanted))


def _by_table(port: int, network_of: int | str, protocol: str) -> Iterator[Socket]:
    """From /proc/net, which takes 10 ms: the kernel lists all connections too."""
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/{network_of}/net/{table}") as file:
                next(file)
                lines = [line.split(None, 10) for line in file]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for fields in lines:
            local, _, number = fields[1].partition(":")
            if fields[3] == LISTENING[protocol] and int(number, 16) == port:
                words = struct.iter_unpack(">I", bytes.fromhex(local))
                yield Socket(b"".join(struct.pack("=I", *word) for word in words), fields[9])


def _by_question(port: int, network_of: int | str, protocol: str) -> Iterator[Socket]:
    """From sock_diag(7), which takes 0.1 ms. Raises OSError if it can't be asked."""
    state = 1 << int(LISTENING[protocol], 16)
    with question_socket(network_of) as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            own_end = struct.pack(">H42x", port) + bytes(4)  # struct inet_diag_sockid
            kernel.send(_question(NLM_F_REQUEST_DUMP, family, PROTOCOLS[protocol], state, own_end))
            yield from (_read(answer, family) for answer in answers(kernel))


def _question(flags: int, family: int, protocol: int, states: int, sockid: bytes) -> bytes:
    """A struct nlmsghdr, and an inet_diag_req_v2."""
    header = struct.pack("=IHHII", 72, SOCK_DIAG_BY_FAMILY, flags, 0, 0)
    return header + struct.pack("=BBBxI", family, protocol, 0, states) + sockid


def question_socket(network_of: int | str) -> socket.socket:
    """A socket for sock_diag(7) in the network namespace of a process."""
    return socket_in(network_of, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)


def socket_in(network_of: int | str, *kind: int) -> socket.socket:
    """A socket in the network namespace of a process, where it stays; this thread does not.

    Raises OSError.
    """
    if network_of == "self":
        return socket.socket(*kind)
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        process = os.pidfd_open(int(network_of))  # costs less than its link in /proc
        try:
            enter_network(process)
        finally:
            os.close(process)
        try:
            return socket.socket(*kind)
        finally:
            enter_network(here)
    finally:
        os.close(here)


def connect(port: int, network_of: int | str = "self") -> socket.socket:
    """Begin to connect to a port of 127.0.0.1, in the network namespace of a process.

    The socket does not block. Raises OSError: ConnectionRefusedError if it is refused at once.
    """
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    connection = socket_in(network_of, socket.AF_INET, kind)
    failed = connection.connect_ex((LOOPBACK, port))
    if failed and failed != errno.EINPROGRESS:
        connection.close()
        raise OSError(failed, os.strerror(failed))
    return connection


def _read(answer: bytes, family: int) -> Socket:
    """A struct inet_diag_msg, and the attributes that follow it."""
    length = 4 if family == socket.AF_INET else 16
    inode = struct.unpack_from("=I", answer, MESSAGE - 4)[0]
    group = attributes(answer[MESSAGE:]).get(CGROUP_ID, bytes(8))  # if it is not told: UNTOLD
    return Socket(answer[8 : 8 + length], str(inode), *struct.unpack("=Q", group))


def group_of_peer(own: tuple[str, int], peer: tuple[str, int]) -> int | None:
    """The number of the cgroup of the socket at the other end of a TCP connection.

    None if this network namespace has no such socket (any more). Raises OSError if the kernel
    can't be asked.
    """
    family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
    hosts = [_packed(family, host).ljust(16, b"\0") for host, _ in (peer, own)]
    sockid = struct.pack(">HH16s16s", peer[1], own[1], *hosts)
    sockid += struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
    with question_socket("self") as kernel:
        kernel.send(_question(NLM_F_REQUEST, family, socket.IPPROTO_TCP, ANY_STATE, sockid))
        try:
            found = _read(next(answers(kernel)), family)
        except FileNotFoundError:
            return None
    # A connection whose socket was closed (TIME_WAIT) has no cgroup any more.
    return None if (found.inode, found.group) == ("0", UNTOLD) else found.group


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host.partition("%")[0])  # without the interface's name


def is_own(host: str) -> bool:
    """Whether an address is one of this host: a socket can be bound only to such a one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        try:
            trial.bind((host, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def has_hung_up(descriptor: int) -> bool:
    """Whether the other end of a connection will send no more, also if much is unread (poll(2))."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)  # POLLHUP and POLLERR are always told
    return bool(poll.poll(0))


def send_now(connection: socket.socket, message: bytes, *descriptors: int) -> int:
    """Send what fits into a socket's buffer; returns how many bytes that is.

    It is 0 if the other end has hung up: the reactor says so in its next turn. Descriptors go with
    the first byte (unix(7), SCM_RIGHTS).
    """
    try:
        if descriptors:
            return socket.send_fds(connection, [message], list(descriptors))
        return connection.send(message)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return 0
