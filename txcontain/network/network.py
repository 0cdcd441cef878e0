"""The private network: a bridge, and a link from it to each of its containers.

    host                                   container
    txcontain0 10.87.0.1/16 (a bridge) --- tx0a570002 === eth0 10.87.0.2/16
         |  rules: firewall.py                            default via 10.87.0.1
         |  names: dns.py, port 53

The bridge, its rules and its resolver are there while an instance needs them. The kernel removes a
link together with the network namespace of its other end: when the container's last process ends.
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
from txcontain.host.kernel import Kernel
from txcontain.host.processes import Process
from txcontain.later import background
from txcontain.network.bridge import NOT_FORWARDING, Bridge, forwards, link_name
from txcontain.network.dns import Resolver
from txcontain.network.firewall import Firewall, Published, find_nft, run_nft


@frozen
class Member:
    """An instance on the bridge, from its launch until it ends for good."""

    names: tuple[str, str]  # of the instance and of its config, in lower case
    address: IPv4Address
    ports: tuple[Port, ...]
    config: str = ""  # its name as it is written
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
    find_nft: Callable[[], object] = find_nft  # raises MachineAtFault if there is none
    forwards: Callable[[], bool] = forwards  # whether the host does
    _members: dict[str, Member] = field(factory=dict)  # by the instance's name
    _up: bool | None = None  # whether the bridge is there; None if that is not known
    _lock: DeferredLock = field(factory=DeferredLock)
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self.resolver.find = self.find

    # -- who is on it ------------------------------------------------------------

    def reserve(self, instance: str, spec: Spec) -> str | None:
        """Reserve an address for a new instance; None if it needs none.

        Raises MachineAtFault if there is none left; ConfigAtFault if its name is taken.
        """
        if spec.network != "private":
            return None
        self.check_name(spec.name, spec.name)
        self.check_name(instance, spec.name)
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
        # Done while the init mounts its root. `connect` waits for it, and raises what went wrong.
        background(self._settle(), "making the private network ready")
        return str(address)

    def check_name(self, name: str, config: str) -> None:
        """Raise ConfigAtFault if a name stands for another config: DNS ignores case (RFC 4343)."""
        for instance, member in self._members.items():
            if name.lower() in member.names and config != member.config:
                raise ConfigAtFault(
                    f"the name {name} is taken on the private network",
                    f"{instance} is found by it, as small and capital letters are the same there",
                    "rename the config, or give the instance another name",
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
        """Take in an instance that has this address."""
        names = (instance.lower(), spec.name.lower())
        self._members[instance] = Member(names, IPv4Address(address), spec.ports, spec.name)

    async def publish(self, instance: str, ports: tuple[Port, ...]) -> None:
        """Have exactly these ports lead to an instance, in one transaction.

        Raises MachineAtFault; then all is as it was.
        """
        before = self._members[instance].ports
        self._check_forwarding([port for port in ports if port not in before])
        self._members[instance] = evolve(self._members[instance], ports=ports)
        try:
            await self._settle()
        except MachineAtFault:
            if instance in self._members:
                self._members[instance] = evolve(self._members[instance], ports=before)
            raise

    def rename(self, instance: str, to: str) -> None:
        """An instance has another name, if it is on this network."""
        if member := self._members.pop(instance, None):
            self._members[to] = evolve(member, names=(to.lower(), member.names[1]))

    def link_of(self, address: str) -> Link:
        """What an instance needs to know of its link."""
        return Link(address, str(self.interface.netmask), str(self.interface.ip))

    def set_running(self, instance: str, runs: bool) -> None:
        """Take note of whether an instance runs: its name is known only while it does."""
        if instance in self._members:
            self._members[instance] = evolve(self._members[instance], runs=runs)

    def find(self, name: str) -> list[str]:
        """The addresses of the running instances of this name, or of the config of this name."""
        members = self._members.values()
        return [str(one.address) for one in members if one.runs and name in one.names]

    # -- what is there for them ----------------------------------------------------

    async def connect(self, instance: str, process: Process) -> None:
        """Make the link to a container's network namespace, and whatever it needs.

        Raises MachineAtFault.
        """
        await self._settle()
        if instance not in self._members:
            raise MachineAtFault("making a link", "the instance was destroyed meanwhile")
        await self.threads(self.bridge.attach, self._members[instance].address, process)

    async def release(self, instance: str) -> None:
        """Give an instance's address and ports back.

        Raises MachineAtFault; then it can be tried again.
        """
        self._members.pop(instance, None)
        await self._settle()

    def left(self, address: str | None) -> list[str]:
        """The links that are left of an instance that has ended."""
        if not address or any(str(one.address) == address for one in self._members.values()):
            return []  # it had none, or another instance has its address now
        name = link_name(IPv4Address(address))
        return [f"link {name}"] if self.bridge.has_link(name) else []

    async def remove_link(self, address: str | None) -> None:
        """Remove the link that is left of an instance that has ended.

        A connection whose other end is gone keeps the network namespace, and so the link, for
        minutes, while the kernel sends its last bytes again and again (tcp_orphan_retries, tcp(7)).

        Raises MachineAtFault.
        """
        if address and self.left(address):
            await self.threads(self.bridge.remove_link, IPv4Address(address))

    async def _settle(self) -> None:
        """Set up what the members need, or take all of it down if there are none."""
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
        """Set up all that the members need, whatever is there already.

        Returns what was done, a sentence each.
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
        """Stop answering for names: the manager ends, and the containers run on."""
        self.resolver.stop()


def make_network(
    reactor: Any, kernel: Kernel, threads: Any, owner: str, bridge: str, subnet: IPv4Network
) -> Network:
    """The network on a bridge of this name, which is made when the first instance needs it."""
    interface = IPv4Interface((next(subnet.hosts()), subnet.prefixlen))
    return Network(
        threads,
        interface,
        Bridge(kernel, bridge, interface, owner),
        Firewall(partial(run_nft, reactor), bridge, interface),
        Resolver(reactor, str(interface.ip)),
    )
