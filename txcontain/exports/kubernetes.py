"""A config as objects of Kubernetes: a Deployment, a Service and a ConfigMap."""

from __future__ import annotations

import math
import re
from base64 import b64encode
from typing import Any

from txcontain.container.health import Health
from txcontain.container.plan import CAPABILITIES
from txcontain.container.spec import Port, Spec
from txcontain.exports.compose import notes_on_memory, writable_notes
from txcontain.exports.notes import heading, notes_on
from txcontain.exports.subject import Subject, key_for, label
from txcontain.exports.written import Document, each_text, filled, to_yaml

NAME, VERSION = "app.kubernetes.io/name", "app.kubernetes.io/version"
SECRET_KEY = "value"  # of a Secret, which is not exported
RUN_SIZE = 64 << 20  # bytes of /run in a container
CANNOT = {
    "stop_signal": "it is in the image, and not said here",
    "log_max_size": "the kubelet has one for all (containerLogMaxSize)",
    "log_max_files": "the kubelet has one for all (containerLogMaxFiles)",
    "max_restarts": "a Deployment starts it again without end",
    "limits.swap": "the kubelet decides on swap",
    "limits.pids": "the kubelet has one for all (podPidsLimit)",
    "limits.io_weight": "a Pod has no share of the disk",
    "limits.files": "a Pod has no limit of open files",
    "health.status": "a probe takes any status from 200 to 399",
}
NO_ADDRESS = "ports: the Service has the numbers, and no address of a host"
Object = dict[str, Any]


def to_kubernetes(subject: Subject) -> Document:
    """The objects that run a config, as one file for `kubectl apply`."""
    notes = notes_of(subject)
    objects = [deployment_of(subject), *services_of(subject), *config_maps_of(subject)]
    return Document(heading(subject, "kubernetes FILE", notes) + to_yaml(*objects), notes)


def deployment_of(subject: Subject, name: str = "", replicas: int = 1) -> Object:
    """What runs it, and as often as there are to be replicas."""
    spec = subject.spec
    name = name or label(spec.name)
    labels = {NAME: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {**labels, VERSION: version_of(spec)}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": {**labels, VERSION: version_of(spec)}},
                "spec": _pod(subject, name),
            },
        },
    }


def version_of(spec: Spec) -> str:
    """A config's version as the value of a label, which begins and ends with a letter or digit."""
    return f"{spec.major}-{spec.minor}".strip("._-")


def services_of(subject: Subject, name: str = "", ports: tuple[Port, ...] = ()) -> list[Object]:
    """What leads to it, if it has a port."""
    spec = subject.spec
    name = name or label(spec.name)
    listed = [
        {
            "name": _port_name(port.number, port.protocol),
            "port": port.number,
            "targetPort": port.target,
            "protocol": port.protocol.upper(),
        }
        for port in ports or spec.ports
    ]
    if not listed and spec.port:
        listed = [
            {"name": _port_name(spec.port, "tcp"), "port": spec.port, "targetPort": spec.port}
        ]
    if not listed:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": {NAME: name}},
            "spec": {"selector": {NAME: name}, "ports": listed},
        }
    ]


def _port_name(number: int, protocol: str) -> str:
    return f"{protocol}-{number}"


def config_maps_of(subject: Subject, name: str = "") -> list[Object]:
    """What is in its small files, if it has any."""
    spec = subject.spec
    contents = {key_for(i, file.path): subject.content(file) for i, file in enumerate(spec.files)}
    if not contents:
        return []
    texts, others = {}, {}
    for key, content in contents.items():
        try:
            texts[key] = content.decode()
        except UnicodeDecodeError:
            others[key] = b64encode(content).decode()
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _files_of(name or label(spec.name))},
            **filled(data=texts, binaryData=others),
        }
    ]


def _files_of(name: str) -> str:
    return f"{name}-files"


# -- the Pod -----------------------------------------------------------------------


def _pod(subject: Subject, name: str) -> Object:
    spec, mounted = subject.spec, [*_memory(subject), *_volumes(subject), *_small(subject, name)]
    volumes = {volume["name"]: volume for volume, _ in mounted}
    return {
        "containers": [_container(subject, name, [mount for _, mount in mounted])],
        **filled(volumes=[*volumes.values()]),
        "terminationGracePeriodSeconds": math.ceil(spec.stop_timeout),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **filled(
            hostNetwork=spec.network == "host",
            shareProcessNamespace=spec.init,
            securityContext=_pod_security(subject),
        ),
        **({"hostUsers": False} if spec.user_namespace else {}),
    }


def _pod_security(subject: Subject) -> Object:
    """The group lets a program that is not root read its secrets, and write to its volumes."""
    small = subject.spec.secrets or subject.spec.files or subject.spec.volumes
    return {"fsGroup": subject.user.gid} if subject.user.uid and small else {}


def _container(subject: Subject, name: str, mounts: list[Object]) -> Object:
    spec, user = subject.spec, subject.user
    environment = each_text(subject.environment, _literal)
    return {
        "name": name,
        "image": subject.image,
        **filled(
            command=each_text(subject.program, _literal),
            workingDir=spec.workdir,
            tty=spec.tty,
            stdin=spec.tty,
            env=[{"name": key, "value": value} for key, value in environment.items()],
            ports=_ports(spec),
            resources=filled(limits=_resources(spec)),
            volumeMounts=mounts,
            **_probes(spec),
        ),
        "securityContext": {
            "runAsUser": user.uid,
            "runAsGroup": user.gid,
            "readOnlyRootFilesystem": subject.read_only and not subject.written_mounts,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        },
    }


def _literal(text: str) -> str:
    """With each ``$`` doubled that would be read as more: ``$(NAME)`` stands for a variable.

    Not with every one: Kubernetes takes ``$$`` for one, but Podman (before 5) for two.
    """
    return re.sub(r"\$(?=[$(])", "$$", text)


def _ports(spec: Spec) -> list[Object]:
    taken = {(port.target, port.protocol) for port in spec.ports}
    taken |= {(spec.port, "tcp")} if spec.port else set()
    return [
        {"containerPort": number, "protocol": protocol.upper()}
        for number, protocol in sorted(taken)
    ]


def _resources(spec: Spec) -> Object:
    limits = spec.limits
    return filled(
        memory=limits.memory and str(limits.memory),
        cpu=limits.cpus and f"{math.ceil(limits.cpus * 1000)}m",
    )


def _memory(subject: Subject) -> list[tuple[Object, Object]]:
    """Folders in memory, as volumes and where they are mounted."""
    spec = subject.spec
    sizes = {"run": ("/run", RUN_SIZE), "tmp": ("/tmp", spec.tmp_size)}
    sizes["shm"] = ("/dev/shm", spec.shm_size)
    return [
        (
            {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}},
            {"name": name, "mountPath": path},
        )
        for name, (path, size) in sizes.items()
    ]


def _volumes(subject: Subject) -> list[tuple[Object, Object]]:
    """A volume is a claim, which is not exported: only its owner knows its size."""
    found = []
    for i, volume in enumerate(subject.spec.volumes):
        if volume.on_host:
            name, source = f"host-{i}", {"hostPath": {"path": volume.source}}
        else:
            name = f"volume-{label(volume.source)[:50]}"
            source = {"persistentVolumeClaim": {"claimName": label(volume.source)}}
        mount = {"name": name, "mountPath": volume.target}
        found.append(({"name": name, **source}, mount | filled(readOnly=not volume.writable)))
    return found


def _small(subject: Subject, name: str) -> list[tuple[Object, Object]]:
    """Files and secrets: each is mounted as a file of its own, and nothing else of its folder."""
    spec, found = subject.spec, []
    if spec.files:
        keys = [key_for(i, file.path) for i, file in enumerate(spec.files)]
        items = [
            {"key": key, "path": key, "mode": file.mode}
            for key, file in zip(keys, spec.files, strict=True)
        ]
        files = {"name": "files", "configMap": {"name": _files_of(name), "items": items}}
        found += [
            (files, _file_at("files", file.path, key))
            for key, file in zip(keys, spec.files, strict=True)
        ]
    for i, secret in enumerate(spec.secrets):
        items = [{"key": SECRET_KEY, "path": SECRET_KEY, "mode": secret.mode}]
        volume = {
            "name": f"secret-{i}",
            "secret": {"secretName": label(secret.name), "items": items},
        }
        found.append((volume, _file_at(f"secret-{i}", secret.path, SECRET_KEY)))
    return found


def _file_at(volume: str, path: str, key: str) -> Object:
    return {"name": volume, "mountPath": path, "subPath": key, "readOnly": True}


def _probes(spec: Spec) -> Object:
    """A probe that starts it again if the config wants that, and one that only tells."""
    health = spec.health
    if health is None:
        return {}
    asked = _asked(health, spec.port_asked)
    usual = {
        **asked,
        "periodSeconds": _seconds(health.interval),
        "timeoutSeconds": _seconds(health.timeout),
        "failureThreshold": health.retries,
    }
    probes = {"readinessProbe": usual}
    if health.on_failure == "restart":
        probes["livenessProbe"] = usual
    if health.start_period:
        every = _seconds(health.start_interval)
        most = math.ceil(health.start_period / every) + health.retries
        probes["startupProbe"] = {
            **asked,
            "periodSeconds": every,
            "timeoutSeconds": _seconds(health.timeout),
            "failureThreshold": most,
        }
    return probes


def _asked(health: Health, port: int | None) -> Object:
    if health.command:
        return {"exec": {"command": each_text(list(health.command), _literal)}}
    if health.http is not None:
        return {"httpGet": {"path": health.http, "port": port}}
    return {"tcpSocket": {"port": port}}


def _seconds(number: float) -> int:
    return max(1, math.ceil(number))


# -- what it can't say -------------------------------------------------------------


def notes_of(subject: Subject) -> list[str]:
    """What a Pod can't have of a config, a sentence each."""
    spec, notes = subject.spec, notes_on(subject.spec, CANNOT)
    if not subject.program:
        notes.append("startup_script: there is none, and no other tool idles: add a command")
    if spec.restart in ("no", "on-failure"):
        notes.append(f"restart: a Deployment always starts it again, and this is {spec.restart!r}")
    if spec.network == "none":
        notes.append("network: a Pod always has one: a NetworkPolicy can close it")
    if subject.written_mounts and subject.read_only:
        places = ", ".join(subject.written_mounts)
        notes.append(f"mounts: to write to {places}, all of the root can be written to")
    elif spec.writable_root:
        notes += writable_notes(spec)
    if spec.ports:
        notes.append(NO_ADDRESS)
    if spec.init:
        notes.append("init: the pause process reaps, but passes no signals on")
    for key, seconds in _durations(spec).items():
        if seconds != int(seconds):
            notes.append(f"{key}: rounded up to whole seconds")
    if spec.health and spec.health.on_failure == "stop":
        notes.append("health.on_failure: a Pod that is unhealthy is not stopped, but gets no work")
    return notes + notes_on_memory(subject) + _to_bring(spec) + _owners(spec)


def _durations(spec: Spec) -> dict[str, float]:
    health = spec.health
    asked = {
        f"health.{name}": float(getattr(health, name))
        for name in ("interval", "timeout", "start_period", "start_interval")
        if health
    }
    return {"stop_timeout": spec.stop_timeout, **asked}


def _to_bring(spec: Spec) -> list[str]:
    notes = []
    if spec.secrets:
        made = ", ".join(sorted({label(secret.name) for secret in spec.secrets}))
        notes.append(f"secrets: Secrets with the key {SECRET_KEY} have to be there: {made}")
    if spec.volume_names:
        claims = ", ".join(map(label, spec.volume_names))
        notes.append(f"volumes: PersistentVolumeClaims have to be there: {claims}")
    return notes


def _owners(spec: Spec) -> list[str]:
    owned = [file.path for file in spec.files if file.owner != "root"]
    owned += [secret.path for secret in spec.secrets if secret.owner not in (None, "root")]
    return [f"files: root owns them all, also {path}" for path in owned]
