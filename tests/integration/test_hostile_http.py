"""HTTP from those who mean no good, against the real manager."""

import contextlib
import http.client
import json
import os
import resource
import socket
import time
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from tests.integration.harness import PATIENCE, ManagerCase, ask, ask_on, wait_until

HEAD = b"Host: localhost\r\n"
GET = b"GET /list HTTP/1.1\r\n" + HEAD + b"\r\n"
TICKS = os.sysconf("SC_CLK_TCK")
EXAMPLES = 25  # of each operation


class HostileCase(ManagerCase):
    """A test that speaks to the manager byte by byte."""

    def connect(self) -> Any:
        """A connection to the manager."""
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.addCleanup(client.close)
        return client

    def read(self, client: Any) -> Any:
        """What is answered until the connection is closed, by the one word or the other."""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def answer(self, request: Any) -> Any:
        """What is answered to a request until the connection is closed."""
        client = self.connect()
        client.sendall(request)
        return self.read(client)

    def processor_time(self) -> Any:
        """Seconds of processor time that the manager has used."""
        with open(f"/proc/{self.manager.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def answers_again(self) -> Any:
        """Whether a new connection is answered; one too many may be cut off."""
        with contextlib.suppress(OSError):
            return ask(self.url, "GET", "/list").status == 200

    def log_text(self) -> Any:
        """What the manager has logged."""
        return (self.folder / "manager.log").read_text()


class RequestTests(HostileCase):
    """Requests that are none, too long, or several at once."""

    def test_smuggling(self) -> None:
        """A request of two lengths is answered once, and hides no other."""
        answer = self.answer(
            b"POST /config HTTP/1.1\r\n"
            + HEAD
            + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            + GET
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request"))
        self.assertNotIn(b"HTTP/1.1 200", answer)

    def test_hosts(self) -> None:
        """A request of no host, or of two, is answered with 400, and the connection closed."""
        for hosts in (b"", HEAD + HEAD):
            answer = self.answer(b"GET /list HTTP/1.1\r\n" + hosts + b"\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request"))
            self.assertTrue(answer.endswith(b"\r\n\r\n"))

    def test_pipelining(self) -> None:
        """A launch, what became of it, and its end, all sent at once, are answered in order."""
        key = self.upload()
        body = json.dumps(key).encode()
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        launch = b"POST /launch HTTP/1.1\r\n" + HEAD + length + body
        answer = self.answer(
            launch + GET + b"DELETE /destroyall HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n"
        )
        launched, listed, destroyed = answer.split(b"HTTP/1.1 ")[1:]
        self.assertEqual({part[:6] for part in (launched, listed, destroyed)}, {b"200 OK"})
        instance = launched.split(b'"instance": "')[1].split(b'"')[0]
        self.assertIn(instance, listed)

    def test_far_too_long(self) -> None:
        """17 MiB are not read to their end, and the manager does not keep them."""
        client = self.connect()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(b"POST /config HTTP/1.1\r\n" + HEAD)
            client.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(17 * 16):
                client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        self.assertEqual(self.ask("GET", "/list").status, 200)
        with open(f"/proc/{self.manager.pid}/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
        self.assertLess(peak, 150_000)  # KiB

    def test_a_little_too_long(self) -> None:
        """One byte over a mebibyte is a 409, and the connection goes on."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        answer = ask_on(connection, "POST", "/config", b"x" * ((1 << 20) + 1))
        self.assert_refused(answer, 409, "longer than 1048576 bytes")
        self.assertEqual(ask_on(connection, "GET", "/list").status, 200)

    def test_log(self) -> None:
        """The log has a line a request, with who, what, how long and why not; and no other."""
        self.answer(b"GET /a%0aforged\x9b31m HTTP/1.0\r\n" + HEAD + b"User-Agent: \x1b[31m\r\n\r\n")
        # It is written a moment after the answer.
        wait_until(lambda: "forged" in self.log_text(), "the request is logged")
        line = self.log_text().splitlines()[-1]
        pattern = r"loopback GET /a%0aforged\\x9b31m \d+\.\d ms 404: there is no such path"
        self.assertRegex(line, pattern)
        self.assertNotIn("\x1b", self.log_text())


class PatienceTests(HostileCase):
    """Requests that do not come to an end."""

    options = ("--request-timeout", "2", "--idle-timeout", "3")

    def test_drip(self) -> None:
        """A byte now and then does not keep a connection: the whole request has its time."""
        client = self.connect()
        client.sendall(GET[:-2] + b"X-Header: ")
        deadline = time.monotonic() + PATIENCE
        with self.assertRaises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < deadline:
                client.sendall(b"x")
                time.sleep(0.2)

    def test_silence(self) -> None:
        """A silent connection is closed, before its first request and after it."""
        for request in (b"", GET):
            began, answer = time.monotonic(), self.answer(request)  # within PATIENCE
            self.assertEqual(answer.startswith(b"HTTP/1.1 200"), bool(request))
            self.assertGreater(time.monotonic() - began, 2)

    def test_in_time(self) -> None:
        """A request that was late is told so."""
        self.assertTrue(self.answer(GET[:-2]).startswith(b"HTTP/1.1 408 Request Timeout"))

    def test_answer(self) -> None:
        """An answer may take longer than a request: nothing ends who waits for an instance."""
        instance = self.launch(**self.job("#!/bin/sh\nsleep 4\n"))
        self.assertEqual(self.ask("GET", f"/instances/{instance}/wait").json["exit"]["status"], 0)


class CrowdTests(HostileCase):
    """Very many connections."""

    options = ("--max-connections", "1000")

    def setUp(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        super().setUp()

    def test_a_thousand(self) -> None:
        """With 999 idle connections the last is served too; one more is told to come later."""
        crowd = [self.connect() for _ in range(999)]
        last = self.connect()
        last.sendall(GET)
        self.assertTrue(last.recv(1000).startswith(b"HTTP/1.1 200"))  # while those are idle
        self.assertTrue(self.answer(b"").startswith(b"HTTP/1.1 503 Service Unavailable"))
        for client in crowd:
            client.close()
        wait_until(self.answers_again, "there is room again")


class DescriptorTests(HostileCase):
    """A manager that has no descriptor left for a while."""

    def limit(self, number: int) -> None:
        """Leave the manager so many descriptors."""
        _, most = resource.prlimit(self.manager.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.manager.pid, resource.RLIMIT_NOFILE, (number, most))

    def test_none_left(self) -> None:
        """It goes on with whom it knows, does not spin, and takes others when it can again."""
        first = self.connect()
        first.sendall(GET)
        self.assertIn(b"200 OK", first.recv(1000))
        key = self.upload()
        before = resource.prlimit(self.manager.pid, resource.RLIMIT_NOFILE)[0]
        self.limit(len(os.listdir(f"/proc/{self.manager.pid}/fd")))
        before_that, began = self.processor_time(), time.monotonic()
        others = [self.connect() for _ in range(5)]
        time.sleep(2)
        used, elapsed = self.processor_time() - before_that, time.monotonic() - began
        self.assertLess(used, elapsed / 2)  # to spin would take all of it
        first.sendall(GET)
        self.assertIn(b"200 OK", first.recv(1000))
        first.sendall(b"POST /launch HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n\r\n{}")
        self.assertIn(b"409 Bad Request", first.recv(1000))
        self.assertIsNone(self.manager.poll())
        self.limit(before)
        for client in others:
            client.close()
        wait_until(self.answers_again, "it takes connections again")
        self.assertEqual(self.ask("POST", "/launch", key).status, 200)


class SchemaTests(HostileCase):
    """Requests made up of the OpenAPI document, and of what it does not allow."""

    CHECKS = (
        checks.not_a_server_error,
        openapi_checks.status_code_conformance,
        openapi_checks.content_type_conformance,
        openapi_checks.response_headers_conformance,
        openapi_checks.response_schema_conformance,
    )

    def test_no_surprises(self) -> None:
        """Whatever is asked, no answer is a 500, or one that the document does not tell of."""
        self.launch(**self.job("#!/bin/sh\necho hello; sleep 600\n"))
        schema = schemathesis.openapi.from_url(f"{self.url}/openapi.json")
        schema.validate()
        asked = 0
        for found in schema.get_all_operations():
            operation = found.ok()
            asked += self.try_out(operation)
        self.assertGreater(asked, EXAMPLES * 10)
        self.assertNotIn("Traceback", self.log_text())

    def try_out(self, operation: Any) -> Any:
        """Ask for an operation in many ways; return how many."""
        count = 0

        @seed(5)
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask_for(case: Any) -> None:
            nonlocal count
            count += 1
            case.query.pop("follow", None)  # an answer without an end has no place here
            case.validate_response(case.call(timeout=PATIENCE), checks=list(self.CHECKS))

        ask_for()
        return count
