"""Metrics as text, in the two formats that Prometheus reads.

Its own (https://prometheus.io/docs/instrumenting/exposition_formats), and OpenMetrics 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from txcontain.engine.metrics import COUNTER, Metric, Sample

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LINES = 1000  # of a piece: about a millisecond's work
QUALITY = re.compile(r"; *q=([01](?:\.\d{0,3})?) *(?:;|$)")


def choose(accept: str) -> str:
    """The format that a client prefers, by its Accept header (RFC 9110, 12.5.1)."""
    wanted = {TEXT: 0.0, OPEN_METRICS: 0.0}
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        match = QUALITY.search(part)
        quality = float(match[1]) if match else 1.0
        if kind == "application/openmetrics-text":
            wanted[OPEN_METRICS] = max(wanted[OPEN_METRICS], quality)
        elif kind in ("text/plain", "text/*", "*/*"):
            wanted[TEXT] = max(wanted[TEXT], quality)
    return OPEN_METRICS if wanted[OPEN_METRICS] > wanted[TEXT] else TEXT


def pieces(kind: str, metrics: Iterable[tuple[Metric, list[Sample]]]) -> Iterator[bytes]:
    """The text, piece by piece. A metric without samples is left out."""
    lines = _lines(kind, metrics)
    while some := list(islice(lines, LINES)):
        # What is no UTF-8 (a lone surrogate) becomes "?".
        yield "".join(some).encode(errors="replace")


def _lines(kind: str, metrics: Iterable[tuple[Metric, list[Sample]]]) -> Iterator[str]:
    for metric, samples in metrics:
        if samples:
            yield _head(kind, metric)
        for suffix, labels, value in samples:
            if labels:
                yield f"{metric.name}{suffix}{{{labels}}} {value}\n"
            else:
                yield f"{metric.name}{suffix} {value}\n"
    if kind == OPEN_METRICS:
        yield "# EOF\n"


def _head(kind: str, metric: Metric) -> str:
    name = metric.name
    if kind == OPEN_METRICS and metric.kind == COUNTER:
        name = name.removesuffix("_total")
    return f"# HELP {name} {metric.meaning}.\n# TYPE {name} {metric.kind}\n"
