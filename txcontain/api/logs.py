"""Logs: what one instance wrote, or several."""

from __future__ import annotations

from typing import Any, ClassVar

from attrs import define
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    BINARY,
    FLAG,
    INSTANCE,
    LARGEST_QUERY,
    MOMENT,
    NO_INSTANCE,
    Json,
    answer,
    array,
    extension,
    in_query,
    numeric,
    one_of,
)
from txcontain.api.verbs import ExtensionResource, choice, flag, number, query
from txcontain.engine.interface import LogsAsked
from txcontain.errors import InvalidData
from txcontain.logs.logd import STREAMS
from txcontain.logs.segments import FOREVER, Wanted
from txcontain.logs.times import read_moment

READERS: dict[str, Any] = {
    "tail": number,
    "follow": flag,
    "stream": choice(*STREAMS),
    "timestamps": flag,
    "since": read_moment,
    "until": read_moment,
}  # of the parameters of a log
PARAMETERS = [
    in_query("tail", "only the last lines of each", numeric("lines", 0, LARGEST_QUERY)),
    in_query("follow", "also what it goes on to write, until it has ended", FLAG),
    in_query("stream", "only one of the two", one_of("which", *STREAMS)),
    in_query("timestamps", "each line begins with its time", FLAG),
    in_query("since", "only what was written from then on", MOMENT),
    in_query("until", "only what was written up to then", MOMENT),
]
SEVERAL = [
    in_query("instance", "one of them; may be given more than once", array({"type": "string"})),
    in_query("all", "the logs of all instances; with follow, also of later ones", FLAG),
]


@define
class Logs(Area):
    """What instances have written to stdout and stderr."""

    paths: ClassVar[Json] = {
        "/instances/{instance}/logs": {
            "get": extension(
                "logs",
                "Tell what an instance has written",
                answer("the bytes that it wrote", BINARY, "application/octet-stream"),
                NO_INSTANCE,
                parameters=PARAMETERS,
            ),
            "parameters": [INSTANCE],
        },
        "/logs": {
            "get": extension(
                "logsOfSeveral",
                "Tell what several instances have written, by time",
                answer("lines, each with its instance", BINARY, "application/octet-stream"),
                NO_INSTANCE,
                parameters=[*PARAMETERS, *SEVERAL],
            ),
        },
    }

    def resources(self) -> Resources:
        """The logs of several instances."""
        return {b"logs": ExtensionResource("GET", GET=self.several)}

    def below_instance(self, name: str) -> Resources:
        """The log of one instance."""

        async def logs(request: Request) -> None:
            await self._send(request, [name], query(request, **READERS), labelled=False)

        return {b"logs": ExtensionResource("GET", GET=logs)}

    async def several(self, request: Request) -> None:
        """GET /logs: of several instances, or of all, by time."""
        given = request.args.pop(b"instance", [])
        names = [name.decode("utf-8", "backslashreplace") for name in dict.fromkeys(given)]
        asked = query(request, all=flag, **READERS)
        if bool(asked["all"]) == bool(names):
            raise InvalidData("give either instance, once or more, or all=1")
        await self._send(request, names or None, asked, labelled=True)

    async def _send(
        self, request: Request, names: list[str] | None, asked: dict[str, Any], labelled: bool
    ) -> None:
        follow = bool(asked["follow"])

        def begin() -> None:
            request.setHeader(b"Content-Type", b"application/octet-stream")
            if follow:
                request.write(b"")  # the head at once: there may be nothing to tell for long

        looks = {"timestamps": bool(asked["timestamps"]), "labelled": labelled}
        logs = LogsAsked(names, wanted(asked), asked["tail"], follow, **looks)
        await self.engine.send_logs(logs, request, begin)


def wanted(asked: dict[str, Any]) -> Wanted:
    """What of a log a query asks for."""
    streams = frozenset(map(STREAMS.index, asked["stream"] or STREAMS))
    until = FOREVER if asked["until"] is None else asked["until"]
    return Wanted(streams, asked["since"] or 0, until)
