"""The .cfg document of a container: JSON in, a frozen ``Spec`` out.

Everything is checked here, once: a ``Spec`` can be trusted. The same check reads what
was uploaded and what is read back from disk.
"""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from ipaddress import IPv4Address
from itertools import combinations
from typing import Any

from attrs import asdict, field, frozen

from txcontain.container.document import read_object, refuse, shown

LONGEST_ENVIRONMENT = 32_000  # characters: as UTF-8, execve(2) takes that as a single string
LONGEST_PATH, LONGEST_NAME = 1024, 255  # bytes
SHM_SIZE = 64 << 20  # bytes of /dev/shm, if a config does not say
MOST_MOUNTS = 64
MOST_PORTS = 64
MOST_VARIABLES = 1000
LOOPBACK, ANY_ADDRESS = "127.0.0.1", "0.0.0.0"
FILE_NAME = re.compile(r"[^./\s-][^/]{0,254}")
# A hostname holds 64 bytes (uname(2)): NAME, "-" and the 8 characters of the id fit.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,49}")
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._]{0,31}")
_WHO = r"([0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?)"
OWNER = re.compile(f"{_WHO}(?::{_WHO})?")
LARGEST_ID = (1 << 32) - 2  # of a user or group: to the kernel, the next one means none
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SURROGATE = re.compile("[\ud800-\udfff]")
PORT = re.compile(r"(?:([0-9.]{7,15}):)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?")
SIGNAL = re.compile(r"(?:SIG)?([A-Z0-9]{1,10})(?:\+([0-9]{1,2}))?")
SIGNALS = {name[3:]: number.value for name, number in signal.Signals.__members__.items()}
SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
KERNELS_OWN = ("proc", "sys", "dev")  # top folders that no tarball may be mounted in

# A variable's name, and its value in parts: text, NAME, text, .., text. NAMEs stand for variables.
Assignment = tuple[str, tuple[str, ...]]


@frozen
class Key:
    """What a key of a config takes. To call it is to check a value, which raises InvalidData."""

    description: str
    schema: dict[str, Any]  # the same as a JSON schema, as far as that can say it
    check: Callable[[str, object], Any]  # takes the key's name and value, returns what Spec keeps

    def __call__(self, name: str, value: object) -> Any:
        """What ``Spec`` keeps of a value."""
        return self.check(name, value)


@frozen
class Mount:
    """A tarball's content at a folder of the container."""

    tarball: str
    target: str
    writable: bool


@frozen
class Limits:
    """How much a container may use; None if there is no limit."""

    memory: int | None = None  # bytes
    swap: int | None = None  # bytes, beside the memory
    cpus: float | None = None  # processors' worth of time
    pids: int = 1024  # processes and threads: stops a fork bomb
    io_weight: int | None = None  # share of the disk if it is busy; the default is 100
    files: int | None = None  # descriptors that a process may open
    disk: int | None = None  # bytes of all writable mounts, which are in memory then

    @property
    def memory_and_swap(self) -> int:
        """Bytes of both together, as version 1 of cgroups counts them."""
        return (self.memory or 0) + (self.swap or 0)


@frozen
class Port:
    """A port of the host that a container takes."""

    address: str  # of the host, IPv4; ANY_ADDRESS for all
    number: int
    target: int  # the port of the container that it leads to
    protocol: str  # tcp or udp

    def clashes_with(self, other: Port) -> bool:
        """Whether only one of the two can be published."""
        mine, yours = (self.protocol, self.number), (other.protocol, other.number)
        addresses = {self.address, other.address}
        return mine == yours and (len(addresses) == 1 or ANY_ADDRESS in addresses)

    def __str__(self) -> str:
        address = "" if self.address == LOOPBACK else f"{self.address}:"
        return f"{address}{self.number}" + ("" if self.protocol == "tcp" else f"/{self.protocol}")


@frozen
class Spec:
    """What a container is to be. ``from_json`` makes one of a document."""

    name: str
    major: str
    minor: str
    base_image: str
    mounts: tuple[Mount, ...] = ()
    startup_script: str | None = None
    startup_owner: str = "root"
    startup_env: tuple[Assignment, ...] = ()
    init: bool = False  # whether PID 1 is a process that looks after the script
    restart: str = "no"
    max_restarts: int | None = None
    stop_timeout: float = 2.0  # seconds
    stop_signal: int = signal.SIGTERM.value
    log_max_size: int = 10 << 20  # bytes
    log_max_files: int = 3
    limits: Limits = Limits()
    shm_size: int = SHM_SIZE  # bytes, of /dev/shm
    tmp_size: int = 256 << 20  # bytes, of /tmp
    writable_root: bool = False
    manage: bool = False  # whether it may ask the manager for containers
    user_namespace: bool = False  # whether root in it is an unprivileged id of the host's
    network: str = "host"
    ports: tuple[Port, ...] = ()  # that are published
    document: str = field(default="", eq=False, repr=False)  # as it was uploaded

    @property
    def longest_log(self) -> int:
        """How many bytes of its output are kept at most."""
        return self.log_max_size * self.log_max_files

    @property
    def file_name(self) -> str:
        """The file that the document is kept as."""
        return f"{self.name}-{self.major}-{self.minor}.cfg"

    @cached_property
    def port(self) -> int | None:
        """The TCP port that the container will listen on, where ``startup_env`` sets PORT."""
        port = fill_in(self.startup_env, {}).get("PORT", "").strip()
        return int(port) if re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536 else None

    @cached_property
    def taken_ports(self) -> tuple[Port, ...]:
        """The ports of the host that the container takes.

        On the host's network a program may listen at any address it likes: a port that another
        has at another address is free.
        """
        if self.network == "host" and self.port is not None:
            return (
                Port(LOOPBACK, self.port, self.port, "tcp"),
            )  # its PORT has to answer at this address
        return self.ports

    def described(self) -> dict[str, Any]:
        """Plain data, defaults filled in, for a person to read."""
        plain = asdict(self)
        del plain["document"]
        plain["startup_env"] = [(name, _as_written(parts)) for name, parts in self.startup_env]
        return plain


@lru_cache(maxsize=16)  # of at most LONGEST_DOCUMENT each
def from_json(document: bytes) -> Spec:
    """The spec that a document describes.

    Raises InvalidData, which names the key and says what it takes.
    """
    values = read_object(document)
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        refuse(f"a config has no key {shown(unknown[0])}", "the keys are " + ", ".join(KEYS))
    for key in REQUIRED:
        if key not in values:
            refuse(f"the key {key!r} is missing")
    checked = {key: KEYS[key](key, value) for key, value in values.items()}
    if checked.get("ports") and checked.get("network") != "private":
        refuse('ports can only be published with "network": "private"')
    return Spec(**checked, document=document.decode())


def key_of(values: dict[str, Any]) -> tuple[str, str, str]:
    """Name, major and minor of a config, as a launch asks for it.

    Raises InvalidData, also if there is any other key.
    """
    if set(values) != {"name", "major", "minor"}:
        refuse("a launch takes the keys name, major and minor, and no other")
    name, major, minor = (KEYS[key](key, values[key]) for key in ("name", "major", "minor"))
    return name, major, minor


def fill_in(
    assignments: Iterable[Assignment],
    environment: Mapping[str, str],
    literal: Callable[[str], str] = str,
) -> dict[str, str]:
    """``environment`` with the assignments on top, as ``init.py`` (which shares no code) has it.

    A NAME in a value stands for the value that the variable had before; the text between goes
    through ``literal``. Raises InvalidData if it all becomes too long.
    """
    variables, room = dict(environment), LONGEST_ENVIRONMENT
    for name, parts in assignments:
        words = [
            variables.get(part, "") if i % 2 else part and literal(part)
            for i, part in enumerate(parts)
        ]
        room -= sum(map(len, words))
        if room < 0:
            refuse(f"startup_env, filled in, is longer than {LONGEST_ENVIRONMENT} characters")
        variables[name] = "".join(words)
    return variables


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        refuse(f"{key} must be a string, not {shown(value)}")
    if not value.isprintable():  # so no NUL, line ends or lone surrogates
        refuse(f"{key} holds a character that can't be printed: {shown(value)}")
    return value


def _matching(description: str, pattern: re.Pattern[str], what: str) -> Key:
    def check(key: str, value: object) -> str:
        text = _text(key, value)
        if not pattern.fullmatch(text):
            refuse(f"{key} must be {what}, not {shown(text)}")
        return text

    return Key(description, _string(pattern), check)


def _string(pattern: re.Pattern[str]) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^(?:{pattern.pattern})$"}


def _path(key: str, value: object) -> str:
    text = _text(key, value)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts:
        refuse(f"{key} must be an absolute path without '..', not {shown(text)}")
    if len(text.encode()) > LONGEST_PATH or any(len(p.encode()) > LONGEST_NAME for p in parts):
        refuse(f"{key} has more than {LONGEST_PATH} bytes, or a part with more than {LONGEST_NAME}")
    return "/" + "/".join(parts)


def _script(key: str, value: object) -> str | None:
    return None if value is None else _path(key, value)


def _mounts(key: str, value: object) -> tuple[Mount, ...]:
    if not isinstance(value, list) or len(value) > MOST_MOUNTS:
        refuse(f"{key} must be a list of up to {MOST_MOUNTS} strings, not {shown(value)}")
    mounts = tuple(_mount(key, line) for line in value)
    targets = [mount.target for mount in mounts]
    for i, target in enumerate(targets):
        if target in targets[:i]:
            refuse(f"{key} has two tarballs at {shown(target)}: one would hide the other")
    return mounts


def _mount(key: str, line: object) -> Mount:
    words = _text(key, line).strip().rsplit(maxsplit=2)  # a tarball's name may hold spaces
    if len(words) != 3 or words[2] not in ("READ", "READWRITE"):
        refuse(
            f"a mount is 'TARBALL /absolute/target READ' or 'TARBALL /absolute/target READWRITE', "
            f"not {shown(line)}"
        )
    tarball = _tarball(f"the tarball in {key}", words[0])
    target = _path(f"the target in {key}", words[1])
    if target == "/" or target.split("/")[1] in KERNELS_OWN:
        refuse(f"nothing can be mounted at {shown(target)}: the container has its own there")
    return Mount(tarball, target, words[2] == "READWRITE")


def _owner(key: str, value: object) -> str:
    text = _text(key, value)
    match = OWNER.fullmatch(text)
    numbers = [int(part) for part in match.groups() if part and part.isdecimal()] if match else []
    if not match or any(number > LARGEST_ID for number in numbers):
        refuse(
            f"{key} must be USER or USER:GROUP, each a name or a number up to {LARGEST_ID}, "
            f"not {shown(text)}"
        )
    return text


def _environment(key: str, value: object) -> tuple[Assignment, ...]:
    """Only a string is split at ``;``, and only in a string is ``${NAME}`` filled in."""
    if isinstance(value, (list, dict)) and len(value) > MOST_VARIABLES:
        refuse(f"{key} has more than {MOST_VARIABLES} variables")
    if isinstance(value, dict):
        assignments = tuple(_variable(key, name, text) for name, text in value.items())
    elif isinstance(value, list):
        assignments = tuple(_literal_assignment(key, line) for line in value)
    elif isinstance(value, str):
        assignments = tuple(_assignments(key, value))
    else:
        refuse(f"{key} must be a string, an object or a list, not {shown(value)}")
    fill_in(assignments, {})
    return assignments


def _assignments(key: str, whole: str) -> Iterator[Assignment]:
    if len(whole) > LONGEST_ENVIRONMENT:  # before it is split: a mebibyte may have 500,000 parts
        refuse(f"{key} is longer than {LONGEST_ENVIRONMENT} characters")
    for assignment in whole.split(";"):
        if not assignment.strip():
            continue
        name, equals, text = assignment.partition("=")
        if not equals or not VARIABLE.fullmatch(name.strip()):
            refuse(
                f"{key} must be 'NAME=VALUE;NAME=VALUE', and a part is {shown(assignment)}",
                f"';' ends a value: to have one in it, write {key} as an object",
            )
        yield name.strip(), tuple(REFERENCE.split(_value(key, text)))


def _literal_assignment(key: str, line: object) -> Assignment:
    name, equals, text = line.partition("=") if isinstance(line, str) else ("", "", "")
    if not equals:
        refuse(f"a variable in a list of {key} is 'NAME=VALUE', not {shown(line)}")
    return _variable(key, name, text)


def _variable(key: str, name: str, text: object) -> Assignment:
    if not VARIABLE.fullmatch(name):
        refuse(f"a name in {key} must be letters, digits and '_', not {shown(name)}")
    return name, (str(text) if type(text) is int else _value(key, text),)


def _value(key: str, text: object) -> str:
    """Any text that execve(2) takes, even with tabs and line ends."""
    if not isinstance(text, str):
        refuse(f"a value in {key} must be a string or a whole number, not {shown(text)}")
    if "\0" in text or SURROGATE.search(text):
        refuse(f"a value in {key} has a NUL or a lone surrogate: {shown(text)}")
    return text


def _as_written(parts: tuple[str, ...]) -> str:
    return "".join(f"${{{part}}}" if i % 2 else part for i, part in enumerate(parts))


def _one_of(description: str, *choices: str) -> Key:
    def check(key: str, value: object) -> str:
        if value not in choices or not isinstance(value, str):
            refuse(f"{key} must be one of {', '.join(choices)}, not {shown(value)}")
        return value

    return Key(description, {"type": "string", "enum": list(choices)}, check)


def _number(description: str, least: float, most: float, *kinds: type) -> Key:
    def check(key: str, value: object) -> Any:
        if type(value) not in kinds or not least <= value <= most:  # type: ignore[operator]
            refuse(f"{key} must be a number from {least} to {most}, not {shown(value)}")
        return value

    kind = "number" if float in kinds else "integer"
    return Key(description, {"type": kind, "minimum": least, "maximum": most}, check)


def _signal(key: str, value: object) -> int:
    match = SIGNAL.fullmatch(str(value).upper()) if type(value) in (int, str) else None
    name, more = match.groups() if match else ("", None)
    number = int(name) if name.isdecimal() else SIGNALS.get(name, 0)
    if more and name == "RTMIN":
        number += int(more)
    elif more:
        number = 0
    if not 0 < number < signal.NSIG:
        refuse(f"{key} must be a signal's name or number, as 'TERM' or 15, not {shown(value)}")
    return number


def _size(description: str, least: int) -> Key:
    def check(key: str, value: object) -> int:
        match = SIZE.fullmatch(str(value)) if type(value) in (int, str) else None
        number = int(match[1]) << 10 * " KMGT".index(match[2] or " ") if match else -1
        if not least <= number < 1 << 62:
            refuse(f"{key} must be {least} bytes or more, such as '10M', not {shown(value)}")
        return number

    schema = {**_string(SIZE), "type": ["integer", "string"], "minimum": least}
    return Key(f"{description}; bytes, or a string such as 10M", schema, check)


def _boolean(description: str) -> Key:
    def check(key: str, value: object) -> bool:
        if not isinstance(value, bool):
            refuse(f"{key} must be true or false, not {shown(value)}")
        return value

    return Key(description, {"type": "boolean"}, check)


def _limits(key: str, value: object) -> Limits:
    if not isinstance(value, dict):
        refuse(f'{key} must be an object such as {{"memory": "256M"}}, not {shown(value)}')
    unknown = sorted(set(value) - set(LIMITS))
    if unknown:
        refuse(f"there is no limit {shown(unknown[0])}", "the limits are " + ", ".join(LIMITS))
    if "swap" in value and "memory" not in value:
        refuse(f"{key}.swap is what may be swapped beside {key}.memory: set {key}.memory too")
    return Limits(**{name: LIMITS[name](f"{key}.{name}", value[name]) for name in value})


def _ports(key: str, value: object) -> tuple[Port, ...]:
    if not isinstance(value, list) or len(value) > MOST_PORTS:
        refuse(f"{key} must be a list of up to {MOST_PORTS} strings, not {shown(value)}")
    ports = tuple(_port(key, text) for text in value)
    for one, other in combinations(ports, 2):
        if one.clashes_with(other):
            refuse(f"{key} publishes port {one} twice")
    return ports


def _port(key: str, value: object) -> Port:
    match = PORT.fullmatch(_text(key, value))
    numbers = [int(match[2]), int(match[3])] if match else []
    with contextlib.suppress(ValueError):  # the address is not one
        if match and all(0 < number < 65536 for number in numbers):
            address = str(IPv4Address(match[1] or LOOPBACK))
            return Port(address, numbers[0], numbers[1], match[4] or "tcp")
    refuse(
        f"a port is 'HOST:CONTAINER', 'ADDRESS:HOST:CONTAINER' with an IPv4 address of this host, "
        f"or one of them with '/tcp' or '/udp', not {shown(value)}"
    )


def _tarball(key: str, value: object) -> str:
    text = _text(key, value)
    if not FILE_NAME.fullmatch(text) or len(text.encode()) > LONGEST_NAME:
        refuse(f"{key} must be the plain name of a file, not {shown(text)}")
    return text


def schema_of(keys: Mapping[str, Key]) -> dict[str, Any]:
    """The JSON schema of an object's properties."""
    return {name: {**key.schema, "description": key.description} for name, key in keys.items()}


LIMITS = {
    "memory": _size("memory", 1 << 20),
    "swap": _size("swap space beside the memory; needs memory", 0),
    "cpus": _number("processors' worth of time", 0.01, 1024, int, float),
    "pids": _number("processes and threads", 1, 1 << 22, int),
    "io_weight": _number("share of a scarce disk; 100 is everyone's", 1, 10_000, int),
    "files": _number("descriptors that a process may open", 3, 1 << 20, int),
    "disk": _size("what READWRITE mounts take, in memory then", 1 << 20),
}
KEYS = {
    "name": _matching("its name", NAME, "up to 50 letters, digits, '.', '_' and '-'"),
    "major": _matching("its major version", VERSION, "up to 32 letters, digits, '.' and '_'"),
    "minor": _matching("its minor version", VERSION, "up to 32 letters, digits, '.' and '_'"),
    "base_image": Key("a file in base_images/", _string(FILE_NAME), _tarball),
    "mounts": Key(
        "each TARBALL /absolute/target READ|READWRITE",
        {"type": "array", "items": {"type": "string"}, "maxItems": MOST_MOUNTS},
        _mounts,
    ),
    "startup_script": Key(
        "the program that becomes PID 1: an absolute path", {"type": ["string", "null"]}, _script
    ),
    "startup_owner": Key(
        "USER or USER:GROUP: names in the image, or numbers", _string(OWNER), _owner
    ),
    "startup_env": Key(
        "NAME=VALUE;NAME=VALUE, in which ${NAME} stands for a variable; or an object, or a list",
        {
            "type": ["string", "object", "array"],
            "additionalProperties": {"type": ["string", "integer"]},
            "maxProperties": MOST_VARIABLES,
            "items": {"type": "string"},
            "maxItems": MOST_VARIABLES,
        },
        _environment,
    ),
    "init": _boolean("PID 1 reaps, and passes signals on to the script"),
    "restart": _one_of("whether to start it again", "no", "on-failure", "always"),
    "max_restarts": _number("how often at most", 0, 1_000_000, int),
    "stop_timeout": _number("seconds between stop_signal and SIGKILL", 0, 3600, int, float),
    "stop_signal": Key(
        "what asks it to end: a name, as TERM, or a number",
        {"type": ["integer", "string"], "minimum": 1, "maximum": signal.NSIG - 1},
        _signal,
    ),
    "log_max_size": _size("what is kept of a log, in a file", 4096),
    "log_max_files": _number("how many files are kept of a log", 1, 100, int),
    "limits": Key(
        "what it may use",
        {"type": "object", "properties": schema_of(LIMITS), "additionalProperties": False},
        _limits,
    ),
    "shm_size": _size("what fits into /dev/shm", 4096),
    "tmp_size": _size("what fits into /tmp", 4096),
    "writable_root": _boolean("the base image copy-on-write"),
    "user_namespace": _boolean("root in it is no one on the host"),
    "manage": _boolean("it may ask the manager for containers"),
    "network": _one_of("the host's, only loopback, or its own", "host", "none", "private"),
    "ports": Key(
        "each [ADDRESS:]HOST:CONTAINER[/tcp|/udp]",
        {"type": "array", "items": _string(PORT), "maxItems": MOST_PORTS},
        _ports,
    ),
}
REQUIRED = ("name", "major", "minor", "base_image")
