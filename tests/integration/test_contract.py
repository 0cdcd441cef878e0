"""contract.md's table of HTTP requests, line by line, against a real manager.

TXCONTAIN_URL names one that runs already, and holds no config and no instance.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.integration.harness import Answer, ManagerCase, ask_on, wait_until

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS = {
    "/config": {"POST"},
    "/cfginfo": {"GET", "HEAD"},
    "/launch": {"POST"},
    "/list": {"GET", "HEAD"},
    "/destroy/web-1": {"DELETE"},
    "/destroyall": {"DELETE"},
}
HOSTILE = {
    "empty": b"",
    "not JSON": b"launch!",
    "cut short": b'{"name": "x"',
    "two documents": b"{}{}",
    "no object": b'["name", "major", "minor"]',
    "invalid UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "over a mebibyte": b'{"name": "' + b"x" * (1 << 20) + b'"}',
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"name":' * 5_000 + b"1" + b"}" * 5_000,
    "a key twice": b'{"name": "a", "name": "a", "major": "1", "minor": "1"}',
    "not a number": b'{"name": NaN, "major": "1", "minor": "1"}',
    "a long number": b'{"name": ' + b"9" * 10_000 + b', "major": "1", "minor": "1"}',
    "a lone surrogate": rb'{"name": "\ud800", "major": "1", "minor": "1"}',
}


class ContractCase(ManagerCase):
    """A test against a manager of its own, or against the one that TXCONTAIN_URL names."""

    base_image = "basefs.tar.gz"
    STORED: ClassVar[list[str]] = []  # the configs that these tests have left in TXCONTAIN_URL

    def setUp(self) -> None:
        """Have a manager that runs nothing."""
        given = os.environ.get("TXCONTAIN_URL")
        if given:
            self.url = given.rstrip("/")
            self.stored = self.STORED
            self.addCleanup(self.leave_clean)
        else:
            self.stored = list[str]()
            super().setUp()
        self.assertEqual(self.ask("GET", "/list").json, {"instances": []})

    def add_images(self) -> None:
        """A small image by the name of the course's."""
        self.image(self.base_image)

    def leave_clean(self) -> None:
        """Destroy what runs in a manager that is not ours to stop."""
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
        self.assertEqual(self.ask("GET", "/list").json, {"instances": []})

    def config(self, **keys: Any) -> dict[str, Any]:
        """A config that is like no other, in a manager that may know earlier ones."""
        return super().config(**{"name": f"contract-{os.urandom(4).hex()}", **keys})

    def upload(self, **keys: Any) -> dict[str, str]:
        """Store a config, and keep in mind that it is stored."""
        key = super().upload(**keys)
        self.stored.append("{name}-{major}-{minor}.cfg".format(**key))
        return key

    def assert_bad_request(self, answer: Answer) -> None:
        """Fail unless an answer is the one for invalid data, with a reason."""
        self.assert_refused(answer, 409)
        self.assertEqual(answer.phrase, "Bad Request")
        self.assertTrue(answer.reason)


class ConfigTests(ContractCase):
    """POST /config and GET /cfginfo."""

    def test_config(self) -> None:
        """A valid config is kept, with an empty body for an answer, and listed by its name."""
        self.upload(name="sensiblename", major="1", minor=f"0{os.getpid()}")
        self.assertEqual(self.ask("GET", "/cfginfo").json, {"files": sorted(self.stored)})

    def test_none(self) -> None:
        """Where no config was uploaded there are no files; with more they are sorted."""
        self.assertEqual(self.ask("GET", "/cfginfo").json, {"files": sorted(self.stored)})
        for minor in ("9", "10", "a", "B"):
            self.upload(minor=minor)
        answer = self.ask("GET", "/cfginfo")
        self.assertEqual(answer.json, {"files": sorted(self.stored)})
        self.assertEqual(answer.headers["Content-Type"], "application/json")

    def test_twice(self) -> None:
        """A config that exists already is refused, whatever else is in it."""
        config = self.config()
        self.upload(**config)
        for changed in (config, config | {"startup_env": "A=1"}):
            answer = self.ask("POST", "/config", changed)
            self.assert_refused(answer, 409, f"{config['name']}-1-{config['minor']}.cfg")

    def test_key_missing(self) -> None:
        """A config without one of its keys is refused, and the reason names the key."""
        for key in ("name", "major", "minor", "base_image"):
            config = self.config()
            del config[key]
            answer = self.ask("POST", "/config", config)
            self.assert_bad_request(answer)
            self.assertIn(key, answer.reason)

    def test_invalid(self) -> None:
        """Values of a wrong kind, unknown keys, and paths that lead out are invalid data."""
        every: tuple[dict[str, Any], ...] = (
            {"name": "../../etc"},
            {"name": ""},
            {"name": "a/b"},
            {"name": 1},
            {"name": None},
            {"name": "x" * 200},
            {"major": "1-1"},
            {"minor": 1},
            {"minor": ".."},
            {"base_image": "../basefs.tar.gz"},
            {"base_image": "/etc/passwd"},
            {"base_image": ""},
            {"mounts": "potato.tar /potato READ"},
            {"mounts": ["potato.tar /potato"]},
            {"mounts": ["potato.tar potato READ"]},
            {"mounts": ["potato.tar /potato WRITE"]},
            {"mounts": ["../potato.tar /potato READ"]},
            {"mounts": ["potato.tar /a/../../potato READ"]},
            {"mounts": ["potato.tar / READ"]},
            {"mounts": ["potato.tar /proc READ"]},
            {"mounts": ["potato.tar /dev/shm READ"]},
            {"mounts": [["potato.tar", "/potato", "READ"]]},
            {"mounts": {}},
            {"startup_script": "webserver/tiny.sh"},
            {"startup_script": 5},
            {"startup_owner": "-1"},
            {"startup_owner": 0},
            {"startup_env": "PORT"},
            {"startup_env": "9=8"},
            {"startup_env": {"9": "8"}},
            {"startup_env": 5},
            {"startup_env": "A=\0"},
            {"restart": "sometimes"},
            {"no such key": True},
        )
        for wrong in every:
            self.assert_bad_request(self.ask("POST", "/config", self.config(**wrong)))
        self.assertEqual(self.ask("GET", "/cfginfo").json, {"files": sorted(self.stored)})


class LaunchTests(ContractCase):
    """POST /launch and GET /list."""

    def test_launch(self) -> None:
        """A launch answers with four keys, and the list holds the same, in the launches' order."""
        keys = [self.upload() for _ in range(2)]
        answers = [self.ask("POST", "/launch", key) for key in (*keys, keys[0])]
        for answer, key in zip(answers, (*keys, keys[0]), strict=True):
            self.assertEqual(answer.status, 200, answer.reason)
            self.assertEqual(answer.json, {"instance": answer.json["instance"], **key})
            self.assertEqual(answer.headers["Content-Type"], "application/json")
        launched = [answer.json for answer in answers]
        self.assertEqual(len({one["instance"] for one in launched}), 3)
        self.assertEqual(self.ask("GET", "/list").json, {"instances": launched})

    def test_no_such_config(self) -> None:
        """A config that is not kept is 404, with an empty body."""
        key = self.upload()
        for change in ({"name": "nobody"}, {"major": "2"}, {"minor": "x"}):
            self.assert_refused(self.ask("POST", "/launch", key | change), 404, "there is no ")

    def test_invalid(self) -> None:
        """A launch by anything but name, major and minor is invalid data."""
        key = self.upload()
        for wrong in (
            {"name": key["name"]},
            {**key, "more": "1"},
            {**key, "minor": 1},
            {**key, "name": None},
            {**key, "name": "../configs/x"},
            {**key, "major": "1\n"},
        ):
            self.assert_bad_request(self.ask("POST", "/launch", wrong))

    def test_list_of_none(self) -> None:
        """The list of nothing is a list."""
        answer = self.ask("GET", "/list")
        self.assertEqual((answer.status, answer.body), (200, b'{"instances": []}'))


class DestroyTests(ContractCase):
    """DELETE /destroy/INSTANCE and DELETE /destroyall."""

    def test_destroy(self) -> None:
        """An instance is destroyed, with and without a slash at the end, and the others stay."""
        one, two, three = (self.launch() for _ in range(3))
        for instance, slash in ((two, ""), (one, "/")):
            answer = self.ask("DELETE", f"/destroy/{instance}{slash}")
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertNotIn(instance, self.running())
        self.assertEqual(self.running(), [three])

    def test_unknown(self) -> None:
        """There is no second time, and no destroying of what never was."""
        instance = self.launch()
        self.ask("DELETE", f"/destroy/{instance}")
        for name in (instance, "nobody", instance[:-1], "*", "-", "a" * 10_000):
            for slash in ("", "/"):
                self.assert_refused(self.ask("DELETE", f"/destroy/{name}{slash}"), 404)

    def test_hostile_names(self) -> None:
        """No way to write a slash, a dot or a NUL leads to what is not an instance."""
        self.launch()
        for name in (
            "..",
            ".",
            "%2e%2e",
            "%2F",
            "..%2Fconfigs",
            "..%2f..%2f..%2fetc",
            "%00",
            "a%00b",
            "%ff",
            "%E2%82%AC",
            "%",
            "%zz",
            "a/b",
            "a//",
            "../list",
            ";",
            "a?b",
            "%0d%0aX:%20y",
        ):
            self.assert_refused(self.ask("DELETE", f"/destroy/{name}"), 404)
        for path in ("/destroy", "/destroy/", "/destroy//"):
            self.assert_refused(self.ask("DELETE", path), 404)
        self.assertEqual(len(self.running()), 1)

    def test_destroyall(self) -> None:
        """All are destroyed, with and without a slash, and there may be none."""
        for slash in ("", "/"):
            for _ in range(2):
                self.launch()
            for _ in range(2):
                answer = self.ask("DELETE", f"/destroyall{slash}")
                self.assertEqual((answer.status, answer.body), (200, b""))
                self.assertEqual(self.ask("GET", "/list").json, {"instances": []})


class RequestTests(ContractCase):
    """What holds of every request."""

    def test_methods(self) -> None:
        """Every path answers a method that it does not have with 405, and Allow names the rest."""
        for path, allowed in PATHS.items():
            for method in (*set(METHODS) - allowed, "BREW"):
                for slash in ("", "/"):
                    answer = self.ask(method, path + slash)
                    self.assertEqual((answer.status, answer.body), (405, b""), (method, path))
                    self.assertEqual({*answer.headers["Allow"].split(", ")}, allowed)

    def test_slash_at_the_end(self) -> None:
        """Every path works with a slash at its end."""
        key = self.config()
        self.assertEqual(self.ask("POST", "/config/", key).status, 200)
        self.stored.append("{name}-{major}-{minor}.cfg".format(**key))
        self.assertIn(self.stored[-1], self.ask("GET", "/cfginfo/").json["files"])
        launched = self.ask("POST", "/launch/", {k: key[k] for k in ("name", "major", "minor")})
        self.assertEqual(launched.status, 200, launched.reason)
        self.assertEqual(self.ask("GET", "/list/").json, {"instances": [launched.json]})

    def test_unknown_paths(self) -> None:
        """A path that is none is 404, by every method, and never HTML."""
        for path in (
            "/",
            "//",
            "/nowhere",
            "/list/more",
            "/list//",
            "/config/..",
            "/%00",
            "/LIST",
            "/config/x-1-1.cfg",
            "/destroyall/x",
            "/cfginfo.json",
            "/%6c%69%73%74%2f",
        ):
            for method in ("GET", "POST", "DELETE"):
                self.assert_refused(self.ask(method, path), 404)

    def test_head(self) -> None:
        """HEAD answers as GET does, without the body."""
        for path in ("/list", "/cfginfo"):
            answer = self.ask("HEAD", path)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.headers["Content-Type"], "application/json")

    def test_hostile_bodies(self) -> None:
        """A hostile body is invalid data, and the next request is served as if nothing had been."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        self.addCleanup(connection.close)
        for what, body in HOSTILE.items():
            for path in ("/config", "/launch"):
                answer = ask_on(connection, "POST", path, body)
                self.assertEqual((answer.status, answer.phrase), (409, "Bad Request"), what)
                self.assert_bad_request(answer)
                self.assertEqual(ask_on(connection, "GET", "/list").json, {"instances": []})

    def test_body_without_a_length(self) -> None:
        """A body in chunks is read as any other, and one without end is refused."""
        config = self.config()
        parts = (bytes([byte]) for byte in json.dumps(config).encode())
        self.assertEqual(self.send_in_chunks("/config", parts).status, 200)
        self.stored.append(f"{config['name']}-1-{config['minor']}.cfg")
        endless = (b" " * 65536 for _ in range(40))
        self.assert_bad_request(self.send_in_chunks("/config", endless))
        self.assertEqual(self.ask("GET", "/list").status, 200)

    def send_in_chunks(self, path: str, parts: Any) -> Answer:
        """Send a body whose length is not told in advance."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        self.addCleanup(connection.close)
        connection.request(
            "POST", path, parts, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
        )
        answer = connection.getresponse()
        return Answer(answer.status, answer.reason, answer.headers, answer.read())

    def test_cross_site(self) -> None:
        """What a web page of another site makes a browser send is refused, and not done."""
        instance = self.launch()
        for said, headers in (
            ("not a name of this manager", {"Host": "evil.example"}),
            ("not a name", {"Host": f"localhost.evil.example:{urlsplit(self.url).port}"}),
            ("not a name of this manager", {"Host": "localhost@evil.example"}),
            ("another site", {"Origin": "http://evil.example"}),
            ("another site", {"Origin": "null"}),
            ("another site", {"Origin": "https://localhost.evil.example"}),
        ):
            for method, path in (("DELETE", "/destroyall"), ("GET", "/list"), ("GET", "/nowhere")):
                self.assert_refused(self.ask(method, path, **headers), 403, said)
        self.assertEqual(self.running(), [instance])
        for name in ("localhost", "127.0.0.1", "LOCALHOST:1"):
            self.assertEqual(self.ask("GET", "/list", Host=name).status, 200)

    def test_not_http(self) -> None:
        """What is no HTTP gets an error or a closed connection, and the next one is served."""
        address = ("127.0.0.1", int(urlsplit(self.url).port or 80))
        for words in (
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /list HTTP/1.1\r\nno colon\r\n\r\n",
            b"POST /config HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /config HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(address, timeout=30) as client:
                try:
                    client.sendall(words)
                    client.shutdown(socket.SHUT_WR)
                    answer = b"".join(iter(lambda: client.recv(65536), b""))
                except TimeoutError:
                    raise
                except OSError:  # it was closed
                    answer = b""
            self.assertNotIn(b" 200 ", answer)
            self.assertNotIn(b"Traceback", answer)
        self.assertEqual(self.ask("GET", "/list").status, 200)

    def test_client_that_leaves(self) -> None:
        """What a client asked for is done, also where it does not wait for the answer."""
        key = json.dumps(self.upload()).encode()
        with socket.create_connection(("127.0.0.1", int(urlsplit(self.url).port or 80))) as client:
            head = f"POST /launch HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(key)}"
            client.sendall(f"{head}\r\n\r\n".encode() + key)
        wait_until(self.running, "the instance runs")
