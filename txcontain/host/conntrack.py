"""The kernel's table of connections (nf_conntrack): which of them lead to an address.

It is asked by netlink, since an ordinary kernel has no /proc/net/nf_conntrack any more. The kernel
itself finds the entries of an address (Linux 5.8): a table may hold a million.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import islice

from txcontain.host.netlink import (
    ATTRIBUTE,
    NESTED,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLM_F_REQUEST_DUMP,
    Attributes,
    answers,
    attributes,
)
from txcontain.host.sockets import is_own

# <linux/netfilter/nfnetlink.h>, <linux/netfilter/nfnetlink_conntrack.h>
NETLINK_NETFILTER, OWN_HEADER = 12, 4  # bytes of a struct nfgenmsg
GET, DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK, and a message of it
HEADER = struct.Struct("=IHHIIBBH")  # a struct nlmsghdr, and a struct nfgenmsg
TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, PROTOCOL_INFO, TIMEOUT, FILTER = 1, 2, 3, 4, 7, 25
SEEN_REPLY = 0x2  # enum ip_conntrack_status
TUPLE_IP, TUPLE_PROTOCOL, PROTOCOL_NUMBER, TO_PORT = 1, 2, 1, 3
SOURCE, DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}  # by the version of IP, as are the families
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
INFO_TCP, TCP_STATE = 1, 1
FILTER_ORIGINAL, FILTER_REPLY = 1, 2
BY_SOURCE, BY_PROTOCOL, BY_PORT = 1 << 0, 1 << 3, 1 << 5
# From SYN_SENT to CLOSE_WAIT. In the others both ends have closed: the entry stays for minutes.
LIVE = range(1, 6)  # enum tcp_conntrack
# How long the entry stays in each of the others: settings in /proc/sys/net/netfilter.
STAYS = {6: "last_ack", 7: "time_wait", 8: "close"}
MOST, MOST_FORGOTTEN = 1000, 100_000  # flows that are counted; that are forgotten
WITHIN = 5.0  # seconds for the kernel to answer
Address = IPv4Address | IPv6Address


def flows_to(address: Address) -> int:
    """How many live connections lead to an address, MOST at most. Blocks; raises OSError.

    A flow of UDP lives until the kernel forgets it: after 30 or 120 seconds of silence.
    """
    count = 0
    with _table() as kernel:
        for entry in _entries(kernel, address):
            count += _is_live(entry)
            if count == MOST:
                break
    return count


def quiet_for(address: Address) -> float:
    """For how many seconds no connection to an address has been alive; 0 if one is.

    Infinity if the table has none, not even one that is over. Blocks; raises OSError.
    """
    quiet = math.inf
    with _table() as kernel:
        for entry in _entries(kernel, address, socket.IPPROTO_TCP):
            quiet = min(quiet, _over_for(entry))
            if not quiet:
                break
    return quiet


def _over_for(entry: Attributes) -> float:
    """How many seconds ago a connection of TCP has ended; 0 if it has not."""
    info = attributes(entry.get(PROTOCOL_INFO, b"")).get(INFO_TCP)
    state = attributes(info)[TCP_STATE][0] if info else 0
    if state not in STAYS or TIMEOUT not in entry:
        return 0.0
    left = int.from_bytes(entry[TIMEOUT], "big")
    with open(f"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{STAYS[state]}") as file:
        return max(0.0, float(file.read()) - left)


def forget_datagrams_to(address: Address) -> None:
    """Have the kernel forget the flows of UDP that lead to an address. Blocks; raises OSError.

    What their clients go on sending is then taken for new flows.
    """
    with _table() as kernel:
        entries = _entries(kernel, address, socket.IPPROTO_UDP)
        _delete(kernel, address.version, list(islice(entries, MOST_FORGOTTEN)))


def forget_strays(port: int) -> None:
    """Have the kernel forget flows of UDP to a port of the host that nothing has answered.

    They would never reach whom the port leads to from now on, if their clients are never silent
    for 30 seconds. Blocks; raises OSError.
    """
    number = _attribute(PROTOCOL_NUMBER, bytes([socket.IPPROTO_UDP]))
    transport = _nested(TUPLE_PROTOCOL, number + _attribute(TO_PORT, struct.pack(">H", port)))
    fields = _attribute(FILTER_ORIGINAL, struct.pack("=I", BY_PROTOCOL | BY_PORT))
    wanted = _nested(TUPLE_ORIGINAL, transport) + _nested(FILTER, fields)
    for version in FAMILIES:
        with _table() as kernel:
            kernel.send(_message(GET, NLM_F_REQUEST_DUMP, version, wanted))
            entries = islice(_answers(kernel), MOST_FORGOTTEN)
            _delete(kernel, version, [one for one in entries if _is_stray(one, version)])


def _is_stray(entry: Attributes, version: int) -> bool:
    """Whether no one has answered it yet, and it leads to the host itself."""
    to = _ends(entry[TUPLE_ORIGINAL])[DESTINATION[version]]
    answered = struct.unpack(">I", entry[STATUS])[0] & SEEN_REPLY
    is_led = _ends(entry[TUPLE_REPLY])[SOURCE[version]] != to
    return not answered and not is_led and is_own(socket.inet_ntop(FAMILIES[version], to))


def _ends(of_tuple: bytes) -> Attributes:
    return attributes(attributes(of_tuple)[TUPLE_IP])


def _delete(kernel: socket.socket, version: int, entries: list[Attributes]) -> None:
    for entry in entries:
        key = _nested(TUPLE_ORIGINAL, entry[TUPLE_ORIGINAL])
        kernel.send(_message(DELETE, NLM_F_REQUEST | NLM_F_ACK, version, key))
        kernel.recv(1 << 16)  # its answer; an entry that is not there any more is well


def _table() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    kernel.settimeout(WITHIN)
    return kernel


def _entries(
    kernel: socket.socket, address: Address, protocol: int | None = None
) -> Iterator[Attributes]:
    """The entries of the table whose answers come from an address, by one protocol or any."""
    wanted = _wanted(address, protocol) if address.version == 4 else b""
    kernel.send(_message(GET, NLM_F_REQUEST_DUMP, address.version, wanted))
    for entry in _answers(kernel):
        if address.version == 4 or _comes_from(entry[TUPLE_REPLY], address, protocol):
            yield entry


def _wanted(address: Address, protocol: int | None) -> bytes:
    """What the kernel is to compare entries with: it has left out the wrong ones of IPv6."""
    wanted, by = _nested(TUPLE_IP, _attribute(SOURCE[address.version], address.packed)), BY_SOURCE
    if protocol is not None:
        wanted += _nested(TUPLE_PROTOCOL, _attribute(PROTOCOL_NUMBER, bytes([protocol])))
        by |= BY_PROTOCOL
    fields = _nested(FILTER, _attribute(FILTER_REPLY, struct.pack("=I", by)))
    return _nested(TUPLE_REPLY, wanted) + fields


def _comes_from(reply: bytes, address: Address, protocol: int | None) -> bool:
    """The same comparison, done here."""
    if address.packed not in reply:
        return False
    transport = attributes(attributes(reply)[TUPLE_PROTOCOL])
    is_from = _ends(reply)[SOURCE[address.version]] == address.packed
    return is_from and protocol in (None, transport[PROTOCOL_NUMBER][0])


def _answers(kernel: socket.socket) -> Iterator[Attributes]:
    """The entries that the kernel tells. Raises OSError."""
    return (attributes(answer[OWN_HEADER:]) for answer in answers(kernel))


def _is_live(entry: Attributes) -> bool:
    """Whether packets may come yet. Only TCP tells a state."""
    info = attributes(entry.get(PROTOCOL_INFO, b"")).get(INFO_TCP)
    return info is None or attributes(info)[TCP_STATE][0] in LIVE


def _message(kind: int, flags: int, version: int, wanted: bytes) -> bytes:
    size, family = HEADER.size + len(wanted), FAMILIES[version]
    return HEADER.pack(size, kind, flags, 0, 0, family, 0, 0) + wanted


def _nested(kind: int, held: bytes) -> bytes:
    return _attribute(kind | NESTED, held)


def _attribute(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 4)
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + padding
