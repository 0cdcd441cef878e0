"""Images with layers: loaded, launched, shared and removed by a real manager."""

import contextlib
import http.client
import json
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import quote

from attrs import evolve

from tests.images.archives import ImageMaker, image, tarball
from tests.integration.harness import PATIENCE, SharedManagerCase, wait_until
from tests.integration.hosts import have_silent_name_server
from tests.integration.tarballs import device, file, folder, link, script, small_image, special
from tests.support import needs_user_namespaces
from txcontain.container.init import MOST_OPTIONS
from txcontain.engine.arrivals import MOST_DOWNLOADS, MOST_OF_ONE
from txcontain.images.fresh import LIST
from txcontain.images.oci import Healthcheck, Index, Manifest, Platform, to_bytes

LOWER = (
    *small_image(),
    folder("data"),
    *(file(f"data/{name}", name) for name in ("kept", "gone", "changed")),
    folder("all"),
    file("all/gone", ""),
    folder("etc/conf.d"),
    file("etc/conf.d/a", "a"),
)
UPPER = (
    folder("data"),
    file("data/.wh.gone"),
    file("data/changed", "new"),
    folder("all"),
    file("all/.wh..wh..opq"),
    file("all/new", ""),
    file("etc/.wh.conf.d"),
)
DEEPEST = int(os.environ.get("LAYERS", "60"))  # of an image; tests/vm/images.sh tries more
LOWER_TARBALL = tarball(*LOWER)
ENTRY = '#!/bin/sh\necho "$@" $A $B; id -u; readlink /proc/self/cwd\n'
LOOK = "cat /data/kept /data/changed; echo; ls /data /all; test -e /etc/conf.d || echo no conf.d"
SEEN = "keptnew\n/all:\nnew\n\n/data:\nchanged\nkept\nno conf.d\n"


class ImageCase(SharedManagerCase):
    """A test with images."""

    def forget(self) -> None:
        """Destroy what the test has launched, and remove its images."""
        super().forget()
        for one in self.ask("GET", "/images").json["images"]:
            self.assertEqual(self.ask("DELETE", f"/images/{one['digest']}").status, 200)
        wait_until(lambda: not self.kept(), "nothing of the images is kept")

    def load(self, archive: bytes, name: str = "") -> Any:
        """Load an archive; return the names of its images."""
        answer = self.ask("PUT", f"/images?name={quote(name)}" if name else "/images", archive)
        self.assertEqual(answer.status, 200, answer.reason)
        return [name for one in answer.json["images"] for name in one["names"]]

    def layers(self) -> set[str]:
        """The layers that are on the disk."""
        return set(os.listdir(self.state / "layers"))

    def kept(self) -> list[str]:
        """What there is of images, beside the layers of tarballs."""
        folders = ("layers", "run/images", "run/packing")
        found = [path.name for folder in folders for path in (self.state / folder).iterdir()]
        of_tarballs = [name for name in found if len(name.removesuffix(".json")) == 32]
        found = [name for name in found if name not in (LIST, *of_tarballs)]
        return found + [name for name in os.listdir(self.state / "images") if name[0] != "n"]

    def begin_pull(self, name: str) -> socket.socket:
        """Ask for a pull, and don't wait for the answer."""
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        body = json.dumps({"name": name})
        head = f"POST /images HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(f"{head}{body}".encode())
        return client

    def say(self, base_image: str, text: str, **keys: Any) -> str:
        """What a script says in a container of an image."""
        return self.inside(text, base_image=base_image, **keys)


class Loads(ImageCase):
    """Archives that are loaded."""

    def test_opaque_top(self) -> None:
        """A layer whose top is opaque hides all of the layers below it."""
        upper = (file(".wh..wh..opq"), *small_image(), file("upper"))
        self.load(image([(file("lower"), file("etc/lower")), upper]).archive("opaque:1"))
        said = self.say("opaque:1", "ls /lower /etc/lower /upper 2>/dev/null; true")
        self.assertEqual(said, "/upper\n")

    def test_layers(self) -> None:
        """A container sees the layers as one: what is hidden, replaced or emptied is that."""
        made = image([LOWER, UPPER])
        self.assertEqual(self.load(made.archive("app:1")), ["app:1"])
        steps = self.ask("GET", f"/images/{quote('app:1')}/history").json["history"]
        digests = [one.digest for one in made.manifest.layers[::-1]]  # it says nothing of how
        self.assertEqual([step["layer"] for step in steps], digests)
        self.assertEqual(self.say("app:1", LOOK), SEEN)
        self.assertEqual(self.say("app:1", LOOK, user_namespace=True), SEEN)

    def test_no_end_mark(self) -> None:
        """A layer needs no end mark: its digest shows that it is whole."""
        upper = tarball(file("late", "late"))[:1024]  # a header, and a block of content
        self.load(ImageMaker([LOWER_TARBALL, upper]).archive("app:1"))
        self.assertEqual(self.say("app:1", "cat /late"), "late")

    def test_kinds(self) -> None:
        """docker save, an OCI archive and a layout hold the same; layers are shared by digest."""
        made = image([LOWER, UPPER])
        plain = ImageMaker(made.layers, compress=False)
        self.load(made.archive("app:1"))
        self.load(plain.archive("app:2"))
        self.load(plain.of_docker("app:3"))
        shared = {one.hex for one in plain.manifest.layers}
        own = {one.hex for one in made.manifest.layers}
        self.assertEqual({name for name in self.layers() if len(name) == 64}, shared | own)
        for name in ("app:2", "app:3"):
            self.assertEqual(self.say(name, LOOK), SEEN)

    def test_many_layers(self) -> None:
        """An image may have as many layers as one overlay, though mount(2) takes only a page."""
        self.see_all_of(DEEPEST)

    @needs_user_namespaces
    def test_many_mapped(self) -> None:
        """So it may with a user namespace, where each layer is a mount of its own."""
        self.see_all_of(DEEPEST, user_namespace=True)

    def see_all_of(self, number: int, **keys: Any) -> None:
        """Fail unless a container sees what each of so many layers has, also in /run."""
        self.assertGreater(number * len(f"{self.state}/layers/{64 * 'f'}"), MOST_OPTIONS)
        upper = ([folder("run"), file(f"run/n{place}")] for place in range(1, number))
        self.load(image([LOWER, *upper]).archive("deep:1"))
        look = f"cat /data/kept; ls /run | grep -c .; ls /run/n1 /run/n{number - 1}"
        seen = f"kept{number - 1}\n/run/n1\n/run/n{number - 1}\n"
        self.assertEqual(self.say("deep:1", look, **keys), seen)

    def test_run_and_tmp(self) -> None:
        """/run and /tmp are in memory, on what all layers have there."""
        made = image(
            [
                (*LOWER, folder("run"), file("run/old", ""), file("run/gone", ""), folder("var/t")),
                (file("run/.wh.gone"), file("run/new", ""), link("tmp", "var/t")),
            ]
        )
        self.load(made.archive("app:1"))
        said = self.say(
            "app:1", "ls /run; touch /run/x /tmp/y; ls /var/t; grep -c ' /var/t ' /proc/mounts"
        )
        self.assertEqual(said, "new\nold\ny\n1\n")

    def test_base_images(self) -> None:
        """A file of base_images may be an archive; it is loaded once, and again if it changes."""
        path = self.folder / "base_images" / "app.tar"
        path.write_bytes(image([LOWER, UPPER]).archive())
        self.assertEqual(self.say("app.tar", LOOK), SEEN)
        before = {name for name in self.layers() if len(name) == 64}
        self.assertEqual(self.say("app.tar", LOOK), SEEN)
        (told,) = self.ask("GET", "/images").json["images"]
        self.assertEqual(told["names"], ["file:app.tar"])
        path.write_bytes(image([LOWER, [file("data/kept", "KEPT")]]).archive())
        self.assertEqual(self.say("app.tar", "cat /data/kept"), "KEPT")
        (told,) = self.ask("GET", "/images").json["images"]
        self.assertEqual(told["layers"], 2)
        wait_until(lambda: len(before - self.layers()) == 1, "the old upper layer is removed")

    def test_a_record(self) -> None:
        """An instance's record has the digest that it used; a new manager goes on with it."""
        made = image([LOWER, UPPER], env=("GREETING=hello",), cmd=("sleep", "100"))
        self.load(made.archive("app:1"))
        instance = self.launch(base_image="app:1")
        self.manager.kill()
        self.manager.wait()
        self.start()
        record = self.ask("GET", f"/instances/{instance}").json
        self.assertEqual((record["state"], record["image"]["digest"]), ("running", made.top.digest))
        self.assertEqual(record["spec"]["command"], ["sleep", "100"])
        self.assertEqual(record["sources"]["command"], "image")
        self.assertEqual(self.ask("POST", f"/instances/{instance}/stop").status, 200)
        self.assertEqual(self.ask("POST", f"/instances/{instance}/start").status, 200)

    def test_changes(self) -> None:
        """What an instance has changed is told against all layers."""
        self.load(image([LOWER, UPPER]).archive("app:1"))
        text = "rm /data/kept; echo > /data/gone; echo > /data/changed; echo > /all/gone"
        instance = self.launch(
            **self.job(f"#!/bin/sh\n{text}\nsleep 60\n", base_image="app:1", writable_root=True)
        )
        wanted = [
            *("C /all", "A /all/gone"),
            *("C /data", "C /data/changed", "A /data/gone", "D /data/kept"),
        ]

        def told() -> list[str]:
            found = self.ask("GET", f"/instances/{instance}/diff").json["changes"]
            lines = [f"{one['kind']} {one['path']}" for one in found]
            return [line for line in lines if "/all" in line or "/data" in line]

        wait_until(lambda: sorted(told()) == sorted(wanted), "the changes are told")
        archive = self.ask("GET", f"/instances/{instance}/files?path=/data/.")
        (self.folder / "got.tar").write_bytes(archive.body)
        with tarfile.open(self.folder / "got.tar") as tar:
            self.assertEqual(sorted(tar.getnames()), [".", "./changed", "./gone"])


class Refusals(ImageCase):
    """Archives that are refused: nothing of them is kept."""

    def refuse(self, archive: bytes, *words: str, name: str = "app:1") -> None:
        """Fail unless an archive is refused for these reasons, and leaves nothing."""
        query = f"?name={quote(name)}" if name else ""
        answer = self.ask("PUT", f"/images{query}", archive)
        self.assertEqual(answer.status, 409)
        for word in words:
            self.assertIn(word, answer.reason)
        self.assertEqual(self.ask("GET", "/images").json, {"images": []})
        wait_until(lambda: not self.kept(), "nothing is kept")

    def test_hostile_layers(self) -> None:
        """Layers that would hide files elsewhere, or bring marks of their own, are refused."""
        for members, word in (
            ([file("a/.wh...")], "has a whiteout that leads out of its folder: '.wh...'"),
            ([file(".wh..")], "has a whiteout that leads out of its folder"),
            ([file(".wh.")], "has a whiteout that leads out of its folder"),
            ([folder("a/.wh.x")], "has a folder '.wh.x': only a file can be a whiteout"),
            ([device("a", tarfile.CHRTYPE, 0, 0)], "holds a mark that hides files"),
            ([special("a", tarfile.LNKTYPE, "not/there")], "Cannot hard link"),
        ):
            self.refuse(image([LOWER, members]).archive(), word)

    def test_harmless_layers(self) -> None:
        """What a layer could only do to its own tree is done there: the host is not touched."""
        mark = self.folder / "mark"
        mark.write_text("")
        up = "../" * 20
        members = [
            file(f"{self.folder}/own".lstrip("/")),
            link("out", str(self.folder)),
            file("out/.wh.mark"),
            file(f"{up}{self.folder}/.wh.mark"),
            file(".wh..wh.plnk"),
        ]
        members[-1][0].pax_headers = {
            "SCHILY.xattr.trusted.overlay.opaque": "y",
            "SCHILY.xattr.user.overlay.opaque": "y",
        }
        self.load(image([LOWER, members]).archive(), "app:1")
        self.assertTrue(mark.exists())
        self.assertEqual(self.say("app:1", "cat /data/kept"), "kept")

    def test_cut_short(self) -> None:
        """An archive that was cut short, or whose layer was, is refused."""
        made = image([LOWER, UPPER])
        self.refuse(made.archive()[:-20_000], "Unexpected EOF")
        (layer, *_) = made.manifest.layers
        made.blobs[layer.digest] = made.blobs[layer.digest][:-10]
        self.refuse(made.archive(), f"the blob {layer.digest} has {layer.size - 10} bytes")
        broken = ImageMaker([LOWER_TARBALL[:5000]])
        self.refuse(broken.archive(), "unpacking the layer sha256:")

    def test_nameless(self) -> None:
        """An archive that does not say what its image is called needs a name, and only one."""
        self.refuse(image([LOWER]).archive(), "does not say what its image is called", name="")
        self.refuse(image([LOWER]).archive("latest"), "only 'latest' → name it", name="")
        one, two = image([LOWER]), image([UPPER])
        both = Index((one.top, two.top))
        archive = tarball(
            file("oci-layout"),
            file("index.json", to_bytes(both)),
            *one.layout()[2:],
            *two.layout()[2:],
        )
        self.refuse(archive, "the archive has 2 images: only one can be called")

    def test_two_in_a_file(self) -> None:
        """A file of base_images with two images is no container's root."""
        one, two = image([LOWER]), image([UPPER])
        both = file("index.json", to_bytes(Index((one.top, two.top))))
        path = self.folder / "base_images" / "two.tar"
        path.write_bytes(tarball(file("oci-layout"), both, *one.layout()[2:], *two.layout()[2:]))
        refused = self.try_to_launch(base_image="two.tar")
        self.assert_refused(refused, 409, "two.tar holds 2 images, and a container has one")


Odd = tuple[int, dict[str, str], bytes]  # an answer: status, headers, body


class Hostile(BaseHTTPRequestHandler):
    """A registry with an image, of which it answers one path otherwise."""

    made = image([LOWER, UPPER])
    odd: ClassVar[dict[str, Odd]] = {}
    first: ClassVar[list[Odd]] = []  # what it answers before all else

    def do_GET(self) -> None:
        """Answer with a manifest, or a blob; what it sends may be cut, or have no end."""
        top = f"/v2/app/manifests/{self.made.top.digest}", "/v2/app/manifests/1"
        whole = dict.fromkeys(top, to_bytes(self.made.manifest))
        whole |= {f"/v2/app/blobs/{name}": content for name, content in self.made.blobs.items()}
        odd = self.first.pop(0) if self.first else self.odd.get(self.path)
        code, headers, content = odd or (200, {}, whole.get(self.path, b""))
        self.send_response(code)
        for name, text in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, text)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)
            while headers.get("Content-Length") == ENDLESS:
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ENDLESS = str(1 << 40)  # bytes
OTHERS = to_bytes(Index((evolve(Hostile.made.top, platform=Platform("plan9", "amd64")),)))
FIRST = Hostile.made.manifest.layers[0]
LEADS_OUT = image([LOWER, [file("a/.wh...")]])


def with_layers(number: int) -> bytes:
    """A manifest of so many layers."""
    return to_bytes(Manifest(Hostile.made.manifest.config, (FIRST,) * number))


def sent_to(url: str, code: int = 307) -> Odd:
    """An answer that sends us on."""
    return code, {"Location": url}, b""


def of_token(realm: str) -> Odd:
    """An answer that wants a token from there."""
    return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}, b""


# What the registry answers for the manifest, or for the first layer; and why that is refused.
OF_TAG: tuple[tuple[Odd, str], ...] = (
    ((200, {}, b'{"schemaVersion": 1}'), "it is a manifest of schema 1"),
    ((200, {}, with_layers(10_000)[:1_000_000]), "the document is not JSON"),
    ((200, {}, with_layers(5_000)), "layers has 5000 entries, and may have 999"),
    ((200, {}, b"[" * 1_000_000), "the document is nested too deep"),
    ((200, {}, OTHERS), "it is not for this machine"),
    ((200, {"Content-Length": ENDLESS}, b" " * 65536), "is longer than 1048576 bytes"),
    ((200, {"Content-Length": "9"}, b"{"), "hangs up"),
    ((429, {"Retry-After": "1000000"}, b""), "it asks us to wait 1000000 s: try again then"),
    ((503, {"Retry-After": "now"}, b""), "answers 503 → try again later"),
    (sent_to("file:///etc/passwd"), "'file:///etc/passwd', which is not https"),
    (sent_to("ftp://127.0.0.1/a"), "which is not https"),
    (sent_to("http://169.254.169.254/latest"), "which is not https"),
    (sent_to("/v2/app/manifests/1"), "sends us on more than 5 times"),
    (of_token("http://169.254.169.254/token"), "which is not https"),
    (of_token("file:///etc/passwd"), "which is not https"),
    (of_token("https://me:secret@127.0.0.1/token"), "which is not https"),
)
OF_LAYER: tuple[tuple[Odd, str], ...] = (
    ((200, {}, b"x" * FIRST.size), "has another digest"),
    ((200, {}, b"x" * (FIRST.size - 1)), f"bytes, and should have {FIRST.size}"),
    ((200, {}, b"x" * (FIRST.size + 1)), f"is longer than {FIRST.size} bytes"),
    ((200, {"Content-Length": ENDLESS}, b"x" * 65536), f"is longer than {FIRST.size} bytes"),
    ((200, {"Content-Length": str(FIRST.size)}, b"x"), "hangs up"),
    ((404, {}, b""), "has no blob"),
    (sent_to("file:///etc/passwd"), "which is not https"),
)


class FromHostile(ImageCase):
    """Pulls from a registry that is an enemy."""

    options = ("--insecure-loopback",)

    def setUp(self) -> None:
        """Start the registry."""
        super().setUp()
        server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(Hostile.odd.clear)
        self.name = f"127.0.0.1:{server.server_port}/app:1"

    def test_asks_to_wait(self) -> None:
        """A registry that asks to wait for a second or two, or until then, is asked again then."""
        begun = time.time()
        then = formatdate(begun + 3, usegmt=True)  # in whole seconds
        Hostile.first[:] = (429, {"Retry-After": "1"}, b""), (503, {"Retry-After": then}, b"")
        self.assertEqual(self.say(self.name, LOOK), SEEN)
        self.assertGreaterEqual(time.time(), begun + 2)
        self.assertEqual(Hostile.first, [])

    def test_silent_name_server(self) -> None:
        """Whoever is sent on to names that no name server tells delays no launch."""
        made = image([[file(f"a{number}")] for number in range(MOST_DOWNLOADS)])
        config = made.manifest.config.digest
        Hostile.odd[f"/v2/app/blobs/{config}"] = 200, {}, made.blobs[config]
        for one in made.manifest.layers:
            Hostile.odd[f"/v2/app/blobs/{one.digest}"] = sent_to("https://silent.example/")
        names = [f"{self.name}{number}" for number in range(MOST_OF_ONE)]
        for name in names:
            path = f"/v2/app/manifests/{name.rpartition(':')[2]}"
            Hostile.odd[path] = 200, {}, to_bytes(made.manifest)
        self.assertEqual(self.inside("echo"), "\n")  # so that its image is unpacked
        server = have_silent_name_server(self)
        for name in names:
            self.addCleanup(self.begin_pull(name).close)
        server.recv(1)  # a name is looked up; now all are
        for _ in range(3):
            begun = time.monotonic()
            self.assertEqual(self.inside("echo"), "\n")
            self.assertLess(time.monotonic() - begun, 8)  # a lookup takes ten (resolv.conf(5))

    def test_refused(self) -> None:
        """Each of its answers is refused with a sentence, and nothing is kept."""
        manifest, layer = "/v2/app/manifests/1", f"/v2/app/blobs/{FIRST.digest}"
        leads_out: dict[str, Odd] = {manifest: (200, {}, to_bytes(LEADS_OUT.manifest))}
        for digest, content in LEADS_OUT.blobs.items():
            leads_out[f"/v2/app/blobs/{digest}"] = 200, {}, content
        for odd, said in (
            *(({manifest: answer}, said) for answer, said in OF_TAG),
            *(({layer: answer}, said) for answer, said in OF_LAYER),
            (leads_out, "has a whiteout that leads out of its folder"),
        ):
            Hostile.odd.clear()
            Hostile.odd.update(odd)
            answer = self.ask("POST", "/images", {"name": self.name})
            self.assertEqual(answer.status, 409, said)
            self.assertIn(said, answer.reason)
            self.assertEqual(self.ask("GET", "/images").json, {"images": []})
        wait_until(lambda: not self.kept(), "nothing is kept")
        Hostile.odd.clear()
        self.assertEqual(self.say(self.name, LOOK), SEEN)


class Slow(BaseHTTPRequestHandler):
    """A registry that stops in the middle of a layer, for as long as it is held."""

    made = image([LOWER, UPPER])
    held = threading.Event()  # to be set for it to go on
    asked = threading.Event()  # whether it was asked for a layer

    def do_GET(self) -> None:
        """Answer with a manifest, or a blob."""
        of_tag = self.path.endswith("/manifests/1")
        content = to_bytes(self.made.manifest) if of_tag else self.made.blobs[self.path[-71:]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[:half])
            if self.path[-71:] == self.made.manifest.layers[0].digest:
                self.asked.set()
                self.held.wait(PATIENCE)
            self.wfile.write(content[half:])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Interrupted(ImageCase):
    """Pulls that are not finished."""

    options = ("--insecure-loopback",)

    def setUp(self) -> None:
        super().setUp()
        server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.name = f"127.0.0.1:{server.server_port}/app:1"
        for event in (Slow.held, Slow.asked):
            event.clear()
        self.addCleanup(Slow.held.set)

    def pull_half(self) -> socket.socket:
        """Ask for a pull, and wait until half of a layer is there."""
        client = self.begin_pull(self.name)
        self.assertTrue(Slow.asked.wait(PATIENCE), "it is asked for the layer")
        return client

    def assert_nothing_kept(self) -> None:
        """Fail if anything of the image stays."""

        def kept() -> list[str]:
            layers = [name for name in self.layers() if name != LIST]
            return [*os.listdir(self.state / "run/images"), *layers]

        wait_until(lambda: not kept(), "nothing of it is kept")
        self.assertEqual(self.ask("GET", "/images").json, {"images": []})

    def test_interrupted(self) -> None:
        """A pull ends with its client, and with its manager; nothing of it stays, nor is used."""
        self.pull_half().close()
        self.assert_nothing_kept()
        self.assertEqual(self.ask("GET", "/unpacking").json["pulling"], [])
        Slow.asked.clear()
        with self.pull_half():
            self.manager.kill()
            self.manager.wait()
        self.start()
        self.assert_nothing_kept()
        Slow.held.set()
        self.assertEqual(self.say(self.name, LOOK), SEEN)

    def test_removed(self) -> None:
        """A manager that is killed while it removes an image leaves no half of it."""
        self.load(Slow.made.archive("app:1"))
        names = self.state / "images/names.json"
        names.write_text("{}")  # which is what it has written first
        self.manager.kill()
        self.manager.wait()
        self.start()
        self.assert_nothing_kept()
        self.assertEqual(os.listdir(names.parent), [names.name])


# What there is first at some moments of a load, one after the other, and of a commit.
MOMENTS = ("run/images/*", "layers/*.unpacking", f"layers/{'?' * 64}", f"images/{'?' * 64}.json")


class KilledCase(ImageCase):
    """A test in which the manager is killed at several moments."""

    moments: tuple[str, ...] = MOMENTS

    def kill_at_each_moment(self, ask: Callable[[], object], look: Callable[[], None]) -> None:
        """Kill the manager in the middle of what makes the image app:1, and let it be made then.

        :param look: fails unless the image is as it should be
        """
        for moment in self.moments:
            asking = threading.Thread(target=self.ask_in_vain, args=(ask,), daemon=True)
            asking.start()
            while asking.is_alive() and not any(self.state.glob(moment)):
                time.sleep(0.001)  # so that those who are waited for have the processors
            self.manager.kill()
            self.manager.wait()
            asking.join(PATIENCE)
            self.start()
            if self.ask("GET", "/images").json["images"]:
                look()  # it was quick: the image is whole
                self.remove()
            wait_until(lambda: not self.kept(), "nothing is kept")
            ask()
            look()
            self.remove()
            wait_until(lambda: not self.kept(), "nothing is kept")

    def ask_in_vain(self, ask: Callable[[], object]) -> None:
        """Ask a manager that is killed meanwhile."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            ask()

    def shows(self, text: str) -> str:
        """What shell commands say in a container of the image."""
        command = ["/bin/sh", "-c", text]
        return self.output_of(self.launch(base_image="app:1", command=command))

    def remove(self) -> None:
        """Remove the image."""
        self.assertEqual(self.ask("DELETE", "/images/app:1").status, 200)


class Killed(KilledCase):
    """A manager that is killed at several moments keeps an image as a whole, or nothing of it."""

    def test_load(self) -> None:
        """It is so of a load."""
        archive = image([LOWER, UPPER]).archive("app:1")

        def look() -> None:
            self.assertEqual(self.shows(LOOK), SEEN)

        self.kill_at_each_moment(lambda: self.load(archive), look)

    def test_commit(self) -> None:
        """It is so of a commit, and the instance goes on."""
        text = "while sleep 0.1; do echo; done"
        config = self.job(f"#!/bin/sh\n echo new > /new; echo done; {text}\n", writable_root=True)
        instance = self.launch(**config)
        wait_until(lambda: self.log_of(instance).startswith("done"), "it has written")

        def look() -> None:
            before = len(self.log_of(instance))
            self.assertEqual(self.shows("cat /new"), "new\n")
            wait_until(lambda: len(self.log_of(instance)) > before, "it goes on")

        commit = {"image": "app:1"}
        self.kill_at_each_moment(
            lambda: self.ask("POST", f"/instances/{instance}/commit", commit), look
        )


class Names(ImageCase):
    """Names of images."""

    def test_names(self) -> None:
        """An image is found by each of its names and its digest, and is gone with its last name."""
        made = image([LOWER])
        self.load(made.archive("app:1", "app:1"), "registry:5000/app:1")
        url = f"/images/{quote('registry:5000/app:1', safe='')}"
        self.assertEqual(self.ask("POST", f"{url}/tag", {"name": "mine"}).status, 200)
        for name in ("registry:5000/app:1", "mine", "mine:latest", made.top.digest[:20]):
            told = self.ask("GET", f"/images/{quote(name, safe='')}").json
            self.assertEqual(told["digest"], made.top.digest, name)
            self.assertEqual(told["names"], ["mine:latest", "registry:5000/app:1"])
        self.assertEqual(self.ask("DELETE", url).json["removed"], ["registry:5000/app:1"])
        self.assertEqual(self.ask("GET", url).status, 404)
        self.assertEqual(self.say("mine", "echo hello"), "hello\n")
        self.assertEqual(self.ask("DELETE", "/images/mine").status, 200)
        wait_until(lambda: not {one for one in self.layers() if len(one) == 64}, "no layer is left")
        refused = self.try_to_launch(base_image="mine:latest", pull="never")
        self.assert_refused(refused, 409, "there is no image mine:latest here")

    def test_in_use(self) -> None:
        """An image that an instance uses stays, with a prune too."""
        self.ask("POST", "/prune")  # what is there of other tests' tarballs
        self.load(image([LOWER], cmd=("sleep", "100")).archive("app:1"))
        instance = self.launch(base_image="app:1")
        answer = self.ask("DELETE", f"/images/{quote('app:1')}")
        self.assert_refused_with(answer, "instances use the image app:1", instance)
        self.ask("DELETE", f"/destroy/{instance}")
        self.assertEqual(self.ask("POST", "/prune").json["layers"], [])
        self.assertEqual(self.ask("GET", "/df").json["layers"][0]["used"], True)

    def assert_refused_with(self, answer: Any, *words: str) -> None:
        """Fail unless a request was refused for these reasons."""
        self.assertEqual(answer.status, 409, answer.reason)
        for word in words:
            self.assertIn(word, answer.reason)

    def test_moved(self) -> None:
        """A name that is given to another image leaves the first one without any: it goes."""
        first, second = image([LOWER]), image([LOWER, UPPER])
        self.load(first.archive("app:1"))
        self.load(second.archive("app:1"))
        (told,) = self.ask("GET", "/images").json["images"]
        self.assertEqual(told["digest"], second.top.digest)
        self.assertEqual(self.say("app:1", LOOK), SEEN)


class Defaults(ImageCase):
    """What an image says of how it is run."""

    def test_defaults(self) -> None:
        """An image's program, variables, user and folder count unless the config has its own."""
        made = image(
            [
                (
                    *LOWER,
                    script("entry", '#!/bin/sh\necho "$@" $A $B; id -u; readlink /proc/self/cwd\n'),
                )
            ],
            entrypoint=("/entry",),
            cmd=("one", "two words"),
            env=("A=of the image", "B=of the image", "PATH=/bin"),
            user="worker",
            working_dir="/data",
            exposed_ports=("80/tcp",),
            volumes=("/data",),
            stop_signal="SIGINT",
            healthcheck=Healthcheck(("CMD-SHELL", "true"), 5 * 10**9),
        )
        self.load(made.archive("app:1"))
        instance = self.launch(base_image="app:1", startup_env={"B": "of the config"})
        self.assertEqual(
            self.output_of(instance), "one two words of the image of the config\n1000\n/data\n"
        )
        record = self.ask("GET", f"/instances/{instance}").json
        self.assertEqual(
            record["sources"],
            {
                "command": "image",
                "startup_script": "default",
                "startup_env": "config and image",
                "startup_owner": "image",
                "workdir": "image",
                "stop_signal": "image",
                "health": "image",
                "writable_root": "image",
            },
        )
        self.assertEqual(record["image"]["exposed"], ["80/tcp"])
        self.assertEqual(record["image"]["volumes"], ["/data"])
        own = self.launch(
            base_image="app:1", command=["id", "-u"], startup_owner="root", writable_root=False
        )
        self.assertEqual(self.output_of(own), "0\n")
        record = self.ask("GET", f"/instances/{own}").json
        self.assertEqual(record["sources"]["command"], "config")
        self.assertEqual(record["spec"]["health"]["on_failure"], "none")

    def test_unusable(self) -> None:
        """What an image says and no config can say is refused, unless the config says it."""
        self.load(image([LOWER], user="no user;", cmd=("id", "-u")).archive("app:1"))
        refused = self.try_to_launch(base_image="app:1")
        self.assert_refused(
            refused, 409, "the image app:1 can't be run as it says", "startup_owner"
        )
        self.assertEqual(
            self.output_of(self.launch(base_image="app:1", startup_owner="root")), "0\n"
        )
