"""The packet filter: one nftables table of our own, written by nft(8).

The table says what passes between the bridge, the host and the outside world. An ``accept`` in it
ends only this table's chain: the host's own chains decide after it (nft(8), "accept"). What is
dropped here stays dropped.

A port that leads to several containers has a chain of its own, which gives each in turn a new
connection (``numgen inc``, nft(8)). Chains of NAT see only the first packet of a connection: later
ones go where the first went (conntrack), whatever the table says by then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from ipaddress import IPv4Interface
from typing import Any

from attrs import define, frozen

from txcontain.container.spec import ANY_ADDRESS
from txcontain.errors import MachineAtFault
from txcontain.host.programs import complaint_of

PATH = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
NFT_WITHIN = 30  # seconds
HINT = "the manager must run as root, and the kernel must have nf_tables with NAT"

# Two maps of each kind, since "everywhere" means each address that the host has at that moment. The
# bridge's address is not one of them: only the resolver answers there.
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
    map spread {{
        type inet_proto . ipv4_addr . inet_service : verdict
    }}
    map spread_everywhere {{
        type inet_proto . inet_service : verdict
    }}
    chain publish {{
        ip daddr {gateway} return
        fib daddr type != local return
        meta l4proto . ip daddr . th dport vmap @spread
        meta l4proto . th dport vmap @spread_everywhere
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
    """A port of the host that leads to one or more containers."""

    protocol: str
    address: str  # of the host; ANY_ADDRESS: all of them
    port: int
    targets: tuple[str, ...]  # the containers' addresses
    target_port: int

    @property
    def _key(self) -> str:
        if self.address == ANY_ADDRESS:
            return f"{self.protocol} . {self.port}"
        return f"{self.protocol} . {self.address} . {self.port}"

    @property
    def _map(self) -> str:
        everywhere = self.address == ANY_ADDRESS
        if len(self.targets) == 1:
            return "everywhere" if everywhere else "published"
        return "spread_everywhere" if everywhere else "spread"

    @property
    def _chain(self) -> str:
        return f"{self.protocol}_{self.address}_{self.port}"

    def added(self, table: str) -> Iterator[str]:
        """The commands that publish it in a table."""
        ends = [f"{target} . {self.target_port}" for target in self.targets]
        leads = ends[0]
        if len(ends) > 1:
            leads = f"goto {self._chain}"
            turns = ", ".join(f"{turn} : {end}" for turn, end in enumerate(ends))
            yield f"add chain {table} {self._chain}"
            yield (
                f"add rule {table} {self._chain} meta l4proto {self.protocol} "
                f"dnat ip to numgen inc mod {len(ends)} map {{ {turns} }}"
            )
        yield f"add element {table} {self._map} {{ {self._key} : {leads} }}"

    def deleted(self, table: str) -> Iterator[str]:
        """The commands that stop publishing it."""
        yield f"delete element {table} {self._map} {{ {self._key} }}"
        if len(self.targets) > 1:
            yield f"delete chain {table} {self._chain}"


def added(bridge: str, ports: Set[Published]) -> str:
    """The commands that publish these ports."""
    return _lines(line for port in sorted_(ports) for line in port.added(f"inet {bridge}"))


def deleted(bridge: str, ports: Set[Published]) -> str:
    """The commands that stop publishing these ports."""
    return _lines(line for port in sorted_(ports) for line in port.deleted(f"inet {bridge}"))


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


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
