"""How the manager is reached: over TCP, over TLS, or by a unix socket."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from txcontain.cli.errors import CliError

Way: TypeAlias = Callable[[URI], Any]  # to an address's IStreamClientEndpoint
QUICK = 15  # seconds until an attempt, or the wait for an answer, is given up
HERE = ("localhost", "127.0.0.1", "::1")
UNIT = Path("/etc/systemd/system/txcontain.service")
CHECKOUT = Path(__file__).resolve().parents[2]


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Connects to each address by `way`."""

    def __init__(self, way: Way) -> None:
        self.endpointForURI = way


def agent(reactor: Any, way: Way) -> Any:
    """Return an agent that sends requests to a manager on this way."""
    return Agent.usingEndpointFactory(reactor, Endpoints(way))


def way_to(url: str, reactor: Any, token: str | None, **files: Path | None) -> Way:
    """Return the way to a manager.

    :param url: unix:/path, http://host:port or https://host:port
    :param token: what will be sent along
    :param files: ca, cert and key, in PEM form, for https
    :raises CliError: if the token would be there for others to read, or a file can't be used
    """
    parts = urlsplit(url)
    if parts.scheme == "http" and token and parts.hostname not in HERE:
        raise CliError(f"Anyone on the way could read the token over {url}: use https.")
    if parts.scheme == "unix":
        return by_unix_socket(reactor, parts.path)
    host = parts.hostname or ""
    way = over_tcp(reactor, host)
    return over_tls(way, host, **files) if parts.scheme == "https" else way


def request_url(url: str) -> str:
    """Return the URL that requests to a manager carry.

    It names localhost for a unix socket or an IPv6 address: treq accepts neither.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return "http://localhost"
    if ":" not in (parts.hostname or ""):
        return url
    return parts._replace(netloc=f"localhost:{parts.port}" if parts.port else "localhost").geturl()


def by_unix_socket(reactor: Any, path: str) -> Way:
    """Return the way to a unix socket, which is the same for all addresses."""
    return lambda uri: UNIXClientEndpoint(reactor, path, timeout=QUICK)


def over_tcp(reactor: Any, host: str) -> Way:
    """Return the way to a host: all its addresses are tried at once.

    "localhost" often stands for ::1 and for 127.0.0.1, and the manager listens on
    one of them. Twisted's default tries the second 0.3 s after the first.
    """
    return lambda uri: HostnameEndpoint(reactor, host, uri.port, timeout=QUICK, attemptDelay=0)


def over_tls(
    connect: Way,
    host: str,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
) -> Way:
    """Return the way to a host whose certificate is verified.

    :param connect: the way there
    :param ca: the CA to trust; None: those that this system trusts
    :param cert: the client certificate, with its `key`
    :raises CliError: if a file can't be used
    """
    from twisted.internet.ssl import optionsForClientTLS

    trusted = loaded(load_ca, ca) if ca else None
    shown = loaded(load_pair, cert, key or cert) if cert else None

    def way(uri: URI) -> Any:
        options = optionsForClientTLS(host, trusted, shown)
        return wrapClientTLS(options, connect(uri))

    return way


def loaded(load: Callable[[bytes], Any], *files: Path | None) -> Any:
    """Return what `load` makes of the files, joined.

    :raises CliError: if one can't be read, or is not PEM
    """
    from OpenSSL.crypto import Error

    try:
        return load(b"\n".join(file.read_bytes() for file in files if file))
    except OSError as error:
        raise CliError(f"Can't read {error.filename}: {error.strerror}.") from error
    except (Error, ValueError) as error:
        names = " and ".join(map(str, dict.fromkeys(files)))
        raise CliError(f"{names}: this is not what it should be, in PEM form.") from error


def load_ca(text: bytes) -> Any:
    """Return trust in the certificates of a text."""
    from cryptography.x509 import load_pem_x509_certificates
    from OpenSSL.crypto import X509
    from twisted.internet.ssl import Certificate, trustRootFromCertificates

    found = map(X509.from_cryptography, load_pem_x509_certificates(text))
    return trustRootFromCertificates(map(Certificate, found))


def load_pair(text: bytes) -> Any:
    """Return the certificate and its key of a text."""
    from twisted.internet.ssl import PrivateCertificate

    return PrivateCertificate.loadPEM(text)


def how_to_start(url: str) -> str:
    """Return how to start a manager at this address, given what is installed here."""
    parts = urlsplit(url)
    if parts.scheme != "unix" and parts.hostname not in HERE:
        return "start the manager on that host"
    if UNIT.exists():
        return "start the manager with `systemctl start txcontain`"
    if (CHECKOUT / "Makefile").exists():
        return f"start the manager with `make manager` in {CHECKOUT}"
    return "start the manager with `twistd containerd-lite`"


def distrust(error: Exception) -> str:
    """Return why TLS failed, if that is why a request failed; else an empty string."""
    for reason in getattr(error, "reasons", ()):
        if type(reason.value).__module__.partition(".")[0] in ("OpenSSL", "service_identity"):
            return f"{reason.value} (--ca, --cert and --key say what to trust and show)"
    return ""
