"""The REST resources, each a verb of the manager's; API.md describes them."""

from __future__ import annotations

from typing import Any

from attrs import asdict, define
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.openapi import DOCUMENT
from txcontain.api.verbs import (
    Collection,
    ExtensionResource,
    NamedChildren,
    NotFound,
    Verb,
    body,
    choice,
    flag,
    note,
    number,
    query,
)
from txcontain.container.document import read_object
from txcontain.container.explain import explain
from txcontain.container.spec import key_of
from txcontain.engine.manager import Manager
from txcontain.engine.recovery import doctor
from txcontain.errors import InvalidData
from txcontain.logs.follower import Follower
from txcontain.logs.logd import STREAMS
from txcontain.logs.segments import FOREVER, Wanted
from txcontain.logs.times import read_moment
from txcontain.runtime.records import record_of

OF_LOGS: dict[str, Any] = {
    "tail": number,
    "follow": flag,
    "stream": choice(*STREAMS),
    "timestamps": flag,
    "since": read_moment,
    "until": read_moment,
}  # the parameters of a log, with their readers
LISTED = (
    "instance",
    "name",
    "major",
    "minor",
    "state",
    "since",
    "launched",
    "ready",
    "pid",
    "restarts",
    "exit",
)  # of each record, in the list of all


@define
class Api:
    """The methods of the resources: a request in, what to answer out."""

    manager: Manager

    async def config(self, request: Request) -> None:
        """POST /config."""
        await self.manager.add_config(body(request))

    async def cfginfo(self, request: Request) -> dict[str, list[str]]:
        """GET /cfginfo."""
        return {"files": self.manager.config_names()}

    async def launch(self, request: Request) -> dict[str, str]:
        """POST /launch."""
        name, major, minor = key_of(read_object(body(request)))
        instance = await self.manager.launch(name, major, minor)
        for text in instance.notes:
            note(request, text)
        if instance.spec.port is not None and not instance.ready:
            note(
                request,
                f"{instance.name} runs, but does not listen on port {instance.spec.port} "
                f"yet: `txcontain logs {instance.name}` shows what it says",
            )
        return instance.summary

    async def list_running(self, request: Request) -> dict[str, list[dict[str, str]]]:
        """GET /list."""
        return {"instances": [instance.summary for instance in self.manager.running()]}

    async def destroy_all(self, request: Request) -> None:
        """DELETE /destroyall."""
        await self.manager.destroy_all()

    def destroy(self, name: str) -> Verb:
        """DELETE /destroy/INSTANCE."""

        async def destroy(request: Request) -> None:
            await self.manager.destroy(name)

        return Verb(DELETE=destroy)

    # -- extensions

    async def instances(self, request: Request) -> dict[str, Any]:
        """GET /instances: all, those that have ended too."""
        records = [record_of(instance) for instance in self.manager.instances.values()]
        return {"instances": [{key: record[key] for key in LISTED} for record in records]}

    async def stats(self, request: Request) -> dict[str, Any]:
        """GET /stats: of all that run."""
        running = self.manager.running()
        return {"stats": [self.manager.usage(instance.name) for instance in running]}

    def instance(self, name: str) -> Resource:
        """/instances/NAME and what is below it."""

        async def inspect(request: Request) -> dict[str, Any]:
            return self.manager.inspect(name)

        async def logs(request: Request) -> None:
            await self._send_logs(request, [name], query(request, **OF_LOGS), names=False)

        async def stats(request: Request) -> dict[str, Any]:
            return self.manager.usage(name)

        async def explanation(request: Request) -> None:
            script = explain(self.manager.find(name).plan)
            request.setHeader(b"Content-Type", b"text/x-shellscript; charset=utf-8")
            request.write(script.encode())

        async def wait(request: Request) -> dict[str, Any]:
            ended = self.manager.find(name).end()
            request.notifyFinish().addErrback(lambda _: ended.cancel())
            return {"exit": asdict(await ended)}

        resource = ExtensionResource(GET=inspect)
        put: Any = resource.putChild
        put(b"logs", ExtensionResource(GET=logs))
        put(b"stats", ExtensionResource(GET=stats))
        put(b"explain", ExtensionResource(GET=explanation))
        put(b"wait", ExtensionResource(GET=wait))
        return resource

    async def logs(self, request: Request) -> None:
        """GET /logs: of several instances, or of all, by time."""
        given = request.args.pop(b"instance", [])
        names = [name.decode("utf-8", "backslashreplace") for name in dict.fromkeys(given)]
        asked = query(request, all=flag, **OF_LOGS)
        if bool(asked["all"]) == bool(names):
            raise InvalidData("give either instance, once or more, or all=1")
        names = names or list(self.manager.instances)
        await self._send_logs(request, names, asked, names=True)

    async def _send_logs(
        self, request: Request, instances: list[str], asked: dict[str, Any], names: bool
    ) -> None:
        looks = {"names": names, "timestamps": bool(asked["timestamps"])}
        reader = self.manager.log_reader(instances, wanted(asked), request, **looks)
        request.setHeader(b"Content-Type", b"application/octet-stream")
        await reader.send(asked["tail"], bool(asked["follow"]))

    async def doctor(self, request: Request) -> dict[str, list[str]]:
        """POST /doctor."""
        return {"findings": await doctor(self.manager)}

    async def openapi(self, request: Request) -> dict[str, Any]:
        """GET /openapi.json."""
        return DOCUMENT

    async def events(self, request: Request) -> None:
        """GET /events."""
        asked = query(request, since=number, follow=flag)
        request.setHeader(b"Content-Type", b"application/x-ndjson")
        journal, reactor = self.manager.journal, self.manager.reactor
        last = asked["since"] or 0
        follower = Follower(request, journal=journal, reactor=reactor, last=last)
        await follower.send(bool(asked["follow"]))


def wanted(asked: dict[str, Any]) -> Wanted:
    """What of a log a query asks for."""
    streams = frozenset(map(STREAMS.index, asked["stream"] or STREAMS))
    until = FOREVER if asked["until"] is None else asked["until"]
    return Wanted(streams, asked["since"] or 0, until)


def make_root(manager: Manager) -> Resource:
    """The tree of all resources."""
    api = Api(manager)
    root = NotFound()
    put: Any = root.putChild  # its annotation knows interfaces, not classes
    put(b"config", Verb(POST=api.config))
    put(b"cfginfo", Verb(GET=api.cfginfo))
    put(b"launch", Verb(POST=api.launch))
    put(b"list", Verb(GET=api.list_running))
    put(b"destroy", NamedChildren(api.destroy))
    put(b"instances", Collection(ExtensionResource(GET=api.instances), api.instance))
    put(b"stats", ExtensionResource(GET=api.stats))
    put(b"logs", ExtensionResource(GET=api.logs))
    put(b"doctor", ExtensionResource(POST=api.doctor))
    put(b"events", ExtensionResource(GET=api.events))
    put(b"openapi.json", ExtensionResource(GET=api.openapi))
    put(b"destroyall", Verb(DELETE=api.destroy_all))
    return root
