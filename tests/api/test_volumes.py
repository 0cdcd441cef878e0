"""Volumes over the REST API, on a fake machine."""

import json
import os

from tests.api.test_resources import WebTestCase


class VolumeTests(WebTestCase):
    """What is told of volumes, and how one is removed."""

    def test_list(self) -> None:
        """All are told of by name, with their sizes and users."""
        self.assertEqual(self.get("/volumes"), {"volumes": []})
        self.launch(volumes=["b /b", "a /a", "b /c", "/srv/x /x"])
        (name,) = self.manager.instances
        os.mkdir(os.path.join(self.folder, "volumes/a/data"))
        first, second = self.get("/volumes")["volumes"]
        self.assertEqual(first, self.get("/volumes/a"))
        self.assertEqual((first["volume"], first["size"], first["used_by"]), ("a", 4096, [name]))
        self.assertEqual(first["folder"], os.path.join(self.folder, "volumes/a/data"))
        self.assertEqual((second["volume"], second["size"]), ("b", None))
        self.assertIn("a was made for web-1-01.cfg", "".join(self.events()))

    def test_make(self) -> None:
        """One is made empty, with a bound or without; its file system is where its data is."""
        for name, document in (("a", {"size": "16M"}), ("b", {})):
            status, _, body = self.ask("PUT", f"/volumes/{name}", json.dumps(document).encode())
            self.assertEqual((status, json.loads(body)), (200, {"made": name}))
        self.assertEqual(self.ask("PUT", "/volumes/a")[0], 409)
        self.assertEqual(self.ask("PUT", "/volumes/c", b'{"size": "1M"}')[0], 409)
        self.assertEqual(self.ask("PUT", "/volumes/-c")[0], 409)
        first, second = self.get("/volumes")["volumes"]
        self.assertEqual((first["bound"], second["bound"]), (1 << 24, None))
        self.assertEqual(first["folder"], os.path.join(self.folder, "volumes/a/disk.img"))
        self.assertIn("volume: a was made", self.events())

    def test_remove(self) -> None:
        """One is removed only if no instance uses it, and then it can be made anew."""
        instance = self.launch(volumes=["a /a"])
        before = self.manager.volumes.place("a")
        self.assertEqual(self.ask("DELETE", "/volumes/a")[:2], (409, "Conflict"))
        self.now(self.manager.destroy(instance.name))
        self.assertEqual(self.ask("DELETE", "/volumes/a")[0], 200)
        self.assertEqual(self.ask("DELETE", "/volumes/a")[0], 404)
        self.assertEqual(self.ask("GET", "/volumes/a")[0], 404)
        self.assertEqual(os.listdir(os.path.join(self.folder, "volumes")), [])
        self.now(self.manager.launch("web", "1", "01"))
        self.assertNotEqual(self.manager.volumes.place("a"), before)
        self.assertIn("volume: a was removed, with all that was in it", self.events())

    def test_inspect(self) -> None:
        """An instance says where its volumes are."""
        instance = self.launch(volumes=["a /a"])
        where = {"a": os.path.join(self.folder, "volumes/a/data")}
        self.assertEqual(self.get(f"/instances/{instance.name}")["volumes"], where)

    def test_destroy(self) -> None:
        """A destroy says in notes what it has removed and what stays."""
        keys = {"mounts": ["x.tar /x READWRITE"], "volumes": ["a /a"], "writable_root": True}
        name = self.launch(**keys).name
        response = self.successResultOf(self.asked("DELETE", f"/destroy/{name}"))
        notes = response.headers.getRawHeaders("Txcontain-Note")
        lost = f"removed with {name}: what it wrote below /x, /"
        self.assertEqual(notes, [lost, "kept: the volume a"])

    def test_export(self) -> None:
        """What is not there can't be exported; HEAD tells that too."""
        self.launch(volumes=["a /a"])
        status, _, body = self.ask("GET", "/volumes/a/export")
        self.assertEqual(status, 404)
        self.assertIn(b"the volume a has no data yet", body)
        self.assertEqual(self.ask("HEAD", "/volumes/b/export")[0], 404)
        self.assertEqual(self.ask("HEAD", "/volumes/a/export")[0], 200)
        self.assertEqual(self.ask("GET", "/volumes/a/export?pause=2")[0], 409)
