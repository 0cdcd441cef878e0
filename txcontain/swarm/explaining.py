"""A service of the swarm as the command of Docker's own CLI that makes the same.

docs.docker.com/reference/cli/docker/service/create. Each part of what ``mapping`` and
``stack_mapping`` make has its option here: a test compares what becomes of both.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from txcontain.swarm.mapping import Json, network_of

BILLION = 10**9
HEAD = """\
#!/bin/sh
# Run this where Docker is a manager of the swarm. The image is in its registry.
"""
NO_KEYS = """\
# Docker's CLI can't have the terminal be typed at (OpenStdin): `attach` will only show it.
"""
MAKE_NETWORK = "docker network inspect {0} >/dev/null 2>&1 ||\n    {1}\n"


def explain(service: Json) -> str:
    """The script that makes a service, given what it is made of: its networks are named."""
    networks = [one["Target"] for one in service["TaskTemplate"]["Networks"]]
    head = [HEAD, NO_KEYS if service["TaskTemplate"]["ContainerSpec"].get("OpenStdin") else ""]
    return "".join([*head, *map(_network, networks), _lines(_words(service)), "\n"])


def _network(name: str) -> str:
    """What makes a network, if that is not there; each node has that of the host."""
    if name == "host":
        return ""
    asked = network_of(name)
    words = ["docker", "network", "create", f"--driver={asked['Driver']}"]
    line = shlex.join([*words, *_pairs("label", asked["Labels"]), name])
    return MAKE_NETWORK.format(shlex.quote(name), line)


def _lines(words: Iterable[str]) -> str:
    return " \\\n    ".join(["docker service create", *map(shlex.quote, words)])


def _words(service: Json) -> Iterator[str]:
    template = service["TaskTemplate"]
    container = template["ContainerSpec"]
    yield from ("--detach", "--no-resolve-image", f"--name={service['Name']}")
    yield from _pairs("label", service["Labels"])
    yield f"--replicas={service['Mode']['Replicated']['Replicas']}"
    yield from _of_task(template)
    yield from _of_container(container)
    yield from _of_endpoint(service["EndpointSpec"])
    for kind in ("update", "rollback"):
        yield from _of_update(kind, service.get(f"{kind.capitalize()}Config"))
    yield container["Image"]
    yield from container.get("Args") or ()


def _of_task(template: Json) -> Iterator[str]:
    limits = template.get("Resources", {}).get("Limits", {})
    if memory := limits.get("MemoryBytes"):
        yield f"--limit-memory={memory}"
    if processors := limits.get("NanoCPUs"):
        yield f"--limit-cpu={_decimal(processors)}"
    if pids := limits.get("Pids"):
        yield f"--limit-pids={pids}"
    restart = template["RestartPolicy"]
    yield f"--restart-condition={restart['Condition']}"
    yield f"--restart-delay={_decimal(restart['Delay'])}s"
    if "MaxAttempts" in restart:
        yield f"--restart-max-attempts={restart['MaxAttempts']}"
    log = template["LogDriver"]
    yield f"--log-driver={log['Name']}"
    yield from _pairs("log-opt", log["Options"])
    for network in template["Networks"]:
        aliases = "".join(f",alias={alias}" for alias in network.get("Aliases") or ())
        yield f"--network=name={network['Target']}{aliases}"
    placement = template.get("Placement", {})
    for constraint in placement.get("Constraints") or ():
        yield f"--constraint={constraint}"
    for preference in placement.get("Preferences") or ():
        yield f"--placement-pref=spread={preference['Spread']['SpreadDescriptor']}"


def _of_container(container: Json) -> Iterator[str]:
    yield from _pairs("container-label", container["Labels"])
    yield f"--hostname={container['Hostname']}"
    for option, key in (("init", "Init"), ("tty", "TTY"), ("read-only", "ReadOnly")):
        yield f"--{option}={str(bool(container.get(key))).lower()}"
    yield f"--stop-signal={container['StopSignal']}"
    yield f"--stop-grace-period={_decimal(container['StopGracePeriod'])}s"
    yield from (f"--cap-drop={name}" for name in container["CapabilityDrop"])
    yield from (f"--cap-add={name}" for name in container["CapabilityAdd"])
    for mount in container["Mounts"]:
        memory = mount["TmpfsOptions"]
        yield (
            f"--mount=type={mount['Type']},destination={mount['Target']},"
            f"tmpfs-size={memory['SizeBytes']},tmpfs-mode={memory['Mode']:o}"
        )
    for limit in container.get("Ulimits") or ():
        yield f"--ulimit={limit['Name']}={limit['Soft']}:{limit['Hard']}"


def _of_endpoint(endpoint: Json) -> Iterator[str]:
    yield f"--endpoint-mode={endpoint['Mode']}"
    for port in endpoint.get("Ports") or ():
        published = f",published={port['PublishedPort']}" if port.get("PublishedPort") else ""
        yield (
            f"--publish=mode={port['PublishMode']},target={port['TargetPort']}"
            f",protocol={port['Protocol']}{published}"
        )


def _of_update(kind: str, told: Json | None) -> Iterator[str]:
    if told is None:
        return
    yield f"--{kind}-parallelism={told['Parallelism']}"
    yield f"--{kind}-delay={_decimal(told.get('Delay', 0))}s"
    yield f"--{kind}-monitor={_decimal(told['Monitor'])}s"
    yield f"--{kind}-failure-action={told['FailureAction']}"
    yield f"--{kind}-max-failure-ratio={told['MaxFailureRatio']}"
    yield f"--{kind}-order={told['Order']}"


def _pairs(option: str, values: Mapping[str, Any]) -> Iterator[str]:
    return (f"--{option}={name}={value}" for name, value in values.items())


def _decimal(billionths: int) -> str:
    """Nanoseconds as seconds, or what Docker counts of processors: without any rounding."""
    whole, rest = divmod(billionths, BILLION)
    return f"{whole}.{rest:09}".rstrip("0").rstrip(".")
