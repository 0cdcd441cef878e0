"""What changes an instance's life: stop, start, restart, kill, pause, resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from attrs import define, evolve
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    INSTANCE,
    NO_INSTANCE,
    Json,
    Keys,
    answer,
    body_of,
    extension,
    ref,
)
from txcontain.api.instances import listed
from txcontain.api.verbs import ExtensionResource, note, read_body
from txcontain.container.keys import Key, number, string_schema, texts
from txcontain.container.launch_request import INSTANCE_NAME, instance_name
from txcontain.container.spec import MOST_PORTS, PORTS, STOP_SIGNAL
from txcontain.engine import life
from txcontain.engine.life import Notes
from txcontain.engine.publishing import change_ports
from txcontain.engine.renaming import rename

Act = Callable[..., Awaitable[Notes]]  # takes the manager, an instance, and what the body has
ANEW = "destroy it, and launch it again; services are scaled and updated"
NO_KEYS: Keys = {}
TIMEOUT = {"timeout": number("seconds until SIGKILL; else the config's", 0, 3600, float)}
SIGNAL = {"signal": evolve(STOP_SIGNAL, description="its name or number; else KILL")}
PORT_KEYS = {
    "publish": evolve(PORTS, description="[ADDRESS:]HOST:CONTAINER[/tcp|/udp] each"),
    "withdraw": texts("as they were published, or only [ADDRESS:]HOST each", MOST_PORTS),
}
RENAME_KEYS = {"to": Key("its new name", string_schema(INSTANCE_NAME), instance_name)}
WRONG_STATE = {"409": "invalid data; or it is not in a state in which this can be done"}


def _operation(summary: str, success: str, name: str, keys: Keys, *required: str) -> Json:
    more = {"requestBody": body_of(keys, *required)} if keys else {}
    refused = {**NO_INSTANCE, **WRONG_STATE}
    operation = extension(name, summary, answer(success, ref("Record")), refused, **more)
    return {"post": operation, "parameters": [INSTANCE]}


@define
class Life(Area):
    """The verbs of an instance's life, each answered with what has become of it."""

    paths: ClassVar[Json] = {
        "/instances/{instance}/stop": _operation(
            "End an instance, and keep its data", "it is stopped", "stop", TIMEOUT
        ),
        "/instances/{instance}/start": _operation(
            "Start an instance that was stopped or has ended", "it runs", "start", NO_KEYS
        ),
        "/instances/{instance}/restart": _operation(
            "Stop an instance, and start it", "it runs", "restart", TIMEOUT
        ),
        "/instances/{instance}/kill": _operation(
            "Send a signal to an instance's PID 1", "it was sent", "kill", SIGNAL
        ),
        "/instances/{instance}/pause": _operation(
            "Freeze all processes of an instance", "they are frozen", "pause", NO_KEYS
        ),
        "/instances/{instance}/resume": _operation(
            "Let the processes of a paused instance run on", "they run", "resume", NO_KEYS
        ),
        "/instances/{instance}/rename": _operation(
            "Give an instance another name", "it has that name", "rename", RENAME_KEYS, "to"
        ),
        "/instances/{instance}/ports": _operation(
            "Publish ports of an instance, and withdraw others", "it is done", "ports", PORT_KEYS
        ),
    }

    def below_instance(self, name: str) -> Resources:
        """The verbs."""

        async def kill(request: Request) -> Json:
            told = await self.engine.kill(name, **read_body(request, SIGNAL))
            for text in told.notes:
                note(request, text)
            return listed(told.records[0])

        verbs = {
            b"stop": self._verb(name, life.stop, TIMEOUT),
            b"start": self._verb(name, life.start),
            b"restart": self._verb(name, life.restart, TIMEOUT),
            b"pause": self._verb(name, life.pause),
            b"resume": self._verb(name, life.resume),
            b"rename": self._verb(name, rename, RENAME_KEYS, *RENAME_KEYS),
            b"ports": self._verb(name, change_ports, PORT_KEYS),
        }
        here = {part: self.of_one_host(verb, ANEW) for part, verb in verbs.items()}
        return {**here, b"kill": ExtensionResource(POST=kill)}

    def _verb(self, name: str, act: Act, keys: Keys = NO_KEYS, *required: str) -> ExtensionResource:
        async def post(request: Request) -> Json:
            values = read_body(request, keys, *required)
            instance = self.manager.match(name)
            for text in await act(self.manager, instance, **values):
                note(request, text)
            await self.manager.pool.written()
            return listed(self.manager.instances.get(instance.name, instance).standing)

        return ExtensionResource(POST=post)
