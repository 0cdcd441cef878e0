"""Stacks in a swarm in memory."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.exports.test_documents import subject_of
from tests.exports.test_stacks import BESIDE, OF_UPDATE, VALUES
from tests.support import document
from tests.swarm.docker import task
from tests.swarm.test_swarm import SwarmCase
from txcontain import errors
from txcontain.container.launch_request import LaunchRequest
from txcontain.services.document import KEYS, UPDATE_KEYS
from txcontain.services.revision import make_revision
from txcontain.swarm.means import Means
from txcontain.swarm.stack_mapping import (
    MOST_ENDED,
    REFUSED,
    REVISION,
    check,
    name_of_service,
    read_kept,
    service_of,
    state,
)
from txcontain.swarm.stacks import LOOK_MOST, SETTLES_WITHIN


def stack(**services: Any) -> dict[str, Any]:
    """A stack of web-1-01."""
    asked = {name: {"config": "web-1-01", **keys} for name, keys in services.items()}
    return {"stack": "shop", "services": asked}


def revision_of(**keys: Any) -> Any:
    """A revision of a service."""
    config = document(startup_script="/run.sh")
    return make_revision("app", {"config": "web-1-01", **keys}, config)


class MappingTests(SynchronousTestCase):
    """What is made of a service."""

    def test_every_key(self) -> None:
        """Each key of a service changes what it is in a swarm, or is refused by name."""
        cases = [(key, BESIDE.get(key, {}), {key: VALUES[key]}) for key in KEYS]
        cases += [(f"update.{key}", {}, {"update": {key: OF_UPDATE[key]}}) for key in UPDATE_KEYS]
        for key, beside, change in cases:
            if key in REFUSED:
                with self.assertRaises(errors.ConfigAtFault) as raised:
                    check("app", revision_of(**beside | change))
                self.assertIn(f"{key}: ", str(raised.exception))
            elif key not in ("config", "health"):  # which change the config, and its image
                before, after = revision_of(**beside), revision_of(**beside | change)
                made = [service_of("shop", "app", one, subject_of()) for one in (before, after)]
                for one in made:
                    del one["Labels"]
                self.assertNotEqual(made[0], made[1], f"{key} is kept quiet")

    def test_service(self) -> None:
        """Replicas, names, placement and updates are Docker's; any port of a node leads there."""
        keys: dict[str, Any] = {
            **{"replicas": 3, "ports": ["8000:80", "8001:80"]},
            **{"placement": {"node.labels.disk": "ssd"}, "spread": "node.labels.zone"},
            "update": {"order": "start-first", "parallelism": 2, "failure_action": "pause"},
        }
        made = service_of("shop", "app", revision_of(**keys), subject_of())
        template = made["TaskTemplate"]
        aliases = ["app", "app.shop"]
        self.assertEqual(template["Networks"], [{"Target": "txcontain-shop", "Aliases": aliases}])
        self.assertEqual(
            template["Placement"],
            {
                "Constraints": ["node.labels.disk==ssd"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
            },
        )
        port = {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "host"}
        self.assertEqual(made["EndpointSpec"], {"Mode": "dnsrr", "Ports": [port]})
        update = made["UpdateConfig"]
        told = update["Order"], update["Parallelism"], update["FailureAction"], update["Monitor"]
        self.assertEqual(told, ("start-first", 2, "pause", 5_000_000_000))
        self.assertEqual(template["ContainerSpec"]["Hostname"], "shop-app-{{.Task.Slot}}")

    def test_names(self) -> None:
        """Services that are only alike without what a swarm's names lack have other names."""
        names = {name_of_service(*one) for one in (("a", "b-c"), ("a-b", "c"), ("a", "b_c"))}
        self.assertEqual(len(names), 3)
        for name in (*names, name_of_service("s" * 24, "x" * 32)):
            self.assertRegex(name, "^txs-[a-z0-9-]{1,59}$")

    def test_states(self) -> None:
        """The state is what Docker says of an update, or follows from what runs."""
        made = service_of("shop", "app", revision_of(replicas=1), subject_of())
        revision = made["Labels"][REVISION]

        def of(what: str, which: str = revision, slot: int = 1) -> Any:
            container = {"ContainerSpec": {"Labels": {REVISION: which}}}
            made = {**task("s", what), "Slot": slot, "Spec": container}
            made["Status"]["Timestamp"] = "2026-01-01T00:00:11Z"
            return made

        for update, tasks, wanted in (
            ("", [], "updating"),
            ("", [of("running")], "done"),
            ("", [of("running"), of("running", "other")], "updating"),
            ("", [of("running", "other")], "updating"),
            ("", [of("failed")] * MOST_ENDED, "failed"),
            ("completed", [of("failed")] * MOST_ENDED, "failed"),
            ("", [of("failed")] * MOST_ENDED + [of("running")], "done"),
            ("updating", [of("running")], "updating"),
            ("paused", [of("running")], "paused"),
            ("rollback_started", [of("running")], "rolling back"),
            ("rollback_completed", [of("running")], "rolled back"),
            ("rollback_paused", [], "failed"),
            ("of another version", [of("running")], "updating"),
        ):
            told = {"ID": "s", "Spec": made, "CreatedAt": "", "UpdateStatus": {"State": update}}
            (kept,) = read_kept([{**told, "UpdatedAt": "2026-01-01T00:00:00Z"}], tasks)
            self.assertEqual(state(kept), wanted, (update, len(tasks)))
        (kept,) = read_kept(
            [{**told, "UpdateStatus": None, "UpdatedAt": "2026-01-01T00:00:02Z"}],
            [of("failed")] * MOST_ENDED,
        )
        self.assertEqual(state(kept), "updating")  # not for long yet


class StackTests(SwarmCase):
    """What is asked of them."""

    def setUp(self) -> None:
        super().setUp()
        for minor in ("01", "02"):
            self.keep(minor=minor)
        self.stacks = self.swarm.stacks

    def up(self, **services: Any) -> Any:
        """Have the stack be so; returns what changes."""
        return [*self.now(self.stacks.up(stack(**services))).changes]

    def settled(self, done: Any) -> list[str]:
        """What is not as wished in the end."""
        waiting: Deferred[list[str]] = self.stacks.settled(done)
        return self.successResultOf(waiting)

    def standing(self, name: str = "web") -> Any:
        """How a service stands."""
        return self.now(self.stacks.service(name))

    def test_up(self) -> None:
        """Services are made, changed and dropped as the document says; else nothing is done."""
        self.assertEqual(
            self.up(web={"replicas": 2}, db={}), ["add web: web-1-01", "add db: web-1-01"]
        )
        self.assertEqual(self.up(web={"replicas": 2}, db={}), [])
        changed = self.up(web={"replicas": 2, "config": "web-1-02"})
        self.assertEqual(changed, ["change web: config web-1-01 → web-1-02", "drop db"])
        (told,) = self.now(self.stacks.all()).records
        self.assertEqual([one["config"] for one in told["services"]], ["web-1-02"])
        whole = self.now(self.stacks.one("shop"))
        self.assertEqual(whole["document"], stack(web={"replicas": 2, "config": "web-1-02"}))

    def test_names(self) -> None:
        """A launch takes no name that a replica has, or may have, and a stack none of these."""
        self.up(web={"replicas": 1})
        for name, words in (
            ("shop-web-1", "there is an instance shop-web-1 already"),
            ("shop-web-2", "the name shop-web-2 is in use → choose another name"),
        ):
            asked = LaunchRequest("web", instance=name)
            launch = self.swarm.launch_as_asked(asked)
            self.assertIn(words, str(self.refused(launch, errors.InstanceExists)))
        for name in ("shop-db-7", "shop-web-x"):
            self.now(self.swarm.launch_as_asked(LaunchRequest("web", instance=name)))
        self.assertEqual(self.up(web={"replicas": 2}), ["change web: replicas 1 → 2"])
        error = self.refused(self.stacks.up(stack(web={}, db={})), errors.InstanceExists)
        self.assertIn("there is an instance shop-db-7 already", str(error))

    def test_plan(self) -> None:
        """A plan changes nothing."""
        self.assertEqual(self.now(self.stacks.plan(stack(web={}))).changes, ["add web: web-1-01"])
        self.assertEqual(self.fake.services, {})

    def test_settled(self) -> None:
        """It is done when all run, and what does not is told with what Docker says."""
        self.assertEqual(self.settled(self.now(self.stacks.up(stack(web={})))), [])
        self.fake.tasks = [
            {**task("id0", "failed", "non-zero exit (3)"), "Slot": 1, "Spec": one["Spec"]}
            for one in self.fake.tasks * MOST_ENDED
        ]
        wrong = self.settled(self.now(self.stacks.plan(stack(web={}))))
        self.assertEqual(wrong, ["web: non-zero exit (3)"])

    def test_never_settled(self) -> None:
        """A swarm that does not say how a service is, or speaks in riddles, is told of."""
        done = self.now(self.stacks.up(stack(web={})))
        answers = [errors.MachineAtFault("no JSON"), errors.Unavailable("no leader")]

        async def fail(means: Means) -> Any:
            raise answers[0]

        self.patch(Means, "tasks", fail)
        waiting: Deferred[list[str]] = self.stacks.settled(done)
        self.reactor.advance(LOOK_MOST)
        answers.pop(0)
        self.assertNoResult(waiting)
        self.reactor.pump([SETTLES_WITHIN / 2] * 3)
        wrong = ["web: the swarm has not said how it is within 3600 s"]
        self.assertEqual(self.successResultOf(waiting), wrong)

    def test_scale(self) -> None:
        """Another number of replicas changes nothing else; the same number changes nothing."""
        self.up(web={"replicas": 1})
        planned = self.now(self.stacks.scale("shop-web", 3))
        self.assertEqual(planned.changes, ["change web: replicas 1 → 3"])
        self.assertEqual((self.standing()["replicas"], self.standing()["before"]), (3, None))
        self.assertEqual(self.now(self.stacks.scale("web", 3)).changes, [])
        self.assertEqual(len(self.exporter.published), 1)

    def test_rollback(self) -> None:
        """It goes back to the config before, with as many replicas as now, and back again."""
        self.up(web={})
        error = self.refused(self.stacks.rollback("web"), errors.WrongState)
        self.assertIn("web can't be rolled back → no other revision of web", str(error))
        self.now(self.stacks.update("web", "1", "02"))
        self.now(self.stacks.scale("web", 2))
        for config, before in (("web-1-01", "web-1-02"), ("web-1-02", "web-1-01")):
            self.now(self.stacks.rollback("web"))
            told = self.standing()
            found = told["config"], told["before"], told["replicas"]
            self.assertEqual(found, (config, before, 2))

    def test_down(self) -> None:
        """All services go, and the network of the stack."""
        self.up(web={}, db={})
        done = self.now(self.stacks.down("shop"))
        self.assertEqual(self.settled(done), [])
        self.assertEqual(self.fake.services, {})
        self.assertIn("DELETE /networks/txcontain-shop", self.fake.asked)
        self.refused(self.stacks.down("shop"), errors.NoSuchStack)

    def test_refused(self) -> None:
        """What a swarm can't keep is refused before anything is made."""
        for asked, kind, words in (
            ({"drain": 3}, errors.ConfigAtFault, "services.web can't be kept in a swarm → drain: "),
            ({"config": "web-1-03"}, errors.NoSuchConfig, "services.web.config: there is no"),
            ({"ports": ["53:53/udp"]}, errors.ConfigAtFault, "only TCP is balanced"),
            ({"replicas": -1}, errors.InvalidData, "services.web.replicas"),
        ):
            self.assertIn(words, str(self.refused(self.stacks.up(stack(web=asked)), kind)))
        self.assertEqual((self.fake.services, self.exporter.published), ({}, []))

    def test_ports_of_others(self) -> None:
        """A port that a service of another stack publishes is not published twice."""
        self.up(web={"ports": ["8000:80"]})
        other = {**stack(app={"ports": ["8000:81"]}), "stack": "other"}
        error = self.refused(self.stacks.up(other), errors.ConfigAtFault)
        self.assertIn("services.app.ports: the service shop-web publishes port", str(error))

    def test_changed_meanwhile(self) -> None:
        """If someone else changes a service at the same time, the second one is told."""
        self.up(web={})
        said = "rpc error: code = Unknown desc = update out of sequence"
        self.fake.refusals["POST /services/id0/update"] = 500, said
        error = self.refused(self.stacks.scale("web", 2), errors.InUse)
        self.assertIn("the stack shop was changed meanwhile", str(error))

    def test_answer_lost(self) -> None:
        """A service that is there already is taken as made if it is of the same revision."""
        begin = self.fake.begin

        def make_and_refuse(document: Any) -> Any:
            begin(document)
            return 409, {"message": "name conflicts with an existing object"}

        self.fake.begin = make_and_refuse
        self.assertEqual(self.up(web={}), ["add web: web-1-01"])
        self.assertEqual(len(self.fake.services), 1)

    def test_service_of_someone_else(self) -> None:
        """A service of someone else's that has the name is not taken for ours, nor touched."""

        def conflicts(document: Any) -> Any:
            name = document["Name"]
            self.fake.services[name] = {"ID": "x", "Spec": {"Name": name}}
            return 409, {"message": "name conflicts with an existing object"}

        self.fake.begin = conflicts
        error = self.refused(self.stacks.up(stack(web={})), errors.InUse)
        self.assertIn("that is someone else's", str(error))
        self.assertEqual([one["ID"] for one in self.fake.services.values()], ["x"])

    def test_replicas(self) -> None:
        """Each replica is in the lists, found by its service, and not destroyed by itself."""
        self.up(web={"replicas": 2})
        names = ["shop-web-1", "shop-web-2"]
        told = self.now(self.swarm.records("service:web")).records
        self.assertEqual([one["instance"] for one in told], names)
        running = self.now(self.swarm.running()).records
        self.assertEqual([one["instance"] for one in running], names)
        error = self.refused(self.swarm.destroy("shop-web-1"), errors.WrongState)
        self.assertIn("`txcontain scale shop-web=N` has fewer", str(error))
        self.now(self.swarm.destroy_all())
        self.assertEqual(len(self.now(self.swarm.running()).records), 2)

    def test_find(self) -> None:
        """A service is found by its own name only if one stack has it."""
        self.up(web={})
        self.now(self.stacks.up({**stack(web={}), "stack": "other"}))
        error = self.refused(self.stacks.service("web"), errors.Ambiguous)
        self.assertIn("name one of them: other-web, shop-web", str(error))
        self.assertEqual(self.standing("shop-web")["stack"], "shop")
        self.refused(self.stacks.service("nothing"), errors.NoSuchService)
