"""Asks registries for images, by the API of the OCI Distribution Specification 1.1.

A registry is a stranger: each answer has a limit in bytes and in time, it can send us on only to
where others can be asked as safely, and what it sends is used only if its digest is right.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from functools import partial
from hashlib import sha256
from typing import Any, ClassVar
from urllib.parse import urlencode, urljoin, urlsplit

from attrs import define, field
from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, PotentialDataLoss, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers

from txcontain import __version__
from txcontain.container.document import read_object, shown
from txcontain.container.reference import HUB, REGISTRY, Reference, is_loopback
from txcontain.errors import ConfigAtFault, InvalidData, MachineAtFault
from txcontain.host.files import read_file
from txcontain.host.os_errors import of_os
from txcontain.images import oci
from txcontain.images.answers import AsSent, drop, header
from txcontain.images.connections import LONGEST_FILE, Connections, Trust
from txcontain.images.layout import check_digest
from txcontain.images.oci import Descriptor
from txcontain.later import Timer, pause

CERTIFICATES, LOGINS = "/etc/txcontain/registries", "~/.docker/config.json"
ANSWER_WITHIN = 30.0  # seconds
LEAST, LEAST_WITHIN = 1 << 16, 30.0  # bytes that come, and seconds that they may take
MOST_TRIES, MOST_REDIRECTS = 5, 5  # without LEAST bytes between two of them; in a row
LONGEST_WAIT, MOST_WAITS = 60, 10  # seconds that a registry may ask to wait; how often in all
CHUNK = 1 << 20  # bytes that are written at once
LONGEST_TOKEN = 1 << 16  # bytes of an answer
REDIRECTS, UNAUTHORIZED, NOT_FOUND, BUSY = (301, 302, 303, 307, 308), 401, 404, (429, 503)
OK, PARTIAL = 200, 206
ACCEPT = ", ".join((*oci.INDEXES, *oci.MANIFESTS))
# Without the look behind, a long word would be tried from each of its letters.
CHALLENGE = re.compile(r'(?<![A-Za-z_])([A-Za-z_]+)="([^"]*)"')
HUBS_KEY = "https://index.docker.io/v1/"  # what Docker Hub is called in config.json
LOG_IN = "log in: `docker login` writes ~/.docker/config.json, which the manager's user must have"
LOST = (
    ConnectionClosed,
    ConnectError,
    ResponseFailed,
    TimeoutError,
    CancelledError,
    DNSLookupError,
)
log = Logger()


@define(eq=False)
class Registries:
    """All registries, as this manager may ask them."""

    reactor: Any
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    certificates: str = CERTIFICATES  # a folder, for Trust
    logins: str = LOGINS
    # Those of the last conversation that has ended well, for the next one, and with whom that was.
    _kept: tuple[str, Connections] | None = None

    async def converse(self, reference: Reference, insecure: bool = False) -> Conversation:
        """Begin to ask for an image.

        :param insecure: over plain HTTP, which only a registry on this machine may be asked by
        Raises InvalidData.
        """
        if insecure and not reference.is_loopback:
            raise InvalidData(
                f"the registry {reference.registry} is not on this machine",
                "without TLS only a loopback address can be asked, such as 127.0.0.1:5000",
            )
        login = await self.threads(login_for, os.path.expanduser(self.logins), reference.registry)
        made = self._take(reference.registry) or Connections(self.reactor, Trust(self.certificates))
        agent: Any = AsSent(Agent.usingEndpointFactory(self.reactor, made, made.pool))
        return Conversation(self, reference, insecure, login, HTTPClient(agent), made)

    def keep(self, registry: str, connections: Connections) -> None:
        """Keep connections that wait for nothing: to make them takes longer than most answers."""
        if self._kept:
            self._kept[1].cut()
        self._kept = registry, connections

    def _take(self, registry: str) -> Connections | None:
        if self._kept is None or self._kept[0] != registry:
            return None
        (_, connections), self._kept = self._kept, None
        return connections


def login_for(path: str, registry: str) -> str:
    """``USER:PASSWORD`` in base 64 that Docker's config.json has for a registry; else empty."""
    try:
        auths = json.loads(read_file(path, LONGEST_FILE)).get("auths", {})
        for key in (HUBS_KEY, HUB) if registry == HUB else (registry, f"https://{registry}"):
            if key in auths:
                login = str(auths[key].get("auth", ""))
                base64.b64decode(login, validate=True)
                return login
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    return ""


@define(eq=False)
class Conversation:
    """Requests for one image."""

    registries: Registries
    reference: Reference
    insecure: bool
    login: str  # in base 64
    http: HTTPClient
    connections: Connections
    authorization: str = ""  # that the registry has asked for
    waits: int = MOST_WAITS  # how often it may still ask to wait
    waiting: set[Deferred[None]] = field(factory=set)  # because it has

    scope: ClassVar[str] = "pull"  # what a token is to be good for
    verb: ClassVar[str] = "pulling"

    @property
    def what(self) -> str:
        """What is done, for an error."""
        return f"{self.verb} {self.reference.short}"

    def end(self) -> None:
        """Cut the connections, and wait no longer."""
        self.connections.cut()
        for waiting in list(self.waiting):
            waiting.cancel()

    def keep(self) -> None:
        """End it, where all was answered: the next conversation goes on with its connections."""
        self.registries.keep(self.reference.registry, self.connections)

    async def manifest(self, wanted: str) -> tuple[bytes, str]:
        """A manifest or an index by its tag or digest, and the media type it comes as.

        Raises ConfigAtFault, InvalidData, MachineAtFault.
        """
        response = await self._get(f"manifests/{wanted}", {"Accept": ACCEPT})
        document = await self._document(response, oci.LONGEST)
        kind = header(response, "Content-Type")
        return document, kind.partition(";")[0].strip()

    async def document(self, descriptor: Descriptor) -> bytes:
        """The config of an image. Raises ConfigAtFault, InvalidData, MachineAtFault."""
        if descriptor.size > oci.LONGEST:
            raise InvalidData(self.what, f"its config is longer than {oci.LONGEST} bytes")
        response = await self._get(f"blobs/{descriptor.digest}")
        document = await self._document(response, descriptor.size)
        check_digest(descriptor, len(document), oci.digest_of(document))
        return document

    async def download(
        self, descriptor: Descriptor, path: str, took: Callable[[int], object]
    ) -> None:
        """Write a blob to a new file; when this returns, its digest and its size are right.

        After a cut it goes on where it was. If it fails, the file is removed by whoever made its
        folder.

        :param took: is told how many bytes more there are; what it raises ends the download
        Raises ConfigAtFault, MachineAtFault.
        """
        try:
            file = Download(self.registries.threads, descriptor, path, took)
        except OSError as error:
            raise MachineAtFault(self.what, of_os(error)) from error
        tries = 0
        try:
            while why := await self._download(descriptor, file):
                tries = 0 if file.size >= file.before + LEAST else tries + 1
                if tries >= MOST_TRIES:
                    raise ConfigAtFault(self.what, f"the registry {self._host} hangs up", why)
            check_digest(descriptor, file.size, f"sha256:{file.hashed.hexdigest()}")
        except OSError as error:
            raise MachineAtFault(self.what, of_os(error)) from error
        finally:
            file.close()

    async def _download(self, descriptor: Descriptor, file: Download) -> str:
        """Download as much as comes; returns why there was no more, if it was cut."""
        file.before = file.size
        file.took(0)  # which raises if it is not wanted any more
        wanted = {"Range": f"bytes={file.size}-"} if file.size else {}
        try:
            response = await self._get(f"blobs/{descriptor.digest}", wanted, retried=True)
        except Cut as cut:
            return str(cut)
        if response.code != PARTIAL:
            await file.begin_again()
        elif not _begins_at(response, file.size):
            raise ConfigAtFault(
                self.what, f"the registry {self._host} sends another part than it was asked for"
            )
        receiver = Receiver(self.registries.reactor, file.take, descriptor.size - file.size)
        response.deliverBody(receiver)
        why = await receiver.over
        if receiver.too_long:
            raise ConfigAtFault(
                f"the blob {descriptor.digest} is longer than {descriptor.size} bytes",
                "it is not what its manifest says",
            )
        return why

    async def _document(self, response: Any, most: int) -> bytes:
        """A short body. Raises ConfigAtFault, InvalidData."""
        parts: list[bytes] = []

        def keep(data: bytes) -> Deferred[None]:
            parts.append(data)
            return succeed(None)

        receiver = Receiver(self.registries.reactor, keep, most)
        response.deliverBody(receiver)
        why = await receiver.over
        if receiver.too_long:
            raise InvalidData(self.what, f"a document of it is longer than {most} bytes")
        if why:
            raise ConfigAtFault(self.what, f"the registry {self._host} hangs up", why)
        return b"".join(parts)

    # -- requests ----------------------------------------------------------------

    @property
    def _host(self) -> str:
        return self.reference.registry

    async def _get(
        self, path: str, headers: dict[str, str] | None = None, retried: bool = False
    ) -> Any:
        """The answer to a GET below the repository, after a login if that is asked for.

        :param retried: whether to raise Cut if there is no answer
        Raises ConfigAtFault, InvalidData.
        """
        url = self.url_of(path)
        try:
            response = await self._follow(url, headers or {})
            if response.code == UNAUTHORIZED:
                drop(response)
                await self.log_in(response)
                response = await self._follow(url, headers or {})
        except Cut as cut:
            if retried:
                raise
            raise self.cannot_be_asked(cut) from cut
        if response.code in (OK, PARTIAL):
            return response
        drop(response)
        raise self.refused(response.code, path, asked_to_wait(response))

    def cannot_be_asked(self, cut: Cut) -> ConfigAtFault:
        """The error if there was no answer."""
        why = f"the registry {self._host} can't be asked"
        return ConfigAtFault(self.what, why, str(cut))

    def url_of(self, path: str) -> str:
        """Where something of the repository is."""
        scheme = "http" if self.insecure else "https"
        return f"{scheme}://{self.reference.host}/v2/{self.reference.repository}/{path}"

    def refused(self, code: int, path: str, wait: float | None = None) -> ConfigAtFault:
        """The error if a request below the repository was answered by a refusal.

        :param wait: for so many seconds, as the registry asks; None if it doesn't
        """
        if code in (UNAUTHORIZED, 403):
            why = f"the registry {self._host} does not let us have it"
            return ConfigAtFault(self.what, why, LOG_IN)
        if code == NOT_FOUND:
            kind, _, name = path.partition("/")
            missing = "such image" if kind == "manifests" else f"blob {name}"
            return ConfigAtFault(self.what, f"the registry {self._host} has no {missing}")
        later = ["try again later"] * (code in BUSY or code >= 500)
        if wait is not None:
            later = [f"it asks us to wait {wait:.0f} s: try again then"]
        return ConfigAtFault(self.what, f"the registry {self._host} answers {code}", *later)

    async def patiently(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a request, which is made again after a wait that the registry asks for.

        Raises Cut.
        """
        while True:
            response = await ask()
            wait = asked_to_wait(response)
            if wait is None or wait > LONGEST_WAIT or not self.waits:
                return response
            self.waits -= 1
            drop(response)
            told = {"what": self.what, "host": self._host, "wait": wait}
            log.info("{what}: the registry {host} asks us to wait {wait:.0f} s", **told)
            await self._wait(wait)

    async def _wait(self, seconds: float) -> None:
        waiting = pause(self.registries.reactor, seconds)
        self.waiting.add(waiting)
        try:
            await waiting
        except CancelledError as error:
            raise Cut("it was given up while the registry had us wait") from error
        finally:
            self.waiting.discard(waiting)

    async def _follow(self, url: str, headers: dict[str, str]) -> Any:
        """The answer to a GET, wherever we are sent on to. Raises ConfigAtFault, Cut."""
        for _ in range(MOST_REDIRECTS):
            given = {**headers, **self.login_at(url)}
            response = await self.patiently(partial(self.ask, url, given))
            if response.code == UNAUTHORIZED and not self.is_its_own(url):
                drop(response)
                raise ConfigAtFault(
                    self.what,
                    f"the registry {self._host} sends us on to {shown(url)}, which wants a login",
                    "only the registry itself gets it",
                )
            if response.code not in REDIRECTS:
                return response
            drop(response)
            url = joined(url, header(response, "Location"))
            self.check(url)
        raise ConfigAtFault(
            self.what, f"the registry {self._host} sends us on more than {MOST_REDIRECTS} times"
        )

    def login_at(self, url: str) -> dict[str, str]:
        """What shows a host who we are: only the registry's own."""
        known = self.authorization and self.is_its_own(url)
        return {"Authorization": self.authorization} if known else {}

    def is_its_own(self, url: str) -> bool:
        """Whether it is the registry that answers there, and no one to whom it has sent us on."""
        return urlsplit(url).netloc == self.reference.host

    def check(self, url: str) -> None:
        """Raise ConfigAtFault if this is no URL that may be asked."""
        try:
            parts = urlsplit(url)
            plain = self.insecure and parts.scheme == "http" and is_loopback(parts.hostname or "")
            fine = REGISTRY.fullmatch(parts.netloc) and (parts.scheme == "https" or plain)
        except ValueError:
            fine = None
        if not fine:
            raise ConfigAtFault(
                self.what,
                f"the registry {self._host} sends us on to {shown(url)}, which is not https",
            )

    async def ask(
        self, url: str, headers: dict[str, str], method: str = "GET", body: Any = None
    ) -> Any:
        """The answer to a request. Raises Cut if there is none.

        :param body: an IBodyProducer with a method ``bound``, which gives up what takes too long
        """
        named = {"User-Agent": f"txcontain/{__version__}", **headers}
        given = Headers({name: [value] for name, value in named.items()})
        try:
            asked = self.http.request(method, url, headers=given, data=body, **UNCHANGED)
            if body is None:
                asked.addTimeout(ANSWER_WITHIN, self.registries.reactor)
            else:
                body.bound(self.registries.reactor, asked)
            return await asked
        except LOST as error:
            raise Cut(_reason(error)) from error
        except Exception as error:  # of TLS, of a host that can be none, of what is no HTTP
            raise Cut(f"{type(error).__name__}: {error}") from error

    async def log_in(self, response: Any) -> None:
        """Get what the registry has asked for. Raises ConfigAtFault, InvalidData, Cut."""
        challenge = header(response, "WWW-Authenticate")
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic" and self.login:
            self.authorization = f"Basic {self.login}"
        elif kind.lower() == "bearer":
            self.authorization = f"Bearer {await self._token(dict(CHALLENGE.findall(rest)))}"
        else:
            raise self.refused(UNAUTHORIZED, "")

    async def _token(self, said: dict[str, str]) -> str:
        realm = said.get("realm", "")
        self.check(realm)
        scope = f"repository:{self.reference.repository}:{self.scope}"
        named = {"service": said["service"]} if "service" in said else {}
        query = urlencode({**named, "scope": scope})
        login = {"Authorization": f"Basic {self.login}"} if self.login else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{query}"
        answer = await self.patiently(partial(self.ask, url, login))
        if answer.code != OK:
            drop(answer)
            raise self.refused(UNAUTHORIZED, "")
        values = read_object(await self._document(answer, LONGEST_TOKEN))
        token = values.get("token") or values.get("access_token")
        if not isinstance(token, str) or not re.fullmatch("[!-~]+", token):
            raise InvalidData(self.what, f"the registry {self._host} gives no token")
        return token


# What treq is not to do for us: follow, keep.
UNCHANGED: dict[str, Any] = {"allow_redirects": False, "unbuffered": True}


class Cut(Exception):
    """There was no answer, or it was cut short; the text says why."""


def _reason(error: BaseException | None) -> str:
    if isinstance(error, (TimeoutError, CancelledError)):
        return f"it does not answer within {ANSWER_WITHIN:.0f} seconds"
    if isinstance(error, ResponseFailed) and error.reasons:
        return _reason(error.reasons[0].value)
    if isinstance(error, (TlsError, VerificationError)):
        return f"its certificate is not trusted: {error}"
    return str(error)


def asked_to_wait(response: Any) -> float | None:
    """For how many seconds an answer asks us to wait (RFC 9110, 10.2.3); None if it doesn't.

    A date counts by the clock of who sends it.
    """
    if response.code not in BUSY:
        return None
    text = header(response, "Retry-After").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return max(float(text), 1.0)
    try:
        then, now = map(parsedate_to_datetime, (text, header(response, "Date")))
        return max((then - now).total_seconds(), 1.0)
    except (ValueError, TypeError, IndexError, OverflowError):  # it is no date; one has no zone
        return None


def _begins_at(response: Any, offset: int) -> bool:
    said = header(response, "Content-Range")
    return bool(re.fullmatch(rf"bytes {offset}-[0-9]+/([0-9]+|\*)", said))


def joined(url: str, target: str) -> str:
    """Where a redirect at ``url`` leads; the target itself if it can't be a URL."""
    try:
        return urljoin(url, target)
    except ValueError:
        return target


@define(eq=False)
class Receiver(Protocol):
    """Takes a body up to a number of bytes, as fast as ``take`` can, and not too slowly."""

    reactor: Any
    take: Callable[[bytes], Deferred[Any]]  # fires when there is room for more
    most: int  # bytes
    over: Deferred[str] = field(factory=Deferred)  # fires with why it was cut; else with ""
    too_long: bool = False
    transport: Any = None
    _kept: list[bytes] = field(factory=list)
    _length: int = 0  # bytes of that
    _came: int = 0  # bytes since the timer was set
    _busy: bool = False
    _why: str | None = None  # it was cut, once it is
    _slow: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._slow = Timer(self.reactor, self._too_slow)

    def connectionMade(self) -> None:
        """It begins."""
        self._slow.after(LEAST_WITHIN)

    def dataReceived(self, data: bytes) -> None:
        """Keep it, and hand it on once it is enough."""
        if self._why is not None:  # nobody waits for it any more
            return
        self.most -= len(data)
        if self.most < 0:
            self.too_long = True
            self._end("it is too long")
            return
        self._came += len(data)
        if self._came >= LEAST:
            self._came = 0
            self._slow.after(LEAST_WITHIN)
        self._kept.append(data)
        self._length += len(data)
        if self._length >= CHUNK:
            self._hand_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        whole = reason.check(ResponseDone, PotentialDataLoss)  # what is missing is seen by its size
        self._end("" if whole else _reason(reason.value))

    def _too_slow(self) -> None:
        self._end(f"it sends less than {LEAST >> 10} KiB in {LEAST_WITHIN:.0f} seconds")

    def _end(self, why: str) -> None:
        if self._why is None:
            self._why = why
            self._slow.cancel()
            if why:
                self.transport.loseConnection()
            self._hand_on()

    def _hand_on(self) -> None:
        if self._busy:
            return
        if self._kept:
            self._busy = True
            self.transport.pauseProducing()
            self._slow.cancel()
            data, self._kept, self._length = b"".join(self._kept), [], 0
            self.take(data).addCallbacks(self._taken, self._not_taken)
        elif self._why is not None:
            self.over.callback(self._why)

    def _taken(self, _: object) -> None:
        self._busy = False
        if self._why is None:
            self._slow.after(LEAST_WITHIN)
            self.transport.resumeProducing()
        if self._why is not None or self._length >= CHUNK:
            self._hand_on()

    def _not_taken(self, failure: Failure) -> None:
        self._why = "it is not taken"
        self.transport.loseConnection()
        self.over.errback(failure)


@define(eq=False)
class Download:
    """A file that a blob is written to, with what is known of it so far."""

    threads: Callable[..., Deferred[Any]]
    descriptor: Descriptor
    path: str
    took: Callable[[int], object]
    size: int = 0
    before: int = 0  # size when the last request was made
    hashed: Any = field(factory=sha256)
    _file: int = -1

    def __attrs_post_init__(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)

    def take(self, data: bytes) -> Deferred[None]:
        """Write more of it. Fails with OSError."""
        return self.threads(self._write, data).addCallback(self._taken, len(data))

    def _taken(self, _: object, length: int) -> None:
        self.size += length
        self.took(length)

    def _write(self, data: bytes) -> None:
        self.hashed.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    async def begin_again(self) -> None:
        """Forget what there is: the registry can't go on from there."""
        if self.size:
            await self.threads(os.ftruncate, self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            self.took(-self.size)
            self.size, self.hashed = 0, sha256()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
