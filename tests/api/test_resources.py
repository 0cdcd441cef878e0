"""The REST API, and the CLI's client of it: the real resources in memory, on a fake machine."""

import errno
import json
import os
from collections.abc import Coroutine
from typing import Any, cast
from unittest import TestCase, mock
from urllib.parse import unquote

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.server import Request

from tests.fakes import FakeMeters, ManagerTestCase, write_log
from tests.support import document
from txcontain import __version__
from txcontain.api import disk
from txcontain.api.access import Caller
from txcontain.api.resources import make_root
from txcontain.cli.client import Client
from txcontain.cli.errors import Refused
from txcontain.engine.manager import Manager
from txcontain.engine.this_host import ThisHost
from txcontain.host.cgroups import Cgroups
from txcontain.logs.logd import STREAMS
from txcontain.runtime.readiness import LISTEN_WITHIN, LOOK_AT_MOST

WEB = {"name": "web", "major": "1", "minor": "01"}
METHODS = {
    "/config": "POST",
    "/cfginfo": "GET, HEAD",
    "/launch": "POST",
    "/list": "GET, HEAD",
    "/destroy/web-1": "DELETE",
    "/destroyall": "DELETE",
    "/instances": "GET, HEAD, POST",
    "/configs": "GET, HEAD",
    "/secrets": "GET, HEAD",
    "/secrets/db": "DELETE, PUT",
    "/configs/web-1-01": "DELETE, GET, HEAD",
    "/configs/web-1-01/export": "GET, HEAD",
    "/configs/web-1-01/push": "POST",
    "/configs/web-1-01/explain": "GET, HEAD",
    "/unpacking/explain": "GET, HEAD",
    "/instances/web-1": "GET, HEAD",
    "/instances/web-1/logs": "GET, HEAD",
    "/instances/web-1/stats": "GET, HEAD",
    "/instances/web-1/explain": "GET, HEAD",
    "/instances/web-1/isolation": "GET, HEAD",
    "/instances/web-1/card": "GET, HEAD",
    "/instances/web-1/compare": "GET, HEAD",
    "/instances/web-1/wait": "GET, HEAD",
    "/instances/web-1/exec": "GET, HEAD, POST",
    "/instances/web-1/exec/explain": "GET, HEAD",
    "/instances/web-1/files": "GET, HEAD, PUT",
    "/instances/web-1/diff": "GET, HEAD",
    "/instances/web-1/commit": "POST",
    "/logs": "GET, HEAD",
    "/stats": "GET, HEAD",
    "/doctor": "POST",
    "/events": "GET, HEAD",
    "/whoami": "GET, HEAD",
    "/host": "GET, HEAD",
    "/stacks/shop/export": "GET, HEAD",
    "/volumes": "GET, HEAD",
    "/volumes/pg": "DELETE, GET, HEAD, PUT",
}


def be_known(test: TestCase) -> None:
    """Have the requests of a test come from a caller that may do everything."""
    known = mock.patch.object(Request, "caller", Caller("a test"), create=True)
    known.start()
    test.addCleanup(known.stop)


class WebTestCase(ManagerTestCase):
    """A test of the resources with a manager behind them."""

    def setUp(self) -> None:
        super().setUp()
        be_known(self)
        self.http: Any = StubTreq(make_root(ThisHost(self.manager)))

    def settle(self) -> None:
        """Do what is due at once, on both ends of every connection."""
        for _ in range(3):
            self.reactor.advance(0)
            self.http.flush()

    def asked(self, method: str, path: str, body: bytes | None = None) -> Deferred[Any]:
        """A request that is on its way."""
        response = self.http.request(method, f"http://localhost:8080{path}", data=body)
        self.settle()
        return response

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """A request's status, reason phrase and body."""
        response = self.successResultOf(self.asked(method, path, body))
        content = response.content()
        self.settle()
        return response.code, response.phrase.decode(), self.successResultOf(content)

    def get(self, path: str) -> dict[str, Any]:
        """The JSON that answers a GET."""
        status, _, body = self.ask("GET", path)
        self.assertEqual(status, 200)
        return json.loads(body)

    def post_launch(self, **changes: Any) -> tuple[int, str, bytes]:
        """Ask for a launch."""
        return self.ask("POST", "/launch", json.dumps({**WEB, **changes}).encode())


class CourseTests(WebTestCase):
    """The course's table, line by line."""

    def test_config(self) -> None:
        """A valid document is stored as it came, and answered with 200 and an empty body."""
        self.assertEqual(self.ask("POST", "/config", document()), (200, "OK", b""))
        with open(os.path.join(self.folder, "configs/web-1-01.cfg"), "rb") as file:
            self.assertEqual(file.read(), document())

    def test_invalid_config(self) -> None:
        """An invalid document is a 409, Bad Request, with an empty body; nothing is stored."""
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff",
            b"[" * 100_000,
            document(name=None),
            document(what=1),
            document(major=1),
            document(base_image="../x"),
            b'{"name": "a", "name": "b"}',
            b" " * ((1 << 20) + 1),
        ):
            self.assertEqual(self.ask("POST", "/config", body), (409, "Bad Request", b""))
        self.assertEqual(self.get("/cfginfo"), {"files": []})

    def test_config_exists(self) -> None:
        """A config that exists already is a 409, and stays as it is."""
        self.ask("POST", "/config", document())
        status, _, body = self.ask("POST", "/config", document(base_image="other.tar"))
        self.assertEqual((status, body), (409, b""))
        self.assertEqual(self.manager.configs.read("web-1-01.cfg"), document())

    def test_cfginfo(self) -> None:
        """The configs are listed by their file names, sorted."""
        self.assertEqual(self.get("/cfginfo"), {"files": []})
        for minor in ("02", "01"):
            self.ask("POST", "/config", document(minor=minor))
        self.assertEqual(self.get("/cfginfo"), {"files": ["web-1-01.cfg", "web-1-02.cfg"]})

    def test_unreadable_config(self) -> None:
        """A config that can't be read is the machine's fault, and the answer says why."""
        self.ask("POST", "/config", document())
        for error, cause in ((errno.EIO, "EIO: Input/output error"), (errno.EMFILE, "EMFILE: Too")):
            broken = mock.Mock(side_effect=OSError(error, os.strerror(error), "web-1-01.cfg"))
            with mock.patch("os.open", broken):
                asked = self.asked("POST", "/launch", json.dumps(WEB).encode())
            response = self.successResultOf(asked)
            self.assertEqual(response.code, 500)
            reason = unquote(response.headers.getRawHeaders("Txcontain-Reason")[0])
            self.assertTrue(reason.startswith(f"reading web-1-01.cfg → {cause}"), reason)
        self.assertEqual(self.post_launch()[0], 200)

    def test_launch(self) -> None:
        """A launch is answered with four keys; /list has the same ones."""
        self.add()
        status, _, body = self.post_launch()
        launched = json.loads(body)
        self.assertEqual(status, 200)
        self.assertEqual(launched, {"instance": launched["instance"], **WEB})
        self.assertEqual(self.get("/list"), {"instances": [launched]})

    def test_launch_that_does_not_listen_yet(self) -> None:
        """If the container does not listen yet, the answer says so, but not in the body."""
        self.add(startup_script="/run.sh", startup_env="PORT=8000")
        asked = self.asked("POST", "/launch", json.dumps(WEB).encode())
        self.reactor.pump([LOOK_AT_MOST] * int(LISTEN_WITHIN / LOOK_AT_MOST + 2))
        self.http.flush()
        response = self.successResultOf(asked)
        (launched,) = self.get("/list")["instances"]
        self.assertEqual(set(launched), {"instance", *WEB})
        (note,) = response.headers.getRawHeaders("Txcontain-Note")
        name = launched["instance"]
        self.assertEqual(
            unquote(note),
            f"{name} runs, but does not listen on port 8000 yet: "
            f"`txcontain logs {name}` shows what it says",
        )

    def test_launch_without_config(self) -> None:
        """A launch of an unknown config is a 404 with an empty body."""
        self.assertEqual(self.post_launch(), (404, "Not Found", b""))

    def test_invalid_launch(self) -> None:
        """An invalid launch is a 409, Bad Request, with an empty body."""
        for body in (
            b"",
            b"{}",
            b"[]",
            b'"web"',
            json.dumps({**WEB, "what": 1}).encode(),
            json.dumps({**WEB, "major": 1}).encode(),
            json.dumps({**WEB, "name": "../web"}).encode(),
        ):
            self.assertEqual(self.ask("POST", "/launch", body), (409, "Bad Request", b""))

    def test_launch_that_cannot_work(self) -> None:
        """A launch whose image is missing is a 409, and leaves no instance."""
        self.add()
        self.layers.missing = ["basefs.tar.gz"]
        status, _, body = self.post_launch()
        self.assertEqual((status, body), (409, b""))
        self.assertEqual(self.get("/instances"), {"instances": []})

    def test_list(self) -> None:
        """Running instances are listed in the order of their launch; others are not."""
        self.add()
        first, second, third = (json.loads(self.post_launch()[2]) for _ in range(3))
        self.reactor.inits[1].end("Done(1)")
        self.assertEqual(self.get("/list"), {"instances": [first, third]})
        self.assertNotIn(second["instance"], str(self.get("/list")))

    def test_destroy(self) -> None:
        """An instance is destroyed, with and without a trailing slash, and only once."""
        self.add()
        for slash in ("", "/"):
            path = f"/destroy/{json.loads(self.post_launch()[2])['instance']}{slash}"
            self.assertEqual(self.ask("DELETE", path), (200, "OK", b""))
            self.assertEqual(self.ask("DELETE", path), (404, "Not Found", b""))
        self.assertEqual(self.get("/instances"), {"instances": []})

    def test_destroyall(self) -> None:
        """All are destroyed, with and without a trailing slash, also if there are none."""
        self.add()
        for path in ("/destroyall", "/destroyall/", "/destroyall"):
            self.assertEqual(self.ask("DELETE", path), (200, "OK", b""))
            self.assertEqual(self.get("/list"), {"instances": []})
            self.post_launch()

    def test_trailing_slashes(self) -> None:
        """A trailing slash makes no difference anywhere."""
        name = self.launch().name
        for path in (
            "cfginfo",
            "list",
            "instances",
            f"instances/{name}",
            "stats",
            "events",
            f"instances/{name}/logs",
            f"instances/{name}/stats",
        ):
            self.assertEqual(self.ask("GET", f"/{path}/")[0], 200, path)

    def test_methods(self) -> None:
        """A method that a path does not have is answered with 405 and those it has."""
        for path, allowed in METHODS.items():
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - set(allowed.split(", ")):
                response = self.successResultOf(self.asked(method, path))
                self.assertEqual(response.code, 405, (method, path))
                self.assertEqual(response.headers.getRawHeaders("Allow"), [allowed])

    def test_mistake_of_ours(self) -> None:
        """An exception that no one thought of is a 500 without a traceback, and is logged."""
        self.add()
        self.patch(Manager, "_new", lambda *_: 1 / 0)
        self.assertEqual(self.post_launch(), (500, "Internal Server Error", b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.get("/list"), {"instances": []})

    def test_stuck_instance(self) -> None:
        """While one instance does not end, every other request is answered."""
        stuck = self.launch()
        self.init.stuck = True
        destroyed = self.asked("DELETE", f"/destroy/{stuck.name}")
        self.assertEqual(self.post_launch()[0], 200)
        self.assertEqual(len(self.get("/list")["instances"]), 1)
        self.assertNoResult(destroyed)
        self.reactor.inits[0].end("Killed")
        self.settle()
        self.assertEqual(self.successResultOf(destroyed).code, 200)


class MoreTests(WebTestCase):
    """The resources beyond the course's."""

    def setUp(self) -> None:
        super().setUp()
        self.instance = self.launch(startup_script="/run.sh")
        self.path = f"/instances/{self.instance.name}"

    def test_instances(self) -> None:
        """Every instance is listed with its state, and with its exit if it has ended."""
        (record,) = self.get("/instances")["instances"]
        self.assertEqual((record["state"], record["pid"]), ("running", self.init.process.pid))
        self.init.end("Done(3)")
        (record,) = self.get("/instances")["instances"]
        self.assertEqual((record["state"], record["pid"]), ("ended", None))
        self.assertEqual(record["exit"]["status"], 3)
        self.assertEqual(record["exit"]["reason"], "exit status 3")

    def test_inspect(self) -> None:
        """An instance has its spec, and each step of its plan with the seconds it took."""
        record = self.get(self.path)
        self.assertEqual(record["spec"]["startup_script"], "/run.sh")
        self.assertEqual(
            [step["op"] for step in record["plan"]], [op for op, _ in self.instance.plan]
        )
        self.assertEqual(
            [step["seconds"] for step in record["plan"]], [0.001] * len(self.instance.plan)
        )

    def test_life(self) -> None:
        """The verbs of its life answer with what has become of an instance, and with notes."""
        for verb, body, state in (
            ("stop", b'{"timeout": 0}', ("stopped", False)),
            ("start", None, ("running", False)),
            ("pause", b"{}", ("running", True)),
            ("resume", None, ("running", False)),
            ("kill", b'{"signal": "HUP"}', ("running", False)),
            ("restart", None, ("running", False)),
            ("kill", None, ("stopped", False)),
        ):
            asked = self.asked("POST", f"/instances/web/{verb}", body)
            for _ in range(4):
                self.settle()
            response = self.successResultOf(asked)
            content = response.content()
            self.settle()
            record = json.loads(self.successResultOf(content))
            self.assertEqual((record.get("state"), record.get("paused")), state, (verb, record))
        response = self.successResultOf(self.asked("POST", "/instances/config:web/stop", b""))
        self.assertIn("does not run", str(response.headers.getRawHeaders("Txcontain-Note")))

    def test_written_first(self) -> None:
        """What has become of an instance is answered only when the next manager would know it."""
        other = self.launch(minor="02")
        written: Deferred[int] = Deferred()
        with mock.patch.object(type(self.manager.pool), "written", lambda _: written):
            asked = [
                self.asked("GET", f"{self.path}/wait"),
                self.asked("POST", f"/instances/{other.name}/kill", b'{"signal": "HUP"}'),
            ]
            self.reactor.inits[0].end("Done")
            self.settle()
            for one in asked:
                self.assertNoResult(one)
            written.callback(0)
            self.settle()
        for one in asked:
            self.assertEqual(self.successResultOf(one).code, 200)

    def test_match(self) -> None:
        """The list can be asked for those that a name stands for."""
        self.assertEqual(len(self.get("/instances?match=config:web-1")["instances"]), 1)
        self.assertEqual(self.ask("GET", "/instances?match=config:db")[0], 404)

    def test_none(self) -> None:
        """A request about an unknown instance is a 404 with an application/problem+json body."""
        for below in ("", "/logs", "/stats", "/explain", "/wait"):
            response = self.successResultOf(self.asked("GET", f"/instances/web-x9{below}"))
            content = response.content()
            self.settle()
            self.assertEqual(
                response.headers.getRawHeaders("Content-Type"), ["application/problem+json"]
            )
            self.assertEqual(
                json.loads(self.successResultOf(content)),
                {
                    "type": "urn:txcontain:no-such-instance",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "there is no instance web-x9",
                    "chain": ["did you mean web?"],
                },
            )

    def test_bad_queries(self) -> None:
        """A query that makes no sense is a 409 that says which part."""
        for query in (
            "/logs?tail=x",
            "/logs?tail=-1",
            "/logs?stream=stdin",
            "/logs?since=x",
            "/logs?until=10",
            "/logs?since=2000-13-01T00:00:00Z",
        ):
            status, phrase, body = self.ask("GET", self.path + query)
            self.assertEqual((status, phrase), (409, "Bad Request"))
            self.assertIn("must be", json.loads(body)["detail"])
        self.assertEqual(self.ask("GET", "/events?since=x")[0], 409)

    def test_logs(self) -> None:
        """The log of an instance can be had whole, in its last lines, or as one stream."""
        for stream in STREAMS:
            write_log(self.instance, f"1 {stream}\n2 {stream}\n".encode(), stream)
        queries = (
            "",
            "?tail=1",
            "?stream=stderr",
            "?stream=stdout&tail=0",
            "?since=1h",
            "?until=2000-01-01T00:00:00Z",
        )
        logs = [self.ask("GET", f"{self.path}/logs{query}")[2] for query in queries]
        self.assertEqual(
            logs,
            [
                b"1 stdout\n2 stdout\n1 stderr\n2 stderr\n",
                b"2 stderr\n",
                b"1 stderr\n2 stderr\n",
                b"",
                b"1 stdout\n2 stdout\n1 stderr\n2 stderr\n",
                b"",
            ],
        )

    def test_timestamps(self) -> None:
        """If timestamps are asked for, each line begins with its time."""
        write_log(self.instance, b"1\n2")
        body = self.ask("GET", f"{self.path}/logs?timestamps=1")[2]
        moment = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
        self.assertRegex(body, b"^" + moment + b" 1\n" + moment + b" 2\n$")

    def test_several_logs(self) -> None:
        """The logs of several instances, or of all, are merged, each line with its instance."""
        names = [self.instance.name, self.launch(minor="02").name]
        for text, name in ((b"1\n", names[0]), (b"2\n", names[1]), (b"3\n", names[0])):
            write_log(self.manager.instances[name], text)
        wanted = "{0} | 1\n{1} | 2\n{0} | 3\n".format(*names).encode()
        for query in ("all=1", "&".join(f"instance={name}" for name in names * 2)):
            self.assertEqual(self.ask("GET", f"/logs?{query}")[2], wanted)
        self.assertEqual(self.ask("GET", "/logs?instance=none&all=0")[0], 404)
        for query in ("", "?all=1&instance=x"):
            self.assertEqual(self.ask("GET", f"/logs{query}")[0], 409)

    def test_wait(self) -> None:
        """A wait is answered when the instance ends, with how it ended."""
        waiting = self.asked("GET", f"{self.path}/wait")
        self.assertNoResult(waiting)
        self.init.end("Killed")
        self.settle()
        content = self.successResultOf(waiting).content()
        self.settle()
        self.assertEqual(json.loads(self.successResultOf(content))["exit"]["signal"], 9)

    def test_explain(self) -> None:
        """The answer is the plan as a shell script, of an instance and of its config."""
        for path in (self.path, "/configs/web-1-01"):
            status, _, body = self.ask("GET", f"{path}/explain")
            self.assertEqual((status, body[:2]), (200, b"#!"), path)

    def test_explain_an_unpacking(self) -> None:
        """Only of a tarball that there is."""
        for name in ("none.tar", "", ".", "../base_images/none.tar"):
            status, _, _ = self.ask("GET", f"/unpacking/explain?tarball={name}")
            self.assertEqual(status, 409, name)

    def test_stats(self) -> None:
        """Running instances have figures of what they use."""
        (usage,) = self.get("/stats")["stats"]
        self.assertEqual(usage, self.get(f"{self.path}/stats"))
        self.assertEqual(usage["instance"], self.instance.name)

    def test_doctor(self) -> None:
        """The doctor says what it found and did."""
        os.mkdir(os.path.join(self.folder, "instances/lost"))
        _, _, body = self.ask("POST", "/doctor")
        self.assertEqual(
            json.loads(body)["findings"], ["removed the folder instances/lost, of no instance"]
        )

    def test_top(self) -> None:
        """The processes of an instance are told, with ids as the container sees them."""
        self.patch(Cgroups, "members", lambda *_: {os.getpid(), 1 << 30})
        self.instance.ids = os.geteuid() - 7
        told = self.get(f"{self.path}/top")
        (process,) = told["processes"]
        self.assertEqual((process["host_pid"], process["user"]), (os.getpid(), 7))
        self.assertEqual(told["more"], 0)

    def test_top_of_none(self) -> None:
        """An instance that has ended has no processes: that is a 409."""
        self.init.end()
        self.settle()
        status, _, body = self.ask("GET", f"{self.path}/top")
        self.assertEqual(status, 409)
        self.assertEqual(json.loads(body)["type"], "urn:txcontain:not-running")

    def test_disk(self) -> None:
        """The disk is told, and a prune says first what it would remove."""
        self.init.end()
        self.settle()
        (one,) = self.get("/df")["instances"]
        self.assertEqual((one["instance"], one["state"]), (self.instance.name, "ended"))
        for body in (b'{"dry_run": true}', b""):
            _, _, answer = self.ask("POST", "/prune", body)
            (pruned,) = json.loads(answer)["instances"]
            self.assertEqual(pruned["instance"], self.instance.name)
        self.assertEqual(self.get("/instances"), {"instances": []})

    def test_waiting_for_the_disk(self) -> None:
        """Only so many looks at the disk wait for their turn, also if their clients hang up."""
        looked: Deferred[Any] = Deferred()
        self.patch(disk, "df", lambda manager: looked)
        for _ in range(1 + disk.MOST_WAITING):
            response = self.asked("GET", "/df")
            response.cancel()
            self.settle()
            self.failureResultOf(response)
        for method, path in (("GET", "/df"), ("POST", "/prune")):
            status, _, body = self.ask(method, path)
            self.assertEqual((status, json.loads(body)["type"]), (409, "urn:txcontain:too-many"))
        looked.callback({})
        self.assertEqual(self.ask("GET", "/df")[0], 200)

    def test_bad_prunes(self) -> None:
        """A prune that is not understood removes nothing."""
        self.init.end()
        self.settle()
        for body in (b"{", b"[]", b'{"dryrun": true}', b'{"dry_run": 1}'):
            self.assertEqual(self.ask("POST", "/prune", body)[0], 409)
        self.assertEqual(len(self.get("/instances")["instances"]), 1)

    def test_version(self) -> None:
        """The manager tells its version, and those of what it runs on."""
        told = self.get("/version")
        self.assertEqual(told["version"], __version__)
        self.assertEqual(set(told), {"version", "python", "twisted", "kernel", "cgroups"})

    def test_ports(self) -> None:
        """An instance tells the ports and the address by which it can be reached."""
        (plain,) = self.get("/instances")["instances"]
        self.assertEqual((plain["port"], plain["ports"], plain["address"]), (None, [], None))
        ports = ["8000:80", "10.0.0.1:53:53/udp"]
        self.add(minor="02", startup_env="PORT=80", network="private", ports=ports)
        self.start(self.manager.launch("web", "1", "02"))
        record = self.get("/instances")["instances"][1]
        self.assertEqual(record["port"], 80)
        ports = ["127.0.0.1:8000->80/tcp", "10.0.0.1:53->53/udp"]
        self.assertEqual(record["ports"], ports)
        self.assertTrue(record["address"])

    def test_events(self) -> None:
        """The events after a number, or since a time, are answered, a line of JSON each."""
        for since, told in (
            ("1", ["starting", "running"]),
            ("1970-01-01T00:00:00Z", ["config", "starting", "running"]),
            ("2970-01-01T00:00:00Z", []),
        ):
            _, _, body = self.ask("GET", f"/events?since={since}")
            self.assertEqual([json.loads(line)["what"] for line in body.splitlines()], told)
        _, _, body = self.ask("GET", "/events?tail=1&since=1")
        self.assertEqual([json.loads(line)["what"] for line in body.splitlines()], ["running"])

    def test_whoami(self) -> None:
        """The caller is told as the journal has it, with its role."""
        self.assertEqual(self.get("/whoami"), {"name": "a test", "role": "write"})

    def test_host(self) -> None:
        """What the machine has and lacks is told, and how many inits are warm."""
        told = self.get("/host")
        for what in ("memory", "disk"):
            self.assertGreater(told[what]["total"], told[what]["available"])
        self.assertGreater(told["processors"], 0)
        self.assertLessEqual({*told["pressure"]}, {"cpu", "memory", "io"})
        self.assertEqual(told["pool"], {"wanted": 0, "warm": 0})


class HangUpTests(WebTestCase):
    """Clients that do not wait for their answer."""

    def hang_up(self, method: str, path: str, body: bytes | None = None) -> None:
        """Ask, and hang up before there is an answer."""
        asked = self.asked(method, path, body)
        asked.addErrback(lambda _: None)
        asked.cancel()
        self.settle()

    def test_launch(self) -> None:
        """After its client has hung up a launch goes on: it runs, or is kept as one that failed."""
        self.reactor.works = False
        self.add()
        for fails in (True, False):
            self.hang_up("POST", "/launch", json.dumps(WEB).encode())
            if fails:
                self.init.fail()
            else:
                self.init.carry_out()
            self.settle()
            states = [one["state"] for one in self.get("/instances")["instances"]]
            self.assertEqual(states, ["failed"] if fails else ["failed", "running"])
            self.assertEqual(len(self.get("/list")["instances"]), not fails)

    def test_wait(self) -> None:
        """Nothing is kept of a client that waited for an end and hung up."""
        instance = self.launch()
        asked = self.asked("GET", f"/instances/{instance.name}/wait")
        asked.addErrback(lambda _: None)
        self.assertEqual(len(instance._ended), 1)
        asked.cancel()
        self.settle()
        self.assertEqual(instance._ended, [])


class ClientTests(WebTestCase):
    """The CLI's client understands what the real resources answer."""

    def setUp(self) -> None:
        super().setUp()
        self.client = Client("http://localhost:8080", self.http, cast(Any, Clock()))

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a method of the client returns."""
        called = Deferred.fromCoroutine(coroutine)
        self.settle()
        return self.successResultOf(called)

    def why_refused(self, coroutine: Coroutine[Any, Any, Any]) -> Refused:
        """Why a method of the client was refused."""
        called = Deferred.fromCoroutine(coroutine)
        self.settle()
        return self.failureResultOf(called, Refused).value

    def collect(self, stream: Any) -> list[Any]:
        """All that a stream yields."""

        async def collect() -> list[Any]:
            return [item async for item in stream]

        return self.call(collect())

    def test_whole_life(self) -> None:
        """Upload, launch, list, inspect, destroy: each answer is understood."""
        self.call(self.client.upload(document()))
        self.assertEqual(self.call(self.client.cfginfo()), ["web-1-01.cfg"])
        launched = self.call(self.client.launch("web", "1", "01"))
        name = launched["instance"]
        self.assertEqual(self.call(self.client.list()), [launched])
        (record,) = self.call(self.client.instances())
        self.assertEqual((record["instance"], record["state"]), (name, "running"))
        self.assertEqual(self.call(self.client.inspect(name))["instance"], name)
        self.assertEqual(self.call(self.client.stats())[0]["instance"], name)
        self.assertEqual(
            b"".join(self.collect(self.client.feed(f"/instances/{name}/explain", follow=False)))[
                :2
            ],
            b"#!",
        )
        self.init.end("Done(3)")
        self.assertEqual(self.call(self.client.wait(name))["status"], 3)
        self.call(self.client.destroy(name))
        self.call(self.client.destroyall())
        self.assertEqual(self.call(self.client.doctor()), [])
        whats = [event["what"] for event in self.collect(self.client.events(follow=False))]
        self.assertEqual(whats, ["config", "starting", "running", "ended", "destroyed"])

    def test_logs(self) -> None:
        """Logs come as they were written."""
        instance = self.launch()
        write_log(instance, b"\xff\n")
        self.assertEqual(self.collect(self.client.logs([instance.name], False)), [b"\xff\n"])

    def test_follow(self) -> None:
        """Events that are followed come as they happen."""
        got = []

        async def follow() -> None:
            async for event in self.client.events(follow=True):
                got.append(event["what"])

        following = Deferred.fromCoroutine(follow())
        self.settle()
        self.launch()
        self.manager.journal.write()
        self.settle()
        self.assertEqual(got, ["config", "starting", "running"])
        self.assertNoResult(following)

    def test_course_refusals(self) -> None:
        """The course's resources tell the client why by their header."""
        self.assertEqual(self.why_refused(self.client.upload(b"{")).code, 409)
        self.assertEqual(
            str(self.why_refused(self.client.launch("web", "1", "01"))),
            "there is no config web-1-01.cfg\n  upload it first",
        )
        self.assertEqual(
            str(self.why_refused(self.client.destroy("web-9"))), "there is no instance web-9"
        )

    def test_other_refusals(self) -> None:
        """The others tell the client why by their problem."""
        self.assertIn(
            "there is no instance web-9", str(self.why_refused(self.client.inspect("web-9")))
        )

    def test_chain(self) -> None:
        """A chain of causes arrives whole, each on a line of its own."""
        self.add(startup_script="/run.sh")
        self.reactor.works = False
        launched = Deferred.fromCoroutine(self.client.launch("web", "1", "01"))
        self.settle()
        last = len(self.init.plan) - 1
        self.init.fail(last, "execve", 2, "/run.sh", "its interpreter “zsh” is missing", "try sh")
        self.settle()
        self.assertEqual(
            str(self.failureResultOf(launched, Refused).value),
            "\n  ".join(
                [
                    f"step {last + 1} of {last + 1}, exec /run.sh",
                    "execve(2)",
                    "ENOENT: No such file or directory",
                    "/run.sh",
                    "its interpreter “zsh” is missing",
                    "try sh",
                ]
            ),
        )


class HistoryTests(WebTestCase):
    """GET /stats/history."""

    def use(self, *names: str) -> None:
        """A second in which instances use a MiB each."""
        self.manager.history.meters = FakeMeters([(0, 1 << 20)] * len(names))
        self.reactor.advance(1)

    def test_of_all(self) -> None:
        """All instances are told, with lists of equal length that end at the same time."""
        names = [self.launch(minor=str(minor)).name for minor in range(20)]
        self.use(*names)
        told = self.get("/stats/history")
        self.assertEqual((told["step"], list(told["instances"])), (1, names))
        self.assertLessEqual(told["until"], self.kernel.now())
        for figures in told["instances"].values():
            self.assertEqual(figures, {"cpu": [None] * 60, "memory": [None] * 59 + [1 << 20]})

    def test_of_some(self) -> None:
        """Only the instances that are asked for are told, and as many points."""
        names = [self.launch(minor=str(minor)).name for minor in range(3)]
        self.use(*names)
        told = self.get(f"/stats/history?instance={names[2]}&instance={names[0]}&last=1")
        self.assertEqual(list(told["instances"]), [names[2], names[0]])
        told = self.get(f"/stats/history?step=10&last=2160&instance={names[0]}")
        self.assertEqual(told["step"], 10)
        self.assertEqual(len(told["instances"][names[0]]["cpu"]), 2160)

    def test_none(self) -> None:
        """Without an instance the answer is empty."""
        self.assertEqual(self.get("/stats/history")["instances"], {})

    def test_refused(self) -> None:
        """Unknown instances, steps and numbers of points are refused."""
        for asked, status in (
            ("instance=nobody", 404),
            ("last=0", 409),
            ("last=601", 409),
            ("step=10&last=2161", 409),
            ("step=2", 409),
            ("step=", 409),
        ):
            self.assertEqual(self.ask("GET", f"/stats/history?{asked}")[0], status, asked)


class ReadyTests(WebTestCase):
    """GET /healthz and GET /readyz."""

    def test_ok(self) -> None:
        """A manager that works says so, in a word."""
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.ask("GET", path), (200, "OK", b"ok\n"))

    def test_not_ready(self) -> None:
        """If something is missing, the reasons are told; the manager still answers."""
        stuck: Deferred[int] = Deferred()
        self.manager.unread.append("web-1")
        writes = mock.Mock(return_value=stuck)
        with mock.patch.object(self.manager.pool, "writes", writes):
            self.ask("GET", "/readyz")
            self.reactor.advance(3)
            self.manager.pool.log_process.lost()
            status, _, told = self.ask("GET", "/readyz")
        self.assertEqual(status, 503)
        self.assertEqual(
            told.decode().splitlines(),
            [
                "some records of instances can't be read yet",
                "the log process is not connected",
                "the disk of the state folder does not respond",
            ],
        )
        self.assertEqual(writes.call_count, 1)
        self.assertEqual(self.ask("GET", "/healthz")[0], 200)
        stuck.callback(0)
        self.manager.unread.clear()
        self.reactor.advance(1)
        self.assertEqual(self.ask("GET", "/readyz")[0], 200)
