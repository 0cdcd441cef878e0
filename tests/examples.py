"""The examples, run for real, with SIGKILL to the manager meanwhile: ``make examples_tests``.

The host is a network namespace of the test's own, as in tests/integration/test_network.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
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

    def setUp(self) -> None:
        """Have the manager know all that the stack names."""
        super().setUp()
        for config in (PROJECT / "examples/shop").glob("*.cfg"):
            self.keep(config.stem)
        self.stack = json.loads((PROJECT / "examples/shop/shop.json").read_bytes())

    def stop(self) -> None:
        """Close the shop, and stop the manager."""
        if self.manager.poll() is None:
            self.close()
        super().stop()

    def change(self, method: str, path: str, body: Any = None) -> Any:
        """Change the stack; return what came of it."""
        manager = http.client.HTTPConnection("localhost", self.port, timeout=WITHIN)
        self.addCleanup(manager.close)
        answer = ask_on(manager, method, f"{path}?wait=1", body)
        return json.loads(answer.body.splitlines()[-1])

    def open(self) -> None:
        """Have the stack be as it says."""
        self.assertEqual(self.change("POST", "/stacks", self.stack)["wrong"], [])

    def close(self) -> None:
        """Remove it; its volumes stay."""
        self.change("DELETE", "/stacks/shop")

    def service(self, name: str) -> Any:
        """What the manager tells of a service."""
        services = self.ask("GET", "/services").json["services"]
        return next(one for one in services if one["service"] == f"shop-{name}")

    def page(self, port: int = 8000) -> str:
        """The page that a browser shows."""
        answer = self.get(port)
        text = answer.read().decode()
        self.assertEqual(answer.status, 200, text)
        return text

    def order(self) -> int:
        """Order the first article; return the status of the answer."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection = http.client.HTTPConnection("localhost", 8000, timeout=WITHIN)
        try:
            connection.request("POST", "/orders", "article=1", form)
            return connection.getresponse().status
        finally:
            connection.close()

    @contextlib.contextmanager
    def ordering(self) -> Iterator[list[int | Exception]]:
        """Order without a pause meanwhile; what comes of each order is in the list."""
        over, orders = threading.Event(), list[int | Exception]()

        def order() -> None:
            while not over.is_set():
                try:
                    orders.append(self.order())
                except (OSError, http.client.HTTPException) as error:
                    orders.append(error)

        thread = threading.Thread(target=order)
        thread.start()
        try:
            yield orders
        finally:
            over.set()
            thread.join()

    def test_updates(self) -> None:
        """No order is lost by an update, a manager that is killed, or a bad version."""
        self.open()
        self.assertIn("Version 1.0,", self.page())
        with self.ordering() as orders:
            self.ask("POST", "/services/app/update", {"major": "1", "minor": "1"})
            wait_until(lambda: self.service("app")["current"], "a replica is new", WITHIN)
            self.kill_manager()
            self.start()
            wait_until(lambda: self.service("app")["state"] == "done", "the update is done", WITHIN)
            self.assertIn("Version 1.1,", self.page())

            bad = {"major": "1", "minor": "2"}
            (why,) = self.change("POST", "/services/app/update", bad)["wrong"]
            self.assertRegex(
                why, r"shop-app-\d is unhealthy: .*; GET /healthz on port 8000: HTTP/1.1 500"
            )
            self.assertEqual(self.service("app")["config"], "shop-app-1-1")
        self.assertEqual({*orders}, {302})
        self.assertIn(f"<td>{len(orders)} sold</td>", self.page())

    def test_kept(self) -> None:
        """Orders and visits are there after the whole stack was taken down; each is reported."""
        self.open()
        self.assertIn("Visits: 1<", self.page())
        self.assertEqual([self.order() for _ in range(3)], [302] * 3)
        self.close()
        self.stack["services"]["report"] = {"config": "shop-report-1-0", "run": "once"}
        self.stack["services"]["report"]["after"] = {"migrate": "completed_successfully"}
        self.open()
        text = self.page()
        self.assertIn("<td>3 sold</td>", text)
        self.assertIn("Visits: 2<", text)
        self.assertRegex(self.log_of("shop-report-1"), r"\| Apple +\| +3 \| +3\n")

    def test_database_ends(self) -> None:
        """After SIGKILL to the database the shop comes back by itself."""
        self.open()
        self.order()
        os.kill(self.inspect("shop-db-1")["pid"], signal.SIGKILL)
        wait_until(lambda: self.inspect("shop-db-1")["restarts"], "it is started again", WITHIN)
        wait_until(lambda: self.get(8000).status == 200, "the shop answers again", WITHIN)
        self.assertIn("<td>1 sold</td>", self.page())

    def test_preview(self) -> None:
        """The next version runs only when someone looks at it."""
        self.open()
        self.assertEqual(self.service("preview")["running"], 0)
        self.assertIn("Version 1.1,", self.page(8002))
        self.assertEqual(self.service("preview")["running"], 1)
