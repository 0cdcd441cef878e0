"""Images on their way to a registry, which is one in memory."""

from typing import Any, cast

from attrs import evolve
from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from txcontain.container.reference import read_reference
from txcontain.errors import ConfigAtFault
from txcontain.images import pushing
from txcontain.images.oci import CONFIG, LAYER, MANIFEST, described
from txcontain.images.oci_writing import Blob, Image
from txcontain.images.packing import LEAST_WITHIN
from txcontain.images.pushing import AT_ONCE, MOST_TRIES, Body, Push
from txcontain.images.registry import Conversation, Cut


def blob(content: bytes, kind: str = LAYER) -> Blob:
    """A part of an image."""
    return Blob(described(content, kind), content)


class Registry(Resource):
    """Keeps what it is sent; ``answers`` has what it says instead of the usual."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.logins: list[str | None] = []

    def render(self, request: Any) -> bytes:
        """Answer."""
        path = request.path.decode().removeprefix("/v2/app/")
        method = request.method.decode()
        self.asked.append(f"{method} {path}")
        self.logins.append(request.getHeader("Authorization"))
        code, headers = self.answers.get(f"{method} {path}", self.usual(method, path, request))
        request.setResponseCode(code)
        for name, value in headers.items():
            request.setHeader(name, value)
        return b""

    def usual(self, method: str, path: str, request: Any) -> tuple[int, dict[str, str]]:
        """What a registry does."""
        name = path.rpartition("/")[2]
        if method == "HEAD":
            content = self.kept.get(name)
            if content is None:
                return 404, {}
            return 200, {"Docker-Content-Digest": described(content, MANIFEST).digest}
        if method == "POST":
            return 202, {"Location": "/v2/app/blobs/uploads/1?state=x"}
        if "uploads" in path:
            name = request.args[b"digest"][0].decode()
        self.kept[name] = request.content.read()
        return 201, {}


class PushTests(SynchronousTestCase):
    """What is sent."""

    def setUp(self) -> None:
        self.registry, self.clock = Registry(), Clock()
        self.agent = RequestTraversalAgent(self.registry)
        self.http = HTTPClient(cast(Any, self.agent))
        one = blob(b"a layer")
        self.image = Image(
            "app:1", "1", blob(b"{}", MANIFEST), blob(b"[]", CONFIG), [one, one, blob(b"other")]
        )

    def push(self, insecure: bool = True, login: str = "") -> Deferred[None]:
        """Push the image."""

        class Registries:
            reactor = self.clock
            threads = staticmethod(lambda work, *given: succeed(work(*given)))

        reference = read_reference("127.0.0.1:5000/app:1")
        given: Any = (Registries, reference, insecure, login, self.http, None)
        return Deferred.fromCoroutine(pushing.push_of(Conversation(*given)).send(self.image))

    def flush(self) -> None:
        """Have all that is on its way arrive."""
        for _ in range(30):
            self.agent.flush()

    def pushed(self) -> None:
        """Push the image, which works."""
        begun = self.push()
        self.flush()
        self.successResultOf(begun)

    def refused(self, **more: Any) -> str:
        """Push the image, which fails; returns why."""
        begun = self.push(**more)
        self.flush()
        return str(self.failureResultOf(begun, ConfigAtFault).value)

    def test_all(self) -> None:
        """Each blob is sent once, and the manifest last, by its tag."""
        self.pushed()
        parts = [self.image.layers[0], self.image.layers[2], self.image.config]
        wanted = {part.descriptor.digest: part.source for part in parts} | {"1": b"{}"}
        self.assertEqual(self.registry.kept, wanted)
        self.assertEqual(self.registry.asked[-1], "PUT manifests/1")

    def test_what_is_there(self) -> None:
        """What the registry has is not sent; of a whole image, one request tells."""
        self.pushed()
        self.registry.asked.clear()
        self.pushed()
        self.assertEqual(self.registry.asked, ["HEAD manifests/1"])
        self.registry.kept["1"] = b"another image"
        self.pushed()
        sent = [text for text in self.registry.asked if not text.startswith("HEAD")]
        self.assertEqual(sent, ["PUT manifests/1"])
        self.assertEqual(self.registry.kept["1"], b"{}")

    def held_back(self) -> list[Deferred[None]]:
        """Have many blobs, and requests for what the registry has of them wait for these."""
        self.image = evolve(self.image, layers=[blob(bytes([number])) for number in range(9)])
        real, waiting = Push.ask, list[Deferred[None]]()

        async def wait(
            push: Push, url: str, headers: Any, method: str = "GET", body: Any = None
        ) -> Any:
            if method == "HEAD" and "/blobs/" in url:
                waiting.append(Deferred())
                await waiting[-1]
            return await real(push, url, headers, method, body)

        self.patch(Push, "ask", wait)
        return waiting

    def test_some_at_once(self) -> None:
        """Some blobs are on their way at a time, not all, and the manifest after the last."""
        waiting, begun = self.held_back(), self.push()
        for number in range(10):
            self.flush()
            self.assertEqual(len(waiting), min(number + AT_ONCE, 10))
            self.assertNotIn("PUT manifests/1", self.registry.asked)
            waiting[number].callback(None)
        self.flush()
        self.successResultOf(begun)
        self.assertEqual(len(self.registry.kept), 11)

    def test_first_refusal(self) -> None:
        """Once a blob is refused, no other one is begun."""
        self.registry.answers["POST blobs/uploads/"] = 403, {}
        waiting, begun = self.held_back(), self.push()
        self.flush()
        for one in waiting:
            one.callback(None)
            self.flush()
        self.failureResultOf(begun, ConfigAtFault)
        self.assertEqual(len(waiting), AT_ONCE)

    def test_login(self) -> None:
        """A registry that asks for a login gets it; a token is asked for with leave to push."""
        begun = {"WWW-Authenticate": 'Basic realm="x"'}
        first = f"HEAD blobs/{self.image.layers[0].descriptor.digest}"
        self.registry.answers[first] = 401, begun
        self.assertIn("log in: `docker login`", self.refused())
        self.push(login="dTpw")
        self.flush()
        self.assertIn("Basic dTpw", self.registry.logins)
        self.assertEqual(Push.scope, "pull,push")

    def test_refused(self) -> None:
        """A registry that refuses, or sends us elsewhere, is named with what it answers."""
        for request, answer, said in (
            ("POST blobs/uploads/", (403, {}), "does not let us have it"),
            ("POST blobs/uploads/", (500, {}), "answers 500"),
            ("POST blobs/uploads/", (202, {"Location": "http://example.com/"}), "sends us on to"),
            ("POST blobs/uploads/", (202, {"Location": "file:///etc"}), "sends us on to"),
            ("PUT blobs/uploads/1", (400, {}), "answers 400"),
            ("PUT manifests/1", (413, {}), "answers 413"),
        ):
            self.registry.answers = {request: answer}
            self.registry.kept.clear()
            told = self.refused()
            self.assertTrue(told.startswith("pushing 127.0.0.1:5000/app:1 → "), told)
            self.assertIn(said, told)

    def test_asks_to_wait(self) -> None:
        """A registry that asks for some time gets it, and then the whole of the blob again."""
        usual, times = self.registry.usual, []

        def busy(method: str, path: str, request: Any) -> tuple[int, dict[str, str]]:
            times.append(f"{method} {path.partition('/')[0]}")
            if times.count(times[-1]) == 1:
                return 503, {"Retry-After": "7"}
            return usual(method, path, request)

        self.registry.usual = busy
        begun = self.push()
        for _ in range(40):
            self.flush()
            self.clock.advance(1)
        self.successResultOf(begun)
        self.assertEqual(self.registry.kept["1"], b"{}")
        self.assertIn(b"a layer", self.registry.kept.values())
        self.registry.usual = usual
        self.registry.kept.clear()
        self.registry.answers = {"PUT manifests/1": (429, {"Retry-After": "99"})}
        self.assertIn("it asks us to wait 99 s: try again then", self.refused())

    def test_cut(self) -> None:
        """A blob is sent again after a cut, but not for ever."""
        real, cuts = Push.ask, [0]

        async def cut(
            push: Push, url: str, headers: Any, method: str = "GET", body: Any = None
        ) -> Any:
            if "digest=" in url and cuts[0]:
                cuts[0] -= 1
                raise Cut("a cable was pulled")
            return await real(push, url, headers, method, body)

        self.patch(Push, "ask", cut)
        cuts[0] = MOST_TRIES - 1
        self.pushed()
        self.registry.kept.clear()
        cuts[0] = MOST_TRIES
        self.assertIn("hangs up → a cable was pulled", self.refused())

    def test_cannot_be_read(self) -> None:
        """If a layer can't be read, that is what is said."""

        def broken() -> Any:
            yield b"x"
            raise ConfigAtFault("a became shorter while it was read")

        body = Body(lambda work, *given: succeed(work(*given)), broken(), 3)
        sent = body.startProducing(StubConsumer())
        self.failureResultOf(sent, ConfigAtFault)
        self.assertIn("became shorter", str(body.failed))

    def test_too_slow(self) -> None:
        """A registry that takes nothing any more is given up."""
        given_up: list[Any] = []
        asked: Deferred[None] = Deferred(given_up.append)
        asked.addErrback(lambda _: None)
        body = Body(lambda work, *given: succeed(work(*given)), iter([b"x"]), 1)
        body.bound(self.clock, asked)
        body.pauseProducing()
        sent = body.startProducing(StubConsumer())
        self.assertNoResult(sent)
        self.clock.advance(LEAST_WITHIN)
        self.assertEqual(len(given_up), 1)
        body.stopProducing()
        self.assertNoResult(sent)  # who is gone need not be told


class StubConsumer:
    """Takes all."""

    def write(self, data: bytes) -> None:
        """Something comes."""
