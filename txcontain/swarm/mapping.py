"""What a config is in a swarm: a service of one task, and which of its keys a swarm can't keep."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from txcontain.container.launch_request import OF_SERVICES
from txcontain.container.plan import CAPABILITIES
from txcontain.container.spec import ANY_ADDRESS, Port, Spec
from txcontain.errors import (
    CannotRun,
    ConfigAtFault,
    Error,
    InvalidData,
    MachineAtFault,
    NoSuchProgram,
)
from txcontain.exports.compose import signal_name
from txcontain.exports.notes import is_set
from txcontain.exports.subject import Subject, label

Json = Mapping[str, Any]

INSTANCE, CONFIG = "txcontain.instance", "txcontain.config"  # labels: what is ours is told by them
KEY = ("name", "major", "minor")
WHOLE = "txcontain.whole"  # a label: the config of an instance, if that is not kept
REMOVE = "txcontain.remove"  # a label: it is to be removed when it has ended for good
LAUNCH = "txcontain.launch"  # a label: tells launches under the same name apart
CLIENTS = "txcontain.label."  # begins labels: what a launch gave as labels of the instance
NETWORK = "txcontain"  # an overlay: the private network of all hosts
LONGEST_CONFIG = 1000 * 1024  # bytes, of a config of a swarm
LONGEST_WHOLE = 64 * 1024  # bytes, of one that is not kept: each look at the swarm brings it
LONGEST_NAME = 63  # characters of a service's name
IDLE = ("sleep", "infinity")  # what runs if a config has no program
RUN_SIZE = 64 << 20  # bytes of /run
RESTART_AFTER = 0.1  # seconds
CONDITIONS = {"no": "none", "on-failure": "on-failure", "always": "any", "unless-stopped": "any"}
MOST_WITHOUT_IMAGE = 3  # tasks of a launch
NODE_DOWN = "its node is down"
OF_TASK = ("ID", "ServiceID", "Slot", "NodeID", "CreatedAt", "DesiredState", "Status")
ENDED = ("complete", "shutdown", "failed", "rejected", "remove", "orphaned")  # states of tasks

ALL_OR_NONE = "leave it out: dockerd has it for all containers or for none"
BY_COMMAND = "Docker asks by a command in the container: give it a health.command"
ONE_DISK = "what is written goes to the disk of a node, and has no bound: leave it out"
REFUSED = {
    "user_namespace": f"{ALL_OR_NONE} (userns-remap)",
    "manage": "a container can't ask a manager that is on another host: leave it out",
    "per_connection": "nothing starts a container for each connection there: leave it out",
    "limits.swap": "a swarm has no limit of swap space: leave it out",
    "limits.io_weight": "a swarm has no shares of a disk: leave it out",
    "limits.disk": ONE_DISK,
    "disk_size": ONE_DISK,
    "volumes": "a volume is on one node, and a container may be moved to another: use a mount",
    "secrets": "they are not taken to other hosts yet: leave them out",
    "health.http": BY_COMMAND,
    "health.tcp": BY_COMMAND,
    "health.on_failure": "Docker starts what is unhealthy again: leave it out",
}


# -- what can't be kept --------------------------------------------------------------


def check(spec: Spec) -> None:
    """Refuse a config with anything that a swarm can't keep, all of it in one sentence each.

    Raises ConfigAtFault, InvalidData.
    """
    found = [f"{key}: {why}" for key, why in REFUSED.items() if is_set(spec, key)]
    if spec.network == "none":
        found.append("network: a swarm has no container without one: write private")
    for port in spec.ports:
        if port.address != ANY_ADDRESS:
            found.append(
                f"ports: a swarm publishes at every address of a node, and not at {port.host}: "
                f"write {ANY_ADDRESS}:{port.number}:{port.target}/{port.protocol}"
            )
    if found:
        raise ConfigAtFault(f"{spec.file_name} can't be kept in a swarm", *found)
    if len(spec.document.encode()) > LONGEST_CONFIG:
        raise InvalidData(f"a config in a swarm has at most {LONGEST_CONFIG} bytes")


def check_whole(spec: Spec) -> None:
    """The same of a config that is not kept."""
    check(spec)
    if len(spec.document.encode()) > LONGEST_WHOLE:
        raise InvalidData(
            f"a whole config of a launch in a swarm has at most {LONGEST_WHOLE} bytes",
            "upload it, and launch it by its name",
        )


# -- configs -----------------------------------------------------------------------


def name_of_config(file_name: str) -> str:
    """What a config is called in the swarm: some characters of ours can't be in its names."""
    return f"txcontain-{hashlib.sha256(file_name.encode()).hexdigest()[:40]}"


# -- services ------------------------------------------------------------------------


def service_of(
    subject: Subject, instance: str, more: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The service that an instance is (the body of POST /services/create).

    :param more: labels
    """
    spec = subject.spec
    labels = {INSTANCE: instance, **{f"txcontain.{key}": getattr(spec, key) for key in KEY}}
    return {
        "Name": name_of_service(instance),
        "Labels": {**labels, **(more or {})},
        "TaskTemplate": {
            "ContainerSpec": _container(subject, instance),
            "Resources": {"Limits": _limits(spec)},
            "RestartPolicy": _restart(spec),
            "LogDriver": {
                "Name": "json-file",
                "Options": {
                    "max-size": str(spec.log_max_size),
                    "max-file": str(spec.log_max_files),
                },
            },
            "Networks": [_network(spec, instance)],
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": {
            "Mode": "dnsrr",
            "Ports": [port_of_node(port) for port in spec.taken_ports],
        },
    }


def _network(spec: Spec, instance: str) -> dict[str, Any]:
    """What others find it by there: its own name and its config's, as on one host."""
    if spec.network != "private":
        return {"Target": "host"}
    return {"Target": NETWORK, "Aliases": [*dict.fromkeys((instance, spec.name))]}


def network_of(name: str) -> dict[str, Any]:
    """An overlay network of all hosts (the body of POST /networks/create)."""
    return {
        "Name": name,
        "Driver": "overlay",
        "CheckDuplicate": True,
        "Labels": {"txcontain.network": "private"},
    }


def name_of_service(instance: str) -> str:
    """What an instance's service is called: letters, digits and '-'. The label has its name.

    So those of two instances may be alike but for these; an end tells them apart.
    """
    plain = f"txc-{instance}"
    if label(instance) == instance and len(plain) <= LONGEST_NAME:
        return plain
    end = hashlib.sha256(instance.encode()).hexdigest()[:10]
    return f"txc-{label(instance)[:40].strip('-')}-{end}"


def _container(subject: Subject, instance: str) -> dict[str, Any]:
    """How its image is run; what is run is in that."""
    spec = subject.spec
    return {
        "Image": subject.image,
        **({} if subject.program else {"Args": list(IDLE)}),
        "Hostname": instance,
        "Labels": {INSTANCE: instance},
        "Init": spec.init,
        "TTY": spec.tty,
        "OpenStdin": spec.tty,  # what is typed at the terminal
        "ReadOnly": subject.read_only,
        "StopSignal": signal_name(spec.stop_signal),
        "StopGracePeriod": nanoseconds(spec.stop_timeout),
        "CapabilityDrop": ["ALL"],
        "CapabilityAdd": sorted(f"CAP_{name}" for name in CAPABILITIES),  # as its own command
        "Mounts": [
            _in_memory("/run", RUN_SIZE, 0o755),
            _in_memory("/tmp", spec.tmp_size, 0o1777),
            _in_memory("/dev/shm", spec.shm_size, 0o1777),
        ],
        **({"Ulimits": [_files(spec.limits.files)]} if spec.limits.files else {}),
    }


def _in_memory(target: str, size: int, mode: int) -> dict[str, Any]:
    options = {"SizeBytes": size, "Mode": mode}
    return {"Type": "tmpfs", "Target": target, "TmpfsOptions": options}


def _files(most: int) -> dict[str, Any]:
    return {"Name": "nofile", "Soft": most, "Hard": most}


def _limits(spec: Spec) -> dict[str, Any]:
    limits: dict[str, Any] = {"Pids": spec.limits.pids}
    if spec.limits.memory is not None:
        limits["MemoryBytes"] = spec.limits.memory
    if spec.limits.cpus is not None:
        limits["NanoCPUs"] = nanoseconds(spec.limits.cpus)
    return limits


def limits_of(service: Json) -> dict[str, Any]:
    """The same as the config has them, of what a service tells."""
    limits = service["Spec"]["TaskTemplate"].get("Resources", {}).get("Limits", {})
    cpus = limits.get("NanoCPUs")
    found = {"memory": limits.get("MemoryBytes"), "pids": limits.get("Pids")}
    return {**found, "cpus": cpus / 1e9 if cpus else None}


def _restart(spec: Spec) -> dict[str, Any]:
    # To Docker, 0 attempts are as many as it takes.
    condition = "none" if spec.max_restarts == 0 else CONDITIONS[spec.restart]
    policy = {"Condition": condition, "Delay": nanoseconds(RESTART_AFTER)}
    return {**policy, "MaxAttempts": spec.max_restarts} if spec.max_restarts else policy


def port_of_node(port: Port) -> dict[str, Any]:
    """Of the node that it runs on: no other node leads there."""
    return {
        "Protocol": port.protocol,
        "TargetPort": port.target,
        "PublishedPort": port.number,
        "PublishMode": "host",
    }


def nanoseconds(value: float) -> int:
    """Seconds, or processors, as Docker counts them."""
    return round(value * 1e9)


# -- what the swarm tells ----------------------------------------------------------------


def summary_of(service: Json) -> dict[str, str]:
    """An instance, as its launch answered it."""
    labels = service["Spec"]["Labels"]
    return {
        "instance": labels[INSTANCE],
        **{key: labels[f"txcontain.{key}"] for key in KEY},
    }


def essence_of(task: Json) -> Json:
    """What of a task is needed here: that is a third of it."""
    container = (task.get("Spec") or {}).get("ContainerSpec") or {}
    kept = {key: task[key] for key in OF_TASK if key in task}
    return {**kept, "Spec": {"ContainerSpec": {"Labels": container.get("Labels") or {}}}}


def labels_of(service: Json) -> dict[str, str]:
    """Those that the launch of an instance gave it."""
    return {
        name.removeprefix(CLIENTS): value
        for name, value in service["Spec"]["Labels"].items()
        if name.startswith(CLIENTS) and name.removeprefix(CLIENTS) not in OF_SERVICES
    }


def is_ours(service: Json) -> bool:
    """Whether a service is an instance."""
    labels = service["Spec"].get("Labels") or {}
    return all(name in labels for name in (INSTANCE, *(f"txcontain.{key}" for key in KEY)))


def moment(text: str) -> tuple[str, str]:
    """A time in an order that is right: Go leaves out zeros at the end of its fraction."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def state_of(task: Json) -> str:
    """The state of a task, such as running."""
    return str(task["Status"]["State"])


def is_over(task: Json) -> bool:
    """Whether nothing of it runs, nor will."""
    return state_of(task) in ENDED


def by_age(tasks: Iterable[Json]) -> list[Json]:
    """The oldest first."""
    return sorted(tasks, key=lambda task: moment(task.get("CreatedAt", "")))


def lost(tasks: Iterable[Json], nodes: Iterable[Json]) -> list[Json]:
    """The tasks, with those that a node has lost as ended. Docker has them as running for a day.

    Right after a leader has gone, the next one knows of no node how it is ("unknown").
    """
    down = {node["ID"] for node in nodes if node["Status"]["State"] == "down"}
    return [_lost(task) if task.get("NodeID") in down else task for task in tasks]


def _lost(task: Json) -> Json:
    if is_over(task):
        return task
    return {**task, "Status": {**task["Status"], "State": "orphaned", "Err": NODE_DOWN}}


def has_begun(task: Json) -> bool:
    """Whether its program was started; it may have ended since."""
    if state_of(task) in ("running", "complete"):
        return True
    return state_of(task) == "failed" and _ended_by_itself(task)


def _ended_by_itself(task: Json) -> bool:
    return "non-zero exit" in said_of(task)


def said_of(task: Json) -> str:
    """What the engine says of a task."""
    return str(task["Status"].get("Err") or task["Status"].get("Message") or "")


def failure_of(task: Json, program: str | None) -> Error | None:
    """Why a task can't begin, if it can't; None while it still may."""
    state, said = state_of(task), said_of(task)
    if state == "pending":
        return _misfit(said)
    if not is_over(task) or has_begun(task):
        return None
    if "No such image" in said:
        return MachineAtFault(
            "its node could not get the image", said, "see that all nodes reach the --registry"
        )
    return of_program(said, program or IDLE[0])


def worst(failures: Iterable[Error], restart: str) -> Error | None:
    """The failure of a launch, given those of its tasks.

    If Docker tries again, on another node perhaps, it is borne some times that one gets no image.
    """
    found = list(failures)
    of_config = [one for one in found if not isinstance(one, MachineAtFault)]
    if of_config or len(found) >= (1 if restart == "no" else MOST_WITHOUT_IMAGE):
        return [*of_config, *found][0]
    return None


def _misfit(said: str) -> Error | None:
    """Why no node is fit, if waiting changes nothing: right after a failover none is available."""
    if "no suitable node" in said and "port already in use" in said and "not available" not in said:
        return ConfigAtFault("each node has a container at this port already", said)
    return None


def of_program(said: str, program: str) -> Error:
    """Why a program was not started in a container, by what the engine says."""
    if re.search('exec: ".*(no such file or directory|executable file not found)', said):
        return NoSuchProgram(f"there is no {program} in the container", said)
    if "no such file or directory" in said and "exec " in said:
        return NoSuchProgram(f"{program} needs an interpreter that is not there", said)
    if "permission denied" in said or "exec format error" in said:
        return CannotRun(f"{program} can't be run in the container", said)
    return ConfigAtFault("the container did not start", said)


def address_of(node: Json) -> str:
    """Where a node is. A manager that was given no address of its own tells it elsewhere."""
    address = str(node["Status"].get("Addr") or "")
    if address in ("", "0.0.0.0"):
        whole = str((node.get("ManagerStatus") or {}).get("Addr") or "127.0.0.1:0")
        address = whole.rpartition(":")[0].strip("[]")
    return address
