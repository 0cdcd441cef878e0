"""What the numbers look like, as PNGs in docs/pictures/."""

from __future__ import annotations

from statistics import median

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from bench.manager import ROOT
from bench.measure import AROUND, Samples, percentile

FOLDER = ROOT / "docs/pictures"
OURS = "#c0392b"
OTHERS = "all other steps"
LINES = {"mixed": "-.", "cold": "--"}
SMALL = 0.15  # ms: an op that takes less is one of the others
milliseconds = FuncFormatter(lambda value, _: f"{value:g} ms")


def distributions(samples: dict[str, Samples], caption: str) -> None:
    """For each contestant, which share of its launches took no longer than x."""
    figure, axes = pyplot.subplots(figsize=(9, 5))
    others = iter(
        ["#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#7f7f7f", "#bcbd22"]
    )
    for name, mine in sorted(samples.items(), key=lambda item: median(item[1].launch)):
        values = sorted(value * 1e3 for value in mine.launch)
        shares = [(i + 1) / len(values) for i in range(len(values))]
        ours = name.startswith("txcontain")
        axes.step(
            values,
            shares,
            where="post",
            label=f"{name}  {median(values):.1f} ms",
            color=OURS if ours else next(others),
            linewidth=2.5 if ours else 1.5,
            linestyle=LINES.get(name.split()[-1], "-"),
        )
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
    """Where a launch's time goes, step by step: a bar a kind of launch, each to its own scale."""
    ops = [
        op
        for op in dict.fromkeys(op for one in timelines.values() for op in one)
        if op != AROUND and max(one.get(op, 0) for one in timelines.values()) * 1e3 >= SMALL
    ]
    colors = dict(zip([*ops, OTHERS], pyplot.get_cmap("tab20").colors, strict=False))
    colors[AROUND] = "lightgrey"
    size = 10, 1.8 * len(timelines)
    figure, bars = pyplot.subplots(len(timelines), figsize=size, layout="constrained")
    for axes, (name, timeline) in zip(bars, timelines.items(), strict=True):
        _bar(axes, name, [(op, _width(timeline, op, ops), color) for op, color in colors.items()])
    rows = [
        (op, " / ".join(f"{_width(one, op, ops):.2f}" for one in timelines.values()))
        for op in colors
    ]
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colors[op]) for op, _ in rows]
    figure.legend(
        handles,
        [f"{op}  {text} ms" for op, text in rows],
        ncols=3,
        frameon=False,
        loc="outside lower center",
        title="  /  ".join(timelines),
    )
    _save(figure, "launch-timeline.png", "Where a launch's time goes", caption)


def _bar(axes: pyplot.Axes, name: str, parts: list[tuple[str, float, str]]) -> None:
    end = 0.0
    for _, width, color in parts:
        axes.barh([name], [width], left=end, color=color, edgecolor="white", linewidth=0.5)
        end += width
    axes.text(end, 0, f" {end:.1f} ms", va="center")
    axes.set_xlim(0, end * 1.12)
    axes.xaxis.set_major_formatter(milliseconds)
    axes.spines[["top", "right"]].set_visible(False)


def _width(timeline: dict[str, float], op: str, shown: list[str]) -> float:
    if op in shown or op == AROUND:
        return timeline.get(op, 0) * 1e3
    small = [each for name, each in timeline.items() if name not in (*shown, AROUND)]
    return sum(small) * 1e3


def _save(figure: pyplot.Figure, name: str, title: str, caption: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.axes[0].set_title(f"{title}\n", loc="left", fontweight="bold")
    figure.axes[0].text(0, 1.02, caption, transform=figure.axes[0].transAxes, fontsize=8)
    figure.savefig(FOLDER / name, dpi=120, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
