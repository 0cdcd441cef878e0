"""Who is on the private network, and what leads to whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address
from itertools import chain

from attrs import Factory, field, frozen

from txcontain.container.spec import Port
from txcontain.network.doorways import Doorways
from txcontain.network.firewall import Published


@frozen
class Member:
    """An instance on the bridge, from its launch until it ends for good."""

    names: tuple[str, str]  # of the instance and of its config, in lower case
    address: IPv4Address
    ports: tuple[Port, ...]
    config: str = ""  # its name as it is written
    address6: str | None = None
    runs: bool = False
    withdrawn: bool = False  # from its service: it gets nothing new
    datagrams: bool = False  # whether a port has led such to it (UDP)

    addresses: tuple[str, ...] = field(  # where it is reached
        init=False,
        default=Factory(
            lambda self: (str(self.address), *filter(None, [self.address6])), takes_self=True
        ),
    )

    @property
    def serves(self) -> bool:
        """Whether names lead to it."""
        return self.runs and not self.withdrawn


@frozen
class Service:
    """What leads to one or more instances."""

    names: frozenset[str]  # in lower case
    ports: tuple[Port, ...]
    replicas: tuple[str, ...]  # the instances that get new connections
    scope: str = ""  # if services of several have a name, each instance finds that of its own


NO_SERVICE = Service(frozenset(), (), ())


def is_loopback(port: Port) -> bool:
    """Whether a port is published only to programs of this host."""
    return IPv4Address(port.address).is_loopback


def has_datagrams(ports: Iterable[Port]) -> bool:
    """Whether one of these ports is of UDP."""
    return any(port.protocol == "udp" for port in ports)


def published(
    ports: Iterable[Port], members: Collection[Member], doorways: Doorways
) -> Iterator[Published]:
    """Ports that lead to these, as the firewall takes them.

    If a port leads to none, connections wait in its doorway, and datagrams find no one. One at
    which another program of the host listens is that program's, and is not led anywhere.
    """
    for port in ports:
        found = chain.from_iterable(member.addresses for member in members)
        addresses = tuple(one for one in found if (":" in one) == port.is_v6)
        if (addresses or doorways.holds(port)) and not doorways.is_taken(port):
            yield Published(port.protocol, port.address, port.number, addresses, port.target)
