"""How the managers of a swarm are reached: by a unix socket, or over TLS with a certificate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import define
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509, Error
from treq.client import HTTPClient
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

CONNECT_WITHIN = 2.0  # seconds
KEPT = 8  # connections to each manager: a look takes three at the same time
CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"  # as Docker's clients call them

Certificates = tuple[Any, Any]  # who is trusted, and what is shown


@implementer(IAgentEndpointFactory)
@define(eq=False)
class Endpoints:
    """Connects to each address in the same way."""

    endpoint: Any  # an IStreamClientEndpoint

    def endpointForURI(self, uri: URI) -> Any:
        """The one."""
        return self.endpoint


def read_docker(text: str) -> list[str]:
    """The addresses in the option --docker. Raises ValueError, a sentence."""
    addresses = [part for part in text.split(",") if part]
    if not addresses or not all(map(_is_address, addresses)):
        raise ValueError(
            "--docker takes unix:/PATH or https://HOST:PORT, with ',' between several, "
            f"not {text!r}"
        )
    return addresses


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        host = parts.hostname and parts.port and not (parts.path.strip("/") or parts.username)
    except ValueError:
        return False
    return (
        parts.path.startswith("/")
        if parts.scheme == "unix"
        else bool(parts.scheme == "https" and host)
    )


def endpoint_of(reactor: Any, address: str, certificates: Certificates | None) -> Any:
    """How a manager is connected to: an IStreamClientEndpoint.

    :param address: one of ``read_docker``
    :param certificates: for https
    """
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return UNIXClientEndpoint(reactor, parts.path, timeout=CONNECT_WITHIN)
    trusted, shown = certificates or (None, None)
    host = parts.hostname or ""
    plain: Any = HostnameEndpoint(reactor, host, parts.port or 0, timeout=CONNECT_WITHIN)
    return wrapClientTLS(optionsForClientTLS(host, trusted, shown), plain)


def client_of(reactor: Any, endpoint: Any) -> HTTPClient:
    """What sends requests by way of such connections, and keeps them for the next."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = KEPT
    return HTTPClient(Agent.usingEndpointFactory(reactor, Endpoints(endpoint), pool))


def read_certificates(folder: str) -> Certificates:
    """What the option --docker-certificates leads to. Raises ValueError, a sentence."""
    try:
        ca, certificate, key = (Path(folder, name).read_bytes() for name in (CA, CERTIFICATE, KEY))
    except OSError as error:
        raise ValueError(
            f"--docker-certificates: {error.filename} can't be read: {error.strerror}"
        ) from error
    try:
        authorities = map(X509.from_cryptography, load_pem_x509_certificates(ca))
        return (
            trustRootFromCertificates(map(Certificate, authorities)),
            PrivateCertificate.loadPEM(certificate + b"\n" + key),
        )
    except (Error, ValueError) as error:
        names = f"{CA}, {CERTIFICATE} and {KEY}"
        raise ValueError(
            f"--docker-certificates: {os.path.abspath(folder)} holds no {names} in PEM form"
        ) from error
