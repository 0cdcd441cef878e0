"""Figures: what instances use, and have used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    INSTANCE,
    NO_INSTANCE,
    PRESSURE,
    Json,
    answer,
    array,
    extension,
    in_query,
    numeric,
    one_of,
    ref,
    structure,
)
from txcontain.api.instances import NAME_PART
from txcontain.api.pieces import send_pieces
from txcontain.api.v1 import SUMMARY, add_notes
from txcontain.api.verbs import ExtensionResource, choice, number, query
from txcontain.engine.history import FINE, POINTS
from txcontain.errors import InvalidData

NO_HISTORY = "`txcontain stats` shows what instances use now"
POINTS_TOLD = 60  # if the query does not say how many


# What only some machines count, or only of some instances.
COUNTED = (
    *("memory", "memory_peak", "cpu_usec", "pids"),
    *("io_read", "io_written", "network_received", "network_sent"),
)


def point(description: str) -> Json:
    """A list of numbers, each of which may be missing."""
    return array({"type": ["number", "null"]}, description)


@define
class Figures(Area):
    """What instances use, and have used."""

    schemas: ClassVar[Json] = {
        "Usage": structure(
            {
                **SUMMARY,
                "memory": numeric("bytes", 0),
                "memory_peak": numeric("bytes", 0),
                "cpu_usec": numeric("microseconds", 0),
                "pids": numeric("processes and threads", 0),
                "io_read": numeric("bytes that it has read from disks", 0),
                "io_written": numeric("bytes that it has written to disks", 0),
                "network_received": numeric("bytes, on a private network", 0),
                "network_sent": numeric("bytes, on a private network", 0),
                "pressure": PRESSURE,
                "limits": {"type": "object", "description": "as in the config"},
            },
            *COUNTED,
        ),
        "History": structure(
            {
                "step": numeric("seconds from one point to the next"),
                "until": numeric("unix time of the last point", kind="number"),
                "instances": {
                    "type": "object",
                    "description": "by name; all lists have the same length",
                    "additionalProperties": structure(
                        {
                            "cpu": point("processors in use: 0.5 is half of one"),
                            "memory": point("bytes"),
                        }
                    ),
                },
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/stats": {
            "get": extension(
                "usageOfAll",
                "Tell what all running instances use now",
                answer("figures", structure({"stats": array(ref("Usage"))})),
            ),
        },
        "/instances/{instance}/stats": {
            "get": extension(
                "usage",
                "Tell what an instance uses now",
                answer("figures", ref("Usage")),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
        "/stats/history": {
            "get": extension(
                "history",
                "Tell what instances have used in the last minutes or hours",
                answer("figures", ref("History")),
                NO_INSTANCE,
                parameters=[
                    {**in_query("instance", "one or more; else all", NAME_PART), "explode": True},
                    in_query("step", "seconds from one point to the next", one_of("", "1", "10")),
                    in_query("last", "how many points", numeric("points", 1, max(POINTS.values()))),
                ],
            ),
        },
    }

    def resources(self) -> Resources:
        """What is used now, and before."""
        stats = ExtensionResource(GET=self.usage_of_all)
        put: Any = stats.putChild  # its annotation knows interfaces, not classes
        history = ExtensionResource("GET", GET=self.history)
        put(b"history", self.of_one_host(history, NO_HISTORY))
        return {b"stats": stats}

    def below_instance(self, name: str) -> Resources:
        """What one instance uses."""

        async def usage(request: Request) -> Json:
            (used,) = (await self.engine.usage(name)).records
            return dict(used)

        return {b"stats": ExtensionResource(GET=usage)}

    async def usage_of_all(self, request: Request) -> Json:
        """GET /stats."""
        told = await self.engine.usage(None)
        add_notes(request, told.notes)
        return {"stats": told.records}

    async def history(self, request: Request) -> None:
        """GET /stats/history."""
        given = request.args.pop(b"instance", [])
        wanted = [name.decode("utf-8", "backslashreplace") for name in dict.fromkeys(given)]
        asked = query(request, step=choice(*map(str, POINTS)), last=number)
        step = int(asked["step"][0]) if asked["step"] else FINE
        points = POINTS_TOLD if asked["last"] is None else asked["last"]
        if not 1 <= points <= POINTS[step]:
            raise InvalidData(f"last must be 1 to {POINTS[step]} points, not {points}")
        found = [one for name in wanted for one in self.manager.match_all(name)]
        names = [one.name for one in dict.fromkeys(found)] if wanted else [*self.manager.instances]
        await self.manager.history.asked()
        request.setHeader(b"Content-Type", b"application/json")
        pieces = self._history(names, step, points)
        await send_pieces(self.manager.reactor, request, pieces)

    def _history(self, names: list[str], step: int, points: int) -> Iterator[bytes]:
        until, told = self.manager.history.read(names, step, points)
        yield json.dumps({"step": step, "until": round(until, 3), "instances": {}})[:-2].encode()
        comma, piece, values = "", "", 0
        for name, cpu, memory in told:
            figures = json.dumps({"cpu": cpu, "memory": memory}, separators=(",", ":"))
            piece += f"{comma}{json.dumps(name)}:{figures}"
            comma, values = ",", values + points
            if values >= POINTS[FINE]:  # some milliseconds' work
                yield piece.encode()
                piece, values = "", 0
        yield f"{piece}}}}}".encode()
