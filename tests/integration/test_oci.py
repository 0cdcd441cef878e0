"""Images of other programs run here: buildah, skopeo, and a registry with and without a login."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.certificates import Authority
from tests.integration.harness import PATIENCE, free_port, listens, wait_until
from tests.integration.tarballs import pack, small_image
from tests.integration.test_export import run
from tests.integration.test_images import ImageCase
from tests.support import PROGRAMS, needs_programs

LOGIN = "me:secret"
# Of htpasswd(1), for that: a bcrypt hash, which is all that the registry takes.
HASHED = "me:$2b$04$IHZZLS2AB6yFjyQ0ESWrDOSAROxW5V5rJJztWbw4nl7YI.5Z1lAB6\n"
LOOK = (
    "cat /data/kept /data/twice; ls /data; ls -n /data/owned | (read m l u g x; echo $u $g); "
    "echo $GREETING; id -u"
)
SEEN = "kept\nkept\nkept\nowned\ntwice\n1000 2000\nhello\n1000\n"


class RegistryCase(ImageCase):
    """A test with a registry, and images that buildah has built of one to three layers."""

    has_login = False

    def begin(self) -> None:
        """Start the manager and a registry, and build images: a root, data of users, changes."""
        super().begin()
        self.begin_registry()  # it is ended first
        self.root = self.build("scratch", root)
        self.data = self.build(self.root, data)
        self.app = self.build(self.data, changes, *CONFIG)

    def own_processes(self) -> set[int]:
        """The manager's, and the registry."""
        return super().own_processes() | {self.registry.pid}

    def add_images(self) -> None:
        super().add_images()
        self.number = free_port()
        self.where = f"localhost:{self.number}"
        self.authority = Authority(self.folder)
        trusted = self.folder / "registries" / self.where
        trusted.mkdir(parents=True)
        shutil.copy(self.authority.certificate, trusted / "ca.crt")
        logins = self.folder / "config.json"
        text = base64.b64encode(LOGIN.encode()).decode()
        logins.write_text(json.dumps({"auths": {self.where: {"auth": text}}}))
        self.options = (
            f"--registry-certificates={trusted.parent}",
            f"--registry-logins={logins}",
        )

    def begin_registry(self) -> None:
        """Start a registry, which is ended with the manager."""
        certificate, key = self.authority.issue("registry", "127.0.0.1")
        login = self.folder / "htpasswd"
        login.write_text(HASHED)
        config = self.folder / "registry.yml"
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "storage": {"filesystem": {"rootdirectory": str(self.folder / "registry")}},
                    "http": {
                        "addr": f"127.0.0.1:{self.number}",
                        "tls": {"certificate": certificate, "key": key},
                    },
                    **(
                        {"auth": {"htpasswd": {"realm": "r", "path": str(login)}}}
                        if self.has_login
                        else {}
                    ),
                }
            )
        )
        self.asked = self.folder / "registry.log"
        with open(self.asked, "wb") as log:
            self.registry = subprocess.Popen(
                ["docker-registry", "serve", config],
                env={"PATH": PROGRAMS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.addCleanup(self.registry.wait, PATIENCE)
        self.addCleanup(self.registry.send_signal, signal.SIGKILL)
        wait_until(lambda: listens(self.number), "the registry listens")

    def blobs_asked_for(self) -> int:
        """How many blobs the registry was asked for, up to now."""
        lines = self.asked.read_text().splitlines()
        return sum("GET /v2/app/blobs/" in line and '" 200 ' in line for line in lines)

    # -- building ------------------------------------------------------------------

    def buildah(self, *words: Any) -> str:
        """What buildah says, which works in the folder of the test."""
        where = self.folder / "buildah"
        own = f"--root={where}/root", f"--runroot={where}/run", "--storage-driver=vfs"
        return run("buildah", *own, *map(str, words)).strip()

    def build(self, base: str, change: Any, *config: str) -> str:
        """An image with one layer more; ``change`` makes it in a folder. Returns its id."""
        container = self.buildah("from", base)
        mounted = Path(self.buildah("mount", container))
        change(mounted)
        self.buildah("umount", container)
        if config:
            self.buildah("config", *config, container)
        image = self.buildah("commit", "--quiet", "--rm", container)
        return image.splitlines()[-1]

    def push(self, image: str, tag: str, *words: str) -> None:
        """Have buildah push an image to the registry."""
        certificates = self.folder / "registries" / self.where
        login = [f"--creds={LOGIN}"] * self.has_login
        name = f"docker://{self.where}/app:{tag}"
        self.buildah("push", f"--cert-dir={certificates}", *login, *words, image, name)

    def pull(self, name: str, **more: Any) -> Any:
        """Pull an image."""
        answer = self.ask("POST", "/images", {"name": name, **more})
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.json


CONFIG = ("--env=GREETING=hello", "--user=1000", "--cmd=/bin/id -u", "--workingdir=/data")


def root(folder: Path) -> None:
    """The small image."""
    pack(folder.parent / "root.tar", *small_image())
    subprocess.run(["tar", "-xf", folder.parent / "root.tar", "-C", folder], check=True)
    os.unlink(folder.parent / "root.tar")


def data(folder: Path) -> None:
    """Files of a user, one with an attribute."""
    (folder / "data").mkdir()
    for name in ("kept", "gone", "owned"):
        (folder / "data" / name).write_text(f"{name}\n")
    os.chown(folder / "data/owned", 1000, 2000)
    os.setxattr(folder / "data/owned", "user.kind", b"mine")


def changes(folder: Path) -> None:
    """A file is removed, and another one has a second name."""
    os.unlink(folder / "data/gone")
    os.link(folder / "data/kept", folder / "data/twice")


@needs_programs("docker-registry", "buildah", "skopeo", "umoci")
class Others(RegistryCase):
    """Images as other programs build, push and archive them."""

    def test_pulled(self) -> None:
        """What buildah pushes is pulled, by TLS with the registry's own CA, and runs.

        A second image moves only the layer that is new.
        """
        begun = self.blobs_asked_for()
        self.push(self.app, "1")
        self.assertEqual(self.say(f"{self.where}/app:1", LOOK), SEEN)
        before = self.blobs_asked_for()
        other = self.build(self.app, lambda folder: (folder / "data/new").write_text("new\n"))
        self.push(other, "2")
        pushed = self.blobs_asked_for()
        told = self.pull(f"{self.where}/app:2")
        self.assertEqual(told["layers"], 4)
        self.assertGreaterEqual(before - begun, 4)
        # A config, and a layer; the registry logs a request after its answer.
        wait_until(lambda: self.blobs_asked_for() == pushed + 2, "it is logged")
        self.assertEqual(self.say(f"{self.where}/app:2", "cat /data/new"), "new\n")

    def test_always(self) -> None:
        """A config may have its image asked for at each launch; by a digest it stays the same."""
        name = f"{self.where}/app:1"
        self.push(self.root, "1")
        digest = self.pull(name)["digest"]
        self.push(self.data, "1")
        look = "ls -d /data || echo none"
        self.assertEqual(self.say(name, look), "none\n")
        self.assertEqual(self.say(name, look, pull="always"), "/data\n")
        self.assertEqual(self.say(f"{self.where}/app@{digest}", look), "none\n")

    def test_archives(self) -> None:
        """Archives of skopeo, for Docker and of OCI, with gzip and zstd, run as the layout does."""
        layout = self.folder / "layout"
        self.buildah("push", self.app, f"oci:{layout}:app:1")
        for number, (target, *words) in enumerate(
            (
                ("docker-archive", "app:2"),
                ("oci-archive", "app:3"),
                ("oci-archive", "app:4", "--dest-compress-format=zstd", "--dest-compress"),
            )
        ):
            name, *options = words
            path = self.folder / f"{number}.tar"
            run("skopeo", "copy", *options, f"oci:{layout}:app:1", f"{target}:{path}:{name}")
            self.assertEqual(self.load(path.read_bytes()), [name])
            self.assertEqual(self.say(name, LOOK), SEEN)

    def test_same_files(self) -> None:
        """The root is what umoci unpacks: each file with its owner, mode, time and content."""
        layout, bundle = self.folder / "layout", self.folder / "bundle"
        self.buildah("push", self.app, f"oci:{layout}:app:1")
        run("umoci", "unpack", "--image", f"{layout}:app:1", bundle)
        self.push(self.app, "1")
        instance = self.launch(base_image=f"{self.where}/app:1", command=["sleep", "60"])
        archive = self.ask("GET", f"/instances/{instance}/files?path={quote('/data/.')}").body
        ours = self.folder / "ours"
        ours.mkdir()
        subprocess.run(["tar", "-xp", "-C", ours], input=archive, check=True)
        theirs = bundle / "rootfs/data"
        self.assertEqual(facts_below(ours), facts_below(theirs))

    def test_refused(self) -> None:
        """A registry that has no such image, or is not trusted, is told; nothing is kept."""
        for name, *words in (
            (f"{self.where}/app:none", "has no such image"),
            (f"127.0.0.1:{self.number}/app:1", "its certificate is not trusted"),
            (f"localhost:{free_port()}/app:1", "can't be asked"),
        ):
            answer = self.ask("POST", "/images", {"name": name})
            self.assertEqual(answer.status, 409)
            for word in words:
                self.assertIn(word, answer.reason)
        self.assertEqual(os.listdir(self.state / "run/images"), [])
        self.assertEqual(self.ask("GET", "/images").json, {"images": []})


def facts_below(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What files are in a folder: owners, modes, links and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        facts = status.st_mode, status.st_uid, status.st_gid, status.st_nlink, content
        found[str(path.relative_to(folder))] = facts
    return found


@needs_programs("docker-registry", "buildah")
class WithLogin(RegistryCase):
    """A registry that asks for a login."""

    has_login = True

    def test_login(self) -> None:
        """The login of `docker login` is used; without it nothing is to be had."""
        self.push(self.app, "1")
        self.assertEqual(self.say(f"{self.where}/app:1", LOOK), SEEN)
        logins = self.folder / "config.json"
        self.addCleanup(logins.with_suffix(".aside").rename, logins)
        logins.rename(logins.with_suffix(".aside"))
        answer = self.ask("POST", "/images", {"name": f"{self.where}/app:1"})
        self.assertEqual(answer.status, 409)
        self.assertIn("does not let us have it → log in", answer.reason)


class Endless(ImageCase):
    """A registry whose answer has no end."""

    def add_images(self) -> None:
        super().add_images()
        self.number = free_port()
        self.authority = Authority(self.folder)
        trusted = self.folder / "registries" / f"localhost:{self.number}"
        trusted.mkdir(parents=True)
        shutil.copy(self.authority.certificate, trusted / "ca.crt")
        self.options = (f"--registry-certificates={trusted.parent}",)

    def test_endless(self) -> None:
        """It is refused once it is too long, and then nothing more of it is taken."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("registry", "127.0.0.1"))
        cut = threading.Event()

        def serve() -> None:
            raw, _ = server.accept()
            with contextlib.closing(context.wrap_socket(raw, server_side=True)) as connection:
                connection.settimeout(PATIENCE)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    while True:
                        connection.sendall(b"x" * 65536)
                cut.set()

        with socket.create_server(("127.0.0.1", self.number)) as server:
            serving = threading.Thread(target=serve, daemon=True)
            serving.start()
            answer = self.ask("POST", "/images", {"name": f"localhost:{self.number}/app:1"})
            self.assertEqual(answer.status, 409)
            self.assertIn("a document of it is longer than 1048576 bytes", answer.reason)
            self.assertTrue(cut.wait(PATIENCE), "it is still taken")
            serving.join(PATIENCE)
