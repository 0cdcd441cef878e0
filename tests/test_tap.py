"""``twistd containerd-lite``: its options, and how everything is wired."""

import io
import os
import socket
import sys
import time
from ipaddress import IPv6Network
from typing import Any, cast

from twisted.application.service import IServiceMaker, MultiService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import FakeReactor, MachineTestCase, make_manager
from tests.support import document, make_spec
from txcontain import tap
from txcontain.engine.arrivals import MOST_DOWNLOADS, MOST_PULLS
from txcontain.engine.configs import upload
from txcontain.host.cgroups import Cgroups
from txcontain.host.trees import Trees
from txcontain.later import Watches
from txcontain.runtime.phase import Phase
from txcontain.tap import FOLDERS, LOG_THREADS, ManagerService, Options, makeService
from txcontain.tap import make_manager as wire


def parse(*words: str) -> Any:
    """The options of a command line."""
    options = Options()
    options.parseOptions(words)
    return options


class PluginTests(SynchronousTestCase):
    """twistd finds it."""

    def test_found(self) -> None:
        """It is one of twistd's plugins, once."""
        names = [plugin.tapname for plugin in getPlugins(IServiceMaker)]
        self.assertEqual(names.count("containerd-lite"), 1)

    def test_help(self) -> None:
        """twistd containerd-lite --help lists every option."""
        self.patch(sys, "stdout", stdout := io.StringIO())
        self.assertRaises(SystemExit, ServerOptions().parseOptions, ["containerd-lite", "--help"])
        for name, *_ in Options.optParameters:
            self.assertIn(f"--{name}=", stdout.getvalue())


class OptionTests(SynchronousTestCase):
    """The options of a manager."""

    def test_defaults(self) -> None:
        """By default it listens only on this host."""
        options = parse()
        self.assertEqual((options["interface"], options["port"]), ("127.0.0.1", 8080))
        self.assertEqual(options["state"], "/var/lib/txcontain")

    def test_paths(self) -> None:
        """Paths are made absolute: a daemon has another working directory."""
        options = parse("--state", "x", "--base-images", "../b", "--mountables", "/m/")
        paths = [options[name] for name in ("state", "base-images", "mountables")]
        self.assertEqual(paths, [os.path.abspath("x"), os.path.abspath("../b"), "/m"])

    def test_notify(self) -> None:
        """A URL and a program's words make the two that are told."""
        options = parse("--notify", "https://a:1/b?c", "--notify-command", "/bin/sh -c 'a b'")
        self.assertEqual(options["notify-command"], ["/bin/sh", "-c", "a b"])
        manager = make_manager(FakeReactor(), self.mktemp())
        notifier = tap.make_notifier(options, manager)
        assert notifier is not None
        names = [outbox.courier.name for outbox in notifier.outboxes]
        self.assertEqual(names, ["the webhook", "/bin/sh"])
        self.assertIsNone(tap.make_notifier(parse(), manager))

    def test_bad_values(self) -> None:
        """An impossible value is refused, and the error names the option."""
        for name, value in (
            ("port", "-1"),
            ("port", "65536"),
            ("pool", "-1"),
            ("pool", "1001"),
            ("keep-ended", "-1"),
            ("state", "/a,b"),
            ("state", "/a:b"),
            ("state", "/a\\b"),
            ("bridge", "x" * 16),
            ("bridge", "a/b"),
            ("notify", "ftp://a/b"),
            ("notify", "http://"),
            ("notify", "http://user:secret@a/"),
            ("notify", "http://a/ b"),
            ("notify", "http://[a/"),
            ("notify", "http://a:x/"),
            ("notify-command", ""),
            ("notify-command", "sh -c true"),
            ("notify-command", "/bin/sh 'a"),
            ("notify-command", "/nowhere/at/all"),
            ("bridge", ""),
            ("subnet", "10.87.0.0/31"),
            ("subnet6", "fd00::/97"),
            ("subnet6", "2600::/64"),
            ("interface", "0.0.0.0"),
            ("tls-cert", "/x"),
            ("max-connections", "0"),
        ):
            error = self.assertRaises(UsageError, parse, f"--{name}", value)
            self.assertIn(f"--{name}", str(error), value)

    def test_no_values(self) -> None:
        """A value of the wrong kind, or a missing file, is refused, and the error shows it."""
        for name, value in (
            ("port", "http"),
            ("pool", "many"),
            ("subnet", "10.87.0.1/16"),
            ("subnet", "here"),
            ("tokens", "/none"),
        ):
            error = self.assertRaises(UsageError, parse, f"--{name}", value)
            self.assertIn(value, str(error))

    def test_subnet6(self) -> None:
        """If no subnet of IPv6 is given, each bridge has one of its own, always the same."""
        one, same, other = parse(), parse(), parse("--bridge", "br1")
        self.assertEqual(one["subnet6"], same["subnet6"])
        self.assertNotEqual(one["subnet6"], other["subnet6"])
        self.assertTrue(one["subnet6"].subnet_of(IPv6Network("fd00::/8")))
        self.assertIsNone(parse("--subnet6", "none")["subnet6"])
        self.assertEqual(parse("--subnet6", "fd00:1::/64")["subnet6"], IPv6Network("fd00:1::/64"))

    def test_no_arguments(self) -> None:
        """It takes no arguments except options."""
        self.assertRaises(UsageError, parse, "something")


class WiringTests(MachineTestCase):
    """What is made from the options."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Cgroups, "here", lambda state: self.fail("cgroups are made"))
        self.patch(tap, "compile_filters", lambda: [b"a", b"filter"])

    def options(self, *words: str) -> Any:
        """Options with a state folder of this test."""
        return parse("--state", self.folder, *words)

    def test_services(self) -> None:
        """The service has two parts: the manager, and its listener."""
        service = makeService(self.options("--port", "8081"))
        self.assertIsInstance(service, MultiService)
        manager, server = service
        self.assertIsInstance(manager, ManagerService)
        self.assertEqual((server.number, server.interface), (8081, "127.0.0.1"))
        self.assertIs(manager.manager.reactor, reactor)

    def test_reactor(self) -> None:
        """Its clock is one that no one sets, it watches as soon as it can, and has threads enough.

        Enough is more than all pulls together can have waiting for name servers.
        """
        makeService(self.options())
        changed = cast(Any, reactor)
        self.assertIs(changed.seconds, time.monotonic)
        for add in (changed.addReader, changed.addWriter):
            self.assertIsInstance(add.__self__, Watches)
        self.assertGreaterEqual(changed.getThreadPool().max, MOST_PULLS * MOST_DOWNLOADS + 10)

    def test_nothing_begins(self) -> None:
        """Before the service starts, nothing is created or run."""
        makeService(self.options())
        self.assertEqual(os.listdir(self.folder), [])
        self.assertEqual(cast(Any, reactor).getDelayedCalls(), [])

    def test_manager(self) -> None:
        """Each option reaches the part that it is for."""
        manager = wire(
            self.options(
                "--pool", "7", "--keep-ended", "3", "--base-images", "/b", "--mountables", "/m"
            ),
            self.reactor,
        )
        self.assertEqual((manager.pool.warm.least, manager.keep_ended), (7, 3))
        self.assertEqual((manager.base_images, manager.mountables), ("/b", "/m"))
        self.assertEqual(manager.configs.folder, os.path.join(self.folder, "configs"))
        self.assertEqual(manager.pool.folder, os.path.join(self.folder, "run"))

    def test_logs_leave_threads(self) -> None:
        """Readers of logs leave most threads to others, and wait for one another."""
        running: list[Any] = []

        def in_thread(trees: Any, function: Any) -> Any:
            running.append(Deferred())
            return running[-1]

        self.patch(Trees, "in_thread", in_thread)
        manager = wire(self.options(), self.reactor)
        for _ in range(20):
            manager.pool.log_process.threads(str)
        self.assertLess(len(running), reactor.getThreadPool().max)
        manager.threads(str)
        self.assertEqual(len(running), LOG_THREADS + 1)
        running[0].callback(None)
        self.assertEqual(len(running), LOG_THREADS + 2)

    def test_plans_begin_with_the_base_plan(self) -> None:
        """Every container's plan begins with what a warm init has done in advance."""
        manager = wire(self.options(), self.reactor)
        plan = manager.blueprint(make_spec(), ["/base"], None, None).plan("web-1")
        self.assertEqual(plan[: len(manager.pool.base_plan)], manager.pool.base_plan)


class ServiceTests(MachineTestCase):
    """The manager's service."""

    def setUp(self) -> None:
        super().setUp()
        self.state = os.path.join(self.folder, "state")
        self.manager = make_manager(self.reactor, self.state)
        self.manager.pool.warm.least = 1
        self.groups: list[Any] = []  # that were made
        self.patch(Cgroups, "here", self.make_groups)
        self.patch(tap, "inherit_nothing", lambda: None)
        self.service = ManagerService(self.manager)

    def make_groups(self, state: Any) -> Any:
        """As ``Cgroups.here`` does, without a kernel."""
        self.groups.append(state)
        return Cgroups(monitors="/groups/monitors")

    def start_service(self) -> None:
        """Start the service as twistd does."""
        self.service.privilegedStartService()
        self.service.startService()
        self.reactor.advance(0)

    def stop_service(self) -> None:
        """Stop the service as twistd does."""
        stopped: Any = self.service.stopService()
        self.reactor.pump([0.01] * 3)
        self.successResultOf(stopped)

    def test_folders(self) -> None:
        """The state folder is created, and only root may enter it, whatever its mode was."""
        os.chmod(self.state, 0o777)
        self.service.privilegedStartService()
        self.addCleanup(os.close, self.service._lock)
        self.assertEqual(os.stat(self.state).st_mode & 0o777, 0o700)
        for name in FOLDERS:
            self.assertTrue(os.path.isdir(os.path.join(self.state, name)))

    def test_cgroups(self) -> None:
        """Cgroups are created after listening has succeeded: a failed start leaves none."""
        self.service.privilegedStartService()
        self.assertEqual(self.groups, [])
        self.service.startService()
        self.assertEqual(self.groups, [self.state])
        self.assertEqual(self.manager.pool.cgroups.monitors, "/groups/monitors")
        self.stop_service()

    def test_start_and_stop(self) -> None:
        """A started service has its warm inits; a stopped one leaves nothing."""
        self.start_service()
        self.assertEqual(len(self.reactor.inits), 1)
        self.stop_service()
        self.assertEqual((self.kernel.living, self.kernel.pidfds), ({}, {}))
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))

    def test_stop_while_one_waits(self) -> None:
        """A stopped service starts no waiting instance again."""
        self.start_service()
        spec = self.now(upload(self.manager, document(restart="always")))
        self.now(self.manager.launch(spec.name, spec.major, spec.minor))
        self.reactor.inits[0].end("Done(1)")
        self.stop_service()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_recovers(self) -> None:
        """What an earlier manager left is recovered first."""
        os.mkdir(os.path.join(self.state, "instances/web-1"), Phase.HALF_MADE)
        self.start_service()
        self.assertEqual(os.listdir(os.path.join(self.state, "instances")), [])
        self.stop_service()

    def test_one_alone(self) -> None:
        """A second manager on a state folder refuses to start, and names the first."""
        self.patch(tap, "LOCK_WITHIN", 0)
        self.patch(tap, "LOCK_AGAIN", 0)
        self.start_service()
        other = ManagerService(make_manager(self.reactor, self.state))
        error = self.assertRaises(SystemExit, other.privilegedStartService)
        self.assertEqual(
            str(error),
            f"another manager, process {os.getpid()}, uses {self.state}: give another --state",
        )
        self.stop_service()
        other.privilegedStartService()
        os.close(other._lock)

    def test_something_in_the_way(self) -> None:
        """If something prevents the start, the error is one sentence, and comes at once."""
        for name, make in (("aside", touch), ("lock", os.mkdir), ("run/init.sock", os.mkdir)):
            path = os.path.join(self.state, name)
            if os.path.isdir(path):
                os.rmdir(path)
            make(path)
            error = self.assertRaises(SystemExit, self.start_service)
            self.assertIn("the manager can't start: E", str(error))
            self.assertIn(path, str(error))
            os.rename(path, os.path.join(self.folder, os.path.basename(path)))
            os.makedirs(os.path.join(self.state, "aside"), exist_ok=True)
        os.close(self.service._lock)

    def test_full_disk(self) -> None:
        """A manager starts on a full disk too: the pid in its lock is only for a message."""
        self.patch(os, "write", lambda *_: throw(OSError(28, "No space left on device")))
        self.service.privilegedStartService()
        os.close(self.service._lock)

    def test_systemd(self) -> None:
        """systemd is told when the manager is ready, if it asked for that."""
        address = f"\0txcontain-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(address)
            self.patch(os, "environ", {"NOTIFY_SOCKET": f"@{address[1:]}"})
            self.start_service()
            self.assertEqual(listener.recv(100), b"READY=1")
        self.stop_service()


def touch(path: Any) -> None:
    """Create an empty file."""
    with open(path, "x"):
        pass


def throw(error: Any) -> None:
    """Raise an error, as a function that fails."""
    raise error
