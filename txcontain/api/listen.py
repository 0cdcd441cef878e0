"""What the manager listens on: the options, their checks, and the services they describe."""

from __future__ import annotations

import errno
import grp
import ipaddress
import os
import resource
import shutil
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.usage import UsageError

from txcontain.api.access import Keys, Loopback, Peers, Tokens, read_tokens
from txcontain.api.server import LOCAL_NAMES, ApiSite, ConnectionLimits
from txcontain.engine.interface import Engine
from txcontain.engine.manager import Manager
from txcontain.host.kernel import Kernel
from txcontain.options import number

MOST = 1_000_000  # connections, seconds
PARAMETERS: list[list[Any]] = [
    number("port", "p", 8080, "TCP port to answer on (0: only --unix-socket).", 0, 65535),
    ["interface", "i", "127.0.0.1", "Address to answer on; beyond loopback with TLS and keys."],
    ["unix-socket", None, None, "Path of a unix socket to answer on."],
    ["unix-group", None, None, "Group that may use the unix socket, beside root."],
    ["tls-cert", None, None, "PEM file of the TLS certificate, and of those up to its CA."],
    ["tls-key", None, None, "PEM file of the key of --tls-cert."],
    ["tls-client-ca", None, None, "PEM file of a CA: its client certificates may do everything."],
    ["tokens", None, None, "File of the tokens that TCP callers need; see docs/access.md."],
    number("max-connections", None, 1000, "How many connections to take on each socket.", 1, MOST),
    number(
        "request-timeout",
        None,
        30,
        "Seconds within which a whole request must have arrived.",
        1,
        MOST,
    ),
    number("idle-timeout", None, 60, "Seconds after which a silent connection is closed.", 1, MOST),
]
Options = MutableMapping[str, Any]

SOCKET_MODE = 0o660
BACKLOG = 1024  # connections that the kernel keeps until they are taken (max-connections: 1000)
ACCEPTS = 1  # connections taken in a turn of the reactor: those who come in crowds wait
ALL = {"", "0.0.0.0", "::"}  # mean every address of the host
PART = 3  # each socket may use a third of the descriptors: the rest is for containers

log = Logger()


class CannotStart(SystemExit, Exception):
    """The manager can't listen; the text, one sentence, says why and what to do.

    For twistd it is an error, so it cleans up. For Python it is the end of the program, so only
    the sentence is printed: a traceback would not help an administrator.
    """


def check(options: Options) -> None:
    """Refuse unsafe options, and read the keys.

    Raises UsageError, a sentence that says what to do.
    """
    for name in ("unix-socket", "tls-cert", "tls-key", "tls-client-ca", "tokens"):
        options[name] = options[name] and os.path.abspath(options[name])
    _check_together(options)
    _check_interface(options)
    if options["unix-group"]:
        options["unix-group"] = _group(options["unix-group"])
    if options["tokens"]:
        _read(read_tokens, options["tokens"])
    options["tls"] = _tls(options) if options["tls-cert"] else None


def _check_together(options: Options) -> None:
    for name, other in (
        ("tls-cert", "tls-key"),
        ("tls-key", "tls-cert"),
        ("tls-client-ca", "tls-cert"),
        ("unix-group", "unix-socket"),
    ):
        if options[name] and not options[other]:
            raise UsageError(f"--{name} needs --{other}")
    if not options["port"] and not options["unix-socket"]:
        raise UsageError("--port 0 needs --unix-socket: else no one could ask")


def _check_interface(options: Options) -> None:
    """Beyond loopback, require authentication and encryption, and all walls."""
    if not options["port"] or is_loopback(options["interface"]):
        return
    if options["allow-unsafe"]:
        raise UsageError("--allow-unsafe is only for a manager that answers on loopback addresses")
    if not _is_address(options["interface"]):
        raise UsageError(_no_address(options["interface"]))
    if not options["tls-cert"] or not (options["tokens"] or options["tls-client-ca"]):
        raise UsageError(
            f"--interface {options['interface']} can be reached from other hosts: that needs "
            "--tls-cert and --tls-key, and --tokens or --tls-client-ca (see docs/access.md)"
        )


def is_loopback(interface: str) -> bool:
    """Whether only this host can reach an address."""
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return interface == "localhost"


def _is_address(interface: str) -> bool:
    """Whether it is an IP address; a name is not, because it may lead elsewhere."""
    with suppress(ValueError):
        return interface in ALL or bool(ipaddress.ip_address(interface))
    return False


def _no_address(interface: str) -> str:
    return (
        f"--interface {interface} is not an address of this host: give one of those that "
        "`ip address` shows, or leave it out"
    )


def _group(name: str) -> int:
    with suppress(KeyError):
        return grp.getgrgid(int(name)).gr_gid if name.isdecimal() else grp.getgrnam(name).gr_gid
    raise UsageError(f"--unix-group: this host has no group {name}")


def _read(reader: Any, path: str) -> Any:
    try:
        return reader(path)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _tls(options: Options) -> Any:
    """The IOpenSSLContextFactory of all TLS connections."""
    from OpenSSL.SSL import Error
    from twisted.internet.ssl import CertificateOptions

    own, *chain = _certificates(options["tls-cert"])
    ca = _certificates(options["tls-client-ca"]) if options["tls-client-ca"] else None
    made = CertificateOptions(
        privateKey=_key(options["tls-key"]),
        certificate=own,
        extraCertChain=chain,
        verify=bool(ca),
        caCerts=ca,
        requireCertificate=not options["tokens"],  # otherwise a token is enough
    )
    try:
        made.getContext()
    except Error as error:
        raise UsageError("--tls-key is not the key of --tls-cert") from error
    return made


def _certificates(path: str) -> list[Any]:
    """The X509 objects of a PEM file."""
    from cryptography.x509 import load_pem_x509_certificates
    from OpenSSL.crypto import X509

    def load(path: str) -> list[Any]:
        try:
            found = load_pem_x509_certificates(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} holds no certificates in PEM form") from error
        return [X509.from_cryptography(certificate) for certificate in found]

    certificates: list[Any] = _read(load, path)
    return certificates


def _key(path: str) -> Any:
    """The PKey object of a PEM file."""
    from OpenSSL.crypto import FILETYPE_PEM, Error, load_privatekey

    def load(path: str) -> Any:
        try:
            return load_privatekey(FILETYPE_PEM, Path(path).read_bytes(), b"")
        except (Error, ValueError) as error:
            raise ValueError(f"{path} holds no key in PEM form without a passphrase") from error

    return _read(load, path)


def listeners(options: Options, engine: Engine) -> Iterator[Service]:
    """A service for each socket that the manager listens on."""
    limits = _limits(options)
    if options["port"]:
        keys = _keys(options)
        # Over TLS the certificate proves the name: a web page can't use another one.
        names = None if keys and options["tls"] else LOCAL_NAMES | {options["interface"]}
        factory: Any = ApiSite(engine, names, keys or Loopback(), limits)
        if options["tls"]:
            factory = _over_tls(options["tls"], factory)
        yield TcpListener(options["port"], options["interface"], factory, engine.host)
    if options["unix-socket"]:
        site = ApiSite(engine, None, Peers(), limits)
        yield UnixListener(options["unix-socket"], options["unix-group"], site, engine.host.reactor)


def _limits(options: Options) -> ConnectionLimits:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = min(options["max-connections"], most // PART)
    if connections < options["max-connections"]:
        log.warn(
            "{few} connections at most: {most} descriptors (ulimit -n) are not enough for more",
            few=connections,
            most=most,
        )
    return ConnectionLimits(connections, options["request-timeout"], options["idle-timeout"])


def _keys(options: Options) -> Keys | None:
    if not options["tokens"] and not options["tls-client-ca"]:
        return None
    tokens = Tokens(options["tokens"]) if options["tokens"] else None
    return Keys(tokens, certificates=bool(options["tls-client-ca"]))


def _over_tls(tls: Any, factory: Any) -> Any:
    from twisted.protocols.tls import TLSMemoryBIOFactory

    return TLSMemoryBIOFactory(tls, False, factory)


class Patient(tcp.Port):
    """A listening socket that takes only ACCEPTS connections in a turn of the reactor.

    Twisted would take a hundred, and answer them all before anyone who is connected already.
    """

    def doRead(self) -> None:
        """Accept connections; those that are left make the reactor call again."""
        self.numberAccepts = ACCEPTS
        super().doRead()


class PatientUnix(Patient, unix.Port):
    """The same at a path."""


class Listener(Service):
    """Answers on a socket, from before the manager starts until it stops."""

    def __init__(self, port: Patient) -> None:
        self.port = port

    def privilegedStartService(self) -> None:
        """Listen. Raises CannotStart."""
        try:
            self.listen()
        except CannotListenError as error:
            raise CannotStart(self.explain(error.socketError)) from error
        except OSError as error:
            raise CannotStart(self.explain(error)) from error

    def stopService(self) -> Deferred[None] | None:
        """Listen no more."""
        super().stopService()
        stopped: Deferred[None] | None = self.port.stopListening()
        return stopped

    def listen(self) -> None:
        """Begin to listen. Raises CannotListenError or OSError."""
        self.port.startListening()

    def explain(self, error: OSError) -> str:
        """Why listening failed, and what to do."""
        raise NotImplementedError


class TcpListener(Listener):
    """Answers on a TCP port."""

    def __init__(self, port: int, interface: str, factory: Any, manager: Manager) -> None:
        super().__init__(Patient(port, factory, BACKLOG, interface, manager.reactor))
        self.number, self.interface, self.kernel = port, interface, manager.kernel

    def explain(self, error: OSError) -> str:
        """Who has the port, or that this host has no such address."""
        if error.errno == errno.EADDRINUSE:
            holder = holder_of(self.kernel, self.number, self.interface)
            return (
                f"port {self.number} is taken by {holder}: end that, or give the manager "
                "another --port"
            )
        if error.errno == errno.EADDRNOTAVAIL:
            return _no_address(self.interface)
        return f"--port {self.number} can't be listened on: {error.strerror}"


def holder_of(kernel: Kernel, port: int, interface: str) -> str:
    """Who listens on a TCP port, in words; unknown for IPv6 addresses."""
    address = "0.0.0.0" if interface in ALL else interface.replace("localhost", "127.0.0.1")
    with suppress(OSError):
        if found := kernel.listener(port, address=address):
            pid, name = found
            return f"{name} (process {pid})" if pid else "a process that can't be seen from here"
    return "another program"


class UnixListener(Listener):
    """Answers on a unix socket that root and a group may use."""

    def __init__(self, path: str, group: int | None, site: Any, reactor: Any) -> None:
        super().__init__(PatientUnix(os.fsencode(path), site, BACKLOG, SOCKET_MODE, reactor))
        self.path, self.group = path, group

    def listen(self) -> None:
        """Listen, and only then let the group in."""
        remove_abandoned(self.path)
        super().listen()
        if self.group is not None:
            shutil.chown(self.path, group=self.group)

    def explain(self, error: OSError) -> str:
        """What is in the way at the path."""
        folder = os.path.dirname(self.path)
        if error.errno == errno.EADDRINUSE:
            by = "another manager" if Path(self.path).is_socket() else "something that is no socket"
            why = f"is taken by {by}: end or remove that, or give another path"
        elif not os.path.isdir(folder):
            why = f"can't be made: there is no folder {folder}; make it, or give another path"
        else:  # such as a path of more than 107 bytes: that error has only a text
            why = f"can't be made: {error.strerror or error}"
        return f"--unix-socket {self.path} {why}"


def remove_abandoned(path: str) -> None:
    """Remove the unix socket of a manager that was killed: no one answers on it."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(FileNotFoundError):
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            if Path(path).is_socket():
                os.unlink(path)
