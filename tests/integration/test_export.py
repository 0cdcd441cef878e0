"""Configs as images and documents: what skopeo, umoci, Docker and Compose make of them."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.certificates import Authority
from tests.images.archives import image
from tests.integration.harness import (
    PATIENCE,
    PROJECT,
    Answer,
    ManagerCase,
    fingerprint,
    free_port,
    groups_at,
    listens,
    wait_until,
)
from tests.integration.tarballs import (
    Member,
    device,
    file,
    folder,
    link,
    script,
    small_image,
    special,
)
from tests.support import PROGRAMS, needs_programs, needs_user_namespaces, unmount

# The password s3cret, by bcrypt: the only kind of hash that the registry takes.
S3CRET = "$2b$05$p/NdZgf3qFIxWX6OzgkfTOoPZKYYWOTQXIoCozLc4DmOH.9VntUh2"
# Made by every engine, wherever it is told to work.
OF_DOCKER = ("/run/docker", "/run/containerd")
LARGE = 32 << 20  # bytes
OF_PODMAN = ("/run/libpod",)


def run(*command: str | os.PathLike[str], **environment: str) -> str:
    """What a program of another's says; fails if it fails."""
    result = subprocess.run(
        command,
        env={"PATH": PROGRAMS, "HOME": "/root", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if result.returncode:
        raise AssertionError(f"{command} failed: {result.stdout}{result.stderr}")
    return result.stdout


def have_alone(test: ManagerCase, *paths: str) -> None:
    """Have paths of the whole machine until a test ends, and then remove those that were not there.

    Other tests run at the same time. Their engines use these paths too: each waits for its turn.
    """
    lock = os.open("/run", os.O_RDONLY)
    test.addCleanup(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for path in paths:
        if not os.path.lexists(path):
            test.addCleanup(shutil.rmtree, path, ignore_errors=True)


def remove_groups(path: str) -> None:
    """Remove the groups that an engine leaves, in all hierarchies."""
    for top in groups_at(path):
        for group, _, _ in os.walk(top, topdown=False):  # each after those below it
            with contextlib.suppress(OSError):  # another engine uses it, or has removed it
                os.rmdir(group)


def app() -> tuple[Member, ...]:
    """A tarball with all that a layer can hold."""
    owned = file("data/owned", "mine", 0o4640)
    owned[0].uid, owned[0].gid = 1000, 2000
    dated = file("dated", "x")
    dated[0].mtime, dated[0].pax_headers = 1.25, {"SCHILY.xattr.user.kind": "é", "mtime": "1.25"}
    return (
        folder("data", 0o2750),
        owned,
        dated,
        special("again", tarfile.LNKTYPE, "data/owned"),
        special("pipe", tarfile.FIFOTYPE, mode=0o600),
        link("out", "/etc/passwd"),
        file("deep/below/file", "no folder of its own"),
        file("n" * 150 + "é", "a long name"),
        script("run", "#!/bin/sh\necho $GREETING; cat /opt/app/data/more /etc/app.conf\n"),
    )


class ExportCase(ManagerCase):
    """A test that exports a config."""

    def add_images(self) -> None:
        """The base has something where the tarball is mounted, which that hides."""
        self.image("small.tar", folder("opt/app"), file("opt/app/hidden"), link("srv", "opt"))
        self.mountable("app.tar", *app())
        self.mountable("more.tar", file("more", "more"))

    def keys(self, **more: Any) -> dict[str, Any]:
        """A config with two layers above its base, one in the other."""
        return {
            "mounts": ["more.tar /opt/app/data READ", "app.tar /srv/app READ"],
            "startup_script": "/opt/app/run",
            "startup_env": {"GREETING": "hello"},
            "files": [{"path": "/etc/app.conf", "content": "configured", "mode": "0600"}],
            **more,
        }

    def name_of(self, **more: Any) -> str:
        """The path of a new config with these keys."""
        return self.path_of(self.upload(**self.keys(**more)))

    def path_of(self, key: dict[str, str]) -> str:
        """Where a config is exported."""
        return f"/configs/{key['name']}-{key['major']}-{key['minor']}/export"

    def export(self, path: str, target: str, **more: str) -> bytes:
        """What a config is exported as."""
        query = "&".join(f"{name}={value}" for name, value in {"to": target, **more}.items())
        answer = self.ask("GET", f"{path}?{query}")
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.body

    def layout(self, path: str) -> Path:
        """A config as an OCI image layout, tagged as 1."""
        where = self.folder / "layout"
        with tarfile.open(fileobj=io.BytesIO(self.export(path, "oci", image="app:1"))) as archive:
            archive.extractall(where)
        return where


class ImageTests(ExportCase):
    """A config becomes an image."""

    @needs_programs("skopeo")
    def test_skopeo(self) -> None:
        """skopeo reads the image, and copies it, for which it checks every digest."""
        layout = self.layout(self.name_of())
        told = json.loads(run("skopeo", "inspect", f"oci:{layout}:1"))
        self.assertIn("GREETING=hello", told["Env"])
        self.assertEqual(len(told["Layers"]), 4)
        run("skopeo", "copy", f"oci:{layout}:1", f"oci:{self.folder}/copy:1")

    def test_left_out(self) -> None:
        """What of a tarball is in no layer is named, and so is what an image can't say."""
        self.mountable("more.tar", device("null", tarfile.CHRTYPE, 1, 3))
        path = self.name_of(limits={"memory": "64M"})
        answer = self.ask("GET", f"{path}?to=oci")
        self.assertIn(
            "left out of more.tar: 1 device nodes (null); see docs/images.md", answer.notes
        )
        self.assertIn("limits.memory: an image says what is run, and not how", answer.notes)

    @needs_programs("umoci")
    def test_umoci(self) -> None:
        """umoci unpacks it to the files that our own layers have."""
        layout = self.layout(self.name_of())
        run("umoci", "unpack", "--image", f"{layout}:1", self.folder / "bundle")
        found = fingerprint(self.folder / "bundle/rootfs")
        wanted = self.files_of_layers()
        for name, (mode, uid, gid, _, content) in wanted.items():
            self.assertEqual(found[name][:3] + found[name][4:], (mode, uid, gid, content), name)
        self.assertEqual(set(found), set(wanted))
        times = {name: facts[3] for name, facts in found.items() if not name.endswith("pipe")}
        self.assertEqual(times["opt/app/dated"], 1_250_000_000)
        root = self.folder / "bundle/rootfs/opt/app"
        self.assertEqual(os.getxattr(root / "dated", "user.kind"), "é".encode())

    @needs_programs("umoci")
    def test_of_an_image(self) -> None:
        """A config of an image with several layers is exported with what they hide, and its own."""
        lower = [*small_image(), folder("a"), file("a/gone"), folder("b"), file("b/gone")]
        upper = [
            folder("a"),
            file("a/.wh.gone"),
            file("a/new"),
            folder("b"),
            file("b/.wh..wh..opq"),
        ]
        made = image([lower, upper], cmd=("/opt/app/run",), env=("A=of the image",))
        answer = self.ask("PUT", "/images?name=base:1", made.archive())
        self.assertEqual(answer.status, 200, answer.reason)
        path = self.path_of(self.upload(base_image="base:1", mounts=self.keys()["mounts"]))
        layout = self.layout(path)
        run("umoci", "unpack", "--image", f"{layout}:1", self.folder / "bundle")
        root = self.folder / "bundle/rootfs"
        self.assertEqual([one.name for one in (root / "a").iterdir()], ["new"])
        self.assertEqual([*(root / "b").iterdir()], [])
        self.assertTrue((root / "opt/app/data/more").exists())
        config = json.loads((self.folder / "bundle/config.json").read_text())
        self.assertEqual(config["process"]["args"], ["/opt/app/run"])
        self.assertIn("A=of the image", config["process"]["env"])

    def files_of_layers(self) -> dict[str, tuple[Any, ...]]:
        """What the layers of the manager have, each at its place, and the config's own file."""
        found: dict[str, tuple[Any, ...]] = {}
        for tarball, place in (
            ("small.tar", ""),
            ("app.tar", "opt/app"),
            ("more.tar", "opt/app/data"),
        ):
            hidden = [name for name in found if place and name.startswith(f"{place}/")]
            for name in hidden:
                del found[name]
            tree = self.layer_of(tarball)
            found |= {os.path.join(place, name): facts for name, facts in fingerprint(tree).items()}
        status = self.layer_of("more.tar").stat()
        found["opt/app/data"] = (status.st_mode, status.st_uid, status.st_gid, 0, "")
        content = hashlib.sha256(b"configured").hexdigest()
        found["etc/app.conf"] = (0o100600, 0, 0, 0, content)
        return found

    def layer_of(self, tarball: str) -> Path:
        """The layer of a tarball."""
        for record in self.state.glob("layers/*.json"):
            if json.loads(record.read_text())["tarball"].endswith(f"/{tarball}"):
                return record.with_suffix("")
        raise AssertionError(f"there is no layer of {tarball}")

    def test_twice(self) -> None:
        """The same tarballs become the same bytes, also if they are unpacked anew later."""
        path = self.name_of()
        first = self.export(path, "oci")
        self.assertEqual(self.export(path, "oci"), first)
        self.assertEqual(self.ask("POST", "/prune").status, 200)
        self.assertEqual([*self.state.glob("layers/*/")], [])
        for tarball in self.folder.glob("*/*.tar"):
            shutil.copyfile(tarball, f"{tarball}.new")  # another file, with other times
            os.replace(f"{tarball}.new", tarball)
        time.sleep(1.1)  # so that it is another second
        self.assertEqual(self.export(path, "oci"), first)


class Killed(ExportCase):
    """A manager, or a command, that is killed in the middle of an export."""

    def add_images(self) -> None:
        """And a layer that no buffers of pipes and sockets can hold."""
        super().add_images()
        self.mountable("app.tar", *app(), file("large", "x" * LARGE))
        self.out = self.folder / "out"
        self.out.mkdir()

    def begin(self, config: dict[str, str], *target: Any) -> subprocess.Popen[bytes]:
        """Begin to export a config by the command."""
        program = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, "export"]
        words = [*config.values(), "--to", *map(str, target)]
        exporting = subprocess.Popen([*program, *words], cwd=PROJECT, stderr=subprocess.PIPE)
        self.addCleanup(exporting.communicate)
        self.addCleanup(exporting.kill)
        return exporting

    def left_out(self) -> list[str]:
        """What is where the exports go."""
        return sorted(one.name for one in self.out.iterdir())

    def kept(self) -> list[str]:
        """What the manager has of images and layers."""
        tops = ("run/images", "run/packing", "images", "layers")
        return sorted(f"{top}/{name}" for top in tops for name in os.listdir(self.state / top))

    def end_manager(self) -> None:
        """Kill the manager, and start the next one."""
        self.manager.kill()
        self.manager.wait()
        self.start()

    def test_command(self) -> None:
        """What a command that is killed leaves is removed by the next one."""
        config = self.upload(**self.keys())
        for kind, name in (("oci", "folder"), ("docker-archive", "file.tar")):
            self.manager.send_signal(signal.SIGSTOP)
            try:
                killed = self.begin(config, kind, self.out / name)
                wait_until(self.left_out, "it has begun")
                killed.kill()
                killed.wait(PATIENCE)
                (part,) = self.left_out()
                self.assertTrue(part.startswith(f"{name}.") and part.endswith(".part"), part)
            finally:
                self.manager.send_signal(signal.SIGCONT)
            again = self.begin(config, kind, self.out / name)
            self.assertEqual(again.wait(PATIENCE), 0)
            self.assertEqual(self.left_out(), [name])
            shutil.move(self.out / name, self.folder)

    def test_manager(self) -> None:
        """A manager that is killed leaves nothing, and its command says so; then it works again."""
        config = self.upload(**self.keys())
        first = self.export(self.path_of(config), "docker-archive")
        before = self.kept()
        pipe = self.out / "pipe"
        os.mkfifo(pipe)
        exporting = self.begin(config, "docker-archive", pipe)
        with open(pipe, "rb") as reader:
            self.assertEqual(reader.read(1 << 16), first[: 1 << 16])  # it is in the middle
            self.end_manager()
            self.assertLess(len(reader.read()), len(first) - (1 << 16))
        _, said = exporting.communicate(timeout=PATIENCE)
        self.assertEqual(exporting.returncode, 1)
        self.assertTrue(said)
        wait_until(lambda: self.kept() == before, "nothing is left of it")
        self.assertEqual(self.export(self.path_of(config), "docker-archive"), first)

    def test_push(self) -> None:
        """A push goes on to its end without its command; a manager that is killed cuts it off."""
        config = self.upload(**self.keys())
        self.export(self.path_of(config), "docker-archive")
        before = self.kept()
        with Slow(("127.0.0.1", 0), Waits) as registry:
            serving = threading.Thread(target=registry.serve_forever, daemon=True)
            serving.start()
            self.addCleanup(serving.join, PATIENCE)
            self.addCleanup(registry.shutdown)
            pushing = self.begin_push(registry, config)
            pushing.kill()
            pushing.wait(PATIENCE)
            registry.go_on.set()
            wait_until(lambda: "/v2/app/manifests/1" in registry.whole, "it is pushed")
            registry.go_on.clear()
            registry.begun.clear()
            pushing = self.begin_push(registry, config)
            self.end_manager()
            self.assertEqual(pushing.wait(PATIENCE), 1)
            wait_until(lambda: self.kept() == before, "nothing is left of it")
            registry.whole.clear()
            registry.go_on.set()
            self.assertTrue(registry.cut.wait(PATIENCE), "it goes on")
            self.assertNotIn("/v2/app/manifests/1", registry.whole)  # small blobs may be

    def begin_push(self, registry: "Slow", config: dict[str, str]) -> subprocess.Popen[bytes]:
        """Begin to push, and wait until the large blob comes."""
        image = f"127.0.0.1:{registry.server_port}/app:1"
        pushing = self.begin(config, "registry", image, "--insecure")
        self.assertTrue(registry.begun.wait(PATIENCE), "it has not begun")
        return pushing


class Slow(ThreadingHTTPServer):
    """A registry that takes the beginning of a blob, and no more before it is to go on."""

    daemon_threads = True

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self.begun, self.go_on, self.cut = (threading.Event() for _ in range(3))
        self.whole: list[str] = []  # the paths of what came as a whole

    def handle_error(self, *_: Any) -> None:
        """Connections are cut here."""


class Waits(BaseHTTPRequestHandler):
    """An answer of it."""

    protocol_version = "HTTP/1.1"
    server: Slow

    def do_HEAD(self) -> None:
        """It has nothing."""
        self.answer(404)

    def do_POST(self) -> None:
        """A blob may come."""
        self.answer(202, Location="/upload")

    def do_PUT(self) -> None:
        """Take what comes, to its end or until it is cut off."""
        left = int(self.headers["Content-Length"])
        if left >= LARGE:
            self.server.begun.set()
        self.server.go_on.wait(PATIENCE)
        with contextlib.suppress(ConnectionError):
            while left and (data := self.rfile.read(min(left, 1 << 20))):
                left -= len(data)
        if left:
            self.server.cut.set()
            return
        self.server.whole.append(self.path)
        self.answer(201)

    def answer(self, code: int, **headers: str) -> None:
        """Answer without a body."""
        self.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class RegistryCase(ExportCase):
    """A test with a registry of its own."""

    def settings(self) -> dict[str, Any]:
        """What its configuration has beside its folder and its address."""
        return {}

    def add_images(self) -> None:
        """Write the registry's configuration, too: the manager's options may depend on it."""
        super().add_images()
        self.registry = f"127.0.0.1:{free_port()}"
        told = self.settings()
        http = {"addr": self.registry, **told.pop("http", {})}
        storage = {"filesystem": {"rootdirectory": str(self.folder / "registry")}}
        settings = {"version": 0.1, "storage": storage, "http": http, **told}
        (self.folder / "registry.json").write_text(json.dumps(settings))

    def setUp(self) -> None:
        """Start the registry when the manager runs: it ends before what is left is looked for."""
        super().setUp()
        command = ["docker-registry", "serve", str(self.folder / "registry.json")]
        self.said = self.folder / "registry.log"
        with open(self.said, "wb") as log:
            serving = subprocess.Popen(
                command, env={"PATH": PROGRAMS}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.addCleanup(serving.wait, PATIENCE)
        self.addCleanup(serving.terminate)
        wait_until(lambda: listens(int(self.registry.rpartition(":")[2])), "the registry listens")

    def push(self, path: str, name: str, **more: Any) -> Answer:
        """Push a config's image."""
        asked = {"image": f"{self.registry}/{name}", "insecure": True, **more}
        return self.ask("POST", path.replace("/export", "/push"), asked)


@needs_programs("docker-registry", "skopeo")
class RegistryTests(RegistryCase):
    """A registry takes what is here."""

    def uploads(self, tag: str) -> int:
        """How many blobs and manifests the registry was sent, up to a tag.

        It logs a request after its answer.
        """
        wait_until(lambda: f'"PUT /v2/shop/app/manifests/{tag} ' in self.said.read_text(), tag)
        return self.said.read_text().count('"PUT /v2/')

    def test_push(self) -> None:
        """It is there under its name and digest; pushed again, only what is new is sent."""
        path = self.name_of(limits={"memory": "64M"})
        first = self.push(path, "shop/app:1")
        self.assertEqual(first.status, 200, first.reason)
        self.assertIn("limits.memory: an image says what is run, and not how", first.notes)
        where = f"docker://{self.registry}/shop/app:1"
        told = json.loads(run("skopeo", "inspect", "--tls-verify=false", where))
        self.assertEqual(told["Digest"], first.json["digest"])
        target = f"oci:{self.folder}/copy:1"  # for which it checks every digest
        run("skopeo", "copy", "--src-tls-verify=false", where, target)
        self.assertEqual(self.uploads("1"), 4 + 1 + 1)  # layers, config, manifest
        again = self.push(path, "shop/app:2")
        self.assertEqual(again.json["digest"], first.json["digest"])
        self.assertEqual(self.uploads("2"), 4 + 1 + 1 + 1)

    def test_refused(self) -> None:
        """What can't be pushed is refused with a sentence."""
        path = self.name_of()
        for name, said, more in (
            ("app@sha256:" + "0" * 64, "an image is pushed under a tag", {}),
            ("APP", "is not the name of an image", {}),
            ("app:1", "can't be asked", {"insecure": False}),
        ):
            answer = self.push(path, name, **more)
            self.assertEqual(answer.status, 409)
            self.assertIn(said, answer.reason)


@needs_programs("docker-registry")
class GuardedRegistryTests(RegistryCase):
    """A registry with TLS and a login takes it, too."""

    def settings(self) -> dict[str, Any]:
        """Its certificate is of a CA that the manager is told of, and so is the login."""
        (self.folder / "pki").mkdir()
        authority = Authority(self.folder / "pki")
        certificate, key = authority.issue("registry", "127.0.0.1")
        trusted = self.folder / "certificates" / self.registry
        trusted.mkdir(parents=True)
        shutil.copy(authority.certificate, trusted / "ca.crt")
        (self.folder / "htpasswd").write_text(f"ann:{S3CRET}\n")
        self.log_in("s3cret")
        self.options = (
            *("--registry-certificates", str(self.folder / "certificates")),
            *("--registry-logins", str(self.folder / "logins.json")),
        )
        guard = {"realm": "test", "path": str(self.folder / "htpasswd")}
        return {
            "http": {"tls": {"certificate": certificate, "key": key}},
            "auth": {"htpasswd": guard},
        }

    def log_in(self, password: str) -> None:
        """Do what `docker login` does."""
        login = b64encode(f"ann:{password}".encode()).decode()
        logins = {"auths": {self.registry: {"auth": login}}}
        (self.folder / "logins.json").write_text(json.dumps(logins))

    def test_login(self) -> None:
        """The right login is taken, and a wrong one is refused with what to do.

        What was pushed comes back by its digest, and says what it says here.
        """
        key = self.upload(**self.keys())
        path = self.path_of(key)
        answer = self.push(path, "app:1", insecure=False)
        self.assertEqual(answer.status, 200, answer.reason)
        name = f"{self.registry}/app@{answer.json['digest']}"
        back = self.ask("POST", "/images", {"name": name})
        self.assertEqual((back.status, back.reason), (200, ""))
        self.assertEqual(back.json["digest"], answer.json["digest"])
        said = [self.output_of(self.launch(base_image=name))]
        said.append(self.output_of(self.ask("POST", "/launch", key).json["instance"]))
        self.assertEqual(said, ["hello\nmoreconfigured"] * 2)
        self.log_in("wrong")
        answer = self.push(path, "app:2", insecure=False)
        self.assertEqual(answer.status, 409)
        self.assertIn("log in: `docker login`", answer.reason)


class CommitTests(ExportCase):
    """An instance is kept as an image."""

    def commit(self, instance: str, name: str) -> Answer:
        """Keep it."""
        return self.ask("POST", f"/instances/{instance}/commit", {"image": name})

    def kept(self, **more: Any) -> str:
        """What a container of the image of another one sees, which has written."""
        text = (
            "echo new > /new; rm /etc/group; rm -r /opt/app/hidden; mkdir /opt/app/empty; "
            "echo mine > /data/dated; chown 1000:2000 /new; rm -r /data/data"
        )
        mounts = ["app.tar /data READWRITE"]
        instance = self.running_inside(text, writable_root=True, mounts=mounts, **more)
        answer = self.commit(instance, "app:2")
        self.assertEqual(answer.status, 200, answer.reason)
        self.assertEqual(answer.json["image"], "app:2")
        self.assertEqual(self.running(), [instance])
        look = (
            "cat /new /data/dated; ls -n /new | grep -c '1000 2000'; ls /opt/app; "
            "ls /etc/group /data/data 2>/dev/null; cat /data/deep/below/file"
        )
        return self.inside(look, base_image="app:2")

    def test_commit(self) -> None:
        """What was added, changed and removed is so in the image, on the layers it came from."""
        self.assertEqual(self.kept(), "new\nmine\n1\nempty\nno folder of its own")

    @needs_user_namespaces
    def test_user_namespace(self) -> None:
        """Owners are as the container saw them, whatever ids it had on the host."""
        said = self.kept(user_namespace=True)
        self.assertEqual(said, "new\nmine\n1\nempty\nno folder of its own")

    def test_ended(self) -> None:
        """An instance that has ended is kept, too."""
        instance = self.launch(**self.job("#!/bin/sh\necho x > /x\n", writable_root=True))
        self.output_of(instance)
        self.assertEqual(self.commit(instance, "app:3").status, 200)
        self.assertEqual(self.inside("cat /x", base_image="app:3"), "x\n")

    def test_bounded(self) -> None:
        """What can't be kept is refused with a sentence, and nothing is kept."""
        bounded = self.running_inside("true", limits={"disk": "1M"})
        for name, said in (
            ("app:2", "is in a file system of its own (limits.disk, disk_size)"),
            ("APP", "is not the name of an image"),
            ("app@sha256:" + "0" * 64, "an image is kept under a tag"),
        ):
            answer = self.commit(bounded, name)
            self.assertEqual(answer.status, 409)
            self.assertIn(said, answer.reason)
        self.assertEqual(self.ask("GET", "/images").json, {"images": []})


@needs_programs("dockerd", "docker")
class DockerTests(ExportCase):
    """Docker runs what is here."""

    def setUp(self) -> None:
        super().setUp()
        have_alone(self, *OF_DOCKER)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[list[str]]:
        """A Docker engine of the test's own: the command that asks it."""
        where = self.folder / "docker"
        where.mkdir()
        socket = f"unix:///run/txcontain-test-{os.getpid()}.sock"
        command = [
            *("dockerd", f"--data-root={where}/data", f"--exec-root={where}/exec"),
            *(f"--pidfile={where}/pid", f"--host={socket}", "--bridge=none", "--iptables=false"),
            *("--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--log-level=error"),
            *("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self.folder.name}"),
        ]
        with open(where / "log", "wb") as log:
            engine = subprocess.Popen(
                command, env={"PATH": PROGRAMS}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            ask = ["docker", f"--host={socket}"]
            wait_until(lambda: self.answers_to([*ask, "version"], engine), "Docker answers")
            yield ask
        finally:
            engine.send_signal(signal.SIGTERM)
            try:
                engine.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                engine.kill()
                engine.wait()
            of_host = where / "exec/netns/default"  # a container on the host's network leaves it
            if os.path.ismount(of_host):
                unmount(of_host)
            remove_groups(self.folder.name)

    def answers_to(self, command: list[str], engine: subprocess.Popen[bytes]) -> bool:
        """Whether a command works already."""
        if engine.poll() is not None:
            self.fail((self.folder / "docker/log").read_text()[-2000:])
        with contextlib.suppress(AssertionError):
            return bool(run(*command))
        return False

    def test_run(self) -> None:
        """What the container says here it says there, too."""
        here = self.output_of(self.launch(**self.keys()))
        archive = self.folder / "image.tar"
        archive.write_bytes(self.export(self.name_of(), "docker-archive", image="app:1"))
        with self.daemon() as docker:
            self.assertIn("app:1", run(*docker, "load", "--input", archive))
            there = run(*docker, "run", "--rm", "--network=none", "app:1")
            history = run(*docker, "history", "--no-trunc", "app:1")
        self.assertEqual(there, here)
        self.assertEqual(here, "hello\nmoreconfigured")
        self.assertIn("app.tar at /srv/app", history)

    @needs_programs("docker-compose")
    def test_composed(self) -> None:
        """`docker-compose up` runs its file with the image: the container says the same."""
        here = self.output_of(self.launch(**self.keys()))
        archive, file = self.folder / "image.tar", self.folder / "compose.yaml"
        path = self.name_of(limits={"memory": "64M"})
        archive.write_bytes(self.export(path, "docker-archive", image="app:1"))
        file.write_bytes(self.export(path, "compose", image="app:1"))
        with self.daemon() as (_, *host):
            run("docker", *host, "load", "--input", archive)
            compose = "docker-compose", *host, "--file", str(file), "--project-name", "shop"
            try:
                run(*compose, "up", "--detach")
                (container,) = run(*compose, "ps", "--quiet").split()
                self.assertEqual(run("docker", *host, "wait", container), "0\n")
                self.assertEqual(run("docker", *host, "logs", container), here)
            finally:
                run(*compose, "down")

    def test_saved(self) -> None:
        """What `docker save` writes is loaded, and says here what it says there."""
        archive, saved = self.folder / "image.tar", self.folder / "saved.tar"
        archive.write_bytes(self.export(self.name_of(), "docker-archive", image="app:1"))
        with self.daemon() as docker:
            run(*docker, "load", "--input", archive)
            run(*docker, "save", "--output", saved, "app:1")
        answer = self.ask("PUT", "/images", saved.read_bytes())
        self.assertEqual((answer.status, answer.reason), (200, ""))
        here = self.output_of(self.launch(base_image="app:1"))
        self.assertEqual(here, "hello\nmoreconfigured")


@needs_programs("podman", "runc", "catatonit")
class PodmanTests(ExportCase):
    """Podman runs what is here."""

    def setUp(self) -> None:
        super().setUp()
        limits = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        (self.folder / "containers.conf").write_text(limits)  # the usual ones are for real root
        have_alone(self, *OF_PODMAN)
        self.addCleanup(remove_groups, "libpod_parent")

    def podman(self, *words: str | os.PathLike[str]) -> str:
        """What Podman says, which works in the folder of the test."""
        where = self.folder / "podman"
        return run(
            *("podman", f"--root={where}/root", f"--runroot={where}/run", f"--tmpdir={where}/tmp"),
            *("--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"),
            *words,
            CONTAINERS_CONF=str(self.folder / "containers.conf"),
        )

    def load(self, path: str) -> None:
        """Load a config's image, as app:1."""
        archive = self.folder / "image.tar"
        archive.write_bytes(self.export(path, "docker-archive", image="app:1"))
        self.assertIn("localhost/app:1", self.podman("load", "--input", archive))

    def test_run(self) -> None:
        """What the container says here it says there, too."""
        here = self.output_of(self.launch(**self.keys()))
        self.load(self.name_of())
        there = self.podman("run", "--rm", "--network=none", "localhost/app:1")
        self.assertEqual(there, here)

    def test_kubernetes(self) -> None:
        """`podman play kube` runs what is written for Kubernetes."""
        said = "echo $GREETING; cat /opt/app/data/more; sleep 60"
        path = self.name_of(
            startup_script=None, command=["sh", "-c", said], files=[], restart="always"
        )
        self.load(path)
        pod = self.folder / "pod.yaml"
        pod.write_bytes(self.export(path, "kubernetes", image="localhost/app:1"))
        try:
            self.podman("play", "kube", "--network=none", pod)
            (name,) = re.findall(r"\S+-test\b", self.podman("ps", "--all", "--format={{.Names}}"))
            wait_until(lambda: self.podman("logs", name) == "hello\nmore", "it has said it")
        finally:
            self.podman("play", "kube", "--down", pod)


@needs_programs("docker-compose")
class ComposeTests(ExportCase):
    """Compose reads its files."""

    def test_config(self) -> None:
        """`docker-compose config` takes the file, and understands it as it is meant."""
        path = self.name_of(
            startup_env={"PRICE": "$5", "NUMBER": "1e3", "YES": "yes"},
            volumes=["kept /kept"],
            restart="on-failure",
            limits={"memory": "64M", "files": 100},
            health={"command": ["true"], "interval": 1.5},
        )
        (self.folder / "compose.yaml").write_bytes(self.export(path, "compose", image="app:1"))
        told = run("docker-compose", "--file", self.folder / "compose.yaml", "config")
        (service,) = yaml.safe_load(told)["services"].values()
        variables = {"PRICE": "$$5", "NUMBER": "1e3", "YES": "yes"}
        self.assertEqual(service["environment"], service["environment"] | variables)
        self.assertEqual(service["restart"], "on-failure")
        self.assertEqual(service["image"], "app:1")
        self.assertEqual(service["healthcheck"]["interval"], "1500ms")

    def test_stack(self) -> None:
        """It takes the file of a stack, too, with what its services wait for."""
        key = self.upload(command=["sleep", "60"], health={"command": ["true"]})
        config = f"{key['name']}-{key['major']}-{key['minor']}"
        services = {
            "db": {"config": config},
            "app": {"config": config, "after": {"db": "healthy"}, "update": {"delay": 1}},
        }
        stack = {"stack": "shop", "services": services}
        self.assertEqual(self.ask("POST", "/stacks", stack).status, 200)
        self.addCleanup(self.ask, "DELETE", "/stacks/shop?wait=1")
        text = self.ask("GET", "/stacks/shop/export?to=compose").body
        (self.folder / "compose.yaml").write_bytes(text)
        told = run("docker-compose", "--file", self.folder / "compose.yaml", "config")
        waits = yaml.safe_load(told)["services"]["app"]["depends_on"]
        self.assertEqual(waits, {"db": {"condition": "service_healthy"}})
