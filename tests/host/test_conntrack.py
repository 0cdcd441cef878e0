"""The kernel's table of connections: what is asked of it, and how its answers are read."""

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host import conntrack
from txcontain.host.conntrack import flows_to, forget_datagrams_to, forget_strays

ADDRESS = IPv4Address("10.87.0.2")
DONE = struct.pack("=IHHIIi", 20, 3, 0, 0, 0, 0)


def attribute(kind: int, data: bytes) -> bytes:
    """A struct nlattr, with its padding."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def reply(source: IPv6Address, destination: IPv6Address, protocol: int) -> bytes:
    """The tuple of answers."""
    ends = attribute(3, source.packed) + attribute(4, destination.packed)
    return attribute(0x8001, ends) + attribute(0x8002, attribute(1, bytes([protocol])))


def entry(original: bytes, state: int | None = None, reply: bytes = b"", status: int = 0) -> bytes:
    """An entry of the table as the kernel tells it; only one of TCP has a state."""
    attributes = (
        attribute(0x8001, original)
        + attribute(0x8002, reply)
        + attribute(3, struct.pack(">I", status))
    )
    if state is not None:
        attributes += attribute(0x8004, attribute(0x8001, attribute(1, bytes([state]))))
    return struct.pack("=IHHIIBBH", 20 + len(attributes), 0x100, 2, 0, 0, 2, 0, 0) + attributes


def error(number: int) -> bytes:
    """An answer that only says whether it has worked."""
    return struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -number) + bytes(16)


class FakeTable:
    """A socket to the kernel that keeps questions, and has its answers given in advance."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []

    def __call__(self, *kind: int) -> Any:
        assert kind == (socket.AF_NETLINK, socket.SOCK_RAW, 12)
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        self.patience = seconds

    def send(self, message: bytes) -> None:
        self.asked.append(message)

    def recv(self, size: int) -> bytes:
        return self.answers.pop(0)


class TableTests(SynchronousTestCase):
    """What is read of some answers."""

    def answer(self, *answers: bytes) -> FakeTable:
        """Have the kernel answer this."""
        table = FakeTable(*answers)
        self.patch(socket, "socket", table)
        return table

    def test_live(self) -> None:
        """Only connections whose ends have not both closed count, and all flows without a state."""
        states = [entry(b"some", state) for state in range(10)]
        self.answer(b"".join(states) + entry(b"UDP"), entry(b"UDP"), DONE)
        self.assertEqual(flows_to(ADDRESS), 5 + 2)

    def test_question(self) -> None:
        """The kernel is asked only for what is answered from this address, and has a time-out."""
        table = self.answer(DONE)
        self.assertEqual(flows_to(ADDRESS), 0)
        (asked,) = table.asked
        self.assertEqual(len(asked), struct.unpack_from("=I", asked)[0])
        self.assertIn(attribute(0x8002, attribute(0x8001, attribute(1, ADDRESS.packed))), asked)
        self.assertEqual(table.patience, conntrack.WITHIN)

    def test_ipv6(self) -> None:
        """Of IPv6 all entries are told, and compared here: the other end, and another protocol."""
        here, there = IPv6Address("fd00::2"), IPv6Address("fd00::3")
        ends = [(here, there, 17), (there, here, 17), (here, there, 6), (there, there, 17)]
        entries = [
            entry(original=b"%d" % number, reply=reply(*end)) for number, end in enumerate(ends)
        ]
        table = self.answer(b"".join(entries), DONE)
        self.assertEqual(flows_to(here), 2)
        self.assertEqual(table.asked[0][16:], bytes([socket.AF_INET6, 0, 0, 0]))
        table = self.answer(b"".join(entries), DONE, error(0))
        forget_datagrams_to(here)
        self.assertEqual([one[20:] for one in table.asked[1:]], [attribute(0x8001, b"0")])

    def test_strays(self) -> None:
        """Only flows to the host itself that no one has answered are forgotten."""
        here, there = IPv6Address("::1"), IPv6Address("2001:db8::9")
        to_here, to_there = reply(there, here, 17), reply(here, there, 17)
        entries = [
            entry(to_here, reply=to_there, status=2),  # answered
            entry(to_here, reply=reply(there, there, 17)),  # led elsewhere
            entry(to_there, reply=to_here),  # to another host
            entry(to_here, reply=reply(here, there, 17)),
        ]
        self.patch(conntrack, "is_own", lambda address: address == "::1")
        table = self.answer(DONE, b"".join(entries), DONE, error(0))
        forget_strays(53)
        wanted = attribute(1, b"\x11") + attribute(3, b"\0\x35")
        self.assertIn(attribute(0x8001, attribute(0x8002, wanted)), table.asked[0])
        self.assertEqual([one[20:] for one in table.asked[2:]], [attribute(0x8001, to_here)])

    def test_very_many(self) -> None:
        """Counting ends with the thousandth: the rest is not even read."""
        table = self.answer(*[entry(b"some", 3) * 100] * 11)
        self.assertEqual(flows_to(ADDRESS), 1000)
        self.assertEqual(len(table.answers), 1)

    def test_refused(self) -> None:
        """What the kernel refuses is an OSError with its number."""
        self.answer(error(errno.EPERM))
        self.assertEqual(self.assertRaises(OSError, flows_to, ADDRESS).errno, errno.EPERM)

    def test_forgotten(self) -> None:
        """Each flow of UDP is deleted by its first direction; one that is gone is no error."""
        table = self.answer(entry(b"1234") + entry(b"5678"), DONE, error(0), error(errno.ENOENT))
        forget_datagrams_to(ADDRESS)
        question, *deletions = table.asked
        self.assertIn(attribute(0x8002, attribute(1, bytes([socket.IPPROTO_UDP]))), question)
        for original, deletion in zip((b"1234", b"5678"), deletions, strict=True):
            self.assertEqual(struct.unpack_from("=IHH", deletion), (len(deletion), 0x102, 5))
            self.assertEqual(deletion[20:], attribute(0x8001, original))
