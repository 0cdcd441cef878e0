"""The verbs: keep a config, launch it, list what runs, destroy it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from txcontain import failures
from txcontain.errors import MachineAtFault, NoSuchInstance
from txcontain.instance import Instance
from txcontain.kernel import Kernel
from txcontain.layers import Layers
from txcontain.plan import Host, Paths, make_plan
from txcontain.pool import Pool
from txcontain.spec import Spec, from_json
from txcontain.store import Configs


@define(eq=False)
class Manager:
    """All the instances of one state folder."""

    reactor: Any
    kernel: Kernel
    pool: Pool
    layers: Layers
    configs: Configs
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    host: Host
    state: str  # folder
    base_images: str  # folder
    mountables: str  # folder
    instances: dict[str, Instance] = field(factory=dict)  # in the order of their launch
    _log: Logger = field(factory=Logger)

    # -- configs ---------------------------------------------------------------

    async def add_config(self, document: bytes) -> Spec:
        """Check and keep a config.

        Raises InvalidData, ConfigExists.
        """
        spec = from_json(document)
        await self.threads(self.configs.add, spec.file_name, document)
        self._log.info("kept {file}", file=spec.file_name)
        return spec

    def config_names(self) -> list[str]:
        """The file names of the configs that are kept, sorted."""
        return self.configs.names()

    # -- instances -------------------------------------------------------------

    async def launch(self, name: str, major: str, minor: str) -> Instance:
        """Start a container of a config; returns when its script runs (and listens on PORT).

        Raises NoSuchConfig, ConfigAtFault, MachineAtFault.
        """
        spec = from_json(self.configs.read(f"{name}-{major}-{minor}.cfg"))
        await self._check_port(spec)
        instance = await self._make(spec)
        try:
            await instance.launch()
        except BaseException as error:
            self._log.error("{name} was not launched: {why}", name=instance.name, why=str(error))
            await self._forget(instance)
            raise
        return instance

    async def _check_port(self, spec: Spec) -> None:
        if spec.port is None:
            return
        for instance in self.instances.values():
            if instance.spec.port == spec.port and instance.state != "ended":
                raise failures.of_port(spec.port, f"the instance {instance.name}")
        if self.kernel.listening_sockets(spec.port):
            holder = await self.threads(self.kernel.listener, spec.port)
            if holder is not None:
                raise failures.of_port(spec.port, "{1} (process {0})".format(*holder))

    async def _make(self, spec: Spec) -> Instance:
        name = f"{spec.name}-{token_hex(4)}"
        folder = os.path.join(self.state, "instances", name)
        base, mounts = await self._layers(spec)
        self._make_folder(folder)
        paths = Paths(
            base=base, mounts=mounts, private=os.path.join(folder, "rw"),
            scratch=os.path.join(folder, "scratch"), stdout=os.path.join(folder, "stdout.log"),
            stderr=os.path.join(folder, "stderr.log"), host=self.host,
        )  # fmt: skip
        plan = make_plan(spec, paths, name)
        instance = Instance(name, spec, folder, plan, self.reactor, self.kernel, self.pool)
        self.instances[name] = instance
        return instance

    async def _layers(self, spec: Spec) -> tuple[str, list[str]]:
        wanted = [(self.base_images, spec.base_image)]
        wanted += [(self.mountables, mount.tarball) for mount in spec.mounts]
        base, *mounts = [await self.layers.get(folder, name) for folder, name in wanted]
        return base, mounts

    @staticmethod
    def _make_folder(folder: str) -> None:
        try:
            for path in (folder, os.path.join(folder, "scratch")):
                os.mkdir(path, 0o700)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise MachineAtFault("making the instance's folder", str(error)) from error

    def running(self) -> list[Instance]:
        """The instances whose script runs, in the order of their launch."""
        return [instance for instance in self.instances.values() if instance.running]

    def find(self, name: str) -> Instance:
        """The instance of this name.

        Raises NoSuchInstance.
        """
        try:
            return self.instances[name]
        except KeyError:
            raise NoSuchInstance(f"there is no instance {name}") from None

    async def destroy(self, name: str) -> None:
        """End a container and remove all that is left of it.

        Raises NoSuchInstance; MachineAtFault where something of it could not be removed.
        """
        instance = self.find(name)
        await instance.stop()
        await self._forget(instance)

    async def destroy_all(self) -> None:
        """End and remove every instance, all at the same time."""
        names = list(self.instances)
        results: Any = await DeferredList(
            [Deferred.fromCoroutine(self.destroy(name)) for name in names], consumeErrors=True
        )
        for succeeded, failure in results:
            if not succeeded and not failure.check(NoSuchInstance):
                raise failure.value

    async def _forget(self, instance: Instance) -> None:
        self.instances.pop(instance.name, None)
        try:
            await self.remove(instance.folder)
        except OSError as error:
            raise MachineAtFault(f"removing {instance.folder}", str(error)) from error
