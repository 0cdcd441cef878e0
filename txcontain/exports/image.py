"""The config of the image that a config becomes."""

from __future__ import annotations

from collections.abc import Sequence

from txcontain.container.spec import Spec
from txcontain.exports.compose import HEALTH, common_notes, signal_name
from txcontain.exports.notes import is_set, notes_on
from txcontain.exports.subject import Subject
from txcontain.images.oci import Healthcheck, ImageConfig, Platform, Step

LONG_AGO = "1970-01-01T00:00:00Z"  # no clock: what is exported twice is the same
TITLE, VERSION = "org.opencontainers.image.title", "org.opencontainers.image.version"
# What is said where an image is run, and not in it.
OF_RUN = (
    *(
        "volumes",
        "init",
        "tty",
        "restart",
        "max_restarts",
        "stop_timeout",
        "network",
        "writable_root",
    ),
    *("log_max_size", "log_max_files", "shm_size", "tmp_size", "user_namespace"),
    *(f"limits.{name}" for name in ("memory", "swap", "cpus", "pids", "io_weight", "files")),
    "health.on_failure",
)


def image_config(
    subject: Subject, platform: Platform, diff_ids: Sequence[str], made_by: Sequence[str]
) -> ImageConfig:
    """The config of an image.

    :param diff_ids: the digests of its layers
    :param made_by: what each of these is, for a person
    """
    spec = subject.spec
    steps = [Step(LONG_AGO, created_by=text) for text in made_by]
    steps += [Step(LONG_AGO, comment=note, empty_layer=True) for note in notes_of(subject)]
    return ImageConfig(
        platform,
        diff_ids,
        cmd=subject.program,
        env=[f"{name}={value}" for name, value in subject.environment.items()],
        user=subject.user_in_image,
        working_dir=spec.workdir or "",
        exposed_ports=_ports(spec),
        volumes=sorted({*subject.written_mounts, *(volume.target for volume in spec.volumes)}),
        stop_signal=signal_name(spec.stop_signal),
        healthcheck=_check(spec),
        labels={TITLE: spec.name, VERSION: f"{spec.major}.{spec.minor}"},
        created=LONG_AGO,
        history=steps,
    )


def _ports(spec: Spec) -> list[str]:
    ports = {f"{port.target}/{port.protocol}" for port in spec.ports}
    return sorted(ports | ({f"{spec.port}/tcp"} if spec.port else set()))


def _check(spec: Spec) -> Healthcheck | None:
    health = spec.health
    if health is None or not health.command:
        return None
    return Healthcheck(
        ["CMD", *health.command],
        _nanoseconds(health.interval),
        _nanoseconds(health.timeout),
        _nanoseconds(health.start_period),
        _nanoseconds(health.start_interval),
        health.retries,
    )


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1000) * 1_000_000


def notes_of(subject: Subject) -> list[str]:
    """What an image can't say of a config, a sentence each."""
    spec = subject.spec
    notes = notes_on(spec, HEALTH) + common_notes(subject)
    if of_run := [key for key in OF_RUN if is_set(spec, key)]:
        notes.append(f"{', '.join(of_run)}: an image says what is run, and not how")
    notes += subject.left_out
    if spec.ports:
        notes.append("ports: an image names those of the container, and none of the host")
    return notes
