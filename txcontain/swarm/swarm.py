"""The engine of many hosts: what the API asks is done by a swarm of Docker engines.

It keeps nothing: configs are configs of the swarm, instances are services, told by their labels.
So several of these may be beside each other, one for each manager.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from secrets import token_hex
from signal import SIGKILL, strsignal
from typing import Any, ClassVar

from attrs import define, field, frozen

from txcontain.container.exec_plan import Command, Size
from txcontain.container.launch_request import LaunchRequest
from txcontain.container.spec import Spec, from_json
from txcontain.engine.counts import Histogram
from txcontain.engine.interface import Launched, LogsAsked, Stdio, Told
from txcontain.engine.manager import Manager
from txcontain.engine.metrics import Metric, Sample
from txcontain.engine.names import match, match_all
from txcontain.engine.store import Key
from txcontain.errors import (
    Error,
    InstanceExists,
    MachineAtFault,
    NoSuchInstance,
    Unavailable,
    WrongState,
)
from txcontain.exports.exporting import Exporter
from txcontain.exports.subject import Subject
from txcontain.later import background, poll, together
from txcontain.runtime.exits import Exit
from txcontain.swarm import (
    changes,
    commands,
    configs,
    explaining,
    logs,
    mapping,
    metrics,
    nodes,
    usage,
)
from txcontain.swarm.attaching import Attaching
from txcontain.swarm.balancer import Balancer
from txcontain.swarm.client import Docker, Refused
from txcontain.swarm.execs import Sessions
from txcontain.swarm.files import Copies, Reading, Writing, look
from txcontain.swarm.lacking import LACKS
from txcontain.swarm.mapping import INSTANCE, Json
from txcontain.swarm.means import Means
from txcontain.swarm.places import Place, place_of, refusal_of
from txcontain.swarm.presence import Presence
from txcontain.swarm.records import (
    Seen,
    end_of,
    instances,
    known,
    records,
    refuse_taken,
    running,
)
from txcontain.swarm.removals import Removals
from txcontain.swarm.stack_mapping import is_of_place, read_kept
from txcontain.swarm.stacks import SwarmStacks
from txcontain.swarm.starting import LOOK_AFTER, LOOK_MOST, Start
from txcontain.swarm.watch import Watch

TAKEN_BACK_WITHIN, LOOK_AGAIN = 300.0, 10.0  # seconds: a gap, and between looks then
GONE_WITHIN = 30.0  # seconds, beside the config's stop_timeout
CREATE_WITHIN = 20.0  # seconds
WAIT_MOST = 1.0  # seconds between looks at what is waited for


@frozen
class Prepared:
    """A new instance, whose image is in the registry."""

    subject: Subject
    asked: LaunchRequest
    instance: str = field(init=False)  # its name
    service: Json = field(init=False)  # what the swarm is asked for

    @instance.default
    def _name(self) -> str:
        return self.asked.instance or f"{self.subject.spec.name}-{token_hex(4)}"

    @service.default
    def _service(self) -> Json:
        more = {f"{mapping.CLIENTS}{name}": value for name, value in self.asked.labels.items()}
        if isinstance(self.asked.config, Spec):
            more[mapping.WHOLE] = self.asked.config.document  # it is not kept
        if self.asked.remove:
            more[mapping.REMOVE] = "true"
        if self.asked.instance:
            more[mapping.LAUNCH] = token_hex(8)
        return mapping.service_of(self.subject, self.instance, more)


@define(eq=False)
class Swarm:
    """An Engine: its hosts are the nodes of a swarm."""

    lacks: ClassVar[Mapping[str, str]] = LACKS

    host: Manager  # what makes layers of tarballs
    docker: Docker
    registry: str  # HOST:PORT, as all hosts find it
    exporter: Exporter
    means: Means = field(init=False)
    watch: Watch = field(init=False)
    balancer: Balancer = field(init=False)
    stacks: SwarmStacks = field(init=False)
    sessions: Sessions = field(init=False)
    attaching: Attaching = field(init=False)
    copies: Copies = field(init=False)
    removals: Removals = field(init=False)
    presence: Presence = field(init=False)
    launches: Histogram = field(factory=Histogram)  # from each request until its script runs

    def __attrs_post_init__(self) -> None:
        self.means = Means(self.docker, self.registry, self.exporter)
        self.balancer = Balancer(self.host.reactor, self.host.journal)
        self.removals = Removals(self.host.reactor, self._destroy)
        self.watch = Watch(self.host.reactor, self.look, self._tell, self._settle)
        self.presence = Presence(self.host.reactor, self.docker)
        self.stacks = SwarmStacks(self.host, self.means, self.watch)
        self.sessions = Sessions(self.host)
        self.attaching = Attaching(self.host)
        self.copies = Copies(self.host.reactor)
        parts = self.sessions, self.attaching, self.copies, self.presence
        self.host.endings += [part.stop for part in parts]

    def _tell(self, name: str, what: str, why: str) -> None:
        self.host.journal.add(what, why, instance=name)

    def _settle(self, seen: Seen) -> None:
        self.balancer.settle(seen)
        self.removals.settle(seen)
        self.presence.settle(seen)

    def complaints(self) -> Sequence[str]:
        """Whether the swarm is silent."""
        said = ": ".join(["the swarm does not answer", *self.watch.trouble[:1]])
        silent = [said] if self.watch.is_silent else []
        ports = [f"port {key}: {why}" for key, why in self.balancer.troubles.items()]
        return [*silent, *ports]

    # -- configs -----------------------------------------------------------------------

    async def upload(self, document: bytes) -> None:
        """Check and keep a config. Raises InvalidData, ConfigAtFault, ConfigExists."""
        name = await configs.upload(self.docker, document)
        self.host.journal.add("config", f"{name} was uploaded", config=name)

    async def config_names(self) -> Sequence[str]:
        """The file names of the configs that are kept, sorted."""
        return await configs.names(self.docker)

    async def configs(self) -> Sequence[tuple[Key, Sequence[str]]]:
        """The configs that are kept, and the instances of each."""
        names, (seen, _) = await together(configs.names(self.docker), self.watch.now())
        return configs.with_users(names, seen)

    async def read_config(self, file_name: str) -> bytes:
        """A config as it was uploaded. Raises NoSuchConfig."""
        return await configs.read(self.docker, file_name)

    async def remove_config(self, file_name: str) -> None:
        """Remove a config that no instance has. Raises NoSuchConfig, ConfigInUse."""
        seen, _ = await self.watch.now()
        await configs.remove(self.docker, file_name, seen)
        self.host.journal.add("config", f"{file_name} was removed", config=file_name)

    # -- launching ---------------------------------------------------------------------

    async def launch(self, name: str, major: str, minor: str, ago: float = 0.0) -> Launched:
        """Start a container somewhere. Raises NoSuchConfig, ConfigAtFault, MachineAtFault."""
        return await self._launch(self._of_kept(LaunchRequest(name, major, minor)), ago)

    async def launch_as_asked(self, asked: LaunchRequest) -> Launched:
        """The same, of the newest version if none is asked for. Raises InstanceExists, too."""
        if asked.instance is not None:
            await self._check_that_it_is_free(asked.instance)
        if isinstance(asked.config, Spec):
            return await self._launch(self._of_whole(asked.config, asked), asked.ago)
        return await self._launch(self._of_kept(asked), asked.ago)

    async def _check_that_it_is_free(self, name: str) -> None:
        """Raise InstanceExists if an instance has this name, or a service may give it to one."""
        seen, _ = await self.watch.now()
        refuse_taken(seen, lambda one: one.name == name)
        for kept in read_kept(seen.services, ()):
            if is_of_place(kept.full, name):
                raise InstanceExists(f"the name {name} is in use", "choose another name")

    async def _launch(self, preparing: Coroutine[Any, Any, Prepared], ago: float) -> Launched:
        began = self.host.reactor.seconds() - ago
        prepared = await preparing
        spec, instance = prepared.subject.spec, prepared.instance
        try:
            listens = await self._begin(prepared)
        except Error as error:
            self.host.counts.failed_launches += 1
            if isinstance(error, Unavailable):
                background(self._take_back(prepared), f"taking back the launch of {instance}")
            raise
        self.launches.add(self.host.reactor.seconds() - began)
        self.watch.wrote()
        self.host.journal.add("running", "its script runs", instance=instance)
        summary = {"instance": instance, **{key: getattr(spec, key) for key in mapping.KEY}}
        return Launched(summary, [] if listens else [f"{instance} does not listen yet"])

    async def _of_kept(self, asked: LaunchRequest) -> Prepared:
        """What a launch of a config that is kept makes."""
        key = await configs.chosen(self.docker, asked)
        spec = await self.means.read_config("{}-{}-{}.cfg".format(*key))
        mapping.check(spec)
        return Prepared(await self.means.publish(spec), asked)

    async def _of_whole(self, spec: Spec, asked: LaunchRequest) -> Prepared:
        """The same of one that is not: others of its name may run, of which images are kept."""
        mapping.check_whole(spec)
        tag = sha256(spec.document.encode()).hexdigest()[:40]
        return Prepared(await self.means.publish(spec, tag), asked)

    async def _begin(self, prepared: Prepared) -> bool:
        """Have an instance run, or leave nothing of it; returns whether it listens."""
        service = await self._create(prepared)
        spec, instance = prepared.subject.spec, prepared.instance
        try:
            start = Start(self.means, self.host.reactor, instance, service)
            return await start.until_it_works(spec)
        except Error as error:
            self.host.journal.add("refused", str(error), instance=instance)
            await self._remove(service, instance, spec.stop_timeout)
            raise

    async def _create(self, prepared: Prepared) -> str:
        """Have the swarm begin an instance; returns the id of its service."""
        if prepared.subject.spec.network == "private":
            await self.means.make_network(mapping.NETWORK)
        asked, doing = prepared.service, f"launching {prepared.instance}"
        try:
            made = await self.docker.ask(
                "POST", "/services/create", asked, doing=doing, within=CREATE_WITHIN
            )
        except Refused as error:
            if error.status != 409:
                raise
            # If it is ours, a manager has done it, and its answer was lost.
            made = await self.docker.ask("GET", f"/services/{asked['Name']}", doing=doing)
            if made["Spec"].get("Labels") != asked["Labels"]:
                self.watch.wrote()  # at the same time as someone else
                await self._check_that_it_is_free(prepared.instance)
                raise InstanceExists(
                    f"the swarm has a service {asked['Name']} that is someone else's",
                    "launch it again under another name",
                ) from None
        return str(made["ID"])

    async def _take_back(self, prepared: Prepared) -> None:
        """Remove what was answered with 503: it may have been done, or be done yet.

        Another launch may have its name since.
        """
        asked = prepared.service
        looks = poll(self.host.reactor, LOOK_MOST, within=TAKEN_BACK_WITHIN, most=LOOK_AGAIN)
        async for _ in looks:
            with suppress(Unavailable):
                found = await self.means.service(asked["Name"])
                if found and found["Spec"].get("Labels") == asked["Labels"]:
                    await self.means.delete(found["ID"])
                    self.watch.wrote()
                if found:
                    return

    # -- listing -----------------------------------------------------------------------------

    async def _instances(self, name: str | None = None) -> list[Json]:
        """The services that are instances; or the one of this name."""
        ours = filter(mapping.is_ours, await self.means.services())
        return [one for one in ours if name in (None, one["Spec"]["Labels"][INSTANCE])]

    async def look(self) -> Seen:
        """All that there is now. Raises Unavailable, MachineAtFault."""
        began = self.host.reactor.seconds()
        time = self.host.kernel.now()
        services, (tasks, told) = await together(
            self.means.services(), self.means.tasks_and_nodes()
        )
        found = map(nodes.read_node, told)
        return Seen(services, tasks, {one.id: one for one in found}, began, time)

    async def records(self, wanted: str | None) -> Told:
        """All instances; or those that this stands for. Raises NoSuchInstance, Ambiguous."""
        seen, as_of = await self.watch.now()
        found = {one["instance"]: one for one in records(seen)}
        if wanted is None:
            return Told([*found.values()], as_of)
        return Told([found[name] for name in match_all(wanted, known(seen))], as_of)

    async def inspect(self, name: str) -> dict[str, Any]:
        """How an instance stands, and what its service is. Raises NoSuchInstance, Ambiguous."""
        seen, _ = await self.watch.now()
        chosen = match(name, known(seen))
        record = next(one for one in records(seen) if one["instance"] == chosen)
        whole = next(one.whole for one in instances(seen) if one.name == chosen)
        kept = "{name}-{major}-{minor}.cfg".format(**record)
        spec = from_json(whole.encode()) if whole else await self.means.read_config(kept)
        return {**record, "spec": spec.described()}

    async def wait(self, name: str) -> Exit:
        """How an instance has ended for good, once it has. Raises NoSuchInstance, Ambiguous."""
        seen, _ = await self.watch.now()
        chosen = match(name, known(seen))
        async for _ in poll(self.host.reactor, LOOK_MOST, within=math.inf, most=WAIT_MOST):
            seen = await self.watch.lately()
            found = [one for one in instances(seen) if one.name == chosen]
            if not found:
                return Exit(reason="it was destroyed", at=seen.time)
            if found[0].has_ended:
                break
        return end_of(found[0], seen)

    async def kill(self, name: str, signal: int = SIGKILL) -> Told:
        """Send a signal to PID 1 of an instance, by the Docker of its node.

        Raises as an Engine's does. If the instance ends, the swarm starts it again as its config
        says.
        """
        place = await self._place(name, "docker kill")
        path, doing = f"/containers/{place.container}/kill", f"killing {place.instance.name}"
        try:
            await place.docker.ask("POST", path, doing=doing, signal=signal)
        except Refused as error:
            raise refusal_of(place, error) from None
        self.watch.wrote()
        what = f"PID 1 was sent signal {signal} ({strsignal(signal)})"
        self.host.journal.add("signalled", what, instance=place.instance.name)
        return await self.records(place.instance.name)

    async def usage(self, name: str | None) -> Told:
        """What an instance uses now, or all that run, by the Dockers of their nodes.

        Raises NoSuchInstance, Ambiguous, NotRunning, NotInSwarm, TooMany, Unavailable.
        """
        async with self.host.surveys.turn():
            if name is None:
                seen, _ = await self.watch.now()
                return await usage.usage_of_all(self.host.reactor, self.docker, seen)
            return Told([await usage.usage(await self._place(name, "docker stats"))])

    async def collect(self) -> Iterator[tuple[Metric, list[Sample]]]:
        """All metrics. Raises TooMany."""
        known = metrics.Known(self.host, self.docker, self.watch, self.balancer, self.launches)
        return await metrics.collect(known)

    async def diff(self, name: str) -> dict[str, Any]:
        """What an instance has changed, by the Docker of its node. Raises as ``usage`` does."""
        async with self.host.surveys.turn():
            return await changes.changes(await self._place(name, "docker diff"))

    async def running(self) -> Told:
        """What runs; what ran when that could be seen last, if the swarm does not answer."""
        seen, as_of = await self.watch.now()
        return Told(running(seen), as_of)

    # -- nodes -----------------------------------------------------------------------------

    async def nodes(self, wanted: str | None = None) -> Told:
        """All nodes; or the one of this name or id. Raises NoSuchNode, Ambiguous."""
        seen, as_of = await self.watch.now()
        found = [*seen.nodes.values()]
        if wanted is not None:
            found = [nodes.find(found, wanted)]
        of_ours = {one["ID"] for one in seen.services}
        tasks = [task for task in seen.tasks if task["ServiceID"] in of_ours]
        return Told(nodes.records(found, tasks), as_of)

    async def set_availability(self, node: str, availability: str) -> None:
        """Say what may run on a node. Raises NoSuchNode, Ambiguous."""
        name = await nodes.change(self.docker, node, nodes.available(availability))
        self._noted(f"the node {name} is {availability}")

    async def set_labels(self, node: str, labels: Mapping[str, str | None]) -> None:
        """Give a node labels. Raises NoSuchNode, Ambiguous."""
        name = await nodes.change(self.docker, node, nodes.labelled(labels))
        self._noted(f"the node {name} has other labels")

    def _noted(self, what: str) -> None:
        self.watch.wrote()
        self.host.journal.add("node", what)

    # -- logs --------------------------------------------------------------------------------

    async def send_logs(self, asked: LogsAsked, consumer: Any, begin: Callable[[], object]) -> None:
        """Send what instances have written.

        Raises NoSuchInstance, Ambiguous, NotInSwarm, TooMany, Unavailable, MachineAtFault.
        """
        seen, _ = await self.watch.now()
        chosen = logs.choose(seen, asked)
        now = self.host.kernel.now
        asked = logs.in_time(asked, now())
        sending = logs.Sending(self.docker, asked, self.host.reactor, self.wait, now)
        await sending.send(chosen, consumer, begin)

    # -- by hand -----------------------------------------------------------------------------

    async def explain(self, name: str) -> str:
        """The service of an instance as a command. Raises NoSuchInstance, Ambiguous."""
        seen, _ = await self.watch.now()
        chosen = match(name, known(seen))
        service = next(one.service for one in instances(seen) if one.name == chosen)
        return explaining.explain(await self.means.named_networks(service["Spec"]))

    async def explain_config(self, file_name: str) -> str:
        """The same of what a launch of a config would make. Raises as ``launch`` does."""
        asked = LaunchRequest(*configs.key_of(file_name))
        return explaining.explain((await self._of_kept(asked)).service)

    # -- commands in instances ---------------------------------------------------------------

    async def exec(self, name: str, command: Command) -> Stdio:
        """Run a command in an instance, by the Docker of its node. Raises as an Engine's does."""
        return await self.sessions.start(await self._place(name, "docker exec"), command)

    async def explain_exec(self, name: str, command: Command) -> str:
        """The same as a command of Docker's CLI. Raises NotRunning, NotInSwarm."""
        return commands.explain(await self._place(name, "docker exec"), command)

    async def attach(self, name: str, size: Size | None, *, from_start: bool) -> Stdio:
        """Use the terminal of an instance. Raises as an Engine's does."""
        place = await self._place(name, "docker attach")
        return await self.attaching.start(place, size, from_start=from_start)

    # -- files of instances ------------------------------------------------------------------

    async def look_at_file(self, name: str, path: str) -> dict[str, Any]:
        """What is at a path of an instance. Raises as an Engine's does."""
        return await look(await self._place(name, "docker cp"), path)

    async def read_files(self, name: str, path: str) -> Reading:
        """Begin to read files of an instance. Raises as an Engine's does."""
        return await self.copies.read(await self._place(name, "docker cp"), path)

    async def write_files(self, name: str, path: str, *, owners: bool) -> Writing:
        """Begin to write files into an instance. Raises as an Engine's does."""
        return await self.copies.write(await self._place(name, "docker cp"), path, owners=owners)

    async def _place(self, name: str, instead: str) -> Place:
        seen, _ = await self.watch.now()
        return await place_of(self.docker, seen, name, instead)

    # -- destroying --------------------------------------------------------------------------

    async def destroy(self, name: str) -> Sequence[str]:
        """End an instance, and remove it. Raises NoSuchInstance, MachineAtFault."""
        found = await self._instances(name)
        if not found:
            await self._refuse_replica(name)
            raise NoSuchInstance(f"there is no instance {name}")
        await self._destroy(found[0])
        return []

    async def _refuse_replica(self, name: str) -> None:
        """Raise WrongState if this is one of those that a service of a stack has."""
        seen, _ = await self.watch.now()
        for one in instances(seen):
            if one.name == name and one.is_replica:
                service = "{stack}-{service}".format(**one.labels)
                raise WrongState(
                    f"{name} is one of those that the service {service} has",
                    f"`txcontain scale {service}=N` has fewer, `txcontain down` none",
                )

    async def destroy_all(self) -> None:
        """End and remove all instances, at the same time. Raises MachineAtFault."""
        await together(*(self._destroy(service) for service in await self._instances()))

    async def _destroy(self, service: Json) -> None:
        container = service["Spec"]["TaskTemplate"]["ContainerSpec"]
        name = mapping.summary_of(service)["instance"]
        await self._remove(service["ID"], name, container.get("StopGracePeriod", 0) / 1e9)
        self.host.journal.add("destroyed", "its service is gone", instance=name)

    async def _remove(self, service: str, instance: str, stop_timeout: float) -> None:
        """Remove a service, and wait until nothing of it runs any more."""
        await self.means.delete(service)
        within = stop_timeout + GONE_WITHIN
        async for _ in poll(self.host.reactor, LOOK_AFTER, within=within, most=LOOK_MOST):
            tasks = await self.means.lost(await self.means.tasks_of(instance, service))
            if all(map(mapping.is_over, tasks)):
                self.watch.wrote()
                return
        doing = f"removing the service {service}"
        raise MachineAtFault(doing, f"its tasks did not end within {within:g} seconds")
