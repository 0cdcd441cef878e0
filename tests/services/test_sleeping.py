"""Services that run only while someone is connected, and those with an instance for each."""

from __future__ import annotations

import errno
import math
import socket
from typing import Any

from twisted.internet.defer import Deferred

from tests.services.case import KeeperCase
from txcontain.network.doorways import WAIT_WITHIN
from txcontain.services import asking
from txcontain.services.sleeping import LOOK_AFTER

PORTS = ["80:8000"]


class DemandCase(KeeperCase):
    """A service on demand, on a machine whose connections a test tells."""

    network = None

    def setUp(self) -> None:
        super().setUp()
        self.quiet = math.inf
        self.manager.network.quiet = lambda address: self.quiet
        self.doorways: Any = self.manager.network.doorways
        self.add(name="each", minor="01", network="none", command=["cat"])

    def names(self) -> list[str]:
        """The instances of services."""
        return [one.name for one in self.manager.instances.values() if one.labels.get("stack")]

    def knock(self) -> None:
        """Someone waits at a port."""
        self.doorways.knocked("shop-web")
        self.advance(0.1)

    def wait(self, seconds: float) -> None:
        """Let time pass, and look often."""
        for _ in range(int(seconds / LOOK_AFTER) + 1):
            self.advance(LOOK_AFTER)


class DemandTests(DemandCase):
    """on_demand."""

    def setUp(self) -> None:
        super().setUp()
        self.steps = self.up(
            web={"config": "web-1-01", "ports": PORTS, "on_demand": {"idle": 10}, "drain": 0}
        )
        self.advance(1)

    def test_asleep(self) -> None:
        """Nothing is launched, and that was foreseen; its port is there."""
        self.assertEqual((self.steps, self.names()), ([], []))
        self.assertEqual([*self.doorways.wanted], ["127.0.0.1:80"])

    def test_woken(self) -> None:
        """Whoever knocks wakes it; without a connection it sleeps again, after so many seconds."""
        for _ in range(2):
            self.knock()
            self.assertEqual(self.names(), ["shop-web-1"])
            self.wait(8)
            self.assertEqual(self.names(), ["shop-web-1"])
            self.wait(6)
            self.assertEqual(self.names(), [])

    def test_connected(self) -> None:
        """While someone is connected, or was lately, it stays awake."""
        self.knock()
        for quiet in (0.0, 0.0, 5.0):
            self.quiet = quiet
            self.wait(20)
            self.assertEqual(self.names(), ["shop-web-1"])
        self.quiet = 12.0
        self.wait(12)
        self.assertEqual(self.names(), [])

    def test_kernel_does_not_tell(self) -> None:
        """If the kernel can't be asked, it stays awake."""
        self.knock()

        def fail(address: Any) -> float:
            raise OSError(errno.EPERM, "no")

        self.manager.network.quiet = fail
        self.wait(30)
        self.assertEqual(self.names(), ["shop-web-1"])

    def test_slow_look(self) -> None:
        """While a look at the connections takes long, another one is not begun."""
        self.knock()
        looks: list[Deferred[float]] = []
        network: Any = self.manager.network
        network.threads = lambda look, address: looks.append(Deferred()) or looks[-1]
        self.advance(LOOK_AFTER)
        self.knock()
        self.wait(3 * LOOK_AFTER)
        self.assertEqual(len(looks), 1)
        looks.pop().callback(0.0)
        self.advance(LOOK_AFTER)
        self.assertEqual(len(looks), 1)

    def test_someone_waits(self) -> None:
        """While someone waits it does not sleep, whatever keeps it from serving."""
        self.knock()
        self.doorways.waited_for.add("shop-web")
        self.wait(WAIT_WITHIN + 20)
        self.assertEqual(self.names(), ["shop-web-1"])

    def test_next_manager(self) -> None:
        """After a restart of the manager those are awake that have an instance."""
        self.knock()
        self.keeper.sleeping.awake.clear()
        self.keeper.sleeping.start()
        self.advance(1)
        self.assertEqual(self.names(), ["shop-web-1"])
        self.wait(14)
        self.assertEqual(self.names(), [])

    def test_came_back(self) -> None:
        """Who connects just as it is about to sleep finds it awake."""
        self.knock()
        self.assertFalse(self.keeper.sleeping.came_back("shop", "web"))
        self.keeper.sleeping.awake.clear()
        self.assertTrue(self.keeper.sleeping.came_back("shop", "web"))
        self.assertFalse(self.keeper.sleeping.came_back("shop", "other"))

    def test_down(self) -> None:
        """Whoever waits until it is gone is told when nothing leads to it any more."""
        gate = Deferred[None]()

        async def run(script: str) -> None:
            await gate

        self.manager.network.firewall.run = run
        self.now(asking.down(self.keeper, "shop"))
        gone = self.keeper.settled("shop", ["web"])
        self.advance(1)
        self.assertNoResult(gone)
        gate.callback(None)
        self.advance(1)
        self.successResultOf(gone)

    def test_not_on_demand_any_more(self) -> None:
        """If it is to run always, it does, and no one looks who is connected."""
        self.knock()
        self.up(web={"config": "web-1-01", "ports": PORTS})
        self.wait(30)
        self.assertEqual((self.names(), self.keeper.sleeping.awake), (["shop-web-1"], {}))

    def test_unknown(self) -> None:
        """A knock at the port of a service that is no more wakes none."""
        self.doorways.knocked("shop-none")
        self.advance(1)
        self.assertEqual(self.names(), [])


class ConnectionTests(DemandCase):
    """per_connection."""

    def setUp(self) -> None:
        super().setUp()
        self.up(web={"config": "each-1-01", "ports": PORTS, "per_connection": True})
        self.advance(1)

    def connect(self) -> tuple[socket.socket, Deferred[None]]:
        """A client; and what fires when its connection has been taken care of."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            connection, _ = listener.accept()
        self.addCleanup(client.close)
        self.addCleanup(connection.close)
        carry, _ = self.doorways.carried["shop-web"]
        carried = Deferred.fromCoroutine(carry(connection))
        self.pump()
        return client, carried

    def test_launched(self) -> None:
        """Each has an instance with the service's labels, without a network, that is removed."""
        self.connect()
        (instance,) = [one for one in self.manager.instances.values() if one.labels]
        labels = {key: instance.labels[key] for key in ("stack", "service")}
        self.assertEqual(labels, {"stack": "shop", "service": "web"})
        self.assertEqual((instance.spec.network, instance.remove), ("none", True))
        names = [name for name, _ in instance.spec.startup_env]
        self.assertEqual(names[-2:], ["REMOTE_ADDR", "REMOTE_PORT"])

    def test_replaced(self) -> None:
        """If the service has replicas instead, connections are handed on to them."""
        self.up(web={"config": "web-1-01", "ports": PORTS})
        self.advance(1)
        self.assertEqual(self.doorways.carried, {})
        self.assertEqual(self.names(), ["shop-web-1"])
        self.up(web={"config": "each-1-01", "ports": PORTS, "per_connection": True})
        self.advance(20)
        self.assertEqual(([*self.doorways.carried], self.names()), (["shop-web"], []))

    def test_gone(self) -> None:
        """If the service is gone, so is what takes care of its connections."""
        self.now(self.keeper._drop("shop-web"))
        self.assertEqual(self.doorways.carried, {})
