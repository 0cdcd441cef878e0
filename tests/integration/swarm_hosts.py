"""A swarm of several hosts on this machine: each is a set of namespaces with a dockerd of its own.

Run by scripts/swarm-tests, in namespaces of that: its network is the switch between the hosts, and
where the registry and a client are.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.harness import PROJECT, Answer, ask, wait_until
from tests.integration.probes import PRELUDE, python_image
from tests.integration.tarballs import pack, script, small_image
from tests.support import TWISTD

SWITCH = "10.99.0.1"  # where the registry and clients are
REGISTRY = f"{SWITCH}:5000"
HEARTBEAT = 2_000_000_000  # ns: at 5 s, Docker's own, a dead node is found after 15
PATIENCE = 60.0  # seconds, for what takes some
STARTS_WITHIN = 150.0  # seconds: a machine that is very busy has a program start in a minute
LAUNCH_HOST = """
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/docker
install -D "$3/../trusted/REGISTRY/ca.crt" /etc/docker/certs.d/REGISTRY/ca.crt
hostname "$1"
until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
ip link set lo up
ip address add "$2/24" dev eth0
# As a service manager would: a dockerd that was asked to end is started again.
exec tini -g -- bash -c 'while "$@"; do :; done' service \
    dockerd --data-root="$3/data" --exec-root=/run/docker --pidfile=/run/docker.pid \
    --host="unix://$3/docker.sock" --bridge=none --exec-opt=native.cgroupdriver=cgroupfs \
    --cgroup-parent="/$4" --shutdown-timeout=3 >>"$3/log" 2>&1
""".replace("REGISTRY", REGISTRY)
MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9"
    f" -subj /CN=registry -addext subjectAltName=IP:{SWITCH}"
).split()
OWN_NAMESPACES = (
    "unshare --net --mount --uts --ipc --pid --fork --kill-child --mount-proc --propagation private"
).split()


def run(*command: str) -> None:
    """Run a program; what it says is the error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


class Local(http.client.HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self.path))


def ask_docker(socket: Path, method: str, path: str, document: Any = None) -> tuple[int, Any]:
    """Ask the dockerd at a socket; returns the status and the document of its answer."""
    connection = Local(socket)
    try:
        body = None if document is None else json.dumps(document)
        kind = {"Content-Type": "application/json"}
        connection.request(method, f"/v1.41{path}", body, kind)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content.strip() else None
    finally:
        connection.close()


class Host:
    """A host with a dockerd, at 10.99.0.(10 + number)."""

    def __init__(self, number: int, folder: Path, group: str) -> None:
        self.number, self.name, self.folder = number, f"h{number}", folder / f"h{number}"
        self.address, self.link = f"10.99.0.{10 + number}", f"p{number}"
        self.group = f"{group}-{self.name}"
        self.folder.mkdir()
        self.process: Any = None

    def start(self) -> None:
        """Power on."""
        arguments = [self.name, self.address, str(self.folder), self.group]
        self.process = subprocess.Popen(
            [*OWN_NAMESPACES, "bash", "-c", LAUNCH_HOST, "host", *arguments],
            stdin=subprocess.DEVNULL,
        )
        here, pid = os.readlink("/proc/self/ns/net"), self.process.pid
        wait_until(lambda: os.readlink(f"/proc/{pid}/ns/net") != here, "it has a network")
        # The same each time, as of a real host: others remember it for half a minute.
        card = f"02:00:0a:63:00:{10 + self.number:02x}"
        pair = f"{self.link} type veth peer name eth0 address {card} netns {pid}"
        run(*f"ip link add {pair}".split())
        run(*f"ip link set {self.link} master br0 up".split())
        wait_until(self.answers, f"the dockerd of {self.name} answers", STARTS_WITHIN)

    def answers(self) -> bool:
        """Whether its dockerd answers."""
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text()[-2000:])
        with contextlib.suppress(OSError):
            return self.docker("GET", "/version")[0] == 200
        return False

    def docker(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """Ask its dockerd; returns the status and the document of its answer."""
        return ask_docker(self.folder / "docker.sock", method, path, document)

    def kill(self) -> None:
        """Cut its power."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self._has_link(), f"the link of {self.name} has gone")

    def _has_link(self) -> bool:
        """Whether its cable is still in the switch. /sys has the links of another namespace."""
        return f" {self.link}:" in Path("/proc/self/net/dev").read_text()

    def restart_dockerd(self) -> None:
        """Have its dockerd end, and be started again."""
        before = self._dockerd()
        os.kill(before, signal.SIGTERM)
        gone = Path(f"/proc/{before}")
        wait_until(lambda: not gone.exists(), f"the dockerd of {self.name} has ended", PATIENCE)
        what = f"the dockerd of {self.name} answers again"
        wait_until(self.answers, what, STARTS_WITHIN)

    def _dockerd(self) -> int:
        """Its pid here: each of those above has one child."""
        pid = int(self.process.pid)
        while Path(f"/proc/{pid}/comm").read_text() != "dockerd\n":
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        return pid

    def plug(self, state: str) -> None:
        """Plug its cable in (up), or pull it out (down)."""
        run(*f"ip link set {self.link} {state}".split())


class Swarm:
    """Hosts, the first of which are managers; a registry; and a manager of txcontain's."""

    def __init__(self, folder: Path, managers: int, workers: int) -> None:
        self.folder = folder
        self.hosts = [Host(n + 1, folder, folder.name) for n in range(managers + workers)]
        self.managers, self.workers = self.hosts[:managers], self.hosts[managers:]
        self.url = "http://localhost:8080"
        self.others: list[Any] = []

    def start(self) -> None:
        """Power all on, and join them."""
        # A card of its own: else it has that of a host, and another one when that host is cut.
        # Then the others' answers are lost, and to get an image takes them 11 seconds more.
        run(*"ip link add br0 address 02:00:0a:63:00:01 type bridge".split())
        run(*f"ip address add {SWITCH}/24 dev br0".split())
        run(*"ip link set br0 up".split())
        self._start_registry()
        for host in self.hosts:
            host.start()
        self._join()
        self._start_manager()

    def _join(self) -> None:
        first = self.hosts[0]
        document: Any = {
            "ListenAddr": f"{first.address}:2377",
            "AdvertiseAddr": first.address,
            "Spec": {"Dispatcher": {"HeartbeatPeriod": HEARTBEAT}},
        }
        assert first.docker("POST", "/swarm/init", document)[0] == 200
        tokens = first.docker("GET", "/swarm")[1]["JoinTokens"]
        for host in self.hosts[1:]:
            asked = {
                "ListenAddr": f"{host.address}:2377",
                "AdvertiseAddr": host.address,
                "RemoteAddrs": [f"{first.address}:2377"],
                "JoinToken": tokens["Manager" if host in self.managers else "Worker"],
            }
            assert host.docker("POST", "/swarm/join", asked)[0] == 200, host.name

    def _start_registry(self) -> None:
        trusted = self.folder / "trusted" / REGISTRY
        trusted.mkdir(parents=True)
        certificate, key = trusted / "ca.crt", self.folder / "registry.key"
        run(*MAKE_CERTIFICATE, "-out", str(certificate), "-keyout", str(key))
        (self.folder / "registry.yml").write_text(
            "version: 0.1\n"
            f"storage: {{filesystem: {{rootdirectory: {self.folder}/registry}}}}\n"
            f'http: {{addr: "{REGISTRY}", tls: {{certificate: "{certificate}", key: "{key}"}}}}\n'
            "log: {level: error}\n"
        )
        self._run("registry", "docker-registry", "serve", str(self.folder / "registry.yml"))

    def _start_manager(self) -> None:
        for name in ("base_images", "mountables"):
            (self.folder / name).mkdir()
        pack(self.folder / "base_images/small.tar", *small_image())
        sockets = ",".join(f"unix:{host.folder}/docker.sock" for host in self.managers)
        options = f"-n --pidfile= containerd-lite --state {self.folder}/state --pool 0"
        folders = f"--base-images {self.folder}/base_images --mountables {self.folder}/mountables"
        engine = f"--engine swarm --docker {sockets} --registry {REGISTRY}"
        trust = f"--registry-certificates {self.folder}/trusted"
        self._run("manager", str(TWISTD), *f"{options} {folders} {engine} {trust}".split())
        wait_until(self._has_list, "the manager answers", STARTS_WITHIN)

    def _has_list(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET", "/list").status == 200
        return False

    def _run(self, name: str, *command: str) -> None:
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            self.others.append(
                subprocess.Popen(
                    command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            )

    def stop(self) -> None:
        """Power all off."""
        for process in reversed(self.others):
            process.terminate()
            process.wait()
        for host in self.hosts:
            if host.process and host.process.poll() is None:
                host.kill()
        run(*"ip link delete br0".split())

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask the manager."""
        return ask(self.url, method, path, body)

    def leader(self) -> Host:
        """The manager that leads, as another one than the last tells."""
        for host in self.managers:
            with contextlib.suppress(OSError):
                status, nodes = host.docker("GET", "/nodes")
                if status == 200:
                    led = [n for n in nodes if (n.get("ManagerStatus") or {}).get("Leader")]
                    name = led[0]["Description"]["Hostname"]
                    return next(one for one in self.hosts if one.name == name)
        raise AssertionError("no manager answers")

    def is_whole(self) -> bool:
        """Whether all managers answer, and their leader reaches each."""
        with contextlib.suppress(OSError):
            return all(reaches_all(*host.docker("GET", "/nodes")) for host in self.managers)
        return False


def reaches_all(status: int, nodes: Any) -> bool:
    """Whether the leader reaches all managers, as one has answered."""
    if status != 200:
        return False
    managers = [one["ManagerStatus"] for one in nodes if one.get("ManagerStatus")]
    led = any(one.get("Leader") for one in managers)
    return led and all(one["Reachability"] == "reachable" for one in managers)


WELCOME = """
Three hosts are up: h1, h2 and h3, all of them managers. This shell is beside them. Try:

  txcontain nodes
  txcontain up {folder}/shop.json          # three replicas, at http://localhost:8000
  txcontain ps                             # on which node each runs
  curl localhost:8000                      # which one has answered
  kill -9 $(cat {folder}/h3/pid)           # the power of h3 is cut
  txcontain ps                             # some seconds later: its replica is elsewhere
  txcontain scale web=5
  txcontain down shop; exit                # and all is gone
"""
SHOP = f"""{PRELUDE}
server = socket.create_server(("", 80))
while True:
    connection, _ = server.accept()
    with connection:
        said = "HTTP/1.0 200 OK\\r\\n\\r\\nIt is " + socket.gethostname() + "\\n"
        connection.sendall(said.encode())
"""


def demonstrate(folder: Path) -> None:
    """Have three hosts, and a person on a shell beside them."""
    swarm = Swarm(folder, 3, 0)
    try:
        swarm.start()
        for host in swarm.hosts:
            (host.folder / "pid").write_text(str(host.process.pid))
        prepare_shop(swarm)
        print(WELCOME.format(folder=folder), flush=True)
        subprocess.run(["bash", "--norc"], env={**os.environ, "TXCONTAIN_URL": swarm.url})
    finally:
        swarm.stop()


def prepare_shop(swarm: Swarm) -> None:
    """Have a config of a server, and a stack of it in a file."""
    pack(swarm.folder / "base_images/python.tar", *python_image())
    pack(swarm.folder / "mountables/www.tar", script("run", SHOP))
    config = {
        **{"name": "web", "major": "1", "minor": "01", "base_image": "python.tar"},
        **{"mounts": ["www.tar /www READ"], "startup_script": "/www/run"},
    }
    assert swarm.ask("POST", "/config", config).status == 200
    web = {"config": "web-1-01", "replicas": 3, "ports": ["8000:80"]}
    (swarm.folder / "shop.json").write_text(json.dumps({"stack": "shop", "services": {"web": web}}))


if __name__ == "__main__":
    demonstrate(Path(sys.argv[1]))
