"""Stacks: what is taken, and what becomes of it together with the configs."""

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import document
from txcontain.container.spec import Port
from txcontain.services.document import Service, Update, read_stack
from txcontain.services.revision import Revision, make_revision, read_revision

SHOP = {
    "stack": "shop",
    "services": {
        "report": {"config": "report-1-0", "schedule": "15 3 * * *", "catch_up": True},
        "app": {
            "config": "app-1-4",
            "replicas": 3,
            "after": {"migrate": "completed_successfully", "db": "healthy"},
            "ports": ["80:8000"],
            "update": {"order": "start-first", "monitor": 5, "failure_action": "rollback"},
            "drain": 2.5,
        },
        "migrate": {"config": "migrate-1-4", "run": "once", "after": {"db": "healthy"}},
        "db": {"config": "my-db-15-1"},
    },
}
DB = {"config": "db-1-01"}


class Stacks(SynchronousTestCase):
    """A document, as data."""

    def test_order(self) -> None:
        """Services come after those that they wait for."""
        stack = read_stack(SHOP)
        self.assertEqual(
            (stack.name, list(stack.services)), ("shop", ["report", "db", "migrate", "app"])
        )

    def test_values(self) -> None:
        """Every key has its value, or its default."""
        services = read_stack(SHOP).services
        self.assertEqual(services["db"], Service(("my-db", "15", "1")))
        self.assertEqual(services["app"].update, Update("start-first", monitor=5))
        self.assertEqual(services["app"].ports, (Port("127.0.0.1", 80, 8000, "tcp"),))
        jobs = {name: service.is_job for name, service in services.items()}
        self.assertEqual(jobs, {"report": True, "db": False, "migrate": True, "app": False})

    def test_names(self) -> None:
        """The longest names leave room for a number in the name of an instance."""
        stack, service = "s" * 24, "a" * 32
        read_stack({"stack": stack, "services": {service: DB}})
        self.assertLessEqual(len(f"{stack}-{service}-9999"), 63)


class Revisions(SynchronousTestCase):
    """A service together with its config."""

    def make(self, service: Any, **config: Any) -> Revision:
        """The revision that these make."""
        return make_revision("a", {**DB, **service}, document(**config))

    def test_document(self) -> None:
        """What the service adds to its config is in the document of its instances."""
        for service, config, wanted in (
            ({}, {}, {"restart": "always"}),
            ({}, {"restart": "no"}, {"restart": "no"}),
            ({"run": "once"}, {}, {}),
            ({"schedule": "@daily"}, {"restart": "on-failure"}, {"restart": "on-failure"}),
            ({"replicas": 1}, {}, {"restart": "always", "network": "private"}),
            ({"replicas": 1}, {"network": "host"}, {"restart": "always", "network": "host"}),
            ({"ports": ["80:1"]}, {}, {"restart": "always", "network": "private"}),
            ({"run": "once", "health": {"tcp": 1}}, {}, {"health": {"tcp": 1}}),
        ):
            document_of = json.loads(self.make(service, **config).document)
            self.assertEqual(document_of, {**json.loads(document()), **wanted})

    def test_ports(self) -> None:
        """Ports are the service's: its own, or those of its config; a job keeps its own."""
        private = {"network": "private", "ports": ["80:1"]}
        for service, published in (
            ({}, ("80:1",)),
            ({"ports": []}, ()),
            ({"ports": ["9:9"]}, ("9:9",)),
        ):
            revision = self.make(service, **private)
            self.assertEqual((revision.published, revision.spec.ports), (published, ()))
        job = self.make({"run": "once"}, **private)
        self.assertEqual((job.published, len(job.spec.ports)), ((), 1))

    def test_health(self) -> None:
        """A check that names no port asks PORT, or the first published port of TCP."""
        for health, config, asked in (
            ({"http": "/x"}, {}, 8000),
            ({"http": "/x", "port": 9}, {}, 9),
            ({"http": "/x"}, {"startup_env": "PORT=7"}, 7),
            ({"tcp": True}, {}, 8000),
            ({"tcp": 9}, {}, 9),
            ({"command": ["x"]}, {}, None),
        ):
            service = {"ports": ["53:53/udp", "80:8000", "81:8001"], "health": health}
            self.assertEqual(self.make(service, **config).spec.port_asked, asked)
            own = {"network": "private", **service}
            self.assertEqual(self.make({}, **own, **config).spec.port_asked, asked)
            self.assertEqual(self.make({"run": "once"}, **own, **config).spec.port_asked, asked)

    def test_id(self) -> None:
        """Only what instances are made from makes another revision."""
        first = self.make({"replicas": 2})
        for service, config, same in (
            ({"replicas": 3, "drain": 1, "update": {"delay": 1}}, {}, True),
            ({"replicas": 2}, {"command": ["x"]}, False),
        ):
            self.assertEqual(self.make(service, **config).id == first.id, same)

    def test_kept(self) -> None:
        """A revision is read again as it was kept."""
        for service in ({"replicas": 2, "ports": ["80:1"]}, {"schedule": "@daily"}):
            revision = self.make(service)
            again = read_revision("a", json.loads(json.dumps(revision.record)))
            self.assertEqual((again, again.id), (revision, revision.id))
