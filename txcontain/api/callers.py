"""Whether a caller is in a container: then it may ask only if the config allows it.

| it comes by                     | and is known by                                         |
|---------------------------------|---------------------------------------------------------|
| TCP, from the host's network    | the cgroup in which its socket was made (sock_diag(7))  |
| TCP, from the private network   | its address                                             |
| the unix socket                 | the cgroup of the process that connected (SO_PEERCRED)  |

The first needs cgroup version 2, which may be beside version 1. A socket that was made outside
and handed in counts as outside; so does a program outside that forwards requests.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import Any

from attrs import define
from twisted.internet.interfaces import IAddress

from txcontain.engine.manager import Manager
from txcontain.errors import Forbidden
from txcontain.host import sockets, syscalls
from txcontain.host.cgroups import GROUP, MONITORS, SOCKETS
from txcontain.runtime.instance import Instance

TOO_FEW = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
HINT = 'if it is to manage containers, write "manage": true in its config'
GONE = partial(
    Forbidden,
    "whoever sent this request has hung up already, and may have been a container",
    "stay connected until the answer is there",
)


@define
class Callers:
    """Tells callers in containers from all others."""

    manager: Manager

    def instance_of(self, transport: Any) -> Instance | None:
        """The instance that a connection comes from; None if it comes from no container.

        Raises Forbidden if that instance may not manage.
        """
        peer: IAddress = transport.getPeer()
        if isinstance(host := getattr(peer, "host", None), str):
            found = self._by_tcp(transport.getHost(), peer, host)
        else:
            found = self._by_process(transport)
        if found is None:
            return None
        instance = next(filter(found, self.manager.instances.values()), None)
        if instance is None or not instance.spec.manage:
            name = f"the container {instance.name}" if instance else "a container"
            raise Forbidden(f"this request comes from inside of {name}", HINT)
        return instance

    def _by_tcp(self, own: Any, peer: Any, host: str) -> Callable[[Instance], bool] | None:
        network, network6 = self.manager.network.interface, self.manager.network.interface6
        address = ip_address(host.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if address in network.network and address != network.ip:
            return lambda instance: instance.address == str(address)
        if network6 and address in network6.network and address != network6.ip:
            return lambda instance: instance.address6 == str(address)
        top = self.manager.pool.cgroups.tops.get(SOCKETS)
        if top is None:
            return None  # this machine can't tell
        try:
            group = sockets.group_of_peer((own.host, own.port), (host, peer.port))
            if group == sockets.UNTOLD:
                return None
            path = None if group is None else syscalls.path_of_group(top, group)
        except OSError as error:
            if error.errno in TOO_FEW:  # it could tell, but not now
                raise
            if error.errno != errno.ESTALE:
                return None  # nor can this one
            path = None
        if path is None:
            if sockets.is_own(host):
                raise GONE()
            return None
        return _has_group(path)

    def _by_process(self, transport: Any) -> Callable[[Instance], bool] | None:
        credentials = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, _, _ = struct.unpack("iII", credentials)
        return next(filter(None, map(_has_group, _groups_of(pid))), None)


def _groups_of(pid: int) -> list[str]:
    """The cgroups of a process (cgroups(7)); none if it has ended.

    Raises OSError if they can't be read now.
    """
    with (
        contextlib.suppress(FileNotFoundError, ProcessLookupError),
        open(f"/proc/{pid}/cgroup") as file,
    ):
        return [line.rstrip("\n").split(":", 2)[2] for line in file]
    return []


def _has_group(path: str) -> Callable[[Instance], bool] | None:
    """Whether an instance is the one whose cgroup this is; None where it is no container's."""
    above, token = os.path.split(path)
    if os.path.basename(os.path.dirname(above)) != GROUP or token == MONITORS:
        return None
    return lambda one: one.processes is not None and one.processes.token == token
