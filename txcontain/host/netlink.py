"""What the kernel answers on a socket of netlink(7): messages, and the attributes in them."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

# <linux/netlink.h>
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REQUEST_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x1, 0x4, 0x301, 2, 3
NESTED = 0x8000
HEADER = struct.Struct("=IHHII")  # a struct nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # a struct nlattr
Attributes = dict[int, bytes]


def answers(kernel: socket.socket) -> Iterator[bytes]:
    """What the messages hold that answer one question. Raises OSError, also if it was refused."""
    while True:
        received = memoryview(kernel.recv(1 << 16))
        while received:
            size, kind, *_ = HEADER.unpack_from(received)
            held = received[HEADER.size : size]
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                if number := -struct.unpack_from("=i", held)[0]:
                    raise OSError(number, os.strerror(number))
                return
            yield bytes(held)
            received = received[size:]


def attributes(data: bytes) -> Attributes:
    """Attributes, by their kinds."""
    found: Attributes = {}
    while data:
        size, kind = ATTRIBUTE.unpack_from(data)
        found[kind & ~NESTED] = data[ATTRIBUTE.size : size]
        data = data[size + 3 & ~3 :]
    return found
