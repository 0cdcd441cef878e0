"""What the API asks of an engine: of the manager of this host, or of one that has many hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from signal import SIGKILL
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from txcontain.container.exec_plan import Command, Size
from txcontain.container.launch_request import LaunchRequest
from txcontain.engine.manager import Manager
from txcontain.engine.metrics import Metric, Sample
from txcontain.engine.store import Key
from txcontain.logs.segments import EVERYTHING, Wanted
from txcontain.runtime.exits import Exit

Summary = Mapping[str, str]  # an instance, and its config's name, major and minor


@frozen
class Launched:
    """An instance that was launched."""

    summary: Summary
    notes: Sequence[str] = ()  # what a person should know although it has succeeded


@frozen
class Told:
    """What an engine tells of several things, in an order."""

    records: Sequence[Mapping[str, Any]]
    as_of: float | None = None  # unix time, if that is how it was then, and not now
    notes: Sequence[str] = ()  # what a person should know of them


@frozen
class LogsAsked:
    """Which logs are wanted, and how they are to look."""

    names: Sequence[str] | None  # of instances, as ``names.match_all`` takes them; None: all
    wanted: Wanted = EVERYTHING
    tail: int | None = None  # only so many lines, the last of each
    follow: bool = False  # also what they go on to write
    timestamps: bool = False  # each line begins with its time
    labelled: bool = False  # and with its instance; else they are of exactly one


class Stdio(Protocol):
    """The streams of a command, or a terminal; as an IPushProducer, it is what comes from there."""

    @property
    def reactor(self) -> Any:
        """The manager's."""

    heard: Callable[[int, bytes], None] | None  # told the stream (1, 2) and what came
    ended: Deferred[Exit]  # fires after the last output
    paused: bool  # whether its output waits, as it does at first

    def write(self, data: bytes) -> None:
        """Let it read this."""

    def close_input(self) -> None:
        """No more input comes."""

    def register_input(self, producer: Any) -> None:
        """Have a push producer pause while it does not read."""

    def resize(self, size: Size) -> None:
        """Its terminal, if it has one, has this size now."""

    def pauseProducing(self) -> None:
        """Read no output for now."""

    def resumeProducing(self) -> None:
        """Read on."""

    def stopProducing(self) -> None:
        """No one reads its output any more."""

    def end(self, because: str) -> None:
        """End it, and say why: who is attached to a terminal only leaves it."""


class Transfer(Protocol):
    """A tar stream of files: out of an instance, or into one."""

    @property
    def left_out(self) -> str:
        """A sentence about what could not be made; empty if that is nothing."""

    def end(self, because: str) -> None:
        """Cut it short, and say why."""

    async def run(self, take: Callable[[bytes], object], *, differs: bool = False) -> None:
        """Wait for its end; ``take`` is told what comes out.

        :param differs: whether files may change meanwhile
        Raises CannotCopy, CalledOff, InvalidData, NoSuchPath, NotRunning, MachineAtFault.
        """


class Reading(Transfer, Protocol):
    """One out of an instance."""

    @property
    def producer(self) -> Any:
        """An IPushProducer: what comes out."""


class Writing(Transfer, Protocol):
    """One into an instance."""

    @property
    def input(self) -> Any:
        """An IConsumer: what goes in."""

    def close_input(self) -> None:
        """All has gone in."""


@frozen
class Planned:
    """What is changed of a stack."""

    stack: str
    services: Sequence[str]  # that it concerns, as the stack names them
    changes: Sequence[str]  # a sentence each
    steps: Sequence[Mapping[str, str]] = ()  # with instances, in order, if that is foreseen


class Stacks(Protocol):
    """Which services there should be. All it tells is what the API does (api/services.py)."""

    async def all(self) -> Told:
        """All stacks: of each its name, and how its services stand."""

    async def one(self, name: str) -> dict[str, Any]:
        """One of them, and its document. Raises NoSuchStack."""

    async def service(self, name: str) -> dict[str, Any]:
        """How a service stands. Raises NoSuchService, Ambiguous."""

    async def plan(self, values: dict[str, Any]) -> Planned:
        """What ``up`` would do; it raises what that raises."""

    async def up(self, values: dict[str, Any]) -> Planned:
        """Begin to have a stack be as a document says.

        Raises InvalidData, NoSuchConfig, ConfigAtFault, TooMany, InUse, MachineAtFault.
        """

    async def down(self, name: str) -> Planned:
        """Begin to remove a stack. Raises NoSuchStack, MachineAtFault."""

    async def scale(self, service: str, replicas: int) -> Planned:
        """Begin to have another number of instances of a service.

        Raises NoSuchService, Ambiguous, InvalidData, WrongState, MachineAtFault.
        """

    async def update(self, service: str, major: str, minor: str) -> Planned:
        """Begin to replace a service's instances by those of another version of its config.

        Raises NoSuchConfig, ConfigAtFault, and what ``scale`` raises.
        """

    async def rollback(self, service: str) -> Planned:
        """Begin to go back to the revision before. Raises what ``scale`` raises."""

    def settled(self, done: Planned) -> Deferred[list[str]]:
        """Fires when that is as wished, or can't be: with why not, a sentence each.

        It can be cancelled.
        """


class Engine(Protocol):
    """Runs containers. Each of its verbs may have to wait for others, and raises errors.Error."""

    @property
    def host(self) -> Manager:
        """The manager of the host where the API is served."""

    @property
    def lacks(self) -> Mapping[str, str]:
        """The areas of the API that it lacks, by name, and what to do instead."""

    @property
    def stacks(self) -> Stacks | None:
        """Its stacks; None: the manager of its host keeps them."""

    def complaints(self) -> Sequence[str]:
        """Why it can't do its work now, beside what is amiss on this host, a sentence each."""

    async def upload(self, document: bytes) -> None:
        """Check and keep a config.

        Raises InvalidData, ConfigExists, MachineAtFault.
        """

    async def config_names(self) -> Sequence[str]:
        """The file names of the configs that are kept, sorted. Raises MachineAtFault."""

    async def configs(self) -> Sequence[tuple[Key, Sequence[str]]]:
        """The configs by name, their versions as numbers, and the instances that use each."""

    async def read_config(self, file_name: str) -> bytes:
        """A config as it was uploaded. Raises NoSuchConfig, MachineAtFault."""

    async def remove_config(self, file_name: str) -> None:
        """Remove a config that no instance uses.

        Raises NoSuchConfig, ConfigInUse, MachineAtFault.
        """

    async def launch(self, name: str, major: str, minor: str, ago: float = 0.0) -> Launched:
        """Start a container of a config; returns when its script runs (and listens on its PORT).

        It was asked for some seconds ago. Raises NoSuchConfig, ConfigAtFault, MachineAtFault.
        """

    async def launch_as_asked(self, asked: LaunchRequest) -> Launched:
        """The same, with more choice. Raises InstanceExists, NotInSwarm, too."""

    async def running(self) -> Told:
        """A summary of each instance whose script runs, in launch order.

        Raises Unavailable, MachineAtFault.
        """

    async def records(self, wanted: str | None) -> Told:
        """How all instances stand, or those that this stands for (``names.match_all``).

        Raises NoSuchInstance, Ambiguous, Unavailable, MachineAtFault.
        """

    async def inspect(self, name: str) -> dict[str, Any]:
        """All that is known of an instance.

        Raises NoSuchInstance, Ambiguous, Unavailable, MachineAtFault.
        """

    async def wait(self, name: str) -> Exit:
        """How an instance has ended for good, once it has. Raises NoSuchInstance, Ambiguous.

        It may be cancelled.
        """

    async def kill(self, name: str, signal: int = SIGKILL) -> Told:
        """Send a signal to PID 1 of an instance; returns how that stands then.

        Raises NoSuchInstance, Ambiguous, NotRunning, WrongState, CalledOff, NotInSwarm,
        Unavailable, MachineAtFault.
        """

    async def usage(self, name: str | None) -> Told:
        """What an instance uses now, or all that run; notes say what is left out.

        Raises NoSuchInstance, Ambiguous, NotRunning, NotInSwarm, TooMany, Unavailable,
        MachineAtFault.
        """

    async def collect(self) -> Iterator[tuple[Metric, list[Sample]]]:
        """All metrics with their samples; each list is made only when it is its turn.

        Raises TooMany.
        """

    async def diff(self, name: str) -> dict[str, Any]:
        """What an instance has changed, and whether that is all, as ``changes.changes`` tells it.

        Raises NoSuchInstance, Ambiguous, InvalidData, TooMany, NotRunning, NotInSwarm,
        Unavailable, MachineAtFault.
        """

    async def look_at_file(self, name: str, path: str) -> dict[str, Any]:
        """What is at a path of an instance.

        Raises NoSuchInstance, Ambiguous, InvalidData, NoSuchPath, NotRunning, TooMany, CannotCopy,
        CalledOff, NotInSwarm, Unavailable, MachineAtFault.
        """

    async def read_files(self, name: str, path: str) -> Reading:
        """Begin to read what is at a path of an instance. Raises as ``look_at_file`` does."""

    async def write_files(self, name: str, path: str, *, owners: bool) -> Writing:
        """Begin to write into a folder of an instance. Raises as ``look_at_file`` does.

        :param owners: whether files get the owners that the stream says; else the container's root
        """

    async def destroy(self, name: str) -> Sequence[str]:
        """End an instance, and remove everything of it except its volumes.

        Returns which data was removed and which was kept, a sentence each.
        Raises NoSuchInstance, MachineAtFault.
        """

    async def send_logs(self, asked: LogsAsked, consumer: Any, begin: Callable[[], object]) -> None:
        """Send what instances have written to an IConsumer, no faster than it takes that.

        :param begin: is called before anything is sent
        Raises NoSuchInstance, Ambiguous, NotInSwarm, MachineAtFault.
        """

    async def exec(self, name: str, command: Command) -> Stdio:
        """Run a command in an instance; its output waits until it is asked for.

        Raises NoSuchInstance, Ambiguous, NotRunning, TooMany, CannotRun, NoSuchProgram,
        NotInSwarm, Unavailable, MachineAtFault.
        """

    async def attach(self, name: str, size: Size | None, *, from_start: bool) -> Stdio:
        """Use the terminal of an instance.

        :param size: that it is to have
        :param from_start: begin with all that it has shown
        Raises NoSuchInstance, Ambiguous, WrongState, TooMany, NotInSwarm.
        """

    async def explain(self, name: str) -> str:
        """The shell script that would make the container of an instance.

        Raises NoSuchInstance, Ambiguous, InvalidData, Unavailable, MachineAtFault.
        """

    async def explain_config(self, file_name: str) -> str:
        """The same of the container that a launch of a kept config would make.

        Raises NoSuchConfig, ConfigAtFault, InvalidData, MachineAtFault.
        """

    async def explain_exec(self, name: str, command: Command) -> str:
        """The shell script that would run a command in an instance.

        Raises NoSuchInstance, Ambiguous, NotRunning, InvalidData, NotInSwarm.
        """

    async def destroy_all(self) -> None:
        """End and remove all instances. Raises MachineAtFault."""

    async def nodes(self, wanted: str | None = None) -> Told:
        """How its hosts stand, or the one of this name or id.

        Raises OnlyInSwarm, NoSuchNode, Ambiguous, Unavailable, MachineAtFault.
        """

    async def set_availability(self, node: str, availability: str) -> None:
        """Say what may run on a host: active, or drain for nothing. Raises as ``nodes`` does."""

    async def set_labels(self, node: str, labels: Mapping[str, str | None]) -> None:
        """Give a host labels; None takes one away. Raises as ``nodes`` does."""
