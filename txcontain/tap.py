"""``twistd containerd-lite``: its options, and the one place that wires everything."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import CannotListenError
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from txcontain import __version__
from txcontain.api import listen
from txcontain.container.facts import Host
from txcontain.container.plan import make_base_plan
from txcontain.container.seccomp import compile_filters
from txcontain.engine.arrivals import MOST_DOWNLOADS, MOST_PULLS
from txcontain.engine.couriers import Command, Courier, make_webhook
from txcontain.engine.interface import Engine
from txcontain.engine.manager import Manager
from txcontain.engine.notify import DELIVER_WITHIN, Notifier, Outbox, free_part
from txcontain.engine.publishing import tell_unserved
from txcontain.engine.recovery import restore
from txcontain.engine.store import Configs
from txcontain.engine.this_host import ThisHost
from txcontain.engine.volumes import Volumes
from txcontain.host.cgroups import Cgroups
from txcontain.host.garbage import Collections
from txcontain.host.kernel import Kernel
from txcontain.host.os_errors import of_os
from txcontain.host.resolv_conf import ResolvConf
from txcontain.host.spawning import inherit_nothing
from txcontain.host.syscalls import keep_apart
from txcontain.host.trees import Trees
from txcontain.host.writing import Writer
from txcontain.images import bounds, registry
from txcontain.images.layers import Layers
from txcontain.images.unpack import Unpacker
from txcontain.later import background, be_monotonic, be_persistent, together
from txcontain.logs.client import LogClient
from txcontain.logs.journal import Journal
from txcontain.network.network import make_network
from txcontain.options import number
from txcontain.runtime.pool import Pool
from txcontain.runtime.prepared import Prepared
from txcontain.services.keeper import keeper_of
from txcontain.swarm import wiring
from txcontain.unit import unit_of

REFUSED = "Parameter type enforcement failed: "  # Twisted's prefix of an option's error
SUBNET = IPv4Network("10.87.0.0/16")  # not a default of Docker, Podman or LXC
OWN = "own"  # which is derived
LOCK_WITHIN, LOCK_AGAIN = 10.0, 0.05  # seconds
JOURNALD = "/run/systemd/journal/socket"  # systemd-journald.service(8)
LOG_THREADS = 4  # readers of logs must not use up all
# Names of registries are looked up in threads, too: each waits as long as a name server is silent.
THREADS = 10 + MOST_PULLS * MOST_DOWNLOADS
FOLDERS = (
    "configs",
    "secrets",
    "layers",
    "images",
    "instances",
    "run/slots",
    "run/scratch",
    "run/packing",
    "run/images",
    "empty",
    "aside",
    "volumes",
    "stacks",
)


def _subnet(text: str) -> IPv4Network:
    with contextlib.suppress(ValueError):
        subnet = IPv4Network(text)
        if subnet.prefixlen <= 30:
            return subnet
    raise ValueError(
        f"--subnet takes a network of 4 addresses or more, such as 10.87.0.0/16, not {text!r}"
    )


def _subnet6(text: str) -> IPv6Network | None:
    if text == "none":
        return None
    with contextlib.suppress(ValueError):
        subnet = IPv6Network(text)
        if 48 <= subnet.prefixlen <= 96 and subnet.is_private and not subnet.is_link_local:
            return subnet
    raise ValueError(
        f"--subnet6 takes a private network of IPv6 with 48 to 96 bits, such as fd00:1::/64, or "
        f"none, not {text!r}"
    )


def own_subnet6(bridge: str) -> IPv6Network:
    """A subnet of addresses that are private, and unlikely to be in use elsewhere (RFC 4193, 3.2).

    The same for each start of a manager with this bridge on this machine (machine-id(5)).
    """
    machine = b""
    with contextlib.suppress(OSError), open("/etc/machine-id", "rb") as file:
        machine = file.read()
    number = hashlib.sha256(b"txcontain " + bridge.encode() + machine).digest()[:5]
    return IPv6Network((b"\xfd" + number + bytes(10), 64))


def _folders(text: str) -> list[str]:
    folders = [folder.rstrip("/") for folder in text.split(":") if folder]
    if not all(re.fullmatch("/[^/].*", folder) for folder in folders):
        raise ValueError(
            f"--host-folders takes absolute paths, not /, with ':' between them, not {text!r}"
        )
    return [os.path.normpath(folder) for folder in folders]


def _webhook(text: str) -> str:
    with contextlib.suppress(ValueError):
        url, plain = urlsplit(text), text.isascii() and text.isprintable() and " " not in text
        host = url.hostname and "@" not in url.netloc and url.port != 0
        if plain and host and url.scheme in ("http", "https"):
            return text
    raise ValueError(f"--notify takes a URL such as https://example.org/hook, not {text!r}")


def _command(text: str) -> list[str]:
    with contextlib.suppress(ValueError):
        words = shlex.split(text)
        if words and os.path.isabs(words[0]) and os.access(words[0], os.X_OK):
            return words
    raise ValueError(
        f"--notify-command takes the absolute path of a program, and its arguments, not {text!r}"
    )


class Options(BaseOptions):
    """The options of a manager."""

    synopsis = "[options]"
    longdesc = "Manages containers and answers the REST API that API.md describes. Needs root."
    optParameters: ClassVar = [
        ["state", "s", "/var/lib/txcontain", "Folder for configs, layers and instances."],
        ["base-images", "b", "base_images", "Folder of the base images."],
        ["mountables", "m", "mountables", "Folder of the tarballs that configs mount."],
        *listen.PARAMETERS,
        *bounds.PARAMETERS,
        *wiring.PARAMETERS,
        number(
            "keep-layers",
            None,
            bounds.MOST,
            "How many bytes of layers to keep that no instance uses.",
            0,
            bounds.MOST,
        ),
        ["bridge", None, "txcontain0", "Name of the bridge of private networks."],
        ["subnet", None, SUBNET, "IPv4 addresses of private networks.", _subnet],
        ["subnet6", None, OWN, "IPv6 addresses of private networks, or: none.", _subnet6],
        [
            "host-folders",
            None,
            "",
            "Folders of the host, with ':' between them, below which configs may mount folders.",
            _folders,
        ],
        ["notify", None, None, "URL that is told of failures; see docs/notify.md.", _webhook],
        [
            "notify-command",
            None,
            None,
            "Program, with arguments, that is told of failures on its stdin.",
            _command,
        ],
        [
            "registry-logins",
            None,
            registry.LOGINS,
            "File with logins for registries, as `docker login` writes it.",
        ],
        [
            "registry-certificates",
            None,
            registry.CERTIFICATES,
            "Folder of CAs for registries: HOST[:PORT]/ca.crt.",
        ],
        number("pool", None, 2, "How many warm inits to keep ready at least (0: none).", 0, 1000),
        number("keep-ended", None, 100, "How many ended instances to keep (the latest).", 0, 10**5),
    ]

    optFlags: ClassVar = [
        ["journald", None, "Send what containers write to systemd's journal, too."],
        [
            "insecure-loopback",
            None,
            "Ask registries at loopback addresses over plain HTTP when a launch pulls.",
        ],
        ["user-namespace", None, "Give every container a user namespace of its own."],
        [
            "allow-unsafe",
            None,
            "Let `txcontain step --without` leave out a wall, for an escape; only on loopback.",
        ],
        ["unit", None, "Print a unit for systemd that has the other options, and exit."],
    ]

    def opt_version(self) -> None:
        """Display the version of txcontain and exit."""
        print(f"txcontain {__version__}")
        raise SystemExit

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read a command line.

        Raises UsageError, a sentence that names the option, without Twisted's prefix.
        """
        words = sys.argv[1:] if options is None else options
        self.given = [word for word in words if word != "--unit"]
        try:
            super().parseOptions(options)
        except UsageError as error:
            raise UsageError(str(error).removeprefix(REFUSED)) from error

    def postOptions(self) -> None:
        """Check what can be checked before anything is created."""
        for name in ("state", "base-images", "mountables"):
            self[name] = os.path.abspath(self[name])
        if set(self["state"]) & set(",:\\"):  # they separate mount options
            taken = "a path without ',', ':' and '\\'"
            raise UsageError(f"--state takes {taken}, not {self['state']}")
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,14}", self["bridge"]):
            raise UsageError("--bridge takes up to 15 letters, digits and '_', a letter first")
        if self["subnet6"] == OWN:
            self["subnet6"] = own_subnet6(self["bridge"])
        listen.check(self)
        wiring.check(self)
        if self["unit"]:
            folders = [self[name] for name in ("state", "base-images", "mountables")]
            print(unit_of(self.given, [os.getcwd(), *folders]), end="")
            raise SystemExit


class ManagerService(Service):
    """Starts and stops a manager."""

    name = "manager"

    def __init__(self, manager: Manager, notifier: Notifier | None = None) -> None:
        self.manager, self.notifier = manager, notifier
        self._collections = Collections()

    def privilegedStartService(self) -> None:
        """Create and lock the state folder."""
        state = self.manager.state
        with told():
            os.makedirs(state, mode=0o700, exist_ok=True)
            for folder in FOLDERS:
                os.makedirs(os.path.join(state, folder), mode=0o700, exist_ok=True)
            os.chmod(state, 0o700)
            keep_apart(os.path.join(state, "layers"))
            self._lock = lock(os.path.join(state, "lock"))

    def startService(self) -> None:
        """Recover what an earlier manager left, and start the pool of inits.

        Cgroups are created only after listening has succeeded, so that a failed start leaves
        nothing behind and takes nothing from another manager.
        """
        super().startService()
        inherit_nothing()
        with told():
            self.manager.pool.cgroups = Cgroups.here(self.manager.state)
            self.manager.journal.open()
            if self.notifier is not None:
                self.notifier.start()
            restore(self.manager)
            self.manager.pool.start()
            keeper_of(self.manager).start()
        self.manager.kernel.be_prompt()
        self._collections.begin()
        notify("READY=1")

    def stopService(self) -> Deferred[None] | None:
        """End the warm inits; containers run on."""
        super().stopService()
        self._collections.end()
        keeper_of(self.manager).stop()
        self.manager.pause()
        if self.notifier is not None:
            self.notifier.stop()
        return background(self._stop(), "stopping the manager")

    async def _stop(self) -> None:
        await together(*(end() for end in self.manager.endings))
        await self.manager.pool.stop()
        await self.manager.flush()
        os.close(self._lock)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn an OSError into a SystemExit that says what went wrong, and with which path."""
    try:
        yield
    except OSError as error:
        sys.exit(f"the manager can't start: {of_os(error)}")
    except CannotListenError as error:
        sys.exit(f"the manager can't start: {error}")


def lock(path: str) -> int:
    """Lock a state folder (flock(2)) against other managers, as long as the descriptor is open.

    Raises SystemExit if another one still has the lock after some seconds: it may be ending.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + LOCK_WITHIN
    while not _locked(descriptor):
        if time.monotonic() > deadline:
            other = os.read(descriptor, 20).decode(errors="replace")
            state = os.path.dirname(path)
            sys.exit(f"another manager, process {other}, uses {state}: give another --state")
        time.sleep(LOCK_AGAIN)
    with contextlib.suppress(OSError):  # a full disk: the pid is only used in an error message
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def notify(state: str) -> None:
    """Tell systemd the state, if it has started this process (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect("\0" + address[1:] if address.startswith("@") else address)
            connection.send(state.encode())


def make_manager(options: Options, reactor: Any) -> Manager:
    """A manager with these options."""
    state = options["state"]
    kernel, trees = Kernel(), Trees(reactor)
    host = Host.here(os.path.join(state, "empty"), compile_filters())
    run = os.path.join(state, "run")
    base_plan = make_base_plan(host, os.path.join(run, "scratch"))
    writer = Writer(reactor)
    prepared = Prepared(os.path.join(state, "instances"), trees.remove)
    for_logs = partial(DeferredSemaphore(LOG_THREADS).run, trees.in_thread)
    log_process = LogClient(reactor, run, prepared.folder, for_logs)
    log_process.journald = JOURNALD if options["journald"] else ""
    pool = Pool(
        reactor,
        kernel,
        Cgroups(),
        run,
        prepared,
        log_process,
        base_plan,
        options["pool"],
        writes=writer.write,
    )
    unpacker = Unpacker(pool, trees.in_thread, trees.remove, bounds.bounds_of(options), host)
    manager = Manager(
        reactor=reactor,
        kernel=kernel,
        pool=pool,
        layers=Layers(os.path.join(state, "layers"), unpacker, options["keep-layers"]),
        configs=Configs(os.path.join(state, "configs")),
        volumes=Volumes(
            os.path.join(state, "volumes"), trees.in_thread, trees.remove, trees.measure, kernel.now
        ),
        network=make_network(
            reactor,
            kernel,
            trees.in_thread,
            log_process,
            state,
            options["bridge"],
            options["subnet"],
            options["subnet6"],
        ),
        journal=Journal(reactor, os.path.join(state, "events.jsonl"), kernel.now, writer.write),
        threads=trees.in_thread,
        remove=trees.remove,
        flush=writer.stop,
        host=host,
        state=state,
        base_images=options["base-images"],
        mountables=options["mountables"],
        keep_ended=options["keep-ended"],
        resolv_conf=ResolvConf().text,
        user_namespace=bool(options["user-namespace"]),
        host_folders=options["host-folders"],
        allow_unsafe=bool(options["allow-unsafe"]),
    )
    manager.arrivals.insecure_loopback = bool(options["insecure-loopback"])
    manager.arrivals.registries = registry.Registries(
        reactor, trees.in_thread, options["registry-certificates"], options["registry-logins"]
    )
    manager.network.doorways.refused = partial(tell_unserved, manager)
    return manager


def make_notifier(options: Options, manager: Manager) -> Notifier | None:
    """What tells of failures; None if nobody wants to be told."""
    couriers: list[Courier] = []
    if options["notify"]:
        couriers.append(make_webhook(manager.reactor, options["notify"], DELIVER_WITHIN))
    if options["notify-command"]:
        couriers.append(Command(manager.reactor, options["notify-command"]))
    outboxes = [Outbox(manager.reactor, courier) for courier in couriers]
    return Notifier(manager, outboxes, free_part) if outboxes else None


def make_engine(options: Options, manager: Manager) -> tuple[Engine, list[Service]]:
    """What runs the containers that this manager is asked for, and the services that it needs."""
    if options["engine"] == wiring.SWARM:
        swarm = wiring.make_swarm(options, manager)
        return swarm, [wiring.Watching(swarm)]
    return ThisHost(manager), []


def makeService(options: Options) -> MultiService:
    """The services that twistd runs."""
    from twisted.internet import reactor

    be_monotonic(reactor)
    be_persistent(reactor)
    reactor.suggestThreadPoolSize(THREADS)
    manager = make_manager(options, reactor)
    services = MultiService()
    ManagerService(manager, make_notifier(options, manager)).setServiceParent(services)
    engine, needed = make_engine(options, manager)
    for service in (*needed, *listen.listeners(options, engine)):
        service.setServiceParent(services)
    return services
