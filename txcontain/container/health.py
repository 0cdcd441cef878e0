"""The key ``health``: how to ask a container whether it works, and what to do if it does not."""

from __future__ import annotations

import re
from typing import Annotated, Any

from attrs import evolve, frozen

from txcontain.container.document import refuse, refuse_unknown, shown
from txcontain.container.keys import Key, keys_of, matching, number, object_schema, one_of, words

FORMS = ("http", "tcp", "command")  # a check is one of them
PATH = re.compile(r"/[!-~]{0,1023}")  # of a request, as it is sent (RFC 9112, 3.2.1)
A_PATH = "a path such as '/health' (its port is the key 'port')"
FOR_HTTP = ("port", "status")
SHORTEST, LONGEST = 0.1, 86_400  # seconds
LARGEST_PORT = 65_535
WORKS = range(200, 400)  # statuses, if none is named
ON_FAILURE = ("restart", "stop", "none")


def _tcp(key: str, value: object) -> int:
    if value is True:
        return 0
    if type(value) is not int or not 0 < value <= LARGEST_PORT:
        refuse(f"{key} must be true (for PORT) or a port up to {LARGEST_PORT}, not {shown(value)}")
    return value


TCP = Key(
    "a TCP port that takes connections; true: PORT",
    {"anyOf": [{"const": True}, {"type": "integer", "minimum": 1, "maximum": LARGEST_PORT}]},
    _tcp,
)


@frozen
class Health:
    """A check of a container's health. Exactly one of http, tcp and command is not None or ()."""

    http: Annotated[str | None, matching("a path to GET", PATH, A_PATH)] = None
    port: Annotated[int | None, number("the port for http, else PORT", 1, LARGEST_PORT)] = None
    status: Annotated[int | None, number("that http answers; else 200 to 399", 100, 599)] = None
    tcp: Annotated[int | None, TCP] = None  # 0: PORT
    command: Annotated[tuple[str, ...], words("a command that ends with 0 if it works")] = ()
    interval: Annotated[float, number("seconds between checks", SHORTEST, LONGEST, float)] = 30.0
    timeout: Annotated[float, number("seconds for an answer", 0.01, 3600, float)] = 30.0
    start_period: Annotated[
        float, number("seconds in which failures do not count yet", 0, LONGEST, float)
    ] = 0.0
    start_interval: Annotated[
        float, number("seconds between checks in start_period", SHORTEST, LONGEST, float)
    ] = 5.0
    retries: Annotated[int, number("failures in a row that are one too many", 1, 1000)] = 3
    on_failure: Annotated[str, one_of("what to do if it is unhealthy", *ON_FAILURE)] = "restart"

    @property
    def port_named(self) -> int | None:
        """The port that it asks; None if that is PORT, or it asks none."""
        return self.port or self.tcp or None

    def asking(self, port: int) -> Health:
        """The same check of this port."""
        return evolve(self, port=port) if self.http is not None else evolve(self, tcp=port)

    def expects(self, status: int) -> bool:
        """Whether an answer to http with this status is a good one."""
        return status in WORKS if self.status is None else status == self.status


def _health(key: str, value: object) -> Health:
    if not isinstance(value, dict):
        refuse(f'{key} must be an object such as {{"http": "/health"}}, not {shown(value)}')
    refuse_unknown(key, value, CHECK_KEYS)
    if len(set(FORMS) & set(value)) != 1:
        refuse(f"{key} has exactly one of {', '.join(FORMS)}")
    for name in FOR_HTTP:
        if name in value and "http" not in value:
            refuse(f"{key}.{name} belongs to {key}.http", *["write tcp: PORT"] * (name == "port"))
    checked: dict[str, Any] = {
        name: CHECK_KEYS[name](f"{key}.{name}", value[name]) for name in value
    }
    return Health(**checked)


CHECK_KEYS = keys_of(Health)
HEALTH = Key(
    "how it is asked whether it works, and what is done if not", object_schema(CHECK_KEYS), _health
)
