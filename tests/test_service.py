"""The unit file: what of it the containers' lives hang on."""

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.plan import CAPABILITIES
from txcontain.tap import Options

HERE = Path(__file__).resolve().parent.parent
# Each would put the manager in a mount namespace of its own, or filter the system
# calls of every container.
NOT_FOR_CONTAINERS = ("Private", "Protect", "Restrict", "System", "Lock", "Memory", "ReadOnly")


class UnitTests(SynchronousTestCase):
    """systemd/txcontain.service.in, with its settings as systemd reads them."""

    def setUp(self) -> None:
        self.settings: dict[Any, Any] = {}
        text = (HERE / "systemd/txcontain.service.in").read_text()
        for line in text.replace("@HERE@", str(HERE)).splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.settings.setdefault(name, []).append(value)

    def one(self, name: str) -> Any:
        """The value of a setting that is there once."""
        [value] = self.settings[name]
        return value

    def test_outlived(self) -> None:
        """Containers outlive the manager, which is started again whenever it has failed."""
        self.assertEqual(self.one("KillMode"), "process")
        self.assertEqual(self.one("Delegate"), "yes")
        self.assertEqual(self.one("Restart"), "on-failure")
        self.assertEqual(self.one("StartLimitIntervalSec"), "0")

    def test_ready(self) -> None:
        """Who starts the service is told when it answers."""
        self.assertEqual(self.one("Type"), "notify")

    def test_capabilities(self) -> None:
        """The manager has whatever it is to give a container."""
        given = {f"CAP_{name}" for name in CAPABILITIES}
        has = set(" ".join(self.settings["CapabilityBoundingSet"]).split())
        self.assertLessEqual(given, has)

    def test_nothing_inherited(self) -> None:
        """Nothing is forbidden to containers on the way."""
        found = [name for name in self.settings if name.startswith(NOT_FOR_CONTAINERS)]
        self.assertEqual(found, [])

    def test_command(self) -> None:
        """The command is one that the manager understands, and it stays in the foreground."""
        twistd, options = self.one("ExecStart").replace('"', "").split(" containerd-lite ")
        self.assertEqual(twistd.split(), [f"{HERE}/.venv/bin/twistd", "--nodaemon", "--pidfile="])
        parsed = Options()
        parsed.parseOptions(options.split())
        self.assertEqual(parsed["state"], "/var/lib/txcontain")
        self.assertEqual(parsed["base-images"], str(HERE / "base_images"))
        self.assertEqual(parsed["mountables"], str(HERE / "mountables"))

    def test_end(self) -> None:
        """What runs when the service has stopped is there and can be run."""
        program, argument = self.one("ExecStopPost").replace('"', "").split()
        self.assertIn(f"{argument}() {{", Path(program).read_text())
        self.assertTrue(Path(program).stat().st_mode & 0o100)
