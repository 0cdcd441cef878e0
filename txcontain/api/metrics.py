"""All figures, for Prometheus."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import Json, answer, extension
from txcontain.api.exposition import choose, pieces
from txcontain.api.pieces import send_pieces
from txcontain.api.verbs import ExtensionResource
from txcontain.later import Few

MOST_SCRAPES, MOST_WAITING = 8, 100  # at once, each of which takes some MB; that wait


@define
class Metrics(Area):
    """All figures, for Prometheus."""

    paths: ClassVar[Json] = {
        "/metrics": {
            "get": extension(
                "metrics",
                "Tell all figures to Prometheus",
                answer("text, or OpenMetrics as Accept says", {"type": "string"}, "text/plain"),
            ),
        },
    }

    def resources(self) -> Resources:
        """All metrics."""
        scrapes = Few("scrapes", MOST_SCRAPES, MOST_WAITING)

        async def metrics(request: Request) -> None:
            async with scrapes.turn():
                await self.metrics(request)

        return {b"metrics": ExtensionResource(GET=metrics)}

    async def metrics(self, request: Request) -> None:
        """GET /metrics."""
        kind = choose(request.getHeader("accept") or "")
        collected = await self.engine.collect()
        request.setHeader(b"Content-Type", kind.encode())
        request.setHeader(b"Vary", b"Accept")
        await send_pieces(self.manager.reactor, request, pieces(kind, collected))
