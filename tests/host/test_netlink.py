"""What the kernel answers on a socket of netlink: how its messages are read."""

import errno
import struct
from typing import Any
from unittest.mock import Mock

from twisted.trial.unittest import SynchronousTestCase

from txcontain.host.netlink import NLMSG_DONE, NLMSG_ERROR, answers, attributes


def message(kind: int, held: bytes) -> bytes:
    """A message, after a struct nlmsghdr."""
    return struct.pack("=IHHII", 16 + len(held), kind, 0, 0, 0) + held


def kernel(*received: bytes) -> Any:
    """A socket on which this is received."""
    return Mock(recv=Mock(side_effect=received))


class AnswersTests(SynchronousTestCase):
    """Messages."""

    def test_all(self) -> None:
        """Each is told, in however many parts they come, up to the one that says it is the last."""
        last = message(NLMSG_DONE, bytes(4)) + message(20, b"more")
        parts = message(20, b"some") + message(20, b"here"), message(20, b"last"), last
        self.assertEqual([*answers(kernel(*parts))], [b"some", b"here", b"last"])

    def test_errors(self) -> None:
        """An error is raised, also one that comes in the middle of a list; 0 says all is well."""
        for kind in (NLMSG_ERROR, NLMSG_DONE):
            found = answers(kernel(message(20, b"some"), message(kind, struct.pack("=i", -1))))
            self.assertEqual(next(found), b"some")
            self.assertEqual(self.assertRaises(OSError, next, found).errno, errno.EPERM)
            self.assertEqual([*answers(kernel(message(kind, bytes(4))))], [])

    def test_attributes(self) -> None:
        """They are told by their kinds, without padding, and whether or not they hold others."""
        data = struct.pack("=HH5s3x", 9, 1, b"whole") + struct.pack("=HH", 4, 0x8002)
        self.assertEqual(attributes(data), {1: b"whole", 2: b""})
