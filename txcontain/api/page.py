"""The web page: files of txcontain/ui, which hold no data, so that anyone may have them.

The page is a client of the API like any other: it asks for data with the token of whoever sits in
front of it. Its own files take no token, or no one could ever type one in.
"""

from __future__ import annotations

import functools
import gzip
from hashlib import sha256
from pathlib import Path

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.verbs import NotFound

FOLDER = Path(__file__).resolve().parents[1] / "ui"
KINDS = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
FILES = {
    path.relative_to(FOLDER).as_posix().encode(): path
    for path in FOLDER.rglob("*")
    if path.suffix in KINDS
}
# Nothing from elsewhere, nothing inline, in no other page's frame (CSP Level 3).
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"Content-Security-Policy": POLICY,
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Vary": b"Accept, Accept-Encoding",
    b"Cache-Control": b"no-cache",  # ask each time whether it has changed: a manager is upgraded
}


def is_of_page(request: Request) -> bool:
    """Whether a request is for a file of the page, and for nothing else."""
    return request.method in (b"GET", b"HEAD") and (
        request.path.startswith(b"/ui/") or (request.path == b"/" and _wants_page(request))
    )


def _wants_page(request: Request) -> bool:
    """A browser names this kind; curl and programs do not, and get what they always got at `/`."""
    return "text/html" in (request.getHeader("accept") or "")


class Page(NotFound):
    """`/`, and /ui with all that is below it: a file for a browser; otherwise an unknown path."""

    def __init__(self, *, is_leaf: bool) -> None:
        super().__init__()
        self.isLeaf = is_leaf

    def render(self, request: Request) -> bytes:
        """The file, or 404."""
        name = b"/".join(request.postpath or []) if self.isLeaf else b"index.html"
        path = FILES.get(name)
        return _send(request, path) if path and is_of_page(request) else super().render(request)


@functools.cache
def read(path: Path) -> tuple[bytes, bytes, bytes]:
    """A file as it is, compressed, and its tag. It is read once: a manager is of one version."""
    content = path.read_bytes()
    return content, gzip.compress(content), b'"%s"' % sha256(content).hexdigest()[:16].encode()


def _send(request: Request, path: Path) -> bytes:
    """The content of a file, with its headers; nothing if the browser has it already."""
    content, packed, tag = read(path)
    for header, value in HEADERS.items():
        request.setHeader(header, value)
    request.setHeader(b"Content-Type", KINDS[path.suffix])
    if "gzip" in (request.getHeader("accept-encoding") or ""):
        request.setHeader(b"Content-Encoding", b"gzip")
        content = packed
    return b"" if request.setETag(tag) is http.CACHED else content


def files() -> dict[bytes, Resource]:
    """The resources of the page, by the part of the path that leads to them."""
    return {b"": Page(is_leaf=False), b"ui": Page(is_leaf=True)}
