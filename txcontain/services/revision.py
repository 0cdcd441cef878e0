"""A revision of a service: its entry in the stack together with the config that this names.

An instance of a service is launched from one document, in which both are merged. So it is kept,
explained and started again as any other; and whatever changes in that document is an update.
"""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import sha256
from typing import Any

from attrs import frozen

from txcontain.container.document import read_object, refuse
from txcontain.container.spec import PORTS, Port, Spec, from_json
from txcontain.errors import InvalidData
from txcontain.runtime.instance import ALWAYS
from txcontain.services.document import Service, check_per_connection, read_service

PASSED_ON = ("health", "per_connection")  # keys of a service that are those of its config


@frozen
class Revision:
    """What the instances of a service are made from, and what is published of them."""

    service: Service
    asked: dict[str, Any]  # the service, as it was written
    document: str  # its config, with what the service adds to it
    published: tuple[str, ...] = ()  # ports of the host, as they were written

    @cached_property
    def id(self) -> str:
        """It changes if new instances have to be made."""
        return sha256(self.document.encode()).hexdigest()[:12]

    @cached_property
    def spec(self) -> Spec:
        """The config of its instances."""
        return from_json(self.document.encode())

    @cached_property
    def ports(self) -> tuple[Port, ...]:
        """What is published of it."""
        ports: tuple[Port, ...] = PORTS("ports", list(self.published))
        return ports

    @property
    def config(self) -> str:
        """Its config, as a person names it."""
        return "-".join(self.service.config)

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of it, as plain data."""
        return {"asked": self.asked, "document": self.document, "published": self.published}


def make_revision(name: str, asked: dict[str, Any], config: bytes) -> Revision:
    """A service's revision, from its entry in the stack and its config's document.

    Raises InvalidData, which names the path, if the two don't fit together.
    """
    service, path = read_service(name, asked), f"services.{name}"
    values, published = read_object(config), []
    if not service.is_job:
        published = [*asked.get("ports", values.get("ports", []))]
        if asked.get("per_connection", values.get("per_connection")):
            values = _of_connection(values)
        else:
            values = _of_replica(values, shared="replicas" in asked or bool(published))
    values.update({key: asked[key] for key in PASSED_ON if key in asked})
    try:
        if published and "health" in values:
            values = _asking_published(values, published)
        document = json.dumps(values)
        spec = from_json(document.encode())
        ports = PORTS("ports", published)
    except InvalidData as error:
        refuse(f"{path}: its config does not fit", *error.chain)
    _check(path, service, spec, ports)
    if spec.per_connection:
        check_per_connection(path, asked)
    return Revision(service, asked, document, tuple(published))


def _of_replica(config: dict[str, Any], shared: bool) -> dict[str, Any]:
    """The config of one of several instances: the ports are the service's, not theirs."""
    values = {"restart": "always", **config}
    values.pop("ports", None)
    return {"network": "private", **values} if shared else values


def _asking_published(config: dict[str, Any], published: list[Any]) -> dict[str, Any]:
    """The config of an instance with the port that its health check asks written into that.

    It may be the first published one, which the instance does not know any more.
    """
    whole = from_json(json.dumps({**config, "network": "private", "ports": published}).encode())
    if whole.health is None or whole.health.port_named is None:
        return config
    key = "tcp" if whole.health.http is None else "port"
    return {**config, "health": {**config["health"], key: whole.health.port_named}}


def _of_connection(config: dict[str, Any]) -> dict[str, Any]:
    """The config of an instance that serves one connection: it needs no other network."""
    return {"network": "none", **{key: config[key] for key in config if key != "ports"}}


def _check_asked_for(path: str, spec: Spec, ports: tuple[Port, ...]) -> None:
    """Raise InvalidData unless connections can come to a service that waits for them."""
    what = "per_connection" if spec.per_connection else "on_demand"
    if not ports:
        refuse(f"{path}.{what}: it publishes no port, and so no connection comes")
    for port in ports:
        if port.protocol != "tcp":
            refuse(f"{path}.ports: nothing waits for datagrams: with {what}, only TCP is published")


def _check(path: str, service: Service, spec: Spec, ports: tuple[Port, ...]) -> None:
    if service.is_job and spec.restart in ALWAYS:
        refuse(f'{path}.config: it has "restart": "{spec.restart}", and so would never complete')
    if spec.per_connection or service.on_demand:
        _check_asked_for(path, spec, ports)
    if spec.per_connection:
        return
    if spec.network == "private":
        return
    if ports:
        refuse(
            f'{path}.ports: its config has "network": "{spec.network}"',
            'a service\'s ports lead to a private network: leave "network" out of the config',
        )
    if spec.taken_ports and service.replicas > 1:
        refuse(
            f"{path}.replicas: each of them would take port {spec.port} of the host",
            'leave "network" out of the config, and publish the service\'s ports',
        )
    if spec.taken_ports and service.update.order == "start-first":
        refuse(
            f"{path}.update.order: two of them can't have port {spec.port} of the host",
            "choose stop-first, or publish the service's ports",
        )


def read_revision(name: str, record: dict[str, Any]) -> Revision:
    """A revision as it was kept. Raises InvalidData, KeyError, TypeError if it is damaged."""
    asked, document = dict(record["asked"]), str(record["document"])
    published = tuple(str(port) for port in record["published"])
    revision = Revision(read_service(name, asked), asked, document, published)
    _check(f"services.{name}", revision.service, revision.spec, revision.ports)
    return revision


def with_replicas(name: str, revision: Revision, replicas: int) -> Revision:
    """The same with another number of instances. Raises InvalidData."""
    asked = {**revision.asked, "replicas": replicas}
    service = read_service(name, asked)
    values = json.loads(revision.document)
    document = json.dumps(values if "network" in values else {"network": "private", **values})
    scaled = Revision(service, asked, document, revision.published)
    _check(f"services.{name}", service, scaled.spec, scaled.ports)
    return scaled
