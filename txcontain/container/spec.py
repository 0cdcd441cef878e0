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
from ipaddress import IPv4Address, IPv6Address
from itertools import combinations
from typing import Annotated, Any

from attrs import NOTHING, asdict, evolve, field, fields, frozen

from txcontain.container.document import (
    read_object,
    refuse,
    refuse_missing,
    refuse_unknown,
    shown,
)
from txcontain.container.health import HEALTH, Health
from txcontain.container.keys import (
    OWNER,
    SURROGATE,
    Key,
    absolute_path,
    boolean,
    file_name,
    is_kernels_own,
    keys_of,
    matching,
    number,
    object_schema,
    one_of,
    owner,
    printable,
    size,
    string_schema,
    strings,
    words,
)
from txcontain.container.reference import BASE_IMAGE
from txcontain.container.small_files import FILES, SECRETS, Secret, SmallFile, paths_of

LONGEST_ENVIRONMENT = 32_000  # characters: as UTF-8, execve(2) takes that as a single string
SHM_SIZE = 64 << 20  # bytes of /dev/shm, if a config does not say
MOST_MOUNTS = 64
MOST_PORTS = 64
MOST_VARIABLES = 1000
LOOPBACK = "127.0.0.1"
ANY_ADDRESS, ANY_ADDRESS_6 = "0.0.0.0", "::"  # all addresses of the host, of IPv4 or of IPv6
ANY = {ANY_ADDRESS, ANY_ADDRESS_6}
# A hostname holds 64 bytes (uname(2)): NAME, "-" and the 8 characters of the id fit.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,49}")
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._]{0,31}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
PORT = re.compile(
    r"(?:([0-9.]{7,15}|\[[0-9a-fA-F:.]{2,45}\]):)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?"
)
SIGNAL = re.compile(r"(?:SIG)?([A-Z0-9]{1,10})(?:\+([0-9]{1,2}))?")
SIGNALS = {name[3:]: number.value for name, number in signal.Signals.__members__.items()}

VERSIONS = "up to 32 letters, digits, '.' and '_'"
POLICIES = ("no", "on-failure", "always", "unless-stopped")  # of restart
PULLS = ("missing", "always", "never")
NETWORKS = ("host", "none", "private")

# A variable's name, and its value in parts: text, NAME, text, .., text. NAMEs stand for variables.
Assignment = tuple[str, tuple[str, ...]]


@frozen
class Mount:
    """A tarball's content at a folder of the container."""

    tarball: str
    target: str
    writable: bool


@frozen
class Volume:
    """A volume, or a folder of the host, at a folder of the container."""

    source: str  # its name, or an absolute path of the host
    target: str
    writable: bool = True

    @property
    def on_host(self) -> bool:
        """Whether it is a folder of the host."""
        return self.source.startswith("/")


@frozen
class Limits:
    """How much a container may use; None if there is no limit."""

    memory: Annotated[int | None, size("memory", 1 << 20)] = None
    swap: Annotated[int | None, size("swap space beside the memory; needs memory", 0)] = None
    cpus: Annotated[float | None, number("processors' worth of time", 0.01, 1024, float)] = None
    # The default stops a fork bomb.
    pids: Annotated[int, number("processes and threads", 1, 1 << 22)] = 1024
    io_weight: Annotated[int | None, IO_WEIGHT] = None
    files: Annotated[int | None, number("descriptors a process may open", 3, 1 << 20)] = None
    disk: Annotated[int | None, size("what READWRITE mounts take, in memory then", 1 << 20)] = None

    @property
    def memory_and_swap(self) -> int:
        """Bytes of both together, as version 1 of cgroups counts them."""
        return (self.memory or 0) + (self.swap or 0)


@frozen
class Port:
    """A port of the host that a container takes."""

    address: str  # of the host; ANY_ADDRESS or ANY_ADDRESS_6 for all of one kind
    number: int
    target: int  # the port of the container that it leads to
    protocol: str  # tcp or udp

    @property
    def is_v6(self) -> bool:
        """Whether its address is one of IPv6."""
        return ":" in self.address

    @property
    def host(self) -> str:
        """Its address as it is written before a port (RFC 3986, 3.2.2)."""
        return f"[{self.address}]" if self.is_v6 else self.address

    @property
    def mapping(self) -> str:
        """From where to where it leads, for people."""
        return f"{self.host}:{self.number}->{self.target}/{self.protocol}"

    @property
    def written(self) -> str:
        """As in a config."""
        return f"{self.host}:{self.number}:{self.target}/{self.protocol}"

    @property
    def forms(self) -> set[str]:
        """The ways in which a person may name it."""
        addresses = ["", f"{self.host}:"] if self.address == LOOPBACK else [f"{self.host}:"]
        protocols = ["", "/tcp"] if self.protocol == "tcp" else [f"/{self.protocol}"]
        ends = [text + end for text in ("", f":{self.target}") for end in protocols]
        return {f"{address}{self.number}{end}" for address in addresses for end in ends}

    def clashes_with(self, other: Port) -> bool:
        """Whether only one of the two can be published."""
        mine, yours = ((one.protocol, one.number, one.is_v6) for one in (self, other))
        addresses = {self.address, other.address}
        return mine == yours and (len(addresses) == 1 or bool(addresses & ANY))

    def __str__(self) -> str:
        address = "" if self.address == LOOPBACK else f"{self.host}:"
        return f"{address}{self.number}" + ("" if self.protocol == "tcp" else f"/{self.protocol}")


@frozen
class Spec:
    """What a container is to be. ``from_json`` makes one of a document."""

    name: Annotated[str, matching("its name", NAME, "up to 50 letters, digits, '.', '_' and '-'")]
    major: Annotated[str, matching("its major version", VERSION, VERSIONS)]
    minor: Annotated[str, matching("its minor version", VERSION, VERSIONS)]
    base_image: Annotated[str, BASE_IMAGE]
    mounts: Annotated[tuple[Mount, ...], MOUNTS] = ()
    volumes: Annotated[tuple[Volume, ...], VOLUMES] = ()
    startup_script: Annotated[str | None, STARTUP_SCRIPT] = None
    command: Annotated[tuple[str, ...], COMMAND] = ()
    workdir: Annotated[str | None, WORKDIR] = None
    startup_owner: Annotated[str, STARTUP_OWNER] = "root"
    files: Annotated[tuple[SmallFile, ...], FILES] = ()
    secrets: Annotated[tuple[Secret, ...], SECRETS] = ()
    startup_env: Annotated[tuple[Assignment, ...], STARTUP_ENV] = ()
    init: Annotated[bool, boolean("PID 1 reaps, and passes signals on to the script")] = False
    tty: Annotated[bool, boolean("the script has a terminal, which attach leads to")] = False
    restart: Annotated[str, one_of("whether to start it again", *POLICIES)] = "no"
    max_restarts: Annotated[int | None, number("how often at most", 0, 1_000_000)] = None
    stop_timeout: Annotated[float, STOP_TIMEOUT] = 2.0
    stop_signal: Annotated[int, STOP_SIGNAL] = signal.SIGTERM.value
    log_max_size: Annotated[int, size("what is kept of a log, in a file", 4096)] = 10 << 20
    log_max_files: Annotated[int, number("how many files are kept of a log", 1, 100)] = 3
    limits: Annotated[Limits, LIMITS_KEY] = Limits()
    shm_size: Annotated[int, size("what fits into /dev/shm", 4096)] = SHM_SIZE
    tmp_size: Annotated[int, size("what fits into /tmp", 4096)] = 256 << 20
    disk_size: Annotated[int | None, DISK_SIZE] = None
    writable_root: Annotated[bool, boolean("the base image copy-on-write")] = False
    user_namespace: Annotated[bool, boolean("root in it is no one on the host")] = False
    pull: Annotated[str, one_of("when its image is asked for", *PULLS)] = "missing"
    manage: Annotated[bool, boolean("it may ask the manager for containers")] = False
    network: Annotated[str, one_of("the host's, only loopback, or its own", *NETWORKS)] = "host"
    ports: Annotated[tuple[Port, ...], PORTS] = ()
    per_connection: Annotated[bool, boolean("a service runs one for each connection")] = False
    health: Annotated[Health | None, HEALTH] = None
    document: str = field(default="", eq=False, repr=False)  # as it was uploaded

    @property
    def longest_log(self) -> int:
        """How many bytes of its output are kept at most."""
        return self.log_max_size * self.log_max_files

    @property
    def key(self) -> tuple[str, str, str]:
        """Name, major and minor."""
        return self.name, self.major, self.minor

    @property
    def file_name(self) -> str:
        """The file that the document is kept as."""
        return f"{self.name}-{self.major}-{self.minor}.cfg"

    @property
    def program(self) -> str | None:
        """What PID 1 runs: a path, or a name to find along PATH; None if it idles."""
        return self.command[0] if self.command else self.startup_script

    @property
    def volume_names(self) -> list[str]:
        """The volumes that it uses, each once; not the folders of the host."""
        names = (volume.source for volume in self.volumes if not volume.on_host)
        return list(dict.fromkeys(names))

    @cached_property
    def port(self) -> int | None:
        """The TCP port that the container will listen on, where ``startup_env`` sets PORT."""
        port = fill_in(self.startup_env, {}).get("PORT", "").strip()
        return int(port) if re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536 else None

    @property
    def port_asked(self) -> int | None:
        """The TCP port that its health check asks, if it is one that asks a port."""
        return (self.health and self.health.port_named) or self.port

    @cached_property
    def taken_ports(self) -> tuple[Port, ...]:
        """The ports of the host that the container takes.

        On the host's network a program may listen at any address it likes: a port that another
        has at another address is free.
        """
        if self.network == "host" and self.port is not None:
            # Its PORT has to answer at this address.
            return (Port(LOOPBACK, self.port, self.port, "tcp"),)
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
    refuse_unknown("a config", values, KEYS)
    refuse_missing(values, *REQUIRED)
    checked = {key: KEYS[key](key, value) for key, value in values.items()}
    _refuse_same_target(checked)
    if checked.get("ports") and checked.get("network") != "private":
        refuse('ports can only be published with "network": "private"')
    if checked.get("disk_size") and checked.get("limits", Limits()).disk:
        refuse("a config has either disk_size or limits.disk: on the disk, or in memory")
    paths_of(checked.get("files", ()), checked.get("secrets", ()))
    if checked.get("per_connection"):
        _check_per_connection(checked)
    if checked.get("command") and checked.get("startup_script"):
        refuse("a config has either startup_script or command: only one program can be PID 1")
    spec = Spec(**checked, document=document.decode())
    return _knowing_what_to_ask(spec)


def _knowing_what_to_ask(spec: Spec) -> Spec:
    """A health check asks the port that it names, or PORT, or the first published one."""
    if spec.health is None or spec.health.command or spec.port_asked is not None:
        return spec
    first = next((port.target for port in spec.ports if port.protocol == "tcp"), None)
    if first is None:
        refuse(
            "health does not say which port to ask",
            "give it a port, set PORT in startup_env, or publish a port",
        )
    return evolve(spec, health=spec.health.asking(first))


def _check_per_connection(checked: Mapping[str, Any]) -> None:
    """Its connection is its standard input and output, and is over when its program ends."""
    if not (checked.get("command") or checked.get("startup_script")):
        refuse("per_connection needs a startup_script or a command: it is what each is given to")
    if checked.get("restart", "no") != "no":
        refuse("per_connection makes no sense with restart: the connection is over by then")
    if checked.get("tty"):
        refuse("per_connection makes no sense with tty: the connection is what it reads")
    if checked.get("health"):
        refuse("per_connection makes no sense with health: the program need not answer a check")
    if "PORT" in fill_in(checked.get("startup_env", ()), {}):
        refuse("per_connection makes no sense with a PORT: the program need not listen")


def key_of(values: dict[str, Any]) -> tuple[str, str, str]:
    """Name, major and minor of a config, as a launch asks for it.

    Raises InvalidData, also if there is any other key.
    """
    wanted = ("name", "major", "minor")
    refuse_unknown("a launch", values, wanted)
    refuse_missing(values, *wanted)
    name, major, minor = (KEYS[key](key, values[key]) for key in wanted)
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


def _script(key: str, value: object) -> str | None:
    return None if value is None else absolute_path(key, value)


STARTUP_SCRIPT = Key(
    "the program that becomes PID 1: an absolute path", {"type": ["string", "null"]}, _script
)


COMMAND = words("the program that becomes PID 1, found along PATH, and its arguments")
WORKDIR = Key("the folder it starts in: an absolute path", {"type": "string"}, absolute_path)


def _refuse_same_target(checked: dict[str, Any]) -> None:
    mounted = {mount.target for mount in checked.get("mounts", ())}
    for volume in checked.get("volumes", ()):
        if volume.target in mounted:
            refuse(
                f"volumes has a second thing at {shown(volume.target)}: one would hide the other"
            )
        mounted.add(volume.target)


def _mounts(key: str, lines: list[object]) -> tuple[Mount, ...]:
    mounts = tuple(_mount(key, line) for line in lines)
    targets = [mount.target for mount in mounts]
    for i, target in enumerate(targets):
        if target in targets[:i]:
            refuse(f"{key} has two tarballs at {shown(target)}: one would hide the other")
    return mounts


MOUNTS = strings("each TARBALL /absolute/target READ|READWRITE", MOST_MOUNTS, _mounts)


def _mount(key: str, line: object) -> Mount:
    words = printable(key, line).strip().rsplit(maxsplit=2)  # a tarball's name may hold spaces
    if len(words) != 3 or words[2] not in ("READ", "READWRITE"):
        refuse(
            f"a mount is 'TARBALL /absolute/target READ' or 'TARBALL /absolute/target READWRITE', "
            f"not {shown(line)}"
        )
    tarball = file_name(f"the tarball in {key}", words[0])
    return Mount(tarball, _target(key, words[1]), words[2] == "READWRITE")


def _target(key: str, text: str) -> str:
    target = absolute_path(f"the target in {key}", text)
    if target == "/" or is_kernels_own(target):
        refuse(f"nothing can be mounted at {shown(target)}: the container has its own there")
    return target


VOLUMES = strings(
    "each NAME /absolute/target [READ|READWRITE], or an absolute path of the host as NAME",
    MOST_MOUNTS,
    lambda key, lines: tuple(_volume(key, line) for line in lines),
)


def _volume(key: str, line: object) -> Volume:
    words = printable(key, line).split()
    mode = words.pop() if words[-1:] in (["READ"], ["READWRITE"]) else "READWRITE"
    if len(words) != 2:
        refuse(
            f"one of {key} is 'NAME /absolute/target' or '/folder/of/the/host /absolute/target', "
            f"and then READ, READWRITE or nothing, not {shown(line)}"
        )
    source = words[0]
    if source.startswith("/"):
        source = absolute_path(f"a folder in {key}", source)
    elif not NAME.fullmatch(source):
        what = "up to 50 letters, digits, '.', '_' and '-'"
        refuse(f"a name in {key} must be {what}, not {shown(source)}")
    return Volume(source, _target(key, words[1]), mode == "READWRITE")


STARTUP_OWNER = Key(
    "USER or USER:GROUP: names in the image, or numbers", string_schema(OWNER), owner
)


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


STARTUP_ENV = Key(
    "NAME=VALUE;NAME=VALUE, in which ${NAME} stands for a variable; or an object, or a list",
    {
        "type": ["string", "object", "array"],
        "additionalProperties": {"type": ["string", "integer"]},
        "maxProperties": MOST_VARIABLES,
        "items": {"type": "string"},
        "maxItems": MOST_VARIABLES,
    },
    _environment,
)


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


STOP_SIGNAL = Key(
    "what asks it to end: a name, as TERM, or a number",
    {"type": ["integer", "string"], "minimum": 1, "maximum": signal.NSIG - 1},
    _signal,
)
STOP_TIMEOUT = number("seconds between stop_signal and SIGKILL", 0, 3600, float)


def _limits(key: str, value: object) -> Limits:
    if not isinstance(value, dict):
        refuse(f'{key} must be an object such as {{"memory": "256M"}}, not {shown(value)}')
    refuse_unknown(key, value, LIMITS)
    if "swap" in value and "memory" not in value:
        refuse(f"{key}.swap is what may be swapped beside {key}.memory: set {key}.memory too")
    return Limits(**{name: LIMITS[name](f"{key}.{name}", value[name]) for name in value})


def _ports(key: str, texts: list[object]) -> tuple[Port, ...]:
    ports = tuple(_port(f"{key}[{place}]", text) for place, text in enumerate(texts))
    for one, other in combinations(ports, 2):
        if one.clashes_with(other):
            refuse(f"{key} publishes port {one} twice")
    return ports


PORTS = strings("each [ADDRESS:]HOST:CONTAINER[/tcp|/udp]", MOST_PORTS, _ports, PORT)


def _port(key: str, value: object) -> Port:
    match = PORT.fullmatch(value) if isinstance(value, str) else None
    numbers = [int(match[2]), int(match[3])] if match else []
    with contextlib.suppress(ValueError):  # the address is not one
        if match and all(0 < number < 65536 for number in numbers):
            address = _address(key, match[1] or LOOPBACK)
            return Port(address, numbers[0], numbers[1], match[4] or "tcp")
    refuse(
        f"{key} must be a string HOST:CONTAINER, such as '8000:80', not {shown(value)}",
        "it may begin with an address of the host, as in '0.0.0.0:8000:80' or '[::]:8000:80', and "
        "end with '/tcp' or '/udp'",
    )


def _address(key: str, text: str) -> str:
    """The address of a published port. Raises ValueError if it is none."""
    if not text.startswith("["):
        return str(IPv4Address(text))
    address = IPv6Address(text.strip("[]"))
    if address.is_loopback:  # its answers would not reach it: there is no route_localnet for IPv6
        refuse(
            f"{key} can't publish anything at [::1]: the kernel leads nothing from there to a "
            f"container",
            "publish it at 127.0.0.1, which programs try too if they look up localhost",
        )
    if address.ipv4_mapped or address.is_link_local or address.is_multicast:
        refuse(f"{key} can't publish anything at {text}: give an address of the host's of its own")
    return str(address)


DISK_SIZE = size("what READWRITE mounts take of the disk", 16 << 20)
IO_WEIGHT = number("share of a scarce disk; 100 is everyone's", 1, 10_000)
LIMITS = keys_of(Limits)
LIMITS_KEY = Key("what it may use", object_schema(LIMITS), _limits)
KEYS = keys_of(Spec)
REQUIRED = tuple(one.name for one in fields(Spec) if one.default is NOTHING)
