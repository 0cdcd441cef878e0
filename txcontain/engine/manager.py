"""The instances of a manager: launch them, find them, destroy them.

What else a manager can be asked is a function of it, in a module of its own: see configs.py,
inspection.py, recovery.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from threading import Event
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError

from txcontain.container.blueprint import Blueprint
from txcontain.container.defaults import Used, with_defaults
from txcontain.container.exec_plan import make_exec_base_plan
from txcontain.container.facts import Host
from txcontain.container.launch_request import LaunchRequest
from txcontain.container.plan import Paths
from txcontain.container.spec import Spec, from_json
from txcontain.engine import names
from txcontain.engine.arrivals import Arrivals, make_arrivals
from txcontain.engine.counts import Counts
from txcontain.engine.history import History
from txcontain.engine.images import used_as
from txcontain.engine.ports import check_ports
from txcontain.engine.store import Configs
from txcontain.engine.vault import Vault, check_small_files
from txcontain.engine.volumes import Volumes, unfinished, users_of, what_stays
from txcontain.errors import InstanceExists, MachineAtFault, NoSuchInstance
from txcontain.host.id_ranges import free_range
from txcontain.host.kernel import Kernel
from txcontain.host.meters import Meters
from txcontain.host.os_errors import of_os
from txcontain.host.trees import remove_but
from txcontain.images.layers import Layers
from txcontain.later import Few, Timer, background, poll, together
from txcontain.logs.journal import Journal
from txcontain.logs.logd import LOG
from txcontain.logs.reader import Reader
from txcontain.network.network import Network
from txcontain.runtime.ending import END_WITHIN
from txcontain.runtime.instance import Instance
from txcontain.runtime.kept import all_but_what_tells
from txcontain.runtime.pool import Pool
from txcontain.runtime.prepared import new_name
from txcontain.runtime.prober import Prober, make_prober
from txcontain.runtime.records import AT_REST
from txcontain.runtime.sessions import Sessions
from txcontain.runtime.supervised import LOOK_AFTER

MOST_SURVEYS, MOST_WAITING = 2, 100  # at once: other work needs threads too; that wait
MOST_LOOKS = 2  # at once, through the descriptors of a container's processes
TIDY_AFTER = 1.0  # seconds
LINK_GOES_WITHIN = 0.1  # seconds after the last process; if not, a connection holds it
OVER = ("waiting", "stopping", *AT_REST)  # states in which no command runs on
REMOVE_AFTER = 5.0  # seconds, in which a client can ask how an instance ended, and for its log


async def nothing() -> None:
    """Wait for nothing: all is written at once."""


def is_stuck(instance: Instance) -> MachineAtFault:
    """The error of an instance that does not end."""
    return MachineAtFault(
        f"ending {instance.name}",
        "its processes were killed, and do not end",
        "see in /proc/PID/stack what the kernel waits for, and destroy it again",
    )


@define(eq=False)
class Manager:
    """All the instances of one state folder."""

    reactor: Any
    kernel: Kernel
    pool: Pool
    layers: Layers
    configs: Configs
    volumes: Volumes
    network: Network
    journal: Journal
    threads: Callable[..., Deferred[Any]]  # runs a function off the reactor's thread
    remove: Callable[[str], Awaitable[None]]  # removes a file tree, off the reactor's thread
    host: Host
    state: str  # folder
    base_images: str  # folder
    mountables: str  # folder
    flush: Callable[[], Awaitable[None]] = nothing  # waits until everything is written
    keep_ended: int = 100  # ended instances
    sessions: Sessions = field(
        default=Factory(
            lambda self: Sessions(self.pool, make_exec_base_plan(self.host)), takes_self=True
        )
    )
    prober: Prober = field(
        default=Factory(lambda self: make_prober(self.sessions, self.host), takes_self=True)
    )
    arrivals: Arrivals = field(
        default=Factory(lambda self: make_arrivals(self.layers, self.journal), takes_self=True)
    )
    resolv_conf: Callable[[], str] = lambda: ""  # the host's /etc/resolv.conf, as text
    user_namespace: bool = False  # whether every instance gets one
    host_folders: Sequence[str] = ()  # below which folders of the host may be mounted
    allow_unsafe: bool = False  # whether a container may be made without one of its walls
    instances: dict[str, Instance] = field(factory=dict)  # in launch order
    surveys: Few = field(  # what keeps a thread for long, and only tells
        factory=lambda: Few("looks at instances", MOST_SURVEYS, MOST_WAITING)
    )
    _looks: DeferredSemaphore = field(factory=partial(DeferredSemaphore, MOST_LOOKS))
    _held: dict[int, list[str]] = field(factory=dict)  # layers of launches without an instance yet
    _tidying: Timer = field(
        default=Factory(lambda self: Timer(self.reactor, self._tidy), takes_self=True)
    )
    log_readers: set[Reader] = field(factory=set)  # of those who follow all logs
    _removals: dict[str, Timer] = field(factory=dict)  # by the instance's name
    counts: Counts = field(factory=Counts)
    # Told each end, with its kind (Exit.kind; "asked" if someone wanted it).
    on_end: Callable[[Instance, str], None] = lambda instance, kind: None
    history: History = field(
        default=Factory(
            lambda self: History(
                self.reactor,
                self.kernel,
                lambda: self.pool.cgroups,
                self.threads,
                self.running,
                # Half of the descriptors that may be held: the others are for the instances.
                Meters(lambda descriptor: not self.kernel.is_scarce(2 * descriptor)),
            ),
            takes_self=True,
        )
    )
    committing: set[str] = field(factory=set)  # names of the files that commits are writing
    watchers: list[Callable[[Instance], None]] = field(factory=list)  # told of each change
    endings: list[Callable[[], Coroutine[Any, Any, None]]] = field(factory=list)  # before it stops
    keeper: Any = None  # of what services there should be: services/keeper.py, a room above
    exporter: Any = None  # of configs and instances: exports/exporting.py, a room above
    unread: list[str] = field(factory=list)  # names of instances whose records can't be read yet

    @property
    def folder(self) -> str:
        """The folder of the instances' folders."""
        return os.path.join(self.state, "instances")

    @property
    def vault(self) -> Vault:
        """The secrets."""
        return Vault(os.path.join(self.state, "secrets"))

    # -- launching ---------------------------------------------------------------

    async def launch(self, name: str, major: str, minor: str, ago: float = 0.0) -> Instance:
        """Start a container of a config; returns when its script runs (and listens on its PORT).

        It was asked for some seconds ago.

        Raises NoSuchConfig, ConfigAtFault, MachineAtFault.
        """
        return await self.launch_as_asked(LaunchRequest(name, major, minor, ago=ago))

    async def launch_as_asked(self, asked: LaunchRequest) -> Instance:
        """The same, also of a config that is not kept, and under a name of the client's.

        A launch under the name of one that failed replaces it. If this one fails, its record and
        its log are kept, unless it is to be removed; the journal tells why, if that is news.

        Raises InstanceExists too.
        """
        began = self.reactor.seconds()
        before = self.instances.get(asked.instance or "")
        failed_before = before.failure if before else None
        if failed_before is None:  # else it is replaced
            self.check_that_it_is_free(asked.instance)
        spec = asked.config
        if isinstance(spec, str):
            spec = self._kept_config(spec, asked.major, asked.minor)
        asked.check_stream(spec)
        check_small_files(spec, self.vault, self.mountables)
        with self.holding() as layers:
            image = await self.get_layers(spec, layers)
            spec = with_defaults(spec, image)
            await self.make_volumes(spec)
            if (one := self.instances.get(asked.instance or "")) and one.failure is not None:
                await self._destroy_if_there(one.name)
            await check_ports(spec, self.instances, self.kernel, self.threads)
            instance = self._new(spec, layers, asked)
        instance.asked_at, instance.image = (began - asked.ago, began), image
        async with instance.settling:
            try:
                await instance.launch()
            except Exception as error:
                self.counts.failed_launches += 1
                if str(error) != failed_before:
                    self.journal.add("refused", str(error), instance=instance.name)
                if not instance.is_stopped:  # by someone else, while it was waited for
                    await self._settle_failure(instance, str(error))
                await self._remove_unfinished(spec)
                raise
        self.counts.launched(instance, instance.up_at - began)
        self.pool.prepared.launched(self.blueprint(spec, layers, instance.address, instance.ids))
        instance.notes = self.layers.news(layers)
        return instance

    def check_that_it_is_free(self, name: str | None) -> None:
        """Raise InstanceExists if an instance has this name, or is about to have it."""
        if name is None:
            return
        if one := self.instances.get(name):
            raise names.taken(one.summary, one.state)
        if name in self.pool.prepared.names or name in self.unread:
            raise InstanceExists(f"the name {name} is in use", "choose another name")

    def _kept_config(self, name: str, major: str | None, minor: str | None) -> Spec:
        if major is None or minor is None:
            name, major, minor = self.configs.newest(name, major)
        return from_json(self.read_config(f"{name}-{major}-{minor}.cfg"))

    def read_config(self, file_name: str) -> bytes:
        """A config, as it was uploaded. Raises NoSuchConfig, MachineAtFault."""
        try:
            return self.configs.read(file_name)
        except OSError as error:
            raise MachineAtFault(f"reading {file_name}", of_os(error)) from error

    async def get_layers(self, spec: Spec, layers: list[str]) -> Used | None:
        """Append a config's layers: the base image's, then each mount's; returns its OCI image."""
        with self.holding() as held:
            image = await self.arrivals.get_base(spec, self.base_images, layers, held)
        for mount in spec.mounts:
            layers.append(await self.layers.get(self.mountables, mount.tarball))
        return used_as(spec.base_image, image) if image else None

    async def make_volumes(self, spec: Spec) -> None:
        """Make those of a config's volumes that are not there. Raises MachineAtFault."""
        for name in spec.volume_names:
            if await self.volumes.make(name):
                self.journal.add("volume", f"{name} was made for {spec.file_name}", volume=name)

    async def _settle_failure(self, instance: Instance, why: str) -> None:
        """Remove all of an instance whose launch has failed, except what tells why."""
        async with instance.removing:
            if self.instances.get(instance.name) is not instance:
                return
            if not await self._keep_failure(instance, why):
                await self._remove(instance)
        self._forget_oldest()

    async def _keep_failure(self, instance: Instance, why: str) -> bool:
        """Keep its record and its log, and nothing else; returns whether that worked."""
        if instance.state != "failed" or instance.remove:
            return False
        left = await self._remove_processes(instance)
        if instance.processes is not None:
            await self.pool.log_process.close(instance.processes.token)
        try:
            for path in await self.threads(all_but_what_tells, instance.folder):
                await self.remove(path)
            if instance.ending:  # someone destroys it
                return False
            await instance.keep_failure(why)
        except OSError:
            return False
        return not left

    async def _remove_unfinished(self, spec: Spec) -> None:
        """Remove what a failed launch has left in its volumes, if no other is filling them."""
        for name in spec.volume_names:
            if users_of(name, self.instances.values()):
                continue
            for path in await self.threads(unfinished, self.volumes.path(name)):
                await self.remove(path)

    async def remove_volume(self, name: str) -> None:
        """Remove a volume and all that is in it.

        Raises NoSuchVolume; InUse if instances use it, also ended ones; MachineAtFault.
        """
        await self.volumes.remove(name, lambda: users_of(name, self.instances.values()))
        self.pool.expect_nothing()  # a warm init may have mounted it
        self.journal.add("volume", f"{name} was removed, with all that was in it", volume=name)

    def layers_in_use(self) -> set[str]:
        """The folders of layers that images, instances, launches or warm inits use."""
        running = [one.layers for one in self.instances.values() if not one.is_over]
        return self.pool.mounted.union(
            self.arrivals.images.in_use(), *running, *self._held.values()
        )

    @contextlib.contextmanager
    def holding(self, layers: Sequence[str] = ()) -> Iterator[list[str]]:
        """Keep layers from being removed, for a start that has not begun yet; more can be added."""
        held = list(layers)
        self._held[id(held)] = held  # not by what is in it, which others may hold too
        try:
            yield held
        finally:
            del self._held[id(held)]
            self.tidy_soon()  # there may be layers of an image that failed

    def tidy_soon(self) -> None:
        """Remove unused layers in a moment, if there are too many."""
        if self.layers.is_to_tidy(self.arrivals.images.in_use) and not self._tidying.is_set:
            self._tidying.after(TIDY_AFTER)

    def _tidy(self) -> None:
        if not self.unread:  # or else we don't know which layers those use
            background(self._remove_layers(), "removing layers")

    async def _remove_layers(self) -> None:
        for name in await self.layers.remove_unused(self.layers_in_use):
            self.journal.add("layer", f"removed {name}, which nothing uses")

    def _new(self, spec: Spec, layers: list[str], asked: LaunchRequest) -> Instance:
        ids = self.free_ids(spec)
        blueprint, prepared = self.blueprint(spec, layers, None, ids), None
        if asked.instance is None:  # else none is prepared for its name
            prepared = self.pool.warm.lease(blueprint)
        self.check_that_it_is_free(asked.instance)
        name = asked.instance or (prepared.reserved if prepared else new_name(spec.name))
        try:
            address = self.network.reserve(name, spec)
        except Exception:
            self.pool.warm.give_back(prepared)
            raise
        if address is not None:
            blueprint = self.blueprint(spec, layers, address, ids)
        instance = self.make_instance(name, blueprint)
        instance.prepared, instance.changed = prepared, self.changed
        instance.inline, instance.remove = isinstance(asked.config, Spec), asked.remove
        instance.labels, instance.stream = asked.labels, asked.stream
        self.instances[instance.name] = instance
        return instance

    def move_in(self, instance: Instance) -> None:
        """Give an instance that had ended an address again, and the plan that goes with it.

        Raises MachineAtFault, ConfigAtFault.
        """
        spec, ids = instance.spec, instance.ids
        instance.address = self.network.reserve(instance.name, spec)
        blueprint = self.blueprint(spec, instance.layers, instance.address, ids)
        instance.plan, instance.address6 = blueprint.plan(instance.name), blueprint.address6

    def free_ids(self, spec: Spec) -> int | None:
        """The first id of a free range, if it gets a user namespace. Raises MachineAtFault."""
        if not (spec.user_namespace or self.user_namespace):
            return None
        others = (one for one in self.instances.values() if one.state != "failed")
        return free_range(one.ids for one in others if one.ids is not None)

    def make_instance(self, name: str, blueprint: Blueprint) -> Instance:
        """An instance that is neither launched nor found again yet."""
        return Instance(
            name=name,
            spec=blueprint.spec,
            folder=blueprint.folder(name),
            layers=blueprint.layers,
            plan=blueprint.plan(name),
            reactor=self.reactor,
            kernel=self.kernel,
            pool=self.pool,
            address=blueprint.address,
            address6=blueprint.address6,
            ids=blueprint.ids,
            make_link=partial(self.network.connect, name),
            ask=self.prober.ask,
            rounds=self.prober.rounds,
            threads=partial(self._looks.run, self.threads),
        )

    def blueprint(
        self, spec: Spec, layers: Sequence[str], address: str | None, ids: int | None
    ) -> Blueprint:
        """What instances with these values are made from."""
        of_base = len(layers) - len(spec.mounts)
        run, tmp = self.layers.places(layers[:of_base])
        paths = Paths(
            base=layers[0],
            below=layers[1:of_base],
            mounts=layers[of_base:],
            private=self.folder,
            scratch=os.path.join(self.pool.folder, "scratch"),
            host=self.host,
            link=self.network.link_of(address) if address else None,
            resolv_conf=self.resolv_conf(),
            mountables=os.path.abspath(self.mountables),
            secrets=self.vault.folder,
            ids=ids,
            volumes={name: self.volumes.place(name) for name in spec.volume_names},
            host_folders=self.host_folders,
            run=run,
            tmp=tmp,
        )
        return Blueprint(spec, paths)

    def changed(self, instance: Instance, why: str, what: str) -> None:
        """React to a change of an instance, ``what`` in a word: to its new state, for example."""
        self.journal.add(what, why, instance=instance.name)
        if kind := self.counts.changed(instance):
            self.on_end(instance, kind)
        self.network.set_running(instance.name, instance.serves)
        if instance.state in OVER:
            self.sessions.end_those_of(instance, f"{instance.name} has ended, or is about to")
        if instance.running or instance.ended:
            self.tidy_soon()
        if instance.running:
            self.history.look()
            for reader in list(self.log_readers):
                reader.add(instance)
        if instance.ended:
            self.pool.log_process.wake(instance.name)
            self._release(instance)
            if not instance.ending and instance.state != "failed":  # that is still being cleared
                self._forget_oldest()
        if instance.ended and instance.remove and not instance.ending:
            self.remove_later(instance)
        for watcher in self.watchers:
            watcher(instance)

    def remove_later(self, instance: Instance) -> None:
        """Remove an instance that has ended, once whoever launched it has seen how."""
        timer = Timer(self.reactor, partial(self._forget_soon, instance))
        self._removals[instance.name] = timer
        timer.after(REMOVE_AFTER)

    def _release(self, instance: Instance) -> None:
        if instance.address:
            background(self.network.release(instance.name), f"releasing {instance.address}")

    # -- listing -----------------------------------------------------------------

    def running(self) -> list[Instance]:
        """The instances whose script runs, in launch order."""
        return [instance for instance in self.instances.values() if instance.running]

    def match(self, wanted: str) -> Instance:
        """The instance that a person means: by its name, or the beginning of it (``names.py``).

        Raises NoSuchInstance, Ambiguous.
        """
        return self.instances[names.match(wanted, self._known())]

    def match_all(self, wanted: str) -> list[Instance]:
        """The same; all instances of a config or a service if that is what is meant.

        Raises NoSuchInstance, Ambiguous.
        """
        return [self.instances[name] for name in names.match_all(wanted, self._known())]

    def _known(self) -> dict[str, names.Known]:
        return {n: names.Known(one.spec.key, one.labels) for n, one in self.instances.items()}

    def find(self, name: str) -> Instance:
        """The instance with exactly this name.

        Raises NoSuchInstance.
        """
        try:
            return self.instances[name]
        except KeyError:
            raise NoSuchInstance(f"there is no instance {name}") from None

    # -- destroying --------------------------------------------------------------

    async def destroy(self, name: str) -> list[str]:
        """End a container and remove everything of it, except its volumes.

        Returns which data was removed and which was kept, a sentence each.
        Raises NoSuchInstance; MachineAtFault if something could not be removed.
        """
        instance = self.find(name)
        async with instance.removing:
            if self.find(name) is not instance:  # another request has removed it
                raise NoSuchInstance(f"there is no instance {name}")
            with contextlib.suppress(MachineAtFault):  # it ends all the same; then that is told
                await self.network.set_aside(name)
            await self._stop(instance)
            await self._remove(instance)
        self.journal.add("destroyed", "its processes, cgroup and folders are gone", instance=name)
        return what_stays(name, instance.spec)

    async def _stop(self, instance: Instance) -> None:
        patience = instance.spec.stop_timeout + END_WITHIN
        stopped = instance.stop()
        stopped.addTimeout(patience, self.reactor)
        try:
            await stopped
        except TimeoutError as error:
            raise is_stuck(instance) from error

    async def destroy_all(self) -> None:
        """End and remove all instances at the same time.

        Raises what ``destroy`` raises, for the first one that could not be removed.
        """
        await together(*(self._destroy_if_there(name) for name in list(self.instances)))

    async def _destroy_if_there(self, name: str) -> None:
        with contextlib.suppress(NoSuchInstance):
            await self.destroy(name)

    async def _forget(self, instance: Instance) -> None:
        """Remove an instance that has ended or is ending, unless another request did."""
        async with instance.removing:
            if self.instances.get(instance.name) is instance:
                await self._remove(instance)

    async def _remove(self, instance: Instance) -> None:
        """Wait until no process is left, remove everything else, and check that it is gone."""
        if not instance.ending:
            instance.mark_as_ending()
        self.sessions.end_those_of(instance, f"{instance.name} is removed")
        await self.pool.standby.drop(instance.name)
        work = self._remove_folder(instance), self._remove_processes(instance)
        _, left = await together(*work)
        self.instances.pop(instance.name, None)
        self.history.forget(instance.name)
        if timer := self._removals.pop(instance.name, None):
            timer.cancel()
        for watcher in self.watchers:
            watcher(instance)
        if left:
            raise MachineAtFault(f"{instance.name} has ended, but something is left", *left)

    async def _remove_processes(self, instance: Instance) -> list[str]:
        await instance.end()
        if instance.address:
            await self.network.release(instance.name)
        return await self._what_is_left(instance)

    async def _remove_folder(self, instance: Instance) -> None:
        """Remove the folder; readers of the log get the rest of it first."""
        if instance.marked is not None:
            await instance.marked
        drained = Event()
        removed = self.threads(remove_but, instance.folder, LOG, drained.is_set)
        await self._end_log(instance)
        drained.set()
        try:
            if not await removed:
                await self.remove(instance.folder)
        except OSError as error:
            raise MachineAtFault(f"removing {instance.folder}", of_os(error)) from error

    async def _end_log(self, instance: Instance) -> None:
        if instance.processes is not None:
            await self.pool.log_process.close(instance.processes.token)
        await self.pool.log_process.removing(instance.name)

    async def _what_is_left(self, instance: Instance) -> list[str]:
        left = await instance.processes.remove() if instance.processes else []
        async for _ in poll(self.reactor, LOOK_AFTER, within=LINK_GOES_WITHIN):
            if not self.network.left(instance.address):
                return left
        await self.network.remove_link(instance.address)
        return left + self.network.left(instance.address)

    def _forget_oldest(self) -> None:
        """Remove the oldest ended or failed instances, beyond ``keep_ended``."""
        ended = [one for one in self.instances.values() if one.is_disposable]
        for instance in sorted(ended, key=lambda one: one.since)[: -self.keep_ended or None]:
            self._forget_soon(instance)

    def _forget_soon(self, instance: Instance) -> None:
        if not instance.ending:
            instance.mark_as_ending()
            background(self._forget(instance), f"forgetting {instance.name}")

    def pause(self) -> None:
        """Cancel all timers: the manager ends, and the containers run on."""
        if self.volumes.pausing.locked:  # some are frozen while they are read
            for instance in self.running():
                if instance.processes and not instance.paused:
                    instance.thaw(instance.processes)
        self.network.stop()
        self.prober.probes.stop()
        self._tidying.cancel()
        self.history.stop()
        for timer in self._removals.values():
            timer.cancel()
        for instance in self.instances.values():
            instance.pause()
        why = "a command in it was ended: the manager ends"
        for instance in self.sessions.stop():
            self.journal.add("exec", why, instance=instance.name)
        self.journal.write()
