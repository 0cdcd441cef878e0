"""Metrics as text."""

from twisted.trial.unittest import SynchronousTestCase

from tests.api.test_resources import WebTestCase
from txcontain.api.exposition import LINES, OPEN_METRICS, TEXT, choose, pieces
from txcontain.api.routes import method_of, route_of
from txcontain.engine.metrics import COUNTER, GAUGE, Metric

USED = Metric("used_total", COUNTER, "What is used")
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;"
    "version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class ChooseTests(SynchronousTestCase):
    """Which format a client gets."""

    def test_table(self) -> None:
        """It is what Accept prefers; Prometheus' own format if that says nothing."""
        for accept, kind in (
            ("", TEXT),
            ("*/*", TEXT),
            ("text/html", TEXT),
            (PROMETHEUS, OPEN_METRICS),
            ("application/openmetrics-text", OPEN_METRICS),
            ("application/openmetrics-text; version=1.0.0; q=0.4, text/plain", TEXT),
            ("application/openmetrics-text;q=0, */*;q=0.1", TEXT),
            (";;;q=,,", TEXT),
        ):
            self.assertEqual(choose(accept), kind, accept)


class PiecesTests(SynchronousTestCase):
    """The two formats."""

    def text(self, kind: str, *samples: tuple[str, str, float]) -> str:
        """The text of a metric."""
        return b"".join(pieces(kind, [(USED, list(samples))])).decode()

    def test_prometheus(self) -> None:
        """A head, and a line for each sample."""
        self.assertEqual(
            self.text(TEXT, ("", 'name="a"', 1), ("", "", 0.25)),
            "# HELP used_total What is used.\n# TYPE used_total counter\n"
            'used_total{name="a"} 1\nused_total 0.25\n',
        )

    def test_open_metrics(self) -> None:
        """A counter's head has its name without _total, and the end is marked."""
        self.assertEqual(
            self.text(OPEN_METRICS, ("", "", 1)),
            "# HELP used What is used.\n# TYPE used counter\nused_total 1\n# EOF\n",
        )

    def test_none(self) -> None:
        """A metric without samples is left out."""
        self.assertEqual(self.text(TEXT), "")

    def test_long(self) -> None:
        """Many samples are several pieces; nothing of a label can break them."""
        samples = [("", f'name="{number}\ud800"', float(number)) for number in range(LINES + 1)]
        made = [*pieces(TEXT, [(Metric("m", GAUGE, "M"), samples)])]
        self.assertEqual([one.count(b"\n") for one in made], [LINES + 1, 2])


class RouteTests(SynchronousTestCase):
    """Which resource a request was for."""

    def test_table(self) -> None:
        """Names are left out, and unknown paths and methods are alike."""
        for path, route in (
            (b"/list", "/list"),
            (b"/list/", "/list"),
            (b"/instances/web/logs", "/instances/{instance}/logs"),
            (b"/stats/history", "/stats/history"),
            (b"/", "other"),
            (b"/nothing\xff", "other"),
            (b"/instances/a/b/c/d", "other"),
            (b"*", "other"),
        ):
            self.assertEqual(route_of(path), route)
        self.assertEqual((method_of(b"GET"), method_of(b"BREW")), ("GET", "other"))


class MetricsTests(WebTestCase):
    """GET /metrics."""

    def test_served(self) -> None:
        """The kind of the answer is that of its text, also for one who hangs up half-way."""
        self.launch()
        response = self.successResultOf(self.asked("GET", "/metrics"))
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), [TEXT])
        text = response.content()
        for _ in range(100):
            self.settle()
        self.assertIn(b"\ntxcontain_instances{", self.successResultOf(text))
