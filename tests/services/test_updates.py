"""Updates: what becomes of those that fail, and of a manager that is killed in the middle."""

from collections.abc import Callable
from typing import Any

from attrs import evolve

from tests.services.case import WEB, KeeperCase
from txcontain.runtime.instance import Instance
from txcontain.runtime.prober import Prober
from txcontain.runtime.probes import Told, nothing
from txcontain.services import asking
from txcontain.services.decide import OVER, REMOVING, Now, Seen, decide, outcome
from txcontain.services.steps import GiveUp
from txcontain.services.wish import UPDATING

THREE = {**WEB, "replicas": 3}


def updated(minor: str = "02", **policy: Any) -> dict[str, Any]:
    """The service with another version, and with what its updates are like."""
    return {**THREE, "config": f"web-1-{minor}", "update": policy}


class FailureTests(KeeperCase):
    """New instances that are no good."""

    def setUp(self) -> None:
        super().setUp()
        self.up(a=THREE)
        self.advance(1)
        self.take_steps()

    def update(self, **policy: Any) -> None:
        """Begin an update, and let the first new instance run."""
        self.up(a=updated(**policy))
        self.advance(0.1)

    def newest(self) -> str:
        """The name of the instance that was launched last."""
        return list(self.manager.instances)[-1]

    def configs(self) -> list[str]:
        """The versions that run."""
        running = self.manager.running()
        return sorted(one.spec.minor for one in running)

    def test_ends(self) -> None:
        """If a new instance ends, the update is rolled back, and the old ones serve again."""
        for order in ("stop-first", "start-first"):
            self.update(order=order)
            self.end(self.newest())
            self.advance(10)
            self.assertEqual(self.configs(), ["01"] * 3, order)
            said = self.services()["shop-a"]
            self.assertRegex(said, r"^rolled back: shop-a-\d ended: exit status 1$")
            self.assertEqual(self.up(a=THREE), [])
        told = [event for event in self.manager.journal.since(0) if event["what"] == "rolled back"]
        self.assertEqual([event["service"] for event in told], ["a", "a"])
        self.assertRegex(told[0]["reason"], r"^a of shop, to web-1-01: shop-a-\d ended")

    def test_back(self) -> None:
        """An update back to a version that was good before is watched, and rolled back."""
        self.up(a=updated())
        self.advance(30)
        self.assertEqual((self.configs(), self.services()), (["02"] * 3, {"shop-a": "done"}))
        for go_back in (
            lambda: self.now(asking.rollback(self.keeper, "a")),
            lambda: self.now(asking.update(self.keeper, "a", "1", "01")),
        ):
            go_back()
            self.advance(4)
            self.assertEqual(self.configs(), ["01", "02", "02"])
            self.end(self.newest())
            self.advance(0.1)
            self.assertRegex(self.services()["shop-a"], "^roll(ing|ed) back: shop-a-1 ended")
            self.advance(5)
            self.assertEqual(self.configs(), ["02"] * 3)
        go_back()
        self.advance(30)
        self.assertEqual((self.configs(), self.services()), (["01"] * 3, {"shop-a": "done"}))

    def test_can_not_be_launched(self) -> None:
        """If one can't be launched, the update is rolled back at once."""
        self.layers.missing = ["new.tar"]
        self.add(name="web", minor="04", base_image="new.tar", network="host")
        self.up(a=updated("04", order="start-first"))
        self.advance(2)
        self.assertEqual(self.configs(), ["01"] * 3)
        self.assertEqual(
            self.services()["shop-a"], "rolled back: there is no new.tar in base_images/"
        )
        self.flushLoggedErrors()

    def test_deadline(self) -> None:
        """If one never serves, the update is rolled back at its deadline."""
        self.add(name="web", minor="05", network="private", startup_env="PORT=80")
        self.up(a=updated("05", order="start-first", healthy_deadline=20))
        self.advance(19)
        self.assertEqual(self.services(), {"shop-a": "updating"})
        self.advance(2)
        self.assertRegex(self.services()["shop-a"], "does not serve within 20 s$")
        self.assertEqual(self.configs(), ["01"] * 3)

    def test_unhealthy(self) -> None:
        """If one is unhealthy, the update is rolled back, and says what its check was answered."""

        def ask(_: Prober, instance: Instance, told: Told) -> Callable[[], None]:
            told(False, "HTTP/1.1 500 No secret")
            return nothing

        self.patch(Prober, "ask", ask)
        for action in ("restart", "stop", "none"):
            health = {"http": "/", "port": 80, "interval": 1, "retries": 2, "on_failure": action}
            self.up(a={**updated(order="start-first"), "health": health})
            self.advance(5)
            self.assertEqual(self.configs(), ["01"] * 3, action)
            said = "is unhealthy: 2 checks in a row have failed; GET / on port 80: HTTP/1.1 500"
            self.assertIn(said, self.services()["shop-a"], action)

    def test_pause(self) -> None:
        """With pause, nothing more is done until a person asks for something."""
        self.update(order="start-first", failure_action="pause")
        self.end(self.newest())
        self.advance(30)
        self.assertEqual(self.configs(), ["01"] * 3 + ["02"])
        self.assertRegex(self.services()["shop-a"], "^paused: ")
        self.now(asking.rollback(self.keeper, "a"))
        self.advance(10)
        self.assertEqual((self.configs(), self.services()), (["01"] * 3, {"shop-a": "done"}))

    def test_dies_while_it_drains(self) -> None:
        """An old instance that ends while its connections are waited for is no failure."""
        self.patch(self.manager.network, "flows_to", lambda address: 1)
        self.add(name="net", network="private")
        self.add(name="net", network="private", minor="02")
        for order in ("stop-first", "start-first"):
            app = {**THREE, "drain": 60, "update": {"order": order, "monitor": 0}}
            self.up("two", b={**app, "config": "net-1-01"})
            self.advance(200)
            self.up("two", b={**app, "config": "net-1-02"})
            self.advance(1)
            leaving = self.keeper.sight.leaving
            self.assertEqual(list(leaving.values()), ["withdrawing"], order)
            self.end(*leaving)
            self.advance(200)
            self.assertEqual(self.services()["two-b"], "done", order)
            self.assertEqual(self.configs(), ["01"] * 3 + ["02"] * 3)

    def test_continue(self) -> None:
        """With continue, and with a ratio that is not exceeded, the update goes on."""
        for policy in ({"failure_action": "continue"}, {"max_failure_ratio": 0.4}):
            self.update(**policy)
            self.end(self.newest())
            self.advance(60)
            self.assertEqual((self.configs(), self.services()), (["02"] * 3, {"shop-a": "done"}))
            self.now(asking.rollback(self.keeper, "a"))
            self.advance(30)

    def test_first_version(self) -> None:
        """If there is nothing to go back to, the service has failed, and is tried again."""
        self.layers.missing = ["new.tar"]
        self.add(name="web", minor="04", base_image="new.tar", network="host")
        self.up("two", b={"config": "web-1-04"}, c={**WEB, "after": {"b": "started"}})
        settled = self.keeper.settled("two", ["b", "c"])
        self.advance(2)
        self.assertEqual(len(self.successResultOf(settled)), 2)
        self.assertRegex(self.services()["two-b"], "^failed: there is no new.tar")
        self.layers.missing = []
        self.advance(70)
        self.assertEqual((self.services()["two-b"], self.services()["two-c"]), ("done", "done"))
        self.flushLoggedErrors()

    def test_others_go_back_too(self) -> None:
        """Those that come after a service, and were to be updated with it, go back with it."""
        app = {**WEB, "after": {"db": "healthy"}}
        self.up("two", db=WEB, app=app)
        self.advance(1)
        new = {"config": "web-1-02"}
        self.up("two", db={**WEB, **new}, app={**app, **new})
        self.advance(0.1)
        self.end("two-db-1")
        self.advance(10)
        told = [one for one in self.services().items() if one[0] != "shop-a"]
        self.assertEqual([state.partition(":")[0] for _, state in told], ["rolled back"] * 2)
        self.assertEqual(self.configs(), ["01"] * 5)

    def test_leaving(self) -> None:
        """One that has ended since it is being removed, as after a scale, is no failure."""
        wished, seen = self.keeper.wished["shop"], self.keeper.sight.see("shop")
        wished = wished.having(evolve(wished.services["a"], state=UPDATING))
        ended = evolve(seen.replicas[-1], state=OVER, serves=False, fault="ended: exit status 0")
        for leaving, steps in (("", [GiveUp("a", f"{ended.name} {ended.fault}")]), (REMOVING, [])):
            replicas = (*seen.replicas[:-1], evolve(ended, leaving=leaving))
            looked = decide(wished, Seen(replicas), self.keeper.sight.now())
            self.assertEqual(looked, steps)

    def test_outcome(self) -> None:
        """Whoever waits for an update is told once, and why it was rolled back."""
        self.update()
        settled = self.keeper.settled("shop", ["a"])
        self.advance(1)
        self.assertNoResult(settled)
        self.end(self.newest())
        self.advance(20)
        (said,) = self.successResultOf(settled)
        self.assertRegex(said, "^a: rolled back: shop-a-1 ended")
        gone = self.keeper.settled("shop", ["a"])
        gone.addErrback(lambda _: None)
        gone.cancel()
        wished = self.keeper.wished["shop"]
        self.assertEqual(outcome(wished, Seen(), Now(0, 0), ["a"]), [said])


class KilledTests(KeeperCase):
    """A manager that is killed, at whatever moment of a change."""

    CHANGES: tuple[Any, ...] = (
        {"a": updated(monitor=1)},
        {"a": updated(order="start-first", parallelism=2, monitor=1)},
        {"a": {**WEB, "replicas": 1}},
        {"a": {**WEB, "replicas": 5}},
        {"b": WEB},
        {"a": THREE, "b": {**WEB, "run": "once", "after": {"a": "healthy"}}},
    )

    def test_any_moment(self) -> None:
        """The next manager goes on, and all comes to what was wished."""
        for change in self.CHANGES:
            for moment in (0, 1, 2, 4, 30, 34):
                self.setUp()
                self.up(a=THREE)
                self.advance(1)
                self.up(**change)
                for _ in range(moment % 30):
                    self.reactor.advance(0.001 if moment < 30 else 0.4)
                self.restart()
                self.advance(30)
                self.assertEqual({*self.services().values()}, {"done"}, (change, moment))
                self.assertEqual(self.up(**change), [])
                wanted = sum(one.get("replicas", 1) for one in change.values())
                self.assertEqual(len(self.manager.instances), wanted, (change, moment))

    def test_rollback(self) -> None:
        """One that is killed while it rolls back goes on with that."""
        self.up(a=THREE)
        self.advance(1)
        self.up(a=updated())
        self.advance(0.1)
        self.end("shop-a-1")
        self.restart()
        self.advance(20)
        self.assertRegex(self.services()["shop-a"], "^rolled back: ")

    def test_down(self) -> None:
        """One that is killed while it takes a stack down goes on with that."""
        self.up(a=THREE, b={**WEB, "after": {"a": "started"}})
        self.advance(1)
        self.now(asking.down(self.keeper, "shop"))
        self.restart()
        self.advance(10)
        self.assertEqual((self.states(), self.keeper.wished), ({}, {}))

    def test_reboot(self) -> None:
        """After a reboot services start in their order, and a job does not run again."""
        job = {**WEB, "run": "once"}
        self.up(db=WEB, app={**WEB, "after": {"db": "healthy"}}, job=job)
        self.advance(1)
        self.take_steps()
        self.boot()
        self.restart()
        self.advance(5)
        self.assertEqual(self.take_steps(), ["start shop-db-1", "start shop-app-1"])
        states = {"shop-db-1": "running", "shop-app-1": "running", "shop-job-1": "ended"}
        self.assertEqual(self.states(), states)

    def test_damaged(self) -> None:
        """A file that can't be used is set aside, and the others are kept."""
        self.up(a=THREE)
        self.advance(1)
        with open(f"{self.folder}/stacks/bad.json", "w") as file:
            file.write('{"stack": "bad"}')
        self.restart()
        self.assertEqual(list(self.keeper.wished), ["shop"])
        self.assertEqual([name[:9] for name in self.folders("aside")], ["bad.json-"])


class PersonTests(KeeperCase):
    """What people do to instances of services."""

    def test_stopped(self) -> None:
        """One that is stopped is started again, and one that is destroyed is replaced."""
        self.up(a=THREE)
        self.advance(1)
        self.take_steps()
        self.now(self.manager.destroy("shop-a-2"))
        self.advance(1)
        self.assertEqual(self.take_steps(), ["launch shop-a-2, of web-1-01"])

    def test_restarts(self) -> None:
        """One that ends by itself is its restart policy's."""
        self.up(a=WEB)
        self.advance(1)
        self.take_steps()
        self.end("shop-a-1")
        self.advance(1)
        self.assertEqual((self.take_steps(), self.states()), ([], {"shop-a-1": "running"}))
