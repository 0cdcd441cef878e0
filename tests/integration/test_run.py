"""The command run, as a person types it, against a real manager."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from tests.integration.tarballs import script
from tests.support import MEASURED


class RunTests(ManagerCase):
    """A container without a file of a config."""

    def add_images(self) -> None:
        """Have a file that can't be run."""
        self.image("small.tar", script("bin/broken", "#!/no/such/interpreter\n"))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Type a command."""
        return subprocess.Popen(
            [PROJECT / "cli/run", "--url", self.url, *words],
            env={"PATH": os.defpath, "HERE": "from here", **MEASURED},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def call(self, *words: str) -> tuple[str, str, int]:
        """Type a command; what it writes, and how it ends."""
        with self.begin(*words) as command:
            out, err = command.communicate(timeout=60)
        return out, err, command.returncode

    def names(self) -> list[str]:
        """Those of all instances."""
        return [one["instance"] for one in self.ask("GET", "/instances").json["instances"]]

    def test_attached(self) -> None:
        """Its streams and its status are those of the command, and nothing is left of it."""
        script = "echo $HERE; pwd; id -un >&2; exit 3"
        words = ["--rm", "-e", "HERE", "-u", "worker", "-w", "/etc", "small.tar"]
        said = self.call(*words, "sh", "-c", script)
        self.assertEqual(said, ("from here\n/etc\n", "worker\n", 3))
        self.assertEqual(self.names(), [])

    def test_much_output(self) -> None:
        """All of a long output arrives, also if it ends at once after it."""
        count = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        out, err, status = self.call("small.tar", "sh", "-c", count)
        self.assertEqual(out, "".join(f"line {i}\n" for i in range(20_000)))
        self.assertEqual((err, status), ("", 0))

    def test_detached(self) -> None:
        """It prints the name, and the container runs on; the name is taken then."""
        self.assertEqual(
            self.call("-d", "--name", "job", "small.tar", "sleep", "60"), ("job\n", "", 0)
        )
        self.assertEqual(self.running(), ["job"])
        out, err, status = self.call("-d", "--name", "job", "small.tar", "sleep", "60")
        self.assertEqual((out, status), ("", 125))
        self.assertIn("there is an instance job already", err)

    def test_refused(self) -> None:
        """What is not there, or can't be run, ends it as a shell would, and --rm leaves nothing."""
        for command, said, status in (
            ("fly", "there is no fly in the folders of PATH", 127),
            ("/bin/broken", "its interpreter /no/such/interpreter is not in the container", 127),
            ("/etc/passwd", "/etc/passwd is not executable", 126),
        ):
            out, err, ended = self.call("--rm", "small.tar", command)
            self.assertIn(said, err)
            self.assertEqual((out, ended), ("", status))
        self.assertEqual(self.call("no.tar", "ls")[2], 125)
        self.assertEqual(self.names(), [])
        self.call("--name", "kept", "small.tar", "fly")
        self.assertEqual(self.names(), ["kept"])

    def test_ctrl_c(self) -> None:
        """Ctrl-C reaches the command in the container, and its status comes back."""
        script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.1; done"
        with self.begin("--rm", "small.tar", "sh", "-c", script) as command:
            assert command.stdout is not None
            self.assertEqual(command.stdout.readline(), "ready\n")
            command.send_signal(signal.SIGINT)
            self.assertEqual(command.communicate(timeout=60), ("caught\n", ""))
        self.assertEqual((command.returncode, self.names()), (7, []))

    def test_killed(self) -> None:
        """If this program is killed, the container runs on, and is removed at its end."""
        with self.begin("--rm", "small.tar", "sh", "-c", "echo ready; sleep 3") as command:
            assert command.stdout is not None
            command.stdout.readline()
            command.kill()
            command.communicate()
        self.assertEqual(len(self.running()), 1)
        wait_until(lambda: not self.names(), "it is removed")
