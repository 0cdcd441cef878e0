"""Tables for the terminal, and results on disk."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.contestants import FLOOR, Contestant
from bench.manager import ROOT
from bench.measure import Figure, Samples, worst


def machine() -> dict[str, Any]:
    """What this was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def launch_table(
    samples: dict[str, Samples], contestants: list[Contestant], absent: dict[str, str]
) -> str:
    """A row a contestant: launch and end, absolute and against the floor."""
    floor = samples[FLOOR]
    rows = [["", "launch ms", "p99 ms", "x floor", "end ms", "x floor", "what is measured"]]
    for one in contestants:
        mine = samples[one.name]
        launch, end = median(mine.launch), median(mine.end)
        rows.append(
            [
                one.name,
                number(launch * 1e3),
                number(worst(mine.launch) * 1e3),
                number(launch / median(floor.launch)),
                number(end * 1e3),
                number(end / median(floor.end)),
                one.what,
            ]
        )
    rows += [
        [name, "-", "-", "-", "-", "-", f"does not run here: {why}"] for name, why in absent.items()
    ]
    return table(rows)


def figure_table(figures: list[Figure]) -> str:
    """A row a figure."""
    rows = [["", "txcontain", "to reach", "x", "of", "which is"]]
    for one in figures:
        theirs = number(one.theirs, one.unit) if one.theirs else one.rival and "not measured"
        ours = number(one.ours, one.unit)
        rows.append([one.what, ours, one.goal, number(one.ratio), one.rival, theirs])
    return table(rows)


def number(value: float | None, unit: str = "") -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f} {unit}".rstrip()


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table that Markdown and a person can read."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def save(mode: str, content: dict[str, Any]) -> Path:
    """Keep the results of today; a quick run does not replace a full one."""
    folder = ROOT / "bench/results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.strftime('%Y-%m-%d')}{'' if mode == 'full' else '-' + mode}.json"
    path.write_text(json.dumps(content, indent=1, default=asdict, ensure_ascii=False) + "\n")
    return path
