"""The keeper, on a fake machine: what it does for stacks, and after whatever happens to it."""

from itertools import chain, repeat
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred

from tests.fakes import FakeLayers
from tests.services.case import WEB, KeeperCase
from txcontain.engine.manager import Manager
from txcontain.errors import CalledOff, MachineAtFault
from txcontain.host.cgroups import Cgroups
from txcontain.network.network import Network
from txcontain.services import asking
from txcontain.services.stacks import Stacks

FULL = OSError(28, "No space left on device")


class UpTests(KeeperCase):
    """A stack comes up, changes, and goes down."""

    def test_up(self) -> None:
        """What was foreseen is done, and the second time there is nothing to do."""
        services: dict[str, Any] = {
            "app": {**WEB, "after": {"db": "healthy", "job": "completed_successfully"}},
            "db": {"config": "db-1-01"},
            "job": {"config": "job-1-01", "run": "once", "after": {"db": "started"}},
        }
        foreseen = self.up(**services)
        self.advance(1)
        steps = [
            "launch shop-db-1, of db-1-01",
            "launch shop-job-1, of job-1-01",
            "launch shop-app-1, of web-1-01",
        ]
        self.assertEqual((foreseen, self.take_steps()), (steps, steps))
        self.assertEqual(set(self.services().values()), {"done"})
        self.assertEqual(self.up(**services), [])
        self.advance(60)
        self.assertEqual(self.take_steps(), [])

    def test_down_at_once(self) -> None:
        """What is unpacking when its stack goes down is removed once, when it is there."""
        unpacked: Deferred[str] = Deferred()

        async def get(layers: FakeLayers, folder: str, name: str) -> str:
            return await unpacked

        self.patch(FakeLayers, "get", get)
        self.up(db=WEB)
        self.advance(1)
        self.now(asking.down(self.keeper, "shop"))
        self.advance(10)
        self.assertEqual(self.take_steps(), ["launch shop-db-1, of web-1-01"])
        unpacked.callback("/layer")
        self.advance(10)
        self.assertEqual(self.take_steps(), ["remove shop-db-1"])
        self.assertEqual((self.manager.instances, self.keeper.wished), ({}, {}))
        self.flushLoggedErrors(CalledOff)


class FailureTests(KeeperCase):
    """What fails again and again."""

    def told(self, text: str) -> list[str]:
        """The events of stacks and services that have a text in them."""
        return [
            f"{event['what']}: {event['reason']}"
            for event in self.manager.journal.since(0)
            if event["what"] in ("stack", "service") and text in event["reason"]
        ]

    def test_launch(self) -> None:
        """Why no launch works is told once, and shown with the service until one does."""
        self.up(a=WEB)
        self.advance(1)
        self.layers.missing = ["basefs.tar.gz"]
        self.now(self.manager.destroy("shop-a-1"))
        self.advance(300)
        self.assertEqual(len(self.told("launching fails: there is no basefs.tar.gz")), 1)
        self.assertEqual(len(self.told("launch shop-a-1")), 2)
        self.assertEqual(len(self.told("there is no basefs")), 1)
        shown = "done: there is no basefs.tar.gz in base_images/"
        self.assertEqual(self.services(), {"shop-a": shown})
        self.layers.missing = []
        self.advance(60)
        self.assertEqual(self.services(), {"shop-a": "done"})
        self.layers.missing = ["basefs.tar.gz"]
        self.now(self.manager.destroy("shop-a-1"))
        self.advance(300)
        self.assertEqual(len(self.told("launching fails")), 2)

    def test_instance(self) -> None:
        """Why a container can't be made is told once for the instance that it was to be, too."""
        with mock.patch.object(Cgroups, "limit", side_effect=FULL):
            self.up(a=WEB)
            self.advance(30)
        told = [one for one in self.events() if "No space left" in one]
        self.assertEqual([one.partition(":")[0] for one in told], ["refused", "service"])
        self.assertEqual(self.told("failed"), ["service: failed"])

    def test_bug(self) -> None:
        """After a failure that no one has foreseen there is a pause too, longer each time."""
        launch = mock.AsyncMock(side_effect=KeyError("x"))
        with mock.patch.object(Manager, "launch_as_asked", launch):
            self.up(a=WEB)
            self.advance(30)
        self.assertEqual(launch.call_count, 5)  # after 0, 1, 3, 7 and 15 s
        self.assertEqual(len(self.told("launching fails: the manager has a bug: KeyError")), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertRegex(self.services()["shop-a"], "^failed: the manager has a bug")
        self.advance(60)
        self.assertEqual(self.services(), {"shop-a": "done"})

    def test_keeping(self) -> None:
        """That the disk takes nothing is told once, until it does."""
        with mock.patch.object(Stacks, "keep", side_effect=chain([None], repeat(FULL))):
            self.up(a=WEB)
            self.advance(20)
        self.assertEqual(len(self.told("keeping what is wished fails: keeping the stack shop")), 1)
        self.advance(5)
        self.assertEqual(self.services(), {"shop-a": "done"})
        with mock.patch.object(Stacks, "remove", side_effect=FULL):
            self.now(asking.down(self.keeper, "shop"))
            self.advance(20)
        self.assertEqual(len(self.told("removing the stack shop")), 1)

    def test_leading(self) -> None:
        """That nothing can lead to a service is told once, and is tried again."""
        self.add(name="net")
        serve = mock.AsyncMock(side_effect=MachineAtFault("changing the packet filter by nft"))
        with mock.patch.object(Network, "serve", serve):
            self.up(a={"config": "net-1-01", "replicas": 1})
            self.advance(20)
        self.assertIn(serve.call_count, range(6, 15))  # every two seconds, for two routes
        self.assertEqual(len(self.told("leading names and ports to it fails: changing")), 1)
        self.advance(5)
        self.assertEqual(self.manager.network.find("a.shop"), self.manager.network.find("a"))
        self.assertTrue(self.manager.network.find("a"))

    def test_removal(self) -> None:
        """Why an instance can't be removed is told once."""
        self.up(a=WEB)
        self.advance(1)
        destroy = mock.AsyncMock(side_effect=MachineAtFault("ending it"))
        with mock.patch.object(Manager, "destroy", destroy):
            self.now(asking.down(self.keeper, "shop"))
            self.advance(20)
        self.assertGreater(destroy.call_count, 5)
        self.assertEqual(self.told("removing fails"), ["service: removing fails: ending it"])
        self.advance(5)
        self.assertEqual(self.keeper.wished, {})
