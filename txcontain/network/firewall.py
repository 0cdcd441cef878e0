"""The packet filter: one nftables table of our own, written by nft(8).

The table says what passes between the bridge, the host and the outside world. An ``accept`` in it
ends only this table's chain: the host's own chains decide after it (nft(8), "accept"). What is
dropped here stays dropped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Set
from ipaddress import IPv4Interface
from typing import Any

from attrs import define, frozen

from txcontain.container.spec import ANY_ADDRESS
from txcontain.errors import MachineAtFault
from txcontain.host.programs import complaint_of

PATH = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
NFT_WITHIN = 30  # seconds
HINT = "the manager must run as root, and the kernel must have nf_tables with NAT"

# Two maps, since "everywhere" means each address that the host has at that moment. The bridge's
# address is not one of them: only the resolver answers there.
TABLE = """\
add table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
    map published {{
        type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service
    }}
    map everywhere {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}
    chain publish {{
        ip daddr {gateway} return
        fib daddr type != local return
        dnat ip to meta l4proto . ip daddr . th dport map @published
        dnat ip to meta l4proto . th dport map @everywhere
    }}
    chain arriving {{
        type nat hook prerouting priority -100; policy accept;
        jump publish
    }}
    chain from_host {{
        type nat hook output priority -100; policy accept;
        jump publish
    }}
    chain leaving {{
        type nat hook postrouting priority 100; policy accept;
        oifname "{bridge}" ip saddr {{ 127.0.0.0/8, {subnet} }} ct status dnat masquerade
        oifname != "{bridge}" ip saddr {subnet} masquerade
    }}
    chain forged {{
        type filter hook prerouting priority -300; policy accept;
        iifname "{bridge}" ip saddr != {subnet} drop
        iifname "{bridge}" ip daddr 127.0.0.0/8 drop
        iifname != {{ "{bridge}", "lo" }} ip daddr {gateway} drop
    }}
    chain to_host {{
        type filter hook input priority 0; policy accept;
        iifname != "{bridge}" accept
        ct state established,related accept
        ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
        ip daddr {gateway} icmp type echo-request accept
        reject
    }}
    chain to_containers {{
        type filter hook forward priority 0; policy accept;
        oifname != "{bridge}" accept
        iifname "{bridge}" accept
        ct state established,related accept
        ct status dnat accept
        drop
    }}
}}
"""


@frozen
class Published:
    """A port of the host that leads to a container."""

    protocol: str
    address: str  # of the host; ANY_ADDRESS: all of them
    port: int
    target: str  # the container's address
    target_port: int

    def element(self, bridge: str) -> str:
        """The map in which it is looked up, and its key there."""
        key = f"{self.protocol} . {self.address} . {self.port}"
        if self.address == ANY_ADDRESS:
            return f"inet {bridge} everywhere {{ {self.protocol} . {self.port}"
        return f"inet {bridge} published {{ {key}"

    @property
    def value(self) -> str:
        """Where it leads."""
        return f"{self.target} . {self.target_port}"


def added(bridge: str, ports: Set[Published]) -> str:
    """The commands that publish these ports."""
    return "".join(
        f"add element {port.element(bridge)} : {port.value} }}\n" for port in sorted_(ports)
    )


def deleted(bridge: str, ports: Set[Published]) -> str:
    """The commands that stop publishing these ports."""
    return "".join(f"delete element {port.element(bridge)} }}\n" for port in sorted_(ports))


def sorted_(ports: Set[Published]) -> list[Published]:
    """The ports, always in the same order."""
    return sorted(ports, key=lambda port: (port.address, port.port, port.protocol))


def table(bridge: str, interface: IPv4Interface) -> str:
    """The commands that make the table anew. What follows them is in the same transaction.

    ``interface`` is the bridge's address, in its subnet.
    """
    return TABLE.format(bridge=bridge, gateway=interface.ip, subnet=interface.network)


@define(eq=False)
class Firewall:
    """The table of one bridge. Told which ports to publish, it changes only what differs."""

    run: Callable[[str], Awaitable[None]]  # runs nft(8) on a script: all of it is done, or nothing
    bridge: str
    interface: IPv4Interface
    _ports: frozenset[Published] | None = None  # in the kernel; None if that is not known

    async def publish(self, ports: frozenset[Published]) -> None:
        """Have the table publish these ports and no others.

        Raises MachineAtFault.
        """
        if ports == self._ports:
            return
        before, self._ports = self._ports, None
        if before is None:
            await self.run(table(self.bridge, self.interface) + added(self.bridge, ports))
        else:
            gone, new = before - ports, ports - before
            await self.run(deleted(self.bridge, gone) + added(self.bridge, new))
        self._ports = ports

    def doubt(self) -> None:
        """The table may have been changed: write all of it the next time."""
        self._ports = None

    async def remove(self) -> None:
        """Remove the table if there is one.

        Raises MachineAtFault.
        """
        self._ports = None
        await self.run(f"add table inet {self.bridge}\ndelete table inet {self.bridge}\n")


def find_nft() -> str:
    """The path of nft(8).

    Raises MachineAtFault if there is none.
    """
    path = shutil.which("nft", path=PATH)
    if path is None:
        raise MachineAtFault(
            'making a container with "network": "private"',
            "the program nft is missing",
            "install the package nftables",
        )
    return path


async def run_nft(reactor: Any, script: str) -> None:
    """Have nft(8) carry out a script, as one transaction.

    Raises MachineAtFault, with its first complaint.
    """
    arguments = find_nft(), ["-f", "-"], script.encode(), NFT_WITHIN
    if complaint := await complaint_of(reactor, *arguments):
        first = complaint.partition("\n")[0]
        raise MachineAtFault("changing the packet filter by nft", first, HINT)
