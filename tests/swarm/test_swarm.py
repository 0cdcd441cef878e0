"""The API's verbs over a swarm in memory."""

import json
import signal
from typing import Any, cast
from unittest import mock
from urllib.parse import unquote

from treq.testing import StubTreq
from twisted.internet.defer import CancelledError

from tests.api.test_resources import be_known
from tests.exports.test_documents import subject_of
from tests.fakes import ManagerTestCase, Taker
from tests.support import document
from tests.swarm.docker import FakeDocker, docker_of, task
from tests.swarm.test_logs import frame
from txcontain import errors
from txcontain.api.areas import AREAS
from txcontain.api.resources import make_root
from txcontain.container.launch_request import read_launch_request
from txcontain.engine.interface import LogsAsked
from txcontain.swarm import logs, mapping
from txcontain.swarm.mapping import LAUNCH, WHOLE, name_of_config, name_of_service
from txcontain.swarm.starting import LOOK_MOST, RUNS_WITHIN, Start
from txcontain.swarm.swarm import CREATE_WITHIN, GONE_WITHIN, LOOK_AGAIN, WAIT_MOST, Swarm
from txcontain.swarm.watch import AT_ONCE

WEB = ("web", "1", "01")
CONFIG_1 = name_of_config("web-1-01.cfg")


class FakeExporter:
    """Has an image of every config whose base image is not named missing.tar."""

    def __init__(self) -> None:
        self.published: list[Any] = []

    async def publish(self, spec: Any, image: str, insecure: bool) -> Any:
        """Remember it."""
        if spec.base_image == "missing.tar":
            raise errors.ConfigAtFault("there is no missing.tar in base_images/")
        self.published.append((image, insecure))
        return subject_of(**json.loads(spec.document)), "sha256:0"


OVER = {"Timestamp": "2026-01-01T00:00:02Z", "State": "complete"}


class SwarmCase(ManagerTestCase):
    """A test of a swarm with one manager."""

    def setUp(self) -> None:
        super().setUp()
        self.fake = FakeDocker()
        docker = docker_of(self.reactor, self.fake)
        self.exporter = FakeExporter()
        self.swarm = Swarm(self.manager, docker, "127.0.0.1:5000", cast(Any, self.exporter))

    def keep(self, **keys: Any) -> None:
        """Keep a config."""
        self.now(self.swarm.upload(document(**keys)))

    def launched(self) -> str:
        """Launch web-1-01; returns the instance's name."""
        return self.now(self.swarm.launch(*WEB)).summary["instance"]


class ConfigTests(SwarmCase):
    """Configs in a swarm."""

    def test_kept(self) -> None:
        """A config is kept in the swarm as it came, once, and listed by its name."""
        for minor in ("2", "10"):
            self.keep(minor=minor)
        names = self.now(self.swarm.config_names())
        self.assertEqual(names, ["web-1-10.cfg", "web-1-2.cfg"])
        again = self.refused(self.swarm.upload(document(minor="2")), errors.ConfigExists)
        self.assertIn("web-1-2.cfg exists already", str(again))

    def test_versions(self) -> None:
        """Configs are told by version as numbers, with their instances, and as they came."""
        for minor in ("10", "9", "01"):
            self.keep(minor=minor)
        name = self.launched()
        found = self.now(self.swarm.configs())
        wanted: Any = [(("web", "1", minor), []) for minor in ("9", "10")]
        self.assertEqual(found, [(WEB, [name]), *wanted])
        read = self.now(self.swarm.read_config("web-1-9.cfg"))
        self.assertEqual(read, document(minor="9"))

    def test_removed(self) -> None:
        """A config is removed once no instance has it; those that do are named."""
        self.keep()
        name = self.launched()
        file_name = "web-1-01.cfg"
        error = self.refused(self.swarm.remove_config(file_name), errors.ConfigInUse)
        self.assertEqual(error.details["instances"], [name])
        self.now(self.swarm.destroy(name))
        self.now(self.swarm.remove_config(file_name))
        self.assertEqual(self.fake.configs, {})
        for missing in (file_name, "../etc", "web"):
            self.refused(self.swarm.remove_config(missing), errors.NoSuchConfig)
        self.refused(self.swarm.read_config(file_name), errors.NoSuchConfig)

    def test_fails(self) -> None:
        """What the swarm refuses for another reason is told."""
        self.keep()
        path = f"/configs/{name_of_config('web-1-01.cfg')}"
        for method in ("GET", "DELETE"):
            self.fake.refusals[f"{method} {path}"] = 500, "broken"
        for asked in (self.swarm.read_config, self.swarm.remove_config):
            self.assertIn("broken", str(self.refused(asked("web-1-01.cfg"), errors.MachineAtFault)))

    def test_refused(self) -> None:
        """What a swarm can't keep is refused at once, all of it, and nothing is kept."""
        document_ = document(manage=True, disk_size="1G")
        error = self.refused(self.swarm.upload(document_), errors.ConfigAtFault)
        self.assertIn("manage: ", str(error))
        self.assertIn("disk_size: ", str(error))
        self.assertEqual(self.fake.configs, {})


class LaunchTests(SwarmCase):
    """Launches, and what becomes of them."""

    def as_asked(self, **values: Any) -> Any:
        """Launch as POST /instances asks for it."""
        return self.swarm.launch_as_asked(read_launch_request(values))

    def test_newest(self) -> None:
        """Without a version the newest is launched, of all or of a major; one that is named is."""
        for version in (("1", "9"), ("1", "10"), ("2", "0")):
            self.keep(major=version[0], minor=version[1])
        for asked, version in (
            ({}, ("2", "0")),
            ({"major": "1"}, ("1", "10")),
            ({"major": "1", "minor": "9"}, ("1", "9")),
        ):
            summary = self.now(self.as_asked(config="web", **asked)).summary
            self.assertEqual((summary["major"], summary["minor"]), version)
        for missing in ({"config": "db"}, {"config": "web", "major": "3"}):
            self.refused(self.as_asked(**missing), errors.NoSuchConfig)

    def test_name(self) -> None:
        """An instance has the name that is asked for; no other gets it until it is destroyed."""
        self.keep()
        asked = {"config": "web", "instance": "My.web"}
        summary = self.now(self.as_asked(**asked)).summary
        self.assertEqual(summary["instance"], "My.web")
        (service,) = self.fake.services.values()
        self.assertEqual(service["Spec"]["TaskTemplate"]["ContainerSpec"]["Hostname"], "My.web")
        self.assertEqual(self.now(self.swarm.running()).records, [summary])
        error = self.refused(self.as_asked(**asked), errors.InstanceExists)
        self.assertEqual(
            str(error),
            "there is an instance My.web already → it is of web-1-01.cfg, and running → destroy "
            "it, or choose another name",
        )
        self.assertEqual(error.details["holder"], {**summary, "state": "running"})
        self.assertEqual(len(self.exporter.published), 1)
        self.now(self.as_asked(**{**asked, "instance": "my-web"}))
        self.now(self.swarm.destroy("My.web"))
        self.now(self.as_asked(**asked))

    def test_name_at_the_same_time(self) -> None:
        """If two are launched under a name at the same time, the swarm takes one of them."""
        self.keep()
        begin = self.fake.begin

        def conflicts(document: Any) -> Any:
            labels = {**document["Labels"], LAUNCH: "another"}
            begin({**document, "Labels": labels})
            return begin(document)

        self.fake.begin = conflicts
        launch = self.as_asked(config="web", instance="w")
        error = self.refused(launch, errors.InstanceExists)
        self.assertIn("there is an instance w already", str(error))
        self.assertEqual(len(self.fake.services), 1)

    def test_name_again(self) -> None:
        """A task of an earlier instance of a name is not taken for one of the next."""
        self.keep()
        asked = {"config": "web", "instance": "w"}
        self.now(self.as_asked(**asked))
        (earlier,) = self.fake.tasks
        self.now(self.swarm.destroy("w"))
        self.fake.tasks = [{**earlier, "ServiceID": "gone", "Status": OVER}]
        self.fake.state = "preparing"
        launch = self.start(self.as_asked(**asked))
        self.assertNoResult(launch)
        self.fake.tasks[1]["Status"]["State"] = "running"
        self.reactor.advance(LOOK_MOST)
        self.successResultOf(launch)

    def test_labels(self) -> None:
        """Labels of a launch are told with its instance, which is none of a stack's."""
        self.keep()
        labels = {"tier": "front", "example.org/team": "a b"}
        name = self.now(self.as_asked(config="web", labels=labels)).summary["instance"]
        (record,) = self.now(self.swarm.records(None)).records
        self.assertEqual(record["labels"], labels)
        self.assertEqual(self.now(self.swarm.inspect(name))["labels"], labels)
        metrics = self.now(self.swarm.collect())
        ((_, told, _),) = next(s for metric, s in metrics if metric.name.endswith("instance_info"))
        self.assertIn('label_example_org_team="a b",label_tier="front"', told)
        self.now(self.swarm.destroy(name))
        self.assertEqual(self.fake.services, {})

    def test_whole(self) -> None:
        """A whole config is launched and not kept; its service has it, and its image a name."""
        self.keep()
        config = {**json.loads(document()), "stop_timeout": 7}
        name = self.now(self.as_asked(config=config)).summary["instance"]
        self.assertEqual(self.now(self.swarm.inspect(name))["spec"]["stop_timeout"], 7)
        ((image, _),) = self.exporter.published
        self.assertRegex(image, "^127.0.0.1:5000/txcontain:[0-9a-f]{40}$")
        self.assertEqual(self.now(self.swarm.config_names()), ["web-1-01.cfg"])
        self.now(self.swarm.remove_config("web-1-01.cfg"))
        self.assertEqual(self.now(self.swarm.inspect(name))["spec"]["stop_timeout"], 7)
        (service,) = self.fake.services.values()
        self.assertEqual(json.loads(service["Spec"]["Labels"][WHOLE]), config)

    def test_whole_refused(self) -> None:
        """A whole config that is too long, or can't be kept, is refused, and nothing is begun."""
        config = json.loads(document())
        unfit = self.as_asked(config={**config, "volumes": ["data /data"]})
        self.assertIn("volumes: a volume is on", str(self.refused(unfit, errors.ConfigAtFault)))
        self.patch(mapping, "LONGEST_WHOLE", 10)
        long = self.as_asked(config=config)
        self.assertIn("has at most 10 bytes", str(self.refused(long, errors.InvalidData)))
        self.assertEqual((self.fake.services, self.exporter.published), ({}, []))

    def test_launch(self) -> None:
        """A launch answers when a task runs, its image pinned, and the list has the instance."""
        self.keep()
        launched = self.now(self.swarm.launch(*WEB))
        self.assertEqual(self.now(self.swarm.running()).records, [launched.summary])
        image = "127.0.0.1:5000/txcontain:web-1-01"
        self.assertEqual(self.exporter.published, [(image, True)])
        (service,) = self.fake.services.values()
        container = service["Spec"]["TaskTemplate"]["ContainerSpec"]
        self.assertEqual(container["Image"], "127.0.0.1:5000/txcontain@sha256:0")

    def test_no_such_config(self) -> None:
        """A config that is not kept is told as on one host."""
        error = self.refused(self.swarm.launch(*WEB), errors.NoSuchConfig)
        self.assertEqual(str(error), "there is no config web-1-01.cfg → upload it first")

    def test_failure(self) -> None:
        """If its program can't be started, nothing is left of a launch, and the reason is told."""
        self.keep(startup_script="/run.sh")
        self.fake.state = "failed"
        self.fake.error = 'exec: "/run.sh": stat /run.sh: no such file or directory'
        error = self.refused(self.swarm.launch(*WEB), errors.NoSuchProgram)
        self.assertIn("there is no /run.sh in the container", str(error))
        self.assertEqual(self.fake.services, {})

    def test_no_image(self) -> None:
        """If its image can't be made, the swarm is asked for nothing."""
        self.keep(base_image="missing.tar")
        self.refused(self.swarm.launch(*WEB), errors.ConfigAtFault)
        self.assertNotIn("POST /services/create", self.fake.asked)

    def test_never_runs(self) -> None:
        """A launch whose task does not run in time fails, says what is known, and is removed."""
        self.keep()
        self.fake.state = "preparing"
        launch = self.start(self.swarm.launch(*WEB))
        self.reactor.pump([LOOK_MOST] * round(RUNS_WITHIN / LOOK_MOST + 10))
        error = self.failureResultOf(launch, errors.MachineAtFault).value
        self.assertEqual(str(error), "it does not run within 60 seconds → preparing")
        self.assertEqual(self.fake.services, {})

    def test_answer_lost(self) -> None:
        """If a manager has made a service, and its answer was lost, it is not made twice."""
        self.keep()
        begin = self.fake.begin

        def make_and_refuse(document: Any) -> Any:
            begin(document)
            return 409, {"message": "name conflicts with an existing object"}

        self.fake.begin = make_and_refuse
        self.assertIn(
            self.launched(), [one["instance"] for one in self.now(self.swarm.running()).records]
        )
        self.assertEqual(len(self.fake.services), 1)

    def test_taken_back(self) -> None:
        """What comes of a launch that was answered with 503 is removed as soon as that is seen."""
        self.keep()
        self.fake.loses = {"POST /services/create"}
        launch = self.start(self.swarm.launch(*WEB))
        self.reactor.advance(CREATE_WITHIN)
        self.failureResultOf(launch, errors.Unavailable)
        self.assertEqual(self.fake.services, {})

    def test_taken_back_later(self) -> None:
        """It is looked for again, also while the swarm is silent."""
        self.keep()
        self.fake.refusals["POST /services/create"] = 503, "The swarm does not have a leader."
        self.refused(self.swarm.launch(*WEB), errors.Unavailable)
        self.fake.begin(self.fake.documents[self.fake.asked.index("POST /services/create")])
        self.reactor.advance(LOOK_MOST)
        self.assertEqual(self.fake.services, {})

    def test_taken_back_alone(self) -> None:
        """A later launch of the same name is not removed in its place."""
        self.keep()
        asked = {"config": "web", "instance": "w"}
        self.fake.refusals["POST /services/create"] = 503, "The swarm does not have a leader."
        self.refused(self.as_asked(**asked), errors.Unavailable)
        self.fake.refusals.clear()
        self.now(self.as_asked(**asked))
        self.reactor.pump([LOOK_AGAIN] * 3)
        self.assertEqual(len(self.fake.services), 1)

    def test_port(self) -> None:
        """With a PORT, a launch answers when its node takes connections there."""
        self.keep(startup_env="PORT=8000", startup_script="/run.sh")
        tried: list[Any] = []

        async def listens(address: str, port: int) -> bool:
            tried.append((address, port))
            return len(tried) == 2

        with mock.patch.object(Start, "_listens", lambda swarm, *where: listens(*where)):
            launch = self.start(self.swarm.launch(*WEB))
            self.assertNoResult(launch)
            self.reactor.advance(LOOK_MOST)
        self.assertEqual(self.successResultOf(launch).notes, [])
        self.assertEqual(tried, [("192.0.2.7", 8000)] * 2)

    def test_end_before_port(self) -> None:
        """A script that ends before it listens is a failed launch."""
        self.keep(startup_env="PORT=8000", startup_script="/run.sh")
        self.fake.state, self.fake.error = "failed", "task: non-zero exit (3)"

        async def listens(swarm: Swarm, address: str, port: int) -> bool:
            return False

        with mock.patch.object(Start, "_listens", listens):
            error = self.refused(self.swarm.launch(*WEB), errors.ConfigAtFault)
        self.assertIn("/run.sh ended before it listened on port 8000", str(error))


class EndTests(SwarmCase):
    """The end of instances."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()

    def test_node_down(self) -> None:
        """What was on a node that is down has ended, and nothing waits for it."""
        instance = self.launched()
        self.fake.nodes[0]["Status"]["State"] = "down"
        self.assertEqual(self.now(self.swarm.running()).records, [])
        (record,) = self.now(self.swarm.records(instance)).records
        self.assertEqual(record["exit"]["reason"], "its node is down")
        self.fake.ends_at_once = False
        self.now(self.swarm.destroy(instance))

    def test_destroy(self) -> None:
        """An instance is destroyed once, and only then; the others stay."""
        one, other = self.launched(), self.launched()
        self.now(self.swarm.destroy(one))
        for name in (one, "nobody", "*", "a" * 10_000, "\0"):
            self.refused(self.swarm.destroy(name), errors.NoSuchInstance)
        self.assertEqual([i["instance"] for i in self.now(self.swarm.running()).records], [other])

    def test_waits(self) -> None:
        """It has ended when no task of it runs, though its service is gone before; or it fails."""
        for ends in (True, False):
            name = self.launched()
            self.fake.ends_at_once = False
            destroyed = self.start(self.swarm.destroy(name))
            self.assertNoResult(destroyed)
            if ends:
                identity = self.fake.tasks[0]["ServiceID"]
                self.fake.tasks = [task(identity, "shutdown")]
                self.reactor.advance(LOOK_MOST)
                self.assertEqual(self.successResultOf(destroyed), [])
            else:
                self.reactor.pump([LOOK_MOST] * round((GONE_WITHIN + 2) / LOOK_MOST + 10))
                error = self.failureResultOf(destroyed, errors.MachineAtFault).value
                self.assertIn("its tasks did not end within 32 seconds", str(error))
            self.fake.ends_at_once, self.fake.tasks = True, []

    def test_destroy_all(self) -> None:
        """All of ours are destroyed, and no service of someone else's."""
        self.launched()
        self.launched()
        self.fake.services["other"] = {"ID": "x", "Spec": {"Name": "other"}}
        self.now(self.swarm.destroy_all())
        self.assertEqual([*self.fake.services], ["other"])


class RecordTests(SwarmCase):
    """The list of all."""

    def test_match(self) -> None:
        """All are told, or those that a word stands for, with the node where they run."""
        self.keep()
        one, other = self.launched(), self.launched()
        for wanted, found in (
            (None, [one, other]),
            (one, [one]),
            ("config:web", [one, other]),
        ):
            told = self.now(self.swarm.records(wanted)).records
            self.assertEqual([(r["instance"], r["node"]) for r in told], [(n, "h1") for n in found])
        self.refused(self.swarm.records("nobody"), errors.NoSuchInstance)

    def test_inspect(self) -> None:
        """One is told with its config, defaults filled in; a word for two is refused."""
        self.keep()
        name = self.launched()
        told = self.now(self.swarm.inspect(name[:-1]))
        self.assertEqual((told["instance"], told["spec"]["stop_timeout"]), (name, 2))
        self.launched()
        error = self.refused(self.swarm.inspect("config:web"), errors.Ambiguous)
        self.assertIn(name, str(error))


class KillTests(SwarmCase):
    """Signals."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.name = self.launched()

    def test_kill(self) -> None:
        """The Docker of its node sends one, and how the instance stands is told."""
        told = self.now(self.swarm.kill(self.name[:-1], signal.SIGTERM))
        self.assertEqual([one["instance"] for one in told.records], [self.name])
        self.assertIn("POST /containers/c1/kill", self.fake.asked)
        self.assertIn("signalled: PID 1 was sent signal 15 (Terminated)", self.events())

    def test_refused(self) -> None:
        """What does not run is told so, also if it has just ended; other refusals are Docker's."""
        for status, kind in ((409, errors.NotRunning), (500, errors.MachineAtFault)):
            self.fake.refusals["POST /containers/c1/kill"] = status, "no"
            self.refused(self.swarm.kill(self.name), kind)
        self.refused(self.swarm.kill("nobody"), errors.NoSuchInstance)


class WaitTests(SwarmCase):
    """The end of an instance, which someone waits for."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.name = self.launched()
        self.waiting = self.start(self.swarm.wait(self.name[:-1]))

    def look_on(self) -> None:
        """Have some looks."""
        self.swarm.watch.wrote()
        self.reactor.pump([WAIT_MOST] * 3)

    def test_end(self) -> None:
        """It is told once it is for good: what is started again has another task at once."""
        (task,) = self.fake.tasks
        task["Status"] = {**task["Status"], "State": "failed"}
        task["Status"]["ContainerStatus"] = {"ContainerID": "c1", "ExitCode": 3}
        self.look_on()
        self.assertNoResult(self.waiting)
        task["DesiredState"] = "shutdown"
        self.look_on()
        how = self.successResultOf(self.waiting)
        self.assertEqual((how.status, how.reason), (3, "exit status 3"))

    def test_destroyed(self) -> None:
        """Who waits for one that is destroyed is told so; one that is not there is named."""
        self.now(self.swarm.destroy(self.name))
        self.look_on()
        self.assertEqual(self.successResultOf(self.waiting).reason, "it was destroyed")
        self.refused(self.swarm.wait("nobody"), errors.NoSuchInstance)

    def test_given_up(self) -> None:
        """Who hangs up waits no longer."""
        self.waiting.cancel()
        self.failureResultOf(self.waiting, CancelledError)
        self.reactor.pump([WAIT_MOST] * 3)


class LogTests(SwarmCase):
    """The logs of instances."""

    def setUp(self) -> None:
        super().setUp()
        self.keep()
        self.fake.log = frame("t hello\n")

    def send(self, *names: str) -> Any:
        """Ask for the logs of these."""
        return self.swarm.send_logs(LogsAsked(names or None), self.taker, int)

    def test_one(self) -> None:
        """The log of one instance is sent, which the beginning of its name is enough for."""
        self.taker = Taker()
        name = self.launched()
        self.now(self.send(name[:-1]))
        self.assertEqual(self.taker.taken, b"hello\n")
        self.refused(self.send("nobody"), errors.NoSuchInstance)

    def test_followed(self) -> None:
        """Who follows a log waits for the end of its instance, and no longer than for the log's."""
        for is_over in (False, True):
            self.taker, name = Taker(), self.launched()
            if is_over:
                self.fake.tasks[-1] |= {"DesiredState": "shutdown", "Status": OVER}
            asked = LogsAsked([name], follow=True)
            self.now(self.swarm.send_logs(asked, self.taker, int))
            self.assertEqual(self.taker.taken, b"hello\n")

    def test_terminal(self) -> None:
        """The log of a terminal is in no frames."""
        self.taker = Taker()
        self.keep(tty=True, minor="2")
        self.fake.log = b"t one\r\nt two\r\n"
        name = self.now(self.swarm.launch("web", "1", "2")).summary["instance"]
        self.now(self.send(name))
        self.assertEqual(self.taker.taken, b"one\r\ntwo\r\n")

    def test_several(self) -> None:
        """Several logs, or all, are merged; all can't be followed, nor more than there may be."""
        names = self.launched(), self.launched()
        for wanted in ((), names, ("config:web",)):
            self.taker = Taker()
            asked = LogsAsked(wanted or None, labelled=True)
            self.now(self.swarm.send_logs(asked, self.taker, int))
            self.assertEqual(
                self.taker.taken, "".join(f"{name} | hello\n" for name in names).encode()
            )
        everything = self.swarm.send_logs(LogsAsked(None, follow=True), self.taker, int)
        error = self.refused(everything, errors.NotInSwarm)
        self.assertIn("name those whose logs to follow", str(error))
        self.patch(logs, "MOST", 1)
        self.refused(self.swarm.send_logs(LogsAsked(None), self.taker, int), errors.TooMany)

    def test_one_is_refused(self) -> None:
        """If one of several can't be read, the others are not left unread, and nothing is sent."""
        self.taker, names = Taker(), (self.launched(), self.launched())
        second = self.fake.services[name_of_service(names[1])]["ID"]
        self.fake.refusals[f"GET /services/{second}/logs"] = 500, "broken"
        asked = LogsAsked(names, labelled=True)
        self.refused(self.swarm.send_logs(asked, self.taker, int), errors.MachineAtFault)
        self.assertEqual(self.taker.taken, b"")


class GapTests(SwarmCase):
    """While the swarm does not answer."""

    def test_list(self) -> None:
        """The list is what was seen last, and the answer says of when that is."""
        be_known(self)
        self.keep()
        name = self.launched()
        self.reactor.advance(1)
        http: Any = StubTreq(make_root(self.swarm))
        for is_silent in (False, True):
            self.fake.is_silent = is_silent
            asked = http.request("GET", "http://localhost/list")
            self.reactor.advance(AT_ONCE)
            http.flush()
            response = self.successResultOf(asked)
            listed = json.loads(self.successResultOf(response.content()))["instances"]
            self.assertEqual([one["instance"] for one in listed], [name])
            self.assertEqual(response.headers.hasHeader("Txcontain-As-Of"), is_silent)


class ReadyTests(SwarmCase):
    """Whether the manager can do its work."""

    def test_ready(self) -> None:
        """It can't if the swarm does not answer, and says so to whoever asks."""
        be_known(self)
        http: Any = StubTreq(make_root(self.swarm))
        for look, said in ((False, "the swarm does not answer\n"), (True, "")):
            if look:
                self.now(self.swarm.watch.now())
            response = self.successResultOf(http.get("http://localhost/readyz"))
            self.assertIn(said, self.successResultOf(response.text()))
        self.assertNotIn("swarm", self.successResultOf(response.text()))


class WrongTests(SwarmCase):
    """What a manager of ours may be led to by mistake."""

    def test_dockers(self) -> None:
        """What is no manager of a swarm is told to whoever asks for anything, and is let be."""
        be_known(self)
        no_member = 'This node is not a swarm manager. Use "docker swarm init" to be one.'
        worker = "This node is not a swarm manager. Worker nodes can't be used to view state."
        for version, refusal, words in (
            ({"ApiVersion": "1.40", "MinAPIVersion": "1.12"}, "", "speaks versions 1.12 to 1.40"),
            ({"ApiVersion": "1.99", "MinAPIVersion": "1.90"}, "", "needed is one from 1.41"),
            ({"hello": "world"}, "", "is no Docker"),
            (self.fake.version, no_member, 'Use "docker swarm init"'),
            (self.fake.version, worker, "Worker nodes"),
        ):
            self.fake.version = version
            self.swarm.docker.managers[0].version = None
            paths = "/configs", "/services", "/tasks", "/nodes", f"/configs/{CONFIG_1}"
            asked = [*(f"GET {path}" for path in paths), "POST /configs/create"]
            self.fake.refusals = dict.fromkeys(asked, (503, refusal)) if refusal else {}
            http: Any = StubTreq(make_root(self.swarm))
            for method, path, body in (
                ("GET", "/list", b""),
                ("GET", "/cfginfo", b""),
                ("POST", "/config", document()),
                ("POST", "/launch", b'{"name": "web", "major": "1", "minor": "01"}'),
            ):
                answer = http.request(method, f"http://localhost{path}", data=body)
                response = self.successResultOf(answer)
                self.assertEqual(response.code, 503, (path, words))
                (reason,) = response.headers.getRawHeaders("Txcontain-Reason")
                self.assertIn(words, unquote(reason))
            ready = self.successResultOf(http.get("http://localhost/readyz"))
            self.assertIn(words, self.successResultOf(ready.text()))
        self.assertEqual((self.fake.services, self.fake.configs), ({}, {}))
        self.flushLoggedErrors(errors.Unavailable)  # of what was asked at the same time

    def test_service_of_someone_else(self) -> None:
        """A service of someone else's that has our name is neither taken for ours nor touched."""
        self.keep()

        def conflicts(document: Any) -> Any:
            name = document["Name"]
            self.fake.services[name] = {"ID": "x", "Spec": {"Name": name}}
            return 409, {"message": "name conflicts with an existing object"}

        self.fake.begin = conflicts
        error = self.refused(self.swarm.launch(*WEB), errors.InstanceExists)
        self.assertIn("that is someone else's", str(error))
        self.assertEqual(len(self.fake.services), 1)


class AreaTests(SwarmCase):
    """What of the API a swarm has."""

    def test_not_there(self) -> None:
        """What a swarm does not have is 501, and says where to read on; an unknown path is 404."""
        be_known(self)
        http: Any = StubTreq(make_root(self.swarm))
        for method, path, status in (
            ("GET", "/list", 200),
            ("GET", "/whoami", 200),
            ("GET", "/volumes", 501),
            ("DELETE", "/volumes/x", 501),
            ("POST", "/instances", 409),
            ("GET", "/instances", 200),
            ("GET", "/instances/web-1", 404),
            ("GET", "/nodes", 200),
            ("GET", "/nodes/h1", 200),
            ("GET", "/nodes/h2", 404),
            ("GET", "/instances/web-1/top", 501),
            ("GET", "/stacks/shop", 404),
            ("GET", "/stacks", 200),
            ("GET", "/stacks/shop/export", 501),
            ("GET", "/nowhere", 404),
        ):
            response = self.successResultOf(http.request(method, f"http://localhost{path}"))
            self.assertEqual(response.code, status, path)

    def test_instead(self) -> None:
        """Each area that it lacks says what to do instead."""
        be_known(self)
        http: Any = StubTreq(make_root(self.swarm))
        for path, words in (
            ("/instances/web-1/commit", "`txcontain cp` copies what is to be kept"),
            ("/instances/web-1/stop", "destroy it, and launch it again"),
            ("/configs/web-1-01/export", "a manager of one host exports it"),
            ("/stats/history", "`txcontain stats` shows what instances use now"),
            ("/stacks/shop/export", "a manager of one host exports stacks"),
        ):
            response = self.successResultOf(http.get(f"http://localhost{path}"))
            problem = self.successResultOf(response.json())
            self.assertIn(words, problem["chain"][0])
        self.assertLess(self.swarm.lacks.keys(), AREAS.keys())
