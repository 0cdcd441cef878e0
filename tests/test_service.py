"""The unit file: what of it the containers' lives hang on."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.container.plan import CAPABILITIES
from txcontain.tap import Options
from txcontain.unit import quoted

GIVEN = ["--state", "/srv/100 %", "--port", "81"]
# Each would put the manager in a mount namespace of its own, or filter the system
# calls of every container.
NOT_FOR_CONTAINERS = ("Private", "Protect", "Restrict", "System", "Lock", "Memory", "ReadOnly")


class UnitTests(SynchronousTestCase):
    """What --unit prints, with its settings as systemd reads them."""

    def setUp(self) -> None:
        self.settings: dict[Any, Any] = {}
        printed = io.StringIO()
        self.patch(sys, "argv", ["/opt/x y/bin/twistd"])
        with redirect_stdout(printed):
            self.assertRaises(SystemExit, Options().parseOptions, ["--unit", *GIVEN])
        for line in printed.getvalue().splitlines():
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
        """The command is this program with the options given, and it stays in the foreground."""
        words = ["/opt/x y/bin/twistd", "--nodaemon", "--pidfile=", "containerd-lite"]
        words += ["--state", "/srv/100 %%", "--port", "81"]
        self.assertEqual(self.one("ExecStart"), " ".join(f'"{word}"' for word in words))

    def test_folders(self) -> None:
        """Options mean the files that they mean here; what they name is mounted first."""
        here = os.getcwd()
        self.assertEqual(self.one("WorkingDirectory"), here)
        folders = [here, "/srv/100 %%", f"{here}/base_images", f"{here}/mountables"]
        wanted = " ".join(f'"{folder}"' for folder in folders)
        self.assertEqual(self.one("RequiresMountsFor"), wanted)

    def test_end(self) -> None:
        """What runs when the service has stopped is there, and a shell can read it."""
        shell, program = self.one("ExecStopPost").replace('"', "").split()
        self.assertEqual(subprocess.run([shell, "-n", program]).returncode, 0)

    def test_quoted(self) -> None:
        """What systemd would take for something else is escaped."""
        self.assertEqual(quoted('a\\ "b" %i'), r'"a\\ \"b\" %%i"')
