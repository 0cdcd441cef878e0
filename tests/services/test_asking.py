"""What can be asked of stacks and services, and what is refused."""

from unittest import mock

from tests.services.case import WEB, KeeperCase
from txcontain.errors import (
    Ambiguous,
    ConfigAtFault,
    InUse,
    InvalidData,
    MachineAtFault,
    NoSuchConfig,
    NoSuchService,
    NoSuchStack,
    TooMany,
    WrongState,
)
from txcontain.network import firewall
from txcontain.network.firewall import find_nft
from txcontain.services import asking
from txcontain.services.stacks import Stacks

ONCE = {**WEB, "run": "once"}


class Refusals(KeeperCase):
    """What is refused, before anything is done."""

    def refused_up(self, kind: type[Exception], stack: str = "shop", **services: object) -> str:
        """Why a stack is refused."""
        document = {"stack": stack, "services": services}
        return str(self.refused(asking.up(self.keeper, document), kind))

    def test_one_host(self) -> None:
        """A service can't choose among hosts where there is one, and it is said what to do."""
        for key, value in (("placement", {"node.role": "worker"}), ("spread", "node.labels.zone")):
            said = self.refused_up(ConfigAtFault, a={**WEB, key: value})
            self.assertIn(f"services.a.{key}: this manager has one host → leave it out", said)

    def test_too_many(self) -> None:
        """There are only so many stacks."""
        self.patch(asking, "MOST_STACKS", 1)
        self.up(a=ONCE)
        said = self.refused_up(TooMany, "two", b=WEB)
        self.assertEqual(said, "there are 1 stacks already → take one down")
        self.up(a=ONCE)

    def test_going_down(self) -> None:
        """A stack that is being taken down can't be changed until it is gone."""
        self.up(a=WEB)
        self.advance(1)
        self.reactor.works = False
        self.init.stuck = True
        self.now(asking.down(self.keeper, "shop"))
        self.refused_up(InUse, a=WEB)
        self.refused(asking.scale(self.keeper, "a", 2), WrongState)
        self.assertEqual(self.services(), {"shop-a": "going down"})

    def test_jobs(self) -> None:
        """A job has no replicas, and can't be rolled back."""
        self.up(a=ONCE)
        self.refused(asking.scale(self.keeper, "a", 2), WrongState)
        self.refused(asking.rollback(self.keeper, "a"), WrongState)

    def test_nothing_before(self) -> None:
        """The first revision can't be rolled back."""
        self.up(a=WEB)
        self.refused(asking.rollback(self.keeper, "a"), WrongState)

    def test_names(self) -> None:
        """A service is found by its own name, if no other stack has it, or by its full name."""
        self.up(a=WEB)
        self.up("two", a=WEB, b=WEB)
        self.refused(asking.scale(self.keeper, "a", 2), Ambiguous)
        for name in ("b", "two-b", "shop-a"):
            self.now(asking.scale(self.keeper, name, 0))

    def test_unknown(self) -> None:
        """What there is not is not found."""
        self.refused(asking.down(self.keeper, "shop"), NoSuchStack)
        self.refused(asking.scale(self.keeper, "a", 2), NoSuchService)
        said = self.refused_up(NoSuchConfig, a={"config": "none-1-2"})
        self.assertEqual(
            said, "services.a.config: there is no config none-1-2.cfg → upload it first"
        )
        self.assertEqual(self.keeper.wished, {})
        self.up(web=WEB)
        error = self.refused(asking.down(self.keeper, "shpo"), NoSuchStack)
        self.assertEqual(error.chain, ("there is no stack shpo", "did you mean shop?"))
        for name, similar in (("wbe", "web"), ("shop-wbe", "shop-web")):
            error = self.refused(asking.scale(self.keeper, name, 2), NoSuchService)
            self.assertEqual(error.chain[1:], (f"did you mean {similar}?",))

    def test_unknown_version(self) -> None:
        """An update to a version that there is not is told which there are."""
        self.up(a=WEB)
        newest = "upload it first, or take one of the newest versions that there are: {}"
        for minors, told in (((), "1 03, 1 02, 1 01"), ((4, 5, 6), "1 6, 1 5, 1 4, 1 03, 1 02")):
            for minor in minors:
                self.add(minor=str(minor))
            error = self.refused(asking.update(self.keeper, "a", "x", "y"), NoSuchConfig)
            self.assertEqual(error.chain, ("there is no config web-x-y.cfg", newest.format(told)))
        for name in self.manager.configs.names():
            self.manager.configs.remove(name)
        error = self.refused(asking.update(self.keeper, "a", "x", "y"), NoSuchConfig)
        self.assertEqual(error.chain[1], "upload it first")

    def test_meanwhile(self) -> None:
        """What was decided on what is not wished any more is not done."""
        first = self.now(asking.plan(self.keeper, {"stack": "shop", "services": {"a": WEB}}))
        self.up(b=WEB)
        self.refused(asking._go_on(self.keeper, first), InUse)

    def test_beside_others(self) -> None:
        """No two stacks have a full name or a port in common; services may have the same name."""
        private = {"config": "net-1-01", "ports": ["80:1"]}
        self.add(name="net")
        self.up("shop-a", b=private)
        for stack, services in (("shop", {"a-b": WEB}), ("two", {"c": private})):
            self.refused_up(ConfigAtFault, stack, **services)
        self.up("two", B={**private, "ports": []} | {"replicas": 1})

    def test_taken_port(self) -> None:
        """A port that an instance or another program has is refused."""
        self.add(name="net")
        self.launch(name="other", network="private", ports=["80:1"])
        self.refused_up(ConfigAtFault, a={"config": "net-1-01", "ports": ["80:1"]})
        self.kernel.listening[81] = 1
        self.refused_up(ConfigAtFault, a={"config": "net-1-01", "ports": ["81:1"]})
        self.refused_up(InvalidData, a={"config": "net-1-01", "ports": ["82:1"]}, b={})

    def test_no_nft(self) -> None:
        """On a host without nft, a service that needs it is refused before anything is done."""
        self.add(name="net")
        self.patch(self.manager.network, "find_nft", find_nft)
        self.patch(firewall, "PATH", "/no/folder")
        for service in ({"ports": ["80:1"]}, {"replicas": 2}):
            said = self.refused_up(MachineAtFault, a=WEB, b={"config": "net-1-01", **service})
            self.assertEqual(
                said,
                "services.b: leading names and ports to containers on the private network → "
                "the program nft is missing → install the package nftables",
            )
        self.assertEqual((self.keeper.wished, self.take_steps()), ({}, []))
        self.assertEqual(len(self.up(a=WEB)), 1)

    def test_full_disk(self) -> None:
        """What can't be kept is not begun; what can't be removed is tried again."""
        full = mock.Mock(side_effect=OSError(28, "No space left on device"))
        with mock.patch.object(Stacks, "keep", full):
            said = self.refused_up(MachineAtFault, a=WEB)
        self.assertIn("keeping the stack shop → ", said)
        self.assertEqual((self.keeper.wished, self.take_steps()), ({}, []))
        self.up(a=WEB)
        self.advance(1)
        with mock.patch.object(Stacks, "remove", full):
            self.now(asking.down(self.keeper, "shop"))
            self.advance(10)
            self.assertIn("shop", self.keeper.wished)
        self.advance(10)
        self.assertEqual((self.keeper.wished, self.folders("instances")), ({}, []))
        self.flushLoggedErrors()


class Verbs(KeeperCase):
    """Scale, update, rollback, down."""

    def test_scale(self) -> None:
        """Another number of instances changes none of those that stay."""
        self.up(a={**WEB, "replicas": 2})
        self.advance(1)
        self.take_steps()
        self.now(asking.scale(self.keeper, "a", 3))
        self.advance(1)
        self.now(asking.scale(self.keeper, "shop-a", 1))
        self.advance(1)
        first, *then = self.take_steps()
        gone = [f"{what} shop-a-{n}" for what in ("remove", "withdraw") for n in (2, 3)]
        self.assertEqual((first, sorted(then)), ("launch shop-a-3, of web-1-01", gone))
        self.assertEqual(self.up(a={**WEB, "replicas": 1}), [])

    def test_update_and_rollback(self) -> None:
        """An update replaces what there is; a rollback needs not be told to what."""
        self.up(a=WEB)
        self.advance(1)
        self.take_steps()
        for verb in (asking.update(self.keeper, "a", "1", "02"), asking.rollback(self.keeper, "a")):
            self.now(verb)
            self.advance(10)
        steps = ["withdraw shop-a-1", "remove shop-a-1", "launch shop-a-1, of web-1-{}"]
        wanted = [step.format(minor) for minor in ("02", "01") for step in steps]
        self.assertEqual(self.take_steps(), wanted)
        self.assertEqual(self.services(), {"shop-a": "done"})

    def test_why(self) -> None:
        """What is wrong with an instance is told with its service, as long as it is."""
        self.up(a={**WEB, "replicas": 2})
        self.advance(1)
        self.assertEqual(self.services(), {"shop-a": "done"})
        self.end("shop-a-2", "Done(3)")
        self.assertEqual(self.services(), {"shop-a": "done: shop-a-2 ended: exit status 3"})
        self.advance(60)
        self.assertEqual(self.services(), {"shop-a": "done"})

    def test_down(self) -> None:
        """Those that others depend on go last, and then nothing is left."""
        self.up(db=WEB, app={**WEB, "after": {"db": "healthy"}})
        self.advance(1)
        self.take_steps()
        planned = self.now(asking.down(self.keeper, "shop"))
        self.advance(5)
        steps = [
            f"{what} shop-{name}-1" for name in ("app", "db") for what in ("withdraw", "remove")
        ]
        self.assertEqual((self.take_steps(), [str(step) for step in planned.steps]), (steps, steps))
        self.assertEqual((self.states(), self.folders("stacks")), ({}, []))
        keeper = self.keeper
        kept = keeper._timers, keeper._locks, keeper._routes, keeper._waiting, keeper.sight._serving
        self.assertEqual(kept, ({},) * 5)
