"""Events: what has happened."""

from __future__ import annotations

from typing import ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    FLAG,
    LARGEST_QUERY,
    MOMENT,
    Json,
    answer,
    extension,
    in_query,
    numeric,
    string,
    structure,
)
from txcontain.api.verbs import ExtensionResource, flag, number, query
from txcontain.logs.follower import Follower
from txcontain.logs.times import SECOND, read_moment

MOST_KEPT = 100_000  # more events than the journal keeps
SINCE = {"anyOf": [numeric("seq", 0, LARGEST_QUERY), MOMENT]}


def read_since(name: str, text: str) -> tuple[int, float]:
    """After which number, and from which unix time on.

    Raises InvalidData.
    """
    if text.isdecimal():
        return number(name, text), 0.0
    return 0, read_moment(name, text) / SECOND


@define
class Events(Area):
    """What has happened, a line of JSON each."""

    schemas: ClassVar[Json] = {
        "Event": structure(
            {
                "seq": numeric("its number", 1),
                "time": numeric("unix time", kind="number"),
                "instance": {"type": ["string", "null"]},
                "what": string("what happened: mostly a state"),
                "reason": string("why"),
                "by": string("who asked, if someone did: loopback, uid N, token N, certificate N"),
            },
            "by",
        ),
    }
    paths: ClassVar[Json] = {
        "/events": {
            "get": extension(
                "events",
                "Tell what has happened",
                answer("an Event a line", {"type": "string"}, "application/x-ndjson"),
                parameters=[
                    in_query("since", "only after this number, or from this time on", SINCE),
                    in_query("tail", "only the last ones", numeric("events", 0, MOST_KEPT)),
                    in_query("follow", "also those to come, without end", FLAG),
                ],
            ),
        },
    }

    def resources(self) -> Resources:
        """All events."""
        return {b"events": ExtensionResource("GET", GET=self.events)}

    async def events(self, request: Request) -> None:
        """GET /events."""
        asked = query(request, since=read_since, tail=number, follow=flag)
        request.setHeader(b"Content-Type", b"application/x-ndjson")
        journal, reactor = self.manager.journal, self.manager.reactor
        last, earliest = asked["since"] or (0, 0.0)
        if asked["tail"] is not None:
            await journal.write()
            last = max(last, journal.number_before(min(asked["tail"], MOST_KEPT)))
        if asked["follow"]:
            request.write(b"")  # the head at once: there may be nothing to tell for long
        follower = Follower(request, journal=journal, reactor=reactor, last=last, earliest=earliest)
        await follower.send(bool(asked["follow"]))
