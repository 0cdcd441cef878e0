"""A stack: the document in which a person says which services there should be.

All that can be seen in the document is checked here, and told with its path in it, such as
``services.app.replicas``. ``revision.py`` checks it together with the configs that it names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from attrs import field, frozen

from txcontain.container.document import refuse, refuse_missing, refuse_unknown, shown
from txcontain.container.health import HEALTH, Health
from txcontain.container.keys import (
    Key,
    boolean,
    keys_of,
    matching,
    number,
    object_schema,
    one_of,
    printable,
    string_schema,
)
from txcontain.container.spec import NAME, PORTS, VERSION, Port
from txcontain.services.schedule import SCHEDULE, Schedule

STACK = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,22}[A-Za-z0-9])?")
SERVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
CONFIG = re.compile(f"({NAME.pattern})-({VERSION.pattern})-({VERSION.pattern})")
MOST_SERVICES, MOST_REPLICAS = 1000, 100
LONGEST_WAIT = 24 * 3600  # seconds
STARTED, HEALTHY, COMPLETED = "started", "healthy", "completed_successfully"
CONDITIONS = (STARTED, HEALTHY, COMPLETED)
ORDERS = ("stop-first", "start-first")
ACTIONS = ("rollback", "pause", "continue")
LABEL = re.compile("node[.]labels[.][A-Za-z0-9._-]{1,64}")
NODE_KEY = re.compile(f"{LABEL.pattern}|node[.]role|node[.]hostname")
VALUE = re.compile("[A-Za-z0-9._-]{1,255}")
A_LABEL, MOST_CONSTRAINTS = "a label of nodes, such as node.labels.zone", 16
OF_JOBS = ("config", "after", "run", "schedule", "catch_up", "health")  # what a job may have


def _config(key: str, value: object) -> tuple[str, str, str]:
    match = CONFIG.fullmatch(printable(key, value))
    if not match:
        refuse(f"{key} must name a config, as NAME-MAJOR-MINOR, not {shown(value)}")
    return match[1], match[2], match[3]


def _after(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        refuse(f'{key} must be an object such as {{"db": "healthy"}}, not {shown(value)}')
    return {name: CONDITION(f"{key}.{name}", text) for name, text in value.items()}


def _placement(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MOST_CONSTRAINTS:
        refuse(f'{key} must be an object such as {{"node.labels.disk": "ssd"}}, not {shown(value)}')
    for name, text in value.items():
        if not NODE_KEY.fullmatch(name):
            refuse(
                f"{key}: nodes have node.labels.NAME, node.role and node.hostname, and no "
                f"{shown(name)}"
            )
        if not isinstance(text, str) or not VALUE.fullmatch(text):
            refuse(f"{key}.{name} must be letters, digits, '.', '_' and '-', not {shown(text)}")
    return value


def _update(key: str, value: object) -> Update:
    if not isinstance(value, dict):
        refuse(f'{key} must be an object such as {{"order": "start-first"}}, not {shown(value)}')
    refuse_unknown(key, value, UPDATE_KEYS)
    return Update(**{name: UPDATE_KEYS[name](f"{key}.{name}", value[name]) for name in value})


def seconds(description: str) -> Key:
    """A key that takes a duration."""
    return number(f"{description}, in seconds", 0, LONGEST_WAIT, float)


CONDITION = one_of("what is waited for", *CONDITIONS)


@frozen
class Update:
    """How a service's replicas are replaced when what they are made from changes."""

    order: Annotated[str, one_of("what comes first with each", *ORDERS)] = "stop-first"
    parallelism: Annotated[int, number("how many at a time; 0: all", 0, MOST_REPLICAS)] = 1
    delay: Annotated[float, seconds("between two batches")] = 0.0
    monitor: Annotated[float, seconds("for which a new one must serve")] = 5.0
    failure_action: Annotated[str, one_of("what to do if too many fail", *ACTIONS)] = "rollback"
    max_failure_ratio: Annotated[float, number("of replicas that may fail", 0, 1, float)] = 0.0
    healthy_deadline: Annotated[float, seconds("until a new one must serve")] = 300.0


UPDATE_KEYS = keys_of(Update)


@frozen
class OnDemand:
    """That a service runs only while someone is connected to it."""

    idle: Annotated[
        float, number("seconds without a connection until it sleeps", 1, LONGEST_WAIT, float)
    ] = 60.0


ON_DEMAND_KEYS = keys_of(OnDemand)


def _on_demand(key: str, value: object) -> OnDemand:
    if not isinstance(value, dict):
        refuse(f'{key} must be an object such as {{"idle": 60}}, not {shown(value)}')
    refuse_unknown(key, value, ON_DEMAND_KEYS)
    return OnDemand(**{one: ON_DEMAND_KEYS[one](f"{key}.{one}", value[one]) for one in value})


@frozen
class Service:
    """What there should be of one service."""

    config: Annotated[
        tuple[str, str, str], Key("NAME-MAJOR-MINOR of a config", string_schema(CONFIG), _config)
    ]
    replicas: Annotated[int, number("how many instances", 0, MOST_REPLICAS)] = 1
    after: Annotated[
        dict[str, str],
        Key(
            "SERVICE: CONDITION, what is waited for before it is started",
            {"type": "object", "additionalProperties": {"enum": [*CONDITIONS]}},
            _after,
        ),
    ] = field(factory=dict)
    ports: Annotated[tuple[Port, ...] | None, PORTS] = None  # None: those of its config
    health: Annotated[Health | None, HEALTH] = None  # None: as its config has it
    update: Annotated[
        Update, Key("how its instances are replaced", object_schema(UPDATE_KEYS), _update)
    ] = Update()
    drain: Annotated[float, seconds("that connections get before an instance is ended")] = 10.0
    on_demand: Annotated[
        OnDemand | None,
        Key("it runs only while someone is connected", object_schema(ON_DEMAND_KEYS), _on_demand),
    ] = None
    per_connection: Annotated[bool, boolean("one instance for each connection")] = False
    placement: Annotated[
        dict[str, str],
        Key(
            "node.labels.NAME (or node.role, node.hostname): VALUE of the nodes where it may run",
            {"type": "object", "additionalProperties": {"type": "string"}},
            _placement,
        ),
    ] = field(factory=dict)
    spread: Annotated[
        str, matching("a label of nodes, evenly over whose values it is spread", LABEL, A_LABEL)
    ] = ""
    run: Annotated[str, one_of("once: until it has succeeded", "always", "once")] = "always"
    schedule: Annotated[Schedule | None, SCHEDULE] = None
    catch_up: Annotated[bool, boolean("run it late if the manager did not run then")] = False

    @property
    def is_job(self) -> bool:
        """Whether it is to end by itself."""
        return self.run == "once" or self.schedule is not None


KEYS = keys_of(Service)


@frozen
class Stack:
    """Which services there should be."""

    name: str
    services: dict[str, Service]  # in order: each comes after those that it waits for
    asked: dict[str, dict[str, Any]]  # each service as it was written


def read_stack(values: dict[str, Any]) -> Stack:
    """The stack that an object describes. Raises InvalidData, which names the path."""
    refuse_unknown("a stack", values, ("stack", "services"))
    refuse_missing(values, "stack", "services")
    name, asked = STACK_NAME("stack", values["stack"]), values["services"]
    if not isinstance(asked, dict) or not 0 < len(asked) <= MOST_SERVICES:
        refuse(f"services must be an object of 1 to {MOST_SERVICES} services, not {shown(asked)}")
    services = {service: read_service(service, value) for service, value in asked.items()}
    _refuse_same_names(services)
    for service, wanted in services.items():
        _check_after(service, wanted, services)
    order = in_order({service: wanted.after for service, wanted in services.items()})
    ports = {service: wanted.ports or () for service, wanted in services.items()}
    refuse_same_ports(ports)
    return Stack(name, {service: services[service] for service in order}, dict(asked))


def read_service(name: str, values: object) -> Service:
    """What there should be of one service. Raises InvalidData."""
    SERVICE_NAME("services", name)
    path = f"services.{name}"
    if not isinstance(values, dict):
        refuse(f'{path} must be an object such as {{"config": "web-1-01"}}, not {shown(values)}')
    refuse_unknown(path, values, KEYS)
    if "config" not in values:
        refuse(f"{path}.config is missing")
    service = Service(**{key: KEYS[key](f"{path}.{key}", value) for key, value in values.items()})
    if service.is_job:
        _check_job(path, service, values)
    elif service.per_connection:
        check_per_connection(path, values)
    elif service.catch_up:
        refuse(f"{path}.catch_up is only for services with a schedule")
    return service


def _check_job(path: str, service: Service, values: Mapping[str, Any]) -> None:
    why = "a schedule" if service.schedule else '"run": "once"'
    for key in values:
        if key not in OF_JOBS:
            refuse(f"{path}.{key} makes no sense with {why}: it is to end by itself")
    if service.schedule and service.run == "once":
        refuse(f'{path}.schedule makes no sense with "run": "once": choose one of them')
    if service.catch_up and not service.schedule:
        refuse(f"{path}.catch_up is only for services with a schedule")


def check_per_connection(path: str, values: Mapping[str, Any]) -> None:
    """Raise InvalidData for keys that make no sense with per_connection."""
    for key in ("replicas", "on_demand", "health"):
        if key in values:
            refuse(f"{path}.{key} makes no sense with per_connection: each connection has its own")


def _check_after(name: str, service: Service, services: Mapping[str, Service]) -> None:
    for other, condition in service.after.items():
        path = f"services.{name}.after.{other}"
        if other not in services:
            refuse(f"{path}: there is no service {shown(other)} in this stack")
        if services[other].schedule:
            refuse(f"{path}: {other} has a schedule, and only runs at its times")
        if services[other].on_demand or services[other].per_connection:
            refuse(f"{path}: {other} only runs while someone is connected to it")
        if condition == COMPLETED and not services[other].is_job:
            refuse(f'{path}: {other} never completes, as it has no "run": "once"')
        if condition == HEALTHY and services[other].is_job:
            refuse(f'{path}: {other} is to end by itself: write "{COMPLETED}"')


def in_order(after: Mapping[str, Iterable[str]]) -> list[str]:
    """The services, each after those that it waits for.

    Raises InvalidData if they wait for one another.
    """
    ordered: dict[str, None] = {}
    left = {name: set(others) for name, others in after.items()}
    while left:
        free = [name for name, others in left.items() if not others - {*ordered}]
        if not free:
            refuse(f"services wait for one another: {' → '.join(_circle(left))}")
        for name in free:
            ordered[name] = None
            del left[name]
    return list(ordered)


def _circle(left: Mapping[str, set[str]]) -> list[str]:
    path = [next(iter(left))]
    while path[-1] not in path[:-1]:
        path.append(next(other for other in sorted(left[path[-1]]) if other in left))
    return path[path.index(path[-1]) :]


def refuse_same_ports(ports: Mapping[str, tuple[Port, ...]]) -> None:
    """Raise InvalidData if two services publish the same port of the host."""
    held: dict[tuple[str, int], list[tuple[str, Port]]] = {}
    for name, published in ports.items():
        for port in published:
            others = held.setdefault((port.protocol, port.number), [])
            for other, taken in others:
                if port.clashes_with(taken):
                    refuse(f"services.{name}.ports: services.{other} publishes port {port} too")
            others.append((name, port))


def _refuse_same_names(services: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in services:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            refuse(
                f"services.{name} and services.{other} would be found by one name: DNS ignores case"
            )


def _name(what: str, pattern: re.Pattern[str], most: int) -> Key:
    def check(key: str, value: object) -> str:
        text = printable(key, value)
        if not pattern.fullmatch(text):
            refuse(
                f"{key}: the name of a {what} must be up to {most} letters, digits, '_' and '-', "
                f"with a letter or digit at both ends, not {shown(text)}"
            )
        return text

    return Key(f"the name of a {what}", string_schema(pattern), check)


STACK_NAME = _name("stack", STACK, 24)
SERVICE_NAME = _name("service", SERVICE, 32)
