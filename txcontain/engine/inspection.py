"""What is known of instances: all of it, what they use, what they wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from attrs import asdict

from txcontain.engine.manager import Manager
from txcontain.logs.reader import Reader
from txcontain.logs.segments import Wanted
from txcontain.runtime.instance import Instance


def inspect(manager: Manager, instance: Instance) -> dict[str, Any]:
    """Everything known about an instance, with its plan and the seconds that each step took."""
    record = instance.record
    del record["document"]
    contents = [manager.layers.metadata(layer) for layer in instance.layers]
    record["left_out"] = {
        os.path.basename(one.tarball): one.left_out for one in contents if one.left_out
    }
    steps = zip_longest(instance.plan, instance.timeline)
    record["plan"] = [{"op": op, **arguments, "seconds": s} for (op, arguments), s in steps]
    for step in record["plan"]:
        if "program" in step:
            step["program"] = f"{len(step['program'])} bytes, see seccomp.py"
    return record


def usage(manager: Manager, instance: Instance) -> dict[str, Any]:
    """What an instance uses now, with its limits."""
    processes = instance.processes
    figures = manager.pool.cgroups.usage(processes.token) if processes else {}
    return {**instance.summary, **figures, "limits": asdict(instance.spec.limits)}


def log_reader(
    manager: Manager,
    instances: Sequence[Instance] | None,
    wanted: Wanted,
    consumer: Any,
    **looks: Any,
) -> Reader:
    """A reader that sends the logs of instances to a consumer.

    :param instances: None: all; while it follows, also those that are launched later
    """
    return Reader(
        consumer,
        client=manager.pool.log_process,
        instances=list(manager.instances.values()) if instances is None else instances,
        wanted=wanted,
        all_readers=manager.log_readers if instances is None else None,
        **looks,
    )
