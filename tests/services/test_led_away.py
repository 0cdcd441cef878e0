"""Connections are led away from an instance before it ends, also where nft fails for a while."""

import re

from tests.services.case import WEB, KeeperCase
from txcontain.engine.life import pause
from txcontain.engine.manager import Manager
from txcontain.errors import MachineAtFault
from txcontain.runtime.instance import Instance


class LedAwayTests(KeeperCase):
    """No one who connects is led to an instance that is about to end."""

    network = None

    def setUp(self) -> None:
        super().setUp()
        self.works, self.scripts = True, 0
        self.led: set[str] = set()  # the addresses that ports lead to
        self.manager.network.firewall.run = self.filter
        self.up(web={**WEB, "ports": ["80:8000"], "replicas": 3, "drain": 0})
        self.advance(1)
        self.addresses = {one.name: one.address for one in self.manager.instances.values()}
        self.assertEqual(self.led, {*self.addresses.values()})

    async def filter(self, script: str) -> None:
        """What nft does of a script; or it fails."""
        self.scripts += 1
        if not self.works:
            raise MachineAtFault("nft", "failed")
        self.led = set(re.findall(r"(10\.87\.0\.\d) \. 8000", script))

    def led_as_they_ended(self) -> list[bool]:
        """Have the test know of those that end: whether connections were still led there."""
        told: list[bool] = []
        stop = Manager._stop

        async def look_and_stop(manager: Manager, instance: Instance) -> None:
            told.append(self.addresses[instance.name] in self.led)
            await stop(manager, instance)

        self.patch(Manager, "_stop", look_and_stop)
        return told

    def scale(self, replicas: int) -> None:
        """Wish for fewer."""
        self.up(web={**WEB, "ports": ["80:8000"], "replicas": replicas, "drain": 0})

    def test_fewer(self) -> None:
        """Those that are too many end when nothing leads to them any more."""
        told = self.led_as_they_ended()
        self.scale(1)
        self.advance(5)
        self.assertEqual((told, len(self.led)), ([False, False], 1))

    def test_update(self) -> None:
        """So do those that are replaced."""
        told = self.led_as_they_ended()
        service = {"config": "web-1-02", "ports": ["80:8000"], "replicas": 3, "drain": 0}
        self.up(web={**service, "update": {"order": "start-first", "monitor": 0}})
        self.advance(5)
        self.assertEqual((told, len(self.led)), ([False] * 3, 3))

    def test_by_a_person(self) -> None:
        """So does one that a person destroys."""
        told = self.led_as_they_ended()
        self.now(self.manager.destroy("shop-web-1"))
        self.assertEqual(told, [False])

    def test_nft_fails(self) -> None:
        """As long as they can't be led away from, none of a service ends."""
        told = self.led_as_they_ended()
        self.works, before = False, self.scripts
        self.scale(1)
        self.advance(60)
        self.assertEqual(told, [])
        self.assertLess(self.scripts - before, 200)  # it is not tried all the time
        self.works = True
        self.advance(5)
        self.assertEqual((told, len(self.led)), ([False, False], 1))

    def test_nft_fails_before(self) -> None:
        """So it is with one that serves no more, but which nft could not lead away from."""
        told = self.led_as_they_ended()
        self.works = False
        self.now(pause(self.manager, self.manager.find("shop-web-1")))
        self.scale(2)
        self.advance(60)
        self.assertEqual(told, [])
        self.works = True
        self.advance(5)
        self.assertEqual((told, len(self.led)), ([False], 2))
