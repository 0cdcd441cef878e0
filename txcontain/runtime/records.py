"""The record of an instance, as the next manager reads it; ``Instance.record`` is what is in it."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address, IPv6Address
from math import isfinite
from typing import Any

from attrs import evolve

from txcontain.container.document import LONGEST_DOCUMENT
from txcontain.container.launch_request import check_labels
from txcontain.container.spec import PORTS, Spec, from_json
from txcontain.errors import Error
from txcontain.host.files import NoFile, read_file
from txcontain.host.id_ranges import read_range
from txcontain.runtime.exits import Exit

RECORD = "instance.json"
AT_REST = ("ended", "stopped", "failed")  # states in which nothing of it runs, nor will by itself
LONGEST_RECORD = 8 * LONGEST_DOCUMENT  # it holds the document as a JSON string, and the spec


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
