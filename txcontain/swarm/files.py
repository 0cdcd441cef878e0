"""Files of instances of a swarm, by the Docker of their node, as tar streams.

docs.docker.com/reference/api/engine: "Get an archive of a filesystem resource in a container" and
its neighbours. It finds paths within the container's root, wherever links lead. What is in memory
there, or the kernel's, it does not see: it has what is below.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from txcontain.engine.files import HINTS, KINDS, check_path, split
from txcontain.errors import (
    CalledOff,
    CannotCopy,
    Error,
    MachineAtFault,
    NoSuchPath,
    NotRunning,
    TooMany,
    Unavailable,
)
from txcontain.images.answers import drop
from txcontain.later import Timer, bounded
from txcontain.logs.times import SECOND, read_moment
from txcontain.runtime.sessions import MOST, MOST_EACH
from txcontain.swarm.archives import Filter
from txcontain.swarm.body import Body
from txcontain.swarm.client import NoAnswer, Refused, Request, answer, refusal, why
from txcontain.swarm.places import Place

SILENT_FOR = 60.0  # seconds in which a Docker neither takes nor sends anything
WRITTEN_WITHIN = 86_400.0  # seconds: a client may be slow
UNSEEN = ("/run", "/tmp", "/dev", "/proc", "/sys")
STAT = b"X-Docker-Container-Path-Stat"
# Of the modes that Go has (io/fs.FileMode).
OF_KIND = {1 << 31: stat.S_IFDIR, 1 << 27: stat.S_IFLNK}
NOT_REGULAR = (1 << 31) | (0b1111 << 24) | (1 << 21) | (1 << 19)
BITS = {1 << 23: stat.S_ISUID, 1 << 22: stat.S_ISGID, 1 << 20: stat.S_ISVTX}
FAULT = 400  # the first status of those that refuse
READ_ONLY = HINTS["Read-only file system"]


# -- what is there -----------------------------------------------------------------


async def look(place: Place, path: str) -> dict[str, Any]:
    """What is at a path; Docker does not tell whose it is.

    Raises InvalidData, NoSuchPath, CannotCopy, NotRunning, Unavailable, MachineAtFault.
    """
    _, name = split(path)
    doing = f"looking at {path} in {place.instance.name}"
    _check_seen(path, doing)
    try:
        headers = await place.docker.headers(_archive(place), doing=doing, path=path)
    except Refused as error:  # whose answer has no body, which would say why
        raise await _why_not(place, path, await _refusal_of_get(place, path, error)) from None
    try:
        told = json.loads(base64.b64decode(headers.getRawHeaders(STAT)[0]))
        changed = read_moment("a time", told["mtime"]) // SECOND
        known = {"size": int(told["size"]), "changed": changed}
        mode = int(told["mode"])
    except (ValueError, TypeError, KeyError, Error):
        raise MachineAtFault(doing, "Docker does not tell what is there") from None
    return {"name": name.rstrip("/"), **_mode(mode), **known}


def _mode(mode: int) -> dict[str, Any]:
    """The kind and the permissions in a mode that Go has."""
    kind = next((kind for bit, kind in OF_KIND.items() if mode & bit), 0)
    if not mode & NOT_REGULAR:
        kind = stat.S_IFREG
    bits = sum(own for bit, own in BITS.items() if mode & bit)
    return {"kind": KINDS.get(kind, "other"), "mode": mode & 0o777 | bits}


def _check_seen(path: str, doing: str) -> None:
    """Raise CannotCopy if Docker would have what is hidden there, and not what there is."""
    check_path(path)
    plain = os.path.normpath("/" + path.lstrip("/"))
    for top in UNSEEN:
        if f"{plain}/".startswith(f"{top}/"):
            said = f"what is below {top} is in memory, or the kernel's: Docker does not copy it"
            raise CannotCopy(doing, said, "`txcontain exec` reads and writes it")


def _archive(place: Place) -> str:
    """Where the Engine API has the files of an instance."""
    return f"/containers/{place.container}/archive"


async def _refusal_of_get(place: Place, path: str, error: Refused) -> Refused:
    """What a GET is refused with if a HEAD was, as it should be."""
    try:
        drop(await place.docker.open(_archive(place), doing=error.chain[0], path=path))
    except Refused as refused:
        return refused
    return error


async def _why_not(place: Place, path: str, error: Refused) -> Error:
    """Why there is nothing at a path: the answer itself does not always say."""
    if "not a directory" in str(error):
        return NoSuchPath(f"{path} is no folder, or one of those above it is none")
    if error.status != 404:
        return error
    doing = f"looking at {place.instance.name}"
    try:
        await place.docker.ask("GET", f"/containers/{place.container}/json", doing=doing)
    except Refused as gone:
        return NotRunning(f"{place.instance.name} does not run any more", *gone.chain)
    return NoSuchPath(f"there is no {path} in the container")


# -- streams -----------------------------------------------------------------------


@implementer(IPushProducer)
@define(eq=False)
class Reading:
    """A tar stream out of an instance: a Transfer."""

    place: Place
    doing: str
    response: Any  # its body is yet to be delivered
    reactor: Any
    lost: Callable[[Any], object]  # told that it is over
    left_out: str = ""
    _body: Any = None
    _paused: bool = False
    _because: str = ""  # why it was ended, if it was
    _silence: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._silence = Timer(self.reactor, self._fell_silent)

    @property
    def producer(self) -> Reading:
        """An IPushProducer: what comes out."""
        return self

    async def run(self, take: Callable[[bytes], object], *, differs: bool = False) -> None:
        """Have it come, to its end. Raises CalledOff, MachineAtFault."""

        def received(data: bytes) -> None:
            self._silence.after(SILENT_FOR)
            take(data)  # which may pause it

        if self._because:
            raise CalledOff(self.doing, self._because)
        self._body = Body(received)
        self._silence.after(SILENT_FOR)
        self.response.deliverBody(self._body)
        if self._paused:
            self.pauseProducing()
        try:
            await self._body.over
        except Exception as error:  # whatever the network may raise
            if self._because:
                raise CalledOff(self.doing, self._because) from error
            raise MachineAtFault(self.doing, why(error)) from error
        finally:
            self._silence.cancel()
            self.lost(self)

    def pauseProducing(self) -> None:
        """Let no more come for now."""
        self._paused = True
        self._silence.cancel()
        if self._body is not None:
            self._body.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Let more come."""
        self._paused = False
        if self._body is not None and not self._body.over.called:
            self._silence.after(SILENT_FOR)
            self._body.transport.resumeProducing()

    def stopProducing(self) -> None:
        """No one wants it any more."""
        self.end("the client hung up")

    def end(self, because: str) -> None:
        """Cut it short."""
        if self._because or (self._body is not None and self._body.over.called):
            return
        self._because = because
        if self._body is None:
            self._body = Body(bytes)
            self._body.over.addErrback(lambda _: None)
            self.response.deliverBody(self._body)
            self.lost(self)
        self._body.over.cancel()

    def _fell_silent(self) -> None:
        self.end(f"Docker has sent nothing for {SILENT_FOR:g} seconds")


@implementer(IBodyProducer, IConsumer)
@define(eq=False)
class Writing:
    """A tar stream into an instance: a Transfer, the IConsumer of what goes in, and a request."""

    place: Place
    doing: str
    path: str
    tar: Filter
    reactor: Any
    lost: Callable[[Any], object]  # told that it is over
    length: Any = UNKNOWN_LENGTH
    begun: Deferred[None] = field(factory=Deferred)  # Docker takes it
    _because: str = ""  # why it was ended, if it was
    _failed: Error | None = None  # what is wrong with the stream, if anything
    _sink: Any = None  # an IConsumer
    _source: Any = None  # an IPushProducer
    _whole: Deferred[None] = field(factory=Deferred)
    _asked: Any = None  # a Deferred of the answer, and its body
    _silence: Timer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._silence = Timer(self.reactor, self._fell_silent)

    async def start(self) -> None:
        """Ask Docker to take it. Raises Unavailable, and what ``run`` does."""
        manager = self.place.manager
        try:
            above = manager.url + await manager.above()
        except NoAnswer as error:
            raise Unavailable(self.doing, str(error), "try again") from error
        request = Request("PUT", _archive(self.place), None, {"path": self.path})
        self._silence.after(SILENT_FOR)
        asked = answer(manager.http, above, request, data=self)
        self._asked = bounded(self.reactor, WRITTEN_WITHIN, asked)
        self._asked.addErrback(self._never_began)
        await self.begun

    def _never_began(self, failure: Any) -> Any:
        if not self.begun.called:
            self.begun.callback(None)
        return failure

    @property
    def input(self) -> Writing:
        """An IConsumer: what goes in."""
        return self

    @property
    def left_out(self) -> str:
        """A sentence about what could not be made; empty if that is nothing."""
        return f"left out: {self.tar.devices} device nodes" if self.tar.devices else ""

    async def run(self, take: Callable[[bytes], object], *, differs: bool = False) -> None:
        """Wait until Docker has taken all.

        Raises CalledOff, CannotCopy, InvalidData, NoSuchPath, NotRunning, MachineAtFault.
        """
        try:
            response, body = await self._asked
        except Exception as error:  # whatever the network may raise
            if self._because:
                raise CalledOff(self.doing, self._because) from error
            raise self._failed or MachineAtFault(self.doing, why(error)) from error
        finally:
            self._silence.cancel()
            self.lost(self)
            self._sink = None
            if not self._whole.called:  # Docker has answered before it had all, and hangs up
                self._whole.callback(None)
        if response.code >= FAULT:
            raise await self._refused(refusal(response.code, self.doing, body))

    async def _refused(self, error: Refused) -> Error:
        found = await _why_not(self.place, self.path, error)
        if found is not error:
            return found
        said = error.chain[1:]
        hint = [READ_ONLY] if "read-only" in str(error) else []
        return CannotCopy(self.doing, *said, *hint)

    # -- from the client -------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """What sends it: an IPushProducer."""
        self._source = producer

    def unregisterProducer(self) -> None:
        """It sends no more."""
        self._source = None

    def write(self, data: bytes) -> None:
        """Some has come."""
        if self._sink is None:
            return
        try:
            kept = self.tar.feed(data)
        except Error as error:
            self._fail(error)
        else:
            if kept:  # a chunk without a content would be the end of all
                self._sink.write(kept)

    def close_input(self) -> None:
        """All has come."""
        try:
            self.tar.close()
        except Error as error:
            self._fail(error)
        if self._sink is not None:
            self._silence.after(SILENT_FOR)
            self._whole.callback(None)

    def _fail(self, error: Error) -> None:
        self._failed, self._sink = error, None
        self._asked.cancel()

    def end(self, because: str) -> None:
        """Cut it short."""
        if not self._because and self._sink is not None:
            self._because, self._sink = because, None
            self._asked.cancel()

    def _fell_silent(self) -> None:
        self.end(f"Docker has taken nothing for {SILENT_FOR:g} seconds")

    # -- to Docker -------------------------------------------------------------

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """It is connected."""
        self._silence.cancel()
        self._sink = consumer
        self.begun.callback(None)
        return self._whole

    def pauseProducing(self) -> None:
        """It takes no more for now."""
        self._silence.after(SILENT_FOR)
        if self._source is not None:
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """It takes more."""
        if not self._whole.called:
            self._silence.cancel()
        if self._source is not None:
            self._source.resumeProducing()

    def stopProducing(self) -> None:
        """It takes nothing any more; its answer says why."""
        self._sink = None


# -- all of them -------------------------------------------------------------------


@define(eq=False)
class Copies:
    """Begins transfers, and knows those that are under way."""

    reactor: Any
    running: list[Any] = field(factory=list)

    async def read(self, place: Place, path: str) -> Reading:
        """Begin to read what is at a path. Raises as ``look`` does; TooMany."""
        doing = f"reading {path} in {place.instance.name}"
        _check_seen(path, doing)
        self._check_bounds(place)
        try:
            response = await place.docker.open(_archive(place), doing=doing, path=path)
        except Refused as error:
            raise await _why_not(place, path, error) from None
        reading = Reading(place, doing, response, self.reactor, self.running.remove)
        self.running.append(reading)
        return reading

    async def write(self, place: Place, path: str, *, owners: bool) -> Writing:
        """Begin to write a tar stream into a folder. Raises as ``look`` does; TooMany."""
        doing = f"writing to {path} in {place.instance.name}"
        _check_seen(path, doing)
        self._check_bounds(place)
        found = await look(place, path.rstrip("/") + "/.")
        if found["kind"] != "folder":
            raise NoSuchPath(f"{path} is no folder")
        writing = Writing(place, doing, path, Filter(owners), self.reactor, self.running.remove)
        self.running.append(writing)
        try:
            await writing.start()
        except BaseException:
            self.running.remove(writing)
            raise
        return writing

    def _check_bounds(self, place: Place) -> None:
        name = place.instance.name
        here = sum(one.place.instance.name == name for one in self.running)
        if here >= MOST_EACH or len(self.running) >= MOST:
            whom = name if here >= MOST_EACH else "instances"
            raise TooMany(f"files are copied {here} times in {whom} already", "try again later")

    async def stop(self) -> None:
        """Cut all short."""
        for one in list(self.running):
            one.end("the manager has ended")
