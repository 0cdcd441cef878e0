"""The manager of this host, as the API asks an engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from attrs import frozen

from txcontain.engine import configs
from txcontain.engine.inspection import log_reader
from txcontain.engine.interface import Launched, LogsAsked, Running
from txcontain.engine.manager import Manager
from txcontain.runtime.instance import Instance


@frozen
class ThisHost:
    """An Engine: it has one host."""

    areas: ClassVar[Collection[str] | None] = None

    host: Manager

    def complaints(self) -> Sequence[str]:
        """None: it has nothing beside this host."""
        return []

    async def upload(self, document: bytes) -> None:
        """Check and keep a config. Raises InvalidData, ConfigExists, MachineAtFault."""
        await configs.upload(self.host, document)

    async def config_names(self) -> Sequence[str]:
        """The file names of the configs that are kept, sorted."""
        return self.host.configs.names()

    async def launch(self, name: str, major: str, minor: str, ago: float = 0.0) -> Launched:
        """Start a container. Raises NoSuchConfig, ConfigAtFault, MachineAtFault."""
        instance = await self.host.launch(name, major, minor, ago)
        return Launched(instance.summary, notes_of(instance))

    async def running(self) -> Running:
        """What runs, now."""
        return Running([instance.summary for instance in self.host.running()])

    async def records(self, wanted: str | None) -> Sequence[Mapping[str, Any]]:
        """How instances stand. Raises NoSuchInstance, Ambiguous."""
        every = list(self.host.instances.values())
        chosen = every if wanted is None else self.host.match_all(wanted)
        return [instance.standing for instance in chosen]

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

    async def destroy_all(self) -> None:
        """End and remove all instances. Raises MachineAtFault."""
        await self.host.destroy_all()


def notes_of(instance: Instance) -> list[str]:
    """What a person should know of a launch although it has succeeded, a sentence each."""
    notes = list(instance.notes)
    if instance.spec.port is not None and not instance.ready:
        notes.append(
            f"{instance.name} runs, but does not listen on port {instance.spec.port} "
            f"yet: `txcontain logs {instance.name}` shows what it says"
        )
    return notes
