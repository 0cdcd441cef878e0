"""What the numbers look like, as PNGs in docs/pictures/."""

from __future__ import annotations

from statistics import median

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from bench.manager import ROOT
from bench.measure import Samples, percentile

FOLDER = ROOT / "docs/pictures"
OURS = "#c0392b"
SMALL = 0.15  # ms: an op that takes less is one of the others
milliseconds = FuncFormatter(lambda value, _: f"{value:g} ms")


def distributions(samples: dict[str, Samples], caption: str) -> None:
    """For each contestant, which share of its launches took no longer than x."""
    figure, axes = pyplot.subplots(figsize=(9, 5))
    others = iter(pyplot.get_cmap("tab10").colors)
    for name, mine in sorted(samples.items(), key=lambda item: median(item[1].launch)):
        values = sorted(value * 1e3 for value in mine.launch)
        shares = [(i + 1) / len(values) for i in range(len(values))]
        ours = name.startswith("txcontain")
        axes.step(values, shares, where="post", label=f"{name}  {median(values):.1f} ms",
                  color=OURS if ours else next(others), linewidth=2.5 if ours else 1.5,
                  linestyle="--" if name.endswith("cold") else "-")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(milliseconds)
    axes.set_xlabel("from the request until the script runs")
    axes.set_ylabel("share of launches")
    axes.grid(alpha=0.3, which="both")
    axes.legend(title="median", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, "launch-distributions.png", "How long a launch takes", caption)


def against_number(latencies: dict[int, list[float]], caption: str) -> None:
    """Launch latency over the number of instances that run."""
    figure, axes = pyplot.subplots(figsize=(9, 4))
    counts = list(latencies)
    middle = [median(values) * 1e3 for values in latencies.values()]
    low, high = (
        [percentile(values, share) * 1e3 for values in latencies.values()] for share in (0.1, 0.9)
    )
    axes.fill_between(counts, low, high, color=OURS, alpha=0.2, label="10th to 90th percentile")
    axes.plot(counts, middle, color=OURS, marker="o", label="median")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(milliseconds)
    axes.set_xlabel("instances that run already")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    _save(figure, "launch-against-running.png", "A warm launch, with many running", caption)


def timelines(timelines: dict[str, dict[str, float]], caption: str) -> None:
    """Where a launch's time goes, step by step."""
    ops = list(dict.fromkeys(op for timeline in timelines.values() for op in timeline))
    ops = [op for op in ops if max(one.get(op, 0) for one in timelines.values()) * 1e3 >= SMALL]
    colors = pyplot.get_cmap("tab20").colors
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    ends = dict.fromkeys(timelines, 0.0)
    for op, color in zip([*ops, "all others"], colors, strict=False):
        widths = [_width(one, op, ops) for one in timelines.values()]
        text = " / ".join(f"{width:.2f}" for width in widths)
        axes.barh(list(timelines), widths, left=list(ends.values()), color=color,
                  edgecolor="white", linewidth=0.5, label=f"{op}  {text} ms")  # fmt: skip
        for name, width in zip(timelines, widths, strict=True):
            ends[name] += width
    for name, end in ends.items():
        axes.text(end, name, f" {end:.1f} ms", va="center")
    axes.set_xlim(right=max(ends.values()) * 1.12)
    axes.xaxis.set_major_formatter(milliseconds)
    axes.invert_yaxis()
    title = " / ".join(timelines)
    axes.legend(title=title, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12),
                frameon=False)  # fmt: skip
    _save(figure, "launch-timeline.png", "Where a launch's time goes", caption)


def _width(timeline: dict[str, float], op: str, shown: list[str]) -> float:
    if op in shown:
        return timeline.get(op, 0) * 1e3
    return sum(each for name, each in timeline.items() if name not in shown) * 1e3


def _save(figure: pyplot.Figure, name: str, title: str, caption: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.axes[0].set_title(f"{title}\n", loc="left", fontweight="bold")
    figure.axes[0].text(0, 1.02, caption, transform=figure.axes[0].transAxes, fontsize=8)
    figure.savefig(FOLDER / name, dpi=120, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
