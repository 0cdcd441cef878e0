"""Services: ports that lead to several containers in turn, and what becomes of connections.

The table, the bridge and the links are the real ones, in network namespaces of the test's own. In
the containers' place are processes that have only a network namespace.
"""

from __future__ import annotations

import math
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.names.client import Resolver
from twisted.trial.unittest import TestCase

from tests.fakes import KeptHere
from tests.integration.harness import PATIENCE
from tests.integration.hosts import (
    BEYOND,
    BEYOND_6,
    HERE,
    HERE_6,
    back_again,
    have_host,
    have_outside,
    nft,
)
from tests.integration.test_network import SOON
from tests.support import make_spec, needs_networks
from txcontain.container.plan import Link
from txcontain.errors import MachineAtFault
from txcontain.host.kernel import Kernel
from txcontain.host.syscalls import enter_network
from txcontain.later import together
from txcontain.logs.client import LogClient
from txcontain.network import firewall
from txcontain.network.bridge import IFA_F_NODAD, exists, netlink
from txcontain.network.network import Network, make_network

PRIVATE = make_spec(name="app", network="private")
# It says its name to each connection, and then what it is told; a datagram is answered with its
# name.
SERVER = """
import socket, sys, threading
name = sys.argv[1].encode()
listener = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(("", 53))
print("listens", flush=True)
def echo(connection):
    connection.sendall(name)
    while data := connection.recv(100):
        connection.sendall(data)
    connection.close()
def answer():
    while True:
        datagrams.sendto(name, datagrams.recvfrom(100)[1])
threading.Thread(target=answer, daemon=True).start()
while True:
    threading.Thread(target=echo, args=[listener.accept()[0]], daemon=True).start()
"""


def ask(host: str, port: int) -> tuple[str, socket.socket]:
    """Who answers there, and the connection to it."""
    connection = socket.create_connection((host, port), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection.recv(100).decode(), connection


def who(host: str, port: int, times: int = 1) -> Counter[str]:
    """Who answers there so many times, and how often each."""
    answers: Counter[str] = Counter()
    for _ in range(times):
        name, connection = ask(host, port)
        connection.close()
        answers[name] += 1
    return answers


def begin(host: str, port: int) -> socket.socket:
    """A connection to what may not answer yet."""
    connection = socket.create_connection((host, port), PATIENCE)
    connection.settimeout(PATIENCE)
    return connection


def answer_to(connection: socket.socket) -> str:
    """Who answers."""
    with connection:
        return connection.recv(100).decode()


def says(connection: socket.socket, text: str) -> str:
    """What a connection's other end answers."""
    connection.sendall(text.encode())
    return connection.recv(100).decode()


@needs_networks
class SpreadTests(TestCase):
    """A network on a host to itself, and an outside world."""

    def setUp(self) -> None:
        have_host(self)
        self.outside = have_outside(self)
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.log_process = KeptHere()
        self.network = self.new_manager()
        self.addCleanup(self.take_down)

    def new_manager(self) -> Network:
        """The network, as a manager makes it at its start."""
        from twisted.internet import reactor

        subnets = IPv4Network("10.87.0.0/16"), IPv6Network("fd00:1::/64")
        # Not by threads: those of an earlier test are in another network namespace.
        network = make_network(
            reactor,
            Kernel(),
            maybeDeferred,
            cast(LogClient, self.log_process),
            "/state",
            "txcontain0",
            *subnets,
        )
        network.forwards = lambda version: True
        return network

    async def take_down(self) -> None:
        """End all, and see that nothing is left."""
        dropped = [self.network.drop(service) for service in list(self.network._services)]
        await together(*dropped)
        for name in list(self.processes):
            await self.end(name)
        self.assertEqual((exists("txcontain0"), nft("list", "tables")), (False, ""))

    async def run_server(self, name: str) -> None:
        """Have a server run in a network namespace with a link to the bridge."""
        address = self.network.reserve(name, PRIVATE)
        assert address is not None
        process = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", SERVER, name],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes[name] = process
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "listens\n")
        await self.network.connect(name, Kernel().identify(process.pid))
        link = self.network.link_of(address)
        self.inside(name, lambda: configure(link))
        self.network.set_running(name, runs=True)

    def inside(self, name: str, do: Callable[[], Any]) -> Any:
        """Do something in a server's network namespace."""
        with back_again(), open(f"/proc/{self.processes[name].pid}/ns/net") as there:
            enter_network(there.fileno())
            return do()

    async def end(self, name: str) -> None:
        """End a server."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        await self.network.release(name)

    async def serve(self, *replicas: str, ports: Any = ("8000:80",), service: str = "web") -> None:
        """Have a service lead to these."""
        wished = make_spec(network="private", ports=list(ports)).ports
        await self.network.serve(service, (service,), wished, replicas)

    async def run_three(self) -> None:
        """Three servers."""
        for name in "abc":
            await self.run_server(name)

    async def test_nobody_serves(self) -> None:
        """While nobody serves connections wait, wherever they come from; later ones lead straight
        to who does."""
        await self.serve(ports=["0.0.0.0:8001:80"])
        await self.run_server("client")
        clients = [begin("127.0.0.1", 8001)]
        with self.outside():
            clients.append(begin(HERE, 8001))
        clients.append(self.inside("client", lambda: begin(HERE, 8001)))
        await self.run_server("a")
        await self.serve("a", ports=["0.0.0.0:8001:80"])
        for client in clients:
            self.assertEqual(await deferToThread(answer_to, client), "a")
        with self.outside():  # the reactor, which would hand them on, does not turn meanwhile
            self.assertEqual(who(HERE, 8001, 3), {"a": 3})

    async def test_program_of_the_host(self) -> None:
        """If a program of the host listens at a port, that leads to it, and no container gets
        there; when it has ended, to the replicas."""
        await self.run_three()
        ports = ["0.0.0.0:8001:80"]
        with socket.create_server((HERE, 8001)) as program:
            for replicas in ("", "b"):
                await self.serve(*replicas, ports=ports)
                with self.assertRaises(ConnectionRefusedError):
                    self.inside("a", lambda: begin(HERE, 8001))
                with self.outside(), begin(HERE, 8001):
                    program.accept()[0].close()
        await self.serve("b", ports=ports)
        self.assertEqual(self.inside("a", lambda: who(HERE, 8001)), {"b": 1})

    async def test_in_turn(self) -> None:
        """Each replica gets as many connections as the others, wherever they come from."""
        await self.run_three()
        await self.serve("a", "b", "c", ports=["8000:80", "0.0.0.0:8001:80"])
        each = {"a": 10, "b": 10, "c": 10}
        self.assertEqual(who("127.0.0.1", 8000, 30), each)
        self.assertEqual(who("127.0.0.1", 8001, 30), each)
        with self.outside():
            self.assertEqual(who(HERE, 8001, 30), each)
        self.assertEqual(self.inside("a", lambda: who(HERE, 8001, 30)), each)

    async def test_in_turn_by_ipv6(self) -> None:
        """The same by IPv6, from the host's own addresses, the world, and a replica itself."""
        await self.run_three()
        await self.serve("a", "b", "c", ports=["[::]:8000:80", f"[{HERE_6}]:8001:80"])
        each = {"a": 10, "b": 10, "c": 10}
        self.assertEqual(who(HERE_6, 8000, 30), each)
        with self.outside():
            self.assertEqual(who(HERE_6, 8001, 30), each)
        self.assertEqual(self.inside("a", lambda: who(HERE_6, 8001, 30)), each)
        name, connection = ask(HERE_6, 8000)
        self.assertEqual(await self.network.flows(name), 1)
        await self.serve(*({*"abc"} - {name}), ports=["[::]:8000:80"])
        self.assertEqual(says(connection, "still"), "still")
        connection.close()

    async def test_forged(self) -> None:
        """What a container sends from an address that is none of the subnet is dropped."""
        await self.run_three()
        addresses = ("192.0.2.9", BEYOND), ("2001:db8::9", BEYOND_6)
        for address, host in addresses:
            with self.outside():
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                listener = socket.create_server((host, 80), family=family)
            self.addCleanup(listener.close)

            def try_to_connect(address: str = address, host: str = host) -> None:
                with netlink("a test") as connection:
                    index, length = socket.if_nametoindex("eth0"), 128 if ":" in host else 32
                    connection.addr(
                        "add", index=index, address=address, prefixlen=length, flags=IFA_F_NODAD
                    )
                socket.create_connection((host, 80), SOON, (address, 0)).close()

            self.assertRaises(TimeoutError, self.inside, "a", try_to_connect)

    async def test_withdrawn(self) -> None:
        """A withdrawn replica gets nothing new, and keeps what it has, which is counted."""
        await self.run_three()
        await self.serve("a", "b")
        connections = dict([ask("127.0.0.1", 8000), ask("127.0.0.1", 8000)])
        self.assertEqual(await self.network.flows("a"), 1)
        await self.serve("b", "c")
        self.assertEqual(who("127.0.0.1", 8000, 10), {"b": 5, "c": 5})
        self.assertEqual([says(one, "still") for one in connections.values()], ["still"] * 2)
        self.assertEqual(await self.network.flows("a"), 1)
        for connection in connections.values():
            connection.close()
        while await self.network.flows("a"):
            pass

    async def test_quiet(self) -> None:
        """For how long no one was connected is known, also if no one has looked meanwhile."""
        await self.run_server("a")
        await self.serve("a")
        self.assertEqual(await self.network.quiet_for("a"), math.inf)
        _, connection = ask("127.0.0.1", 8000)
        self.assertEqual(await self.network.quiet_for("a"), 0)
        connection.close()
        while not (quiet := await self.network.quiet_for("a")):
            pass
        self.assertLess(quiet, PATIENCE)
        self.assertEqual(await self.network.quiet_for("unknown"), math.inf)

    async def test_direct(self) -> None:
        """Connections of other containers are counted too; those that a replica makes are not."""
        await self.run_three()
        await self.serve("a")
        connection = self.inside("b", lambda: ask("10.87.0.2", 80)[1])
        self.addCleanup(connection.close)
        self.assertEqual([await self.network.flows(name) for name in "ab"], [1, 0])

    async def test_one_killed(self) -> None:
        """A replica that ends is left out at once; when the last one has, connections wait."""
        await self.run_three()
        await self.serve("a", "b")
        await self.end("a")
        self.assertEqual(who("127.0.0.1", 8000, 4), {"b": 4})
        await self.end("b")
        client = begin("127.0.0.1", 8000)
        await self.serve("c")
        self.assertEqual(who("127.0.0.1", 8000, 2), {"c": 2})
        self.assertEqual(await deferToThread(answer_to, client), "c")

    async def test_new_manager(self) -> None:
        """A new manager writes the table anew, and connections live on, as new ones come in."""
        await self.run_three()
        await self.serve("a", "b", "c")
        names, connections = zip(*[ask("127.0.0.1", 8000) for _ in range(3)], strict=True)
        self.assertEqual(sorted(names), ["a", "b", "c"])
        for turn in range(10):
            self.network.stop()  # all that the end of a manager takes with it
            self.network = self.new_manager()
            for name, address in zip("abc", range(2, 5), strict=True):
                self.network.adopt(name, PRIVATE, f"10.87.0.{address}")
                self.network.set_running(name, runs=True)
            served = Deferred.fromCoroutine(self.serve("a", "b", "c"))
            self.assertEqual(await self.network.recover(), [])
            await served
            self.assertEqual(who("127.0.0.1", 8000, 6), {"a": 2, "b": 2, "c": 2})
            self.assertEqual([says(one, f"{turn}") for one in connections], [f"{turn}"] * 3)
        for connection in connections:
            connection.close()

    async def test_changes(self) -> None:
        """While replicas come and go, each connection is answered."""
        await self.run_three()
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        await self.serve("a")
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write("begin\n")
        client.stdin.flush()
        self.assertEqual(client.stdout.readline(), "begun\n")
        for turn in range(30):
            await self.serve(*("ab", "b", "bc", "abc", "ca", "a")[turn % 6])
        said, _ = client.communicate("end\n", timeout=PATIENCE)
        answered, failed = map(int, said.split())
        self.assertGreater(answered, 30)
        self.assertEqual(failed, 0)

    async def test_nft_fails(self) -> None:
        """If nft fails at the last of its commands, none of the others has been done."""
        await self.run_three()
        await self.serve("a", "b")
        before, run = nft("list", "ruleset"), self.network.firewall.run

        async def fail(script: str) -> None:
            await run(script + "add element inet txcontain0 nothing { 1 }\n")

        self.network.firewall.run = fail
        await self.assertFailure(Deferred.fromCoroutine(self.serve("c")), MachineAtFault)
        self.assertEqual(nft("list", "ruleset"), before)
        self.network.firewall.run = run
        self.assertEqual(who("127.0.0.1", 8000, 4), {"a": 2, "b": 2})
        await self.serve("c", "b")
        self.assertEqual(who("127.0.0.1", 8000, 4), {"c": 2, "b": 2})

    async def test_nft_missing(self) -> None:
        """Without nft, a service is refused in a sentence that says what to install."""
        self.patch(firewall, "PATH", "/nowhere")
        served = Deferred.fromCoroutine(self.serve())
        error = await self.assertFailure(served, MachineAtFault)
        self.assertIn("install the package nftables", str(error))

    async def test_datagrams(self) -> None:
        """A flow of UDP stays with its replica; when that is gone, another one gets it."""
        await self.run_three()
        await self.serve("a", "b", ports=["53:53/udp"])
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", 53))

            def answer() -> str:
                client.send(b"?")
                return client.recv(100).decode()

            first = answer()
            other = "b" if first == "a" else "a"
            await self.serve(other, ports=["53:53/udp"])
            self.assertEqual([answer() for _ in range(3)], [first] * 3)
            self.assertEqual(await self.network.flows(first), 1)
            await self.end(first)
            self.assertEqual(answer(), other)

    async def test_strays(self) -> None:
        """A client that began before there was any replica reaches the first one."""
        await self.run_three()
        ports = ["0.0.0.0:53:53/udp", "[::]:53:53/udp"]
        await self.serve(ports=ports)
        for host in ("127.0.0.1", HERE_6):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.bind(("", 4711))
                client.sendto(b"?", (host, 53))
                await self.serve("a", ports=ports)
                client.sendto(b"?", (host, 53))
                self.assertEqual(client.recv(100), b"a")
                await self.serve(ports=ports)

    async def test_names(self) -> None:
        """A service's name leads to its replicas, each of which comes first at times."""
        await self.run_three()
        await self.serve("b", "c")
        resolver = Resolver(servers=[("10.87.0.1", 53)])
        first: set[str] = set()
        while len(first) < 2:  # by chance a few times more
            answers, _, _ = await resolver.lookupAddress(b"WEB")
            first.add(answers[0].payload.dottedQuad())
        self.assertEqual(first, {"10.87.0.3", "10.87.0.4"})
        answers, _, _ = await resolver.lookupIPV6Address(b"web")
        found = {socket.inet_ntop(socket.AF_INET6, one.payload.address) for one in answers}
        self.assertEqual(found, {"fd00:1::a57:3", "fd00:1::a57:4"})

    async def test_thousand(self) -> None:
        """A thousand services are in the table, and one of them is changed without the others."""
        await self.run_three()
        await self.serve("a", "b")
        ports = range(10_000, 11_000)
        served = [self.serve("a", "b", service=f"s{one}", ports=[f"{one}:80"]) for one in ports]
        await together(*served)
        self.assertEqual(who("127.0.0.1", 10_999, 4), {"a": 2, "b": 2})
        scripts: list[str] = []
        run = self.network.firewall.run

        async def keep(script: str) -> None:
            scripts.append(script)
            await run(script)

        self.network.firewall.run = keep
        await self.serve("c", service="s10500", ports=["10500:80"])
        self.assertEqual(who("127.0.0.1", 10_500, 2), {"c": 2})
        self.assertEqual(set(re.findall(r"\b1\d{4}\b", "".join(scripts))), {"10500"})
        rules = nft("list", "table", "inet", "txcontain0")
        self.assertEqual(rules.count("numgen"), 1000)


# From "begin" to "end", it counts the connections that were answered, and those that were not.
CLIENT = """
import socket, sys, threading
sys.stdin.readline()
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), over.set()), daemon=True).start()
answered = failed = 0
while not over.is_set():
    try:
        with socket.create_connection(("127.0.0.1", 8000), 30) as connection:
            connection.settimeout(30)
            answered += bool(connection.recv(100))
        if answered == 1:
            print("begun", flush=True)
    except OSError:
        failed += 1
print(answered, failed)
"""


def configure(link: Link) -> None:
    """Give eth0 of this network namespace its addresses, as an init does."""
    assert link.v6 is not None
    with netlink("a test") as connection:
        index = socket.if_nametoindex("eth0")
        addresses = (link.address, 16), (link.v6.address, link.v6.length)
        for address, length in addresses:
            connection.addr(
                "add", index=index, address=address, prefixlen=length, flags=IFA_F_NODAD
            )
        for one in (1, index):
            connection.link("set", index=one, state="up")
        for gateway in (link.gateway, link.v6.gateway):
            connection.route("add", dst="default", gateway=gateway)
