"""The commands, against a fake manager in memory."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import quote

from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, NoRouteError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed

from tests.cli.session import NO_REASON, Broken, Manager, Session
from tests.support import MEASURED
from txcontain import __version__
from txcontain.cli import complete, connect, lesson, main, system
from txcontain.cli.client import QUICK, SLOW, Client, fits
from txcontain.cli.command import INSTANCE, INSTANCES
from txcontain.cli.commands import COMMANDS, OF_CHECKOUT
from txcontain.cli.errors import CliError, Refused
from txcontain.cli.words import age

URL = "http://localhost:8080"
CLI = Path(__file__).resolve().parents[2] / "cli"

LAUNCHED = {"instance": "web-1", "name": "web", "major": "1", "minor": "01"}
RECORD = {**LAUNCHED, "state": "running", "since": 0, "pid": 7, "restarts": 0, "exit": None}
RUNNING = {**LAUNCHED, "state": "running", "since": 1000, "pid": 4711, "restarts": 0, "exit": None}
ENDED = {
    **RUNNING,
    "instance": "web-2",
    "state": "ended",
    "pid": None,
    "restarts": 3,
    "exit": {"status": None, "signal": 9, "reason": "out of memory"},
}
EVENT = {"seq": 7, "time": 1000.5, "instance": "web-1", "what": "ended", "reason": "status 3"}
PROBLEM = {
    "title": "No such instance",
    "detail": "there is no web-9",
    "chain": ["inspect web-9", "look at `txcontain ps`"],
}


class CourseTests(Session):
    """The six commands whose output the course compares."""

    commands = OF_CHECKOUT

    def test_upload(self) -> None:
        """A file goes to the manager byte for byte, as JSON, and the answer is one word."""
        file = self.mktemp()
        Path(file).write_bytes(b'{"name": "\xff" }\r\n')
        self.manager.answers_to("POST /config")
        self.assertEqual(self.run_command("upload", file), 0)
        self.assertEqual(self.manager.asked, [("POST /config", b'{"name": "\xff" }\r\n')])
        self.assertEqual(self.manager.headers.getRawHeaders("Content-Type"), ["application/json"])
        self.assertEqual((self.out, self.err), ("Success\n", ""))

    def test_upload_from_standard_input(self) -> None:
        """With - in place of a file, standard input is sent."""
        file = self.mktemp()
        Path(file).write_bytes(b"{}")
        before = os.dup(0)
        self.addCleanup(os.close, before)
        self.addCleanup(os.dup2, before, 0)
        with open(file) as given:
            os.dup2(given.fileno(), 0)
        self.manager.answers_to("POST /config")
        self.assertEqual(self.run_command("upload", "-"), 0)
        self.assertEqual(self.manager.asked, [("POST /config", b"{}")])

    def test_upload_refused(self) -> None:
        """A refused config is `Failure` on stdout, and why on stderr."""
        file = self.mktemp()
        Path(file).write_text("no JSON")
        self.manager.answers_to("POST /config", status=409, Txcontain_Reason=quote("Not “JSON”"))
        self.assertEqual(self.run_command("upload", file), 1)
        self.assertEqual((self.out, self.err), ("Failure\n", "Not “JSON”\n"))

    def test_upload_missing_file(self) -> None:
        """If the file does not exist, a sentence says so, and nothing is sent."""
        self.assertEqual(self.run_command("upload", "no/such.cfg"), 1)
        self.assertEqual(self.out, "Failure\n")
        self.assertEqual(self.err, "Can't read no/such.cfg: No such file or directory.\n")
        self.assertEqual(self.manager.asked, [])

    def test_cfginfo(self) -> None:
        """The stored configs are a line each, and nothing else."""
        self.manager.answers_to("GET /cfginfo", {"files": ["a-1-01.cfg", "b-2-1.cfg"]})
        self.assertEqual(self.run_command("cfginfo"), 0)
        self.assertEqual((self.out, self.err), ("a-1-01.cfg\nb-2-1.cfg\n", ""))

    def test_cfginfo_empty(self) -> None:
        """If nothing is stored, nothing is printed."""
        self.manager.answers_to("GET /cfginfo", {"files": []})
        self.assertEqual((self.run_command("cfginfo"), self.out, self.err), (0, "", ""))

    def test_launch(self) -> None:
        """A launch sends three strings, and prints the instance's name."""
        self.manager.answers_to("POST /launch", LAUNCHED)
        self.assertEqual(self.run_command("launch", "web", "1", "01"), 0)
        [(_, body)] = self.manager.asked
        self.assertEqual(json.loads(body), {"name": "web", "major": "1", "minor": "01"})
        self.assertEqual((self.out, self.err), ("Success: web-1\n", ""))

    def test_launch_with_a_note(self) -> None:
        """A note about a success goes to stderr: stdout is compared."""
        self.manager.answers_to("POST /launch", LAUNCHED, Txcontain_Note=quote("no “port” yet"))
        self.assertEqual(self.run_command("launch", "web", "1", "01"), 0)
        self.assertEqual((self.out, self.err), ("Success: web-1\n", "no “port” yet\n"))

    def test_launch_refused(self) -> None:
        """A failed launch prints all lines of its reason on stdout."""
        reason = "port 80 is taken\nby web-7 (pid 12): “tiny”"
        self.manager.answers_to("POST /launch", status=500, Txcontain_Reason=quote(reason))
        self.assertEqual(self.run_command("launch", "web", "1", "01"), 1)
        self.assertEqual((self.out, self.err), (f"Failure: {reason}\n", ""))

    def test_refused_without_reason(self) -> None:
        """If a refusal has no reason, its status line is shown."""
        self.manager.answers_to("POST /launch", status=404)
        self.run_command("launch", "web", "1", "01")
        self.assertEqual(self.out, f"Failure: HTTP status 404 Not Found{NO_REASON}\n")

    def test_terminal_codes(self) -> None:
        """A reason can't command the terminal: it may hold what a container wrote."""
        reason = "it said: \x1b[2J\u202etxt"
        self.manager.answers_to("POST /launch", status=500, Txcontain_Reason=quote(reason))
        self.run_command("launch", "web", "1", "01")
        self.assertEqual(self.out, "Failure: it said: \\x1b[2J\\x202etxt\n")

    def test_list(self) -> None:
        """The running instances are a line each, in the order they came."""
        second = {**LAUNCHED, "instance": "a", "minor": "2"}
        self.manager.answers_to("GET /list", {"instances": [LAUNCHED, second]})
        self.assertEqual(self.run_command("list"), 0)
        self.assertEqual(self.out, "web-1: web-1-01.cfg\na: web-1-2.cfg\n")

    def test_list_refused(self) -> None:
        """A listing that fails says so only on stderr."""
        self.manager.answers_to("GET /list", status=409, Txcontain_Reason="no")
        self.assertEqual((self.run_command("list"), self.out, self.err), (1, "", "no\n"))

    def test_destroy(self) -> None:
        """An instance's name is one part of the path, whatever it holds."""
        self.manager.answers_to("DELETE /destroy/a%2F..%3F%FF")
        self.assertEqual(self.run_command("destroy", "a/..?\udcff"), 0)
        self.assertEqual((self.out, self.err), ("Success\n", ""))

    def test_destroy_unknown(self) -> None:
        """An unknown instance is `Failure` on stdout, and why on stderr."""
        self.manager.answers_to("DELETE /destroy/x", status=404, Txcontain_Reason="no%20x")
        self.assertEqual(self.run_command("destroy", "x"), 1)
        self.assertEqual((self.out, self.err), ("Failure\n", "no x\n"))

    def test_destroyall(self) -> None:
        """All instances are ended by one request."""
        self.manager.answers_to("DELETE /destroyall")
        self.assertEqual((self.run_command("destroyall"), self.out), (0, "Success\n"))

    def test_destroyall_refused(self) -> None:
        """A destroyall that fails is `Failure` on stdout, and why on stderr."""
        self.manager.answers_to("DELETE /destroyall", status=500, Txcontain_Reason="stuck")
        self.assertEqual(self.run_command("destroyall"), 1)
        self.assertEqual((self.out, self.err), ("Failure\n", "stuck\n"))


class LifeTests(Session):
    """The commands that show an instance's life."""

    def test_inspect(self) -> None:
        """All that the manager tells of an instance is printed as indented JSON."""
        self.manager.answers_to("GET /instances/web-1", RUNNING)
        self.assertEqual(self.run_command("inspect", "web-1"), 0)
        self.assertEqual(json.loads(self.out), RUNNING)
        self.assertIn('\n  "pid": 4711,\n', self.out)

    def test_problem(self) -> None:
        """A problem document is told on stderr, with the whole chain."""
        self.manager.answers_to(
            "GET /instances/web-9",
            PROBLEM,
            status=404,
            Content_Type="application/problem+json; charset=utf-8",
        )
        self.assertEqual((self.run_command("inspect", "web-9"), self.out), (1, ""))
        self.assertEqual(
            self.err,
            "No such instance: there is no web-9\n  inspect web-9\n  look at `txcontain ps`\n",
        )

    def test_destroy(self) -> None:
        """What words stand for is looked up, then each of these is destroyed, whatever fails."""
        for word, found in (("web", ["web-1"]), ("config%3Adb", ["db-1", "db-2"])):
            records = [{**RUNNING, "instance": name} for name in found]
            self.manager.answers_to(f"GET /instances?match={word}", {"instances": records})
        self.manager.answers_to("GET /instances?match=x", status=404, Txcontain_Reason="no%20x")
        for name in ("web-1", "db-1"):
            self.manager.answers_to(f"DELETE /destroy/{name}")
        self.manager.answers_to("DELETE /destroy/db-2", status=500, Txcontain_Reason="stuck")
        self.assertEqual(self.run_command("destroy", "web", "x", "config:db"), 1)
        self.assertEqual(self.out, "web-1: destroyed\ndb-1: destroyed\n")
        self.assertEqual(self.err, "x: no x\ndb-2: stuck\n")
        self.assertEqual(self.run_command("destroy", "web"), 0)

    def test_logs(self) -> None:
        """Logs come out byte for byte, be they text or not."""
        self.manager.answers_to("GET /instances/web-1/logs", b"one\n\xff\x00two")
        self.assertEqual(self.run_command("logs", "web-1"), 0)
        self.assertEqual(self.stdout.buffer.getvalue(), b"one\n\xff\x00two")

    def test_logs_options(self) -> None:
        """The options of logs become the query."""
        self.manager.answers_to("GET /instances/web-1/logs?tail=5&stream=stderr&follow=1")
        self.assertEqual(
            self.run_command("logs", "-f", "-n", "5", "--stream", "stderr", "web-1"), 0
        )

    def test_several_logs(self) -> None:
        """Several instances, or all, are asked for at once; and times become the query."""
        self.manager.answers_to("GET /logs?instance=web-1&instance=web-2&since=10m&timestamps=1")
        self.assertEqual(self.run_command("logs", "-t", "--since", "10m", "web-1", "web-2"), 0)
        self.manager.answers_to("GET /logs?all=1&until=1h")
        self.assertEqual(self.run_command("logs", "--all", "--until", "1h"), 0)

    def test_logs_of_a_service(self) -> None:
        """One word may stand for several instances, whose logs are merged."""
        self.manager.answers_to("GET /logs?instance=service%3Aapp")
        self.assertEqual(self.run_command("logs", "service:app"), 0)

    def test_times(self) -> None:
        """A time that the parser takes for an option is answered with how one is written."""
        for command in ("logs", "events"):
            self.assertRaises(SystemExit, self.run_command, command, "--since", "-an-hour")
        self.assertEqual(self.err.count("or how long ago, as 90s, 10m or 2h\n"), 2)

    def test_logs_on_a_terminal(self) -> None:
        """On a terminal, control characters are shown, except colours; elsewhere they pass."""
        text = b"\x1b[1;32mgreen\x1b[m\x1b]0;title\x07\r\nover\rwritten\x00\xc2\x9b\xc3\xa9\n"
        self.manager.answers_to("GET /instances/web-1/logs", text)
        self.patch(self.stdout, "isatty", lambda: True)
        self.assertEqual(self.run_command("logs", "web-1"), 0)
        shown = b"\x1b[1;32mgreen\x1b[m\\x1b]0;title\\x07\r\n"
        shown += b"over\\x0dwritten\\x00\\xc2\\x9b\xc3\xa9\n"
        self.assertEqual(self.stdout.buffer.getvalue(), shown)

    def test_logs_follow(self) -> None:
        """A followed log is printed as it comes, and waited for forever."""
        self.manager.answers_to("GET /instances/web-1/logs?follow=1", None)
        status = self.start("logs", "-f", "web-1")
        [request] = self.manager.waiting
        request.write(b"one\n")
        self.http.flush()
        self.assertEqual(self.out, "one\n")
        self.clock.advance(1e6)
        request.write(b"two\n")
        request.finish()
        self.http.flush()
        self.assertEqual((self.successResultOf(status), self.out), (0, "one\ntwo\n"))

    def test_events(self) -> None:
        """An event is one line, wherever the stream was cut into chunks."""
        self.manager.answers_to("GET /events?since=3&follow=1", None)
        status = self.start("events", "-f", "--since", "3")
        [request] = self.manager.waiting
        text = json.dumps(EVENT).encode()
        for chunk in (text[:9], text[9:] + b"\n" + text, b"\n\n"):
            request.write(chunk)
            self.http.flush()
        request.finish()
        self.http.flush()
        self.assertEqual(self.successResultOf(status), 0)
        first, second = self.out.splitlines()
        self.assertEqual(first, second)
        self.assertTrue(
            re.fullmatch(r"7 19\d\d-\d\d-\d\dT[\d:]{8}\.\d{3}Z web-1 ended: status 3", first)
        )

    def test_events_tell_all(self) -> None:
        """Keys that only some events have are shown too, such as a config's name."""
        event = {**EVENT, "instance": None, "what": "config", "config": "a.cfg", "by": "uid 7"}
        self.manager.answers_to("GET /events", json.dumps(event).encode() + b"\n")
        self.assertEqual(self.run_command("events"), 0)
        self.assertTrue(self.out.endswith(" - config: status 3 (config a.cfg, by uid 7)\n"))

    def test_events_json(self) -> None:
        """With --json an event is passed on whole."""
        self.manager.answers_to("GET /events", json.dumps(EVENT).encode() + b"\n")
        self.assertEqual(self.run_command("events", "--json"), 0)
        self.assertEqual(json.loads(self.out), EVENT)

    def test_life(self) -> None:
        """Several are changed at once, a line each; the status is 1 if one of them failed."""
        self.manager.answers_to("GET /instances?match=config%3Aweb", {"instances": [RECORD]})
        self.manager.answers_to("POST /instances/web-1/stop", {**RECORD, "state": "stopped"})
        self.manager.answers_to("POST /instances/db/stop", status=409)
        self.assertEqual(self.run_command("stop", "-t", "3", "config:web"), 0)
        self.assertEqual(self.run_command("stop", "config:web", "db"), 1)
        self.assertEqual(self.out, "web-1: stopped\n" * 2)
        self.assertEqual(self.err, f"db: HTTP status 409 Conflict{NO_REASON}\n")

    def test_paused(self) -> None:
        """A paused instance is called so."""
        self.manager.answers_to("POST /instances/web-1/pause", {**RECORD, "paused": True})
        self.assertEqual(self.run_command("pause", "web-1"), 0)
        self.assertEqual(self.out, "web-1: paused\n")

    def test_rename(self) -> None:
        """The new name is shown beside the old one."""
        record = {**RECORD, "instance": "shop"}
        self.manager.answers_to("POST /instances/web-1/rename", record)
        self.assertEqual(self.run_command("rename", "web-1", "shop"), 0)
        self.assertEqual(self.out, "web-1: renamed to shop\n")

    def test_ports(self) -> None:
        """The ports of an instance are published and withdrawn, and then shown."""
        for command, ports in (("publish", ["127.0.0.1:8080->80/tcp"]), ("withdraw", [])):
            record = {**RECORD, "ports": ports}
            self.manager.answers_to("POST /instances/web-1/ports", record)
            self.assertEqual(self.run_command(command, "web-1", "8080:80"), 0)
        self.assertEqual(self.out, "web-1: 127.0.0.1:8080->80/tcp\nweb-1: no ports\n")

    def test_life_of_none(self) -> None:
        """A config without instances is an error, and the others are changed all the same."""
        self.manager.answers_to("GET /instances?match=config%3Adb", status=404)
        self.manager.answers_to("POST /instances/web-1/start", RECORD)
        self.assertEqual(self.run_command("start", "config:db", "web-1"), 1)
        self.assertEqual(self.out, "web-1: running\n")

    def test_wait(self) -> None:
        """Wait says how the instance ended, and exits as it did."""
        for end, status in (
            ({"status": 3, "signal": None, "reason": "exit status 3"}, 3),
            ({"status": 0, "signal": None, "reason": "exit status 0"}, 0),
            ({"status": None, "signal": 9, "reason": "out of memory"}, 137),
            ({"status": None, "signal": None, "reason": "the machine went down"}, 125),
        ):
            self.manager.answers_to("GET /instances/web-1/wait", {"exit": end})
            self.assertEqual(self.run_command("wait", "web-1"), status)
            self.assertEqual(self.out.splitlines()[-1], end["reason"])

    def test_wait_fails(self) -> None:
        """If wait itself fails, its status is one that instances hardly ever have."""
        self.manager.answers_to("GET /instances/web-1/wait", status=404)
        self.assertEqual(self.run_command("wait", "web-1"), 125)
        self.http = HTTPClient(cast(Any, Broken(ConnectionRefusedError())))
        self.assertEqual(self.run_command("wait", "web-1"), 125)

    def test_wait_is_patient(self) -> None:
        """Wait is not given up, however long the instance runs."""
        self.manager.answers_to("GET /instances/web-1/wait", None)
        status = self.start("wait", "web-1")
        self.clock.advance(1e6)
        self.assertNoResult(status)

    def test_version(self) -> None:
        """The versions of the program and of the manager are shown; only the former if need be."""
        self.manager.answers_to("GET /version", {"version": "9.9", "python": "3.14", "kernel": "7"})
        self.assertEqual(self.run_command("version"), 0)
        ours = f"txcontain {__version__}\n"
        self.assertEqual(self.out, f"{ours}manager 9.9 (python 3.14, kernel 7)\n")
        self.manager.answers_to("GET /version", status=404)
        self.assertEqual(self.run_command("version"), 1)
        self.assertTrue(self.out.endswith(f")\n{ours}"))


class NoAnswerTests(Session):
    """What is said if there is no answer, or none that can be used."""

    def test_refused_connection(self) -> None:
        """If nothing listens, every command says how to start the manager."""
        file = self.mktemp()
        Path(file).touch()
        self.http = HTTPClient(cast(Any, Broken(ConnectionRefusedError())))
        words = {"upload": [file], "launch": ["web", "1", "01"], "logs": ["web-1"]}
        words["run"] = ["a", "b"]
        words |= {"cp": ["web-1:/a", "-"], "commit": ["web-1", "a.tar"]}
        words |= {"destroy": ["web-1"], "exec": ["web-1", "ls"]}
        stack = str(Path(file).absolute())
        words |= {"up": [stack], "down": ["shop"], "scale": ["app=2"], "diff": ["web-1"]}
        words |= {"update": ["app", "1", "2"], "rollback": ["app"]}
        words["export"] = ["web", "1", "01", "--to", "compose", file]
        words["rename"] = ["web-1", "shop"]
        words["top"] = ["web-1"]
        words["compare"] = ["web-1", "1"]
        words["step"] = ["web", "1", "01"]
        words |= {key: ["web-1", "80:80"] for key in ("publish", "withdraw")}
        for command in COMMANDS:
            if command.run in (system.token, system.give_help, complete.complete, lesson.ls):
                continue  # they ask nobody
            takes_instance = {INSTANCE, INSTANCES} & set(command.arguments)
            given = words.get(command.name, ["web-1"] if takes_instance else [])
            self.stderr.truncate(0)
            self.assertEqual(self.run_command(command.name, *given), command.failure)
            said = self.out.splitlines()[-1] if command.name == "launch" else self.err
            self.assertIn(f"Nothing listens at {URL}: start the manager with `make manager`", said)

    def test_how_to_start(self) -> None:
        """How a manager is started depends on where it is to run, and on what is installed."""
        here, folder = Path(__file__).resolve().parents[2], Path(self.mktemp())
        self.patch(connect, "UNIT", folder / "none")
        for url in (URL, "unix:/run/x", "https://[::1]:1"):
            said = f"start the manager with `make manager` in {here}"
            self.assertEqual(connect.how_to_start(url), said)
        self.assertEqual(connect.how_to_start("https://h"), "start the manager on that host")
        self.patch(connect, "CHECKOUT", folder)
        said = "start the manager with `twistd containerd-lite`"
        self.assertEqual(connect.how_to_start(URL), said)
        self.patch(connect, "UNIT", here)
        said = "start the manager with `systemctl start txcontain`"
        self.assertEqual(connect.how_to_start(URL), said)

    def test_request_url(self) -> None:
        """What a request names as its address is a name, whatever the manager's address is."""
        for url, wanted in {
            "http://h:8080": "http://h:8080",
            "http://127.0.0.1": "http://127.0.0.1",
            "unix:/run/x": "http://localhost",
            "http://[::1]:18990": "http://localhost:18990",
            "https://[2001:db8::1]": "https://localhost",
        }.items():
            self.assertEqual(connect.request_url(url), wanted)
            EncodedURL.from_text(wanted).to_uri()  # as treq does

    def test_other_failures(self) -> None:
        """Every other way to have no connection is a sentence that names the address."""
        for error in (
            DNSLookupError("no such host"),
            NoRouteError(),
            ResponseFailed([Failure(ValueError())]),
            UnicodeError("empty label"),
        ):
            self.http = HTTPClient(cast(Any, Broken(error)))
            self.stderr.truncate(0)
            self.assertEqual((self.run_command("list"), self.out), (1, ""))
            self.assertIn(URL, self.err)
            self.assertEqual(self.err.count("\n"), 1)

    def test_silence(self) -> None:
        """A silent manager is given up: after a launch later than after a question."""
        self.manager.answers_to("GET /unpacking", status=404)
        for words, asked, patience in (
            (["list"], "GET /list", QUICK),
            (["logs", "web-1"], "GET /instances/web-1/logs", QUICK),
            (["launch", "web", "1", "01"], "POST /launch", SLOW),
            (["destroyall"], "DELETE /destroyall", SLOW),
        ):
            self.manager.answers_to(asked, None)
            status = self.start(*words)
            self.clock.advance(patience - 1)
            self.assertNoResult(status)
            self.clock.advance(1)
            self.http.flush()  # a launch asks first whether images come
            self.assertEqual(self.successResultOf(status), 1)
            self.assertIn(f"{URL} did not answer within {patience} s", self.out + self.err)

    def test_what_may_take_long(self) -> None:
        """What may have to pull an image first is waited for."""
        for words, asked in (
            (["explain", "web", "1", "01"], "GET /configs/web-1-01/explain"),
            (["step", "web", "1", "01"], "POST /steps/web-1-01"),
        ):
            self.manager.answers_to(asked, None)
            status = self.start(*words)
            self.clock.advance(SLOW + 1)
            self.assertNoResult(status)

    def test_half_an_answer(self) -> None:
        """An answer that stops in its middle is given up as well."""
        self.manager.answers_to("GET /instances/web-1/logs", None)
        status = self.start("logs", "web-1")
        self.clock.advance(QUICK - 1)
        self.manager.waiting[0].write(b"one\n")
        self.http.flush()
        self.clock.advance(QUICK - 1)
        self.assertNoResult(status)
        self.clock.advance(1)
        self.assertEqual((self.successResultOf(status), self.out), (1, "one\n"))
        self.assertIn("did not answer", self.err)

    def test_cut_off(self) -> None:
        """A connection that is lost in the middle of an answer is a sentence."""
        self.manager.answers_to("GET /events?follow=1", None)
        status = self.start("events", "-f")
        [request] = self.manager.waiting
        request.write(json.dumps(EVENT).encode() + b"\n")
        request.channel.forceAbortClient()
        self.http.flush()
        self.assertEqual(self.successResultOf(status), 1)
        self.assertIn("web-1 ended", self.out)
        self.assertIn("hung up before its answer was complete", self.err)

    def test_strange_answers(self) -> None:
        """An answer that is no JSON, or has the wrong shape, is not reported as our bug."""
        for body in (b"<html>", b"\xff", b"", b"[]", b"{}", b'{"instances": [{"instance": 1}]}'):
            self.manager.answers_to("GET /list", body)
            self.stderr.truncate(0)
            self.assertEqual((self.run_command("list"), self.out), (1, ""))
            self.assertIn(f"What answers at {URL} is not a txcontain manager", self.err)

    def test_strange_problem(self) -> None:
        """An invalid problem document is a strange answer too."""
        self.manager.answers_to(
            "GET /instances", b"{}", status=500, Content_Type="application/problem+json"
        )
        self.assertEqual(self.run_command("ps"), 1)
        self.assertIn("is not a txcontain manager", self.err)

    def test_redirect(self) -> None:
        """A redirect is not followed."""
        self.manager.answers_to("GET /list", status=302, Location="http://elsewhere/")
        self.assertEqual(
            (self.run_command("list"), self.err), (1, f"HTTP status 302 Found{NO_REASON}\n")
        )

    def test_reader_has_left(self) -> None:
        """If the reader of the output has left, the command ends without a word."""
        self.assertEqual(self.failing_output(BrokenPipeError()), (141, ""))

    def test_full_disk(self) -> None:
        """If the output can't be written, a sentence says why."""
        status, err = self.failing_output(OSError(28, "No space left on device"))
        self.assertEqual((status, err), (1, "Can't write the output: No space left on device.\n"))

    def failing_output(self, error: BrokenPipeError | OSError) -> tuple[int, str]:
        """Run a command whose output fails; return its status and stderr."""

        async def write(client: Any, arguments: Any) -> None:
            raise error

        arguments = Namespace(run=write, failure=1)
        status = Deferred.fromCoroutine(main.carry_out(cast(Client, None), arguments))
        return self.successResultOf(status), self.err


class ClientTests(SynchronousTestCase):
    """The client, as other programs may use it."""

    def test_refused(self) -> None:
        """A refusal is an exception that knows its status and its reason."""
        manager = Manager()
        manager.answers_to("GET /list", status=409, Txcontain_Reason="one%0Atwo")
        http: Any = StubTreq(manager)
        clock: Any = Clock()
        client = Client(URL + "/", http, clock)
        refused = self.failureResultOf(Deferred.fromCoroutine(client.list()), Refused).value
        self.assertEqual((refused.code, refused.reason), (409, "one\ntwo"))
        self.assertIsInstance(refused, CliError)

    def test_one_way(self) -> None:
        """A client finds the way once, on which over https a CA, certificate and key are read."""
        ways: list[Any] = [object()]
        self.patch(connect, "over_tls", lambda *_, **__: ways.pop())
        (way,) = ways
        clock: Any = Clock()
        self.assertIs(Client.connecting("https://manager", clock, None).way, way)

    def test_fits(self) -> None:
        """A value fits its shape only if every part does."""
        shape = {"a": [int], "b": (str, None)}
        self.assertTrue(fits({"a": [1, 2], "b": None, "more": {}}, shape))
        self.assertTrue(fits({"a": [], "b": "x"}, shape))
        answers: list[Any] = [[], {"a": [1]}, {"a": 1, "b": None}, {"a": ["1"], "b": ""}, None]
        for wrong in answers:
            self.assertFalse(fits(wrong, shape), wrong)

    def test_age(self) -> None:
        """A duration is shown in its largest unit, and is never negative."""
        for seconds, said in ((-5, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (9e5, "10d")):
            self.assertEqual(age(seconds), said)


class ParserTests(Session):
    """The command line."""

    def setUp(self) -> None:
        super().setUp()
        self.environment: dict[str, str] = {}

    def parse(self, *words: str) -> Any:
        """Return what a command line means."""
        return main.parse(list(words), self.environment)

    def usage_error(self, *words: str) -> str:
        """Return what is said of a command line that is wrong."""
        self.assertEqual(self.assertRaises(SystemExit, self.parse, *words).code, 2)
        return self.err

    def test_url(self) -> None:
        """The flag, wherever it stands, wins over the environment, and that over the default."""
        other = "http://[::1]:81"
        self.assertEqual(self.parse("list").url, URL)
        self.environment = {"TXCONTAIN_URL": "unix:/run/it"}
        self.assertEqual(self.parse("list").url, "unix:/run/it")
        self.assertEqual(self.parse("--url", other, "list").url, other)
        self.assertEqual(self.parse("list", "--url", other).url, other)

    def test_bad_url(self) -> None:
        """An invalid address is a usage error that shows what a valid one looks like."""
        for url in (
            "",
            "localhost:80",
            "ftp://h",
            "unix:x",
            "http://",
            "http://h:99999",
            "http://h/x?y",
            "http://[h]",
        ):
            said = f"argument --url: {url!r} is not the address of a manager: write http://HOST:"
            self.assertIn(said, self.usage_error("--url", url, "list"))

    def test_bad_environment(self) -> None:
        """An error in a variable of the environment names the variable."""
        for name, value, said in (
            ("TXCONTAIN_URL", "foo", "'foo' is not the address of a manager"),
            ("TXCONTAIN_TOKEN", "sécret", "it holds a character that no token has"),
            ("TXCONTAIN_TOKEN", "a\nb", "it holds a character that no token has"),
        ):
            self.environment = {name: value}
            self.assertIn(f"error: {name}: {said}", self.usage_error("list"))
            self.assertNotIn("sécret", self.err)

    def test_no_command(self) -> None:
        """Without a command it says which there are, as an error."""
        said = self.usage_error()
        for command in COMMANDS:
            self.assertIn(f"\n    {command.name}", said)
        self.assertEqual(self.out, "")

    def test_wrong_words(self) -> None:
        """Missing, unknown and empty words are usage errors."""
        self.assertIn("NAME", self.usage_error("launch"))
        said = "there is no command 'lunch': did you mean launch?"
        self.assertIn(f"txcontain: error: {said}\n", self.usage_error("lunch"))
        said = "there is no command 'xyz': --help shows those there are"
        self.assertIn(f"error: {said}\n", self.usage_error("help", "xyz"))
        self.assertIn(
            "there is no command 'shw': did you mean show?", self.usage_error("configs", "shw")
        )
        self.assertIn("the name is empty", self.usage_error("destroy", ""))
        for number in ("x", "-3", "1.5", "²", ""):
            said = self.usage_error("logs", "-n", number, "web-1")
            self.assertIn(f"it must be a whole number, 0 or more, not {number!r}", said)

    def test_seen_by_a_command(self) -> None:
        """A command line whose words don't fit together is as wrong as one that no parser takes."""
        for words in (["logs"], ["explain", "web", "ls"], ["cp", "a", "b"], ["cp", "a:b", "c:d"]):
            self.assertEqual(self.run_command(*words), 2, words)
        self.assertEqual(self.run_command("exec", "web"), 125)
        self.assertEqual(self.manager.asked, [])

    def test_wrong_words_of_wait(self) -> None:
        """A usage error of a command that passes on a status can't be taken for that status."""
        for words in (["wait"], ["wait", "--colour", "web-1"]):
            self.assertEqual(self.assertRaises(SystemExit, self.parse, *words).code, 125)

    def test_version(self) -> None:
        """The program knows its version."""
        self.assertEqual(self.assertRaises(SystemExit, self.parse, "--version").code, 0)
        self.assertEqual(self.out, f"txcontain {__version__}\n")

    def test_help(self) -> None:
        """Help names every command, and a command's help its arguments."""
        self.assertEqual(self.assertRaises(SystemExit, self.parse, "--help").code, 0)
        for command in COMMANDS:
            self.assertIn(f"\n    {command.name}", self.out)
        for words in (["launch", "--help"], ["help", "launch"]):
            before = len(self.out)
            self.assertEqual(self.assertRaises(SystemExit, self.parse, *words).code, 0)
            self.assertIn("NAME [MAJOR] [MINOR]", self.out[before:])
        self.assertEqual(self.assertRaises(SystemExit, self.parse, "help").code, 0)


class ExecutableTests(SynchronousTestCase):
    """The files that a person runs."""

    environment: ClassVar = {
        "PATH": os.defpath,
        "PYTHONPATH": "/",
        "PYTHONHOME": "/nowhere",
        **MEASURED,
    }

    def run_file(
        self, file: Path, *words: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a file of cli/ from another folder, with an environment that is no help."""
        return subprocess.run(
            [file, *words],
            cwd="/",
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_each_command(self) -> None:
        """Each command has a file of its own, which runs it, and all of them are the same."""
        files = {file.name for file in CLI.iterdir() if file.is_file() and not file.suffix}
        self.assertEqual(files, {"txcontain", *(command.name for command in COMMANDS)})
        for name in files:
            done = self.run_file(CLI / name, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            program = "txcontain" if name == "txcontain" else f"txcontain {name}"
            self.assertTrue(done.stdout.startswith(f"usage: {program} [-h]"), done.stdout)
        like_ps = (CLI / "ps").read_text()
        for name in files - {"txcontain"}:
            self.assertEqual((CLI / name).read_text(), like_ps.replace(" ps ", f" {name} "))

    def test_by_symlink(self) -> None:
        """A command that is called by a symlink finds its checkout."""
        link = Path(self.mktemp()).absolute()
        link.symlink_to(CLI / "launch")
        self.assertIn("NAME [MAJOR] [MINOR]", self.run_file(link, "--help").stdout)

    def test_not_installed(self) -> None:
        """If nothing is installed, or not all of it yet, a sentence says what to run."""
        checkout = Path(self.mktemp()).absolute()
        for folder in ("cli", ".venv/bin"):
            (checkout / folder).mkdir(parents=True)
        program = Path(shutil.copy(CLI / "txcontain", checkout / "cli"))
        for _ in range(2):
            done = self.run_file(program, "list")
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("run `make install`", done.stderr)
            shutil.copy("/bin/false", checkout / ".venv/bin/python")

    def test_whole_program(self) -> None:
        """The program on a real reactor says what it has to say, and exits."""
        # Port 0 is one on which nothing can listen.
        nowhere = "http://127.0.0.1:0"
        done = self.run_file(CLI / "launch", "web", "1", "01", TXCONTAIN_URL=nowhere)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertTrue(done.stdout.startswith(f"Failure: Nothing listens at {nowhere}"))

    def test_closed(self) -> None:
        """Streams that the caller has closed are empty, and no other file takes their numbers."""
        for closed in ("<&-", "<&- >&-", ">&- 2>&-"):
            program = "from txcontain.cli.main import *; open_what_is_closed(); sys.exit(os.dup(0))"
            command = ["sh", "-c", f'exec "$@" {closed}', "-", sys.executable, "-c", program]
            done = subprocess.run(command, cwd=CLI.parent, stdin=subprocess.DEVNULL, timeout=60)
            self.assertEqual(done.returncode, 3, closed)

    def test_signals(self) -> None:
        """Ctrl-C, or another signal that ends programs, ends a command without a word."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.assertEqual(self.signalled(number), (b"", -number))

    def signalled(self, number: int) -> tuple[bytes, int]:
        """Send a signal to a command that waits; what it said, and how it ended."""
        with socket.create_server(("127.0.0.1", 0)) as mute:
            mute.settimeout(60)
            url = f"http://127.0.0.1:{mute.getsockname()[1]}"
            command = subprocess.Popen(
                [CLI / "logs", "-f", "web-1", "--url", url],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Tests that run in the background are started with SIGINT ignored.
                preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
            )
            with command:
                try:
                    with mute.accept()[0] as connection:
                        connection.recv(1)  # so it is connected, and waits for the answer
                        command.send_signal(number)
                        return command.communicate(timeout=60)[0], command.returncode
                finally:
                    command.kill()  # if it has not ended, the test would wait for it without end
