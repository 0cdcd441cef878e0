"""The measurements: each takes what it measures, and returns figures or samples."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any, cast

from bench import packages, processes
from bench.client import Connection
from bench.contestants import Contestant, Docker, Txcontain
from bench.manager import BASE, ROOT, Manager, running, seconds

PAUSE = 0.1  # seconds between two measurements: time for a warm pool to be filled again
IN_A_ROW = 8  # launches of one contestant, before the next one's
AT_ONCE = 16  # launches at the same time, where many are wanted and none is timed
DOCKERS = 5  # containers that Docker runs for comparison
WITH_SOME = f"dockerd + containerd, {DOCKERS} running"
FILLER = 100  # MB of random bytes in the large base image; the base system is as much again


@dataclass
class Figure:
    """One result, beside what it is to be compared with, in the same unit."""

    what: str
    unit: str
    ours: float
    rival: str
    theirs: float | None
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the rival's it is."""
        return self.ours / self.theirs if self.theirs else None


@dataclass
class Samples:
    """What one contestant's launches and ends took, in seconds."""

    launch: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def worst(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return percentile(values, 0.99)


# -- launch and destroy, side by side ---------------------------------------------


def side_by_side(contestants: list[Contestant], rounds: int) -> dict[str, Samples]:
    """Launch and end containers of each, in turns, so that all meet the same weather.

    A turn is some in a row, and its first one does not count: it would measure what the
    others' turns have left of the processor's caches.
    """
    samples: dict[str, Samples] = defaultdict(Samples)
    for _ in range(rounds):
        for one in contestants:
            for counts in (False, *[True] * IN_A_ROW):
                time.sleep(PAUSE)
                launch_and_end(one, samples[one.name] if counts else Samples())
    return dict(samples)


def launch_and_end(contestant: Contestant, samples: Samples) -> None:
    """Launch a container and end it."""
    before = time.perf_counter()
    container = contestant.finish(contestant.begin())
    running_since = time.perf_counter()
    samples.launch.append(running_since - before)
    time.sleep(PAUSE / 4)
    samples.end.append(seconds(lambda: contestant.end(container)))


def burst(contestant: Contestant, many: int) -> float:
    """Seconds until as many, asked for at once, all run."""
    contestant.get_ready(many)
    time.sleep(1)
    before = time.perf_counter()
    begun = [contestant.begin() for _ in range(many)]
    containers = [contestant.finish(one) for one in begun]
    took = time.perf_counter() - before
    for container in containers:
        contestant.end(container)
    return took


def timeline(ours: Txcontain, launches: int) -> dict[str, float]:
    """What each op of the plan takes, and all that is around the plan; medians, in seconds."""
    ops: dict[str, list[float]] = defaultdict(list)
    for _ in range(launches):
        time.sleep(PAUSE)
        before = time.perf_counter()
        name = ours.finish(ours.begin())
        took = time.perf_counter() - before
        told = ours.manager.inspect(name)
        steps = seconds_by_op(told["plan"][told["in_advance"] :])
        ours.end(name)
        for op, each in {**steps, AROUND: took - sum(steps.values())}.items():
            ops[op].append(each)
    return {op: median(each) for op, each in ops.items()}


AROUND = "client, manager, init's start, exec"


def seconds_by_op(plan: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds by the kind of step; the last step, exec, has none."""
    ops: dict[str, float] = defaultdict(float)
    for step in plan[:-1]:
        ops[step["op"]] += step["seconds"]
    return ops


# -- with many running ------------------------------------------------------------


def launches_with_many(ours: Txcontain, steps: list[int], each: int) -> dict[int, list[float]]:
    """Launch latencies with these numbers of instances running; leaves the last one's running."""
    latencies: dict[int, list[float]] = {}
    count = 0
    for wanted in steps:
        fill(ours, wanted - count)
        time.sleep(1)
        latencies[wanted] = []
        for _ in range(each):
            time.sleep(PAUSE)
            before = time.perf_counter()
            name = ours.finish(ours.begin())
            latencies[wanted].append(time.perf_counter() - before)
            ours.end(name)
        count = wanted
    return latencies


def fill(ours: Txcontain, many: int) -> None:
    """Launch many, some at a time."""
    ours.get_ready(AT_ONCE)
    while many > 0:
        begun = [ours.begin() for _ in range(min(AT_ONCE, many))]
        for one in begun:
            ours.finish(one)
        many -= len(begun)


def with_many(ours: Txcontain, count: int, docker: Docker | None, idle: float) -> list[Figure]:
    """What a manager with many idle instances is like; Docker's daemons with some beside it."""
    manager = ours.manager
    containers = [docker.finish(docker.begin()) for _ in range(DOCKERS)] if docker else []
    daemons = docker.daemons() if docker else []
    try:
        return [
            list_figure(manager, "/list", count, docker, "≤ 10"),
            list_figure(manager, "/instances", count, docker, "≤ 20"),
            Figure(
                f"manager's RSS, {count} running",
                "MB",
                processes.rss([manager.process.pid]),
                WITH_SOME,
                processes.rss(daemons) or None,
                "≤ 150",
            ),
            *scrape_figures(manager, count),
            pss_figure(manager, docker),
            idle_figure(manager, count, daemons, idle),
        ]
    finally:
        for container in containers:
            cast(Docker, docker).end(container)


def list_figure(
    manager: Manager, path: str, count: int, docker: Docker | None, goal: str
) -> Figure:
    """All instances: their names, or what `ps` shows."""
    ours = median(seconds(lambda: manager.client.ask("GET", path)) for _ in range(50))
    theirs = None
    if docker:
        containers = partial(docker.client.ask, "GET", "/containers/json")
        theirs = median(seconds(containers) for _ in range(50)) * 1e3
    return Figure(
        f"GET {path}, {count} running",
        "ms",
        ours * 1e3,
        f"docker, {DOCKERS} running",
        theirs,
        goal,
    )


def scrape_figures(manager: Manager, count: int) -> list[Figure]:
    """All metrics, and what one who asks for /list again and again notices of that."""
    client = manager.client

    def scrape() -> None:
        client.send_off("GET", "/metrics")
        client.answer_bytes()

    with caller(manager.port) as waited:
        took = median(seconds(scrape) for _ in range(10))
    what, longest = f"GET /metrics, {count} running", max(waited) * 1e3
    return [
        Figure(what, "ms", took * 1e3, "the goal", 150, "≤ 150"),
        Figure(f"{what}: longest GET /list beside it", "ms", longest, "the goal", 20, "≤ 20"),
    ]


@contextmanager
def caller(port: int) -> Iterator[list[float]]:
    """One who asks for /list meanwhile; how long each answer took, in seconds."""
    waited: list[float] = []
    is_over = Event()

    def ask() -> None:
        with Connection(port) as client:
            while not is_over.wait(0.005):
                waited.append(seconds(lambda: client.ask("GET", "/list")))

    thread = Thread(target=ask)
    thread.start()
    try:
        yield waited
    finally:
        is_over.set()
        thread.join()


def pss_figure(manager: Manager, docker: Docker | None) -> Figure:
    """The memory of what stays outside of a container for it."""
    monitors = manager.monitors()
    everything = processes.descendants(os.getpid())
    shims = processes.named(everything, "containerd-shim") if docker else []
    return Figure(
        "PSS per instance outside its script",
        "MB",
        processes.pss(monitors) / max(len(monitors), 1),
        "a containerd-shim",
        processes.pss(shims) / max(len(shims), 1) or None,
        "≤ 0.3",
    )


def idle_figure(manager: Manager, count: int, daemons: list[int], idle: float) -> Figure:
    """The CPU that an idle manager takes."""
    ours, theirs = [manager.process.pid], daemons
    time.sleep(idle)  # until what the launches have set in motion is over
    before = processes.cpu_seconds(ours), processes.cpu_seconds(theirs)
    time.sleep(idle)
    after = processes.cpu_seconds(ours), processes.cpu_seconds(theirs)
    shares = [(end - start) / idle * 100 for start, end in zip(before, after, strict=True)]
    return Figure(
        f"idle manager's CPU, {count} running",
        "%",
        shares[0],
        WITH_SOME,
        shares[1] or None,
        "≤ 0.1",
    )


def restart(manager: Manager, count: int) -> float:
    """Seconds from SIGTERM until a new manager lists all that run."""

    def stop_and_start() -> None:
        manager.stop()
        manager.start()
        manager.wait_until_listed(count)

    return seconds(stop_and_start)


def destroy_all(ours: Txcontain, count: int) -> tuple[float, float]:
    """Seconds for each of all that run, destroyed together; and for one that is alone."""
    together = seconds(ours.manager.destroy_all) / count
    ours.get_ready(1)
    name = ours.finish(ours.begin())
    return together, seconds(lambda: ours.end(name))


# -- a first launch, and the command line -------------------------------------------


def first_launches(images: Path, folder: Path, times: int) -> Figure:
    """The first launch of a large base image, and tar of the same."""
    make_large_image(images, folder)
    ours, theirs = [], []
    with running(images, folder / "first", 2) as manager:
        manager.launch(manager.upload())  # so that the mountables are unpacked already
        for number in range(times):
            name = f"large{number}.tar.gz"
            os.link(images / "base_images/large.tar.gz", images / "base_images" / name)
            config = manager.upload(name=f"large{number}", base_image=name)
            target = folder / f"by-tar-{number}"
            target.mkdir()
            unpack = ["tar", "-xzf", str(images / "base_images" / name), "-C", str(target)]
            os.sync()
            theirs.append(seconds(partial(subprocess.run, unpack, check=True)))
            os.sync()
            ours.append(seconds(partial(manager.launch, config)))
    return Figure(
        "first launch of a 200 MB base image",
        "s",
        median(ours),
        "tar -x of the same",
        median(theirs),
        "≤ 1.3 x",
    )


def make_large_image(images: Path, folder: Path) -> None:
    """Make a tarball of the base system and of what can't be compressed."""
    content = folder / "large"
    content.mkdir()
    unpack = ["tar", "--extract", f"--file={images / 'base_images' / BASE}", "--strip-components=1"]
    subprocess.run([*unpack, f"--directory={content}"], check=True)
    for number in range(FILLER):
        (content / f"filler-{number}").write_bytes(os.urandom(1 << 20))
    tarball = images / "base_images/large.tar.gz"
    pack = ["tar", "--create", "--use-compress-program=gzip -1", f"--file={tarball}"]
    subprocess.run([*pack, f"--directory={content}", "."], check=True)


def command_line(manager: Manager, docker: Docker | None, times: int) -> list[Figure]:
    """The command `list`."""
    variables = {**os.environ, "TXCONTAIN_URL": f"http://localhost:{manager.port}"}
    ours = wall([str(ROOT / "cli/list")], variables, times)
    python = wall([sys.executable, "-I", "-c", "pass"], variables, times)
    figures = [Figure("CLI command `list`", "s", ours, "python -c pass", python, "≤ 0.3")]
    client = packages.find("docker")
    if docker and client:
        variables = {**packages.environment(), "DOCKER_HOST": f"unix://{docker.socket}"}
        theirs = wall([client, "ps"], variables, times)
        figures.append(Figure("CLI command `list`", "s", ours, "docker ps", theirs, "≤ 0.3"))
    return figures


def wall(command: list[str], variables: dict[str, str], times: int) -> float:
    """The median of the seconds that a command takes."""
    return median(
        seconds(lambda: subprocess.run(command, env=variables, stdout=-3, check=True))
        for _ in range(times)
    )
