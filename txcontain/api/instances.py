"""Instances: all of them, each by its name, and what is asked of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import asdict, define, evolve
from twisted.web.resource import Resource
from twisted.web.server import Request

from txcontain.api.area import Area, Resources
from txcontain.api.describe import (
    INSTANCE,
    NO_INSTANCE,
    Json,
    answer,
    array,
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
from txcontain.api.v1 import KEY, SUMMARY, add_notes
from txcontain.api.verbs import ExtensionResource, ago, as_of, body, query, text
from txcontain.container.document import read_object
from txcontain.container.keys import schema_of
from txcontain.container.launch_request import INSTANCE_NAME, LABELS, read_launch_request
from txcontain.engine.inspection import held, top
from txcontain.later import begin
from txcontain.runtime.health import STATUSES

ON_ITS_NODE = "on the node of the instance, which `txcontain ps` shows"
NO_TOP = f"`docker top` shows what one does {ON_ITS_NODE}"
NO_ISOLATION = f"`docker inspect` shows how one is held {ON_ITS_NODE}"
STATES = ("starting", "running", "waiting", "stopping", "stopped", "ended", "failed")
RECORD: Json = {
    **SUMMARY,
    "state": one_of("where it is in its life", *STATES),
    "since": numeric("unix time of the state", kind="number"),
    "launched": numeric("unix time of the launch", kind="number"),
    "ready": {"type": "boolean", "description": "whether it listens on its PORT"},
    "health": {
        "type": ["string", "null"],
        "enum": [*STATUSES, None],
        "description": "what its checks say; null if it has none",
    },
    "port": numeric("its PORT", 1, 65535, ["integer", "null"]),
    "ports": array(string("ADDRESS:PORT->PORT/PROTOCOL: of the host, then of the container")),
    "address": {"type": ["string", "null"], "description": "its own, on a private network"},
    "address6": {"type": ["string", "null"], "description": "the same of IPv6"},
    "paused": {"type": "boolean", "description": "whether its processes are frozen"},
    "pid": numeric("PID 1, as the host sees it", kind=["integer", "null"]),
    "restarts": numeric("how often it was started again", 0),
    "exit": or_null(ref("Exit")),
    "labels": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "that its launch gave it",
    },
}  # what the list of all tells of each
OF_SWARM: Json = {
    "node": {"type": ["string", "null"], "description": "of many hosts, the one where it runs"}
}  # what it tells beside that, if there are many hosts
NAME_PART = string(
    "a name, the beginning of one, config:NAME, NAME-MAJOR, NAME-MAJOR-MINOR, or service:NAME"
)


def listed(standing: Mapping[str, Any]) -> Json:
    """What the list of all tells of an instance, which stands so."""
    return {key: standing[key] for key in (*RECORD, *OF_SWARM) if key in standing}


@define
class Instances(Area):
    """Instances, also those that have ended."""

    schemas: ClassVar[Json] = {
        "Launch": structure(
            {
                "config": {
                    "description": "the name of a config that is kept, or a whole one",
                    "anyOf": [KEY["name"], ref("Config")],
                },
                "major": {**KEY["major"], "description": "its major version, or else the newest"},
                "minor": {**KEY["minor"], "description": "its minor version, or else the newest"},
                "instance": {
                    "type": ["string", "null"],
                    "pattern": f"^(?:{INSTANCE_NAME.pattern})$",
                    "description": "the instance's name, or else one is drawn",
                },
                "remove": {
                    "type": "boolean",
                    "description": "remove it when it has ended for good",
                },
                **schema_of({"labels": LABELS}),
            },
            *("major", "minor", "instance", "remove", "labels"),
            closed=True,
        ),
        "Record": structure({**RECORD, **OF_SWARM}, *OF_SWARM, closed=True),
        "Instance": structure(
            {
                **RECORD,
                "spec": {"type": "object", "description": "the config, defaults filled in"},
                "layers": array(string("the folder of a tarball")),
                "plan": array({"type": "object"}, "each step, with the seconds it took"),
                "timeline": array(numeric("seconds", kind="number")),
                "phases": {
                    "type": "object",
                    "description": "seconds of each part of its last start, in order: http (until "
                    "the request was read), manager (until its init had the plan), steps, exec, "
                    "record (until it was written down); empty before its first one",
                    "additionalProperties": {"type": "number"},
                },
                "in_advance": numeric("steps that a warm init carried out before the launch"),
                "left_out": {"type": "object", "description": "what of each tarball is not in it"},
                "image": {
                    "type": ["object", "null"],
                    "description": "that its launch used, and what it says; null: a tarball",
                },
                "sources": {
                    "type": "object",
                    "description": "by the key of a config: config, image, both, or default",
                },
                "volumes": {"type": "object", "description": "the folder of each, on the host"},
                "checks": array(ref("Check"), "the last 20 of its health"),
            }
        ),
        "Check": structure(
            {
                "at": numeric("unix time of its beginning", kind="number"),
                "seconds": numeric("that it took", 0, kind="number"),
                "passed": {
                    "type": ["boolean", "null"],
                    "description": "null if the instance could not be asked: it does not count",
                },
                "output": string("what it said, up to 4 KB"),
            }
        ),
        "Exit": structure(
            {
                "status": numeric("exit status", kind=["integer", "null"]),
                "signal": numeric("signal that ended it", kind=["integer", "null"]),
                "reason": string("the same as a sentence"),
                "at": numeric("unix time", kind="number"),
            }
        ),
        "Isolation": structure(
            {
                "namespaces": {
                    "type": "object",
                    "description": "by kind: its number, and whether it is not the host's",
                    "additionalProperties": structure(
                        {
                            "id": numeric("as the kernel has it", 1),
                            "host": numeric("that of the host's", 1),
                            "own": {"type": "boolean", "description": "it is not the host's"},
                        }
                    ),
                },
                "capabilities": array(string("one that is in effect, as NET_BIND_SERVICE")),
                "host_capabilities": array(string("one that the manager has")),
                "seccomp": one_of("how its system calls are checked", "none", "strict", "filter"),
                "filters": numeric("how many there are", 0),
                "no_new_privileges": {
                    "type": "boolean",
                    "description": "no program that it starts can get any",
                },
                "host_user": numeric("the id of its user, as the host sees it", 0),
                "host_group": numeric("the same of its group", 0),
                "host_groups": array(numeric("of a further group", 0)),
                "cgroups": array(
                    structure(
                        {
                            "controllers": string("of a hierarchy; none for that of version 2"),
                            "path": string("its group, below the root of that"),
                        }
                    )
                ),
                "mounts": array(
                    structure(
                        {
                            "target": string("where it is, in the container"),
                            "type": string("the kind of file system"),
                            "source": string("what is mounted"),
                            "options": array(string("of the mount, as ro, nosuid")),
                            "propagation": string("private, shared, slave or unbindable"),
                        }
                    ),
                    "by path; up to 1000",
                ),
                "more": numeric("how many mounts are left out", 0),
            }
        ),
        "Process": structure(
            {
                "pid": numeric("as the container sees it", 1),
                "host_pid": numeric("as the host sees it", 1),
                "host_parent": numeric("the process that started it", 0),
                "user": numeric("the id of its user, as the container sees it", 0),
                "cpu_usec": numeric("microseconds", 0),
                "memory": numeric("bytes in RAM", 0),
                "command": string("its command line, as it says itself"),
            }
        ),
    }
    paths: ClassVar[Json] = {
        "/instances": {
            "get": extension(
                "listInstances",
                "List all instances, also those that have ended",
                answer("a record each", structure({"instances": array(ref("Record"))})),
                {"404": "none matches"},
                parameters=[in_query("match", "only those that this stands for", NAME_PART)],
            ),
            "post": extension(
                "launchInstance",
                "Start a container from a config, kept or not, under a name or not",
                answer("its program runs", ref("Launched")),
                {
                    "404": "there is no such config",
                    "409": "invalid data, the name is taken, or the config or an image is at fault",
                },
                requestBody=json_body("Launch"),
            ),
        },
        "/instances/{instance}": {
            "get": extension(
                "inspect",
                "Tell all that is known of an instance",
                answer("its record, spec and plan", ref("Instance")),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/wait": {
            "get": extension(
                "wait",
                "Wait until an instance has ended for good",
                answer("how it ended", structure({"exit": ref("Exit")})),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/top": {
            "get": extension(
                "top",
                "List the processes of an instance",
                answer(
                    "up to 2000",
                    structure(
                        {
                            "processes": array(ref("Process")),
                            "more": numeric("how many more there are", 0),
                        }
                    ),
                ),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
        "/instances/{instance}/isolation": {
            "get": extension(
                "isolation",
                "Tell how an instance's PID 1 is held apart from the host, as the kernel has it",
                answer("namespaces, capabilities, filter, ids and mounts", ref("Isolation")),
                NO_INSTANCE,
            ),
            "parameters": [INSTANCE],
        },
    }

    def below_instance(self, name: str) -> Resources:
        """What is asked of one instance."""

        async def processes(request: Request) -> Json:
            return await top(self.manager, self.manager.match(name))

        async def apart(request: Request) -> Json:
            return await held(self.manager, self.manager.match(name))

        async def wait(request: Request) -> Json:
            ended = begin(self.engine.wait(name))
            request.notifyFinish().addErrback(lambda _: ended.cancel())
            return {"exit": asdict(await ended)}

        return {
            b"top": self.of_one_host(ExtensionResource(GET=processes), NO_TOP),
            b"isolation": self.of_one_host(ExtensionResource(GET=apart), NO_ISOLATION),
            b"wait": ExtensionResource(GET=wait),
        }

    async def all(self, request: Request) -> Json:
        """GET /instances."""
        wanted = query(request, match=text)["match"]
        told = await self.engine.records(wanted)
        as_of(request, told.as_of)
        return {"instances": [listed(one) for one in told.records]}

    async def launch(self, request: Request) -> Json:
        """POST /instances."""
        asked = evolve(read_launch_request(read_object(body(request))), ago=ago(request))
        launched = await self.engine.launch_as_asked(asked)
        add_notes(request, launched.notes)
        return dict(launched.summary)

    def one(self, name: str) -> Resource:
        """/instances/NAME."""

        async def everything(request: Request) -> Json:
            return await self.engine.inspect(name)

        return ExtensionResource(GET=everything)
