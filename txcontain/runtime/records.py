"""What is told and kept of an instance, and how the next manager reads it again."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address, IPv6Address
from math import isfinite
from typing import TYPE_CHECKING, Any

from attrs import asdict, evolve

from txcontain.container.document import LONGEST_DOCUMENT
from txcontain.container.launch_request import check_labels
from txcontain.container.spec import PORTS, Spec, from_json
from txcontain.errors import Error
from txcontain.host.files import NoFile, read_file
from txcontain.host.id_ranges import read_range
from txcontain.runtime.exits import Exit
from txcontain.runtime.health import STARTING, STATUSES

if TYPE_CHECKING:
    from txcontain.runtime.instance import Instance

RECORD = "instance.json"
AT_REST = ("ended", "stopped", "failed")  # states in which nothing of it runs, nor will by itself
LONGEST_RECORD = 8 * LONGEST_DOCUMENT  # it holds the document as a JSON string, and the spec


def standing_of(instance: Instance) -> dict[str, Any]:
    """How it stands, as plain data: what a list of all holds. It must be quick to make."""
    processes, spec = instance.processes, instance.spec
    return {
        **instance.summary,
        "state": instance.state,
        "since": instance.since,
        "launched": instance.launched,
        "ready": instance.ready and instance.running,
        "health": instance.health,
        "port": spec.port,
        "ports": [port.mapping for port in spec.taken_ports],
        "address": None if instance.ended else instance.address,  # then it is given to others
        "address6": None if instance.ended else instance.address6,
        "paused": instance.paused,
        "pid": (instance.running and processes and processes.process.pid) or None,
        "restarts": instance.restarts,
        "exit": asdict(instance.exit) if instance.exit else None,
        "labels": instance.labels,
    }


def record_of(instance: Instance) -> dict[str, Any]:
    """Everything known about it, as plain data, for ``read_record``."""
    spec = instance.spec
    return {
        **instance.standing,
        "address": instance.address,  # that of its plan
        "address6": instance.address6,
        "boot": instance.boot,
        "published": [port.written for port in spec.ports],
        "slot": instance.processes.token if instance.processes else None,
        "layers": instance.layers,
        "ids": instance.ids,
        "delay": instance.delay,
        "up_at": instance.up_at,
        "document": spec.document,
        "inline": instance.inline,
        "remove": instance.remove,
        "timeline": instance.timeline,
        "in_advance": instance.in_advance,
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
        if len(folders) != 1 + len(spec.mounts):
            raise ValueError("the layers are not those of the spec")
        if record["state"] in AT_REST and not record["exit"]:
            raise ValueError("it does not say how it ended")
        return {
            "instance": name,
            "state": str(record["state"]),
            "boot": str(record["boot"]),
            "since": _number(record["since"]),
            "launched": _number(record["launched"]),
            "ready": bool(record["ready"]),
            "health": _status(record.get("health")),
            "paused": bool(record.get("paused", False)),
            "restarts": int(record["restarts"]),
            "delay": _number(record.get("delay", 0)),
            "up_at": _number(record.get("up_at", 0)),
            "timeline": [_number(seconds) for seconds in record["timeline"]],
            "in_advance": int(record["in_advance"]),
            "slot": record["slot"] and _plain(record["slot"]),
            "layers": folders,
            "spec": spec,
            "inline": bool(record.get("inline")),
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
