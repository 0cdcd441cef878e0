"""Sends images to registries, by the API of the OCI Distribution Specification 1.1 (Push)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlencode

from attrs import define, fields
from twisted.internet.defer import Deferred
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from txcontain.errors import ConfigAtFault, Error
from txcontain.images.answers import drop, header
from txcontain.images.oci_writing import Blob, Image, batch
from txcontain.images.packing import Pace
from txcontain.images.registry import UNAUTHORIZED, Conversation, Cut, asked_to_wait, joined
from txcontain.later import background, together
from txcontain.logs.push import Pausable

MOST_TRIES = 3  # to send a blob
AT_ONCE = 3  # blobs: a registry takes most of its time for each, and not for its bytes
OK, CREATED, ACCEPTED = 200, 201, 202


def push_of(conversation: Conversation) -> Push:
    """What sends an image in a conversation."""
    return Push(**{one.name: getattr(conversation, one.name) for one in fields(Conversation)})


@define(eq=False)
class Push(Conversation):
    """Sends one image to a registry."""

    scope: ClassVar[str] = "pull,push"
    verb: ClassVar[str] = "pushing"

    async def send(self, image: Image) -> None:
        """Send what of an image the registry does not have, and in the end its manifest.

        Raises ConfigAtFault, InvalidData; what reading the image raises.
        """
        manifest, path = image.manifest, f"manifests/{self.reference.wanted}"
        if await self._has(manifest, path):
            return
        left = {one.descriptor.digest: one for one in (*image.layers, image.config)}
        await together(*(self._send_some(left) for _ in range(AT_ONCE)))
        kind = {"Content-Type": manifest.descriptor.media_type}
        self._expect(await self._asked("PUT", path, kind, manifest), path, CREATED)

    async def _has(self, manifest: Blob, path: str) -> bool:
        """Whether this is the manifest there: then all that it names is there, too."""
        told = await self._asked("HEAD", path, {"Accept": manifest.descriptor.media_type})
        digest = header(told, "Docker-Content-Digest")
        return told.code == OK and digest == manifest.descriptor.digest

    async def _send_some(self, left: dict[str, Blob]) -> None:
        """Send blobs of these that the registry does not have, until none is left, or one fails."""
        try:
            while left:
                digest = next(iter(left))
                blob = left.pop(digest)
                if (await self._asked("HEAD", f"blobs/{digest}")).code != OK:
                    await self._upload(blob)
        finally:
            left.clear()

    async def _upload(self, blob: Blob) -> None:
        """Send a blob in one piece; from its beginning again if the connection is cut."""
        path = "blobs/uploads/"
        for left in reversed(range(MOST_TRIES)):
            begun = self._expect(await self._asked("POST", path), path, ACCEPTED)
            url = joined(self.url_of(path), header(begun, "Location"))
            self.check(url)
            query = urlencode({"digest": blob.descriptor.digest})
            url = f"{url}{'&' if '?' in url else '?'}{query}"
            kind = {"Content-Type": "application/octet-stream"}
            try:
                self._expect(await self._ask_with(url, "PUT", kind, blob), path, CREATED)
            except Cut as cut:
                if not left:
                    why = f"the registry {self.reference.registry} hangs up"
                    raise ConfigAtFault(self.what, why, str(cut)) from cut
            else:
                return

    def _expect(self, response: Any, path: str, code: int) -> Any:
        """The same answer. Raises ConfigAtFault if it is another one."""
        drop(response)
        if response.code != code:
            raise self.refused(response.code, path, asked_to_wait(response))
        return response

    async def _asked(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        blob: Blob | None = None,
    ) -> Any:
        """An answer, after a login if that is asked for. Raises ConfigAtFault, InvalidData."""
        url = self.url_of(path)
        try:
            response = await self._ask_with(url, method, headers or {}, blob)
            if response.code == UNAUTHORIZED:
                drop(response)
                await self.log_in(response)
                response = await self._ask_with(url, method, headers or {}, blob)
        except Cut as cut:
            raise self.cannot_be_asked(cut) from cut
        return response

    async def _ask_with(
        self, url: str, method: str, headers: dict[str, str], blob: Blob | None
    ) -> Any:
        """An answer to a request with a body. Raises Cut if there is none; as reading does."""
        return await self.patiently(partial(self._ask_once, url, method, headers, blob))

    async def _ask_once(
        self, url: str, method: str, headers: dict[str, str], blob: Blob | None
    ) -> Any:
        if blob is None:
            return await self.ask(url, {**headers, **self.login_at(url)}, method)
        body = Body(self.registries.threads, blob.pieces(), blob.descriptor.size)
        asked = self.ask(url, {**headers, **self.login_at(url)}, method, body)
        try:
            return await asked
        except Cut as cut:
            if body.failed:
                raise body.failed from cut
            raise


@implementer(IBodyProducer)
@define(eq=False)
class Body(Pausable):
    """What is sent, in pieces that a thread brings, no faster than it is taken."""

    threads: Callable[..., Deferred[Any]]
    pieces: Iterator[bytes]
    length: int  # bytes
    failed: Error | OSError | None = None  # why it could not be read
    _pace: Pace | None = None

    def bound(self, reactor: Any, asked: Deferred[Any]) -> None:
        """Give a request up once less than LEAST is taken within LEAST_WITHIN."""
        pace = self._pace = Pace(reactor, asked.cancel)

        def end(outcome: Any) -> Any:
            pace.end()
            return outcome

        asked.addBoth(end)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """Send it; fires when all of it is written."""
        sent: Deferred[None] = Deferred()
        background(self._send(consumer, sent), "sending a blob")
        return sent

    async def _send(self, consumer: Any, sent: Deferred[None]) -> None:
        try:
            while not self.gone and (data := await self.threads(batch, self.pieces)):
                if await self.free():
                    consumer.write(data)
                    if self._pace:
                        self._pace.took(len(data))
        except (Error, OSError) as error:
            self.failed = error
            sent.errback(error)
        else:
            if not self.gone:
                sent.callback(None)
