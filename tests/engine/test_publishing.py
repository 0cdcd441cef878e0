"""Ports that are published and withdrawn while an instance runs, on a fake machine."""

from typing import Any

from tests.engine.test_life import LifeCase
from txcontain.container.spec import Port
from txcontain.engine.publishing import change_ports, tell_unserved
from txcontain.errors import ConfigAtFault, MachineAtFault, NotRunning, WrongState
from txcontain.runtime.instance import Instance

WEB = Port("127.0.0.1", 8080, 80, "tcp")
DNS = Port("0.0.0.0", 5353, 53, "udp")


class UnservedTests(LifeCase):
    """Connections that no instance has come for."""

    def test_told(self) -> None:
        """The journal says how many were closed, of which port and service."""
        tell_unserved(self.manager, "shop/web", Port("0.0.0.0", 80, 8000, "tcp"), 3)
        self.assertEqual(
            self.events()[-1],
            "unserved: connections to port 0.0.0.0:80 were closed: 3, as no instance of it has "
            "served within 60 s",
        )


class PublishingTests(LifeCase):
    """Changes of the ports of an instance."""

    def setUp(self) -> None:
        super().setUp()
        self.scripts: list[str] = []
        self.run_nft()

    def run_nft(self, fails: bool = False) -> None:
        """Take note of what the packet filter is told."""

        async def run(script: str) -> None:
            self.scripts.append(script)
            if fails:
                raise MachineAtFault("changing the packet filter by nft")

        self.manager.network.firewall.run = run

    def private(self, **changes: Any) -> Instance:
        """An instance on the private network."""
        return self.launch(network="private", **changes)

    def change(self, instance: Instance, **ports: Any) -> Any:
        """Change its ports."""
        return self.now(change_ports(self.manager, instance, **ports))

    def test_one_transaction(self) -> None:
        """What is published and withdrawn together is one script for nft."""
        instance = self.private(ports=["9000:90"])
        self.scripts.clear()
        self.change(instance, publish=[WEB], withdraw=["9000"])
        (script,) = self.scripts
        self.assertIn("delete element inet txcontain0 published { tcp . 127.0.0.1 . 9000", script)
        self.assertIn("add element inet txcontain0 published { tcp . 127.0.0.1 . 8080", script)
        self.assertEqual(instance.record["ports"], ["127.0.0.1:8080->80/tcp"])
        self.assertEqual(self.events()[-1], "ports: published 8080, withdrew 9000")

    def test_kept(self) -> None:
        """They are kept by the next manager, and when the instance is started again."""
        instance = self.private()
        self.change(instance, publish=[WEB, DNS])
        self.next_manager()
        found = self.manager.find(instance.name)
        self.assertEqual(found.spec.ports, (WEB, DNS))
        self.stop(found)
        self.start_again(found)
        members = self.manager.network._members
        self.assertEqual(members[found.name].ports, (WEB, DNS))

    def test_taken(self) -> None:
        """A port that an instance or a process has is refused, and nothing changes."""
        instance, other = self.private(), self.private(minor="2", ports=["8080:1"])
        taken = change_ports(self.manager, instance, publish=[DNS, WEB])
        error = self.refused(taken, ConfigAtFault)
        self.assertEqual(error.chain[1], f"by the instance {other.name}")
        own = change_ports(self.manager, other, publish=[WEB])
        self.refused(own, ConfigAtFault)
        self.kernel.listening[5353] = 4711
        self.refused(change_ports(self.manager, instance, publish=[DNS]), ConfigAtFault)
        self.assertEqual((instance.spec.ports, len(other.spec.ports)), ((), 1))

    def test_again(self) -> None:
        """To publish a port a second time changes nothing."""
        instance = self.private()
        for _ in range(2):
            self.change(instance, publish=[WEB])
        self.assertEqual(instance.spec.ports, (WEB,))

    def test_nft_fails(self) -> None:
        """If nft fails, all is as it was."""
        instance = self.private()
        self.run_nft(fails=True)
        self.refused(change_ports(self.manager, instance, publish=[WEB]), MachineAtFault)
        self.run_nft()
        self.assertEqual(instance.spec.ports, ())
        self.change(instance, publish=[DNS])
        self.assertNotIn("8080", self.scripts[-1])

    def test_not_published(self) -> None:
        """What is not published can't be withdrawn."""
        instance = self.private(ports=["80:80"])
        error = self.refused(change_ports(self.manager, instance, withdraw=["81"]), WrongState)
        self.assertEqual(error.chain[1], "it publishes 80")
        self.change(instance, withdraw=["80"])
        error = self.refused(change_ports(self.manager, instance, withdraw=["80"]), WrongState)
        self.assertEqual(error.chain[1], "it publishes none")

    def test_host_network(self) -> None:
        """An instance on the host's network has no ports to publish."""
        instance = self.launch()
        self.refused(change_ports(self.manager, instance, publish=[WEB]), WrongState)

    def test_not_running(self) -> None:
        """Nor has one that does not run."""
        instance = self.private()
        self.stop(instance)
        self.refused(change_ports(self.manager, instance, publish=[WEB]), NotRunning)

    def test_forms(self) -> None:
        """A port can be named in the ways in which it can be written."""
        tcp = {"8080", "8080/tcp", "8080:80", "8080:80/tcp"}
        self.assertEqual(WEB.forms, tcp | {f"127.0.0.1:{form}" for form in tcp})
        self.assertEqual(DNS.forms, {"0.0.0.0:5353/udp", "0.0.0.0:5353:53/udp"})
