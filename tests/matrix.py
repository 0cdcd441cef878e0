"""The tests that need no root, on other Pythons and with other Twisteds: ``make matrix``.

Each run is a container of a manager that is started here: an image with a Python in it, the
packages mounted read-only, the project copy-on-write, no network, an ordinary user. Images and
packages are kept in .matrix; remove that folder to have them made again.

    python -m tests.matrix [3.13 | /path/of/a/python3.10]...
    python -m tests.matrix lowest       here, without a container: the lowest packages only
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import requires
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import argparse_manpage

from tests.integration.harness import Answer, ManagerCase, ask_on
from tests.support import PROJECT

CACHE = PROJECT / ".matrix"
# The Debian release that has this Python; one that has none takes a Python of this machine.
RELEASES = {"3.10": "", "3.11": "bookworm", "3.12": "", "3.13": "trixie", "3.14": "forky"}
IN_IMAGE = "python3,libseccomp2,procps"
SECONDS = 3600  # for all tests of a run: a machine may be busy
SHOWN = 100_000  # characters of a run's log, if that fails
A_DAY = 24 * 60 * 60  # seconds; then there may be a later Twisted
# The environment is as scripts/make-venv makes one, but of packages that are there already.
SCRIPT = """#!/bin/sh
if [ "$(id -u)" = 0 ]; then
    [ ! -d /opt/python ] || ldconfig /opt/python/lib
    exec setpriv --reuid nobody --regid nogroup --clear-groups "$0"
fi
cd /txcontain && {python} -m venv --without-pip .venv && touch .venv/installed || exit
printf '/packages\\n/txcontain\\n' > .venv/lib/python{version}/site-packages/matrix.pth
python=.venv/bin/python
$python -c '
import importlib.metadata, platform, sys
versions = (f"{{name}} {{importlib.metadata.version(name)}}" for name in sys.argv[1:])
print("On", platform.python_version(), "with", *versions)' {named}
exec $python -m twisted.trial {modules}
"""
# Packages of which the lowest version that is allowed may be another than the latest.
NAMED = "twisted treq automat pyroute2 pyyaml"
# What a Python is, as it is on this machine: its program, its library, its modules.
ASK_PYTHON = """
import json, sys, sysconfig
print(json.dumps(["%d.%d" % sys.version_info[:2], sys.base_prefix, sysconfig.get_path("stdlib")]))
"""
NOT_NEEDED = ["__pycache__", "site-packages", "dist-packages", "test", "idlelib", "config-*"]


class Row(NamedTuple):
    """A line of the table: what became of the tests on a Python, with some packages."""

    python: str
    packages: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    remark: str = ""  # with the versions of the packages, if it has run

    def __str__(self) -> str:
        """As the table shows it."""
        what = f"{self.python:8} {self.packages:8}"
        figures = f"{self.passed:7} {self.failed:7} {self.skipped:8} {self.seconds:8.0f}"
        return f"{what} {figures}  {self.remark}".rstrip()


class NotToBeHadError(Exception):
    """A Python, an image or a package that this machine can't get: that fails no test."""


def lowest(requirements: list[str]) -> list[str]:
    """The same packages, each at the lowest version that is allowed (or its bug fixes)."""
    return [re.sub(r">=([\d.]+)$", r"==\1.*", requirement) for requirement in requirements]


def requirements() -> list[str]:
    """What the project needs to run, and its tests beside that."""
    needed = [line for line in requires("txcontain") or [] if "extra ==" not in line]
    return [*needed, "hypothesis", "kubernetes-validate", "shtab>=1.13"]


def unit_tests() -> list[str]:
    """The names of the modules whose tests need no root."""
    paths = (path.relative_to(PROJECT) for path in PROJECT.glob("tests/**/test_*.py"))
    return sorted(
        ".".join(path.with_suffix("").parts) for path in paths if "integration" not in path.parts
    )


def run(*command: str | Path) -> str:
    """What a command says; raise NotToBeHadError with its last words if it fails."""
    result = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if result.returncode:
        last = (result.stderr.strip() or f"exit status {result.returncode}").splitlines()
        errors = [line for line in last if re.match(r"(E|ERROR):", line)]
        raise NotToBeHadError(f"{Path(command[0]).name}: {(errors or last)[-1]}")
    return result.stdout


def cached(name: str, make: Callable[[Path], object], lasts: float = float("inf")) -> Path:
    """The file of this name in the cache; made if it is not there, or older than it lasts."""
    path = CACHE / name
    if not path.exists() or time.time() - path.stat().st_mtime > lasts:
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as folder:
            made = Path(folder) / name
            make(made)
            made.replace(path)
    return path


def tar(tarball: Path, folder: Path, *more: str | Path) -> None:
    """Pack what is in a folder, for an ordinary user."""
    owner = "--owner=nobody:65534", "--group=nogroup:65534"
    run("tar", "--create", "--file", tarball, *owner, "--directory", folder, *more)


def image(release: str) -> Path:
    """A root of a Debian release, or of this machine's own, with its Python in it."""
    system = dict(re.findall(r'^(\w+)="?(.*?)"?$', Path("/etc/os-release").read_text(), re.M))
    own, sources = system.get("VERSION_CODENAME", ""), []
    if release in ("", own):  # it may have mirrors of its own
        files = ["/etc/apt/sources.list", f"/etc/apt/sources.list.d/{system['ID']}.sources"]
        sources = [file for file in files if Path(file).is_file() and Path(file).stat().st_size]
    options = ["--quiet", "--mode=root", "--variant=essential", f"--include={IN_IMAGE}"]
    options += ["--aptopt=APT::Sandbox::User root"]
    # A mirror that lags behind is good enough here. What it has is signed all the same.
    options += ["--aptopt=Acquire::Check-Valid-Until false"]
    name = release or own
    return cached(f"{name}.tar", lambda path: run("mmdebstrap", *options, name, path, *sources))


class Local(NamedTuple):
    """A Python of this machine, to be packed."""

    program: Path
    version: str
    prefix: Path
    modules: Path

    @classmethod
    def of(cls, program: Path) -> Local:
        """Ask a Python what it is."""
        version, prefix, modules = json.loads(run(program, "-c", ASK_PYTHON))
        return cls(program, version, Path(prefix), Path(modules))

    def pack(self, tarball: Path) -> None:
        """Pack it, as bin/ and lib/."""
        name = f"python{self.version}"
        libraries = sorted(
            path.relative_to(self.prefix) for path in self.prefix.glob(f"lib/lib{name}.so*")
        )
        left_out = [f"--exclude={name}" for name in NOT_NEEDED]
        packed: list[str | Path] = [
            f"bin/{name}",
            *libraries,
            self.modules.relative_to(self.prefix),
        ]
        tar(tarball, self.prefix, *left_out, *packed)


def find_local(version: str) -> Local:
    """The Python of this version that is on PATH, or else one of pyenv's."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found: list[Any] = [shutil.which(name), *sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"))]
    for program in filter(None, found):
        try:
            return Local.of(Path(program))
        except NotToBeHadError:  # a pyenv shim of one that is not there
            continue
    raise NotToBeHadError(f"no {name} on this machine")


def packages(version: str, local: Local | None, wanted: list[str]) -> Path:
    """The Python packages that are wanted, for a Python."""
    # Without a Python of that version pip looks at the conditions of requirements with the eyes
    # of its own; those that count here are about Pythons older than 3.11.
    target = ["--python-version", version]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pip += ["--python", str(local.program), "install"] if local else ["install", *target]
    pip += ["--no-compile", "--only-binary=:all:", "--root-user-action=ignore"]

    def make(tarball: Path) -> None:
        folder = tarball.with_suffix("")
        run(*pip, "--target", folder, *wanted)
        # There is no wheel of this one. It is Python, and depends on nothing.
        own = Path(argparse_manpage.__file__).parent
        shutil.copytree(own, folder / own.name, ignore=shutil.ignore_patterns("__pycache__"))
        tar(tarball, folder, ".")

    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:8]
    return cached(f"packages-{version}-{key}.tar", make, lasts=A_DAY)


class Matrix(ManagerCase):
    """All Pythons, two at a time."""

    wanted: tuple[str, ...] = ()

    def have_host(self) -> None:
        """Stay on this machine's: its network has what is to be fetched."""

    def matrix(self) -> None:
        """The tests pass on every Python that can be had, with every Twisted that is allowed."""
        words = "-c safe.directory=* ls-files -z --cached --others --exclude-standard"
        listed = run("git", *words.split())
        files = [name for name in listed.split("\0") if name and (PROJECT / name).exists()]
        folders = sorted({parent for name in files for parent in Path(name).parents})
        tar(self.folder / "mountables/txcontain.tar", PROJECT, "--no-recursion", *folders, *files)
        with ThreadPoolExecutor(2) as pool:
            rows = [row for rows in pool.map(self.on_python, self.wanted) for row in rows]
        print(f"\n{'Python':8} {'Packages':8}  passed  failed  skipped  seconds")
        print(*rows, sep="\n", flush=True)
        self.assertEqual([str(row) for row in rows if row.failed], [])

    def on_python(self, word: str) -> list[Row]:
        """Run the tests on a Python, named by its version or its path."""
        try:
            local, version = None, word
            if not RELEASES.get(word):
                local = Local.of(Path(word)) if "/" in word else find_local(word)
                version = local.version
            tarball = image("" if local else RELEASES[version])
            mounts = [f"{self.add('base_images', tarball)}"]
            if local:
                python = cached(f"python{version}-{local.prefix.name}.tar", local.pack)
                mounts.append(f"{self.add('mountables', python)} /opt/python READ")
        except NotToBeHadError as error:
            return [Row(word, remark=f"not to be had: {error}")]
        return [*self.with_packages(version, local, *mounts)]

    def with_packages(
        self, version: str, local: Local | None, base_image: str, *mounts: str
    ) -> Iterator[Row]:
        """Run the tests with the lowest packages that are allowed, and with the latest."""
        latest = requirements()
        for name, wanted in (("lowest", lowest(latest)), ("latest", latest)):
            try:
                tarball = self.add("mountables", packages(version, local, wanted))
            except NotToBeHadError as error:
                yield Row(version, name, remark=f"not to be had: {error}")
                continue
            print(f"Trying Python {version}, with the {name} packages.", flush=True)
            try:
                yield self.run_tests(
                    version, local, name, base_image, *mounts, f"{tarball} /packages READ"
                )
            except Exception as error:  # the others go on
                traceback.print_exc()
                yield Row(version, name, failed=1, remark=str(error))

    def add(self, kind: str, tarball: Path) -> str:
        """Have the manager find a tarball of the cache; return its name."""
        path = self.folder / kind / tarball.name
        if not path.exists():
            path.symlink_to(tarball)
        return tarball.name

    def run_tests(
        self, version: str, local: Local | None, name: str, base_image: str, *mounts: str
    ) -> Row:
        """Run the tests in a container."""
        program = f"/opt/python/bin/python{version}" if local else "/usr/bin/python3"
        modules = " ".join(unit_tests())
        config = self.upload(
            **self.job(
                SCRIPT.format(python=program, version=version, named=NAMED, modules=modules),
                base_image=base_image,
                mounts=[*mounts, "txcontain.tar /txcontain READWRITE"],
                writable_root=True,
                network="none",
                startup_env={"HOME": "/nonexistent", "PYTHONPYCACHEPREFIX": "/tmp/compiled"},
                limits={"memory": "2G", "pids": 1024},
            )
        )
        start = time.monotonic()
        launched = self.patiently("POST", "/launch", config)
        self.assertEqual(launched.status, 200, launched.reason)
        instance = launched.json["instance"]
        ended = self.patiently("GET", f"/instances/{instance}/wait").json["exit"]
        seconds = time.monotonic() - start
        log = self.ask("GET", f"/instances/{instance}/logs").body.decode(errors="replace")
        if ended["status"] != 0:
            print(f"On Python {version}, with the {name} packages: {ended['reason']}")
            print(log[max(0, log.find("\n=====")) :][-SHOWN:], flush=True)
        return read_row(Row(version, name, seconds=seconds), log, ended)

    def patiently(self, method: str, path: str, body: dict[str, str] | None = None) -> Answer:
        """Ask the manager for what may take minutes."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=SECONDS)
        try:
            return ask_on(connection, method, path, body)
        finally:
            connection.close()


def read_row(row: Row, log: str, ended: dict[str, Any]) -> Row:
    """A row, with what the run has told: in its first line, and in trial's last one."""
    if on := re.search(r"^On (\S+) with (.+)$", log, re.M):
        row = row._replace(python=on[1], remark=on[2])
    last = re.findall(r"^(?:PASSED|FAILED) \((.*)\)$", log, re.M)
    counts = {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", last[-1])} if last else {}
    failed = counts.get("failures", 0) + counts.get("errors", 0)
    passed, skipped = counts.get("successes", 0), counts.get("skips", 0)
    if not failed and (ended["status"] != 0 or not passed):
        failed, row = 1, row._replace(remark=f"{ended['reason']}; {row.remark}")
    return row._replace(passed=passed, failed=failed, skipped=skipped)


def run_lowest_here() -> int:
    """Run the tests on the Python that runs this, with the lowest packages; return its status."""
    version = "{}.{}".format(*sys.version_info)
    with tempfile.TemporaryDirectory() as folder:
        tarball = packages(version, None, lowest(requirements()))
        run("tar", "--extract", "--no-same-owner", "--file", tarball, "--directory", folder)
        command = [sys.executable, "-m", "twisted.trial", "-j2", *unit_tests()]
        environment = {**os.environ, "PYTHONPATH": folder}
        return subprocess.run(command, cwd=PROJECT, env=environment).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["lowest"]:
        sys.exit(run_lowest_here())
    Matrix.wanted = tuple(sys.argv[1:]) or tuple(RELEASES)
    sys.exit(not unittest.TextTestRunner().run(Matrix("matrix")).wasSuccessful())
