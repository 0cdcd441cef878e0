"""What is told and kept of an instance, and how the next manager reads it again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from math import isfinite
from typing import Any

from attrs import asdict, define, evolve, field

from txcontain.container.defaults import Used, read_used, with_defaults
from txcontain.container.document import LONGEST_DOCUMENT
from txcontain.container.launch_request import check_labels
from txcontain.container.spec import PORTS, Spec, from_json
from txcontain.errors import Error
from txcontain.host.files import NoFile, read_file
from txcontain.host.id_ranges import read_range
from txcontain.runtime.exits import Exit
from txcontain.runtime.health import STARTING, STATUSES, Checks
from txcontain.runtime.supervised import Supervised

RECORD = "instance.json"
AT_REST = ("ended", "stopped", "failed")  # states in which nothing of it runs, nor will by itself
# Of a start, one after the other: the request is read; the manager finds all that the container is
# made of; its init does the steps that were not done in advance, and becomes the script; this is
# written down.
PHASES = ("http", "manager", "steps", "exec", "record")
FIRST_DELAY = 0.1  # seconds before a restart; doubled each time
LONGEST_RECORD = 8 * LONGEST_DOCUMENT  # it holds the document as a JSON string, and the spec


@define(eq=False, kw_only=True)
class Recorded:
    """What is known of an instance."""

    name: str
    spec: Spec
    layers: Sequence[str]  # the base image's, then each mount's
    address: str | None = None  # on the private network
    address6: str | None = None  # the same of IPv6
    ids: int | None = None  # the first of its ids, if it has a user namespace
    remove: bool = False  # whether it is to be removed when it has ended for good
    labels: dict[str, str] = field(factory=dict)  # that its launch gave it
    image: Used | None = None  # that its launch used, if it is not a tarball
    inline: bool = False  # whether its config came with the launch, and is kept only by it
    state: str = "created"
    since: float = 0.0  # unix time of the state
    launched: float = 0.0  # unix time of the launch
    ready: bool = False  # whether it listens on its PORT
    exit: Exit | None = None  # the last one
    restarts: int = 0
    delay: float = FIRST_DELAY  # before the next restart
    boot: str = ""  # of the machine, in which it was last started
    settled: bool = False  # whether all that it wrote is on the disk, however it is marked
    up_at: float = 0.0  # when its script began to run, by the reactor's clock
    paused: bool = False  # whether all its processes are frozen
    timeline: list[float] = field(factory=list)  # seconds that each step of the plan took
    phases: dict[str, float] = field(factory=dict)  # seconds that each of PHASES took
    in_advance: int = 0  # how many steps its init had carried out before the launch
    processes: Supervised | None = None
    checks: Checks = field(init=False)  # of its health

    @property
    def running(self) -> bool:
        """Whether its script runs and was not asked to end."""
        return self.state == "running"

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs, nor will by itself."""
        return self.state in AT_REST

    @property
    def health(self) -> str | None:
        """What its checks say, one of STATUSES; None if its config has none."""
        return self.checks.standing.status if self.spec.health else None

    @property
    def summary(self) -> dict[str, str]:
        """What a launch answers, and a list holds."""
        spec = self.spec
        return {"instance": self.name, "name": spec.name, "major": spec.major, "minor": spec.minor}

    @property
    def standing(self) -> dict[str, Any]:
        """How it stands, as plain data: what a list of all holds. It must be quick to make."""
        processes, spec = self.processes, self.spec
        return {
            **self.summary,
            "state": self.state,
            "since": self.since,
            "launched": self.launched,
            "ready": self.ready and self.running,
            "health": self.health,
            "port": spec.port,
            "ports": [port.mapping for port in spec.taken_ports],
            "address": None if self.ended else self.address,  # then it is given to others
            "address6": None if self.ended else self.address6,
            "paused": self.paused,
            "pid": (self.running and processes and processes.process.pid) or None,
            "restarts": self.restarts,
            "exit": asdict(self.exit) if self.exit else None,
            "labels": self.labels,
        }

    @property
    def record(self) -> dict[str, Any]:
        """Everything known about it, as plain data, for the next manager's ``read_record``."""
        spec = self.spec
        return {
            **self.standing,
            "address": self.address,  # that of its plan
            "address6": self.address6,
            "boot": self.boot,
            "settled": self.settled,
            "published": [port.written for port in spec.ports],
            "slot": self.processes.token if self.processes else None,
            "layers": self.layers,
            "ids": self.ids,
            "delay": self.delay,
            "up_at": self.up_at,
            "document": spec.document,
            "inline": self.inline,
            "image": asdict(self.image) if self.image else None,
            "remove": self.remove,
            "timeline": self.timeline,
            "phases": self.phases,
            "in_advance": self.in_advance,
        }


def read_record(name: str, path: str, layers: str) -> dict[str, Any]:
    """A checked record, with a Spec and an Exit in it.

    Raises ValueError if it is missing or damaged; OSError if it can't be read now.
    """
    try:
        record = json.loads(read_file(path, LONGEST_RECORD))
        spec = from_json(record["document"].encode())
        if "published" in record:  # which may have changed since the launch
            spec = evolve(spec, ports=PORTS("published", record["published"]))
        folders = [os.path.join(layers, _plain(os.path.basename(p))) for p in record["layers"]]
        image = read_used(record.get("image"))
        spec = with_defaults(spec, image)
        if len(folders) < 1 + len(spec.mounts):  # an image has one layer, or several
            raise ValueError("the layers are not those of the spec")
        if record["state"] in AT_REST and not record["exit"]:
            raise ValueError("it does not say how it ended")
        return {
            "instance": name,
            "state": str(record["state"]),
            "boot": str(record["boot"]),
            "settled": bool(record.get("settled", False)),
            "since": _number(record["since"]),
            "launched": _number(record["launched"]),
            "ready": bool(record["ready"]),
            "health": _status(record.get("health")),
            "paused": bool(record.get("paused", False)),
            "restarts": int(record["restarts"]),
            "delay": _number(record.get("delay", 0)),
            "up_at": _number(record.get("up_at", 0)),
            "timeline": [_number(seconds) for seconds in record["timeline"]],
            "phases": {name: _number(s) for name, s in record.get("phases", {}).items()},
            "in_advance": int(record["in_advance"]),
            "slot": record["slot"] and _plain(record["slot"]),
            "layers": folders,
            "spec": spec,
            "inline": bool(record.get("inline")),
            "image": image,
            "remove": bool(record.get("remove")),
            "labels": check_labels("labels", record.get("labels", {})),
            "address": _address(spec, record.get("address")),
            "address6": _address6(record.get("address6")),
            "ids": read_range(record.get("ids")),
            "exit": _exit(**record["exit"]) if record["exit"] else None,
        }
    except (
        FileNotFoundError,
        NoFile,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
        Error,
    ) as why:
        raise ValueError(f"its {RECORD} can't be used: {why}") from why


def _status(health: object) -> str:
    return str(health) if health in STATUSES else STARTING


def _exit(status: int | None, signal: int | None, reason: str, at: float) -> Exit:
    status, signal = (None if number is None else int(number) for number in (status, signal))
    return Exit(status, signal, str(reason), _number(at))


def _number(value: Any) -> float:
    number = float(value)
    if not isfinite(number):
        raise ValueError(f"{number} is no number of seconds")
    return number


def _address(spec: Spec, address: object) -> str | None:
    return str(IPv4Address(str(address))) if spec.network == "private" else None


def _address6(address: object) -> str | None:
    return None if address is None else str(IPv6Address(str(address)))


def _plain(name: str) -> str:
    if not name.isalnum():
        raise ValueError(f"{name!r} is no name of ours")
    return name
