"""A txcontain manager of the bench's own, as its client sees it."""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench import processes
from bench.client import Connection, Refused, ask_until, free_port

ROOT = Path(__file__).resolve().parent.parent
BASE = "basefs.tar.gz"
BASES = [BASE, "basefs.again.tar.gz"]  # the same, by two names
SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
CONFIG = {
    "name": "bench",
    "major": "1",
    "minor": "0",
    "base_image": BASE,
    "mounts": ["webserver.tar /webserver READ", "homedir.tar /home READWRITE"],
    "startup_script": "/webserver/sleep.sh",
    "startup_owner": "root",
    "startup_env": "",
}


def make_images(folder: Path) -> None:
    """Lay out base_images/ and mountables/: the project's, with a script that only sleeps."""
    for name in ("base_images", "mountables"):
        (folder / name).mkdir()
    for name in BASES:
        (folder / "base_images" / name).symlink_to(ROOT / "base_images" / BASE)
    for name in ("webserver.tar", "homedir.tar"):
        shutil.copy(ROOT / "mountables" / name, folder / "mountables")
    with tarfile.open(folder / "mountables/webserver.tar", "a") as tarball:
        script = tarfile.TarInfo("webserver/sleep.sh")
        script.size, script.mode = len(SCRIPT), 0o755
        tarball.addfile(script, io.BytesIO(SCRIPT))


class Manager:
    """A manager with ``warm`` inits at least, on a state folder and a port of its own."""

    def __init__(
        self, images: Path, state: Path, warm: int, *options: str, token: str = ""
    ) -> None:
        self.images, self.state, self.warm, self.options = images, state, warm, options
        self.port = free_port()
        self.client = Connection(self.port, token)

    def start(self) -> None:
        """Start it; returns at once."""
        self.process = processes.start(
            [
                str(Path(sys.executable).parent / "twistd"),
                "--nodaemon",
                "--pidfile=",
                f"--logfile={self.state}.log",
                "containerd-lite",
                f"--state={self.state}",
                f"--base-images={self.images / 'base_images'}",
                f"--mountables={self.images / 'mountables'}",
                f"--port={self.port}",
                f"--pool={self.warm}",
                *self.options,
            ],
            cwd=ROOT,
        )

    def stop(self) -> None:
        """Stop it; its containers run on."""
        processes.stop(self.process)
        self.client.close()

    def wait_until_listed(self, count: int) -> None:
        """Wait until it answers, and lists so many instances."""

        def is_right(answer: dict[str, list[str]]) -> bool:
            return len(answer["instances"]) == count

        ask_until(self.client, "/list", is_right, self.process)

    def upload(self, **changes: Any) -> dict[str, str]:
        """Upload the config with these changes (None: without it); returns what launches it."""
        changed = {**CONFIG, **changes}
        config = {key: value for key, value in changed.items() if value is not None}
        self.client.ask("POST", "/config", config)
        return {key: str(config[key]) for key in ("name", "major", "minor")}

    def launch(self, config: dict[str, str]) -> str:
        """Launch a config; returns the instance's name."""
        name: str = self.client.ask("POST", "/launch", config)["instance"]
        return name

    def destroy(self, name: str) -> None:
        """Destroy an instance."""
        self.client.ask("DELETE", f"/destroy/{name}")

    def destroy_all(self) -> None:
        """Destroy all instances."""
        self.client.ask("DELETE", "/destroyall")

    def inspect(self, name: str) -> dict[str, Any]:
        """All that is known of an instance."""
        record: dict[str, Any] = self.client.ask("GET", f"/instances/{name}")
        return record

    def monitors(self) -> list[int]:
        """The pids of the processes outside of containers that it has started."""
        return processes.on_the_host(processes.descendants(self.process.pid))


@contextmanager
def running(
    images: Path, state: Path, warm: int, *options: str, token: str = ""
) -> Iterator[Manager]:
    """A manager that runs; in the end nothing of it is left."""
    manager = Manager(images, state, warm, *options, token=token)
    manager.start()
    try:
        manager.wait_until_listed(0)
        time.sleep(1)  # for its warm inits
        yield manager
    finally:
        manager.client.close()  # it may have been idle for too long
        with suppress(Refused, OSError):  # what then is left, is killed in the end
            manager.destroy_all()
        manager.stop()


def seconds(action: Callable[[], Any]) -> float:
    """How long an action takes."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before
