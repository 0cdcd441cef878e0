"""What a swarm tells Prometheus."""

from typing import Any

from treq.testing import StubTreq

from tests.api.test_resources import be_known
from tests.swarm.test_swarm import WEB, SwarmCase
from txcontain import errors
from txcontain.api.resources import make_root
from txcontain.swarm.records import Seen
from txcontain.swarm.watch import AT_ONCE

ADDRESS = 'address="unix:/0"'


class MetricsTests(SwarmCase):
    """GET /metrics."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()

    def collected(self) -> dict[str, Any]:
        """The samples of each metric, by its labels."""
        return {
            metric.name: {f"{suffix}{{{labels}}}": value for suffix, labels, value in samples}
            for metric, samples in self.now(self.swarm.collect())
        }

    def test_instances(self) -> None:
        """Instances are told by state and node, and each with its config and its node."""
        name = self.launched()
        self.now(self.swarm.running())
        told = self.collected()
        self.assertEqual(
            told["txcontain_instances"],
            {'{state="starting"}': 0, '{state="running"}': 1, '{state="ended"}': 0},
        )
        wanted = f'{{name="{name}",config="web",version="1-01",node="h1"}}'
        self.assertEqual(told["txcontain_instance_info"], {wanted: 1})
        self.assertEqual(told["txcontain_node_instances"], {'{node="h1"}': 1})
        self.assertEqual(told["txcontain_nodes"], {'{state="ready",availability="active"}': 1})

    def test_work(self) -> None:
        """Launches, looks and requests are counted, those that fail, too."""
        self.launched()
        self.fake.refusals["POST /services/create"] = 500, "broken"
        self.refused(self.swarm.launch(*WEB), errors.MachineAtFault)
        self.now(self.swarm.running())
        self.fake.refusals["GET /services"] = 500, "broken"
        self.now(self.swarm.running())
        self.fake.is_silent = True
        asked = self.start(self.swarm.docker.ask("GET", "/info", doing="asking"))
        self.reactor.advance(5)
        self.failureResultOf(asked, errors.Unavailable)
        told = self.collected()
        launches = told["txcontain_launch_duration_seconds"]
        self.assertEqual(launches['_count{start="swarm"}'], 1)
        self.assertEqual(told["txcontain_failed_launches_total"], {"{}": 1})
        self.assertEqual(told["txcontain_swarm_look_duration_seconds"]["_count{}"], 1)
        self.assertEqual(told["txcontain_swarm_failed_looks_total"], {"{}": 1})
        durations = told["txcontain_swarm_request_duration_seconds"]
        self.assertGreater(durations[f"_count{{{ADDRESS}}}"], 5)
        self.assertEqual(told["txcontain_swarm_unanswered_requests_total"], {f"{{{ADDRESS}}}": 1})

    def test_silent(self) -> None:
        """While the swarm is silent, a scrape is answered at once, by what was seen last."""
        self.launched()
        self.now(self.swarm.running())
        self.fake.is_silent = True
        self.reactor.advance(100)
        asked = len(self.fake.asked)
        told = self.collected()
        self.assertEqual(told["txcontain_instances"]['{state="running"}'], 1)
        self.assertGreaterEqual(told["txcontain_swarm_seen_age_seconds"]["{}"], 100)
        self.assertEqual(len(self.fake.asked), asked)

    def test_before_the_first_look(self) -> None:
        """Before anything was seen, there is what does not need it."""
        told = self.collected()
        self.assertNotIn("txcontain_instances", told)
        self.assertEqual(told["txcontain_swarm_balanced_connections"], {"{}": 0})

    def test_balancer(self) -> None:
        """A published port is told with its replicas."""
        self.swarm.balancer.settle(Seen([], []))
        self.assertEqual(self.collected()["txcontain_swarm_balanced_places"], {})

    def test_resource(self) -> None:
        """The text is that of Prometheus; there is no history."""
        be_known(self)
        http: Any = StubTreq(make_root(self.swarm))
        asked = http.get("http://localhost/metrics")
        http.flush()
        self.reactor.advance(AT_ONCE)
        http.flush()
        response = self.successResultOf(asked)
        self.assertEqual(response.code, 200)
        self.assertIn(
            "# TYPE txcontain_swarm_look_duration_seconds", self.successResultOf(response.text())
        )
