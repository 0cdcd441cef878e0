"""The metrics as Prometheus itself reads them."""

import json
import subprocess
import threading
import urllib.request
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import PROJECT, ManagerCase, free_port, wait_until
from tests.support import needs_programs

HOSTILE = {"quoted": 'a "b" \\ \\n {c="d"}', "two.alike": "é☃", "two-alike": "\N{SNOWMAN},=}"}
SCRAPED_WITHIN = 60.0  # seconds


def promtool(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' checker."""
    return subprocess.run(["promtool", *words], capture_output=True, text=True, **options)


class ContribTests(SynchronousTestCase):
    """What contrib/ has for Prometheus and Grafana."""

    @needs_programs("promtool")
    def test_alerts(self) -> None:
        """Each alert comes when it should, and only then."""
        tested = promtool("test", "rules", "alerts_test.yml", cwd=PROJECT / "contrib")
        self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)

    def test_dashboard(self) -> None:
        """The dashboard asks only for metrics that there are."""
        dashboard = json.loads((PROJECT / "contrib/grafana.json").read_text())
        listed = (PROJECT / "docs/metrics.md").read_text()
        asked = [one["expr"] for panel in dashboard["panels"] for one in panel["targets"]]
        self.assertGreater(len(asked), 10)
        for expression in asked:
            words = expression.replace("_bucket", "").replace("(", " ").replace("{", " ").split()
            names = [word for word in words if word.startswith(("container_", "txcontain_"))]
            for name in names:
                self.assertIn(f"`{name.split('[')[0]}`", listed)


@needs_programs("prometheus", "promtool")
class MetricsTests(ManagerCase):
    """A manager with instances, one of which ends."""

    def setUp(self) -> None:
        super().setUp()
        self.name = self.running_inside("echo hello")
        config = self.config(**self.job("#!/bin/sh\nexit 3\n"))
        labelled = {"config": config, "labels": HOSTILE, "instance": "ended"}
        self.assertEqual(self.ask("POST", "/instances", labelled).status, 200)
        wait_until(lambda: self.running() == [self.name], "it has ended")

    def test_checked(self) -> None:
        """Prometheus' own checker finds nothing wrong, whatever is in a label."""
        text = self.ask("GET", "/metrics").body.decode()
        checked = promtool("check", "metrics", input=text)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))
        self.assertIn(f'name="{self.name}"', text)
        self.assertIn('txcontain_exits_total{kind="failure"} 1\n', text)

    def test_while_instances_end(self) -> None:
        """Each scrape is whole and valid while instances come and go."""
        over = threading.Event()

        def churn() -> None:
            while not over.is_set():
                self.ask("DELETE", f"/destroy/{self.launch()}")

        churning = threading.Thread(target=churn)
        churning.start()
        try:
            for _ in range(10):
                answer = self.ask("GET", "/metrics", Accept="application/openmetrics-text")
                self.assertEqual(answer.status, 200)
                self.assertTrue(answer.body.endswith(b"\n# EOF\n"))
                names = [line.split(b" ")[0] for line in answer.body.splitlines() if line[0] != 35]
                self.assertEqual(len(names), len({*names}))  # no sample is there twice
        finally:
            over.set()
            churning.join()

    def test_scraped(self) -> None:
        """Prometheus scrapes it as OpenMetrics, and has the labels as they were given."""
        port = free_port()
        scrape = {
            "job_name": "txcontain",
            "scrape_interval": "1s",
            "static_configs": [{"targets": [f"localhost:{self.port}"]}],
        }
        config = self.folder / "prometheus.yml"  # JSON is YAML too
        config.write_text(json.dumps({"scrape_configs": [scrape]}))
        prometheus = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self.folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(prometheus.wait)
        self.addCleanup(prometheus.kill)

        def series(query: str) -> list[dict[str, str]]:
            url = f"http://127.0.0.1:{port}/api/v1/query?query={query}"
            try:
                with urllib.request.urlopen(url) as answer:
                    return [one["metric"] for one in json.load(answer)["data"]["result"]]
            except OSError:  # it does not listen yet
                return []

        (info,) = wait_until(
            lambda: series("txcontain_instance_info%7Bname=%22ended%22%7D"), "it", SCRAPED_WITHIN
        )
        self.assertEqual(info["label_quoted"], HOSTILE["quoted"])
        self.assertEqual(info["label_two_alike"], HOSTILE["two-alike"])
        self.assertEqual(info["label_two_alike_conflict2"], HOSTILE["two.alike"])
        # A scrape that takes longer than a second has failed, and the next one may not.
        (memory,) = wait_until(lambda: series("container_memory_working_set_bytes"), "its memory")
        self.assertEqual((memory["name"], memory["image"]), (self.name, self.base_image))
        wait_until(lambda: series("up==1"), "it is up")
