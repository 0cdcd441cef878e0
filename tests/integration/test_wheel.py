"""The wheel: installed where there is no checkout, it works."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

from tests.integration.harness import PROJECT, ManagerCase, wait_until
from txcontain import __version__
from txcontain.cli.commands import COMMANDS

SOURCES = ("txcontain", "twisted", "scripts", "setup.py", "pyproject.toml", "README.md", "LICENSE")
SECONDS = 120  # for pip


class WheelTests(ManagerCase):
    """A fresh environment with the wheel in it, and a manager that is started from there."""

    environment: Mapping[str, str] = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}

    def setUp(self) -> None:
        """Build the wheel, install it, and start a manager of it."""
        self.place = Path(tempfile.mkdtemp(prefix="txcontain-wheel-"))
        self.addCleanup(shutil.rmtree, self.place)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        self.build(pip)
        self.install(pip)
        super().setUp()

    def build(self, pip: list[str]) -> None:
        """Build the wheel of a copy of the sources: building leaves files behind."""
        source = self.place / "source"
        source.mkdir()
        caches = shutil.ignore_patterns("__pycache__")  # other tests' managers write to them
        for name in SOURCES:
            if (PROJECT / name).is_dir():
                shutil.copytree(PROJECT / name, source / name, ignore=caches)
            else:
                shutil.copy(PROJECT / name, source / name)
        words = "wheel --no-deps --no-build-isolation --no-index --wheel-dir"
        run(*pip, *words.split(), self.place, source)
        shutil.rmtree(source)

    def install(self, pip: list[str]) -> None:
        """Install the wheel into a new environment, beside the dependencies of this one."""
        made = self.place / "venv"
        venv.create(made, symlinks=True)
        python, self.twistd = made / "bin/python", made / "bin/twistd"
        (wheel,) = self.place.glob("*.whl")
        run(*pip, "--python", python, *"install --no-deps --no-index".split(), wheel)
        run_twistd = "from twisted.scripts.twistd import run; run()"
        self.twistd.write_text(f"#!{python}\n{run_twistd}\n")  # as pip would with Twisted
        self.twistd.chmod(0o755)
        packages = sysconfig.get_path("purelib", vars={"base": str(made)})
        # Of this environment only what is installed, and not the checkout that it points to.
        Path(packages, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def say(self, *words: object) -> str:
        """What a program says that is run from an empty folder."""
        return run(*words, cwd=self.mktemp_folder())

    def mktemp_folder(self) -> Path:
        """An empty folder."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        return folder

    def test_installed(self) -> None:
        """Both programs know their version; a container is launched, shown and destroyed."""
        python, txcontain = (self.twistd.with_name(name) for name in ("python", "txcontain"))
        self.assertIn(str(self.place), self.say(python, "-c", "import txcontain as t; print(t)"))
        version = f"txcontain {__version__}\n"
        self.assertEqual(self.say(txcontain, "--version"), version)
        self.assertEqual(self.say(self.twistd, "containerd-lite", "--version"), version)
        self.assertIn("--base-images=", self.say(self.twistd, "containerd-lite", "--help"))
        instance = self.launch()
        cli = [txcontain, "--url", self.url]
        self.assertIn(instance, self.say(*cli, "ps"))
        self.assertEqual(self.say(*cli, "destroy", instance), f"{instance}: destroyed\n")

    def test_shell_files(self) -> None:
        """Shells find what completes words, names of instances too; and there is a manual page."""
        share = self.twistd.parents[1] / "share"
        for place in (
            "zsh/site-functions/_txcontain",
            "fish/vendor_completions.d/txcontain.fish",
            "man/man1/txcontain.1",
        ):
            text = (share / place).read_text()
            for command in COMMANDS:
                self.assertIn(command.name, text, place)
        instance = self.launch()
        script = share / "bash-completion/completions/txcontain"
        for typed, wanted in (
            ("destroyal", {"destroyall"}),
            ("destroy ", {instance}),
            ("launch ", {instance.rpartition("-")[0]}),
            ("ps --form", {"--format"}),
        ):
            self.assert_completed(script, f"txcontain {typed}", wanted)

    def assert_completed(self, script: Path, line: str, wanted: set[str]) -> None:
        """Fail unless bash soon has these for the last word of a line.

        A manager that has not answered in a tenth of a second is asked at the next Tab.
        """
        wait_until(lambda: set(self.completed(script, line)) == wanted, f"{line!r} is completed")

    def completed(self, script: Path, line: str) -> list[str]:
        """What bash has for the last word of a line."""
        words = line.split(" ")
        ask = f"""
            PATH={self.twistd.parent}:$PATH TXCONTAIN_URL={self.url}
            export TXCONTAIN_URL
            source {script}
            COMP_WORDS=({" ".join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}
            _shtab_txcontain
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        return run("bash", "-c", ask).split()

    def test_service(self) -> None:
        """The unit that it prints for systemd is complete: all that it runs is there."""
        folder = self.mktemp_folder() / "50 % of $HOME"
        folder.mkdir()
        command = self.twistd, "containerd-lite", "--unit", "--state", folder / "state"
        text = run(*command, cwd=folder)
        self.assertIn(f'ExecStart="{self.twistd}" "--nodaemon"', text)
        script = text.partition("ExecStopPost=/bin/bash ")[2].partition("\n")[0].strip('"')
        self.assertTrue(Path(script).is_relative_to(self.place))
        self.assertTrue(Path(script).is_file())
        if shutil.which("systemd-analyze"):
            unit = self.place / "txcontain.service"
            unit.write_text(text)
            run("systemd-analyze", "verify", "--man=no", unit)


def run(*words: object, cwd: Path | None = None) -> str:
    """Run a program; what it says on stdout."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**WheelTests.environment, "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done
    return done.stdout
