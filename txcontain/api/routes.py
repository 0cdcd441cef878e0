"""The path of a resource, as the OpenAPI document has it: few, whatever clients ask for."""

from __future__ import annotations

from collections import defaultdict

from txcontain.api.openapi import PATHS

METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS")
OTHER = "other"
_templates: dict[int, list[tuple[str, list[bytes]]]] = defaultdict(list)  # by number of parts
for _path in PATHS:
    _parts = _path.encode().strip(b"/").split(b"/")
    _templates[len(_parts)].append((_path, _parts))


def route_of(path: bytes) -> str:
    """The path of the document that a request's path belongs to, such as ``/volumes/{volume}``."""
    parts = path.strip(b"/").split(b"/")
    for template, wanted in _templates.get(len(parts), ()):
        if all(part == want or want[:1] == b"{" for part, want in zip(parts, wanted, strict=True)):
            return template
    return OTHER


def method_of(method: bytes) -> str:
    """A request's method, if it is one that we know."""
    return method.decode() if method in METHODS else OTHER
