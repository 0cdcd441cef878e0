"""The metrics of a swarm: what is known from watching it. None of them asks it for anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from attrs import frozen

from txcontain.engine.counts import Histogram
from txcontain.engine.manager import Manager
from txcontain.engine.metrics import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    INFO,
    INSTANCES,
    LAUNCHES,
    SCRAPE,
    Metric,
    Sample,
    of_machine,
    of_manager,
    own_labels,
    parts,
    written,
)
from txcontain.swarm.balancer import Balancer
from txcontain.swarm.client import Docker
from txcontain.swarm.records import Instance, Seen, instances, states
from txcontain.swarm.watch import Watch

NODES = Metric("txcontain_nodes", GAUGE, "Nodes of the swarm, by state and availability")
ON_NODE = Metric("txcontain_node_instances", GAUGE, "Instances that run on each node")
AGE = Metric("txcontain_swarm_seen_age_seconds", GAUGE, "How old the last look at the swarm is")
LOOKS = Metric(
    "txcontain_swarm_look_duration_seconds", HISTOGRAM, "How long looks at the swarm took"
)
FAILED_LOOKS = Metric("txcontain_swarm_failed_looks_total", COUNTER, "Looks that failed")
ASKED = Metric(
    "txcontain_swarm_request_duration_seconds",
    HISTOGRAM,
    "Time from a request to a Docker until its answer, by the address of that",
)
UNANSWERED = Metric(
    "txcontain_swarm_unanswered_requests_total", COUNTER, "Requests that a Docker did not answer"
)
PLACES = Metric(
    "txcontain_swarm_balanced_places", GAUGE, "Replicas to which a published port leads now"
)
BALANCED = Metric(
    "txcontain_swarm_balanced_connections", GAUGE, "Connections that the balancer has"
)
STATES = ("starting", "running", "ended")


@frozen
class Known:
    """What has figures."""

    host: Manager
    docker: Docker
    watch: Watch
    balancer: Balancer
    launches: Histogram


async def collect(known: Known) -> Iterator[tuple[Metric, list[Sample]]]:
    """All metrics with their samples. Raises TooMany."""
    host = known.host
    began = host.reactor.seconds()
    async with host.surveys.turn():
        machine = await host.threads(of_machine, host.state)
    machine[SCRAPE] = host.reactor.seconds() - began
    return _samples(known, machine)


def _samples(known: Known, machine: dict[Metric, float]) -> Iterator[tuple[Metric, list[Sample]]]:
    if seen := known.watch.seen:
        yield from _of_seen(seen)
        yield AGE, [("", "", known.host.reactor.seconds() - seen.began)]
    yield LOOKS, [*parts(known.watch.durations, [])]
    yield FAILED_LOOKS, [("", "", known.watch.failed)]
    yield LAUNCHES, [*parts(known.launches, [("start", "swarm")])]
    managers = sorted(known.docker.managers, key=lambda one: one.address)
    asked = [parts(one.durations, [("address", one.address)]) for one in managers]
    yield ASKED, [*chain.from_iterable(asked)]
    yield UNANSWERED, [("", written([("address", one.address)]), one.failed) for one in managers]
    yield (
        PLACES,
        [
            ("", written([("service", route.service), ("port", key)]), len(route.places))
            for key, route in known.balancer.routes.items()
        ],
    )
    yield BALANCED, [("", "", known.balancer.relays.count)]
    yield from of_manager(known.host, machine)


def _of_seen(seen: Seen) -> Iterator[tuple[Metric, list[Sample]]]:
    found = states(seen)
    numbers = Counter(state.what for state in found.values())
    yield INSTANCES, [("", written([("state", what)]), numbers[what]) for what in STATES]
    where = {name: state.node for name, state in found.items()}
    yield INFO, [("", written(_info(one, where.get(one.name, ""))), 1) for one in instances(seen)]
    kinds = Counter((one.state, one.availability) for one in seen.nodes.values())
    yield (
        NODES,
        [
            ("", written([("state", state), ("availability", availability)]), number)
            for (state, availability), number in sorted(kinds.items())
        ],
    )
    run = Counter(state.node for state in found.values() if state.what == "running")
    nodes = sorted({one.node for one in seen.nodes.values()})
    yield ON_NODE, [("", written([("node", name)]), run[name]) for name in nodes]


def _info(one: Instance, node: str) -> list[tuple[str, str]]:
    name, *version = one.key
    of_config = [("config", name), ("version", "-".join(version))]
    return [("name", one.name), *of_config, ("node", node), *own_labels(one.labels)]
