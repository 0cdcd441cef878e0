"""DNS queries as they come: what of them may be decoded.

Twisted's decoder has no bounds. So nothing is decoded but a header and one question, whose name
is 255 bytes long at most (RFC 1035, 2.3.4).
"""

from __future__ import annotations

import struct

from twisted.names import dns

HEADER = struct.Struct(">HHHHHH")  # RFC 1035, 4.1.1: its number, its flags, and four counts
RESPONSE, OPCODE, OPCODE_AND_RD = 0x8000, 0x7800, 0x7900  # of the flags
LONGEST_NAME, LONGEST_LABEL = 255, 63  # bytes
LONGEST = 4096  # bytes of a query: a question, and the options of its sender


class Refused(Exception):
    """A query that is not decoded. ``code`` says why (RFC 1035, 4.1.1)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def cut_down(query: bytes) -> bytes:
    """A query's header and its question, without what may follow them.

    Raises Refused.
    """
    number, flags, questions, answers, *_ = HEADER.unpack_from(query)
    if flags & OPCODE:
        raise Refused(dns.ENOTIMP)
    if questions != 1 or answers:
        raise Refused(dns.EFORMAT)
    end = HEADER.size
    try:
        while length := query[end]:
            end += 1 + length
            if length > LONGEST_LABEL or end - HEADER.size >= LONGEST_NAME:
                raise Refused(dns.EFORMAT)
    except IndexError:
        raise Refused(dns.EFORMAT) from None
    end += 1 + 4  # the root's label, the type and the class
    if end > len(query):
        raise Refused(dns.EFORMAT)
    return HEADER.pack(number, flags, 1, 0, 0, 0) + query[HEADER.size : end]


def is_query(message: bytes) -> bool:
    """Whether a message is a query, and so to be answered."""
    return len(message) >= HEADER.size and not HEADER.unpack_from(message)[1] & RESPONSE


def refusal(query: bytes, code: int) -> bytes:
    """The answer to a query that is not decoded: only a header."""
    number, flags, *_ = HEADER.unpack_from(query)
    return HEADER.pack(number, RESPONSE | flags & OPCODE_AND_RD | code, 0, 0, 0, 0)
