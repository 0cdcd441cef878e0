"""The manager's metrics: what there is, and what each is now.

Those of a container have the names and labels of cAdvisor, so that its dashboards work; ours begin
with ``txcontain_``. docs/metrics.md lists all; a test compares the two.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from time import process_time
from typing import Any

from attrs import frozen

from txcontain import __version__
from txcontain.engine.counts import Histogram
from txcontain.engine.manager import Manager
from txcontain.host.cgroups import PERIOD, Cgroups
from txcontain.host.machine import disk_of
from txcontain.host.meters import Meters
from txcontain.later import slices
from txcontain.logs.logd import LOG
from txcontain.network.bridge import link_name_of, traffic_of_links
from txcontain.runtime.health import HEALTHY
from txcontain.runtime.instance import Instance

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
STATES = ("starting", "running", "waiting", "stopping", "stopped", "ended", "failed")
Labels = Sequence[tuple[str, str]]
Sample = tuple[str, str, float]  # what follows the name, such as _bucket; labels, escaped; value
Figures = dict[str, float]


@frozen
class Metric:
    """A metric: its name, kind and meaning; the unit is in the name (seconds, bytes)."""

    name: str
    kind: str
    meaning: str


@frozen
class OfContainer(Metric):
    """A metric that every running container has, if this machine counts that."""

    figure: str
    divisor: int = 1
    labels: str = ""  # beside those that say which container it is


def _c(name: str, meaning: str, figure: str, divisor: int = 1, labels: str = "") -> OfContainer:
    kind = COUNTER if name.endswith("_total") else GAUGE
    return OfContainer(f"container_{name}", kind, meaning, figure, divisor, labels)


THROTTLED = ("periods", "throttled_periods", "throttled_usec")  # only with a limit of cpus
USEC, ETH0 = 10**6, ',interface="eth0"'
OF_CONTAINERS = (
    _c("cpu_usage_seconds_total", "Processor time", "cpu_usec", USEC, ',cpu="total"'),
    _c("cpu_user_seconds_total", "Processor time outside of the kernel", "user_usec", USEC),
    _c("cpu_system_seconds_total", "Processor time in the kernel", "system_usec", USEC),
    _c("cpu_cfs_periods_total", "Periods in which its limit of cpus was applied", "periods"),
    _c("cpu_cfs_throttled_periods_total", "Those in which it had to wait", "throttled_periods"),
    _c("cpu_cfs_throttled_seconds_total", "How long it had to wait", "throttled_usec", USEC),
    _c("memory_usage_bytes", "Memory, with all of the page cache", "memory"),
    _c("memory_working_set_bytes", "Memory without the cache that is not in use", "working_set"),
    _c("memory_rss", "Memory of its processes, in bytes", "anonymous"),
    _c("memory_cache", "Page cache, in bytes", "cache"),
    _c("memory_max_usage_bytes", "The most memory that it has had", "memory_peak"),
    _c("oom_events_total", "Processes that were killed because memory ran out", "oom_kills"),
    _c("threads", "Processes and threads", "pids"),
    _c("threads_max", "Its limit of processes and threads", "pids_limit"),
    _c("fs_reads_bytes_total", "Bytes that it has read from disks", "io_read"),
    _c("fs_writes_bytes_total", "Bytes that it has written to disks", "io_written"),
    *(
        _c(f"network_{way}_{what}_total", f"{meaning}, on a private network", key, 1, ETH0)
        for way, verb in (("receive", "received"), ("transmit", "sent"))
        for what, meaning, key in (
            ("bytes", f"Bytes {verb}", f"{way}_0"),
            ("packets", f"Packets {verb}", f"{way}_1"),
            ("errors", f"Packets not {verb} because of an error", f"{way}_2"),
            ("packets_dropped", f"Packets not {verb} for want of room", f"{way}_3"),
        )
    ),
    *(
        _c(
            f"pressure_{what}_{how}_seconds_total",
            f"Time in which {who} of its processes waited for {what}",
            f"{what}_{how}_usec",
            USEC,
        )
        for what in ("cpu", "memory", "io")
        for how, who in (("waiting", "some"), ("stalled", "all"))
    ),
    _c("health_state", "1 if its health check passes, 0 if not, -1 if it has none", "health"),
    _c("start_time_seconds", "Unix time at which its program was started last", "started"),
    _c("last_seen", "Unix time of these figures, in seconds", "seen"),
    _c("spec_memory_limit_bytes", "Its limit of memory; 0: none", "memory_limit"),
    _c("spec_memory_swap_limit_bytes", "Its limit of memory and swap; 0: none", "swap_limit"),
    _c("spec_cpu_period", "Microseconds to which its limit of cpus applies", "period"),
    _c("spec_cpu_quota", "Microseconds that it may run in that period", "quota"),
)
INSTANCES = Metric("txcontain_instances", GAUGE, "Instances, by state")
INFO = Metric("txcontain_instance_info", GAUGE, "Always 1; config and labels of an instance")
RESTARTS = Metric(
    "txcontain_instance_restarts_total", COUNTER, "How often it was started again by its policy"
)
READY = Metric("txcontain_instance_ready", GAUGE, "1 if it listens on its PORT; only with a PORT")
PAUSED = Metric("txcontain_instance_paused", GAUGE, "1 if all its processes are frozen")
LOG_SIZE = Metric("txcontain_instance_log_bytes", GAUGE, "Bytes that are kept of its log")
EXITS = Metric("txcontain_exits_total", COUNTER, "Ends of instances, by how they ended")
LAUNCHES = Metric(
    "txcontain_launch_duration_seconds",
    HISTOGRAM,
    "Time from a request to launch until the program runs, by how much was done in advance",
)
FAILED = Metric("txcontain_failed_launches_total", COUNTER, "Launches that failed")
POOL = Metric("txcontain_pool_inits", GAUGE, "Warm inits that wait for a launch")
REQUESTS = Metric(
    "txcontain_http_request_duration_seconds",
    HISTOGRAM,
    "Time from a request to the end of its answer, by method and route",
)
ANSWERS = Metric("txcontain_http_responses_total", COUNTER, "Answers, by status")
EVENTS = Metric("txcontain_last_event", GAUGE, "The number of the journal's last event")
DISK_FREE = Metric("txcontain_disk_free_bytes", GAUGE, "What is free where the state folder is")
DISK_SIZE = Metric("txcontain_disk_size_bytes", GAUGE, "The size of that file system")
BUILD = Metric("txcontain_build_info", GAUGE, "Always 1; the manager's version")
SCRAPE = Metric("txcontain_scrape_duration_seconds", GAUGE, "How long these figures took to read")
CORES = Metric("machine_cpu_cores", GAUGE, "Processors of the machine")
MACHINE = Metric("machine_memory_bytes", GAUGE, "Memory of the machine")
PROCESS_CPU = Metric("process_cpu_seconds_total", COUNTER, "Processor time of the manager")
PROCESS_MEMORY = Metric("process_resident_memory_bytes", GAUGE, "Memory of the manager")
PROCESS_FILES = Metric("process_open_fds", GAUGE, "Files that the manager has open")
PROCESS_MOST = Metric("process_max_fds", GAUGE, "Files that it may have open")


@frozen
class Known:
    """What the manager knows of an instance without asking the kernel."""

    name: str  # as a label
    labels: str  # all that cAdvisor has
    info: str
    state: str
    restarts: int
    ready: bool | None  # None: it has no PORT
    paused: bool
    token: str | None  # of its processes, if it runs
    link: str | None
    log: str  # folder
    figures: Figures


async def collect(manager: Manager) -> Iterator[tuple[Metric, list[Sample]]]:
    """All metrics with their samples; each list is made only when it is its turn.

    Raises TooMany.
    """
    began = manager.reactor.seconds()
    async with manager.surveys.turn():
        group = os.path.dirname(next(iter(manager.pool.cgroups.tops.values()), ""))
        prefix = os.path.join("/txcontain", os.path.basename(group))
        known: list[Known] = []
        async for some in slices(manager.reactor, list(manager.instances.values())):
            known += [_known(manager, one, prefix) for one in some]
        meters, cgroups = manager.history.meters, manager.pool.cgroups
        machine = await manager.threads(_read, meters, cgroups, known, manager.state)
    machine[SCRAPE] = manager.reactor.seconds() - began
    return _samples(manager, known, machine)


def _known(manager: Manager, instance: Instance, prefix: str) -> Known:
    spec, limits = instance.spec, instance.spec.limits
    token = instance.processes.token if instance.running and instance.processes else None
    name = written([("name", instance.name)])
    place = written([("id", os.path.join(prefix, token or "")), ("image", spec.base_image)])
    config = [("config", spec.name), ("version", f"{spec.major}-{spec.minor}")]
    figures: Figures = {
        "started": instance.since,
        "seen": manager.kernel.now(),
        "health": -1 if instance.health is None else int(instance.health == HEALTHY),
        "memory_limit": limits.memory or 0,
        "swap_limit": limits.memory_and_swap or 0,
        "pids_limit": limits.pids,
    }
    if limits.cpus:
        figures |= {"period": PERIOD, "quota": limits.cpus * PERIOD}
    return Known(
        name,
        f"{place},{name}",
        f"{name},{written([*config, *own_labels(instance.labels)])}",
        instance.state,
        instance.restarts,
        instance.ready if spec.port is not None else None,
        instance.paused,
        token,
        link_name_of(instance.address) if token and instance.address else None,
        instance.path(LOG),
        figures,
    )


def own_labels(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """An instance's own labels, as ``label_NAME``; names that become alike get a number."""
    taken: dict[str, int] = {}
    for name, value in sorted(labels.items()):
        plain = "label_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
        taken[plain] = number = taken.get(plain, 0) + 1
        yield plain if number == 1 else f"{plain}_conflict{number}", value


def written(labels: Labels) -> str:
    """Labels as both formats write them, whatever is in a value."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _read(
    meters: Meters, cgroups: Cgroups, instances: Sequence[Known], state: str
) -> dict[Metric, float]:
    """Read the figures of instances into them, and return those of the machine: in a thread."""
    links, running = traffic_of_links(), {one.token: one for one in instances if one.token}
    told = meters.accounts(cgroups, list(running))
    for one, read in zip(running.values(), told, strict=True):
        for name in () if "quota" in one.figures else THROTTLED:
            read.pop(name, None)
        if "memory" in read:
            read["working_set"] = max(0, read["memory"] - read.get("inactive_file", 0))
        one.figures.update(read)
        _add_traffic(one.figures, links.get(one.link or "", ()))
    for one in instances:
        one.figures["log"] = _size_of(one.log)
    return of_machine(state)


def _add_traffic(figures: Figures, numbers: Sequence[int]) -> None:
    """What the host's end of a link has sent, the container has received."""
    for way, columns in (("transmit", numbers[:4]), ("receive", numbers[8:12])):
        for column, number in enumerate(columns):
            figures[f"{way}_{column}"] = number


def _size_of(log: str) -> int:
    size = 0
    with contextlib.suppress(OSError), os.scandir(log) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # the oldest is being removed
                size += entry.stat(follow_symlinks=False).st_size
    return size


def of_machine(state: str) -> dict[Metric, float]:
    """What is read of the machine, and of this process: in a thread."""
    page, (free, size) = os.sysconf("SC_PAGE_SIZE"), disk_of(state)
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * page
    return {
        DISK_FREE: free,
        DISK_SIZE: size,
        CORES: os.cpu_count() or 1,
        MACHINE: os.sysconf("SC_PHYS_PAGES") * page,
        PROCESS_CPU: process_time(),
        PROCESS_MEMORY: resident,
        PROCESS_FILES: len(os.listdir("/proc/self/fd")),
        PROCESS_MOST: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _samples(
    manager: Manager, instances: Sequence[Known], machine: dict[Metric, float]
) -> Iterator[tuple[Metric, list[Sample]]]:
    running = [one for one in instances if one.token is not None]
    for of_all in OF_CONTAINERS:
        yield of_all, _of_containers(of_all, running)
    counts = manager.counts
    states = [one.state for one in instances]
    yield INSTANCES, [("", written([("state", s)]), states.count(s)) for s in STATES]
    yield INFO, [("", one.info, 1) for one in instances]
    yield RESTARTS, [("", one.name, one.restarts) for one in instances]
    yield READY, [("", one.name, int(one.ready)) for one in running if one.ready is not None]
    yield PAUSED, [("", one.name, int(one.paused)) for one in running]
    yield LOG_SIZE, [("", one.name, one.figures["log"]) for one in instances]
    yield EXITS, [("", written([("kind", kind)]), n) for kind, n in counts.exits.items()]
    launches = [
        part
        for start, durations in counts.launches.items()
        for part in parts(durations, [("start", start)])
    ]
    yield LAUNCHES, launches
    yield POOL, [("", "", manager.pool.warm.ready)]
    yield from of_manager(manager, machine)


def of_manager(
    manager: Manager, machine: dict[Metric, float]
) -> Iterator[tuple[Metric, list[Sample]]]:
    """What any manager counts of its work, and what was read of its machine."""
    counts = manager.counts
    yield FAILED, [("", "", counts.failed_launches)]
    requests = [
        part
        for (method, route), durations in sorted(counts.requests.items())
        for part in parts(durations, [("method", method), ("route", route)])
    ]
    yield REQUESTS, requests
    answers = sorted(counts.answers.items())
    yield ANSWERS, [("", written([("code", str(code))]), number) for code, number in answers]
    yield EVENTS, [("", "", manager.journal.last)]
    yield BUILD, [("", written([("version", __version__)]), 1)]
    for metric, number in machine.items():
        yield metric, [("", "", number)]


def _of_containers(metric: OfContainer, running: Sequence[Known]) -> list[Sample]:
    figure, divisor, labels = metric.figure, metric.divisor, metric.labels
    found = [(one.labels + labels, one.figures[figure]) for one in running if figure in one.figures]
    if divisor == 1:
        return [("", labels, number) for labels, number in found]
    return [("", labels, number / divisor) for labels, number in found]


def parts(durations: Histogram, labels: Labels) -> Iterator[Sample]:
    """The samples of a histogram: each bucket also counts what is in the smaller ones."""
    bounds: list[Any] = [*durations.bounds, "+Inf"]
    counted = list(accumulate(durations.counts))
    for bound, count in zip(bounds, counted, strict=True):
        yield "_bucket", written([*labels, ("le", str(bound))]), count
    yield "_sum", written(labels), durations.total
    yield "_count", written(labels), counted[-1]
