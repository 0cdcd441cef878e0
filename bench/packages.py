"""Programs that this machine lacks, from Debian's packages, without installing any.

A package is fetched with all that it depends on and unpacked into build/peers. Its
scripts are not run: no daemon starts, and the machine's own packages stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable

from bench.manager import ROOT

PEERS = ROOT / "build" / "peers"
UNPACKED = PEERS / "root"
PACKAGES = {
    "dockerd": "docker.io",
    "runc": "runc",
    "crun": "crun",
    "bwrap": "bubblewrap",
    "systemd-nspawn": "systemd-container",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "docker-registry": "docker-registry",
    "nginx": "nginx libnginx-mod-stream",
}
FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin")


def find(program: str) -> str | None:
    """The path of a program: this machine's own, or else the one that was unpacked."""
    unpacked = os.pathsep.join(str(UNPACKED / folder) for folder in FOLDERS)
    return shutil.which(program) or shutil.which(program, path=unpacked)


def environment() -> dict[str, str]:
    """Variables with which the unpacked programs find each other and their libraries."""
    programs = [str(UNPACKED / folder) for folder in FOLDERS]
    libraries = {str(path.parent) for path in UNPACKED.glob("**/lib/**/lib*.so*")}
    return {
        "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *programs]),
        "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries)),
    }


def fetch_missing(programs: Iterable[str] = PACKAGES) -> None:
    """Have apt fetch the packages of those of these programs that are missing."""
    missing = [
        package
        for program in programs
        if not find(program)
        for package in PACKAGES[program].split()
    ]
    if not missing or not shutil.which("apt-get"):
        return
    print(f"Fetching {', '.join(missing)} from Debian into build/peers.")
    archives = PEERS / "debs"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    install = [
        "apt-get",
        "install",
        "--yes",
        "--download-only",
        "--no-install-recommends",
        "-o",
        f"Dir::Cache::archives={archives}",
        *missing,
    ]
    if not _works(install) and _works(["apt-get", "update"]):
        _works(install)
    for package in archives.glob("*.deb"):
        _works(["dpkg-deb", "--extract", str(package), str(UNPACKED)])


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
