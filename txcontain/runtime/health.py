"""Whether an instance is healthy: it is asked again and again while it runs.

The meaning is that of Docker's and Podman's health checks. Any check that passes makes it healthy;
``retries`` failures in a row make it unhealthy, and then ``on_failure`` is done. What differs:

- ``interval`` goes from the beginning of one check to that of the next (as Kubernetes'
  ``periodSeconds`` does), so that it says when a program that hangs is found;
- until it has passed once, it is also asked in the first interval, less and less often. These
  checks can make it healthy, and do not count if they fail: Docker makes its first check when that
  interval is over. So a program that starts soon is healthy soon.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import define, field, frozen

from txcontain.container.health import Health
from txcontain.container.spec import Spec
from txcontain.host.kernel import Kernel
from txcontain.later import Rounds, Timer
from txcontain.runtime.probes import LONGEST_ANSWER, Told, nothing
from txcontain.runtime.supervised import Supervised

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
STATUSES = (STARTING, HEALTHY, UNHEALTHY)
SOON = 0.02  # seconds until the second check
MOST_RESULTS = 20  # that are kept
LONGEST_WORDS = 200  # characters of what it said, in the journal
TOGETHER = 0.05  # seconds: checks that are due within them are made at the same moment
FROZEN = "its processes are frozen"


@frozen
class Standing:
    """How an instance stands with its check."""

    status: str = STARTING
    failures: int = 0  # in a row, those that count


def decide(health: Health, before: Standing, passed: bool, age: float) -> tuple[Standing, str]:
    """The standing after a check, and what is to be done: "restart", "stop" or "none".

    :param age: seconds between the start of the instance and the check
    """
    if passed:
        return Standing(HEALTHY), "none"
    if before.status == STARTING and age < _grace(health):
        return before, "none"
    failures = before.failures + 1
    if failures < health.retries and before.status != UNHEALTHY:
        return Standing(before.status, failures), "none"
    return Standing(UNHEALTHY, failures), health.on_failure


def pause(health: Health, standing: Standing, age: float) -> float:
    """Seconds from the beginning of a check to that of the next.

    :param age: seconds between the start of the instance and the check
    """
    grace = _grace(health)
    if standing.status != STARTING or age >= grace:
        return health.interval
    pace = health.start_interval if age < health.start_period else health.interval
    return min(max(SOON, age / 2), pace, grace - age)


def _grace(health: Health) -> float:
    return max(health.start_period, health.interval)


@frozen
class Result:
    """What came of a check."""

    at: float  # unix time of its beginning
    seconds: float  # that it took
    passed: bool | None  # None: the instance could not be asked
    output: str


# Asks an instance once: calls what it is given once, maybe before it returns. Returns what ends it.
Ask = Callable[[Told], Callable[[], None]]


class Checked(Protocol):
    """What its checks know of an instance, and have it do."""

    reactor: Any
    kernel: Kernel
    rounds: Rounds
    spec: Spec
    paused: bool
    up_at: float
    processes: Supervised | None

    @property
    def running(self) -> bool:
        """Whether its script runs and was not asked to end."""

    def health_changed(self, why: str) -> None:
        """Take note that its checks say something else from now on."""

    def give_up(self) -> None:
        """End it, unless someone waits for it, or for its end."""


@define(eq=False)
class Checks:
    """The checks of an instance, which has them asked while it runs and is not paused."""

    instance: Checked
    _ask_instance: Ask
    standing: Standing = Standing()
    why: str = ""  # the standing, in words; nothing if an earlier manager has found it
    results: deque[Result] = field(factory=partial(deque, maxlen=MOST_RESULTS))
    chance: Callable[[], float] = random.random  # spreads what would happen at one moment
    _run: bool = False
    _recalled: bool = False
    _begun: tuple[float, float] = (0.0, 0.0)  # the last one, by the reactor's clock and the day's
    _end_last: Callable[[], None] = nothing
    _next: Timer = field(init=False)
    _round: int = 0  # in which it is asked next, once it has started

    def __attrs_post_init__(self) -> None:
        self._next = Timer(self.instance.reactor, self._ask)

    @property
    def ask_for_restart(self) -> bool:
        """Whether it is unhealthy, and so to be started again when it has ended."""
        health = self.instance.spec.health
        return (
            self.standing.status == UNHEALTHY
            and health is not None
            and (health.on_failure == "restart")
        )

    def recall(self, status: str) -> None:
        """Go on with what an earlier manager knew. Failures are counted anew."""
        self.standing, self._recalled = Standing(status), True

    def begin_anew(self) -> None:
        """It is started: what was known of its last run says nothing."""
        self.standing, self.why, self._recalled = Standing(), "", False

    def follow(self) -> None:
        """Take note that something about the instance has changed."""
        instance = self.instance
        health = instance.spec.health
        if health is None:
            return
        if not instance.running or instance.paused:
            self.stop()
        elif not self._run:
            self._run = True
            wait = pause(health, self.standing, self._age()) if self._recalled else 0
            self._next.after(self.chance() * wait)  # there may be a thousand others
        elif self.standing.status == STARTING and self._next.is_set:
            self._next.after(0)  # it may have begun to listen

    def stop(self) -> None:
        """Ask no more."""
        self._run = False
        self._next.cancel()
        self.instance.rounds.remove(self._round, self._ask)
        self._end_last()

    def _age(self) -> float:
        instance = self.instance
        age: float = instance.reactor.seconds() - instance.up_at
        return age

    def _ask_after(self, seconds: float) -> None:
        """Ask again at about that time, together with others; if it is starting, just then."""
        if self.standing.status == STARTING:
            self._next.after(seconds)
        else:
            self._round = self.instance.rounds.add(seconds, self._ask)

    def _ask(self) -> None:
        if not self._run:  # it was stopped by something else in this round
            return
        self._end_last()
        instance = self.instance
        self._begun = instance.reactor.seconds(), instance.kernel.now()
        self._end_last = self._ask_instance(self._hear)

    def _hear(self, passed: bool | None, output: str) -> None:
        """Take note of what came of a check, and have the next one follow."""
        health, processes = self.instance.spec.health, self.instance.processes
        if not self._run or health is None or processes is None:
            return
        begun, at = self._begun
        took = self.instance.reactor.seconds() - begun
        if passed is False and processes.cgroups.is_frozen(processes.token):
            passed, output = None, f"{FROZEN}: {output}"
        self.results.append(Result(at, took, passed, output[:LONGEST_ANSWER]))
        before, age = self.standing, begun - self.instance.up_at
        action = "none"
        if passed is not None:
            self.standing, action = decide(health, before, passed, age)
        wait = pause(health, self.standing, age)
        if (before.status, self.standing.status) == (STARTING, HEALTHY):
            wait *= self.chance()
        self._ask_after(max(wait - took, 0))
        if self.standing.status != before.status:
            self.why = self._words(health, output)
            self.instance.health_changed(self.why)
        if action != "none":
            self.instance.give_up()

    def _words(self, health: Health, output: str) -> str:
        said = f"{_question(health, self.instance.spec.port_asked)}: {one_line(output)}"
        if self.standing.status == HEALTHY:
            return said
        return f"{self.standing.failures} checks in a row have failed; {said}"


def _question(health: Health, port: int | None) -> str:
    if health.command:
        return one_line(" ".join(health.command))
    return f"GET {health.http} on port {port}" if health.http else f"port {port}"


def one_line(text: str) -> str:
    """The beginning of a text, printable and on one line."""
    words = " ".join(text[: 2 * LONGEST_WORDS].split())
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in words)
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 3] + "..."
