"""A config as a Quadlet, from which systemd makes a service that Podman runs.

The keys are those of podman-systemd.unit(5) as of Podman 5.0. What has no key is in PodmanArgs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from txcontain.container.plan import CAPABILITIES
from txcontain.container.spec import Spec
from txcontain.exports.compose import HEALTH, common_notes, signal_name
from txcontain.exports.notes import heading, notes_on
from txcontain.exports.subject import Subject
from txcontain.exports.written import Document, milliseconds

CANNOT = {
    "log_max_size": "its output is in the journal, which has one bound for all (SystemMaxUse=)",
    "log_max_files": "its output is in the journal",
    "max_restarts": "systemd counts restarts within an interval (StartLimitBurst=)",
    **HEALTH,
}
RESTART = {"unless-stopped": "always"}  # what `systemctl stop` ends is not started again
ON_FAILURE = {"restart": "kill", "stop": "stop", "none": "none"}  # systemd starts it again
ESCAPED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "%": "%%", "$": "$$"}
SAFE = re.compile(r"[A-Za-z0-9_/.:,=@+-]+")
Line = tuple[str, str]


def to_quadlet(subject: Subject) -> Document:
    """The file NAME.container of a config."""
    spec = subject.spec
    notes = notes_of(subject)
    sections: dict[str, list[Line]] = {
        "Unit": [("Description", f"{spec.name} {spec.major} {spec.minor}")],
        "Container": container_of(subject),
        "Service": [
            ("Restart", RESTART.get(spec.restart, spec.restart)),
            ("TimeoutStopSec", milliseconds(spec.stop_timeout + 10)),  # Podman kills before
            *_each("IOWeight", _if_set(spec.limits.io_weight)),
        ],
        "Install": [("WantedBy", "multi-user.target default.target")],
    }
    parts = [
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in lines)
        for name, lines in sections.items()
    ]
    text = heading(subject, "systemd FILE", notes) + "\n" + "\n".join(parts)
    return Document(text, notes)


def container_of(subject: Subject) -> list[Line]:
    """What is run, and how."""
    spec = subject.spec
    network = {"private": []}.get(spec.network, [spec.network])
    user, _, group = subject.user_in_image.partition(":")
    return [
        ("Image", raw(_local(subject.image))),
        *_each("Exec", [" ".join(map(word, subject.program))] if subject.program else []),
        *_each("WorkingDir", [raw(spec.workdir)] if spec.workdir else []),
        ("User", user),
        *_each("Group", [group] if group else []),
        *_each("Environment", [word(f"{n}={v}") for n, v in subject.environment.items()]),
        *_each("RunInit", ["true"] * spec.init),
        *_each("PodmanArgs", ["--tty"] * spec.tty),
        *_each("Network", network),
        *_each("PublishPort", [port.written for port in spec.ports]),
        ("ReadOnly", str(subject.read_only).lower()),
        ("ReadOnlyTmpfs", "false"),
        ("Tmpfs", "/run:mode=755,size=64m"),
        ("Tmpfs", f"/tmp:mode=1777,size={spec.tmp_size}"),
        *_each("Volume", [*map(raw, subject.written_mounts), *_volumes(spec)]),
        *_each("Secret", _secrets(subject)),
        ("ShmSize", str(spec.shm_size)),
        ("PidsLimit", str(spec.limits.pids)),
        *_each("Ulimit", [f"nofile={most}:{most}" for most in _if_set(spec.limits.files)]),
        *_each("UserNS", ["auto"] * spec.user_namespace),
        ("NoNewPrivileges", "true"),
        ("DropCapability", "all"),
        ("AddCapability", " ".join(f"CAP_{name}" for name in CAPABILITIES)),
        *_health(spec),
        *_each("PodmanArgs", _arguments(subject)),
    ]


def _local(image: str) -> str:
    """A name without a registry is that of an image which is here (`podman load`)."""
    first, slash, _ = image.partition("/")
    return image if slash and re.search(r"[.:]|^localhost$", first) else f"localhost/{image}"


def _each(key: str, values: Sequence[str]) -> list[Line]:
    return [(key, value) for value in values]


def _if_set(value: int | None) -> list[str]:
    return [] if value is None else [str(value)]


def _volumes(spec: Spec) -> list[str]:
    return [
        raw(f"{volume.source}:{volume.target}:{'rw' if volume.writable else 'ro'}")
        for volume in spec.volumes
    ]


def _secrets(subject: Subject) -> list[str]:
    spec = subject.spec
    owners = [subject.account(one.owner or spec.startup_owner) for one in spec.secrets]
    return [
        word(
            f"{secret.name},type=mount,target={secret.path},"
            f"uid={owner.uid},gid={owner.gid},mode={secret.mode:04o}"
        )
        for secret, owner in zip(spec.secrets, owners, strict=True)
    ]


def _health(spec: Spec) -> list[Line]:
    health = spec.health
    if health is None or not health.command or not _fits_a_line(health.command):
        return []
    return [
        ("HealthCmd", raw(" ".join(map(_for_shell, health.command)))),
        ("HealthInterval", milliseconds(health.interval)),
        ("HealthTimeout", milliseconds(health.timeout)),
        ("HealthRetries", str(health.retries)),
        ("HealthStartPeriod", milliseconds(health.start_period)),
        ("HealthOnFailure", ON_FAILURE[health.on_failure]),
    ]


def _fits_a_line(command: Sequence[str]) -> bool:
    return all(c >= " " for text in command for c in text)


def _for_shell(text: str) -> str:
    return text if SAFE.fullmatch(text) else "'" + text.replace("'", "'\"'\"'") + "'"


def _arguments(subject: Subject) -> list[str]:
    spec, limits = subject.spec, subject.spec.limits
    given = {
        "memory": limits.memory,
        "memory-swap": subject.memory_and_swap,
        "cpus": limits.cpus,
        "stop-timeout": round(spec.stop_timeout),
        "stop-signal": signal_name(spec.stop_signal),
    }
    return [f"--{name}={value}" for name, value in given.items() if value is not None]


def word(text: str) -> str:
    """A text as one word of a line (systemd.syntax(7), Quoting)."""
    return text if SAFE.fullmatch(text) else f'"{escaped(text)}"'


def raw(text: str) -> str:
    """A text where Quadlet takes all of a line: nothing in it is a specifier or a variable."""
    return text.replace("%", "%%").replace("$", "$$")


def escaped(text: str) -> str:
    """A text in quotes: nothing in it is a specifier, a variable, or their end."""
    return "".join(ESCAPED.get(c, c if c >= " " else f"\\x{ord(c):02x}") for c in text)


def notes_of(subject: Subject) -> list[str]:
    """What a Quadlet can't say of a config, a sentence each."""
    spec, notes = subject.spec, notes_on(subject.spec, CANNOT)
    if spec.stop_timeout != round(spec.stop_timeout):
        notes.append("stop_timeout: rounded to whole seconds")
    if spec.health and spec.health.command:
        fits = _fits_a_line(spec.health.command)
        how = "a shell of the image runs it" if fits else "it has line ends, which fit on no line"
        notes.append(f"health.command: {how}")
        if spec.health.start_period:
            notes.append("health.start_interval: Podman asks after each interval from the start")
    if ";" in subject.program:
        notes.append("command: systemd takes a ';' that is a word of its own for its end")
    return notes + common_notes(subject)
