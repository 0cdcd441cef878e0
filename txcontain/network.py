"""The private network: a bridge of ours, and a link from it to each container that is on it.

    host                                   container
    txcontain0 10.87.0.1/16 (a bridge) --- tx0a570002 === eth0 10.87.0.2/16
         |  rules: firewall.py                            default via 10.87.0.1
         |  names: names.py, port 53

The bridge, its rules and its resolver are there while an instance needs them. The
kernel removes a link with the network namespace that its other end is in, so with the
container's last process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from txcontain import failures
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.firewall import Firewall, Published, find_nft, run_nft
from txcontain.kernel import Kernel, Process
from txcontain.later import background
from txcontain.names import Names
from txcontain.plan import Link
from txcontain.spec import Port, Spec

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
        said = failures.of_os(OSError(error.code, os.strerror(error.code)))
        raise MachineAtFault(doing, said, *filter(None, [HINTS.get(error.code)])) from error
    except OSError as error:
        raise MachineAtFault(doing, failures.of_os(error)) from error


@define
class Links:
    """The bridge and what is on it, by netlink: methods block, and may raise MachineAtFault."""

    kernel: Kernel
    bridge: str
    interface: IPv4Interface  # the bridge's address, in its subnet
    owner: str  # written on the bridge, so that no other manager takes it for its own

    def raise_bridge(self) -> None:
        """Have the bridge there, with its address and up."""
        with netlink(f"making the bridge {self.bridge}") as connection:
            if not self._find(connection):
                self._check_routes(connection)
                mac = hardware_address(self.interface.ip)
                connection.link("add", ifname=self.bridge, kind="bridge", address=mac)
            index = socket.if_nametoindex(self.bridge)
            connection.link("set", index=index, ifalias=self._alias)
            self._give_address(connection, index)
            self._configure()
            connection.link("set", index=index, state="up")

    @property
    def _alias(self) -> str:
        return self.owner[-LONGEST_ALIAS:]

    def _find(self, connection: Any) -> Any:
        """What the kernel says of the bridge; None where there is none."""
        if not exists(self.bridge):
            return None
        (found,) = connection.get_links(socket.if_nametoindex(self.bridge))
        # One without an owner, but with our address, is of a manager that was killed just then.
        owner = found.get_attr("IFLA_IFALIAS") or ""
        mac = found.get_attr("IFLA_ADDRESS")
        if owner != self._alias and (owner or mac != hardware_address(self.interface.ip)):
            raise MachineAtFault(
                f"using the bridge {self.bridge}", f"it is not ours, but of {owner or 'no one'}",
                "start the manager with another --bridge and --subnet",
            )  # fmt: skip
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
                    f"making the bridge {self.bridge}",
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
                f"using the bridge {self.bridge}", f"its address is {', '.join(found)}",
                "destroy the instances on it, before you start the manager with another --subnet",
            )  # fmt: skip

    def _configure(self) -> None:
        """Published ports are at 127.0.0.1 too, and so packets of that address pass here."""
        write_setting(f"ipv4/conf/{self.bridge}/route_localnet", "1")
        with contextlib.suppress(FileNotFoundError):  # this kernel has no IPv6
            write_setting(f"ipv6/conf/{self.bridge}/disable_ipv6", "1")

    def is_ours(self) -> bool:
        """Whether there is a bridge, of this manager's."""
        if not exists(self.bridge):
            return False
        with contextlib.suppress(MachineAtFault), netlink("looking for the bridge") as connection:
            return self._find(connection) is not None
        return False

    def exists(self, name: str) -> bool:
        """Whether the host has a link of this name."""
        return exists(name)

    def remove_bridge(self) -> None:
        """Remove the bridge."""
        with netlink(f"removing the bridge {self.bridge}") as connection:
            connection.link("del", ifname=self.bridge)

    def remove_strangers(self, known: Set[str]) -> list[str]:
        """Remove the links on the bridge that are not named here; returns their names."""
        with netlink("removing links") as connection:
            index = socket.if_nametoindex(self.bridge)
            links = connection.get_links()
            names = [
                link.get_attr("IFLA_IFNAME")
                for link in links
                if link.get_attr("IFLA_MASTER") == index
            ]
            strangers = sorted(set(names) - known)
            for name in strangers:
                remove(connection, name)
            return strangers

    def join(self, address: IPv4Address, process: Process) -> None:
        """Make a link from the bridge to eth0 of the network namespace that a process is in."""
        with (
            netlink(f"making the link {link_name(address)}") as connection,
            open(f"/proc/{process.pid}/ns/net") as namespace,
        ):
            if not self.kernel.lives(process):  # it may be another process's that has its pid now
                raise ProcessLookupError(errno.ESRCH, "the init has ended")
            remove(connection, link_name(address))  # of an earlier start, if it is still going
            eth0 = {"ifname": "eth0", "net_ns_fd": namespace.fileno(),
                    "address": hardware_address(address)}  # fmt: skip
            connection.link(
                "add", ifname=link_name(address), kind="veth", peer=eth0,
                master=socket.if_nametoindex(self.bridge), state="up",
            )  # fmt: skip


def remove(connection: Any, name: str) -> None:
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


@frozen
class Member:
    """An instance on the bridge, from its launch until it ends for good."""

    names: tuple[str, str]  # of the instance and of its config, in small letters
    address: IPv4Address
    ports: tuple[Port, ...]
    config: str = ""  # its name, as it is written
    runs: bool = False

    @property
    def published(self) -> Iterator[Published]:
        """Its ports, as the firewall takes them."""
        for port in self.ports:
            target = str(self.address)
            yield Published(port.protocol, port.address, port.number, target, port.target)


@define(eq=False)
class Network:
    """The private network of one manager's instances."""

    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    interface: IPv4Interface
    links: Links
    firewall: Firewall
    names: Names
    find_nft: Callable[[], object] = find_nft  # raises MachineAtFault where there is none
    forwards: Callable[[], bool] = forwards  # whether the host does
    _members: dict[str, Member] = field(factory=dict)  # by the instance's name
    _up: bool | None = False  # whether the bridge is there; None where that is not known
    _lock: DeferredLock = field(factory=DeferredLock)
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self.names.find = self.find

    # -- who is on it ------------------------------------------------------------

    def reserve(self, instance: str, spec: Spec) -> str | None:
        """An address for an instance that is to be made; None where it needs none.

        Raises MachineAtFault where it can't be had; ConfigAtFault where its name can't.
        """
        if spec.network != "private":
            return None
        self._check_name(spec.name)
        self.find_nft()
        self._check_forwarding(spec.ports)
        taken = {self.interface.ip, *(member.address for member in self._members.values())}
        address = next((one for one in self.interface.network.hosts() if one not in taken), None)
        if address is None:
            raise MachineAtFault(
                "finding an address", f"all of {self.interface.network} are taken",
                "destroy some instances, or start the manager with a larger --subnet",
            )  # fmt: skip
        self.adopt(instance, spec, str(address))
        # Begun while the init mounts its root; `connect` waits for it, and tells what went wrong.
        background(self._settle(), "making the private network ready")
        return str(address)

    def _check_name(self, config: str) -> None:
        """Names in DNS have no case (RFC 4343): one must not mean instances of two configs."""
        for instance, member in self._members.items():
            if config.lower() in member.names and config != member.config:
                raise ConfigAtFault(
                    f"the name {config} is taken on the private network",
                    f"{instance} is found by it, as small and capital letters are the same there",
                    "rename the config",
                )

    def _check_forwarding(self, ports: Sequence[Port]) -> None:
        beyond = [port for port in ports if not IPv4Address(port.address).is_loopback]
        if beyond and not self.forwards():
            raise MachineAtFault(
                f"publishing port {beyond[0]}", "the host does not forward packets",
                "sysctl net.ipv4.ip_forward=1, or publish it on 127.0.0.1",
            )  # fmt: skip

    def adopt(self, instance: str, spec: Spec, address: str) -> None:
        """Take an instance in that has this address."""
        names = (instance.lower(), spec.name.lower())
        self._members[instance] = Member(names, IPv4Address(address), spec.ports, spec.name)

    def place(self, address: str) -> Link:
        """What the instance of an address has to know."""
        return Link(address, str(self.interface.netmask), str(self.interface.ip))

    def see(self, instance: str, runs: bool) -> None:
        """Take note of whether an instance runs: only then is its name answered for."""
        if instance in self._members:
            self._members[instance] = evolve(self._members[instance], runs=runs)

    def find(self, name: str) -> list[str]:
        """The addresses of the instances that have this name, or are of this config."""
        members = self._members.values()
        return [str(one.address) for one in members if one.runs and name in one.names]

    # -- what is there for them ----------------------------------------------------

    async def connect(self, instance: str, process: Process) -> None:
        """Make the link to a container's network namespace, and all that it needs.

        Raises MachineAtFault.
        """
        await self._settle()
        if instance not in self._members:
            raise MachineAtFault("making a link", "the instance was destroyed meanwhile")
        await self.threads(self.links.join, self._members[instance].address, process)

    async def release(self, instance: str) -> None:
        """Give an instance's address and ports back.

        Raises MachineAtFault; it can be tried again then.
        """
        self._members.pop(instance, None)
        await self._settle()

    def left(self, address: str | None) -> list[str]:
        """The links of an instance that has ended which are still there."""
        if not address or any(str(one.address) == address for one in self._members.values()):
            return []  # it has none, or another instance has its address by now
        name = link_name(IPv4Address(address))
        return [f"link {name}"] if self.links.exists(name) else []

    async def _settle(self) -> None:
        """Have there what the members need, and nothing where there are none."""
        async with self._lock:
            if self._members:
                await self._set_up()
            elif self._up is not False:
                await self._take_down()

    async def _set_up(self) -> None:
        if not self._up:
            self._up = None
            await self.threads(self.links.raise_bridge)
            if not self.forwards():
                self._log.warn(NOT_FORWARDING)
        published = [port for member in self._members.values() for port in member.published]
        await self.firewall.publish(frozenset(published))
        self.names.start()
        self._up = True

    async def _take_down(self) -> None:
        self.names.stop()
        if await self.threads(self.links.is_ours):
            await self.firewall.remove()
            await self.threads(self.links.remove_bridge)
        self._up = False

    async def recover(self) -> list[str]:
        """Make all as the members need it, whatever is there.

        Returns what was done, a sentence a thing.
        """
        done: list[str] = []
        try:
            if await self.threads(self.links.is_ours):
                done += await self._clear()
            await self._settle()
        except MachineAtFault as error:
            done.append(str(error))
        if self._members and not self.forwards():
            done.append(NOT_FORWARDING)
        return done

    async def _clear(self) -> list[str]:
        async with self._lock:
            known = {link_name(member.address) for member in self._members.values()}
            strangers = await self.threads(self.links.remove_strangers, known)
            self.firewall.doubt()
            self._up = None
        done = [f"removed the link {name}, of no instance" for name in strangers]
        if not self._members:
            done.append(f"removed the bridge {self.links.bridge}, which no instance uses")
        return done

    def stop(self) -> None:
        """Answer for names no longer: the manager ends, and the containers run on."""
        self.names.stop()


def make_network(
    reactor: Any, kernel: Kernel, threads: Any, owner: str, bridge: str, subnet: IPv4Network
) -> Network:
    """The network on a bridge of this name; it is made when the first instance needs it."""
    interface = IPv4Interface((next(subnet.hosts()), subnet.prefixlen))
    return Network(
        threads,
        interface,
        Links(kernel, bridge, interface, owner),
        Firewall(partial(run_nft, reactor), bridge, interface),
        Names(reactor, str(interface.ip)),
    )
