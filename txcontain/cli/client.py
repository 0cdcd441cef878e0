"""The REST API as methods: a thin client over treq.

A module of commands may also send its own requests, with `Client.ask` and `Client.feed`.

Every answer is read as a stream, even a short one. So there is one place that sends requests, one
that gives them up, and one that explains failures.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NoReturn, TypeAlias
from urllib.parse import quote, unquote

from treq import collect
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionRefusedError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    FileBodyProducer,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from txcontain.cli.connect import (
    QUICK,
    Way,
    agent,
    distrust,
    how_to_start,
    request_url,
    way_to,
)
from txcontain.cli.errors import CliError, HungUp, Refused, chain

# Seconds that the manager may be silent during a slow request: a launch waits until its container
# is ready, a destroy until the container has ended.
SLOW = 60

# What an answer must look like, for `fits`.
LAUNCHED = {"instance": str, "name": str, "major": str, "minor": str}
EXIT = {"status": (int, None), "signal": (int, None), "reason": str}
RECORD = {
    **LAUNCHED,
    "state": str,
    "since": (int, float),
    "pid": (int, None),
    "restarts": int,
    "exit": (EXIT, None),
}
EVENT = {
    "seq": int,
    "time": (int, float),
    "instance": (str, None),
    "what": str,
    "reason": (str, None),
}
VOLUME = {
    "volume": str,
    "created": (int, float),
    "size": (int, None),
    "bound": (int, None),
    "used_by": [str],
}
FILE = {"name": str, "kind": str}
CHANGES = {"changes": [{"kind": str, "path": str}], "complete": bool}
COMMITTED = {"mountable": str, "mount": str, "size": int}
USAGE = {**LAUNCHED, "limits": dict}
PROBLEM = {"title": str, "detail": str, "chain": [str]}

Json: TypeAlias = Any


def fits(value: object, shape: Any) -> bool:
    """Say whether `value`, which came as JSON, has this shape.

    A shape is a type, None, a dict of the keys that must be there, a list that
    holds the shape of every item, or a tuple of shapes of which one must fit.
    """
    match shape:
        case dict():
            return isinstance(value, dict) and all(
                key in value and fits(value[key], part) for key, part in shape.items()
            )
        case list():
            return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
        case tuple():
            return any(fits(value, part) for part in shape)
        case None:
            return value is None
    return isinstance(value, shape)


def parse(text: bytes, shape: Any) -> Json:
    """Return the JSON value in `text`.

    :raises ValueError: if it is no JSON, or has not this shape
    """
    value = json.loads(text)
    if not fits(value, shape):
        raise ValueError("it lacks what such an answer must have")
    return value


class Flow:
    """A file that is read to its end. (Twisted seeks in others, and a pipe can't be sought in.)"""

    def __init__(self, file: Any) -> None:
        self.read = file.read
        self.close = file.close


class Client:
    """The manager at `url`, as seen through `http`.

    Every method raises Refused if the manager refuses, and CliError if there is no answer or
    one that can't be understood.

    :param token: identifies the caller to the manager
    :ivar url: what requests are sent to
    :ivar way: to the manager, for what is no plain HTTP
    :ivar notes: advice from the answers, a sentence each
    """

    def __init__(
        self, url: str, http: HTTPClient, clock: IReactorTime, token: str | None = None
    ) -> None:
        self._where = url.rstrip("/")
        self.url = request_url(self._where)
        self._http = http
        self.clock = clock
        self.notes: list[str] = []
        self.way: Way | None = None
        self.shown = {"Authorization": f"Bearer {token}"} if token else {}

    @classmethod
    def connecting(cls, url: str, reactor: Any, token: str | None, **files: Any) -> "Client":
        """Return a client that connects to a manager; `files` as `way_to` takes them.

        :raises CliError: if the token would be there for others to read, or a file can't be used
        """
        way = way_to(url, reactor, token, **files)
        client = cls(url, HTTPClient(agent(reactor, way)), reactor, token)
        client.way = way
        return client

    # The course's resources.

    async def upload(self, document: bytes) -> None:
        """Store a config."""
        json_type = {"Content-Type": "application/json"}
        await self.ask("POST", "/config", data=document, headers=json_type)

    async def cfginfo(self) -> Json:
        """Return the file names of the stored configs."""
        return (await self.ask("GET", "/cfginfo", shape={"files": [str]}))["files"]

    async def launch(self, name: str, major: str, minor: str) -> Json:
        """Start a container; return its instance, name, major and minor, however long it takes."""
        which = {"name": name, "major": major, "minor": minor}
        return await self.ask("POST", "/launch", json=which, shape=LAUNCHED, patience=None)

    async def list(self) -> Json:
        """Return the running instances, each as its launch returned it."""
        return (await self.ask("GET", "/list", shape={"instances": [LAUNCHED]}))["instances"]

    async def destroy(self, instance: str) -> None:
        """End one instance, and remove what it kept."""
        await self.ask("DELETE", f"/destroy/{quoted(instance)}", patience=SLOW)

    async def destroyall(self) -> None:
        """End every instance."""
        await self.ask("DELETE", "/destroyall", patience=SLOW)

    # The extensions.

    async def instances(self) -> Json:
        """Return the records of all instances, also of those that have ended."""
        return (await self.ask("GET", "/instances", shape={"instances": [RECORD]}))["instances"]

    async def matching(self, wanted: str) -> Json:
        """Return the records of the instances that `wanted` stands for."""
        path, shape = f"/instances?match={quoted(wanted)}", {"instances": [RECORD]}
        return (await self.ask("GET", path, shape=shape))["instances"]

    async def change(self, instance: str, verb: str, **values: Any) -> Json:
        """Have an instance stop, start, and so on; return its record, however long that takes."""
        path = f"/instances/{quoted(instance)}/{verb}"
        given = {key: value for key, value in values.items() if value is not None}
        return await self.ask("POST", path, json=given, shape=RECORD, patience=None)

    async def inspect(self, instance: str) -> Json:
        """Return all that is known of one instance."""
        return await self.ask("GET", f"/instances/{quoted(instance)}", shape=dict)

    async def launch_instance(self, **asked: Any) -> Json:
        """The same as POST /instances takes it; what is None is left out."""
        given = {key: value for key, value in asked.items() if value is not None}
        return await self.ask("POST", "/instances", json=given, shape=LAUNCHED, patience=None)

    async def kill(self, instance: str, number: int) -> None:
        """Send a signal to an instance."""
        path = f"/instances/{quoted(instance)}/kill"
        await self.ask("POST", path, json={"signal": number})

    async def wait(self, instance: str) -> Json:
        """Return how an instance ended, once it has, however long that takes."""
        path = f"/instances/{quoted(instance)}/wait"
        return (await self.ask("GET", path, shape={"exit": EXIT}, patience=None))["exit"]

    async def stats(self) -> Json:
        """Return what every running instance uses."""
        return (await self.ask("GET", "/stats", shape={"stats": [USAGE]}))["stats"]

    def pause(self, seconds: float) -> Deferred[None]:
        """Fire after so many seconds."""
        return deferLater(self.clock, seconds)

    async def volumes(self) -> Json:
        """Return the records of all volumes."""
        shape = {"volumes": [VOLUME]}
        return (await self.ask("GET", "/volumes", shape=shape, patience=SLOW))["volumes"]

    async def volume(self, name: str) -> Json:
        """Return what is known of one volume."""
        return await self.ask("GET", f"/volumes/{quoted(name)}", shape=VOLUME, patience=SLOW)

    def export_volume(self, name: str, pause: bool) -> AsyncIterator[bytes]:
        """Yield a volume as a tarball; with `pause`, of instances that stand still meanwhile."""
        params = {"pause": "1"} if pause else {}
        path = f"/volumes/{quoted(name)}/export"
        return self._stream("GET", path, params=params, patience=None)

    async def import_volume(self, name: str, file: IO[bytes]) -> None:
        """Make a volume of a tarball, which may be compressed."""
        path = f"/volumes/{quoted(name)}/import"
        body = FileBodyProducer(Flow(file))
        await self.ask("PUT", path, data=body, patience=None)

    async def make_volume(self, name: str, size: "str | None") -> None:
        """Make an empty volume, which may take so much at most, such as "1G"."""
        wanted = {} if size is None else {"size": size}
        await self.ask("PUT", f"/volumes/{quoted(name)}", json=wanted)

    async def remove_volume(self, name: str) -> None:
        """Remove a volume and all that is in it."""
        await self.ask("DELETE", f"/volumes/{quoted(name)}", patience=SLOW)

    def read_files(self, instance: str, path: str) -> AsyncIterator[bytes]:
        """Yield what is at a path of an instance, as a tar stream."""
        params = {"path": path}
        where = f"/instances/{quoted(instance)}/files"
        return self._stream("GET", where, params=params, patience=SLOW)

    async def look_at_file(self, instance: str, path: str) -> Json:
        """Return the name and the kind of what is at a path of an instance."""
        params = {"path": path, "stat": "1"}
        where = f"/instances/{quoted(instance)}/files"
        return await self.ask("GET", where, params=params, shape=FILE, patience=SLOW)

    async def write_files(self, instance: str, path: str, stream: Any, owners: bool) -> None:
        """Write a tar stream into a folder of an instance."""
        params = {"path": path, "owners": str(int(owners))}
        where = f"/instances/{quoted(instance)}/files"
        body = FileBodyProducer(Flow(stream))
        await self.ask("PUT", where, params=params, data=body, patience=None)

    async def changes(self, instance: str) -> Json:
        """Return what an instance has changed."""
        where = f"/instances/{quoted(instance)}/diff"
        return await self.ask("GET", where, shape=CHANGES, patience=SLOW)

    async def commit(self, instance: str, name: str, mount: str | None, pause: bool) -> Json:
        """Keep what an instance has at a writable mount as a new mountable."""
        body = {"mountable": name, "pause": pause} | ({"mount": mount} if mount else {})
        where = f"/instances/{quoted(instance)}/commit"
        return await self.ask("POST", where, json=body, shape=COMMITTED, patience=None)

    async def doctor(self) -> Json:
        """Have the manager clean up leftovers; return what it found and did, a sentence each."""
        shape = {"findings": [str]}
        return (await self.ask("POST", "/doctor", shape=shape, patience=SLOW))["findings"]

    def logs(self, instances: Sequence[str], follow: bool, **params: Any) -> AsyncIterator[bytes]:
        """Yield what instances have written; with `follow`, also what they write from now on.

        The logs of several instances, or of all (if none is named), are merged by time.

        :param params: tail (a number of lines), stream ("stdout" or "stderr"), since, until
            (RFC 3339, or a duration), timestamps (1), or None
        """
        if len(instances) == 1 and ":" not in instances[0]:  # which stands for all of something
            return self.feed(f"/instances/{quoted(instances[0])}/logs", follow, **params)
        which: dict[str, Any] = {"instance": list(instances)} if instances else {"all": 1}
        return self.feed("/logs", follow, **which, **params)

    async def events(self, follow: bool, since: str | None = None) -> AsyncIterator[Json]:
        """Yield the events since a time or a number; with `follow`, also those to come."""
        async for line in self.by_line(self.feed("/events", follow, since=since)):
            yield self.understood(line, EVENT)

    # Requests and answers.

    async def read(self, path: str) -> bytes:
        """Return a body that is not understood."""
        return b"".join([chunk async for chunk in self._stream("GET", path)])

    async def connect(self, protocol: Any) -> None:
        """Connect a protocol of another kind to the manager."""
        assert self.way is not None
        with self.explaining():
            endpoint = self.way(URI.fromBytes(self.url.encode()))
            await connectProtocol(endpoint, protocol)

    async def ask(self, method: str, path: str, *, shape: Any = None, **options: Any) -> Any:
        """Send a request; return its answer, parsed if a shape is given (see `fits`).

        :param options: patience, the seconds that the manager may be silent (None: forever), and
            what treq takes: data, json, params, headers
        """
        body = b"".join([chunk async for chunk in self._stream(method, path, **options)])
        return self.understood(body, shape) if shape else None

    def stream(self, method: str, path: str, **options: Any) -> AsyncGenerator[bytes, None]:
        """Send a request; yield the body of its answer as it comes; options as `ask` has them."""
        return self._stream(method, path, **options)

    def feed(self, path: str, follow: bool, **params: Any) -> AsyncIterator[bytes]:
        """Yield a long body; one that is followed may be silent forever."""
        given = {
            key: value if isinstance(value, list) else str(value)
            for key, value in params.items()
            if value is not None
        }
        if follow:
            given["follow"] = "1"
        return self._stream("GET", path, params=given, patience=None if follow else QUICK)

    @staticmethod
    async def by_line(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the lines of a body that are whole and not empty."""
        rest = b""
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                yield line

    async def _stream(
        self, method: str, path: str, *, patience: float | None = QUICK, **options: Any
    ) -> AsyncGenerator[bytes, None]:
        """Send a request; yield the body of its answer as it comes."""
        headers = {**self.shown, **options.pop("headers", {})}
        with self.explaining():
            response = await self._within(
                patience,
                self._http.request(
                    method,
                    self.url + path,
                    reactor=self.clock,
                    unbuffered=True,
                    allow_redirects=False,
                    headers=headers,
                    **options,
                ),
            )
            chunks = self._chunks(response, patience)
            if response.code != 200:
                body = b"".join([chunk async for chunk in chunks])
                raise self.refused(response.code, response.phrase, response.headers, body)
            told = map(unquote, response.headers.getRawHeaders("Txcontain-Note", []))
            self.notes += [one for one in told if one not in self.notes]
            async for chunk in chunks:
                yield chunk

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn what becomes of a connection into a CliError."""
        try:
            yield
        except ConnectionRefusedError as error:
            raise CliError(
                f"Nothing listens at {self._where}: {how_to_start(self._where)}, or name another"
                " manager with --url."
            ) from error
        except (ConnectError, OSError, UnicodeError) as error:
            # OSError is a host that is not found; UnicodeError, a name that no host can have.
            raise CliError(f"Can't connect to {self._where}: {error}") from error
        except (ConnectionClosed, RequestTransmissionFailed, ResponseFailed) as error:
            if why := distrust(error):
                raise CliError(f"No trust between {self._where} and this side: {why}") from error
            raise HungUp(
                f"The manager at {self._where} hung up before its answer was complete:"
                " if it was restarted, run this command again."
            ) from error

    async def _chunks(self, response: IResponse, patience: float | None) -> AsyncIterator[bytes]:
        """Yield the body of a response as it comes."""
        # The queue ends with what `collect` ends with: None, or a Failure.
        queue: DeferredQueue[bytes | Failure | None] = DeferredQueue()
        collect(response, queue.put).addBoth(queue.put)
        while (chunk := await self._within(patience, queue.get())) is not None:
            if isinstance(chunk, Failure):
                chunk.raiseException()
            yield chunk

    def _within(self, patience: float | None, answer: Deferred[Any]) -> Deferred[Any]:
        """Return `answer`, which fails if it takes longer than `patience` seconds."""
        if patience is None:
            return answer

        def give_up(*_: object) -> NoReturn:
            raise self.silent(patience)

        return answer.addTimeout(patience, self.clock, give_up)

    def silent(self, patience: float) -> CliError:
        """Return why an answer is not waited for any more."""
        return CliError(
            f"The manager at {self._where} did not answer within {patience} s. It may still"
            " do what it was asked: `txcontain ps` shows what is running."
        )

    def refused(self, code: int, phrase: bytes, headers: Headers, body: bytes) -> Refused:
        """Return why the manager refused, from the body, a header or the status line."""
        if headers.getRawHeaders("Content-Type", [""])[0].startswith("application/problem+json"):
            problem = self.understood(body, PROBLEM)
            lines = [f"{problem['title']}: {problem['detail']}", *problem["chain"]]
            return Refused(code, "\n  ".join(lines), problem.get("type", ""))
        told = unquote(headers.getRawHeaders("Txcontain-Reason", [""])[0])
        nothing_told = (
            f"HTTP status {code} {phrase.decode('latin-1')}, without a reason:"
            f" is {self._where} a txcontain manager's address?"
        )
        return Refused(code, chain(told) or nothing_told)

    def understood(self, text: bytes, shape: Any) -> Json:
        """Return the JSON value in `text`."""
        try:
            return parse(text, shape)
        except ValueError as error:
            raise CliError(
                f"What answers at {self._where} is not a txcontain manager, or one of another"
                f" version: its answer can't be read ({error})."
            ) from error


def quoted(instance: str) -> str:
    """Return an instance's name as a part of a path."""
    # A name from the command line may hold any byte, not only text.
    return quote(os.fsencode(instance), safe="")
