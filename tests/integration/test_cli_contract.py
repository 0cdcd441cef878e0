"""contract.md's six commands, as a person runs them, against a real manager.

TXCONTAIN_URL names one that runs already, and holds no config and no instance.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from tests.integration.harness import PROJECT, free_port, listens
from tests.integration.test_contract import ContractCase
from tests.support import MEASURED


class CommandCase(ContractCase):
    """A test of the commands in cli/."""

    def setUp(self) -> None:
        """Have a folder that is not the project's to call the commands from."""
        super().setUp()
        elsewhere = tempfile.TemporaryDirectory()
        self.addCleanup(elsewhere.cleanup)
        self.elsewhere = Path(elsewhere.name)

    def call(self, command: str, *words: str, url: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command by bash from another folder, with only PATH in its environment."""
        program = PROJECT / "cli" / command
        return subprocess.run(
            ["bash", "-c", '"$0" "$@"', program, "--url", url or self.url, *words],
            cwd=self.elsewhere,
            env={"PATH": os.defpath, **MEASURED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def assert_says(self, said: str, command: str, *words: str) -> None:
        """Fail unless a command succeeds and writes exactly this."""
        done = self.call(command, *words)
        self.assertEqual((done.stdout, done.stderr, done.returncode), (said, "", 0))

    def assert_fails(self, said: str, command: str, *words: str, url: str = "") -> str:
        """Fail unless a command fails, its output beginning so; return all of its words."""
        done = self.call(command, *words, url=url)
        self.assertEqual(done.returncode, 1, done)
        self.assertTrue(done.stdout.startswith(said), done)
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout + done.stderr

    def file(self, content: str) -> str:
        """A file in the folder that the commands are called from."""
        path = self.elsewhere / "some file.cfg"
        path.write_text(content)
        return path.name

    def launch_words(self, **keys: object) -> tuple[str, str, str]:
        """Store a config; return the words that launch it."""
        key = self.upload(**keys)
        return key["name"], key["major"], key["minor"]


class ConfigCommandTests(CommandCase):
    """upload and cfginfo."""

    def test_upload(self) -> None:
        """A config is uploaded as it is, and cfginfo then prints its name and nothing else."""
        config = self.config()
        self.assert_says("Success\n", "upload", self.file(json.dumps(config)))
        self.stored.append(f"{config['name']}-1-{config['minor']}.cfg")
        self.assert_says("".join(f"{name}\n" for name in sorted(self.stored)), "cfginfo")

    def test_cfginfo(self) -> None:
        """cfginfo prints a line for each config, sorted; none where there is none."""
        for number in range(2):
            self.assert_says("".join(f"{name}\n" for name in sorted(self.stored)), "cfginfo")
            self.upload(minor=str(9 + number))

    def test_upload_refused(self) -> None:
        """What is no config, or no file, is a failure, and the reason is said."""
        config = self.config()
        self.upload(**config)
        for file, reason in (
            (self.file("no JSON"), ""),
            (self.file(""), ""),
            ("no such file", "No such file"),
            (".", "Is a directory"),
        ):
            self.assertIn(reason, self.assert_fails("Failure\n", "upload", file))
        said = self.assert_fails("Failure\n", "upload", self.file(json.dumps(config)))
        self.assertIn(self.stored[-1], said)
        del config["base_image"]
        said = self.assert_fails("Failure\n", "upload", self.file(json.dumps(config)))
        self.assertIn("base_image", said)


class InstanceCommandTests(CommandCase):
    """launch, list, destroy and destroyall."""

    def test_launch_and_list(self) -> None:
        """launch prints the instance's name, and list a line for each in the launches' order."""
        lines = []
        for words in (self.launch_words(), self.launch_words()):
            done = self.call("launch", *words)
            self.assertEqual((done.stderr, done.returncode), ("", 0))
            instance = self.running()[-1]
            self.assertEqual(done.stdout, f"Success: {instance}\n")
            lines.append(f"{instance}: {'-'.join(words)}.cfg\n")
        self.assert_says("".join(lines), "list")

    def test_launch_refused(self) -> None:
        """A launch that fails says why after "Failure: ", on stdout."""
        said = "Failure: there is no config nobody-1-01.cfg"
        self.assert_fails(said, "launch", "nobody", "1", "01")
        words = self.launch_words(startup_script="/no/such/script")
        said = self.assert_fails("Failure: ", "launch", *words)
        self.assertIn("there is no /no/such/script in the container", said)
        words = self.launch_words(base_image="nothing.tar")
        self.assert_fails("Failure: there is no nothing.tar in base_images/", "launch", *words)
        self.assert_says("", "list")

    def test_destroy(self) -> None:
        """destroy says Success once, and Failure for what is not there."""
        instance = self.launch()
        self.assert_says("Success\n", "destroy", instance)
        for name in (instance, "nobody", "../list", "a b", "-", "\udcff"):
            self.assertEqual(self.call("destroy", "--", name).stdout, "Failure\n", ascii(name))
            self.assert_fails("Failure\n", "destroy", "--", name)
        self.assert_says("", "list")

    def test_destroyall(self) -> None:
        """destroyall succeeds with many instances and with none."""
        for number in (2, 0):
            for _ in range(number):
                self.launch()
            self.assert_says("Success\n", "destroyall")
            self.assert_says("", "list")

    def test_no_manager(self) -> None:
        """Where no manager is, each command fails in its own way, and says how to start one."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        for said, command, *words in (
            ("Failure\n", "upload", self.file("{}")),
            ("", "cfginfo"),
            ("Failure: ", "launch", "a", "1", "1"),
            ("", "list"),
            ("Failure\n", "destroy", "a"),
            ("Failure\n", "destroyall"),
        ):
            why = self.assert_fails(said, command, *words, url=url)
            self.assertIn("make manager", why)
            self.assertIn(url, why)
        self.assertFalse(listens(port))
