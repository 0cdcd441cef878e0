"""The bridge, and the links that join containers to it (rtnetlink(7))."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Set
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from attrs import define

from txcontain.errors import MachineAtFault
from txcontain.host.kernel import Kernel, Process
from txcontain.host.os_errors import of_os

LONGEST_ALIAS = 255  # bytes, IFALIASZ in <linux/if.h>
HINTS = {
    errno.EXFULL: "a bridge takes 1023 links: destroy some instances",
    errno.EOPNOTSUPP: "the kernel lacks bridges or veth: load these modules",
    errno.EPERM: "run the manager as root, with CAP_NET_ADMIN",
}
FORWARDING = "/proc/sys/net/ipv4/ip_forward"
NOT_FORWARDING = "net.ipv4.ip_forward is 0: private containers reach no further than this host"


def hardware_address(address: IPv4Address) -> str:
    """The MAC address that goes with an IPv4 address: the same whenever that is used again."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + address.packed)


def link_name(address: IPv4Address) -> str:
    """What the host's end of a container's link is named."""
    return f"tx{int(address):08x}"


def exists(name: str) -> bool:
    """Whether the host has an interface of this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def forwards() -> bool:
    """Whether the host passes packets on, between interfaces (ip(7), ip_forward)."""
    with open(FORWARDING) as file:
        return file.read().strip() != "0"


@contextlib.contextmanager
def netlink(doing: str) -> Iterator[Any]:
    """A socket for rtnetlink(7); what goes wrong on it raises MachineAtFault."""
    from pyroute2 import IPRoute  # takes 0.15 s: not for those who have no private network
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
    """The bridge and what is on it, by netlink: methods block, and may raise MachineAtFault."""

    kernel: Kernel
    name: str
    interface: IPv4Interface  # the bridge's address, in its subnet
    owner: str  # written on the bridge, so that no other manager takes it for its own

    def set_up(self) -> None:
        """Have the bridge there, with its address and up."""
        with netlink(f"making the bridge {self.name}") as connection:
            if not self._find(connection):
                self._check_routes(connection)
                mac = hardware_address(self.interface.ip)
                connection.link("add", ifname=self.name, kind="bridge", address=mac)
            index = socket.if_nametoindex(self.name)
            connection.link("set", index=index, ifalias=self._alias)
            self._give_address(connection, index)
            self._configure()
            connection.link("set", index=index, state="up")

    @property
    def _alias(self) -> str:
        return self.owner[-LONGEST_ALIAS:]

    def _find(self, connection: Any) -> Any:
        """What the kernel says of the bridge; None where there is none."""
        if not exists(self.name):
            return None
        (found,) = connection.get_links(socket.if_nametoindex(self.name))
        # One without an owner, but with our address, is of a manager that was killed just then.
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
        for route in connection.get_routes(family=socket.AF_INET):
            destination, index = route.get_attr("RTA_DST"), route.get_attr("RTA_OIF")
            if not destination:
                continue  # the way to all that has no other
            known = IPv4Network((destination, route["dst_len"]), strict=False)
            if known.overlaps(self.interface.network):
                through = f" through {socket.if_indextoname(index)}" if index else ""
                raise MachineAtFault(
                    f"making the bridge {self.name}",
                    f"{self.interface.network} is in use: there is a route to {known}{through}",
                    "start the manager with another --subnet",
                )

    def _give_address(self, connection: Any, index: int) -> None:
        found = {
            f"{one.get_attr('IFA_LOCAL')}/{one['prefixlen']}"
            for one in connection.get_addr(index=index, family=socket.AF_INET)
        }
        if not found:
            ip, length = str(self.interface.ip), self.interface.network.prefixlen
            connection.addr("add", index=index, address=ip, prefixlen=length)
        elif found != {str(self.interface)}:
            raise MachineAtFault(
                f"using the bridge {self.name}",
                f"its address is {', '.join(found)}",
                "destroy the instances on it, before you start the manager with another --subnet",
            )

    def _configure(self) -> None:
        """Published ports are at 127.0.0.1 too, and so packets of that address pass here."""
        write_setting(f"ipv4/conf/{self.name}/route_localnet", "1")
        with contextlib.suppress(FileNotFoundError):  # this kernel has no IPv6
            write_setting(f"ipv6/conf/{self.name}/disable_ipv6", "1")

    def is_ours(self) -> bool:
        """Whether there is a bridge, of this manager's."""
        if not exists(self.name):
            return False
        with contextlib.suppress(MachineAtFault), netlink("looking for the bridge") as connection:
            return self._find(connection) is not None
        return False

    def has_link(self, name: str) -> bool:
        """Whether the host has a link of this name."""
        return exists(name)

    def remove(self) -> None:
        """Remove the bridge."""
        with netlink(f"removing the bridge {self.name}") as connection:
            connection.link("del", ifname=self.name)

    def remove_unknown_links(self, known: Set[str]) -> list[str]:
        """Remove the links on the bridge that are not named here; returns their names."""
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
        """Make a link from the bridge to eth0 of the network namespace that a process is in."""
        with (
            netlink(f"making the link {link_name(address)}") as connection,
            open(f"/proc/{process.pid}/ns/net") as namespace,
        ):
            if not self.kernel.lives(process):  # it may be another process's that has its pid now
                raise ProcessLookupError(errno.ESRCH, "the init has ended")
            remove_link(connection, link_name(address))  # of an earlier start, if it is still going
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


def remove_link(connection: Any, name: str) -> None:
    """Remove a link, where there is one: the kernel may be removing it as well."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        if exists(name):
            connection.link("del", ifname=name)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def write_setting(name: str, value: str) -> None:
    """Change a setting of the network, below /proc/sys/net."""
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(value)
