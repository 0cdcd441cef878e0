"""The bridge, and the links that attach containers to it (rtnetlink(7))."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence, Set
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network
from typing import Any

from attrs import define

from txcontain.errors import MachineAtFault
from txcontain.host.kernel import Kernel
from txcontain.host.os_errors import of_os
from txcontain.host.processes import Process

HAIRPIN = 1  # BRIDGE_MODE_HAIRPIN in <linux/if_link.h>
LONGEST_ALIAS = 255  # bytes; IFALIASZ in <linux/if.h>
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
OPTIONS = {4: "subnet", 6: "subnet6"}
IFA_F_NODAD, RT_SCOPE_LINK = 0x02, 253  # <linux/if_addr.h>, <linux/rtnetlink.h>
# In this order: with IPv6 comes an address of the link, which is to be used at once. Nothing but
# questions for neighbours comes from it. (ip-sysctl, kernel documentation)
SETTINGS_6 = {"accept_ra": "0", "accept_dad": "0", "disable_ipv6": "0"}
NO_IPV6 = {"disable_ipv6": "1"}
HINTS = {
    errno.EXFULL: "a bridge takes 1023 links: destroy some instances",
    errno.EOPNOTSUPP: "the kernel lacks bridges or veth: load these modules",
    errno.EPERM: "run the manager as root, with CAP_NET_ADMIN",
}
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
FORWARDING_6 = "/proc/sys/net/ipv6/conf/all/forwarding"
WITHOUT_IPV6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
NOT_FORWARDING = "net.ipv4.ip_forward is 0: private containers reach no further than this host"


def hardware_address(address: IPv4Address) -> str:
    """The MAC address that belongs to an IPv4 address: always the same one."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + address.packed)


def link_name(address: IPv4Address) -> str:
    """The name of the host's end of a container's link."""
    return f"tx{int(address):08x}"


def link_name_of(address: str) -> str:
    """The same, of an address as text."""
    return link_name(IPv4Address(address))


Links = Mapping[str, Sequence[int]]  # what passed over each link of the host, by its name


def traffic(address: IPv4Address, links: Links) -> dict[str, int]:
    """The bytes that a container has received and sent over its link; empty if it has none."""
    if numbers := links.get(link_name(address)):
        return {"network_received": numbers[8], "network_sent": numbers[0]}  # seen from the host
    return {}


def traffic_of_links() -> Links:
    """What passed over all links, as /proc/net/dev has it: 16 numbers (proc_net(5)).

    The container's side is the other one: what its link receives here, the container has sent.
    Empty if the kernel does not tell.
    """
    try:
        with open("/proc/net/dev") as lines:
            split = [line.partition(":") for line in lines if ":" in line]
    except OSError:
        return {}
    return {name.strip(): tuple(map(int, rest.split())) for name, _, rest in split}


def exists(name: str) -> bool:
    """Whether the host has an interface of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def forwards(version: int = 4) -> bool:
    """Whether the host forwards packets of IPv4 or IPv6 (ip(7), ip_forward)."""
    try:
        with open(FORWARDING if version == 4 else FORWARDING_6) as file:
            return file.read().strip() != "0"
    except FileNotFoundError:
        return False


def has_ipv6() -> bool:
    """Whether the host has IPv6: the kernel can have none, and anyone can switch it off."""
    try:
        with open(WITHOUT_IPV6) as file:
            return file.read().strip() == "0"
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def netlink(doing: str) -> Iterator[Any]:
    """A socket for rtnetlink(7). Errors on it raise MachineAtFault."""
    from pyroute2 import IPRoute  # takes 0.15 s: only for those who have a private network
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as connection:
            yield connection
    except NetlinkError as error:
        said = of_os(OSError(error.code, os.strerror(error.code)))
        raise MachineAtFault(doing, said, *filter(None, [HINTS.get(error.code)])) from error
    except OSError as error:
        raise MachineAtFault(doing, of_os(error)) from error


@define
class Bridge:
    """The bridge and the links on it, by netlink. Methods block, and may raise MachineAtFault."""

    kernel: Kernel
    name: str
    interface: IPv4Interface  # the bridge's address, in its subnet
    owner: str  # written on the bridge, so that no other manager uses it
    interface6: IPv6Interface | None = None  # the same of IPv6

    def set_up(self) -> None:
        """Make the bridge if there is none, give it its address, and bring it up."""
        with netlink(f"making the bridge {self.name}") as connection:
            if not self._find(connection):
                self._check_routes(connection)
                mac = hardware_address(self.interface.ip)
                connection.link("add", ifname=self.name, kind="bridge", address=mac)
            index = socket.if_nametoindex(self.name)
            connection.link("set", index=index, ifalias=self._alias)
            self._configure()
            for interface in self._interfaces:
                self._give_address(connection, index, interface)
            connection.link("set", index=index, state="up")

    @property
    def _interfaces(self) -> list[IPv4Interface | IPv6Interface]:
        return [self.interface, *([self.interface6] if self.interface6 else [])]

    @property
    def _alias(self) -> str:
        return self.owner[-LONGEST_ALIAS:]

    def _find(self, connection: Any) -> Any:
        """What the kernel says of the bridge; None if there is none."""
        if not exists(self.name):
            return None
        (found,) = connection.get_links(socket.if_nametoindex(self.name))
        # Without an owner but with our address: a manager was killed while it made it.
        owner = found.get_attr("IFLA_IFALIAS") or ""
        mac = found.get_attr("IFLA_ADDRESS")
        if owner != self._alias and (owner or mac != hardware_address(self.interface.ip)):
            raise MachineAtFault(
                f"using the bridge {self.name}",
                f"it is not ours, but of {owner or 'no one'}",
                "start the manager with another --bridge and --subnet",
            )
        return found

    def _check_routes(self, connection: Any) -> None:
        for interface in self._interfaces:
            for route in connection.get_routes(family=FAMILIES[interface.version]):
                self._check_route(interface, route)

    def _check_route(self, interface: IPv4Interface | IPv6Interface, route: Any) -> None:
        destination, index = route.get_attr("RTA_DST"), route.get_attr("RTA_OIF")
        if not destination:
            return  # the default route
        known = ip_network((destination, route["dst_len"]), strict=False)
        if known.overlaps(interface.network):
            through = f" through {socket.if_indextoname(index)}" if index else ""
            raise MachineAtFault(
                f"making the bridge {self.name}",
                f"{interface.network} is in use: there is a route to {known}{through}",
                f"start the manager with another --{OPTIONS[interface.version]}",
            )

    def _give_address(
        self, connection: Any, index: int, interface: IPv4Interface | IPv6Interface
    ) -> None:
        found = {
            f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}"
            for one in connection.get_addr(index=index, family=FAMILIES[interface.version])
            if one["scope"] != RT_SCOPE_LINK
        }
        if not found:
            ip, length = str(interface.ip), interface.network.prefixlen
            # No one else has it: it is used at once, and not after a second (IPv6).
            connection.addr("add", index=index, address=ip, prefixlen=length, flags=IFA_F_NODAD)
        elif found != {str(interface)}:
            raise MachineAtFault(
                f"using the bridge {self.name}",
                f"its address is {', '.join(found)}",
                "destroy the instances on it, before you start the manager with another "
                f"--{OPTIONS[interface.version]}",
            )

    def _configure(self) -> None:
        """Let packets from 127.0.0.1 pass, since ports are published there too; set IPv6 up."""
        write_setting(f"ipv4/conf/{self.name}/route_localnet", "1")
        settings = SETTINGS_6 if self.interface6 else NO_IPV6
        with contextlib.suppress(FileNotFoundError):  # this kernel has no IPv6
            for name, value in settings.items():
                write_setting(f"ipv6/conf/{self.name}/{name}", value)

    def is_ours(self) -> bool:
        """Whether there is a bridge, and it is this manager's."""
        if not exists(self.name):
            return False
        with contextlib.suppress(MachineAtFault), netlink("looking for the bridge") as connection:
            return self._find(connection) is not None
        return False

    def has_link(self, name: str) -> bool:
        """Whether the host has a link of this name."""
        return exists(name)

    def remove_link(self, address: IPv4Address) -> None:
        """Remove the link of the container that has this address, if it is there."""
        with netlink(f"removing the link {link_name(address)}") as connection:
            remove_link(connection, link_name(address))

    def remove(self) -> None:
        """Remove the bridge."""
        with netlink(f"removing the bridge {self.name}") as connection:
            connection.link("del", ifname=self.name)

    def remove_unknown_links(self, known: Set[str]) -> list[str]:
        """Remove all links on the bridge but the known ones; returns the names of those removed."""
        with netlink("removing links") as connection:
            index = socket.if_nametoindex(self.name)
            links = connection.get_links()
            names = [
                link.get_attr("IFLA_IFNAME")
                for link in links
                if link.get_attr("IFLA_MASTER") == index
            ]
            unknown = sorted(set(names) - known)
            for name in unknown:
                remove_link(connection, name)
            return unknown

    def attach(self, address: IPv4Address, process: Process) -> None:
        """Make a link from the bridge to eth0 in the network namespace of a process."""
        with (
            netlink(f"making the link {link_name(address)}") as connection,
            open(f"/proc/{process.pid}/ns/net") as namespace,
        ):
            if not self.kernel.lives(process):  # another process may have its pid now
                raise ProcessLookupError(errno.ESRCH, "the init has ended")
            remove_link(connection, link_name(address))  # of an earlier start, if it is still there
            eth0 = {
                "ifname": "eth0",
                "net_ns_fd": namespace.fileno(),
                "address": hardware_address(address),
            }
            connection.link(
                "add",
                ifname=link_name(address),
                kind="veth",
                peer=eth0,
                master=socket.if_nametoindex(self.name),
                state="up",
            )
            # What it sends to a port of the host may lead back to itself: if the host's packets on
            # bridges pass its filter (br_netfilter), the bridge is what sends them back.
            index = socket.if_nametoindex(link_name(address))
            connection.brport("set", index=index, IFLA_BRPORT_MODE=HAIRPIN)


def remove_link(connection: Any, name: str) -> None:
    """Remove a link if there is one. The kernel may be removing it at the same time."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        if exists(name):
            connection.link("del", ifname=name)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def write_setting(name: str, value: str) -> None:
    """Change a setting below /proc/sys/net."""
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)
