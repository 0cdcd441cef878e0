"""The private network: a bridge of ours, and a link from it to each container that is on it.

    host                                   container
    txcontain0 10.87.0.1/16 (a bridge) --- tx0a570002 === eth0 10.87.0.2/16
         |  rules: firewall.py                            default via 10.87.0.1
         |  names: dns.py, port 53

The bridge, its rules and its resolver are there while an instance needs them. The
kernel removes a link with the network namespace that its other end is in, so with the
container's last process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from txcontain.container.plan import Link
from txcontain.container.spec import Port, Spec
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.host.kernel import Kernel, Process
from txcontain.later import background
from txcontain.network.bridge import NOT_FORWARDING, Bridge, forwards, link_name
from txcontain.network.dns import Resolver
from txcontain.network.firewall import Firewall, Published, find_nft, run_nft


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
    bridge: Bridge
    firewall: Firewall
    resolver: Resolver
    find_nft: Callable[[], object] = find_nft  # raises MachineAtFault where there is none
    forwards: Callable[[], bool] = forwards  # whether the host does
    _members: dict[str, Member] = field(factory=dict)  # by the instance's name
    _up: bool | None = False  # whether the bridge is there; None where that is not known
    _lock: DeferredLock = field(factory=DeferredLock)
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self.resolver.find = self.find

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
                "finding an address",
                f"all of {self.interface.network} are taken",
                "destroy some instances, or start the manager with a larger --subnet",
            )
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
                f"publishing port {beyond[0]}",
                "the host does not forward packets",
                "sysctl net.ipv4.ip_forward=1, or publish it on 127.0.0.1",
            )

    def adopt(self, instance: str, spec: Spec, address: str) -> None:
        """Take an instance in that has this address."""
        names = (instance.lower(), spec.name.lower())
        self._members[instance] = Member(names, IPv4Address(address), spec.ports, spec.name)

    def link_of(self, address: str) -> Link:
        """What the instance of an address has to know."""
        return Link(address, str(self.interface.netmask), str(self.interface.ip))

    def set_running(self, instance: str, runs: bool) -> None:
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
        await self.threads(self.bridge.attach, self._members[instance].address, process)

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
        return [f"link {name}"] if self.bridge.has_link(name) else []

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
            await self.threads(self.bridge.set_up)
            if not self.forwards():
                self._log.warn(NOT_FORWARDING)
        published = [port for member in self._members.values() for port in member.published]
        await self.firewall.publish(frozenset(published))
        self.resolver.start()
        self._up = True

    async def _take_down(self) -> None:
        self.resolver.stop()
        if await self.threads(self.bridge.is_ours):
            await self.firewall.remove()
            await self.threads(self.bridge.remove)
        self._up = False

    async def recover(self) -> list[str]:
        """Make all as the members need it, whatever is there.

        Returns what was done, a sentence a thing.
        """
        done: list[str] = []
        try:
            if await self.threads(self.bridge.is_ours):
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
            unknown = await self.threads(self.bridge.remove_unknown_links, known)
            self.firewall.doubt()
            self._up = None
        done = [f"removed the link {name}, of no instance" for name in unknown]
        if not self._members:
            done.append(f"removed the bridge {self.bridge.name}, which no instance uses")
        return done

    def stop(self) -> None:
        """Answer for names no longer: the manager ends, and the containers run on."""
        self.resolver.stop()


def make_network(
    reactor: Any, kernel: Kernel, threads: Any, owner: str, bridge: str, subnet: IPv4Network
) -> Network:
    """The network on a bridge of this name; it is made when the first instance needs it."""
    interface = IPv4Interface((next(subnet.hosts()), subnet.prefixlen))
    return Network(
        threads,
        interface,
        Bridge(kernel, bridge, interface, owner),
        Firewall(partial(run_nft, reactor), bridge, interface),
        Resolver(reactor, str(interface.ip)),
    )
