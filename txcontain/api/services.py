"""Stacks and their services: what there should be, and what is done for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from attrs import define
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    FLAG,
    Json,
    Keys,
    answer,
    array,
    body_of,
    extension,
    in_query,
    json_body,
    numeric,
    one_of,
    or_null,
    ref,
    string,
    structure,
)
from txcontain.api.exports import OF_STACK, export_of_stack
from txcontain.api.progress import Progress
from txcontain.api.verbs import (
    Collection,
    ExtensionResource,
    as_of,
    body,
    flag,
    query,
    read_body,
)
from txcontain.container.document import read_object
from txcontain.container.keys import schema_of
from txcontain.container.spec import KEYS as CONFIG_KEYS
from txcontain.engine.interface import Planned, Stacks
from txcontain.services.document import KEYS, SERVICE_NAME, STACK_NAME
from txcontain.services.kept import KeptStacks
from txcontain.services.wish import STATES

SCALE = {"replicas": KEYS["replicas"]}
UPDATE = {"major": CONFIG_KEYS["major"], "minor": CONFIG_KEYS["minor"]}
NO_KEYS: Keys = {}
NO_EXPORT = "a manager of one host exports stacks, and configs"
NO_STACK = {"404": "there is no such stack"}
NO_SERVICE = {"404": "there is no such service, or no such config"}
REFUSED = {"404": "a config is missing", "409": "invalid data; or a port or a name is taken"}
WAIT = in_query("wait", "tell what happens until it is done", FLAG)
DRY_RUN = in_query("dry_run", "only say what would be done", FLAG)
STACK: Json = {
    "name": "stack",
    "in": "path",
    "required": True,
    "description": "its name",
    "schema": {"type": "string", "minLength": 1},
}
SERVICE: Json = {
    **STACK,
    "name": "service",
    "description": "STACK-SERVICE, or the service's own name if only one stack has it",
}
PROGRESS = {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}


def _begun(description: str) -> Json:
    success = answer(f"{description}; with wait, a line of JSON for all that happens", ref("Plan"))
    return {**success, "content": {**success["content"], **PROGRESS["content"]}}


def _verb(name: str, summary: str, keys: Keys, *required: str) -> Json:
    more = {"requestBody": body_of(keys, *required)} if keys else {}
    success, refused = _begun("it is begun"), {**REFUSED, **NO_SERVICE}
    operation = extension(name, summary, success, refused, parameters=[WAIT], **more)
    return {"post": operation, "parameters": [SERVICE]}


@define
class Services(Area):
    """Stacks, and the services of all of them."""

    schemas: ClassVar[Json] = {
        "Stack": structure(
            {
                "stack": STACK_NAME.schema,
                "services": {
                    "type": "object",
                    "propertyNames": SERVICE_NAME.schema,
                    "additionalProperties": structure(
                        schema_of(KEYS), *(set(KEYS) - {"config"}), closed=True
                    ),
                },
            },
            closed=True,
        ),
        "Plan": structure(
            {
                "stack": string("its name"),
                "changes": array(string("what changes of a service")),
                "steps": array(ref("Step"), "what is done if all goes well, in this order"),
            }
        ),
        "Step": structure(
            {
                "step": one_of("what is done", "launch", "start", "withdraw", "remove"),
                "service": string("its name in the stack"),
                "instance": string("with which instance"),
                "text": string("the same in words"),
            }
        ),
        "ServiceState": structure(
            {
                "service": string("STACK-SERVICE"),
                "stack": string("its stack"),
                "config": string("NAME-MAJOR-MINOR"),
                "state": one_of("whether it is as wished", *STATES, "going down"),
                "why": string("what went wrong, or empty"),
                "replicas": numeric("how many there should be", 0, kind=["integer", "null"]),
                "running": numeric("how many run", 0),
                "serving": numeric("how many run, are ready and healthy", 0),
                "current": numeric("how many are of this revision", 0),
                "completed": {"type": "boolean", "description": "whether it has succeeded"},
                "ports": array(string("ADDRESS:PORT->PORT/PROTOCOL")),
                "after": {"type": "object", "description": "as in its stack"},
                "schedule": {"type": ["string", "null"]},
                "next": or_null(numeric("unix time of its next run", kind="number")),
                "before": or_null(string("the config that rollback goes back to")),
                "instances": array(string("their names")),
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/stacks": {
            "get": extension(
                "listStacks",
                "List the stacks",
                answer(
                    "each with its services",
                    structure(
                        {
                            "stacks": array(
                                structure(
                                    {
                                        "stack": string("its name"),
                                        "services": array(ref("ServiceState")),
                                    }
                                )
                            )
                        }
                    ),
                ),
            ),
            "post": extension(
                "up",
                "Have a stack be as a document says",
                _begun("it is begun"),
                REFUSED,
                parameters=[DRY_RUN, WAIT],
                requestBody=json_body("Stack"),
            ),
        },
        "/stacks/{stack}": {
            "get": extension(
                "inspectStack",
                "Tell what a stack should be, and how it stands",
                answer(
                    "both",
                    structure(
                        {
                            "stack": string("its name"),
                            "document": ref("Stack"),
                            "services": array(ref("ServiceState")),
                        }
                    ),
                ),
                NO_STACK,
            ),
            "delete": extension(
                "down",
                "Remove a stack and all its instances",
                _begun("it is begun"),
                NO_STACK,
                parameters=[WAIT],
            ),
            "parameters": [STACK],
        },
        "/stacks/{stack}/export": {**OF_STACK, "parameters": [STACK]},
        "/services": {
            "get": extension(
                "listServices",
                "List the services of all stacks",
                answer("each", structure({"services": array(ref("ServiceState"))})),
            ),
        },
        "/services/{service}": {
            "get": extension(
                "inspectService",
                "Tell how a service stands",
                answer("its state", ref("ServiceState")),
                NO_SERVICE,
            ),
            "parameters": [SERVICE],
        },
        "/services/{service}/scale": _verb(
            "scale", "Have another number of instances of a service", SCALE, *SCALE
        ),
        "/services/{service}/update": _verb(
            "update", "Have a service be of another version of its config", UPDATE, *UPDATE
        ),
        "/services/{service}/rollback": _verb(
            "rollback", "Go back to the last good revision of a service", NO_KEYS
        ),
    }

    @property
    def stacks(self) -> Stacks:
        """The engine's."""
        return self.engine.stacks or KeptStacks(self.manager)

    def resources(self) -> Resources:
        """/stacks and /services, and below them one for each."""
        return {
            b"stacks": Collection(
                ExtensionResource("POST", GET=self.all_stacks, POST=self.up), self.stack
            ),
            b"services": Collection(ExtensionResource(GET=self.all), self.service),
        }

    # -- stacks ------------------------------------------------------------------------

    async def all_stacks(self, request: Request) -> Json:
        """GET /stacks."""
        told = await self.stacks.all()
        as_of(request, told.as_of)
        return {"stacks": told.records}

    async def up(self, request: Request) -> Json | None:
        """POST /stacks."""
        asked = query(request, dry_run=flag, wait=flag)
        values = read_object(body(request))
        if asked["dry_run"]:
            return _told(await self.stacks.plan(values))
        return await self._do(request, bool(asked["wait"]), self.stacks.up(values))

    def stack(self, name: str) -> Resource:
        """/stacks/NAME."""

        async def get(request: Request) -> Json:
            return await self.stacks.one(name)

        async def delete(request: Request) -> Json | None:
            wait = bool(query(request, wait=flag)["wait"])
            return await self._do(request, wait, self.stacks.down(name))

        resource = ExtensionResource("DELETE", GET=get, DELETE=delete)
        put: Any = resource.putChild
        put(b"export", self.of_one_host(export_of_stack(self.manager, name), NO_EXPORT))
        return resource

    # -- services ----------------------------------------------------------------------

    async def all(self, request: Request) -> Json:
        """GET /services."""
        told = await self.stacks.all()
        as_of(request, told.as_of)
        return {"services": [one for stack in told.records for one in stack["services"]]}

    def service(self, name: str) -> Resource:
        """/services/NAME."""

        async def get(request: Request) -> Json:
            return await self.stacks.service(name)

        resource = ExtensionResource(GET=get)
        put: Any = resource.putChild
        put(b"scale", self._acting(name, self.stacks.scale, SCALE, *SCALE))
        put(b"update", self._acting(name, self.stacks.update, UPDATE, *UPDATE))
        put(b"rollback", self._acting(name, self.stacks.rollback))
        return resource

    def _acting(
        self,
        name: str,
        act: Callable[..., Awaitable[Planned]],
        keys: Keys = NO_KEYS,
        *required: str,
    ) -> Resource:
        async def post(request: Request) -> Json | None:
            wait = bool(query(request, wait=flag)["wait"])
            values = read_body(request, keys, *required)
            return await self._do(request, wait, act(name, **values))

        return ExtensionResource("POST", POST=post)

    async def _do(self, request: Request, wait: bool, work: Awaitable[Planned]) -> Json | None:
        """Begin something; if that is waited for, tell what happens until it is done."""
        if not wait:
            return _told(await work)
        progress = Progress(request, journal=self.manager.journal)
        progress.listen()
        try:
            done = await work
        except BaseException:
            progress.end()
            raise
        request.setHeader(b"Content-Type", b"application/x-ndjson")
        await progress.send(done.stack, _told(done), self.stacks.settled(done))
        return None


def _told(planned: Planned) -> Json:
    return {"stack": planned.stack, "changes": planned.changes, "steps": planned.steps}
