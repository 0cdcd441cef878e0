"""The packet filter: one nftables table of our own, written by nft(8).

The table says what passes between the bridge, the host and the outside world. An ``accept`` in it
ends only this table's chain: the host's own chains decide after it (nft(8), "accept"). What is
dropped here stays dropped.

A port that leads to several containers has a chain of its own, which gives each in turn a new
connection (``numgen inc``, nft(8)). Chains of NAT see only the first packet of a connection: later
ones go where the first went (conntrack), whatever the table says by then.

Connections to a service's port that leads to none at the moment wait in a socket of the manager's
(``doorways.py``), also those of containers: they are let to this port of the host as long as that
socket is there, so that they reach no other program.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from attrs import define, frozen

from txcontain.container.spec import ANY
from txcontain.errors import MachineAtFault
from txcontain.host.programs import complaint_of

PATH = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
NFT_WITHIN = 30  # seconds
HINT = "the manager must run as root, and the kernel must have nf_tables with NAT"

TABLE = """\
add table inet {bridge}
delete table inet {bridge}
table inet {bridge} {{
{publish}\
    chain arriving {{
        type nat hook prerouting priority -100; policy accept;
        {lead}
    }}
    chain from_host {{
        type nat hook output priority -100; policy accept;
        {lead}
    }}
    chain leaving {{
        type nat hook postrouting priority 100; policy accept;
        oifname "{bridge}" ip saddr {{ 127.0.0.0/8, {subnet} }} ct status dnat masquerade
        oifname != "{bridge}" ip saddr {subnet} masquerade
        {leaving6}
    }}
    chain forged {{
        type filter hook prerouting priority -300; policy accept;
        iifname "{bridge}" ip saddr != {subnet} drop
        iifname "{bridge}" ip daddr 127.0.0.0/8 drop
        iifname != {{ "{bridge}", "lo" }} ip daddr {gateway} drop
        {forged6}
    }}
    chain to_host {{
        type filter hook input priority 0; policy accept;
        iifname != "{bridge}" accept
        ct state established,related accept
        ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 accept
        ip daddr {gateway} icmp type echo-request accept
        {to_host6}
        ip daddr {gateway} reject
        meta l4proto . ip daddr . th dport @waiting accept
        meta nfproto ipv4 meta l4proto . th dport @waiting_everywhere accept
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
# For IPv4 and for IPv6 ({six}: ""; "6"). There are two maps of each kind, since "everywhere" means
# each address that the host has at that moment. The bridge's address is not one of them: only the
# resolver answers there. (Nor are those of one link of IPv6: no answer would get to the client.)
PUBLISH = """\
    set waiting{six} {{
        type inet_proto . ipv{version}_addr . inet_service
    }}
    set waiting_everywhere{six} {{
        type inet_proto . inet_service
    }}
    map published{six} {{
        type inet_proto . ipv{version}_addr . inet_service : ipv{version}_addr . inet_service
    }}
    map everywhere{six} {{
        type inet_proto . inet_service : ipv{version}_addr . inet_service
    }}
    map spread{six} {{
        type inet_proto . ipv{version}_addr . inet_service : verdict
    }}
    map spread_everywhere{six} {{
        type inet_proto . inet_service : verdict
    }}
    chain publish{six} {{
        ip{six} daddr {{ {hosts} }} return
        fib daddr type != local return
        meta l4proto . ip{six} daddr . th dport vmap @spread{six}
        meta l4proto . th dport vmap @spread_everywhere{six}
        dnat ip{six} to meta l4proto . ip{six} daddr . th dport map @published{six}
        dnat ip{six} to meta l4proto . th dport map @everywhere{six}
    }}
"""
# What the table has for IPv6, if there is a subnet of it. Neighbours ask for each other from
# addresses of their link (RFC 4861); nothing else comes from such ones.
SIX = {
    "leaving6": """\
oifname "{bridge}" ip6 saddr {subnet6} ct status dnat masquerade
        oifname != "{bridge}" ip6 saddr {subnet6} masquerade""",
    "forged6": """\
iifname != {{ "{bridge}", "lo" }} ip6 daddr {gateway6} drop
        iifname "{bridge}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        iifname "{bridge}" ip6 saddr != {subnet6} drop""",
    "to_host6": """\
icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        ip6 daddr {gateway6} icmpv6 type echo-request accept
        ip6 daddr {gateway6} reject
        meta l4proto . ip6 daddr . th dport @waiting6 accept
        meta nfproto ipv6 meta l4proto . th dport @waiting_everywhere6 accept""",
}


@frozen
class Published:
    """A port of the host that leads to containers; if there is none, connections wait."""

    protocol: str
    address: str  # of the host, which may be one that means all
    port: int
    targets: tuple[str, ...]  # the containers' addresses, of the same version of IP
    target_port: int

    @property
    def _six(self) -> str:
        return "6" if ":" in self.address else ""

    @property
    def _key(self) -> str:
        at = "" if self.address in ANY else f"{self.address} . "
        return f"{self.protocol} . {at}{self.port}"

    @property
    def _map(self) -> str:
        everywhere = self.address in ANY
        if not self.targets:
            return ("waiting_everywhere" if everywhere else "waiting") + self._six
        if len(self.targets) == 1:
            return ("everywhere" if everywhere else "published") + self._six
        return ("spread_everywhere" if everywhere else "spread") + self._six

    @property
    def _chain(self) -> str:
        return f"{self.protocol}_{self.address.replace(':', '-')}_{self.port}"

    def added(self, table: str) -> Iterator[str]:
        """The commands that publish it in a table."""
        ends = [f"{target} . {self.target_port}" for target in self.targets]
        leads = "".join(f" : {end}" for end in ends)
        if len(ends) > 1:
            leads = f" : goto {self._chain}"
            turns = ", ".join(f"{turn} : {end}" for turn, end in enumerate(ends))
            yield f"add chain {table} {self._chain}"
            yield (
                f"add rule {table} {self._chain} meta l4proto {self.protocol} "
                f"dnat ip{self._six} to numgen inc mod {len(ends)} map {{ {turns} }}"
            )
        yield f"add element {table} {self._map} {{ {self._key}{leads} }}"

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


def table(bridge: str, interface: IPv4Interface, interface6: IPv6Interface | None = None) -> str:
    """The commands that make the table anew. What follows them is in the same transaction.

    The interfaces are the bridge's addresses, in their subnets.
    """
    said: dict[str, Any] = {"bridge": bridge, "gateway": interface.ip, "subnet": interface.network}
    publish = PUBLISH.format(six="", version=4, hosts=interface.ip)
    lead, six = "jump publish", dict.fromkeys(SIX, "")
    if interface6 is not None:
        gateway6, subnet6 = interface6.ip, interface6.network
        publish += PUBLISH.format(six="6", version=6, hosts=f"{gateway6}, fe80::/10")
        lead = "meta nfproto vmap { ipv4 : jump publish, ipv6 : jump publish6 }"
        six = {
            name: text.format(bridge=bridge, gateway6=gateway6, subnet6=subnet6)
            for name, text in SIX.items()
        }
    return TABLE.format(**said, **six, publish=publish, lead=lead)


@define(eq=False)
class Firewall:
    """The table of one bridge. Told which ports to publish, it changes only what differs."""

    run: Callable[[str], Awaitable[None]]  # runs nft(8) on a script: all of it is done, or nothing
    bridge: str
    interface: IPv4Interface
    interface6: IPv6Interface | None = None
    _ports: frozenset[Published] | None = None  # in the kernel; None if that is not known

    async def publish(self, ports: frozenset[Published]) -> Set[Published]:
        """Have the table publish these ports and no others; returns those that may be new.

        Raises MachineAtFault.
        """
        if ports == self._ports:
            return frozenset()
        before, self._ports = self._ports, None
        if before is None:
            await self.run(
                table(self.bridge, self.interface, self.interface6) + added(self.bridge, ports)
            )
        else:
            gone, new = before - ports, ports - before
            await self.run(deleted(self.bridge, gone) + added(self.bridge, new))
        self._ports = ports
        return ports - (before or frozenset())

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
            "leading names and ports to containers on the private network",
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
