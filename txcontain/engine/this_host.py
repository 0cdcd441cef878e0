"""The manager of this host, as the API asks an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from signal import SIGKILL
from typing import Any, ClassVar

from attrs import field, frozen

from txcontain.container.exec_plan import Command, Size
from txcontain.container.launch_request import LaunchRequest
from txcontain.engine import configs, execs, files, life
from txcontain.engine.attaching import MOST_ATTACHED, Attached
from txcontain.engine.changes import changes
from txcontain.engine.explaining import explain_config, explain_instance
from txcontain.engine.inspection import inspect, log_reader, usage
from txcontain.engine.interface import Launched, LogsAsked, Stdio, Told
from txcontain.engine.manager import Manager
from txcontain.engine.metrics import Metric, Sample, collect
from txcontain.engine.store import SUFFIX, Key
from txcontain.errors import OnlyInSwarm, TooMany
from txcontain.later import background
from txcontain.runtime.exits import Exit
from txcontain.runtime.instance import Instance

ONE_HOST = partial(
    OnlyInSwarm,
    "this manager has one host, and no nodes",
    "many hosts need `--engine swarm`: see docs/many-hosts.md",
)


@frozen
class ThisHost:
    """An Engine: it has one host."""

    lacks: ClassVar[Mapping[str, str]] = {}
    stacks: ClassVar[None] = None

    host: Manager
    attached: set[Attached] = field(factory=set)

    def complaints(self) -> Sequence[str]:
        """None: it has nothing beside this host."""
        return []

    async def upload(self, document: bytes) -> None:
        """Check and keep a config. Raises InvalidData, ConfigExists, MachineAtFault."""
        await configs.upload(self.host, document)

    async def config_names(self) -> Sequence[str]:
        """The file names of the configs that are kept, sorted."""
        return self.host.configs.names()

    async def configs(self) -> Sequence[tuple[Key, Sequence[str]]]:
        """The configs that are kept, and the instances that use each."""
        used = configs.users(self.host)
        return [(key, used.get("-".join(key) + SUFFIX, [])) for key in self.host.configs.versions()]

    async def read_config(self, file_name: str) -> bytes:
        """A config as it was uploaded. Raises NoSuchConfig, MachineAtFault."""
        return self.host.read_config(file_name)

    async def remove_config(self, file_name: str) -> None:
        """Remove a config that no instance uses. Raises NoSuchConfig, ConfigInUse."""
        await configs.remove(self.host, file_name)

    async def launch(self, name: str, major: str, minor: str, ago: float = 0.0) -> Launched:
        """Start a container. Raises NoSuchConfig, ConfigAtFault, MachineAtFault."""
        instance = await self.host.launch(name, major, minor, ago)
        return Launched(instance.summary, notes_of(instance))

    async def launch_as_asked(self, asked: LaunchRequest) -> Launched:
        """The same, with more choice. Raises InstanceExists, too."""
        instance = await self.host.launch_as_asked(asked)
        return Launched(instance.summary, notes_of(instance))

    async def running(self) -> Told:
        """What runs, now."""
        return Told([instance.summary for instance in self.host.running()])

    async def records(self, wanted: str | None) -> Told:
        """How instances stand. Raises NoSuchInstance, Ambiguous."""
        every = list(self.host.instances.values())
        chosen = every if wanted is None else self.host.match_all(wanted)
        return Told([instance.standing for instance in chosen])

    async def inspect(self, name: str) -> dict[str, Any]:
        """All that is known of an instance. Raises NoSuchInstance, Ambiguous."""
        return inspect(self.host, self.host.match(name))

    async def wait(self, name: str) -> Exit:
        """How an instance has ended for good, once it has. Raises NoSuchInstance, Ambiguous."""
        instance = self.host.match(name)
        return await life.until_it_is_kept(self.host, instance, instance.end())

    async def kill(self, name: str, signal: int = SIGKILL) -> Told:
        """Send a signal to PID 1 of an instance. Raises as ``life.kill`` does."""
        instance = self.host.match(name)
        notes = await life.kill(self.host, instance, signal)
        await self.host.pool.written()
        standing = self.host.instances.get(instance.name, instance).standing
        return Told([standing], notes=notes)

    async def usage(self, name: str | None) -> Told:
        """What an instance uses now, or all that run. Raises NoSuchInstance, Ambiguous, TooMany."""
        chosen = self.host.running() if name is None else [self.host.match(name)]
        return Told(await usage(self.host, chosen))

    async def collect(self) -> Iterator[tuple[Metric, list[Sample]]]:
        """All metrics. Raises TooMany."""
        return await collect(self.host)

    async def diff(self, name: str) -> dict[str, Any]:
        """What an instance has changed. Raises NoSuchInstance, Ambiguous, InvalidData, TooMany."""
        return await changes(self.host, self.host.match(name))

    async def look_at_file(self, name: str, path: str) -> dict[str, Any]:
        """What is at a path of an instance. Raises as ``files.look`` does."""
        return await files.look(self.host, self.host.match(name), path)

    async def read_files(self, name: str, path: str) -> files.Transfer:
        """Begin to read files of an instance. Raises as ``files.read`` does."""
        return await files.read(self.host, self.host.match(name), path)

    async def write_files(self, name: str, path: str, *, owners: bool) -> files.Transfer:
        """Begin to write files into an instance. Raises as ``files.write`` does."""
        return await files.write(self.host, self.host.match(name), path, owners=owners)

    async def destroy(self, name: str) -> Sequence[str]:
        """End an instance, and remove it. Raises NoSuchInstance, MachineAtFault."""
        return await self.host.destroy(name)

    async def send_logs(self, asked: LogsAsked, consumer: Any, begin: Callable[[], object]) -> None:
        """Send what instances have written. Raises NoSuchInstance, Ambiguous."""
        reader = log_reader(
            self.host,
            self._asked(asked),
            asked.wanted,
            consumer,
            names=asked.labelled,
            timestamps=asked.timestamps,
        )
        begin()
        await reader.send(asked.tail, asked.follow)

    def _asked(self, asked: LogsAsked) -> list[Instance] | None:
        """Whose logs are wanted; one without labels is of one instance."""
        if asked.names is None:
            return None
        if not asked.labelled:
            return [self.host.match(name) for name in asked.names]
        found = [one for name in asked.names for one in self.host.match_all(name)]
        return list(dict.fromkeys(found))

    async def exec(self, name: str, command: Command) -> Stdio:
        """Run a command in an instance. Raises NotRunning, TooMany, CannotRun, MachineAtFault."""
        return await execs.start(self.host, self.host.match(name), command)

    async def attach(self, name: str, size: Size | None, *, from_start: bool) -> Stdio:
        """Use the terminal of an instance. Raises WrongState, TooMany."""
        instance = self.host.match(name)
        here = sum(1 for one in self.attached if one.instance is instance)
        if here >= MOST_ATTACHED:
            raise TooMany(
                f"{here} are attached to {instance.name} already", "end one of them first"
            )
        attached = Attached(self.host, instance, self.attached.discard)
        self.attached.add(attached)
        what = "someone has attached to its terminal"
        self.host.journal.add("attach", what, instance=instance.name)
        if size is not None:
            attached.resize(size)
        background(attached.show(None if from_start else 0), f"showing {instance.name}")
        return attached

    async def explain(self, name: str) -> str:
        """How to make an instance's container by hand. Raises NoSuchInstance, Ambiguous."""
        return explain_instance(self.host, self.host.match(name))

    async def explain_config(self, file_name: str) -> str:
        """The same of a config. Raises NoSuchConfig, ConfigAtFault, MachineAtFault."""
        return await explain_config(self.host, file_name)

    async def explain_exec(self, name: str, command: Command) -> str:
        """The shell script that would do it. Raises NotRunning, InvalidData."""
        return execs.explanation(self.host, self.host.match(name), command)

    async def destroy_all(self) -> None:
        """End and remove all instances. Raises MachineAtFault."""
        await self.host.destroy_all()

    async def nodes(self, wanted: str | None = None) -> Told:
        """There are none. Raises OnlyInSwarm."""
        raise ONE_HOST()

    async def set_availability(self, node: str, availability: str) -> None:
        """There are none. Raises OnlyInSwarm."""
        raise ONE_HOST()

    async def set_labels(self, node: str, labels: Mapping[str, str | None]) -> None:
        """There are none. Raises OnlyInSwarm."""
        raise ONE_HOST()


def notes_of(instance: Instance) -> list[str]:
    """What a person should know of a launch although it has succeeded, a sentence each."""
    notes = list(instance.notes)
    if instance.spec.port is not None and not instance.ready:
        notes.append(
            f"{instance.name} runs, but does not listen on port {instance.spec.port} "
            f"yet: `txcontain logs {instance.name}` shows what it says"
        )
    return notes
