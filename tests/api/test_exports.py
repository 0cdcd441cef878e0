"""Exports over the REST API, on a fake machine."""

import io
import json
import os
import tarfile
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from tests.api.test_resources import WebTestCase
from txcontain.api.access import READ, Caller
from txcontain.errors import MachineAtFault
from txcontain.exports import exporting

BASE = "/configs/web-1-01/export"


class ExportTests(WebTestCase):
    """A config as other tools read it."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("basefs.tar.gz", "app.tar"):
            layer = os.path.join(self.manager.layers.folder, name.encode().hex())
            os.makedirs(os.path.join(layer, "etc"))
            with open(os.path.join(layer, "etc/passwd"), "w") as file:
                file.write("www:x:33:34::/var/www:\n")

    def export(self, query: str) -> Any:
        """The answer to an export, which succeeded."""
        answer = self.successResultOf(self.asked("GET", f"{BASE}?{query}"))
        self.settle()
        self.assertEqual(answer.code, 200)
        return answer

    def text(self, answer: Any) -> str:
        """The body of an answer."""
        content = answer.content()
        self.settle()
        return self.successResultOf(content).decode()

    def problem(self, query: str, path: str = BASE) -> tuple[int, str]:
        """The status and chain of a refusal."""
        status, _, body = self.ask("GET", path + query)
        problem = json.loads(body)
        return status, " → ".join([problem["detail"], *problem["chain"]])

    def test_documents(self) -> None:
        """Each document says what it can't express, and so do the notes."""
        self.add(command=["a"], limits={"io_weight": 7, "swap": 0, "memory": "1M"}, manage=True)
        for target, kind in (
            ("compose", "application/yaml"),
            ("kubernetes", "application/yaml"),
            ("systemd", "text/plain"),
        ):
            answer = self.export(f"to={target}&image=app:2")
            (told,) = answer.headers.getRawHeaders("Content-Type")
            self.assertEqual(told, f"{kind}; charset=utf-8")
            notes = answer.headers.getRawHeaders("Txcontain-Note")
            text = self.text(answer)
            self.assertIn("app:2", text)
            self.assertTrue(any(note.startswith("manage: ") for note in notes), notes)
            self.assertTrue(all(f"# - {note}\n" in text for note in notes), text)

    def test_image(self) -> None:
        """An image is a tarball; what is exported twice is the same."""
        self.add(startup_owner="www", mounts=["app.tar /app READ"], limits={"memory": "1M"})
        answer = self.export("to=oci")
        notes = answer.headers.getRawHeaders("Txcontain-Note")
        self.assertIn("limits.memory: an image says what is run, and not how", notes)
        content = answer.content()
        self.settle()
        whole = self.successResultOf(content)
        with tarfile.open(fileobj=io.BytesIO(whole)) as tarball:
            index = json.loads(tarball.extractfile("index.json").read())
            (tag,) = index["manifests"][0]["annotations"].values()
            self.assertEqual(tag, "1-01")
            self.assertNotIn("manifest.json", tarball.getnames())
        again = self.export("to=oci").content()
        self.settle()
        self.assertEqual(self.successResultOf(again), whole)
        self.assertIn("config: web-1-01.cfg was exported", self.events())

    def test_stack(self) -> None:
        """A stack is one document."""
        self.add(name="app", command=["a"])
        stack = {"stack": "shop", "services": {"app": {"config": "app-1-01", "drain": 3}}}
        self.assertEqual(self.ask("POST", "/stacks", json.dumps(stack).encode())[0], 200)
        path = "/stacks/shop/export"
        answer = self.successResultOf(self.asked("GET", f"{path}?to=compose"))
        self.settle()
        (note,) = [n for n in answer.headers.getRawHeaders("Txcontain-Note") if "drain" in n]
        self.assertTrue(note.startswith("services.app.drain: "))
        self.assertIn("image:", self.text(answer))
        self.assertIn("to must be compose or kubernetes", self.problem("?to=oci", path)[1])
        self.assertIn("the query says no target", self.problem("", path)[1])
        self.assertEqual(self.problem("?to=compose", "/stacks/none/export")[0], 404)

    def test_who_may(self) -> None:
        """Who may only read gets no image, nor what a tarball or a file of the host's holds."""
        self.add()
        for path in (f"{BASE}?to=oci", f"{BASE}?to=kubernetes", "/stacks/a/export?to=compose"):
            with mock.patch.object(Request, "caller", Caller("ann", READ)):
                self.assertEqual(self.ask("GET", path)[0], 403, path)

    def test_head(self) -> None:
        """HEAD of an image tells whether there is such a config, and reads no layer."""
        self.assertEqual(self.ask("HEAD", f"{BASE}?to=oci")[0], 404)
        self.add()
        with mock.patch.object(exporting, "described_layer", side_effect=AssertionError):
            self.assertEqual(self.ask("HEAD", f"{BASE}?to=docker-archive"), (200, "OK", b""))

    def test_refused(self) -> None:
        """What can't be exported is refused with a sentence."""
        self.assertEqual(self.problem("?to=oci")[0], 404)
        self.add(files=[{"path": "/x", "from": "x.conf"}], startup_owner="nobody")
        for query, said in {
            "": "the query says no target → it takes to=oci or docker-archive or",
            "?to=helm": "to must be oci or docker-archive or",
            "?to=oci&image=A": "'A' is not the name of an image",
            "?to=oci&tag=1": "the query has no parameter 'tag'",
            "?to=compose": "the image knows no user 'nobody' → name a user of its /etc/passwd",
        }.items():
            status, told = self.problem(query)
            self.assertEqual(status, 409)
            self.assertIn(said, told)

    def test_files(self) -> None:
        """A file that the config takes from mountables/ is read then; it may be gone, or long."""
        self.add(files=[{"path": "/x", "from": "x.conf"}])
        self.assertIn("there is no file x.conf", self.problem("?to=kubernetes")[1])
        os.makedirs(self.manager.mountables, exist_ok=True)
        path = os.path.join(self.manager.mountables, "x.conf")
        for content, said in ((b"x" * (1 << 16), ""), (b"x" * ((1 << 16) + 1), "more than 65536")):
            with open(path, "wb") as file:
                file.write(content)
            if said:
                self.assertIn(said, self.problem("?to=kubernetes")[1])
            else:
                self.assertIn("xxx", self.text(self.export("to=kubernetes")))

    def test_too_many(self) -> None:
        """Only a few are at work at the same time, and only some wait for that."""
        self.add()
        waiting = exporting.AT_ONCE + exporting.WAITING
        begun = [Deferred[Any]() for _ in range(exporting.AT_ONCE)]
        cut = MachineAtFault("reading a tarball", "it was cut")
        with mock.patch.object(self.manager, "threads", side_effect=begun) as threads:
            asked = [self.asked("GET", f"{BASE}?to=oci") for _ in range(waiting)]
            for one in asked:
                self.assertNoResult(one)
            self.assertIn(f"{waiting} exports are asked for already", self.problem("?to=oci")[1])
            threads.side_effect = cut
            for work in begun:
                work.errback(cut)
            self.settle()
        for one in asked:
            self.assertEqual(self.successResultOf(one).code, 500)
