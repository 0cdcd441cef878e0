"""The table of the packet filter: what it holds, and what changes it."""

import os
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.fakes import make_folder
from txcontain.errors import MachineAtFault
from txcontain.network import firewall
from txcontain.network.firewall import Firewall, Published, find_nft, run_nft, table

ONE = Published("tcp", "127.0.0.1", 8000, ("10.87.0.2",), 80)
TWO = Published("udp", "0.0.0.0", 5353, ("10.87.0.3",), 53)


class TableTests(SynchronousTestCase):
    """A firewall whose scripts are kept, not run."""

    def setUp(self) -> None:
        self.scripts: list[str] = []
        self.trouble: MachineAtFault | None = None
        self.firewall = Firewall(self.run_script, "br0", IPv4Interface("10.87.0.1/16"))

    async def run_script(self, script: str) -> None:
        """Keep a script, or fail."""
        if self.trouble is not None:
            raise self.trouble
        self.scripts.append(script)

    def publish(self, *ports: Any) -> Any:
        """Have these ports published."""
        return Deferred.fromCoroutine(self.firewall.publish(frozenset(ports)))

    def test_first(self) -> None:
        """The first script makes the whole table anew, with its ports, whatever was there."""
        self.successResultOf(self.publish(ONE, TWO))
        (script,) = self.scripts
        self.assertTrue(script.startswith("add table inet br0\ndelete table inet br0\ntable "))
        self.assertTrue(
            script.endswith(
                "add element inet br0 everywhere { udp . 5353 : 10.87.0.3 . 53 }\n"
                "add element inet br0 published { tcp . 127.0.0.1 . 8000 : 10.87.0.2 . 80 }\n"
            )
        )

    def test_ipv6(self) -> None:
        """The table has rules and maps of IPv6 only if there is a subnet of it."""
        self.assertNotIn("6", table("br0", IPv4Interface("10.0.0.1/8")).replace("169", ""))
        script = table("br0", IPv4Interface("10.0.0.1/8"), IPv6Interface("fd00::1/64"))
        self.assertIn('iifname "br0" ip6 saddr != fd00::/64 drop\n', script)
        self.assertIn("ip6 daddr { fd00::1, fe80::/10 } return\n", script)
        self.assertIn("map spread_everywhere6 {\n", script)

    def test_changes(self) -> None:
        """Later scripts only say what changes; if nothing does, there is no script."""
        for ports in ([ONE], [TWO], [TWO]):
            self.successResultOf(self.publish(*ports))
        self.assertEqual(
            self.scripts[1:],
            [
                "delete element inet br0 published { tcp . 127.0.0.1 . 8000 }\n"
                "add element inet br0 everywhere { udp . 5353 : 10.87.0.3 . 53 }\n"
            ],
        )

    def test_failed(self) -> None:
        """After a script that failed, the next one makes the whole table anew."""
        self.successResultOf(self.publish())
        self.trouble = MachineAtFault("no")
        self.failureResultOf(self.publish(ONE), MachineAtFault)
        self.trouble = None
        self.successResultOf(self.publish(ONE))
        self.assertTrue(self.scripts[-1].startswith("add table"))

    def test_doubt(self) -> None:
        """The table is made anew as well if someone else may have changed it."""
        for _ in range(2):
            self.successResultOf(self.publish(ONE))
            self.firewall.doubt()
        self.assertEqual(self.scripts[0], self.scripts[1])

    def test_removed(self) -> None:
        """Removing works without a table too, and after it the whole table is made anew."""
        self.successResultOf(self.publish(ONE))
        self.successResultOf(Deferred.fromCoroutine(self.firewall.remove()))
        self.assertEqual(self.scripts[1], "add table inet br0\ndelete table inet br0\n")
        self.successResultOf(self.publish(ONE))
        self.assertEqual(self.scripts[2], self.scripts[0])


class ProgramTests(TestCase):
    """Running nft(8)."""

    def test_missing(self) -> None:
        """If there is no nft, the error names the package to install."""
        self.patch(firewall, "PATH", "/nowhere")
        error = self.assertRaises(MachineAtFault, find_nft)
        self.assertIn("install the package nftables", str(error))

    def be_nft(self, text: str) -> Any:
        """Have this shell script be nft."""
        path = os.path.join(make_folder(self), "nft")
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)
        self.patch(firewall, "find_nft", lambda: path)
        return path

    def run_nft(self, script: str) -> Any:
        """Run it on a script."""
        from twisted.internet import reactor

        return Deferred.fromCoroutine(run_nft(reactor, script))

    async def test_works(self) -> None:
        """The script is passed on standard input, and no shell reads it."""
        path = self.be_nft('echo "$@" >"$0.arguments"; cat >"$0.script"')
        await self.run_nft("add table inet x; $(id)\n")
        with open(f"{path}.arguments") as arguments, open(f"{path}.script") as script:
            self.assertEqual(arguments.read(), "-f -\n")
            self.assertEqual(script.read(), "add table inet x; $(id)\n")

    async def test_complains(self) -> None:
        """The error has its first complaint."""
        self.be_nft("cat >/dev/null; echo 'Error: no'; echo 'Error: that' >&2; exit 1")
        error = await self.assertFailure(self.run_nft("x\n"), MachineAtFault)
        self.assertEqual(error.chain[1], "Error: that")
