"""The examples, run for real, with SIGKILL to the manager meanwhile: ``make examples_tests``.

The host is a network namespace of the test's own, as in tests/integration/test_network.py.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
from http.cookies import SimpleCookie
from typing import Any

from tests.integration.harness import ask_on, wait_until
from tests.integration.test_network import NetworkCase
from tests.support import PROJECT

IMAGE, TARBALL = "base_images/examples.tar", "mountables/examples.tar"
WITHIN = 120  # seconds, for what takes one, or ten if the image is unpacked


class ExampleCase(NetworkCase):
    """A test of an example, with its image and its files."""

    example = ""

    def add_images(self) -> None:
        """Have the manager find both."""
        for name in (IMAGE, TARBALL):
            (self.folder / name).symlink_to(PROJECT / name)

    def document(self, config: str) -> Any:
        """A config of the example."""
        return json.loads((PROJECT / "examples" / self.example / f"{config}.cfg").read_bytes())

    def keep(self, config: str) -> str:
        """Store a config of the example, and the secrets that it names; return its name."""
        document = self.document(config)
        for secret in document.get("secrets", ()):
            path = f"/secrets/{secret.split()[0]}"
            self.assertEqual(self.ask("PUT", path, b"a secret\n").status, 200)
        answer = self.ask("POST", "/config", document)
        self.assertEqual(answer.status, 200, answer.reason)
        return str(document["name"])

    def start_newest(self, name: str, instance: str) -> None:
        """Launch the newest version of a config under a name; wait until it listens."""
        manager = http.client.HTTPConnection("localhost", self.port, timeout=WITHIN)
        self.addCleanup(manager.close)
        answer = ask_on(manager, "POST", "/instances", {"config": name, "instance": instance})
        self.assertEqual(answer.status, 200, answer.body)
        wait_until(lambda: self.inspect(instance)["ready"], f"{instance} listens", WITHIN)

    def destroy(self, instance: str) -> None:
        """End an instance and remove what is its own."""
        answer = self.ask("DELETE", f"/destroy/{instance}")
        self.assertEqual(answer.status, 200, answer.reason)

    def run_in(self, instance: str, *command: str) -> str:
        """What a command writes in an instance, where it has to succeed."""
        answer = self.ask("POST", f"/instances/{instance}/exec", {"command": command})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.json["exit"]["status"], 0, answer.json)
        return str(answer.json["stdout"])

    def kill_manager(self) -> None:
        """SIGKILL to the manager."""
        self.manager.kill()
        self.manager.wait()

    def get(self, port: int, path: str = "/", **headers: str) -> http.client.HTTPResponse:
        """What a published port of this host answers."""
        connection = http.client.HTTPConnection("localhost", port, timeout=WITHIN)
        self.addCleanup(connection.close)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()


class PostgresTests(ExampleCase):
    """examples/postgres."""

    example = "postgres"

    def sql(self, statement: str) -> str:
        """What PostgreSQL answers, without a frame."""
        return self.run_in("db", "psql", "-qtAc", statement).strip()

    def wait_for_server(self) -> None:
        """Wait until it has recovered: it listens before."""
        self.run_in("db", "/bin/sh", "-c", "until pg_isready -q; do sleep 0.1; done")

    def test_next_minor(self) -> None:
        """What was written is there in the next minor version, after SIGKILL to the manager too."""
        self.start_newest(self.keep("postgres"), "db")
        self.sql("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('größer')")
        server = self.inspect("db")["pid"]
        self.kill_manager()
        self.start()
        self.assertEqual(self.sql("SELECT word FROM kept"), "größer")
        self.assertEqual(self.inspect("db")["pid"], server)
        self.assertEqual(self.ask("POST", "/instances/db/restart").status, 200)
        self.wait_for_server()
        self.assertEqual(self.sql("SELECT word FROM kept"), "größer")
        self.destroy("db")

        self.start_newest(self.keep("next"), "db")
        self.assertEqual(self.inspect("db")["minor"], "1")
        self.assertEqual(self.sql("SHOW shared_buffers"), "64MB")
        self.assertEqual(self.sql("SELECT word FROM kept"), "größer")
        log = self.ask("GET", "/instances/db/logs").body.decode()
        self.assertNotIn("database system was interrupted", log)  # it was asked to end, and did

    def test_crash(self) -> None:
        """After SIGKILL to the server it is started again, with all that was committed."""
        self.start_newest(self.keep("postgres"), "db")
        self.sql("CREATE TABLE kept AS SELECT generate_series(1, 100000) AS number")
        os.kill(self.inspect("db")["pid"], signal.SIGKILL)
        wait_until(lambda: self.inspect("db")["restarts"] == 1, "it is started again", WITHIN)
        wait_until(lambda: self.inspect("db")["ready"], "it listens again", WITHIN)
        self.wait_for_server()
        self.assertEqual(self.sql("SELECT count(*) FROM kept"), "100000")


class RedisTests(ExampleCase):
    """examples/redis."""

    example = "redis"

    def test_kept(self) -> None:
        """A connection outlives the manager, and the data outlives the instance."""
        name = self.keep("redis")
        self.start_newest(name, "cache")
        with socket.create_connection((self.address("cache"), 6379), WITHIN) as connection:
            talk = connection.makefile("rwb", buffering=0)
            self.assertEqual(self.say(talk, b"SET visits 41"), b"+OK")
            self.kill_manager()
            self.assertEqual(self.say(talk, b"INCR visits"), b":42")
            self.start()
            self.assertEqual(self.say(talk, b"INCR visits"), b":43")
        self.destroy("cache")
        self.start_newest(name, "cache")
        self.assertEqual(self.run_in("cache", "redis-cli", "GET", "visits"), "43\n")

    def say(self, talk: Any, command: bytes) -> bytes:
        """What redis answers to a line."""
        talk.write(command + b"\r\n")
        return bytes(talk.readline()).rstrip()


class NginxTests(ExampleCase):
    """examples/nginx."""

    example = "nginx"

    def test_page(self) -> None:
        """It serves a page without a manager too, as an ordinary user; its log says who asked."""
        self.start_newest(self.keep("nginx"), "web")
        self.assertIn(b"<h1>It works</h1>", self.get(8000).read())
        self.kill_manager()
        self.assertIn(b"<h1>It works</h1>", self.get(8000).read())
        self.assertEqual(self.get(8000, "/missing").status, 404)
        self.start()
        self.assertEqual(self.run_in("web", "id", "-un"), "www-data\n")
        log = self.log_of("web")
        self.assertIn('"GET /missing HTTP/1.1" 404', log)


class AppTests(ExampleCase):
    """examples/app."""

    example = "app"

    def visit(self, cookie: str = "") -> tuple[str, str]:
        """The number of visits that the page tells, and the cookie to come back with."""
        answer = self.get(8001, **({"Cookie": cookie} if cookie else {}))
        text = answer.read().decode()
        found = re.search(r"Visits: (\d+)", text)
        assert found, text
        session = SimpleCookie(answer.headers["Set-Cookie"])["session"]
        return found[1], f"session={session.value}"

    def test_cookie(self) -> None:
        """The next instance too takes its cookie for true, but none that someone has changed."""
        name = self.keep("app")
        self.start_newest(name, "app")
        number, cookie = self.visit()
        self.assertEqual(number, "1")
        self.kill_manager()
        number, cookie = self.visit(cookie)
        self.assertEqual(number, "2")
        self.start()
        self.destroy("app")
        self.start_newest(name, "app")
        self.assertEqual(self.visit(cookie)[0], "3")
        self.assertEqual(self.visit(f"{cookie[:-4]}AAAA")[0], "1")


class ShopTests(ExampleCase):
    """examples/shop."""

    example = "shop"
    parts = ("db", "cache", "app", "web")  # in the order of their start

    def open(self) -> None:
        """Launch the four."""
        for part in self.parts:
            self.start_newest(f"shop-{part}", part)

    def page(self) -> str:
        """The page that a browser shows."""
        answer = self.get(8000)
        text = answer.read().decode()
        self.assertEqual(answer.status, 200, text)
        return text

    def buy(self, connection: http.client.HTTPConnection) -> None:
        """Order the first article, on a connection that stays."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/orders", "article=1", form)
        answer = connection.getresponse()
        answer.read()
        self.assertEqual(answer.status, 302)

    def test_orders(self) -> None:
        """No order is lost: not when the manager is killed, and not when all four are replaced."""
        for part in self.parts:
            self.keep(part)
        self.open()
        self.assertIn("Visits: 1<", self.page())
        connection = http.client.HTTPConnection("localhost", 8000, timeout=WITHIN)
        self.addCleanup(connection.close)
        for doing in (self.kill_manager, self.start, lambda: None):
            for _ in range(10):
                self.buy(connection)
            doing()
        self.assertIn("<td>30 sold</td>", self.page())

        for part in reversed(self.parts):
            self.destroy(part)
        self.open()
        text = self.page()
        self.assertIn("<td>30 sold</td>", text)
        self.assertIn("Visits: 3<", text)

    def test_database_comes_back(self) -> None:
        """If the database is replaced, the app finds the new one."""
        for part in self.parts:
            self.keep(part)
        self.open()
        self.page()
        self.destroy("db")
        self.start_newest("shop-db", "db")
        wait_until(lambda: self.get(8000).status == 200, "the shop answers again", WITHIN)
        self.assertIn("Apple", self.page())
