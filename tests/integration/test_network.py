"""Networks of their own: what containers reach, what reaches them, and what is left of it.

The host of these tests is a network namespace of the test's own, and so is the world
beyond it: nothing is sent to any other machine, and no setting of this one is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from tests.integration.harness import PATIENCE, free_port, wait_until
from tests.integration.hosts import BEYOND, BEYOND_6, HERE, HERE_6, have_outside, nft
from tests.integration.probes import ProbeCase
from tests.support import needs_networks
from txcontain.network.bridge import exists, link_name, netlink, remove_link

SOON = 0.3  # seconds that tell what never arrives; what does may take longer

# A server in a container: it answers each connection with its hostname.
SERVER = """
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((b"0.0.0.0", 80))
listener.listen()
while True:
    connection, peer = listener.accept()
    connection.sendall(socket.gethostname().encode())
    connection.close()
"""
# What a probe sees of another end: what it says, or the name of the error. (A name that is
# given as bytes needs no codec, which the small image lacks.)
REACH = """
def reach(host, port, within=20):
    try:
        with socket.create_connection((host.encode(), port), within) as connection:
            return connection.recv(100).decode()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
"""


def reach(host: str, port: int, within: float = PATIENCE) -> str:
    """What is said there; nothing where it can't be reached within so many seconds."""
    try:
        with socket.create_connection((host, port), within) as connection:
            return connection.recv(100).decode()
    except OSError:
        return ""


@needs_networks
class NetworkCase(ProbeCase):
    """A test whose manager has a host to itself, with one link to an outside world."""

    def have_host(self) -> None:
        """Make both."""
        super().have_host()
        self.outside = have_outside(self)

    def what_is_left(self) -> list[Any]:
        """The links and rules that there are, beside all else."""
        links = [name for _, name in socket.if_nameindex() if name not in ("lo", "eth0")]
        return [*super().what_is_left(), *links, *nft("list", "tables").split()[2::3]]

    def serve(self, **keys: Any) -> str:
        """Launch a server on port 80 of a private network; return the instance's name."""
        name = self.start_probe(SERVER, network="private", startup_env="PORT=80", **keys)
        wait_until(lambda: self.inspect(name)["ready"], "it listens")  # a launch has less patience
        return name

    def inspect(self, instance: str) -> Any:
        """All that the manager knows of an instance."""
        return self.ask("GET", f"/instances/{instance}").json

    def address(self, instance: str) -> str:
        """Where an instance is on the bridge."""
        return str(self.inspect(instance)["address"])

    def restart(self) -> None:
        """SIGKILL to the manager, and a new one."""
        self.manager.kill()
        self.manager.wait()
        self.start()


class NoneTests(NetworkCase):
    """ "network": "none"."""

    def test_loopback_alone(self) -> None:
        """There is loopback, and it works."""
        said = self.probe(
            """
listener = socket.create_server((b"127.0.0.1", 80))
socket.create_connection((b"127.0.0.1", 80))
tell(interfaces=[name for _, name in socket.if_nameindex()], hosts=open("/etc/hosts").read())
""",
            network="none",
        )
        self.assertEqual(said["interfaces"], ["lo"])
        self.assertIn("127.0.0.1 localhost\n", said["hosts"])

    def test_what_listens_on_the_host(self) -> None:
        """Neither the host's loopback nor its abstract sockets can be reached, but for "host"."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        abstract = socket.socket(socket.AF_UNIX)
        self.addCleanup(abstract.close)
        abstract.bind("\0txcontain-test")
        abstract.listen()
        port = listener.getsockname()[1]
        text = f"""
unix = socket.socket(socket.AF_UNIX)
tell(tcp=attempt(socket.create_connection, (b"127.0.0.1", {port})),
     unix=attempt(unix.connect, "\\0txcontain-test"))
"""
        said = {network: self.probe(text, network=network) for network in ("host", "private")}
        said["none"] = self.probe(text, network="none")
        refused = {"tcp": "ECONNREFUSED", "unix": "ECONNREFUSED"}
        self.assertEqual(said["host"], {"tcp": "done", "unix": "done"})
        self.assertEqual((said["none"], said["private"]), (refused, refused))


class PrivateTests(NetworkCase):
    """ "network": "private"."""

    def test_each_has_port_80(self) -> None:
        """Two containers listen on one port, each at its address, and launches wait for both."""
        names = [self.serve(), self.serve()]
        self.assertEqual([self.inspect(name)["ready"] for name in names], [True, True])
        self.assertEqual([reach(self.address(name), 80) for name in names], names)

    def test_names(self) -> None:
        """They find each other by the names of instance and config, in any case of letters."""
        web = self.serve(name="Web.v1")
        others = [self.serve(name="db"), self.serve(name="db", minor="9")]
        said = self.probe(
            REACH
            + f"""
tell(web=[reach(name, 80) for name in ("{web}", "web.v1", "WEB.V1")],
     db=sorted({{info[4][0] for info in socket.getaddrinfo(b"db", 80, socket.AF_INET)}}),
     myself=socket.gethostbyname(socket.gethostname().encode()))
""",
            network="private",
        )
        self.assertEqual(said["web"], [web] * 3)
        self.assertEqual(said["db"], sorted(map(self.address, others)))
        self.assertTrue(said["myself"].startswith("10.87.0."))

    def test_a_name_that_is_gone(self) -> None:
        """No one is found by the name of an instance that has ended."""
        web = self.serve()
        self.ask("DELETE", f"/destroy/{web}")
        said = self.probe(REACH + f"tell(web=reach('{web}', 80))", network="private")
        self.assertRegex(said["web"], "[Nn]ame")  # resolution failed, or is not known

    def test_files(self) -> None:
        """The files of /etc are the container's own; the image's root stays read-only."""
        said = self.probe(
            """
tell(name=open("/etc/hostname").read(), resolver=open("/etc/resolv.conf").read(),
     new=attempt(open, "/etc/new", "w"), old=attempt(open, "/etc/hosts", "w"))
""",
            network="private",
        )
        self.assertTrue(said["name"].startswith("test-"))
        self.assertEqual(said["resolver"], "nameserver 10.87.0.1\nsearch .\n")
        self.assertEqual((said["new"], said["old"]), ("EROFS", "EROFS"))

    def test_any_port_for_anyone(self) -> None:
        """Who is not root listens on port 80 too, and so does root of a user namespace."""
        for keys in ({"startup_owner": "worker"}, {"user_namespace": True}):
            web = self.serve(**keys)
            self.assertEqual(reach(self.address(web), 80), web)

    def test_the_host(self) -> None:
        """What listens on all of the host's addresses is not reached from a container."""
        listener = socket.create_server(("0.0.0.0", 0))
        self.addCleanup(listener.close)
        port = listener.getsockname()[1]
        said = self.probe(
            REACH + f"tell(all=[reach(h, {port}) for h in ('10.87.0.1', '{HERE}', '127.0.0.1')])",
            network="private",
        )
        self.assertEqual(said["all"], ["ECONNREFUSED"] * 3)

    def test_restarted(self) -> None:
        """One that is started again has its address and its port again."""
        port = free_port()
        web = self.serve(restart="always", ports=[f"{port}:80"])
        address = self.address(web)
        os.kill(self.inspect(web)["pid"], 9)
        wait_until(lambda: self.inspect(web)["restarts"] == 1, "it is started again")
        wait_until(lambda: reach("127.0.0.1", port) == web, "it answers again")
        self.assertEqual(self.address(web), address)

    def test_addresses_are_used_again(self) -> None:
        """The address of one that is gone is the next one's."""
        first, second = self.serve(), self.serve()
        address = self.address(first)
        self.ask("DELETE", f"/destroy/{first}")
        self.assertEqual(self.address(self.serve()), address)
        self.assertNotEqual(self.address(second), address)

    def test_address_of_one_that_ended(self) -> None:
        """One that has ended can be destroyed, also where another has its address by now."""
        ended = self.start_probe("tell()", network="private")
        self.told_by(ended)
        web = self.serve()
        plan = self.ask("GET", f"/instances/{ended}").json["plan"]
        self.assertIn(self.address(web), [step.get("address") for step in plan])
        self.assertEqual(self.ask("DELETE", f"/destroy/{ended}").status, 200)
        self.assertEqual(reach(self.address(web), 80), web)


class SixTests(NetworkCase):
    """IPv6."""

    def test_reached(self) -> None:
        """A container is reached at its IPv6 address: from others by its name, and by its port."""
        web = self.start_probe(
            SERVER.replace("socket.socket()", "socket.socket(socket.AF_INET6)").replace(
                '"0.0.0.0"', '"::"'
            ),
            network="private",
            startup_env="PORT=80",
            ports=["[::]:8000:80", f"[{HERE_6}]:8001:80"],
        )
        wait_until(lambda: self.inspect(web)["ready"], "it listens")
        address = self.inspect(web)["address6"]
        self.assertTrue(address.startswith("fd"))
        said = self.probe(
            REACH
            + f"""
found = socket.getaddrinfo(b"{web}", 80, socket.AF_INET6)
tell(web=[reach(host, 80) for host in (found[0][4][0], "{web}")],
     host=[reach(host, 8000) for host in ("{HERE_6}", "{HERE}")])
""",
            network="private",
        )
        self.assertEqual(said, {"web": [web] * 2, "host": [web, "ECONNREFUSED"]})
        self.assertEqual([reach(address, 80), reach(HERE_6, 8001)], [web, web])
        with self.outside():
            self.assertEqual([reach(HERE_6, port) for port in (8000, 8001)], [web, web])

    def test_outbound(self) -> None:
        """A container reaches the world, which takes it for the host."""
        with self.outside():
            listener = socket.create_server((BEYOND_6, 80), family=socket.AF_INET6)
        self.addCleanup(listener.close)
        text = REACH + f"tell(said=reach('{BEYOND_6}', 80))"
        instance = self.start_probe(text, network="private")
        connection, peer = listener.accept()
        connection.sendall(b"hello")
        connection.close()
        self.assertEqual(peer[0], HERE_6)
        self.assertEqual(self.told_by(instance), {"said": "hello"})

    def test_the_host(self) -> None:
        """A container reaches no address of the host's, of whichever scope, and no loopback."""
        self.serve()

        def addresses() -> list[str]:
            found = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
            return [str(IPv6Address(int(one[0], 16))) for one in found]

        # Loopback, and two at each of the interfaces: one comes a moment after its link.
        wait_until(lambda: len(addresses()) >= 5, "all addresses are there")
        hosts = addresses()
        listener = socket.create_server(("::", 0), family=socket.AF_INET6)
        self.addCleanup(listener.close)
        port = listener.getsockname()[1]
        said = self.probe(
            REACH
            + f"""
hosts = [reach(host, {port}, 2) for host in {hosts}]
group = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
group.sendto(b"x", (b"ff02::1%eth0", {port}))
scoped = [reach(host + "%eth0", {port}, 2) for host in {hosts} if host[:4] == "fe80"]
tell(hosts=hosts, scoped=scoped)
""",
            network="private",
        )
        self.assertEqual(set(said["hosts"] + said["scoped"]) & {""}, set())
        listener.settimeout(SOON)
        self.assertRaises(TimeoutError, listener.accept)

    def test_switched_off(self) -> None:
        """On a host without IPv6 all else works, and its ports are refused in a sentence."""
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        self.restart()
        port = free_port()
        web = self.serve(ports=[f"{port}:80"])
        self.assertEqual(reach("127.0.0.1", port), web)
        self.assertIsNone(self.inspect(web)["address6"])
        answer = self.try_to_launch(network="private", ports=["[::]:80:80"])
        self.assert_refused(answer, 500, "no addresses of IPv6", "--subnet6")


class LinkTests(NetworkCase):
    """The links of containers that are connected to each other."""

    def test_connected(self) -> None:
        """A connection whose other end is gone keeps no link, though the kernel waits for it."""
        web = self.serve()
        client = self.start_probe(
            f"connection = socket.create_connection((b'{web}', 80)); connection.recv(100)\n"
            "print('connected', flush=True); time.sleep(60)\n",
            network="private",
        )
        wait_until(lambda: self.log_of(client) == "connected\n", "the client is connected")
        with netlink("a test") as connection:
            remove_link(connection, link_name(IPv4Address(self.address(web))))
        for instance in (client, web):
            self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)


class OutsideTests(NetworkCase):
    """To the outside world, and from there."""

    def test_outbound(self) -> None:
        """A container reaches the world, which takes it for the host."""
        with self.outside():
            listener = socket.create_server((BEYOND, 80))
        self.addCleanup(listener.close)
        instance = self.start_probe(REACH + f"tell(said=reach('{BEYOND}', 80))", network="private")
        connection, peer = listener.accept()
        connection.sendall(b"hello")
        connection.close()
        self.assertEqual(peer[0], HERE)
        self.assertEqual(self.told_by(instance), {"said": "hello"})

    def test_not_published(self) -> None:
        """The world reaches neither a container's address nor what is published on loopback."""
        port = free_port()
        web = self.serve(ports=[f"{port}:80"])
        self.assertEqual(reach("127.0.0.1", port), web)
        with self.outside():
            self.assertEqual([reach(HERE, port, SOON), reach("10.87.0.2", 80, SOON)], ["", ""])

    def test_published_while_it_runs(self) -> None:
        """A port can be published and withdrawn at any time, and a new manager keeps it."""
        web, port = self.serve(), free_port()

        def change(**ports: Any) -> int:
            return self.ask("POST", f"/instances/{web}/ports", ports).status

        self.assertEqual(reach("127.0.0.1", port, SOON), "")
        self.assertEqual(change(publish=[f"{port}:80"]), 200)
        self.assertEqual(reach("127.0.0.1", port), web)
        self.restart()
        self.assertEqual(reach("127.0.0.1", port), web)
        self.assertEqual(change(withdraw=[f"{port}"]), 200)
        self.assertEqual(reach("127.0.0.1", port, SOON), "")

    def test_published(self) -> None:
        """The world reaches what is published on an address, unless the host's firewall minds."""
        web = self.serve(ports=[f"{HERE}:8000:80", "0.0.0.0:8001:80"])
        with self.outside():
            self.assertEqual([reach(HERE, port) for port in (8000, 8001)], [web, web])
        self.assertEqual([reach(HERE, 8000), reach("127.0.0.1", 8001)], [web, web])
        nft(
            "add table inet mine; add chain inet mine forward "
            "{ type filter hook forward priority 0; policy drop; }"
        )
        with self.outside():
            self.assertEqual(reach(HERE, 8000, SOON), "")
        nft("delete table inet mine")

    def test_udp(self) -> None:
        """Datagrams are published too, and the answers come from the same port."""
        port = free_port()
        self.start_probe(
            """
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((b"0.0.0.0", 53))
print("bound", flush=True)
while True:
    data, peer = listener.recvfrom(100)
    listener.sendto(data.upper(), peer)
""",
            network="private",
            ports=[f"127.0.0.1:{port}:53/udp"],
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SOON)
            client.connect(("127.0.0.1", port))

            def answer() -> bytes:
                try:
                    client.send(b"hello")
                    return client.recv(100)
                except OSError:
                    return b""

            wait_until(lambda: answer() == b"HELLO", "it answers")

    def test_the_resolver(self) -> None:
        """The world can't ask the resolver; containers can ask it for others' names."""
        self.serve()
        query = bytes.fromhex("0001010000010000000000000474657374000001 0001")
        with self.outside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SOON)
            client.sendto(query, ("10.87.0.1", 53))
            self.assertRaises(TimeoutError, client.recv, 100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.sendto(query, ("10.87.0.1", 53))
            self.assertIn(bytes([10, 87, 0, 2]), client.recv(100))


class RefusalTests(NetworkCase):
    """What can't be is found before anything is made."""

    def test_port_of_the_host(self) -> None:
        """A port that a program of the host listens on is refused, and the program is named."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            answer = self.try_to_launch(network="private", ports=[f"{port}:80"])
        self.assert_refused(answer, 409, f"port {port} is taken", f"(process {os.getpid()})")
        self.assertFalse(exists("txcontain0"))

    def test_port_of_another_address(self) -> None:
        """A port is free where only another address has a listener."""
        with socket.create_server((HERE, 0)) as listener:
            port = listener.getsockname()[1]
            web = self.serve(ports=[f"{port}:80"])
            self.assertEqual(reach("127.0.0.1", port), web)

    def test_port_of_another_instance(self) -> None:
        """So is one that another instance has, published or not."""
        web = self.serve(ports=["8000:80"])
        answers = [
            self.try_to_launch(network="private", ports=["0.0.0.0:8000:1"]),
            self.try_to_launch(startup_env="PORT=8000"),
        ]
        for answer in answers:
            self.assert_refused(answer, 409, "8000 is taken", f"by the instance {web}")

    def test_subnet(self) -> None:
        """A subnet that the host has a route to is refused, and the route is named."""
        with netlink("a test") as connection:
            connection.route("add", dst="10.0.0.0/8", gateway=BEYOND)
        answer = self.try_to_launch(network="private")
        self.assert_refused(answer, 500, "10.87.0.0/16 is in use", "10.0.0.0/8 through eth0")

    def test_bridge_of_another(self) -> None:
        """The bridge of another manager is left alone."""
        with netlink("a test") as connection:
            connection.link("add", ifname="txcontain0", kind="bridge")
            connection.link("set", ifname="txcontain0", ifalias="/other/state")
            answer = self.try_to_launch(network="private")
            self.assert_refused(answer, 500, "it is not ours, but of /other/state")
            self.assertTrue(exists("txcontain0"))
            connection.link("del", ifname="txcontain0")

    def test_no_forwarding(self) -> None:
        """A port can't be published to the world by a host that forwards nothing."""
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        answer = self.try_to_launch(network="private", ports=[f"{HERE}:80:80"])
        self.assert_refused(answer, 500, "does not forward packets", "sysctl net.ipv4.ip_forward=1")

    def test_a_name_server_of_the_host(self) -> None:
        """Where port 53 of all addresses is taken, that is said."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", 53))
            answer = self.try_to_launch(network="private")
            self.assert_refused(answer, 500, "answering for names on the bridge")


class RecoveryTests(NetworkCase):
    """A manager that is killed, and the next one."""

    def test_adopted(self) -> None:
        """Containers keep their addresses, ports and names, and are destroyed in the end."""
        port = free_port()
        web = self.serve(ports=[f"{port}:80"])
        address = self.address(web)
        self.manager.kill()
        self.manager.wait()
        self.assertEqual(reach("127.0.0.1", port), web)
        self.start()
        self.assertEqual((self.address(web), reach("127.0.0.1", port)), (address, web))
        said = self.probe(REACH + f"tell(web=reach('{web}', 80))", network="private")
        self.assertEqual(said["web"], web)

    def test_leftovers(self) -> None:
        """Links and rules of no instance go, at the start and by the doctor."""
        web = self.serve(ports=["8000:80"])
        for ask in (self.restart, lambda: self.ask("POST", "/doctor")):
            with netlink("a test") as connection:
                bridge = socket.if_nametoindex("txcontain0")
                connection.link("add", ifname="txother", kind="veth", peer="txpeer", master=bridge)
            nft("add element inet txcontain0 published { tcp . 127.0.0.1 . 9 : 10.87.0.9 . 9 }")
            ask()
            wait_until(lambda: not exists("txother"), "the link is gone")
            wait_until(lambda: "10.87.0.9" not in nft("list", "ruleset"), "the rule is gone")
            self.assertEqual(reach("127.0.0.1", 8000), web)

    def test_nothing_runs_any_more(self) -> None:
        """The bridge goes where its instances have ended while no manager ran."""
        web = self.serve()
        pid = self.inspect(web)["pid"]
        self.manager.kill()
        self.manager.wait()
        os.kill(pid, 9)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
        self.start()
        wait_until(lambda: not exists("txcontain0"), "the bridge is gone")

    def test_killed_at_any_time(self) -> None:
        """Wherever a launch was cut short, no more links are left than instances run."""
        for delay in range(0, 60, 10):
            launch = self.upload(network="private", ports=[f"{8000 + delay}:80"])
            thread = threading.Thread(target=self.try_to_ask, args=("POST", "/launch", launch))
            thread.start()
            threading.Event().wait(delay / 1000)
            self.restart()
            thread.join()
            wait_until(lambda: self.links() == self.links_wanted(), "links are as they should be")

    def try_to_ask(self, *request: Any) -> None:
        """Ask a manager that may be killed meanwhile."""
        with contextlib.suppress(OSError):
            self.ask(*request)

    def links(self) -> set[str]:
        """Those that there are, and the addresses that rules name."""
        links = {name for _, name in socket.if_nameindex() if name.startswith("tx")}
        ruled = re.findall(r": (10\.87\.0\.\d+) \. ", nft("list", "ruleset"))
        return links | {link_name(IPv4Address(address)) for address in ruled}

    def links_wanted(self) -> set[str]:
        """Those that the running instances need."""
        names = {link_name(IPv4Address(self.address(name))) for name in self.running()}
        return names | {"txcontain0"} if names else names
