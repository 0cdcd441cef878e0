"""Published ports of a swarm: where they lead, and which socket is there."""

import socket
from typing import Any

from attrs import evolve
from twisted.internet.defer import succeed

from tests.exports.test_documents import subject_of
from tests.fakes import ManagerTestCase
from tests.network.pump import Pump
from tests.swarm.docker import NODE, task
from tests.swarm.test_stacks import revision_of
from txcontain.container.spec import ANY_ADDRESS
from txcontain.network.relay import Relays
from txcontain.swarm import balancer
from txcontain.swarm.balancer import SHUN_FOR, Balancer, addresses_down, routes
from txcontain.swarm.mapping import lost
from txcontain.swarm.nodes import Node, read_node
from txcontain.swarm.records import Seen
from txcontain.swarm.stack_mapping import service_of

ONE, TWO = ("192.0.2.7", 32768), ("192.0.2.8", 32769)


def node(number: int, state: str = "ready", availability: str = "active") -> Node:
    """A node."""
    status = {"State": state, "Addr": f"192.0.2.{number}"}
    spec = {**NODE["Spec"], "Availability": availability}
    return read_node({**NODE, "ID": f"n{number}", "Status": status, "Spec": spec})


def serving(number: int, port: int, state: str = "running", wanted: str = "running") -> Any:
    """A task whose port 80 is found at a port of its node."""
    made = {**task("s", state, node=f"n{number}"), "Slot": number, "DesiredState": wanted}
    given = {"TargetPort": 80, "PublishedPort": port, "Protocol": "tcp"}
    made["Status"]["PortStatus"] = {"Ports": [given, given]}
    return made


def seen(*tasks: Any, state: str = "ready", port: int = 8000) -> Seen:
    """A look at a swarm with a service of a stack, which publishes a port."""
    revision = revision_of(ports=[f"{ANY_ADDRESS}:{port}:80"])
    service = {
        "ID": "s",
        "CreatedAt": "",
        "Spec": service_of("shop", "app", revision, subject_of()),
    }
    nodes = {one.id: one for one in (node(7, state), node(8, state))}
    return Seen([service], tasks, nodes)


class RouteTests(ManagerTestCase):
    """Where they lead."""

    def test_routes(self) -> None:
        """They lead to each task that runs and is to run on, on any node, once."""
        (route,) = routes(
            seen(
                serving(7, 32768),
                serving(8, 32769),
                serving(8, 32770, wanted="shutdown"),
                serving(8, 32771, state="starting"),
            )
        ).values()
        self.assertEqual((route.service, route.places), ("shop-app", (ONE, TWO)))

    def test_nodes(self) -> None:
        """They lead to no node that is down; but to those of which the leader does not know yet."""
        for state, places in (("down", ()), ("unknown", (ONE,)), ("disconnected", (ONE,))):
            tasks = lost([serving(7, 32768)], [{"ID": "n7", "Status": {"State": state}}])
            (route,) = routes(seen(*tasks, state=state)).values()
            self.assertEqual(route.places, places, state)


class BalancerTests(ManagerTestCase):
    """A balancer, whose connections a test makes."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor.addReader = self.reactor.removeReader = lambda reader: None
        self.balancer = Balancer(self.reactor, self.manager.journal)
        self.addCleanup(self.balancer.stop)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.key = f"{ANY_ADDRESS}:{self.port}"
        self.tried: list[Any] = []
        self.refuse: set[Any] = set()
        self.patch(balancer, "connect", self.connect)

    def connect(self, reactor: Any, place: Any, within: float) -> Any:
        """Connect to a place, or not."""
        self.tried.append(place)
        if place in self.refuse:
            raise ConnectionRefusedError
        return succeed(socket.socket())

    def ask(self) -> None:
        """A connection comes."""
        connecting = self.start(self.balancer._connect(self.key))
        self.reactor.advance(0)
        self.successResultOf(connecting).close()

    def test_next(self) -> None:
        """Places take turns; if one refuses, the next is asked, and it comes last for a while."""
        self.balancer.settle(seen(serving(7, 32768), serving(8, 32769), port=self.port))
        for _ in range(4):
            self.ask()
        self.assertEqual(sorted(self.tried), [ONE, ONE, TWO, TWO])
        self.refuse, self.tried[:] = {ONE}, []
        for _ in range(4):
            self.ask()
        self.assertEqual((self.tried.count(ONE), self.tried.count(TWO)), (1, 4))
        self.reactor.advance(SHUN_FOR)
        for _ in range(2):
            self.ask()
        self.assertEqual(self.tried.count(ONE), 2)

    def test_none(self) -> None:
        """While nothing serves, a connection waits, and is led to what comes."""
        self.balancer.settle(seen(port=self.port))
        connecting = self.start(self.balancer._connect(self.key))
        self.assertNoResult(connecting)
        self.balancer.settle(seen(serving(7, 32768), port=self.port))
        self.reactor.advance(1)
        self.successResultOf(connecting).close()
        self.assertEqual(self.tried, [ONE])

    def test_node_down(self) -> None:
        """Who is connected to a node that goes down is told so; to others, is not."""
        self.balancer.reactor = pump = Pump()
        self.balancer.relays = Relays(pump, 9)
        self.patch(balancer, "address_of", lambda other: "192.0.2.7")
        for states, is_over in (
            (("ready", "down"), False),
            (("unknown", "ready"), False),
            (("down", "ready"), True),
        ):
            client, front = socket.socketpair()
            back, server = socket.socketpair()
            for one in (client, server):
                self.addCleanup(one.close)
            self.patch(balancer, "connect", lambda *_, back=back: succeed(back))
            look = seen(serving(7, 32768), port=self.port)
            self.balancer.settle(look)
            carried = self.start(self.balancer._carry(self.key, front))
            both = [node(number, state) for number, state in zip((7, 8), states, strict=True)]
            self.balancer.settle(evolve(look, nodes={one.id: one for one in both}))
            pump.turn()
            self.assertEqual(carried.called, is_over, states)
            self.balancer.relays.stop()
            self.successResultOf(carried)
            self.assertEqual(self.balancer._led, {})

    def test_joined_anew(self) -> None:
        """An address of a node that is down is not one of those if another node has it."""
        both = node(7, "down"), evolve(node(7), id="n9")
        for nodes, found in ((both, set()), (both[:1], {"192.0.2.7"})):
            look = Seen([], [], {one.id: one for one in nodes})
            self.assertEqual(addresses_down(look), found)

    def test_sockets(self) -> None:
        """A port has a socket as long as a service publishes it."""
        self.balancer.settle(seen(port=self.port))
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.balancer.settle(Seen([], []))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", self.port))

    def test_taken(self) -> None:
        """A port that another program has is named, and tried again with each look."""
        with socket.create_server(("127.0.0.1", self.port)):
            self.balancer.settle(seen(port=self.port))
            why = "another program of this host listens there"
            self.assertEqual(self.balancer.troubles, {self.key: why})
        self.balancer.settle(seen(port=self.port))
        self.assertEqual(self.balancer.troubles, {})
