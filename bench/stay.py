"""What stays: launches with a volume, and starts of a stopped instance, beside Docker's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.contestants import Again, Contestant, Docker, Txcontain
from bench.measure import Figure, side_by_side

PLAIN, VOLUME, START = "a launch of the same", "with a volume", "start"
DOCKERS_VOLUME, DOCKERS_START = "docker, with a volume", "docker, start"


def figures(ours: Txcontain, docker: Docker | None, rounds: int) -> list[Figure]:
    """Launches and starts in turns, all of the same config but for the volume."""
    manager = ours.manager
    field: list[Contestant] = [
        Txcontain(manager, PLAIN, minor="1"),
        Txcontain(manager, VOLUME, minor="2", volumes=["bench /data"]),
    ]
    if docker:
        field.append(docker.with_volume(DOCKERS_VOLUME))
    with stopped(ours, docker) as again:
        samples = side_by_side([*field, *again], rounds)
    took = {name: median(each.launch) * 1e3 for name, each in samples.items()}
    rows = [
        ("launch with a named volume", VOLUME, PLAIN, "≤ + 1 ms"),
        ("launch with a named volume", VOLUME, DOCKERS_VOLUME, ""),
        ("start of a stopped instance", START, PLAIN, "≤ 1 x"),
        ("start of a stopped instance", START, DOCKERS_START, ""),
    ]
    return [
        Figure(what, "ms", took[mine], rival, took[rival], goal)
        for what, mine, rival, goal in rows
        if rival in took
    ]


@contextmanager
def stopped(ours: Txcontain, docker: Docker | None) -> Iterator[list[Contestant]]:
    """An instance that is stopped, and a container of Docker's; in the end they are removed."""
    name = ours.finish(ours.begin())
    path = f"/instances/{name}"
    again: list[Contestant] = [Again(START, ours.manager.client, f"{path}/start", f"{path}/stop")]
    container = docker.finish(docker.begin()) if docker else ""
    if docker:
        path = f"/containers/{container}"
        again.append(Again(DOCKERS_START, docker.client, f"{path}/start", f"{path}/stop?t=0"))
    yield again
    ours.end(name)
    if docker:
        docker.end(container)
