"""``python -m bench``: measure, print, keep, draw."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import (
    asked,
    contestants,
    execs,
    health,
    hostile,
    logs,
    measure,
    packages,
    page,
    processes,
    pulls,
    report,
    services,
    stay,
    steps,
)
from bench.contestants import FLOOR, Contestant, Docker, Mixed, Txcontain
from bench.manager import BASE, ROOT, make_images, running
from bench.measure import Figure, Samples, worst

WARM, MIXED, COLD = "txcontain, warm", "txcontain, mixed", "txcontain, cold"


@dataclass
class Scale:
    """How much is measured."""

    rounds: int  # of IN_A_ROW launches of each, side by side
    burst: int
    running: list[int]  # numbers of instances
    each: int  # launches with each of these numbers running
    first: int  # first launches of a large image
    idle: float  # seconds
    commands: int
    hostile: float  # seconds of each attack


SCALES = {
    "full": Scale(10, 100, [0, 100, 250, 500, 1000], 25, 3, 15, 10, 10),
    "quick": Scale(2, 100, [0, 50, 100], 15, 1, 7, 5, 3),
}


def main() -> None:
    """Measure everything."""
    ArgumentParser(
        "python -m bench",
        description="Measures how fast txcontain is, beside other container programs.",
        epilog="Environment: BENCH=quick takes about a minute instead of a few; BENCH_PEERS=no"
        " leaves out the other programs. docs/performance.md says what is measured.",
    ).parse_args()
    if os.geteuid():
        sys.exit("The bench makes containers: run it as root.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    mode = "quick" if os.environ.get("BENCH") == "quick" else "full"
    processes.adopt_orphans()
    with contestants.work_folder() as folder:
        results: dict[str, Any] = {"mode": mode, "machine": report.machine()}
        results |= run(folder, SCALES[mode])
        found = hostile.under_attack(folder, SCALES[mode].hostile)
        results["hostile"] = hostile.noticed(found)  # each of the answers is too much to keep
        print(f"\n{hostile.noticed_table(results['hostile'])}", flush=True)
    print(f"\nKept in {report.save(mode, results).relative_to(ROOT)}.")
    draw(results)


def run(folder: Path, scale: Scale) -> dict[str, Any]:
    """Measure, and print each table as soon as it is there."""
    make_images(folder)
    root = contestants.unpack_root(ROOT / "base_images" / BASE, folder / "root")
    with (
        find_peers(root, folder) as (others, absent),
        running(folder, folder / "warm", 2) as with_warm,
        running(folder, folder / "mixed", 2) as for_mixed,
        running(folder, folder / "cold", 0) as without,
    ):
        ours = Txcontain(with_warm, WARM), Mixed(for_mixed, MIXED), Txcontain(without, COLD)
        warm, _, cold = ours
        field = [*ours, *others, *contestants.floor(root)]
        for one in field * 2:
            one.end(one.finish(one.begin()))  # unpack layers, fill caches
        samples = measure.side_by_side(field, scale.rounds)
        print(report.launch_table(samples, field, absent), flush=True)
        timelines = {one.name: measure.timeline(one, 10) for one in ours}
        bursts = burst_figures(field, scale.burst)
        docker = next((one for one in others if isinstance(one, Docker)), None)
        staying = stay.figures(warm, docker, scale.rounds)
        latencies, many = figures_with_many(warm, docker, scale)
        figures = [*launch_figures(samples), *staying, *bursts, *many]
        together = folder / "first"
        together.mkdir()
        figures.append(measure.first_launches(folder, together, scale.first))
        figures += execs.figures(warm, docker, scale.rounds)
        figures += logs.figures(folder)
        where = folder, root, folder / "pulls"
        figures += pulls.figures(*where, docker, scale.first, scale.rounds)
        figures.append(services.figure(warm, scale.rounds))
        figures += steps.figures(cold, scale.rounds)
        figures += asked.figures(warm, root, scale.rounds)
        figures.append(health.figure(warm, scale.running[-1], scale.idle))
        figures.append(health.hung(warm, scale.first))
        print(f"\n{report.figure_table(figures)}", flush=True)
    return {
        "samples": samples,
        "absent": absent,
        "timelines": timelines,
        "with_running": latencies,
        "figures": figures,
    }


def find_peers(
    root: Path, folder: Path
) -> AbstractContextManager[tuple[list[Contestant], dict[str, str]]]:
    """The other programs; none where BENCH_PEERS=no."""
    if os.environ.get("BENCH_PEERS") == "no":
        return nullcontext(([], {"others": "BENCH_PEERS=no"}))
    packages.fetch_missing()
    return contestants.peers(root, folder)


def launch_figures(samples: dict[str, Samples]) -> list[Figure]:
    """What the launches side by side come to, against Docker, or else the floor."""
    rival = "docker" if "docker" in samples else FLOOR
    warm, cold, theirs = samples[WARM], samples[COLD], samples[rival]
    rows: list[tuple[str, list[float], list[float], Callable[[list[float]], float], str]] = [
        ("launch, warm, median", warm.launch, theirs.launch, median, "≤ 5"),
        ("launch, warm, 99th percentile", warm.launch, theirs.launch, worst, "≤ 25"),
        ("launch, no warm init left, median", cold.launch, theirs.launch, median, "≤ 25"),
        ("destroy, median", warm.end, theirs.end, median, "≤ 5"),
    ]
    return [
        Figure(what, "ms", of(mine) * 1e3, rival, of(other) * 1e3, goal)
        for what, mine, other, of, goal in rows
    ]


def burst_figures(field: list[Contestant], many: int) -> list[Figure]:
    """Many at once, against the floor and runc."""
    took = {
        one.name: measure.burst(one, many) for one in field if one.name in (WARM, FLOOR, "runc")
    }
    ours = took.pop(WARM)
    return [
        Figure(f"{many} launches at once, all answered", "s", ours, rival, theirs, "≤ 2")
        for rival, theirs in took.items()
    ]


def figures_with_many(
    ours: Txcontain, docker: Docker | None, scale: Scale
) -> tuple[dict[int, list[float]], list[Figure]]:
    """Launch latencies against the number running, and figures with the largest number."""
    manager, count = ours.manager, scale.running[-1]
    restart_alone = measure.restart(manager, 0)
    latencies = measure.launches_with_many(ours, scale.running, scale.each)
    with_none, with_many = (median(latencies[number]) * 1e3 for number in (0, count))
    figures = [
        Figure(f"launch, {count} running", "ms", with_many, "none running", with_none, "≤ 1.5 x"),
        *measure.with_many(ours, count, docker, scale.idle),
        *page.figures(ours, count, scale.commands, scale.idle),
        *measure.command_line(manager, docker, scale.commands),
    ]
    restart = measure.restart(manager, count)
    figures.append(
        Figure(f"restart, {count} running", "s", restart, "none running", restart_alone, "≤ 2")
    )
    each, one = measure.destroy_all(ours, count)
    figures.append(
        Figure(f"destroying all {count}, each", "ms", each * 1e3, "one alone", one * 1e3)
    )
    return latencies, figures


def draw(results: dict[str, Any]) -> None:
    """Draw, where matplotlib is there."""
    try:
        from bench import pictures
    except ImportError:
        print("No pictures: matplotlib is missing (pip install '.[bench]').")
        return
    here = results["machine"]
    caption = f"{here['cpu']}, {here['cores']} cores, Linux {here['kernel']}"
    pictures.distributions(results["samples"], caption)
    pictures.against_number(results["with_running"], caption)
    pictures.timelines(results["timelines"], caption)
    print("Drawn into docs/pictures/.")


if __name__ == "__main__":
    main()
