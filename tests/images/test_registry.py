"""Requests to registries, of which each may be hostile."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase
from twisted.web._newclient import Request as ClientRequest
from twisted.web.client import URI, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.images.archives import HERE, image
from tests.integration.tarballs import file
from txcontain.container.reference import read_reference
from txcontain.engine import images
from txcontain.engine.arrivals import LONGEST_PULL, MOST_OF_ONE, Arrivals
from txcontain.engine.images import Images
from txcontain.errors import CalledOff, ConfigAtFault, Error, MachineAtFault
from txcontain.images import oci, registry
from txcontain.images.answers import AsSent, make_pool
from txcontain.images.connections import Connections, Noted, Trust
from txcontain.images.layers import merged_digest
from txcontain.images.layout import Found
from txcontain.images.oci import Descriptor, Index, Platform, to_bytes
from txcontain.images.registry import (
    CHALLENGE,
    Conversation,
    Download,
    Registries,
    asked_to_wait,
    login_for,
)

MADE = image([[file("a", b"a" * 1000)]])
(LAYER,) = MADE.manifest.layers
TAG = "/v2/app/manifests/1"
BLOB = f"/v2/app/blobs/{LAYER.digest}"
CONFIG = f"/v2/app/blobs/{MADE.manifest.config.digest}"
NAME = "127.0.0.1:5000/app:1"
WHAT = f"pulling {NAME}"
WHO = "the registry 127.0.0.1:5000"
Answer = Callable[[Request], Any]


class Server(Resource):
    """A registry; each path is answered by a function."""

    isLeaf = True

    def __init__(self, answers: dict[str, Answer]) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[Request] = []

    def render(self, request: Request) -> Any:
        """Answer, or not."""
        self.asked.append(request)
        answer = self.answers.get(request.path.decode(), status(404))
        return answer(request)


def body(content: bytes, kind: str = oci.MANIFEST) -> Answer:
    """An answer with this body, or the part of it that is asked for."""

    def answer(request: Request) -> bytes:
        request.setHeader("Content-Type", kind)
        wanted = request.getHeader("range")
        if wanted:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            request.setResponseCode(206)
            said = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            request.setHeader("Content-Range", said)
            return content[begin:]
        return content

    return answer


def status(code: int, **headers: str) -> Answer:
    """An answer with a status and headers."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return b"no"

    return answer


def raw(code: int, name: bytes, value: bytes) -> Answer:
    """An answer with a header of any bytes."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        request.setHeader(name, value)
        return b"no"

    return answer


def cut(content: bytes) -> Answer:
    """An answer that breaks off after these bytes."""

    def answer(request: Request) -> int:
        request.setHeader("Content-Length", "100000")
        request.write(content)
        transport: Any = request.transport
        transport.loseConnection()
        return NOT_DONE_YET

    return answer


def silence(request: Request) -> int:
    """No answer."""
    return NOT_DONE_YET


def whole() -> dict[str, Answer]:
    """What a registry with the image answers."""
    return {
        TAG: body(to_bytes(MADE.manifest)),
        CONFIG: body(to_bytes(MADE.config)),
        BLOB: body(MADE.blobs[LAYER.digest]),
    }


def index(*manifests: Descriptor) -> Answer:
    """An index."""
    return body(to_bytes(Index(manifests)), oci.INDEX)


OTHER = evolve(MADE.top, platform=Platform("plan9", "amd64"))
LARGE = to_bytes(evolve(MADE.manifest, config=evolve(MADE.manifest.config, size=oci.LONGEST + 1)))
LONG = to_bytes(evolve(MADE.manifest, layers=(evolve(LAYER, size=1000),)))
HUGE = to_bytes(evolve(MADE.manifest, layers=(evolve(LAYER, size=1 << 49),)))
LOG_IN = "log in: `docker login` writes ~/.docker/config.json, which the manager's user must have"
DAMAGED = "it is damaged, or not what it says: get it again"
# What the registry answers instead, and why the image is refused.
REFUSED: tuple[tuple[dict[str, Answer], str], ...] = (
    ({TAG: status(404)}, f"{WHAT} → {WHO} has no such image"),
    ({BLOB: status(404)}, f"{WHAT} → {WHO} has no blob DIGEST"),
    ({TAG: status(401)}, f"{WHAT} → {WHO} does not let us have it → {LOG_IN}"),
    ({TAG: status(403)}, f"{WHAT} → {WHO} does not let us have it → {LOG_IN}"),
    ({TAG: status(418)}, f"{WHAT} → {WHO} answers 418"),
    ({TAG: status(503)}, f"{WHAT} → {WHO} answers 503 → try again later"),
    ({TAG: status(503, Retry_After="soon")}, f"{WHAT} → {WHO} answers 503 → try again later"),
    (
        {TAG: status(429, Retry_After="61")},
        f"{WHAT} → {WHO} answers 429 → it asks us to wait 61 s: try again then",
    ),
    (
        {BLOB: status(429, Retry_After="0")},
        f"{WHAT} → {WHO} answers 429 → it asks us to wait 1 s: try again then",
    ),
    (
        {TAG: status(302, Location="file:///etc/passwd")},
        f"{WHAT} → {WHO} sends us on to 'file:///etc/passwd', which is not https",
    ),
    (
        {TAG: status(302, Location="http://example.org/v2/")},
        f"{WHAT} → {WHO} sends us on to 'http://example.org/v2/', which is not https",
    ),
    (
        {TAG: status(302, Location="https://user@example.org/")},
        f"{WHAT} → {WHO} sends us on to 'https://user@example.org/', which is not https",
    ),
    (
        {TAG: status(302, Location="http://[::1/")},
        f"{WHAT} → {WHO} sends us on to 'http://[::1/', which is not https",
    ),
    (
        {TAG: raw(302, b"Location", b"https://\xff/")},
        f"{WHAT} → {WHO} sends us on to 'https://\\ufffd/', which is not https",
    ),
    (
        {TAG: raw(401, b"WWW-Authenticate", b'Bearer realm="\xff"')},
        f"{WHAT} → {WHO} sends us on to '\\ufffd', which is not https",
    ),
    (
        {TAG: raw(200, b"Content-Type", b"\xff")},
        f"{WHAT} → the document is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    ({TAG: status(302, Location=TAG)}, f"{WHAT} → {WHO} sends us on more than 5 times"),
    (
        {TAG: status(401, WWW_Authenticate='Bearer realm="gopher://a"')},
        f"{WHAT} → {WHO} sends us on to 'gopher://a', which is not https",
    ),
    (
        {
            TAG: status(401, WWW_Authenticate='Bearer realm="http://127.0.0.1:5000/token"'),
            "/token": body(b'{"token": "a\\r\\nb"}'),
        },
        f"{WHAT} → {WHO} gives no token",
    ),
    (
        {TAG: body(b"x" * (oci.LONGEST + 1))},
        f"{WHAT} → a document of it is longer than 1048576 bytes",
    ),
    ({TAG: body(LARGE)}, f"{WHAT} → its config is longer than 1048576 bytes"),
    ({TAG: body(HUGE)}, f"{WHAT} → its layers have more than 1000000 bytes together"),
    (
        {TAG: cut(b"{")},
        f"{WHAT} → {WHO} hangs up → Connection was closed cleanly: Connection done.",
    ),
    (
        {BLOB: cut(b"")},
        f"{WHAT} → {WHO} hangs up → Connection was closed cleanly: Connection done.",
    ),
    ({TAG: silence}, f"{WHAT} → {WHO} can't be asked → it does not answer within 30 seconds"),
    (
        {BLOB: body(b"x" * LAYER.size)},
        f"{WHAT} → the blob DIGEST has another digest, DIGEST → {DAMAGED}",
    ),
    (
        {BLOB: body(MADE.blobs[LAYER.digest][:-1])},
        f"{WHAT} → the blob DIGEST has {LAYER.size - 1} bytes, and should have {LAYER.size} → "
        "it was cut short, or is damaged: get it again",
    ),
    (
        {BLOB: body(MADE.blobs[LAYER.digest] + b"x")},
        f"{WHAT} → the blob DIGEST is longer than {LAYER.size} bytes → "
        "it is not what its manifest says",
    ),
    (
        {CONFIG: body(b"{}")},
        f"{WHAT} → the blob DIGEST has 2 bytes, and should have {MADE.manifest.config.size} → "
        "it was cut short, or is damaged: get it again",
    ),
    (
        {TAG: index(OTHER)},
        f"{WHAT} → it is not for this machine, {HERE}, only for plan9/amd64",
    ),
    (
        {TAG: index(MADE.top), f"/v2/app/manifests/{MADE.top.digest}": body(b"{}")},
        f"{WHAT} → the registry sends another manifest than DIGEST → "
        "it is damaged, or not what it says",
    ),
    (
        {TAG: body(b'{"schemaVersion": 1}')},
        f"{WHAT} → it is a manifest of schema 1, which has no digests that can be checked → "
        "have it pushed again by a program from after 2016",
    ),
)


class FakeLayers:
    """Unpacks nothing, and keeps the content of each blob."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.unpacker: Any = mock.Mock()
        self.unpacker.bounds.size = 1_000_000
        self.got: dict[str, bytes] = {}
        self.most = 1_000  # that it takes for what an image may hold, in layers

    def path_of(self, digest: str) -> str:
        """Where a layer is."""
        return os.path.join(self.folder, digest.partition(":")[2])

    async def get_of_image(self, blob: str, digest: str) -> str:
        """Keep it."""
        self.got[digest] = Path(blob).read_bytes()
        os.mkdir(self.path_of(digest))
        return self.path_of(digest)

    async def merge(self, digests: list[str]) -> str:
        """Keep what they are together."""
        merged = self.path_of(merged_digest(digests))
        if not os.path.isdir(merged):
            assert all(os.path.isdir(self.path_of(digest)) for digest in digests)
            os.mkdir(merged)
        return merged

    async def flush(self, layers: list[str]) -> None:
        """Flush nothing."""

    def check_total(self, layers: list[str]) -> None:
        """Refuse more layers than an image may have here."""
        if sum(map(os.path.isdir, layers)) > self.most:
            raise ConfigAtFault("the image holds too much")


class PullCase(SynchronousTestCase):
    """A test with a registry in memory."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        for name in ("images", "layers", "work"):
            (self.folder / name).mkdir(parents=True)
        self.clock = Clock()
        self.layers = FakeLayers(str(self.folder / "layers"))
        layers: Any = self.layers
        images = Images(str(self.folder / "images"), layers, maybeDeferred, lambda: 0.0)

        async def remove(path: str) -> None:
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)

        registries = Registries(self.clock, maybeDeferred, logins=str(self.folder / "config.json"))
        self.arrivals = Arrivals(images, registries, str(self.folder / "work"), remove)
        self.arrivals.insecure_loopback = True

    def pull(self, answers: dict[str, Answer], name: str = NAME, gone: Any = None) -> Deferred[Any]:
        """Pull an image from a registry that gives these answers, as far as it gets."""
        self.server = Server({**whole(), **answers})
        agent = self.agent = RequestTraversalAgent(self.server)

        def converse(pulled: Any, *_: Any) -> Any:
            return begin(pulled, *_).addCallback(in_memory)

        def in_memory(conversation: Conversation) -> Conversation:
            as_sent: Any = AsSent(agent)
            conversation.http = HTTPClient(as_sent)
            self.connections = conversation.connections = mock.Mock()
            return conversation

        original = self.arrivals.registries.converse

        def begin(*arguments: Any) -> Deferred[Any]:
            return Deferred.fromCoroutine(original(*arguments))

        with mock.patch.object(Registries, "converse", lambda _, *given: converse(*given)):
            pulled = Deferred.fromCoroutine(self.arrivals.pull(name, [], gone=gone))
        self.let_pass(40 if gone is None else 5)
        return pulled

    def let_pass(self, seconds: int) -> None:
        """Have requests and answers arrive, while time passes."""
        for _ in range(seconds):
            self.agent.flush()
            self.clock.advance(1)


class Pulls(PullCase):
    """Images that are pulled."""

    def test_well(self) -> None:
        """An image is here when its layers are; what came for it is removed."""
        image = self.successResultOf(self.pull({}))
        self.assertEqual(image.digest, MADE.top.digest)
        self.assertEqual(self.layers.got, {LAYER.digest: MADE.blobs[LAYER.digest]})
        self.assertEqual(self.arrivals.images.names, {NAME: image.digest})
        self.assertEqual(os.listdir(self.folder / "work"), [])
        self.assertEqual(self.arrivals.pulls, {})

    def test_again(self) -> None:
        """A second pull asks for the manifest only."""
        self.successResultOf(self.pull({}))
        self.successResultOf(self.pull({}))
        self.assertEqual([request.path.decode() for request in self.server.asked], [TAG])

    def test_refused(self) -> None:
        """Whatever is wrong is told with a sentence, and nothing is kept."""
        for answers, wanted in REFUSED:
            self.setUp()
            error = self.failureResultOf(self.pull(answers), Error).value
            said = str(error)
            for digest in {LAYER.digest, MADE.top.digest, MADE.manifest.config.digest}:
                said = said.replace(digest, "DIGEST")
            said = said.replace(oci.digest_of(b"x" * LAYER.size), "DIGEST")
            self.assertEqual(said, wanted)
            for name in ("images", "layers", "work"):
                self.assertEqual(os.listdir(self.folder / name), [], wanted)

    def several(self) -> tuple[Any, dict[str, Answer]]:
        """An image of two layers, the first of which is large, and what a registry answers."""
        made = image([[file("a", os.urandom(2_000_000))], [file("b", "b")]])
        self.layers.unpacker.bounds.size = 10_000_000
        blobs = {f"/v2/app/blobs/{name}": body(content) for name, content in made.blobs.items()}
        return made, {**blobs, TAG: body(to_bytes(made.manifest))}

    def test_several(self) -> None:
        """All layers of an image are got, each as a whole."""
        made, answers = self.several()
        self.successResultOf(self.pull(answers))
        wanted = {one.digest: made.blobs[one.digest] for one in made.manifest.layers}
        self.assertEqual(self.layers.got, wanted)

    def test_merged(self) -> None:
        """Layers that are to be merged are got for that, and not again when they are."""
        self.patch(images, "MOST_LOWER", 1)
        made, answers = self.several()
        lower, upper = (one.digest for one in made.manifest.layers)
        kept = self.successResultOf(self.pull(answers))
        self.assertEqual(set(self.layers.got), {lower, upper})
        paths = [self.layers.path_of(upper), self.layers.path_of(merged_digest([lower]))]
        self.assertEqual(self.arrivals.images.paths(kept), paths)
        for digest in (lower, upper):
            os.rmdir(self.layers.path_of(digest))
        self.layers.got.clear()
        self.successResultOf(self.pull(answers))
        self.assertEqual(set(self.layers.got), {upper})

    def test_one_is_missing(self) -> None:
        """If one layer can't be had, the others are given up: that is what is told."""
        made, answers = self.several()
        large, small = (one.digest for one in made.manifest.layers)

        def held_up(request: Request) -> int:
            request.setHeader("Content-Length", "2000000")
            request.write(b"x")
            return NOT_DONE_YET

        answers[f"/v2/app/blobs/{large}"] = held_up
        answers[f"/v2/app/blobs/{small}"] = status(404)
        error = self.failureResultOf(self.pull(answers), ConfigAtFault).value
        self.assertEqual(error.chain[1], f"{WHO} has no blob {small}")
        self.assertEqual(self.layers.got, {})

    def test_at_once(self) -> None:
        """Whoever asks for an image that is on its way waits for the same pull."""
        more: list[Deferred[Any]] = []

        def answer(request: Request) -> Any:
            more.append(Deferred.fromCoroutine(self.arrivals.pull(NAME, [])))
            return body(to_bytes(MADE.manifest))(request)

        image = self.successResultOf(self.pull({TAG: answer}))
        self.assertEqual([self.successResultOf(one) for one in more], [image])
        more.clear()
        error = self.failureResultOf(self.pull({TAG: lambda r: (answer(r), status(404)(r))[1]}))
        self.assertEqual([self.failureResultOf(one).value for one in more], [error.value])

    def test_disk_full(self) -> None:
        """A disk that is full is at fault, and not the registry."""
        full = mock.Mock(side_effect=OSError(28, "No space left on device"))
        with mock.patch.object(Download, "_write", full):
            error = self.failureResultOf(self.pull({}), MachineAtFault).value
        self.assertEqual(error.chain[0], WHAT)
        self.assertIn("ENOSPC", error.chain[1])
        self.assertEqual(os.listdir(self.folder / "work"), [])

    def test_index(self) -> None:
        """An index leads to the manifest for this machine."""
        answers = {
            TAG: index(OTHER, evolve(MADE.top, platform=HERE)),
            f"/v2/app/manifests/{MADE.top.digest}": body(to_bytes(MADE.manifest)),
        }
        self.assertEqual(self.successResultOf(self.pull(answers)).digest, MADE.top.digest)

    def test_deep(self) -> None:
        """Indexes that lead to indexes are followed only so far."""
        documents = [to_bytes(Index((MADE.top,)))]
        for _ in range(5):
            documents.append(to_bytes(Index((oci.described(documents[-1], oci.INDEX),))))
        answers = {
            f"/v2/app/manifests/{oci.digest_of(one)}": body(one, oci.INDEX) for one in documents
        }
        pulled = self.pull({**answers, TAG: body(documents[-1], oci.INDEX)})
        error = self.failureResultOf(pulled, ConfigAtFault).value
        self.assertEqual(error.chain[1:], ("it has more than 3 indexes within each other",))

    def test_resumed(self) -> None:
        """After a cut the rest is asked for, as often as something comes."""
        content = MADE.blobs[LAYER.digest]
        half = len(content) // 2
        times = []

        def answer(request: Request) -> Any:
            times.append(request.getHeader("range"))
            return (cut(content[:half]) if len(times) == 1 else body(content))(request)

        self.successResultOf(self.pull({BLOB: answer}))
        self.assertEqual(times, [None, f"bytes={half}-"])
        self.assertEqual(self.layers.got, {LAYER.digest: content})

    def test_from_the_start(self) -> None:
        """A registry that can't send a part sends all again."""
        content = MADE.blobs[LAYER.digest]
        times = []

        def answer(request: Request) -> Any:
            times.append(1)
            request.requestHeaders.removeHeader("range")
            return (cut(content[:9]) if len(times) == 1 else body(content))(request)

        self.successResultOf(self.pull({BLOB: answer}))
        self.assertEqual(self.layers.got, {LAYER.digest: content})

    def test_another_part(self) -> None:
        """A part that was not asked for is not taken."""
        content = MADE.blobs[LAYER.digest]
        times = []

        def answer(request: Request) -> Any:
            times.append(1)
            if len(times) == 1:
                return cut(content[:9])(request)
            return status(206, Content_Range="bytes 3-99/100")(request)

        error = self.failureResultOf(self.pull({BLOB: answer}), ConfigAtFault).value
        self.assertIn("sends another part than it was asked for", str(error))

    def test_slow(self) -> None:
        """A registry that stops to send is given up."""

        def answer(request: Request) -> int:
            request.setHeader("Content-Length", str(LAYER.size))
            request.write(b"")
            return NOT_DONE_YET

        pulled = self.pull({BLOB: answer})
        for _ in range(10):
            self.clock.advance(30)
        error = self.failureResultOf(pulled, ConfigAtFault).value
        self.assertEqual(error.chain[-1], "it sends less than 64 KiB in 30 seconds")
        self.assertEqual(os.listdir(self.folder / "work"), [])

    def test_too_long(self) -> None:
        """A registry that sends just enough, for hours, does not keep its turn for ever."""
        self.patch(registry, "LEAST", 1)
        held: list[Request] = []

        def answer(request: Request) -> int:
            held.append(request)
            return NOT_DONE_YET

        pulled = self.pull({TAG: body(LONG), BLOB: answer}, gone=Deferred())
        for _ in range(LONGEST_PULL * 3600 // 25):
            held[0].write(b"x")
            self.agent.flush()
            self.clock.advance(25)
        self.let_pass(60)  # as the connections that are cut are no real ones
        error = self.failureResultOf(pulled, ConfigAtFault).value
        self.assertEqual(error.chain, (WHAT, "it takes longer than 4 hours"))
        self.assertEqual(os.listdir(self.folder / "work"), [])

    def test_another_registry(self) -> None:
        """Registries that are silent keep only each other's images waiting."""
        made = image([[file(name)] for name in "abcdefgh"])
        blobs: dict[str, Answer] = {
            f"/v2/app/blobs/{one.digest}": silence for one in made.manifest.layers
        }
        blobs[f"/v2/app/blobs/{made.manifest.config.digest}"] = body(to_bytes(made.config))
        silent = [f"127.0.0.2:5000/app:{number}" for number in range(MOST_OF_ONE + 1)]
        of_tags = {
            f"/v2/app/manifests/{name[-1]}": body(to_bytes(made.manifest)) for name in silent
        }
        wanted: dict[str, Deferred[None]] = {name: Deferred() for name in silent}
        pulls = [self.pull({**blobs, **of_tags}, name, gone) for name, gone in wanted.items()]
        self.assertEqual(len(self.arrivals.pulls), MOST_OF_ONE)
        self.successResultOf(self.pull({}, gone=Deferred()))
        for pulled, gone in zip(pulls, wanted.values(), strict=True):
            self.assertNoResult(pulled)
            gone.callback(None)
        self.let_pass(30)
        for pulled in pulls:
            self.failureResultOf(pulled, CalledOff)

    def test_hang_up(self) -> None:
        """The hang-up of the last one who waits for a pull ends it, and its connections."""
        first, second = Deferred[None](), Deferred[None]()
        pulled = self.pull({BLOB: silence}, gone=first)
        other = Deferred.fromCoroutine(self.arrivals.pull(NAME, [], gone=second))
        cut = self.connections.cut
        first.callback(None)
        cut.assert_not_called()
        second.callback(None)
        cut.assert_called_once_with()
        self.let_pass(30)
        for one in (pulled, other):
            error = self.failureResultOf(one, CalledOff).value
            self.assertEqual(error.chain, (WHAT, "nobody waits for it any more"))
        self.assertEqual(os.listdir(self.folder / "work"), [])
        self.successResultOf(self.pull({}, gone=Deferred()))

    def test_again_after_a_hang_up(self) -> None:
        """Whoever comes when a pull is being ended has one of their own."""
        gone = Deferred[None]()
        ended = self.pull({BLOB: silence}, gone=gone)
        gone.callback(None)
        self.successResultOf(self.pull({}))
        self.failureResultOf(ended, CalledOff)

    def test_asks_to_wait(self) -> None:
        """Whatever a registry is asked for is asked for again after the wait that it wants."""
        times: dict[str, list[float]] = {}

        def in_turn(*answers: Answer) -> Answer:
            def answer(request: Request) -> Any:
                asked = times.setdefault(request.path.decode(), [])
                asked.append(self.clock.seconds())
                return answers[len(asked) - 1](request)

            return answer

        busy, realm = status(429, Retry_After="5"), "http://127.0.0.1:5001/token"
        login = status(401, WWW_Authenticate=f'Bearer realm="{realm}"')
        answers = {
            TAG: in_turn(busy, login, body(to_bytes(MADE.manifest))),
            "/token": in_turn(busy, body(b'{"token": "abc"}')),
            BLOB: in_turn(status(503, Retry_After="5"), body(MADE.blobs[LAYER.digest])),
        }
        self.successResultOf(self.pull(answers))
        for path, (first, second, *_) in times.items():
            self.assertEqual(second - first, 5, path)

    def test_hang_up_while_it_waits(self) -> None:
        """Whoever hangs up does not wait, and the registry is not asked again."""
        for answers in ({TAG: status(429, Retry_After="60")}, {BLOB: status(503, Retry_After="9")}):
            gone = Deferred[None]()
            pulled = self.pull(answers, gone=gone)
            asked = len(self.server.asked)
            gone.callback(None)
            self.failureResultOf(pulled, CalledOff)
            self.let_pass(60)
            self.assertEqual(len(self.server.asked), asked)

    def test_compressed(self) -> None:
        """A blob is taken as it comes, also if it is said to be compressed for the way only."""

        def answer(request: Request) -> Any:
            self.assertEqual(request.getHeader("accept-encoding"), "identity")
            request.setHeader("Content-Encoding", "gzip")
            return body(MADE.blobs[LAYER.digest])(request)

        self.successResultOf(self.pull({BLOB: answer}))
        self.assertEqual(self.layers.got, {LAYER.digest: MADE.blobs[LAYER.digest]})

    def test_too_much(self) -> None:
        """All layers of an image together are bounded; then no more of them is unpacked."""
        made = image([[file(name)] for name in "abcdefgh"])
        answers = {TAG: body(to_bytes(made.manifest))}
        answers |= {f"/v2/app/blobs/{digest}": body(one) for digest, one in made.blobs.items()}
        self.layers.most = 1
        error = self.failureResultOf(self.pull(answers), ConfigAtFault).value
        self.assertEqual(error.chain, (WHAT, "the image holds too much"))
        self.assertLess(len(self.layers.got), 8)
        self.assertEqual(self.arrivals.images.known, {})

    def test_one_of_many(self) -> None:
        """If a layer can't be had, those that were not begun are not asked for."""
        made = image([[file(name)] for name in "abcdefgh"])
        answers = {TAG: body(to_bytes(made.manifest))}
        answers |= {f"/v2/app/blobs/{digest}": body(one) for digest, one in made.blobs.items()}
        answers[f"/v2/app/blobs/{made.manifest.layers[0].digest}"] = status(404)
        error = self.failureResultOf(self.pull(answers), ConfigAtFault).value
        self.assertIn("has no blob", error.chain[1], str(error.chain))

    def test_insecure(self) -> None:
        """Without TLS only this machine is asked."""
        self.arrivals.insecure_loopback = False
        asked = self.arrivals.pull("registry:5000/app:1", [], insecure=True)
        error = self.failureResultOf(Deferred.fromCoroutine(asked), Error).value
        self.assertEqual(
            str(error),
            "the registry registry:5000 is not on this machine → without TLS only a loopback "
            "address can be asked, such as 127.0.0.1:5000",
        )


DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:50:07 GMT"


class Waits(SynchronousTestCase):
    """What an answer asks for."""

    def test_seconds(self) -> None:
        """It may be a number of seconds, or a date by the clock of who sends it; else nothing."""
        for code, after, date, wanted in (
            (429, "30", "", 30),
            (503, " 30 ", "", 30),
            (503, "0", "", 1),
            (503, LATER, DATE, 30),
            (503, DATE, LATER, 1),
            (503, LATER, "", None),
            (503, LATER, "Sun, 06 Nov 1994 08:49:37 -0000", None),
            (503, "Sun, 06 Nov 99999999999999999999 08:49:37 GMT", DATE, None),
            (503, "-1", DATE, None),
            (503, "1.5", DATE, None),
            (503, "1" * 10_000, DATE, None),
            (503, "٣", DATE, None),
            (503, "", DATE, None),
            (500, "30", DATE, None),
            (200, "30", DATE, None),
        ):
            headers = Headers({"Retry-After": [after], "Date": [date]})
            response = mock.Mock(code=code, headers=headers)
            self.assertEqual(asked_to_wait(response), wanted, (code, after[:50], date))


class Wires(SynchronousTestCase):
    """Connections to registries."""

    def test_cut(self) -> None:
        """A connection is cut in the end, whatever the other side does."""
        reactor = MemoryReactorClock()
        made = Connections(reactor, Trust("/not/there"))
        for url in (b"http://127.0.0.1:5000/", b"https://127.0.0.1:5000/"):
            protocol = Protocol()
            noted: list[Any] = []
            endpoint = Noted(mock.Mock(), noted.append)
            endpoint.endpoint.connect.return_value = succeed(protocol)
            self.assertIs(self.successResultOf(endpoint.connect(None)), protocol)
            self.assertEqual(noted, [protocol])
            self.assertTrue(
                IStreamClientEndpoint.providedBy(made.endpointForURI(URI.fromBytes(url)))
            )
        protocol.transport = mock.Mock()
        made._note(protocol)
        made.cut()
        protocol.transport.abortConnection.assert_called_once_with()

    def test_forgotten(self) -> None:
        """A connection that is lost is not kept in mind."""
        made = Connections(MemoryReactorClock(), Trust("/not/there"))
        lost, one = mock.Mock(), mock.Mock()
        made._note(lost)
        lost.transport.connected = False
        made._note(one)
        self.assertEqual(made._made, [one])

    def test_kept(self) -> None:
        """The connections of a conversation that ended well are the next one's, and only its."""
        registries = Registries(
            MemoryReactorClock(), lambda work, *given: succeed(work(*given)), logins="/not/there"
        )

        def converse(name: str) -> Any:
            begun = Deferred.fromCoroutine(registries.converse(read_reference(name)))
            return self.successResultOf(begun)

        first, second = converse("one.example/app"), converse("one.example/app")
        self.assertIsNot(first.connections, second.connections)
        first.keep()
        self.assertIsNot(converse("other.example/app").connections, first.connections)
        self.assertIs(converse("one.example/app").connections, first.connections)
        self.assertIsNot(converse("one.example/app").connections, first.connections)
        first.keep()
        protocol = mock.Mock()
        first.connections._note(protocol)
        second.keep()
        protocol.transport.abortConnection.assert_called_once_with()


class Loads(PullCase):
    """Images that are found in an archive."""

    def do(self, work: Any) -> Any:
        """Begin a coroutine."""
        return Deferred.fromCoroutine(work)

    def test_disk(self) -> None:
        """A disk that can't be read is at fault, and not the image."""
        gone = str(self.folder / "gone")
        found = Found((), to_bytes(MADE.manifest), to_bytes(MADE.config), {LAYER.digest: gone})
        work = self.arrivals.settle(found, [NAME], [])
        error = self.failureResultOf(self.do(work), MachineAtFault).value
        self.assertIn(f"reading the layer {LAYER.digest} → ENOENT", str(error))
        with mock.patch("txcontain.engine.arrivals.find_images", mock.Mock(side_effect=OSError(5))):
            error = self.failureResultOf(self.do(self.arrivals.find_in(gone)), MachineAtFault).value
        self.assertEqual(error.chain[0], "reading the archive of an image")


class Logins(PullCase):
    """Registries that ask who we are."""

    def write(self, auths: Any) -> None:
        """Write what `docker login` does."""
        (self.folder / "config.json").write_text(json.dumps({"auths": auths}))

    def login(self) -> str:
        """The login for the registry."""
        return login_for(str(self.folder / "config.json"), "127.0.0.1:5000")

    def test_files(self) -> None:
        """A login is found by the registry's name; a file that is damaged has none."""
        self.assertEqual(self.login(), "")
        text = base64.b64encode(b"me:secret").decode()
        for auths, wanted in (
            ({"127.0.0.1:5000": {"auth": text}}, text),
            ({"https://127.0.0.1:5000": {"auth": text}}, text),
            ({"other": {"auth": text}}, ""),
            ({"127.0.0.1:5000": {"auth": "a\r\nX: y"}}, ""),
            ({"127.0.0.1:5000": []}, ""),
            ([], ""),
            (None, ""),
        ):
            self.write(auths)
            self.assertEqual(self.login(), wanted, auths)
        self.write({"https://index.docker.io/v1/": {"auth": text}})
        self.assertEqual(login_for(str(self.folder / "config.json"), "docker.io"), text)

    def asking(self, challenge: str, wanted: str) -> dict[str, Answer]:
        """The answers of a registry that wants this header."""

        def guarded(answer: Answer) -> Answer:
            def check(request: Request) -> Any:
                if request.getHeader("authorization") == wanted:
                    return answer(request)
                return status(401, WWW_Authenticate=challenge)(request)

            return check

        return {path: guarded(answer) for path, answer in whole().items()}

    def test_basic(self) -> None:
        """A password is sent if the registry asks for it."""
        text = base64.b64encode(b"me:secret").decode()
        self.write({"127.0.0.1:5000": {"auth": text}})
        self.successResultOf(self.pull(self.asking('Basic realm="r"', f"Basic {text}")))

    def test_token(self) -> None:
        """A token is got from where the registry says, with the login if there is one."""
        text = base64.b64encode(b"me:secret").decode()
        self.write({"127.0.0.1:5000": {"auth": text}})
        challenge = 'Bearer realm="http://127.0.0.1:5001/token",service="s"'
        answers = self.asking(challenge, "Bearer abc")
        answers["/token"] = body(b'{"token": "abc"}')
        self.successResultOf(self.pull(answers))
        (asked,) = [one for one in self.server.asked if one.path == b"/token"]
        self.assertEqual(asked.args, {b"service": [b"s"], b"scope": [b"repository:app:pull"]})
        self.assertEqual(asked.getHeader("authorization"), f"Basic {text}")

    def test_not_elsewhere(self) -> None:
        """Whoever we are sent on to is not shown the login."""
        text = base64.b64encode(b"me:secret").decode()
        self.write({"127.0.0.1:5000": {"auth": text}})
        answers = self.asking('Basic realm="r"', f"Basic {text}")
        answers[BLOB] = status(307, Location="http://127.0.0.1:5001/elsewhere")
        answers["/elsewhere"] = body(MADE.blobs[LAYER.digest])
        self.successResultOf(self.pull(answers))
        (asked,) = [one for one in self.server.asked if one.path == b"/elsewhere"]
        self.assertIsNone(asked.getHeader("authorization"))

    def test_not_to_whom_we_are_sent(self) -> None:
        """Whoever we are sent on to gets no login either if they ask for one."""
        self.write({"127.0.0.1:5000": {"auth": base64.b64encode(b"me:secret").decode()}})
        challenge = 'Bearer realm="http://127.0.0.1:5001/token"'
        answers = {
            BLOB: status(307, Location="http://127.0.0.1:5001/elsewhere"),
            "/elsewhere": status(401, WWW_Authenticate=challenge),
            "/token": body(b'{"token": "abc"}'),
        }
        error = self.failureResultOf(self.pull(answers), ConfigAtFault).value
        self.assertEqual(
            " → ".join(error.chain),
            f"{WHAT} → {WHO} sends us on to 'http://127.0.0.1:5001/elsewhere', which wants a login"
            " → only the registry itself gets it",
        )
        self.assertNotIn(b"/token", [one.path for one in self.server.asked])

    def test_long_challenge(self) -> None:
        """A challenge is read in one pass, however long its words are."""
        (found,) = CHALLENGE.findall("a" * 10**6 + ' service="s"')
        self.assertEqual(found, ("service", "s"))


class Answers(SynchronousTestCase):
    """A connection to a registry."""

    def setUp(self) -> None:
        self.transport = StringTransportWithDisconnection()
        factory: Any = make_pool(Clock())._factory(lambda _: None, "")
        self.client: Any = factory.buildProtocol(None)
        self.transport.protocol = self.client
        self.client.makeConnection(self.transport)
        host = Headers({b"host": [b"r"]})
        self.asked = self.client.request(ClientRequest(b"GET", b"/", host, None, True))

    def test_headers(self) -> None:
        """One that sends headers without an end is cut."""
        self.client.dataReceived(b"HTTP/1.1 200 OK\r\n")
        while self.transport.connected:
            self.client.dataReceived(b"a: b\r\n" * 1000)
        error: Any = self.failureResultOf(self.asked, ResponseFailed).value
        self.assertEqual(str(error.reasons[0].value), "it sends more than 128 KiB of headers")

    def test_body(self) -> None:
        """A body may be longer than the headers of an answer may be."""
        self.client.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        read = readBody(self.successResultOf(self.asked))
        for _ in range(10):
            self.client.dataReceived(b"a" * 100_000)
        self.assertEqual(len(self.successResultOf(read)), 1_000_000)
