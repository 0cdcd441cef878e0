"""Services: how long a stack takes to come up, beyond what its programs take."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.client import ask_until
from bench.contestants import Txcontain
from bench.manager import seconds
from bench.measure import Figure

LAYERS, EACH = 5, 4  # services that come after one another, and beside one another


def figure(ours: Txcontain, rounds: int) -> Figure:
    """From the request for a stack until all its services are healthy; programs start at once."""
    manager = ours.manager
    config = manager.upload(name="service")
    name = "-".join(config.values())

    def up() -> None:
        manager.client.ask("POST", "/stacks", stack(name))
        ask_until(manager.client, "/services", all_done, manager.process)

    def down() -> None:
        manager.client.ask("DELETE", "/stacks/bench")
        ask_until(manager.client, "/services", is_gone, manager.process)

    took = []
    for _ in range(rounds):
        took.append(seconds(up))
        down()
    what = f"{LAYERS * EACH} services in {LAYERS} layers, up until all are healthy"
    return Figure(what, "ms", median(took) * 1e3, "the goal", 300, "≤ 300")


def stack(config: str) -> dict[str, Any]:
    """A stack in which each service waits for all of the layer before."""
    layers = [[f"s{layer}-{number}" for number in range(EACH)] for layer in range(LAYERS)]
    services = {
        name: {"config": config, "after": dict.fromkeys(before, "healthy")}
        for before, layer in zip([[], *layers], layers, strict=False)
        for name in layer
    }
    return {"stack": "bench", "services": services}


def all_done(answer: dict[str, list[dict[str, object]]]) -> bool:
    """Whether all services are as wished."""
    return all(one["state"] == "done" for one in answer["services"])


def is_gone(answer: dict[str, list[dict[str, object]]]) -> bool:
    """Whether there is no service any more."""
    return not answer["services"]
