"""What several test modules share."""

import functools
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from txcontain.container.facts import FIRST_ID
from txcontain.container.init import MOUNT_ATTR_IDMAP, Kernel
from txcontain.container.spec import Spec, from_json

PROJECT = Path(__file__).resolve().parents[1]
PROGRAMS = f"{os.defpath}:/usr/sbin:/sbin"
DISK = "/var/tmp"  # where tests have the folders of which overlays are made
CAP_SYS_ADMIN = 21
# By these a program that a test starts is measured too (scripts/coverage).
MEASURED = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
TWISTD = Path(os.environ.get("COVERAGE_TWISTD") or Path(sys.executable).with_name("twistd"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_MODULES = "import playwright.sync_api, axe_playwright_python"
OLDEST_KERNEL = (5, 12)
LINKS = """
from pyroute2 import IPRoute
with IPRoute() as connection:
    connection.link("add", ifname="b", kind="bridge")
    connection.link("add", ifname="v", kind="veth", peer={"ifname": "w"})
"""
RULES = (
    "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; "
    "add rule ip t c masquerade"
)

T = TypeVar("T")  # a test, or a class of tests


def lacking() -> str:
    """What this process lacks of being root on a kernel that is new enough; "" where nothing."""
    with open("/proc/self/status") as file:
        capabilities = int(re.findall(r"CapEff:\s*(\w+)", file.read())[0], 16)
    if os.geteuid() != 0 or not capabilities >> CAP_SYS_ADMIN & 1:
        return "needs root, with CAP_SYS_ADMIN"
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < OLDEST_KERNEL:
        return "needs Linux 5.12 or later"
    return ""


@functools.cache
def lacking_for_networks() -> str:
    """What this machine lacks of what private networks take; "" where nothing."""
    links = [sys.executable, "-c", LINKS]
    return tried("bridges and veth (kernel modules)", "unshare", "--net", *links) or tried(
        "nftables, the program and nf_tables with NAT", "unshare", "--net", "nft", RULES
    )


@functools.cache
def lacking_for_user_namespaces() -> str:
    """What this machine lacks of what user namespaces take; "" where nothing."""
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        program = f"from tests.support import map_owners; map_owners({folder!r})"
        return tried(
            f"user namespaces, and in {DISK} a file system that maps owners (Linux 5.19 with "
            "ext4, XFS or Btrfs)",
            "unshare",
            "--mount",
            sys.executable,
            "-c",
            program,
        )


@functools.cache
def lacking_for_tracing() -> str:
    """What this machine lacks of what strace takes, to have system calls fail; "" where nothing."""
    fails = ["-e", "inject=chdir:error=EIO", "sh", "-c", "! cd / 2>/dev/null"]
    return tried("strace, and leave to trace (ptrace(2))", "strace", "-o", os.devnull, *fails)


@functools.cache
def lacking_for_browser() -> str:
    """What this machine lacks of what drives a browser; "" where nothing."""
    if browser() is None:
        return "needs a browser: chromium"
    return tried("playwright and axe-core (make ui_tests)", sys.executable, "-c", BROWSER_MODULES)


def browser() -> str | None:
    """The path of a browser that tests can drive."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def tried(what: str, *command: str) -> str:
    """Why a command failed that takes something of the machine; "" where it did not."""
    result = subprocess.run(
        command,
        env={"PATH": PROGRAMS, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
    return f"needs {what}: {said[-1]}" if result.returncode else ""


def lacking_for_ipv6() -> str:
    """What a test that listens by IPv6 lacks here; "" if nothing."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        return f"needs IPv6: {error.strerror}"
    return ""


def map_owners(folder: str) -> None:
    """Mount a folder on itself with other owners, in a mount namespace of this process's own.

    Raises OSError where that can't be.
    """
    if on_overlay(folder):
        mount_memory(folder)
    kernel = Kernel()
    namespace = kernel.make_user_namespace(FIRST_ID, "/proc")
    kernel.bind(folder, folder, MOUNT_ATTR_IDMAP, namespace)


def on_overlay(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is on an overlay, whose folders can't be the upper half of another."""
    command = ["stat", "--file-system", "--format=%T", folder]
    return subprocess.check_output(command, text=True).strip() == "overlayfs"


def mount_memory(folder: str | os.PathLike[str]) -> None:
    """Mount a file system in memory on a folder, where it is named after that."""
    subprocess.run(["mount", "-t", "tmpfs", folder, folder], check=True)


def unmount(folder: str | os.PathLike[str], *options: str) -> None:
    """Unmount what is on a folder."""
    subprocess.run(["umount", *options, folder], check=True)


def needs_root(test: T) -> T:
    """Decorate a test, or a class of tests, that makes real containers.

    It is skipped where that can't be; in CI (where CI is set) it fails instead.
    """
    return _unless(lacking(), test)


def needs_networks(test: T) -> T:
    """The same for one whose containers have private networks."""
    return _unless(lacking() or lacking_for_networks(), test)


def needs_user_namespaces(test: T) -> T:
    """The same for one whose containers have user namespaces."""
    return _unless(lacking() or lacking_for_user_namespaces(), test)


def needs_browser(test: T) -> T:
    """The same for one that looks at the web page with a browser."""
    return _unless(lacking() or lacking_for_browser(), test)


def needs_programs(*names: str) -> Callable[[T], T]:
    """The same for one that runs these programs, such as skopeo, beside real containers."""
    missing = [name for name in names if not shutil.which(name, path=PROGRAMS)]
    lack = f"needs the programs {', '.join(missing)}" if missing else ""
    return lambda test: _unless(lacking() or lack, test)


def needs_ipv6(test: T) -> T:
    """The same for one that needs IPv6, and no root."""
    return _unless(lacking_for_ipv6(), test)


def needs_tmux(test: T) -> T:
    """Decorate a test that also takes a terminal of tmux's."""
    return _unless(lacking() or tried("tmux", "sh", "-c", "tmux -V > /dev/null"), test)


def needs_tracing(test: T) -> T:
    """The same for one in which system calls of the manager are made to fail."""
    return _unless(lacking() or lacking_for_tracing(), test)


def _unless(reason: str, test: Any) -> Any:
    if not reason:
        return test
    if not os.environ.get("CI"):
        test.skip = reason  # what this machine lacks; in CI the test fails
        return test

    def fail(self: Any) -> None:
        self.fail(f"{reason}; in CI no test is skipped")

    if not isinstance(test, type):
        return functools.wraps(test)(fail)
    test.setUp = fail  # type: ignore[attr-defined]  # it is a TestCase
    return test


def document(**changes: Any) -> bytes:
    """A small valid config as JSON, with these keys changed; a key set to None is left out."""
    values = {"name": "web", "major": "1", "minor": "01", "base_image": "basefs.tar.gz", **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None}).encode()


def make_spec(**changes: Any) -> Spec:
    """The spec of ``document(**changes)``."""
    return from_json(document(**changes))


def make_layer(folder: str, **files: str) -> None:
    """A root file system in ``folder`` with a working /bin/sh and these executable files."""
    shell = os.path.realpath("/bin/sh")
    libraries = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    for path in ["/bin/sh", *re.findall(r"/\S+", libraries)]:
        os.makedirs(folder + os.path.dirname(path), exist_ok=True)
        shutil.copy(path, folder + path)
    for name, text in files.items():
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)
            os.chmod(file.fileno(), 0o755)
