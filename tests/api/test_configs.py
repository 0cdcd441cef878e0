"""Configs and launches beyond the course's, over HTTP, on a fake machine."""

import json
from typing import Any

from tests.api.test_resources import WEB, WebTestCase
from tests.support import document


class ConfigTests(WebTestCase):
    """/configs and what is below it."""

    def test_all(self) -> None:
        """They are sorted by name, and by version as numbers, with the instances of each."""
        self.assertEqual(self.get("/configs"), {"configs": []})
        for name, minor in (("web", "10"), ("web", "9"), ("db", "1")):
            self.add(name=name, minor=minor)
        launched = self.now(self.manager.launch("web", "1", "9"))
        self.assertEqual(
            self.get("/configs"),
            {
                "configs": [
                    {"name": "db", "major": "1", "minor": "1", "instances": []},
                    {"name": "web", "major": "1", "minor": "9", "instances": [launched.name]},
                    {"name": "web", "major": "1", "minor": "10", "instances": []},
                ]
            },
        )

    def test_one(self) -> None:
        """A config is sent as it came, byte for byte."""
        uploaded = b"\xef\xbb\xbf " + document() + b"\r\n"
        self.ask("POST", "/config", uploaded)
        response = self.successResultOf(self.asked("GET", "/configs/web-1-01"))
        self.assertEqual(response.headers.getRawHeaders("Content-Type"), ["application/json"])
        self.assertEqual(self.ask("GET", "/configs/web-1-01"), (200, "OK", uploaded))
        self.assertEqual(self.ask("HEAD", "/configs/web-1-01"), (200, "OK", b""))

    def test_missing(self) -> None:
        """What is not there, or no name of a config, is a 404."""
        for name in ("web-1-01", "web", "web-1-01.cfg", "..%2f..%2fetc-1-1", "%00-1-1", "\x2e."):
            for method in ("GET", "DELETE"):
                status, _, body = self.ask(method, f"/configs/{name}")
                self.assertEqual(status, 404, name)
                if body:
                    self.assertEqual(json.loads(body)["type"], "urn:txcontain:no-such-config")

    def test_remove(self) -> None:
        """A config is removed once no instance uses it; those that do are named."""
        instance = self.launch()
        status, _, body = self.ask("DELETE", "/configs/web-1-01")
        problem = json.loads(body)
        self.assertEqual((status, problem["type"]), (409, "urn:txcontain:config-in-use"))
        self.assertEqual(problem["instances"], [instance.name])
        self.init.end()
        self.assertEqual(self.ask("DELETE", "/configs/web-1-01/"), (200, "OK", b""))
        self.assertEqual(self.get("/cfginfo"), {"files": []})


class LaunchTests(WebTestCase):
    """POST /instances."""

    def post(self, **asked: Any) -> tuple[int, Any]:
        """The status and body of a launch."""
        status, _, body = self.ask("POST", "/instances", json.dumps(asked).encode())
        return status, json.loads(body)

    def test_launch(self) -> None:
        """A kept config, or a whole one, is launched under the name that is asked for."""
        self.add()
        self.assertEqual(self.post(config="web", instance="a"), (200, {"instance": "a", **WEB}))
        whole = json.loads(document(name="job"))
        self.assertEqual(
            self.post(config=whole, instance="b", remove=True),
            (200, {"instance": "b", **WEB, "name": "job"}),
        )
        self.assertEqual(len(self.get("/list")["instances"]), 2)

    def test_again(self) -> None:
        """A launch that is sent again is refused, with the instance that the first one made."""
        self.add()
        launched = self.post(config="web", instance="a")[1]
        status, problem = self.post(config="web", instance="a")
        self.assertEqual((status, problem["type"]), (409, "urn:txcontain:instance-exists"))
        self.assertEqual(problem["holder"], {**launched, "state": "running"})

    def test_refused(self) -> None:
        """A config that is not there is a 404; what makes no sense is a 409."""
        self.assertEqual(self.post(config="web")[0], 404)
        for asked in ({}, {"config": 1}, {"config": "web", "instance": "../x"}):
            status, problem = self.post(**asked)
            self.assertEqual((status, problem["type"]), (409, "urn:txcontain:invalid-data"))
