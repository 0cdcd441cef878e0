"""A swarm in memory: its managers answer from plain data, and remember what they were asked."""

import json
import re
from copy import deepcopy
from typing import Any
from urllib.parse import unquote

from treq.testing import StubTreq
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from txcontain.swarm.client import Docker, Manager

NODE: Any = {
    "ID": "n1",
    "Version": {"Index": 1},
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {"disk": "ssd"}},
    "Description": {"Hostname": "h1", "Engine": {"EngineVersion": "20.10.24"}},
    "Status": {"State": "ready", "Addr": "192.0.2.7"},
    "ManagerStatus": {"Leader": True},
}


USED: Any = {  # as Docker 20.10 tells it with version 1 of cgroups
    "read": "2026-01-01T00:00:00Z",
    "pids_stats": {"current": 3, "limit": 1024},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 8, "minor": 0, "op": "Read", "value": 4096},
            {"major": 8, "minor": 16, "op": "Read", "value": 1},
            {"major": 8, "minor": 0, "op": "Write", "value": 8192},
            {"major": 8, "minor": 0, "op": "Total", "value": 12289},
        ]
    },
    "cpu_stats": {"cpu_usage": {"total_usage": 5_000_999}, "system_cpu_usage": 1},
    "memory_stats": {"usage": 1000, "max_usage": 2000, "limit": 1 << 20},
    "networks": {
        "eth0": {"rx_bytes": 10, "tx_bytes": 20},
        "eth1": {"rx_bytes": 1, "tx_bytes": 2},
    },
}


class FakeDocker(Resource):
    """The Engine API of one manager."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.version: Any = {"ApiVersion": "1.43", "MinAPIVersion": "1.12"}
        self.configs: dict[str, Any] = {}
        self.services: dict[str, Any] = {}
        self.tasks: list[Any] = []
        self.nodes = [deepcopy(NODE)]
        self.answers: dict[str, tuple[int, Any]] = {}  # in place of its own: status and document
        self.refusals: dict[str, tuple[int, str]] = {}  # by "METHOD /path": status and message
        self.asked: list[str] = []
        self.documents: list[Any] = []
        self.labels: dict[str, Any] = {}  # of each service's tasks, by its id
        self.networks: dict[str, str] = {}  # their names, by id
        self.is_silent = False
        self.loses: set[str] = set()  # what is done, by "METHOD /path", but never answered
        self.ends_at_once = True  # whether a service's tasks are over once it is removed
        self.log = b""  # of every service
        self.state, self.error = "running", ""  # of the tasks that are begun
        self.node: str | None = "n1"  # that it is on
        self.files: dict[str, bytes] = {}  # of each container, by path, as tarballs
        self.stats: dict[str, str] = {}  # of each container, by path, as Docker tells them
        self.written: list[bytes] = []  # to it
        self.changes: Any = None  # of each container's files
        self.used: Any = USED  # by each container
        self.execs: list[Any] = []  # what each was to be
        self.ended: Any = {"Running": True, "ExitCode": 0}  # how each container stands
        self.how: Any = {"Pid": 7, "Running": True, "ExitCode": None}  # each exec stands

    def render(self, request: Any) -> Any:
        """Answer."""
        path = re.sub("^/v1[.][0-9]+", "", unquote(request.path.decode()))
        asked = f"{request.method.decode()} {path}"
        self.asked.append(asked)
        if self.is_silent:
            return NOT_DONE_YET
        content = request.content.read()
        if request.method == b"PUT":
            self.written.append(content)
            content = b""
        document = json.loads(content) if content else None
        self.documents.append(document)
        self.path = request.args.get(b"path", [b""])[0].decode()
        filters = json.loads(request.args.get(b"filters", [b"{}"])[0])
        status, answer = self.answer(asked, document, filters.get("label", []))
        if asked in self.loses:
            return NOT_DONE_YET
        request.setResponseCode(status)
        if self.path in self.stats:
            request.setHeader("X-Docker-Container-Path-Stat", self.stats[self.path])
        if isinstance(answer, bytes):
            return answer
        return b"" if answer is None else json.dumps(answer).encode()

    def answer(self, asked: str, document: Any, labels: Any) -> tuple[int, Any]:
        """A status, and a document."""
        if asked in self.refusals:
            status, message = self.refusals[asked]
            return status, {"message": message}
        if asked in self.answers:
            return self.answers[asked]
        match asked.split("/"):
            case ["GET ", "info"]:
                return 200, {"Swarm": {"NodeID": self.node}}
            case ["GET ", "containers", "c1", "json"]:
                config = {"User": "", "Env": ["A=1", "HOME=/root"]}
                return 200, {"Config": config, "State": self.ended}
            case ["POST ", "containers", "c1", "resize" | "kill"]:
                return 200, None
            case ["GET ", "containers", "c1", "changes"]:
                return 200, self.changes
            case ["GET ", "containers", "c1", "stats"]:
                return self.told(self.used)
            case ["GET " | "HEAD ", "containers", "c1", "archive"]:
                return self.told(self.files.get(self.path))
            case ["PUT ", "containers", "c1", "archive"]:
                return 200, None
            case ["POST ", "containers", "c1", "exec"]:
                self.execs.append(document)
                return 201, {"Id": f"e{len(self.execs)}"}
            case ["GET ", "exec", _, "json"]:
                return 200, self.how
            case ["POST ", "exec", _, "resize" | "start"]:
                return 200, None
            case ["GET ", "version"]:
                return 200, self.version
            case ["POST ", "configs", "create"]:
                return self.keep(self.configs, document["Name"], {"Spec": document})
            case ["GET ", "configs"]:
                return 200, list(self.configs.values())
            case ["DELETE ", "configs", name]:
                return (204, None) if self.configs.pop(name, None) else self.told(None)
            case ["GET ", "configs", name]:
                return self.told(self.configs.get(name))
            case ["POST ", "services", "create"]:
                return self.begin(document)
            case ["GET ", "services"]:
                return 200, [one for one in self.services.values() if has(one, labels)]
            case ["GET ", "services", name]:
                return self.told(self.services.get(name))
            case ["GET ", "services", _, "logs"]:
                return 200, self.log
            case ["DELETE ", "services", identity]:
                return self.end(identity)
            case ["GET ", "tasks"]:
                return 200, [one for one in self.tasks if self.is_asked(one, labels)]
            case ["GET ", "nodes"]:
                return 200, self.nodes
            case ["GET ", "nodes", name]:
                return self.told(next((one for one in self.nodes if one["ID"] == name), None))
            case ["POST ", "nodes", name, "update"]:
                return self.change(name, document)
            case ["POST ", "networks", "create"]:
                return 201, {"Id": "net"}
            case ["GET ", "networks", identity]:
                named = self.networks.get(identity)
                return self.told(named and {"Id": identity, "Name": named})
            case ["DELETE ", "networks", _]:
                return 204, None
            case ["POST ", "services", identity, "update"]:
                return self.alter(identity, document)
        return 404, {"message": "page not found"}

    def is_asked(self, task: Any, labels: Any) -> bool:
        """Whether a task's service has, or had, these labels; one of a test's own has any."""
        own = self.labels.get(task["ServiceID"])
        return own is None or has({"Spec": {"Labels": own}}, labels)

    def told(self, one: Any) -> tuple[int, Any]:
        """One of something, if it is there."""
        return (200, one) if one else (404, {"message": "it is not found"})

    def keep(self, kept: Any, name: str, one: Any) -> tuple[int, Any]:
        """Keep something that has a name."""
        if name in kept:
            return 409, {"message": "already exists"}
        kept[name] = {"ID": f"id{len(kept)}", **one}
        return 201, {"ID": kept[name]["ID"]}

    def begin(self, document: Any) -> tuple[int, Any]:
        """Begin a service, with a task."""
        created = f"2026-01-01T00:00:00.{len(self.services) + 1:02}Z"
        status, answer = self.keep(
            self.services,
            document["Name"],
            {
                **{"Spec": document, "CreatedAt": created, "UpdatedAt": "2025-12-31T23:59:00Z"},
                "Version": {"Index": 1},
            },
        )
        if status == 201:
            self.labels[answer["ID"]] = document.get("Labels", {})
            self.run(answer["ID"], document)
        return status, answer

    def run(self, identity: str, document: Any) -> None:
        """Have a service have the tasks that it is to have."""
        self.tasks = [one for one in self.tasks if one["ServiceID"] != identity]
        for slot in range(document["Mode"]["Replicated"]["Replicas"]):
            made = task(identity, self.state, self.error)
            container = document["TaskTemplate"]["ContainerSpec"]
            of_slot = {"Slot": slot + 1, "DesiredState": "running"}
            self.tasks.append({**made, **of_slot, "Spec": {"ContainerSpec": container}})

    def alter(self, identity: str, document: Any) -> tuple[int, Any]:
        """Change a service."""
        (service,) = [one for one in self.services.values() if one["ID"] == identity]
        service["Spec"] = document
        service["Version"] = {"Index": service["Version"]["Index"] + 1}
        self.run(identity, document)
        return 200, {"Warnings": None}

    def change(self, identity: str, spec: Any) -> tuple[int, Any]:
        """Change a node."""
        (node,) = [one for one in self.nodes if one["ID"] == identity]
        node["Spec"] = spec
        return 200, None

    def end(self, identity: str) -> tuple[int, Any]:
        """Remove a service."""
        names = [name for name, one in self.services.items() if identity in (name, one["ID"])]
        if not names:
            return 404, {"message": "service not found"}
        gone = self.services.pop(names[0])["ID"]
        if self.ends_at_once:
            self.tasks = [one for one in self.tasks if one["ServiceID"] != gone]
        return 200, None


def has(service: Any, labels: Any) -> bool:
    """Whether a service has these labels, each NAME or NAME=VALUE."""
    own = service["Spec"].get("Labels", {})
    told = {*own, *(f"{name}={value}" for name, value in own.items())}
    return told.issuperset(labels)


def task(service: str, state: str, error: str = "", node: str = "n1") -> dict[str, Any]:
    """A task of a service."""
    return {
        "ServiceID": service,
        "NodeID": node,
        "Status": {
            "Timestamp": "2026-01-01T00:00:01.5Z",
            "State": state,
            "Message": state,
            "ContainerStatus": {"ContainerID": "c1"},
            **({"Err": error} if error else {}),
        },
    }


class Line(StringTransport):
    """A connection to Docker that is taken over."""

    half_closed = False

    def __init__(self, other: Any) -> None:
        super().__init__()
        self.other = other

    def abortConnection(self) -> None:
        """It is cut."""
        self.other.connectionLost(Failure(ConnectionDone()))  # fails the second time, as over TLS

    def unregisterProducer(self) -> None:
        """There need not be one, as of a real connection."""
        self.producer = None

    def loseWriteConnection(self) -> None:
        """Nothing more is sent."""
        self.half_closed = True


class Lines:
    """An endpoint: where Docker takes connections over."""

    def __init__(self) -> None:
        self.made: list[Any] = []  # the protocol of each

    def connect(self, factory: Any) -> Any:
        """Connect."""
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(Line(protocol))
        self.made.append(protocol)
        return succeed(protocol)


def docker_of(reactor: Any, *fakes: FakeDocker) -> Docker:
    """What asks these managers."""
    ways: list[Any] = [StubTreq(fake) for fake in fakes]
    return Docker([Manager(f"unix:/{number}", way, reactor) for number, way in enumerate(ways)])
