"""The private network: who is on it, and what is set up for them."""

import errno
import re
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeBridge, FakeDoorways, FakeResolver
from tests.support import make_spec
from txcontain.container.plan import Link, Link6
from txcontain.errors import ConfigAtFault, MachineAtFault
from txcontain.host.conntrack import Address
from txcontain.host.kernel import Kernel
from txcontain.host.processes import Process
from txcontain.network import bridge
from txcontain.network.bridge import FAMILIES, NOT_FORWARDING, Bridge, hardware_address, link_name
from txcontain.network.dns import Resolver
from txcontain.network.doorways import Doorways
from txcontain.network.firewall import Firewall
from txcontain.network.network import Network

INTERFACE = IPv4Interface("10.87.0.1/29")
INTERFACE_6 = IPv6Interface("fd00:1::a57:1/64")
PRIVATE = make_spec(network="private")
PROCESS = Process(100, 1)


class RecordingBridge(FakeBridge):
    """A bridge that notes what is done to it."""

    def __init__(self, done: Any) -> None:
        super().__init__()
        self.done = done
        self.unknown: list[str] = []
        self.trouble: MachineAtFault | None = None

    def set_up(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        super().set_up()
        self.done.append("bridge")

    def remove(self) -> None:
        super().remove()
        self.done.append("no bridge")

    def remove_unknown_links(self, known: Any) -> Any:
        return sorted(set(self.unknown) - known)

    def attach(self, address: Any, process: Any) -> None:
        self.done.append(f"{address} for {process.pid}")


class RecordingResolver(FakeResolver):
    """A resolver that notes when it starts and stops."""

    def __init__(self, done: Any) -> None:
        self.done = done
        self.answers = False

    def start(self) -> None:
        if not self.answers:
            self.done.append("names")
        self.answers = True

    def stop(self) -> None:
        if self.answers:
            self.done.append("no names")
        self.answers = False


class NetworkTests(SynchronousTestCase):
    """A network of six addresses, one of which is the bridge's."""

    def setUp(self) -> None:
        self.done: list[Any] = []  # what was done, in order
        self.host_forwards = True
        self.bridge, self.resolver = RecordingBridge(self.done), RecordingResolver(self.done)
        self.network = self.make_network()

    def make_network(self) -> Any:
        """A network, as a new manager makes it."""
        return Network(
            maybeDeferred,
            INTERFACE,
            cast(Bridge, self.bridge),
            Firewall(self.filter, "br0", INTERFACE),
            cast(Resolver, self.resolver),
            cast(Doorways, FakeDoorways()),
            find_nft=lambda: None,
            forwards=lambda version: self.host_forwards,
        )

    async def filter(self, script: str) -> None:
        """Note what a script is about."""
        lines = script.splitlines()
        self.done.append(lines[-1] if "element" in lines[-1] else f"{len(lines)} lines of rules")

    def now(self, coroutine: Any) -> Any:
        """What a coroutine returns that need not wait."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def refused(self, coroutine: Any) -> Any:
        """What a coroutine raises that need not wait."""
        failure = self.failureResultOf(Deferred.fromCoroutine(coroutine), MachineAtFault)
        return str(failure.value)

    def test_nothing_for_others(self) -> None:
        """For instances with the host's network, or with none, nothing is reserved or made."""
        for which in ("host", "none"):
            self.assertIsNone(self.network.reserve("one", make_spec(network=which)))
        self.now(self.network.release("one"))
        self.assertEqual(self.done, [])

    def test_from_first_to_last(self) -> None:
        """All is set up for the first instance, and taken down in reverse order with the last."""
        self.assertEqual(self.network.reserve("one", PRIVATE), "10.87.0.2")
        self.now(self.network.connect("one", PROCESS))
        self.network.reserve("two", PRIVATE)
        self.now(self.network.release("one"))
        before = list(self.done)
        self.now(self.network.release("two"))
        rules = next(one for one in before if one.endswith("of rules"))
        self.assertEqual(before, ["bridge", rules, "names", "10.87.0.2 for 100"])
        self.assertEqual(self.done[4:], ["no names", "2 lines of rules", "no bridge"])

    def test_last_of_an_earlier_manager(self) -> None:
        """The last instance takes all down also if its manager has not looked what is there yet."""
        self.network.reserve("one", PRIVATE)
        self.now(self.network.connect("one", PROCESS))
        later = self.make_network()
        later.adopt("one", PRIVATE, "10.87.0.2")
        self.now(later.release("one"))
        self.assertEqual(self.done[-1], "no bridge")

    def test_lowest_free_address(self) -> None:
        """Addresses are used again, the lowest first; the bridge's own is never given to anyone."""
        for number in range(5):
            address = self.network.reserve(str(number), PRIVATE)
            self.assertEqual(address, f"10.87.0.{number + 2}")
        with self.assertRaises(MachineAtFault) as raised:
            self.network.reserve("more", PRIVATE)
        self.assertIn("all of 10.87.0.0/29 are taken", str(raised.exception))
        self.now(self.network.release("2"))
        self.assertEqual(self.network.reserve("more", PRIVATE), "10.87.0.4")

    def test_ports(self) -> None:
        """Ports are published with the instance, until it is released."""
        spec = make_spec(network="private", ports=["8000:80"])
        self.network.reserve("one", PRIVATE)
        self.network.reserve("two", spec)
        key = "element inet br0 published { tcp . 127.0.0.1 . 8000"
        self.assertEqual(self.done[-1], f"add {key} : 10.87.0.3 . 80 }}")
        self.now(self.network.release("two"))
        self.assertEqual(self.done[-1], f"delete {key} }}")

    def test_host_that_does_not_forward(self) -> None:
        """If the host does not forward packets, ports are published only on loopback."""
        self.host_forwards = False
        self.network.reserve("one", make_spec(network="private", ports=["8000:80"]))
        for port in ("0.0.0.0:8001:80", "192.0.2.1:8001:80"):
            spec = make_spec(network="private", ports=[port])
            error = self.assertRaises(MachineAtFault, self.network.reserve, "two", spec)
            self.assertIn("sysctl net.ipv4.ip_forward=1", str(error))
        self.assertIn(NOT_FORWARDING, self.now(self.network.recover()))

    def test_no_bridge_to_be_had(self) -> None:
        """If the bridge can't be made, the request for a link fails, and nothing is left."""
        self.bridge.trouble = MachineAtFault("the subnet is in use")
        self.network.reserve("one", PRIVATE)
        self.assertIn("in use", self.refused(self.network.connect("one", PROCESS)))
        self.now(self.network.release("one"))
        self.assertEqual((self.done, self.network.find("one")), ([], None))
        self.bridge.trouble = None
        self.network.reserve("one", PRIVATE)
        self.now(self.network.connect("one", PROCESS))

    def test_names(self) -> None:
        """An instance is found by its own name and its config's, while it runs."""
        for name in ("Web-1", "Web-2"):
            self.network.reserve(name, make_spec(name="Web", network="private"))
            self.network.set_running(name, runs=True)
        self.assertEqual(self.network.find("web-1"), ["10.87.0.2"])
        self.assertEqual(self.network.find("web"), ["10.87.0.2", "10.87.0.3"])
        self.network.set_running("Web-1", runs=False)
        self.now(self.network.release("Web-2"))
        self.network.set_running("Web-2", runs=True)  # too late: it is not on the network any more
        found = [self.network.find(name) for name in ("web", "web-1", "web-2")]
        self.assertEqual(found, [[], [], None])  # None: no one has this name

    def test_names_without_case(self) -> None:
        """A name is refused that differs only in case from another config's or an instance's."""
        self.network.reserve("web-1", make_spec(network="private", name="web"))
        self.network.reserve("web-2", make_spec(network="private", name="web"))
        for name in ("Web", "WEB-2"):
            with self.assertRaises(ConfigAtFault) as raised:
                self.network.reserve(f"{name}-3", make_spec(network="private", name=name))
            self.assertIn(f"the name {name} is taken", str(raised.exception))
        with self.assertRaises(ConfigAtFault):
            self.network.reserve("web", make_spec(network="private", name="other"))
        self.now(self.network.release("web-1"))
        self.now(self.network.release("web-2"))
        self.network.reserve("Web-3", make_spec(network="private", name="Web"))

    def test_destroyed_meanwhile(self) -> None:
        """No link is made for an instance that was destroyed before its init asked for one."""
        self.network.reserve("one", PRIVATE)
        self.now(self.network.release("one"))
        self.assertIn("destroyed", self.refused(self.network.connect("one", PROCESS)))

    def test_left(self) -> None:
        """A link counts as left of an instance, until another instance has its address."""
        self.network.bridge.left = ["tx0a570002"]
        address = self.network.reserve("one", PRIVATE)
        self.now(self.network.release("one"))
        self.assertEqual(self.network.left(address), ["link tx0a570002"])
        self.assertEqual((self.network.left("10.87.0.3"), self.network.left(None)), ([], []))
        for one in (address, "10.87.0.3", None):
            self.now(self.network.remove_link(one))
        self.assertEqual(self.network.left(address), [])
        self.network.bridge.left = ["tx0a570002"]
        self.network.reserve("two", PRIVATE)
        self.assertEqual(self.network.left(address), [])

    def test_link_of(self) -> None:
        """What an init needs to know of its link."""
        self.assertEqual(
            self.network.link_of("10.87.0.2"), Link("10.87.0.2", "255.255.255.248", "10.87.0.1")
        )

    def test_recovery(self) -> None:
        """A new manager keeps the links of those that run, and removes all others."""
        self.bridge.up = True
        self.bridge.unknown = [link_name(IPv4Address("10.87.0.3")), "other"]
        self.network.adopt("one", PRIVATE, "10.87.0.3")
        done = self.now(self.network.recover())
        self.assertEqual(done, ["removed the link other, of no instance"])
        self.assertEqual((self.done[0], self.done[-1]), ("bridge", "names"))
        self.assertEqual(self.network.reserve("two", PRIVATE), "10.87.0.2")

    def test_recovery_of_nothing(self) -> None:
        """If no instance needs the bridge, it goes; if there is none, nothing is done."""
        self.bridge.up = True
        done = self.now(self.network.recover())
        self.assertEqual(done, ["removed the bridge txcontain0, which no instance uses"])
        self.assertEqual(self.done, ["2 lines of rules", "no bridge"])
        self.assertEqual(self.now(self.network.recover()), [])

    def test_recovery_fails(self) -> None:
        """Recovery reports why it failed."""
        self.network.adopt("one", PRIVATE, "10.87.0.3")
        self.bridge.trouble = MachineAtFault("it is not ours")
        self.assertEqual(self.now(self.network.recover()), ["it is not ours"])

    def test_stop(self) -> None:
        """A manager that ends stops only the resolver."""
        self.network.reserve("one", PRIVATE)
        self.network.stop()
        self.assertEqual((self.done[-1], self.bridge.up), ("no names", True))


class ServiceTests(SynchronousTestCase):
    """Services: names and ports that lead to several instances, or to none."""

    def setUp(self) -> None:
        self.scripts: list[str] = []
        self.trouble: MachineAtFault | None = None  # what nft fails with
        self.gate: Deferred[None] | None = None  # what nft waits for
        self.flows: int | None = 3
        self.host_forwards = True
        self.forgotten: list[str] = []
        self.strays: list[int] = []
        self.bridge = RecordingBridge([])
        self.network = self.make_network()

    def make_network(self) -> Network:
        """A network, as a new manager makes it."""
        return Network(
            maybeDeferred,
            INTERFACE,
            cast(Bridge, self.bridge),
            Firewall(self.filter, "br0", INTERFACE),
            cast(Resolver, FakeResolver()),
            cast(Doorways, FakeDoorways()),
            find_nft=self.find_nft,
            forwards=lambda version: self.host_forwards,
            flows_to=self.count,
            forget_datagrams_to=lambda address: self.forgotten.append(str(address)),
            forget_strays=self.strays.append,
        )

    def find_nft(self) -> None:
        """As on a machine that has it, or has not."""
        if self.trouble is not None:
            raise self.trouble

    async def filter(self, script: str) -> None:
        """Keep a script, or fail."""
        if self.gate is not None:
            await self.gate
        if self.trouble is not None:
            raise self.trouble
        self.scripts.append(script)

    def count(self, address: Address) -> int:
        """How many connections lead to an address."""
        if self.flows is None:
            raise OSError(errno.EPERM, "Operation not permitted")
        return self.flows

    def run_instances(self, *names: str) -> None:
        """Have instances of a config run, at 10.87.0.2 and so on."""
        for name in names:
            self.network.reserve(name, make_spec(name="app", network="private"))
            self.network.set_running(name, runs=True)

    def serve(self, *replicas: str, service: str = "web", ports: Any = ("80:8000",)) -> Any:
        """Have a service lead to these."""
        wished = make_spec(network="private", ports=list(ports)).ports
        return Deferred.fromCoroutine(
            self.network.serve(service, (service.title(),), wished, replicas)
        )

    def served(self, *replicas: str, **keys: Any) -> None:
        """The same, at once."""
        self.successResultOf(self.serve(*replicas, **keys))

    def refused(self, answer: Any, kind: Any = MachineAtFault) -> str:
        """What this was refused with."""
        return str(self.failureResultOf(answer, kind).value)

    def leads_to(self, scripts: Any = None) -> list[str]:
        """The ends of the last script that adds anything."""
        script = [one for one in self.scripts if "add " in one][-1]
        return re.findall(r"(10\.87\.0\.\d) \. 8000", script)

    def test_spread(self) -> None:
        """Ports and names lead to all replicas, and a change is one transaction of what differs."""
        self.run_instances("a", "b")
        self.served("a", "b")
        self.assertEqual(
            self.scripts[-1],
            "add chain inet br0 tcp_127.0.0.1_80\n"
            "add rule inet br0 tcp_127.0.0.1_80 meta l4proto tcp dnat ip to numgen inc mod 2 "
            "map { 0 : 10.87.0.2 . 8000, 1 : 10.87.0.3 . 8000 }\n"
            "add element inet br0 spread { tcp . 127.0.0.1 . 80 : goto tcp_127.0.0.1_80 }\n",
        )
        self.assertEqual(self.network.find("web"), ["10.87.0.2", "10.87.0.3"])
        self.served("a", "b")
        before = len(self.scripts)
        self.served("b")
        self.assertEqual(
            self.scripts[before:],
            [
                "delete element inet br0 spread { tcp . 127.0.0.1 . 80 }\n"
                "delete chain inet br0 tcp_127.0.0.1_80\n"
                "add element inet br0 published { tcp . 127.0.0.1 . 80 : 10.87.0.3 . 8000 }\n"
            ],
        )
        self.assertEqual(self.network.find("web"), ["10.87.0.3"])

    def test_withdrawn(self) -> None:
        """One that was withdrawn is found by no name, not its own either, till it is taken back."""
        self.run_instances("a", "b", "other")
        self.served("a", "b")
        self.served("a")
        found = [self.network.find(name) for name in ("web", "app", "b", "a")]
        self.assertEqual(found, [["10.87.0.2"], ["10.87.0.2", "10.87.0.4"], [], ["10.87.0.2"]])
        self.served("b")
        self.assertEqual(self.network.find("b"), ["10.87.0.3"])

    def test_service_before_config(self) -> None:
        """A service's name hides the same name of a config."""
        self.run_instances("a", "b")
        self.served("b", service="app")
        self.assertEqual(self.network.find("app"), ["10.87.0.3"])

    def test_scopes(self) -> None:
        """A name that services of several scopes have is for each instance that of its own."""
        self.run_instances("a", "b", "c")
        self.network.scope_of = lambda instance: {"a": "one", "b": "two"}.get(instance, "")
        for scope, instance in (("one", "a"), ("two", "b")):
            names = ("web", f"web.{scope}")
            serve = self.network.serve(f"{scope}-web", names, (), [instance], scope)
            self.successResultOf(Deferred.fromCoroutine(serve))
        a, b, c = (f"10.87.0.{number}" for number in (2, 3, 4))
        for asker, found in ((a, [a]), (b, [b]), (c, []), ("10.87.0.9", []), ("", [])):
            self.assertEqual(self.network.find("web", asker), found)
            self.assertEqual(self.network.find("web.two", asker), [b])
        self.successResultOf(Deferred.fromCoroutine(self.network.drop("one-web")))
        self.assertEqual([self.network.find("web", asker) for asker in (a, c)], [[b], [b]])

    def test_none(self) -> None:
        """With no replica connections wait, the name stays ours, and so does the bridge."""
        self.served()
        self.assertTrue(self.bridge.up)
        self.assertEqual(self.network.find("web"), [])
        self.run_instances("a")
        self.served("a")
        self.successResultOf(Deferred.fromCoroutine(self.network.release("a")))
        self.assertEqual(
            self.scripts[-1],
            "delete element inet br0 published { tcp . 127.0.0.1 . 80 }\n"
            "add element inet br0 waiting { tcp . 127.0.0.1 . 80 }\n",
        )
        self.successResultOf(Deferred.fromCoroutine(self.network.drop("web")))
        self.assertEqual((self.bridge.up, self.network.find("web")), (False, None))

    def test_doorways(self) -> None:
        """Connections to the TCP ports of services can wait, and learn at once who serves."""
        doorways: Any = self.network.doorways
        udp = "53:53/udp"
        self.served(ports=["80:8000", "0.0.0.0:81:8001", udp])
        ports = {key: port.target for key, (_, port) in doorways.wanted.items()}
        self.assertEqual(ports, {"127.0.0.1:80": 8000, "0.0.0.0:81": 8001})
        _, port = doorways.wanted["127.0.0.1:80"]
        self.assertEqual(doorways.leads_to("web", port), [])
        self.run_instances("a", "b")
        self.served("a", "b", ports=["80:8000", udp])
        self.assertEqual(doorways.leads_to("web", port), [("10.87.0.2", 8000), ("10.87.0.3", 8000)])
        before = doorways.looked
        self.network.set_running("a", runs=False)
        self.assertEqual(doorways.leads_to("web", port), [("10.87.0.3", 8000)])
        self.assertEqual(doorways.looked, before + 1)
        self.assertEqual(doorways.leads_to("other", port), [])
        self.network.set_running("b", runs=False)
        self.successResultOf(Deferred.fromCoroutine(self.network.drop("web")))
        self.assertEqual(doorways.wanted, {})

    def test_taken_by_the_host(self) -> None:
        """A port at which a program of the host listens leads nowhere, until that has ended."""
        doorways: Any = self.network.doorways
        self.run_instances("a")
        self.served("a", ports=["80:8000", "81:8000"])
        for taken, led in (
            ({"127.0.0.1:80"}, 1),
            ({"127.0.0.1:80", "127.0.0.1:81"}, 0),
            (set(), 2),
        ):
            doorways.taken = taken
            doorways.again()
            self.assertEqual(len(self.network.firewall._ports or ()), led)
        doorways.taken = {"127.0.0.1:80"}
        self.network.set_running("a", runs=False)  # then no container is let to that program
        self.assertIn("add element inet br0 waiting { tcp . 127.0.0.1 . 81 }\n", self.scripts[-1])
        self.assertNotIn("add element inet br0 waiting { tcp . 127.0.0.1 . 80 }", self.scripts[-1])

    def test_runs(self) -> None:
        """A replica that does not run gets nothing, and when it runs again all is as before."""
        self.run_instances("a", "b")
        self.served("a", "b", "unknown")
        for runs, ends in ((False, ["10.87.0.3"]), (True, ["10.87.0.2", "10.87.0.3"])):
            self.network.set_running("a", runs=runs)
            self.assertEqual(self.leads_to(), ends)
            self.assertEqual(self.network.find("web"), ends)

    def test_set_aside(self) -> None:
        """One that is about to end is led to no more when that is told, and again when it runs."""
        self.run_instances("a", "b")
        self.served("a", "b")
        for name in ("a", "a", "unknown"):
            self.successResultOf(Deferred.fromCoroutine(self.network.set_aside(name)))
        self.assertEqual(self.leads_to(), ["10.87.0.3"])
        self.network.set_running("a", runs=True)
        self.assertEqual(self.leads_to(), ["10.87.0.2", "10.87.0.3"])

    def test_withdraw(self) -> None:
        """A replica can be withdrawn by itself: it is led to no more when that is told."""
        self.run_instances("a", "b")
        self.served("a", "b")
        for name in ("a", "a", "unknown"):
            self.successResultOf(Deferred.fromCoroutine(self.network.withdraw(name)))
        self.assertEqual((self.leads_to(), self.network.find("a")), (["10.87.0.3"], []))
        self.trouble = MachineAtFault("nft", "failed")
        self.refused(Deferred.fromCoroutine(self.network.withdraw("b")))

    def test_set_aside_meanwhile(self) -> None:
        """While one is being withdrawn, it is not said before that it is led to no more."""
        self.run_instances("a", "b")
        self.served("a", "b")
        gate = self.gate = Deferred[None]()
        served = self.serve("b")
        aside = Deferred.fromCoroutine(self.network.set_aside("a"))
        self.assertNoResult(aside)
        self.gate = None
        gate.callback(None)
        self.successResultOf(served)
        self.successResultOf(aside)

    def test_renamed(self) -> None:
        """A replica stays one under another name."""
        self.run_instances("a")
        self.served("a")
        self.network.rename("a", "z")
        self.assertEqual(self.network.find("web"), ["10.87.0.2"])

    def test_many_at_once(self) -> None:
        """Changes that wait for another one are made together."""
        self.run_instances("a", "b")
        self.served("a")
        before, self.gate = len(self.scripts), Deferred()
        answers = [
            self.serve("a", "b", service=f"s{number}", ports=[f"{number}:1"])
            for number in range(1000, 1500)
        ]
        gate, self.gate = self.gate, None
        gate.callback(None)
        for answer in answers:
            self.successResultOf(answer)
        self.assertEqual(len(self.scripts) - before, 2)

    def test_taken(self) -> None:
        """A port that something else publishes is refused, whoever comes first."""
        self.served()
        wanted = make_spec(network="private", ports=["80:1"])
        said = self.refused(self.serve(service="other"), ConfigAtFault)
        self.assertIn("port 80 is taken", said)
        self.assertRaises(ConfigAtFault, self.network.reserve, "x", wanted)
        self.network.reserve("y", make_spec(network="private", ports=["81:1"]))
        self.refused(self.serve(service="other", ports=["81:1"]), ConfigAtFault)
        publish = Deferred.fromCoroutine(self.network.publish("y", wanted.ports))
        self.refused(publish, ConfigAtFault)
        self.assertEqual(self.network.find("other"), None)
        self.served(ports=["80:8000", "82:8000"])

    def test_ipv6(self) -> None:
        """Ports lead to addresses of their own version, which are told with the others."""
        self.network.interface6 = INTERFACE_6
        self.run_instances("a", "b")
        self.network.adopt("old", make_spec(network="private"), "10.87.0.4")
        self.network.set_running("old", runs=True)
        self.served("a", "b", "old", ports=["[::]:80:8000"])
        self.assertEqual(
            self.scripts[-1],
            "add chain inet br0 tcp_--_80\n"
            "add rule inet br0 tcp_--_80 meta l4proto tcp dnat ip6 to numgen inc mod 2 "
            "map { 0 : fd00:1::a57:2 . 8000, 1 : fd00:1::a57:3 . 8000 }\n"
            "add element inet br0 spread_everywhere6 { tcp . 80 : goto tcp_--_80 }\n",
        )
        self.assertEqual(self.network.find("a"), ["10.87.0.2", "fd00:1::a57:2"])
        self.assertEqual(self.network.find("old"), ["10.87.0.4"])
        v6 = Link6("fd00:1::a57:2", 64, "fd00:1::a57:1")
        self.assertEqual(self.network.link_of("10.87.0.2").v6, v6)
        self.assertEqual(
            self.successResultOf(Deferred.fromCoroutine(self.network.flows("a"))), 3 + 3
        )

    def test_no_ipv6(self) -> None:
        """Without a subnet of IPv6, none of its ports is published."""
        self.assertIn("no addresses of IPv6", self.refused(self.serve(ports=["[::]:80:8000"])))

    def test_no_forwarding(self) -> None:
        """A host that does not forward can't lead the world's connections to a service."""
        self.host_forwards = False
        self.network.interface6 = INTERFACE_6
        said = self.refused(self.serve(ports=["[::]:80:8000"]))
        self.assertIn("net.ipv6.conf.all.forwarding=1", said)
        self.refused(self.serve(ports=["0.0.0.0:80:8000"]))
        self.assertIsNone(self.network.find("web"))

    def test_no_nft(self) -> None:
        """Without nft a service is refused, and nothing has changed."""
        self.trouble = MachineAtFault("the program nft is missing")
        self.assertEqual(self.refused(self.serve()), "the program nft is missing")
        self.assertIsNone(self.network.find("web"))

    def test_failed(self) -> None:
        """If nft fails, all is as before, and the next change writes the whole table anew."""
        self.run_instances("a", "b")
        self.served("a")
        self.find_nft = lambda: None  # it fails only when it runs
        self.network.find_nft = self.find_nft
        self.trouble = MachineAtFault("changing the packet filter by nft")
        self.refused(self.serve("b"))
        self.assertEqual(self.network.find("web"), ["10.87.0.2"])
        self.assertEqual(self.network.find("b"), [])
        self.trouble = None
        self.served("a", "b")
        self.assertTrue(self.scripts[-1].startswith("add table inet br0\ndelete table"))
        self.assertEqual(self.leads_to(), ["10.87.0.2", "10.87.0.3"])

    def test_new_manager(self) -> None:
        """What is served before a new manager recovers is in the first table that it writes."""
        self.run_instances("a", "b")
        self.served("a", "b")
        self.network, before = self.make_network(), len(self.scripts)
        for number, name in enumerate("ab"):
            self.network.adopt(name, make_spec(network="private"), f"10.87.0.{number + 2}")
            self.network.set_running(name, runs=True)
        self.network.resolver.start = lambda: None
        self.gate = Deferred()
        answer = self.serve("a", "b")
        recovered = Deferred.fromCoroutine(self.network.recover())
        gate, self.gate = self.gate, None
        gate.callback(None)
        self.successResultOf(answer)
        self.assertEqual(self.successResultOf(recovered), [])
        for script in self.scripts[before:]:
            self.assertIn("delete table", script)
            self.assertIn("0 : 10.87.0.2 . 8000, 1 : 10.87.0.3 . 8000", script)

    def test_strays(self) -> None:
        """What came to a port while it led nowhere is forgotten once it leads to an instance."""
        ports = ["53:53/udp", "53:53/tcp"]
        self.served(ports=ports)
        self.run_instances("a", "b")
        self.assertEqual(self.strays, [])
        self.served("a", ports=ports)
        self.served("a", ports=ports)
        self.assertEqual(self.strays, [53])

    def test_flows(self) -> None:
        """The connections to an instance are counted; one that is not on the network has none."""
        self.run_instances("a")
        flows = [
            self.successResultOf(Deferred.fromCoroutine(self.network.flows(name))) for name in "ab"
        ]
        self.assertEqual(flows, [3, 0])
        self.flows = None
        said = self.refused(Deferred.fromCoroutine(self.network.flows("a")))
        self.assertIn("counting the connections to a", said)

    def test_one_look_at_a_time(self) -> None:
        """However many ask at once, there is one look at a time at the table of connections."""
        self.run_instances("a", "b")
        looks: list[Deferred[int]] = []
        self.network.threads = lambda look, address: looks.append(Deferred()) or looks[-1]
        asks: Any = self.network.flows("a"), self.network.flows("b"), self.network.quiet_for("a")
        for number, answer in enumerate([*map(Deferred.fromCoroutine, asks)]):
            self.assertEqual(len(looks), number + 1)
            looks[number].callback(number)
            self.assertEqual(self.successResultOf(answer), number)

    def test_datagrams(self) -> None:
        """What led datagrams to an instance is forgotten before another one gets its address."""
        self.run_instances("a", "b")
        self.served("a")
        self.served("b", service="dns", ports=["53:53/udp"])
        self.gate = Deferred()
        for name in "ab":
            released = Deferred.fromCoroutine(self.network.release(name))
        self.assertEqual(self.network.reserve("c", PRIVATE), "10.87.0.2")
        self.assertEqual(self.network.reserve("d", PRIVATE), "10.87.0.4")
        gate, self.gate = self.gate, None
        gate.callback(None)
        self.successResultOf(released)
        self.assertEqual(self.forgotten, ["10.87.0.3"])
        self.assertEqual(self.network.reserve("e", PRIVATE), "10.87.0.3")


class Message(dict[str, Any]):
    """A message of rtnetlink."""

    get_attr = dict.get


class RouteTests(SynchronousTestCase):
    """Whether the subnet is in use on the host."""

    def check(self, version: int = 4, **route: Any) -> None:
        """Look at a host that has this route."""
        bridge = Bridge(cast(Kernel, None), "br0", INTERFACE, "/state", INTERFACE_6)

        class Connection:
            def get_routes(self, family: Any) -> Any:
                return [Message(route)] if family == FAMILIES[version] else []

        bridge._check_routes(Connection())

    def test_others(self) -> None:
        """Routes to other networks and the default route do no harm."""
        self.check(dst_len=0, RTA_OIF=1)
        self.check(RTA_DST="192.0.2.0", dst_len=24, RTA_OIF=1)
        self.check(RTA_DST="10.87.0.8", dst_len=29, RTA_OIF=1)

    def test_overlaps(self) -> None:
        """A route that covers the subnet, or a part of it, is named in the error."""
        for destination, length in (("10.0.0.0", 8), ("10.87.0.4", 32)):
            with self.assertRaises(MachineAtFault) as raised:
                self.check(RTA_DST=destination, dst_len=length, RTA_OIF=1)
            self.assertIn(f"route to {destination}/{length} through lo", str(raised.exception))

    def test_ipv6(self) -> None:
        """The same holds for IPv6, and the error names its option."""
        self.check(6, RTA_DST="fd00:2::", dst_len=64, RTA_OIF=1)
        with self.assertRaises(MachineAtFault) as raised:
            self.check(6, RTA_DST="fd00::", dst_len=8, RTA_OIF=1)
        self.assertIn("route to fd00::/8 through lo", str(raised.exception))
        self.assertIn("another --subnet6", str(raised.exception))

    def test_through_nothing(self) -> None:
        """So is a route without an interface."""
        with self.assertRaises(MachineAtFault) as raised:
            self.check(RTA_DST="10.87.0.0", dst_len=16)
        self.assertIn("route to 10.87.0.0/16", str(raised.exception))


class NamingTests(SynchronousTestCase):
    """Names that are made of an address."""

    def test_names_of_links(self) -> None:
        """A link's name fits into 15 bytes, and its MAC address is a locally administered one."""
        address = IPv4Address("255.255.255.254")
        self.assertEqual(link_name(address), "txfffffffe")
        self.assertEqual(hardware_address(address), "02:00:ff:ff:ff:fe")


class TrafficTests(SynchronousTestCase):
    """What went over the link of a container."""

    def test_traffic(self) -> None:
        """The kernel's counters are told; a link that is not there has none."""
        address = IPv4Address("10.87.0.2")
        links = {link_name(address): range(16)}
        told = {"network_received": 8, "network_sent": 0}
        self.assertEqual(bridge.traffic(address, links), told)
        self.assertEqual(bridge.traffic(address, {}), {})
        self.assertEqual(len(bridge.traffic_of_links()["lo"]), 16)
