"""A config as a Compose file (the Compose Specification), which `docker compose up` runs."""

from __future__ import annotations

import signal
from typing import Any

from txcontain.container.plan import CAPABILITIES
from txcontain.container.spec import Spec
from txcontain.exports.notes import heading, notes_on
from txcontain.exports.subject import Subject
from txcontain.exports.written import Document, each_text, filled, milliseconds, to_yaml

RUN_SIZE = "64m"  # of /run in a container
IN_CONTAINER = "Docker and Podman ask by a command in the container"
HEALTH = {
    "health.http": f"{IN_CONTAINER}: give the config a health.command",
    "health.tcp": f"{IN_CONTAINER}: give the config a health.command",
    "health.port": IN_CONTAINER,
    "health.status": IN_CONTAINER,
}
CANNOT = {
    "limits.io_weight": "Docker's blkio weights are on another scale",
    "user_namespace": "Docker has user namespaces for all containers or for none (userns-remap)",
    **HEALTH,
}


def to_compose(subject: Subject) -> Document:
    """The Compose file of a config, with one service."""
    spec = subject.spec
    notes = notes_of(subject)
    whole = {
        "services": {spec.name: service_of(subject)},
        **filled(volumes=_named(spec.volume_names), secrets=secrets_of(spec)),
    }
    text = heading(subject, "compose FILE", notes) + to_yaml(escaped(whole))
    return Document(text, notes)


def escaped(whole: dict[str, Any]) -> Any:
    """With each ``$`` doubled: a single one begins a variable of who runs Compose."""
    return each_text(whole, lambda text: text.replace("$", "$$"))


def service_of(subject: Subject) -> dict[str, Any]:
    """What a Compose file says of one service."""
    spec, limits = subject.spec, subject.spec.limits
    return filled(
        image=subject.image,
        command=subject.program,
        working_dir=spec.workdir,
        user=subject.user_in_image,
        environment=subject.environment,
        init=spec.init,
        tty=spec.tty,
        stdin_open=spec.tty,
        restart=_restart(spec),
        stop_signal=signal_name(spec.stop_signal),
        stop_grace_period=milliseconds(spec.stop_timeout),
        network_mode="" if spec.network == "private" else spec.network,
        ports=[port.written for port in spec.ports],
        read_only=subject.read_only,
        tmpfs=[f"/run:mode=755,size={RUN_SIZE}", f"/tmp:mode=1777,size={spec.tmp_size}"],
        volumes=_volumes(subject),
        secrets=_secrets(subject),
        shm_size=spec.shm_size,
        mem_limit=limits.memory,
        memswap_limit=subject.memory_and_swap,
        cpus=limits.cpus,
        pids_limit=limits.pids,
        ulimits=filled(nofile=limits.files),
        cap_drop=["ALL"],
        cap_add=list(CAPABILITIES),
        security_opt=["no-new-privileges:true"],
        healthcheck=_check(spec),
        logging={
            "driver": "json-file",
            "options": {
                "max-size": str(spec.log_max_size),
                "max-file": str(spec.log_max_files),
            },
        },
    )


def signal_name(number: int) -> str:
    """A signal as Docker names it."""
    try:
        return signal.Signals(number).name
    except ValueError:  # those in between have no names
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else str(number)


def _restart(spec: Spec) -> str:
    most = spec.max_restarts
    if spec.restart != "on-failure" or most is None:
        return spec.restart
    return f"on-failure:{most}" if most else "no"  # to Docker, 0 is no bound


def _volumes(subject: Subject) -> list[dict[str, Any]]:
    """An unnamed volume begins with what the image has there: so each instance has its own."""
    own = [{"type": "volume", "target": target} for target in subject.written_mounts]
    named = [
        {
            "type": "bind" if volume.on_host else "volume",
            "source": volume.source,
            "target": volume.target,
            **filled(read_only=not volume.writable),
        }
        for volume in subject.spec.volumes
    ]
    return own + named


def _named(names: list[str]) -> dict[str, Any]:
    return {name: {} for name in names}


def _secrets(subject: Subject) -> list[dict[str, Any]]:
    spec = subject.spec
    owners = [subject.account(one.owner or spec.startup_owner) for one in spec.secrets]
    return [
        {
            "source": secret.name,
            "target": secret.path,
            "uid": str(owner.uid),
            "gid": str(owner.gid),
            "mode": secret.mode,
        }
        for secret, owner in zip(spec.secrets, owners, strict=True)
    ]


def secrets_of(spec: Spec) -> dict[str, Any]:
    """The secrets that a Compose file takes from files beside it."""
    return {secret.name: {"file": f"./secrets/{secret.name}"} for secret in spec.secrets}


def _check(spec: Spec) -> dict[str, Any]:
    health = spec.health
    if health is None or not health.command:
        return {}
    more = {"start_interval": milliseconds(health.start_interval)} if health.start_period else {}
    return {
        "test": ["CMD", *health.command],
        "interval": milliseconds(health.interval),
        "timeout": milliseconds(health.timeout),
        "retries": health.retries,
        "start_period": milliseconds(health.start_period),
        **more,
    }


def notes_of(subject: Subject) -> list[str]:
    """What a Compose file can't say of a config, a sentence each."""
    spec, notes = subject.spec, notes_on(subject.spec, CANNOT)
    if spec.health and spec.health.on_failure != "none":
        wanted = spec.health.on_failure
        notes.append(f"health.on_failure: Docker tells who is unhealthy, and does not {wanted}")
    if spec.max_restarts is not None and spec.restart != "on-failure":
        notes.append("max_restarts: Docker counts restarts only with on-failure")
    return notes + notes_on_memory(subject) + common_notes(subject)


def notes_on_memory(subject: Subject) -> list[str]:
    """Which files of the image can't be seen, if folders in memory are not on top of them."""
    return [
        f"tmp_size: {folder} is in memory and begins empty, without the image's files"
        for folder in subject.covered
    ]


def common_notes(subject: Subject) -> list[str]:
    """What neither Docker nor Podman can be told of a config, a sentence each."""
    spec, notes = subject.spec, []
    if not subject.program:
        notes.append("startup_script: there is none, and no other tool idles: add a command")
    if spec.writable_root:
        notes += writable_notes(spec)
    if spec.secrets:
        names = ", ".join(sorted({secret.name for secret in spec.secrets}))
        notes.append(f"secrets: their contents are not exported, bring them yourself: {names}")
    if spec.files:
        paths = ", ".join(file.path for file in spec.files)
        notes.append(f"files: they are in the image, and not read-only if its root is not: {paths}")
    return notes


def writable_notes(spec: Spec) -> list[str]:
    """What is not to be written to, and can be if all of the root can, a sentence each."""
    targets = [mount.target for mount in spec.mounts if not mount.writable]
    return [f"mounts: {one} is READ, but can be written to as all of the root" for one in targets]
