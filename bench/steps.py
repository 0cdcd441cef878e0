"""A launch in steps: how soon one is a step further, with what that has changed, or back."""

from __future__ import annotations

import json
import time
from contextlib import closing
from functools import partial
from statistics import median
from typing import Any

from bench.client import Connection
from bench.contestants import Txcontain
from bench.manager import seconds
from bench.measure import PAUSE, Figure


class Launch:
    """A launch in steps, as the command `step` asks for it."""

    def __init__(self, port: int, config: str, to: int = 0) -> None:
        self.held, self.client = Connection(port), Connection(port)
        self.path = f"/steps/{config}"
        self.held.send_off("POST", self.path, {"to": to})
        self.told: dict[str, Any] = json.loads(self.held.first_piece())
        self.last = len(self.told["steps"]) - 1

    def go_to(self, to: int) -> Any:
        """Carry out all steps before one."""
        return self.client.ask("POST", f"{self.path}/{self.told['launch']}", {"to": to})

    def close(self) -> None:
        """Hang up, which ends it."""
        self.held.close()
        self.client.close()


def figures(ours: Txcontain, rounds: int) -> list[Figure]:
    """Each step of a launch; and as often as launches are measured, back by one from its end."""
    port, config = ours.manager.port, "-".join(next(ours.configs).values())
    with closing(Launch(port, config)) as launch:
        last = launch.last
        steps = [seconds(partial(launch.go_to, number)) for number in range(1, last + 1)]
    back, cold = [], []
    for _ in range(max(20, 4 * rounds)):
        time.sleep(PAUSE)
        began = time.monotonic()
        with closing(Launch(port, config, last - 2)) as launch:
            launch.go_to(last - 1)
            back.append(time.monotonic() - began)
        time.sleep(PAUSE)
        ours.manager.client.close()  # it has been idle for long
        cold.append(seconds(lambda: ours.end(ours.finish(ours.begin()))))
    step, again, whole = (median(each) * 1e3 for each in (steps, back, cold))
    rival = "launch and end, none warm"
    return [
        Figure("a step of a launch, and its diff", "ms", step, rival, whole, "≤ 50"),
        Figure("a step back", "ms", again, rival, whole, "≤ 100"),
    ]
