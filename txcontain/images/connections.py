"""Connections to registries: whose certificates are trusted, and how they are cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import define, field, frozen
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from txcontain.host.files import read_file
from txcontain.images.answers import make_pool

CONNECT_WITHIN = 15.0  # seconds
MOST_KEPT, KEPT_FOR = 4, 30  # connections that wait for the next request, and seconds
LONGEST_FILE = 1 << 20  # bytes, of one of ours


@frozen
class Trust:
    """Trusts the CA in FOLDER/HOST[:PORT]/ca.crt if there is one, and else those of this system."""

    folder: str

    def creatorForNetloc(self, host: bytes, port: int) -> Any:
        """What checks the certificate of a host."""
        name = host.decode("ascii")
        for place in (f"{name}:{port}", name):
            with suppress(FileNotFoundError):
                text = read_file(os.path.join(self.folder, place, "ca.crt"), LONGEST_FILE)
                found = map(X509.from_cryptography, load_pem_x509_certificates(text))
                return optionsForClientTLS(name, trustRootFromCertificates(map(Certificate, found)))
        return optionsForClientTLS(name)


@implementer(IStreamClientEndpoint)
@frozen
class Noted:
    """An endpoint of which each connection is noted."""

    endpoint: Any  # an IStreamClientEndpoint
    note: Callable[[Any], None]

    def connect(self, factory: Any) -> Any:
        """Connect."""
        return self.endpoint.connect(factory).addCallback(self._made)

    def _made(self, protocol: Any) -> Any:
        self.note(protocol)
        return protocol


@implementer(IAgentEndpointFactory)
@define(eq=False)
class Connections:
    """Makes connections that can be cut.

    To close one as usual, with TLS, takes the other side too: it may go on to send, or be silent.
    """

    reactor: Any
    trust: Trust
    pool: HTTPConnectionPool = field(init=False)
    _made: list[Any] = field(factory=list)  # protocols, each right on its TCP connection

    def __attrs_post_init__(self) -> None:
        self.pool = make_pool(self.reactor)
        self.pool.maxPersistentPerHost = MOST_KEPT
        self.pool.cachedConnectionTimeout = KEPT_FOR

    def endpointForURI(self, uri: Any) -> Any:
        """What connects to a host."""
        name = uri.host.decode("ascii")
        direct = HostnameEndpoint(self.reactor, name, uri.port, timeout=CONNECT_WITHIN)
        noted: Any = Noted(direct, self._note)
        if uri.scheme != b"https":
            return noted
        return wrapClientTLS(self.trust.creatorForNetloc(uri.host, uri.port), noted)

    def _note(self, protocol: Any) -> None:
        self._made = [*(one for one in self._made if one.transport.connected), protocol]

    def cut(self) -> None:
        """Cut all of them."""
        self.pool.closeCachedConnections()
        for protocol in self._made:
            protocol.transport.abortConnection()
