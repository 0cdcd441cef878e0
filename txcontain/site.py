"""The HTTP server: what it takes from whom, before any resource sees it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.web.server import Request, Site

from txcontain import errors
from txcontain.manager import Manager
from txcontain.rest import refuse
from txcontain.spec import LONGEST_DOCUMENT
from txcontain.web import make_root

LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


class BoundedRequest(Request):
    """A request whose body is bounded before it is buffered, and whose caller is checked."""

    channel: Any
    too_large = False
    _received = 0

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, as long as the whole is not too long."""
        self._received += len(data)
        if self._received > LONGEST_DOCUMENT:
            self.too_large = True  # and the rest is read and thrown away
        else:
            super().handleContentChunk(data)

    def process(self) -> None:
        """Refuse what a web page of another site has made a browser send."""
        if self._is_cross_site():
            refuse(self, errors.Forbidden(
                "this request comes from a web page of another site, or by another name of this "
                "host", "use http://localhost and no browser",
            ))  # fmt: skip
            self.finish()
        else:
            super().process()

    def _is_cross_site(self) -> bool:
        host = self.getHeader("host")
        origin = self.getHeader("origin")
        return not (host is None or self.channel.site.is_ours(f"//{host}")) or not (
            origin is None or self.channel.site.is_ours(origin)
        )


class ApiSite(Site):
    """The resources, served to this host."""

    requestFactory = BoundedRequest
    displayTracebacks = False

    def __init__(self, manager: Manager, names: set[str] = LOCAL_NAMES) -> None:
        super().__init__(make_root(manager), timeout=60)
        self._names = names

    def is_ours(self, url: str) -> bool:
        """Whether a URL (of a Host or Origin header) names this server."""
        try:
            return urlsplit(url).hostname in self._names
        except ValueError:
            return False
