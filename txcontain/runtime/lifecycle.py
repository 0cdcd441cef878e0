"""The states of a container, and what moves it from one to the next.

created → starting → running → stopping → ended
             ↑↓         ↓         ↑
             waiting ←──┘ ────────┘      (waiting: to be started again)
             ↑          ↓
             stopped ← halting           (stopped: kept until someone starts it)

From starting and running also → failed: its launch did not work. Its record and log are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from automat import TypeMachineBuilder

from txcontain.runtime.exits import Exit


class Life(Protocol):
    """What can happen to a container."""

    def launch(self) -> None:
        """It is to be started."""

    def up(self) -> None:
        """Its script runs."""

    def found(self) -> None:
        """It runs, as an earlier manager left it."""

    def was_over(self, how: Exit) -> None:
        """It had ended for good before this manager started."""

    def had_failed(self, how: Exit) -> None:
        """Its launch had failed before this manager started."""

    def was_stopped(self, how: Exit) -> None:
        """It had been stopped before this manager started."""

    def stop(self) -> None:
        """It is to end for good."""

    def halt(self) -> None:
        """It is to end, and to be kept until someone starts it."""

    def halted(self, how: Exit) -> None:
        """It has ended, or could not be started, and is kept until someone starts it."""

    def lapsed(self, how: Exit) -> None:
        """It has ended, or could not be started, and is to be started again."""

    def failed(self, how: Exit) -> None:
        """Its launch has failed, and nothing of it runs."""

    def over(self, how: Exit) -> None:
        """It has ended, or could not be started, for good."""


class Living(Protocol):
    """What a container does as it enters each state."""

    def be_starting(self) -> None:
        """Enter the state "starting"."""

    def be_running(self) -> None:
        """Enter the state "running"."""

    def be_found(self) -> None:
        """Enter the state "running", which is not new."""

    def be_stopping(self) -> None:
        """Enter the state "stopping"."""

    def be_waiting(self, how: Exit) -> None:
        """Enter the state "waiting", after this end."""

    def be_ended(self, how: Exit | None = None) -> None:
        """Enter the state "ended", after this end (or else after the last one)."""

    def be_failed(self, how: Exit) -> None:
        """Enter the state "failed", after this end."""

    def be_halting(self) -> None:
        """Enter the state "stopping", on the way to "stopped"."""

    def be_stopped(self, how: Exit | None = None) -> None:
        """Enter the state "stopped", after this end (or else after the last one)."""

    def be_found_at_rest(self, state: str, how: Exit) -> None:
        """Enter the state "ended", "failed" or "stopped", which is not new."""


def _life_machine() -> Callable[[Living], Life]:
    builder = TypeMachineBuilder(Life, Living)  # type: ignore[type-abstract]  # a Protocol
    created = builder.state("created")
    starting = builder.state("starting")
    running = builder.state("running")
    waiting = builder.state("waiting")
    stopping = builder.state("stopping")
    halting = builder.state("halting")
    stopped = builder.state("stopped")
    ended = builder.state("ended")
    failed = builder.state("failed")

    for state in (created, waiting, stopped, ended):

        @state.upon(Life.launch).to(starting)
        def start(life: Life, container: Living) -> None:
            container.be_starting()

    @starting.upon(Life.up).to(running)
    def run(life: Life, container: Living) -> None:
        container.be_running()

    @created.upon(Life.found).to(running)
    def go_on(life: Life, container: Living) -> None:
        container.be_found()

    @created.upon(Life.was_over).to(ended)
    def stay(life: Life, container: Living, how: Exit) -> None:
        container.be_found_at_rest("ended", how)

    @created.upon(Life.had_failed).to(failed)
    def stay_failed(life: Life, container: Living, how: Exit) -> None:
        container.be_found_at_rest("failed", how)

    @created.upon(Life.was_stopped).to(stopped)
    def stay_stopped(life: Life, container: Living, how: Exit) -> None:
        container.be_found_at_rest("stopped", how)

    for state in (starting, running):

        @state.upon(Life.halt).to(halting)
        def halt(life: Life, container: Living) -> None:
            container.be_halting()

    for state in (starting, running, halting):

        @state.upon(Life.stop).to(stopping)
        def stop(life: Life, container: Living) -> None:
            container.be_stopping()

    for state in (created, starting, running):

        @state.upon(Life.lapsed).to(waiting)
        def wait(life: Life, container: Living, how: Exit) -> None:
            container.be_waiting(how)

    for state in (waiting, stopped):

        @state.upon(Life.stop).to(ended)
        def give_up(life: Life, container: Living) -> None:
            container.be_ended()

    @waiting.upon(Life.halt).to(stopped)
    def rest(life: Life, container: Living) -> None:
        container.be_stopped()

    for state in (created, starting, running):

        @state.upon(Life.halted).to(stopped)
        def come_to_rest(life: Life, container: Living, how: Exit) -> None:
            container.be_stopped(how)

    @halting.upon(Life.over).to(stopped)
    def end_halt(life: Life, container: Living, how: Exit) -> None:
        container.be_stopped(how)

    for state in (starting, running):

        @state.upon(Life.failed).to(failed)
        def fail(life: Life, container: Living, how: Exit) -> None:
            container.be_failed(how)

    for state in (created, starting, running, stopping):

        @state.upon(Life.over).to(ended)
        def end(life: Life, container: Living, how: Exit) -> None:
            container.be_ended(how)

    for state in (stopping, ended, failed):
        state.upon(Life.stop).loop().returns(None)
    for state in (stopping, halting, stopped, ended, failed):
        state.upon(Life.halt).loop().returns(None)
    return builder.build()


make_life = _life_machine()
