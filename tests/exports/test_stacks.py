"""Stacks as documents of other tools: nothing of a service is left out in silence."""

import json
from typing import Any

import kubernetes_validate
import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.exports.test_documents import account
from tests.support import document
from txcontain.exports.kubernetes import NO_ADDRESS
from txcontain.exports.stacks import Member, Members, to_compose, to_kubernetes
from txcontain.exports.subject import Subject, image_of, owners_of
from txcontain.exports.written import Document
from txcontain.services.document import KEYS, UPDATE_KEYS, read_stack
from txcontain.services.revision import make_revision

TARGETS = {"compose": to_compose, "kubernetes": to_kubernetes}
CHECK = {"command": ["check"]}
# Other values than the defaults, and what they take beside them.
VALUES: dict[str, Any] = {
    "config": "web-1-02",
    "replicas": 3,
    "after": {"db": "started"},
    "ports": ["8080:80"],
    "health": CHECK,
    "update": {"order": "start-first"},
    "drain": 3,
    "placement": {"node.labels.disk": "ssd"},
    "spread": "node.labels.zone",
    "on_demand": {"idle": 9},
    "per_connection": True,
    "run": "once",
    "schedule": "@daily",
    "catch_up": True,
}
BESIDE: dict[str, dict[str, Any]] = {
    "on_demand": {"ports": ["8080:80"]},
    "per_connection": {"ports": ["8080:80"]},
    "catch_up": {"schedule": "@daily"},
}
OF_UPDATE: dict[str, Any] = {
    "order": "start-first",
    "parallelism": 2,
    "delay": 1.5,
    "monitor": 1.5,
    "failure_action": "pause",
    "max_failure_ratio": 0.5,
    "healthy_deadline": 400,
}


def members(**services: dict[str, Any]) -> Members:
    """The services of a stack, each of the config web unless it says another."""
    asked = {name: {"config": "web-1-01", **keys} for name, keys in services.items()}
    stack = read_stack({"stack": "Shop", "services": asked})
    return {name: member(name, asked[name]) for name in stack.services}


def member(name: str, asked: dict[str, Any]) -> Member:
    """A service."""
    minor = asked["config"].rpartition("-")[2]
    revision = make_revision(name, asked, document(minor=minor, command=["a"]))
    spec = revision.spec
    accounts = {owner: account(owner) for owner in owners_of(spec)}
    return Member(revision.service, Subject(spec, image_of(spec), accounts), revision.ports)


def both(**keys: Any) -> dict[str, Document]:
    """A service with these keys and another one, for each target."""
    told = members(db={"health": CHECK}, app=keys)
    return {target: convert("Shop", told) for target, convert in TARGETS.items()}


class StackTests(SynchronousTestCase):
    """What becomes of a stack."""

    def test_every_key(self) -> None:
        """Whatever key of a service changes, the document changes, or names it."""
        cases = [(key, BESIDE.get(key, {}), {key: VALUES[key]}) for key in KEYS]
        usual: dict[str, Any] = {"update": {}}
        cases += [
            (f"update.{key}", usual, {"update": {key: OF_UPDATE[key]}}) for key in UPDATE_KEYS
        ]
        for key, beside, change in cases:
            before, after = both(**beside), both(**beside | change)
            for target, told in after.items():
                named = any(note.startswith(f"services.app.{key}:") for note in told.notes)
                changed = told.text != before[target].text
                self.assertTrue(named or changed, f"{target} keeps {key} quiet")

    def test_notes(self) -> None:
        """Each note is a comment above the document, and names the service."""
        for told in both(replicas=2, ports=["8080:80"], drain=3, after={"db": "healthy"}).values():
            self.assertTrue(told.notes)
            for note in told.notes:
                self.assertRegex(note, r"^services\.(app|db)\.[a-z_.]+: ")
                self.assertIn(f"\n# - {note}\n", told.text)

    def test_ports(self) -> None:
        """That no address of a host is kept is said of a service's own ports, too."""
        notes = both(ports=["127.0.0.1:8080:80"])["kubernetes"].notes
        self.assertIn(f"services.app.{NO_ADDRESS}", notes)

    def test_compose(self) -> None:
        """Compose gets what it has words for."""
        told = members(
            db={"health": CHECK},
            migrate={"run": "once", "after": {"db": "healthy"}},
            app={
                "replicas": 3,
                "ports": ["8080:80"],
                "after": {"migrate": "completed_successfully", "web": "healthy"},
                "update": {"delay": 2},
            },
            web={},
            nightly={"schedule": "15 3 * * *"},
        )
        services = yaml.safe_load(to_compose("Shop", told).text)["services"]
        conditions = {name: one["condition"] for name, one in services["app"]["depends_on"].items()}
        self.assertEqual(
            conditions, {"migrate": "service_completed_successfully", "web": "service_started"}
        )
        self.assertEqual(
            services["migrate"]["depends_on"], {"db": {"condition": "service_healthy"}}
        )
        self.assertEqual(services["app"]["ports"], ["127.0.0.1:8080:80/tcp"])
        self.assertEqual(services["app"]["deploy"]["replicas"], 3)
        self.assertEqual(services["app"]["deploy"]["update_config"]["delay"], "2s")
        self.assertEqual(services["nightly"]["profiles"], ["scheduled"])
        self.assertNotIn("deploy", services["migrate"])

    def test_kubernetes(self) -> None:
        """Kubernetes gets Deployments, Services, Jobs and CronJobs, which fit its schema."""
        told = members(
            db={},
            migrate={"run": "once", "after": {"db": "started"}},
            app={"replicas": 0, "ports": ["8080:80"], "update": {"order": "start-first"}},
            weekly={"schedule": "15 3 * * 7"},
            daily={"schedule": "@daily"},
        )
        objects = list(yaml.safe_load_all(to_kubernetes("Shop", told).text))
        for one in objects:
            kubernetes_validate.validate(one, "1.30", strict=True)
        kinds = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in objects}
        self.assertEqual({kind for kind, _ in kinds}, {"Deployment", "Service", "Job", "CronJob"})
        self.assertEqual(kinds["Service", "db"]["clusterIP"], "None")
        self.assertEqual(kinds["Service", "app"]["ports"][0]["targetPort"], 80)
        self.assertEqual(kinds["Deployment", "app"]["replicas"], 0)
        rolling = kinds["Deployment", "app"]["strategy"]["rollingUpdate"]
        self.assertEqual(rolling, {"maxSurge": 1, "maxUnavailable": 0})
        self.assertEqual(kinds["CronJob", "weekly"]["schedule"], "15 3 * * 0")
        self.assertEqual(kinds["CronJob", "daily"]["schedule"], "0 0 * * *")
        self.assertEqual(json.dumps(kinds["Job", "migrate"]).count('"Never"'), 1)
