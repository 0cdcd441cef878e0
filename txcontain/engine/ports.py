"""The host's ports: who has those that a launch wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from txcontain.container.spec import Port, Spec
from txcontain.host.kernel import Kernel
from txcontain.runtime import diagnose
from txcontain.runtime.instance import Instance

Threads = Callable[..., Deferred[Any]]


async def check_ports(
    spec: Spec, instances: Mapping[str, Instance], kernel: Kernel, threads: Threads
) -> None:
    """Check that no one has the ports that a config takes.

    Raises ConfigAtFault, which names the instance or the process that has one.
    """
    if not spec.taken_ports:
        return
    holders = [(port, await _holder(port, kernel, threads)) for port in spec.taken_ports]
    for instance in instances.values():  # only now: the list may have changed meanwhile
        others = () if instance.ended else instance.spec.taken_ports
        for port in spec.taken_ports:
            if any(port.clashes_with(other) for other in others):
                raise diagnose.of_port(port, f"the instance {instance.name}")
    for port, holder in holders:
        if holder is not None:
            raise diagnose.of_port(port, "{1} (process {0})".format(*holder))


async def _holder(port: Port, kernel: Kernel, threads: Threads) -> tuple[int, str] | None:
    """The process that listens on a port of the host: its pid and name."""
    which = {"protocol": port.protocol, "address": port.address}
    if not kernel.listening_sockets(port.number, **which):
        return None
    held: tuple[int, str] | None = await threads(kernel.listener, port.number, *which.values())
    return held
