"""Who may ask: what the manager listens on, and how it knows each caller.

| it listens on       | a caller is                                        | and may         |
|---------------------|----------------------------------------------------|-----------------|
| a loopback address  | anyone on this host: "loopback"                    | do everything   |
| a unix socket       | the peer's uid, as the kernel knows it: "uid 1000" | do everything   |
| anything, with keys | the token's or the client certificate's name       | what its role is|

Only the last can be reached from another host, and only over TLS.

A token is 256 random bits, so a plain SHA-256 is safe: no one can guess a token from its hash. A
slow hash (scrypt) protects passwords that people think up; here it would only let anyone cost the
manager a twentieth of a second per request.
"""

from __future__ import annotations

import binascii
import os
import re
import socket
import struct
from base64 import urlsafe_b64decode
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Protocol

from attrs import define, field
from twisted.logger import Logger

from txcontain.errors import Forbidden

READ, WRITE = "read", "write"
READING = (b"GET", b"HEAD", b"OPTIONS")  # the safe methods (RFC 9110, 9.2.1)
TOKEN_LINE = re.compile(r"([\w.@-]{1,64}) (read|write) ([0-9a-f]{64})", re.ASCII)
BEARER = re.compile(rb"bearer +([\w.~+/-]+=*) *", re.ASCII | re.IGNORECASE)  # RFC 6750, 2.1
WEBSOCKET_TOKEN = re.compile(
    rb"(?:.*[ ,])?base64url\.bearer\.authorization\.k8s\.io\.([\w-]+)(?:[ ,].*)?", re.ASCII
)
OTHERS_MAY_WRITE = 0o022
READ_ONLY = partial(
    Forbidden,
    "this caller has read-only access",
    "use a token whose role is write: `txcontain token NAME write` makes one",
)


@define(frozen=True)
class Caller:
    """Who sent a request."""

    name: str  # as the journal has it
    role: str = WRITE

    def may(self, method: bytes) -> bool:
        """Whether the role allows an HTTP method."""
        return self.role == WRITE or method in READING


class Access(Protocol):
    """Knows the callers of one listening socket."""

    def caller(self, transport: Any, authorization: bytes | None) -> Caller | None:
        """Who sent a request.

        :param transport: the connection's
        :param authorization: the value of the header
        :return: None if unknown: the request is to be refused
        """


class Loopback:
    """Everyone who can reach this host's loopback interface."""

    def caller(self, transport: Any, authorization: bytes | None) -> Caller:
        """Anyone."""
        return Caller("loopback")


class Peers:
    """Everyone who may open the unix socket."""

    def caller(self, transport: Any, authorization: bytes | None) -> Caller:
        """The user whom the kernel saw connect (SO_PEERCRED, unix(7))."""
        credentials = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("iII", credentials)
        return Caller(f"uid {uid}")


@define
class Keys:
    """Callers with a token, or with a certificate that TLS has verified."""

    tokens: Tokens | None
    certificates: bool

    def caller(self, transport: Any, authorization: bytes | None) -> Caller | None:
        """Whose the certificate or the token is."""
        if self.certificates and (certificate := transport.getPeerCertificate()):
            name = certificate.get_subject().CN
            return Caller(f"certificate {name}") if name else None
        match = BEARER.fullmatch(authorization or b"")
        return self.tokens.caller(match[1]) if self.tokens and match else None


def token_of_websocket(protocols: bytes | None) -> bytes | None:
    """The value of Authorization that a browser can only send as a subprotocol, as in Kubernetes.

    A page's script can't set a header of a WebSocket's handshake.
    """
    match = WEBSOCKET_TOKEN.fullmatch(protocols or b"")
    if not match:
        return None
    try:
        return b"Bearer " + urlsafe_b64decode(match[1] + b"==")
    except binascii.Error:
        return None


@define
class Tokens:
    """The tokens in a file, which is read again after every change."""

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
        """Read the file if it has changed; if that fails, no token is known."""
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

    Raises OSError; ValueError if a line is malformed, or if others than the owner can write to it.
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
