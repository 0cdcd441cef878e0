"""The private network: a bridge, and a link from it to each of its containers.

    host                                   container
    txcontain0 10.87.0.1/16 (a bridge) --- tx0a570002 === eth0 10.87.0.2/16
         |  rules: firewall.py                            default via 10.87.0.1
         |  names: dns.py, port 53

The bridge, its rules and its resolver are there while an instance needs them. The kernel removes a
link together with the network namespace of its other end: when the container's last process ends.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from itertools import chain
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from txcontain.container.plan import Link, Link6
from txcontain.container.spec import Port, Spec
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.host.conntrack import (
    Address,
    flows_to,
    forget_datagrams_to,
    forget_strays,
    quiet_for,
)
from txcontain.host.kernel import Kernel
from txcontain.host.os_errors import of_os
from txcontain.host.processes import Process
from txcontain.later import background
from txcontain.logs.client import LogClient
from txcontain.network.bridge import NOT_FORWARDING, Bridge, forwards, has_ipv6, link_name
from txcontain.network.dns import Resolver
from txcontain.network.doorways import Doorways, Place, key_of
from txcontain.network.firewall import Firewall, Published, find_nft, run_nft
from txcontain.network.members import (
    NO_SERVICE,
    Member,
    Service,
    has_datagrams,
    is_loopback,
    published,
)

T = TypeVar("T")  # what is found


@define(eq=False)
class Network:
    """The private network of one manager's instances."""

    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    interface: IPv4Interface
    bridge: Bridge
    firewall: Firewall
    resolver: Resolver
    doorways: Doorways  # where connections to a service wait if none of it serves
    find_nft: Callable[[], object] = find_nft  # raises MachineAtFault if there is none
    interface6: IPv6Interface | None = None  # if the host has IPv6
    forwards: Callable[[int], bool] = forwards  # whether the host does, by the version of IP
    flows_to: Callable[[Address], int] = flows_to  # in the host's table of connections
    quiet: Callable[[Address], float] = quiet_for  # the same, for how long it had none
    forget_datagrams_to: Callable[[Address], None] = forget_datagrams_to
    forget_strays: Callable[[int], None] = forget_strays
    scope_of: Callable[[str], str] = lambda instance: ""
    _members: dict[str, Member] = field(factory=dict)  # by the instance's name
    _services: dict[str, Service] = field(factory=dict)  # by their names
    _leaving: set[IPv4Address] = field(factory=set)  # of instances that are being released
    _up: bool | None = None  # whether the bridge is there; None if that is not known
    _waiting: list[Deferred[None]] = field(factory=list)  # for the next round of settling
    _settling: bool = False
    _lock: DeferredLock = field(factory=DeferredLock)
    _looking: DeferredLock = field(factory=DeferredLock)  # at the table of connections
    _log: Logger = field(factory=Logger)

    def __attrs_post_init__(self) -> None:
        self.resolver.find = self.find
        self.doorways.leads_to = self._leads_to
        self.doorways.again = lambda: background(self._settle(), "listening at ports of services")

    # -- who is on it ------------------------------------------------------------

    def reserve(self, instance: str, spec: Spec) -> str | None:
        """Reserve an address for a new instance; None if it needs none.

        Raises MachineAtFault if there is none left; ConfigAtFault if its name is taken.
        """
        if spec.network != "private":
            return None
        self.check_name(spec.name, spec.name)
        self.check_name(instance, spec.name)
        self.check_host(spec.ports)
        self._check_free(spec.ports, self._services)
        address = self._first_free(self.interface.network.hosts())
        self.adopt(instance, spec, str(address), self._address6(address))
        # Done while the init mounts its root. `connect` waits for it, and raises what went wrong.
        background(self._settle(), "making the private network ready")
        return str(address)

    def spare(self) -> Link:
        """The link of a container that someone makes by hand: the address that is taken last.

        Raises MachineAtFault.
        """
        network = self.interface.network
        last = (network[-number] for number in range(2, network.num_addresses))
        return self.link_of(str(self._first_free(last)))

    def _first_free(self, addresses: Iterable[IPv4Address]) -> IPv4Address:
        """Raise MachineAtFault if there is none."""
        members = {member.address for member in self._members.values()}
        taken = {self.interface.ip, *members, *self._leaving}
        address = next((one for one in addresses if one not in taken), None)
        if address is None:
            raise MachineAtFault(
                "finding an address",
                f"all of {self.interface.network} are taken",
                "destroy some instances, or start the manager with a larger --subnet",
            )
        return address

    def check_name(self, name: str, config: str) -> None:
        """Raise ConfigAtFault if a name stands for another config: DNS ignores case (RFC 4343)."""
        for instance, member in self._members.items():
            if name.lower() in member.names and config != member.config:
                raise ConfigAtFault(
                    f"the name {name} is taken on the private network",
                    f"{instance} is found by it, as small and capital letters are the same there",
                    "rename the config, or give the instance another name",
                )

    def check_host(self, ports: Sequence[Port]) -> None:
        """Raise MachineAtFault if this host can't lead names and these ports to containers."""
        self.find_nft()
        self._check_forwarding(ports)

    def _check_forwarding(self, ports: Sequence[Port]) -> None:
        for port in ports:
            if port.is_v6 and self.interface6 is None:
                raise MachineAtFault(
                    f"publishing port {port}",
                    "private containers have no addresses of IPv6 here",
                    "publish it at an IPv4 address, or see what docs/network.md says of --subnet6",
                )
            if port.is_v6 and not self.forwards(6):
                raise MachineAtFault(
                    f"publishing port {port}",
                    "the host does not forward packets of IPv6",
                    "sysctl net.ipv6.conf.all.forwarding=1",
                )
            if not port.is_v6 and not self.forwards(4) and not is_loopback(port):
                raise MachineAtFault(
                    f"publishing port {port}",
                    "the host does not forward packets",
                    "sysctl net.ipv4.ip_forward=1, or publish it on 127.0.0.1",
                )

    def adopt(self, instance: str, spec: Spec, address: str, address6: str | None = None) -> None:
        """Take in an instance that has these addresses."""
        names = (instance.lower(), spec.name.lower())
        datagrams = has_datagrams(spec.ports)
        self._members[instance] = Member(
            names, IPv4Address(address), spec.ports, spec.name, address6, datagrams=datagrams
        )

    async def publish(self, instance: str, ports: tuple[Port, ...]) -> None:
        """Have exactly these ports lead to an instance, in one transaction.

        Raises MachineAtFault; then all is as it was.
        """
        before = self._members[instance].ports
        new = [port for port in ports if port not in before]
        self._check_forwarding(new)
        self._check_free(new, self._services)
        datagrams = self._members[instance].datagrams or has_datagrams(ports)
        self._members[instance] = evolve(self._members[instance], ports=ports, datagrams=datagrams)
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
        for name, one in self._services.items():
            replicas = tuple(to if replica == instance else replica for replica in one.replicas)
            self._services[name] = evolve(one, replicas=replicas)

    def link_of(self, address: str) -> Link:
        """What an instance needs to know of its link."""
        netmask, gateway = str(self.interface.netmask), str(self.interface.ip)
        address6, v6 = self._address6(IPv4Address(address)), None
        if self.interface6 is not None and address6 is not None:
            v6 = Link6(address6, self.interface6.network.prefixlen, str(self.interface6.ip))
        return Link(address, netmask, gateway, v6)

    def _address6(self, address: IPv4Address) -> str | None:
        """The IPv6 address that belongs to an IPv4 address: its last four bytes are the same."""
        return str(self.interface6.network[int(address)]) if self.interface6 else None

    def set_running(self, instance: str, runs: bool) -> None:
        """Take note of whether an instance runs: names and services lead only to one that does."""
        member = self._members.get(instance)
        if member is None or member.runs == runs:
            return
        self._members[instance] = evolve(member, runs=runs)
        if self._is_replica(instance):
            self.doorways.look()
            background(self._settle(), "having services lead to those that run")

    def find(self, name: str, asker: str = "") -> list[str] | None:
        """The addresses of those that serve under a name; None if no one has this name.

        It is that of a service; if there is none, of an instance, or of the config of some. If
        services of several scopes have it, it is that of the scope of the instance that asks, by
        its address; without one, no one serves under it.
        """
        named = [one for one in self._services.values() if name in one.names]
        services = named if len(named) == 1 else self._in_scope_of(asker, named)
        members = [one for service in services for one in self._replicas(service)]
        if not named:
            members = [one for one in self._members.values() if name in one.names]
        if not named and not members:
            return None
        return [address for one in members if one.serves for address in one.addresses]

    def _in_scope_of(self, asker: str, services: Iterable[Service]) -> list[Service]:
        members = self._members.items()
        instance = next((name for name, one in members if asker in one.addresses), "")
        scope = self.scope_of(instance)
        return [one for one in services if one.scope == scope]

    # -- services ------------------------------------------------------------------

    async def serve(
        self,
        service: str,
        names: tuple[str, ...],
        ports: tuple[Port, ...],
        replicas: Sequence[str],
        scope: str = "",
    ) -> None:
        """Have names and ports lead to these instances, in turn, and to no others.

        They lead to each while it runs (``set_running``). One that was among them before, and is
        not any more, keeps the connections that it has. If there is none, names are not resolved,
        and connections wait. All is noted before anything is waited for: so a new manager says it
        for all services, and then recovers.

        Raises ConfigAtFault if another service or instance has one of the ports; MachineAtFault.
        Then all is as it was.
        """
        before = self._services.get(service)
        self._check_free(ports, self._services, besides=service)
        self._check_free(ports, self._members)
        if names or ports:
            self.find_nft()
        self._check_forwarding([port for port in ports if not before or port not in before.ports])
        wished = Service(frozenset(map(str.lower, names)), ports, tuple(replicas), scope)
        self._put(service, wished)
        try:
            await self._settle()
        except MachineAtFault:
            if self._services.get(service) is wished:
                self._put(service, before)
            raise

    async def drop(self, service: str) -> None:
        """Have nothing lead to a service any more.

        Raises MachineAtFault; then it can be tried again.
        """
        self._put(service, None)
        await self._settle()

    async def withdraw(self, instance: str) -> None:
        """Have no service lead to an instance; the connections that it has go on.

        Raises MachineAtFault; then it can be tried again.
        """
        for name, one in list(self._services.items()):
            if instance in one.replicas:
                left = tuple(other for other in one.replicas if other != instance)
                self._put(name, evolve(one, replicas=left))
        if instance in self._members:
            await self._settle()

    async def set_aside(self, instance: str) -> None:
        """Have no service lead to an instance that is about to end, until it runs again.

        Raises MachineAtFault.
        """
        if instance in self._members:
            self.set_running(instance, runs=False)
            if self._members[instance].withdrawn or self._is_replica(instance):
                await self._settle()

    async def flows(self, instance: str) -> int:
        """How many connections to an instance are alive, of very many only some (``conntrack.py``).

        Raises MachineAtFault if the kernel does not tell.
        """
        return sum(await self._look_at_connections(instance, self.flows_to))

    async def quiet_for(self, instance: str) -> float:
        """For how many seconds no one has been connected to an instance, by TCP.

        Raises MachineAtFault if the kernel does not tell.
        """
        return min(await self._look_at_connections(instance, self.quiet), default=math.inf)

    async def _look_at_connections(self, instance: str, look: Callable[[Address], T]) -> list[T]:
        """What the kernel's table tells of each address; as it is long, to one look at a time."""
        async with self._looking:
            member = self._members.get(instance)
            try:
                addresses = member.addresses if member else ()
                return [await self.threads(look, ip_address(one)) for one in addresses]
            except OSError as error:
                doing = f"counting the connections to {instance}"
                raise MachineAtFault(doing, of_os(error)) from error

    def _put(self, service: str, wished: Service | None) -> None:
        """Note what a service is from now on; None if it is none any more."""
        before = self._services.pop(service, NO_SERVICE)
        if wished is not None:
            self._services[service] = wished
        now = wished or NO_SERVICE
        for instance in {*before.replicas, *now.replicas} & self._members.keys():
            member = self._members[instance]
            self._members[instance] = evolve(
                member,
                withdrawn=not self._is_replica(instance),
                datagrams=member.datagrams or has_datagrams(now.ports),
            )
        self.doorways.look()

    def _replicas(self, service: Service) -> list[Member]:
        """Those of its instances that run."""
        members = (self._members.get(instance) for instance in service.replicas)
        return [member for member in members if member and member.runs]

    def _leads_to(self, service: str, port: Port) -> list[Place]:
        """Where a service serves connections to one of its ports."""
        replicas = self._replicas(self._services.get(service, NO_SERVICE))
        found = chain.from_iterable(member.addresses for member in replicas)
        return [(one, port.target) for one in found if (":" in one) == port.is_v6]

    @property
    def _doors(self) -> dict[str, tuple[str, Port]]:
        """The published ports of services in whose sockets connections wait."""
        return {
            key_of(port): (name, port)
            for name, service in self._services.items()
            for port in service.ports
            if port.protocol == "tcp"
        }

    def _is_replica(self, instance: str) -> bool:
        return any(instance in service.replicas for service in self._services.values())

    def _check_free(
        self, ports: Sequence[Port], holders: Mapping[str, Member | Service], besides: str = ""
    ) -> None:
        """Raise ConfigAtFault if another one has such a port: the table could not hold both."""
        numbers = {port.number for port in ports}
        for name, holder in holders.items():
            taken = () if name == besides else holder.ports
            for other in (one for one in taken if one.number in numbers):
                for port in (one for one in ports if one.clashes_with(other)):
                    raise ConfigAtFault(f"port {port} is taken", f"{name} publishes it")

    @property
    def _published(self) -> frozenset[Published]:
        members, services = self._members.values(), self._services.values()
        single = [published(one.ports, [one], self.doorways) for one in members]
        spread = [published(one.ports, self._replicas(one), self.doorways) for one in services]
        return frozenset(chain(*single, *spread))

    @property
    def _is_needed(self) -> bool:
        """Whether anything needs the bridge. A service does, also while no replica runs."""
        return bool(self._members) or any(one.names or one.ports for one in self._services.values())

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
        member = self._members.pop(instance, None)
        if member is None or not member.datagrams:
            await self._settle()
            return
        self._leaving.add(member.address)  # no one else gets what its clients go on sending
        try:
            await self._settle()
            with contextlib.suppress(OSError):  # then they have to be silent for 30 seconds
                for address in member.addresses:
                    await self.threads(self.forget_datagrams_to, ip_address(address))
        finally:
            self._leaving.discard(member.address)

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
        """Set up what members and services need, or take all of it down if there are none.

        Those that ask meanwhile wait for the next round, which is for all of them.
        """
        answer: Deferred[None] = Deferred()
        self._waiting.append(answer)
        if not self._settling:
            background(self._settle_all(), "setting the private network up")
        await answer

    async def _settle_all(self) -> None:
        self._settling = True
        while self._waiting:
            async with self._lock:
                waiting, self._waiting = self._waiting, []
                outcome = await self._settle_once()
            for answer in waiting:
                answer.callback(outcome)  # None, or a failure
        self._settling = False

    async def _settle_once(self) -> Failure | None:
        try:
            if self._is_needed:
                await self._set_up()
            elif self._up is not False:
                await self._take_down()
        except Exception:
            return Failure()
        return None

    async def _set_up(self) -> None:
        if not self._up:
            self._up = None
            await self.threads(self.bridge.set_up)
            if not self.forwards(4):
                self._log.warn(NOT_FORWARDING)
        await self.doorways.settle(self._doors)
        new = await self.firewall.publish(self._published)
        self.resolver.start()
        self._up = True
        for port in {one.port for one in new if one.protocol == "udp"}:
            with contextlib.suppress(OSError):  # then clients have to be silent for 30 seconds
                await self.threads(self.forget_strays, port)

    async def _take_down(self) -> None:
        found = await self.doorways.settle({})
        self.resolver.stop()
        if await self.threads(self.bridge.is_ours):
            await self.firewall.remove()
            await self.threads(self.bridge.remove)
        self._up = False if found else None

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
        if self._is_needed and not self.forwards(4):
            done.append(NOT_FORWARDING)
        return done

    async def _clear(self) -> list[str]:
        async with self._lock:
            known = {link_name(member.address) for member in self._members.values()}
            unknown = await self.threads(self.bridge.remove_unknown_links, known)
            self.firewall.doubt()
            self._up = None
        done = [f"removed the link {name}, of no instance" for name in unknown]
        if not self._is_needed:
            done.append(f"removed the bridge {self.bridge.name}, which no instance uses")
        return done

    def stop(self) -> None:
        """Stop answering for names: the manager ends, and the containers run on.

        Connections to services go on, or wait for the next manager; what was handed on ends.
        """
        self.resolver.stop()
        self.doorways.stop()


def make_network(
    reactor: Any,
    kernel: Kernel,
    threads: Any,
    log_process: LogClient,
    owner: str,
    bridge: str,
    subnet: IPv4Network,
    subnet6: IPv6Network | None = None,
) -> Network:
    """The network on a bridge of this name, which is made when the first instance needs it."""
    interface, interface6 = IPv4Interface((next(subnet.hosts()), subnet.prefixlen)), None
    if subnet6 is not None and has_ipv6():
        interface6 = IPv6Interface((subnet6[int(interface.ip)], subnet6.prefixlen))
    return Network(
        threads,
        interface,
        Bridge(kernel, bridge, interface, owner, interface6),
        Firewall(partial(run_nft, reactor), bridge, interface, interface6),
        Resolver(reactor, str(interface.ip)),
        Doorways(reactor, log_process),
        interface6=interface6,
    )
