"""Images of a registry: pulls in turns with skopeo and umoci and with Docker, and launches."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from bench import processes
from bench.client import free_port
from bench.contestants import Contestant, Docker, Missing, Txcontain, needed
from bench.manager import BASE, Manager, running, seconds
from bench.measure import Figure, side_by_side

OCI, REF_NAME = "application/vnd.oci.image", "org.opencontainers.image.ref.name"
LAYERS, EACH = 5, 60  # of the image; MB of each
WHAT = f"pull of a {LAYERS * EACH} MB image of {LAYERS} layers"
TARBALL, IMAGE = "a launch of the tarball", f"image of {LAYERS} layers"
# The registry's log: a blob that was sent, and how many bytes of it.
SENT = re.compile(r'"GET /v2/app/blobs/\S+ HTTP/1.1" 20[06] (\d+)')


class Registry:
    """A registry with an image as app:1, and as app:2 with another layer at the top."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.where = folder, f"127.0.0.1:{free_port()}"
        self.skopeo, self.umoci = needed("skopeo"), needed("umoci")
        program = needed("docker-registry")
        self._build(root)
        config = folder / "registry.json"
        storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
        said = {"version": 0.1, "storage": storage, "http": {"addr": self.where}}
        config.write_text(json.dumps(said))
        with open(folder / "registry.log", "wb") as log:
            serve = [program, "serve", str(config)]
            self.process = processes.start(serve, stdout=log, stderr=log)
        self._wait()
        for tag in ("1", "2"):
            source = f"oci:{folder}/layout:{tag}"
            self.run(self.skopeo, "copy", "--dest-tls-verify=false", source, self.source(tag))

    def run(self, *command: str) -> None:
        """Run a program."""
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    def _build(self, root: Path) -> None:
        """A layout: the base system, then layers of what can't be compressed."""
        self.blobs = self.folder / "layout/blobs/sha256"
        self.blobs.mkdir(parents=True)
        layers = [self._layer(root)]
        for number in range(1, LAYERS):
            layers.append(self._layer(self._fill(f"filler-{number}")))
        other = [*layers[:-1], self._layer(self._fill("other"))]
        images = [
            {**self._image(*one), "annotations": {REF_NAME: tag}}
            for tag, one in (("1", layers), ("2", other))
        ]
        layout = self.folder / "layout"
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": images}))
        self.last = other[-1][0]["size"]

    def _fill(self, name: str) -> Path:
        folder = self.folder / name
        (folder / name).mkdir(parents=True)
        for number in range(EACH):
            (folder / name / str(number)).write_bytes(os.urandom(1 << 20))
        return folder

    def _layer(self, folder: Path) -> tuple[dict[str, Any], str]:
        """The descriptor of a layer, and the digest of its tarball."""
        tarball = self.folder / "layer.tar"
        self.run("tar", "--create", f"--file={tarball}", f"--directory={folder}", ".")
        diff = sha256(tarball.read_bytes()).hexdigest()
        self.run("gzip", "-1n", str(tarball))
        packed = tarball.with_suffix(".tar.gz")
        described = self._blob(packed.read_bytes(), "layer.v1.tar+gzip")
        packed.unlink()
        return described, f"sha256:{diff}"

    def _image(self, *layers: tuple[dict[str, Any], str]) -> dict[str, Any]:
        """The descriptor of an image of these layers."""
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
        config = {
            "os": "linux",
            "architecture": machine,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in layers]},
        }
        described = self._blob(json.dumps(config).encode(), "config.v1+json")
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": described,
            "layers": [layer for layer, _ in layers],
        }
        return self._blob(json.dumps(manifest).encode(), "manifest.v1+json")

    def _blob(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    def _wait(self) -> None:
        host, _, port = self.where.partition(":")
        for _ in range(500):
            with suppress(OSError), socket.create_connection((host, int(port)), 1):
                return
            time.sleep(0.02)
        raise Missing("docker-registry does not listen")

    def source(self, tag: str) -> str:
        """What skopeo calls an image of it."""
        return f"docker://{self.where}/app:{tag}"

    def sent(self) -> int:
        """The bytes of blobs that it has sent so far."""
        return sum(map(int, SENT.findall((self.folder / "registry.log").read_text())))

    # -- the contestants: each gets app:1, and then has nothing of it -------------------

    def by_others(self) -> float:
        """Seconds of skopeo copy and umoci unpack."""
        layout, bundle = f"{self.folder}/copied", f"{self.folder}/unpacked"
        words = "--src-tls-verify=false", self.source("1"), f"oci:{layout}:1"

        def get() -> None:
            self.run(self.skopeo, "copy", *words)
            self.run(self.umoci, "unpack", f"--image={layout}:1", bundle)

        took = seconds(get)
        for folder in (layout, bundle):
            shutil.rmtree(folder)
        return took

    def by_docker(self, docker: Docker) -> float:
        """Seconds of a pull by Docker."""
        path = f"/images/create?fromImage={quote(f'{self.where}/app', safe='')}&tag=1"

        def pull() -> None:
            docker.client.send_bytes("POST", path, b"")
            docker.client.answer_bytes()

        took = seconds(pull)
        docker.client.ask("DELETE", f"/images/{self.where}/app:1")
        return took

    def by_us(self, manager: Manager) -> float:
        """Seconds of our pull."""
        took = seconds(lambda: self.pull(manager, "1"))
        manager.client.ask("DELETE", f"/images/{quote(f'{self.where}/app:1', safe='')}")
        manager.client.ask("POST", "/prune")
        return took

    def pull(self, manager: Manager, tag: str) -> dict[str, Any]:
        """What our manager tells of the image that it has pulled."""
        asked = {"name": f"{self.where}/app:{tag}", "insecure": True}
        told: dict[str, Any] = manager.client.ask("POST", "/images", asked)
        return told


@contextmanager
def serving(root: Path, folder: Path) -> Iterator[Registry]:
    """A registry, which is ended. Raises Missing."""
    folder.mkdir()
    registry = Registry(root, folder)
    try:
        yield registry
    finally:
        processes.stop(registry.process)


def figures(
    images: Path, root: Path, folder: Path, docker: Docker | None, rounds: int, in_turns: int
) -> list[Figure]:
    """All of them; none if a program is missing.

    :param root: the base image, unpacked
    :param rounds: pulls by each
    :param in_turns: how often launches of an image and of a tarball take turns
    """
    try:
        with serving(root, folder) as registry, running(images, folder / "state", 2) as manager:
            found = pulls(registry, manager, docker, rounds)
            found.append(changed(registry, manager))
            return [*found, launches(registry, manager, in_turns)]
    except Missing as error:
        print(f"No pulls are measured: {error}.")
        return []


def pulls(registry: Registry, manager: Manager, docker: Docker | None, rounds: int) -> list[Figure]:
    """A whole image from a registry of this machine, in turns."""
    ways: dict[str, Callable[[], float]] = {
        "us": partial(registry.by_us, manager),
        "skopeo copy + umoci unpack": registry.by_others,
    }
    if docker:
        ways["docker pull"] = partial(registry.by_docker, docker)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            os.sync()
            took[name].append(way())
    middle = {name: median(each[1:]) for name, each in took.items()}  # the first fills caches
    goals = {"skopeo copy + umoci unpack": "≤ 1.1 x", "docker pull": "≤ 1 x"}
    return [
        Figure(WHAT, "s", middle["us"], name, middle[name], goal)
        for name, goal in goals.items()
        if name in middle
    ]


def changed(registry: Registry, manager: Manager) -> Figure:
    """The bytes that a pull moves if only one layer has changed."""
    registry.pull(manager, "1")
    before = registry.sent()
    registry.pull(manager, "2")
    moved = registry.sent() - before
    what = "pull of the same with one layer changed, moves"
    return Figure(what, "MB", moved / 1e6, "that layer", registry.last / 1e6, "≤ 1.01 x")


def launches(registry: Registry, manager: Manager, rounds: int) -> Figure:
    """Launches of the image, in turns with those of its root as a tarball."""
    common: dict[str, Any] = {"mounts": [], "startup_script": None, "command": ["sleep", "1000"]}
    field: list[Contestant] = [
        Txcontain(manager, IMAGE, minor="1", base_image=f"{registry.where}/app:1", **common),
        Txcontain(manager, TARBALL, minor="2", base_image=BASE, writable_root=True, **common),
    ]
    for one in field:
        one.end(one.finish(one.begin()))
    samples = side_by_side(field, rounds)
    ours, theirs = (median(samples[one.name].launch) * 1e3 for one in field)
    return Figure(f"launch of an {IMAGE}", "ms", ours, TARBALL, theirs, "≤ 1.05 x")
