"""Who may ask: what the manager listens on, and how each caller is told from another.

| it listens on       | a caller is                                        | and may         |
|---------------------|----------------------------------------------------|-----------------|
| a loopback address  | whoever is on this host: "loopback"                | do all          |
| a unix socket       | the peer's uid, as the kernel knows it: "uid 1000" | do all          |
| anything, with keys | the token's or the client certificate's name       | what it is for  |

Only the last may be reached from another host, and only over TLS.

A token is 256 random bits, so its hash is a plain SHA-256: there are too many tokens to guess
one from its hash, however fast that is. A slow hash (scrypt) protects what people think up, and
would let anyone make the manager work for a twentieth of a second by sending nonsense.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Protocol

from attrs import define, field
from twisted.logger import Logger

READ, WRITE = "read", "write"
READING = (b"GET", b"HEAD", b"OPTIONS")  # the safe methods (RFC 9110, 9.2.1)
TOKEN_LINE = re.compile(r"([\w.@-]{1,64}) (read|write) ([0-9a-f]{64})", re.ASCII)
BEARER = re.compile(rb"bearer +([\w.~+/-]+=*) *", re.ASCII | re.IGNORECASE)  # RFC 6750, 2.1
OTHERS_MAY_WRITE = 0o022


@define(frozen=True)
class Caller:
    """Who asks."""

    name: str  # as the journal has it
    role: str = WRITE

    def may(self, method: bytes) -> bool:
        """Whether the role is enough for an HTTP method."""
        return self.role == WRITE or method in READING


class Access(Protocol):
    """Tells the callers of one listening socket from each other."""

    def caller(self, transport: Any, authorization: bytes | None) -> Caller | None:
        """Who sent a request.

        :param transport: the connection's
        :param authorization: the value of the header
        :return: None where that is not known, and so the request is to be refused
        """


class Loopback:
    """All who can reach this host's loopback interface."""

    def caller(self, transport: Any, authorization: bytes | None) -> Caller:
        """Anyone."""
        return Caller("loopback")


class Peers:
    """All who may open the unix socket."""

    def caller(self, transport: Any, authorization: bytes | None) -> Caller:
        """The user whom the kernel saw connect (SO_PEERCRED, unix(7))."""
        credentials = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("iII", credentials)
        return Caller(f"uid {uid}")


@define
class Keys:
    """Those who have a token, or a certificate that TLS has verified."""

    tokens: Tokens | None
    certificates: bool

    def caller(self, transport: Any, authorization: bytes | None) -> Caller | None:
        """Whose the certificate or the token is."""
        if self.certificates and (certificate := transport.getPeerCertificate()):
            name = certificate.get_subject().CN
            return Caller(f"certificate {name}") if name else None
        match = BEARER.fullmatch(authorization or b"")
        return self.tokens.caller(match[1]) if self.tokens and match else None


@define
class Tokens:
    """The tokens of a file, which is read again when it has changed."""

    path: str
    _callers: list[tuple[str, Caller]] = field(factory=list)  # each with its token's hash
    _read: tuple[int, ...] = ()
    _log: Logger = field(factory=Logger)

    def caller(self, token: bytes) -> Caller | None:
        """Whose a token is."""
        self._read_again()
        digest = sha256(token).hexdigest()
        found = [caller for known, caller in self._callers if compare_digest(known, digest)]
        return found[0] if found else None

    def _read_again(self) -> None:
        """Know what the file says now; where it can't be used, know no one."""
        try:
            status = os.stat(self.path)
            version = status.st_ctime_ns, status.st_ino
            if version != self._read:
                self._read, self._callers = version, []
                self._callers = read_tokens(self.path)
        except (OSError, ValueError) as error:
            self._callers = []
            self._log.error("no token is known: {error}", error=error)


def read_tokens(path: str) -> list[tuple[str, Caller]]:
    """The callers in a file of lines NAME ROLE HASH, each with its hash.

    Raises OSError; ValueError where a line is none, or others than its owner may write there.
    """
    with open(path, encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & OTHERS_MAY_WRITE or status.st_uid not in (0, os.geteuid()):
            raise ValueError(f"others than root can write to {path}: chown root, chmod 600")
        lines = [line.strip() for line in file]
    return [
        _parsed(path, number, line)
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]


def _parsed(path: str, number: int, line: str) -> tuple[str, Caller]:
    match = TOKEN_LINE.fullmatch(line)
    if not match:
        raise ValueError(f"line {number} of {path} is not NAME read|write HASH: `txcontain token`")
    return match[3], Caller(f"token {match[1]}", match[2])
