"""HTTP mechanics: errors, methods, paths, queries."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request
from twisted.web.test.requesthelper import DummyChannel

import txcontain.swarm.client  # noqa: F401 (it adds an error, and nothing else here imports it)
from txcontain import errors
from txcontain.api.verbs import (
    STATUSES,
    Collection,
    ExtensionResource,
    NamedChildren,
    NotFound,
    Verb,
    choice,
    flag,
    number,
    query,
)


def all_errors(kind: Any = errors.Error) -> Iterator[Any]:
    """The domain's errors."""
    for error in kind.__subclasses__():
        yield error
        yield from all_errors(error)


class RestTestCase(SynchronousTestCase):
    """A test of resources in memory."""

    def setUp(self) -> None:
        self.root = NotFound()
        self.http: Any = StubTreq(self.root)

    def put(self, path: bytes, resource: Any) -> None:
        """Put a resource at a path."""
        self.root.putChild(path, resource)

    def ask(self, method: str, path: str, **options: Any) -> tuple[Any, bytes]:
        """A request's response, and its body."""
        asked = self.http.request(method, f"http://localhost{path}", **options)
        self.http.flush()
        response = self.successResultOf(asked)
        return response, self.successResultOf(response.content())

    def status(self, method: str, path: str) -> int:
        """The status that a request is answered with."""
        return self.ask(method, path)[0].code


class ErrorTests(RestTestCase):
    """From an error to an answer."""

    def refused(
        self, error: Any, verb: type[ExtensionResource] | type[Verb] = Verb
    ) -> tuple[Any, bytes]:
        """The answer if a method raises this."""

        async def method(request: Any) -> None:
            raise error

        self.put(b"x", verb(GET=method))
        return self.ask("GET", "/x")

    def test_every_error(self) -> None:
        """Each of the domain's errors has a status; only what is no caller's fault is a 5xx."""
        for kind in all_errors():
            response, _ = self.refused(kind("why"))
            of_engine = errors.Unavailable, errors.NotInSwarm
            machine = issubclass(kind, (errors.MachineAtFault, *of_engine))
            self.assertEqual(response.code >= 500, machine, kind)
            self.assertTrue(any(issubclass(kind, listed) for listed, *_ in STATUSES))

    def test_unavailable(self) -> None:
        """What does not answer now is 503, with the time after which to try again."""
        response, _ = self.refused(errors.Unavailable("no leader"))
        self.assertEqual(response.code, 503)
        self.assertEqual(response.headers.getRawHeaders("Retry-After"), ["5"])

    def test_reason(self) -> None:
        """A refusal's body is empty; its reason is in a header, whatever characters it holds."""
        reason = "100 % of “x”\r\nSet-Cookie: no → nothing"
        response, body = self.refused(errors.ConfigAtFault(reason, "do that"))
        self.assertEqual((body, response.length), (b"", 0))
        told = response.headers.getRawHeaders("Txcontain-Reason")[0]
        self.assertEqual(unquote(told), f"{reason} → do that")
        self.assertTrue(told.isascii() and told.isprintable())
        self.assertFalse(response.headers.hasHeader("Set-Cookie"))

    def test_long_reason(self) -> None:
        """A reason of any length fits into a header."""
        response, _ = self.refused(errors.ConfigAtFault("→" * 100_000))
        told = response.headers.getRawHeaders("Txcontain-Reason")[0]
        self.assertLessEqual(len(told), 4096)
        self.assertEqual(unquote(told, errors="strict").strip("→"), "")

    def test_problem(self) -> None:
        """An extension tells the reason in the body too, as application/problem+json."""
        response, body = self.refused(
            errors.NoSuchInstance("no web-9", "see ps"), ExtensionResource
        )
        self.assertEqual(
            response.headers.getRawHeaders("Content-Type"), ["application/problem+json"]
        )
        self.assertEqual(
            json.loads(body),
            {
                "type": "urn:txcontain:no-such-instance",
                "title": "Not Found",
                "status": 404,
                "detail": "no web-9",
                "chain": ["see ps"],
            },
        )

    def test_unsendable(self) -> None:
        """If an answer can't be sent, the connection ends: no client waits for ever."""

        async def method(request: Any) -> Any:
            return {"an object": object()}

        request = Request(DummyChannel(), False)
        request.method, request.path = b"GET", b"/x"
        with patch.object(request, "loseConnection") as hang_up:
            Verb(GET=method).render(request)
        hang_up.assert_called_once_with()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_unexpected(self) -> None:
        """An unexpected exception is a 500 that gives nothing away, and is logged."""
        for verb in (Verb, ExtensionResource):
            response, body = self.refused(ZeroDivisionError("secret"), verb)
            self.assertEqual(response.code, 500)
            self.assertNotIn(b"secret", body)
            self.assertNotIn("secret", str(response.headers))
            self.assertNotIn(b"Traceback", body)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_after_the_beginning(self) -> None:
        """An error in the middle of an answer ends the connection, and adds nothing to it."""

        async def method(request: Any) -> None:
            request.write(b"half of")
            raise errors.MachineAtFault("the disk")

        channel, lost = DummyChannel(), []
        channel.loseConnection = lambda: lost.append(True)
        request = Request(channel, False)
        request.method, request.clientproto, request.args = b"GET", b"HTTP/1.0", {}
        ExtensionResource(GET=method).render(request)
        self.assertTrue(channel.transport.written.getvalue().endswith(b"\r\n\r\nhalf of"))
        self.assertEqual((lost, request.finished), ([True], 0))


class MethodTests(RestTestCase):
    """What a resource does with each method."""

    def setUp(self) -> None:
        super().setUp()
        self.put(b"x", Verb(GET=self.get, DELETE=self.delete))

    async def get(self, request: Any) -> dict[str, str]:
        return {"key": "value"}

    async def delete(self, request: Any) -> None:
        pass

    def test_json(self) -> None:
        """What a method returns is answered as JSON."""
        response, body = self.ask("GET", "/x")
        self.assertEqual(json.loads(body), {"key": "value"})
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["application/json"])

    def test_nothing(self) -> None:
        """A method that returns nothing is answered with 200 and an empty body."""
        response, body = self.ask("DELETE", "/x")
        self.assertEqual((response.code, body), (200, b""))

    def test_head(self) -> None:
        """HEAD is answered as GET is, without the body."""
        response, body = self.ask("HEAD", "/x")
        self.assertEqual((response.code, body), (200, b""))
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["application/json"])

    def test_other_methods(self) -> None:
        """Any other method is answered with 405 and those that the resource has."""
        for method in ("POST", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW"):
            response, body = self.ask(method, "/x")
            self.assertEqual((response.code, body), (405, b""), method)
            self.assertEqual(response.headers.getRawHeaders("Allow"), ["DELETE, GET, HEAD"])

    def test_slash(self) -> None:
        """A trailing slash makes no difference, two do, and there is nothing below."""
        statuses = [self.status("GET", path) for path in ("/x", "/x/", "/x//", "/x/y", "/x/y/")]
        self.assertEqual(statuses, [200, 200, 404, 404, 404])

    def test_nowhere(self) -> None:
        """An unknown path is answered with 404, whatever the method."""
        for method in ("GET", "POST", "DELETE", "HEAD", "BREW"):
            for path in ("/", "/nothing", "/nothing/below"):
                response, body = self.ask(method, path)
                self.assertEqual((response.code, body), (404, b""))

    def test_client_gone(self) -> None:
        """If the client hangs up, its request is carried out all the same, without an answer."""
        working: Deferred[Any] = Deferred()
        done = []

        async def method(request: Any) -> dict[str, str]:
            await working
            done.append(True)
            return {"key": "value"}

        channel = DummyChannel()
        request = Request(channel, False)
        request.method = b"GET"
        Verb(GET=method).render(request)
        request.connectionLost(ConnectionError())
        working.callback(None)
        self.assertEqual((done, channel.transport.written.getvalue()), ([True], b""))


class PathTests(RestTestCase):
    """Resources by name."""

    def setUp(self) -> None:
        super().setUp()
        self.put(b"x", NamedChildren(self.named))
        self.put(b"y", Collection(self.named("all"), self.named))

    def named(self, name: str) -> Verb:
        async def get(request: Any) -> str:
            return name

        return Verb(GET=get)

    def test_name(self) -> None:
        """A name is a resource, with and without a trailing slash."""
        for path in ("/x/web-1", "/x/web-1/", "/y/web-1", "/y/web-1/"):
            self.assertEqual(self.ask("GET", path)[1], b'"web-1"')

    def test_all(self) -> None:
        """Without a name there is nothing, or all."""
        self.assertEqual([self.status("GET", path) for path in ("/x", "/x/")], [404, 404])
        self.assertEqual([self.ask("GET", path)[1] for path in ("/y", "/y/")], [b'"all"'] * 2)

    def test_names_that_are_none(self) -> None:
        """A name with a slash is an unknown path; any other name is passed on to the resource."""
        self.assertEqual(self.status("GET", "/x/a/b"), 404)
        for path, name in (
            ("/x/%ff", "\\xff"),
            ("/x/%C3%A9", "é"),
            ("/x/%00%ff", "\0\\xff"),
            ("/x/..%2F..%2Fetc", "../../etc"),
        ):
            self.assertEqual(json.loads(self.ask("GET", path)[1]), name)


class QueryTests(SynchronousTestCase):
    """What a query asks for."""

    def query(self, *parameters: tuple[bytes, bytes]) -> dict[str, Any]:
        """What is read from a query with these parameters."""
        request = Request(DummyChannel(), False)
        request.args = {}
        for name, value in parameters:
            request.args.setdefault(name, []).append(value)
        readers = {"tail": number, "follow": flag, "stream": choice("stdout", "stderr")}
        return query(request, **readers)

    def refused(self, *parameters: tuple[bytes, bytes]) -> str:
        """Why a query is refused."""
        return str(self.assertRaises(errors.InvalidData, self.query, *parameters))

    def test_left_out(self) -> None:
        """What is left out is None."""
        self.assertEqual(self.query(), {"tail": None, "follow": None, "stream": None})

    def test_number(self) -> None:
        """A number is decimal, and of a reasonable size."""
        self.assertEqual(self.query((b"tail", b"12"))["tail"], 12)
        for text in (b"-1", b"x", b"1e3", b"1" * 16, "²".encode(), "٣".encode(), b"\xff", b""):
            self.assertIn("a whole number from 0 to 9999", self.refused((b"tail", text)))

    def test_flag(self) -> None:
        """A flag is a yes or a no in the words of JSON, Python and C; anything else is refused."""
        for text, value in (
            (b"1", True),
            (b"true", True),
            (b"True", True),
            (b"TRUE", True),
            (b"0", False),
            (b"false", False),
            (b"False", False),
        ):
            self.assertIs(self.query((b"follow", text))["follow"], value)
        for text in (b"", b"yes", b"no", b"AAA", b"2", b"\xff"):
            self.assertIn("must be 1, true, 0 or false, not", self.refused((b"follow", text)))

    def test_choice(self) -> None:
        """A choice is one of the words that are allowed."""
        self.assertEqual(self.query((b"stream", b"stderr"))["stream"], ("stderr",))
        for text in (b"stdin", b"\xff", b""):
            self.assertIn("must be stdout or stderr, not", self.refused((b"stream", text)))

    def test_unknown(self) -> None:
        """An unknown parameter is refused, and the known ones are named."""
        known = "the parameters are tail, follow, stream"
        self.assertEqual(
            self.refused((b"tial", b"3")), f"the query has no parameter 'tial' → {known}"
        )

    def test_twice(self) -> None:
        """A parameter that is given twice is refused, even with the same value."""
        twice = [(b"tail", b"3")] * 2
        self.assertEqual(self.refused(*twice), "the query has the parameter tail twice")
