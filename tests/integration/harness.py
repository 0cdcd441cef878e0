"""A real manager for a test, and the proof that the test has left nothing of it behind."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import unquote, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.hosts import OWN, have_host
from tests.integration.tarballs import Member, pack, script, small_image
from tests.support import DISK, MEASURED, TWISTD, mount_memory, needs_root, on_overlay, unmount
from txcontain.host.syscalls import enter_network
from txcontain.runtime.phase import Phase, phase_of
from txcontain.runtime.sessions import MOST_WARM

PROJECT = Path(__file__).resolve().parents[2]
# Seconds, for what takes milliseconds if the machine is idle; one that is emulated takes more.
PATIENCE = float(os.environ.get("PATIENCE", "60"))
NEW_NUMBER = itertools.count(1).__next__


class Answer(NamedTuple):
    """What a manager has answered."""

    status: int
    phrase: str
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body's document."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """Why it refused."""
        return unquote(self.headers.get("Txcontain-Reason", ""))

    @property
    def notes(self) -> list[str]:
        """What a person should know of a success."""
        return [unquote(note) for note in self.headers.get_all("Txcontain-Note", [])]


def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Ask a manager; a body that is not bytes is sent as JSON, `_` in a header's name is `-`."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    try:
        return ask_on(connection, method, path, body, **headers)
    finally:
        connection.close()


def ask_on(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> Answer:
    """Ask a manager on a connection that is open already."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, data, named)
    answer = connection.getresponse()
    return Answer(answer.status, answer.reason, answer.headers, answer.read())


def free_port() -> int:
    """A TCP port that no one listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port: int) -> bool:
    """Whether someone answers on a TCP port of this host."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Return what `condition` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return value


def fingerprint(tree: Path) -> dict[str, tuple[Any, ...]]:
    """All that a file tree holds: names, owners, modes, times and contents."""
    return {str(path.relative_to(tree)): _facts(path) for path in sorted(tree.rglob("*"))}


def _facts(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    if path.is_symlink():
        content = os.readlink(path)
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content


def processes_of(folder: Path) -> Iterator[int]:
    """Those that name a folder in their command line, or have mounted something of it."""
    host = os.readlink("/proc/self/ns/mnt")
    for pid in all_processes():
        try:
            others = os.readlink(f"/proc/{pid}/ns/mnt") != host
            mounts = mounts_of(folder, f"/proc/{pid}/mountinfo") if others else []
            if mounts or str(folder) in _text(f"/proc/{pid}/cmdline"):
                yield pid
        except OSError:  # it has ended meanwhile
            continue


def all_processes() -> Iterator[int]:
    """The pids that there are."""
    return map(int, filter(str.isdecimal, os.listdir("/proc")))


def command_of(pid: int) -> list[str]:
    """The command line of a process; nothing if it has ended."""
    with contextlib.suppress(OSError):
        return _text(f"/proc/{pid}/cmdline").split("\0")[:-1]
    return []


def namespace_of(pid: int) -> str:
    """The mount namespace of a process; nothing if it has ended."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return ""


def mounts_of(folder: Path, mountinfo: str) -> list[str]:
    """The mounts that have to do with a folder; not what a test has mounted on that itself."""
    text = _text(mountinfo)
    if str(folder) not in text:  # as in nearly all: there may be a thousand of them
        return []
    lines = text.splitlines()
    return [line for line in lines if str(folder) in line and line.split()[4] != str(folder)]


def _text(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read().decode(errors="replace")


def text_of(file: Path) -> str:
    """What a file of /sys says; nothing if it has gone."""
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""


def is_prepared(folder: Path) -> bool:
    """Whether the folder is there that was made for an expected launch."""
    with contextlib.suppress(FileNotFoundError):
        return phase_of(folder) == Phase.PREPARED
    return False


def cgroups_of(state: Path) -> list[Path]:
    """The groups that the manager with this state folder has made for itself."""
    own = hashlib.sha256(os.path.realpath(state).encode()).hexdigest()[:8]
    return groups_at(f"txcontain/{own}")


def groups_at(path: str) -> list[Path]:
    """The groups that have this path, in all hierarchies."""
    tops = Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")  # version 2, and version 1
    return [group for top in tops if (group := top / path).is_dir()]


@needs_root
class ManagerCase(SynchronousTestCase):
    """A test with a manager of its own, which has to leave nothing behind.

    The manager's images are the small one of `tarballs`, as small.tar, and what a
    test adds by `image` and `mountable`.
    """

    pool = 0  # warm inits
    options: tuple[str, ...] = ()  # of the manager, beside those that every test needs
    base_image = "small.tar"
    twistd = TWISTD
    environment: Mapping[str, str] = {"PATH": os.defpath, "PYTHONPATH": str(PROJECT), **MEASURED}

    def setUp(self) -> None:
        """Start the manager."""
        self.have_host()
        self.folder = Path(tempfile.mkdtemp(prefix="txcontain-test-", dir=DISK))
        self.addCleanup(shutil.rmtree, self.folder)
        if on_overlay(self.folder):  # as where the tests themselves are in a container
            mount_memory(self.folder)
            self.addCleanup(unmount, self.folder)
        self.state = self.folder / "state"
        for name in ("base_images", "mountables"):
            (self.folder / name).mkdir()
        self.add_images()
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self.addCleanup(self.assert_nothing_left)
        self.start()

    def have_host(self) -> None:
        """Have a network namespace in the host's place, for the test and its manager."""
        have_host(self)

    def add_images(self) -> None:
        """Put the images in place that every test of this class needs."""
        self.image("small.tar")

    # -- the manager --------------------------------------------------------------

    def start(self, **environment: str) -> None:
        """Start the manager; it is stopped when the test ends."""
        arguments = f"-n --pidfile= containerd-lite --state {self.state} --pool {self.pool}"
        folders = ["--base-images", "base_images", "--mountables", "mountables"]
        self.log = open(self.folder / "manager.log", "ab")  # noqa: SIM115 (a cleanup closes it)
        self.addCleanup(self.log.close)
        self.manager = subprocess.Popen(
            [self.twistd, *arguments.split(), *folders, "--port", str(self.port), *self.options],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        self.addCleanup(self.stop)
        wait_until(self.answers, "the manager answers")

    def answers(self) -> bool:
        """Whether the manager answers already."""
        if self.manager.poll() is not None:
            log = (self.folder / "manager.log").read_text(errors="replace")
            self.fail(f"the manager has ended: {log[-2000:]}")
        with contextlib.suppress(OSError):  # it is about to end
            return listens(self.port) and self.ask("GET", "/list").status == 200
        return False

    def stop(self) -> None:
        """Destroy all containers and stop the manager."""
        if self.manager.poll() is not None:
            return
        try:
            self.assertEqual(self.inherited(), [])
            self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)
            # What a manager is removing when it ends, it leaves to the next one.
            half = "layers/*.unpacking"
            wait_until(lambda: not any(self.state.glob(half)), "no layer is half there")
        finally:
            self.manager.terminate()
            try:
                self.manager.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.manager.kill()
                self.manager.wait()
                raise

    def inherited(self) -> list[str]:
        """What a process that the manager spawns inherits beside what it is given."""
        folder, found = Path(f"/proc/{self.manager.pid}"), []
        for info in (folder / "fdinfo").iterdir():
            with contextlib.suppress(OSError):  # it is closed meanwhile
                flags = re.search("^flags:\t([0-7]+)$", info.read_text(), re.MULTILINE)
                if int(info.name) > 2 and not int((flags and flags[1]) or "0", 8) & os.O_CLOEXEC:
                    found.append(os.readlink(folder / "fd" / info.name))
        return found

    def assert_nothing_left(self) -> None:
        """Fail where anything of the containers is left, and end what runs of it."""
        try:
            wait_until(lambda: not self.what_is_left(), "nothing is left", PATIENCE)
        except AssertionError:
            left = self.what_is_left()
            for process in set(processes_of(self.folder)) - {self.manager.pid}:
                os.kill(process, signal.SIGKILL)
            self.fail(f"left behind: {left}")

    def assert_only_failures_left(self, *words: str) -> None:
        """Fail if more than records and logs of failed launches is left; then remove these.

        The records hold these words.
        """
        records = self.ask("GET", "/instances").json["instances"]
        folders = [self.state / "instances" / record["instance"] for record in records]
        for record, folder in zip(records, folders, strict=True):
            self.assertEqual(record["state"], "failed")
            self.assertEqual([w for w in words if w not in record["exit"]["reason"]], [])
            self.assertLessEqual(set(os.listdir(folder)), {"instance.json", "log"})

        def no_more_is_left() -> bool:
            return all(path in folders for path in self.what_is_left())

        wait_until(no_more_is_left, "no more is left than of failed launches", PATIENCE)
        self.ask("DELETE", "/destroyall")
        self.assert_nothing_left()

    def what_is_left(self) -> list[Any]:
        """The processes, mounts, cgroups and folders of containers that there are."""
        found = set(processes_of(self.folder))
        return [
            *(found and found - self.own_processes()),
            *mounts_of(self.folder, "/proc/self/mountinfo"),
            *self.cgroups_left(),
            *self.loop_devices(),
            *self.state.glob("instances/*"),
            *self.state.glob("instances/.*"),
            *self.state.glob("run/slots/*"),
            *self.state.glob("layers/*.unpacking"),
        ]

    def loop_devices(self) -> list[str]:
        """Which files in the state folder loop devices show."""
        files = [text_of(file) for file in Path("/sys/block").glob("loop*/loop/backing_file")]
        return [file for file in files if str(self.state) in file]

    def own_processes(self) -> set[int]:
        """The manager and, while it runs, the two of its log process."""
        if self.manager.poll() is not None:
            return {self.manager.pid}
        return {self.manager.pid, *self.log_processes()}

    def log_processes(self) -> list[int]:
        """The pids of the log process: of the server, and of its holder."""
        program = f"{self.state}/run/logd.pyc"
        return [pid for pid in all_processes() if program in command_of(pid)]

    def cgroups_left(self) -> list[Path]:
        """The groups of containers; once the manager has stopped, its own as well."""
        groups = cgroups_of(self.state)
        if self.manager.poll() is not None:
            return groups
        return [token for group in groups for token in group.glob("[0-9a-f]*/")]

    # -- asking it ----------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask the manager."""
        return ask(self.url, method, path, body, **headers)

    def config(self, **keys: Any) -> dict[str, Any]:
        """A config that is like no other."""
        unique = {"name": "test", "major": "1", "minor": str(NEW_NUMBER())}
        return {**unique, "base_image": self.base_image, **keys}

    def upload(self, **keys: Any) -> dict[str, str]:
        """Store a config; return what it can be launched by."""
        config = self.config(**keys)
        answer = self.ask("POST", "/config", config)
        self.assertEqual((answer.status, answer.body), (200, b""), answer.reason)
        return {key: config[key] for key in ("name", "major", "minor")}

    def try_to_launch(self, **keys: Any) -> Answer:
        """Store a config and ask for its launch."""
        return self.ask("POST", "/launch", self.upload(**keys))

    def launch(self, **keys: Any) -> str:
        """Launch a container of a new config; return the instance's name."""
        answer = self.try_to_launch(**keys)
        self.assertEqual(answer.status, 200, answer.reason)
        return answer.json["instance"]

    def running(self) -> list[str]:
        """The names of the instances that run."""
        return [record["instance"] for record in self.ask("GET", "/list").json["instances"]]

    def assert_refused(self, answer: Answer, status: int, *words: str) -> None:
        """Fail unless a request was refused with this status, an empty body and these reasons."""
        self.assertEqual((answer.status, answer.body), (status, b""), answer.reason)
        self.assertEqual(answer.headers.get("Content-Length", "0"), "0")
        for word in words:
            self.assertIn(word, answer.reason)

    # -- what containers are made of -------------------------------------------------

    def image(self, name: str, *members: Member) -> str:
        """Make a base image: the small one, and these members on top of it."""
        pack(self.folder / "base_images" / name, *small_image(), *members)
        return name

    def mountable(self, name: str, *members: Member) -> str:
        """Make a tarball that a config can mount."""
        pack(self.folder / "mountables" / name, *members)
        return name

    def job(self, text: str, **keys: Any) -> dict[str, Any]:
        """The keys of a config whose startup script is this text."""
        tarball = self.mountable(f"job{NEW_NUMBER()}.tar", script("run", text))
        mounts = [*keys.pop("mounts", []), f"{tarball} /job READ"]
        return {"mounts": mounts, "startup_script": "/job/run", **keys}

    def inside(self, text: str, **keys: Any) -> str:
        """Run a shell script in a container until it ends; return what it wrote to stdout."""
        return self.output_of(self.launch(**self.job(f"#!/bin/sh\n{text}\n", **keys)))

    def running_inside(self, text: str, **keys: Any) -> str:
        """Run a shell script in a container that goes on after it; return the instance's name."""
        instance = self.launch(**self.job(f"#!/bin/sh\n{text}\necho done; sleep 60\n", **keys))
        wait_until(lambda: self.log_of(instance).endswith("done\n"), "the script is done")
        return instance

    def output_of(self, instance: str) -> str:
        """What an instance has written to stdout, once it has ended."""
        self.assertEqual(self.ask("GET", f"/instances/{instance}/wait").status, 200)
        return self.log_of(instance)

    def log_of(self, instance: str) -> str:
        """What an instance has written to stdout up to now."""
        return self.ask("GET", f"/instances/{instance}/logs?stream=stdout").body.decode()


class SharedManagerCase(ManagerCase):
    """A test that has its manager from the one before it in its class, and leaves it as it was.

    So what ``setUp`` and ``add_images`` of ManagerCase do is done once for a class, on the first
    test's behalf by a `Keeper`. A manager that did not outlive a test, or still has something of
    it, is not handed on: it is ended, and then nothing may be left.
    """

    keeper: ClassVar[Keeper | None] = None

    def setUp(self) -> None:
        """Start the manager, unless the test before has left one."""
        if SharedManagerCase.keeper is None or SharedManagerCase.keeper.of is not type(self):
            end_shared()
            SharedManagerCase.keeper = Keeper(self)
        vars(self).update(SharedManagerCase.keeper.made)
        have_host(self, SharedManagerCase.keeper.host)
        self.addCleanup(self.hand_back)

    def begin(self) -> None:
        """Start the manager for all tests of the class."""
        super().setUp()

    def hand_back(self) -> None:
        """Leave the manager to the next test, or end it."""
        is_clean = False
        try:
            if self.manager.poll() is None:
                self.forget()
                is_clean = self.leaves_nothing()
        finally:
            if not is_clean:
                end_shared()

    def leaves_nothing(self) -> bool:
        """Whether nothing is left soon."""
        with contextlib.suppress(AssertionError):
            return bool(wait_until(lambda: not self.what_is_left(), "nothing is left", 5))
        return False

    def own_processes(self) -> set[int]:
        """The manager's, and the inits that wait for the next exec, for a minute."""
        own, program = os.readlink("/proc/self/ns/mnt"), f"{self.state}/run/init.pyc"
        inits = [pid for pid in all_processes() if program in command_of(pid)]
        waiting = [pid for pid in inits if namespace_of(pid) == own]
        return super().own_processes() | set(waiting[:MOST_WARM])

    def forget(self) -> None:
        """Destroy what the test has launched."""
        self.assertEqual(self.ask("DELETE", "/destroyall").status, 200)


class Keeper:
    """Has made what the tests of a class share, and ends it."""

    def __init__(self, test: SharedManagerCase) -> None:
        """Make it, for a test and those after it."""
        self.of = type(test)
        first = self.of(test._testMethodName)
        own = set(vars(first))
        with contextlib.ExitStack() as made:
            vars(first)["addCleanup"] = made.callback
            first.begin()
            self.host = os.open(OWN, os.O_RDONLY)
            made.callback(os.close, self.host)
            self.end = made.pop_all().close
        self.made = {name: value for name, value in vars(first).items() if name not in own}
        del self.made["addCleanup"]


def end_shared() -> None:
    """End the manager that the tests of a class have shared."""
    keeper, SharedManagerCase.keeper = SharedManagerCase.keeper, None
    if keeper is not None:
        enter_network(keeper.host)
        keeper.end()


atexit.register(end_shared)
