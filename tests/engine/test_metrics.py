"""The manager's metrics, and their document."""

import re
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import ManagerTestCase
from txcontain.engine import metrics
from txcontain.engine.metrics import OF_CONTAINERS, Metric, _escaped, collect, own_labels
from txcontain.host.cgroups import Cgroups
from txcontain.runtime.health import HEALTHY, Standing
from txcontain.swarm import metrics as of_swarm

METRICS, EVERY = (
    [*OF_CONTAINERS, *(one for one in told.values() if isinstance(one, Metric))]
    for told in (vars(metrics), vars(metrics) | vars(of_swarm))
)
DOCUMENT = Path(__file__).parents[2] / "docs/metrics.md"


class DocumentTests(SynchronousTestCase):
    """docs/metrics.md."""

    def test_all(self) -> None:
        """It lists all metrics in their order, with kind and meaning."""
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]*\| (.*) \|$", DOCUMENT.read_text(), re.M)
        self.assertEqual(rows, [(one.name, one.kind, one.meaning) for one in EVERY])

    def test_names(self) -> None:
        """No two have the same name, and only counters end in _total."""
        names = [one.name for one in EVERY]
        self.assertEqual(len(names), len({*names}))
        for one in EVERY:
            self.assertEqual(one.name.endswith("_total"), one.kind == "counter", one.name)


class LabelsTests(SynchronousTestCase):
    """Labels, whatever is in them."""

    def test_escaped(self) -> None:
        """Quotes, newlines and backslashes are escaped; all else stays."""
        self.assertEqual(_escaped('a"b\nc\\né'), r"a\"b\nc\\né")

    def test_alike(self) -> None:
        """Names that become alike are told apart, and the same way each time."""
        labels = {"a.b": "1", "a-b": "2", "a/b": "3", "c": "4"}
        told = [*own_labels(labels)]
        self.assertEqual(
            told,
            [
                ("label_a_b", "2"),
                ("label_a_b_conflict2", "1"),
                ("label_a_b_conflict3", "3"),
                ("label_c", "4"),
            ],
        )


class CollectTests(ManagerTestCase):
    """Their values."""

    def collected(self) -> dict[str, Any]:
        """The samples of each metric, by its labels."""
        return {
            metric.name: {f"{suffix}{{{labels}}}": value for suffix, labels, value in samples}
            for metric, samples in self.now(collect(self.manager))
        }

    def test_all_are_collected(self) -> None:
        """Each metric of the table is collected, in an order of its own, and no other."""
        self.assertEqual(sorted(self.collected()), sorted(one.name for one in METRICS))

    def test_container(self) -> None:
        """A container has cAdvisor's labels; its limits and times are those of the instance."""
        with mock.patch.object(Cgroups, "limit"):
            instance = self.launch(limits={"memory": "1M", "cpus": 0.5})
        token = instance.processes.token
        labels = f'{{id="/txcontain/{token}",image="{instance.spec.base_image}",'
        labels += f'name="{instance.name}"}}'
        told = self.collected()
        self.assertEqual(told["container_spec_memory_limit_bytes"], {labels: 1 << 20})
        self.assertEqual(told["container_spec_cpu_quota"], {labels: 50_000})
        self.assertEqual(told["container_start_time_seconds"], {labels: instance.since})
        self.assertEqual(told["container_memory_usage_bytes"], {})  # no cgroup counts it here

    def test_health(self) -> None:
        """An instance without a health check is neither healthy nor unhealthy."""
        self.launch()
        checked = self.launch(minor="02", health={"tcp": 80})
        states = self.collected()["container_health_state"]
        self.assertEqual(sorted(states.values()), [-1, 0])
        checked.checks.standing = Standing(HEALTHY)
        states = self.collected()["container_health_state"]
        self.assertEqual(sorted(states.values()), [-1, 1])

    def test_instances(self) -> None:
        """States are counted, also those that none is in; an ended one has no container."""
        instance = self.launch()
        self.init.end("Done(1)")
        self.reactor.advance(0)
        told = self.collected()
        states = told["txcontain_instances"]
        self.assertEqual((states['{state="ended"}'], states['{state="running"}']), (1, 0))
        self.assertEqual(told["container_last_seen"], {})
        name = f'{{name="{instance.name}"}}'
        self.assertEqual(told["txcontain_instance_restarts_total"], {name: 0})
        self.assertEqual(told["txcontain_instance_log_bytes"], {name: 0})
        self.assertEqual(told["txcontain_exits_total"]['{kind="failure"}'], 1)

    def test_histogram(self) -> None:
        """Each bucket counts what is in the smaller ones too; the last counts all."""
        self.launch()
        launches = self.collected()["txcontain_launch_duration_seconds"]
        cold = {labels: n for labels, n in launches.items() if 'start="cold"' in labels}
        self.assertEqual(cold['_bucket{start="cold",le="+Inf"}'], 1)
        self.assertEqual(cold['_count{start="cold"}'], 1)
        buckets = [n for labels, n in cold.items() if labels.startswith("_bucket")]
        self.assertEqual(buckets, sorted(buckets))
