"""What takes several nodes: three managers and a worker, each a host of its own.

scripts/swarm-tests runs this, and prints what it has measured.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import NEW_NUMBER, PROJECT, Answer, wait_until
from tests.integration.probes import PRELUDE, python_image
from tests.integration.swarm_hosts import PATIENCE, Swarm
from tests.integration.tarballs import pack, script

SLEEPS = "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.1; done\n"
# Answers with its version; also for two seconds after SIGTERM: a balancer looks once a second.
SERVER = f"""{PRELUDE}
import selectors, signal
version, ends = os.environ["VERSION"], []
signal.signal(signal.SIGTERM, lambda *_: ends.append(time.monotonic() + 2))
server = socket.create_server(("", 80), backlog=512)
server.settimeout(0.1)
while True:
    try:
        connection, _ = server.accept()
    except TimeoutError:
        if ends and time.monotonic() > ends[0]:
            break
        continue
    with connection:
        connection.settimeout(5)
        connection.sendall(version.encode())
"""
PORT, REQUESTS = 8000, 300
measured: list[tuple[str, str]] = []


class ManyCase(SynchronousTestCase):
    """A test in the swarm that all tests of this module share, all of whose hosts are up."""

    swarm: ClassVar[Any] = None
    size: ClassVar[tuple[int, int]] = (3, 1)  # managers, workers

    def setUp(self) -> None:
        """Have the swarm, and nothing in it."""
        if ManyCase.swarm is None:
            ManyCase.swarm = Swarm(Path(os.environ["TXCONTAIN_SWARM"]), *self.size)
            self.swarm.start()
            pack(self.swarm.folder / "mountables/job.tar", script("run", SLEEPS))
            pack(self.swarm.folder / "mountables/www.tar", script("run", SERVER))
            bad = script("run", "#!/bin/sh\nexit 3\n")
            pack(self.swarm.folder / "mountables/bad.tar", bad)
            pack(self.swarm.folder / "base_images/python.tar", *python_image())
        self.addCleanup(self.clean)

    def clean(self) -> None:
        """Have all hosts be up, and nothing run there."""
        for host in self.swarm.hosts:
            host.plug("up") if host.process.poll() is None else host.start()
        self.until(lambda: self.is_ready() and self.is_emptied(), "the swarm is whole, and empty")

    def is_emptied(self) -> bool:
        """Remove what there is; returns whether that has worked."""
        listed = self.ask("GET", "/stacks")
        paths = [f"/stacks/{one['stack']}?wait=1" for one in listed.json.get("stacks", ())]
        removed = [self.ask("DELETE", path) for path in ("/destroyall", *paths)]
        return all(answer.status == 200 for answer in (listed, *removed))

    def is_ready(self) -> bool:
        """Whether all nodes are up, as the manager has it, and the swarm has a leader that stays.

        A manager that comes back and hears of no leader yet causes the next election.
        """
        answer = self.ask("GET", "/nodes")
        if answer.status != 200 or answer.headers["Txcontain-As-Of"]:
            return False
        for one in answer.json["nodes"]:
            if one["availability"] != "active":
                self.ask("POST", f"/nodes/{one['id']}/activate")
        ready = all(one["state"] == "ready" for one in answer.json["nodes"])
        return ready and self.swarm.is_whole()

    # -- asking ------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the manager."""
        return self.swarm.ask(method, path, body)

    def until(self, condition: Callable[[], Any], what: str = "it is so") -> Any:
        """Wait for a condition, as long as a failover may take on a busy machine."""
        return wait_until(condition, what, 2 * PATIENCE)

    def nodes(self) -> dict[str, Any]:
        """The nodes by name."""
        return {one["node"]: one for one in self.ask("GET", "/nodes").json["nodes"]}

    def upload(self, **keys: Any) -> dict[str, str]:
        """Store a config of a script that only waits."""
        key = {"name": "job", "major": "1", "minor": str(NEW_NUMBER())}
        config = {**key, "base_image": "small.tar", "mounts": ["job.tar /job READ"]}
        answer = self.ask("POST", "/config", {**config, "startup_script": "/job/run", **keys})
        self.assertEqual(answer.status, 200, answer.reason)
        return key

    def launch(self, **keys: Any) -> str:
        """Launch what is started again wherever it can be."""
        answer = self.ask("POST", "/launch", self.upload(restart="always", **keys))
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.json["instance"]

    def launch_on_worker(self) -> str:
        """The same, on the only node that is no manager."""
        managers = [host.name for host in self.swarm.managers]
        self.command("nodes", "drain", *managers)
        instance = self.launch()
        self.assertEqual(self.record(instance)["node"], "h4")
        self.command("nodes", "activate", *managers)
        return instance

    def record(self, instance: str) -> Any:
        """How an instance stands, and where."""
        return self.ask("GET", f"/instances/{instance}").json

    def moved(self, instance: str, away: str) -> Callable[[], Any]:
        """Whether an instance runs on another node than this."""

        def has() -> bool:
            answer = self.ask("GET", "/instances")
            (one,) = [o for o in answer.json["instances"] if o["instance"] == instance]
            return one["state"] == "running" and one["node"] != away

        return has

    def command(self, *words: str) -> str:
        """What a command prints."""
        done = subprocess.run(
            [PROJECT / "cli/txcontain", *words],
            env={**os.environ, "TXCONTAIN_URL": self.swarm.url},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout


class Load:
    """A client that asks a published port again and again, as a thread."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.answers[ask_once(self.address)] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    @property
    def failed(self) -> int:
        """How many were not answered."""
        return self.answers[""]

    def __str__(self) -> str:
        total = sum(self.answers.values())
        return f"{self.failed} of {total:,} failed, slowest {self.slowest * 1000:.0f} ms"


def ask_once(address: str, port: int = PORT) -> str:
    """What is answered; nothing if that fails."""
    try:
        with socket.create_connection((address, port), timeout=PATIENCE) as client:
            return client.recv(100).decode()
    except OSError:
        return ""


def median_of(ask: Callable[[], str]) -> float:
    """Milliseconds that a request takes, of which each has to be answered."""
    took = []
    for _ in range(REQUESTS):
        began = time.monotonic()
        assert ask() == "1"
        took.append(time.monotonic() - began)
    return statistics.median(took) * 1000


def measure(what: str, value: str) -> None:
    """Keep a figure for the table in the end."""
    measured.append((what, value))
    Path(os.environ["TXCONTAIN_SWARM"], "measured").write_text(
        "".join(f"{name}\t{figure}\n" for name, figure in measured)
    )


class NodeTests(ManyCase):
    """Nodes, as the API and the commands have them."""

    def test_nodes(self) -> None:
        """All are told with their roles; `txcontain nodes` and inspect show them."""
        nodes = self.nodes()
        self.assertEqual([*nodes], ["h1", "h2", "h3", "h4"])
        self.assertEqual([one["role"] for one in nodes.values()], ["manager"] * 3 + ["worker"])
        self.assertEqual([one["leader"] for one in nodes.values()].count(True), 1)
        self.assertEqual(nodes["h4"]["address"], "10.99.0.14")
        instance = self.launch()
        where = self.record(instance)["node"]
        self.assertIn(where, nodes)
        self.assertEqual(self.nodes()[where]["instances"], 1)
        self.assertIn(where, self.command("ps"))
        lines = [line.split() for line in self.command("nodes").splitlines()[1:]]
        self.assertEqual([line[0] for line in lines], [*nodes])

    def test_drain(self) -> None:
        """What runs on a node that is drained runs on another one soon; labels stay."""
        instance = self.launch()
        where = self.record(instance)["node"]
        self.command("nodes", "label", where, "disk=ssd")
        self.assertEqual(self.command("nodes", "drain", where), f"{where}\n")
        self.until(self.moved(instance, where), "it runs on another node")
        drained = self.nodes()[where]
        self.assertEqual((drained["availability"], drained["labels"]), ("drain", {"disk": "ssd"}))
        self.command("nodes", "activate", where)
        self.command("nodes", "label", where, "disk-")
        node = self.nodes()[where]
        self.assertEqual((node["availability"], node["labels"]), ("active", {}))

    def test_images(self) -> None:
        """Nodes to which --docker leads have an image before they need it, unless drained."""
        self.command("nodes", "drain", "h2")
        self.launch(base_image="python.tar")
        ((service, *_),) = [self.swarm.hosts[0].docker("GET", "/services")[1]]
        image = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]

        def have() -> list[bool]:
            told = [host.docker("GET", f"/images/{image}/json") for host in self.swarm.managers]
            return [status == 200 for status, _ in told]

        self.until(lambda: have() == [True, False, True], "those that are active have it")
        self.command("nodes", "activate", "h2")
        self.until(lambda: all(have()), "all have it")


class FailoverTests(ManyCase):
    """Hosts whose power is cut."""

    def test_leader(self) -> None:
        """While there is no leader, the list is the last one, writes are put off, and it ends."""
        instance, key = self.launch_on_worker(), self.upload(restart="always")
        leader, before = self.swarm.leader(), self.record(instance)
        leader.kill()
        cut = time.monotonic()
        slowest, stale, refused = 0.0, 0, 0.0
        launched: Any = None
        while launched is None and time.monotonic() < cut + 2 * PATIENCE:
            began = time.monotonic()
            answer = self.ask("GET", "/list")
            slowest = max(slowest, time.monotonic() - began)
            stale += bool(answer.headers["Txcontain-As-Of"])
            self.assertEqual([one["instance"] for one in answer.json["instances"]], [instance])
            began = time.monotonic()
            answer = self.ask("POST", "/launch", key)
            if answer.status == 503:
                self.assertEqual(answer.headers["Retry-After"], "5")
                refused = max(refused, time.monotonic() - began)
            else:
                self.assertEqual(answer.status, 200, answer.reason)
                launched = answer.json["instance"]
        again = time.monotonic() - cut
        self.assertIsNotNone(launched)
        self.assertGreater(stale, 0)
        running = {one["instance"] for one in self.ask("GET", "/list").json["instances"]}
        self.assertEqual(running, {instance, launched})
        after = self.record(instance)
        self.assertEqual((after["node"], after["restarts"]), ("h4", before["restarts"]))
        measure("leader cut: writes work again after", f"{again:.1f} s")
        measure("leader cut: slowest GET /list meanwhile", f"{slowest * 1000:.0f} ms")
        measure("leader cut: slowest refusal of a write (503)", f"{refused:.1f} s")

    def test_two_managers(self) -> None:
        """Without two of three managers the list is the last one, until they are back."""
        instance, key = self.launch_on_worker(), self.upload(restart="always")
        gone = [host for host in self.swarm.managers if host is not self.swarm.leader()][:1]
        gone.append(self.swarm.leader())
        for host in gone:
            host.kill()
        answer = self.until(self.last_seen, "the list is of before")
        self.assertEqual([one["instance"] for one in answer.json["instances"]], [instance])
        refused = self.ask("POST", "/launch", key)
        self.assertEqual((refused.status, refused.headers["Retry-After"]), (503, "5"))
        for host in gone:
            host.start()
        back = time.monotonic()
        self.until(lambda: self.ask("POST", "/launch", key).status == 200, "a launch works")
        measure("two managers cut, and back: writes work after", f"{time.monotonic() - back:.1f} s")

    def last_seen(self) -> Any:
        """The list, once it is not of now."""
        answer = self.ask("GET", "/list")
        return answer if answer.headers["Txcontain-As-Of"] else None

    def test_worker(self) -> None:
        """What runs on a node whose power is cut runs on another one soon."""
        instance = self.launch_on_worker()
        self.swarm.workers[0].kill()
        cut = time.monotonic()
        self.until(lambda: self.nodes()["h4"]["state"] == "down", "it is seen to be down")
        down = time.monotonic() - cut
        self.until(self.moved(instance, "h4"), "it runs on another node")
        took, load = time.monotonic() - cut, os.getloadavg()[0]
        figures = f"{took:.1f} s, {down:.1f} s of them until it was seen; load {load:.1f}"
        measure("worker cut: its instance runs elsewhere after", figures)


class RestartTests(ManyCase):
    """Hosts whose dockerd is restarted: that ends its containers."""

    def test_worker(self) -> None:
        """What ran on a worker runs again, there or elsewhere; the node is one of the swarm."""
        instance = self.launch_on_worker()
        began = time.monotonic()
        self.swarm.workers[0].restart_dockerd()
        self.until(lambda: self.runs_again(instance), "it runs again")
        measure("worker's dockerd restarted: runs again after", f"{time.monotonic() - began:.1f} s")
        self.until(lambda: self.nodes()["h4"]["state"] == "ready", "the node is ready")

    def runs_again(self, instance: str) -> bool:
        """Whether an instance runs, and not for the first time."""
        record = self.record(instance)
        return record["state"] == "running" and record["restarts"] > 0

    def test_leader(self) -> None:
        """If it was the leader's, what runs elsewhere runs on, and another one leads soon."""
        instance, key = self.launch_on_worker(), self.upload(restart="always")
        before = self.record(instance)
        began = time.monotonic()
        self.swarm.leader().restart_dockerd()
        launch = partial(self.ask, "POST", "/launch", key)
        self.until(lambda: launch().status == 200, "a launch works")
        measure(
            "leader's dockerd restarted: writes work after", f"{time.monotonic() - began:.1f} s"
        )
        after = self.record(instance)
        told = ("state", "node", "restarts")  # the next leader is told anew since when
        self.assertEqual([after[key] for key in told], [before[key] for key in told])


class LaunchTests(ManyCase):
    """What a launch takes."""

    def test_launch(self) -> None:
        """A launch whose image is there, and the first one of a second config, are measured."""
        self.command("nodes", "drain", "h2", "h3", "h4")  # one node, which has the image then
        other = {"mounts": ["job.tar /other READ"], "startup_script": "/other/run"}
        first, second = self.upload(), self.upload(**other)
        self.launch_of(first)
        took = [(self.launch_of(first), self.by_docker_alone(number)) for number in range(9)]
        median, alone = map(statistics.median, zip(*took, strict=True))
        measure("a launch, image present, median", f"{median * 1000:.0f} ms")
        measure("the same by Docker alone, in turns", f"{alone * 1000:.0f} ms")
        more = self.launch_of(second) - median
        measure("the first launch of a second config: more", f"{more * 1000:.0f} ms")
        image = statistics.median(self.image_work(number) for number in range(9))
        measure("its image: unpacked, packed and pushed", f"{image * 1000:.0f} ms")

    def image_work(self, number: int) -> float:
        """Seconds until a config with a new tarball has its image, as `explain` has it made."""
        tarball = f"new-{number}.tar"
        pack(self.swarm.folder / "mountables" / tarball, script("run", f"#!/bin/sh\n# {number}\n"))
        key = self.upload(mounts=[f"{tarball} /job READ"])
        began = time.monotonic()
        answer = self.ask("GET", f"/configs/{'-'.join(key.values())}/explain")
        took = time.monotonic() - began
        self.assertEqual(answer.status, 200, answer.reason)
        return took

    def by_docker_alone(self, number: int) -> float:
        """Seconds until a service like that of a launch runs, which is no instance."""
        docker = self.swarm.leader().docker
        spec = docker("GET", "/services")[1][0]["Spec"]
        container = {**spec["TaskTemplate"]["ContainerSpec"], "Labels": {}}
        template = {**spec["TaskTemplate"], "ContainerSpec": container}
        other = {**spec, "Name": f"alone-{number}", "Labels": {}, "TaskTemplate": template}
        began = time.monotonic()
        _, made = docker("POST", "/services/create", other)
        self.addCleanup(docker, "DELETE", f"/services/{made['ID']}")
        tasks = f"/tasks?filters={quote(json.dumps({'service': [made['ID']]}))}"

        def runs() -> bool:
            return any(one["Status"]["State"] == "running" for one in docker("GET", tasks)[1])

        wait_until(runs, "it runs", PATIENCE)
        return time.monotonic() - began

    def launch_of(self, key: dict[str, str]) -> float:
        """Seconds that a launch takes."""
        began = time.monotonic()
        answer = self.ask("POST", "/launch", key)
        took = time.monotonic() - began
        self.assertEqual(answer.status, 200, answer.reason)
        return took


class StackCase(ManyCase):
    """A test of stacks, whose service web serves at a port of the manager's host."""

    def setUp(self) -> None:
        """Have configs of versions that work, and of one that does not."""
        super().setUp()
        self.minor = str(NEW_NUMBER())
        for major in ("1", "2", "broken"):
            mount = "bad.tar" if major == "broken" else "www.tar"
            config = {
                **{"name": "web", "major": major, "minor": self.minor, "base_image": "python.tar"},
                **{"mounts": [f"{mount} /www READ"], "startup_script": "/www/run"},
                **{"startup_env": f"VERSION={major}", "stop_timeout": 10},
            }
            answer = self.ask("POST", "/config", config)
            self.assertEqual(answer.status, 200, answer.reason)

    def write(self, major: str = "1", **keys: Any) -> str:
        """Write a stack to a file."""
        web = {
            **{"config": f"web-{major}-{self.minor}", "replicas": 3},
            **{"ports": [f"{PORT}:80"], "update": {"order": "start-first"}},
        }
        path = self.swarm.folder / "shop.json"
        path.write_text(json.dumps({"stack": "shop", "services": {"web": {**web, **keys}}}))
        return str(path)

    def web(self) -> Any:
        """How the service stands."""
        return self.ask("GET", "/services/web").json

    def serves(self) -> bool:
        """Whether the port answers."""
        return ask_once("127.0.0.1") != ""

    def wheres(self) -> dict[str, str]:
        """On which node each replica runs."""
        records = self.ask("GET", "/instances").json["instances"]
        return {one["instance"]: one["node"] for one in records if one["state"] == "running"}


class StackTests(StackCase):
    """Stacks by the commands of one host."""

    def test_life(self) -> None:
        """Up, diff, scale, update, rollback and down do what they do on one host."""
        file = self.write()
        self.assertIn("add web: web-1-", self.command("diff", file))
        self.assertIn("add web: web-1-", self.command("up", file))
        self.assertEqual(self.command("diff", file), "nothing to do\n")
        self.until(self.serves, "the port is balanced")
        self.assertEqual([*self.wheres()], ["shop-web-1", "shop-web-2", "shop-web-3"])
        self.assertEqual(len(self.ask("GET", "/list").json["instances"]), 3)
        self.command("scale", "web=2")
        self.until(lambda: len(self.wheres()) == 2, "two are left")
        self.command("update", "web", "2", self.minor)
        self.until(lambda: ask_once("127.0.0.1") == "2", "the new version answers")
        self.assertEqual((self.web()["state"], self.web()["replicas"]), ("done", 2))
        self.command("rollback", "web")
        self.until(lambda: ask_once("127.0.0.1") == "1", "the old version answers")
        self.assertEqual((self.web()["state"], self.web()["replicas"]), ("done", 2))
        self.assertIn("shop-web  web-1-", self.command("services"))
        answer = self.ask("DELETE", "/destroy/shop-web-1")
        self.assertEqual(answer.status, 409, answer.reason)
        self.command("down", "shop")
        self.assertEqual(self.ask("GET", "/stacks").json, {"stacks": []})
        self.until(lambda: not self.serves(), "the port is free again")

    def test_placement(self) -> None:
        """Replicas run on nodes of a label, and spread over the values of another."""
        for node, disk, zone in (("h1", "ssd", "a"), ("h2", "ssd", "b"), ("h3", "hdd", "c")):
            self.command("nodes", "label", node, f"disk={disk}", f"zone={zone}")
        placed: Any = {"placement": {"node.labels.disk": "ssd"}, "spread": "node.labels.zone"}
        self.command("up", self.write(**placed, replicas=2))
        self.until(lambda: sorted(self.wheres().values()) == ["h1", "h2"], "they are placed")

    def test_refused(self) -> None:
        """What a swarm can't keep of a stack is refused by name, and nothing is made."""
        file = json.loads(Path(self.write(drain=3)).read_text())
        answer = self.ask("POST", "/stacks", file)
        self.assertEqual(answer.status, 409)
        self.assertIn("services.web can't be kept in a swarm", answer.reason)
        self.assertIn("drain: Docker ends at once", answer.reason)
        self.assertEqual(self.ask("GET", "/stacks").json, {"stacks": []})


class ServedCase(StackCase):
    """A test of a service of three that serves."""

    def setUp(self) -> None:
        """Have it serve."""
        super().setUp()
        self.until(partial(self.is_begun, self.write()), "it is begun")
        self.until(lambda: len(self.wheres()) == 3, "three run")
        self.until(self.serves, "the port is balanced")

    def is_begun(self, file: str) -> bool:
        """Begin to have it; returns whether the swarm has taken that."""
        answer = self.ask("POST", "/stacks", json.loads(Path(file).read_text()))
        self.assertIn(answer.status, (200, 503), answer.reason)
        return answer.status == 200

    def update(self) -> None:
        """Have the new version serve, and no request fail meanwhile."""
        with Load("127.0.0.1") as load:
            began = time.monotonic()
            self.command("up", self.write("2"))
            took = time.monotonic() - began
            self.until(lambda: ask_once("127.0.0.1") == "2", "the new version answers")
        measure("rolling update of 3 under load", f"{load}, done after {took:.1f} s")
        self.assertEqual(load.failed, 0)

    def is_replaced(self, gone: str) -> bool:
        """Whether three run, none of them there."""
        wheres = self.wheres()
        return len(wheres) == 3 and gone not in wheres.values()


class LoadTests(ServedCase):
    """What a client at the manager's host sees of what happens to a service of three."""

    def test_update(self) -> None:
        """A rolling update loses no request; a broken one is rolled back, and loses none either."""
        self.update()
        with Load("127.0.0.1") as load:
            began = time.monotonic()
            answer = self.ask("POST", "/stacks", json.loads(Path(self.write("broken")).read_text()))
            self.assertEqual(answer.status, 200, answer.reason)
            self.until(lambda: self.web()["state"] == "rolled back", "it is rolled back")
            took = time.monotonic() - began
        measure("broken update under load", f"{load}, rolled back after {took:.1f} s")
        self.assertEqual((load.failed, load.answers["broken"]), (0, 0))

    def test_balancer(self) -> None:
        """All replicas answer by the balancer; what it takes is measured."""
        _, tasks = self.swarm.hosts[0].docker("GET", "/tasks")
        hosts = {host.name: host.address for host in self.swarm.hosts}
        node = self.record("shop-web-1")["node"]
        (port,) = {
            given["PublishedPort"]
            for task in tasks
            for given in task["Status"].get("PortStatus", {}).get("Ports", ())
            if task["Slot"] == 1 and task["DesiredState"] == "running"
        }
        self.until(lambda: ask_once(hosts[node], port), "its program listens")
        straight = median_of(lambda: ask_once(hosts[node], port))
        balanced = median_of(lambda: ask_once("127.0.0.1"))
        measure("a request, median: by the balancer", f"{balanced:.1f} ms")
        measure("a request, median: straight to its node", f"{straight:.1f} ms")

    def spread_out(self) -> None:
        """Have a replica on the worker, and none on the leader."""
        leader = self.swarm.leader().name
        self.command("nodes", "drain", leader)
        self.until(lambda: leader not in self.wheres().values(), "the leader is free")
        self.until(lambda: "h4" in self.wheres().values(), "one is on the worker")
        self.until(lambda: len(self.wheres()) == 3, "three run")

    def test_worker(self) -> None:
        """If a worker's power is cut, its replica comes elsewhere, and the others serve on."""
        self.spread_out()
        with Load("127.0.0.1") as load:
            self.swarm.workers[0].kill()
            cut = time.monotonic()
            self.until(lambda: self.is_replaced("h4"), "three run elsewhere")
            took = time.monotonic() - cut
        measure("worker cut under load", f"{load}, replaced after {took:.1f} s")
        self.command("down", "shop")  # nothing waits for what the node has lost
        self.assertEqual(self.wheres(), {})

    def test_cut_off(self) -> None:
        """If a node is cut off, its replica comes elsewhere; back again, it has none of ours."""
        self.spread_out()
        with Load("127.0.0.1") as load:
            self.swarm.workers[0].plug("down")
            cut = time.monotonic()
            self.until(lambda: self.is_replaced("h4"), "three run elsewhere")
            took = time.monotonic() - cut
            self.swarm.workers[0].plug("up")
            back = time.monotonic()
            self.until(lambda: self.nodes()["h4"]["state"] == "ready", "it is back")
            again = time.monotonic() - back
        figures = f"{load}, replaced after {took:.1f} s, back after {again:.1f} s"
        measure("node cut off and back, under load", figures)

    def test_leader(self) -> None:
        """If the leader's power is cut, what runs elsewhere serves on."""
        self.spread_out()
        with Load("127.0.0.1") as load:
            self.swarm.leader().kill()
            cut = time.monotonic()
            self.until(lambda: self.ask("GET", "/cfginfo").status == 200, "writes work again")
            took = time.monotonic() - cut
        measure("leader cut under load", f"{load}, the next one after {took:.1f} s")
        self.assertEqual(load.failed, 0)
