"""The course's web servers, in containers of the real base image, as its own tests ask them."""

from __future__ import annotations

import http.client
from typing import Any

from tests.integration.harness import (
    PROJECT,
    ManagerCase,
    fingerprint,
    free_port,
    listens,
    wait_until,
)

SERVER = {
    "base_image": "basefs.tar.gz",
    "startup_script": "/webserver/tiny.sh",
    "startup_owner": "root",
}
# As in API.md; and two more that mount the same tarballs in other ways.
SENSIBLE = {
    **SERVER,
    "name": "sensiblename",
    "mounts": ["webserver.tar /webserver/ READ", "homedir.tar /webserver/home READWRITE"],
}
TOMATO = {
    **SERVER,
    "name": "tomato",
    "mounts": [
        "tomato.tar /webserver/tomato READWRITE",
        "cabbage.tar /webserver/tomato/cabbage READ",
    ],
}
POTATO = {**SERVER, "name": "potato", "mounts": ["potato.tar /webserver/potato READ"]}


class WebServerTests(ManagerCase):
    """Servers that are asked right after their launch, once."""

    pool = 2  # the manager's own default

    def add_images(self) -> None:
        """Take the project's own images, as `make download` has made them."""
        for folder in ("base_images", "mountables"):
            for path in (PROJECT / folder).glob("*.tar*"):
                (self.folder / folder / path.name).symlink_to(path)

    def serve(self, config: dict[str, Any]) -> tuple[str, int]:
        """Launch a server on a port of its own; return its instance and its port."""
        port = free_port()
        return self.launch(**config, startup_env=f"PORT={port};"), port

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Ask a web server, once."""
        connection = http.client.HTTPConnection("localhost", port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def page(self, name: str) -> tuple[int, str]:
        """The answer that a file of the sources of the images is to be served by."""
        return 200, (PROJECT / "images" / name).read_text()

    def test_three_at_once(self) -> None:
        """Three servers run side by side; each serves what it mounts, and nothing of the others."""
        _, sensible = self.serve(SENSIBLE)
        self.assertEqual(self.get(sensible, "/"), self.page("webserver/index.html"))
        _, tomato = self.serve(TOMATO)
        self.assertEqual(self.get(tomato, "/tomato/tomato.html"), self.page("tomato/tomato.html"))
        _, potato = self.serve(POTATO)
        self.assertEqual(self.get(potato, "/potato/potato.html"), self.page("potato/potato.html"))
        self.assertEqual(self.get(sensible, "/home/todo.txt"), self.page("homedir/todo.txt"))
        self.assertEqual(
            self.get(tomato, "/tomato/cabbage/cabbage.html"), self.page("cabbage/cabbage.html")
        )
        self.assertEqual(self.get(potato, "/tomato/tomato.html")[0], 404)
        self.assertEqual(self.get(tomato, "/potato/potato.html")[0], 404)
        self.assertEqual(len(self.running()), 3)

    def test_process_list(self) -> None:
        """The word tiny is in a container's process list exactly twice, however many there are."""
        for _, port in [self.serve(SENSIBLE), self.serve(POTATO), self.serve(POTATO)]:
            status, listed = self.get(port, "/cgi-bin/ps.sh")
            self.assertEqual((status, listed.count("tiny")), (200, 2), listed)
            self.assertNotIn("twistd", listed)

    def test_kill(self) -> None:
        """pkill.sh kills its own container's server, and no other's."""
        (killed, port), *others = [self.serve(config) for config in (POTATO, SENSIBLE, POTATO)]
        self.assertEqual(self.get(port, "/cgi-bin/pkill.sh")[0], 200)
        wait_until(lambda: killed not in self.running(), "the killed one has ended")
        self.assertFalse(listens(port))
        self.assertEqual(self.running(), [instance for instance, _ in others])
        for _, other in others:
            self.assertEqual(self.get(other, "/")[0], 200)

    def test_destroy(self) -> None:
        """When destroy has answered the port refuses, and can be had again at once."""
        (gone, port), (_, other) = self.serve(POTATO), self.serve(POTATO)
        self.assertEqual(self.ask("DELETE", f"/destroy/{gone}").status, 200)
        self.assertFalse(listens(port))
        self.assertEqual(self.get(other, "/")[0], 200)
        self.launch(**POTATO, startup_env=f"PORT={port}")
        self.assertEqual(self.get(port, "/")[0], 200)
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        self.assertFalse(listens(port) or listens(other))

    def test_same_port(self) -> None:
        """A second launch of a config with a port fails, and names the one that has it."""
        port = free_port()
        key = self.upload(**SENSIBLE, startup_env=f"PORT={port}")
        first = self.ask("POST", "/launch", key).json["instance"]
        self.assert_refused(
            self.ask("POST", "/launch", key), 409, f"port {port} is taken", f"instance {first}"
        )
        self.assertEqual(self.running(), [first])
        self.assertEqual(self.get(port, "/")[0], 200)

    def test_as_nobody(self) -> None:
        """A server may be run by a user without any power."""
        keys = {**POTATO, "startup_owner": "nobody"}
        _, port = self.serve(keys)
        self.assertIn("nobody", self.get(port, "/cgi-bin/ps.sh")[1])

    def test_shared_layers_unchanged(self) -> None:
        """Servers that mount below each other's READ mounts change nothing of what they share."""
        self.serve(POTATO)
        layers = {path: fingerprint(path) for path in self.state.glob("layers/*[0-9a-f]")}
        for config in (SENSIBLE, TOMATO, SENSIBLE):
            self.get(self.serve(config)[1], "/cgi-bin/ps.sh")
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        for path, before in layers.items():
            self.assertEqual(fingerprint(path), before)
