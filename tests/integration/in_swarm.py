"""What the contract's tests don't look at, in a real swarm of one node: scripts/swarm-tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.integration.harness import PATIENCE, listens, wait_until
from tests.integration.probes import PRELUDE, python_image
from tests.integration.swarm_hosts import ask_docker
from tests.integration.tarballs import file, folder, pack, script
from tests.integration.test_contract import ContractCase

SERVER = f"""{PRELUDE}
server = socket.create_server(("", int(os.environ["PORT"])))
while True:
    connection, _ = server.accept()
    connection.sendall(b"it works")
    connection.close()
"""


ASKS = f"""{PRELUDE}
for name in os.environ["NAMES"].split(","):
    for _ in range(100):  # it is known a little later than it runs
        try:
            print(socket.gethostbyname(name.encode()), flush=True)
            break
        except OSError:
            time.sleep(0.2)
print("done", flush=True)
time.sleep(600)
"""


class SwarmCase(ContractCase):
    """A test of what runs in the swarm of scripts/swarm-tests."""

    def setUp(self) -> None:
        """Know the folders of its manager."""
        super().setUp()
        self.folder = Path(os.environ["TXCONTAIN_SWARM"])

    def says(self, instance: str, words: str, query: str = "") -> str:
        """The log of an instance, once it holds these words."""

        def log() -> str:
            said = self.ask("GET", f"/instances/{instance}/logs{query}").body.decode()
            return said if words in said else ""

        return str(wait_until(log, f"{words!r} is in the log"))


class LifeTests(SwarmCase):
    """Instances in a swarm."""

    def test_inside(self) -> None:
        """Mounts, one below another, a read-only root, environment and user are as on one host."""
        self.mountable("upper.tar", folder("upper"), file("upper/a", "1\n"))
        self.mountable("lower.tar", folder("lower"), file("lower/b", "2\n"))
        text = (
            "#!/bin/sh\ncat /data/a /data/more/b; touch /data/more/c || echo read-only\n"
            'touch /data/d && echo written\ntouch /e || echo root\necho "$NAME"; id -u\n'
            "touch /tmp/x /run/x 2>/dev/null; ls /tmp\necho done; sleep 60\n"
        )
        job = self.job(
            text,
            mounts=["upper.tar /data READWRITE", "lower.tar /data/more READ"],
            startup_env="NAME=it is ${NAME}me",
        )
        said = self.says(self.launch(**job), "done\n", "?stream=stdout").splitlines()
        self.assertEqual(said[:2], ["1", "2"])
        for word in ("written", "root", "it is me", "0", "x"):
            self.assertIn(word, said)

    def test_logs(self) -> None:
        """A log is told by stream, by its last lines, and with times."""
        instance = self.launch(**self.job("#!/bin/sh\necho a; echo b >&2; echo c; sleep 60\n"))
        self.says(instance, "c\n")
        for query, wanted in (
            ("?stream=stdout", "a\nc\n"),
            ("?stream=stderr", "b\n"),
            ("?tail=0", ""),
            ("?until=2001-01-01T00:00:00Z", ""),
        ):
            answer = self.ask("GET", f"/instances/{instance}/logs{query}")
            self.assertEqual((answer.status, answer.body.decode()), (200, wanted), query)
        timed = self.says(instance, "b\n", "?stream=stderr&timestamps=1")
        self.assertRegex(timed, r"^20[0-9-]{8}T[0-9:]{8}\.[0-9]+Z b\n$")
        self.assert_problem(self.ask("GET", "/instances/nobody/logs"), 404)

    def test_logs_until(self) -> None:
        """A log is followed until a time, whether its instance is silent then, or goes on."""
        for text in ("echo a; sleep 600", "while :; do echo a; sleep 0.1; done"):
            instance = self.launch(**self.job(f"#!/bin/sh\n{text}\n"))
            self.says(instance, "a\n")
            until = time.time() + 3
            words = datetime.fromtimestamp(until, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            path = f"/instances/{instance}/logs?follow=1&timestamps=1&until={words}"
            answer = self.ask("GET", path)
            took = time.time() - until
            self.assertEqual(answer.status, 200, answer.reason)
            self.assertGreater(took, 0)
            self.assertLess(took, PATIENCE / 4)
            lines = answer.body.decode().splitlines()
            self.assertLessEqual(lines[-1].split()[0], words)

    def test_logs_of_several(self) -> None:
        """Logs of several are merged by time, each line with its instance, and can be followed."""
        text = "#!/bin/sh\necho {}; sleep 2; echo {}; sleep 60\n"
        names = [self.launch(**self.job(text.format(*words))) for words in ("ac", "bd")]
        for name, last in zip(names, "cd", strict=True):
            self.says(name, f"{last}\n")
        both = f"/logs?instance={names[0]}&instance={names[1]}"
        for path in (f"{both}&timestamps=1", "/logs?all=1&timestamps=1"):
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 200, answer.reason)
            told = [
                line.replace(" | ", " ").split(" ") for line in answer.body.decode().splitlines()
            ]
            self.assertEqual(told, sorted(told, key=lambda line: line[1]))
            said = [[word for name, _, word in told if name == one] for one in names]
            self.assertEqual(said, [["a", "c"], ["b", "d"]])
        following = HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE)
        self.addCleanup(following.close)
        following.request("GET", f"{both}&follow=1&tail=1")
        response = following.getresponse()
        lines = {response.readline().decode() for _ in names}
        self.assertEqual(lines, {f"{names[0]} | c\n", f"{names[1]} | d\n"})

    def assert_problem(self, answer: Any, status: int) -> None:
        """Fail unless a request was refused with this status."""
        self.assertEqual(answer.status, status, answer.reason)

    def test_port(self) -> None:
        """A launch answers when its PORT does, a second one finds it taken, and destroy ends it."""
        pack(self.folder / "base_images/python.tar", *python_image())
        self.mountable("www.tar", folder("www"), script("www/run", SERVER))
        keys = {
            "base_image": "python.tar",
            "mounts": ["www.tar /www READ"],
            "startup_script": "/www/run",
            "startup_env": "PORT=10017",
        }
        instance = self.launch(**keys)
        with socket.create_connection(("127.0.0.1", 10017), timeout=30) as client:
            self.assertEqual(client.recv(100), b"it works")
        second = self.try_to_launch(**keys)
        self.assert_refused(second, 409, "each node has a container at this port already")
        self.assertEqual(self.running(), [instance])
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        self.assertFalse(listens(10017))

    def test_end_before_port(self) -> None:
        """A script that ends before it listens is a failed launch, and nothing is left of it."""
        job = self.job("#!/bin/sh\nexit 3\n", startup_env="PORT=10018")
        self.assert_refused(self.try_to_launch(**job), 409, "ended before it listened on port")
        self.assertEqual(self.running(), [])

    def test_restart(self) -> None:
        """What ends is started again, if its config says so, and its log goes on."""
        job = self.job("#!/bin/sh\necho once\nsleep 1\n", restart="always")
        instance = self.launch(**job)
        wait_until(lambda: self.says(instance, "once\n").count("once") > 1, "it runs again")
        wait_until(lambda: self.running() == [instance], "it is in the list again")

    def test_end(self) -> None:
        """What has ended is in no list any more, and can still be destroyed."""
        instance = self.launch(**self.job("#!/bin/sh\necho over\n"))
        wait_until(lambda: not self.running(), "it has ended")
        self.assertEqual(self.says(instance, "over"), "over\n")
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        self.assert_refused(self.ask("DELETE", f"/destroy/{instance}"), 404)

    def test_private_network(self) -> None:
        """A container of the private network has an address of its own there."""
        text = "#!/bin/sh\ncat /proc/net/fib_trie; echo done; sleep 60\n"
        said = self.says(self.launch(**self.job(text, network="private")), "done\n")
        addresses = set(re.findall(r"-- (10\.[0-9.]+)", said))
        self.assertTrue(addresses, said)

    def test_names_on_private_network(self) -> None:
        """Others there find an instance by its name and by that of its config."""
        pack(self.folder / "base_images/python.tar", *python_image())
        self.mountable("ask.tar", folder("ask"), script("ask/run", ASKS))
        key = self.upload(**self.job("#!/bin/sh\nsleep 600\n", network="private"))
        asked = {"config": key["name"], "instance": "My.web"}
        launched = self.ask("POST", "/instances", asked)
        self.assertEqual(launched.status, 200, launched.reason)
        keys = {"base_image": "python.tar", "mounts": ["ask.tar /ask READ"]}
        env = f"NAMES=My.web,{key['name']}"
        asks = self.launch(**keys, startup_script="/ask/run", startup_env=env, network="private")
        found = self.says(asks, "done\n").splitlines()
        self.assertEqual(len(found), 3, found)
        self.assertEqual(found[0], found[1])
        self.assertTrue(found[0].startswith("10."), found)

    def test_records(self) -> None:
        """The list of all tells where each instance runs, and how those that have ended did."""
        instance = self.launch()
        ended = self.launch(**self.job("#!/bin/sh\nexit 3\n"))
        wait_until(lambda: self.running() == [instance], "the other one has ended")
        one, other = self.ask("GET", "/instances").json["instances"]
        self.assertEqual((one["instance"], one["state"]), (instance, "running"))
        self.assertEqual(one["node"], os.uname().nodename)
        self.assertEqual((other["instance"], other["state"]), (ended, "ended"))
        self.assertEqual(other["exit"]["reason"], "exit status 3")

    def test_whole_config(self) -> None:
        """A whole config is launched and not kept; `run -d` does that."""
        config = self.config(**self.job("#!/bin/sh\necho it works\nsleep 600\n"), name="whole")
        answer = self.ask("POST", "/instances", {"config": config})
        self.assertEqual(answer.status, 200, answer.reason)
        instance = answer.json["instance"]
        self.says(instance, "it works\n")
        told = self.ask("GET", f"/instances/{instance}").json["spec"]
        self.assertEqual((told["name"], told["minor"]), ("whole", config["minor"]))
        self.assertNotIn("whole", self.ask("GET", "/cfginfo").body.decode())
        program = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url]
        words = ["run", "-d", self.base_image, "sh", "-c", "echo $0; sleep 600"]
        done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.says(done.stdout.strip(), "sh\n")
        self.assertEqual(self.running(), [instance, done.stdout.strip()])

    def test_metrics(self) -> None:
        """Prometheus is told of nodes, instances and what the swarm takes for its answers."""
        instance = self.launch()
        wait_until(lambda: self.running() == [instance], "it is listed")
        answer = self.ask("GET", "/metrics")
        said = answer.body.decode()
        self.assertEqual(answer.status, 200, answer.reason)
        for line in (
            'txcontain_nodes{state="ready",availability="active"} 1',
            f'txcontain_node_instances{{node="{os.uname().nodename}"}} 1',
            'txcontain_instances{state="running"} 1',
        ):
            self.assertIn(f"\n{line}\n", said)
        for name in ("launch_duration", "swarm_look_duration", "swarm_request_duration"):
            self.assertRegex(said, f"txcontain_{name}_seconds_count.* [1-9]")

    def test_gap(self) -> None:
        """While Docker does not answer, the list is the last one, and writes are put off."""
        instance, key = self.launch(), self.upload()
        dockerd = int(Path("/run/docker.pid").read_text())
        self.addCleanup(os.kill, dockerd, signal.SIGCONT)

        def last_seen() -> Any:
            answer = self.ask("GET", "/list")
            return answer if answer.headers["Txcontain-As-Of"] else None

        wait_until(lambda: not last_seen(), "the list is of now")
        os.kill(dockerd, signal.SIGSTOP)
        answer = wait_until(last_seen, "the list is of before")
        self.assertEqual([one["instance"] for one in answer.json["instances"]], [instance])
        refused = self.ask("POST", "/launch", key)
        self.assert_refused(refused, 503, "does not answer within 5 seconds")
        self.assertEqual(refused.headers["Retry-After"], "5")
        os.kill(dockerd, signal.SIGCONT)
        wait_until(lambda: not last_seen(), "the list is of now again")
        self.assertEqual(self.running(), [instance])

    def test_refused(self) -> None:
        """What a swarm can't keep is refused by name when it is uploaded, and not kept."""
        answer = self.ask("POST", "/config", self.config(limits={"memory": "64M", "swap": "64M"}))
        self.assert_refused(answer, 409, "limits.swap: a swarm has no limit of swap space")


SAYS_ITS_NAME = "#!/bin/sh\ncat /proc/sys/kernel/hostname; sleep 600\n"


class ChoiceTests(SwarmCase):
    """The choice that `POST /instances` leaves."""

    def asked(self, text: str = SAYS_ITS_NAME, **keys: Any) -> Any:
        """Launch a script so; returns the answer."""
        config = self.config(**self.job(text))
        return self.ask("POST", "/instances", {"config": config, **keys})

    def test_name(self) -> None:
        """A name is the hostname, too; the next one has it when the first one is destroyed."""
        first = self.asked(instance="My.web_1")
        self.assertEqual((first.status, first.json["instance"]), (200, "My.web_1"), first.reason)
        self.says("My.web_1", "My.web_1\n")
        second = self.asked(instance="My.web_1")
        self.assertEqual(second.status, 409)
        problem = json.loads(second.body)
        self.assertEqual(problem["type"], "urn:txcontain:instance-exists")
        self.assertEqual(problem["holder"], {**first.json, "state": "running"})
        other = self.asked(instance="my-web-1")
        self.assertEqual(other.status, 200, other.reason)
        self.assertEqual(self.ask("DELETE", "/destroy/My.web_1").status, 200)
        again = self.asked("#!/bin/sh\necho again; sleep 600\n", instance="My.web_1")
        self.assertEqual(again.status, 200, again.reason)
        self.assertEqual(self.says("My.web_1", "again\n"), "again\n")

    def test_at_the_same_time(self) -> None:
        """Of launches under one name at the same time one succeeds; the others are told."""
        with ThreadPoolExecutor() as pool:
            answers = [*pool.map(lambda _: self.asked(instance="only"), range(4))]
        self.assertEqual(sorted(answer.status for answer in answers), [200, 409, 409, 409])
        self.assertEqual(self.running(), ["only"])

    def test_labels(self) -> None:
        """Labels are told, and what has them is no replica of a stack."""
        labels = {"tier": "front", "example.org/team": "a b"}
        instance = self.asked(labels=labels).json["instance"]
        self.assertEqual(self.ask("GET", f"/instances/{instance}").json["labels"], labels)
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)

    def test_removed(self) -> None:
        """What is to be removed is once it has ended: until then its end and its log are told."""
        stays = self.asked(remove=True).json["instance"]
        ends = self.asked("#!/bin/sh\necho last words; exit 3\n", remove=True).json["instance"]
        end = self.ask("GET", f"/instances/{ends}/wait")
        self.assertEqual(end.json["exit"]["status"], 3, end.reason)
        self.says(ends, "last words\n")
        self.assertEqual(self.ask("GET", f"/instances/{ends}").json["state"], "ended")
        wait_until(lambda: self.ask("GET", f"/instances/{ends}").status == 404, "it is removed")
        self.assertEqual(self.running(), [stays])

    def test_command(self) -> None:
        """`run --rm` leaves nothing, whether it waits or not; a name that is taken is told."""
        program = [sys.executable, "-m", "txcontain.cli.main", "--url", self.url, "run", "--rm"]

        def run(*words: str) -> Any:
            command = [*program, *words]
            return subprocess.run(command, capture_output=True, text=True, timeout=60)

        done = run("--name", "once", self.base_image, "sh", "-c", "echo it works; exit 3")
        self.assertEqual((done.returncode, done.stdout), (3, "it works\n"), done.stderr)
        self.assertEqual(self.ask("GET", "/instances").json["instances"], [])
        done = run("-d", "--name", "once", self.base_image, "sleep", "600")
        self.assertEqual((done.returncode, done.stdout), (0, "once\n"), done.stderr)
        done = run("--name", "once", self.base_image, "true")
        self.assertIn("there is an instance once already", done.stderr.lower())
        self.assertEqual(self.running(), ["once"])
        kill = self.ask("POST", "/instances/once/kill", {"signal": "KILL"})
        self.assertEqual(kill.status, 200, kill.reason)
        wait_until(lambda: not self.ask("GET", "/instances").json["instances"], "it is removed")


def set_of(told: Any) -> Any:
    """What of a document says anything: Docker leaves out what its own command has as empty."""
    if isinstance(told, dict):
        return {key: one for key, value in told.items() if (one := set_of(value))}
    return [set_of(one) for one in told] if isinstance(told, list) else told


class ExplainTests(SwarmCase):
    """What `explain` prints."""

    maxDiff = None

    def services(self) -> Any:
        """What each service is made of, by its name; its networks by theirs."""
        socket = self.folder / "docker.sock"
        found = {
            one["Spec"]["Name"]: one["Spec"] for one in ask_docker(socket, "GET", "/services")[1]
        }
        for spec in found.values():
            for network in spec["TaskTemplate"]["Networks"]:
                _, told = ask_docker(socket, "GET", f"/networks/{network['Target']}")
                network["Target"] = told["Name"]
        return set_of(found)

    def has_network(self) -> bool:
        """Whether the network of the stack is still there: it goes last."""
        socket = self.folder / "docker.sock"
        return ask_docker(socket, "GET", "/networks/txcontain-shop")[0] == 200

    def run_by_hand(self, script: str) -> None:
        """Run a script where Docker is."""
        socket = f"unix://{self.folder}/docker.sock"
        done = subprocess.run(
            ["sh", "-eu"],
            input=script,
            env={"PATH": os.environ["PATH"], "DOCKER_HOST": socket},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def explained(self, path: str) -> str:
        """What is told at a path."""
        answer = self.ask("GET", f"{path}/explain")
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.body.decode()

    def test_instance(self) -> None:
        """The command makes an equal service, which is an instance like the first one."""
        keys: dict[str, Any] = {
            **{"network": "private", "ports": ["0.0.0.0:10019:80"], "tty": True, "init": True},
            **{"limits": {"memory": "64M", "cpus": 0.5, "pids": 99, "files": 99}},
            **{"restart": "on-failure", "max_restarts": 3, "stop_signal": "SIGINT"},
            **{"stop_timeout": 1.5, "writable_root": True, "log_max_files": 2},
        }
        instance = self.launch(**self.job("#!/bin/sh\nsleep 600\n", **keys))
        script, made = self.explained(f"/instances/{instance}"), self.services()
        (service,) = made.values()
        del service["TaskTemplate"]["ContainerSpec"]["OpenStdin"]  # as the script says itself
        self.assertEqual(self.ask("DELETE", f"/destroy/{instance}").status, 200)
        self.run_by_hand(script)
        self.assertEqual(self.services(), made)
        wait_until(lambda: self.running() == [instance], "it runs")

    def test_config(self) -> None:
        """The command of a config makes an instance of it, whose image is in the registry."""
        key = self.upload(**self.job("#!/bin/sh\necho by hand\nsleep 600\n"))
        self.run_by_hand(self.explained(f"/configs/{'-'.join(key.values())}"))
        wait_until(self.running, "it runs")
        (instance,) = self.ask("GET", "/list").json["instances"]
        self.assertEqual({name: instance[name] for name in key}, key)
        self.says(instance["instance"], "by hand\n")

    def test_service(self) -> None:
        """The command of a replica makes an equal service of its stack."""
        key = self.upload(**self.job("#!/bin/sh\nsleep 600\n"))
        web: dict[str, Any] = {
            **{"config": "-".join(key.values()), "replicas": 2, "ports": ["10020:80"]},
            **{"placement": {"node.role": "manager"}, "spread": "node.labels.zone"},
            "update": {"order": "start-first", "parallelism": 2, "max_failure_ratio": 0.25},
        }
        stack = {"stack": "shop", "services": {"web": web}}
        self.addCleanup(self.ask, "DELETE", "/stacks/shop")
        self.assertEqual(self.ask("POST", "/stacks", stack).status, 200)
        script, made = self.explained("/instances/shop-web-1"), self.services()
        self.assertEqual(self.ask("DELETE", "/stacks/shop").status, 200)
        wait_until(lambda: not self.services() and not self.has_network(), "it is gone")
        self.run_by_hand(script)
        self.assertEqual(self.services(), made)
        wait_until(lambda: len(self.running()) == 2, "both run")
