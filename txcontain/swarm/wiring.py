"""The options of a swarm, and what they wire."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.python.usage import Options, UsageError

from txcontain.container.reference import read_reference
from txcontain.engine.manager import Manager
from txcontain.errors import InvalidData
from txcontain.swarm.reaching import client_of, endpoint_of, read_certificates, read_docker

if TYPE_CHECKING:
    from txcontain.swarm.swarm import Swarm

HERE, SWARM = "here", "swarm"  # engines


def _engine(text: str) -> str:
    if text not in (HERE, SWARM):
        raise ValueError(f"--engine takes {HERE} or {SWARM}, not {text!r}")
    return text


def _registry(text: str) -> str:
    reference = None
    with contextlib.suppress(InvalidData):
        reference = read_reference(f"{text}/any")
    if reference is None or reference.registry != text:
        raise ValueError(
            f"--registry takes HOST:PORT, as all hosts of the swarm find it, not {text!r}"
        )
    return text


PARAMETERS: list[Any] = [
    [
        "engine",
        None,
        HERE,
        "What runs containers: here (this host), or swarm (Docker Swarm; see docs/many-hosts.md).",
        _engine,
    ],
    [
        "docker",
        None,
        None,
        "Managers of the swarm: unix:/PATH or https://HOST:PORT, with ',' between them.",
        read_docker,
    ],
    [
        "docker-certificates",
        None,
        None,
        "Folder with ca.pem, cert.pem and key.pem, for --docker https://...",
        read_certificates,
    ],
    [
        "registry",
        None,
        None,
        "Registry of the swarm's images, as all its hosts find it: HOST:PORT.",
        _registry,
    ],
]


def check(options: Options) -> None:
    """Raise UsageError if options do not fit together."""
    swarm = options["engine"] == SWARM
    for name in ("docker", "registry"):
        if swarm and not options[name]:
            raise UsageError(f"--engine swarm needs --{name}")
        if options[name] and not swarm:
            raise UsageError(f"--{name} needs --engine swarm")
    if options["docker-certificates"] and not swarm:
        raise UsageError("--docker-certificates needs --engine swarm")
    over_tls = any(address.startswith("https:") for address in options["docker"] or ())
    if over_tls and not options["docker-certificates"]:
        raise UsageError("--docker https://... needs --docker-certificates: Docker asks for one")


class Watching(Service):
    """Watches a swarm while the manager runs."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self.swarm.watch.start()

    def stopService(self) -> None:
        """End."""
        super().stopService()
        self.swarm.watch.stop()
        self.swarm.balancer.stop()


def make_swarm(options: Options, manager: Manager) -> Swarm:
    """The engine that options describe; a manager of one host does not import it."""
    from txcontain.exports.exporting import exporter_of
    from txcontain.swarm.client import Docker
    from txcontain.swarm.client import Manager as OfSwarm
    from txcontain.swarm.swarm import Swarm

    reactor, certificates = manager.reactor, options["docker-certificates"]
    managers = [
        OfSwarm(address, client_of(reactor, endpoint), reactor, endpoint)
        for address in options["docker"]
        for endpoint in [endpoint_of(reactor, address, certificates)]
    ]
    return Swarm(manager, Docker(managers), options["registry"], exporter_of(manager))
